//! The views on rows written by hand, in a real Postgres: exact means, and every query of
//! docs/reference/sql.md.
#![expect(clippy::unwrap_used, reason = "a test ends where something is wrong")]

use halfheard_coordinator::{local::Servers, local::programs::Programs};
use halfheard_results::tables::{layout, paper, render};
use halfheard_shared::results::Wanted;
use halfheard_shared::{
    benchmark::Benchmark,
    encoder::TokenIds,
    ids::{AttemptId, JobId, SweepId},
    matrix::{PlannedJob, PlannedWork},
    wire::{BlobRef, Fidelity, Protocol, Selection, TrainSpec},
};
use halfheard_store::results;
use halfheard_store::{Store, submit::NewSweep, terms::Terms};
use sqlx::Row as _;
use std::{os::unix::fs::PermissionsExt as _, sync::Arc};

const SEEDS: [u64; 2] = [1, 2];
const CASES: [&str; 4] = ["r=0", "r=0.5", "missing=l", "missing=la"];

struct Scene {
    store: Store,
    sweep: SweepId,
    servers: Servers,
    _folder: tempfile::TempDir,
}

fn spec(method: &str, dataset: Benchmark, seed: u64) -> TrainSpec {
    let blob = |digit: &str| BlobRef {
        blake3: digit.repeat(64),
        path: String::new(),
    };
    TrainSpec {
        method: method.into(),
        variant: String::new(),
        dataset,
        data: blob("a"),
        encoder: blob("b"),
        tokens: TokenIds::BERT,
        seed,
        max_epochs: 1,
        hyper: "{}".into(),
        protocol: Protocol {
            selection: Selection::Validation,
            train_missing: halfheard_shared::regime::Regime::Redrawn,
            erasure_seed: 1111,
            selection_rate: 500,
            fidelity: Fidelity::Reference,
            switched: Vec::new(),
        },
        numerics: halfheard_shared::numerics::Numerics::Machine,
    }
}

fn train_id(method: &str, dataset: Benchmark, seed: u64) -> JobId {
    JobId::derive(&[
        method.as_bytes(),
        dataset.id().as_bytes(),
        &seed.to_le_bytes(),
    ])
}

fn eval_id(method: &str, dataset: Benchmark, seed: u64, case: &str) -> JobId {
    JobId::derive(&[train_id(method, dataset, seed).as_bytes(), case.as_bytes()])
}

/// LNLN is better than ALMT, the second seed than the first, and each missing rate worse.
fn value(method: &str, seed: u64, case: &str) -> f64 {
    let method = if method == "lnln" { 0.5 } else { 0.25 };
    let case = match case {
        "r=0" => 0.125,
        "r=0.5" => 0.0625,
        _ => 0.03125,
    };
    // Sums of powers of two: means are exact.
    method + case + seed as f64 / 1024.0
}

/// Not done: LNLN on MOSI, seed 2, at r=0.5.
fn is_done(method: &str, dataset: Benchmark, seed: u64, case: &str) -> bool {
    (method, dataset, seed, case) != ("lnln", Benchmark::Mosi, 2, "r=0.5")
}

async fn scene() -> Scene {
    let folder = tempfile::tempdir().unwrap();
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let programs = Programs::with_deps(concat!(env!("CARGO_MANIFEST_DIR"), "/../.deps"));
    let servers = Servers::start(folder.path(), &programs).await.unwrap();
    let store = Store::connect_with(servers.database()).await.unwrap();
    store.migrate().await.unwrap();
    let sweep = SweepId::derive(&[b"demo"]);
    let models = [
        ("almt", Benchmark::Mosi),
        ("lnln", Benchmark::Mosi),
        ("lnln", Benchmark::Sims),
    ];
    let mut jobs = Vec::new();
    for (method, dataset) in models {
        for seed in SEEDS {
            let train = train_id(method, dataset, seed);
            let spec = Arc::new(spec(method, dataset, seed));
            jobs.push(PlannedJob::new(
                train,
                PlannedWork::Train(Arc::clone(&spec)),
            ));
            jobs.extend(CASES.map(|case| {
                let work = PlannedWork::Eval {
                    train,
                    spec: Arc::clone(&spec),
                    case: case.parse().unwrap(),
                    confusions: None,
                };
                PlannedJob::new(eval_id(method, dataset, seed, case), work)
            }));
        }
    }
    let new = NewSweep {
        id: sweep,
        name: "demo".into(),
        nonce: None,
        spec: String::new(),
        resolved: serde_json::json!({}),
        owner: "test".into(),
        terms: Terms::default(),
        flop: Default::default(),
    };
    store.submit(&new, jobs.clone()).await.unwrap();
    // Another sweep asks for some of the same: the first one's numbers are as if it did not.
    let other = NewSweep {
        id: SweepId::derive(&[b"other"]),
        name: "other".into(),
        ..new
    };
    jobs.truncate(1 + CASES.len());
    store.submit(&other, jobs).await.unwrap();
    for (method, dataset) in models {
        for seed in SEEDS {
            train(&store, method, dataset, seed).await;
            for case in CASES {
                if is_done(method, dataset, seed, case) {
                    evaluate(&store, method, dataset, seed, case).await;
                }
            }
        }
    }
    Scene {
        store,
        sweep,
        servers,
        _folder: folder,
    }
}

async fn attempt(store: &Store, job: JobId, outcome: &str) -> AttemptId {
    let attempt = AttemptId::derive(&[job.as_bytes(), outcome.as_bytes()]);
    sqlx::query(
        "INSERT INTO attempt (id, job, worker, session, host, device, version, started, ended,
                              outcome, failure_kind, errors)
         VALUES ($1, $2, 'w', gen_random_uuid(), 'h', 'cpu', '1', now(), now(),
                 $3::attempt_outcome,
                 CASE WHEN $3 = 'failed' THEN 'retryable' END,
                 CASE WHEN $3 = 'failed' THEN ARRAY['no room', 'the disk is full'] ELSE '{}' END)",
    )
    .bind(attempt.0)
    .bind(job.0)
    .bind(outcome)
    .execute(store.pool())
    .await
    .unwrap();
    attempt
}

async fn done(store: &Store, job: JobId, attempt: AttemptId) {
    sqlx::query("UPDATE job SET state = 'done', attempt = $2 WHERE id = $1")
        .bind(job.0)
        .bind(attempt.0)
        .execute(store.pool())
        .await
        .unwrap();
}

async fn train(store: &Store, method: &str, dataset: Benchmark, seed: u64) {
    let job = train_id(method, dataset, seed);
    attempt(store, job, "failed").await;
    let attempt = attempt(store, job, "done").await;
    sqlx::query("INSERT INTO epoch_log VALUES ($1, 1, $2, '{\"loss\": 0.5}', '{}', 1, 1, '{mae}')")
        .bind(job.0)
        .bind(attempt.0)
        .execute(store.pool())
        .await
        .unwrap();
    for criterion in dataset.criteria() {
        sqlx::query("INSERT INTO checkpoint VALUES ($1, $2, 1, 'c', 1, $3)")
            .bind(job.0)
            .bind(criterion.id)
            .bind(attempt.0)
            .execute(store.pool())
            .await
            .unwrap();
    }
    done(store, job, attempt).await;
}

async fn evaluate(store: &Store, method: &str, dataset: Benchmark, seed: u64, case: &str) {
    let job = eval_id(method, dataset, seed, case);
    let attempt = attempt(store, job, "done").await;
    sqlx::query("INSERT INTO prediction VALUES ($1, 0, 0, '')")
        .bind(job.0)
        .execute(store.pool())
        .await
        .unwrap();
    for criterion in dataset.criteria() {
        sqlx::query("INSERT INTO evaluation VALUES ($1, $2, 1, 0, $3)")
            .bind(job.0)
            .bind(criterion.id)
            .bind(attempt.0)
            .execute(store.pool())
            .await
            .unwrap();
        for metric in dataset.metrics() {
            // Another family's checkpoint measures something else: it must not be read.
            let own = criterion.family.contains(&metric.id);
            let value = value(method, seed, case) + if own { 0.0 } else { 100.0 };
            // A constant prediction: no correlation.
            let undefined = metric.id == "corr" && method == "almt" && case == "r=0.5";
            sqlx::query("INSERT INTO result VALUES ($1, $2, $3, $4)")
                .bind(job.0)
                .bind(criterion.id)
                .bind(metric.id)
                .bind((!undefined).then_some(value))
                .execute(store.pool())
                .await
                .unwrap();
        }
    }
    done(store, job, attempt).await;
}

type Found = (Option<f64>, i64, i64, i64);

async fn cell(scene: &Scene, method: &str, dataset: &str, case: &str, metric: &str) -> Found {
    let row = sqlx::query(
        "SELECT mean, seeds_completed, seeds_expected, seeds_undefined FROM cell
         WHERE sweep = $1 AND method = $2 AND dataset = $3 AND case_id = $4 AND metric = $5",
    )
    .bind(scene.sweep.0)
    .bind(method)
    .bind(dataset)
    .bind(case)
    .bind(metric)
    .fetch_one(scene.store.pool())
    .await
    .unwrap();
    (row.get(0), row.get(1), row.get(2), row.get(3))
}

async fn overall(scene: &Scene, view: &str, method: &str, dataset: &str, metric: &str) -> Found {
    let query = match view {
        "table_overall" => {
            "SELECT mean, cells_completed, cells_expected, cells_undefined FROM table_overall
             WHERE sweep = $1 AND method = $2 AND dataset = $3 AND metric = $4"
        }
        _ => {
            "SELECT mean, cells_completed, cells_expected, cells_undefined FROM table_missing_overall
             WHERE sweep = $1 AND method = $2 AND dataset = $3 AND metric = $4"
        }
    };
    let row = sqlx::query(query)
        .bind(scene.sweep.0)
        .bind(method)
        .bind(dataset)
        .bind(metric)
        .fetch_one(scene.store.pool())
        .await
        .unwrap();
    (row.get(0), row.get(1), row.get(2), row.get(3))
}

#[tokio::test(flavor = "multi_thread")]
async fn views_and_tables() {
    let scene = scene().await;
    metrics_agree_with_the_program(&scene).await;
    means_are_exact(&scene).await;
    shared_jobs_count_in_both(&scene).await;
    progress_counts(&scene).await;
    tables_print(&scene).await;
    optimism_is_positive_where_it_looks_better(&scene).await;
    every_documented_query_answers(&scene).await;
    everything_is_commented(&scene).await;
    scene.store.pool().close().await;
    scene.servers.stop().await;
}

async fn metrics_agree_with_the_program(scene: &Scene) {
    for dataset in Benchmark::ALL {
        let rows = sqlx::query(
            "SELECT metric, name, criterion, higher_is_better, percent FROM metric
             WHERE dataset = $1 ORDER BY position",
        )
        .bind(dataset.id())
        .fetch_all(scene.store.pool())
        .await
        .unwrap();
        assert_eq!(rows.len(), dataset.metrics().len());
        for (row, metric) in rows.iter().zip(dataset.metrics()) {
            let mut criteria = dataset.criteria().iter();
            let criterion = criteria.find(|c| c.family.contains(&metric.id)).unwrap();
            assert_eq!(row.get::<String, _>(0), metric.id);
            assert_eq!(row.get::<String, _>(1), metric.name);
            assert_eq!(row.get::<String, _>(2), criterion.id, "{}", metric.id);
            assert_eq!(
                row.get::<bool, _>(3),
                metric.higher_is_better,
                "{}",
                metric.id
            );
            assert_eq!(row.get::<bool, _>(4), metric.percent, "{}", metric.id);
        }
    }
}

#[expect(clippy::too_many_lines, reason = "one scenario, step by step")]
async fn means_are_exact(scene: &Scene) {
    let seeds = 1.5 / 1024.0;
    for metric in [
        "acc7",
        "f1_nonneg",
        "mae",
        "corr",
        "f1_nonzero_swapped",
        "laziness",
    ] {
        assert_eq!(
            cell(scene, "lnln", "mosi", "r=0", metric).await,
            (Some(0.625 + seeds), 2, 2, 0),
            "{metric}"
        );
    }
    assert_eq!(
        cell(scene, "lnln", "sims", "missing=la", "acc3").await,
        (Some(0.53125 + seeds), 2, 2, 0)
    );
    // One seed of two.
    assert_eq!(
        cell(scene, "lnln", "mosi", "r=0.5", "acc5").await,
        (Some(0.5625 + 1.0 / 1024.0), 1, 2, 0)
    );
    // Done, and undefined.
    assert_eq!(
        cell(scene, "almt", "mosi", "r=0.5", "corr").await,
        (None, 2, 2, 2)
    );

    let two_rates = 0.09375 + seeds;
    assert_eq!(
        overall(scene, "table_overall", "lnln", "sims", "f1").await,
        (Some(0.5 + two_rates), 2, 2, 0)
    );
    assert_eq!(
        overall(scene, "table_overall", "almt", "mosi", "mae").await,
        (Some(0.25 + two_rates), 2, 2, 0)
    );
    assert_eq!(
        overall(scene, "table_overall", "almt", "mosi", "corr").await,
        (Some(0.375 + seeds), 2, 2, 1)
    );
    assert_eq!(
        overall(
            scene,
            "table_missing_overall",
            "almt",
            "mosi",
            "acc2_nonneg"
        )
        .await,
        (Some(0.28125 + seeds), 2, 2, 0)
    );
    let std: f64 = sqlx::query_scalar(
        "SELECT std FROM cell WHERE sweep = $1 AND method = 'almt' AND case_id = 'r=0' AND metric = 'mae'",
    )
    .bind(scene.sweep.0)
    .fetch_one(scene.store.pool())
    .await
    .unwrap();
    assert!((std - 0.5_f64.sqrt() / 1024.0).abs() < 1e-15, "{std}");

    // As long as a rate has no seed at all there is no mean over the rates.
    let mut tx = scene.store.pool().begin().await.unwrap();
    let job = eval_id("lnln", Benchmark::Mosi, 1, "r=0.5");
    for change in [
        "ALTER TABLE job DISABLE TRIGGER job_state_changes",
        "DELETE FROM result r USING job j WHERE r.job = j.id AND j.id = $1",
        "UPDATE job SET state = 'ready' WHERE id = $1",
    ] {
        let query = sqlx::query(change);
        let query = if change.contains("$1") {
            query.bind(job.0)
        } else {
            query
        };
        query.execute(&mut *tx).await.unwrap();
    }
    let row = sqlx::query(
        "SELECT mean, cells_completed, cells_expected FROM table_overall
         WHERE sweep = $1 AND method = 'lnln' AND dataset = 'mosi' AND metric = 'mae'",
    )
    .bind(scene.sweep.0)
    .fetch_one(&mut *tx)
    .await
    .unwrap();
    assert_eq!(
        (
            row.get::<Option<f64>, _>(0),
            row.get::<i64, _>(1),
            row.get::<i64, _>(2)
        ),
        (None, 1, 2)
    );
    tx.rollback().await.unwrap();
}

async fn progress_counts(scene: &Scene) {
    let row = sqlx::query(
        "SELECT jobs, done, blocked, train_done, train_jobs, eval_done, eval_jobs, finished
         FROM sweep_progress WHERE sweep = $1",
    )
    .bind(scene.sweep.0)
    .fetch_one(scene.store.pool())
    .await
    .unwrap();
    let counts: Vec<i64> = (0..7).map(|column| row.get(column)).collect();
    assert_eq!(counts, [30, 29, 1, 6, 6, 23, 24]);
    assert!(!row.get::<bool, _>(7));
}

/// The first model of the sweep is also the only one of another.
async fn shared_jobs_count_in_both(scene: &Scene) {
    let row = sqlx::query(
        "SELECT p.jobs, p.done, p.finished,
                (SELECT count(*) FROM cell c WHERE c.sweep = p.sweep AND c.metric = 'mae'),
                (SELECT count(*) FROM failures f WHERE f.sweep = p.sweep),
                (SELECT count(*) FROM epoch e WHERE e.sweep = p.sweep),
                (SELECT count(*) FROM job_status j WHERE j.sweep = p.sweep),
                (SELECT count(DISTINCT v.job) FROM provenance v WHERE v.sweep = p.sweep)
         FROM sweep_progress p WHERE p.name = 'other'",
    )
    .fetch_one(scene.store.pool())
    .await
    .unwrap();
    assert_eq!((row.get::<i64, _>(0), row.get::<i64, _>(1)), (5, 5));
    assert!(row.get::<bool, _>(2));
    let counts: Vec<i64> = (3..8).map(|column| row.get(column)).collect();
    assert_eq!(counts, [4, 1, 1, 5, 4]);
    let other = scene.store.find_sweep("other").await.unwrap().id;
    let models = scene.store.evaluated_models(other).await.unwrap();
    assert_eq!(models, ["almt"]);
}

/// One training gets both choices, which stay: the documented query asks for them.
async fn optimism_is_positive_where_it_looks_better(scene: &Scene) {
    let pool = scene.store.pool();
    let count = || async {
        let rows = sqlx::query_scalar::<_, i64>("SELECT count(*) FROM optimism");
        rows.fetch_one(pool).await.unwrap()
    };
    assert_eq!(count().await, 0, "no sweep selects on both");
    let job = eval_id("lnln", Benchmark::Mosi, 1, "r=0");
    sqlx::query(
        "UPDATE config SET spec = jsonb_set(spec, '{protocol,selection}', '\"both\"')
         WHERE id = (SELECT config FROM job WHERE id = $1)",
    )
    .bind(job.0)
    .execute(pool)
    .await
    .unwrap();
    sqlx::raw_sql(
        "INSERT INTO evaluation SELECT job, 'test:' || criterion, epoch, prediction, attempt FROM evaluation;
         INSERT INTO result SELECT job, 'test:' || criterion, metric, value + 0.25 FROM result",
    )
    .execute(pool)
    .await
    .unwrap();
    let rows = sqlx::query(
        "SELECT metric, validation_chosen, test_chosen, optimism, case_id FROM optimism
         WHERE sweep = $1 AND seed = 1 AND method = 'lnln' AND dataset = 'mosi' AND case_id = 'r=0'",
    )
    .bind(scene.sweep.0)
    .fetch_all(pool)
    .await
    .unwrap();
    assert_eq!(rows.len(), Benchmark::Mosi.metrics().len());
    for row in rows {
        let number = |column| row.get::<f64, _>(column);
        let metric = Benchmark::Mosi.metric(row.get(0)).unwrap();
        let sign = if metric.higher_is_better { 1.0 } else { -1.0 };
        assert_eq!(number(1), value("lnln", 1, "r=0"), "{}", metric.id);
        assert_eq!(
            (number(2) - number(1), number(3)),
            (0.25, sign * 0.25),
            "{}",
            metric.id
        );
    }
}

async fn tables_print(scene: &Scene) {
    let table = async |number, format| {
        let layout = layout::find(number).unwrap();
        let results = results::load(&scene.store, scene.sweep, Wanted::default())
            .await
            .unwrap();
        let table = paper::table(&results, layout, false);
        render::render(&table, format, false)
    };
    let text = table(2, render::Format::Markdown).await;
    // ALMT: 0.25 + 0.09375 + 1.5/1024; LNLN at r=0.5 has its first seed only.
    assert!(text.contains("34.52"), "{text}");
    assert!(text.contains("**59.50**"), "{text}");
    assert!(
        text.contains("incomplete: LNLN on MOSI: seed 2 (1 of 2); 1 of 2 seeds complete"),
        "{text}"
    );
    let text = table(9, render::Format::Markdown).await;
    assert!(text.contains("| –"), "{text}");
    let text = table(3, render::Format::Csv).await;
    assert!(text.contains("sims"), "{text}");
    assert!(!text.contains("mosi"), "{text}");
}

async fn every_documented_query_answers(scene: &Scene) {
    let text = std::fs::read_to_string(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../docs/reference/sql.md"
    ))
    .unwrap();
    let queries: Vec<String> = text
        .split("```sql\n")
        .skip(1)
        .filter_map(|part| part.split_once("```").map(|(query, _)| query.to_owned()))
        .collect();
    assert_eq!(queries.len(), 12);
    // As an analyst: by the role that may read everything and write nothing.
    let mut analyst = scene.store.pool().acquire().await.unwrap();
    sqlx::query("SET ROLE halfheard_reader")
        .execute(&mut *analyst)
        .await
        .unwrap();
    for write in [
        "DELETE FROM result",
        "UPDATE job SET state = 'ready'",
        "CREATE TABLE t ()",
    ] {
        let refused = sqlx::query(write).execute(&mut *analyst).await.unwrap_err();
        assert!(
            refused.to_string().contains("permission denied"),
            "{refused}"
        );
    }
    for query in queries {
        let rows = sqlx::query(sqlx::AssertSqlSafe(query.clone()))
            .fetch_all(&mut *analyst)
            .await
            .unwrap_or_else(|error| panic!("{error}\n{query}"));
        assert!(!rows.is_empty(), "no rows:\n{query}");
    }
    sqlx::query("RESET ROLE")
        .execute(&mut *analyst)
        .await
        .unwrap();
}

/// Every view of ours and each of its columns says what it is.
async fn everything_is_commented(scene: &Scene) {
    let bare: Vec<String> = sqlx::query_scalar(
        "SELECT c.relname || coalesce('.' || a.attname, '')
         FROM pg_class c
         LEFT JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
         WHERE c.relnamespace = 'public'::regnamespace
           AND (c.relkind = 'v' OR c.relname = 'metric')
           AND (col_description(c.oid, a.attnum) IS NULL OR obj_description(c.oid) IS NULL)",
    )
    .fetch_all(scene.store.pool())
    .await
    .unwrap();
    assert!(bare.is_empty(), "{bare:?}");
}
