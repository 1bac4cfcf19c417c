//! Measures submission: from a resolved spec to rows that are durable in Postgres. The paper's
//! matrix, specs of ten thousand evaluations and ten times as many up to a million, and the largest shared;
//! beside them, what it takes to insert rows one after the other.

use anyhow::Result;
use clap::Parser;
use halfheard_e2e::{
    finished::{Matrix, resolved},
    process::memory,
    servers::Postgres,
};
use halfheard_shared::{benchmark::Benchmark, matrix, methods, spec::ResolvedSpec};
use halfheard_store::{Store, submit::NewSweep, terms::Terms};
use std::{sync::Arc, time::Instant};

/// What a million evaluations may take, in seconds.
const AIM_SECONDS: f64 = 60.0;
/// What a submission may take, in megabytes.
const AIM_MEMORY: f64 = 300.0;
/// The evaluations of the smallest spec that is compared.
const SMALLEST: usize = 10_000;

/// Measure submission: from a resolved spec to rows that are durable in Postgres
///
/// The paper's matrix, specs of ten thousand evaluations and ten times as many up to the largest, which is then
/// shared, cancelled and deleted; beside them, what it takes to insert rows one after the other.
#[derive(Parser)]
#[command(after_help = "Examples:\n  bench_submit 100000\n  bench_submit")]
struct Options {
    /// How many evaluations the largest spec has
    #[arg(default_value_t = 1_000_000)]
    evaluations: usize,
}

#[tokio::main]
async fn main() -> Result<()> {
    let Options { evaluations } = Options::parse();
    let postgres = Postgres::start_synced()?;
    let store = Store::connect_with_retry(&postgres.url().parse()?).await?;
    store.migrate().await?;

    let ids: Vec<&str> = methods::all()
        .iter()
        .map(|method| method.id.as_str())
        .collect();
    let paper = resolved(&Matrix::of("paper", &ids, &Benchmark::ALL, 3))?;
    submit(&store, "the paper's matrix", paper).await?;
    let mut first = None;
    for size in (0..)
        .map(|power| SMALLEST * 10_usize.pow(power))
        .take_while(|size| *size < evaluations)
    {
        let rate = submit(
            &store,
            &format!("{size} evaluations"),
            of_size("grown", size)?,
        )
        .await?;
        first = first.or(Some(rate));
        // Its jobs would be the larger one's, too.
        store.delete(of_size("grown", size)?.sweep_id(None)).await?;
    }
    let large = of_size("large", evaluations)?;
    let rate = submit(&store, "the large spec", large.clone()).await?;
    println!(
        "    a million at this rate: {:.1} s (aim: {AIM_SECONDS:.0} s); a row takes {:.2} times as long as in the \
         smallest (aim: 1, linear)",
        1_062_500.0 / rate,
        first.unwrap_or(rate) / rate
    );
    println!(
        "    peak memory until here: {:.0} MB (aim: {AIM_MEMORY:.0} MB)",
        memory(std::process::id()).peak
    );
    let again = |name: &str| ResolvedSpec {
        name: name.to_owned(),
        ..large.clone()
    };
    submit(&store, "the same under another name", again("other")).await?;
    let mut rate = again("rate");
    rate.cases.push("r=0.95".to_owned());
    submit(&store, "one more rate", rate).await?;
    submit(&store, "the large spec again", large.clone()).await?;
    let since = Instant::now();
    let id = large.sweep_id(None);
    store.cancel(id).await?;
    println!("cancelled in {:.2} s", since.elapsed().as_secs_f64());
    let since = Instant::now();
    let progress = store.progress(id).await?;
    println!(
        "{} jobs counted in {:.2} s",
        progress.total(),
        since.elapsed().as_secs_f64()
    );
    let since = Instant::now();
    let deleted = store.delete(id).await?;
    println!(
        "deleted in {:.2} s ({} stay)",
        since.elapsed().as_secs_f64(),
        deleted.kept
    );
    println!(
        "peak memory of this process: {:.0} MB",
        memory(std::process::id()).peak
    );
    alone(&store).await
}

/// One method on one dataset: sixteen evaluations a seed.
fn of_size(name: &str, evaluations: usize) -> Result<ResolvedSpec> {
    let seeds = evaluations.div_ceil(16) as u64;
    resolved(&Matrix::of(name, &["lnln"], &[Benchmark::Mosi], seeds))
}

/// Returns how many rows a second.
async fn submit(store: &Store, what: &str, resolved: ResolvedSpec) -> Result<f64> {
    let resolved = Arc::new(resolved);
    let counts = matrix::counts(&resolved);
    let since = Instant::now();
    let id = resolved.sweep_id(None);
    let sweep = NewSweep {
        id,
        name: resolved.name.clone(),
        nonce: None,
        spec: String::new(),
        resolved: serde_json::to_value(&*resolved)?,
        owner: String::new(),
        terms: Terms::default(),
        flop: Default::default(),
    };
    let jobs = matrix::expand(resolved, None);
    let submitted = store.submit(&sweep, jobs).await?;
    let seconds = since.elapsed().as_secs_f64();
    let rate = (counts.train + counts.eval) as f64 / seconds;
    println!(
        "{what}: {} trainings and {} evaluations ({} of them new) durable in {seconds:.2} s \
         ({rate:.0} rows a second)",
        counts.train,
        counts.eval,
        submitted.fresh.total(),
    );
    Ok(rate)
}

/// The peer: rows of the same table, each in its own transaction.
async fn alone(store: &Store) -> Result<()> {
    let rows = 1000;
    sqlx::query("CREATE TABLE alone AS SELECT * FROM job LIMIT 0")
        .execute(store.pool())
        .await?;
    let since = Instant::now();
    for position in 0..rows {
        sqlx::query("INSERT INTO alone SELECT * FROM job WHERE position = $1 LIMIT 1")
            .bind(i64::from(position))
            .execute(store.pool())
            .await?;
    }
    let rate = f64::from(rows) / since.elapsed().as_secs_f64();
    println!("for comparison, rows inserted one after the other: {rate:.0} a second");
    Ok(())
}
