//! The commands `submit`, `cancel`, `pause`, `resume` and `retry`: they change rows, and the leader tells the workers.

use anyhow::{Context as _, Result, ensure};
use halfheard_e2e::{
    programs::{Process, coord, output, worker},
    stage::Stage,
    sweeps::{eval_job, matrix, sweep, train_job},
    tiny::{Tiny, jobs},
    worker::{Act, ScriptedWorker},
};
use halfheard_shared::{
    artifacts::{ArtifactStore, Key},
    ids::JobId,
    wire::{FailureKind, Work},
};
use halfheard_store::{JobState, SweepState, control::Reopen};
use std::{
    process::Output,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};
use tokio_util::sync::CancellationToken;

const PATIENCE: Duration = Duration::from_secs(120);
const CASES: [&str; 3] = ["r=0", "r=0.5", "missing=la"];

/// Waits until a query counts at least `enough`.
async fn until(stage: &Stage, query: &'static str, enough: i64) -> Result<()> {
    let since = Instant::now();
    while stage.count(query).await? < enough {
        ensure!(since.elapsed() < PATIENCE, "`{query}` stays below {enough}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}

/// Waits until the state of a training job is stored.
async fn until_saved(artifacts: &ArtifactStore, train: JobId) -> Result<()> {
    let since = Instant::now();
    while artifacts.size(&Key::Resume(train)).await?.is_none() {
        ensure!(since.elapsed() < PATIENCE, "its state is not saved");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}

/// Runs `coord ARGS`, with any exit code.
fn run(stage: &Stage, args: &[&str]) -> Result<Output> {
    Ok(coord(stage)?.args(args).output()?)
}

/// Runs `coord ARGS`, which must exit with 1, and returns its output.
fn refused(stage: &Stage, args: &[&str]) -> Result<String> {
    let output = run(stage, args)?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.code() == Some(1), "{args:?}: {said}");
    Ok(said)
}

/// A cancelled training job keeps its state and resumes from it when the sweep is submitted again: through the commands,
/// and through the rows alone.
#[tokio::test(flavor = "multi_thread")]
async fn cancelled_training_job_resumes_from_its_saved_state() -> Result<()> {
    let stage = Stage::start().await?;
    let tiny = Tiny::make(stage.data_dir(), 640)?;
    let sweep = sweep("cancelled", 0);
    let spec = tiny.spec("lnln", 1, 5000)?;
    let all = jobs(&sweep, &spec, &CASES)?;
    let train = all[0].id;
    stage.store.submit(&sweep, all).await?;
    let coordinator = stage.serve();
    let mut command = worker(&stage)?;
    // Only a stopped training job saves its state.
    let worker = Process::spawn(command.args(["--save-every", "100000"]))?;
    until(&stage, "SELECT count(*) FROM epoch_log", 2).await?;

    let cancelled = output(coord(&stage)?.args(["cancel", "cancelled"]))?;
    assert!(cancelled.contains("4 jobs cancelled"), "{cancelled}");
    let artifacts = ArtifactStore::url_of(&stage.data_dir().join("artifacts"));
    let artifacts = ArtifactStore::open(&artifacts, None).await?;
    until_saved(&artifacts, train).await?;

    let again = output(coord(&stage)?.args(["retry", "cancelled"]))?;
    assert!(
        again.contains("1 training job and 3 evaluation jobs will run again"),
        "{again}"
    );
    let resumed = "SELECT count(*) FROM attempt WHERE resumed_after_epoch > 0";
    until(&stage, resumed, 1).await?;

    // Rows alone: the leader notices what the worker has that is not its any more.
    let stopped = stage.store.cancel(sweep.id).await?;
    assert_eq!((stopped.jobs, stopped.released.len()), (4, 1));
    let reopened = stage.store.reopen(sweep.id, Reopen::Cancelled).await?;
    assert_eq!((reopened.train, reopened.eval), (1, 3));
    until(&stage, resumed, 2).await?;
    assert_eq!(
        stage
            .count("SELECT count(*) FROM attempt WHERE outcome = 'revoked'")
            .await?,
        2
    );
    worker.terminate(Duration::from_secs(30))?;
    coordinator.stop().await
}

/// A paused sweep starts nothing, what has begun goes on, and it continues when it is resumed.
#[tokio::test(flavor = "multi_thread")]
async fn paused_sweep_continues_after_resume() -> Result<()> {
    let stage = Stage::start().await?;
    let (sweep, other) = (sweep("paused", 9), sweep("other", 0));
    stage
        .store
        .submit(&sweep, matrix(&sweep, 0..4, &CASES))
        .await?;
    stage
        .store
        .submit(&other, matrix(&other, 0..5, &[]))
        .await?;
    let coordinator = stage.serve();
    let go_on = CancellationToken::new();
    let _worker = ScriptedWorker::start(
        &stage.broker,
        "w",
        Arc::new({
            let (go_on, first) = (go_on.clone(), sweep.id);
            move |job, _| match &job.work {
                Work::Train(_) if job.sweep == first => Act::WaitFor(go_on.clone()),
                _ => Act::Complete,
            }
        }),
    );
    stage
        .until(sweep.id, PATIENCE, |progress| progress.running == 1)
        .await?;
    let paused = output(coord(&stage)?.args(["pause", "paused"]))?;
    assert!(
        paused.contains("paused; jobs in progress continue"),
        "{paused}"
    );
    let twice = output(coord(&stage)?.args(["pause", "paused"]))?;
    assert!(twice.contains("is already paused"), "{twice}");
    go_on.cancel();
    // The other sweep is served now, and of this one what had begun is done.
    assert_eq!(stage.finished(other.id, PATIENCE).await?.done, 5);
    let progress = stage
        .until(sweep.id, PATIENCE, |progress| progress.done == 1)
        .await?;
    assert_eq!((progress.ready, progress.blocked), (6, 9), "{progress:?}");
    assert!(!stage.store.has_open_jobs().await?);

    let json = output(coord(&stage)?.args(["resume", "paused", "--json"]))?;
    let json: serde_json::Value = serde_json::from_str(&json)?;
    assert_eq!(
        (&json["state"], &json["changed"]),
        (&"running".into(), &true.into())
    );
    assert_eq!(stage.finished(sweep.id, PATIENCE).await?.done, 16);

    output(coord(&stage)?.args(["cancel", "paused"]))?;
    let said = refused(&stage, &["pause", "paused"])?;
    assert!(
        said.contains("is cancelled") && said.contains("coord retry"),
        "{said}"
    );
    coordinator.stop().await
}

/// A worker that fails seed 0's training job and one evaluation of seed 2 until that is fixed.
fn faulty(stage: &Stage, fixed: &Arc<AtomicBool>) -> ScriptedWorker {
    let fixed = Arc::clone(fixed);
    ScriptedWorker::start(
        &stage.broker,
        "w",
        Arc::new(move |job, _| {
            let fails = match &job.work {
                Work::Train(spec) => spec.seed == 0,
                Work::Eval { spec, case, .. } => spec.seed == 2 && case.to_string() == "r=0.5",
                Work::Noop => false,
            };
            if fails && !fixed.load(Ordering::SeqCst) {
                let chain = vec!["train".to_owned(), "the encoder has no config".to_owned()];
                return Act::Fail(FailureKind::Permanent, chain);
            }
            Act::Complete
        }),
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn retry_command_reruns_failed_jobs() -> Result<()> {
    let stage = Stage::start().await?;
    let sweep = sweep("failing", 0);
    stage
        .store
        .submit(&sweep, matrix(&sweep, 0..3, &CASES))
        .await?;
    let coordinator = stage.serve();
    let fixed = Arc::new(AtomicBool::new(false));
    let _worker = faulty(&stage, &fixed);
    let progress = stage.finished(sweep.id, PATIENCE).await?;
    assert_eq!((progress.failed, progress.done), (5, 7), "{progress:?}");

    let train = train_job(&sweep, 0).to_string();
    for (id, why) in [
        (
            train_job(&sweep, 1).to_string(),
            "is done; results are not computed twice",
        ),
        (eval_job(&sweep, 0, "r=0").to_string(), train.as_str()),
        ("zz".to_owned(), "invalid job id"),
        (
            "ffffffffffffffffffff".to_owned(),
            "no job of sweep `failing`",
        ),
    ] {
        let said = refused(&stage, &["retry", "failing", "--job", &id])?;
        assert!(said.contains(why), "{said}");
    }
    assert_eq!(stage.store.progress(sweep.id).await?, progress);

    fixed.store(true, Ordering::SeqCst);
    let json = output(coord(&stage)?.args(["retry", "failing", "--job", &train[..13], "--json"]))?;
    let json: serde_json::Value = serde_json::from_str(&json)?;
    assert_eq!(json["retried"]["train"], 1);
    assert_eq!(json["retried"]["eval"], 3);
    assert_eq!(stage.finished(sweep.id, PATIENCE).await?.failed, 1);
    let rest = output(coord(&stage)?.args(["retry", "failing", "--failed"]))?;
    assert!(rest.contains("1 evaluation job will run again"), "{rest}");
    assert_eq!(stage.finished(sweep.id, PATIENCE).await?.done, 12);
    let nothing = output(coord(&stage)?.args(["retry", "failing"]))?;
    assert!(nothing.contains("nothing to retry"), "{nothing}");

    // A cancelled sweep is reopened entirely or not at all.
    let other = halfheard_e2e::sweeps::sweep("stopped", 0);
    stage
        .store
        .submit(&other, matrix(&other, 3..4, &CASES))
        .await?;
    output(coord(&stage)?.args(["cancel", "stopped"]))?;
    if stage.store.progress(other.id).await?.cancelled > 0 {
        let said = refused(&stage, &["retry", "stopped", "--failed"])?;
        assert!(said.contains("is cancelled"), "{said}");
    }
    output(coord(&stage)?.args(["retry", "stopped"]))?;
    assert_eq!(stage.finished(other.id, PATIENCE).await?.done, 4);
    coordinator.stop().await
}

/// Two training and four evaluation jobs.
const TOLD: &str = r#"
        name = "told"
        methods = ["almt"]
        seeds = [0, 1]
        rates = [0.0, 0.5]
        epochs = 2
        [datasets.mosi]
        file = "tiny.safetensors"
        [encoders.en]
        path = "tiny-encoder"
        [hyper.almt]
        batch_size = 16
        width = 16
    "#;

/// `coord submit` of a spec with failed jobs says how many, why, and what to do, and exits like `--watch`.
#[tokio::test(flavor = "multi_thread")]
async fn submit_reports_failed_jobs_of_the_spec() -> Result<()> {
    let stage = Stage::start().await?;
    Tiny::make(stage.data_dir(), 32)?;
    let spec = stage.data_dir().join("spec.toml");
    let text = TOLD;
    std::fs::write(&spec, text)?;
    let spec_path = spec.display().to_string();
    let submit = |more: &[&str]| {
        let args: Vec<&str> = ["submit", &spec_path].iter().chain(more).copied().collect();
        run(&stage, &args)
    };
    let said = |output: &Output| {
        String::from_utf8_lossy(&output.stdout).into_owned()
            + &String::from_utf8_lossy(&output.stderr)
    };
    let first = submit(&[])?;
    assert_eq!(first.status.code(), Some(0), "{}", said(&first));
    let fixed = Arc::new(AtomicBool::new(false));
    let coordinator = stage.serve();
    let _worker = faulty(&stage, &fixed);
    let id = stage.store.find_sweep("told").await?.id;
    let progress = stage.finished(id, PATIENCE).await?;
    assert_eq!((progress.failed, progress.done), (3, 3), "{progress:?}");

    let again = submit(&[])?;
    assert_eq!(again.status.code(), Some(3), "{}", said(&again));
    let text_said = said(&again);
    assert!(
        text_said.contains("3 jobs failed: the encoder has no config"),
        "{text_said}"
    );
    assert!(text_said.contains("coord retry"), "{text_said}");
    let json = submit(&["--json"])?;
    assert_eq!(json.status.code(), Some(3));
    let json: serde_json::Value = serde_json::from_slice(&json.stdout)?;
    assert_eq!(json["progress"]["failed"], 3);
    assert_eq!(json["failures"][0]["cause"], "the encoder has no config");
    let watched = submit(&["--watch"])?;
    assert_eq!(watched.status.code(), Some(3), "{}", said(&watched));

    // A new priority keeps the sweep.
    fixed.store(true, Ordering::SeqCst);
    std::fs::write(
        &spec,
        text.replace("epochs = 2", "epochs = 2\n        priority = 5"),
    )?;
    let last = submit(&["--retry", "--watch"])?;
    assert_eq!(last.status.code(), Some(0), "{}", said(&last));
    let text_said = said(&last);
    assert!(text_said.contains("priority 5 (was 0)"), "{text_said}");
    assert!(
        text_said.contains("1 training job and 2 evaluation jobs will run again"),
        "{text_said}"
    );
    assert_eq!(stage.store.find_sweep("told").await?.terms.priority, 5);
    assert_eq!(stage.store.progress(id).await?.done, 6);
    coordinator.stop().await
}

/// The two evaluations that are left are forecast from the four that were done.
fn forecast_is_of_what_was_measured(planned: &str, json: &serde_json::Value) -> Result<()> {
    assert!(
        planned.contains("measured on cpu (4 evaluations)"),
        "{planned}"
    );
    let open = &json["forecast"]["rows"][0];
    assert_eq!(
        (&open["training_jobs"], &open["evaluation_jobs"]),
        (&0.into(), &2.into())
    );
    assert_eq!(open["evaluation"]["source"]["device"], "cpu", "{open}");
    let hours = json["forecast"]["total"]["device_hours"].as_f64();
    let hours = hours.ok_or_else(|| anyhow::anyhow!("no hours: {json}"))?;
    assert!((hours - 2.0 * 0.5 / 3600.0).abs() < 1e-9, "{hours}");
    Ok(())
}

/// A second sweep with one more rate computes that rate only; `plan` and `submit` say so before and after.
#[tokio::test(flavor = "multi_thread")]
async fn only_new_cells_are_computed_and_said() -> Result<()> {
    let stage = Stage::start().await?;
    Tiny::make(stage.data_dir(), 32)?;
    let spec = stage.data_dir().join("spec.toml");
    std::fs::write(&spec, TOLD)?;
    let path = spec.display().to_string();
    let new = output(coord(&stage)?.args(["plan", &path]))?;
    assert!(new.contains("not submitted yet\n"), "{new}");
    let first = output(coord(&stage)?.args(["submit", &path, "--owner", "ana"]))?;
    assert!(!first.contains("new"), "{first}");
    // The longest are granted first: also while nothing was measured.
    let guessed = "SELECT count(*) FROM job WHERE cost = 0 AND length > 0";
    let trainings = "SELECT count(*) FROM job WHERE kind = 'train'";
    assert_eq!(stage.count(guessed).await?, stage.count(trainings).await?);
    let coordinator = stage.serve();
    let trained = Arc::new(AtomicUsize::new(0));
    let evaluated = Arc::new(AtomicUsize::new(0));
    let _worker = ScriptedWorker::start(
        &stage.broker,
        "w",
        Arc::new({
            let (trained, evaluated) = (Arc::clone(&trained), Arc::clone(&evaluated));
            move |job, _| {
                let counted = match &job.work {
                    Work::Train(_) => &trained,
                    _ => &evaluated,
                };
                counted.fetch_add(1, Ordering::SeqCst);
                Act::Complete
            }
        }),
    );
    let told = stage.store.find_sweep("told").await?;
    assert_eq!(told.terms.owner, "ana");
    assert_eq!(stage.finished(told.id, PATIENCE).await?.done, 6);

    let more = TOLD
        .replace("told", "more")
        .replace("[0.0, 0.5]", "[0.0, 0.5, 0.9]");
    std::fs::write(&spec, more)?;
    let planned = output(coord(&stage)?.args(["plan", &path]))?;
    let shared = "2 of 8 jobs are new; 6 are done already";
    assert!(
        planned.contains(&format!("not submitted yet: {shared}")),
        "{planned}"
    );
    let json = output(coord(&stage)?.args(["plan", &path, "--json"]))?;
    let json: serde_json::Value = serde_json::from_str(&json)?;
    assert_eq!(
        (&json["new_jobs"], &json["shared"]["done"]),
        (&2.into(), &6.into())
    );
    assert_eq!(json["unmet_needs"], serde_json::json!([]));
    forecast_is_of_what_was_measured(&planned, &json)?;
    // What no live worker has is said before anything is submitted.
    let fitted = stage.data_dir().join("fitted.toml");
    let needs = "\n[needs]\nlabel = \"a100\"\n";
    std::fs::write(&fitted, std::fs::read_to_string(&spec)? + needs)?;
    let planned = output(coord(&stage)?.arg("plan").arg(&fitted))?;
    assert!(
        planned.contains("note: no worker has what 8 jobs need: the label `a100`"),
        "{planned}"
    );
    let submitted = output(coord(&stage)?.args(["submit", &path]))?;
    assert!(submitted.contains(shared), "{submitted}");
    let more = stage.store.find_sweep("more").await?;
    assert_eq!(stage.finished(more.id, PATIENCE).await?.done, 8);
    assert_eq!(
        trained.load(Ordering::SeqCst),
        2,
        "nothing is trained twice"
    );
    assert_eq!(evaluated.load(Ordering::SeqCst), 6);

    // What the one does not want any more goes on for the other.
    std::fs::write(
        &spec,
        TOLD.replace("told", "third").replace("[0, 1]", "[0, 1, 2]"),
    )?;
    coordinator.stop().await?;
    let json = output(coord(&stage)?.args(["submit", &path, "--json"]))?;
    let json: serde_json::Value = serde_json::from_str(&json)?;
    assert_eq!(json["new_jobs"]["train"], 1);
    assert_eq!(json["shared"]["done"], 6);
    Ok(())
}

/// Two transactions deadlock; the cancelling one is aborted and retried.
#[tokio::test(flavor = "multi_thread")]
async fn cancel_is_retried_after_a_deadlock() -> Result<()> {
    let stage = Stage::start().await?;
    let sweep = sweep("meets", 0);
    stage
        .store
        .submit(&sweep, matrix(&sweep, 0..8, &CASES))
        .await?;
    let mut ids: Vec<_> = (0..8).map(|seed| train_job(&sweep, seed).0).collect();
    ids.sort_unstable();
    let (first, last) = (ids[0], ids[7]);
    // The first to wait is the first to check for a deadlock: late enough that there is one.
    stage
        .postgres
        .execute("ALTER SYSTEM SET deadlock_timeout = '5s'")
        .await?;
    stage.postgres.execute("SELECT pg_reload_conf()").await?;
    let mut other = stage.store.pool().begin().await?;
    let lock = "UPDATE job SET last_error = 'held' WHERE id = $1";
    sqlx::query("SET LOCAL deadlock_timeout = '1h'")
        .execute(&mut *other)
        .await?;
    sqlx::query(lock).bind(last).execute(&mut *other).await?;
    let cancelling = tokio::spawn({
        let (store, sweep) = (stage.store.clone(), sweep.id);
        async move { store.cancel(sweep).await }
    });
    let waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'";
    until(&stage, waits, 1).await?;
    sqlx::query(lock).bind(first).execute(&mut *other).await?;
    other.commit().await?;
    let cancelled = tokio::time::timeout(PATIENCE, cancelling).await???;
    assert_eq!(cancelled.jobs, 32);
    let row = stage.store.find_sweep("meets").await?;
    assert_eq!(row.state, SweepState::Cancelled);
    let deadlocks = stage
        .count("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()")
        .await?;
    ensure!(deadlocks >= 1, "the two never met");
    let state: JobState = sqlx::query_scalar("SELECT state FROM job WHERE id = $1")
        .bind(last)
        .fetch_optional(stage.store.pool())
        .await?
        .context("the job is there")?;
    assert_eq!(state, JobState::Cancelled);
    Ok(())
}

/// More failures than the sweep allows pause it: what is at work ends, nothing else begins, and `status` says why. With
/// another limit it goes on.
#[tokio::test(flavor = "multi_thread")]
async fn sweep_with_too_many_failures_pauses_itself() -> Result<()> {
    let stage = Stage::start().await?;
    let mut strict = sweep("strict", 0);
    strict.terms.max_failures = Some(Some(1));
    stage
        .store
        .submit(&strict, matrix(&strict, 0..8, &["r=0"]))
        .await?;
    let _coordinator = stage.serve();
    let _worker = ScriptedWorker::start(
        &stage.broker,
        "w",
        Arc::new(|job, _| match &job.work {
            Work::Train(spec) if spec.seed == 0 => {
                Act::Fail(FailureKind::Permanent, vec!["no such thing".to_owned()])
            }
            _ => Act::Delay(Duration::from_secs(1)),
        }),
    );
    until(
        &stage,
        "SELECT count(*) FROM sweep WHERE state = 'paused'",
        1,
    )
    .await?;
    stage
        .until(strict.id, PATIENCE, |progress| progress.running == 0)
        .await?;
    let open = "SELECT count(*) FROM job WHERE state IN ('ready', 'blocked')";
    let left = stage.count(open).await?;
    ensure!(left > 0, "it was not paused in time");
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(stage.count(open).await?, left, "nothing begins");
    let status = output(coord(&stage)?.args(["status", "strict"]))?;
    ensure!(
        status.contains("2 jobs failed, more than 1"),
        "the reason is missing: {status}"
    );
    output(coord(&stage)?.args(["set", "strict", "--max-failures", "none"]))?;
    output(coord(&stage)?.args(["resume", "strict"]))?;
    let progress = stage.finished(strict.id, PATIENCE).await?;
    assert_eq!((progress.done, progress.failed), (14, 2));
    Ok(())
}
