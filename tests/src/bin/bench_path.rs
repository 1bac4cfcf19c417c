//! Measures the path of a job: no-op jobs from submission to their row in Postgres, by one and by four
//! `worker` programs, and by as many scripted workers, which do nothing but answer; and beside it what its
//! parts do alone on the same machine, so that the figures mean something elsewhere.
//!
//! Every commit waits for the disk (`fsync` is on). The broker writes messages to its file at once and asks the
//! system to flush it every two minutes, its default: a power cut may take messages of these minutes, whose
//! jobs are granted again when their leases end; a killed process takes none.
//!
//! `bench_path [JOBS]`; 20000 jobs by default.

use anyhow::{Context as _, Result, ensure};
use halfheard_coordinator::orchestrator::options::ServeOptions;
use halfheard_e2e::{
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
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

#[tokio::main]
async fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    match arguments.next().as_deref() {
        Some("--work") => work(&arguments.next().context("an address")?).await,
        Some(jobs) => bench(jobs.parse().context("the number of jobs")?).await,
        None => bench(20_000).await,
    }
}

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

fn rate(what: &str, count: u64, since: Instant) {
    let seconds = since.elapsed().as_secs_f64();
    println!(
        "{what:<58} {:>9.0} a second  ({count} in {seconds:.2} s)",
        count as f64 / seconds
    );
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
                command.args(["--work", &stage.nats.url()]);
                command
            }
        };
        Ok(command.stdin(Stdio::null()).spawn()?)
    };
    let _workers = Workers((0..workers).map(spawn).collect::<Result<_>>()?);
    let coordinator = stage.serve_with(ServeOptions::default());
    // All workers start and connect first.
    tokio::time::sleep(Duration::from_secs(5)).await;

    let since = Instant::now();
    stage.store.submit(&sweep, noops(&sweep, jobs)).await?;
    let progress = stage.finished(sweep.id, Duration::from_secs(600)).await?;
    rate(
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
    ensure!(u64::try_from(progress.done)? == jobs, "not all are done");
    let attempts = stage
        .count("SELECT count(*) FROM attempt WHERE outcome = 'done'")
        .await?;
    ensure!(u64::try_from(attempts)? == jobs, "{attempts} attempts");
    let leased = "SELECT count(*) FROM job WHERE lease_until IS NOT NULL";
    ensure!(stage.count(leased).await? == 0, "jobs are left");
    coordinator.stop().await
}
