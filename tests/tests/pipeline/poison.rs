//! A job that kills every worker: it fails, and the jobs beside it do not.

use anyhow::Result;
use halfheard_e2e::{
    PATIENCE,
    stage::Stage,
    sweeps::{eval_job, matrix, sweep, train_job},
    worker::{Act, ScriptedWorker},
};
use std::{sync::Arc, time::Duration};
use tokio::sync::Notify;

const CASES: [&str; 8] = [
    "r=0", "r=0.1", "r=0.2", "r=0.3", "r=0.4", "r=0.5", "r=0.6", "r=0.7",
];

/// A worker whose process dies whenever it works on `poison`, with all that it has, and is started again
/// under the same name.
fn fragile(stage: &Stage, poison: halfheard_shared::ids::JobId) -> tokio::task::JoinHandle<()> {
    let broker = stage.broker.clone();
    tokio::spawn(async move {
        loop {
            let poisoned = Arc::new(Notify::new());
            let worker = ScriptedWorker::start(
                &broker,
                "w",
                Arc::new({
                    let poisoned = Arc::clone(&poisoned);
                    move |job, _| {
                        if job.job == poison {
                            poisoned.notify_one();
                            return Act::Delay(Duration::from_secs(600));
                        }
                        Act::Delay(Duration::from_millis(300))
                    }
                }),
            );
            poisoned.notified().await;
            // Its reports of the start are out, and none of a result.
            tokio::time::sleep(Duration::from_millis(100)).await;
            worker.kill().await;
        }
    })
}

/// An evaluation that kills its workers is given up; the innocent ones that were evaluated beside it are
/// lost once at most, and all done. A process that is started again gets its jobs back at once, long
/// before their leases run out.
#[tokio::test(flavor = "multi_thread")]
async fn poison_evaluation_fails_alone() -> Result<()> {
    let stage = Stage::start().await?;
    let sweep = sweep("poison", 0);
    stage
        .store
        .submit(&sweep, matrix(&sweep, 0..2, &CASES))
        .await?;
    let poison = eval_job(&sweep, 0, "r=0.4");
    let options = halfheard_coordinator::orchestrator::options::ServeOptions {
        lease: 4 * PATIENCE,
        ..Stage::options()
    };
    let _coordinator = stage.serve_with(options);
    let workers = fragile(&stage, poison);
    let progress = stage.finished(sweep.id, PATIENCE).await?;
    workers.abort();
    assert_eq!((progress.failed, progress.done), (1, 17));
    let (state, failures, losses, error): (String, i32, i32, String) =
        sqlx::query_as("SELECT state::text, failures, losses, last_error FROM job WHERE id = $1")
            .bind(poison.0)
            .fetch_one(stage.store.pool())
            .await?;
    assert_eq!((state.as_str(), failures, losses), ("failed", 0, 5));
    assert!(error.contains("5 attempts in a row"), "{error}");
    let most = "SELECT max(n) FROM (SELECT count(*) AS n FROM attempt a JOIN job j ON j.id = a.job
                WHERE a.outcome = 'lost' AND a.started IS NOT NULL AND j.state = 'done'
                GROUP BY a.job) d";
    assert!(
        stage.count(most).await? <= 1,
        "an innocent one was lost twice"
    );
    let lost = "SELECT count(*) FROM attempt WHERE outcome = 'lost' AND started IS NOT NULL";
    assert!(stage.count(lost).await? > 5, "some were beside it");
    Ok(())
}

/// A training whose machine is killed again and again is never given up while it gets further, and is
/// given up when it does not.
#[tokio::test(flavor = "multi_thread")]
async fn only_training_without_progress_is_given_up() -> Result<()> {
    let stage = Stage::start().await?;
    let sweep = sweep("killed", 0);
    stage
        .store
        .submit(&sweep, matrix(&sweep, 0..2, &["r=0"]))
        .await?;
    let (advancing, stuck) = (train_job(&sweep, 0), train_job(&sweep, 1));
    let _coordinator = stage.serve();
    let _worker = ScriptedWorker::start(
        &stage.broker,
        "w",
        Arc::new(move |job, nth| match job.job {
            job if job == advancing && nth <= 8 => Act::Advance(nth * 100),
            job if job == stuck => Act::Vanish,
            _ => Act::Complete,
        }),
    );
    let progress = stage.finished(sweep.id, PATIENCE).await?;
    assert_eq!((progress.failed, progress.done), (2, 2));
    let state: String = sqlx::query_scalar("SELECT state::text FROM job WHERE id = $1")
        .bind(advancing.0)
        .fetch_one(stage.store.pool())
        .await?;
    assert_eq!(state, "done");
    let lost = "SELECT count(*) FROM attempt WHERE outcome = 'lost'";
    assert_eq!(stage.count(lost).await?, 8 + 5);
    Ok(())
}
