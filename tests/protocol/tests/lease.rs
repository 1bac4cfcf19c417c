//! One job from its grant to its result.

#![expect(clippy::expect_used, reason = "a test stops where something is wrong")]

use halfheard_protocol::{
    bug::Bug,
    explore::{counterexample_of, trap, verify},
    lease::{Faults, Lease},
};

const NONE: Faults = Faults {
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

/// Processes that die, requests that are lost or late.
const SESSIONS: Lease = Lease {
    about: "sessions",
    workers: 1,
    faults: Faults {
        crash: 1,
        lost: 1,
        late: 1,
        ..NONE
    },
    failures: 0,
    time: false,
    for_ever: false,
    bug: None,
};

/// The broker, the database and the leader are away.
const OUTAGES: Lease = Lease {
    about: "outages",
    workers: 1,
    faults: Faults { outage: 2, ..NONE },
    failures: 0,
    time: true,
    for_ever: false,
    bug: None,
};

/// A worker that is cut off, and another that gets its job.
const PARTITIONS: Lease = Lease {
    about: "partitions",
    workers: 2,
    faults: Faults { cut: 1, ..NONE },
    failures: 0,
    time: true,
    for_ever: true,
    bug: None,
};

/// The database's clock is set forward and back.
const CLOCKS: Lease = Lease {
    about: "clocks",
    workers: 1,
    faults: Faults { clock: 2, ..NONE },
    failures: 0,
    time: true,
    for_ever: false,
    bug: None,
};

/// A request that is late when its session has long been served.
const LATE: Lease = Lease {
    about: "late requests",
    workers: 1,
    faults: Faults {
        late: 1,
        hand_back: 1,
        ..NONE
    },
    failures: 0,
    time: false,
    for_ever: false,
    bug: None,
};

/// Reports that are lost, repeated, late, out of order.
const REPORTS: Lease = Lease {
    about: "reports",
    workers: 1,
    faults: Faults {
        outage: 1,
        storage: 1,
        failure: 1,
        hand_back: 1,
        ..NONE
    },
    failures: 2,
    time: false,
    for_ever: false,
    bug: None,
};

/// A job that is cancelled, asked for again and retried.
const OPERATORS: Lease = Lease {
    about: "operators",
    workers: 1,
    faults: Faults {
        operator: 2,
        failure: 1,
        hand_back: 1,
        storage: 1,
        ..NONE
    },
    failures: 2,
    time: false,
    for_ever: false,
    bug: None,
};

#[test]
fn sessions_hold() {
    verify(&SESSIONS);
}

#[test]
fn outages_hold() {
    verify(&OUTAGES);
}

#[test]
fn partitions_hold() {
    verify(&PARTITIONS);
}

#[test]
fn clocks_hold() {
    verify(&CLOCKS);
}

#[test]
fn late_requests_hold() {
    verify(&LATE);
}

#[test]
fn reports_hold() {
    verify(&REPORTS);
}

#[test]
fn operators_hold() {
    verify(&OPERATORS);
}

fn with(bug: Bug, model: &Lease) -> Lease {
    Lease {
        bug: Some(bug),
        ..model.clone()
    }
}

fn finds(bug: Bug, model: &Lease, property: &'static str) {
    let found = counterexample_of(&with(bug, model), property).expect("the fault is found");
    println!("{bug:?}: {found}");
}

fn traps(bug: Bug, model: &Lease) {
    let found = trap(&with(bug, model)).expect("the fault is found");
    println!("{bug:?}: {found}");
}

#[test]
fn session_that_need_not_prove_itself_is_found() {
    let property = "a worker that can be heard keeps its job";
    finds(Bug::NoHandshake, &SESSIONS, property);
}

#[test]
fn proof_that_counts_as_answer_is_found() {
    let property = "a worker hears of what it was granted";
    finds(Bug::ProofIsAnswer, &OUTAGES, property);
}

#[test]
fn session_replaced_before_its_reports_are_read_is_found() {
    let property = "a report that waits is read before its attempt is lost";
    finds(Bug::ReplacesBeforeDrain, &SESSIONS, property);
}

#[test]
fn lease_expired_before_its_reports_are_read_is_found() {
    let property = "a report that waits is read before its attempt is lost";
    finds(Bug::ExpiresBeforeDrain, &PARTITIONS, property);
}

#[test]
fn delivered_reports_that_are_not_waited_for_are_found() {
    let property = "a report that waits is read before its attempt is lost";
    finds(Bug::DrainIgnoresDelivered, &SESSIONS, property);
}

#[test]
fn expiry_by_a_deaf_leader_is_found() {
    let property = "a worker that can be heard keeps its job";
    finds(Bug::NoHearing, &OUTAGES, property);
}

#[test]
fn forgiven_short_gaps_are_found() {
    let property = "a worker that can be heard keeps its job";
    finds(Bug::ForgivesShortGaps, &OUTAGES, property);
}

#[test]
fn lease_that_ends_after_a_clock_was_set_back_is_found() {
    finds(Bug::TrustsFarLease, &CLOCKS, "a lease ends");
}

#[test]
fn unanswered_grant_that_is_not_repeated_is_found() {
    let property = "a worker hears of what it was granted";
    finds(Bug::NoResend, &OUTAGES, property);
}

#[test]
fn old_request_that_is_served_is_found() {
    traps(Bug::OldAsksServed, &LATE);
}

#[test]
fn old_answer_that_is_accepted_is_found() {
    let property = "a process is given an attempt once";
    finds(Bug::AcceptsOldAnswers, &SESSIONS, property);
}

#[test]
fn worker_that_forgets_what_the_broker_confirmed_is_found() {
    let property = "a result of a living worker is kept";
    finds(Bug::ForgetsConfirmed, &REPORTS, property);
}

#[test]
fn second_result_that_is_stored_is_found() {
    finds(Bug::EveryResultStored, &REPORTS, "a result is stored once");
}

#[test]
fn late_result_that_is_ignored_is_found() {
    let property = "a result that arrives counts";
    finds(Bug::LateResultsIgnored, &OPERATORS, property);
}

#[test]
fn stale_report_that_counts_is_found() {
    let property = "only reports of the attempt that has the job end it";
    finds(Bug::StaleReportsCount, &REPORTS, property);
}

#[test]
fn hand_back_that_counts_is_found() {
    finds(
        Bug::HandBackCounts,
        &REPORTS,
        "a job fails by its own fault only",
    );
}

#[test]
fn second_grant_of_a_leased_job_is_found() {
    let property = "a job has one open attempt";
    finds(Bug::GrantsLeased, &REPORTS, property);
}
