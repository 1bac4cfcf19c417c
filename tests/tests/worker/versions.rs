//! Workers of several versions under one coordinator.

use anyhow::{Result, ensure};
use halfheard_e2e::{
    PATIENCE,
    programs::{Process, coord, output, program, worker},
    stage::Stage,
    sweeps::{matrix, matrix_of, sweep, train_spec},
    tiny::{Tiny, jobs},
    worker::{Act, Profile, ScriptedWorker},
};
use halfheard_shared::wire::{Answer, Ask, PREVIOUS, TrainSpec, VERSION, WorkerInfo};
use std::{
    path::PathBuf,
    process::Command,
    sync::Arc,
    time::{Duration, Instant},
};
use uuid::Uuid;

const CASES: [&str; 3] = ["r=0", "r=0.5", "missing=la"];

fn slow() -> halfheard_e2e::worker::Script {
    Arc::new(|_, _| Act::Delay(Duration::from_millis(100)))
}

fn speaking(name: &str, wire: u8) -> Profile {
    Profile {
        wire,
        evaluations: 1,
        ..Profile::named(name)
    }
}

async fn done_by(stage: &Stage, worker: &str) -> Result<i64> {
    Ok(
        sqlx::query_scalar("SELECT count(*) FROM attempt WHERE worker = $1 AND outcome = 'done'")
            .bind(worker)
            .fetch_one(stage.store.pool())
            .await?,
    )
}

/// During an upgrade, workers of the previous and of this release finish a sweep together; one of a
/// release that is neither is told why it gets nothing.
#[tokio::test(flavor = "multi_thread")]
async fn previous_and_present_version_finish_a_sweep_together() -> Result<()> {
    let stage = Stage::start().await?;
    let sweep = sweep("upgrade", 0);
    stage
        .store
        .submit(&sweep, matrix(&sweep, 0..6, &CASES))
        .await?;
    let _coordinator = stage.serve();
    let _old = ScriptedWorker::with(&stage.broker, speaking("old", PREVIOUS), slow());
    let _new = ScriptedWorker::with(&stage.broker, speaking("new", VERSION), slow());
    let _later = ScriptedWorker::with(&stage.broker, speaking("later", VERSION + 1), slow());
    let _early = ScriptedWorker::with(&stage.broker, speaking("early", PREVIOUS - 1), slow());
    stage
        .until(sweep.id, PATIENCE, |progress| progress.done >= 4)
        .await?;
    let status = output(coord(&stage)?.arg("status"))?;
    ensure!(status.contains("workers of several versions"), "{status}");
    let progress = stage.finished(sweep.id, PATIENCE).await?;
    assert_eq!((progress.done, progress.failed), (24, 0));
    ensure!(
        done_by(&stage, "old").await? > 0,
        "the old worker did nothing"
    );
    ensure!(
        done_by(&stage, "new").await? > 0,
        "the new worker did nothing"
    );
    let refused = "SELECT count(*) FROM attempt WHERE worker IN ('later', 'early')";
    assert_eq!(stage.count(refused).await?, 0);
    assert_eq!(stage.count("SELECT count(*) FROM dead_letter").await?, 0);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn worker_of_unknown_version_is_told_why() -> Result<()> {
    let stage = Stage::start().await?;
    let _coordinator = stage.serve();
    let ask = |number| Ask {
        worker: WorkerInfo {
            name: "later".to_owned(),
            host: "h".to_owned(),
            device: "cpu".to_owned(),
            version: "9".to_owned(),
            processor: String::new(),
        },
        session: Uuid::from_u128(1),
        number,
        received: 0,
        proof: None,
        trainings: 1,
        evaluations: 1,
        noops: 1,
        wire: VERSION + 1,
        methods: Vec::new(),
        labels: Vec::new(),
        memory: 0,
        store: None,
    };
    // The first coordinator may take a moment to lead.
    for number in 1..100 {
        if let Ok(Some(answer)) = stage.broker.ask(&ask(number)).await {
            let Answer::Refused(reason) = answer else {
                anyhow::bail!("{answer:?}");
            };
            let named = format!("version {} of the protocol", VERSION + 1);
            ensure!(reason.contains(&named), "{reason}");
            ensure!(reason.contains("same release"), "{reason}");
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    anyhow::bail!("no answer")
}

/// Nobody is granted a method that it does not have, nor a device that is too small, nor without the label.
#[tokio::test(flavor = "multi_thread")]
async fn jobs_go_to_workers_that_can_do_them() -> Result<()> {
    let stage = Stage::start().await?;
    let sweep = sweep("needy", 0);
    let mut jobs: Vec<_> = matrix(&sweep, [0], &[]).collect();
    // Needs belong to what is trained: another config.
    let longer = TrainSpec {
        max_epochs: 3,
        ..train_spec(1)
    };
    let mut needy = matrix_of(&sweep, longer, &[]);
    needy[0].needs.memory = 16_000_000_000;
    needy[0].needs.label = Some("a100".into());
    jobs.append(&mut needy);
    stage.store.submit(&sweep, jobs).await?;
    let _coordinator = stage.serve();
    let with = |name: &str, methods: &[&str], memory, labels: &[&str]| Profile {
        methods: methods.iter().map(|&m| m.to_owned()).collect(),
        labels: labels.iter().map(|&l| l.to_owned()).collect(),
        memory,
        ..Profile::named(name)
    };
    let (small, large) = (8_000_000_000, 80_000_000_000);
    let broker = &stage.broker;
    let complete = || -> halfheard_e2e::worker::Script { Arc::new(|_, _| Act::Complete) };
    let _other = ScriptedWorker::with(broker, with("other", &["almt"], large, &[]), complete());
    let _small = ScriptedWorker::with(
        broker,
        with("small", &["lnln"], small, &["a100"]),
        complete(),
    );
    let _plain = ScriptedWorker::with(broker, with("plain", &["lnln"], large, &[]), complete());
    stage
        .until(sweep.id, PATIENCE, |progress| progress.done == 1)
        .await?;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let progress = stage.store.progress(sweep.id).await?;
    assert_eq!((progress.done, progress.open()), (1, 1));
    let status = output(coord(&stage)?.arg("status"))?;
    let unmet = "no worker has what 1 job need: 16.0 GB of device memory and the label `a100`";
    ensure!(status.contains(unmet), "{status}");
    let _right = ScriptedWorker::with(
        broker,
        with("right", &["lnln"], large, &["a100"]),
        complete(),
    );
    stage.finished(sweep.id, PATIENCE).await?;
    assert_eq!(done_by(&stage, "right").await?, 1);
    assert_eq!(done_by(&stage, "other").await?, 0);
    Ok(())
}

/// The worker program that speaks the previous version, where `make previous-worker` has built it.
fn previous_worker() -> Option<PathBuf> {
    let present = program("worker").ok()?;
    let path = present.parent()?.parent()?.join("previous/worker");
    path.is_file().then_some(path)
}

/// As above with the worker program itself.
#[tokio::test(flavor = "multi_thread")]
async fn worker_built_for_the_previous_version_finishes_a_sweep_with_a_present_one() -> Result<()> {
    let Some(previous) = previous_worker() else {
        eprintln!("skipped: no worker of the previous version is built (`make previous-worker`)");
        return Ok(());
    };
    let stage = Stage::start().await?;
    let folder = tempfile::tempdir()?;
    let tiny = Tiny::make(folder.path(), 64)?;
    let _coordinator = stage.serve();
    let old = {
        let present = worker(&stage)?;
        let mut old = Command::new(previous);
        old.args(present.get_args());
        for (name, value) in present.get_envs() {
            match value {
                Some(value) => old.env(name, value),
                None => old.env_remove(name),
            };
        }
        Process::spawn(old.args(["--name", "old"]))?
    };
    let first = sweep("first", 0);
    stage
        .store
        .submit(
            &first,
            jobs(&first, &tiny.spec("almt", 1, 2)?, &["r=0", "r=0.9"])?,
        )
        .await?;
    let progress = stage.finished(first.id, PATIENCE).await?;
    assert_eq!((progress.done, progress.failed), (3, 0));
    // The present worker joins, and evaluates what the old one trained.
    let new = Process::spawn(worker(&stage)?.args(["--name", "new"]))?;
    // It takes a moment to start, in which the old one may do all that there is.
    let since = Instant::now();
    for first in (2..).step_by(4) {
        ensure!(
            since.elapsed() < PATIENCE,
            "one of the workers does nothing"
        );
        for seed in first..first + 4 {
            let next = sweep(&format!("next-{seed}"), 0);
            let spec = tiny.spec("almt", seed, 2)?;
            let jobs = jobs(&next, &spec, &["r=0", "r=0.9"])?;
            stage.store.submit(&next, jobs).await?;
        }
        for seed in first..first + 4 {
            let next = sweep(&format!("next-{seed}"), 0);
            let progress = stage.finished(next.id, PATIENCE).await?;
            assert_eq!((progress.done, progress.failed), (3, 0));
        }
        if done_by(&stage, "old-0").await? > 0 && done_by(&stage, "new-0").await? > 0 {
            break;
        }
    }
    old.terminate(PATIENCE)?;
    new.terminate(PATIENCE)?;
    assert_eq!(stage.count("SELECT count(*) FROM dead_letter").await?, 0);
    Ok(())
}
