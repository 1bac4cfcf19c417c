//! `coord serve` as a process, killed repeatedly.

use anyhow::Result;
use halfheard_e2e::{
    PATIENCE,
    dump::{assert_same, dump},
    programs::{Process, coord, output},
    stage::Stage,
    sweeps::{matrix, sweep},
    worker::{Act, ScriptedWorker},
};
use std::{sync::Arc, time::Duration};

const CASES: [&str; 4] = ["r=0", "r=0.3", "r=0.9", "missing=la"];

/// Killed five times during dispatch and collection; the tables are those of an undisturbed run, and `--once` exits when
/// all is done.
#[tokio::test(flavor = "multi_thread")]
async fn jobs_count_once_when_coord_serve_is_killed() -> Result<()> {
    let mut dumps = Vec::new();
    for kills in [0, 5] {
        let stage = Stage::start().await?;
        let sweep = sweep("killed", 0);
        stage
            .store
            .submit(&sweep, matrix(&sweep, 0..40, &CASES))
            .await?;
        let _worker = ScriptedWorker::start(
            &stage.broker,
            "w",
            Arc::new(|_, _| Act::Delay(Duration::from_millis(10))),
        );
        for kill in 0..kills {
            let daemon = Process::spawn(coord(&stage)?.arg("serve"))?;
            let before = stage.store.progress(sweep.id).await?.done;
            stage
                .until(sweep.id, PATIENCE, |progress| progress.done > before + kill)
                .await?;
            daemon.kill()?;
            stage.end_lead().await?;
        }
        let daemon = Process::spawn(coord(&stage)?.arg("serve"))?;
        assert_eq!(stage.finished(sweep.id, PATIENCE).await?.done, 200);
        let status = daemon.terminate(PATIENCE)?;
        assert!(status.success(), "{status}");
        output(coord(&stage)?.args(["serve", "--once"]))?;
        assert_eq!(stage.count("SELECT count(*) FROM conflict").await?, 0);
        dumps.push(dump(&stage.store).await?);
    }
    assert_same(&dumps[0], &dumps[1]);
    Ok(())
}

/// Output of `coord cancel` and `coord migrate`.
#[tokio::test(flavor = "multi_thread")]
async fn commands_report_what_they_did() -> Result<()> {
    let stage = Stage::start().await?;
    let sweep = sweep("command", 0);
    stage
        .store
        .submit(&sweep, matrix(&sweep, 0..2, &CASES))
        .await?;
    let text = output(coord(&stage)?.args(["migrate", "--check"]))?;
    assert!(text.contains("is up to date"), "{text}");
    let text = output(coord(&stage)?.args(["cancel", "command", "--json"]))?;
    let report: serde_json::Value = serde_json::from_str(&text)?;
    assert_eq!(report["cancelled_jobs"], 10);
    assert_eq!(stage.store.progress(sweep.id).await?.cancelled, 10);
    let error = output(coord(&stage)?.args(["cancel", "nothing"])).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("no sweep has the name `nothing`")
    );
    Ok(())
}
