//! Dispatcher: publishes jobs from the outbox.
//!
//! Only a bounded window of jobs is in flight: a later sweep of higher priority must not wait behind a
//! million messages. A job is published, the broker's acknowledgement awaited, and only then its row
//! marked. A crash in between publishes the job again under the same message id.

use super::{options::ServeOptions, outage_log::OutageLog};
use halfheard_shared::{
    broker::{Broker, BrokerError, Queue},
    case::Case,
    error::chain,
    ids::JobId,
    wire::{CheckpointRef, JobMessage, TrainSpec, Work},
};
use halfheard_store::{JobKind, Store, StoreError, outbox::ReadyJob};
use std::{
    collections::{HashMap, HashSet},
    time::{Duration, Instant},
};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// Maximum number of jobs published per round and queue.
const ROUND: i64 = 1024;
/// Maximum number of cached configs and of cached checkpoint lists, a few kilobytes each.
const CACHE: usize = 1024;
/// How long a count of workers is valid.
const COUNT_FOR: Duration = Duration::from_secs(2);

/// Why a round of dispatch failed.
#[derive(Debug, thiserror::Error)]
enum DispatchError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Broker(#[from] BrokerError),
}

/// Publishes ready jobs until `stop`. `wake` starts the next round at once.
pub(super) async fn dispatch(
    store: &Store,
    broker: &Broker,
    options: &ServeOptions,
    wake: &Notify,
    stop: &CancellationToken,
) {
    let mut dispatcher = Dispatcher {
        store,
        broker,
        options,
        configs: HashMap::new(),
        checkpoints: HashMap::new(),
        slots: (0, None),
    };
    let mut outage = OutageLog::new("dispatch failed; retrying");
    loop {
        let pause = tokio::select! {
            () = stop.cancelled() => return,
            published = dispatcher.round() => match published {
                Ok(published) => {
                    outage.recovered();
                    if published > 0 {
                        continue;
                    }
                    options.poll
                }
                Err(error) => outage.failed(&chain(&error), 0),
            },
        };
        tokio::select! {
            () = stop.cancelled() => return,
            () = wake.notified() => {}
            () = tokio::time::sleep(pause) => {}
        }
    }
}

struct Dispatcher<'a> {
    store: &'a Store,
    broker: &'a Broker,
    options: &'a ServeOptions,
    configs: HashMap<Uuid, Result<TrainSpec, String>>,
    checkpoints: HashMap<JobId, Vec<CheckpointRef>>,
    /// The number of live workers, and when it was counted.
    slots: (i64, Option<Instant>),
}

impl Dispatcher<'_> {
    /// Fills both windows and returns the number of published jobs.
    async fn round(&mut self) -> Result<usize, DispatchError> {
        let in_flight = self.store.in_flight().await?;
        let mut published = 0;
        for queue in Queue::ALL {
            let window = match queue {
                Queue::Train => (2 * self.live_slots().await).max(self.options.train_window),
                Queue::Eval => self.options.eval_window,
            };
            let room = (window - in_flight.of(queue)).min(ROUND);
            // Refill a full queue in chunks, not job by job.
            if room <= 0 || (queue == Queue::Eval && room < (window / 16).min(64)) {
                continue;
            }
            let excluded = self.store.circulating(queue, window).await?;
            let jobs = self.store.ready_jobs(queue, room, &excluded).await?;
            if !jobs.is_empty() {
                published += self.publish(jobs).await?;
            }
        }
        Ok(published)
    }

    async fn publish(&mut self, jobs: Vec<ReadyJob>) -> Result<usize, DispatchError> {
        self.prepare(&jobs).await?;
        let mut sent = Vec::with_capacity(jobs.len());
        let mut failure = None;
        for job in &jobs {
            let message = match self.message(job) {
                Ok(message) => message,
                Err(reason) => {
                    tracing::error!(job = %job.id, reason, "cannot publish a job");
                    self.store.give_up(job.id, &reason).await?;
                    continue;
                }
            };
            match self.broker.send_job(&message).await {
                Ok(confirmation) => sent.push((job, confirmation)),
                Err(error) if error.is_transient() => {
                    failure = Some(error);
                    break;
                }
                Err(error) => {
                    let reason = format!("the job cannot be published: {error}");
                    self.store.give_up(job.id, &reason).await?;
                }
            }
        }
        let mut confirmed = Vec::with_capacity(sent.len());
        for (job, confirmation) in sent {
            match confirmation.confirmed().await {
                Ok(_) => confirmed.push((job.id, job.publication)),
                Err(error) => failure = Some(error),
            }
        }
        if !confirmed.is_empty() {
            self.store.mark_queued(&confirmed).await?;
            tracing::debug!(jobs = confirmed.len(), "published");
        }
        match failure {
            Some(error) => Err(error.into()),
            None => Ok(jobs.len()),
        }
    }

    /// Loads the configs and checkpoints of `jobs` that are not cached.
    async fn prepare(&mut self, jobs: &[ReadyJob]) -> Result<(), DispatchError> {
        if self.configs.len() > CACHE {
            self.configs.clear();
        }
        let configs: HashSet<Uuid> = jobs
            .iter()
            .filter_map(|job| job.config)
            .filter(|config| !self.configs.contains_key(config))
            .collect();
        if !configs.is_empty() {
            let configs: Vec<Uuid> = configs.into_iter().collect();
            self.configs.extend(self.store.configs(&configs).await?);
        }
        if self.checkpoints.len() > CACHE {
            self.checkpoints.clear();
        }
        let trains: HashSet<JobId> = jobs
            .iter()
            .filter_map(|job| job.train)
            .filter(|train| !self.checkpoints.contains_key(train))
            .collect();
        if !trains.is_empty() {
            let trains: Vec<JobId> = trains.into_iter().collect();
            self.checkpoints
                .extend(self.store.checkpoints(&trains).await?);
        }
        Ok(())
    }

    fn message(&self, job: &ReadyJob) -> Result<JobMessage, String> {
        let spec = || -> Result<TrainSpec, String> {
            let spec = job
                .config
                .and_then(|config| self.configs.get(&config))
                .ok_or("the database lacks its config")?
                .as_ref()?;
            Ok(TrainSpec {
                seed: u64::try_from(job.seed).map_err(|_| "its seed is negative")?,
                ..spec.clone()
            })
        };
        let work = match job.kind {
            JobKind::Noop => Work::Noop,
            JobKind::Train => Work::Train(spec()?),
            JobKind::Eval => {
                let train = job.train.ok_or("it has no training job")?;
                let case: Case = job
                    .case
                    .as_deref()
                    .ok_or("it has no case")?
                    .parse()
                    .map_err(|error: halfheard_shared::case::CaseError| error.to_string())?;
                let checkpoints = self
                    .checkpoints
                    .get(&train)
                    .filter(|checkpoints| !checkpoints.is_empty())
                    .ok_or("its training job has no checkpoint")?;
                Work::Eval {
                    train,
                    spec: spec()?,
                    case,
                    checkpoints: checkpoints.clone(),
                }
            }
        };
        Ok(JobMessage {
            sweep: job.sweep,
            job: job.id,
            publication: u32::try_from(job.publication)
                .map_err(|_| "its publication is negative")?,
            work,
        })
    }

    /// Returns the number of live workers, by their heartbeats; the last known one if the broker
    /// does not answer.
    async fn live_slots(&mut self) -> i64 {
        let (count, at) = self.slots;
        if at.is_some_and(|at| at.elapsed() < COUNT_FOR) {
            return count;
        }
        let count = match self.broker.count_workers().await {
            Ok(count) => i64::try_from(count).unwrap_or(i64::MAX / 4),
            Err(error) => {
                tracing::debug!(error = chain(&error), "cannot count the workers");
                count
            }
        };
        self.slots = (count, Some(Instant::now()));
        count
    }
}
