//! The real worker and the real coordinator: a step that hangs, a broker that loses what it
//! confirmed, a store that is full. No job fails, and nothing is computed twice that need not be.

use anyhow::{Context as _, Result, ensure};
use halfheard_coordinator::commands::watch::live_workers;
use halfheard_e2e::{
    PATIENCE,
    programs::{Process, coord, output, worker},
    stage::Stage,
    sweeps::sweep,
    tiny::{Tiny, jobs},
};
use halfheard_shared::{
    artifacts::{ArtifactStore, Key},
    wire::FaultKind,
};
use std::{
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

async fn until(what: &str, mut state: impl AsyncFnMut() -> Result<bool>) -> Result<()> {
    let since = Instant::now();
    while !state().await? {
        ensure!(since.elapsed() < PATIENCE, "waited in vain for {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}

/// A step that does not end is noticed, shown, taken away and done by another worker.
#[tokio::test(flavor = "multi_thread")]
async fn hung_step_is_taken_away_and_done_by_another_worker() -> Result<()> {
    let stage = Stage::start().await?;
    let tiny = Tiny::make(stage.data_dir(), 640)?;
    let sweep = sweep("hangs", 0);
    let all = jobs(&sweep, &tiny.spec("almt", 1, 20)?, &["r=0"])?;
    stage.store.submit(&sweep, all).await?;
    let _coordinator = stage.serve();
    let hang = stage.data_dir().join("hang");
    let mut bad = worker(&stage)?;
    bad.args(["--name", "bad", "--save-every", "0.5"])
        .env("HALFHEARD_INJECT_PATIENCE", "2")
        .env("HALFHEARD_INJECT_HANG", &hang);
    let _bad = Process::spawn(&mut bad)?;
    until("two epochs", async || {
        Ok(stage.count("SELECT count(*) FROM epoch_log").await? >= 2)
    })
    .await?;
    std::fs::write(&hang, "")?;
    let shown = async || {
        let beats = live_workers(&stage.broker).await;
        let faults = beats.iter().filter_map(|beat| beat.trouble.as_ref());
        Ok(faults.into_iter().any(|trouble| {
            trouble.fault.kind == FaultKind::Device
                && trouble
                    .fault
                    .chain
                    .iter()
                    .any(|text| text.contains("no step for"))
        }))
    };
    until("the fault to be shown", shown).await?;
    let text = output(coord(&stage)?.arg("status"))?;
    ensure!(text.contains("no step for"), "{text}");
    let ended = "SELECT count(*) FROM attempt
                 WHERE worker = 'bad-0' AND outcome IN ('stalled', 'lost')";
    until("the job to be taken away", async || {
        Ok(stage.count(ended).await? >= 1)
    })
    .await?;
    let mut good = worker(&stage)?;
    let _good = Process::spawn(good.args(["--name", "good"]))?;
    let progress = stage.finished(sweep.id, PATIENCE).await?;
    assert_eq!((progress.done, progress.failed), (2, 0));
    let resumed = "SELECT count(*) FROM attempt
                   WHERE worker = 'good-0' AND outcome = 'done' AND resumed_after_epoch > 0";
    assert_eq!(
        stage.count(resumed).await?,
        1,
        "it went on where it was saved"
    );
    assert_eq!(stage.count("SELECT sum(failures) FROM job").await?, 0);
    Ok(())
}

/// A result that the broker confirmed and lost is sent again, with its epochs.
#[tokio::test(flavor = "multi_thread")]
async fn result_is_settled_after_the_broker_lost_its_storage() -> Result<()> {
    let mut stage = Stage::start().await?;
    let tiny = Tiny::make(stage.data_dir(), 320)?;
    let sweep = sweep("loses", 0);
    let all = jobs(&sweep, &tiny.spec("almt", 1, 8)?, &[])?;
    stage.store.submit(&sweep, all).await?;
    let coordinator = stage.serve();
    let mut command = worker(&stage)?;
    let worker = Process::spawn(command.env("HALFHEARD_INJECT_RESEND", "1"))?;
    until("an epoch", async || {
        Ok(stage.count("SELECT count(*) FROM epoch_log").await? >= 1)
    })
    .await?;
    coordinator.kill().await;
    let epochs = stage.count("SELECT count(*) FROM epoch_log").await?;
    ensure!(epochs < 8, "the training was over before its coordinator");
    // The result is with the broker, and nobody has read it.
    let stream = stage.broker.names().results_stream();
    let left = u64::try_from(8 - epochs)? + 1;
    until("the result", async || {
        let stream = stage.broker.jetstream().get_stream(&stream).await?;
        Ok(stream.cached_info().state.messages >= left)
    })
    .await?;
    stage.nats.kill()?;
    stage.nats.resume_empty()?;
    stage.end_lead().await?;
    let _coordinator = stage.serve();
    let progress = stage.finished(sweep.id, PATIENCE).await?;
    assert_eq!((progress.done, progress.failed), (1, 0));
    assert_eq!(stage.count("SELECT count(*) FROM attempt").await?, 1);
    assert_eq!(stage.count("SELECT count(*) FROM epoch_log").await?, 8);
    assert_eq!(stage.count("SELECT count(*) FROM conflict").await?, 0);
    assert!(worker.terminate(PATIENCE)?.success());
    Ok(())
}

/// Epochs that the broker confirmed and lost while the training went on are sent again: by the same process before its
/// result, or by the one that resumes from the saved state.
async fn lost_epochs_come_again(killed: bool) -> Result<()> {
    const EPOCHS: i64 = 16;
    let mut stage = Stage::start().await?;
    let tiny = Tiny::make(stage.data_dir(), 640)?;
    let sweep = sweep("loses-epochs", 0);
    let all = jobs(&sweep, &tiny.spec("almt", 1, EPOCHS as u32)?, &[])?;
    let train = all[0].id;
    stage.store.submit(&sweep, all).await?;
    let coordinator = stage.serve();
    let start = |stage: &Stage| -> Result<Process> {
        Process::spawn(worker(stage)?.args(["--name", "w", "--save-every", "0.1"]))
    };
    let mut worker = Some(start(&stage)?);
    let logged = "SELECT count(*) FROM epoch_log";
    until("an epoch", async || Ok(stage.count(logged).await? >= 1)).await?;
    coordinator.kill().await;
    let stream = stage.broker.names().results_stream();
    let artifacts = ArtifactStore::url_of(&stage.data_dir().join("artifacts"));
    let artifacts = ArtifactStore::open(&artifacts, None).await?;
    until("epochs that nobody reads", async || {
        let stream = stage.broker.jetstream().get_stream(&stream).await?;
        let saved = artifacts.size(&Key::Resume(train)).await?.is_some();
        Ok(saved && stream.cached_info().state.messages >= 3)
    })
    .await?;
    if killed {
        // A moment for the state of the last epoch.
        tokio::time::sleep(Duration::from_millis(500)).await;
        worker = None;
    }
    stage.nats.kill()?;
    stage.nats.resume_empty()?;
    let worker = match worker {
        Some(worker) => worker,
        None => start(&stage)?,
    };
    stage.end_lead().await?;
    let _coordinator = stage.serve();
    let progress = stage.finished(sweep.id, PATIENCE).await?;
    assert_eq!((progress.done, progress.failed), (1, 0));
    until("all epochs", async || {
        Ok(stage.count(logged).await? == EPOCHS)
    })
    .await?;
    assert_eq!(stage.count("SELECT count(*) FROM conflict").await?, 0);
    assert!(worker.terminate(PATIENCE)?.success());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn epochs_that_the_broker_lost_are_reported_before_the_result() -> Result<()> {
    lost_epochs_come_again(false).await
}

#[tokio::test(flavor = "multi_thread")]
async fn epochs_that_the_broker_lost_are_reported_by_whoever_resumes() -> Result<()> {
    lost_epochs_come_again(true).await
}

/// A file system of its own, which ends with this value.
struct Disk(PathBuf);

impl Disk {
    /// One of a few KiB; `None` where this user may not make any.
    fn small(folder: &Path) -> Result<Option<Self>> {
        std::fs::create_dir_all(folder)?;
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=64k", "tmpfs"])
            .arg(folder)
            .output()?;
        Ok(mounted.status.success().then(|| Self(folder.to_owned())))
    }

    fn grow(&self) -> Result<()> {
        let grown = Command::new("mount")
            .args(["-o", "remount,size=256m"])
            .arg(&self.0)
            .output()?;
        ensure!(grown.status.success(), "{grown:?}");
        Ok(())
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// A full store stops nothing that is under way, and no job fails: the result waits for room.
#[tokio::test(flavor = "multi_thread")]
async fn full_store_is_waited_for() -> Result<()> {
    let stage = Stage::start().await?;
    let folder = stage.data_dir().join("small");
    let Some(disk) = Disk::small(&folder)? else {
        eprintln!("skipped: this user may not mount a file system");
        return Ok(());
    };
    let tiny = Tiny::make(stage.data_dir(), 96)?;
    let sweep = sweep("full", 0);
    let all = jobs(&sweep, &tiny.spec("almt", 1, 3)?, &["r=0"])?;
    stage.store.submit(&sweep, all).await?;
    let _coordinator = stage.serve();
    let mut command = worker(&stage)?;
    command
        .args(["--name", "w", "--save-every", "0.1"])
        .env("HALFHEARD_ARTIFACTS", ArtifactStore::url_of(&folder));
    let worker = Process::spawn(&mut command)?;
    until("all epochs, though no state can be saved", async || {
        Ok(stage.count("SELECT count(*) FROM epoch_log").await? == 3)
    })
    .await?;
    let waits = async || {
        let beats = live_workers(&stage.broker).await;
        let trouble = beats.first().and_then(|beat| beat.trouble.clone());
        Ok(trouble.is_some_and(|t| t.fault.kind == FaultKind::Store && !t.sits_out))
    };
    until("the worker to wait", waits).await?;
    // Longer than a lease: it is still the worker's.
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(stage.count("SELECT count(*) FROM attempt").await?, 1);
    let text = output(coord(&stage)?.arg("status"))?;
    ensure!(text.contains("full"), "{text}");
    disk.grow()?;
    let progress = stage.finished(sweep.id, PATIENCE).await?;
    assert_eq!((progress.done, progress.failed), (2, 0));
    assert_eq!(stage.count("SELECT count(*) FROM attempt").await?, 2);
    let beats = live_workers(&stage.broker).await;
    beats.first().context("the worker")?;
    assert!(worker.terminate(PATIENCE)?.success());
    Ok(())
}
