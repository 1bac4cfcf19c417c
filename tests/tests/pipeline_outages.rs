//! Things that die: nothing is lost and nothing counts twice.

use anyhow::Result;
use halfheard_e2e::{
    PATIENCE,
    dump::{assert_same, dump},
    stage::Stage,
    sweeps::{matrix, sweep},
    worker::{Act, ScriptedWorker},
};
use halfheard_shared::{broker::JOBS, wire::JobMessage, wire::Work};
use std::{sync::Arc, time::Duration};

const CASES: [&str; 4] = ["r=0", "r=0.3", "r=0.9", "missing=la"];
const SEEDS: u64 = 12;
const JOBS_IN_ALL: i64 = SEEDS as i64 * (1 + CASES.len() as i64);

async fn undisturbed() -> Result<String> {
    let stage = Stage::set().await?;
    let sweep = sweep("outage", 0);
    stage
        .store
        .submit(&sweep, matrix(&sweep, 0..SEEDS, &CASES))
        .await?;
    let coordinator = stage.serve();
    let _worker = ScriptedWorker::diligent(&stage.broker, "w");
    stage.finished(sweep.id, PATIENCE).await?;
    coordinator.stop().await?;
    dump(&stage.store).await
}

fn steady(stage: &Stage) -> ScriptedWorker {
    // Slow enough that every outage falls into the middle.
    ScriptedWorker::start(
        &stage.broker,
        "w",
        Arc::new(|_, _| Act::Slow(Duration::from_millis(60))),
    )
}

/// nats-server is killed in the middle, twice, and comes back on the same files.
#[tokio::test(flavor = "multi_thread")]
async fn the_broker_is_killed() -> Result<()> {
    let mut stage = Stage::set().await?;
    let sweep = sweep("outage", 0);
    stage
        .store
        .submit(&sweep, matrix(&sweep, 0..SEEDS, &CASES))
        .await?;
    let coordinator = stage.serve();
    let _worker = steady(&stage);
    for done in [3, 25] {
        stage
            .until(sweep.id, PATIENCE, |progress| progress.done >= done)
            .await?;
        stage.nats.kill()?;
        tokio::time::sleep(Duration::from_millis(700)).await;
        stage.nats.resume()?;
    }
    let progress = stage.finished(sweep.id, PATIENCE).await?;
    assert_eq!(progress.done, JOBS_IN_ALL);
    coordinator.stop().await?;
    assert_same(&dump(&stage.store).await?, &undisturbed().await?);
    Ok(())
}

/// nats-server comes back with nothing: its disk is gone. What was queued is published again.
#[tokio::test(flavor = "multi_thread")]
async fn the_broker_loses_everything() -> Result<()> {
    let mut stage = Stage::set().await?;
    let sweep = sweep("outage", 0);
    stage
        .store
        .submit(&sweep, matrix(&sweep, 0..SEEDS, &CASES))
        .await?;
    let coordinator = stage.serve();
    let _worker = steady(&stage);
    stage
        .until(sweep.id, PATIENCE, |progress| progress.done >= 10)
        .await?;
    stage.nats.kill()?;
    stage.nats.resume_empty()?;
    let progress = stage.finished(sweep.id, PATIENCE).await?;
    assert_eq!(progress.done, JOBS_IN_ALL);
    coordinator.stop().await?;
    assert_same(&dump(&stage.store).await?, &undisturbed().await?);
    Ok(())
}

/// The stream of jobs is deleted under a running coordinator.
#[tokio::test(flavor = "multi_thread")]
async fn the_stream_of_jobs_is_deleted() -> Result<()> {
    let stage = Stage::set().await?;
    let sweep = sweep("outage", 0);
    stage
        .store
        .submit(&sweep, matrix(&sweep, 0..SEEDS, &CASES))
        .await?;
    let _coordinator = stage.serve();
    stage
        .until(sweep.id, PATIENCE, |progress| progress.queued == 8)
        .await?;
    stage.broker.jetstream().delete_stream(JOBS).await?;
    let _worker = ScriptedWorker::diligent(&stage.broker, "w");
    let progress = stage.finished(sweep.id, PATIENCE).await?;
    assert_eq!(progress.done, JOBS_IN_ALL);
    Ok(())
}

/// Postgres is killed in the middle, twice.
#[tokio::test(flavor = "multi_thread")]
async fn the_database_is_killed() -> Result<()> {
    let mut stage = Stage::set().await?;
    let sweep = sweep("outage", 0);
    stage
        .store
        .submit(&sweep, matrix(&sweep, 0..SEEDS, &CASES))
        .await?;
    let coordinator = stage.serve();
    let _worker = steady(&stage);
    for done in [3, 25] {
        stage
            .until(sweep.id, PATIENCE, |progress| progress.done >= done)
            .await?;
        stage.postgres.kill()?;
        tokio::time::sleep(Duration::from_millis(700)).await;
        stage.postgres.resume()?;
    }
    let progress = stage.finished(sweep.id, PATIENCE).await?;
    assert_eq!(progress.done, JOBS_IN_ALL);
    coordinator.stop().await?;
    assert_same(&dump(&stage.store).await?, &undisturbed().await?);
    Ok(())
}

/// The coordinator ends again and again wherever it happens to be.
#[tokio::test(flavor = "multi_thread")]
async fn the_coordinator_is_killed() -> Result<()> {
    let stage = Stage::set().await?;
    let sweep = sweep("outage", 0);
    stage
        .store
        .submit(&sweep, matrix(&sweep, 0..SEEDS, &CASES))
        .await?;
    let _worker = ScriptedWorker::diligent(&stage.broker, "w");
    for milliseconds in [5, 11, 17, 23, 31, 41, 53, 67] {
        let coordinator = stage.serve();
        tokio::time::sleep(Duration::from_millis(100 + milliseconds)).await;
        coordinator.kill().await;
    }
    let coordinator = stage.serve();
    let progress = stage.finished(sweep.id, PATIENCE).await?;
    assert_eq!(progress.done, JOBS_IN_ALL);
    coordinator.stop().await?;
    assert_same(&dump(&stage.store).await?, &undisturbed().await?);
    Ok(())
}

/// The coordinator dies between publishing jobs and noting that it did; their results come while
/// the rows still say `ready`. Each job is done once.
#[tokio::test(flavor = "multi_thread")]
async fn results_come_before_the_row_is_marked() -> Result<()> {
    let stage = Stage::set().await?;
    let sweep = sweep("outage", 0);
    stage
        .store
        .submit(&sweep, matrix(&sweep, 0..SEEDS, &CASES))
        .await?;
    let ready = stage
        .store
        .ready_jobs(halfheard_shared::broker::Queue::Train, 100, &[])
        .await?;
    assert_eq!(ready.len(), SEEDS as usize);
    for job in &ready {
        let spec = halfheard_e2e::sweeps::train_spec(u64::try_from(job.seed)?);
        stage
            .broker
            .publish_job(&JobMessage {
                sweep: sweep.id,
                job: job.id,
                publication: 1,
                work: Work::Train(spec),
            })
            .await?;
    }
    let worker = ScriptedWorker::diligent(&stage.broker, "w");
    let mut results = stage.broker.results().await?;
    let since = std::time::Instant::now();
    while results.info().await?.num_pending < SEEDS * 4 {
        assert!(since.elapsed() < PATIENCE, "the jobs were not done");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let coordinator = stage.serve();
    let progress = stage.finished(sweep.id, PATIENCE).await?;
    assert_eq!(progress.done, JOBS_IN_ALL);
    assert_eq!(
        stage
            .count(
                "SELECT count(*) FROM attempt a JOIN job j ON j.id = a.job WHERE j.kind = 'train'"
            )
            .await?,
        SEEDS as i64,
        "the broker dropped what was published twice"
    );
    coordinator.stop().await?;
    drop(worker);
    assert_same(&dump(&stage.store).await?, &undisturbed().await?);
    Ok(())
}

/// Of two coordinators one leads; when it goes, gently or not, the other takes over.
#[tokio::test(flavor = "multi_thread")]
async fn another_coordinator_takes_over() -> Result<()> {
    let stage = Stage::set().await?;
    let sweep = sweep("outage", 0);
    stage
        .store
        .submit(&sweep, matrix(&sweep, 0..SEEDS, &CASES))
        .await?;
    let first = stage.serve();
    stage
        .until(sweep.id, PATIENCE, |progress| progress.queued > 0)
        .await?;
    let second = stage.serve();
    tokio::time::sleep(Duration::from_millis(300)).await;
    let leaders = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND granted";
    assert_eq!(stage.count(leaders).await?, 1);
    let _worker = steady(&stage);
    stage
        .until(sweep.id, PATIENCE, |progress| progress.done >= 5)
        .await?;
    // The connection that holds the lock is cut: that coordinator must stop, and one lead again.
    let cut: i64 = stage
        .count(
            "SELECT count(pg_terminate_backend(pid)) FROM pg_locks
             WHERE locktype = 'advisory' AND granted",
        )
        .await?;
    assert_eq!(cut, 1);
    stage
        .until(sweep.id, PATIENCE, |progress| progress.done >= 20)
        .await?;
    first.kill().await;
    let progress = stage.finished(sweep.id, PATIENCE).await?;
    assert_eq!(progress.done, JOBS_IN_ALL);
    second.stop().await?;
    assert_eq!(stage.count(leaders).await?, 0, "leadership was given up");
    assert_same(&dump(&stage.store).await?, &undisturbed().await?);
    Ok(())
}
