//! The fault that was met last, and the jobs skipped for it.

use halfheard_shared::{hash::Hash, ids::JobId, wire::TrainSpec};
use std::{
    collections::HashSet,
    sync::{Mutex, MutexGuard, PoisonError},
};

/// Jobs that may be skipped before the worker is suspended again.
const MAX_SKIPPED: usize = 64;

/// What the worker lacked, to probe whether it has become available.
#[derive(Clone, Debug)]
pub(in crate::runtime) enum Requirement {
    /// What the fault's kind implies.
    FaultKind,
    /// The dataset and the encoder of this training job.
    Inputs(Box<TrainSpec>),
    /// A checkpoint in the artifact store.
    Checkpoint(Hash),
}

/// The requirement behind the last fault, and the jobs skipped for it since the last suspension.
#[derive(Debug, Default)]
pub(in crate::runtime) struct LastFault(Mutex<(Option<Requirement>, HashSet<JobId>)>);

impl LastFault {
    fn lock(&self) -> MutexGuard<'_, (Option<Requirement>, HashSet<JobId>)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(in crate::runtime) fn set(&self, requirement: Requirement) {
        *self.lock() = (Some(requirement), HashSet::new());
    }

    pub(in crate::runtime) fn requirement(&self) -> Requirement {
        self.lock().0.clone().unwrap_or(Requirement::FaultKind)
    }

    /// Whether a job may be skipped at once in favor of the ones queued behind it. A job that comes
    /// around again was the last one.
    pub(in crate::runtime) fn may_skip(&self, job: JobId) -> bool {
        let skipped = &mut self.lock().1;
        skipped.len() < MAX_SKIPPED && skipped.insert(job)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jobs_are_skipped_until_they_come_around() {
        let fault = LastFault::default();
        let job = |n: usize| JobId::derive(&[&n.to_le_bytes()]);
        assert!(fault.may_skip(job(0)) && fault.may_skip(job(1)));
        assert!(!fault.may_skip(job(0)), "it has come around");
        fault.set(Requirement::FaultKind);
        assert!(fault.may_skip(job(0)), "after another suspension");
        assert!((1..MAX_SKIPPED).all(|n| fault.may_skip(job(n))));
        assert!(!fault.may_skip(job(MAX_SKIPPED)), "the limit");
    }
}
