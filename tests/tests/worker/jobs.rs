//! The real worker on a real broker: trains and evaluates small models, shuts down, is killed,
//! fails, is cancelled.

use anyhow::{Context as _, Result, ensure};
use halfheard_e2e::{
    PATIENCE,
    dump::{assert_same, dump, features},
    programs::{Process, output, worker},
    stage::Stage,
    sweeps::{noops, sweep},
    tiny::{Tiny, jobs},
};
use halfheard_shared::{
    artifacts::{ArtifactStore, Key},
    features::{Features, MAX_BYTES},
    wire::{Heartbeat, TrainSpec},
};
use halfheard_store::submit::NewSweep;
use std::time::{Duration, Instant};

const CASES: [&str; 3] = ["r=0", "r=0.5", "missing=la"];

async fn submit(stage: &Stage, sweep: &NewSweep, specs: &[TrainSpec]) -> Result<()> {
    let mut all = Vec::new();
    for spec in specs {
        all.extend(jobs(sweep, spec, &CASES)?);
    }
    stage.store.submit(sweep, all).await?;
    Ok(())
}

/// Waits until a query counts at least `min`.
async fn until(stage: &Stage, query: &'static str, min: i64) -> Result<()> {
    let since = Instant::now();
    while stage.count(query).await? < min {
        ensure!(since.elapsed() < PATIENCE, "`{query}` stays below {min}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}

/// The heartbeats of all workers.
async fn heartbeats(stage: &Stage) -> Result<Vec<Heartbeat>> {
    use futures::TryStreamExt as _;
    let bucket = stage.broker.workers().await?;
    let keys: Vec<String> = bucket.keys().await?.try_collect().await?;
    let mut heartbeats = Vec::new();
    for key in keys {
        if let Some(json) = bucket.get(&key).await? {
            heartbeats.push(serde_json::from_slice(&json)?);
        }
    }
    Ok(heartbeats)
}

/// The hash of the checkpoint that produced LNLN's features.
async fn checkpoint_of_lnln(stage: &Stage) -> Result<String> {
    let query = "SELECT c.blake3 FROM checkpoint c JOIN job j ON j.id = c.job
                 WHERE j.method = 'lnln' AND c.criterion = 'mae'";
    Ok(sqlx::query_scalar(query)
        .fetch_one(stage.store.pool())
        .await?)
}

async fn artifacts(stage: &Stage) -> Result<ArtifactStore> {
    let url = ArtifactStore::url_of(&stage.data_dir().join("artifacts"));
    Ok(ArtifactStore::open(&url, None).await?)
}

#[tokio::test(flavor = "multi_thread")]
async fn models_are_trained_and_evaluated_and_their_loss_falls() -> Result<()> {
    let stage = Stage::start().await?;
    let tiny = Tiny::make(stage.data_dir(), 96)?;
    let sweep = sweep("learns", 0);
    let specs = [tiny.spec("lnln", 1111, 6)?, tiny.spec("almt", 1111, 6)?];
    submit(&stage, &sweep, &specs).await?;
    let _coordinator = stage.serve();
    let worker = Process::spawn(worker(&stage)?.args(["--slots", "2", "--name", "two"]))?;
    let progress = stage.finished(sweep.id, PATIENCE).await?;
    assert_eq!((progress.done, progress.failed), (8, 0));
    assert_eq!(stage.count("SELECT count(*) FROM conflict").await?, 0);
    assert_eq!(stage.count("SELECT count(*) FROM epoch_log").await?, 12);
    // Five criteria by three cases by two models.
    assert_eq!(stage.count("SELECT count(*) FROM evaluation").await?, 30);
    let falls = "SELECT count(*) FROM epoch_log a JOIN epoch_log b USING (job)
                 WHERE a.epoch = 1 AND b.epoch = 6
                   AND (b.losses->>'loss')::float8 < (a.losses->>'loss')::float8";
    assert_eq!(stage.count(falls).await?, 2, "the losses fall");
    // LNLN stores the features of Figure 8 at each rate; ALMT has none.
    let stored = features(stage.data_dir())?;
    let checkpoint = checkpoint_of_lnln(&stage).await?;
    let [half, complete] = ["r=0.5", "r=0"].map(|case| format!("{checkpoint}-{case}.safetensors"));
    assert!(stored.keys().eq([&half, &complete]), "{:?}", stored.keys());
    let store = artifacts(&stage).await?;
    let mut read = Vec::new();
    for case in ["r=0", "r=0.5"] {
        let key = Key::Features(checkpoint.parse()?, case.parse()?);
        let content = store.get(&key, MAX_BYTES).await?.context("no features")?;
        read.push(Features::from_bytes(&content)?);
    }
    assert!(read.iter().all(|f| (f.samples(), f.width) == (40, 16)));
    assert_ne!(read[0].language, read[0].dominant);
    assert_ne!(read[0].language, read[1].language, "erased differently");
    let workers = heartbeats(&stage).await?;
    let mut names: Vec<&str> = workers.iter().map(|b| b.worker.name.as_str()).collect();
    names.sort_unstable();
    assert_eq!(names, ["two-0", "two-1"]);
    assert!(
        workers
            .iter()
            .all(|b| b.memory_bytes > 1 << 20 && b.pid > 1)
    );
    let status = worker.terminate(PATIENCE)?;
    assert!(status.success(), "{status}");
    assert!(
        heartbeats(&stage).await?.is_empty(),
        "both workers deregistered"
    );
    Ok(())
}

/// Shut down during training twice: the tables equal those of an undisturbed run.
#[tokio::test(flavor = "multi_thread")]
async fn interrupted_training_job_resumes_bit_exactly() -> Result<()> {
    let (mut dumps, mut stored) = (Vec::new(), Vec::new());
    for disturbed in [false, true] {
        let stage = Stage::start().await?;
        let tiny = Tiny::make(stage.data_dir(), 640)?;
        let sweep = sweep("resumes", 0);
        submit(&stage, &sweep, &[tiny.spec("lnln", 1111, 10)?]).await?;
        let _coordinator = stage.serve();
        if disturbed {
            for _ in 0..2 {
                let before = stage.count("SELECT count(*) FROM epoch_log").await?;
                let first = Process::spawn(worker(&stage)?.args(["--save-every", "0.5"]))?;
                until(&stage, "SELECT count(*) FROM epoch_log", before + 2).await?;
                let since = Instant::now();
                let status = first.terminate(PATIENCE)?;
                assert!(status.success(), "{status}");
                println!("exited after {:?}", since.elapsed());
            }
            until(
                &stage,
                "SELECT count(*) FROM attempt WHERE outcome = 'handed_back'",
                2,
            )
            .await?;
            let resumed = "SELECT count(*) FROM attempt WHERE resumed_after_epoch > 0";
            assert!(stage.count(resumed).await? >= 1);
        }
        let last = Process::spawn(&mut worker(&stage)?)?;
        assert_eq!(stage.finished(sweep.id, PATIENCE).await?.done, 4);
        assert_eq!(stage.count("SELECT count(*) FROM conflict").await?, 0);
        let store = artifacts(&stage).await?;
        let job = jobs(&sweep, &tiny.spec("lnln", 1111, 10)?, &[])?[0].id;
        let since = Instant::now();
        while store.size(&Key::Resume(job)).await?.is_some() {
            ensure!(since.elapsed() < PATIENCE, "the saved state is not deleted");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        last.terminate(PATIENCE)?;
        dumps.push(dump(&stage.store).await?);
        stored.push(features(stage.data_dir())?);
    }
    assert_same(&dumps[0], &dumps[1]);
    assert_eq!(stored[0].len(), 2);
    assert!(stored[0] == stored[1], "the features are the same");
    Ok(())
}

/// An evaluation whose features cannot be stored reports its result once they are.
#[tokio::test(flavor = "multi_thread")]
async fn features_are_stored_before_the_result_is_reported() -> Result<()> {
    let stage = Stage::start().await?;
    let tiny = Tiny::make(stage.data_dir(), 32)?;
    let sweep = sweep("features", 0);
    submit(&stage, &sweep, &[tiny.spec("lnln", 1, 1)?]).await?;
    // A file in place of the folder: the store cannot write.
    let place = stage.data_dir().join("artifacts/features");
    std::fs::create_dir_all(stage.data_dir().join("artifacts"))?;
    std::fs::write(&place, "in the way")?;
    let _coordinator = stage.serve();
    let worker = Process::spawn(&mut worker(&stage)?)?;
    let done = "SELECT count(*) FROM job WHERE kind = 'eval' AND state = 'done'";
    // Cases of missing modalities have no features.
    until(&stage, done, 1).await?;
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(stage.count(done).await?, 1);
    std::fs::remove_file(&place)?;
    assert_eq!(stage.finished(sweep.id, PATIENCE).await?.done, 4);
    let first = features(stage.data_dir())?;
    assert_eq!(first.len(), 2);
    worker.terminate(PATIENCE)?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn failure_is_recorded_with_its_causes() -> Result<()> {
    let stage = Stage::start().await?;
    let tiny = Tiny::make(stage.data_dir(), 32)?;
    let sweep = sweep("fails", 0);
    let mut wrong = tiny.spec("lnln", 1, 2)?;
    wrong.hyper = wrong.hyper.replace("\"tokens\":4", "\"tokens\":0");
    let mut diverges = tiny.spec("lnln", 3, 50)?;
    // Each step multiplies every weight by -99.
    diverges.hyper = diverges
        .hyper
        .replace("\"learning_rate\":0.001", "\"learning_rate\":1.0")
        .replace("\"weight_decay\":0.0001", "\"weight_decay\":100.0");
    let good = tiny.spec("lnln", 4, 1)?;
    submit(&stage, &sweep, &[wrong, diverges, good]).await?;
    let _coordinator = stage.serve();
    let worker = Process::spawn(&mut worker(&stage)?)?;
    let progress = stage.finished(sweep.id, PATIENCE).await?;
    // The good one with its three cases; both others with theirs.
    assert_eq!((progress.done, progress.failed), (4, 8));
    let errors = |seed: i64| {
        let query = "SELECT array_to_string(a.errors, ' | ') FROM attempt a JOIN job j ON j.id = a.job
                     WHERE j.kind = 'train' AND j.seed = $1 AND a.outcome = 'failed' ORDER BY a.ended";
        sqlx::query_scalar::<_, String>(query)
            .bind(seed)
            .fetch_all(stage.store.pool())
    };
    let wrong = errors(1).await?;
    assert_eq!(wrong.len(), 1, "a permanent failure is not retried");
    assert!(
        wrong[0].contains("train lnln on mosi, seed 1")
            && wrong[0].contains("`tokens` of lnln cannot be 0"),
        "{wrong:?}"
    );
    let diverges = errors(3).await?;
    assert_eq!(
        diverges.len(),
        1,
        "training is deterministic: it would diverge again"
    );
    let mentions = diverges[0].matches("not finite").count();
    assert_eq!(mentions, 1, "{diverges:?}");
    worker.terminate(PATIENCE)?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn cancelled_training_job_stops_and_keeps_its_state() -> Result<()> {
    let stage = Stage::start().await?;
    let tiny = Tiny::make(stage.data_dir(), 640)?;
    let sweep = sweep("cancelled", 0);
    let spec = tiny.spec("lnln", 1, 5000)?;
    submit(&stage, &sweep, std::slice::from_ref(&spec)).await?;
    let _coordinator = stage.serve();
    let worker = Process::spawn(&mut worker(&stage)?)?;
    until(&stage, "SELECT count(*) FROM epoch_log", 1).await?;
    let since = Instant::now();
    while heartbeats(&stage).await?.iter().all(|b| b.doing.is_none()) {
        ensure!(since.elapsed() < PATIENCE, "no heartbeat shows the job");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    output(halfheard_e2e::programs::coord(&stage)?.args(["cancel", "cancelled"]))?;
    assert_eq!(stage.store.progress(sweep.id).await?.cancelled, 4);
    let idle = "no worker becomes idle";
    let since = Instant::now();
    while heartbeats(&stage).await?.iter().any(|b| b.doing.is_some()) {
        ensure!(since.elapsed() < PATIENCE, idle);
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let job = jobs(&sweep, &spec, &[])?[0].id;
    let state = artifacts(&stage).await?.size(&Key::Resume(job)).await?;
    assert!(state.is_some(), "it can be resumed");
    worker.terminate(PATIENCE)?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn worker_with_once_exits_when_idle() -> Result<()> {
    let stage = Stage::start().await?;
    let sweep = sweep("nothing", 0);
    stage.store.submit(&sweep, noops(&sweep, 3000)).await?;
    let _coordinator = stage.serve();
    let worker = Process::spawn(worker(&stage)?.args(["--once", "2"]))?;
    assert_eq!(stage.finished(sweep.id, PATIENCE).await?.done, 3000);
    let status = worker.wait(PATIENCE)?;
    ensure!(status.success(), "{status}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn password_in_a_flag_exits_with_usage_code() -> Result<()> {
    let stage = Stage::start().await?;
    let mut worker = worker(&stage)?;
    let refused = worker
        .args(["--nats-url", "nats://ann:hush@host"])
        .output()?;
    assert_eq!(refused.status.code(), Some(2), "a password in a flag");
    let log = String::from_utf8(refused.stderr)?;
    assert!(
        log.contains("HALFHEARD_NATS_URL") && !log.contains("hush"),
        "{log}"
    );
    Ok(())
}
