//! Tests of the policy: its rules for any work and any allocations, and what it comes to over time.

use super::*;
use proptest::prelude::*;

fn limits() -> impl Strategy<Value = Limits> {
    (
        1..12_u32,
        0..6_u32,
        1..5_u32,
        1..4_u32,
        200..90_000_u64,
        1..90_000_u64,
    )
        .prop_map(|(max, min, backlog, slots, time, horizon)| Limits {
            max,
            min: min.min(max),
            backlog,
            slots,
            time: Duration::from_secs(time),
            horizon: Duration::from_secs(horizon),
            lead: Duration::from_secs(60),
        })
}

fn work() -> impl Strategy<Value = OpenWork> {
    prop_oneof![
        Just(OpenWork::default()),
        (1..60_i64, 0.0..1e6_f64, 0.0..=1.0_f64).prop_map(|(parallel, seconds, share)| OpenWork {
            parallel,
            seconds,
            unknown: (parallel as f64 * share) as i64,
        })
    ]
}

fn held() -> impl Strategy<Value = Vec<Phase>> {
    let phase = prop_oneof![
        Just(Phase::Pending),
        (0..90_000_u64).prop_map(|s| Phase::Running(Duration::from_secs(s))),
        Just(Phase::Leaving),
    ];
    prop::collection::vec(phase, 0..16)
}

/// What is held after a decision was carried out.
fn carried_out(held: &[Phase], decision: &Decision) -> Vec<Phase> {
    let kept = (0..held.len()).filter(|i| !decision.cancel.contains(i));
    kept.map(|i| held[i])
        .chain((0..decision.submit).map(|_| Phase::Pending))
        .collect()
}

fn pending(held: &[Phase]) -> usize {
    held.iter().filter(|p| **p == Phase::Pending).count()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn rules_hold_for_any_work_and_allocations(
        limits in limits(), work in work(), held in held(), backs_off: bool,
    ) {
        let decision = decide(&limits, &work, &held, backs_off);
        let after = carried_out(&held, &decision);
        let others = held.len() - pending(&held);
        let usable = held.iter().filter(|p| limits.seconds_of(**p).is_some()).count();
        let running = usable - pending(&held);

        prop_assert!(decision.cancel.iter().all(|&i| held[i] == Phase::Pending));
        prop_assert!(after.len() <= (limits.max as usize).max(others), "more than --max");
        prop_assert!(decision.submit == 0 || decision.cancel.is_empty(), "both at once");
        if work.parallel == 0 {
            prop_assert_eq!(pending(&after), 0, "the work is gone");
        } else if !backs_off {
            let least = (limits.min as usize).min((limits.max as usize).saturating_sub(others - running));
            prop_assert!(running + pending(&after) >= least, "fewer than --min");
            let full = others >= limits.max as usize;
            prop_assert!(full || running + pending(&after) > 0, "work waits for nobody");
        }
        let backlog = limits.backlog.max(limits.min.saturating_sub(running as u32)) as usize;
        if decision.submit > 0 {
            prop_assert!(!backs_off);
            prop_assert!(pending(&after) <= backlog, "beyond the backlog");
        }
        // A decision stands until something changes: nothing is submitted and cancelled in turns.
        let next = decide(&limits, &work, &after, backs_off);
        prop_assert!(next.cancel.is_empty());
        prop_assert!(next.submit == 0 || pending(&after) < backlog);
    }

    #[test]
    fn long_training_proceeds_over_several_allocations(
        hours in 1..60_u64, limit in 1..8_u64, max in 1..8_u32, wait in 0..90_u64,
    ) {
        // One minute a step. Allocations wait, run until they hand back, and leave; one has the job.
        let limits = Limits {
            max, min: 0, backlog: 2, slots: 1,
            time: Duration::from_secs(limit * 3600),
            horizon: Duration::from_secs(limit * 3600),
            lead: Duration::from_secs(120),
        };
        let minute = Duration::from_secs(60);
        let mut left = hours as f64 * 3600.0;
        let mut held: Vec<(Phase, u64)> = Vec::new();
        let (mut submitted, mut minutes) = (0, 0);
        while left > 0.0 {
            let work = OpenWork { parallel: 1, seconds: left, unknown: 0 };
            let phases: Vec<Phase> = held.iter().map(|(phase, _)| *phase).collect();
            let decision = decide(&limits, &work, &phases, false);
            prop_assert!(decision.cancel.is_empty());
            submitted += u64::from(decision.submit);
            held.extend((0..decision.submit).map(|_| (Phase::Pending, wait)));
            prop_assert!(held.len() <= max as usize);
            let works = |p: &Phase| matches!(p, Phase::Running(t) if *t > minute);
            left -= if held.iter().any(|(p, _)| works(p)) { 60.0 } else { 0.0 };
            for (phase, waits) in &mut held {
                *phase = match *phase {
                    Phase::Pending if *waits == 0 => Phase::Running(limits.time),
                    Phase::Running(time) if time > minute => Phase::Running(time - minute),
                    Phase::Pending => { *waits -= 1; Phase::Pending }
                    _ => Phase::Leaving,
                };
            }
            held.retain(|(phase, _)| *phase != Phase::Leaving);
            minutes += 1;
            prop_assert!(minutes < 100_000, "it does not proceed");
        }
        let each = limit * 60 - 2;
        prop_assert!(submitted <= (hours * 60).div_ceil(each) + 2, "{} allocations", submitted);
    }
}

fn four_hours() -> Limits {
    Limits {
        max: 8,
        min: 0,
        backlog: 8,
        slots: 1,
        time: Duration::from_secs(4 * 3600),
        horizon: Duration::from_secs(4 * 3600),
        lead: Duration::from_secs(60),
    }
}

#[test]
fn submits_by_gpu_seconds_against_time_left() {
    let limits = four_hours();
    let work = |parallel, hours: f64, unknown| OpenWork {
        parallel,
        seconds: hours * 3600.0,
        unknown,
    };
    let submit = |work: OpenWork, held: &[Phase]| decide(&limits, &work, held, false).submit;
    assert_eq!(
        submit(work(20, 10.0, 0), &[]),
        3,
        "10 h in allocations of 4 h"
    );
    assert_eq!(submit(work(20, 100.0, 0), &[]), 8, "--max");
    assert_eq!(submit(work(2, 100.0, 0), &[]), 2, "two jobs");
    assert_eq!(
        submit(work(5, 0.0, 5), &[]),
        5,
        "one each if nothing is known"
    );
    assert_eq!(
        submit(work(1, 0.0, 0), &[]),
        1,
        "evaluations of unknown length"
    );
    let held = [
        Phase::Running(Duration::from_secs(2 * 3600)),
        Phase::Pending,
    ];
    assert_eq!(submit(work(20, 5.5, 0), &held), 0);
    assert_eq!(submit(work(20, 7.0, 0), &held), 1);
    // The one that hands back soon is of no more use.
    let held = [Phase::Running(Duration::from_secs(50))];
    assert_eq!(submit(work(1, 5.0, 0), &held), 1);
    let mut sooner = four_hours();
    sooner.horizon = Duration::from_secs(3600);
    assert_eq!(decide(&sooner, &work(20, 5.0, 0), &[], false).submit, 5);
}

#[test]
fn pending_allocations_that_nobody_needs_are_cancelled_newest_first() {
    let run = Phase::Running(Duration::from_secs(3600));
    let held = [Phase::Pending, run, Phase::Pending, Phase::Pending];
    let one = OpenWork {
        parallel: 2,
        seconds: 1.0,
        unknown: 0,
    };
    let cancel = |work: &OpenWork| decide(&four_hours(), work, &held, false).cancel;
    assert_eq!(cancel(&one), [2, 3]);
    assert_eq!(cancel(&OpenWork::default()), [0, 2, 3]);
}

#[test]
fn delays_double_up_to_half_an_hour() {
    let delays: Vec<u64> = (0..9).map(|n| backoff(n).as_secs()).collect();
    assert_eq!(delays, [0, 30, 60, 120, 240, 480, 960, 1800, 1800]);
    assert_eq!(backoff(u32::MAX), LONGEST_DELAY);
}
