//! Reports to the coordinator: sent in order, and queued while the broker is away.

use super::presence::now_ms;
use halfheard_shared::{
    broker::Broker,
    error::chain,
    ids::{AttemptId, JobId, SweepId},
    wire::{ResultBody, ResultMessage, WorkerInfo},
};
use std::time::Duration;
use tokio::{
    sync::{mpsc, oneshot},
    time::timeout,
};

/// What every report of one attempt says besides its body.
#[derive(Clone)]
pub(super) struct ReportHeader {
    pub(super) sweep: SweepId,
    pub(super) job: JobId,
    pub(super) attempt: AttemptId,
    pub(super) publication: u32,
    pub(super) worker: WorkerInfo,
}

impl ReportHeader {
    pub(super) fn report(&self, body: ResultBody) -> ResultMessage {
        ResultMessage {
            sweep: self.sweep,
            job: self.job,
            attempt: self.attempt,
            publication: self.publication,
            worker: self.worker.clone(),
            at_ms: now_ms(),
            body,
        }
    }
}

/// Sends reports in order. Cheap to clone.
#[derive(Clone)]
pub(super) struct Reporter {
    queue: mpsc::UnboundedSender<Item>,
}

enum Item {
    Report(Box<ResultMessage>, Option<oneshot::Sender<bool>>),
    Flush(oneshot::Sender<()>),
}

impl Reporter {
    pub(super) fn start(broker: Broker) -> Self {
        // Unbounded: at most one epoch log every few seconds while the broker is away.
        let (queue, mut inbox) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Some(item) = inbox.recv().await {
                match item {
                    Item::Report(message, confirm) => {
                        let delivered = deliver(&broker, &message).await;
                        if let Some(confirm) = confirm {
                            // The caller may have given up; the report is delivered regardless.
                            let _ = confirm.send(delivered);
                        }
                    }
                    Item::Flush(reached) => {
                        let _ = reached.send(());
                    }
                }
            }
        });
        Self { queue }
    }

    /// Queues a report.
    pub(super) fn send(&self, message: ResultMessage) {
        // The task ends only with the process.
        let _ = self.queue.send(Item::Report(Box::new(message), None));
    }

    /// Sends a report after all earlier ones and waits until the broker has persisted it. `false`
    /// if it can never be sent.
    pub(super) async fn deliver(&self, message: ResultMessage) -> bool {
        let (confirm, confirmed) = oneshot::channel();
        let item = Item::Report(Box::new(message), Some(confirm));
        self.queue.send(item).is_ok() && confirmed.await.unwrap_or(false)
    }

    /// Waits until every queued report is sent, at most `limit`.
    pub(super) async fn flush(&self, limit: Duration) {
        let (mark, reached) = oneshot::channel();
        if self.queue.send(Item::Flush(mark)).is_ok() {
            let _ = timeout(limit, reached).await;
        }
    }
}

/// Delivers one report, however long the broker is away. `false` if it can never be sent.
pub(super) async fn deliver(broker: &Broker, message: &ResultMessage) -> bool {
    match broker.deliver_result(message).await {
        Ok(_) => true,
        Err(error) => {
            tracing::error!(job = %message.job, error = chain(&error), "cannot send a report");
            false
        }
    }
}
