//! A worker that lacks what its jobs need, or whose device breaks, beside a healthy one: no job
//! fails, `coord status` shows the fault, and the worker resumes once it has passed.

use anyhow::{Context as _, Result, ensure};
use futures::StreamExt as _;
use halfheard_coordinator::commands::watch::live_workers;
use halfheard_e2e::{
    programs::{Process, coord, output, worker},
    stage::Stage,
    sweeps::sweep,
    tiny::{Tiny, jobs},
    worker::{Act, Profile, Script, ScriptedWorker},
};
use halfheard_shared::{
    artifacts::ArtifactStore,
    dataset::DataFolder,
    wire::{FaultKind, Heartbeat, TrainSpec, Trouble, VERSION},
};
use halfheard_store::submit::NewSweep;
use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    time::{Duration, Instant},
};

const PATIENCE: Duration = Duration::from_secs(180);
const CASES: [&str; 2] = ["r=0", "missing=la"];

async fn submit(stage: &Stage, sweep: &NewSweep, specs: &[TrainSpec]) -> Result<()> {
    let mut all = Vec::new();
    for spec in specs {
        all.extend(jobs(sweep, spec, &CASES)?);
    }
    stage.store.submit(sweep, all).await?;
    Ok(())
}

/// Training jobs whose files are not at the paths in the spec.
fn elsewhere(tiny: &Tiny, seeds: impl IntoIterator<Item = u64>) -> Result<Vec<TrainSpec>> {
    let mut specs = Vec::new();
    for seed in seeds {
        let mut spec = tiny.spec("almt", seed, 1)?;
        spec.data.path = "/nowhere/data".to_owned();
        spec.encoder.path = "/nowhere/encoder".to_owned();
        specs.push(spec);
    }
    Ok(specs)
}

/// Installs dataset and encoder in a worker's data folder.
fn install(tiny: &Tiny, folder: &Path) -> Result<()> {
    let (data, encoder) = (tiny.data()?, tiny.encoder()?);
    let blob = DataFolder::new(folder).blob(&data.blake3);
    std::fs::create_dir_all(blob.parent().context("a folder")?)?;
    std::fs::copy(&data.path, blob)?;
    let own = folder.join("encoders").join(&encoder.blake3);
    std::fs::create_dir_all(&own)?;
    for entry in std::fs::read_dir(&encoder.path)? {
        let entry = entry?;
        std::fs::copy(entry.path(), own.join(entry.file_name()))?;
    }
    Ok(())
}

/// A worker with its own data folder and the stage's artifact store.
fn node(stage: &Stage, name: &str, folder: &Path) -> Result<Command> {
    let mut command = worker(stage)?;
    let artifacts = ArtifactStore::url_of(&stage.data_dir().join("artifacts"));
    command
        .args(["--name", name])
        .env("HALFHEARD_DATA_DIR", folder)
        .env("HALFHEARD_ARTIFACTS", artifacts);
    Ok(command)
}

/// Waits until a worker's heartbeat satisfies a condition.
async fn until_worker(
    stage: &Stage,
    name: &str,
    what: &str,
    condition: impl Fn(&Heartbeat) -> bool,
) -> Result<Heartbeat> {
    let since = Instant::now();
    loop {
        let beats = live_workers(&stage.broker).await;
        let beat = beats.into_iter().find(|beat| beat.worker.name == name);
        match beat {
            Some(beat) if condition(&beat) => return Ok(beat),
            beat => ensure!(
                since.elapsed() < PATIENCE,
                "{name} does not {what}: {beat:?}"
            ),
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Waits until a worker is suspended for a fault of this kind.
async fn suspended(stage: &Stage, name: &str, kind: FaultKind) -> Result<Trouble> {
    let beat = until_worker(stage, name, "suspend", |beat| {
        let trouble = beat.trouble.as_ref();
        trouble.is_some_and(|trouble| trouble.sits_out && trouble.fault.kind == kind)
    });
    beat.await?.trouble.context("no trouble")
}

fn status(stage: &Stage, args: &[&str]) -> Result<String> {
    output(coord(stage)?.arg("status").args(args))
}

/// Waits until `coord status` says all of `parts`. A worker that just tries a job again is at work
/// for a moment, which no worker is when nobody can do it.
async fn until_status_says(stage: &Stage, args: &[&str], parts: &[&str]) -> Result<()> {
    let since = Instant::now();
    loop {
        let text = status(stage, args)?;
        if parts.iter().all(|part| text.contains(part)) {
            return Ok(());
        }
        ensure!(since.elapsed() < PATIENCE, "not {parts:?}: {text}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// Waits until every job is done, without a failure, and by no worker but `good`.
async fn all_done(stage: &Stage, sweep: &NewSweep, jobs: i64) -> Result<()> {
    let progress = stage.finished(sweep.id, PATIENCE).await?;
    assert_eq!((progress.done, progress.failed), (jobs, 0));
    let failures = "SELECT count(*) FROM attempt WHERE outcome = 'failed'";
    assert_eq!(stage.count(failures).await?, 0);
    assert_eq!(stage.count("SELECT sum(failures) FROM job").await?, 0);
    let others = "SELECT count(*) FROM attempt
                  WHERE outcome = 'done' AND worker NOT LIKE 'good%'";
    assert_eq!(stage.count(others).await?, 0);
    Ok(())
}

/// Eight training and sixteen evaluation jobs, on a node without the data and one with it.
#[tokio::test(flavor = "multi_thread")]
async fn node_without_data_declines_its_jobs() -> Result<()> {
    let stage = Stage::start().await?;
    let tiny = Tiny::make(stage.data_dir(), 32)?;
    let sweep = sweep("one-bad-node", 0);
    submit(&stage, &sweep, &elsewhere(&tiny, 1..=8)?).await?;
    let _coordinator = stage.serve();
    let (bad, good) = (tempfile::tempdir()?, tempfile::tempdir()?);
    install(&tiny, good.path())?;
    // The bad node starts alone, so it certainly takes a job.
    let _bad = Process::spawn(&mut node(&stage, "bad", bad.path())?)?;
    let trouble = suspended(&stage, "bad-0", FaultKind::Dataset).await?;
    assert_eq!(trouble.fault.what, "dataset mosi");
    assert!(trouble.fault.chain[0].contains(&tiny.data()?.blake3));
    until_status_says(&stage, &[], &["bad-0", "cannot read dataset mosi"]).await?;
    let _good = Process::spawn(&mut node(&stage, "good", good.path())?)?;
    all_done(&stage, &sweep, 24).await?;
    // JSON shows it too, and every declined job is recorded.
    let json: serde_json::Value = serde_json::from_str(&status(&stage, &["--json"])?)?;
    let workers = json["workers"].as_array().context("workers")?;
    let named = workers
        .iter()
        .find(|worker| worker["worker"]["name"] == "bad-0");
    let named = named.context("no bad node")?;
    assert_eq!(named["trouble"]["fault"]["kind"], "dataset", "{json}");
    assert!(json["nobody_can"].is_null(), "the good worker can");
    let declined = "SELECT count(*) FROM declined
                    WHERE worker = 'bad-0' AND fault = 'dataset'
                      AND errors[1] = 'cannot read dataset mosi'";
    assert!(stage.count(declined).await? >= 1);
    Ok(())
}

/// No worker has the dataset: no job fails, nothing spins, status says why, and the sweep continues
/// once the dataset is installed.
#[tokio::test(flavor = "multi_thread")]
async fn sweep_waits_while_no_worker_has_the_dataset() -> Result<()> {
    let stage = Stage::start().await?;
    let tiny = Tiny::make(stage.data_dir(), 32)?;
    let sweep = sweep("nowhere", 0);
    submit(&stage, &sweep, &elsewhere(&tiny, 1..=2)?).await?;
    let _coordinator = stage.serve();
    let folder = tempfile::tempdir()?;
    let _worker = Process::spawn(node(&stage, "good", folder.path())?.args(["--slots", "2"]))?;
    for name in ["good-0", "good-1"] {
        suspended(&stage, name, FaultKind::Dataset).await?;
    }
    // The second suspension is longer.
    let since = Instant::now();
    let trouble = loop {
        let trouble = suspended(&stage, "good-0", FaultKind::Dataset).await?;
        if trouble.times >= 2 {
            break trouble;
        }
        ensure!(since.elapsed() < PATIENCE, "{trouble:?}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    };
    assert!(trouble.next_try_ms.is_some());
    until_status_says(&stage, &["nowhere"], &["no worker can read dataset mosi: "]).await?;
    let declined = stage.count("SELECT count(*) FROM declined").await?;
    assert!(declined < 40, "declined {declined} times in a few seconds");
    assert_eq!(stage.store.progress(sweep.id).await?.failed, 0);
    install(&tiny, folder.path())?;
    all_done(&stage, &sweep, 6).await?;
    until_worker(&stage, "good-0", "recover", |beat| beat.trouble.is_none()).await?;
    Ok(())
}

/// Submitting a spec again with other paths is enough for jobs that wait for their files.
#[tokio::test(flavor = "multi_thread")]
async fn new_paths_of_a_submission_reach_the_workers() -> Result<()> {
    let stage = Stage::start().await?;
    let tiny = Tiny::make(stage.data_dir(), 32)?;
    let sweep = sweep("moved", 0);
    submit(&stage, &sweep, &elsewhere(&tiny, 1..=2)?).await?;
    let _coordinator = stage.serve();
    let _worker = Process::spawn(&mut node(&stage, "good", stage.data_dir())?)?;
    suspended(&stage, "good-0", FaultKind::Dataset).await?;
    let here = [tiny.spec("almt", 1, 1)?, tiny.spec("almt", 2, 1)?];
    submit(&stage, &sweep, &here).await?;
    all_done(&stage, &sweep, 6).await
}

/// Jobs that no worker can do do not block others, even if they are more than the in-flight window
/// and belong to an older sweep of higher priority.
#[tokio::test(flavor = "multi_thread")]
async fn impossible_jobs_do_not_block_others() -> Result<()> {
    let stage = Stage::start().await?;
    let tiny = Tiny::make(stage.data_dir(), 32)?;
    let impossible = sweep("impossible", 5);
    submit(&stage, &impossible, &elsewhere(&tiny, 1..=20)?).await?;
    let _coordinator = stage.serve();
    let _worker = Process::spawn(&mut node(&stage, "good", stage.data_dir())?)?;
    suspended(&stage, "good-0", FaultKind::Dataset).await?;
    // The same trainings at other paths would make the others possible, too: more epochs are other ones.
    let possible = halfheard_e2e::sweeps::sweep("possible", 0);
    submit(&stage, &possible, &[tiny.spec("almt", 1, 2)?]).await?;
    let progress = stage.finished(possible.id, PATIENCE).await?;
    assert_eq!((progress.done, progress.failed), (3, 0));
    let progress = stage.store.progress(impossible.id).await?;
    assert_eq!((progress.done, progress.failed), (0, 0));
    Ok(())
}

/// Two artifact stores: one worker could not evaluate what the other trained, and gets no jobs.
#[tokio::test(flavor = "multi_thread")]
async fn worker_with_another_artifact_store_is_refused() -> Result<()> {
    let stage = Stage::start().await?;
    let tiny = Tiny::make(stage.data_dir(), 32)?;
    let sweep = sweep("two-stores", 0);
    let all = jobs(&sweep, &tiny.spec("almt", 1, 1)?, &CASES)?;
    let _coordinator = stage.serve();
    let _good = Process::spawn(&mut node(&stage, "good", stage.data_dir())?)?;
    let claimed = "SELECT count(*) FROM installation WHERE store IS NOT NULL";
    let since = Instant::now();
    while stage.count(claimed).await? == 0 {
        ensure!(
            since.elapsed() < PATIENCE,
            "the first worker's store is not taken"
        );
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let other = tempfile::tempdir()?;
    let other_url = ArtifactStore::url_of(other.path());
    let mut command = node(&stage, "bad", stage.data_dir())?;
    command.env("HALFHEARD_ARTIFACTS", &other_url);
    let _bad = Process::spawn(&mut command)?;
    let trouble = suspended(&stage, "bad-0", FaultKind::Method).await?;
    let text = trouble.fault.to_string();
    for url in [
        ArtifactStore::url_of(&stage.data_dir().join("artifacts")),
        other_url,
    ] {
        let id = ArtifactStore::open(&url, None).await?.id().await?;
        ensure!(text.contains(&id[..8]), "{text} does not name {id}");
    }
    stage.store.submit(&sweep, all).await?;
    all_done(&stage, &sweep, 3).await?;
    let bad = "SELECT count(*) FROM attempt WHERE worker = 'bad-0'";
    assert_eq!(stage.count(bad).await?, 0);
    Ok(())
}

/// One worker's artifact store breaks and is repaired.
#[tokio::test(flavor = "multi_thread")]
async fn worker_with_a_broken_artifact_store_declines_and_recovers() -> Result<()> {
    let stage = Stage::start().await?;
    let tiny = Tiny::make(stage.data_dir(), 32)?;
    let store = stage.data_dir().join("artifacts");
    std::fs::create_dir_all(&store)?;
    // A link of its own lets the bad worker's store break alone.
    let link: PathBuf = stage.data_dir().join("link");
    std::os::unix::fs::symlink(&store, &link)?;
    let mut command = node(&stage, "bad", stage.data_dir())?;
    command.env("HALFHEARD_ARTIFACTS", ArtifactStore::url_of(&link));
    let _bad = Process::spawn(&mut command)?;
    until_worker(&stage, "bad-0", "live", |beat| beat.trouble.is_none()).await?;
    std::fs::remove_file(&link)?;
    std::fs::write(&link, "not a folder")?;
    let sweep = sweep("store", 0);
    let specs = [tiny.spec("almt", 1, 1)?, tiny.spec("almt", 2, 1)?];
    submit(&stage, &sweep, &specs).await?;
    let _coordinator = stage.serve();
    let trouble = suspended(&stage, "bad-0", FaultKind::Store).await?;
    assert_eq!(trouble.fault.deed(), "use the artifact store");
    let good = Process::spawn(&mut node(&stage, "good", stage.data_dir())?)?;
    all_done(&stage, &sweep, 6).await?;
    std::fs::remove_file(&link)?;
    std::os::unix::fs::symlink(&store, &link)?;
    until_worker(&stage, "bad-0", "recover", |beat| beat.trouble.is_none()).await?;
    // Recovered, it processes jobs.
    good.terminate(PATIENCE)?;
    let again = halfheard_e2e::sweeps::sweep("again", 0);
    submit(&stage, &again, &[tiny.spec("almt", 3, 1)?]).await?;
    let progress = stage.finished(again.id, PATIENCE).await?;
    assert_eq!((progress.done, progress.failed), (3, 0));
    Ok(())
}

/// Neither the artifact store nor the data folder can be used at the start: status shows the worker
/// and why, and it starts to work once it can.
#[tokio::test(flavor = "multi_thread")]
async fn worker_waiting_for_its_artifact_store_is_visible() -> Result<()> {
    let stage = Stage::start().await?;
    let tiny = Tiny::make(stage.data_dir(), 32)?;
    let sweep = sweep("waits", 0);
    submit(&stage, &sweep, &[tiny.spec("almt", 1, 1)?]).await?;
    let _coordinator = stage.serve();
    let folder = stage.data_dir().join("node");
    let store = stage.data_dir().join("artifacts");
    std::fs::write(&folder, "not a folder")?;
    std::fs::write(&store, "not a folder")?;
    let _worker = Process::spawn(&mut node(&stage, "good", &folder)?)?;
    let trouble = suspended(&stage, "good-0", FaultKind::DataFolder).await?;
    assert!(trouble.fault.chain[0].contains("node"), "{trouble:?}");
    std::fs::remove_file(&folder)?;
    suspended(&stage, "good-0", FaultKind::Store).await?;
    until_status_says(&stage, &[], &["no worker can use the artifact store: "]).await?;
    assert_eq!(stage.count("SELECT count(*) FROM attempt").await?, 0);
    std::fs::remove_file(&store)?;
    all_done(&stage, &sweep, 3).await
}

/// A method and a hyper-parameter of another release.
#[tokio::test(flavor = "multi_thread")]
async fn worker_without_the_method_declines() -> Result<()> {
    let stage = Stage::start().await?;
    let tiny = Tiny::make(stage.data_dir(), 32)?;
    let sweep = sweep("newer", 0);
    let mut newer = tiny.spec("almt", 1, 1)?;
    newer.method = "almt-2030".to_owned();
    let mut changed = tiny.spec("almt", 2, 1)?;
    changed.hyper = changed.hyper.replace("\"tokens\":4", "\"tokenz\":4");
    submit(&stage, &sweep, &[newer, changed]).await?;
    let _coordinator = stage.serve();
    let old = Process::spawn(&mut node(&stage, "old", stage.data_dir())?)?;
    let trouble = suspended(&stage, "old-0", FaultKind::Method).await?;
    assert!(trouble.fault.to_string().contains("same release"));
    // What it says that it does not have, it does not get.
    let granted = "SELECT count(*) FROM attempt a JOIN job j ON j.id = a.job
                   WHERE j.method = 'almt-2030'";
    assert_eq!(stage.count(granted).await?, 0);
    let mut newer = Profile::named("good");
    newer.methods.push("almt-2030".to_owned());
    let script: Script = Arc::new(|_, _| Act::Complete);
    let _newer = ScriptedWorker::with(&stage.broker, newer, script);
    all_done(&stage, &sweep, 6).await?;
    old.terminate(PATIENCE)?;
    Ok(())
}

/// Answers in the wire format of another release: status says that no worker can decode them.
#[tokio::test(flavor = "multi_thread")]
async fn jobs_of_another_release_are_reported() -> Result<()> {
    let stage = Stage::start().await?;
    let client = stage.broker.client().clone();
    let mut asks = client.subscribe(stage.broker.names().asks()).await?;
    let _newer = tokio::spawn(async move {
        while let Some(ask) = asks.next().await {
            if let Some(reply) = ask.reply {
                let _ = client.publish(reply, vec![VERSION + 1, 0, 0].into()).await;
            }
        }
    });
    let _worker = Process::spawn(&mut node(&stage, "old", stage.data_dir())?)?;
    suspended(&stage, "old-0", FaultKind::Method).await?;
    let parts = [
        "no worker can run jobs of another release: ",
        "same release",
    ];
    until_status_says(&stage, &[], &parts).await
}

/// A broken device ends its process; the next process continues the suspension.
#[tokio::test(flavor = "multi_thread")]
async fn broken_device_fails_no_jobs() -> Result<()> {
    let stage = Stage::start().await?;
    let tiny = Tiny::make(stage.data_dir(), 32)?;
    let broken = stage.data_dir().join("broken");
    std::fs::write(&broken, "")?;
    let sweep = sweep("device", 0);
    let specs: Vec<TrainSpec> = (1..=3)
        .map(|seed| tiny.spec("almt", seed, 1))
        .collect::<Result<_>>()?;
    submit(&stage, &sweep, &specs).await?;
    let _coordinator = stage.serve();
    let mut command = node(&stage, "bad", stage.data_dir())?;
    command.env("HALFHEARD_INJECT_DEVICE", &broken);
    let _bad = Process::spawn(&mut command)?;
    let first = until_worker(&stage, "bad-0", "break", |beat| beat.trouble.is_some()).await?;
    let trouble = first.trouble.context("no trouble")?;
    assert_eq!(trouble.fault.kind, FaultKind::Device);
    assert!(trouble.fault.to_string().contains("ECC"), "{trouble:?}");
    // Another process, with a longer suspension for the same fault.
    let later = until_worker(&stage, "bad-0", "break again", |beat| {
        beat.pid != first.pid
            && beat
                .trouble
                .as_ref()
                .is_some_and(|t| t.times > trouble.times)
    });
    let later = later.await?.trouble.context("no trouble")?;
    assert_eq!(later.since_ms, trouble.since_ms);
    let good = Process::spawn(&mut node(&stage, "good", stage.data_dir())?)?;
    all_done(&stage, &sweep, 9).await?;
    good.terminate(PATIENCE)?;
    // Repaired, it works again after its suspension.
    std::fs::remove_file(&broken)?;
    let again = halfheard_e2e::sweeps::sweep("again", 0);
    submit(&stage, &again, &[tiny.spec("almt", 9, 1)?]).await?;
    let progress = stage.finished(again.id, PATIENCE).await?;
    assert_eq!((progress.done, progress.failed), (3, 0));
    until_worker(&stage, "bad-0", "recover", |beat| beat.trouble.is_none()).await?;
    Ok(())
}

/// The artifact store fails as training completes: the worker waits, shows why, and repeats nothing.
#[tokio::test(flavor = "multi_thread")]
async fn completed_training_waits_for_the_artifact_store() -> Result<()> {
    let stage = Stage::start().await?;
    let tiny = Tiny::make(stage.data_dir(), 32)?;
    let store = stage.data_dir().join("artifacts");
    std::fs::create_dir_all(&store)?;
    let place = store.join("checkpoints");
    std::fs::write(&place, "in the way")?;
    let sweep = sweep("ends", 0);
    submit(&stage, &sweep, &[tiny.spec("almt", 1, 1)?]).await?;
    let _coordinator = stage.serve();
    let _worker = Process::spawn(&mut node(&stage, "good", stage.data_dir())?)?;
    let beat = until_worker(&stage, "good-0", "wait", |beat| {
        beat.doing.is_some() && beat.trouble.is_some()
    })
    .await?;
    let trouble = beat.trouble.context("no trouble")?;
    assert_eq!(
        (trouble.fault.kind, trouble.sits_out),
        (FaultKind::Store, false)
    );
    std::fs::remove_file(&place)?;
    all_done(&stage, &sweep, 3).await?;
    assert_eq!(stage.count("SELECT count(*) FROM attempt").await?, 3);
    Ok(())
}

/// With `--once`, a worker that cannot work exits with a code of its own.
#[tokio::test(flavor = "multi_thread")]
async fn worker_with_once_that_cannot_work_exits_as_unfit() -> Result<()> {
    let stage = Stage::start().await?;
    std::fs::write(stage.data_dir().join("artifacts"), "not a folder")?;
    let bad = Process::spawn(node(&stage, "bad", stage.data_dir())?.args(["--once", "1"]))?;
    assert_eq!(bad.wait(PATIENCE)?.code(), Some(7));
    Ok(())
}
