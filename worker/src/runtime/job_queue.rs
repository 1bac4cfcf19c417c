//! Takes jobs from the broker's queues.

use super::{leases::JobLease, slot::Slot};
use async_nats::jetstream::consumer::PullConsumer;
use futures::StreamExt as _;
use halfheard_shared::{
    broker::{BrokerError, Queue},
    wire::Work,
};
use std::time::Duration;
use tokio::time::timeout;

/// Evaluation jobs taken at once: the cases of one model.
const EVALUATIONS: usize = 16;
/// No-op jobs taken at once when there is nothing else.
const NOOPS: usize = 512;
/// How long to wait for a training job when there is nothing to do.
const WAIT: Duration = Duration::from_millis(500);
/// How long the broker may take to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// Why no jobs can be taken.
#[derive(Debug, thiserror::Error)]
pub(super) enum FetchError {
    #[error(transparent)]
    Broker(#[from] BrokerError),
    #[error("cannot fetch jobs from the broker")]
    Pull(#[source] async_nats::Error),
    #[error("no answer from the broker to a request for jobs")]
    NoAnswer,
}

struct Consumers {
    train: PullConsumer,
    eval: PullConsumer,
}

/// The queues of training and evaluation jobs.
pub(super) struct JobQueue {
    consumers: Option<Consumers>,
    batch: usize,
}

impl Default for JobQueue {
    fn default() -> Self {
        Self {
            consumers: None,
            batch: EVALUATIONS,
        }
    }
}

impl JobQueue {
    /// The next jobs; waits shortly if there are none.
    pub(super) async fn next(&mut self, slot: &Slot) -> Result<Vec<JobLease>, FetchError> {
        let jobs = self.fetch_next(slot).await;
        match &jobs {
            Ok(jobs) => self.adapt_batch(jobs),
            // Opened again with the next call.
            Err(_) => self.consumers = None,
        }
        jobs
    }

    async fn fetch_next(&mut self, slot: &Slot) -> Result<Vec<JobLease>, FetchError> {
        let consumers = match &self.consumers {
            Some(consumers) => consumers,
            None => self.consumers.insert(Consumers {
                train: slot.broker.jobs(Queue::Train).await?,
                eval: slot.broker.jobs(Queue::Eval).await?,
            }),
        };
        // Evaluation first: its jobs are short, and a trained model's results complete sooner.
        let jobs = fetch(slot, &consumers.eval, self.batch, None).await?;
        if !jobs.is_empty() || slot.is_stopping() {
            return Ok(jobs);
        }
        fetch(slot, &consumers.train, 1, Some(WAIT)).await
    }

    /// Takes more at once while full batches of no-op jobs arrive.
    fn adapt_batch(&mut self, jobs: &[JobLease]) {
        let full = jobs.len() == self.batch;
        let noops_only = jobs.iter().all(|job| matches!(job.job.work, Work::Noop));
        self.batch = if full && noops_only {
            (self.batch * 4).min(NOOPS)
        } else {
            EVALUATIONS
        };
    }
}

/// Up to `max` available jobs; waits up to `wait` for the first.
async fn fetch(
    slot: &Slot,
    consumer: &PullConsumer,
    max: usize,
    wait: Option<Duration>,
) -> Result<Vec<JobLease>, FetchError> {
    let limit = wait.unwrap_or_default() + ANSWER_TIMEOUT;
    let mut request = consumer.fetch().max_messages(max);
    if let Some(wait) = wait {
        request = request.expires(wait);
    }
    let mut messages = timeout(limit, request.messages())
        .await
        .map_err(|_| FetchError::NoAnswer)?
        .map_err(|error| FetchError::Pull(error.into()))?;
    let mut jobs = Vec::new();
    loop {
        match timeout(limit, messages.next()).await {
            Ok(Some(Ok(message))) => match slot.leases.acquire(message).await {
                Ok(job) => jobs.push(job),
                Err(error) => slot.record_undecodable_job(&error),
            },
            Ok(None) => return Ok(jobs),
            // What has arrived is processed; the rest is redelivered.
            Ok(Some(Err(_))) | Err(_) if !jobs.is_empty() => return Ok(jobs),
            Ok(Some(Err(error))) => return Err(FetchError::Pull(error)),
            Err(_) => return Err(FetchError::NoAnswer),
        }
    }
}
