//! `coord run` with private servers, real workers and tables; interrupted, killed, and continued.

use anyhow::{Context as _, Result, ensure};
use halfheard_e2e::{
    PATIENCE,
    programs::{Process, output, program},
    tiny::Tiny,
};
use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant, SystemTime},
};

/// A folder with a spec, its files, and room for data.
struct Place {
    folder: tempfile::TempDir,
}

impl Place {
    fn new() -> Result<Self> {
        Self::with("")
    }

    /// With its own hyper-parameters for ALMT.
    fn with(almt: &str) -> Result<Self> {
        let folder = Tiny::folder(48)?;
        let spec = format!(
            r#"
            name = "tiny"
            methods = ["almt", "lnln"]
            seeds = [1, 2]
            rates = [0.0, 0.5]
            missing = ["l"]
            epochs = 4
            [datasets.mosi]
            file = "tiny.safetensors"
            [encoders.en]
            path = "tiny-encoder"
            [hyper.almt]
            batch_size = 16
            width = 16
            {almt}
            [hyper.lnln]
            batch_size = 16
            width = 16
            tokens = 4
            heads = 4
            "#
        );
        std::fs::write(folder.path().join("tiny.toml"), spec)?;
        Ok(Self { folder })
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    fn coord(&self, arguments: &[&str]) -> Result<Command> {
        let mut command = Command::new(program("coord")?);
        for (variable, _) in std::env::vars_os() {
            let name = variable.to_string_lossy().into_owned();
            if name.starts_with("HALFHEARD_") && name != "HALFHEARD_DEPS" {
                command.env_remove(variable);
            }
        }
        command
            .args(arguments)
            .arg("--data-dir")
            .arg(self.data())
            .current_dir(self.folder.path())
            .env("HALFHEARD_CONFIG", "/dev/null")
            .stdin(Stdio::null());
        Ok(command)
    }

    /// The unrounded numbers of both tables and of the missing modalities.
    fn tables(&self) -> Result<Vec<String>> {
        ["2", "9", "11", "13"]
            .into_iter()
            .map(|number| output(&mut self.coord(&["table", number, "--format", "csv"])?))
            .collect()
    }

    /// Processes that have this folder in their command line.
    fn processes(&self) -> Vec<String> {
        let folder = self.folder.path().display().to_string();
        let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
        entries
            .filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok())
            .map(|bytes| String::from_utf8_lossy(&bytes).replace('\0', " "))
            .filter(|line| line.contains(&folder))
            .collect()
    }

    fn nothing_is_left(&self) -> Result<()> {
        let since = Instant::now();
        loop {
            let left = self.processes();
            if left.is_empty() {
                return Ok(());
            }
            ensure!(since.elapsed() < PATIENCE, "still there: {left:?}");
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Starts a run and waits until a training job has saved its state.
    fn start(&self) -> Result<Process> {
        let mut command = self.coord(&["run", "tiny.toml"])?;
        let began = SystemTime::now();
        let process = Process::spawn(command.stdout(Stdio::null()).stderr(Stdio::null()))?;
        let since = Instant::now();
        while !saved_since(&self.data().join("artifacts/resume"), began) {
            ensure!(since.elapsed() < PATIENCE, "no training saves its state");
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(process)
    }
}

/// Whether a saved state in `folder` is newer than `began`.
fn saved_since(folder: &Path, began: SystemTime) -> bool {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .filter_map(|entry| entry.metadata().ok()?.modified().ok())
        .any(|changed| changed > began)
}

#[test]
fn interrupted_and_killed_run_ends_in_the_same_tables() -> Result<()> {
    let calm = Place::new()?;
    let plan = output(&mut calm.coord(&["plan", "tiny.toml"])?)?;
    ensure!(plan.contains("no sweep was run here yet"), "{plan}");
    // Nothing listens there, whatever runs on this machine.
    let nowhere = [("PGHOST", "127.0.0.1"), ("PGPORT", "1")];
    let status = calm.coord(&["status"])?.envs(nowhere).output()?;
    let said = String::from_utf8(status.stderr)?;
    ensure!(status.status.code() == Some(1), "{said}");
    ensure!(said.contains("no sweep was run here yet"), "{said}");
    let notify = ["--notify", "cp /dev/stdin told.json"];
    let report = output(calm.coord(&["run", "tiny.toml"])?.args(notify))?;
    let told = std::fs::read_to_string(calm.folder.path().join("told.json"))?;
    ensure!(told.contains("finished: 16 of 16 jobs done"), "{told}");
    for part in [
        "Table 2.",
        "Table 9.",
        "ALMT",
        "LNLN",
        "Next steps",
        "16 of 16 jobs",
    ] {
        ensure!(report.contains(part), "no `{part}` in\n{report}");
    }
    ensure!(!report.contains('…'), "{report}");
    calm.nothing_is_left()?;
    let tables = calm.tables()?;
    calm.nothing_is_left()?;

    let plan = output(&mut calm.coord(&["plan", "tiny.toml"])?)?;
    ensure!(
        plan.contains("2 of 2 done") && plan.contains("6 of 6 done"),
        "{plan}"
    );
    calm.nothing_is_left()?;

    // A second run repeats nothing.
    let began = SystemTime::now();
    let again = output(&mut calm.coord(&["run", "tiny.toml"])?)?;
    ensure!(again.contains("16 of 16 jobs"), "{again}");
    let stored = calm.data().join("artifacts/checkpoints");
    ensure!(stored.is_dir(), "no checkpoints where they are looked for");
    ensure!(!saved_since(&stored, began), "it worked again");
    let status = output(&mut calm.coord(&["status", "tiny"])?)?;
    ensure!(status.contains("16 done of 16"), "{status}");

    let stormy = Place::new()?;
    let status = stormy.start()?.terminate(PATIENCE)?;
    ensure!(status.code() == Some(130), "{status}");
    stormy.nothing_is_left()?;
    stormy.start()?.kill()?;
    stormy.nothing_is_left()?;
    let report = output(&mut stormy.coord(&["run", "tiny.toml"])?)?;
    ensure!(report.contains("16 of 16 jobs"), "{report}");
    for (calm, stormy) in tables.iter().zip(stormy.tables()?) {
        ensure!(*calm == stormy, "calm:\n{calm}\nstormy:\n{stormy}");
    }
    stormy.nothing_is_left()
}

#[test]
fn run_reports_failed_jobs_and_finishes_the_others() -> Result<()> {
    // Weights grow a hundredfold in every step until the loss is not finite, which no plan can predict.
    let place = Place::with("learning_rate = 1.0\nweight_decay = 100.0")?;
    let ended = place.coord(&["run", "tiny.toml"])?.output()?;
    let report = String::from_utf8(ended.stdout)?;
    let log = String::from_utf8(ended.stderr)?;
    ensure!(
        ended.status.code() == Some(3),
        "{}\n{report}\n{log}",
        ended.status
    );
    ensure!(report.contains("8 jobs failed:"), "{report}");
    ensure!(report.contains("train almt on mosi, seed 1"), "{report}");
    ensure!(report.contains("8 of 16 jobs are done"), "{report}");
    ensure!(report.contains('…'), "{report}");
    let status = output(&mut place.coord(&["status", "tiny", "--json"])?)?;
    let status: serde_json::Value = serde_json::from_str(&status)?;
    ensure!(status["jobs"]["failed"] == 8, "{status}");
    let failures = status["failures"].as_array().context("failures")?;
    ensure!(failures.iter().all(|f| f["given_up"] == true), "{status}");
    // One cause, not one entry per attempt; evaluations without a model count with it.
    ensure!(failures.len() == 1, "{status}");
    let number = |key: &str| failures[0][key].as_i64().context("a number");
    ensure!(
        number("jobs")? + number("evaluations_not_begun")? == 8,
        "{status}"
    );
    // Reopened in the private database without its broker; the next run completes them.
    ensure!(report.contains("coord run tiny.toml --retry"), "{report}");
    let retried = output(&mut place.coord(&["retry", "tiny", "--json"])?)?;
    let retried: serde_json::Value = serde_json::from_str(&retried)?;
    ensure!(retried["retried"]["train"] == 2, "{retried}");
    ensure!(retried["retried"]["eval"] == 6, "{retried}");
    ensure!(retried["jobs"]["failed"] == 0, "{retried}");
    place.nothing_is_left()
}

#[test]
fn invalid_spec_starts_nothing() -> Result<()> {
    let place = Place::new()?;
    let spec = place.folder.path().join("tiny.toml");
    let text = std::fs::read_to_string(&spec)?.replace("lnln", "lnlm");
    std::fs::write(&spec, text)?;
    let ended = place.coord(&["run", "tiny.toml"])?.output()?;
    ensure!(ended.status.code() == Some(1), "{}", ended.status);
    let log = String::from_utf8(ended.stderr)?;
    ensure!(log.contains("lnln") && log.contains("tiny.toml:3"), "{log}");
    ensure!(!place.data().exists(), "something was made");
    Ok(())
}
