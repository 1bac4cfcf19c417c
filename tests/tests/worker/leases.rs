//! The real worker and the lease protocol, against a scripted coordinator: what it asks, says and
//! keeps while the coordinator, the broker, the store or a device misbehaves.

use anyhow::{Context as _, Result, ensure};
use halfheard_e2e::{
    PATIENCE,
    leader::{ScriptedLeader, again, granted, is_final},
    programs::{Process, program},
    servers::Nats,
    tiny::Tiny,
};
use halfheard_shared::{
    artifacts::{ArtifactStore, Key},
    broker::{Broker, BrokerSettings},
    case::Case,
    ids::AttemptId,
    wire::{FaultKind, JobMessage, ResultBody, Work},
};
use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

/// The worker's only slot.
const SLOT: &str = "w-0";

/// A broker, a scripted coordinator, a data folder.
struct Scene {
    leader: ScriptedLeader,
    broker: Broker,
    nats: Nats,
    tiny: Tiny,
    data: tempfile::TempDir,
}

impl Scene {
    async fn new(samples: usize) -> Result<Self> {
        let _ = tracing_subscriber::fmt()
            .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
            .with_test_writer()
            .try_init();
        let nats = Nats::start()?;
        let broker = BrokerSettings::at(nats.url()).connect().await?;
        let data = tempfile::tempdir()?;
        Ok(Self {
            leader: ScriptedLeader::start(&broker).await?,
            tiny: Tiny::make(data.path(), samples)?,
            broker,
            nats,
            data,
        })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.data.path().join(name)
    }

    fn worker(&self) -> Result<Command> {
        let mut command = Command::new(program("worker")?);
        command
            .args(["--device", "cpu", "--threads", "1", "--name", "w"])
            .args(["--save-every", "0.2"])
            .env("HALFHEARD_NATS_URL", self.nats.url())
            .env("HALFHEARD_DATA_DIR", self.data.path())
            .env("HALFHEARD_CONFIG", "/dev/null")
            .env("HALFHEARD_INJECT_BEAT", "0.2")
            .env("HALFHEARD_INJECT_RESEND", "1")
            .env("HALFHEARD_INJECT_HANG", self.path("hang"))
            .env_remove("HALFHEARD_ARTIFACTS")
            .stdin(Stdio::null());
        Ok(command)
    }

    fn training(&self, seed: u64, epochs: u32) -> Result<JobMessage> {
        Ok(granted(Work::Train(self.tiny.spec("almt", seed, epochs)?)))
    }

    /// Waits until a training job has completed some epochs.
    async fn epochs(&self, job: &JobMessage, min: usize) -> Result<()> {
        let enough = || (epochs(&self.leader.reports(job.attempt)).len() >= min).then_some(());
        self.leader.until("epochs", enough).await
    }

    async fn store(&self) -> Result<ArtifactStore> {
        let url = ArtifactStore::url_of(&self.path("artifacts"));
        Ok(ArtifactStore::open(&url, None).await?)
    }

    async fn has_state(&self, job: &JobMessage) -> Result<bool> {
        let size = self.store().await?.size(&Key::Resume(job.job)).await?;
        Ok(size.is_some())
    }
}

/// The epochs that were reported.
fn epochs(reports: &[ResultBody]) -> Vec<u32> {
    let epoch = |body: &ResultBody| match body {
        ResultBody::Epoch(log) => Some(log.epoch),
        _ => None,
    };
    reports.iter().filter_map(epoch).collect()
}

fn is_trained(body: &ResultBody) -> bool {
    matches!(body, ResultBody::Trained { .. })
}

/// How many files in the store belong to unfinished training jobs.
fn states(data: &Path) -> usize {
    std::fs::read_dir(data.join("artifacts/resume")).map_or(0, Iterator::count)
}

#[tokio::test(flavor = "multi_thread")]
async fn result_is_repeated_with_its_epochs_until_it_is_settled() -> Result<()> {
    let scene = Scene::new(320).await?;
    let leader = &scene.leader;
    leader.leave_unsettled(true);
    let job = scene.training(1, 6)?;
    leader.offer(&job);
    let worker = Process::spawn(&mut scene.worker()?)?;
    let ending = leader.ended(job.attempt).await?;
    let ResultBody::Trained {
        checkpoints,
        epochs: trained,
        peak_memory,
        ..
    } = &ending
    else {
        anyhow::bail!("{ending:?}");
    };
    assert_eq!((checkpoints.len(), *trained), (5, 6));
    assert!(*peak_memory > 1 << 20, "{peak_memory}");
    let asked = leader.asks();
    assert_eq!(asked[0].number, 1);
    assert!(asked[0].methods.contains(&"lnln".to_owned()));
    assert_eq!((asked[0].trainings, asked[0].wire), (1, 4));
    assert_eq!(asked[0].store, Some(scene.store().await?.id().await?));
    // The broker drops repetitions in its window, so it loses its storage.
    let mut scene = scene;
    scene.nats.kill()?;
    scene.nats.resume_empty()?;
    let leader = &scene.leader;
    leader
        .until("the broker", || {
            (scene.broker.client().connection_state().to_string() == "connected").then_some(())
        })
        .await?;
    leader.ensure().await?;
    let twice = || {
        let reports = leader.reports(job.attempt);
        let finals = reports.iter().filter(|body| is_final(body)).count();
        (finals >= 2).then_some(reports)
    };
    let reports = leader.until("the result again", twice).await?;
    let each: BTreeSet<u32> = epochs(&reports).into_iter().collect();
    assert_eq!(each, (1..=6).collect());
    assert!(
        epochs(&reports).len() >= 12,
        "all epochs again: {reports:?}"
    );
    let held = leader.held(job.attempt).context("it is still held")?;
    assert_eq!(held.patience_s, 0, "nothing is computed");
    assert!(states(scene.data.path()) > 0, "the state is kept");
    leader.leave_unsettled(false);
    leader.release(SLOT, job.attempt).await;
    leader
        .until("the lease to end", || {
            leader.held(job.attempt).is_none().then_some(())
        })
        .await?;
    leader
        .until("the state to be deleted", || {
            (states(scene.data.path()) == 0).then_some(())
        })
        .await?;
    assert!(worker.terminate(PATIENCE)?.success());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn grant_that_arrives_twice_is_worked_once() -> Result<()> {
    let scene = Scene::new(96).await?;
    let leader = &scene.leader;
    leader.leave_unsettled(true);
    let job = scene.training(1, 2)?;
    leader.offer(&job);
    leader.offer(&job);
    let worker = Process::spawn(&mut scene.worker()?)?;
    leader.ended(job.attempt).await?;
    let next = scene.training(2, 1)?;
    leader.offer(&next);
    leader.ended(next.attempt).await?;
    let reports = leader.reports(job.attempt);
    let started = |body: &&ResultBody| matches!(body, ResultBody::Started { .. });
    assert_eq!(reports.iter().filter(started).count(), 1, "{reports:?}");
    // Numbers grow, and each answer is confirmed by a later request.
    let asks = leader.asks();
    assert!(asks.windows(2).all(|pair| pair[0].number < pair[1].number));
    assert!(
        asks.windows(2)
            .all(|pair| pair[1].received == pair[0].number)
    );
    assert!(worker.terminate(PATIENCE)?.success());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn released_training_job_is_stopped_and_resumed_by_the_next_attempt() -> Result<()> {
    let scene = Scene::new(640).await?;
    let leader = &scene.leader;
    let job = scene.training(1, 400)?;
    leader.offer(&job);
    let worker = Process::spawn(&mut scene.worker()?)?;
    scene.epochs(&job, 3).await?;
    let saved = || leader.held(job.attempt).filter(|held| held.saved > 0);
    let held = leader.until("a saved state", saved).await?;
    assert!(
        held.begun && held.progress > 0 && held.patience_s >= 60,
        "{held:?}"
    );
    assert_eq!(held.resumed, 0);
    leader.release(SLOT, job.attempt).await;
    let ending = leader.ended(job.attempt).await?;
    let ResultBody::HandedBack { after_epoch } = ending else {
        anyhow::bail!("{ending:?}");
    };
    assert!(after_epoch >= 3);
    let forgotten = || leader.held(job.attempt).is_none().then_some(());
    leader.until("the lease to end", forgotten).await?;
    assert!(scene.has_state(&job).await?);
    let second = again(&job);
    leader.offer(&second);
    scene.epochs(&second, after_epoch as usize + 1).await?;
    let resumed = leader.reports(second.attempt);
    assert_eq!(
        resumed.first(),
        Some(&ResultBody::Started {
            resumed_after_epoch: after_epoch
        })
    );
    // The broker may have lost what the first attempt reported: its epochs come again, the same.
    let logs = |reports: &[ResultBody]| -> Vec<ResultBody> {
        let is_epoch = |body: &&ResultBody| matches!(body, ResultBody::Epoch(_));
        reports.iter().filter(is_epoch).cloned().collect()
    };
    let (earlier, again) = (logs(&leader.reports(job.attempt)), logs(&resumed));
    assert_eq!(earlier[..], again[..after_epoch as usize]);
    let held = leader.held(second.attempt).context("held")?;
    assert!(held.resumed >= u64::from(after_epoch) * 40, "{held:?}");
    // SIGTERM hands it back, too.
    let since = Instant::now();
    assert!(worker.terminate(PATIENCE)?.success());
    assert!(since.elapsed() < Duration::from_secs(12));
    let ending = leader.ended(second.attempt).await?;
    assert!(
        matches!(ending, ResultBody::HandedBack { .. }),
        "{ending:?}"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_worker_withdraws_its_request_and_exits_at_once() -> Result<()> {
    let scene = Scene::new(96).await?;
    let leader = &scene.leader;
    let worker = Process::spawn(&mut scene.worker()?)?;
    leader
        .until("a request", || (leader.asks().len() > 2).then_some(()))
        .await?;
    let since = Instant::now();
    assert!(worker.terminate(PATIENCE)?.success());
    assert!(
        since.elapsed() < Duration::from_secs(6),
        "{:?}",
        since.elapsed()
    );
    let last = leader.asks().pop().context("a request")?;
    assert_eq!((last.trainings, last.evaluations, last.noops), (0, 0, 0));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn hung_step_ends_the_process_and_its_next_one_works() -> Result<()> {
    let scene = Scene::new(640).await?;
    let leader = &scene.leader;
    let job = scene.training(1, 400)?;
    leader.offer(&job);
    let worker = Process::spawn(scene.worker()?.env("HALFHEARD_INJECT_PATIENCE", "2"))?;
    scene.epochs(&job, 2).await?;
    let session = leader.beat().context("a heartbeat")?.session;
    std::fs::write(scene.path("hang"), "")?;
    let faulty = || {
        let trouble = leader.beat()?.trouble?;
        (trouble.fault.kind == FaultKind::Device).then_some(trouble.fault)
    };
    let fault = leader.until("the fault", faulty).await?;
    assert!(fault.to_string().contains("no step for"), "{fault}");
    std::fs::remove_file(scene.path("hang"))?;
    // The supervisor starts another, which asks after its predecessor's pause.
    let other = || {
        let ask = leader.asks().pop()?;
        (ask.session != session).then_some(ask.number)
    };
    leader.until("another process", other).await?;
    assert!(leader.ending(job.attempt).is_none(), "nobody spoke for it");
    let next = scene.training(2, 1)?;
    leader.offer(&next);
    assert!(is_trained(&leader.ended(next.attempt).await?));
    assert!(worker.terminate(PATIENCE)?.success());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn training_goes_on_while_broker_and_coordinator_are_away() -> Result<()> {
    let mut scene = Scene::new(640).await?;
    let job = scene.training(1, 12)?;
    scene.leader.offer(&job);
    let worker = Process::spawn(&mut scene.worker()?)?;
    scene.epochs(&job, 1).await?;
    scene.nats.kill()?;
    // Longer than the training takes.
    let done = scene.path("artifacts/checkpoints");
    let since = Instant::now();
    while std::fs::read_dir(&done).map_or(0, Iterator::count) == 0 {
        ensure!(since.elapsed() < PATIENCE, "the training does not go on");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    scene.leader.silence(true);
    scene.nats.resume()?;
    let leader = &scene.leader;
    let ending = leader.ended(job.attempt).await?;
    assert!(is_trained(&ending), "{ending:?}");
    let reports = leader.reports(job.attempt);
    let mut once = epochs(&reports);
    once.dedup();
    assert_eq!(once[..12], (1..=12).collect::<Vec<_>>(), "in order");
    // Nobody answers; then somebody does.
    let next = scene.training(2, 1)?;
    leader.offer(&next);
    tokio::time::sleep(Duration::from_secs(1)).await;
    leader.silence(false);
    assert!(is_trained(&leader.ended(next.attempt).await?));
    assert!(worker.terminate(PATIENCE)?.success());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn result_waits_for_the_store_and_the_worker_takes_nothing_new() -> Result<()> {
    let scene = Scene::new(320).await?;
    let leader = &scene.leader;
    let job = scene.training(1, 4)?;
    // A file in the way of a folder: also root cannot write there.
    std::fs::create_dir_all(scene.path("artifacts"))?;
    let blocked = scene.path("artifacts/checkpoints");
    std::fs::write(&blocked, "")?;
    leader.offer(&job);
    let worker = Process::spawn(&mut scene.worker()?)?;
    let waits = || {
        let trouble = leader.beat()?.trouble?;
        (trouble.fault.kind == FaultKind::Store && !trouble.sits_out).then_some(())
    };
    leader.until("the worker to wait", waits).await?;
    let next = scene.training(2, 1)?;
    leader.offer(&next);
    let asks = leader.asks().len();
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(leader.asks().len(), asks, "it takes nothing new");
    let held = leader.held(job.attempt).context("held")?;
    assert_eq!(held.patience_s, 0, "waiting for the store has no limit");
    assert!(leader.ending(job.attempt).is_none());
    std::fs::remove_file(&blocked)?;
    assert!(is_trained(&leader.ended(job.attempt).await?));
    assert!(is_trained(&leader.ended(next.attempt).await?));
    let well = || leader.beat()?.trouble.is_none().then_some(());
    leader.until("the trouble to pass", well).await?;
    assert!(worker.terminate(PATIENCE)?.success());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn refused_worker_sits_out_and_asks_again() -> Result<()> {
    let scene = Scene::new(96).await?;
    let leader = &scene.leader;
    leader.refuse(Some("its store is A, this installation's is B"));
    let worker = Process::spawn(scene.worker()?.args(["--label", "a100,rack-3"]))?;
    let refused = || {
        let trouble = leader.beat()?.trouble?;
        trouble.sits_out.then_some(trouble.fault.to_string())
    };
    let text = leader.until("the fault", refused).await?;
    assert!(text.contains("its store is A"), "{text}");
    assert_eq!(
        leader.beat().context("a heartbeat")?.labels,
        ["a100", "rack-3"]
    );
    leader.refuse(None);
    let job = scene.training(1, 1)?;
    leader.offer(&job);
    assert!(is_trained(&leader.ended(job.attempt).await?));
    assert!(worker.terminate(PATIENCE)?.success());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn cases_are_evaluated_and_released_ones_stop() -> Result<()> {
    let scene = Scene::new(96).await?;
    let leader = &scene.leader;
    let train = scene.training(1, 2)?;
    leader.offer(&train);
    let hold = scene.path("hold");
    let worker = Process::spawn(scene.worker()?.env("HALFHEARD_INJECT_HOLD", &hold))?;
    let ResultBody::Trained { checkpoints, .. } = leader.ended(train.attempt).await? else {
        anyhow::bail!("not trained");
    };
    let Work::Train(spec) = &train.work else {
        anyhow::bail!("no training job");
    };
    std::fs::write(&hold, "")?;
    let cases: Vec<JobMessage> = ["r=0", "r=0.5", "missing=la"]
        .into_iter()
        .map(|case| {
            Ok(granted(Work::Eval {
                train: train.job,
                spec: spec.clone(),
                case: case.parse::<Case>()?,
                confusions: None,
                checkpoints: checkpoints.clone(),
            }))
        })
        .collect::<Result<_>>()?;
    cases.iter().for_each(|job| leader.offer(job));
    let ended = || {
        let ended: Vec<AttemptId> = cases
            .iter()
            .map(|job| job.attempt)
            .filter(|&attempt| leader.ending(attempt).is_some())
            .collect();
        (!ended.is_empty()).then_some(ended)
    };
    let first = leader.until("a case", ended).await?;
    let rest: Vec<&JobMessage> = cases
        .iter()
        .filter(|job| !first.contains(&job.attempt))
        .collect();
    ensure!(!rest.is_empty(), "the evaluation was not held");
    for job in &rest {
        leader.release(SLOT, job.attempt).await;
    }
    for job in &rest {
        let ending = leader.ended(job.attempt).await?;
        assert!(
            matches!(ending, ResultBody::HandedBack { .. }),
            "{ending:?}"
        );
    }
    std::fs::remove_file(&hold)?;
    let second = again(rest[0]);
    leader.offer(&second);
    let ending = leader.ended(second.attempt).await?;
    assert!(matches!(ending, ResultBody::Evaluated { .. }), "{ending:?}");
    assert!(worker.terminate(PATIENCE)?.success());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn noops_are_reported_and_settled() -> Result<()> {
    let scene = Scene::new(96).await?;
    let leader = &scene.leader;
    let jobs: Vec<JobMessage> = (0..3000).map(|_| granted(Work::Noop)).collect();
    jobs.iter().for_each(|job| leader.offer(job));
    let worker = Process::spawn(scene.worker()?.args(["--once", "3"]))?;
    assert!(worker.wait(PATIENCE)?.success());
    for job in &jobs {
        leader.ended(job.attempt).await?;
    }
    let most = leader.beats().iter().map(|beat| beat.holds.len()).max();
    assert!(most.is_some_and(|most| most <= 1024), "{most:?}");
    Ok(())
}
