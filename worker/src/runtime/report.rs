//! The way to the coordinator: reports go out in their order, and wait here for as long as the
//! broker is away.

use halfheard_shared::{broker::Broker, wire::ResultMessage};
use std::time::Duration;
use tokio::{
    sync::{mpsc, oneshot},
    time::timeout,
};

/// Sends reports in order. Cheap to clone.
#[derive(Clone)]
pub struct Reporter {
    queue: mpsc::UnboundedSender<Item>,
}

enum Item {
    Report(Box<ResultMessage>, Option<oneshot::Sender<bool>>),
    Mark(oneshot::Sender<()>),
}

impl Reporter {
    /// Starts sending.
    pub fn start(broker: Broker) -> Self {
        // Unbounded: at most an epoch's log every few seconds for as long as the broker is away.
        let (queue, mut inbox) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Some(item) = inbox.recv().await {
                match item {
                    Item::Report(message, heard) => {
                        let delivered = deliver(&broker, &message).await;
                        if let Some(heard) = heard {
                            // Who asked may have gone; it is delivered all the same.
                            let _ = heard.send(delivered);
                        }
                    }
                    Item::Mark(reached) => {
                        let _ = reached.send(());
                    }
                }
            }
        });
        Self { queue }
    }

    /// Sends a report some time.
    pub fn send(&self, message: ResultMessage) {
        // The task ends only with this process.
        let _ = self.queue.send(Item::Report(Box::new(message), None));
    }

    /// Sends a report after all before it, and waits until the broker has it on disk. `false` when
    /// it never can.
    pub async fn deliver(&self, message: ResultMessage) -> bool {
        let (heard, answer) = oneshot::channel();
        let item = Item::Report(Box::new(message), Some(heard));
        self.queue.send(item).is_ok() && answer.await.unwrap_or(false)
    }

    /// Waits until all that was to be sent is, at most for `patience`.
    pub async fn settle(&self, patience: Duration) {
        let (mark, reached) = oneshot::channel();
        if self.queue.send(Item::Mark(mark)).is_ok() {
            let _ = timeout(patience, reached).await;
        }
    }
}

/// Delivers one report however long the broker is away. `false` when it never can be.
pub async fn deliver(broker: &Broker, message: &ResultMessage) -> bool {
    match broker.deliver_result(message).await {
        Ok(_) => true,
        Err(error) => {
            tracing::error!(job = %message.job, %error, "a report cannot be sent");
            false
        }
    }
}
