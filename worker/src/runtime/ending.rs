//! How work on a job ends: with a final report, which is kept until the coordinator has it.

use super::{
    errors::causes_and_hint,
    faults::{self, Requirement},
    leases::JobLease,
    report::AttemptReporter,
    slot::Slot,
    traces::Reporting,
};
use halfheard_shared::{
    artifacts::ArtifactError,
    wire::{Failure, FailureKind, Fault, ResultBody, Work, WorkerInfo},
};
use std::error::Error;

/// A kind of job, as metrics have it.
fn kind(work: &Work) -> &'static str {
    match work {
        Work::Train(_) => "train",
        Work::Eval { .. } => "eval",
        Work::Noop => "noop",
    }
}

/// How work on a job ended.
#[derive(Clone, Debug)]
pub(super) enum Ending {
    /// Completed, or failed.
    Report(ResultBody),
    /// A fault of this worker: another may do the job.
    Decline { after_epoch: u32, fault: Fault },
    /// Not finished, and not counted.
    HandBack { after_epoch: u32 },
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
}

impl Slot {
    pub(super) fn voice(&self, lease: &JobLease) -> AttemptReporter {
        AttemptReporter {
            job: lease.job.job,
            attempt: lease.attempt(),
            kind: kind(&lease.job.work),
            worker: WorkerInfo {
                processor: self.processor_for(&lease.job.work),
                ..self.announcement.worker.clone()
            },
            leases: self.leases.clone(),
            connections: self.reporter.connections(),
            reporter: self.reporter.clone(),
        }
    }

    /// Ends work on a job.
    pub(super) async fn end(&self, lease: JobLease, ending: Ending) {
        let voice = self.voice(&lease);
        self.end_as(&voice, lease, ending).await;
    }

    /// Ends work on a job of which `voice` reported.
    pub(super) async fn end_as(&self, voice: &AttemptReporter, lease: JobLease, ending: Ending) {
        let body = match ending {
            Ending::Report(body) => body,
            Ending::HandBack { after_epoch } => ResultBody::HandedBack { after_epoch },
            Ending::Decline { after_epoch, fault } => {
                tracing::warn!(job = %lease.job.job, fault = %fault.kind, "job declined; another worker may do it");
                ResultBody::Declined { after_epoch, fault }
            }
        };
        self.finish(voice, lease, body).await;
    }

    /// Reports an attempt's end. Returns once the broker has persisted it, however long it is away,
    /// unless the worker has to exit: then the coordinator notices that nobody holds the job.
    async fn finish(&self, voice: &AttemptReporter, lease: JobLease, body: ResultBody) {
        // Nothing is computed for it any more.
        lease.set_at_work(false);
        if lease.is_released() {
            // Nobody waits for it, but a result counts, and the rest explains an attempt.
            return voice.send(body);
        }
        let trace = Reporting::begin(&lease, &voice.worker.name, &body);
        let delivered = async {
            if !voice.deliver(body).await {
                // It can never be sent because it is too large; a failure can.
                let failure = Failure {
                    chain: vec!["the result is too large for a message".to_owned()],
                    kind: FailureKind::Permanent,
                };
                voice.deliver(ResultBody::Failed(failure)).await;
            }
        };
        tokio::select! {
            () = delivered => lease.reported(),
            () = self.shutdown.deadline(self.settings.deadlines.exit()) => {
                tracing::warn!(job = %lease.job.job, "broker unreachable; the job will be granted again");
            }
        }
        if let Some(trace) = trace {
            trace.end();
        }
    }

    /// Hands a job back, uncounted, of which a state after an epoch is stored.
    pub(super) async fn hand_back(&self, lease: JobLease, after_epoch: u32) {
        self.end(lease, Ending::HandBack { after_epoch }).await;
    }

    /// Ends a job that has not started because the artifact store fails: another worker's may not.
    pub(super) fn store_failed(
        &self,
        lease: &JobLease,
        what: &str,
        error: &ArtifactError,
    ) -> Ending {
        let after_epoch = 0;
        if self.shutdown.is_requested() {
            return Ending::HandBack { after_epoch };
        }
        match faults::store_fault(error) {
            Some(fault) => {
                self.record_fault(lease.job.job, &fault, Requirement::FaultKind);
                Ending::Decline { after_epoch, fault }
            }
            None => Ending::failed(what, error, FailureKind::Permanent),
        }
    }
}
