//! The best epochs of a training by each selection criterion, and the contents of their checkpoints.

use super::{BestCheckpoint, BestEpochs, BestRef};
use bytes::Bytes;
use halfheard_shared::{benchmark::Benchmark, hash::Hash, metrics::Metrics, wire::CheckpointRef};
use std::collections::BTreeMap;

/// Contents of the best checkpoints by hash.
#[derive(Clone, Debug, Default)]
pub struct BestContents(BTreeMap<String, Bytes>);

impl BestContents {
    /// Fetches those that `best` refers to.
    ///
    /// # Errors
    ///
    /// The first one that is missing.
    pub fn fetch<'a>(
        best: &'a BestEpochs,
        fetch: &mut dyn FnMut(&BestRef) -> Option<Bytes>,
    ) -> Result<Self, &'a BestRef> {
        let mut contents = BTreeMap::new();
        for best in best.values() {
            if !contents.contains_key(&best.blake3) {
                contents.insert(best.blake3.clone(), fetch(best).ok_or(best)?);
            }
        }
        Ok(Self(contents))
    }

    /// Keeps the checkpoint of an epoch for every criterion by which it is the best so far; returns
    /// these. `measured` are the metrics of each split that chooses, with what stands before its ids.
    /// `content` is called only if there are any.
    ///
    /// # Errors
    ///
    /// Those of `content`. Nothing is changed.
    pub fn keep<E>(
        &mut self,
        best: &mut BestEpochs,
        benchmark: Benchmark,
        (epoch, measured): (u32, &[(&str, Metrics)]),
        content: impl FnOnce() -> Result<Bytes, E>,
    ) -> Result<Vec<String>, E> {
        let mut better: Vec<(String, Option<f64>)> = Vec::new();
        for (prefix, metrics) in measured {
            for criterion in benchmark.criteria() {
                let id = format!("{prefix}{}", criterion.id);
                let value = metrics.get(criterion.id).copied().flatten();
                let best = best.get(&id);
                if best.is_none_or(|best| benchmark.improves(criterion, value, best.value)) {
                    better.push((id, value));
                }
            }
        }
        if better.is_empty() {
            return Ok(Vec::new());
        }
        let content = content()?;
        let blake3 = Hash::of(&content).as_str().to_owned();
        for (criterion, value) in &better {
            let reference = BestRef {
                epoch,
                value: *value,
                blake3: blake3.clone(),
                bytes: content.len() as u64,
            };
            best.insert(criterion.clone(), reference);
        }
        self.0.insert(blake3, content);
        self.0
            .retain(|hash, _| best.values().any(|kept| kept.blake3 == *hash));
        Ok(better.into_iter().map(|(id, _)| id).collect())
    }

    /// All of them.
    pub fn checkpoints(&self) -> Vec<BestCheckpoint> {
        let contents = self.0.values();
        contents
            .map(|content| BestCheckpoint {
                blake3: Hash::of(content),
                content: content.clone(),
            })
            .collect()
    }

    /// All of them with their criterion and epoch, to keep if training fails.
    pub fn named(&self, best: &BestEpochs) -> Vec<(String, BestCheckpoint)> {
        best.iter()
            .filter_map(|(id, best)| {
                let content = self.0.get(&best.blake3)?.clone();
                let blake3 = best.blake3.parse().ok()?;
                Some((
                    format!("{id} after epoch {}", best.epoch),
                    BestCheckpoint { blake3, content },
                ))
            })
            .collect()
    }
}

/// The metrics of an epoch by their ids, those of all splits that choose together.
pub fn named(measured: Vec<(&str, Metrics)>) -> Metrics {
    let measured = measured.into_iter().flat_map(|(prefix, metrics)| {
        let metrics = metrics.into_iter();
        metrics.map(move |(id, value)| (format!("{prefix}{id}"), value))
    });
    measured.collect()
}

/// What a completed training reports of its best epochs.
pub fn references(best: &BestEpochs) -> Vec<CheckpointRef> {
    best.iter()
        .map(|(criterion, best)| CheckpointRef {
            criterion: criterion.clone(),
            epoch: best.epoch,
            blake3: best.blake3.clone(),
            bytes: best.bytes,
        })
        .collect()
}
