//! Messages that this worker holds: kept from being delivered again while it works on them.

use async_nats::jetstream::{AckKind, Message};
use halfheard_shared::{
    broker::ACK_WAIT,
    wire::{JobMessage, WireError, decode},
};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::time::timeout;

/// How often the broker is told that a message is still being worked on: well within its patience.
const EVERY: Duration = Duration::from_secs(ACK_WAIT.as_secs() / 4);

/// How long one acknowledgement may take.
const ACK_TIMEOUT: Duration = Duration::from_secs(5);

/// All messages that are held. Cheap to clone.
#[derive(Clone, Default)]
pub struct Leases {
    messages: Arc<Mutex<Table>>,
}

#[derive(Default)]
struct Table {
    next: u64,
    held: HashMap<u64, Arc<Message>>,
}

impl Leases {
    /// Tells the broker again and again, for as long as it runs.
    pub async fn keep(self) {
        let mut tick = tokio::time::interval(EVERY);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            let held: Vec<Arc<Message>> = self.lock().held.values().cloned().collect();
            for message in held {
                if let Err(error) = message.ack_with(AckKind::Progress).await {
                    tracing::warn!(%error, "the broker was not told that a job is in progress");
                }
            }
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Table> {
        // The table is whole after every change: a panic elsewhere leaves nothing half done.
        self.messages.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Holds a message that carries a job.
    ///
    /// # Errors
    ///
    /// It cannot be read: it is given back.
    pub async fn take(&self, message: Message) -> Result<JobLease, WireError> {
        let delivery = message
            .info()
            .map_or(1, |info| info.delivered.max(1) as u64);
        let job: JobMessage = match decode(&message.payload) {
            Ok(job) => job,
            Err(error) => {
                tracing::error!(subject = %message.subject, %error, "a job cannot be read");
                // Perhaps a worker of another release can; but not for ever.
                let answer = if delivery > 20 {
                    AckKind::Term
                } else {
                    AckKind::Nak(Some(ACK_WAIT))
                };
                if let Err(error) = message.ack_with(answer).await {
                    tracing::debug!(%error, "it comes again after the broker's patience");
                }
                return Err(error);
            }
        };
        let message = Arc::new(message);
        let mut table = self.lock();
        table.next += 1;
        let place = table.next;
        table.held.insert(place, message.clone());
        drop(table);
        Ok(JobLease {
            job,
            delivery,
            message,
            place,
            held: self.clone(),
        })
    }
}

/// A job in hand.
pub struct JobLease {
    /// The job.
    pub job: JobMessage,
    /// How often the broker has delivered this publication, from 1.
    pub delivery: u64,
    message: Arc<Message>,
    place: u64,
    held: Leases,
}

impl JobLease {
    /// Removes the job from the queue for good. Tries a few times: one that stays is delivered
    /// again and then only reports its outcome again.
    pub async fn done(&self) {
        for _ in 0..3 {
            match timeout(ACK_TIMEOUT, self.message.double_ack()).await {
                Ok(Ok(())) => return,
                Ok(Err(error)) => tracing::debug!(%error, "the acknowledgement failed"),
                Err(_) => tracing::debug!("the acknowledgement was not answered"),
            }
        }
        tracing::warn!(job = %self.job.job, "the job could not be acknowledged: it will come again");
    }

    /// Removes the job from the queue, without waiting for the broker's answer.
    pub async fn done_unconfirmed(&self) {
        if let Err(error) = self.message.ack().await {
            tracing::debug!(%error, "the acknowledgement failed: the job will come again");
        }
    }

    /// Gives the job back, for another worker to take after `delay`, at once if there is none.
    pub async fn give_back(&self, delay: Option<Duration>) {
        match timeout(ACK_TIMEOUT, self.message.ack_with(AckKind::Nak(delay))).await {
            Ok(Ok(())) => {}
            _ => {
                tracing::warn!(job = %self.job.job, "the job could not be given back: it comes again after the broker's patience")
            }
        }
    }
}

impl Drop for JobLease {
    fn drop(&mut self) {
        self.held.lock().held.remove(&self.place);
    }
}
