//! A worker that lacks what its jobs need, or whose device breaks, beside one that is well: nothing
//! fails, it is named with the reason, and it goes on by itself once that is mended.

use anyhow::{Context as _, Result, ensure};
use halfheard_coordinator::commands::progress::living;
use halfheard_e2e::{
    programs::{Process, coord, output, worker},
    stage::Stage,
    sweeps::sweep,
    tiny::{Tiny, jobs},
    worker::ScriptedWorker,
};
use halfheard_shared::{
    artifacts::ArtifactStore,
    broker::Queue,
    dataset::DataFolder,
    wire::{FaultKind, Heartbeat, TrainSpec, Trouble, VERSION},
};
use halfheard_store::submit::NewSweep;
use std::{
    path::{Path, PathBuf},
    process::Command,
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

/// Trainings whose files no machine has where the spec says.
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

/// Puts the files into a worker's data folder.
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

/// A worker with a data folder of its own and the stage's artifact store.
fn node(stage: &Stage, name: &str, folder: &Path) -> Result<Command> {
    let mut command = worker(stage)?;
    let artifacts = ArtifactStore::url_of(&stage.data_dir().join("artifacts"));
    command
        .args(["--name", name])
        .env("HALFHEARD_DATA_DIR", folder)
        .env("HALFHEARD_ARTIFACTS", artifacts);
    Ok(command)
}

/// Waits until a worker's heartbeat is as asked.
async fn until_worker(
    stage: &Stage,
    name: &str,
    what: &str,
    enough: impl Fn(&Heartbeat) -> bool,
) -> Result<Heartbeat> {
    let since = Instant::now();
    loop {
        let beats = living(&stage.broker).await;
        let beat = beats.into_iter().find(|beat| beat.worker.name == name);
        match beat {
            Some(beat) if enough(&beat) => return Ok(beat),
            beat => ensure!(
                since.elapsed() < PATIENCE,
                "{name} does not {what}: {beat:?}"
            ),
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Waits until a worker sits out for a fault of this kind.
async fn sits_out(stage: &Stage, name: &str, kind: FaultKind) -> Result<Trouble> {
    let beat = until_worker(stage, name, "sit out", |beat| {
        let trouble = beat.trouble.as_ref();
        trouble.is_some_and(|trouble| trouble.sits_out && trouble.fault.kind == kind)
    });
    beat.await?.trouble.context("its trouble")
}

fn status(stage: &Stage, args: &[&str]) -> Result<String> {
    output(coord(stage)?.arg("status").args(args))
}

/// Nothing failed, all is done, and by nobody but `good`.
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

/// Eight trainings and sixteen evaluations, on a node without data and one with it.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_without_data_fails_nothing() -> Result<()> {
    let stage = Stage::start().await?;
    let tiny = Tiny::make(stage.data_dir(), 32)?;
    let sweep = sweep("one-bad-node", 0);
    submit(&stage, &sweep, &elsewhere(&tiny, 1..=8)?).await?;
    let _coordinator = stage.serve();
    let (bad, good) = (tempfile::tempdir()?, tempfile::tempdir()?);
    install(&tiny, good.path())?;
    // The bad one is alone at first, so that it takes a job for certain.
    let _bad = Process::spawn(&mut node(&stage, "bad", bad.path())?)?;
    let trouble = sits_out(&stage, "bad-0", FaultKind::Dataset).await?;
    assert_eq!(trouble.fault.what, "dataset mosi");
    assert!(trouble.fault.chain[0].contains(&tiny.data()?.blake3));
    let text = status(&stage, &[])?;
    ensure!(
        text.contains("bad-0") && text.contains("cannot read dataset mosi"),
        "{text}"
    );
    let _good = Process::spawn(&mut node(&stage, "good", good.path())?)?;
    all_done(&stage, &sweep, 24).await?;
    // It is still named, in JSON too, and each time it was handed a job is on record.
    let json: serde_json::Value = serde_json::from_str(&status(&stage, &["--json"])?)?;
    let workers = json["workers"].as_array().context("workers")?;
    let named = workers
        .iter()
        .find(|worker| worker["worker"]["name"] == "bad-0");
    let named = named.context("the bad node")?;
    assert_eq!(named["trouble"]["fault"]["kind"], "dataset", "{json}");
    assert!(json["nobody_can"].is_null(), "one of them can");
    let declined = "SELECT count(*) FROM declined
                    WHERE worker = 'bad-0' AND fault = 'dataset'
                      AND errors[1] = 'cannot read dataset mosi'";
    assert!(stage.count(declined).await? >= 1);
    Ok(())
}

/// The dataset is nowhere: nothing fails and nothing spins, status says it in words, and the sweep
/// goes on by itself when the dataset is there.
#[tokio::test(flavor = "multi_thread")]
async fn where_nobody_can_it_is_said_and_the_sweep_waits() -> Result<()> {
    let stage = Stage::start().await?;
    let tiny = Tiny::make(stage.data_dir(), 32)?;
    let sweep = sweep("nowhere", 0);
    submit(&stage, &sweep, &elsewhere(&tiny, 1..=2)?).await?;
    let _coordinator = stage.serve();
    let folder = tempfile::tempdir()?;
    let _worker = Process::spawn(node(&stage, "good", folder.path())?.args(["--slots", "2"]))?;
    for name in ["good-0", "good-1"] {
        sits_out(&stage, name, FaultKind::Dataset).await?;
    }
    // A second time: the pause grows.
    let since = Instant::now();
    let trouble = loop {
        let trouble = sits_out(&stage, "good-0", FaultKind::Dataset).await?;
        if trouble.times >= 2 {
            break trouble;
        }
        ensure!(since.elapsed() < PATIENCE, "{trouble:?}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    };
    assert!(trouble.next_try_ms.is_some());
    let text = status(&stage, &["nowhere"])?;
    ensure!(text.contains("no worker can read dataset mosi: "), "{text}");
    let declined = stage.count("SELECT count(*) FROM declined").await?;
    assert!(declined < 40, "{declined} times in a few seconds");
    assert_eq!(stage.store.progress(sweep.id).await?.failed, 0);
    install(&tiny, folder.path())?;
    all_done(&stage, &sweep, 6).await?;
    until_worker(&stage, "good-0", "get well", |beat| beat.trouble.is_none()).await?;
    Ok(())
}

/// What nobody can do keeps nothing else waiting: more of it than the window has room for, in an
/// older sweep of higher priority.
#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_can_do_keeps_nothing_else_waiting() -> Result<()> {
    let stage = Stage::start().await?;
    let tiny = Tiny::make(stage.data_dir(), 32)?;
    let impossible = sweep("impossible", 5);
    submit(&stage, &impossible, &elsewhere(&tiny, 1..=20)?).await?;
    let _coordinator = stage.serve();
    let _worker = Process::spawn(&mut node(&stage, "good", stage.data_dir())?)?;
    sits_out(&stage, "good-0", FaultKind::Dataset).await?;
    let possible = halfheard_e2e::sweeps::sweep("possible", 0);
    submit(&stage, &possible, &[tiny.spec("almt", 1, 1)?]).await?;
    let progress = stage.finished(possible.id, PATIENCE).await?;
    assert_eq!((progress.done, progress.failed), (3, 0));
    let progress = stage.store.progress(impossible.id).await?;
    assert_eq!((progress.done, progress.failed), (0, 0));
    Ok(())
}

/// Two stores: what one worker trained, another cannot evaluate.
#[tokio::test(flavor = "multi_thread")]
async fn a_worker_with_another_store_fails_no_evaluation() -> Result<()> {
    let stage = Stage::start().await?;
    let tiny = Tiny::make(stage.data_dir(), 32)?;
    let sweep = sweep("two-stores", 0);
    // More than are taken together: some are left for the other worker.
    let cases: Vec<String> = (0..24).map(|n| format!("r=0.{:02}", 10 + n)).collect();
    let cases: Vec<&str> = cases.iter().map(String::as_str).collect();
    let all = jobs(&sweep, &tiny.spec("almt", 1, 1)?, &cases)?;
    stage.store.submit(&sweep, all).await?;
    let _coordinator = stage.serve();
    let hold = stage.data_dir().join("hold");
    std::fs::write(&hold, "")?;
    let mut command = node(&stage, "good", stage.data_dir())?;
    command.env("HALFHEARD_INJECT_HOLD", &hold);
    let _good = Process::spawn(&mut command)?;
    let taken = until_worker(&stage, "good-0", "evaluate", |beat| {
        beat.doing.as_ref().is_some_and(|doing| doing.case > 1)
    });
    taken.await?;
    let other = tempfile::tempdir()?;
    let mut command = node(&stage, "bad", stage.data_dir())?;
    command.env("HALFHEARD_ARTIFACTS", ArtifactStore::url_of(other.path()));
    let _bad = Process::spawn(&mut command)?;
    let trouble = sits_out(&stage, "bad-0", FaultKind::Checkpoint).await?;
    ensure!(
        trouble.fault.to_string().contains("almt on mosi, seed 1"),
        "{trouble:?}"
    );
    std::fs::remove_file(&hold)?;
    all_done(&stage, &sweep, 25).await
}

/// A store that breaks under one worker, and is mended.
#[tokio::test(flavor = "multi_thread")]
async fn a_worker_whose_store_breaks_fails_nothing() -> Result<()> {
    let stage = Stage::start().await?;
    let tiny = Tiny::make(stage.data_dir(), 32)?;
    let store = stage.data_dir().join("artifacts");
    std::fs::create_dir_all(&store)?;
    // The bad one's way to the store can be broken without touching the other's.
    let link: PathBuf = stage.data_dir().join("link");
    std::os::unix::fs::symlink(&store, &link)?;
    let mut command = node(&stage, "bad", stage.data_dir())?;
    command.env("HALFHEARD_ARTIFACTS", ArtifactStore::url_of(&link));
    let _bad = Process::spawn(&mut command)?;
    until_worker(&stage, "bad-0", "live", |beat| beat.trouble.is_none()).await?;
    std::fs::remove_file(&link)?;
    std::fs::write(&link, "no folder")?;
    let sweep = sweep("store", 0);
    let specs = [tiny.spec("almt", 1, 1)?, tiny.spec("almt", 2, 1)?];
    submit(&stage, &sweep, &specs).await?;
    let _coordinator = stage.serve();
    let trouble = sits_out(&stage, "bad-0", FaultKind::Store).await?;
    assert_eq!(trouble.fault.deed(), "use the artifact store");
    let good = Process::spawn(&mut node(&stage, "good", stage.data_dir())?)?;
    all_done(&stage, &sweep, 6).await?;
    std::fs::remove_file(&link)?;
    std::os::unix::fs::symlink(&store, &link)?;
    until_worker(&stage, "bad-0", "get well", |beat| beat.trouble.is_none()).await?;
    // Well again, it does what there is.
    good.terminate(PATIENCE)?;
    let again = halfheard_e2e::sweeps::sweep("again", 0);
    submit(&stage, &again, &[tiny.spec("almt", 3, 1)?]).await?;
    let progress = stage.finished(again.id, PATIENCE).await?;
    assert_eq!((progress.done, progress.failed), (3, 0));
    Ok(())
}

/// Neither store nor data folder can be used at the start: the worker is seen and says why, and
/// begins to work when it can.
#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_waits_for_its_store_is_seen() -> Result<()> {
    let stage = Stage::start().await?;
    let tiny = Tiny::make(stage.data_dir(), 32)?;
    let sweep = sweep("waits", 0);
    submit(&stage, &sweep, &[tiny.spec("almt", 1, 1)?]).await?;
    let _coordinator = stage.serve();
    let folder = stage.data_dir().join("node");
    let store = stage.data_dir().join("artifacts");
    std::fs::write(&folder, "no folder")?;
    std::fs::write(&store, "no folder")?;
    let _worker = Process::spawn(&mut node(&stage, "good", &folder)?)?;
    let trouble = sits_out(&stage, "good-0", FaultKind::DataFolder).await?;
    assert!(trouble.fault.chain[0].contains("node"), "{trouble:?}");
    std::fs::remove_file(&folder)?;
    sits_out(&stage, "good-0", FaultKind::Store).await?;
    let text = status(&stage, &[])?;
    ensure!(
        text.contains("no worker can use the artifact store: "),
        "{text}"
    );
    assert_eq!(stage.count("SELECT count(*) FROM attempt").await?, 0);
    std::fs::remove_file(&store)?;
    all_done(&stage, &sweep, 3).await
}

/// A method of another release.
#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_does_not_know_the_method_fails_nothing() -> Result<()> {
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
    let trouble = sits_out(&stage, "old-0", FaultKind::Method).await?;
    assert!(trouble.fault.to_string().contains("same release"));
    let both = "SELECT count(DISTINCT job) FROM declined WHERE fault = 'method'";
    let since = Instant::now();
    while stage.count(both).await? < 2 {
        ensure!(since.elapsed() < PATIENCE, "one of both is never tried");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let _newer = ScriptedWorker::completing(&stage.broker, "good");
    all_done(&stage, &sweep, 6).await?;
    old.terminate(PATIENCE)?;
    Ok(())
}

/// Jobs in the wire format of another release: nobody can read them, and it is said.
#[tokio::test(flavor = "multi_thread")]
async fn jobs_of_another_release_are_named() -> Result<()> {
    let stage = Stage::start().await?;
    let subject = Queue::Train.subject(sweep("other", 0).id);
    let message = vec![VERSION + 1, 0, 0];
    stage
        .broker
        .jetstream()
        .publish(subject, message.into())
        .await?
        .await?;
    let _worker = Process::spawn(&mut node(&stage, "old", stage.data_dir())?)?;
    sits_out(&stage, "old-0", FaultKind::Method).await?;
    let text = status(&stage, &[])?;
    ensure!(
        text.contains("no worker can run jobs of another release: ")
            && text.contains("same release"),
        "{text}"
    );
    Ok(())
}

/// A device that breaks takes its process with it; the next one remembers.
#[tokio::test(flavor = "multi_thread")]
async fn a_broken_device_fails_nothing() -> Result<()> {
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
    let trouble = first.trouble.context("its trouble")?;
    assert_eq!(trouble.fault.kind, FaultKind::Device);
    assert!(trouble.fault.to_string().contains("ECC"), "{trouble:?}");
    // Another process, with a longer pause for the same.
    let later = until_worker(&stage, "bad-0", "break again", |beat| {
        beat.pid != first.pid
            && beat
                .trouble
                .as_ref()
                .is_some_and(|t| t.times > trouble.times)
    });
    let later = later.await?.trouble.context("its trouble")?;
    assert_eq!(later.since_ms, trouble.since_ms);
    let good = Process::spawn(&mut node(&stage, "good", stage.data_dir())?)?;
    all_done(&stage, &sweep, 9).await?;
    good.terminate(PATIENCE)?;
    // Mended, it works again after its pause.
    std::fs::remove_file(&broken)?;
    let again = halfheard_e2e::sweeps::sweep("again", 0);
    submit(&stage, &again, &[tiny.spec("almt", 9, 1)?]).await?;
    let progress = stage.finished(again.id, PATIENCE).await?;
    assert_eq!((progress.done, progress.failed), (3, 0));
    until_worker(&stage, "bad-0", "get well", |beat| beat.trouble.is_none()).await?;
    Ok(())
}

/// The store cannot take what a training came to: it waits, says so, and nothing is done twice.
#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_is_away_while_a_training_ends_is_waited_for() -> Result<()> {
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
    let trouble = beat.trouble.context("its trouble")?;
    assert_eq!(
        (trouble.fault.kind, trouble.sits_out),
        (FaultKind::Store, false)
    );
    std::fs::remove_file(&place)?;
    all_done(&stage, &sweep, 3).await?;
    assert_eq!(stage.count("SELECT count(*) FROM attempt").await?, 3);
    Ok(())
}

/// With `--once`, a worker that can do nothing leaves and says so by its exit code.
#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_can_do_nothing_leaves_with_its_code() -> Result<()> {
    let stage = Stage::start().await?;
    std::fs::write(stage.data_dir().join("artifacts"), "no folder")?;
    let bad = Process::spawn(node(&stage, "bad", stage.data_dir())?.args(["--once", "1"]))?;
    assert_eq!(bad.wait(PATIENCE)?.code(), Some(7));
    Ok(())
}
