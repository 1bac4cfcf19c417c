//! Checkpoints that results refer to and that the store does not have.

use halfheard_shared::{
    artifacts::{ArtifactStore, Key},
    ids::JobId,
};
use halfheard_store::{Store, gc::KeptCheckpoint};
use std::collections::{BTreeSet, HashMap};

/// Checkpoints that the database is asked for at once.
const PAGE: i64 = 1000;

/// The outcome of comparing the database with the store.
#[derive(Debug, Default)]
pub(crate) struct Missing {
    /// Checkpoints that results refer to.
    pub(crate) expected: u64,
    /// Those that the store does not have, or has in another size.
    pub(crate) missing: Vec<KeptCheckpoint>,
}

impl Missing {
    /// The training jobs that are to be done again.
    pub(crate) fn trainings(&self) -> BTreeSet<JobId> {
        let jobs = self.missing.iter().flat_map(|checkpoint| &checkpoint.jobs);
        jobs.copied().collect()
    }
}

/// Compares the checkpoints of kept sweeps with those in the store, by name and size.
///
/// # Errors
///
/// The store cannot be listed, or the database fails.
pub(crate) async fn find(artifacts: &ArtifactStore, database: &Store) -> anyhow::Result<Missing> {
    // The database first: what is uploaded meanwhile is not missing.
    let mut expected = Vec::new();
    let mut last = String::new();
    loop {
        let page = database.kept_checkpoints(&last, PAGE).await?;
        let Some(checkpoint) = page.last() else {
            break;
        };
        last.clone_from(&checkpoint.blake3);
        expected.extend(page);
    }
    let inventory = artifacts.inventory().await?;
    let there: HashMap<_, _> = inventory
        .entries
        .iter()
        .filter_map(|entry| match &entry.key {
            Key::Checkpoint(hash) => Some((hash.as_str(), entry.bytes.cast_signed())),
            _ => None,
        })
        .collect();
    Ok(Missing {
        expected: expected.len() as u64,
        missing: expected
            .into_iter()
            .filter(|wanted| there.get(wanted.blake3.as_str()) != Some(&wanted.bytes))
            .collect(),
    })
}
