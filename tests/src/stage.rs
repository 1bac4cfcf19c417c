//! A whole installation for one test: servers, a migrated database, a coordinator.

use crate::servers::{Nats, Postgres};
use anyhow::{Result, bail, ensure};
use halfheard_coordinator::{
    orchestrator::collect::drained,
    orchestrator::{options::ServeOptions, serve::serve},
};
use halfheard_shared::{
    broker::{Broker, BrokerError, BrokerSettings},
    ids::{AttemptId, JobId, SweepId},
};
use halfheard_store::{Store, lifecycle::RetryPolicy, sweeps::Progress};
use std::time::{Duration, Instant};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// Servers and connections to them. The order of fields is the order of their end.
#[derive(Debug)]
pub struct Stage {
    pub store: Store,
    pub broker: Broker,
    pub nats: Nats,
    pub postgres: Postgres,
    data: tempfile::TempDir,
}

impl Stage {
    /// Starts everything but a coordinator.
    pub async fn start() -> Result<Self> {
        let _ = tracing_subscriber::fmt()
            .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
            .with_test_writer()
            .try_init();
        Self::on(Postgres::start()?).await
    }

    /// A stage whose database waits for the disk at each commit, as it does outside tests.
    pub async fn start_synced() -> Result<Self> {
        Self::on(Postgres::start_synced()?).await
    }

    async fn on(postgres: Postgres) -> Result<Self> {
        let nats = Nats::start()?;
        let store = Store::connect_with_retry(&postgres.url().parse()?).await?;
        store.migrate().await?;
        let broker = BrokerSettings::at(nats.url()).connect().await?;
        broker.ensure(&store.installation().await?).await?;
        Ok(Self {
            store,
            broker,
            nats,
            postgres,
            data: tempfile::tempdir()?,
        })
    }

    /// An empty data folder.
    pub fn data_dir(&self) -> &std::path::Path {
        self.data.path()
    }

    /// Options with short delays.
    pub fn options() -> ServeOptions {
        ServeOptions {
            retry: RetryPolicy {
                attempts: 3,
                delay: Duration::from_millis(200),
                ..RetryPolicy::default()
            },
            lease: Duration::from_secs(3),
            poll: Duration::from_millis(50),
            leader_poll: Duration::from_millis(100),
            notify: None,
        }
    }

    /// Starts a coordinator.
    pub fn serve(&self) -> Coordinator {
        self.serve_with(Self::options())
    }

    /// Starts a coordinator with options of its own.
    pub fn serve_with(&self, options: ServeOptions) -> Coordinator {
        self.serve_from(&self.store, options)
    }

    /// Starts a coordinator on another connection to the database.
    pub fn serve_from(&self, store: &Store, options: ServeOptions) -> Coordinator {
        self.serve_between(store, &self.broker, options)
    }

    /// Starts a coordinator on other connections to the database and the broker.
    pub fn serve_between(
        &self,
        store: &Store,
        broker: &Broker,
        options: ServeOptions,
    ) -> Coordinator {
        let stop = CancellationToken::new();
        let task = tokio::spawn(serve(store.clone(), broker.clone(), options, stop.clone()));
        Coordinator { stop, task }
    }

    /// Ends the lead of a coordinator that was killed, which would run out by itself after a while.
    pub async fn end_lead(&self) -> Result<()> {
        sqlx::query("UPDATE leadership SET expires = '-infinity'")
            .execute(self.store.pool())
            .await?;
        Ok(())
    }

    /// The term and the holder of the lead, if it has not run out.
    pub async fn leader(&self) -> Result<Option<(i64, String)>> {
        Ok(
            sqlx::query_as("SELECT term, holder FROM leadership WHERE expires > clock_timestamp()")
                .fetch_optional(self.store.pool())
                .await?,
        )
    }

    /// An attempt of `worker` that was granted once and given up as lost: its reports may still come.
    pub async fn lost_attempt(&self, job: JobId, worker: &str) -> Result<AttemptId> {
        let id = Uuid::new_v4();
        sqlx::query(
            "INSERT INTO attempt (id, job, worker, session, ended, outcome)
             VALUES ($1, $2, $3, $1, now(), 'lost')",
        )
        .bind(id)
        .bind(job.0)
        .bind(worker)
        .execute(self.store.pool())
        .await?;
        Ok(AttemptId(id))
    }

    /// Waits until all jobs of the sweep have ended and all reports are collected.
    pub async fn finished(&self, sweep: SweepId, patience: Duration) -> Result<Progress> {
        let progress = self
            .until(sweep, patience, |progress| progress.open() == 0)
            .await?;
        let since = Instant::now();
        while !drained(&self.broker).await.is_ok_and(|drained| drained) {
            ensure!(since.elapsed() < patience, "results are left uncollected");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(progress)
    }

    /// Waits until the sweep's progress is `enough`.
    pub async fn until(
        &self,
        sweep: SweepId,
        patience: Duration,
        enough: impl Fn(&Progress) -> bool,
    ) -> Result<Progress> {
        let since = Instant::now();
        let mut last = None;
        loop {
            // Some tests stop Postgres for a while.
            if let Ok(progress) = self.store.progress(sweep).await {
                if enough(&progress) {
                    return Ok(progress);
                }
                last = Some(progress);
            }
            if since.elapsed() > patience {
                bail!(
                    "the sweep makes no progress: {last:?}; {}",
                    self.not_done().await
                );
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Jobs that are not done, with their attempts: for the message of a test that waited for them in vain.
    pub async fn not_done(&self) -> String {
        let jobs: Result<Vec<String>, sqlx::Error> = sqlx::query_scalar(
            "SELECT format('%s %s of %s %s, seed %s, since %s: %s; attempts: %s', state, kind, method, case_id, seed,
                           date_trunc('second', now() - changed), coalesce(last_error, 'no error'),
                           (SELECT string_agg(format('%s by %s', coalesce(outcome::text, 'open'), worker), ', ' ORDER BY started)
                            FROM attempt WHERE job = j.id))
             FROM job j WHERE state <> 'done' ORDER BY position LIMIT 20",
        )
        .fetch_all(self.store.pool())
        .await;
        match jobs {
            Ok(jobs) if jobs.is_empty() => "all jobs are done".to_owned(),
            Ok(jobs) => format!("not done:\n{}", jobs.join("\n")),
            Err(error) => format!("jobs cannot be read: {error}"),
        }
    }

    /// A single number from the database.
    pub async fn count(&self, query: &'static str) -> Result<i64> {
        Ok(sqlx::query_scalar(query)
            .fetch_one(self.store.pool())
            .await?)
    }
}

/// A running coordinator.
#[derive(Debug)]
pub struct Coordinator {
    stop: CancellationToken,
    task: JoinHandle<Result<(), BrokerError>>,
}

impl Coordinator {
    /// Shuts it down and waits for its end.
    pub async fn stop(self) -> Result<()> {
        self.stop.cancel();
        Ok(self.task.await??)
    }

    /// Aborts it, wherever it is.
    pub async fn kill(self) {
        self.task.abort();
        let _ = self.task.await;
    }
}
