//! Which jobs are given up, and which work is taken away.

#![expect(clippy::expect_used, reason = "a test stops where something is wrong")]

use halfheard_protocol::{
    bug::Bug,
    explore::{Protocol, counterexample_of, verify},
    poison::Poison,
    progress::Progress,
    stall::Stall,
};

const POISON: Poison = Poison {
    kills: 2,
    bug: None,
};

const HEALTHY: Progress = Progress {
    poison: false,
    losses_of_state: 1,
    bug: None,
};

const STALL: Stall = Stall {
    faults: 3,
    bug: None,
};

fn finds(bug: Bug, model: &impl Protocol, property: &'static str) {
    let found = counterexample_of(model, property).expect("the fault is found");
    println!("{bug:?}: {found}");
}

fn poison_finds(bug: Bug, property: &'static str) {
    let model = Poison {
        bug: Some(bug),
        ..POISON
    };
    finds(bug, &model, property);
}

fn progress_finds(bug: Bug, property: &'static str) {
    let model = Progress {
        bug: Some(bug),
        ..HEALTHY
    };
    finds(bug, &model, property);
}

fn stall_finds(bug: Bug, property: &'static str) {
    let model = Stall {
        bug: Some(bug),
        ..STALL
    };
    finds(bug, &model, property);
}

#[test]
fn poison_evaluation_beside_innocent_ones_holds() {
    verify(&POISON);
}

#[test]
fn training_that_advances_holds() {
    verify(&HEALTHY);
}

#[test]
fn training_that_kills_its_process_holds() {
    verify(&Progress {
        poison: true,
        ..HEALTHY
    });
}

#[test]
fn work_that_stands_holds() {
    verify(&STALL);
}

#[test]
fn uncounted_losses_are_found() {
    poison_finds(Bug::LossesUncounted, "a poison job is given up");
}

#[test]
fn start_that_is_not_read_before_the_loss_is_found() {
    poison_finds(Bug::ReplacesBeforeDrain, "a poison job is given up");
}

#[test]
fn lost_job_granted_with_others_is_found() {
    poison_finds(Bug::NoAlone, "an innocent evaluation never fails");
}

#[test]
fn others_granted_beside_a_lost_job_are_found() {
    let property = "a poison job takes others with it once";
    poison_finds(Bug::AloneOneWay, property);
}

#[test]
fn ignored_progress_is_found() {
    progress_finds(
        Bug::ProgressIgnored,
        "a training that advances is not given up",
    );
}

#[test]
fn progress_against_the_furthest_state_is_found() {
    progress_finds(
        Bug::FurthestCounts,
        "a training that advances is not given up",
    );
}

#[test]
fn progress_that_must_be_heard_within_its_attempt_is_found() {
    progress_finds(
        Bug::OnlyHeardProgress,
        "a training that advances is not given up",
    );
}

#[test]
fn poison_training_that_is_not_counted_is_found() {
    let model = Progress {
        poison: true,
        bug: Some(Bug::LossesUncounted),
        ..HEALTHY
    };
    finds(
        Bug::LossesUncounted,
        &model,
        "a training that never advances is given up",
    );
}

#[test]
fn stall_by_a_timer_is_found() {
    stall_finds(Bug::StallsByTimer, "work that advances is not taken away");
}

#[test]
fn ages_that_outlive_a_lead_are_found() {
    stall_finds(Bug::AgesOutliveLead, "work that advances is not taken away");
}

#[test]
fn work_that_hangs_for_ever_is_found() {
    stall_finds(Bug::NeverStalls, "work that hangs is taken away");
}
