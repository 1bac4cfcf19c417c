//! Drained workers: granted nothing more, by slot and by worker, through restarts; and their jobs taken back.

use anyhow::{Result, ensure};
use halfheard_e2e::{
    PATIENCE,
    programs::{Process, coord, output, worker},
    stage::Stage,
    sweeps::sweep,
    tiny::{Tiny, jobs},
};
use halfheard_shared::artifacts::{ArtifactStore, Key};
use serde_json::Value;
use std::time::{Duration, Instant};

async fn until(stage: &Stage, query: &'static str, enough: impl Fn(i64) -> bool) -> Result<i64> {
    let since = Instant::now();
    loop {
        let found = stage.count(query).await?;
        if enough(found) {
            return Ok(found);
        }
        ensure!(since.elapsed() < PATIENCE, "`{query}` stays {found}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn json(stage: &Stage, arguments: &[&str]) -> Result<Value> {
    let printed = output(coord(stage)?.args(arguments).arg("--json"))?;
    Ok(serde_json::from_str(&printed)?)
}

const ATTEMPTS: &str = "SELECT count(*) FROM attempt";
const EPOCHS: &str = "SELECT count(*) FROM epoch_log";
const RUNNING: &str = "SELECT count(*) FROM job WHERE state = 'running'";

#[tokio::test(flavor = "multi_thread")]
async fn drained_worker_finishes_or_hands_back_and_gets_nothing_more() -> Result<()> {
    let stage = Stage::start().await?;
    let tiny = Tiny::make(stage.data_dir(), 640)?;
    let sweep = sweep("drained", 0);
    let all = jobs(&sweep, &tiny.spec("lnln", 1, 5000)?, &[])?;
    let train = all[0].id;
    stage.store.submit(&sweep, all).await?;
    let coordinator = stage.serve();
    let start = |name: &str| -> Result<Process> {
        // Only a stopped training job saves its state.
        let mut command = worker(&stage)?;
        Process::spawn(command.args(["--save-every", "100000", "--name", name]))
    };
    let first = start("first")?;
    until(&stage, EPOCHS, |epochs| epochs >= 2).await?;

    // It finishes what it has.
    let drained = json(&stage, &["drain", "first-0"])?;
    assert_eq!(
        drained["slots"],
        serde_json::json!(["first-0"]),
        "{drained}"
    );
    assert_eq!(
        (&drained["held_jobs"], &drained["changed"]),
        (&1.into(), &true.into())
    );
    let epochs = stage.count(EPOCHS).await?;
    until(&stage, EPOCHS, |now| now > epochs + 1).await?;
    let workers = json(&stage, &["workers"])?;
    assert_eq!(workers["workers"][0]["state"], "draining", "{workers}");
    let shown = output(coord(&stage)?.arg("status"))?;
    ensure!(shown.contains("; drained"), "{shown}");

    // Through a restart of the coordinator, and then at once: it saves, and that counts for nothing.
    coordinator.stop().await?;
    let coordinator = stage.serve();
    let taken = json(&stage, &["drain", "first", "--now"])?;
    assert_eq!(taken["taken_back"], 1, "{taken}");
    let artifacts = ArtifactStore::url_of(&stage.data_dir().join("artifacts"));
    let artifacts = ArtifactStore::open(&artifacts, None).await?;
    let since = Instant::now();
    while artifacts.size(&Key::Resume(train)).await?.is_none() {
        ensure!(since.elapsed() < PATIENCE, "its state is not saved");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let revoked = "SELECT count(*) FROM attempt WHERE outcome = 'revoked'";
    assert_eq!(stage.count(revoked).await?, 1);
    let counted = "SELECT (failures + losses)::bigint FROM job";
    assert_eq!(stage.count(counted).await?, 0);

    // Another worker goes on from there; the drained one stays idle, also when it starts again.
    first.terminate(PATIENCE)?;
    let first = start("first")?;
    let second = start("second")?;
    let resumed =
        "SELECT count(*) FROM attempt WHERE worker = 'second-0' AND resumed_after_epoch > 0";
    until(&stage, resumed, |resumed| resumed == 1).await?;
    assert_eq!(stage.count(ATTEMPTS).await?, 2);
    second.terminate(PATIENCE)?;
    until(&stage, RUNNING, |running| running == 0).await?;
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(
        stage.count(ATTEMPTS).await?,
        2,
        "the slot's own name still drains it"
    );

    // By whichever name it was drained.
    let undone = output(coord(&stage)?.args(["drain", "first-0", "--undo"]))?;
    ensure!(
        undone.contains("still drained under the name first"),
        "{undone}"
    );
    let undone = json(&stage, &["drain", "first", "--undo"])?;
    assert_eq!(
        (&undone["drained"], &undone["changed"]),
        (&false.into(), &true.into())
    );
    let again = "SELECT count(*) FROM attempt WHERE worker = 'first-0'";
    until(&stage, again, |attempts| attempts == 2).await?;
    first.terminate(PATIENCE)?;
    coordinator.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn name_of_nobody_is_told_and_impossible_one_refused() -> Result<()> {
    let stage = Stage::start().await?;
    let said = |arguments: &[&str]| -> Result<(Option<i32>, String)> {
        let ended = coord(&stage)?.args(arguments).output()?;
        let said = [ended.stdout, ended.stderr].concat();
        Ok((ended.status.code(), String::from_utf8(said)?))
    };
    let (code, text) = said(&["drain", "nobody"])?;
    ensure!(
        code == Some(0) && text.contains("no worker lives"),
        "{text}"
    );
    let (_, text) = said(&["drain", "nobody"])?;
    ensure!(text.contains("is already drained"), "{text}");
    let (_, text) = said(&["drain", "gpu7", "--host"])?;
    ensure!(text.contains("machine gpu7: drained"), "{text}");
    let (_, text) = said(&["workers"])?;
    ensure!(
        text.contains("drained, and not connected: machine gpu7"),
        "{text}"
    );
    let (code, text) = said(&["drain", "a b"])?;
    ensure!(
        code == Some(1) && text.contains("no worker can have the name"),
        "{text}"
    );
    let (_, text) = said(&["drain", "other", "--undo"])?;
    ensure!(text.contains("was not drained under this name"), "{text}");
    Ok(())
}
