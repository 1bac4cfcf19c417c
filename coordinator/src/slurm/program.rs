//! Running Slurm's programs: never for long, and never reading without end.

use super::SlurmError;
use halfheard_shared::{env, text::plain};
use std::{path::PathBuf, process::Stdio, time::Duration};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _},
    process::Command,
};

/// Slurm's own programs give up after some seconds; a hanging file system may hold them longer.
const PATIENCE: Duration = Duration::from_secs(60);
/// How much of standard error is shown.
const STDERR: usize = 2000;

/// What a program printed.
#[derive(Debug)]
pub(super) struct Printed {
    pub(super) stdout: String,
    /// Whether there was more than was read.
    pub(super) cut: bool,
}

/// A program of Slurm's with its arguments. Times are printed in UTC.
pub(super) fn command(program: &'static str, arguments: &[String]) -> Command {
    let path = match env::process(env::SLURM_BIN) {
        Some(folder) => PathBuf::from(folder).join(program),
        None => PathBuf::from(program),
    };
    let mut command = Command::new(path);
    command
        .args(arguments)
        .env("TZ", "UTC")
        .env("LC_ALL", "C")
        .env_remove("SLURM_TIME_FORMAT")
        .env_remove("SQUEUE_FORMAT")
        .env_remove("SQUEUE_FORMAT2");
    command
}

/// Runs it to its end and reads up to `limit` bytes of its output.
///
/// # Errors
///
/// It cannot be started, fails, or takes too long; then it is killed.
pub(super) async fn output(
    program: &'static str,
    mut command: Command,
    limit: usize,
) -> Result<Printed, SlurmError> {
    let start = |source| SlurmError::Start { program, source };
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(start)?;
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let run = async {
        let (out, err) = tokio::join!(read(stdout, limit), read(stderr, STDERR));
        Ok::<_, std::io::Error>((child.wait().await?, out?, err?))
    };
    let Ok(ended) = tokio::time::timeout(PATIENCE, run).await else {
        return Err(SlurmError::Slow {
            program,
            seconds: PATIENCE.as_secs(),
        });
    };
    let (status, (stdout, cut), (stderr, _)) = ended.map_err(start)?;
    if !status.success() && !cut {
        return Err(SlurmError::Failed {
            program,
            status: status.to_string(),
            stderr: plain(stderr.trim()),
        });
    }
    Ok(Printed { stdout, cut })
}

/// Reads up to `limit` bytes and closes the pipe, which ends a program that writes on. Returns whether
/// there was more.
async fn read(
    from: Option<impl AsyncRead + Unpin>,
    limit: usize,
) -> std::io::Result<(String, bool)> {
    let mut bytes = Vec::new();
    if let Some(from) = from {
        from.take(limit as u64 + 1).read_to_end(&mut bytes).await?;
    }
    let cut = bytes.len() > limit;
    bytes.truncate(limit);
    Ok((String::from_utf8_lossy(&bytes).into_owned(), cut))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[tokio::test]
    async fn endless_output_is_cut_and_errors_are_quoted() {
        let printed = output("squeue", shell("yes"), 1000).await.unwrap();
        assert!(printed.cut);
        assert_eq!(printed.stdout.len(), 1000);
        let error = output("sbatch", shell("printf 'bad \\033[31m' >&2; exit 3"), 10)
            .await
            .unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains("sbatch failed (exit status: 3): bad"),
            "{text}"
        );
        assert!(!text.contains('\u{1b}'));
        // Standard error without end does not block it either.
        let error = output("sbatch", shell("yes >&2"), 10).await.unwrap_err();
        assert!(error.to_string().len() < 3000);
        let error = output("sbatch", Command::new("/nowhere/sbatch"), 10)
            .await
            .unwrap_err();
        assert_eq!(error.to_string(), "cannot run sbatch");
    }
}
