use super::*;
use halfheard_shared::wire::{CheckpointRef, EpochLog, Fault};
use proptest::prelude::*;

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

#[test]
fn fifth_loss_without_progress_fails_job() {
    let mut job = job(JobKind::Train);
    for number in 1..=5 {
        let mut a = grant(&mut job, &format!("a{number}"));
        apply(&mut job, &mut a, started());
        assert_eq!(lose(&mut job, &mut a), number == 5);
    }
    assert_eq!(
        (job.state, job.losses, job.failures),
        (JobState::Failed, 5, 0)
    );
    assert!(job.last_error.unwrap().contains("5 attempts in a row"));
}

#[test]
fn stalled_attempt_counts_though_its_start_was_not_reported() {
    let mut job = job(JobKind::Train);
    let mut a = grant(&mut job, "a");
    let policy = RetryPolicy::default();
    job.lose(&mut a, AttemptOutcome::Stalled, Utc::now(), &policy);
    assert_eq!((job.state, job.losses), (JobState::Ready, 1));
    assert_eq!(a.outcome, Some(AttemptOutcome::Stalled));
}

#[test]
fn evaluation_starts_with_its_own_share_of_work() {
    let mut job = job(JobKind::Eval);
    let mut a = grant(&mut job, "a");
    let at = Utc::now();
    let mut say = |job: &mut Job, at: DateTime<Utc>, body: ResultBody| {
        job.apply(&mut a, &body, at, &RetryPolicy::default())
            .unwrap()
    };
    say(&mut job, at - TimeDelta::seconds(160), started());
    say(&mut job, at, evaluated(10.0));
    let took = |job: &Job| job.finished.unwrap() - job.started.unwrap();
    assert_eq!(took(&job), TimeDelta::seconds(10));
    // Said again, later: nothing changes.
    let settled = job.clone();
    say(&mut job, at + TimeDelta::seconds(5), evaluated(1.0));
    assert_eq!(job, settled);
    assert_eq!(began(at, f64::NAN), at);
    assert_eq!(began(at, -1.0), at);
}

/// A training that was done and is to be done again, for its checkpoints.
fn to_be_done_again(evaluated: bool) -> (Job, Attempt) {
    let mut job = job(JobKind::Train);
    let mut a = grant(&mut job, "first");
    apply(&mut job, &mut a, trained("x", 1.0));
    job.state = JobState::Ready;
    job.finished = None;
    job.evaluated = evaluated;
    (job, a)
}

#[test]
fn training_done_again_must_give_same_weights() {
    for evaluated in [false, true] {
        let (mut job, _) = to_be_done_again(evaluated);
        let mut b = grant(&mut job, "second");
        assert_eq!(apply(&mut job, &mut b, trained("x", 9.0)), Effect::Nothing);
        assert_eq!(job.state, JobState::Done);
    }
    let (mut used, _) = to_be_done_again(true);
    let kept = used.outcome;
    let mut b = grant(&mut used, "second");
    let effect = apply(&mut used, &mut b, trained("y", 1.0));
    assert!(matches!(effect, Effect::Conflict { .. }));
    assert_eq!((used.state, used.outcome), (JobState::Failed, kept));
    let (mut unused, _) = to_be_done_again(false);
    let old = unused.outcome.unwrap();
    let mut b = grant(&mut unused, "second");
    let effect = apply(&mut unused, &mut b, trained("y", 1.0));
    let Effect::Replace { old: replaced, new } = effect else {
        panic!("{effect:?}");
    };
    assert_eq!((replaced, Some(new)), (old, unused.outcome));
    assert_eq!(unused.state, JobState::Done);
}

#[test]
fn repeated_result_does_not_bring_missing_checkpoints_back() {
    let (mut job, mut first) = to_be_done_again(false);
    assert_eq!(
        apply(&mut job, &mut first, trained("x", 1.0)),
        Effect::Nothing
    );
    assert_eq!(job.state, JobState::Ready);
}

#[test]
fn evaluation_of_replaced_weights_does_not_count() {
    let mut job = job(JobKind::Eval);
    job.state = JobState::Blocked;
    let mut a = attempt("a");
    a.outcome = Some(AttemptOutcome::Revoked);
    a.void = true;
    let before = job.clone();
    assert_eq!(apply(&mut job, &mut a, evaluated(1.0)), Effect::Nothing);
    assert_eq!(job, before);
}

#[test]
fn digest_does_not_depend_on_wire_version() {
    let body = trained("x", 1.0);
    let ResultBody::Trained {
        checkpoints,
        epochs,
        ..
    } = &body
    else {
        panic!("not trained");
    };
    let mut bytes = wire::encode(&(checkpoints, epochs)).unwrap();
    assert_eq!(bytes.remove(0), wire::VERSION);
    assert_eq!(
        digest(&body).unwrap()[..],
        blake3::hash(&bytes).as_bytes()[..16]
    );
}

#[test]
fn contradictory_message_is_rejected() {
    let mut job = job(JobKind::Eval);
    let mut a = grant(&mut job, "a");
    let error = job
        .apply(
            &mut a,
            &trained("x", 1.0),
            Utc::now(),
            &RetryPolicy::default(),
        )
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "a job of kind eval cannot send `trained`"
    );
}

/// What may happen to a job in [`history`].
#[derive(Clone, Copy, Debug)]
enum Event {
    Grant,
    Lose(usize),
    Advance(usize),
    Report(usize, usize),
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        3 => Just(Event::Grant),
        1 => (0_usize..8).prop_map(Event::Lose),
        1 => (0_usize..8).prop_map(Event::Advance),
        4 => (0_usize..8, 0_usize..6).prop_map(|(who, what)| Event::Report(who, what)),
    ]
}

proptest! {
    /// Whatever the order and however often messages come: never two attempts have the job, a job with
    /// a result is done and has the first one, failures never exceed the attempts that failed, and
    /// losses never the attempts that were lost.
    #[test]
    fn history_keeps_invariants(events in proptest::collection::vec(event(), 1..60)) {
        let mut job = job(JobKind::Train);
        let mut attempts: Vec<Attempt> = Vec::new();
        let mut first: Option<Digest> = None;
        for event in events {
            match event {
                Event::Grant if job.state == JobState::Ready => {
                    let granted = grant(&mut job, &attempts.len().to_string());
                    attempts.push(granted);
                }
                Event::Lose(who) => {
                    if let Some(attempt) = attempts.get_mut(who) {
                        lose(&mut job, attempt);
                    }
                }
                Event::Advance(who) => {
                    if let Some(attempt) = attempts.get_mut(who)
                        && job.is_held_by(attempt)
                    {
                        attempt.advanced = true;
                        job.losses = 0;
                    }
                }
                Event::Report(who, what) => {
                    let Some(attempt) = attempts.get_mut(who) else { continue };
                    let body = match what {
                        0 => started(),
                        1 => failed(FailureKind::Retryable),
                        2 => handed_back(),
                        3 => declined(FaultKind::Store),
                        4 => trained("x", 1.0),
                        _ => trained("y", 1.0),
                    };
                    if let Effect::Store(digest) = apply(&mut job, attempt, body) {
                        prop_assert!(first.is_none(), "stored twice");
                        first = Some(digest);
                    }
                }
                Event::Grant => {}
            }
            let holders = attempts.iter().filter(|attempt| job.is_held_by(attempt)).count();
            prop_assert_eq!(holders, usize::from(job.state.is_leased()));
            prop_assert_eq!(job.outcome, first);
            prop_assert_eq!(first.is_some(), job.state == JobState::Done);
            let ended = |outcome| attempts.iter().filter(|a| a.outcome == Some(outcome)).count();
            prop_assert!(job.failures as usize <= ended(AttemptOutcome::Failed) + ended(AttemptOutcome::Done));
            prop_assert!(job.losses as usize <= attempts.len());
        }
    }

    /// A training that stores a further state in each attempt is never given up, however often its
    /// machine is killed, and whatever came before.
    #[test]
    fn advancing_training_is_never_given_up(losses in 0_i32..5, kills in 1_usize..40) {
        let mut job = job(JobKind::Train);
        job.losses = losses;
        for number in 0..kills {
            let mut a = grant(&mut job, &number.to_string());
            apply(&mut job, &mut a, started());
            a.advanced = true;
            prop_assert!(!lose(&mut job, &mut a));
            prop_assert_eq!((job.state, job.losses), (JobState::Ready, 0));
        }
    }
}
