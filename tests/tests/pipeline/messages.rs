//! Worker messages count once, in any order and number.

use anyhow::Result;
use halfheard_e2e::{
    PATIENCE,
    dump::{assert_same, dump},
    stage::Stage,
    sweeps::{self, eval_job, matrix, sweep, train_job},
    worker::{Act, ScriptedWorker, outcome},
};
use halfheard_shared::{
    ids::{AttemptId, JobId},
    wire::{
        FailureKind, Fault, FaultKind, JobMessage, ResultBody, ResultMessage, Work, WorkerInfo,
        encode,
    },
};
use halfheard_store::{JobState, control::Reopen};
use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio_util::sync::CancellationToken;

const CASES: [&str; 3] = ["r=0", "r=0.5", "missing=la"];

/// A report of `worker`.
fn report(worker: &str, job: JobId, attempt: AttemptId, body: ResultBody) -> ResultMessage {
    ResultMessage {
        job,
        attempt,
        worker: WorkerInfo {
            name: worker.to_owned(),
            host: "test".to_owned(),
            device: "cpu".to_owned(),
            version: "scripted".to_owned(),
            processor: String::new(),
        },
        body,
    }
}

/// A sweep has the same results by a worker that sends every message once and by one that sends each three times in
/// reverse order.
#[tokio::test(flavor = "multi_thread")]
async fn duplicate_and_reordered_messages_count_once() -> Result<()> {
    let mut dumps = Vec::new();
    for act in [Act::Complete, Act::Repeat] {
        let stage = Stage::start().await?;
        let sweep = sweep("twice", 0);
        stage
            .store
            .submit(&sweep, matrix(&sweep, 0..3, &CASES))
            .await?;
        let coordinator = stage.serve();
        let _worker = ScriptedWorker::start(&stage.broker, "w", Arc::new(move |_, _| act.clone()));
        let progress = stage.finished(sweep.id, PATIENCE).await?;
        assert_eq!(progress.done, 12);
        coordinator.stop().await?;
        assert_eq!(stage.count("SELECT count(*) FROM conflict").await?, 0);
        assert_eq!(stage.count("SELECT count(*) FROM dead_letter").await?, 0);
        assert_eq!(
            stage
                .count("SELECT count(*) FROM attempt WHERE outcome = 'done'")
                .await?,
            12
        );
        assert_eq!(
            stage
                .count("SELECT count(*) FROM result WHERE value = 'NaN'")
                .await?,
            0
        );
        dumps.push(dump(&stage.store).await?);
    }
    assert!(dumps[0].contains("result"));
    assert_same(&dumps[0], &dumps[1]);
    Ok(())
}

/// A declined job is granted again at once and uncounted, however often; what the workers lack is recorded.
#[tokio::test(flavor = "multi_thread")]
async fn declined_job_is_granted_again_uncounted() -> Result<()> {
    let stage = Stage::start().await?;
    let sweep = sweep("declined", 0);
    stage
        .store
        .submit(&sweep, matrix(&sweep, 0..2, &CASES))
        .await?;
    // It waits longer each time, and this is to be over soon.
    let mut options = Stage::options();
    options.retry.delay = Duration::from_millis(1);
    let _coordinator = stage.serve_with(options);
    let _worker = ScriptedWorker::start(
        &stage.broker,
        "w",
        Arc::new(move |_, nth| {
            if nth <= 60 {
                Act::Decline(Fault::new(
                    FaultKind::Dataset,
                    "dataset mosi",
                    vec!["it is nowhere\0".into()],
                ))
            } else {
                Act::Complete
            }
        }),
    );
    let progress = stage.finished(sweep.id, PATIENCE).await?;
    assert_eq!((progress.done, progress.failed), (8, 0));
    assert_eq!(stage.count("SELECT sum(failures) FROM job").await?, 0);
    // Only the latest are kept per job.
    let most = "SELECT max(n) FROM (SELECT count(*) AS n FROM declined GROUP BY job) d";
    assert_eq!(stage.count(most).await?, 50);
    let errors: Vec<String> = sqlx::query_scalar("SELECT errors FROM declined LIMIT 1")
        .fetch_one(stage.store.pool())
        .await?;
    assert_eq!(
        errors,
        ["cannot read dataset mosi", "it is nowhere\u{fffd}"]
    );
    assert_eq!(stage.count("SELECT count(*) FROM failures").await?, 0);
    Ok(())
}

/// A failing job gets three attempts with growing delay, then is given up with its error chain; its evaluations fail with
/// it and the rest of the sweep continues.
#[tokio::test(flavor = "multi_thread")]
async fn failed_job_is_retried_then_given_up() -> Result<()> {
    let stage = Stage::start().await?;
    let sweep = sweep("failing", 0);
    stage
        .store
        .submit(&sweep, matrix(&sweep, 0..3, &CASES))
        .await?;
    let _coordinator = stage.serve();
    let recovered = eval_job(&sweep, 2, "r=0.5");
    let _worker = ScriptedWorker::start(
        &stage.broker,
        "w",
        Arc::new(move |job, nth| match &job.work {
            Work::Train(spec) if spec.seed == 0 => Act::Fail(
                FailureKind::Retryable,
                vec!["training failed".into(), "out of memory\0".into()],
            ),
            Work::Train(spec) if spec.seed == 1 => {
                Act::Fail(FailureKind::Permanent, vec!["no aligned lengths".into()])
            }
            // Succeeds at the second attempt.
            _ if job.job == recovered && nth == 1 => {
                Act::Fail(FailureKind::Retryable, vec!["out of memory".into()])
            }
            _ => Act::Complete,
        }),
    );
    let progress = stage.finished(sweep.id, PATIENCE).await?;
    assert_eq!((progress.failed, progress.done), (8, 4));

    let attempts: Vec<(Vec<String>, f64)> = sqlx::query_as(
        "SELECT errors, extract(epoch FROM started - lag(started) OVER (ORDER BY started))::float8
                        AS gap
         FROM (SELECT errors, started FROM attempt WHERE job = $1) a ORDER BY started",
    )
    .bind(train_job(&sweep, 0).0)
    .fetch_all(stage.store.pool())
    .await
    .map(|rows: Vec<(Vec<String>, Option<f64>)>| {
        rows.into_iter()
            .map(|(errors, gap)| (errors, gap.unwrap_or_default()))
            .collect()
    })?;
    assert_eq!(attempts.len(), 3);
    for (errors, _) in &attempts {
        assert_eq!(errors[0], "training failed");
        assert!(errors[1].starts_with("out of memory"));
    }
    assert!(attempts[1].1 >= 0.2, "{attempts:?}");
    assert!(attempts[2].1 >= 0.8, "{attempts:?}");

    let reasons: Vec<String> =
        sqlx::query_scalar("SELECT last_error FROM job WHERE train_job = $1 AND state = 'failed'")
            .bind(train_job(&sweep, 0).0)
            .fetch_all(stage.store.pool())
            .await?;
    assert_eq!(reasons.len(), 3);
    assert!(
        reasons
            .iter()
            .all(|reason| reason.starts_with("training job failed: training failed")),
        "{reasons:?}"
    );
    assert_eq!(
        stage
            .count("SELECT count(*) FROM attempt WHERE failure_kind = 'permanent'")
            .await?,
        1,
        "a permanent failure is not tried again"
    );

    // An operator has fixed the cause: all failed jobs run again.
    drop(_worker);
    let _worker = ScriptedWorker::completing(&stage.broker, "w2");
    assert_eq!(stage.store.reopen(sweep.id, Reopen::Both).await?.total(), 8);
    let progress = stage.finished(sweep.id, PATIENCE).await?;
    assert_eq!((progress.failed, progress.done), (0, 12));
    Ok(())
}

/// A handed-back job is granted again at once, uncounted.
#[tokio::test(flavor = "multi_thread")]
async fn handed_back_job_is_resumed() -> Result<()> {
    let stage = Stage::start().await?;
    let sweep = sweep("back", 0);
    stage
        .store
        .submit(&sweep, matrix(&sweep, 0..2, &CASES))
        .await?;
    let _coordinator = stage.serve();
    let _worker = ScriptedWorker::start(
        &stage.broker,
        "w",
        Arc::new(|job, nth| match job.work {
            Work::Train(_) if nth < 3 => Act::HandBack,
            _ => Act::Complete,
        }),
    );
    let progress = stage.finished(sweep.id, PATIENCE).await?;
    assert_eq!(progress.done, 8);
    assert_eq!(
        stage
            .count("SELECT count(*) FROM attempt WHERE outcome = 'handed_back'")
            .await?,
        4
    );
    assert_eq!(stage.count("SELECT sum(failures) FROM job").await?, 0);
    Ok(())
}

/// The first result wins; a different one for the same job is stored as a conflict.
#[tokio::test(flavor = "multi_thread")]
async fn different_result_is_stored_as_conflict() -> Result<()> {
    let stage = Stage::start().await?;
    let sweep = sweep("conflict", 0);
    stage
        .store
        .submit(&sweep, matrix(&sweep, 0..1, &CASES))
        .await?;
    let coordinator = stage.serve();
    let worker = ScriptedWorker::completing(&stage.broker, "w");
    stage.finished(sweep.id, PATIENCE).await?;
    coordinator.stop().await?;
    drop(worker);
    let before = dump(&stage.store).await?;

    // The same jobs by a worker that was given up as lost, with other results.
    let _coordinator = stage.serve();
    let train = train_job(&sweep, 0);
    let spec = sweeps::train_spec(0);
    let checkpoints = stage.store.checkpoints(&[train]).await?[&train].clone();
    let works = [
        (train, Work::Train(spec.clone())),
        (
            eval_job(&sweep, 0, "r=0"),
            Work::Eval {
                train,
                spec,
                case: "r=0".parse()?,
                confusions: None,
                checkpoints,
            },
        ),
    ];
    for (job, work) in works {
        let attempt = stage.lost_attempt(job, "w2").await?;
        let granted = JobMessage {
            sweep: sweep.id,
            job,
            attempt,
            work,
        };
        for body in outcome(&granted, 1) {
            stage
                .broker
                .deliver_result(&report("w2", job, attempt, body))
                .await?;
        }
    }
    let since = std::time::Instant::now();
    while stage.count("SELECT count(*) FROM conflict").await? < 4 {
        assert!(since.elapsed() < PATIENCE, "no conflict was noticed");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    // Two epochs, the weights and one case; the first results win.
    assert_same(&dump(&stage.store).await?, &before);
    Ok(())
}

/// Invalid messages and results of unknown jobs block nothing and become dead letters.
#[tokio::test(flavor = "multi_thread")]
async fn rejected_messages_become_dead_letters() -> Result<()> {
    let stage = Stage::start().await?;
    let sweep = sweep("babble", 0);
    stage
        .store
        .submit(&sweep, matrix(&sweep, 0..1, &CASES))
        .await?;
    // An unknown job, an attempt that was never granted, and one of another worker.
    let stranger = train_job(&sweeps::sweep("stranger", 0), 0);
    let known = train_job(&sweep, 0);
    let never = AttemptId::derive(&[b"never"]);
    let others = stage.lost_attempt(known, "w").await?;
    // Another one, or the broker would take its report for a double.
    let unknown = AttemptId::derive(&[b"unknown"]);
    for (job, attempt) in [(stranger, unknown), (known, never), (known, others)] {
        let forged = report("thief", job, attempt, ResultBody::Noop);
        stage.broker.deliver_result(&forged).await?;
    }
    // A worker that speaks on the subject of another.
    let subject = stage.broker.names().result("thief");
    let forged = encode(&report("w", known, others, ResultBody::Noop))?;
    stage
        .broker
        .jetstream()
        .publish(subject, forged.into())
        .await?
        .await?;
    let _coordinator = stage.serve();
    let _worker = ScriptedWorker::start(&stage.broker, "w", Arc::new(|_, _| Act::SendInvalid));
    let progress = stage.finished(sweep.id, PATIENCE).await?;
    assert_eq!(progress.done, 4);
    let since = std::time::Instant::now();
    let reasons = loop {
        let reasons: Vec<String> = sqlx::query_scalar("SELECT reason FROM dead_letter")
            .fetch_all(stage.store.pool())
            .await?;
        // Four jobs sent an invalid message each.
        if reasons.len() >= 8 || since.elapsed() > PATIENCE {
            break reasons;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    assert_eq!(reasons.len(), 8, "{reasons:?}");
    for part in [
        "no job has the id",
        "was never granted",
        "was granted to worker w",
        "speaks for worker w",
        "format version",
    ] {
        assert!(
            reasons.iter().any(|reason| reason.contains(part)),
            "{part}: {reasons:?}"
        );
    }
    Ok(())
}

/// Cancelling takes all unfinished jobs back; a late result is stored without changing the state. A
/// retry reopens the sweep, and what was done meanwhile is not done again.
#[tokio::test(flavor = "multi_thread")]
async fn cancelled_sweep_stops_and_can_be_reopened() -> Result<()> {
    let stage = Stage::start().await?;
    let sweep = sweep("cancelled", 0);
    stage
        .store
        .submit(&sweep, matrix(&sweep, 0..4, &CASES))
        .await?;
    let _coordinator = stage.serve();
    let begun = Arc::new(AtomicUsize::new(0));
    let let_go = CancellationToken::new();
    let worker = ScriptedWorker::start(
        &stage.broker,
        "w",
        Arc::new({
            let (begun, let_go) = (Arc::clone(&begun), let_go.clone());
            move |_, _| {
                begun.fetch_add(1, Ordering::SeqCst);
                Act::Deaf(let_go.clone())
            }
        }),
    );
    stage
        .until(sweep.id, PATIENCE, |progress| progress.running == 1)
        .await?;
    let stopped = stage.store.cancel(sweep.id).await?;
    assert_eq!((stopped.jobs, stopped.released.len()), (16, 1));

    // The running one does not hear of it, and ends.
    let_go.cancel();
    let since = std::time::Instant::now();
    while stage.count("SELECT count(*) FROM checkpoint").await? == 0 {
        assert!(since.elapsed() < PATIENCE, "the late result was not stored");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let progress = stage.store.progress(sweep.id).await?;
    assert_eq!(progress.cancelled, 16, "{progress:?}");
    assert_eq!(begun.load(Ordering::SeqCst), 1, "nothing else was begun");
    drop(worker);

    stage.store.reopen(sweep.id, Reopen::Cancelled).await?;
    let again = Arc::new(AtomicUsize::new(0));
    let _worker = ScriptedWorker::start(
        &stage.broker,
        "w2",
        Arc::new({
            let again = Arc::clone(&again);
            move |_, _| {
                again.fetch_add(1, Ordering::SeqCst);
                Act::Complete
            }
        }),
    );
    let progress = stage.finished(sweep.id, PATIENCE).await?;
    assert_eq!(progress.done, 16);
    assert_eq!(again.load(Ordering::SeqCst), 15, "one was done already");
    Ok(())
}

/// Changes the state of a job, and its lease as that requires.
const CHANGE: &str = "UPDATE job SET state = $2, attempt = id, worker = 'w', session = id,
                      lease_until = CASE WHEN $2 IN ('queued', 'running') THEN now() END
                      WHERE id = $1";

/// The database rejects exactly the transitions that the table does not list.
#[tokio::test(flavor = "multi_thread")]
async fn database_rejects_forbidden_transitions() -> Result<()> {
    let stage = Stage::start().await?;
    let sweep = sweep("states", 0);
    stage
        .store
        .submit(&sweep, matrix(&sweep, 0..1, &CASES))
        .await?;
    let allowed: Vec<(JobState, JobState)> =
        sqlx::query_as("SELECT before, after FROM job_transition")
            .fetch_all(stage.store.pool())
            .await?;
    let job = eval_job(&sweep, 0, "r=0").0;
    for before in JobState::ALL {
        for after in JobState::ALL {
            let mut tx = stage.store.pool().begin().await?;
            // Another row in the initial state, created past the trigger.
            sqlx::query("ALTER TABLE job DISABLE TRIGGER job_state_changes")
                .execute(&mut *tx)
                .await?;
            sqlx::query(CHANGE)
                .bind(job)
                .bind(before)
                .execute(&mut *tx)
                .await?;
            sqlx::query("ALTER TABLE job ENABLE TRIGGER job_state_changes")
                .execute(&mut *tx)
                .await?;
            let changed = sqlx::query(CHANGE)
                .bind(job)
                .bind(after)
                .execute(&mut *tx)
                .await;
            let may = before == after || allowed.contains(&(before, after));
            assert_eq!(changed.is_ok(), may, "{before} to {after}");
            if let Err(error) = changed {
                let text = error.to_string();
                let expected = format!("job {job} cannot go from {before} to {after}");
                assert!(text.contains(&expected), "{text}");
            }
        }
    }
    Ok(())
}
