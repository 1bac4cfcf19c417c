//! Telling what happened, beside all other work.

use super::{command, event::Event, options::NotifyOptions};
use std::time::Duration;
use tokio::{
    sync::mpsc::{Receiver, Sender, channel},
    task::JoinHandle,
};

/// Events that wait to be told at most.
const QUEUE: usize = 64;
/// How long a coordinator that stops goes on telling.
pub(crate) const GRACE: Duration = Duration::from_secs(40);

/// Tells events in order. It outlives the leads of this coordinator.
#[derive(Debug)]
pub(crate) struct Notifier {
    options: NotifyOptions,
    queue: Sender<Event>,
    task: JoinHandle<()>,
}

impl Notifier {
    pub(crate) fn start(options: NotifyOptions) -> Self {
        let (queue, events) = channel(QUEUE);
        Self {
            task: tokio::spawn(deliver(options.clone(), events)),
            options,
            queue,
        }
    }

    pub(crate) fn options(&self) -> &NotifyOptions {
        &self.options
    }

    /// Tells an event, as soon as those before it are told.
    pub(crate) fn tell(&self, event: Event) {
        tracing::info!(event = event.event.as_str(), "{}", event.text);
        if self.queue.try_send(event).is_err() {
            tracing::warn!("an event is told to nobody: too many wait");
        }
    }

    /// Waits until all is told, for [`GRACE`] at most.
    pub(crate) async fn finish(self) {
        drop(self.queue);
        let abort = self.task.abort_handle();
        if tokio::time::timeout(GRACE, self.task).await.is_err() {
            tracing::warn!("stopping before all events were told");
            abort.abort();
        }
    }
}

async fn deliver(options: NotifyOptions, mut events: Receiver<Event>) {
    while let Some(event) = events.recv().await {
        // It has no map whose keys are not text, so it can be written.
        let json = serde_json::to_string(&event).unwrap_or_default();
        let command = async {
            match &options.command {
                Some(words) => command::run(words, &event, &json).await,
                None => Ok(()),
            }
        };
        let webhook = async {
            match &options.webhook {
                Some(webhook) => webhook.post(&json).await,
                None => Ok(()),
            }
        };
        let (command, webhook) = tokio::join!(command, webhook);
        for (outcome, what) in [(command, "--notify"), (webhook, "the webhook")] {
            if let Err(error) = outcome {
                let event = event.event.as_str();
                tracing::warn!(event, error = format!("{error:#}"), "{what} failed");
            }
        }
    }
}
