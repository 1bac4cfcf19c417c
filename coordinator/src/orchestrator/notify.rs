//! While it leads, a coordinator looks for what operators want to be told.

use super::{context::Lead, outage_log::OutageLog};
use crate::notify::{Scene, Watch};
use halfheard_shared::error::chain;
use std::time::Duration;

/// How long the last look may take.
const LAST_LOOK: Duration = Duration::from_secs(5);

/// Looks for events for as long as it runs.
pub(super) async fn watch_events(lead: &Lead, watch: &mut Watch<'_>, every: Duration) {
    let mut outage = OutageLog::new("looking for events failed; retrying");
    loop {
        let pause = match watch.look(&lead.store, &scene(lead), false).await {
            Ok(()) => {
                outage.recovered();
                every
            }
            Err(error) => outage.failed(&chain(&error), 0).max(every),
        };
        tokio::time::sleep(pause).await;
    }
}

/// Looks at everything once more, before the lead is given up: a sweep may have ended with it.
pub(super) async fn look_once_more(lead: &Lead, watch: &mut Watch<'_>) {
    let scene = scene(lead);
    let look = watch.look(&lead.store, &scene, true);
    match tokio::time::timeout(LAST_LOOK, look).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => {
            tracing::debug!(error = chain(&error), "the next leader looks for events");
        }
        Err(_) => tracing::debug!("no time left to look for events"),
    }
}

fn scene(lead: &Lead) -> Scene {
    Scene {
        workers: lead.heartbeats.heard(),
        heard_for: lead.hearing.duration(),
    }
}
