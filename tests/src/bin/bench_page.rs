//! Measures what an operator waits for while a large sweep runs: the pages and `/metrics` of a coordinator,
//! the memory that it takes, and `coord status` and `coord table`.

use anyhow::{Result, ensure};
use clap::{Parser, Subcommand};
use halfheard_e2e::{
    finished::{Matrix, resolved},
    process::memory,
    programs::{self, Process},
    stage::Stage,
    worker::{Act, Profile, ScriptedWorker},
};
use halfheard_shared::{
    benchmark::Benchmark, broker::BrokerSettings, ids::SweepId, matrix, methods, wire::Work,
};
use halfheard_store::{submit::NewSweep, terms::Terms};
use std::{
    net::TcpListener,
    process::{Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

/// How often each page is asked for.
const REQUESTS: usize = 40;
/// How often each command is run.
const COMMANDS: usize = 9;
/// What each may take, in milliseconds.
const AIM: f64 = 200.0;
/// As real workers do.
const BEAT_EVERY: Duration = Duration::from_secs(3);

/// Measure what an operator waits for while a large sweep runs
///
/// The pages and `/metrics` of a coordinator, the memory that it takes, and `coord status` and `coord table`, each
/// beside the aim of 200 ms.
#[derive(Parser)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "Examples:\n  bench_page\n  bench_page 1000000 1000 120"
)]
struct Options {
    /// How many jobs the sweep has, at least
    #[arg(default_value_t = 100_000)]
    jobs: usize,
    /// How many workers there are
    #[arg(default_value_t = 1000)]
    workers: usize,
    /// How many seconds they work before anything is measured, so that there are results
    #[arg(default_value_t = 120)]
    seconds: u64,
    #[command(subcommand)]
    process: Option<Workers>,
}

/// The process that this program starts beside itself.
#[derive(Subcommand)]
enum Workers {
    /// The workers, until they are killed
    #[command(hide = true)]
    Work { broker: String, count: usize },
}

#[tokio::main]
async fn main() -> Result<()> {
    let options = Options::parse();
    match options.process {
        Some(Workers::Work { broker, count }) => work(&broker, count).await,
        None => bench(options.jobs, options.workers, options.seconds).await,
    }
}

/// Workers in a process of their own, until it is killed: trainings take a minute, evaluations a second.
async fn work(url: &str, count: usize) -> Result<()> {
    let broker = BrokerSettings::at(url).connect_with_retry().await?;
    let workers: Vec<ScriptedWorker> = (0..count)
        .map(|number| {
            let profile = Profile {
                evaluations: 16,
                beat_every: BEAT_EVERY,
                ..Profile::named(&format!("node{}-{number}", number / 8))
            };
            let script = move |job: &halfheard_shared::wire::JobMessage, _| match job.work {
                // Not all at once.
                Work::Train(_) => Act::Delay(Duration::from_millis(30_000 + 60 * number as u64)),
                _ => Act::Delay(Duration::from_secs(1)),
            };
            ScriptedWorker::with(&broker, profile, Arc::new(script))
        })
        .collect();
    std::future::pending::<()>().await;
    drop(workers);
    Ok(())
}

async fn bench(jobs: usize, workers: usize, seconds: u64) -> Result<()> {
    let stage = Stage::start().await?;
    let sweep = submit(&stage, jobs).await?;
    let address = free_address()?;
    let mut coord = programs::coord(&stage)?;
    coord
        .args(["serve", "--http", &address])
        .stderr(Stdio::null());
    let coord = Process::spawn(&mut coord)?;
    let mut others = Command::new(std::env::current_exe()?);
    others.args(["work", &stage.nats.url(), &workers.to_string()]);
    let _workers = Process::spawn(&mut others)?;
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    let progress = stage.store.progress(sweep).await?;
    println!(
        "{} jobs, {workers} workers: {} running, {} done",
        progress.total(),
        progress.running,
        progress.done
    );
    let one = stage.store.models(sweep).await?;
    ensure!(!one.is_empty(), "there is no training");
    let training: uuid::Uuid =
        sqlx::query_scalar("SELECT id FROM job WHERE kind = 'train' LIMIT 1")
            .fetch_one(stage.store.pool())
            .await?;
    let own = format!("/sweeps/{}", sweep.0);
    for path in [
        "/",
        &own,
        &format!("{own}/results"),
        &format!("{own}/failures"),
        &format!("/trainings/{training}"),
        "/workers",
        "/failures",
        "/metrics",
        "/healthz",
        "/readyz",
    ] {
        measure(&address, path).await?;
    }
    let id = sweep.0.to_string();
    let id = id.as_str();
    for arguments in [
        &["status"][..],
        &["status", id],
        &["table", "2", "--sweep", id],
        &["table", "9", "--sweep", id],
    ] {
        command(&stage, arguments)?;
    }
    let taken = memory(coord.id());
    println!(
        "memory of the coordinator: {:.0} MB, at most {:.0} MB",
        taken.now, taken.peak
    );
    Ok(())
}

/// A sweep of all methods on all datasets, with as many seeds as it takes.
async fn submit(stage: &Stage, jobs: usize) -> Result<SweepId> {
    let ids: Vec<&str> = methods::all().iter().map(|m| m.id.as_str()).collect();
    let trainings = jobs.div_ceil(17);
    let seeds = trainings.div_ceil(ids.len() * Benchmark::ALL.len()) as u64;
    let resolved = Arc::new(resolved(&Matrix::of(
        "large",
        &ids,
        &Benchmark::ALL,
        seeds,
    ))?);
    let sweep = NewSweep {
        id: resolved.sweep_id(None),
        name: resolved.name.clone(),
        nonce: None,
        spec: String::new(),
        resolved: serde_json::to_value(&*resolved)?,
        owner: String::new(),
        terms: Terms::default(),
        flop: Default::default(),
    };
    let planned = matrix::expand(resolved, None);
    stage.store.submit(&sweep, planned).await?;
    Ok(sweep.id)
}

fn free_address() -> Result<String> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string())
}

async fn measure(address: &str, path: &str) -> Result<()> {
    let mut times = Vec::new();
    let mut bytes = 0;
    for _ in 0..REQUESTS {
        let since = Instant::now();
        let answer = get(address, path).await?;
        times.push(since.elapsed().as_secs_f64() * 1000.0);
        ensure!(
            answer.starts_with(b"HTTP/1.1 200"),
            "{path}: {}",
            String::from_utf8_lossy(&answer[..answer.len().min(200)])
        );
        bytes = answer.len();
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    print(path, times, bytes);
    Ok(())
}

/// Runs `coord` with these arguments, from its start to its end.
fn command(stage: &Stage, arguments: &[&str]) -> Result<()> {
    let mut times = Vec::new();
    let mut bytes = 0;
    for _ in 0..COMMANDS {
        let since = Instant::now();
        let text = programs::output(programs::coord(stage)?.args(arguments))?;
        times.push(since.elapsed().as_secs_f64() * 1000.0);
        bytes = text.len();
    }
    print(&format!("coord {}", arguments.join(" ")), times, bytes);
    Ok(())
}

fn print(what: &str, mut times: Vec<f64>, bytes: usize) {
    times.sort_by(f64::total_cmp);
    let median = times[times.len() / 2];
    let verdict = if median <= AIM { "" } else { ", above it" };
    println!(
        "{what:<72} median {median:>7.1} ms (aim: {AIM:.0} ms{verdict}), 95 % {:>7.1} ms, most {:>7.1} ms, {} kB",
        times[times.len() * 95 / 100],
        times[times.len() - 1],
        bytes / 1000
    );
}

/// One request on a connection of its own.
async fn get(address: &str, path: &str) -> Result<Vec<u8>> {
    let mut connection = TcpStream::connect(address).await?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    connection.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    connection.read_to_end(&mut answer).await?;
    Ok(answer)
}
