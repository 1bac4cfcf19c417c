//! A campaign from its beginning to its verdict.

use crate::{
    apply::apply,
    clock,
    cluster::{Cluster, Ground, Programs},
    fault::{Fault, Need},
    figures::{Figures, Made},
    heartbeats::Heartbeats,
    journal::{Journal, Replay},
    monitor::{self, Progress},
    network::Network,
    options::Options,
    plan, sandbox,
    verdict::{content, differences, problems},
    work::Work,
};
use anyhow::{Context as _, Result, ensure};
use serde_json::json;
use std::{
    fs,
    path::{Path, PathBuf},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// How long a sweep may wait for its acceptance when nothing disturbs.
const SUBMISSION: Duration = Duration::from_secs(120);

/// What is to be done, drawn or read.
struct Schedule {
    seed: u32,
    seconds: f64,
    faults: Vec<Fault>,
}

impl Schedule {
    fn of(options: &Options) -> Result<Self> {
        if let Some(path) = &options.replay {
            let Replay {
                seed,
                seconds,
                faults,
            } = Replay::read(path)?;
            return Ok(Self {
                seed,
                seconds,
                faults,
            });
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
        let seed = options.seed.unwrap_or(now as u32);
        let seconds = options.minutes * 60.0;
        ensure!(seconds >= 10.0, "a campaign takes at least 10 seconds");
        Ok(Self {
            seed,
            seconds,
            faults: plan::plan(seed, seconds),
        })
    }
}

/// Runs a campaign. Returns what is wrong; nothing if all is well.
///
/// # Errors
///
/// It cannot be run, or does not come to an end.
pub fn run(options: &Options) -> Result<Vec<String>> {
    let allowed = sandbox::look();
    for what in &allowed.left_out {
        println!("left out: {what}");
    }
    ensure!(
        !options.complete || allowed.left_out.is_empty(),
        "something is left out"
    );
    let schedule = Schedule::of(options)?;
    fs::create_dir_all(&options.out)?;
    let out = options.out.canonicalize()?;
    let folder = match &options.programs {
        Some(folder) => folder.canonicalize()?,
        None => {
            let this = std::env::current_exe()?;
            this.parent()
                .context("a program without a folder")?
                .to_owned()
        }
    };
    let ground = Ground {
        programs: Programs::find(&folder)?,
        network: allowed
            .has(Need::Network)
            .then(Network::start)
            .transpose()?,
        allowed,
    };
    // Servers of another user must be able to enter it.
    let root = tempfile::Builder::new().prefix("campaign-").tempdir()?;
    let library = match ground.allowed.has(Need::Clocks) {
        true => Some(clock::compile(root.path())?),
        false => None,
    };
    open_to_all(root.path())?;
    let run = Run {
        options,
        ground,
        library,
        root: root.path().to_owned(),
        out,
    };
    run.all(schedule)
}

fn open_to_all(folder: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    Ok(fs::set_permissions(
        folder,
        fs::Permissions::from_mode(0o755),
    )?)
}

struct Run<'a> {
    options: &'a Options,
    ground: Ground,
    library: Option<PathBuf>,
    root: PathBuf,
    out: PathBuf,
}

impl Run<'_> {
    fn patience(&self) -> Duration {
        Duration::from_secs_f64(self.options.patience * 60.0)
    }

    fn all(&self, schedule: Schedule) -> Result<Vec<String>> {
        let (work, disturbed, mut wrong) = self.disturbed(&schedule)?;
        let calm = self.calm(&work)?;
        fs::write(self.out.join("disturbed.txt"), &disturbed)?;
        fs::write(self.out.join("calm.txt"), &calm)?;
        if disturbed != calm {
            let lines = differences(&calm, &disturbed).join("\n    ");
            wrong.push(format!(
                "the tables differ from the undisturbed run:\n    {lines}"
            ));
        }
        let verdict =
            json!({ "seed": schedule.seed, "seconds": schedule.seconds, "problems": wrong });
        fs::write(self.out.join("verdict.json"), verdict.to_string())?;
        Ok(wrong)
    }

    /// The run with faults: its content and what is wrong with it.
    fn disturbed(&self, schedule: &Schedule) -> Result<(Work, String, Vec<String>)> {
        let root = self.root.join("disturbed");
        let cluster = Cluster::make(&self.ground, &root, self.library.as_deref())?;
        Work::prepare(&cluster)?;
        let path = self.out.join("campaign.jsonl");
        let journal = Journal::create(&path)?;
        let facts = json!({
            "seed": schedule.seed, "seconds": schedule.seconds, "planned": schedule.faults.len(),
            "left_out": self.ground.allowed.left_out,
        });
        journal.write("campaign", facts);
        println!(
            "campaign: seed {}, {} s, {} faults planned; log: {}",
            schedule.seed,
            schedule.seconds,
            schedule.faults.len(),
            path.display()
        );
        let result = self.under_fire(&cluster, &journal, schedule);
        self.keep_logs(&cluster)?;
        result
    }

    fn under_fire(
        &self,
        cluster: &Cluster,
        journal: &Journal,
        schedule: &Schedule,
    ) -> Result<(Work, String, Vec<String>)> {
        let work = Mutex::new(Work::default());
        lock(&work).submit(cluster, journal, SUBMISSION)?;
        cluster.start_programs()?;
        journal.begin();
        let faults = plan::allowed(schedule.faults.clone(), |need| {
            self.ground.allowed.has(need)
        });
        let (progress, stop) = (Progress::default(), AtomicBool::new(false));
        let heartbeats = Heartbeats::default();
        let namespace = self.ground.network.as_ref().map(|_| "op");
        let (made, outcome) = thread::scope(|scope| {
            scope.spawn(|| progress.watch(cluster, journal, &stop));
            scope.spawn(|| heartbeats.listen(&cluster.broker_address, namespace, &stop));
            let feeder = scope.spawn(|| progress.feed(cluster, journal, &work, schedule.seconds));
            let made = make_all(cluster, journal, faults);
            let fed = feeder.join();
            journal.write("healed", json!({}));
            let dump = self.out.join("stuck.txt");
            let outcome = monitor::finish(cluster, journal, self.patience(), &dump);
            stop.store(true, Ordering::Relaxed);
            let fed = fed.unwrap_or_else(|_| Err(anyhow::anyhow!("the submitter panicked")));
            (made, fed.and(outcome))
        });
        outcome?;
        let work = lock(&work).clone();
        let wrong = problems(cluster, work.jobs())?;
        let content = content(cluster, work.sweeps)?;
        let figures = Figures::of(&made, &progress, &heartbeats, cluster)?;
        fs::write(self.out.join("figures.json"), figures.json().to_string())?;
        println!("{}", figures.text());
        cluster.stop()?;
        Ok((work, content, wrong))
    }

    /// The same sweeps without faults.
    fn calm(&self, work: &Work) -> Result<String> {
        let root = self.root.join("calm");
        let cluster = Cluster::make(&self.ground, &root, None)?;
        Work::prepare(&cluster)?;
        let journal = Journal::create(&self.out.join("calm.jsonl"))?;
        let mut again = Work::default();
        while again.sweeps < work.sweeps {
            again.submit(&cluster, &journal, SUBMISSION)?;
        }
        cluster.start_programs()?;
        let dump = self.out.join("stuck.txt");
        monitor::finish(&cluster, &journal, self.patience(), &dump)?;
        let content = content(&cluster, again.sweeps)?;
        cluster.stop()?;
        Ok(content)
    }

    /// Copies the programs' logs beside the campaign's own.
    fn keep_logs(&self, cluster: &Cluster) -> Result<()> {
        let folder = self.out.join("logs");
        fs::create_dir_all(&folder)?;
        for entry in fs::read_dir(&cluster.folders.logs)? {
            let entry = entry?;
            fs::copy(entry.path(), folder.join(entry.file_name()))?;
        }
        Ok(())
    }
}

fn lock(work: &Mutex<Work>) -> std::sync::MutexGuard<'_, Work> {
    work.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Makes each fault at its time; waits until all are over.
fn make_all(cluster: &Cluster, journal: &Journal, faults: Vec<Fault>) -> Vec<Made> {
    let made = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for fault in faults {
            let wait = fault.at - journal.now();
            if wait > 0.0 {
                thread::sleep(Duration::from_secs_f64(wait));
            }
            let made = &made;
            scope.spawn(move || {
                journal.write(
                    "begin",
                    json!({ "id": fault.id, "kind": fault.what.kind() }),
                );
                let missed = apply(cluster, &fault).err();
                let missed = missed.map(|error| format!("{error:#}"));
                let what = if missed.is_some() { "missed" } else { "fault" };
                journal.write(what, json!({ "fault": fault, "why": missed }));
                let made_one = Made {
                    fault,
                    ended: journal.now(),
                    missed,
                };
                let mut made = made.lock().unwrap_or_else(PoisonError::into_inner);
                made.push(made_one);
            });
        }
    });
    made.into_inner().unwrap_or_else(PoisonError::into_inner)
}
