//! Submission and order.

use anyhow::Result;
use halfheard_e2e::{
    PATIENCE,
    stage::Stage,
    sweeps::{matrix, noops, sweep},
    worker::{Act, Profile, ScriptedWorker},
};
use halfheard_shared::error::chain;
use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

/// A second submission, even a concurrent one, changes nothing.
#[tokio::test(flavor = "multi_thread")]
async fn second_submission_of_a_spec_changes_nothing() -> Result<()> {
    let stage = Stage::start().await?;
    let sweep = sweep("again", 0);
    let cases = ["r=0", "missing=v"];
    let (a, b) = tokio::join!(
        stage.store.submit(&sweep, matrix(&sweep, 0..50, &cases)),
        stage.store.submit(&sweep, matrix(&sweep, 0..50, &cases)),
    );
    let (a, b) = (a?, b?);
    assert!(a.new != b.new, "exactly one was new");
    assert_eq!(a.jobs, b.jobs);
    assert_eq!((a.jobs.train, a.jobs.eval), (50, 100));
    assert_eq!(stage.count("SELECT count(*) FROM job").await?, 150);
    assert_eq!(
        stage.count("SELECT count(*) FROM config").await?,
        1,
        "seeds share a config"
    );
    let found = stage.store.find_sweep(&sweep.id.short()).await?;
    assert_eq!(found.id, sweep.id);
    assert_eq!(stage.store.find_sweep("again").await?.id, sweep.id);
    let error = stage.store.find_sweep("other").await.unwrap_err();
    assert!(error.to_string().contains("`other`"), "{error}");
    Ok(())
}

/// A submission that fails halfway leaves nothing behind.
#[tokio::test(flavor = "multi_thread")]
async fn failed_submission_leaves_nothing() -> Result<()> {
    let stage = Stage::start().await?;
    let sweep = sweep("half", 0);
    let twice = matrix(&sweep, 0..5, &["r=0"]).chain(matrix(&sweep, 4..5, &["r=0"]));
    let error = stage.store.submit(&sweep, twice).await.unwrap_err();
    let error = chain(&error);
    assert!(error.contains("sweep_job_of_job"), "{error}");
    assert_eq!(stage.count("SELECT count(*) FROM sweep").await?, 0);
    assert_eq!(stage.count("SELECT count(*) FROM job").await?, 0);
    Ok(())
}

/// A later sweep of higher priority overtakes all that is not yet granted.
#[tokio::test(flavor = "multi_thread")]
async fn higher_priority_is_dispatched_first() -> Result<()> {
    let stage = Stage::start().await?;
    let (low, high) = (sweep("low", 0), sweep("high", 5));
    stage.store.submit(&low, matrix(&low, 0..20, &[])).await?;
    stage.store.submit(&high, matrix(&high, 0..20, &[])).await?;
    let order = Arc::new(Mutex::new(Vec::new()));
    let _coordinator = stage.serve();
    let _worker = ScriptedWorker::start(
        &stage.broker,
        "w",
        Arc::new({
            let order = Arc::clone(&order);
            move |job, _| {
                order.lock().unwrap().push(job.sweep);
                Act::Complete
            }
        }),
    );
    stage.finished(low.id, PATIENCE).await?;
    stage.finished(high.id, PATIENCE).await?;
    let order = order.lock().unwrap();
    assert_eq!(order.len(), 40);
    assert!(order[..20].iter().all(|sweep| *sweep == high.id));
    Ok(())
}

/// Four workers, from submission to results.
#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_jobs_are_each_done_once() -> Result<()> {
    let stage = Stage::start().await?;
    let sweep = sweep("many", 0);
    stage.store.submit(&sweep, noops(&sweep, 10_000)).await?;
    let _coordinator = stage.serve();
    let _workers: Vec<ScriptedWorker> = (0..4)
        .map(|n| ScriptedWorker::completing(&stage.broker, &format!("w{n}")))
        .collect();
    assert_eq!(stage.finished(sweep.id, PATIENCE).await?.done, 10_000);
    assert_eq!(
        stage
            .count("SELECT count(*) FROM attempt WHERE outcome = 'done'")
            .await?,
        10_000
    );
    Ok(())
}

/// More workers than are answered at once wait for what they cannot have; one that can has its turn.
#[tokio::test(flavor = "multi_thread")]
async fn worker_has_its_turn_however_many_others_wait() -> Result<()> {
    let stage = Stage::start().await?;
    let sweep = sweep("turn", 0);
    let script: halfheard_e2e::worker::Script = Arc::new(|_, _| Act::Complete);
    let _others: Vec<ScriptedWorker> = (0..300)
        .map(|number| {
            let profile = Profile {
                methods: vec!["almt".to_owned()],
                // Not to be busy with beats.
                beat_every: Duration::from_secs(5),
                ..Profile::named(&format!("a{number}"))
            };
            ScriptedWorker::with(&stage.broker, profile, Arc::clone(&script))
        })
        .collect();
    let _coordinator = stage.serve();
    // All of them wait.
    tokio::time::sleep(Duration::from_secs(3)).await;
    stage
        .store
        .submit(&sweep, matrix(&sweep, 0..2, &[]))
        .await?;
    let _able = ScriptedWorker::completing(&stage.broker, "z");
    assert_eq!(stage.finished(sweep.id, PATIENCE).await?.done, 2);
    Ok(())
}
