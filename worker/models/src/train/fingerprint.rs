//! The identity of a training run, by which saved states are matched to jobs.

use super::TrainError;
use halfheard_shared::{
    hash::Hash,
    wire::{self, TrainSpec},
};

/// Prefix of the hashed bytes. Its version changes with their meaning: since 2, a protocol has a training
/// regime and switched faults, and a training of the same spec takes another course.
const DOMAIN: &[u8] = b"halfheard training 2\0";

/// The version byte of the wire format when fingerprints were introduced. It stays: a new version of the wire
/// format must not orphan the saved states of trainings that go on under it.
const ENCODING: u8 = 2;

/// BLAKE3 of everything that determines the course of training: the spec's wire encoding without
/// file paths, which are hints.
pub(super) fn fingerprint(spec: &TrainSpec) -> Result<String, TrainError> {
    let mut spec = spec.clone();
    spec.data.path.clear();
    spec.encoder.path.clear();
    let mut encoded = wire::encode(&spec).map_err(TrainError::Fingerprint)?;
    if let Some(version) = encoded.first_mut() {
        *version = ENCODING;
    }
    Ok(Hash::of(&[DOMAIN, &encoded].concat()).as_str().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::testing::spec;

    /// A change of this value orphans every saved state: raise the version in [`DOMAIN`] with it.
    #[test]
    fn fingerprint_is_stable() {
        assert_eq!(
            fingerprint(&spec(3)).unwrap(),
            "a9e495acb302867d419b6aadff478354934c5d2858b643a8da8d8bda3dc16787"
        );
    }

    #[test]
    fn fingerprint_depends_on_the_spec_but_not_on_paths() {
        let original = fingerprint(&spec(3)).unwrap();
        let mut moved = spec(3);
        moved.data.path = "elsewhere".to_owned();
        moved.encoder.path = "elsewhere".to_owned();
        assert_eq!(fingerprint(&moved).unwrap(), original);
        let mut reseeded = spec(3);
        reseeded.seed += 1;
        assert_ne!(fingerprint(&reseeded).unwrap(), original);
        assert_ne!(fingerprint(&spec(4)).unwrap(), original);
    }
}
