//! Workers that shut down by one signal to all their processes, by two apart, and by the Slurm
//! script.

use anyhow::{Context as _, Result, ensure};
use halfheard_e2e::{
    programs::{Process, program, worker},
    stage::Stage,
    sweeps::sweep,
    tiny::{Tiny, jobs},
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use std::{
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

const PATIENCE: Duration = Duration::from_secs(50);

/// A process and all its descendants.
fn process_tree(root: u32) -> Vec<u32> {
    let mut all = vec![root];
    let mut next = 0;
    while let Some(&pid) = all.get(next) {
        next += 1;
        let tasks = std::fs::read_dir(format!("/proc/{pid}/task"));
        for task in tasks.into_iter().flatten().flatten() {
            let children = std::fs::read_to_string(task.path().join("children"));
            let children = children.unwrap_or_default();
            all.extend(
                children
                    .split_whitespace()
                    .filter_map(|p| p.parse::<u32>().ok()),
            );
        }
    }
    all
}

fn signal(pid: u32, signal: Signal) {
    // It may have exited already.
    let _ = kill(Pid::from_raw(pid.cast_signed()), signal);
}

fn read(log: &Path) -> String {
    std::fs::read_to_string(log).unwrap_or_default()
}

async fn until(what: &str, mut state: impl AsyncFnMut() -> Result<bool>) -> Result<()> {
    let since = Instant::now();
    while !state().await? {
        ensure!(since.elapsed() < PATIENCE, "timed out waiting for {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

/// Submits a training job that does not end.
async fn endless(stage: &Stage) -> Result<()> {
    let tiny = Tiny::make(stage.data_dir(), 320)?;
    let sweep = sweep("endless", 0);
    let all = jobs(&sweep, &tiny.spec("lnln", 1, 100_000)?, &[])?;
    stage.store.submit(&sweep, all).await?;
    Ok(())
}

const HANDED_BACK: &str = "SELECT count(*) FROM attempt WHERE outcome = 'handed_back'";

/// Waits until the newest attempt is training.
async fn in_training(stage: &Stage, attempts: i64) -> Result<()> {
    let (store, epochs) = (stage, "SELECT count(*) FROM epoch_log");
    until("an attempt", async || {
        Ok(store.count("SELECT count(*) FROM attempt").await? > attempts)
    })
    .await?;
    let before = store.count(epochs).await?;
    until("an epoch", async || Ok(store.count(epochs).await? > before)).await
}

/// One signal to all processes is one request, in whatever order it reaches them.
#[tokio::test(flavor = "multi_thread")]
async fn signal_to_all_processes_counts_once() -> Result<()> {
    let stage = Stage::start().await?;
    endless(&stage).await?;
    let _coordinator = stage.serve();
    let log = stage.data_dir().join("worker.log");
    for round in 0..5 {
        let worker = Process::spawn(
            worker(&stage)?
                .args(["--save-every", "0.5"])
                .stderr(std::fs::File::create(&log)?),
        )?;
        in_training(&stage, round).await?;
        let mut all = process_tree(worker.id());
        ensure!(all.len() == 2, "a supervisor and a slot: {all:?}");
        if round % 2 == 1 {
            all.reverse();
        }
        for &pid in &all {
            signal(pid, Signal::SIGTERM);
        }
        if round == 4 {
            // And once more, like a key held down.
            for &pid in &all {
                signal(pid, Signal::SIGINT);
            }
        }
        let status = worker.wait(PATIENCE)?;
        let text = read(&log);
        ensure!(status.code() == Some(0), "round {round}: {status}\n{text}");
        until("the hand-back", async || {
            Ok(stage.count(HANDED_BACK).await? == round + 1)
        })
        .await?;
        let running = "SELECT count(*) FROM job WHERE state = 'running'";
        ensure!(stage.count(running).await? == 0, "the job is handed back");
        for who in ["supervisor shutting down", "slot 0 shutting down"] {
            ensure!(text.matches(who).count() == 1, "`{who}`:\n{text}");
        }
    }
    Ok(())
}

/// Two signals apart force an immediate exit, even if a slot does not respond.
#[tokio::test(flavor = "multi_thread")]
async fn second_signal_forces_an_immediate_exit() -> Result<()> {
    let stage = Stage::start().await?;
    endless(&stage).await?;
    let _coordinator = stage.serve();
    let log = stage.data_dir().join("worker.log");
    let worker = Process::spawn(worker(&stage)?.stderr(std::fs::File::create(&log)?))?;
    in_training(&stage, 0).await?;
    let (supervisor, slot) = match process_tree(worker.id())[..] {
        [supervisor, slot] => (supervisor, slot),
        ref other => anyhow::bail!("a supervisor and a slot: {other:?}"),
    };
    signal(slot, Signal::SIGSTOP);
    signal(supervisor, Signal::SIGTERM);
    until("the supervisor's response", async || {
        Ok(read(&log).contains("supervisor shutting down"))
    })
    .await?;
    tokio::time::sleep(Duration::from_millis(2500)).await;
    signal(supervisor, Signal::SIGTERM);
    let status = worker.wait(PATIENCE)?;
    let text = read(&log);
    ensure!(status.code() == Some(6), "{status}\n{text}");
    ensure!(text.contains("exiting immediately"), "{text}");
    ensure!(!text.contains("did not exit in time"), "{text}");
    ensure!(!Path::new(&format!("/proc/{slot}/exe")).exists());
    Ok(())
}

/// SIGUSR1 is for programs that may repeat it.
#[tokio::test(flavor = "multi_thread")]
async fn repeated_sigusr1_shuts_down_gracefully() -> Result<()> {
    let stage = Stage::start().await?;
    endless(&stage).await?;
    let _coordinator = stage.serve();
    let worker = Process::spawn(&mut worker(&stage)?)?;
    in_training(&stage, 0).await?;
    let supervisor = worker.id();
    let repeat = tokio::spawn(async move {
        loop {
            signal(supervisor, Signal::SIGUSR1);
            tokio::time::sleep(Duration::from_millis(700)).await;
        }
    });
    // Not reaped before the repetition ends, so the process ID is not reused.
    until("the hand-back", async || {
        Ok(stage.count(HANDED_BACK).await? == 1)
    })
    .await?;
    repeat.abort();
    let _ = repeat.await;
    let status = worker.wait(PATIENCE)?;
    ensure!(status.code() == Some(0), "{status}");
    Ok(())
}

fn slurm(stage: &Stage, bin: &Path) -> Result<Command> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut command = Command::new("bash");
    let artifacts = stage.data_dir().join("artifacts");
    for (variable, _) in std::env::vars_os() {
        let name = variable.to_string_lossy().into_owned();
        if name.starts_with("HALFHEARD_") || name.starts_with("SLURM_") {
            command.env_remove(variable);
        }
    }
    let path = std::env::var("PATH")?;
    command
        .arg(root.join("deploy/slurm/worker.sbatch"))
        .env("HALFHEARD_ENV", "/dev/null")
        .env("HALFHEARD_CONFIG", "/dev/null")
        .env("HALFHEARD_NATS_URL", stage.nats.url())
        .env(
            "HALFHEARD_ARTIFACTS",
            format!("file://{}", artifacts.display()),
        )
        .env("HALFHEARD_WORKER", program("worker")?)
        .env("HALFHEARD_THREADS", "1")
        .env("HALFHEARD_DEVICE", "cpu")
        .env("TMPDIR", bin)
        .env("PATH", format!("{}:{path}", bin.display()))
        .stdin(Stdio::null());
    Ok(command)
}

/// `scancel --full` signals the script, the supervisor and the slot, and the script forwards the
/// signal.
#[tokio::test(flavor = "multi_thread")]
async fn slurm_scripts_forwarded_signal_counts_once() -> Result<()> {
    let stage = Stage::start().await?;
    endless(&stage).await?;
    let _coordinator = stage.serve();
    let bin = tempfile::tempdir()?;
    for round in 0..3 {
        let log = stage.data_dir().join(format!("slurm-{round}.log"));
        let mut command = slurm(&stage, bin.path())?;
        let script = Process::spawn(command.stderr(std::fs::File::create(&log)?))?;
        in_training(&stage, round).await?;
        let all = process_tree(script.id());
        ensure!(all.len() == 3, "script, supervisor, slot: {all:?}");
        for &pid in &all {
            signal(pid, Signal::SIGTERM);
        }
        let status = script.wait(PATIENCE)?;
        ensure!(status.code() == Some(0), "{status}\n{}", read(&log));
        until("the hand-back", async || {
            Ok(stage.count(HANDED_BACK).await? == round + 1)
        })
        .await?;
    }
    let data = bin.path().join(format!("halfheard-{}", user()?));
    let mode = std::fs::metadata(&data)?.permissions().mode();
    ensure!(mode & 0o777 == 0o700, "{mode:o}");
    Ok(())
}

/// At its time limit the worker shuts down gracefully and the Slurm job requeues itself.
#[tokio::test(flavor = "multi_thread")]
async fn slurm_script_requeues_at_its_time_limit() -> Result<()> {
    let stage = Stage::start().await?;
    endless(&stage).await?;
    let _coordinator = stage.serve();
    let bin = tempfile::tempdir()?;
    let scontrol = bin.path().join("scontrol");
    let calls = bin.path().join("calls");
    std::fs::write(
        &scontrol,
        format!("#!/bin/sh\necho \"$@\" >> '{}'\n", calls.display()),
    )?;
    std::fs::set_permissions(&scontrol, std::fs::Permissions::from_mode(0o755))?;
    let mut command = slurm(&stage, bin.path())?;
    let script = Process::spawn(command.env("SLURM_JOB_ID", "7"))?;
    in_training(&stage, 0).await?;
    signal(script.id(), Signal::SIGUSR1);
    let status = script.wait(PATIENCE)?;
    ensure!(status.code() == Some(0), "{status}");
    ensure!(read(&calls) == "requeue 7\n", "{}", read(&calls));
    until("the hand-back", async || {
        Ok(stage.count(HANDED_BACK).await? == 1)
    })
    .await
}

fn user() -> Result<String> {
    let user = nix::unistd::User::from_uid(nix::unistd::geteuid())?;
    Ok(user.context("no user name")?.name)
}

/// A folder at a predictable path may belong to another user.
#[tokio::test(flavor = "multi_thread")]
async fn slurm_script_rejects_a_data_folder_of_another_user() -> Result<()> {
    let stage = Stage::start().await?;
    let bin = tempfile::tempdir()?;
    let data = bin.path().join(format!("halfheard-{}", user()?));
    let elsewhere = tempfile::tempdir()?;
    std::os::unix::fs::symlink(elsewhere.path(), &data)?;
    let refused = slurm(&stage, bin.path())?.output()?;
    let log = String::from_utf8_lossy(&refused.stderr).into_owned();
    ensure!(refused.status.code() == Some(1), "{log}");
    ensure!(log.contains("HALFHEARD_DATA_DIR"), "{log}");
    if nix::unistd::geteuid().is_root() {
        std::fs::remove_file(&data)?;
        std::fs::create_dir(&data)?;
        let nobody = nix::unistd::User::from_name("nobody")?.context("nobody")?;
        std::os::unix::fs::chown(&data, Some(nobody.uid.as_raw()), None)?;
        let refused = slurm(&stage, bin.path())?.output()?;
        ensure!(refused.status.code() == Some(1), "{refused:?}");
    }
    Ok(())
}
