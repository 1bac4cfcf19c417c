//! Who leads.

#![expect(clippy::expect_used, reason = "a test stops where something is wrong")]

use halfheard_protocol::{
    bug::Bug,
    explore::{counterexample_of, verify},
    leadership::Leadership,
};

#[test]
fn leadership_holds() {
    verify(&Leadership {
        faults: 4,
        bug: None,
    });
}

fn finds(bug: Bug, property: &'static str) {
    let model = Leadership {
        faults: 3,
        bug: Some(bug),
    };
    let found = counterexample_of(&model, property).expect("the fault is found");
    println!("{bug:?}: {found}");
}

#[test]
fn leader_without_fence_is_found() {
    finds(Bug::NoFence, "a deposed leader never writes");
}

#[test]
fn fence_that_does_not_lock_is_found() {
    finds(Bug::FenceWithoutLock, "a deposed leader never writes");
}

#[test]
fn transaction_that_idles_for_ever_is_found() {
    finds(Bug::NoIdleTimeout, "somebody leads within 15 s");
}

#[test]
fn deaf_leader_that_stays_is_found() {
    finds(Bug::NeverResigns, "somebody leads within 15 s");
}

#[test]
fn deaf_standby_that_takes_the_lead_is_found() {
    finds(Bug::TakesWithoutPings, "somebody leads within 15 s");
}

#[test]
fn lead_that_ends_after_a_clock_was_set_back_is_found() {
    finds(Bug::TrustsFarLead, "somebody leads within 15 s");
}
