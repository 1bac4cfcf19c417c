//! Reports to the coordinator: sent in order, and queued while the broker is away.

use super::leases::Leases;
use halfheard_shared::{
    broker::{Broker, BrokerError, Sent},
    error::chain,
    ids::{AttemptId, JobId},
    retry::while_transient,
    wire::{self, ResultBody, ResultMessage, WorkerInfo},
};
use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::{
    sync::{mpsc, oneshot},
    time::timeout,
};

/// The version in which this worker reads grants and writes reports. The previous one is for tests
/// of an upgrade.
pub(super) const WIRE: u8 = if cfg!(feature = "previous-wire") {
    wire::PREVIOUS
} else {
    wire::VERSION
};

/// Speaks for one attempt. Cheap to clone.
#[derive(Clone)]
pub(super) struct AttemptReporter {
    pub(super) job: JobId,
    pub(super) attempt: AttemptId,
    /// The kind of its job, as metrics have it.
    pub(super) kind: &'static str,
    pub(super) worker: WorkerInfo,
    pub(super) leases: Leases,
    pub(super) reporter: Reporter,
    /// How often the broker had been connected to when work on the attempt began.
    pub(super) connections: u64,
}

impl AttemptReporter {
    fn report(&self, body: ResultBody) -> ResultMessage {
        count(self.kind, &body);
        let report = ResultMessage {
            job: self.job,
            attempt: self.attempt,
            worker: self.worker.clone(),
            body,
        };
        self.leases.record(&report);
        report
    }

    /// Work on the attempt has begun, after an epoch and from a state of `steps` training steps.
    pub(super) fn started(&self, resumed_after_epoch: u32, steps: u64) {
        self.leases.begun(self.attempt, steps);
        self.send(ResultBody::Started {
            resumed_after_epoch,
        });
    }

    /// Queues a report.
    pub(super) fn send(&self, body: ResultBody) {
        self.reporter.send(self.report(body));
    }

    /// Sends a report after all earlier ones and waits until the broker has persisted it. `false`
    /// if it can never be sent.
    ///
    /// Before a training's result, its epochs are sent again if the broker was away since it began: it may
    /// have lost what it had confirmed, and once the result is stored nobody asks for them.
    pub(super) async fn deliver(&self, body: ResultBody) -> bool {
        let is_trained = matches!(body, ResultBody::Trained { .. });
        // Taken now: with the first copy of the result the lease may end.
        let epochs = match is_trained {
            true => self.leases.epochs(self.attempt),
            false => Vec::new(),
        };
        let report = self.report(body);
        let mut connections = self.connections;
        loop {
            let now = self.reporter.connections();
            if now != connections {
                for epoch in &epochs {
                    self.reporter.send(epoch.clone());
                }
            }
            connections = now;
            if !self.reporter.deliver(report.clone()).await {
                return false;
            }
            if !is_trained || self.reporter.connections() == connections {
                return true;
            }
        }
    }
}

/// Counts an attempt that ends with this report.
pub(super) fn count(kind: &'static str, body: &ResultBody) {
    let outcome = match body {
        ResultBody::Trained { .. } | ResultBody::Evaluated { .. } | ResultBody::Noop => "done",
        ResultBody::Failed(_) => "failed",
        ResultBody::HandedBack { .. } => "handed_back",
        ResultBody::Declined { .. } => "declined",
        ResultBody::Started { .. } | ResultBody::Epoch(_) | ResultBody::Output { .. } => return,
    };
    metrics::counter!("halfheard_worker_jobs_total", "kind" => kind, "outcome" => outcome)
        .increment(1);
}

/// Sends reports in order. Cheap to clone.
#[derive(Clone)]
pub(super) struct Reporter {
    queue: mpsc::UnboundedSender<Item>,
    waiting: Arc<AtomicUsize>,
    broker: Broker,
}

enum Item {
    Report(Box<ResultMessage>, Option<oneshot::Sender<bool>>),
    Flush(oneshot::Sender<()>),
}

impl Reporter {
    pub(super) fn start(broker: Broker) -> Self {
        // Unbounded: at most one epoch log every few seconds while the broker is away.
        let (queue, mut inbox) = mpsc::unbounded_channel();
        let waiting = Arc::new(AtomicUsize::new(0));
        let sent = waiting.clone();
        let own = broker.clone();
        tokio::spawn(async move {
            while let Some(item) = inbox.recv().await {
                match item {
                    Item::Report(message, confirm) => {
                        let delivered = deliver(&broker, &message).await;
                        sent.fetch_sub(1, Ordering::Relaxed);
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
        Self {
            queue,
            waiting,
            broker: own,
        }
    }

    /// How often the broker has been connected to.
    pub(super) fn connections(&self) -> u64 {
        let statistics = self.broker.client().statistics();
        statistics.connects.load(Ordering::Relaxed)
    }

    /// Whether every report was sent.
    pub(super) fn is_idle(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) == 0
    }

    fn put(&self, message: ResultMessage, confirm: Option<oneshot::Sender<bool>>) -> bool {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        // The task ends only with the process.
        let item = Item::Report(Box::new(message), confirm);
        self.queue.send(item).is_ok()
    }

    /// Queues a report.
    pub(super) fn send(&self, message: ResultMessage) {
        self.put(message, None);
    }

    async fn deliver(&self, message: ResultMessage) -> bool {
        let (confirm, confirmed) = oneshot::channel();
        self.put(message, Some(confirm)) && confirmed.await.unwrap_or(false)
    }

    /// Waits until every queued report is sent, at most `limit`.
    pub(super) async fn flush(&self, limit: Duration) {
        let (mark, reached) = oneshot::channel();
        if self.queue.send(Item::Flush(mark)).is_ok() {
            let _ = timeout(limit, reached).await;
        }
    }
}

/// Sends one report; see [`Sent::confirmed`].
pub(super) async fn send(broker: &Broker, message: &ResultMessage) -> Result<Sent, BrokerError> {
    broker.send_result_as(WIRE, message).await
}

/// Delivers one report, however long the broker is away. `false` if it can never be sent.
pub(super) async fn deliver(broker: &Broker, message: &ResultMessage) -> bool {
    let delivered = while_transient(
        async || send(broker, message).await?.confirmed().await,
        BrokerError::is_transient,
        |error| {
            let error = chain(error);
            tracing::warn!(job = %message.job, error, "cannot send a report; retrying");
        },
    );
    match delivered.await {
        Ok(_) => true,
        Err(error) => {
            tracing::error!(job = %message.job, error = chain(&error), "cannot send a report");
            false
        }
    }
}
