//! Worker messages count once, in any order and number.

use anyhow::Result;
use halfheard_e2e::{
    PATIENCE,
    dump::{assert_same, dump},
    stage::Stage,
    sweeps::{self, eval_job, matrix, sweep, train_job},
    worker::{Act, ScriptedWorker},
};
use halfheard_shared::{
    broker::{Queue, SweepControl},
    wire::{FailureKind, Fault, FaultKind, Work},
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

/// A declined job is published again at once and uncounted, however often; what the workers lack is recorded.
#[tokio::test(flavor = "multi_thread")]
async fn declined_job_is_redispatched_uncounted() -> Result<()> {
    let stage = Stage::start().await?;
    let sweep = sweep("declined", 0);
    stage
        .store
        .submit(&sweep, matrix(&sweep, 0..2, &CASES))
        .await?;
    let _coordinator = stage.serve();
    let _worker = ScriptedWorker::start(
        &stage.broker,
        "w",
        Arc::new(move |job, _| {
            if job.publication <= 60 {
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
    assert_eq!(
        stage
            .count("SELECT min(publication)::bigint FROM job")
            .await?,
        61,
        "every one of them went round sixty times"
    );
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
        Arc::new(move |job, _| match &job.work {
            Work::Train(spec) if spec.seed == 0 => Act::Fail(
                FailureKind::Retryable,
                vec!["training failed".into(), "out of memory\0".into()],
            ),
            Work::Train(spec) if spec.seed == 1 => {
                Act::Fail(FailureKind::Permanent, vec!["no aligned lengths".into()])
            }
            // Succeeds at the second attempt.
            _ if job.job == recovered && job.publication == 1 => {
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

/// A handed-back job is delivered to the next worker at once; one whose worker vanishes does not count as failed.
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
        Arc::new(|job, delivery| match job.work {
            Work::Train(_) if delivery < 3 => Act::HandBack,
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

    // The same jobs again, by a worker with other results.
    let _coordinator = stage.serve();
    let messages = [
        (train_job(&sweep, 0), Work::Train(sweeps::train_spec(0))),
        (
            eval_job(&sweep, 0, "r=0"),
            Work::Eval {
                train: train_job(&sweep, 0),
                spec: sweeps::train_spec(0),
                case: "r=0".parse()?,
                checkpoints: stage.store.checkpoints(&[train_job(&sweep, 0)]).await?
                    [&train_job(&sweep, 0)]
                    .clone(),
            },
        ),
    ];
    for (job, work) in messages {
        let message = halfheard_shared::wire::JobMessage {
            sweep: sweep.id,
            job,
            publication: 7,
            work,
        };
        stage.broker.publish_job(&message).await?;
    }
    let _worker = ScriptedWorker::start(&stage.broker, "w2", Arc::new(|_, _| Act::Differ(1)));
    let since = std::time::Instant::now();
    while stage.count("SELECT count(*) FROM conflict").await? < 2 {
        assert!(since.elapsed() < PATIENCE, "no conflict was noticed");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    // The first result wins.
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
    // An unknown job.
    let stranger = sweeps::sweep("stranger", 0);
    stage
        .broker
        .publish_job(&halfheard_shared::wire::JobMessage {
            sweep: stranger.id,
            job: train_job(&stranger, 0),
            publication: 1,
            work: Work::Noop,
        })
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
        // Five jobs sent invalid messages; the unknown one also started and ended.
        if reasons.len() >= 7 || since.elapsed() > PATIENCE {
            break reasons;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    assert_eq!(reasons.len(), 7, "{reasons:?}");
    assert!(
        reasons
            .iter()
            .any(|reason| reason.contains("no job has the id"))
    );
    assert!(
        reasons
            .iter()
            .any(|reason| reason.contains("format version"))
    );
    Ok(())
}

/// Cancelling removes all unfinished jobs from the queues; a late result is stored without changing the state. A second
/// submission reopens the sweep.
#[expect(clippy::too_many_lines, reason = "one scenario, step by step")]
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
                Act::WaitFor(let_go.clone())
            }
        }),
    );
    stage
        .until(sweep.id, PATIENCE, |progress| progress.running == 1)
        .await?;
    assert_eq!(stage.store.cancel(sweep.id).await?, 16);
    halfheard_coordinator::orchestrator::sweep_control::publish(
        &stage.store,
        &stage.broker,
        sweep.id,
    )
    .await?;

    // The running one ends nevertheless.
    let_go.cancel();
    let since = std::time::Instant::now();
    while stage.count("SELECT count(*) FROM checkpoint").await? == 0 {
        assert!(
            since.elapsed() < PATIENCE,
            "the late result was not taken in"
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let progress = stage.store.progress(sweep.id).await?;
    assert_eq!(progress.cancelled, 16, "{progress:?}");
    let reported = stage
        .broker
        .sweeps()
        .await?
        .get(sweep.id.to_string())
        .await?;
    assert_eq!(
        reported.as_deref(),
        Some(SweepControl::Cancelled.to_string().as_bytes())
    );
    for queue in Queue::ALL {
        let mut consumer = stage.broker.jobs(queue).await?;
        assert_eq!(consumer.info().await?.num_pending, 0);
    }
    assert_eq!(begun.load(Ordering::SeqCst), 1, "nothing else was begun");
    drop(worker);

    assert_eq!(
        stage
            .store
            .reopen(sweep.id, Reopen::Cancelled)
            .await?
            .total(),
        16
    );
    let _worker = ScriptedWorker::completing(&stage.broker, "w2");
    let progress = stage.finished(sweep.id, PATIENCE).await?;
    assert_eq!(progress.done, 16);
    let since = std::time::Instant::now();
    while stage
        .broker
        .sweeps()
        .await?
        .get(sweep.id.to_string())
        .await?
        .is_some()
    {
        assert!(
            since.elapsed() < PATIENCE,
            "the broker still says cancelled"
        );
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Ok(())
}

/// The database rejects exactly the transitions that the table does not list.
#[tokio::test(flavor = "multi_thread")]
async fn database_rejects_forbidden_transitions() -> Result<()> {
    let stage = Stage::start().await?;
    let sweep = sweep("states", 0);
    stage
        .store
        .submit(&sweep, matrix(&sweep, 0..1, &CASES))
        .await?;
    let states = [
        JobState::Blocked,
        JobState::Ready,
        JobState::Queued,
        JobState::Running,
        JobState::Done,
        JobState::Failed,
        JobState::Cancelled,
    ];
    let allowed: Vec<(JobState, JobState)> =
        sqlx::query_as("SELECT before, after FROM job_transition")
            .fetch_all(stage.store.pool())
            .await?;
    let job = eval_job(&sweep, 0, "r=0").0;
    for before in states {
        for after in states {
            let mut tx = stage.store.pool().begin().await?;
            // Another row in the initial state, created past the trigger.
            sqlx::query("ALTER TABLE job DISABLE TRIGGER job_state_changes")
                .execute(&mut *tx)
                .await?;
            sqlx::query("UPDATE job SET state = $2 WHERE id = $1")
                .bind(job)
                .bind(before)
                .execute(&mut *tx)
                .await?;
            sqlx::query("ALTER TABLE job ENABLE TRIGGER job_state_changes")
                .execute(&mut *tx)
                .await?;
            let changed = sqlx::query("UPDATE job SET state = $2 WHERE id = $1")
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
