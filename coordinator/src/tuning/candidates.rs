//! What is measured: numbers of slots and of threads.

use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, fmt};

/// The most slots that `coord run` starts.
pub(super) const MAX_SLOTS: usize = 256;

/// A number of slots, and of threads of each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Candidate {
    pub(crate) slots: usize,
    pub(crate) threads: usize,
}

impl fmt::Display for Candidate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} x {}", self.slots, self.threads)
    }
}

/// The cores that this process may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cores {
    /// Logical ones.
    pub(crate) logical: usize,
    /// Logical ones of one physical core.
    pub(crate) siblings: usize,
}

impl Cores {
    /// Those of this process: what affinity and control group allow, as the worker counts them.
    pub(crate) fn of_this_process() -> Self {
        Self {
            logical: std::thread::available_parallelism().map_or(1, usize::from),
            siblings: siblings().unwrap_or(1),
        }
    }
}

/// How many logical cores the first physical one has.
fn siblings() -> Option<usize> {
    let list = "/sys/devices/system/cpu/cpu0/topology/thread_siblings_list";
    count_in_list(std::fs::read_to_string(list).ok()?.trim())
}

/// The number of cores in a list such as `0,64` or `0-1`.
fn count_in_list(list: &str) -> Option<usize> {
    let parts = list.split(',').map(|part| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (usize, usize) = (first.parse().ok()?, last.parse().ok()?);
        Some(last.checked_sub(first)? + 1)
    });
    parts.sum()
}

/// Returns what to measure, fewest slots first: one slot with all cores, one thread on each core, and what
/// lies between by powers of two. Where physical cores have several logical ones, the same with a thread for
/// each physical one: two threads that multiply matrices on one core share its arithmetic units.
pub(crate) fn candidates(cores: Cores) -> Vec<Candidate> {
    let logical = cores.logical.max(1);
    let physical = (logical / cores.siblings.max(1)).max(1);
    // Slots → threads, for each number of cores in use.
    let mut found: BTreeMap<(usize, usize), Candidate> = BTreeMap::new();
    for cores in [physical, logical] {
        let powers = (0..usize::BITS).map(|power| 1_usize << power);
        let threads = powers
            .take_while(|threads| *threads < cores)
            .chain([cores / 2, cores]);
        for threads in threads.filter(|threads| *threads > 0) {
            let slots = (cores / threads).min(MAX_SLOTS);
            let candidate = Candidate { slots, threads };
            // Of two with as many slots, the one that leaves no core idle.
            found
                .entry((slots, cores))
                .and_modify(|known| known.threads = known.threads.max(threads))
                .or_insert(candidate);
        }
    }
    let mut all: Vec<Candidate> = found.into_values().collect();
    all.dedup();
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(logical: usize, siblings: usize) -> Vec<(usize, usize)> {
        let cores = Cores { logical, siblings };
        let pair = |candidate: Candidate| (candidate.slots, candidate.threads);
        candidates(cores).into_iter().map(pair).collect()
    }

    #[test]
    fn candidates_go_from_one_slot_to_one_thread_each() {
        assert_eq!(pairs(1, 1), [(1, 1)]);
        assert_eq!(pairs(2, 1), [(1, 2), (2, 1)]);
        assert_eq!(pairs(6, 1), [(1, 6), (2, 3), (3, 2), (6, 1)]);
        assert_eq!(pairs(7, 1), [(1, 7), (2, 3), (3, 2), (7, 1)]);
        let eight = [(1, 8), (2, 4), (4, 2), (8, 1)];
        assert_eq!(pairs(8, 1), eight);
        // A minute is enough for a machine of any size.
        assert!(pairs(384, 2).len() <= 20);
        assert!(pairs(384, 1).iter().all(|(slots, _)| *slots <= MAX_SLOTS));
    }

    #[test]
    fn physical_cores_are_tried_alone() {
        let four = [(1, 2), (1, 4), (2, 1), (2, 2), (4, 1)];
        assert_eq!(pairs(4, 2), four);
        // A control group may allow less than one physical core.
        assert_eq!(pairs(1, 2), [(1, 1)]);
    }

    #[test]
    fn lists_of_cores_are_counted() {
        assert_eq!(count_in_list("0"), Some(1));
        assert_eq!(count_in_list("0,64"), Some(2));
        assert_eq!(count_in_list("0-3,8"), Some(5));
        assert_eq!(count_in_list("3-0"), None);
        assert_eq!(count_in_list(""), None);
    }
}
