//! Outages of the broker, the database and the coordinator: nothing is lost and nothing counts twice.

use anyhow::Result;
use halfheard_e2e::{
    PATIENCE,
    dump::{assert_same, dump},
    stage::{Coordinator, Stage},
    sweeps::{matrix, sweep},
    worker::{Act, ScriptedWorker},
};
use halfheard_shared::{broker::JOBS, ids::SweepId, wire::JobMessage, wire::Work};
use std::{sync::Arc, time::Duration};

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
        let delay = Act::Delay(Duration::from_millis(60));
        ScriptedWorker::start(&self.stage.broker, "w", Arc::new(move |_, _| delay.clone()))
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

/// nats-server restarts with an empty disk. What was queued is published again.
#[tokio::test(flavor = "multi_thread")]
async fn jobs_are_republished_when_the_broker_loses_its_storage() -> Result<()> {
    let mut outage = Outage::start().await?;
    let coordinator = outage.stage.serve();
    let _worker = outage.slow_worker();
    outage.until_done(10).await?;
    outage.stage.nats.kill()?;
    outage.stage.nats.resume_empty()?;
    outage.finish(coordinator).await
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_are_republished_when_their_stream_is_deleted() -> Result<()> {
    let outage = Outage::start().await?;
    let _coordinator = outage.stage.serve();
    outage
        .stage
        .until(outage.sweep, PATIENCE, |progress| progress.queued == 8)
        .await?;
    outage.stage.broker.jetstream().delete_stream(JOBS).await?;
    let _worker = outage.worker();
    outage.until_all_done().await
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

/// The coordinator ends again and again, wherever it happens to be.
#[tokio::test(flavor = "multi_thread")]
async fn jobs_count_once_when_the_coordinator_is_killed() -> Result<()> {
    let outage = Outage::start().await?;
    let _worker = outage.worker();
    for milliseconds in [5, 11, 17, 23, 31, 41, 53, 67] {
        let coordinator = outage.stage.serve();
        tokio::time::sleep(Duration::from_millis(100 + milliseconds)).await;
        coordinator.kill().await;
    }
    outage.finish(outage.stage.serve()).await
}

/// The coordinator dies between publishing jobs and marking them; their results arrive while the rows are still `ready`.
#[tokio::test(flavor = "multi_thread")]
async fn result_before_its_row_is_queued_counts_once() -> Result<()> {
    let outage = Outage::start().await?;
    let stage = &outage.stage;
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
                sweep: outage.sweep,
                job: job.id,
                publication: 1,
                work: Work::Train(spec),
            })
            .await?;
    }
    let _worker = outage.worker();
    let mut results = stage.broker.results().await?;
    let since = std::time::Instant::now();
    while results.info().await?.num_pending < SEEDS * 4 {
        assert!(since.elapsed() < PATIENCE, "the jobs are not done");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let coordinator = stage.serve();
    outage.until_all_done().await?;
    assert_eq!(
        stage
            .count(
                "SELECT count(*) FROM attempt a JOIN job j ON j.id = a.job WHERE j.kind = 'train'"
            )
            .await?,
        SEEDS as i64,
        "the broker dropped duplicates"
    );
    outage.finish(coordinator).await
}

/// One of two coordinators leads; when it ends, gracefully or not, the other takes over.
#[tokio::test(flavor = "multi_thread")]
async fn standby_coordinator_takes_over() -> Result<()> {
    let outage = Outage::start().await?;
    let stage = &outage.stage;
    let first = stage.serve();
    stage
        .until(outage.sweep, PATIENCE, |progress| progress.queued > 0)
        .await?;
    let second = stage.serve();
    tokio::time::sleep(Duration::from_millis(300)).await;
    let leaders = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND granted";
    assert_eq!(stage.count(leaders).await?, 1);
    let _worker = outage.slow_worker();
    outage.until_done(5).await?;
    // Ending the session that holds the lock deposes its coordinator; one leads again.
    let cut: i64 = stage
        .count(
            "SELECT count(pg_terminate_backend(pid)) FROM pg_locks
             WHERE locktype = 'advisory' AND granted",
        )
        .await?;
    assert_eq!(cut, 1);
    outage.until_done(20).await?;
    first.kill().await;
    outage.until_all_done().await?;
    second.stop().await?;
    assert_eq!(stage.count(leaders).await?, 0, "leadership was released");
    assert_same(&dump(&stage.store).await?, &undisturbed().await?);
    Ok(())
}
