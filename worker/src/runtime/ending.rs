//! How work on a job ends: reported and removed from the queue, or returned to it.

use super::{
    errors::causes_and_hint, faults, faults::Requirement, leases::JobLease, report::ReportHeader,
    slot::Slot,
};
use crate::shutdown;
use bytes::Bytes;
use halfheard_shared::{
    artifacts::{ArtifactError, Key},
    broker::MAX_DELIVERIES,
    wire::{Failure, FailureKind, Fault, ResultBody, ResultMessage},
};
use serde::{Deserialize, Serialize};
use std::{error::Error, time::Duration};
use tokio::time::timeout;

/// Limit for recording a clean hand-back.
const RECORD_TIMEOUT: Duration = Duration::from_secs(2);

/// How work on a job ended.
#[derive(Clone, Debug)]
pub(super) enum Ending {
    /// Report this and remove the job from the queue.
    Report(ResultBody),
    /// Report a fault of this worker, so that the coordinator publishes the job again for another.
    Decline { after_epoch: u32, fault: Fault },
    /// Return the job to the queue, uncounted.
    Unstarted,
}

impl Ending {
    /// A failure of the job. `what` says what was being done.
    pub(super) fn failed(what: &str, error: &(dyn Error + 'static), kind: FailureKind) -> Self {
        let mut causes = vec![what.to_owned()];
        causes.extend(causes_and_hint(error));
        Ending::Report(ResultBody::Failed(Failure {
            chain: causes,
            kind,
        }))
    }

    /// A job that killed its workers.
    pub(super) fn crashed(what: &str, deliveries: u64) -> Self {
        let reason = format!(
            "delivered {deliveries} times, and no worker survived to report how it ended: it may need more memory than is available"
        );
        Ending::Report(ResultBody::Failed(Failure {
            chain: vec![what.to_owned(), reason],
            kind: FailureKind::Crashed,
        }))
    }
}

/// How often a publication of a job was handed back cleanly.
#[derive(Serialize, Deserialize)]
struct HandedBack {
    publication: u32,
    times: u64,
}

impl Slot {
    pub(super) fn header(&self, lease: &JobLease) -> ReportHeader {
        ReportHeader {
            sweep: lease.job.sweep,
            job: lease.job.job,
            attempt: lease.attempt,
            publication: lease.job.publication,
            worker: self.worker.clone(),
        }
    }

    pub(super) fn report(&self, lease: &JobLease, body: ResultBody) -> ResultMessage {
        self.header(lease).report(body)
    }

    /// Ends work on a job.
    pub(super) async fn end(&self, lease: JobLease, ending: Ending) {
        match ending {
            Ending::Report(body) => {
                let report = self.report(&lease, body);
                self.report_and_ack(&lease, report).await;
            }
            Ending::Decline { after_epoch, fault } => {
                self.decline(lease, after_epoch, &fault).await;
            }
            Ending::Unstarted => self.hand_back_unstarted(lease).await,
        }
    }

    /// Reports an attempt's end and, once the broker has persisted it, removes the job from the
    /// queue. Waits while the broker is away, unless the worker has to exit: then the job is
    /// redelivered.
    pub(super) async fn report_and_ack(&self, lease: &JobLease, report: ResultMessage) {
        let delivered = async {
            if !self.reporter.deliver(report).await {
                // It can never be sent because it is too large; a failure can.
                let failure = Failure {
                    chain: vec!["the result is too large for a message".to_owned()],
                    kind: FailureKind::Permanent,
                };
                let report = self.report(lease, ResultBody::Failed(failure));
                self.reporter.deliver(report).await;
            }
            lease.acknowledge().await;
        };
        tokio::select! {
            () = delivered => {}
            () = self.shutdown.deadline(shutdown::EXIT_DEADLINE) => {
                tracing::warn!(job = %lease.job.job, "broker unreachable; the job will be redelivered");
            }
        }
    }

    /// Returns a job, uncounted, for a fault of this worker: the coordinator publishes it again for
    /// another one.
    pub(super) async fn decline(&self, lease: JobLease, after_epoch: u32, fault: &Fault) {
        tracing::warn!(job = %lease.job.job, fault = %fault.kind, "job declined; another worker may do it");
        let body = ResultBody::Declined {
            after_epoch,
            fault: fault.clone(),
        };
        let report = self.report(&lease, body);
        self.report_and_ack(&lease, report).await;
    }

    /// Ends a job that has not started because the artifact store fails: another worker's may not.
    pub(super) fn store_failed(
        &self,
        lease: &JobLease,
        what: &str,
        error: &ArtifactError,
    ) -> Ending {
        if self.shutdown.is_requested() {
            return Ending::Unstarted;
        }
        self.store_failed_after(lease, what, error, 0)
    }

    /// Ends a job whose artifacts cannot be stored.
    pub(super) fn store_failed_after(
        &self,
        lease: &JobLease,
        what: &str,
        error: &ArtifactError,
        after_epoch: u32,
    ) -> Ending {
        match faults::store_fault(error) {
            Some(fault) => {
                self.record_fault(lease.job.job, &fault, Requirement::FaultKind);
                Ending::Decline { after_epoch, fault }
            }
            None => Ending::failed(what, error, FailureKind::Permanent),
        }
    }

    /// Returns a job that has not started.
    pub(super) async fn hand_back_unstarted(&self, lease: JobLease) {
        self.record_clean_handback(&lease).await;
        lease.release(None).await;
    }

    /// Whether the job was delivered so often, without a worker surviving to hand it back, that it
    /// must be what kills them.
    pub(super) async fn is_crashing(&self, lease: &JobLease) -> bool {
        lease.delivery > MAX_DELIVERIES
            && lease
                .delivery
                .saturating_sub(self.clean_handbacks(lease).await)
                > MAX_DELIVERIES
    }

    /// Records that this delivery ends cleanly, so that it does not count as a crash.
    pub(super) async fn record_clean_handback(&self, lease: &JobLease) {
        let handed_back = HandedBack {
            publication: lease.job.publication,
            times: self.clean_handbacks(lease).await + 1,
        };
        let recorded = async {
            let json = serde_json::to_vec(&handed_back).ok()?;
            let key = Key::HandedBack(lease.job.job);
            self.store.put(&key, Bytes::from(json)).await.ok()
        };
        if !matches!(timeout(RECORD_TIMEOUT, recorded).await, Ok(Some(()))) {
            tracing::debug!("cannot record a clean hand-back");
        }
    }

    async fn clean_handbacks(&self, lease: &JobLease) -> u64 {
        let read = async {
            let key = Key::HandedBack(lease.job.job);
            let json = self.store.get(&key, 1024).await.ok()??;
            serde_json::from_slice::<HandedBack>(&json).ok()
        };
        match read.await {
            Some(known) if known.publication == lease.job.publication => known.times,
            _ => 0,
        }
    }
}
