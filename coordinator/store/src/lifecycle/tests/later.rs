use super::*;

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
