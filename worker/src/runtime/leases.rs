//! Leases: claims on jobs that this worker is processing, renewed until they are released.

use async_nats::jetstream::{AckKind, Message};
use halfheard_shared::{
    broker::ACK_WAIT,
    ids::AttemptId,
    wire::{JobMessage, WireError, decode},
};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::time::{MissedTickBehavior, interval, timeout};

/// Renewal interval, well within the broker's ack wait.
const RENEW_EVERY: Duration = Duration::from_secs(ACK_WAIT.as_secs() / 4);
const ACK_TIMEOUT: Duration = Duration::from_secs(5);
/// After this many deliveries an unreadable job is removed from the queue.
const MAX_UNREADABLE_DELIVERIES: u64 = 20;

/// All leases of this worker. Cheap to clone.
#[derive(Clone)]
pub(super) struct Leases {
    worker: Arc<str>,
    table: Arc<Mutex<Table>>,
}

#[derive(Default)]
struct Table {
    next_id: u64,
    messages: HashMap<u64, Arc<Message>>,
}

impl Leases {
    pub(super) fn new(worker: &str) -> Self {
        Self {
            worker: worker.into(),
            table: Arc::default(),
        }
    }

    /// Renews every lease for as long as the future runs.
    pub(super) async fn renew(self) {
        let mut tick = interval(RENEW_EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            let messages: Vec<Arc<Message>> = self.lock().messages.values().cloned().collect();
            for message in messages {
                if let Err(error) = message.ack_with(AckKind::Progress).await {
                    tracing::warn!(%error, "cannot renew the lease on a job");
                }
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        // Every change is a single operation: a panic elsewhere leaves the table consistent.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Leases the job that a message carries.
    ///
    /// # Errors
    ///
    /// The message cannot be decoded; it is returned to the queue.
    pub(super) async fn acquire(&self, message: Message) -> Result<JobLease, WireError> {
        let delivery = message
            .info()
            .map_or(1, |info| info.delivered.max(1) as u64);
        let job: JobMessage = match decode(&message.payload) {
            Ok(job) => job,
            Err(error) => {
                tracing::error!(subject = %message.subject, %error, "cannot decode a job");
                // A worker of another release may be able to, but not after this many attempts.
                let answer = if delivery > MAX_UNREADABLE_DELIVERIES {
                    AckKind::Term
                } else {
                    AckKind::Nak(Some(ACK_WAIT))
                };
                if let Err(error) = message.ack_with(answer).await {
                    tracing::debug!(%error, "cannot return the job; the broker redelivers it after its ack wait");
                }
                return Err(error);
            }
        };
        let message = Arc::new(message);
        let mut table = self.lock();
        table.next_id += 1;
        let id = table.next_id;
        table.messages.insert(id, message.clone());
        drop(table);
        Ok(JobLease {
            attempt: AttemptId::fresh(job.job, &self.worker, delivery),
            job,
            delivery,
            message,
            id,
            leases: self.clone(),
        })
    }
}

/// A job that this worker is processing. The lease ends when it is dropped.
pub(super) struct JobLease {
    pub(super) job: JobMessage,
    pub(super) attempt: AttemptId,
    /// How often the broker has delivered this publication, from 1.
    pub(super) delivery: u64,
    message: Arc<Message>,
    id: u64,
    leases: Leases,
}

impl JobLease {
    /// Removes the job from the queue. Retries a few times: a job that remains is redelivered, and
    /// then only its outcome is reported again.
    pub(super) async fn acknowledge(&self) {
        for _ in 0..3 {
            match timeout(ACK_TIMEOUT, self.message.double_ack()).await {
                Ok(Ok(())) => return,
                Ok(Err(error)) => tracing::debug!(%error, "acknowledgement failed"),
                Err(_) => tracing::debug!("acknowledgement timed out"),
            }
        }
        tracing::warn!(job = %self.job.job, "cannot acknowledge the job; it will be redelivered");
    }

    /// Removes the job from the queue without waiting for the broker's confirmation.
    pub(super) async fn acknowledge_unconfirmed(&self) {
        if let Err(error) = self.message.ack().await {
            tracing::debug!(%error, "acknowledgement failed; the job will be redelivered");
        }
    }

    /// Returns the job to the queue, for another delivery after `delay` or at once.
    pub(super) async fn release(&self, delay: Option<Duration>) {
        let released = timeout(ACK_TIMEOUT, self.message.ack_with(AckKind::Nak(delay))).await;
        if !matches!(released, Ok(Ok(()))) {
            tracing::warn!(job = %self.job.job, "cannot return the job; the broker redelivers it after its ack wait");
        }
    }
}

impl Drop for JobLease {
    fn drop(&mut self) {
        self.leases.lock().messages.remove(&self.id);
    }
}
