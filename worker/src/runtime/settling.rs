//! What ends a lease: the coordinator's word. Until then a final report is sent again, because the
//! broker may have lost it after it confirmed it.

use super::{leases::Leases, presence::Status, report::Reporter};
use futures::StreamExt as _;
use halfheard_shared::{
    broker::{Broker, reflected},
    wire::Tell,
};
use std::time::Duration;

/// How often to look for reports that are due again.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Hears which leases have ended.
pub(super) async fn listen(broker: Broker, worker: String, leases: Leases, status: Status) {
    loop {
        let subject = broker.names().tell(&worker);
        match broker.client().subscribe(subject).await {
            Ok(mut told) => {
                while let Some(message) = told.next().await {
                    if reflected(message.headers.as_ref()) {
                        continue;
                    }
                    match serde_json::from_slice(&message.payload) {
                        Ok(Tell::Released { attempts }) => {
                            leases.release(&attempts);
                            status.publish();
                        }
                        // Of a later release.
                        Err(error) => tracing::debug!(%error, "unknown message"),
                    }
                }
            }
            Err(error) => tracing::debug!(%error, "cannot listen; retrying"),
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

/// Sends final reports again that are not settled.
pub(super) async fn repeat(reporter: Reporter, leases: Leases) {
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        // While the broker is away, they wait in the queue already.
        if !reporter.is_idle() {
            continue;
        }
        let due = leases.due();
        if !due.is_empty() {
            tracing::debug!(reports = due.len(), "not settled; sending them again");
        }
        for report in due {
            reporter.send(report);
        }
    }
}
