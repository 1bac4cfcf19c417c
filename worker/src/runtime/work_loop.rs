//! A slot's main loop.

use super::{
    job_queue::JobQueue,
    slot::{ExitReason, MAX_NOOPS, Slot},
};
use halfheard_shared::{error::chain, retry::Backoff};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::time::timeout;

/// How long no-op jobs in progress may take at the end.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(2);

impl Slot {
    /// Takes and processes jobs until the slot is to exit.
    pub(super) async fn process_jobs(self: &Arc<Self>) {
        let mut queue = JobQueue::default();
        let mut backoff = Backoff::default();
        let mut failing = false;
        let mut idle_since = Instant::now();
        while !self.is_stopping() {
            if self.status.suspension().is_some() {
                if !self.wait_out_suspension(idle_since).await {
                    return self.request_exit(ExitReason::Unfit);
                }
                continue;
            }
            let jobs = match queue.next(self).await {
                Ok(jobs) => jobs,
                Err(error) => {
                    if !failing {
                        let error = chain(&error);
                        tracing::warn!(error, "cannot take jobs; retrying");
                    }
                    failing = true;
                    self.shutdown.sleep(backoff.delay()).await;
                    continue;
                }
            };
            if std::mem::take(&mut failing) {
                tracing::info!("taking jobs again");
                backoff.reset();
            }
            if jobs.is_empty() {
                if self.has_idled(idle_since) {
                    return tracing::info!("nothing to do; exiting");
                }
                continue;
            }
            self.dispatch(jobs).await;
            idle_since = Instant::now();
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
