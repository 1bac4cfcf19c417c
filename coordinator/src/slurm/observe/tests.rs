//! What looks at the queue mean.

use super::*;

fn at(minute: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(1_795_700_000 + minute * 60, 0).unwrap()
}

fn allocation() -> Allocation {
    Allocation {
        id: 1,
        cluster: "tiny".to_owned(),
        partition: "gpu".to_owned(),
        slurm_id: 7,
        log: String::new(),
        submitted: at(0),
        state: "PENDING".to_owned(),
        reason: String::new(),
        started: None,
        ends: None,
        restarts: 0,
        ended: None,
        died: false,
    }
}

fn seen(state: &str, started: i64, ends: i64, restarts: Option<i32>) -> Seen {
    Seen {
        id: 7,
        state: SlurmState::parse(state).unwrap(),
        reason: String::new(),
        started: Some(at(started)),
        ends: Some(at(ends)),
        restarts,
    }
}

const IDLE: Duration = Duration::from_secs(300);

#[test]
fn job_that_is_queued_again_stays_one_allocation() {
    // As JSON counts restarts, and as the text form lets them be seen.
    for counted in [true, false] {
        let restarts = |n: i32| counted.then_some(n);
        let mut one = allocation();
        let mut look = |seen: Seen| observe(&mut one, Some(&seen), IDLE, at(99));
        assert_eq!(
            look(seen("PENDING", 9, 99, restarts(0))),
            None,
            "an estimate is no change"
        );
        assert_eq!(
            look(seen("RUNNING", 1, 61, restarts(0))),
            Some(Change::State)
        );
        assert_eq!(look(seen("RUNNING", 1, 61, restarts(0))), None);
        assert_eq!(
            look(seen("PENDING", 7, 67, restarts(1))),
            Some(Change::Requeued)
        );
        assert_eq!(look(seen("PENDING", 8, 68, restarts(1))), None);
        assert_eq!(
            look(seen("RUNNING", 8, 68, restarts(1))),
            Some(Change::State)
        );
        // Back again before the next look.
        assert_eq!(
            look(seen("RUNNING", 20, 80, restarts(2))),
            Some(Change::Requeued)
        );
        assert_eq!(
            look(seen("TIMEOUT", 20, 80, restarts(2))),
            Some(Change::Ended)
        );
        assert_eq!(
            (one.restarts, one.ended, one.died),
            (2, Some(at(80)), false)
        );
    }
}

#[test]
fn ends_that_would_repeat_themselves_are_told_from_others() {
    for (state, ran, died) in [
        ("FAILED", 0, true),
        ("FAILED", 2, false),
        ("OUT_OF_MEMORY", 0, true),
        ("NODE_FAIL", 30, false),
        ("COMPLETED", 0, true),
        ("COMPLETED", 6, false),
        ("PREEMPTED", 0, false),
        ("CANCELLED", 0, false),
    ] {
        let mut one = allocation();
        let change = observe(&mut one, Some(&seen(state, 1, 1 + ran, None)), IDLE, at(99));
        assert_eq!(change, Some(Change::Ended));
        assert_eq!(one.died, died, "{state} after {ran} min");
    }
    let mut lost = allocation();
    assert_eq!(observe(&mut lost, None, IDLE, at(9)), Some(Change::Ended));
    assert_eq!((lost.state.as_str(), lost.died), ("LOST", false));
    let mut vanished = allocation();
    observe(&mut vanished, None, IDLE, at(0));
    assert!(vanished.died, "right after its submission");
}

#[test]
fn submission_backs_off_after_deaths_in_a_row() {
    let ended = |minute, died| Allocation {
        state: "FAILED".to_owned(),
        started: Some(at(minute)),
        ended: Some(at(minute)),
        died,
        ..allocation()
    };
    assert_eq!(backs_off(&[], at(9)), None);
    let history = [
        ended(0, true),
        ended(1, false),
        ended(2, true),
        ended(3, true),
    ];
    assert_eq!(deaths(&history), Some((2, at(3))));
    assert_eq!(backs_off(&history, at(3)), Some(Duration::from_secs(60)));
    assert_eq!(backs_off(&history, at(4)), None, "a minute later");
    let recovered = [ended(2, true), ended(3, false)];
    assert_eq!(backs_off(&recovered, at(3)), None);
}

#[test]
fn phases_follow_states() {
    let of = |state: &str, ends| {
        let one = Allocation {
            state: state.to_owned(),
            ends,
            ..allocation()
        };
        phase(&one, at(10))
    };
    assert_eq!(of("PENDING", None), Phase::Pending);
    assert_eq!(
        of("RUNNING", Some(at(70))),
        Phase::Running(Duration::from_secs(3600))
    );
    assert_eq!(of("RUNNING", Some(at(5))), Phase::Running(Duration::ZERO));
    assert_eq!(of("RUNNING", None), Phase::Running(Duration::MAX));
    assert_eq!(of("COMPLETING", None), Phase::Leaving);
}
