//! Programs that specs bring as methods: one that keeps to what is agreed has the same results whatever is
//! killed meanwhile, one that does not fails its own attempts with a reason, and neither leaves anything
//! behind.

use anyhow::{Context as _, Result, ensure};
use futures::TryStreamExt as _;
use halfheard_e2e::{
    PATIENCE,
    dump::{assert_same, dump},
    programs::{Process, coord, output, worker},
    stage::Stage,
    sweeps::sweep,
    tiny::{Tiny, jobs},
};
use halfheard_shared::{
    artifacts::{ArtifactStore, Key},
    bundle::Bundle,
    external::{ExternalTraining, HYPER_KEY, Program},
    hash::Hash,
    wire::{Heartbeat, TrainSpec},
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    path::Path,
    time::{Duration, Instant},
};

const CASES: [&str; 3] = ["r=0", "r=0.5", "missing=la"];

/// A training by a program of `tests/data/external`, whose files are put into the store.
async fn external(
    stage: &Stage,
    tiny: &Tiny,
    script: &str,
    (seed, epochs): (u64, u32),
    mut hyper: Value,
) -> Result<TrainSpec> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/external");
    let mut bundle = Bundle::default();
    bundle.add(&folder.join(script), script, 1 << 20, "the program")?;
    let content = bundle.encode()?;
    let hash = Hash::of(&content);
    let url = ArtifactStore::url_of(&stage.data_dir().join("artifacts"));
    let store = ArtifactStore::open(&url, None).await?;
    store.put(&Key::Blob(hash.clone()), content.into()).await?;
    let program = Program {
        command: vec!["python3".to_owned(), script.to_owned()],
        needs: vec!["json".to_owned()],
        files: BTreeMap::from([(script.to_owned(), Hash::of(&bundle.files[script]))]),
        bundle: hash,
    };
    hyper["max_epochs"] = epochs.into();
    hyper[HYPER_KEY] = serde_json::to_value(program)?;
    let spec = TrainSpec {
        method: "mean-model".to_owned(),
        hyper: hyper.to_string(),
        ..tiny.spec("lnln", seed, epochs)?
    };
    ensure!(ExternalTraining::of(&spec)?.is_some());
    Ok(spec)
}

/// `silence` is in minutes.
fn external_worker(stage: &Stage, silence: &str) -> Result<Process> {
    let mut command = worker(stage)?;
    command.args(["--allow-external", "--save-every", "1", "--name", "w"]);
    command.args(["--slots", "2", "--external-processes", "20"]);
    command.args(["--external-memory", "0.4", "--external-disk", "0.1"]);
    command.args(["--external-state", "0.1", "--external-silence", silence]);
    Process::spawn(&mut command)
}

/// How many processes of these programs are left.
fn left_behind() -> Result<usize> {
    let mut left = 0;
    for entry in std::fs::read_dir("/proc")? {
        let line = std::fs::read(entry?.path().join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).into_owned();
        left += usize::from(line.contains("600.125") || line.contains("hostile.py"));
    }
    Ok(left)
}

/// Kills the slot that trains, or the program that trains in it.
async fn kill_once_trained(stage: &Stage, epochs: i64, program: bool) -> Result<()> {
    let since = Instant::now();
    while stage.count("SELECT count(*) FROM epoch_log").await? < epochs {
        ensure!(since.elapsed() < PATIENCE, "no {epochs} epochs");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    loop {
        ensure!(since.elapsed() < PATIENCE, "nothing trains");
        let bucket = stage.broker.workers().await?;
        let keys: Vec<String> = bucket.keys().await?.try_collect().await?;
        for key in keys {
            let Some(json) = bucket.get(&key).await? else {
                continue;
            };
            let beat: Heartbeat = serde_json::from_slice(&json)?;
            if beat
                .doing
                .is_none_or(|doing| !doing.what.starts_with("train"))
            {
                continue;
            }
            let slot = i32::try_from(beat.pid)?;
            let victim = match program {
                false => Some(slot),
                // The guard, and below it the program.
                true => child_of(slot)?.map(child_of).transpose()?.flatten(),
            };
            if let Some(victim) = victim {
                println!("killing {victim} (program: {program}) after {epochs} epochs");
                kill(Pid::from_raw(victim), Signal::SIGKILL)?;
                return Ok(());
            }
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn child_of(parent: i32) -> Result<Option<i32>> {
    let tasks = format!("/proc/{parent}/task");
    let Ok(tasks) = std::fs::read_dir(tasks) else {
        return Ok(None);
    };
    for task in tasks {
        let children = std::fs::read_to_string(task?.path().join("children")).unwrap_or_default();
        if let Some(child) = children.split_whitespace().next() {
            return Ok(Some(child.parse()?));
        }
    }
    Ok(None)
}

async fn run(disturbed: bool) -> Result<(String, String)> {
    let mut stage = Stage::start().await?;
    let tiny = Tiny::make(stage.data_dir(), 64)?;
    let sweep = sweep("external", 0);
    let mut all = Vec::new();
    for seed in [1111, 1112] {
        let hyper = json!({"sleep": 0.2, "rate": 0.05});
        let spec = external(&stage, &tiny, "mean.py", (seed, 12), hyper).await?;
        all.extend(jobs(&sweep, &spec, &CASES)?);
    }
    let count = i64::try_from(all.len())?;
    stage.store.submit(&sweep, all).await?;
    let daemon = Process::spawn(coord(&stage)?.arg("serve"))?;
    let mut workers = external_worker(&stage, "2")?;
    if disturbed {
        kill_once_trained(&stage, 3, true).await?;
        kill_once_trained(&stage, 6, false).await?;
        // The worker as a whole, politely: programs save, or have saved.
        tokio::time::sleep(Duration::from_secs(1)).await;
        ensure!(workers.terminate(PATIENCE)?.success());
        workers = external_worker(&stage, "2")?;
        stage.nats.kill()?;
        stage.nats.resume()?;
    }
    let progress = stage.finished(sweep.id, PATIENCE).await?;
    assert_eq!((progress.done, progress.failed), (count, 0));
    assert_eq!(stage.count("SELECT count(*) FROM conflict").await?, 0);
    if disturbed {
        let resumed = "SELECT count(*) FROM attempt WHERE resumed_after_epoch > 0";
        assert!(stage.count(resumed).await? >= 1, "a program resumed");
    }
    let printed = output(coord(&stage)?.args(["table", "2", "--sweep", "external"]))?;
    let content = dump(&stage.store).await?;
    let status = workers.terminate(PATIENCE)?;
    ensure!(status.success(), "{status}");
    daemon.terminate(PATIENCE)?;
    let runs = std::fs::read_dir(stage.data_dir().join("external"))?;
    assert_eq!(runs.count(), 0, "no folder of a run is left");
    Ok((printed, content))
}

#[tokio::test(flavor = "multi_thread")]
async fn results_of_a_program_are_the_same_whatever_is_killed() -> Result<()> {
    let (table, content) = run(false).await?;
    ensure!(table.contains("mean-model"), "{table}");
    let (disturbed_table, disturbed_content) = run(true).await?;
    assert_same(&content, &disturbed_content);
    assert_eq!(table, disturbed_table);
    Ok(())
}

/// A program that predicts both splits after each epoch leaves the checkpoints of both choices.
#[tokio::test(flavor = "multi_thread")]
async fn program_is_selected_on_both_splits() -> Result<()> {
    let stage = Stage::start().await?;
    let tiny = Tiny::make(stage.data_dir(), 64)?;
    let sweep = sweep("both", 0);
    let hyper = json!({"sleep": 0, "rate": 0.05});
    let mut spec = external(&stage, &tiny, "mean.py", (1111, 6), hyper).await?;
    spec.protocol.selection = halfheard_shared::wire::Selection::Both;
    stage
        .store
        .submit(&sweep, jobs(&sweep, &spec, &CASES)?)
        .await?;
    let _coordinator = stage.serve();
    let worker = external_worker(&stage, "2")?;
    let progress = stage.finished(sweep.id, PATIENCE).await?;
    assert_eq!(progress.failed, 0);
    // Each is of the epoch that its own split's values say.
    let best = "SELECT count(*) FROM checkpoint k
                JOIN (SELECT DISTINCT ON (c) c, epoch FROM epoch_log,
                             unnest(ARRAY['mae', 'test:mae']) AS c
                      ORDER BY c, round((metrics ->> c)::numeric, 4), epoch) AS b
                  ON b.c = k.criterion AND b.epoch = k.epoch";
    assert_eq!(stage.count(best).await?, 2);
    assert_eq!(stage.count("SELECT count(*) FROM checkpoint").await?, 10);
    let known = "SELECT count(*) FROM optimism WHERE metric = 'mae' AND optimism IS NOT NULL";
    assert_eq!(stage.count(known).await?, i64::try_from(CASES.len())?);
    ensure!(worker.terminate(PATIENCE)?.success());
    Ok(())
}

/// What a program does, and a part of the reason with which its attempt fails.
const DEEDS: [(&str, &str); 17] = [
    ("dies", "it exited with code 3"),
    ("exits", "it exited before it had finished"),
    ("is silent", "it said nothing for 6 s"),
    ("chats", "not an event"),
    ("writes without end", "a line of more than"),
    ("logs without end", "it said nothing for 6 s"),
    ("predicts too few", "values for the"),
    ("predicts nan", "not an event"),
    ("reports a metric", "unknown field `mae`"),
    (
        "skips an epoch",
        "it spoke of epoch 7 where epoch 1 was next",
    ),
    ("links", "a link or leads out of its folder"),
    (
        "saves too much",
        "its state has 180000000 bytes, over the limit",
    ),
    ("writes a huge state", "File too large"),
    ("multiplies", "processes, over the limit of 20"),
    ("takes memory", "GB of memory, over the limit of 0.4"),
    (
        "fills the disk",
        "GB into its folder, over the limit of 0.1",
    ),
    ("leaves a child", "it exited with code 4"),
];

#[tokio::test(flavor = "multi_thread")]
async fn hostile_programs_fail_their_own_attempts_and_leave_nothing() -> Result<()> {
    let stage = Stage::start().await?;
    let tiny = Tiny::make(stage.data_dir(), 16)?;
    let sweep = sweep("hostile", 0);
    let mut all = Vec::new();
    for (seed, (deed, _)) in (0..).zip(DEEDS) {
        let spec = external(
            &stage,
            &tiny,
            "hostile.py",
            (seed, 3),
            json!({"deed": deed}),
        )
        .await?;
        all.extend(jobs(&sweep, &spec, &[])?);
    }
    stage.store.submit(&sweep, all).await?;
    let daemon = Process::spawn(coord(&stage)?.arg("serve"))?;
    let workers = external_worker(&stage, "0.1")?;
    let since = Instant::now();
    let ended = "SELECT count(DISTINCT job) FROM attempt WHERE outcome = 'failed'";
    while stage.count(ended).await? < DEEDS.len() as i64 {
        ensure!(since.elapsed() < PATIENCE * 3, "some have not failed");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    for (seed, (deed, reason)) in (0_i64..).zip(DEEDS) {
        let errors: Vec<String> = sqlx::query_scalar(
            "SELECT array_to_string(errors, ': ') FROM attempt JOIN job ON job.id = attempt.job
             WHERE job.seed = $1 AND attempt.outcome = 'failed' ORDER BY attempt.ended LIMIT 1",
        )
        .bind(seed)
        .fetch_all(stage.store.pool())
        .await?;
        let errors = errors.first().context("no attempt has failed")?;
        assert!(errors.contains(reason), "{deed}: {errors}");
    }
    // What it wrote last explains why it died, and is kept.
    let tail: String = sqlx::query_scalar(
        "SELECT tail FROM attempt_output JOIN attempt ON attempt.id = attempt_output.attempt
         JOIN job ON job.id = attempt.job WHERE job.seed = 0 LIMIT 1",
    )
    .fetch_one(stage.store.pool())
    .await?;
    assert_eq!(tail, "no module named torch\n");
    // The worker is well, and has nothing against the next job.
    let status = workers.terminate(PATIENCE)?;
    ensure!(status.success(), "{status}");
    daemon.terminate(PATIENCE)?;
    assert_eq!(left_behind()?, 0, "processes are left");
    Ok(())
}
