use super::*;
use halfheard_shared::wire::{CheckpointRef, EpochLog, Fault};
use proptest::prelude::*;

mod later;

fn job(kind: JobKind) -> Job {
    Job {
        id: JobId::derive(&[b"job"]),
        kind,
        state: JobState::Ready,
        attempt: None,
        failures: 0,
        losses: 0,
        broken_devices: 0,
        declines: 0,
        outcome: None,
        evaluated: false,
        started: None,
        finished: None,
        last_error: None,
        min_memory: 0,
        delay: Duration::ZERO,
    }
}

fn attempt(name: &str) -> Attempt {
    Attempt {
        id: AttemptId::derive(&[name.as_bytes()]),
        outcome: None,
        begun: false,
        advanced: false,
        void: false,
        memory: 0,
    }
}

/// Grants a job as [`crate::grants`] does.
fn grant(job: &mut Job, name: &str) -> Attempt {
    assert_eq!(job.state, JobState::Ready);
    let attempt = attempt(name);
    job.state = JobState::Queued;
    job.attempt = Some(attempt.id);
    attempt
}

fn apply(job: &mut Job, attempt: &mut Attempt, body: ResultBody) -> Effect {
    job.apply(attempt, &body, Utc::now(), &RetryPolicy::default())
        .unwrap()
}

fn lose(job: &mut Job, attempt: &mut Attempt) -> bool {
    job.lose(
        attempt,
        AttemptOutcome::Lost,
        Utc::now(),
        &RetryPolicy::default(),
    )
}

fn started() -> ResultBody {
    ResultBody::Started {
        resumed_after_epoch: 0,
    }
}

fn failed(kind: FailureKind) -> ResultBody {
    ResultBody::Failed(Failure {
        chain: vec!["outer".into(), "inner".into()],
        kind,
    })
}

fn handed_back() -> ResultBody {
    ResultBody::HandedBack { after_epoch: 1 }
}

fn declined(kind: FaultKind) -> ResultBody {
    ResultBody::Declined {
        after_epoch: 0,
        fault: Fault::new(kind, "what", vec!["why".into()]),
    }
}

fn trained(hash: &str, seconds: f64) -> ResultBody {
    ResultBody::Trained {
        checkpoints: vec![CheckpointRef {
            criterion: "mae".into(),
            epoch: 1,
            blake3: hash.into(),
            bytes: 1,
        }],
        epochs: 3,
        seconds,
        peak_memory: seconds as u64,
    }
}

fn evaluated(seconds: f64) -> ResultBody {
    ResultBody::Evaluated {
        results: Vec::new(),
        predictions: Vec::new(),
        seconds,
        peak_memory: 0,
    }
}

fn epoch() -> ResultBody {
    ResultBody::Epoch(EpochLog {
        epoch: 1,
        losses: Default::default(),
        metrics: Default::default(),
        train_seconds: 1.0,
        eval_seconds: 1.0,
        best_for: Vec::new(),
    })
}

#[test]
fn transitions_are_those_of_the_database() {
    let table = include_str!("../../../../schemas/migrations/0002_state_machine.sql");
    let (_, rows) = table.split_once("INSERT INTO job_transition").unwrap();
    let (rows, _) = rows.split_once(';').unwrap();
    let state = |text: &str| {
        let text = text.trim().trim_matches('\'');
        JobState::ALL
            .into_iter()
            .find(|state| state.as_str() == text)
    };
    let mut known: Vec<(JobState, JobState)> = rows
        .lines()
        .filter_map(|line| {
            let mut cells = line.trim().strip_prefix("('")?.split(',');
            Some((state(cells.next()?)?, state(cells.next()?)?))
        })
        .collect();
    let mut ours = JobState::TRANSITIONS.to_vec();
    let order = |(a, b): &(JobState, JobState)| (a.as_str(), b.as_str());
    known.sort_by_key(order);
    ours.sort_by_key(order);
    assert_eq!(ours, known);
}

#[test]
fn every_report_in_every_state_makes_known_transition() {
    let bodies = [
        started(),
        epoch(),
        trained("x", 1.0),
        trained("y", 1.0),
        failed(FailureKind::Permanent),
        failed(FailureKind::Retryable),
        failed(FailureKind::OutOfMemory),
        handed_back(),
        declined(FaultKind::Device),
        declined(FaultKind::Checkpoint),
    ];
    let outcomes = [
        None,
        Some(AttemptOutcome::Lost),
        Some(AttemptOutcome::Done),
        Some(AttemptOutcome::Revoked),
    ];
    let Effect::Store(first) = ({
        let mut job = job(JobKind::Train);
        let mut a = grant(&mut job, "a");
        apply(&mut job, &mut a, trained("x", 1.0))
    }) else {
        panic!("not stored");
    };
    for state in JobState::ALL {
        for outcome in outcomes {
            for (failures, kept, evaluated, mine) in combinations(
                &[0, 2],
                &[None, Some(first)],
                &[false, true],
                &[false, true],
            ) {
                let mut before = job(JobKind::Train);
                before.state = state;
                before.failures = failures;
                before.losses = failures * 2;
                before.broken_devices = 5;
                before.outcome = kept;
                before.evaluated = evaluated;
                let mut a = attempt("a");
                a.outcome = outcome;
                before.attempt = Some(if mine { a.id } else { attempt("b").id });
                let check = |after: &Job| {
                    assert!(
                        after.state == state
                            || JobState::TRANSITIONS.contains(&(state, after.state)),
                        "{state} -> {}",
                        after.state
                    );
                };
                for body in &bodies {
                    let mut after = before.clone();
                    apply(&mut after, &mut a.clone(), body.clone());
                    check(&after);
                }
                let policy = RetryPolicy::default();
                for how in [AttemptOutcome::Lost, AttemptOutcome::Stalled] {
                    let mut after = before.clone();
                    after.lose(&mut a.clone(), how, Utc::now(), &policy);
                    check(&after);
                }
                let mut after = before.clone();
                after.reject(&mut a.clone(), "why", Utc::now(), &policy);
                check(&after);
            }
        }
    }
}

fn combinations<A: Copy, B: Copy, C: Copy, D: Copy>(
    a: &[A],
    b: &[B],
    c: &[C],
    d: &[D],
) -> Vec<(A, B, C, D)> {
    let mut all = Vec::new();
    for &a in a {
        for &b in b {
            for &c in c {
                all.extend(d.iter().map(|&d| (a, b, c, d)));
            }
        }
    }
    all
}

#[test]
fn first_result_wins_over_later_duplicate_and_conflict() {
    let mut job = job(JobKind::Train);
    let mut a = grant(&mut job, "a");
    apply(&mut job, &mut a, started());
    assert_eq!(job.state, JobState::Running);
    assert!(matches!(
        apply(&mut job, &mut a, trained("x", 1.0)),
        Effect::Store(_)
    ));
    assert_eq!(job.state, JobState::Done);
    let settled = job.clone();
    // The same weights in another time are the same result.
    let mut b = attempt("b");
    assert_eq!(apply(&mut job, &mut b, trained("x", 2.0)), Effect::Nothing);
    let mut c = attempt("c");
    assert!(matches!(
        apply(&mut job, &mut c, trained("y", 2.0)),
        Effect::Conflict { .. }
    ));
    assert_eq!(job, settled);
}

#[test]
fn result_counts_in_every_state() {
    for state in JobState::ALL {
        let mut job = job(JobKind::Noop);
        job.state = state;
        let mut late = attempt("late");
        late.outcome = Some(AttemptOutcome::Lost);
        let effect = apply(&mut job, &mut late, ResultBody::Noop);
        assert!(matches!(effect, Effect::Store(_)), "{state}");
        assert_eq!(late.outcome, Some(AttemptOutcome::Done));
        let expected = match state {
            JobState::Cancelled => JobState::Cancelled,
            _ => JobState::Done,
        };
        assert_eq!(job.state, expected);
    }
}

#[test]
fn third_failure_fails_job_and_repeats_are_ignored() {
    let mut job = job(JobKind::Train);
    let delays: Vec<Duration> = (1..=3)
        .map(|number| {
            let mut attempt = grant(&mut job, &format!("a{number}"));
            apply(&mut job, &mut attempt, started());
            apply(&mut job, &mut attempt, failed(FailureKind::Retryable));
            assert_eq!(job.state == JobState::Failed, number == 3);
            // The same again, and late: nothing.
            let before = job.clone();
            apply(&mut job, &mut attempt, failed(FailureKind::Retryable));
            assert_eq!(job, before);
            job.delay
        })
        .collect();
    assert_eq!(job.failures, 3);
    assert_eq!(job.last_error.as_deref(), Some("outer: inner"));
    assert!(delays[0] < delays[1], "{delays:?}");
}

#[test]
fn permanent_failure_and_non_finite_loss_are_not_retried() {
    for kind in [FailureKind::Permanent, FailureKind::NonFinite] {
        let mut job = job(JobKind::Train);
        let mut a = grant(&mut job, "a");
        apply(&mut job, &mut a, failed(kind));
        assert_eq!((job.state, job.failures), (JobState::Failed, 1));
    }
}

#[test]
fn out_of_memory_waits_for_larger_device_that_exists() {
    let policy = |largest| RetryPolicy {
        largest,
        ..RetryPolicy::default()
    };
    let run = |largest, times: i32| {
        let mut job = job(JobKind::Train);
        for number in 0..times {
            let mut a = grant(&mut job, &format!("a{number}"));
            a.memory = 8;
            job.apply(
                &mut a,
                &failed(FailureKind::OutOfMemory),
                Utc::now(),
                &policy(largest),
            )
            .unwrap();
        }
        job
    };
    let waits = run(16, 1);
    assert_eq!((waits.state, waits.min_memory), (JobState::Ready, 9));
    assert_eq!(waits.delay, Duration::ZERO);
    let nobody = run(8, 1);
    assert_eq!((nobody.state, nobody.min_memory), (JobState::Ready, 0));
    assert!(nobody.delay > Duration::ZERO);
    assert_eq!(run(16, 3).state, JobState::Failed);
}

#[test]
fn worker_cannot_report_what_only_coordinator_finds() {
    for kind in [FailureKind::Crashed, FailureKind::Invalid] {
        let mut job = job(JobKind::Train);
        let mut a = grant(&mut job, "a");
        let before = (job.clone(), a.clone());
        let error = job
            .apply(&mut a, &failed(kind), Utc::now(), &RetryPolicy::default())
            .unwrap_err();
        assert!(error.to_string().contains(label(kind)), "{error}");
        assert_eq!((job, a), before);
    }
}

#[test]
fn rejected_report_fails_attempt_once() {
    let mut job = job(JobKind::Train);
    let mut a = grant(&mut job, "a");
    let mut reject =
        |job: &mut Job| job.reject(&mut a, "too long", Utc::now(), &RetryPolicy::default());
    assert!(reject(&mut job));
    assert!(!reject(&mut job));
    assert_eq!((job.state, job.failures), (JobState::Ready, 1));
    assert!(job.last_error.unwrap().contains("too long"));
}

#[test]
fn fault_of_worker_is_not_failure_of_job() {
    let mut job = job(JobKind::Train);
    for number in 1..=20 {
        let mut attempt = grant(&mut job, &format!("a{number}"));
        apply(&mut job, &mut attempt, started());
        apply(&mut job, &mut attempt, declined(FaultKind::Dataset));
        assert_eq!(attempt.outcome, Some(AttemptOutcome::HandedBack));
        assert_eq!((job.state, job.failures), (JobState::Ready, 0));
        // The same again, and late: nothing.
        let before = job.clone();
        apply(&mut job, &mut attempt, declined(FaultKind::Dataset));
        assert_eq!(job, before);
    }
}

#[test]
fn job_that_everybody_declines_waits_longer_each_time() {
    let mut last = Duration::ZERO;
    for declines in 0..12 {
        let mut job = job(JobKind::Train);
        job.declines = declines;
        let mut a = grant(&mut job, "a");
        apply(&mut job, &mut a, declined(FaultKind::Dataset));
        assert!(job.delay >= last && job.delay <= Duration::from_secs(60));
        assert!(declines > 5 || job.delay > last);
        last = job.delay;
    }
}

#[test]
fn job_that_breaks_devices_of_three_workers_counts_failure() {
    for (others, failures) in [(0, 0), (1, 0), (2, 1), (5, 1)] {
        let mut job = job(JobKind::Train);
        job.broken_devices = others;
        let mut a = grant(&mut job, "a");
        apply(&mut job, &mut a, declined(FaultKind::Device));
        assert_eq!((job.state, job.failures), (JobState::Ready, failures));
    }
}

#[test]
fn only_attempt_that_has_the_job_changes_its_state() {
    let bodies = [
        started(),
        epoch(),
        handed_back(),
        declined(FaultKind::Store),
        failed(FailureKind::Permanent),
    ];
    for body in bodies {
        let mut job = job(JobKind::Train);
        let mut a = grant(&mut job, "a");
        lose(&mut job, &mut a);
        let mut b = grant(&mut job, "b");
        apply(&mut job, &mut b, started());
        let before = job.clone();
        apply(&mut job, &mut a, body);
        assert_eq!(job, before);
    }
}

#[test]
fn attempt_that_never_began_is_lost_uncounted() {
    let mut job = job(JobKind::Eval);
    for number in 0..100 {
        let mut a = grant(&mut job, &format!("a{number}"));
        assert!(!lose(&mut job, &mut a));
        assert_eq!(a.outcome, Some(AttemptOutcome::Lost));
    }
    assert_eq!((job.state, job.losses), (JobState::Ready, 0));
}
