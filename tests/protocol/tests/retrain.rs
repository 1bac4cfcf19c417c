//! Trainings that are done again, and what becomes of their evaluations.

#![expect(clippy::expect_used, reason = "a test stops where something is wrong")]

use halfheard_protocol::{
    bug::Bug,
    explore::{counterexample_of, verify},
    retrain::{Faults, Retrain},
};

/// Checkpoints go missing, and weights come out otherwise.
const WEIGHTS: Retrain = Retrain {
    faults: Faults {
        wiped: 1,
        lost: 1,
        differs: 1,
        failure: 0,
        operator: 0,
    },
    bug: None,
};

/// Evaluations are cancelled, and trainings fail, are retried and deliver after all.
const OPERATORS: Retrain = Retrain {
    faults: Faults {
        wiped: 0,
        lost: 1,
        differs: 0,
        failure: 1,
        operator: 2,
    },
    bug: None,
};

#[test]
fn retraining_holds() {
    verify(&WEIGHTS);
}

#[test]
fn operators_hold() {
    verify(&OPERATORS);
}

fn finds(bug: Bug, property: &'static str) {
    let model = Retrain {
        bug: Some(bug),
        ..WEIGHTS
    };
    let found = counterexample_of(&model, property).expect("the fault is found");
    println!("{bug:?}: {found}");
}

#[test]
fn repeated_report_that_counts_again_is_found() {
    finds(
        Bug::DoubleRevives,
        "a repeated report does not end a training",
    );
}

#[test]
fn replaced_weights_that_were_used_are_found() {
    finds(
        Bug::ReplacesUsedWeights,
        "results are of the weights that are kept",
    );
}

#[test]
fn results_of_replaced_weights_that_count_are_found() {
    finds(
        Bug::NothingIsVoid,
        "results are of the weights that are kept",
    );
}

#[test]
fn evaluations_that_stay_open_are_found() {
    finds(
        Bug::EvaluationsStay,
        "only evaluations of a done training are granted",
    );
}
