//! A database that refuses statements: read-only, a standby, a revoked privilege, statement timeouts. Results wait with
//! the broker; nothing is lost and no job fails.

use anyhow::{Result, ensure};
use halfheard_e2e::{
    dump::{assert_same, dump},
    stage::Stage,
    sweeps::{matrix, noops, sweep, train_job},
    worker::{Act, ScriptedWorker},
};
use halfheard_shared::wire::JobMessage;
use halfheard_store::{JobState, Store, submit::NewSweep};
use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};
use tokio_util::sync::CancellationToken;

const PATIENCE: Duration = Duration::from_secs(120);
const CASES: [&str; 4] = ["r=0", "r=0.3", "r=0.9", "missing=la"];
const SEEDS: u64 = 12;
const JOBS_IN_ALL: i64 = SEEDS as i64 * (1 + CASES.len() as i64);
/// Epochs that the scripted worker reports in all.
const EPOCHS: i64 = SEEDS as i64 * 2;
const LEADERS: &str = "SELECT count(*) FROM leadership WHERE expires > now()";

async fn submitted(stage: &Stage) -> Result<NewSweep> {
    let sweep = sweep("refused", 0);
    stage
        .store
        .submit(&sweep, matrix(&sweep, 0..SEEDS, &CASES))
        .await?;
    Ok(sweep)
}

/// A worker that completes two jobs and then holds what it was granted until it may go on: whenever the database refuses,
/// there is something to report afterwards.
struct HeldUp {
    go_on: CancellationToken,
    _worker: ScriptedWorker,
}

impl HeldUp {
    fn start(stage: &Stage) -> Self {
        let go_on = CancellationToken::new();
        let (taken, wait) = (AtomicU64::new(0), go_on.clone());
        let script = move |_: &JobMessage, _| match taken.fetch_add(1, Ordering::Relaxed) {
            ..2 => Act::Complete,
            _ => Act::WaitFor(wait.clone()),
        };
        Self {
            go_on,
            _worker: ScriptedWorker::start(&stage.broker, "w", Arc::new(script)),
        }
    }

    /// Waits until it holds a job.
    async fn holds_a_job(&self, stage: &Stage, sweep: &NewSweep) -> Result<()> {
        stage
            .until(sweep.id, PATIENCE, |progress| {
                progress.done >= 2 && progress.running > 0
            })
            .await?;
        Ok(())
    }

    /// Lets it report.
    fn go_on(&self) {
        self.go_on.cancel();
    }
}

/// Waits until a query counts `number`.
async fn until(stage: &Stage, query: &'static str, number: i64) -> Result<()> {
    let since = Instant::now();
    // A server that is starting up does not answer.
    while stage.count(query).await.ok() != Some(number) {
        ensure!(since.elapsed() < PATIENCE, "`{query}` is never {number}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}

/// How many reports the broker holds.
async fn held(stage: &Stage) -> Result<u64> {
    let name = stage.broker.names().results_stream();
    let stream = stage.broker.jetstream().get_stream(name).await?;
    Ok(stream.cached_info().state.messages)
}

/// Waits until reports wait with the broker, and none is acknowledged for a while.
async fn results_wait(stage: &Stage) -> Result<u64> {
    let since = Instant::now();
    let (mut waiting, mut steady) = (0, Instant::now());
    loop {
        let now = held(stage).await?;
        if now != waiting {
            (waiting, steady) = (now, Instant::now());
        }
        if waiting > 0 && steady.elapsed() > Duration::from_secs(2) {
            return Ok(waiting);
        }
        ensure!(since.elapsed() < PATIENCE, "{waiting} results wait");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// All jobs are done as in an undisturbed sweep, without open attempts or dead letters.
async fn is_whole(stage: &Stage, sweep: &NewSweep) -> Result<()> {
    let progress = stage.finished(sweep.id, PATIENCE).await?;
    assert_eq!(
        (progress.done, progress.failed),
        (JOBS_IN_ALL, 0),
        "{progress:?}"
    );
    for (query, number) in [
        ("SELECT count(*) FROM epoch_log", EPOCHS),
        ("SELECT count(*) FROM dead_letter", 0),
        ("SELECT count(*) FROM conflict", 0),
        ("SELECT count(*) FROM attempt WHERE outcome IS NULL", 0),
        ("SELECT count(*) FROM attempt WHERE outcome = 'failed'", 0),
    ] {
        assert_eq!(stage.count(query).await?, number, "{query}");
    }
    let other = Stage::start().await?;
    let sweep = submitted(&other).await?;
    let coordinator = other.serve();
    let _worker = ScriptedWorker::completing(&other.broker, "w");
    other.finished(sweep.id, PATIENCE).await?;
    coordinator.stop().await?;
    assert_same(&dump(&stage.store).await?, &dump(&other.store).await?);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn results_survive_a_read_only_database() -> Result<()> {
    let stage = Stage::start().await?;
    let sweep = submitted(&stage).await?;
    let coordinator = stage.serve();
    let worker = HeldUp::start(&stage);
    worker.holds_a_job(&stage, &sweep).await?;
    stage
        .postgres
        .execute("ALTER SYSTEM SET default_transaction_read_only = on")
        .await?;
    stage.postgres.execute("SELECT pg_reload_conf()").await?;
    // No coordinator leads on it, and reports wait with the broker.
    until(&stage, LEADERS, 0).await?;
    worker.go_on();
    results_wait(&stage).await?;
    assert_eq!(stage.count(LEADERS).await?, 0);
    stage
        .postgres
        .execute("ALTER SYSTEM RESET default_transaction_read_only")
        .await?;
    stage.postgres.execute("SELECT pg_reload_conf()").await?;
    is_whole(&stage, &sweep).await?;
    coordinator.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn coordinator_does_not_lead_on_a_standby() -> Result<()> {
    let mut stage = Stage::start().await?;
    let sweep = submitted(&stage).await?;
    let coordinator = stage.serve();
    let worker = HeldUp::start(&stage);
    worker.holds_a_job(&stage, &sweep).await?;
    stage.postgres.kill()?;
    stage.postgres.resume_as_standby()?;
    until(
        &stage,
        "SELECT count(*) FROM sweep WHERE pg_is_in_recovery()",
        1,
    )
    .await?;
    // A second coordinator finds no leader and does not lead either.
    let second = stage.serve();
    worker.go_on();
    let waiting = results_wait(&stage).await?;
    until(&stage, LEADERS, 0).await?;
    assert!(held(&stage).await? >= waiting, "something was acknowledged");
    stage.postgres.execute("SELECT pg_promote()").await?;
    is_whole(&stage, &sweep).await?;
    second.stop().await?;
    coordinator.stop().await
}

/// A least-privilege role, and a store that uses it.
async fn as_role(stage: &Stage) -> Result<Store> {
    for statement in [
        "CREATE ROLE coordinating LOGIN",
        "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO coordinating",
        "GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO coordinating",
    ] {
        stage.postgres.execute(statement).await?;
    }
    let url = stage.postgres.url().replace("postgres@", "coordinating@");
    Ok(Store::connect(&url).await?)
}

#[tokio::test(flavor = "multi_thread")]
async fn results_survive_a_revoked_privilege() -> Result<()> {
    for (take, give) in [
        (
            "REVOKE INSERT ON epoch_log FROM coordinating",
            "GRANT INSERT ON epoch_log TO coordinating",
        ),
        // Not even dead letters can be stored.
        (
            "REVOKE INSERT ON ALL TABLES IN SCHEMA public FROM coordinating",
            "GRANT INSERT ON ALL TABLES IN SCHEMA public TO coordinating",
        ),
        // The program is older than the tables.
        (
            "ALTER TABLE epoch_log RENAME COLUMN losses TO lost",
            "ALTER TABLE epoch_log RENAME COLUMN lost TO losses",
        ),
    ] {
        let stage = Stage::start().await?;
        let sweep = submitted(&stage).await?;
        let store = as_role(&stage).await?;
        let coordinator = stage.serve_from(&store, Stage::options());
        let worker = HeldUp::start(&stage);
        worker.holds_a_job(&stage, &sweep).await?;
        stage.postgres.execute(take).await?;
        worker.go_on();
        results_wait(&stage).await?;
        let progress = stage.store.progress(sweep.id).await?;
        assert_eq!(progress.failed, 0, "{take}: {progress:?}");
        stage.postgres.execute(give).await?;
        is_whole(&stage, &sweep).await?;
        coordinator.stop().await?;
    }
    Ok(())
}

/// Each row takes a while and the server allows few per statement, so the whole batch always times out.
#[tokio::test(flavor = "multi_thread")]
async fn batch_that_times_out_is_split_in_half() -> Result<()> {
    let stage = Stage::start().await?;
    let sweep = submitted(&stage).await?;
    let store = as_role(&stage).await?;
    // One worker for each training job, and none can report about it as long as epochs cannot be stored.
    stage
        .postgres
        .execute("REVOKE INSERT ON epoch_log FROM coordinating")
        .await?;
    let coordinator = stage.serve_from(&store, Stage::options());
    let _workers: Vec<ScriptedWorker> = (0..SEEDS)
        .map(|number| ScriptedWorker::completing(&stage.broker, &format!("w{number}")))
        .collect();
    // The epochs and the result of each training job wait, and will form one batch.
    let since = Instant::now();
    while results_wait(&stage).await? < SEEDS * 3 {
        ensure!(since.elapsed() < PATIENCE, "the jobs were not done");
    }
    coordinator.stop().await?;
    for statement in [
        "CREATE FUNCTION dawdle() RETURNS trigger LANGUAGE plpgsql AS
         $$ BEGIN PERFORM pg_sleep(0.2); RETURN NEW; END $$",
        "CREATE TRIGGER dawdle BEFORE INSERT ON epoch_log
         FOR EACH ROW EXECUTE FUNCTION dawdle()",
        // 24 rows take 4.8 s.
        "ALTER ROLE coordinating SET statement_timeout = '3s'",
        "GRANT INSERT ON epoch_log TO coordinating",
    ] {
        stage.postgres.execute(statement).await?;
    }
    let store = {
        store.pool().close().await;
        Store::connect_with(store.options().clone()).await?
    };
    let coordinator = stage.serve_from(&store, Stage::options());
    is_whole(&stage, &sweep).await?;
    coordinator.stop().await
}

/// An invalid message becomes a dead letter, its job is given up with its evaluations, and `coord status` counts it; the
/// rest of its batch is ingested.
#[tokio::test(flavor = "multi_thread")]
async fn only_invalid_messages_become_dead_letters() -> Result<()> {
    let stage = Stage::start().await?;
    let sweep = submitted(&stage).await?;
    let condemned = train_job(&sweep, 7);
    stage
        .postgres
        .execute(&format!(
            "ALTER TABLE epoch_log ADD CHECK (job <> '{condemned}' OR epoch <> 2)"
        ))
        .await?;
    let coordinator = stage.serve();
    let _worker = ScriptedWorker::completing(&stage.broker, "w");
    let progress = stage.finished(sweep.id, PATIENCE).await?;
    // The result itself arrived after all and is kept.
    assert!(progress.failed == 0 || progress.failed == 5, "{progress:?}");
    assert_eq!(stage.count("SELECT count(*) FROM dead_letter").await?, 1);
    assert_eq!(
        stage.count("SELECT count(*) FROM epoch_log").await?,
        EPOCHS - 1
    );
    let aside = stage.store.set_aside().await?;
    assert_eq!((aside.dead_letters, aside.conflicts), (1, 0));
    let status =
        halfheard_e2e::programs::output(halfheard_e2e::programs::coord(&stage)?.arg("status"))?;
    assert!(
        status.contains("1 message (`coord dead-letters`)"),
        "{status}"
    );
    coordinator.stop().await
}

/// A config that cannot be read fails its own jobs and blocks no other sweep; so does a training job that cannot be
/// published.
#[tokio::test(flavor = "multi_thread")]
async fn unreadable_config_fails_only_its_own_jobs() -> Result<()> {
    let stage = Stage::start().await?;
    let broken = sweep("broken", 9);
    stage
        .store
        .submit(&broken, matrix(&broken, 0..2, &CASES))
        .await?;
    sqlx::query("UPDATE config SET spec = spec - 'max_epochs'")
        .execute(stage.store.pool())
        .await?;
    let sound = sweep("sound", 0);
    stage.store.submit(&sound, noops(&sound, 20)).await?;
    let coordinator = stage.serve();
    let _worker = ScriptedWorker::completing(&stage.broker, "w");
    assert_eq!(stage.finished(sound.id, PATIENCE).await?.done, 20);
    let progress = stage.finished(broken.id, PATIENCE).await?;
    assert_eq!(
        progress.failed,
        2 * (1 + CASES.len() as i64),
        "{progress:?}"
    );
    let reason: String = sqlx::query_scalar("SELECT last_error FROM job WHERE id = $1")
        .bind(train_job(&broken, 0).0)
        .fetch_one(stage.store.pool())
        .await?;
    assert!(reason.contains("max_epochs"), "{reason}");

    let lost = sweep("lost", 0);
    let mut other = halfheard_e2e::sweeps::train_spec(1);
    other.max_epochs = 3;
    stage
        .store
        .submit(
            &lost,
            halfheard_e2e::sweeps::matrix_of(&lost, other, &CASES),
        )
        .await?;
    sqlx::query("DELETE FROM config WHERE id IN (SELECT config FROM job WHERE sweep = $1)")
        .bind(lost.id.0)
        .execute(stage.store.pool())
        .await?;
    let progress = stage.finished(lost.id, PATIENCE).await?;
    assert_eq!(progress.failed, 1 + CASES.len() as i64, "{progress:?}");
    let state: JobState = sqlx::query_scalar("SELECT state FROM job WHERE id = $1")
        .bind(halfheard_e2e::sweeps::eval_job(&lost, 1, CASES[0]).0)
        .fetch_one(stage.store.pool())
        .await?;
    assert_eq!(state, JobState::Failed);
    coordinator.stop().await
}
