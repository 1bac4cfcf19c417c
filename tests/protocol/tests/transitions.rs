//! The table of transitions that the database enforces, and which of them the models take.

use halfheard_protocol::{
    explore::counterexample,
    lease::{self, Lease},
    poison::Poison,
    retrain::{self, Retrain},
    table::{self, State, Transition},
};

/// Transitions that no model takes, and why.
const NOT_MODELLED: &[(Transition, &str)] = &[(
    (State::Ready, State::Failed),
    "a config that cannot be read is no matter of messages and leases",
)];

const NO_FAULTS: lease::Faults = lease::Faults {
    crash: 0,
    cut: 0,
    outage: 0,
    storage: 0,
    lost: 0,
    late: 0,
    failure: 0,
    hand_back: 0,
    operator: 0,
    clock: 0,
};

fn explore_small_models() {
    let operators = Lease {
        about: "operators",
        workers: 1,
        faults: lease::Faults {
            operator: 2,
            failure: 1,
            hand_back: 1,
            ..NO_FAULTS
        },
        failures: 2,
        time: false,
        for_ever: false,
        bug: None,
    };
    assert!(counterexample(&operators).is_none());
    let poison = Poison {
        kills: 0,
        bug: None,
    };
    assert!(counterexample(&poison).is_none());
    for (wiped, failure, operator) in [(1, 0, 0), (1, 0, 1), (0, 1, 2)] {
        let retrain = Retrain {
            faults: retrain::Faults {
                wiped,
                lost: 1,
                differs: 0,
                failure,
                operator,
            },
            bug: None,
        };
        assert!(counterexample(&retrain).is_none());
    }
}

#[test]
fn every_transition_is_modelled_or_has_a_reason_not_to_be() {
    explore_small_models();
    let mut problems = Vec::new();
    for (transition, reason) in table::rows() {
        let (before, after) = transition;
        let excused = NOT_MODELLED
            .iter()
            .any(|(excused, _)| excused == transition);
        if table::was_taken(*transition) == excused {
            problems.push(format!(
                "{} -> {} ({reason}) is {}",
                before.name(),
                after.name(),
                if excused {
                    "modelled after all"
                } else {
                    "not modelled"
                }
            ));
        }
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
    for (transition, reason) in NOT_MODELLED {
        let exists = table::rows().iter().any(|(row, _)| row == transition);
        assert!(exists, "{transition:?} does not exist ({reason})");
    }
}

#[test]
fn table_is_read_from_the_migration() {
    let rows = table::parse(
        "INSERT INTO job_transition (before, after, reason) VALUES
    ('blocked', 'ready', 'one'),
    ('running',   'done',  'it''s two');
INSERT INTO other VALUES ('ready', 'done', 'three');",
    );
    let transitions: Vec<Transition> = rows.iter().map(|(transition, _)| *transition).collect();
    assert_eq!(
        transitions,
        [
            (State::Blocked, State::Ready),
            (State::Running, State::Done)
        ]
    );
    assert!(table::rows().len() > 20);
    assert!(!table::take(State::Done, State::Queued));
    assert!(table::take(State::Ready, State::Queued));
}
