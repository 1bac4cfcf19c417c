//! Tables of what words are heard as, for evaluations under errors of speech recognition.

use super::{
    blobs::BlobError, ending::Ending, faults, faults::Requirement, leases::JobLease, slot::Slot,
};
use halfheard_shared::{
    artifacts::ArtifactError,
    erasure::ConfusionTable,
    error::chain,
    hash::Hash,
    wire::{FailureKind, Fault, FaultKind, TrainSpec, Work},
};
use std::{collections::BTreeMap, sync::Arc};

/// Tables by their hashes.
pub(super) type Tables = BTreeMap<String, Arc<ConfusionTable>>;

impl Slot {
    /// The tables that these jobs need, or how they end without them.
    pub(super) async fn tables(
        &self,
        jobs: &[JobLease],
        spec: &TrainSpec,
        what: &str,
    ) -> Result<Tables, Ending> {
        let mut tables = Tables::new();
        for lease in jobs {
            let Work::Eval {
                confusions: Some(hash),
                ..
            } = &lease.job.work
            else {
                continue;
            };
            if tables.contains_key(hash) {
                continue;
            }
            let table = self.table(hash).await.map_err(|error| {
                let Some(fault) = faults::input_fault(&error, spec) else {
                    return Ending::failed(what, &error, FailureKind::Permanent);
                };
                let job = lease.job.job;
                self.record_fault(job, &fault, Requirement::Inputs(Box::new(spec.clone())));
                Ending::Decline {
                    after_epoch: 0,
                    fault,
                }
            })?;
            match table {
                Ok(table) => tables.insert(hash.clone(), Arc::new(table)),
                Err(reason) => {
                    let what = format!("confusion table {}", &hash[..hash.len().min(8)]);
                    let fault = Fault::new(FaultKind::Method, what, vec![reason]);
                    return Err(Ending::Decline {
                        after_epoch: 0,
                        fault,
                    });
                }
            };
        }
        Ok(tables)
    }

    async fn table(&self, hash: &str) -> Result<Result<ConfusionTable, String>, BlobError> {
        let hash: Hash = hash.parse().map_err(ArtifactError::from)?;
        let path = self.blobs.small("confusion table", &hash).await?;
        Ok(match std::fs::read(&path) {
            Err(error) => Err(format!("cannot read {}: {}", path.display(), chain(&error))),
            // The content has the right hash: another release wrote it in another form.
            Ok(bytes) => ConfusionTable::from_bytes(&bytes).map_err(|error| chain(&error)),
        })
    }
}
