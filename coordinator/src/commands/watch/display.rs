//! Live progress of a sweep on standard error: on a terminal a bar and a line per worker, redrawn in
//! place; in a pipe or a log, one line every few seconds.

use crate::output::note;
use halfheard_progress::{Pace, Snapshot, describe_worker, format_duration};
use halfheard_shared::{
    ids::SweepId,
    text::{plain, printable},
};
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::{
    io::IsTerminal as _,
    time::{Duration, Instant},
};

/// The minimum interval between lines.
const LINE_EVERY: Duration = Duration::from_secs(5);

/// Shows snapshots.
#[derive(Debug)]
pub(crate) struct Display {
    pace: Pace,
    form: Form,
}

#[derive(Debug)]
enum Form {
    Silent,
    Lines {
        at: Option<Instant>,
        last: String,
    },
    Bars {
        all: MultiProgress,
        jobs: ProgressBar,
        workers: Vec<ProgressBar>,
        /// What stands below.
        below: Vec<ProgressBar>,
    },
}

impl Display {
    /// A display of `sweep`.
    pub(crate) fn new(sweep: SweepId) -> Self {
        let form = if std::io::stderr().is_terminal() {
            let all = MultiProgress::with_draw_target(ProgressDrawTarget::stderr());
            let jobs = all.add(ProgressBar::new(0));
            jobs.set_style(style("{bar:30} {pos}/{len} jobs · {msg}"));
            Form::Bars {
                all,
                jobs,
                workers: Vec::new(),
                below: Vec::new(),
            }
        } else {
            Form::Lines {
                at: None,
                last: String::new(),
            }
        };
        Self {
            pace: Pace::new(sweep),
            form,
        }
    }

    /// A display that shows nothing.
    pub(crate) fn silent(sweep: SweepId) -> Self {
        Self {
            pace: Pace::new(sweep),
            form: Form::Silent,
        }
    }

    /// Shows a snapshot. Without a forecast, the time left is estimated from the pace.
    pub(crate) fn show(&mut self, snapshot: &Snapshot, left: Option<Duration>) {
        let pace = self.pace.left(snapshot);
        let left = left.or(pace);
        match &mut self.form {
            Form::Silent => {}
            Form::Lines { at, last } => {
                let due = at.is_none_or(|at| at.elapsed() >= LINE_EVERY);
                let line = line(snapshot, left);
                if due && line != *last {
                    note(&line);
                    *at = Some(Instant::now());
                    *last = line;
                }
            }
            Form::Bars {
                all,
                jobs,
                workers,
                below,
            } => {
                jobs.set_length(snapshot.progress.total().cast_unsigned());
                jobs.set_position(
                    (snapshot.progress.done + snapshot.progress.failed).cast_unsigned(),
                );
                jobs.set_message(counts(snapshot, left));
                while workers.len() < snapshot.workers.len() {
                    let bar = ProgressBar::new_spinner();
                    let bar = match below.first() {
                        Some(first) => all.insert_before(first, bar),
                        None => all.add(bar),
                    };
                    bar.set_style(style("  {msg}"));
                    workers.push(bar);
                }
                for (bar, worker) in workers.iter().zip(&snapshot.workers) {
                    let doing = describe_worker(worker);
                    bar.set_message(plain(&format!("{}: {doing}", worker.worker.name)));
                }
                for bar in workers.drain(snapshot.workers.len()..) {
                    bar.finish_and_clear();
                }
            }
        }
    }

    /// Whether it is redrawn in place, so that lines may stand below it.
    pub(crate) fn has_room_below(&self) -> bool {
        matches!(self.form, Form::Bars { .. })
    }

    /// Shows lines below the bars, instead of those that stood there.
    pub(crate) fn show_below(&mut self, lines: &[String]) {
        let Form::Bars { all, below, .. } = &mut self.form else {
            return;
        };
        while below.len() < lines.len() {
            let bar = all.add(ProgressBar::new_spinner());
            bar.set_style(style("{msg}"));
            below.push(bar);
        }
        for (bar, line) in below.iter().zip(lines) {
            bar.set_message(plain(line));
        }
        for bar in below.drain(lines.len()..) {
            bar.finish_and_clear();
        }
    }

    /// Writes a line, above the bars.
    pub(crate) fn note(&self, text: &str) {
        match &self.form {
            Form::Silent => {}
            Form::Lines { .. } => note(text),
            Form::Bars { all, .. } => {
                // Fails only if standard error is closed.
                let _ = all.println(printable(text));
            }
        }
    }

    /// Removes the bars.
    pub(crate) fn clear(&self) {
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
        parts.push(format!("about {} left", format_duration(left)));
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
mod tests;
