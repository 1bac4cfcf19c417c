//! The saved state of a training run: a safetensors file with the method's tensors, and everything
//! else as JSON in its metadata.
//!
//! The metadata contains a hash of the content, which detects damage. Without a valid state, training
//! starts over: a state only saves time.

use super::{TrainError, weights};
use crate::methods::MethodState;
use halfheard_shared::{hash::Hash, wire::EpochLog};
use safetensors::SafeTensors;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap};
use tch::Device;

/// The version of this format.
pub(super) const VERSION: u32 = 3;

/// The progress of a training run, without the method's state.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Progress {
    /// The fingerprint of the training spec that the state belongs to.
    pub spec: String,
    /// The epoch in progress, from 1.
    pub epoch: u32,
    /// The pass of the next step; the number of passes if the end of the epoch is next.
    pub pass: usize,
    /// The next step.
    pub step: usize,
    /// Steps done, over all epochs.
    pub steps: u64,
    /// Sum and count of each loss in this epoch; no sum if one of the values was not finite.
    pub losses: BTreeMap<String, (Option<f64>, u64)>,
    /// Seconds of training in this epoch.
    pub epoch_seconds: f64,
    /// Seconds over all attempts.
    pub seconds: f64,
    /// The best validation loss and its epoch.
    pub best_loss: Option<(f64, u32)>,
    /// The best epoch by each selection criterion.
    pub best: BestEpochs,
    /// Whether early stopping applies.
    pub stopped: bool,
    /// The kinds of processors used so far, in order.
    pub processors: Vec<String>,
    /// The completed epochs, which whoever resumes reports again: the broker may have lost what was
    /// reported. A state of an earlier release has none.
    #[serde(default)]
    pub logs: Vec<EpochLog>,
}

/// The best epoch so far by each selection criterion.
pub type BestEpochs = BTreeMap<String, BestRef>;

/// The best epoch so far by some criterion.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BestRef {
    /// The epoch.
    pub epoch: u32,
    /// The criterion's value; `None` if undefined, which is worse than any value.
    pub value: Option<f64>,
    /// BLAKE3 of the checkpoint.
    pub blake3: String,
    /// The size of the checkpoint.
    pub bytes: u64,
}

/// Why a saved state is not used.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// An incomplete or damaged file.
    #[error("the state is damaged: {0}")]
    Damaged(String),
    /// A file of another release.
    #[error("the state has version {found}, this program writes {VERSION}")]
    Version {
        /// The version found.
        found: String,
    },
    /// A state of another training spec.
    #[error("the state belongs to another training spec")]
    Other,
    /// A state that the method rejects.
    #[error("the method rejects the state: {0}")]
    Method(String),
}

/// Encodes a state.
pub(super) fn encode(progress: &Progress, method: &MethodState) -> Result<Vec<u8>, TrainError> {
    let json = serde_json::json!({ "progress": progress, "scalars": method.scalars }).to_string();
    let write = |hash: &str| {
        let metadata = HashMap::from([
            ("halfheard_state".to_owned(), VERSION.to_string()),
            ("json".to_owned(), json.clone()),
            ("blake3".to_owned(), hash.to_owned()),
        ]);
        let tensors = method.tensors.iter().map(|(n, t)| (n.as_str(), t));
        weights::serialize(tensors, Some(metadata))
    };
    // All hashes have the same length, so the hash can be inserted afterwards.
    let blank = "0".repeat(64);
    let mut file = write(&blank)?;
    let data = data_start(&file).ok_or(TrainError::State(
        safetensors::SafeTensorError::InvalidHeaderLength,
    ))?;
    let hash = digest(&json, &file[data..]);
    let at = find(&file[..data], blank.as_bytes()).ok_or(TrainError::State(
        safetensors::SafeTensorError::InvalidHeaderLength,
    ))?;
    file[at..at + 64].copy_from_slice(hash.as_str().as_bytes());
    Ok(file)
}

fn digest(json: &str, data: &[u8]) -> Hash {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&(json.len() as u64).to_le_bytes());
    hasher.update(json.as_bytes());
    hasher.update(data);
    hasher.finalize().into()
}

/// The offset of the tensors' bytes.
fn data_start(file: &[u8]) -> Option<usize> {
    let header = u64::from_le_bytes(*file.first_chunk::<8>()?);
    usize::try_from(header).ok()?.checked_add(8)
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack
        .windows(needle.len())
        .position(|window| window == needle)
}

/// Decodes a state of the training spec with fingerprint `spec`.
pub(super) fn decode(file: &[u8], spec: &str) -> Result<(Progress, MethodState), StateError> {
    #[derive(Deserialize)]
    struct Json {
        progress: Progress,
        scalars: serde_json::Map<String, serde_json::Value>,
    }
    let damaged = |what: &dyn std::fmt::Display| StateError::Damaged(what.to_string());
    let (_, header) = SafeTensors::read_metadata(file).map_err(|e| damaged(&e))?;
    let tensors = SafeTensors::deserialize(file).map_err(|e| damaged(&e))?;
    let metadata = header.metadata().clone().unwrap_or_default();
    let entry = |name: &str| metadata.get(name).map_or("", String::as_str);
    if entry("halfheard_state") != VERSION.to_string() {
        return Err(StateError::Version {
            found: entry("halfheard_state").chars().take(20).collect(),
        });
    }
    let json = entry("json");
    let data = data_start(file).and_then(|start| file.get(start..));
    if data.is_none_or(|data| digest(json, data).as_str() != entry("blake3")) {
        return Err(damaged(&"its content does not match its hash"));
    }
    let Json { progress, scalars } = serde_json::from_str(json).map_err(|e| damaged(&e))?;
    if progress.spec != spec {
        return Err(StateError::Other);
    }
    let mut method = MethodState {
        scalars,
        ..MethodState::default()
    };
    for (name, view) in tensors.iter() {
        let tensor = weights::tensor(&view, Device::Cpu)
            .map_err(|e| damaged(&e))?
            .ok_or_else(|| damaged(&format!("`{name}` has an unknown type")))?;
        method.tensors.insert(name.to_owned(), tensor);
    }
    Ok((progress, method))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::Tensor;

    fn progress() -> Progress {
        Progress {
            spec: "s".to_owned(),
            epoch: 3,
            pass: 1,
            step: 7,
            steps: 207,
            losses: BTreeMap::from([
                ("loss".to_owned(), (Some(0.1 + 0.2), 7)),
                ("undefined".to_owned(), (None, 7)),
            ]),
            epoch_seconds: 1.0 / 3.0,
            seconds: 10.1,
            best_loss: Some((std::f64::consts::PI, 2)),
            best: BTreeMap::new(),
            stopped: false,
            processors: vec!["x86-64-avx2-amd-2t".to_owned()],
            logs: vec![EpochLog {
                epoch: 1,
                losses: BTreeMap::from([("loss".to_owned(), 0.1 + 0.2)]),
                metrics: BTreeMap::from([
                    ("mae".to_owned(), Some(1.0 / 3.0)),
                    ("corr".to_owned(), None),
                ]),
                train_seconds: 1.5,
                eval_seconds: 0.25,
                best_for: vec!["mae".to_owned()],
            }],
        }
    }

    fn state() -> MethodState {
        let mut state = MethodState::default();
        let tensor = Tensor::from_slice(&[1.0_f32, f32::MIN_POSITIVE / 2.0, -0.0]);
        state.tensors.insert("w".to_owned(), tensor);
        // A number with a long shortest decimal form.
        state
            .scalars
            .insert("lr".to_owned(), serde_json::json!(1e-4 * 0.3));
        state
    }

    #[test]
    fn state_roundtrips_bit_exactly() {
        let file = encode(&progress(), &state()).unwrap();
        let (back, method) = decode(&file, "s").unwrap();
        assert_eq!(back, progress());
        assert_eq!(method.scalars, state().scalars);
        let bits = |t: &Tensor| {
            let values = Vec::<f32>::try_from(t).unwrap();
            values.iter().map(|v| v.to_bits()).collect::<Vec<_>>()
        };
        assert_eq!(bits(&method.tensors["w"]), bits(&state().tensors["w"]));
    }

    #[test]
    fn damaged_or_foreign_state_is_rejected_without_a_panic() {
        let file = encode(&progress(), &state()).unwrap();
        assert!(matches!(decode(&file, "t"), Err(StateError::Other)));
        for end in 0..file.len() {
            assert!(decode(&file[..end], "s").is_err(), "cut at {end}");
        }
        for at in 0..file.len() {
            let mut changed = file.clone();
            changed[at] ^= 1;
            // A flipped blank in the header's padding is harmless; everything else is detected.
            if let Ok((back, _)) = decode(&changed, "s") {
                assert_eq!(back, progress(), "changed at {at}");
            }
        }
    }
}
