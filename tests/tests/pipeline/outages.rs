//! Outages of the broker, the database and the coordinator: nothing is lost and nothing counts twice.

use anyhow::Result;
use halfheard_e2e::{
    PATIENCE,
    dump::{assert_same, dump},
    stage::{Coordinator, Stage},
    sweeps::{matrix, sweep},
    worker::{Act, ScriptedWorker},
};
use halfheard_shared::ids::SweepId;
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

const CASES: [&str; 4] = ["r=0", "r=0.3", "r=0.9", "missing=la"];
const SEEDS: u64 = 12;
const ALL_JOBS: i64 = SEEDS as i64 * (1 + CASES.len() as i64);

/// Servers with a submitted sweep, to be disturbed.
struct Outage {
    stage: Stage,
    sweep: SweepId,
}

impl Outage {
    async fn start() -> Result<Self> {
        let stage = Stage::start().await?;
        let sweep = sweep("outage", 0);
        let jobs = matrix(&sweep, 0..SEEDS, &CASES);
        stage.store.submit(&sweep, jobs).await?;
        let sweep = sweep.id;
        Ok(Self { stage, sweep })
    }

    /// A worker so slow that every outage falls into the middle of the sweep.
    fn slow_worker(&self) -> ScriptedWorker {
        self.worker_that_takes(Duration::from_millis(60))
    }

    fn worker_that_takes(&self, time: Duration) -> ScriptedWorker {
        ScriptedWorker::start(
            &self.stage.broker,
            "w",
            Arc::new(move |_, _| Act::Delay(time)),
        )
    }

    fn worker(&self) -> ScriptedWorker {
        ScriptedWorker::completing(&self.stage.broker, "w")
    }

    async fn until_done(&self, count: i64) -> Result<()> {
        let enough = self
            .stage
            .until(self.sweep, PATIENCE, |progress| progress.done >= count);
        enough.await.map(drop)
    }

    async fn until_all_done(&self) -> Result<()> {
        let progress = self.stage.finished(self.sweep, PATIENCE).await?;
        assert_eq!(progress.done, ALL_JOBS);
        Ok(())
    }

    /// Waits for the end of the sweep, whose results must be those of an undisturbed one.
    async fn finish(&self, coordinator: Coordinator) -> Result<()> {
        self.until_all_done().await?;
        coordinator.stop().await?;
        assert_same(&dump(&self.stage.store).await?, &undisturbed().await?);
        Ok(())
    }

    /// No job was begun twice, and none was lost or failed.
    async fn assert_each_job_once(&self) -> Result<()> {
        let attempts = self.stage.count("SELECT count(*) FROM attempt").await?;
        assert_eq!(attempts, ALL_JOBS);
        let wrong = "SELECT count(*) FROM attempt WHERE outcome IS DISTINCT FROM 'done'";
        assert_eq!(self.stage.count(wrong).await?, 0);
        let blamed = "SELECT sum(failures + losses)::bigint FROM job";
        assert_eq!(self.stage.count(blamed).await?, 0);
        Ok(())
    }
}

async fn undisturbed() -> Result<String> {
    let calm = Outage::start().await?;
    let coordinator = calm.stage.serve();
    let _worker = calm.worker();
    calm.stage.finished(calm.sweep, PATIENCE).await?;
    coordinator.stop().await?;
    dump(&calm.stage.store).await
}

/// nats-server is killed twice during the sweep and restarts on the same files.
#[tokio::test(flavor = "multi_thread")]
async fn jobs_count_once_when_the_broker_is_killed() -> Result<()> {
    let mut outage = Outage::start().await?;
    let coordinator = outage.stage.serve();
    let _worker = outage.slow_worker();
    for done in [3, 25] {
        outage.until_done(done).await?;
        outage.stage.nats.kill()?;
        tokio::time::sleep(Duration::from_millis(700)).await;
        outage.stage.nats.resume()?;
    }
    outage.finish(coordinator).await
}

/// The broker is away for much longer than a lease while a worker trains and while it evaluates: no job is
/// taken from it, none is begun twice, and it reports when the broker is back.
#[tokio::test(flavor = "multi_thread")]
async fn broker_away_for_longer_than_a_lease_takes_no_job_from_its_worker() -> Result<()> {
    let mut outage = Outage::start().await?;
    let lease = Stage::options().lease;
    let coordinator = outage.stage.serve();
    let _worker = outage.worker_that_takes(Duration::from_millis(400));
    for done in [2, 20] {
        outage.until_done(done).await?;
        outage.stage.nats.kill()?;
        tokio::time::sleep(4 * lease).await;
        outage.stage.nats.resume()?;
    }
    outage.until_all_done().await?;
    outage.assert_each_job_once().await?;
    outage.finish(coordinator).await
}

/// nats-server restarts with an empty disk: what was reported and not ingested is sent again.
#[tokio::test(flavor = "multi_thread")]
async fn jobs_count_once_when_the_broker_loses_its_storage() -> Result<()> {
    let mut outage = Outage::start().await?;
    let coordinator = outage.stage.serve();
    let _worker = outage.slow_worker();
    outage.until_done(10).await?;
    outage.stage.nats.kill()?;
    outage.stage.nats.resume_empty()?;
    outage.finish(coordinator).await
}

/// Postgres is killed twice during the sweep.
#[tokio::test(flavor = "multi_thread")]
async fn jobs_count_once_when_the_database_is_killed() -> Result<()> {
    let mut outage = Outage::start().await?;
    let coordinator = outage.stage.serve();
    let _worker = outage.slow_worker();
    for done in [3, 25] {
        outage.until_done(done).await?;
        outage.stage.postgres.kill()?;
        tokio::time::sleep(Duration::from_millis(700)).await;
        outage.stage.postgres.resume()?;
    }
    outage.finish(coordinator).await
}

/// The database is away for longer than a lease; time in which nothing could be written counts against
/// no worker.
#[tokio::test(flavor = "multi_thread")]
async fn database_away_for_longer_than_a_lease_takes_no_job_from_its_worker() -> Result<()> {
    let mut outage = Outage::start().await?;
    let coordinator = outage.stage.serve();
    let _worker = outage.worker_that_takes(Duration::from_millis(400));
    outage.until_done(2).await?;
    outage.stage.postgres.kill()?;
    tokio::time::sleep(3 * Stage::options().lease).await;
    outage.stage.postgres.resume()?;
    outage.until_all_done().await?;
    outage.assert_each_job_once().await?;
    outage.finish(coordinator).await
}

/// The coordinator ends again and again, wherever it happens to be.
#[tokio::test(flavor = "multi_thread")]
async fn jobs_count_once_when_the_coordinator_is_killed() -> Result<()> {
    let outage = Outage::start().await?;
    let _worker = outage.worker();
    for milliseconds in [5, 11, 17, 23, 31, 41, 53, 67] {
        let coordinator = outage.stage.serve();
        let since = Instant::now();
        while outage.stage.leader().await?.is_none() {
            assert!(since.elapsed() < PATIENCE, "nobody leads");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        tokio::time::sleep(Duration::from_millis(100 + milliseconds)).await;
        coordinator.kill().await;
        outage.stage.end_lead().await?;
    }
    outage.finish(outage.stage.serve()).await
}

/// No worker is heard any more, by a coordinator that hears: its jobs go to another one, uncounted
/// unless they had begun.
#[tokio::test(flavor = "multi_thread")]
async fn jobs_of_a_dead_worker_are_granted_to_another() -> Result<()> {
    let outage = Outage::start().await?;
    let coordinator = outage.stage.serve();
    let dead = ScriptedWorker::start(
        &outage.stage.broker,
        "dead",
        Arc::new(|_, _| Act::Delay(Duration::from_secs(600))),
    );
    outage
        .stage
        .until(outage.sweep, PATIENCE, |progress| progress.running > 0)
        .await?;
    dead.kill().await;
    let _worker = outage.worker();
    outage.until_all_done().await?;
    let lost = "SELECT count(*) FROM attempt WHERE outcome = 'lost' AND worker = 'dead'";
    assert_eq!(outage.stage.count(lost).await?, 1);
    outage.finish(coordinator).await
}
