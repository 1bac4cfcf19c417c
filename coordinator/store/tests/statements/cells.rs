//! Work belongs to its content: what several sweeps ask for is one job, computed once.

mod control;
mod steps;

use crate::postgres::Postgres;
use halfheard_shared::{
    ids::{AttemptId, JobId},
    matrix::{self, PlannedJob, PlannedWork},
    spec::ResolvedSpec,
};
use halfheard_store::{
    JobCounts, JobState, Store, SweepState,
    control::Reopen,
    status::LISTED,
    submit::{NewSweep, Submitted},
    terms::Terms,
};
use proptest::{
    prelude::*,
    strategy::ValueTree as _,
    test_runner::{Config, TestRunner},
};
use std::{collections::BTreeMap, sync::Arc};

/// Two methods, two seeds, three cases: 4 training and 12 evaluation jobs.
const BASE: &str = r#"{"name":"base","methods":[{"method":"lnln","variant":"","hyper":{"mosi":
    {"max_epochs":3}}},{"method":"almt","variant":"","hyper":{"mosi":{"max_epochs":4}}}],
    "datasets":[{"benchmark":"mosi","data":{"blake3":"aa","path":"/old"},
    "encoder":{"blake3":"bb","path":"/old/encoder"}}],"seeds":[1,2],
    "cases":["r=0","r=0.3","missing=la"],"protocol":{"selection":"validation",
    "train_missing":"redrawn","erasure_seed":1111,"selection_rate":500,"fidelity":"reference",
    "switched":[]}}"#;

fn base() -> ResolvedSpec {
    serde_json::from_str(BASE).unwrap()
}

/// The base with a change.
fn with(name: &str, change: impl FnOnce(&mut ResolvedSpec)) -> ResolvedSpec {
    let mut spec = base();
    spec.name = name.to_owned();
    change(&mut spec);
    spec
}

fn sweep_of(spec: &ResolvedSpec, nonce: Option<&str>, terms: Terms) -> NewSweep {
    NewSweep {
        id: spec.sweep_id(nonce),
        name: spec.name.clone(),
        nonce: nonce.map(str::to_owned),
        spec: String::new(),
        resolved: serde_json::to_value(spec).unwrap(),
        owner: "ana".into(),
        terms,
        flop: BTreeMap::new(),
    }
}

/// As `coord submit` does it.
async fn submit(store: &Store, spec: &ResolvedSpec, terms: Terms) -> Submitted {
    let jobs = matrix::expand(Arc::new(spec.clone()), None);
    store
        .submit(&sweep_of(spec, None, terms), jobs)
        .await
        .unwrap()
}

fn counts(train: i64, eval: i64) -> JobCounts {
    JobCounts {
        train,
        eval,
        noop: 0,
    }
}

/// Executes a statement about one job, in two parts as a report of a training run is stored: the
/// evaluations are released by a statement of their own.
async fn finish(store: &Store, job: JobId) {
    // As the leader, which repeats a transaction that lost against another one.
    while let Err(error) = try_finish(store, job).await {
        let error = error.into_database_error().unwrap();
        assert_eq!(error.code().as_deref(), Some("40P01"), "{error}");
    }
}

async fn try_finish(store: &Store, job: JobId) -> Result<(), sqlx::Error> {
    let attempt = AttemptId::derive(&[job.as_bytes()]);
    let mut tx = store.pool().begin().await?;
    sqlx::query(
        "INSERT INTO attempt (id, job, worker, session, outcome, ended, epochs, seconds)
         VALUES ($1, $2, 'w', gen_random_uuid(), 'done', now(), 2, 20) ON CONFLICT DO NOTHING",
    )
    .bind(attempt.0)
    .bind(job.0)
    .execute(&mut *tx)
    .await?;
    sqlx::query(
        "UPDATE job SET state = 'done', outcome = 'x', lease_until = NULL, finished = now()
         WHERE id = $1 AND state <> 'cancelled'",
    )
    .bind(job.0)
    .execute(&mut *tx)
    .await?;
    sqlx::query("UPDATE job SET outcome = 'x' WHERE id = $1")
        .bind(job.0)
        .execute(&mut *tx)
        .await
        .unwrap();
    sqlx::query("UPDATE job SET state = 'ready' WHERE train_job = $1 AND state = 'blocked'")
        .bind(job.0)
        .execute(&mut *tx)
        .await
        .unwrap();
    tx.commit().await
}

/// An evaluation is done, with values of two metrics from the checkpoints of both splits, one of them undefined now and
/// then: other values for other jobs.
async fn evaluate(store: &Store, job: JobId) {
    let attempt = AttemptId::derive(&[job.as_bytes(), b"evaluated"]);
    let value = f64::from(job.as_bytes()[0]) / 255.0 / 3.0;
    let mut tx = store.pool().begin().await.unwrap();
    sqlx::query(
        "INSERT INTO attempt (id, job, worker, session, outcome, processor)
         VALUES ($1, $2, 'w', gen_random_uuid(), 'done', 'made-of-brass') ON CONFLICT DO NOTHING",
    )
    .bind(attempt.0)
    .bind(job.0)
    .execute(&mut *tx)
    .await
    .unwrap();
    sqlx::query("UPDATE job SET state = 'done', outcome = 'x', lease_until = NULL WHERE id = $1")
        .bind(job.0)
        .execute(&mut *tx)
        .await
        .unwrap();
    sqlx::query("INSERT INTO prediction (job, number, samples, data) VALUES ($1, 0, 0, '')")
        .bind(job.0)
        .execute(&mut *tx)
        .await
        .unwrap();
    for statement in [
        "INSERT INTO evaluation (job, criterion, epoch, prediction, attempt)
         SELECT $1, c, 1, 0, $2 FROM unnest(ARRAY['mae', 'acc2', 'test:mae']) AS c WHERE $3 = $3",
        "INSERT INTO result (job, criterion, metric, value)
         SELECT $1, c, m, nullif($3, 0) FROM unnest(ARRAY['mae', 'acc2', 'test:mae']) AS c,
                                   unnest(ARRAY['mae', 'corr']) AS m WHERE $2 = $2",
    ] {
        sqlx::query(sqlx::AssertSqlSafe(statement))
            .bind(job.0)
            .bind(attempt.0)
            .bind(value)
            .execute(&mut *tx)
            .await
            .unwrap();
    }
    tx.commit().await.unwrap();
}

/// A worker gets a job and, unless it is only `queued`, begins it.
async fn grant(store: &Store, job: JobId, state: &str) -> AttemptId {
    let attempt = AttemptId::derive(&[job.as_bytes(), b"granted"]);
    sqlx::query(
        "INSERT INTO attempt (id, job, worker, session) VALUES ($1, $2, 'w', gen_random_uuid())",
    )
    .bind(attempt.0)
    .bind(job.0)
    .execute(store.pool())
    .await
    .unwrap();
    for state in ["queued", state] {
        sqlx::query(
            "UPDATE job SET state = $3::job_state, attempt = $2, worker = 'w',
                            session = gen_random_uuid(), lease_until = now()
             WHERE id = $1",
        )
        .bind(job.0)
        .bind(attempt.0)
        .bind(state)
        .execute(store.pool())
        .await
        .unwrap();
    }
    attempt
}

fn jobs(spec: &ResolvedSpec) -> Vec<PlannedJob> {
    matrix::expand(Arc::new(spec.clone()), None).collect()
}

fn trainings(spec: &ResolvedSpec) -> Vec<JobId> {
    let jobs = jobs(spec).into_iter();
    jobs.filter(|job| matches!(job.work, PlannedWork::Train(_)))
        .map(|job| job.id)
        .collect()
}

fn evaluations(spec: &ResolvedSpec) -> Vec<JobId> {
    let jobs = jobs(spec).into_iter();
    jobs.filter(|job| matches!(job.work, PlannedWork::Eval { .. }))
        .map(|job| job.id)
        .collect()
}

async fn finish_all(store: &Store, spec: &ResolvedSpec) {
    for job in trainings(spec).into_iter().chain(evaluations(spec)) {
        finish(store, job).await;
    }
}

const READY: &str = "SELECT count(*) FROM job WHERE state = 'ready'";
const READY_TRAININGS: &str = "SELECT count(*) FROM job WHERE state = 'ready' AND kind = 'train'";
const BLOCKED: &str = "SELECT count(*) FROM job WHERE state = 'blocked'";

/// Rows that break a rule, whatever happened: a job that is not scheduled under the sweep that ranks
/// first; an unfinished one that nobody wants; a cancelled one that somebody wants; an evaluation that
/// waits for nothing, or not for what it needs; a lease of nobody; jobs or results that are not tallied as they are.
const BROKEN: &str = "
    WITH counted AS (
        SELECT w.sweep, j.kind, j.method, j.variant, j.dataset, j.config, j.case_id, j.state, count(*) AS jobs
        FROM sweep_job w JOIN job j ON j.id = w.job GROUP BY 1, 2, 3, 4, 5, 6, 7, 8
    ), tallied AS (
        SELECT sweep, kind, method, variant, dataset, config, case_id, state, sum(jobs) AS jobs
        FROM tally WHERE sweep IN (SELECT id FROM sweep)
        GROUP BY 1, 2, 3, 4, 5, 6, 7, 8 HAVING sum(jobs) <> 0
    ), added AS (
        SELECT w.sweep, j.method, j.variant, j.dataset, j.config, j.case_id, r.metric, r.criterion LIKE 'test:%' AS on_test,
               count(r.value) AS defined, round(coalesce(sum(r.value), 0)::numeric, 9) AS total,
               round(coalesce(sum(r.value * r.value), 0)::numeric, 9) AS squares, min(r.value) AS low, max(r.value) AS high
        FROM sweep_job w JOIN job j ON j.id = w.job JOIN result r ON r.job = j.id
        JOIN metric m ON m.dataset = j.dataset AND m.metric = r.metric
        WHERE r.criterion IN (m.criterion, 'test:' || m.criterion)
        GROUP BY 1, 2, 3, 4, 5, 6, 7, 8
    ), summed AS (
        SELECT sweep, method, variant, dataset, config, case_id, metric, on_test, sum(defined),
               round(sum(total) / 2.0 ^ 90, 9), round(sum(squares) / 2.0 ^ 180, 9), min(low), max(high)
        FROM tally_metric WHERE sweep IN (SELECT id FROM sweep)
        GROUP BY 1, 2, 3, 4, 5, 6, 7, 8
    )
    SELECT (SELECT count(*) FROM (TABLE counted EXCEPT TABLE tallied) missing)
         + (SELECT count(*) FROM (TABLE tallied EXCEPT TABLE counted) invented)
         + (SELECT count(*) FROM (TABLE added EXCEPT TABLE summed) missing)
         + (SELECT count(*) FROM (TABLE summed EXCEPT TABLE added) invented)
         + count(*) FROM job j
    CROSS JOIN LATERAL (
        SELECT w.sweep, w.position, s.state FROM sweep_job w JOIN sweep s ON s.id = w.sweep
        WHERE w.job = j.id ORDER BY s.state, s.priority DESC, s.created, s.id LIMIT 1
    ) f
    LEFT JOIN job t ON t.id = j.train_job
    WHERE (j.sweep, j.position) IS DISTINCT FROM (f.sweep, f.position)
       OR (j.state IN ('blocked', 'ready', 'queued', 'running') AND f.state = 'cancelled')
       OR (j.state = 'cancelled' AND f.state <> 'cancelled')
       OR (j.state = 'blocked' AND t.state IN ('done', 'failed'))
       OR (j.state = 'ready' AND t.state <> 'done')";

#[tokio::test(flavor = "multi_thread")]
async fn only_what_is_new_is_computed() {
    let postgres = Postgres::start().await;
    let store = &postgres.store;
    let first = submit(store, &base(), Terms::default()).await;
    assert!(first.new);
    assert_eq!((first.jobs, first.fresh), (counts(4, 12), counts(4, 12)));
    assert_eq!(first.terms.owner, "ana");
    finish_all(store, &base()).await;
    assert_eq!(postgres.count(READY).await, 0);

    // Another name and another priority: nothing.
    let named = submit(store, &with("named", |_| ()), Terms::with_priority(7)).await;
    assert!(named.new);
    assert_eq!((named.jobs, named.fresh), (counts(4, 12), counts(0, 0)));
    assert_eq!((named.shared.done, named.shared.open), (16, 0));
    assert_eq!(postgres.count(READY).await, 0);
    let sweep = with("named", |_| ()).sweep_id(None);
    assert_eq!(store.progress(sweep).await.unwrap().done, 16);
    assert!(store.sweep_progress(sweep).await.unwrap().progress.open() == 0);

    // The same spec in another order is another sweep, and nothing to do.
    let turned = submit(
        store,
        &with("base", |s| s.seeds.reverse()),
        Terms::default(),
    )
    .await;
    assert_eq!((turned.new, turned.fresh), (true, counts(0, 0)));

    // One more rate: one evaluation of each model, which can begin at once.
    let rate = with("rate", |spec| spec.cases.push("r=0.5".into()));
    let more = submit(store, &rate, Terms::default()).await;
    assert_eq!((more.fresh, more.shared.done), (counts(0, 4), 16));
    assert_eq!(
        (postgres.count(READY).await, postgres.count(BLOCKED).await),
        (4, 0)
    );
    finish_all(store, &rate).await;

    // One more seed: one training of each method, and its evaluations.
    let seed = with("seed", |spec| spec.seeds.push(3));
    let more = submit(store, &seed, Terms::default()).await;
    assert_eq!((more.fresh, more.shared.done), (counts(2, 6), 16));
    assert_eq!(
        (postgres.count(READY).await, postgres.count(BLOCKED).await),
        (2, 6)
    );
    finish_all(store, &seed).await;

    // One more method, here a changed variant of one that was there.
    let method = with("method", |spec| {
        let mut variant = spec.methods[0].clone();
        variant.variant = "wide".into();
        spec.methods.push(variant);
    });
    let more = submit(store, &method, Terms::default()).await;
    assert_eq!((more.fresh, more.shared.done), (counts(2, 6), 16));
    assert_eq!(postgres.count(READY_TRAININGS).await, 2);
    finish_all(store, &method).await;

    // A sweep that lacks what others have asks for less.
    let less = with("less", |spec| {
        spec.cases.truncate(1);
        spec.seeds.truncate(1);
    });
    let less_ = submit(store, &less, Terms::default()).await;
    assert_eq!((less_.jobs, less_.fresh), (counts(2, 2), counts(0, 0)));
    let models = store.models(less.sweep_id(None)).await.unwrap();
    assert!(
        models.iter().all(|m| (m.completed, m.expected) == (1, 1)),
        "{models:?}"
    );

    // Anew on demand.
    let jobs = matrix::expand(Arc::new(base()), Some("1"));
    let sweep = sweep_of(&base(), Some("1"), Terms::default());
    let anew = store.submit(&sweep, jobs).await.unwrap();
    assert_eq!((anew.new, anew.fresh), (true, counts(4, 12)));
    assert_eq!(postgres.count(BROKEN).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn work_under_way_is_shared() {
    let postgres = Postgres::start().await;
    let store = &postgres.store;
    submit(store, &base(), Terms::default()).await;
    let [first, second, ..] = trainings(&base())[..] else {
        panic!("four training jobs")
    };
    finish(store, first).await;
    grant(store, second, "running").await;
    let rate = with("rate", |spec| spec.cases.push("r=0.5".into()));
    let more = submit(store, &rate, Terms::default()).await;
    assert_eq!(
        (more.fresh, more.shared.done, more.shared.open),
        (counts(0, 4), 1, 15)
    );
    assert_eq!(more.shared.sweeps, ["base"]);
    // Its evaluation of the model that is trained, and three of the base.
    assert_eq!(
        postgres
            .count("SELECT count(*) FROM job WHERE state = 'ready' AND kind = 'eval'")
            .await,
        4
    );
    finish(store, second).await;
    assert_eq!(
        postgres
            .count("SELECT count(*) FROM job WHERE state = 'ready' AND kind = 'eval'")
            .await,
        8
    );
    assert_eq!(postgres.count(BROKEN).await, 0);
    // The sweep of higher priority takes over what it shares.
    let (before, after) = store
        .set_terms(rate.sweep_id(None), &Terms::with_priority(1))
        .await
        .unwrap();
    assert_eq!((before.priority, after.priority), (0, 1));
    assert_eq!(postgres.count(BROKEN).await, 0);
    assert_eq!(
        postgres
            .count(
                "SELECT count(*) FROM job j JOIN sweep s ON s.id = j.sweep WHERE s.name = 'base'"
            )
            .await,
        0
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_large_sweep_only_models_at_work_are_listed() {
    let postgres = Postgres::start().await;
    let store = &postgres.store;
    let large = with("large", |spec| {
        spec.methods.truncate(1);
        spec.cases.truncate(1);
        spec.seeds = (1..=LISTED.unsigned_abs() + 1).collect();
    });
    submit(store, &large, Terms::default()).await;
    let id = large.sweep_id(None);
    assert!(store.models(id).await.unwrap().is_empty());
    let [first, second, ..] = trainings(&large)[..] else {
        panic!("many training jobs")
    };
    finish(store, first).await;
    grant(store, second, "running").await;
    let models = store.models(id).await.unwrap();
    assert_eq!(models.len(), 1, "{models:?}");
    assert_eq!(
        (models[0].state, models[0].expected),
        (JobState::Running, 1)
    );
    let progress = store.sweep_progress(id).await.unwrap();
    assert_eq!((progress.train_jobs, progress.train_done), (501, 1));
    sqlx::query("UPDATE attempt SET started = ended - interval '20 s'")
        .execute(store.pool())
        .await
        .unwrap();
    let work = store.work(id).await.unwrap();
    let training = work.iter().find(|work| work.trains).unwrap();
    assert_eq!((training.open, training.timed), (500, 1.0));
    assert_eq!(training.busy, 20.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn same_spec_again_is_the_same_sweep_with_new_terms() {
    let postgres = Postgres::start().await;
    let store = &postgres.store;
    submit(store, &base(), Terms::default()).await;
    let mut moved = base();
    moved.datasets[0].data.path = "/new".into();
    let terms = Terms {
        owner: Some("ben".into()),
        weight: Some(2.5),
        max_running: Some(Some(4)),
        ..Terms::with_priority(3)
    };
    let again = submit(store, &moved, terms).await;
    assert_eq!(
        (again.new, again.jobs, again.fresh),
        (false, counts(4, 12), counts(0, 0))
    );
    assert_eq!(again.before.unwrap().priority, 0);
    let terms = store.terms(base().sweep_id(None)).await.unwrap();
    assert_eq!(terms, again.terms);
    assert_eq!(
        (terms.owner.as_str(), terms.priority, terms.weight),
        ("ben", 3, 2.5)
    );
    assert_eq!(terms.max_running, Some(4));
    // Workers are told where the files are now.
    assert_eq!(
        postgres
            .count("SELECT count(*) FROM config WHERE spec #>> '{data,path}' = '/new'")
            .await,
        2
    );
    assert_eq!(postgres.count("SELECT count(*) FROM config").await, 2);
    // Without terms they stay, and a limit can be lifted.
    let again = submit(store, &moved, Terms::default()).await;
    assert_eq!(again.before.as_ref(), Some(&again.terms));
    let lifted = Terms {
        max_running: Some(None),
        ..Terms::default()
    };
    let (_, after) = store
        .set_terms(base().sweep_id(None), &lifted)
        .await
        .unwrap();
    assert_eq!((after.max_running, after.priority), (None, 3));
    for weight in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        let bad = Terms {
            weight: Some(weight),
            ..Terms::default()
        };
        store
            .set_terms(base().sweep_id(None), &bad)
            .await
            .unwrap_err();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_submissions_share_their_jobs() {
    let postgres = Postgres::start().await;
    let store = &postgres.store;
    // Overlapping, in opposite orders.
    let specs: Vec<ResolvedSpec> = (0..6)
        .map(|n| {
            with(&format!("s{n}"), |spec| {
                spec.seeds = (n..n + 40).collect();
                if n % 2 == 1 {
                    spec.seeds.reverse();
                    spec.methods.reverse();
                }
            })
        })
        .collect();
    let all = specs
        .iter()
        .map(|spec| submit(store, spec, Terms::default()));
    let submitted = futures::future::join_all(all).await;
    let fresh: i64 = submitted.iter().map(|s| s.fresh.train).sum();
    assert_eq!(fresh, 2 * 45, "each training job was new to one");
    assert_eq!(postgres.count("SELECT count(*) FROM job").await, 2 * 45 * 4);
    assert_eq!(postgres.count(BROKEN).await, 0);
    // The same twice at once: one of them is new.
    let again = with("again", |_| ());
    let (a, b) = tokio::join!(
        submit(store, &again, Terms::default()),
        submit(store, &again, Terms::default())
    );
    assert!(a.new != b.new);
    assert_eq!(a.jobs, b.jobs);
}

/// A training ends while evaluations of its model are submitted: none of them is left waiting.
#[tokio::test(flavor = "multi_thread")]
async fn evaluation_is_released_however_its_training_ends_meanwhile() {
    let postgres = Postgres::start().await;
    let store = &postgres.store;
    let base = with("base", |spec| spec.seeds = (0..12).collect());
    submit(store, &base, Terms::default()).await;
    for (n, training) in trainings(&base).into_iter().enumerate() {
        let more = with(&format!("more {n}"), |spec| {
            spec.seeds = (0..12).collect();
            spec.cases.push(format!("r=0.{}", 400 + n));
        });
        // At all moments of the submission, from before it to after it.
        let ends = async {
            tokio::time::sleep(std::time::Duration::from_millis(2 * n as u64)).await;
            finish(store, training).await;
        };
        tokio::join!(submit(store, &more, Terms::default()), ends);
        assert_eq!(postgres.count(BROKEN).await, 0, "{n}");
    }
    assert_eq!(postgres.count(BLOCKED).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn failed_submission_leaves_nothing() {
    let postgres = Postgres::start().await;
    let store = &postgres.store;
    let once = jobs(&base());
    let twice = once.clone().into_iter().chain(once.into_iter().take(1));
    let error = store
        .submit(&sweep_of(&base(), None, Terms::default()), twice)
        .await
        .unwrap_err();
    let error = halfheard_shared::error::chain(&error);
    assert!(error.contains("sweep_job_of_job"), "{error}");
    assert_eq!(postgres.count("SELECT count(*) FROM sweep").await, 0);
    assert_eq!(postgres.count("SELECT count(*) FROM job").await, 0);
    // Seeds are signed in the database.
    let large = with("large", |spec| spec.seeds.push(u64::MAX));
    let planned = matrix::expand(Arc::new(large.clone()), None);
    let error = store
        .submit(&sweep_of(&large, None, Terms::default()), planned)
        .await
        .unwrap_err();
    assert!(error.to_string().contains("the seed"), "{error}");
    assert_eq!(postgres.count("SELECT count(*) FROM job").await, 0);
}
