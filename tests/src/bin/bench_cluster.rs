//! Measures how long a cluster takes for a sweep, beside the time that it takes at least: the real coordinator,
//! broker and database, and workers whose jobs are timers.

use anyhow::{Context as _, Result, ensure};
use clap::{Parser, Subcommand};
use halfheard_e2e::{
    cluster::{
        bound::Bound,
        costs::{self, Training},
        machines::{self, Cluster, Spot},
    },
    finished::{Matrix, SEEDS, new_sweep, resolved, trained_in},
    process::{memory, processor_seconds},
    programs::{self, Process},
    stage::Stage,
};
use halfheard_shared::{benchmark::Benchmark, matrix};
use halfheard_store::submit::NewSweep;
use serde_json::{Value, json};
use std::{
    io::Read as _,
    num::NonZeroUsize,
    process::{Child, Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

/// How long the workers may take to connect.
const CONNECT: Duration = Duration::from_secs(120);
/// How long a sweep may take, in real time.
const PATIENCE: Duration = Duration::from_secs(4 * 3600);
/// Seeds of the sweep from which durations are known, which no other has.
const EARLIER: u64 = 1_000_000;

/// Measure how long a cluster takes for the paper's matrix, beside the time that it takes at least
///
/// Coordinator, broker and database are the real programs. Workers speak the real protocol, but their jobs are timers,
/// scaled from measured seconds. A line for each cluster and number of matrices; docs/reference/performance.md explains
/// the columns.
#[derive(Parser)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "Examples:\n  bench_cluster --workers 64 --matrices 1\n  bench_cluster --first --matrices 10\n  \
                  bench_cluster --spot 30 --workers 256 --json"
)]
struct Options {
    /// How many workers a cluster has, each with one GPU
    #[arg(
        long,
        value_name = "N,…",
        value_delimiter = ',',
        default_value = "64,256,1024"
    )]
    workers: Vec<NonZeroUsize>,
    /// How many of the paper's matrices it computes, of 3 seeds each
    #[arg(
        long,
        value_name = "N,…",
        value_delimiter = ',',
        default_value = "1,10"
    )]
    matrices: Vec<NonZeroUsize>,
    /// Simulated seconds that pass in one; 30 by default, 20 with --spot
    // Leases and heartbeats do not pass faster, and the coordinator ingests reports so many times faster.
    #[arg(long, value_name = "N", value_parser = positive)]
    speed: Option<f64>,
    /// An installation's first sweep: no duration is known, and operations alone say what is longest
    #[arg(long)]
    first: bool,
    /// Machines die without notice, after so many minutes on average
    #[arg(long, value_name = "MINUTES", value_parser = positive)]
    spot: Option<f64>,
    /// How long after a machine's death there is another in its place
    #[arg(
        long,
        value_name = "SECONDS",
        default_value = "120",
        value_parser = positive,
        requires = "spot"
    )]
    replaced_after: f64,
    /// Print everything as JSON
    #[arg(long)]
    json: bool,
    #[command(subcommand)]
    process: Option<Simulation>,
}

/// The process that this program starts beside itself.
#[derive(Subcommand)]
enum Simulation {
    /// The workers, until standard input ends
    #[command(hide = true)]
    Work { broker: String, cluster: String },
}

impl Options {
    /// Simulated seconds a second.
    fn speed(&self) -> f64 {
        let default = if self.spot.is_some() { 20.0 } else { 30.0 };
        self.speed.unwrap_or(default)
    }

    fn spot(&self) -> Option<Spot> {
        self.spot.map(|minutes| Spot {
            mean_life: 60.0 * minutes,
            replaced_after: self.replaced_after,
        })
    }
}

/// A number above 0.
fn positive(text: &str) -> Result<f64> {
    let number: f64 = text.parse()?;
    ensure!(number > 0.0 && number.is_finite(), "it must be positive");
    Ok(number)
}

#[tokio::main]
async fn main() -> Result<()> {
    let options = Options::parse();
    if let Some(Simulation::Work { broker, cluster }) = &options.process {
        return work(broker, cluster).await;
    }
    let mut runs = Vec::new();
    if !options.json {
        heading(&options);
    }
    for &matrices in &options.matrices {
        for &workers in &options.workers {
            let run = bench(&options, workers.get(), matrices.get()).await?;
            if !options.json {
                row(&run);
            }
            runs.push(run);
        }
    }
    if options.json {
        println!("{}", serde_json::to_string_pretty(&runs)?);
    }
    Ok(())
}

/// The workers, until standard input ends; says what they did.
async fn work(url: &str, cluster: &str) -> Result<()> {
    let cluster: Value = serde_json::from_str(cluster)?;
    let number = |name: &str| cluster[name].as_f64();
    let cluster = Cluster {
        workers: number("workers").context("workers")? as usize,
        speed: number("speed").context("speed")?,
        spot: number("mean_life").zip(number("replaced_after")).map(
            |(mean_life, replaced_after)| Spot {
                mean_life,
                replaced_after,
            },
        ),
    };
    let end = tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new()));
    let totals = machines::work(url, cluster, async {
        let _ = end.await;
    })
    .await?;
    println!(
        "{}",
        json!({ "spent": totals.spent, "deaths": totals.deaths })
    );
    Ok(())
}

/// The process of the workers, which ends with this value.
struct Workers(Child);

impl Workers {
    fn start(stage: &Stage, options: &Options, workers: usize) -> Result<Self> {
        let cluster = json!({
            "workers": workers,
            "speed": options.speed(),
            "mean_life": options.spot().map(|spot| spot.mean_life),
            "replaced_after": options.spot().map(|spot| spot.replaced_after),
        });
        let mut command = Command::new(std::env::current_exe()?);
        command
            .args(["work", &stage.nats.url(), &cluster.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        Ok(Self(command.spawn()?))
    }

    /// Ends it; what the workers did.
    fn finish(mut self) -> Result<Value> {
        drop(self.0.stdin.take());
        let mut said = String::new();
        let mut output = self.0.stdout.take().context("its output")?;
        output.read_to_string(&mut said)?;
        serde_json::from_str(&said).context("what the workers did")
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs one sweep on one cluster.
async fn bench(options: &Options, workers: usize, matrices: usize) -> Result<Value> {
    let stage = Stage::start().await?;
    let sweep_of = |name: &str, seeds: Vec<u64>| Matrix {
        name: name.to_owned(),
        models: costs::models(),
        datasets: Benchmark::ALL.to_vec(),
        seeds,
    };
    if !options.first {
        let earlier = sweep_of("earlier", vec![EARLIER]);
        trained_in(&stage.store, &earlier, |spec| {
            let training = Training::of(spec)?;
            Ok((training.epochs, training.seconds()))
        })
        .await?;
    }
    let mut coord = programs::coord(&stage)?;
    coord.arg("serve").stderr(Stdio::null());
    let coord = Process::spawn(&mut coord)?;
    let machines = Workers::start(&stage, options, workers)?;
    connected(&stage, workers).await?;

    let seeds = (SEEDS[0]..).take(SEEDS.len() * matrices);
    let spec = Arc::new(resolved(&sweep_of("cluster", seeds.collect()))?);
    let sweep = NewSweep {
        flop: costs::operations(&spec),
        ..new_sweep(&spec)?
    };
    let bound = Bound::of(matrix::expand(Arc::clone(&spec), None))?;
    stage
        .store
        .submit(&sweep, matrix::expand(spec, None))
        .await?;
    let begun = clock(
        &stage,
        "SELECT extract(epoch FROM clock_timestamp())::float8",
    )
    .await?;
    let before = processor_seconds(coord.id());
    let progress = stage.finished(sweep.id, PATIENCE).await?;
    ensure!(
        usize::try_from(progress.done)? == bound.jobs,
        "not all jobs are done: {progress:?}"
    );
    let processor = processor_seconds(coord.id()) - before;
    let ended = "SELECT extract(epoch FROM max(finished))::float8 FROM job";
    let elapsed = clock(&stage, ended).await? - begun;
    let done = machines.finish()?;
    let reports = reports(&stage).await?;
    let attempts = stage.count("SELECT count(*) FROM attempt").await?;

    let makespan = elapsed * options.speed();
    let least = bound.makespan(workers);
    let spent = done["spent"].as_f64().context("GPU time")?;
    Ok(json!({
        "workers": workers,
        "matrices": matrices,
        "jobs": bound.jobs,
        "first": options.first,
        "speed": options.speed(),
        "mean_life_seconds": options.spot().map(|spot| spot.mean_life),
        "deaths": done["deaths"],
        "work_seconds": bound.work,
        "chain_seconds": bound.chain,
        "bound_seconds": least,
        "makespan_seconds": makespan,
        "ratio": makespan / least,
        "utilization": bound.work / (workers as f64 * makespan),
        "gpu_seconds": spent,
        // Rounding makes it less than nothing.
        "lost": ((spent - bound.work) / spent).max(0.0),
        "attempts": attempts,
        "elapsed_seconds": elapsed,
        "jobs_per_second": bound.jobs as f64 / elapsed,
        "reports_per_second": reports as f64 / elapsed,
        "coordinator_cores": processor / elapsed,
        "coordinator_peak_megabytes": memory(coord.id()).peak,
    }))
}

/// Waits until the coordinator can have heard all workers.
async fn connected(stage: &Stage, workers: usize) -> Result<()> {
    let since = Instant::now();
    while stage.broker.count_workers().await? < workers as u64 {
        ensure!(since.elapsed() < CONNECT, "the workers do not connect");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    // They ask, and are asked to prove that they live.
    tokio::time::sleep(Duration::from_secs(3)).await;
    Ok(())
}

/// A time of the database.
async fn clock(stage: &Stage, query: &'static str) -> Result<f64> {
    let pool = stage.store.pool();
    Ok(sqlx::query_scalar(query).fetch_one(pool).await?)
}

/// Reports that workers sent.
async fn reports(stage: &Stage) -> Result<u64> {
    let name = stage.broker.names().results_stream();
    let stream = stage.broker.jetstream().get_stream(name).await?;
    Ok(stream.cached_info().state.last_sequence)
}

fn heading(options: &Options) {
    let build = match cfg!(debug_assertions) {
        true => "debug build",
        false => "release build",
    };
    let known = match options.first {
        true => "no durations known",
        false => "durations known from one earlier seed",
    };
    println!(
        "{build}, {known}, {} simulated seconds a second",
        options.speed()
    );
    if let Some(spot) = options.spot() {
        let (life, pause) = (spot.mean_life / 60.0, spot.replaced_after);
        println!("workers die after {life} min on average and are replaced after {pause} s");
    }
    println!(
        "{:>7} {:>8} {:>6} {:>9} {:>8} {:>8} {:>9} {:>6} {:>6} {:>7} {:>6} {:>7} {:>9} {:>6} {:>7}",
        "workers",
        "matrices",
        "jobs",
        "work/h",
        "chain/s",
        "bound/s",
        "makespan",
        "ratio",
        "busy",
        "deaths",
        "lost",
        "jobs/s",
        "reports/s",
        "cores",
        "mem/MB"
    );
}

fn row(run: &Value) {
    let number = |name: &str| run[name].as_f64().unwrap_or(f64::NAN);
    println!(
        "{:>7} {:>8} {:>6} {:>9.2} {:>8.0} {:>8.0} {:>9.0} {:>6.3} {:>5.1}% {:>7} {:>5.2}% {:>7.1} {:>9.1} {:>6.2} {:>7.0}",
        number("workers"),
        number("matrices"),
        number("jobs"),
        number("work_seconds") / 3600.0,
        number("chain_seconds"),
        number("bound_seconds"),
        number("makespan_seconds"),
        number("ratio"),
        100.0 * number("utilization"),
        number("deaths"),
        100.0 * number("lost"),
        number("jobs_per_second"),
        number("reports_per_second"),
        number("coordinator_cores"),
        number("coordinator_peak_megabytes"),
    );
}
