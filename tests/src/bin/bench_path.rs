//! Measures the path of a job: no-op jobs from submission to their row in Postgres, by one and by four
//! `worker` programs, and by as many scripted workers, which do nothing but answer; and beside it what its
//! parts do alone on the same machine, so that the figures mean something elsewhere.
//!
//! Every commit waits for the disk (`fsync` is on). The broker writes messages to its file at once and asks the
//! system to flush it every two minutes, its default: a power cut may take messages of these minutes, whose
//! jobs are granted again when their leases end; a killed process takes none.

use anyhow::{Result, ensure};
use clap::{Parser, Subcommand};
use halfheard_coordinator::orchestrator::options::ServeOptions;
use halfheard_e2e::{
    process::tree_seconds,
    programs,
    stage::Stage,
    sweeps::{noops, sweep},
    worker::ScriptedWorker,
};
use halfheard_shared::{
    broker::BrokerSettings,
    ids::{AttemptId, JobId},
    wire::{ResultBody, ResultMessage, WorkerInfo},
};
use std::{
    num::NonZeroU64,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

/// Measure no-op jobs a second, from submission to their row in Postgres
///
/// By one and by four `worker` programs, and by as many processes that do nothing but answer; before them, what the
/// parts do alone on the same machine. Every commit waits for the disk.
#[derive(Parser)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "Examples:\n  bench_path\n  bench_path 100000"
)]
struct Options {
    /// How many jobs are done in each measurement
    #[arg(default_value = "20000")]
    jobs: NonZeroU64,
    #[command(subcommand)]
    process: Option<Scripted>,
}

/// The process that this program starts beside itself.
#[derive(Subcommand)]
enum Scripted {
    /// A worker that takes no-op jobs until it is killed
    #[command(hide = true)]
    Work { broker: String },
}

#[tokio::main]
async fn main() -> Result<()> {
    let options = Options::parse();
    match options.process {
        Some(Scripted::Work { broker }) => work(&broker).await,
        None => bench(options.jobs.get()).await,
    }
}

/// What is aimed at: jobs a second from submission to their rows.
const AIM: f64 = 3000.0;

/// A worker process: takes no-op jobs until it is killed.
async fn work(url: &str) -> Result<()> {
    let broker = BrokerSettings::at(url).connect_with_retry().await?;
    let _worker = ScriptedWorker::completing(&broker, &format!("bench-{}", std::process::id()));
    std::future::pending::<()>().await;
    Ok(())
}

async fn bench(jobs: u64) -> Result<()> {
    machine();
    parts(jobs).await?;
    for kind in [Kind::Program, Kind::Scripted] {
        for workers in [1, 4] {
            path(jobs, workers, kind).await?;
        }
    }
    Ok(())
}

/// Who does the jobs.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// The program `worker`, as it is shipped.
    Program,
    /// A process that answers as a worker does.
    Scripted,
}

fn machine() {
    let model = std::fs::read_to_string("/proc/cpuinfo")
        .ok()
        .and_then(|info| {
            info.lines()
                .find_map(|line| line.strip_prefix("model name")?.split_once(": "))
                .map(|(_, model)| model.to_owned())
        })
        .unwrap_or_else(|| "unknown processor".to_owned());
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let profile = if cfg!(debug_assertions) {
        "debug build: the figures mean little"
    } else {
        "release build"
    };
    println!("machine: {model}, {cores} cores, {profile}");
}

/// Prints how many there were in a second, and returns it.
fn rate(what: &str, count: u64, since: Instant) -> f64 {
    let seconds = since.elapsed().as_secs_f64();
    let rate = count as f64 / seconds;
    println!("{what:<58} {rate:>9.0} a second  ({count} in {seconds:.2} s)");
    rate
}

/// Processor seconds of everything that takes part.
#[derive(Clone, Copy, Default)]
struct Shares {
    /// With this bench, which waits.
    coordinator: f64,
    database: f64,
    broker: f64,
    workers: f64,
}

impl Shares {
    fn now(stage: &Stage, workers: &Workers) -> Self {
        let of = |process: Option<u32>| process.map_or(0.0, tree_seconds);
        let workers: f64 = workers.0.iter().map(|child| tree_seconds(child.id())).sum();
        let (database, broker) = (of(stage.postgres.process()), of(stage.nats.process()));
        // Servers and workers are children of this process.
        let all = tree_seconds(std::process::id());
        Self {
            coordinator: all - database - broker - workers,
            database,
            broker,
            workers,
        }
    }

    /// Prints what a job took since then, in microseconds of a processor, and how many jobs a second that makes where
    /// workers have processors of their own.
    fn print_since(self, before: Self, jobs: u64, seconds: f64) {
        let each = |now: f64, before: f64| (now - before) * 1e6 / jobs as f64;
        let coordinator = each(self.coordinator, before.coordinator);
        let database = each(self.database, before.database);
        let broker = each(self.broker, before.broker);
        let workers = each(self.workers, before.workers);
        let cores = std::thread::available_parallelism().map_or(1, usize::from) as f64;
        let central = coordinator + database + broker;
        let busy = (central + workers) * jobs as f64 / 1e6 / seconds / cores;
        println!(
            "    microseconds of a processor a job: coordinator {coordinator:.0}, database {database:.0}, broker {broker:.0}, \
             workers {workers:.0}; {:.0} % of {cores} cores busy; without the workers' share the cores do {:.0} a second",
            busy * 100.0,
            cores * 1e6 / central
        );
    }
}

/// What the parts do alone.
async fn parts(jobs: u64) -> Result<()> {
    let stage = Stage::start_synced().await?;
    let sweep = sweep("parts", 0);
    let job = |number: u64| JobId::derive(&[&number.to_le_bytes()]);
    let report = |number: u64, salt: u64| ResultMessage {
        job: job(number),
        attempt: AttemptId::derive(&[&number.to_le_bytes(), &salt.to_le_bytes()]),
        worker: WorkerInfo {
            name: "bench".to_owned(),
            host: "bench".to_owned(),
            device: "cpu".to_owned(),
            version: "0".to_owned(),
            processor: String::new(),
        },
        body: ResultBody::Noop,
    };

    let since = Instant::now();
    let mut sent = Vec::new();
    for number in 0..jobs {
        sent.push(stage.broker.send_result(&report(number, 1)).await?);
        if sent.len() == 1024 {
            for one in sent.drain(..) {
                one.confirmed().await?;
            }
        }
    }
    for one in sent {
        one.confirmed().await?;
    }
    rate("publishing to JetStream, pipelined", jobs, since);

    let few = jobs.min(2000);
    let since = Instant::now();
    for number in 0..few {
        stage.broker.publish_result(&report(number, 2)).await?;
    }
    rate("publishing to JetStream, one after the other", few, since);

    sqlx::query("CREATE TABLE bench (id uuid PRIMARY KEY, n bigint)")
        .execute(stage.store.pool())
        .await?;
    let since = Instant::now();
    for number in 0..few {
        sqlx::query("INSERT INTO bench VALUES ($1, $2)")
            .bind(job(number).0)
            .bind(i64::try_from(number)?)
            .execute(stage.store.pool())
            .await?;
    }
    rate("rows into Postgres, one INSERT and commit each", few, since);

    let since = Instant::now();
    stage.store.submit(&sweep, noops(&sweep, jobs)).await?;
    rate("jobs submitted (one COPY)", jobs, since);
    Ok(())
}

/// Worker processes that end with this value.
struct Workers(Vec<Child>);

impl Drop for Workers {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// No-op jobs through everything.
async fn path(jobs: u64, workers: usize, kind: Kind) -> Result<()> {
    let stage = Stage::start_synced().await?;
    let sweep = sweep("path", 0);
    let spawn = |number: usize| -> Result<Child> {
        let mut command = match kind {
            Kind::Program => {
                let mut command = programs::worker(&stage)?;
                command.args(["--name", &format!("bench-{number}")]);
                // It says each job.
                command.env("RUST_LOG", "warn");
                command
            }
            Kind::Scripted => {
                let mut command = Command::new(std::env::current_exe()?);
                command.args(["work", &stage.nats.url()]);
                command
            }
        };
        Ok(command.stdin(Stdio::null()).spawn()?)
    };
    let processes = Workers((0..workers).map(spawn).collect::<Result<_>>()?);
    let coordinator = stage.serve_with(ServeOptions::default());
    // All workers start and connect first.
    tokio::time::sleep(Duration::from_secs(5)).await;

    let before = Shares::now(&stage, &processes);
    let since = Instant::now();
    stage.store.submit(&sweep, noops(&sweep, jobs)).await?;
    let progress = stage.finished(sweep.id, Duration::from_secs(600)).await?;
    let seconds = since.elapsed().as_secs_f64();
    let after = Shares::now(&stage, &processes);
    let reached = rate(
        &format!(
            "jobs from submission to result row, {workers} {}",
            match kind {
                Kind::Program => "worker program(s)",
                Kind::Scripted => "scripted worker(s)",
            }
        ),
        jobs,
        since,
    );
    let verdict = if reached >= AIM { "reached" } else { "missed" };
    println!("    aim: {AIM:.0} a second: {verdict}");
    after.print_since(before, jobs, seconds);
    ensure!(u64::try_from(progress.done)? == jobs, "not all are done");
    let attempts = stage
        .count("SELECT count(*) FROM attempt WHERE outcome = 'done'")
        .await?;
    ensure!(u64::try_from(attempts)? == jobs, "{attempts} attempts");
    let leased = "SELECT count(*) FROM job WHERE lease_until IS NOT NULL";
    ensure!(stage.count(leased).await? == 0, "jobs are left");
    coordinator.stop().await
}
