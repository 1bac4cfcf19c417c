//! Measures how long it takes to look at a finished full matrix (1,152 evaluations with their
//! predictions) in a database that holds a million result rows of other sweeps: every table, and the
//! whole report. Fails if the query plan of a view scans all results.

use anyhow::{Result, ensure};
use clap::Parser;
use halfheard_coordinator::{
    analysis,
    config::{ConnectionFlags, Settings},
};
use halfheard_e2e::{
    finished::{self, Matrix},
    servers::Postgres,
};
use halfheard_results::{
    report::html,
    statistics::bootstrap::BootstrapOptions,
    tables::{
        layout::LAYOUTS,
        paper,
        render::{Format, render},
    },
};
use halfheard_shared::{artifacts::ArtifactStore, env, ids::SweepId, results::Wanted};
use halfheard_store::{Store, results};
use sqlx::Row as _;
use std::{collections::BTreeMap, time::Instant};

/// Each table is asked for this often; the middle counts.
const TIMES: usize = 7;

/// Measure every table and the report of a finished full matrix, among many results of other sweeps
///
/// 1,152 evaluations with their predictions. Fails if the query plan of a view scans all results.
#[derive(Parser)]
#[command(after_help = "Examples:\n  bench_results\n  bench_results 100000")]
struct Options {
    /// How many rows of results other sweeps have
    #[arg(value_name = "OTHER_ROWS", default_value_t = 1_000_000)]
    others: i64,
}

#[tokio::main]
async fn main() -> Result<()> {
    let Options { others } = Options::parse();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    println!("this machine: {cores} cores");
    let postgres = Postgres::start()?;
    let store = Store::connect_with_retry(&postgres.url().parse()?).await?;
    store.migrate().await?;
    let sweep = finished::simulated(&store, &Matrix::paper("full")).await?;
    let own = results(&store).await?;
    let mut copies = 0;
    while results(&store).await? - own < others {
        copies += 1;
        copy(&store, sweep, copies).await?;
    }
    sqlx::query("VACUUM ANALYZE").execute(store.pool()).await?;
    println!(
        "a finished sweep of {own} result rows, and {} of {copies} others",
        results(&store).await? - own
    );

    for view in ["cell", "table_overall", "table_missing_overall"] {
        plan_is_good(&store, sweep, view).await?;
    }
    let mut worst = 0.0f64;
    for &layout in LAYOUTS {
        let seconds = median(async || {
            let results = results::load(&store, sweep, Wanted::default()).await?;
            let text = render(&paper::table(&results, layout, false), Format::Text, false);
            ensure!(!text.is_empty(), "an empty table");
            Ok(())
        })
        .await?;
        worst = worst.max(seconds);
        println!("table {:>2}: {:6.1} ms", layout.number, seconds * 1e3);
    }
    println!("the slowest table: {:.1} ms (aim: 200 ms)", worst * 1e3);
    let peer = median(async || every_row(&store, sweep).await).await?;
    println!(
        "for comparison, Table 2 by fetching every measurement and averaging here: {:.1} ms",
        peer * 1e3
    );

    let folder = tempfile::tempdir()?;
    let flags = ConnectionFlags {
        data_dir: Some(folder.path().to_owned()),
        artifacts: Some(ArtifactStore::url_of(&folder.path().join("artifacts"))),
        ..ConnectionFlags::default()
    };
    let settings = Settings::resolve(&flags, &env::process)?;
    let artifacts = ArtifactStore::open(&settings.artifacts, None).await?;
    finished::keep_features(&store, &artifacts, sweep, 1000).await?;
    let row = store.find_sweep("full").await?;
    let since = Instant::now();
    let options = BootstrapOptions::default();
    let report = analysis::report(&store, row.id, settings.sources(), options).await?;
    let page = html::render(&report);
    println!(
        "the report, {} figures, {:.1} MB: {:.1} s (aim: 30 s)",
        report.images().count(),
        page.len() as f64 / 1e6,
        since.elapsed().as_secs_f64()
    );
    Ok(())
}

async fn median(mut look: impl AsyncFnMut() -> Result<()>) -> Result<f64> {
    let mut seconds = Vec::new();
    for _ in 0..TIMES {
        let since = Instant::now();
        look().await?;
        seconds.push(since.elapsed().as_secs_f64());
    }
    seconds.sort_by(f64::total_cmp);
    Ok(seconds[TIMES / 2])
}

async fn results(store: &Store) -> Result<i64> {
    let count = sqlx::query_scalar("SELECT count(*) FROM result");
    Ok(count.fetch_one(store.pool()).await?)
}

/// Adds a sweep like `sweep`, with other ids and without the bytes of predictions.
async fn copy(store: &Store, sweep: SweepId, number: i32) -> Result<()> {
    let id = "md5(id::text || $2::text)::uuid";
    let statements = [
        format!(
            "INSERT INTO sweep (id, name, spec, resolved, train_jobs, eval_jobs)
             SELECT {id}, name || $2::text, spec, resolved, train_jobs, eval_jobs
             FROM sweep WHERE id = $1"
        ),
        format!(
            "INSERT INTO job (id, sweep, position, kind, method, variant, dataset, seed, case_id,
                              train_job, config, state)
             SELECT {id}, md5(sweep::text || $2::text)::uuid, position, kind, method, variant,
                    dataset, seed, case_id, md5(train_job::text || $2::text)::uuid, config, state
             FROM job WHERE sweep = $1"
        ),
        "INSERT INTO sweep_job (sweep, position, job)
         SELECT md5(sweep::text || $2::text)::uuid, position, md5(job::text || $2::text)::uuid
         FROM sweep_job WHERE sweep = $1"
            .to_owned(),
        "INSERT INTO attempt (id, job, worker, session, host, device, version, outcome)
         SELECT md5(a.id::text || $2::text)::uuid, md5(a.job::text || $2::text)::uuid,
                a.worker, a.session, a.host, a.device, a.version, a.outcome
         FROM attempt a JOIN job j ON j.id = a.job WHERE j.sweep = $1"
            .to_owned(),
        "INSERT INTO prediction (job, number, samples, data)
         SELECT md5(p.job::text || $2::text)::uuid, p.number, 0, ''
         FROM prediction p JOIN job j ON j.id = p.job WHERE j.sweep = $1"
            .to_owned(),
        "INSERT INTO evaluation (job, criterion, epoch, prediction, attempt)
         SELECT md5(e.job::text || $2::text)::uuid, e.criterion, e.epoch, e.prediction,
                md5(e.attempt::text || $2::text)::uuid
         FROM evaluation e JOIN job j ON j.id = e.job WHERE j.sweep = $1"
            .to_owned(),
        "INSERT INTO result (job, criterion, metric, value)
         SELECT md5(r.job::text || $2::text)::uuid, r.criterion, r.metric, r.value
         FROM result r JOIN job j ON j.id = r.job WHERE j.sweep = $1"
            .to_owned(),
    ];
    let mut tx = store.pool().begin().await?;
    for statement in statements {
        sqlx::query(sqlx::AssertSqlSafe(statement))
            .bind(sweep.0)
            .bind(number)
            .execute(&mut *tx)
            .await?;
    }
    tx.commit().await?;
    Ok(())
}

async fn plan_is_good(store: &Store, sweep: SweepId, view: &str) -> Result<()> {
    let explain = format!("EXPLAIN SELECT * FROM {view} WHERE sweep = $1");
    let rows = sqlx::query(sqlx::AssertSqlSafe(explain))
        .bind(sweep.0)
        .fetch_all(store.pool())
        .await?;
    let plan: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    let plan = plan.join("\n");
    ensure!(
        !plan.contains("Seq Scan on result") && !plan.contains("Seq Scan on job"),
        "view {view} scans rows of other sweeps:\n{plan}"
    );
    Ok(())
}

/// The peer: what a script without the views does.
async fn every_row(store: &Store, sweep: SweepId) -> Result<()> {
    let rows = sqlx::query(
        "SELECT dataset, method, variant, case_id, metric, value
         FROM measurement WHERE sweep = $1 AND case_id LIKE 'r=%'",
    )
    .bind(sweep.0)
    .fetch_all(store.pool())
    .await?;
    let mut means: BTreeMap<[String; 4], (f64, u32)> = BTreeMap::new();
    for row in rows {
        let key = ["dataset", "method", "variant", "metric"].map(|name| row.get(name));
        let value: Option<f64> = row.get("value");
        let (sum, count) = means.entry(key).or_default();
        *sum += value.unwrap_or(0.0);
        *count += 1;
    }
    ensure!(!means.is_empty(), "no measurements");
    Ok(())
}
