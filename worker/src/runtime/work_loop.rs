//! A slot's main loop.

use super::{
    grants::{Asker, Granted},
    slot::{ExitReason, MAX_NOOPS, Slot},
};
use halfheard_shared::retry::Backoff;
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::time::timeout;

/// How long no-op jobs in progress may take at the end.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(2);
/// Without an answer for so long the log says so: a new leader takes a moment.
const QUIET: Duration = Duration::from_secs(20);

impl Slot {
    /// Takes and processes jobs until the slot is to exit.
    pub(super) async fn process_jobs(self: &Arc<Self>) {
        let mut asker = Asker::default();
        let mut silence = Silence::default();
        let mut idle_since = Instant::now();
        while !self.is_stopping() {
            if self.status.suspension().is_some() {
                if !self.wait_out_suspension(idle_since).await {
                    return self.request_exit(ExitReason::Unfit);
                }
                continue;
            }
            // Without room for no-op jobs, an empty answer does not say that there are none.
            if self.leases.noops() >= MAX_NOOPS {
                idle_since = Instant::now();
            }
            match asker.next(self).await {
                Ok(Granted::Jobs(jobs)) => {
                    silence.end();
                    if !jobs.is_empty() {
                        self.dispatch(jobs).await;
                        idle_since = Instant::now();
                        continue;
                    }
                }
                Ok(Granted::NoAnswer) => self.shutdown.sleep(silence.pause()).await,
                Ok(Granted::Refused(reason)) => self.record_refusal(reason),
                Err(error) => self.record_undecodable_answer(&error),
            }
            if self.has_idled(idle_since) {
                return tracing::info!("nothing to do; exiting");
            }
        }
        // No-op jobs may still be in progress.
        let all = MAX_NOOPS as u32;
        let _ = timeout(DRAIN_TIMEOUT, self.noops.acquire_many(all)).await;
    }

    /// With `--once`: whether there has been nothing to do for that long.
    fn has_idled(&self, idle_since: Instant) -> bool {
        let busy = self.noops.available_permits() < MAX_NOOPS;
        let once = self.settings.once;
        !busy && once.is_some_and(|once| idle_since.elapsed() >= once)
    }
}

/// Requests in a row without an answer.
#[derive(Default)]
struct Silence {
    backoff: Backoff,
    since: Option<Instant>,
    logged: bool,
}

impl Silence {
    /// How long to wait before the next request.
    fn pause(&mut self) -> Duration {
        let since = *self.since.get_or_insert_with(Instant::now);
        if since.elapsed() >= QUIET && !self.logged {
            self.logged = true;
            tracing::warn!("no coordinator answers; asking again until one does");
        }
        self.backoff.delay()
    }

    fn end(&mut self) {
        if self.logged {
            tracing::info!("a coordinator answers again");
        }
        *self = Self::default();
    }
}
