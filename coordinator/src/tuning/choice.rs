//! Which of the measured numbers of slots and threads is best.

use super::candidates::Candidate;
use serde::{Deserialize, Serialize};

/// What is as good as the best: less than measurements of some seconds tell apart.
const AS_GOOD: f64 = 0.97;

/// How fast all slots together train one method.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct MethodRate {
    pub(crate) method: String,
    /// Training steps a second, of all slots.
    pub(crate) steps_per_second: f64,
    /// The most bytes of memory that one slot needed; 0 if unknown.
    pub(crate) slot_memory: u64,
}

/// What was measured of one candidate: every method once, in the same order.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Measured {
    #[serde(flatten)]
    pub(crate) candidate: Candidate,
    pub(crate) methods: Vec<MethodRate>,
}

impl Measured {
    /// The most bytes of memory that one slot needed.
    pub(crate) fn slot_memory(&self) -> u64 {
        let memory = self.methods.iter().map(|method| method.slot_memory);
        memory.max().unwrap_or(0)
    }
}

/// The memory that slots share.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Room {
    /// Free bytes, if they are known.
    pub(crate) free: Option<u64>,
    /// What a slot needs of a sweep's largest method, if that is known; otherwise what was measured counts.
    pub(crate) slot: Option<u64>,
}

impl Room {
    /// Whether there is memory for all slots. One slot always fits: there is nothing smaller.
    fn has(self, measured: &Measured) -> bool {
        let slots = measured.candidate.slots;
        let slot = self.slot.unwrap_or_else(|| measured.slot_memory());
        let needed = slot.saturating_mul(slots as u64);
        slots == 1 || self.free.is_none_or(|free| needed <= free)
    }
}

/// The best candidate.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Choice {
    pub(crate) candidate: Candidate,
    /// Its speed as a share of the fastest of all.
    pub(crate) share: f64,
    /// Whether faster ones need more memory than there is.
    pub(crate) limited: bool,
}

/// Returns the speed of each candidate as a share of the fastest: the geometric mean over the methods of their
/// rates, so that each counts as much as the others, however long its steps are.
pub(crate) fn shares(measured: &[Measured]) -> Vec<f64> {
    let speeds: Vec<f64> = measured
        .iter()
        .map(|measured| {
            let logs = measured.methods.iter().map(|m| m.steps_per_second.ln());
            (logs.sum::<f64>() / measured.methods.len().max(1) as f64).exp()
        })
        .collect();
    let best = speeds.iter().copied().fold(f64::MIN_POSITIVE, f64::max);
    speeds.into_iter().map(|speed| speed / best).collect()
}

/// Chooses, of the candidates that fit into memory, the one with the fewest slots within 3 % of the fastest: fewer
/// slots take less memory, and a training ends sooner. `None` if nothing was measured.
pub(crate) fn choose(measured: &[Measured], room: Room) -> Option<Choice> {
    let shares = shares(measured);
    let fitting = || {
        let all = measured.iter().zip(&shares);
        all.filter(|(measured, _)| room.has(measured))
    };
    let best = fitting().map(|(_, share)| *share).reduce(f64::max)?;
    let good = fitting().filter(|(_, share)| **share >= AS_GOOD * best);
    let (chosen, share) = good.min_by(|(a, first), (b, second)| {
        let slots = a.candidate.slots.cmp(&b.candidate.slots);
        slots.then(second.total_cmp(first))
    })?;
    Some(Choice {
        candidate: chosen.candidate,
        share: *share,
        limited: best < AS_GOOD,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const GB: u64 = 1_000_000_000;

    /// A candidate with rates of two methods.
    fn measured(slots: usize, threads: usize, rates: [f64; 2], gigabytes: u64) -> Measured {
        let names = ["misa", "almt"];
        let methods = names.iter().zip(rates).map(|(method, rate)| MethodRate {
            method: (*method).to_owned(),
            steps_per_second: rate,
            slot_memory: gigabytes * GB,
        });
        Measured {
            candidate: Candidate { slots, threads },
            methods: methods.collect(),
        }
    }

    fn chosen(measured: &[Measured], room: Room) -> (usize, usize, bool) {
        let choice = choose(measured, room).unwrap();
        let Candidate { slots, threads } = choice.candidate;
        (slots, threads, choice.limited)
    }

    #[test]
    fn fewest_slots_within_three_percent_are_chosen() {
        let all = |two: f64, four: f64| {
            [
                measured(1, 4, [1.0, 1.0], 1),
                measured(2, 2, [two, two], 1),
                measured(4, 1, [four, four], 1),
            ]
        };
        let room = Room::default();
        assert_eq!(chosen(&all(1.9, 2.0), room), (4, 1, false));
        assert_eq!(chosen(&all(1.95, 2.0), room), (2, 2, false));
        assert_eq!(chosen(&all(1.02, 1.0), room), (1, 4, false));
        assert_eq!(choose(&[], room), None);
    }

    #[test]
    fn of_as_many_slots_the_faster_is_chosen() {
        let both = [
            measured(2, 1, [1.0, 1.0], 1),
            measured(2, 2, [1.02, 1.02], 1),
            measured(4, 1, [1.03, 1.03], 1),
        ];
        assert_eq!(chosen(&both, Room::default()), (2, 2, false));
    }

    #[test]
    fn methods_count_the_same_however_long_their_steps_are() {
        let both = [
            measured(1, 2, [10.0, 0.2], 1),
            measured(2, 1, [12.0, 0.1], 1),
        ];
        // One is 1.2 times as fast, the other half as fast.
        assert_eq!(chosen(&both, Room::default()), (1, 2, false));
        let shares = shares(&both);
        assert!((shares[0] - 1.0).abs() < 1e-12);
        assert!((shares[1] - 0.6_f64.sqrt()).abs() < 1e-12);
    }

    #[test]
    fn slots_must_fit_into_memory() {
        let all = [
            measured(1, 4, [1.0, 1.0], 3),
            measured(2, 2, [1.5, 1.5], 2),
            measured(4, 1, [2.0, 2.0], 2),
        ];
        let room = |free, slot: Option<u64>| Room {
            free: Some(free * GB),
            slot: slot.map(|slot| slot * GB),
        };
        assert_eq!(chosen(&all, room(8, None)), (4, 1, false));
        assert_eq!(chosen(&all, room(7, None)), (2, 2, true));
        // A sweep's largest method may need more than those that were measured, or less.
        assert_eq!(chosen(&all, room(8, Some(3))), (2, 2, true));
        assert_eq!(chosen(&all, room(7, Some(1))), (4, 1, false));
        // Something must run.
        assert_eq!(chosen(&all, room(0, None)), (1, 4, true));
        let choice = choose(&all, room(0, None)).unwrap();
        assert!((choice.share - 0.5).abs() < 1e-12);
    }
}
