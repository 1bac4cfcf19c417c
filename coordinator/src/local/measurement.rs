//! Measures how fast slots train here: several `worker --measure` at once.

use super::{child::PipedProcess, programs::Programs};
use futures::future::try_join_all;
use halfheard_shared::{env, error::Hint};
use serde::Deserialize;
use std::{
    fs::File,
    io::{Read as _, Seek as _, Write as _},
    path::Path,
    process::{ChildStdin, Command, ExitStatus},
    time::Duration,
};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader, Lines},
    process::ChildStdout,
    time::timeout,
};

/// How long a worker may take until it has trained its first step, and after its time to end its last.
const STEP_TIMEOUT: Duration = Duration::from_secs(300);
/// What a worker prints when it is ready.
const READY: &str = "ready";
/// How many of the last bytes of its standard error an error quotes.
const QUOTED: i64 = 2_000;

/// What to measure.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Question<'a> {
    /// The worker program.
    pub(crate) worker: &'a Path,
    pub(crate) programs: &'a Programs,
    /// The folder of the English text encoder.
    pub(crate) encoder: &'a Path,
    /// The method to train.
    pub(crate) method: &'a str,
    /// How many workers train at once.
    pub(crate) slots: usize,
    /// CPU threads of each.
    pub(crate) threads: usize,
    /// For how long.
    pub(crate) time: Duration,
}

/// What one worker measured.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub(crate) struct Answer {
    /// Training steps in `seconds`.
    pub(crate) steps: u64,
    pub(crate) seconds: f64,
    /// The most bytes of memory that it needed; 0 if unknown.
    pub(crate) peak_memory: u64,
}

impl Answer {
    /// Training steps per second.
    pub(crate) fn rate(&self) -> f64 {
        self.steps as f64 / self.seconds
    }
}

/// Why nothing was measured.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MeasureError {
    /// The worker cannot be started, or spoken to.
    #[error("cannot run the worker")]
    Run(#[from] std::io::Error),
    /// It exited without an answer.
    #[error("the worker that measures exited ({status}): {stderr}")]
    Exited {
        /// Its exit status.
        status: ExitStatus,
        /// The end of its standard error.
        stderr: String,
    },
    /// It takes too long.
    #[error("a worker did not train a step of {method} within {} s", STEP_TIMEOUT.as_secs())]
    Slow {
        /// The method.
        method: String,
    },
    /// The answer is invalid.
    #[error("cannot parse what the worker measured")]
    Answer(#[source] serde_json::Error),
    /// The answer is missing, or no measurement.
    #[error("the worker reports no steps, but `{0}`")]
    Nothing(String),
}

impl Hint for MeasureError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Answer(_) | Self::Nothing(_) => {
                Some("use a worker of the same release as `coord`".to_owned())
            }
            Self::Slow { .. } => {
                Some("measure a lighter one with --method, or stop what else runs here".to_owned())
            }
            Self::Run(_) | Self::Exited { .. } => {
                Some("`coord doctor` checks the worker, libtorch and the text encoder".to_owned())
            }
        }
    }
}

/// A worker that measures.
struct Slot {
    process: PipedProcess,
    input: ChildStdin,
    lines: Lines<BufReader<ChildStdout>>,
    errors: File,
}

/// Has all slots train at once. Dropping it kills them.
///
/// # Errors
///
/// A worker does not run, or gives no valid answer.
pub(crate) async fn measure(question: Question<'_>) -> Result<Vec<Answer>, MeasureError> {
    let slots: Result<Vec<Slot>, MeasureError> = (0..question.slots)
        .map(|_| Slot::start(&question))
        .collect();
    let mut slots = slots?;
    let slow = |_| MeasureError::Slow {
        method: question.method.to_owned(),
    };
    let ready = try_join_all(slots.iter_mut().map(Slot::ready));
    timeout(STEP_TIMEOUT, ready).await.map_err(slow)??;
    for slot in &mut slots {
        // Fails if it has exited, which its answer shows.
        let _ = slot.input.write_all(b"\n");
    }
    let answers = try_join_all(slots.iter_mut().map(Slot::answer));
    timeout(question.time + STEP_TIMEOUT, answers)
        .await
        .map_err(slow)?
}

impl Slot {
    fn start(question: &Question<'_>) -> Result<Self, MeasureError> {
        let mut command = Command::new(question.worker);
        command
            .args(["--measure", question.method, "--measure-on-line"])
            .args(["--device", "cpu", "--threads"])
            .arg(question.threads.to_string())
            .arg("--measure-seconds")
            .arg(question.time.as_secs_f64().to_string())
            .arg("--measure-encoder")
            .arg(question.encoder)
            .env("NO_COLOR", "1")
            .env_remove(env::LOG_FORMAT);
        if let Some(libraries) = question.programs.library_path() {
            command.env("LD_LIBRARY_PATH", libraries);
        }
        let errors = tempfile::tempfile()?;
        let mut process = PipedProcess::start(command, errors.try_clone()?)?;
        let pipes = process.pipes();
        let (input, output) = pipes.ok_or_else(|| std::io::Error::other("it has no pipes"))?;
        let lines = BufReader::new(ChildStdout::from_std(output)?).lines();
        Ok(Self {
            process,
            input,
            lines,
            errors,
        })
    }

    /// Waits until it has trained a step.
    async fn ready(&mut self) -> Result<(), MeasureError> {
        // Libraries may print there, too.
        while let Some(line) = self.lines.next_line().await? {
            if line == READY {
                return Ok(());
            }
        }
        Err(self.exited().await?)
    }

    /// Waits for what it measured.
    async fn answer(&mut self) -> Result<Answer, MeasureError> {
        let mut last = String::new();
        while let Some(line) = self.lines.next_line().await? {
            last = line;
        }
        match parse(&last) {
            Ok(answer) if self.process.wait().await?.success() => Ok(answer),
            Ok(_) => Err(self.exited().await?),
            Err(error) => match self.process.wait().await?.success() {
                true => Err(error),
                false => Err(self.exited().await?),
            },
        }
    }

    /// Waits for its end; why it exited.
    async fn exited(&mut self) -> Result<MeasureError, MeasureError> {
        let status = self.process.wait().await?;
        let mut stderr = Vec::new();
        let length = self.errors.seek(std::io::SeekFrom::End(0))?;
        let back = QUOTED.min(length.cast_signed());
        self.errors.seek(std::io::SeekFrom::End(-back))?;
        self.errors.read_to_end(&mut stderr)?;
        let stderr = String::from_utf8_lossy(&stderr).trim().to_owned();
        Ok(MeasureError::Exited { status, stderr })
    }
}

/// Parses the last line of a worker that measured.
fn parse(line: &str) -> Result<Answer, MeasureError> {
    if line.is_empty() {
        return Err(MeasureError::Nothing(String::new()));
    }
    let answer: Answer = serde_json::from_str(line).map_err(MeasureError::Answer)?;
    match answer.steps > 0 && answer.seconds > 0.0 && answer.rate().is_finite() {
        true => Ok(answer),
        false => Err(MeasureError::Nothing(line.chars().take(200).collect())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{os::unix::fs::PermissionsExt as _, time::Instant};

    #[test]
    fn answer_of_worker_is_parsed_and_checked() {
        let good = r#"{"steps": 3, "seconds": 1.5, "peak_memory": 9, "of_the_future": null}"#;
        assert_eq!(parse(good).unwrap().rate(), 2.0);
        for (line, invalid) in [
            ("", false),
            (r#"{"steps": 0, "seconds": 1.5, "peak_memory": 9}"#, false),
            (r#"{"steps": 3, "seconds": 0.0, "peak_memory": 9}"#, false),
            (r#"{"steps": 3, "seconds": -1.0, "peak_memory": 9}"#, false),
            (r#"{"steps": 3, "seconds": 1.5}"#, true),
            (r#"{"steps": -3, "seconds": 1.5, "peak_memory": 9}"#, true),
            ("Segmentation fault", true),
        ] {
            let error = parse(line).unwrap_err();
            assert_eq!(matches!(error, MeasureError::Answer(_)), invalid, "{line}");
            assert!(error.hint().unwrap().contains("same release"));
        }
    }

    /// What comes of a worker that is this shell script.
    async fn measured(script: &str, slots: usize) -> Result<Vec<Answer>, MeasureError> {
        let folder = tempfile::tempdir()?;
        let worker = folder.path().join("worker");
        std::fs::write(&worker, format!("#!/bin/sh\n{script}\n"))?;
        std::fs::set_permissions(&worker, std::fs::Permissions::from_mode(0o755))?;
        measure(Question {
            worker: &worker,
            programs: &Programs::discover(),
            encoder: folder.path(),
            method: "almt",
            slots,
            threads: 1,
            time: Duration::from_millis(10),
        })
        .await
    }

    #[tokio::test]
    async fn slots_begin_when_all_are_ready() {
        let folder = tempfile::tempdir().unwrap();
        let (marks, began) = (folder.path().join("marks"), folder.path().join("began"));
        // The second one needs longer. Each counts how many were ready when it began.
        let script = format!(
            "if mkdir {began} 2>/dev/null; then sleep 0; else sleep 0.3; fi
             echo noise; echo >> {marks}; echo ready; read line
             n=$(wc -l < {marks}); echo \"{{\\\"steps\\\": $n, \\\"seconds\\\": 1, \\\"peak_memory\\\": 0}}\"",
            began = began.display(),
            marks = marks.display(),
        );
        let answers = measured(&script, 2).await.unwrap();
        let ready: Vec<u64> = answers.iter().map(|answer| answer.steps).collect();
        assert_eq!(ready, [2, 2]);
    }

    #[tokio::test]
    async fn worker_that_fails_is_quoted() {
        for script in [
            "echo no such encoder >&2; exit 2",
            "echo ready; read line; echo no such encoder >&2; exit 2",
        ] {
            let error = measured(script, 1).await.unwrap_err();
            let text = error.to_string();
            assert!(
                text.contains("no such encoder") && text.contains('2'),
                "{text}"
            );
        }
        let error = measured("echo ready; read line; echo done", 1).await;
        assert!(matches!(error.unwrap_err(), MeasureError::Answer(_)));
    }

    #[tokio::test]
    async fn interrupted_measurement_leaves_no_process() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("pid");
        let script = format!("echo $$ > {}; exec sleep 600", file.display());
        let running = timeout(Duration::from_secs(2), measured(&script, 1));
        assert!(running.await.is_err());
        let pid = std::fs::read_to_string(&file).unwrap();
        let process = Path::new("/proc").join(pid.trim());
        let since = Instant::now();
        while process.exists() {
            assert!(since.elapsed() < Duration::from_secs(10), "{process:?}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}
