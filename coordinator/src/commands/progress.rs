//! Live progress of a sweep: what is done, what each worker is at, how long it will take.
//!
//! On a terminal it is a bar and a line for each worker, redrawn in place; in a pipe or a log a
//! plain line every few seconds. Both go to standard error.

use crate::commands::forecast::EVAL_COST;
use futures::{StreamExt as _, TryStreamExt as _};
use halfheard_shared::{
    broker::{Broker, HEARTBEAT_TTL},
    ids::SweepId,
    wire::{Doing, Heartbeat},
};
use halfheard_store::{Store, StoreError, status::SweepProgress, sweeps::Progress};
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::{
    io::IsTerminal as _,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

/// How often a plain line is written, at most.
const LINE_EVERY: Duration = Duration::from_secs(5);
/// The share of the work that must be seen before a time is told.
const ENOUGH: f64 = 0.02;

/// Where a sweep stands at one moment.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// Jobs by state.
    pub progress: Progress,
    /// Trainings done.
    pub train_done: i64,
    /// All trainings.
    pub train_jobs: i64,
    /// Evaluations done.
    pub eval_done: i64,
    /// All evaluations.
    pub eval_jobs: i64,
    /// Living workers, by name.
    pub workers: Vec<Heartbeat>,
}

impl Snapshot {
    /// Looks at the sweep. A broker that does not answer leaves the workers out.
    ///
    /// # Errors
    ///
    /// The database cannot be read.
    pub async fn take(
        store: &Store,
        broker: Option<&Broker>,
        sweep: SweepId,
    ) -> Result<Self, StoreError> {
        let SweepProgress {
            progress,
            train_jobs,
            train_done,
            eval_jobs,
            eval_done,
        } = store.sweep_progress(sweep).await?;
        let workers = match broker {
            Some(broker) => living(broker).await,
            None => Vec::new(),
        };
        Ok(Self {
            progress,
            train_done,
            train_jobs,
            eval_done,
            eval_jobs,
            workers,
        })
    }

    /// Work done and all work, in trainings. Jobs that failed or were cancelled are behind us.
    fn work(&self, sweep: SweepId) -> (f64, f64) {
        let open = self.progress.open() as f64;
        let (trains, evals) = (self.train_jobs as f64, self.eval_jobs as f64);
        let all = trains + evals * EVAL_COST;
        if open == 0.0 {
            return (all, all);
        }
        let done = self.train_done as f64 + self.eval_done as f64 * EVAL_COST + self.in_hand(sweep);
        (done.min(all), all)
    }

    /// How much of trainings is done that are not finished, in trainings.
    pub fn in_hand(&self, sweep: SweepId) -> f64 {
        self.workers
            .iter()
            .filter_map(|worker| worker.doing.as_ref())
            .filter(|doing| doing.sweep == sweep)
            .map(share_of_training)
            .sum()
    }
}

/// How much of a training is done, 0 to 1.
fn share_of_training(doing: &Doing) -> f64 {
    if doing.max_epochs == 0 || doing.epoch == 0 {
        return 0.0;
    }
    let within = f64::from(doing.step) / f64::from(doing.steps.max(1));
    ((f64::from(doing.epoch - 1) + within) / f64::from(doing.max_epochs)).clamp(0.0, 1.0)
}

/// Workers whose heartbeat stands, by name.
pub async fn living(broker: &Broker) -> Vec<Heartbeat> {
    let read = async {
        let bucket = broker.workers().await.ok()?;
        let keys: Vec<String> = bucket.keys().await.ok()?.try_collect().await.ok()?;
        let beats: Vec<Heartbeat> = futures::stream::iter(keys)
            .map(|key| {
                let bucket = bucket.clone();
                async move { bucket.get(key).await.ok().flatten() }
            })
            .buffered(16)
            .filter_map(|bytes| async move { serde_json::from_slice(&bytes?).ok() })
            .collect()
            .await;
        Some(beats)
    };
    // A broker that is away must not stop the clock.
    let answer = tokio::time::timeout(Duration::from_secs(2), read).await;
    let mut beats = answer.ok().flatten().unwrap_or_default();
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    // The broker forgets old ones only now and then.
    beats.retain(|beat| now.saturating_sub(Duration::from_millis(beat.at_ms)) < 2 * HEARTBEAT_TTL);
    beats.sort_by(|a, b| a.worker.name.cmp(&b.worker.name));
    beats
}

/// What a worker is doing and, if anything is wrong with it, what: in one line.
pub fn describe_worker(worker: &Heartbeat) -> String {
    let Some(trouble) = &worker.trouble else {
        return describe(worker.doing.as_ref());
    };
    let mut text = match (&worker.doing, trouble.sits_out) {
        (Some(doing), _) => format!("{}; ", describe(Some(doing))),
        (None, true) => "sits out: ".to_owned(),
        (None, false) => "idle; ".to_owned(),
    };
    // Workers' words must not steer the terminal.
    text.extend(trouble.fault.to_string().chars().map(|c| match c {
        c if c.is_control() => ' ',
        c => c,
    }));
    // Both by the worker's own clock, which need not be ours.
    let ago = Duration::from_millis(worker.at_ms.saturating_sub(trouble.since_ms));
    text.push_str(&format!(" (for {}", in_words(ago)));
    if let Some(next) = trouble.next_try_ms {
        let until = Duration::from_millis(next.saturating_sub(worker.at_ms));
        text.push_str(&format!(", tries again in {}", in_words(until)));
    }
    text.push(')');
    text
}

/// What a worker is doing, in a few words.
pub fn describe(doing: Option<&Doing>) -> String {
    let Some(doing) = doing else {
        return "idle".to_owned();
    };
    let mut text = doing.what.clone();
    if doing.cases > 0 {
        text.push_str(&format!(", case {} of {}", doing.case, doing.cases));
        if doing.steps > 0 {
            text.push_str(&format!(", batch {} of {}", doing.step, doing.steps));
        }
    }
    if doing.epoch > 0 {
        text.push_str(&format!(", epoch {}/{}", doing.epoch, doing.max_epochs));
        if doing.steps > 0 {
            text.push_str(&format!(", step {}/{}", doing.step, doing.steps));
        }
    }
    if let Some(loss) = doing.loss {
        text.push_str(&format!(", loss {loss:.4}"));
    }
    text
}

/// A time in one or two units: `4 min 10 s`.
pub fn in_words(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min {} s", seconds / 60, seconds % 60),
        3600..86_400 => format!("{} h {} min", seconds / 3600, seconds % 3600 / 60),
        _ => format!("{} d {} h", seconds / 86_400, seconds % 86_400 / 3600),
    }
}

/// Guesses how long it will take, from the pace since it first looked.
#[derive(Debug)]
pub struct Pace {
    sweep: SweepId,
    began: Option<(Instant, f64)>,
}

impl Pace {
    /// A pace of `sweep`.
    pub fn new(sweep: SweepId) -> Self {
        Self { sweep, began: None }
    }

    /// The time that is left, once there is enough to tell.
    pub fn left(&mut self, snapshot: &Snapshot) -> Option<Duration> {
        self.left_at(snapshot, Instant::now())
    }

    fn left_at(&mut self, snapshot: &Snapshot, now: Instant) -> Option<Duration> {
        let (done, all) = snapshot.work(self.sweep);
        let (began, before) = *self.began.get_or_insert((now, done));
        let since = done - before;
        if all <= done || since < ENOUGH * (all - before) {
            return None;
        }
        let elapsed = now.duration_since(began).as_secs_f64();
        Duration::try_from_secs_f64(elapsed * (all - done) / since).ok()
    }
}

/// Shows snapshots as they come.
#[derive(Debug)]
pub struct Display {
    pace: Pace,
    form: Form,
}

#[derive(Debug)]
enum Form {
    Silent,
    Lines {
        last: Option<Instant>,
        said: String,
    },
    Bars {
        all: MultiProgress,
        jobs: ProgressBar,
        workers: Vec<ProgressBar>,
    },
}

impl Display {
    /// A display of `sweep` on standard error: bars on a terminal, lines elsewhere.
    pub fn new(sweep: SweepId) -> Self {
        let form = if std::io::stderr().is_terminal() {
            let all = MultiProgress::with_draw_target(ProgressDrawTarget::stderr());
            let jobs = all.add(ProgressBar::new(0));
            jobs.set_style(style("{bar:30} {pos}/{len} jobs · {msg}"));
            Form::Bars {
                all,
                jobs,
                workers: Vec::new(),
            }
        } else {
            Form::Lines {
                last: None,
                said: String::new(),
            }
        };
        Self {
            pace: Pace::new(sweep),
            form,
        }
    }

    /// One that shows nothing.
    pub fn silent(sweep: SweepId) -> Self {
        Self {
            pace: Pace::new(sweep),
            form: Form::Silent,
        }
    }

    /// Shows a snapshot, with what is known of the time left; the pace since the display began tells
    /// it where nothing else does.
    pub fn show(&mut self, snapshot: &Snapshot, left: Option<Duration>) {
        let pace = self.pace.left(snapshot);
        let left = left.or(pace);
        match &mut self.form {
            Form::Silent => {}
            Form::Lines { last, said } => {
                let due = last.is_none_or(|last| last.elapsed() >= LINE_EVERY);
                let line = line(snapshot, left);
                // The same again says nothing.
                if due && line != *said {
                    eprintln!("{line}");
                    *last = Some(Instant::now());
                    *said = line;
                }
            }
            Form::Bars { all, jobs, workers } => {
                jobs.set_length(snapshot.progress.total().cast_unsigned());
                jobs.set_position(
                    (snapshot.progress.done + snapshot.progress.failed).cast_unsigned(),
                );
                jobs.set_message(counts(snapshot, left));
                while workers.len() < snapshot.workers.len() {
                    let bar = all.add(ProgressBar::new_spinner());
                    bar.set_style(style("  {msg}"));
                    workers.push(bar);
                }
                for (bar, worker) in workers.iter().zip(&snapshot.workers) {
                    let doing = describe_worker(worker);
                    bar.set_message(format!("{}: {doing}", worker.worker.name));
                }
                for bar in workers.drain(snapshot.workers.len()..) {
                    bar.finish_and_clear();
                }
            }
        }
    }

    /// Says a line above the bars.
    pub fn say(&self, text: &str) {
        match &self.form {
            Form::Silent => {}
            Form::Lines { .. } => eprintln!("{text}"),
            Form::Bars { all, .. } => {
                // Fails only where standard error is gone.
                let _ = all.println(text);
            }
        }
    }

    /// Takes the bars away.
    pub fn clear(&self) {
        if let Form::Bars { all, .. } = &self.form {
            let _ = all.clear();
        }
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

fn counts(snapshot: &Snapshot, left: Option<Duration>) -> String {
    let Snapshot { progress, .. } = snapshot;
    let mut parts = vec![format!("{} running", progress.running)];
    parts.push(format!("{} failed", progress.failed));
    if snapshot.train_jobs > 0 {
        parts.push(format!(
            "trained {}/{}",
            snapshot.train_done, snapshot.train_jobs
        ));
    }
    if snapshot.eval_jobs > 0 {
        parts.push(format!(
            "evaluated {}/{}",
            snapshot.eval_done, snapshot.eval_jobs
        ));
    }
    if let Some(left) = left {
        parts.push(format!("about {} left", in_words(left)));
    }
    parts.join(", ")
}

fn line(snapshot: &Snapshot, left: Option<Duration>) -> String {
    let done = snapshot.progress.done;
    let mut line = format!(
        "{done}/{} jobs done, {}",
        snapshot.progress.total(),
        counts(snapshot, left)
    );
    for worker in &snapshot.workers {
        if worker.doing.is_some() || worker.trouble.is_some() {
            line.push_str(&format!(
                " | {}: {}",
                worker.worker.name,
                describe_worker(worker)
            ));
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use halfheard_shared::{
        ids::JobId,
        wire::{Fault, FaultKind, Trouble, WorkerInfo},
    };

    fn snapshot(sweep: SweepId, train_done: i64, eval_done: i64, epoch: u32) -> Snapshot {
        let doing = Doing {
            sweep,
            job: JobId::derive(&[b"x"]),
            what: "train lnln on mosi, seed 1111".into(),
            epoch,
            max_epochs: 10,
            step: 2,
            steps: 4,
            loss: Some(0.512_34),
            case: 0,
            cases: 0,
        };
        Snapshot {
            progress: Progress {
                blocked: 132 - eval_done,
                running: 2 - train_done,
                done: train_done + eval_done,
                ..Progress::default()
            },
            train_done,
            train_jobs: 4,
            eval_done,
            eval_jobs: 128,
            workers: vec![Heartbeat {
                worker: WorkerInfo {
                    name: "w0".into(),
                    host: "h".into(),
                    device: "cpu".into(),
                    version: "0".into(),
                    processor: String::new(),
                },
                pid: 1,
                at_ms: 0,
                memory_bytes: 0,
                doing: (epoch > 0).then_some(doing),
                trouble: None,
            }],
        }
    }

    #[test]
    fn the_time_left_follows_the_pace() {
        let sweep = SweepId::derive(&[b"x"]);
        let mut pace = Pace::new(sweep);
        let began = Instant::now();
        assert_eq!(pace.left_at(&snapshot(sweep, 0, 0, 0), began), None);
        // One of four trainings and half of another; evaluations count as two trainings in all.
        let later = began + Duration::from_secs(30);
        let left = pace.left_at(&snapshot(sweep, 1, 0, 5), later).unwrap();
        // 1.45 of 6 in 30 s: 94 s for the rest.
        assert_eq!(left.as_secs(), 94);
        assert_eq!(pace.left_at(&snapshot(sweep, 4, 128, 0), later), None);
    }

    #[test]
    fn a_line_says_what_is_wrong_with_a_worker() {
        let sweep = SweepId::derive(&[b"x"]);
        let mut snapshot = snapshot(sweep, 1, 3, 0);
        let worker = &mut snapshot.workers[0];
        worker.at_ms = 1_000_000;
        worker.trouble = Some(Trouble {
            fault: Fault::new(
                FaultKind::Dataset,
                "dataset mosi",
                vec!["it is\x1bnowhere".into()],
            ),
            since_ms: 1_000_000 - 65_000,
            times: 2,
            next_try_ms: Some(1_020_000),
            sits_out: true,
        });
        assert!(line(&snapshot, None).ends_with(
            " | w0: sits out: cannot read dataset mosi: it is nowhere (for 1 min 5 s, tries again in 20 s)"
        ));
        snapshot.workers[0].doing = Some(Doing {
            sweep,
            job: JobId::derive(&[b"x"]),
            what: "evaluate lnln on mosi, seed 1".into(),
            epoch: 0,
            max_epochs: 0,
            step: 3,
            steps: 12,
            loss: None,
            case: 2,
            cases: 16,
        });
        snapshot.workers[0].trouble = None;
        assert!(
            line(&snapshot, None)
                .ends_with(" | w0: evaluate lnln on mosi, seed 1, case 2 of 16, batch 3 of 12")
        );
    }

    #[test]
    fn a_line_says_what_goes_on() {
        let sweep = SweepId::derive(&[b"x"]);
        let line = line(&snapshot(sweep, 1, 3, 5), Some(Duration::from_secs(94)));
        assert_eq!(
            line,
            "4/134 jobs done, 1 running, 0 failed, trained 1/4, evaluated 3/128, about 1 min 34 s left \
             | w0: train lnln on mosi, seed 1111, epoch 5/10, step 2/4, loss 0.5123"
        );
    }
}
