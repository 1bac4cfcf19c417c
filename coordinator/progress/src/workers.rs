//! Live workers, and what each is doing.

use super::duration::format_duration;
use halfheard_shared::{
    broker::Broker,
    text::plain,
    wire::{Doing, Heartbeat},
};
use std::time::Duration;

/// How long to wait for the broker: an unavailable one must not block the display.
const TIMEOUT: Duration = Duration::from_secs(2);

/// Returns the heartbeats of live workers, by name; none if the broker does not answer.
pub async fn live_workers(broker: &Broker) -> Vec<Heartbeat> {
    match tokio::time::timeout(TIMEOUT, broker.live_workers()).await {
        Ok(Ok(workers)) => workers,
        _ => Vec::new(),
    }
}

/// Describes in one line what a worker is doing and what is wrong with it.
pub fn describe_worker(worker: &Heartbeat) -> String {
    let Some(trouble) = &worker.trouble else {
        return describe(worker.doing.as_ref());
    };
    let mut text = match (&worker.doing, trouble.sits_out) {
        (Some(doing), _) => format!("{}; ", describe(Some(doing))),
        (None, true) => "sits out: ".to_owned(),
        (None, false) => "idle; ".to_owned(),
    };
    text.push_str(&plain(&trouble.fault.to_string()));
    // Both by the worker's clock, which may differ from ours.
    let ago = Duration::from_millis(worker.at_ms.saturating_sub(trouble.since_ms));
    text.push_str(&format!(" (for {}", format_duration(ago)));
    if let Some(next) = trouble.next_try_ms {
        let until = Duration::from_millis(next.saturating_sub(worker.at_ms));
        text.push_str(&format!(", retries in {}", format_duration(until)));
    }
    text.push(')');
    text
}

fn describe(doing: Option<&Doing>) -> String {
    let Some(doing) = doing else {
        return "idle".to_owned();
    };
    let mut text = plain(&doing.what);
    if doing.cases > 0 {
        text.push_str(&format!(", case {} of {}", doing.case, doing.cases));
        if doing.steps > 0 {
            text.push_str(&format!(", batch {} of {}", doing.step, doing.steps));
        }
    }
    if doing.epoch > 0 {
        text.push_str(&format!(", epoch {}/{}", doing.epoch, doing.max_epochs));
        if doing.steps > 0 {
            text.push_str(&format!(", step {}/{}", doing.step, doing.steps));
        }
    }
    if let Some(loss) = doing.loss {
        text.push_str(&format!(", loss {loss:.4}"));
    }
    text
}
