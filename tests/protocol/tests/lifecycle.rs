//! The models' rules are those of the coordinator: both decide the same, for every combination of a
//! job, an attempt and a report.

use chrono::DateTime;
use halfheard_protocol::{
    rules::{self, MAX_FAILURES, MAX_LOSSES, Outcome, Report},
    table::{self, STATES},
};
use halfheard_shared::{
    ids::{AttemptId, JobId},
    wire::{CheckpointRef, CriterionResult, Failure, FailureKind, ResultBody},
};
use halfheard_store::{
    JobKind, JobState,
    job::AttemptOutcome,
    lifecycle::{Attempt, Digest, Effect, Job, RetryPolicy},
};
use std::collections::BTreeMap;
use uuid::Uuid;

/// The attempt that reports.
const THIS: u8 = 1;
const OUTCOMES: [Option<Outcome>; 6] = [
    None,
    Some(Outcome::Done),
    Some(Outcome::Failed),
    Some(Outcome::HandedBack),
    Some(Outcome::Lost),
    Some(Outcome::Revoked),
];
const REPORTS: [Report; 5] = [
    Report::Started,
    Report::Result(0),
    Report::Result(1),
    Report::Failed,
    Report::HandedBack,
];

fn policy() -> RetryPolicy {
    RetryPolicy {
        attempts: i32::from(MAX_FAILURES),
        losses: i32::from(MAX_LOSSES),
        ..RetryPolicy::default()
    }
}

fn id(number: u8) -> AttemptId {
    AttemptId(Uuid::from_u128(u128::from(number)))
}

fn state(state: table::State) -> JobState {
    match state {
        table::State::Blocked => JobState::Blocked,
        table::State::Ready => JobState::Ready,
        table::State::Queued => JobState::Queued,
        table::State::Running => JobState::Running,
        table::State::Done => JobState::Done,
        table::State::Failed => JobState::Failed,
        table::State::Cancelled => JobState::Cancelled,
    }
}

fn outcome(outcome: Outcome) -> AttemptOutcome {
    match outcome {
        Outcome::Done => AttemptOutcome::Done,
        Outcome::Failed => AttemptOutcome::Failed,
        Outcome::HandedBack => AttemptOutcome::HandedBack,
        Outcome::Lost => AttemptOutcome::Lost,
        Outcome::Revoked => AttemptOutcome::Revoked,
    }
}

fn body(report: Report, trains: bool) -> ResultBody {
    match report {
        Report::Started => ResultBody::Started {
            resumed_after_epoch: 0,
        },
        Report::Result(hash) if trains => ResultBody::Trained {
            checkpoints: vec![CheckpointRef {
                criterion: "mae".to_owned(),
                epoch: 1,
                blake3: hash.to_string().repeat(64),
                bytes: 1,
            }],
            epochs: 1,
            seconds: 1.0,
            peak_memory: 0,
        },
        Report::Result(hash) => ResultBody::Evaluated {
            results: vec![CriterionResult {
                criterion: "mae".to_owned(),
                epoch: 1,
                predictions: 0,
                metrics: BTreeMap::new(),
            }],
            predictions: vec![vec![f32::from(hash)]],
            seconds: 1.0,
            peak_memory: 0,
        },
        Report::Failed => ResultBody::Failed(Failure {
            chain: vec!["a loss was lost".to_owned()],
            kind: FailureKind::Retryable,
        }),
        Report::HandedBack => ResultBody::HandedBack { after_epoch: 0 },
    }
}

fn job(model: &rules::Job, hash: impl Fn(u8) -> Digest) -> Job {
    Job {
        id: JobId(Uuid::nil()),
        kind: if model.trains {
            JobKind::Train
        } else {
            JobKind::Eval
        },
        state: state(model.state),
        attempt: model.attempt.map(id),
        failures: i32::from(model.failures),
        losses: i32::from(model.losses),
        broken_devices: 0,
        declines: 0,
        outcome: model.outcome.map(hash),
        evaluated: model.evaluated,
        started: None,
        finished: None,
        last_error: None,
        min_memory: 0,
        delay: std::time::Duration::ZERO,
    }
}

fn attempt(model: &rules::Attempt) -> Attempt {
    Attempt {
        id: id(THIS),
        outcome: model.outcome.map(outcome),
        begun: model.begun,
        advanced: model.advanced,
        void: model.void,
        memory: 0,
    }
}

/// The hash of a result, as the coordinator has it.
fn digest(report: Report, trains: bool) -> Digest {
    let mut model = rules::Job::new(table::State::Ready);
    model.trains = trains;
    let mut fresh = job(&model, |_| [0; 16]);
    let mut this = attempt(&rules::Attempt::default());
    let effect = fresh.apply(
        &mut this,
        &body(report, trains),
        DateTime::UNIX_EPOCH,
        &policy(),
    );
    match effect {
        Ok(Effect::Store(digest)) => digest,
        other => panic!("a first result is not stored: {other:?}"),
    }
}

/// Every combination of what a row of a job and one of an attempt can hold.
fn combinations() -> Vec<(rules::Job, rules::Attempt)> {
    let mut all = Vec::new();
    let flags = |bits: u32, number: u32| bits & (1 << number) != 0;
    for before in STATES {
        for named in [None, Some(THIS), Some(THIS + 1)] {
            for failures in 0..MAX_FAILURES {
                for losses in 0..MAX_LOSSES {
                    for kept in [None, Some(0)] {
                        for ended in OUTCOMES {
                            for bits in 0..32 {
                                let mut job = rules::Job::new(before);
                                job.attempt = named;
                                job.failures = failures;
                                job.losses = losses;
                                job.outcome = kept;
                                job.trains = flags(bits, 0);
                                job.evaluated = flags(bits, 1);
                                let attempt = rules::Attempt {
                                    outcome: ended,
                                    begun: flags(bits, 2),
                                    advanced: flags(bits, 3),
                                    void: flags(bits, 4),
                                };
                                all.push((job, attempt));
                            }
                        }
                    }
                }
            }
        }
    }
    all
}

fn assert_same(
    what: &dyn std::fmt::Debug,
    (model, row): (&rules::Job, &rules::Attempt),
    (real, real_row): (&Job, &Attempt),
    hash: impl Fn(u8) -> Digest,
) {
    assert_eq!(real.state, state(model.state), "state after {what:?}");
    assert_eq!(
        real.failures,
        i32::from(model.failures),
        "failures after {what:?}"
    );
    assert_eq!(
        real.losses,
        i32::from(model.losses),
        "losses after {what:?}"
    );
    assert_eq!(
        real.outcome,
        model.outcome.map(hash),
        "outcome after {what:?}"
    );
    assert_eq!(real_row, &attempt(row), "attempt after {what:?}");
}

#[test]
fn reports_mean_the_same_to_the_model_and_the_coordinator() {
    let digests =
        [true, false].map(|trains| [0, 1].map(|hash| digest(Report::Result(hash), trains)));
    let mut compared = 0;
    for (before, row) in combinations() {
        let hash = |number: u8| digests[usize::from(!before.trains)][usize::from(number)];
        for report in REPORTS {
            let (mut model, mut model_row) = (before, row);
            let effect = model.apply(THIS, &mut model_row, report, None);
            let what = (before, row, report);
            assert_eq!(model.refused, None, "the database refuses it: {what:?}");
            let (mut real, mut real_row) = (job(&before, hash), attempt(&row));
            let real_effect = real
                .apply(
                    &mut real_row,
                    &body(report, before.trains),
                    DateTime::UNIX_EPOCH,
                    &policy(),
                )
                .unwrap();
            assert_same(&what, (&model, &model_row), (&real, &real_row), hash);
            let same = matches!(
                (effect, real_effect),
                (rules::Effect::Nothing, Effect::Nothing)
                    | (rules::Effect::Store, Effect::Store(_))
                    | (rules::Effect::Conflict, Effect::Conflict { .. })
                    | (rules::Effect::Replace, Effect::Replace { .. })
            );
            assert!(same, "{effect:?} and {real_effect:?} after {what:?}");
            compared += 1;
        }
    }
    println!("{compared} combinations");
}

#[test]
fn losses_mean_the_same_to_the_model_and_the_coordinator() {
    for (before, row) in combinations() {
        let leased = before.leased() == Some(THIS) && row.outcome.is_none();
        if !leased {
            continue;
        }
        let (mut model, mut model_row) = (before, row);
        model.lose(&mut model_row, None);
        let what = (before, row);
        assert_eq!(model.refused, None, "the database refuses it: {what:?}");
        let (mut real, mut real_row) = (job(&before, |_| [0; 16]), attempt(&row));
        real.lose(
            &mut real_row,
            AttemptOutcome::Lost,
            DateTime::UNIX_EPOCH,
            &policy(),
        );
        assert_same(&what, (&model, &model_row), (&real, &real_row), |_| [0; 16]);
    }
}
