//! `coord tune-machine` with the real worker: what it measures and keeps, what `coord run` makes of it, and
//! what is left when it is interrupted or killed.

use anyhow::{Context as _, Result, ensure};
use halfheard_e2e::{
    PATIENCE,
    programs::{Process, bare, output, program},
    tiny::Tiny,
};
use std::{
    path::PathBuf,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

/// A folder with a text encoder, a small spec, and room for data.
struct Place {
    folder: tempfile::TempDir,
}

impl Place {
    fn new() -> Result<Self> {
        let folder = Tiny::folder_with_spec("text-only")?;
        Ok(Self { folder })
    }

    fn coord(&self, arguments: &[&str]) -> Result<Command> {
        let mut command = bare(program("coord")?);
        command
            .args(arguments)
            .arg("--data-dir")
            .arg(self.folder.path().join("data"))
            .current_dir(self.folder.path())
            .env("HALFHEARD_WORKER", program("worker")?)
            .env(
                "HALFHEARD_ENCODER_EN",
                self.folder.path().join("tiny-encoder"),
            );
        Ok(command)
    }

    /// The file of this machine, once there is one.
    fn kept(&self) -> Option<PathBuf> {
        let folder = self.folder.path().join("data/machines");
        let mut files = std::fs::read_dir(folder).ok()?;
        Some(files.next()?.ok()?.path())
    }

    /// What a run says of its workers, on standard error.
    fn run(&self, flags: &[&str]) -> Result<String> {
        let mut command = self.coord(&["run", "tiny.toml"])?;
        let ended = command.args(flags).output()?;
        let said = String::from_utf8(ended.stderr)?;
        ensure!(ended.status.success(), "{}: {said}", ended.status);
        Ok(said)
    }

    /// Command lines of processes that name this folder's encoder: workers that measure.
    fn measuring(&self) -> Vec<String> {
        let encoder = self
            .folder
            .path()
            .join("tiny-encoder")
            .display()
            .to_string();
        let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
        entries
            .filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok())
            .map(|bytes| String::from_utf8_lossy(&bytes).replace('\0', " "))
            .filter(|line| line.contains(&encoder) && line.contains("--measure"))
            .collect()
    }

    /// Waits until workers measure, or none does any more.
    fn until_measuring(&self, any: bool) -> Result<()> {
        let since = Instant::now();
        while self.measuring().is_empty() == any {
            ensure!(since.elapsed() < PATIENCE, "{:?}", self.measuring());
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }
}

const TUNE: [&str; 5] = ["tune-machine", "--method", "text-only", "--seconds", "0.4"];

#[test]
fn best_number_of_workers_is_measured_kept_and_used() -> Result<()> {
    let place = Place::new()?;
    let said = place.run(&[])?;
    ensure!(said.contains("`coord tune-machine` measures"), "{said}");

    let report = output(place.coord(&TUNE)?.arg("--json"))?;
    let report: serde_json::Value = serde_json::from_str(&report)?;
    let cores = std::thread::available_parallelism()?.get() as u64;
    ensure!(report["machine"]["cores"] == cores, "{report}");
    let candidates = report["candidates"].as_array().context("candidates")?;
    let pair = |of: &serde_json::Value| Some((of["slots"].as_u64()?, of["threads"].as_u64()?));
    let pairs: Vec<_> = candidates.iter().filter_map(pair).collect();
    ensure!(pairs.contains(&(1, cores)), "{report}");
    let chosen = pair(&report["chosen"]).context("chosen")?;
    ensure!(pairs.contains(&chosen), "{report}");
    for candidate in candidates {
        let method = &candidate["methods"][0];
        ensure!(method["method"] == "text-only", "{report}");
        let rate = method["steps_per_second"].as_f64().context("a rate")?;
        ensure!(rate > 0.0, "{report}");
        // A worker with libtorch takes more than this, with anything.
        let memory = candidate["memory"].as_u64().context("memory")?;
        ensure!(memory > 50_000_000, "{report}");
    }
    place.until_measuring(false)?;

    let said = place.run(&[])?;
    let threads = match chosen.1 {
        1 => "1 thread each".to_owned(),
        threads => format!("{threads} threads each"),
    };
    let used = format!("{threads} (as `coord tune-machine` measured on ");
    ensure!(said.contains(&used), "no `{used}` in {said}");
    let doctor = place.coord(&["doctor"])?.output()?;
    let doctor = String::from_utf8(doctor.stdout)?;
    ensure!(doctor.contains(", measured on "), "{doctor}");
    // Whoever asks for a number gets it.
    let said = place.run(&["--workers", "1", "--threads", "1"])?;
    let used = "slot 0 on cpu; 1 thread each (as --workers says)";
    ensure!(said.contains(used), "{said}");

    // An older build.
    let kept = place.kept().context("nothing is kept")?;
    let text = std::fs::read_to_string(&kept)?;
    let build = report["machine"]["build"].as_str().context("a build")?;
    std::fs::write(&kept, text.replace(build, "worker 0.0.1"))?;
    let said = place.run(&[])?;
    ensure!(
        said.contains("it is of another build, worker 0.0.1"),
        "{said}"
    );
    // Half a file.
    std::fs::write(&kept, &text[..text.len() / 2])?;
    let said = place.run(&[])?;
    ensure!(said.contains("because it is damaged"), "{said}");
    Ok(())
}

#[test]
fn interrupted_or_killed_measurement_leaves_nothing() -> Result<()> {
    let place = Place::new()?;
    let start = || -> Result<Process> {
        let arguments = ["tune-machine", "--method", "text-only", "--seconds", "3600"];
        let mut command = place.coord(&arguments)?;
        let process = Process::spawn(command.stdout(Stdio::null()).stderr(Stdio::null()))?;
        place.until_measuring(true)?;
        Ok(process)
    };
    let status = start()?.terminate(PATIENCE)?;
    ensure!(status.code() == Some(130), "{status}");
    place.until_measuring(false)?;
    start()?.kill()?;
    place.until_measuring(false)?;
    ensure!(place.kept().is_none(), "something was kept");
    Ok(())
}

#[test]
fn measurement_without_an_encoder_says_what_to_do() -> Result<()> {
    let place = Place::new()?;
    let ended = place
        .coord(&TUNE)?
        .env("HALFHEARD_ENCODER_EN", place.folder.path().join("absent"))
        .output()?;
    let said = String::from_utf8(ended.stderr)?;
    ensure!(ended.status.code() == Some(1), "{}: {said}", ended.status);
    ensure!(said.contains("English text encoder"), "{said}");
    ensure!(said.contains("hint:"), "{said}");
    ensure!(place.kept().is_none(), "something was kept");
    Ok(())
}
