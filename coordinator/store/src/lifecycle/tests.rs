use super::*;
use halfheard_shared::{
    ids::SweepId,
    wire::{CheckpointRef, Failure, Fault, WorkerInfo},
};
use proptest::prelude::*;

fn job(kind: JobKind) -> Job {
    Job {
        id: JobId::derive(&[b"job"]),
        kind,
        state: JobState::Queued,
        publication: 1,
        failures: 0,
        broken_devices: 0,
        attempt: None,
        outcome: None,
        started: None,
        finished: None,
        last_error: None,
        delay: Duration::ZERO,
    }
}

fn attempt(name: &str) -> Attempt {
    Attempt {
        id: AttemptId::derive(&[name.as_bytes()]),
        outcome: None,
    }
}

fn message(attempt: &Attempt, publication: u32, body: ResultBody) -> ResultMessage {
    ResultMessage {
        sweep: SweepId::derive(&[b"sweep"]),
        job: JobId::derive(&[b"job"]),
        attempt: attempt.id,
        publication,
        worker: WorkerInfo {
            name: "w".into(),
            host: "h".into(),
            device: "cpu".into(),
            version: "0".into(),
            processor: String::new(),
        },
        at_ms: 0,
        body,
    }
}

fn apply(job: &mut Job, attempt: &mut Attempt, publication: u32, body: ResultBody) -> Effect {
    let message = message(attempt, publication, body);
    job.apply(attempt, &message, Utc::now(), &RetryPolicy::default())
        .unwrap()
}

fn started() -> ResultBody {
    ResultBody::Started {
        delivery: 1,
        resumed_after_epoch: 0,
    }
}

fn failed(kind: FailureKind) -> ResultBody {
    ResultBody::Failed(Failure {
        chain: vec!["outer".into(), "inner".into()],
        kind,
    })
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
    }
}

#[test]
fn first_result_wins_over_later_duplicate_and_conflict() {
    let (mut job, mut a, mut b) = (job(JobKind::Train), attempt("a"), attempt("b"));
    assert_eq!(apply(&mut job, &mut a, 1, started()), Effect::Nothing);
    assert!(matches!(
        apply(&mut job, &mut a, 1, trained("x", 1.0)),
        Effect::Store(_)
    ));
    assert_eq!(job.state, JobState::Done);
    let settled = job.clone();
    // The same weights in another time are the same result.
    assert_eq!(
        apply(&mut job, &mut b, 1, trained("x", 2.0)),
        Effect::Nothing
    );
    assert!(matches!(
        apply(&mut job, &mut b, 1, trained("y", 2.0)),
        Effect::Conflict { .. }
    ));
    assert_eq!(job, settled);
}

#[test]
fn third_failure_fails_job_and_repeats_are_ignored() {
    let mut job = job(JobKind::Train);
    let delays: Vec<Duration> = (1..=3)
        .map(|publication| {
            let mut attempt = attempt(&format!("a{publication}"));
            apply(&mut job, &mut attempt, publication, started());
            apply(
                &mut job,
                &mut attempt,
                publication,
                failed(FailureKind::Retryable),
            );
            assert_eq!(job.state == JobState::Failed, publication == 3);
            // The same again, and late: nothing.
            let before = job.clone();
            apply(
                &mut job,
                &mut attempt,
                publication,
                failed(FailureKind::Retryable),
            );
            assert_eq!(job, before);
            job.delay
        })
        .collect();
    assert_eq!(job.state, JobState::Failed);
    assert_eq!(job.failures, 3);
    assert_eq!(job.last_error.as_deref(), Some("outer: inner"));
    assert!(delays[0] < delays[1], "{delays:?}");
}

#[test]
fn permanent_failure_is_not_retried() {
    let (mut job, mut a) = (job(JobKind::Eval), attempt("a"));
    assert_eq!(
        apply(&mut job, &mut a, 1, failed(FailureKind::Permanent)),
        Effect::Nothing
    );
    assert_eq!(job.state, JobState::Failed);
}

#[test]
fn non_finite_loss_is_not_retried() {
    let (mut job, mut a) = (job(JobKind::Train), attempt("a"));
    apply(&mut job, &mut a, 1, failed(FailureKind::NonFinite));
    assert_eq!((job.state, job.failures), (JobState::Failed, 1));
}

fn declined(kind: FaultKind) -> ResultBody {
    ResultBody::Declined {
        after_epoch: 0,
        fault: Fault::new(kind, "what", vec!["why".into()]),
    }
}

#[test]
fn fault_of_worker_is_not_failure_of_job() {
    let mut job = job(JobKind::Train);
    for publication in 1..=20 {
        let mut attempt = attempt(&format!("a{publication}"));
        apply(&mut job, &mut attempt, publication, started());
        apply(
            &mut job,
            &mut attempt,
            publication,
            declined(FaultKind::Dataset),
        );
        assert_eq!(attempt.outcome, Some(AttemptOutcome::HandedBack));
        assert_eq!(
            (job.state, job.failures, job.publication),
            (JobState::Ready, 0, i32::try_from(publication).unwrap())
        );
        // The same again, and late: nothing.
        let before = job.clone();
        apply(
            &mut job,
            &mut attempt,
            publication,
            declined(FaultKind::Dataset),
        );
        assert_eq!(job, before);
    }
}

#[test]
fn only_latest_attempt_can_decline() {
    let (mut job, mut a, mut b) = (job(JobKind::Train), attempt("a"), attempt("b"));
    apply(&mut job, &mut a, 1, started());
    apply(&mut job, &mut b, 1, started());
    apply(&mut job, &mut a, 1, declined(FaultKind::Store));
    assert_eq!(job.state, JobState::Running, "b has it");
}

#[test]
fn job_that_breaks_three_devices_counts_failure() {
    let mut job = job(JobKind::Train);
    for publication in 1..=5 {
        let mut attempt = attempt(&format!("a{publication}"));
        apply(
            &mut job,
            &mut attempt,
            publication,
            declined(FaultKind::Device),
        );
        assert_eq!(
            job.failures,
            i32::try_from(publication).unwrap().max(2) - 2,
            "two devices may break"
        );
    }
    assert_eq!(job.state, JobState::Failed);
    assert!(job.last_error.unwrap().contains("5 devices broke"));
}

#[test]
fn evaluation_starts_with_its_own_share_of_work() {
    let (mut job, mut a) = (job(JobKind::Eval), attempt("a"));
    let evaluated = |seconds: f64| ResultBody::Evaluated {
        results: Vec::new(),
        predictions: Vec::new(),
        seconds,
    };
    let at = Utc::now();
    let mut say = |job: &mut Job, at: DateTime<Utc>, body: ResultBody| {
        let message = message(&a, 1, body);
        job.apply(&mut a, &message, at, &RetryPolicy::default())
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

#[test]
fn worker_faster_than_dispatcher_is_accepted() {
    let (mut job, mut a) = (job(JobKind::Train), attempt("a"));
    job.state = JobState::Ready;
    job.publication = 0;
    apply(&mut job, &mut a, 1, failed(FailureKind::Retryable));
    assert_eq!(
        (job.state, job.publication, job.failures),
        (JobState::Ready, 1, 1)
    );
    // Another attempt at the same publication does not count again: the second publication
    // is the one that is due.
    let mut b = attempt("b");
    apply(&mut job, &mut b, 1, failed(FailureKind::Retryable));
    assert_eq!(job.failures, 1);
    assert_eq!(b.outcome, Some(AttemptOutcome::Failed));
}

#[test]
fn only_latest_attempt_can_hand_back() {
    let (mut job, mut a, mut b) = (job(JobKind::Train), attempt("a"), attempt("b"));
    assert_eq!(apply(&mut job, &mut a, 1, started()), Effect::Nothing);
    assert_eq!(apply(&mut job, &mut b, 1, started()), Effect::OthersLost);
    apply(
        &mut job,
        &mut a,
        1,
        ResultBody::HandedBack { after_epoch: 1 },
    );
    assert_eq!(job.state, JobState::Running, "b has it");
    apply(
        &mut job,
        &mut b,
        1,
        ResultBody::HandedBack { after_epoch: 2 },
    );
    assert_eq!(job.state, JobState::Queued);
}

#[test]
fn cancelled_job_keeps_state_and_stores_result() {
    let (mut job, mut a) = (job(JobKind::Train), attempt("a"));
    job.state = JobState::Cancelled;
    assert!(matches!(
        apply(&mut job, &mut a, 1, trained("x", 1.0)),
        Effect::Store(_)
    ));
    assert_eq!(job.state, JobState::Cancelled);
}

#[test]
fn contradictory_message_is_rejected() {
    let mut job = job(JobKind::Eval);
    let mut a = attempt("a");
    let message = message(&a, 1, trained("x", 1.0));
    let error = job
        .apply(&mut a, &message, Utc::now(), &RetryPolicy::default())
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "a job of kind eval cannot send `trained`"
    );
}

proptest! {
    /// Whatever the order and however often messages come: a job with a result is done, it
    /// has the first result, and failures never exceed the attempts that failed.
    #[test]
    fn order_and_redelivery_do_not_change_outcome(
        sequence in proptest::collection::vec((0_usize..3, 0_usize..5, 1_u32..4), 1..40)
    ) {
        let mut job = job(JobKind::Train);
        let mut attempts = [attempt("a"), attempt("b"), attempt("c")];
        let mut first: Option<Digest> = None;
        for (who, what, publication) in sequence {
            let body = match what {
                0 => started(),
                1 => failed(FailureKind::Retryable),
                2 => ResultBody::HandedBack { after_epoch: 0 },
                3 => trained("x", 1.0),
                _ => trained("y", 1.0),
            };
            if let Effect::Store(digest) = apply(&mut job, &mut attempts[who], publication, body) {
                prop_assert!(first.is_none(), "stored twice");
                first = Some(digest);
            }
            prop_assert_eq!(job.outcome, first);
            if first.is_some() {
                prop_assert_eq!(job.state, JobState::Done);
            }
            prop_assert!(job.failures as usize <= attempts.len());
        }
    }
}
