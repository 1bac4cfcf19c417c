//! Seeds and sample orders as pure functions of the run's seed and position, so a run can resume from
//! any step without stored generator states.

use halfheard_shared::numpy_rng::RandomState;

/// Separates step seeds from other hashes. Every published number rests on these bytes, so they never
/// change; they spell the project's name at the time of the first sweep.
const STEP: [u8; 14] = [
    0x6d, 0x69, 0x73, 0x73, 0x62, 0x65, 0x6e, 0x63, 0x68, 0x20, 0x73, 0x74, 0x65, 0x70,
];

/// The seed of libtorch's generator before a training step. Epochs count from 1; epoch 0 is the
/// preparation before the first.
pub(super) fn step_seed(seed: u64, epoch: u32, pass: usize, step: usize) -> i64 {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&STEP);
    hasher.update(&seed.to_le_bytes());
    for part in [u64::from(epoch), pass as u64, step as u64] {
        hasher.update(&part.to_le_bytes());
    }
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&hasher.finalize().as_bytes()[..8]);
    i64::from_le_bytes(bytes)
}

/// The order in which a pass visits the training split.
pub(super) fn permutation(samples: usize, seed: u64, epoch: u32, pass: usize) -> Vec<i64> {
    // The last word separates this stream from the erasure's.
    let key = [
        seed as u32,
        (seed >> 32) as u32,
        epoch,
        pass as u32,
        0x6f72_6465,
    ];
    let mut rng = RandomState::from_key(&key);
    let mut order: Vec<i64> = (0..samples as i64).collect();
    for i in (1..samples).rev() {
        order.swap(i, rng.below(i + 1));
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn permutation_visits_every_sample_once_and_differs_between_passes() {
        let order = permutation(101, 1111, 3, 0);
        assert_eq!(order.iter().collect::<HashSet<_>>().len(), 101);
        assert_eq!(order, permutation(101, 1111, 3, 0));
        for other in [(1112, 3, 0), (1111, 4, 0), (1111, 3, 1)] {
            assert_ne!(order, permutation(101, other.0, other.1, other.2));
        }
    }

    #[test]
    fn step_seeds_stay_as_they_are() {
        // Another seed makes another training run of every sweep.
        assert_eq!(step_seed(1111, 1, 0, 0), -4_010_826_707_315_943_644);
        assert_eq!(step_seed(1113, 200, 1, 640), -4_059_174_140_920_185_452);
    }

    #[test]
    fn step_seeds_are_distinct() {
        let mut seeds = HashSet::new();
        for epoch in 0..4 {
            for pass in 0..2 {
                for step in 0..50 {
                    assert!(seeds.insert(step_seed(1111, epoch, pass, step)));
                }
            }
        }
    }
}
