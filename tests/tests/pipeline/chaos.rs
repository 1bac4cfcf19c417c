//! Everything that can be killed is killed during one sweep: a worker during training, the
//! coordinator while it collects results, the broker. The tables equal those of an undisturbed run
//! byte for byte.

use anyhow::{Context as _, Result, ensure};
use futures::TryStreamExt as _;
use halfheard_e2e::{
    PATIENCE,
    dump::{assert_same, dump, features},
    programs::{Process, coord, output, worker},
    saved::saved_epoch,
    stage::Stage,
    sweeps::sweep,
    tiny::{Tiny, jobs},
};
use halfheard_shared::{artifacts::ArtifactStore, wire::Heartbeat};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

const CASES: [&str; 4] = ["r=0", "r=0.3", "r=0.9", "missing=la"];
const TABLES: [&str; 4] = ["2", "9", "11", "13"];

async fn until(stage: &Stage, query: &'static str, min: i64) -> Result<()> {
    let since = Instant::now();
    while stage.count(query).await? < min {
        ensure!(since.elapsed() < PATIENCE, "`{query}` stays below {min}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

/// Kills a slot's process during a training job that will resume after its first epoch. Stops the
/// process first, so that it stays where it was found.
async fn kill_training_slot(stage: &Stage) -> Result<()> {
    let url = ArtifactStore::url_of(&stage.data_dir().join("artifacts"));
    let store = ArtifactStore::open(&url, None).await?;
    let since = Instant::now();
    loop {
        let victim = training_slot(stage).await?;
        let pid = Pid::from_raw(i32::try_from(victim.pid)?);
        kill(pid, Signal::SIGSTOP)?;
        let job = victim.doing.as_ref().context("no activity")?.job;
        let state: String = sqlx::query_scalar("SELECT state::text FROM job WHERE id = $1")
            .bind(job.0)
            .fetch_one(stage.store.pool())
            .await?;
        let saved = saved_epoch(&store, job).await?;
        if state == "running" && saved.is_some_and(|epoch| epoch > 1) {
            println!(
                "killing {} at {:?}, saved in epoch {saved:?}",
                victim.worker.name, victim.doing
            );
            kill(pid, Signal::SIGKILL)?;
            return Ok(());
        }
        kill(pid, Signal::SIGCONT)?;
        ensure!(
            since.elapsed() < PATIENCE,
            "no training job saves its state"
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// The heartbeat of a slot that is training.
async fn training_slot(stage: &Stage) -> Result<Heartbeat> {
    let since = Instant::now();
    loop {
        let bucket = stage.broker.workers().await?;
        let keys: Vec<String> = bucket.keys().await?.try_collect().await?;
        for key in keys {
            if let Some(json) = bucket.get(&key).await?
                && let Ok(beat) = serde_json::from_slice::<Heartbeat>(&json)
                && beat.doing.as_ref().is_some_and(|doing| doing.epoch > 1)
            {
                return Ok(beat);
            }
        }
        ensure!(since.elapsed() < PATIENCE, "no slot is training");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// The printed tables.
fn tables(stage: &Stage) -> Result<String> {
    let mut all = String::new();
    for number in TABLES {
        for format in ["text", "csv"] {
            let mut command = coord(stage)?;
            command.args(["table", number, "--sweep", "chaos", "--format", format]);
            all.push_str(&output(&mut command)?);
        }
    }
    ensure!(all.contains("LNLN"), "no method in the tables:\n{all}");
    Ok(all)
}

/// Runs the sweep. Returns the printed tables, the database's content, and the features in the
/// artifact store.
async fn run(disturbed: bool) -> Result<(String, String, BTreeMap<String, Vec<u8>>)> {
    let mut stage = Stage::start().await?;
    let tiny = Tiny::make(stage.data_dir(), 640)?;
    let sweep = sweep("chaos", 0);
    let mut all = Vec::new();
    for (method, seed) in [("lnln", 1111), ("lnln", 1112), ("almt", 1111)] {
        all.extend(jobs(&sweep, &tiny.spec(method, seed, 12)?, &CASES)?);
    }
    let count = all.len() as i64;
    stage.store.submit(&sweep, all).await?;

    let mut daemon = Process::spawn(coord(&stage)?.arg("serve"))?;
    let workers =
        Process::spawn(worker(&stage)?.args(["--slots", "2", "--save-every", "1", "--name", "w"]))?;
    if disturbed {
        // The worker, during training; its supervisor restarts it.
        until(&stage, "SELECT count(*) FROM epoch_log", 2).await?;
        kill_training_slot(&stage).await?;

        // The coordinator, while results arrive.
        let seen = stage.count("SELECT count(*) FROM epoch_log").await?;
        println!("killing the coordinator after {seen} epochs");
        daemon.kill()?;
        tokio::time::sleep(Duration::from_secs(1)).await;
        daemon = Process::spawn(coord(&stage)?.arg("serve"))?;
        until(
            &stage,
            "SELECT count(*) FROM attempt WHERE started IS NOT NULL",
            2,
        )
        .await?;

        // The broker, with everything in flight.
        let seen = stage.count("SELECT count(*) FROM epoch_log").await?;
        println!("killing the broker after {seen} epochs");
        stage.nats.kill()?;
        tokio::time::sleep(Duration::from_secs(2)).await;
        stage.nats.resume()?;

        // The coordinator once more, after the first evaluation.
        until(
            &stage,
            "SELECT count(*) FROM job WHERE kind = 'eval' AND state = 'done'",
            1,
        )
        .await?;
        println!("killing the coordinator again");
        daemon.kill()?;
        daemon = Process::spawn(coord(&stage)?.arg("serve"))?;
    }
    let progress = stage.finished(sweep.id, PATIENCE).await?;
    assert_eq!((progress.done, progress.failed), (count, 0));
    assert_eq!(stage.count("SELECT count(*) FROM conflict").await?, 0);
    if disturbed {
        let resumed = "SELECT count(*) FROM attempt WHERE resumed_after_epoch > 0";
        assert!(
            stage.count(resumed).await? >= 1,
            "the killed training job resumed from its saved state"
        );
    }
    let printed = tables(&stage).context("tables")?;
    let content = dump(&stage.store).await?;
    let status = workers.terminate(PATIENCE)?;
    ensure!(status.success(), "{status}");
    daemon.terminate(PATIENCE)?;
    let stored = features(stage.data_dir())?;
    Ok((printed, content, stored))
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_are_identical_after_every_process_was_killed() -> Result<()> {
    let (tables, content, stored) = run(false).await?;
    let (disturbed_tables, disturbed_content, disturbed_stored) = run(true).await?;
    assert_same(&content, &disturbed_content);
    assert_eq!(tables, disturbed_tables);
    assert_eq!(stored.len(), 6, "two models at three rates");
    assert!(stored == disturbed_stored, "the features are the same");
    Ok(())
}
