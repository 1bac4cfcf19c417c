//! Evaluation jobs of one model are taken together and end one by one: completed cases are reported,
//! and only the rest is handed back.

use anyhow::{Context as _, Result, ensure};
use halfheard_coordinator::commands::watch::live_workers;
use halfheard_e2e::{
    dump::{assert_same, dump, features},
    programs::{Process, coord, output, worker},
    stage::Stage,
    sweeps::sweep,
    tiny::{Tiny, jobs},
};
use halfheard_shared::wire::Doing;
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(120);
/// Without audio, vision or both the text is that of `r=0`.
const CASES: [&str; 7] = [
    "r=0",
    "r=0.3",
    "r=0.9",
    "missing=a",
    "missing=v",
    "missing=av",
    "missing=l",
];

const DONE: &str = "SELECT count(*) FROM job WHERE kind = 'eval' AND state = 'done'";

/// Waits until the worker holds during evaluation, with some cases done and reported.
async fn held(stage: &Stage) -> Result<Doing> {
    let since = Instant::now();
    loop {
        let doing = live_workers(&stage.broker)
            .await
            .into_iter()
            .find_map(|beat| beat.doing)
            .filter(|doing| doing.case > 1);
        if let Some(doing) = doing
            && stage.count(DONE).await? + 1 >= i64::from(doing.case)
        {
            return Ok(doing);
        }
        ensure!(since.elapsed() < PATIENCE, "no evaluation is in progress");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn completed_cases_are_reported_and_the_rest_is_handed_back() -> Result<()> {
    let mut dumps = Vec::new();
    let mut stored = Vec::new();
    for disturbed in [false, true] {
        let stage = Stage::start().await?;
        let tiny = Tiny::make(stage.data_dir(), 32)?;
        let sweep = sweep("by-case", 0);
        let all = jobs(&sweep, &tiny.spec("lnln", 1, 2)?, &CASES)?;
        stage.store.submit(&sweep, all).await?;
        let _coordinator = stage.serve();
        if disturbed {
            let hold = stage.data_dir().join("hold");
            std::fs::write(&hold, "")?;
            let mut command = worker(&stage)?;
            command.env("HALFHEARD_INJECT_HOLD", &hold);
            let first = Process::spawn(&mut command)?;
            let doing = held(&stage).await?;
            // The cases with the text of r=0 end together.
            assert_eq!((doing.case, doing.cases), (5, 7), "{doing:?}");
            assert!(doing.steps > 0, "{doing:?}");
            let text = output(coord(&stage)?.arg("status"))?;
            ensure!(text.contains("case 5 of 7, batch "), "{text}");
            assert_eq!(stage.count(DONE).await?, 4);
            let status = first.terminate(Duration::from_secs(12))?;
            ensure!(status.success(), "{status}");
            let back = "SELECT count(*) FROM attempt WHERE outcome = 'handed_back'";
            let since = Instant::now();
            while stage.count(back).await? < 3 {
                ensure!(
                    since.elapsed() < PATIENCE,
                    "not all of the rest is handed back"
                );
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            assert_eq!(stage.count(DONE).await?, 4);
        }
        let _last = Process::spawn(&mut worker(&stage)?)?;
        let progress = stage.finished(sweep.id, PATIENCE).await?;
        assert_eq!((progress.done, progress.failed), (8, 0));
        // Nothing is evaluated twice.
        let done = "SELECT count(*) FROM attempt a JOIN job j ON j.id = a.job
                    WHERE j.kind = 'eval' AND a.outcome = 'done'";
        assert_eq!(stage.count(done).await?, 7);
        if !disturbed {
            check_own_time(&stage).await?;
        }
        dumps.push(dump(&stage.store).await?);
        stored.push(features(stage.data_dir())?);
    }
    assert_same(&dumps[0], &dumps[1]);
    ensure!(
        stored[0].len() == 3 && stored[0] == stored[1],
        "the features are the same"
    );
    Ok(())
}

/// Each case has its own time and not the batch's: together the cases take no longer than from the
/// end of training to the end of the last.
async fn check_own_time(stage: &Stage) -> Result<()> {
    let (sum, total, min): (f64, f64, f64) = sqlx::query_as(
        "SELECT sum(a.seconds)::float8,
                extract(epoch FROM max(j.finished) - (SELECT max(t.finished) FROM job t
                                                      WHERE t.kind = 'train'))::float8,
                min(a.seconds)::float8
         FROM job j JOIN attempt a ON a.job = j.id AND a.outcome = 'done'
         WHERE j.kind = 'eval'",
    )
    .fetch_one(stage.store.pool())
    .await?;
    ensure!(
        min > 0.0 && sum <= total,
        "{sum} s in {total} s, each at least {min} s"
    );
    Ok(())
}

/// Cancelling a sweep stops its evaluation in progress.
#[tokio::test(flavor = "multi_thread")]
async fn cancelled_evaluation_jobs_stop() -> Result<()> {
    let stage = Stage::start().await?;
    let tiny = Tiny::make(stage.data_dir(), 32)?;
    let sweep = sweep("cancelled", 0);
    let all = jobs(&sweep, &tiny.spec("almt", 1, 1)?, &CASES)?;
    stage.store.submit(&sweep, all).await?;
    let _coordinator = stage.serve();
    let hold = stage.data_dir().join("hold");
    std::fs::write(&hold, "")?;
    let mut command = worker(&stage)?;
    command.env("HALFHEARD_INJECT_HOLD", &hold);
    let _worker = Process::spawn(&mut command)?;
    held(&stage).await?;
    output(coord(&stage)?.args(["cancel", "cancelled"]))?;
    let since = Instant::now();
    loop {
        let beats = live_workers(&stage.broker).await;
        let beat = beats.first().context("no live worker")?;
        if beat.doing.is_none() {
            break;
        }
        ensure!(since.elapsed() < PATIENCE, "{beat:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(stage.count(DONE).await?, 4);
    Ok(())
}
