//! Running the command that is told.

use super::event::Event;
use anyhow::{Context as _, bail};
use halfheard_shared::text::plain;
use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};
use std::{
    process::Stdio,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _},
    process::{Child, Command},
};

/// How long it may run.
const LIMIT: Duration = Duration::from_secs(30);
/// How long its standard error is read after its end.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// How much of its standard error is kept for the log, in bytes.
const KEPT: usize = 2000;

/// Runs the command in a process group of its own, without a shell.
///
/// # Errors
///
/// It cannot be started, fails, or takes too long; then it and its children are killed.
pub(super) async fn run(words: &[String], event: &Event, json: &str) -> anyhow::Result<()> {
    run_within(LIMIT, words, event, json).await
}

async fn run_within(
    limit: Duration,
    words: &[String],
    event: &Event,
    json: &str,
) -> anyhow::Result<()> {
    let (program, arguments) = words.split_first().context("the command is empty")?;
    let mut command = Command::new(program);
    command
        .args(arguments)
        .env("HALFHEARD_EVENT", event.event.as_str())
        .env("HALFHEARD_TEXT", &event.text)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true);
    if let Some(sweep) = &event.sweep {
        command
            .env("HALFHEARD_SWEEP", sweep.id.to_string())
            .env("HALFHEARD_SWEEP_NAME", &sweep.name);
    }
    let mut child = command
        .spawn()
        .with_context(|| format!("cannot start {}", plain(program)))?;
    let group = child.id();
    let said = Arc::new(Mutex::new(Vec::new()));
    // Its own task: a process that it left behind may keep the pipe open.
    let stderr = child.stderr.take();
    let reading = stderr.map(|stderr| tokio::spawn(keep(stderr, said.clone())));
    let outcome = tokio::time::timeout(limit, feed(&mut child, json)).await;
    let Ok(status) = outcome else {
        if let Some(group) = group {
            // It may have ended in between.
            let _ = killpg(Pid::from_raw(group.cast_signed()), Signal::SIGKILL);
        }
        let _ = child.wait().await;
        bail!("it was killed after {limit:?}");
    };
    let status = status.context("cannot wait for it")?;
    if status.success() {
        return Ok(());
    }
    if let Some(reading) = reading {
        // What it said last is still in the pipe.
        let _ = tokio::time::timeout(LAST_WORDS, reading).await;
    }
    bail!("{status}: {}", end(&said))
}

async fn feed(child: &mut Child, json: &str) -> std::io::Result<std::process::ExitStatus> {
    if let Some(mut stdin) = child.stdin.take() {
        // A command that does not read it is content with the environment.
        let _ = stdin.write_all(json.as_bytes()).await;
    }
    child.wait().await
}

/// Reads all and keeps the beginning.
async fn keep(mut stderr: impl AsyncRead + Unpin, said: Arc<Mutex<Vec<u8>>>) {
    let mut buffer = [0; 4096];
    while let Ok(read @ 1..) = stderr.read(&mut buffer).await {
        let mut said = said.lock().unwrap_or_else(PoisonError::into_inner);
        let room = KEPT.saturating_sub(said.len()).min(read);
        said.extend_from_slice(&buffer[..room]);
    }
}

fn end(said: &Mutex<Vec<u8>>) -> String {
    let said = said.lock().unwrap_or_else(PoisonError::into_inner);
    plain(String::from_utf8_lossy(&said).trim())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::notify::event::Kind;

    fn event() -> Event {
        Event {
            event: Kind::DeadLetters,
            at: chrono::DateTime::UNIX_EPOCH,
            text: "1 message refused; $(touch hacked) `id`".to_owned(),
            sweep: None,
            worker: None,
            reason: None,
            key: String::new(),
        }
    }

    async fn shell(script: &str, limit: Duration) -> anyhow::Result<()> {
        let words = ["sh", "-c", script].map(str::to_owned);
        run_within(limit, &words, &event(), "{}").await
    }

    #[tokio::test]
    async fn hanging_command_is_killed_with_its_children() {
        let folder = tempfile::tempdir().unwrap();
        let left = folder.path().join("left");
        // The child would write a file a second later.
        let script = format!("(sleep 1; touch {}) & sleep 60", left.display());
        let error = shell(&script, Duration::from_millis(200))
            .await
            .unwrap_err();
        assert!(error.to_string().contains("killed after 200ms"), "{error}");
        tokio::time::sleep(Duration::from_millis(1300)).await;
        assert!(!left.exists());
    }

    #[tokio::test]
    async fn failure_says_what_the_command_said() {
        let script = "head -c 100000 /dev/zero >&2; exit 3";
        let error = shell(script, LIMIT).await.unwrap_err();
        assert!(error.to_string().len() < 4 * KEPT, "bounded");
        let error = shell("printf 'no \\033[2Jmail' >&2; exit 3", LIMIT)
            .await
            .unwrap_err();
        assert_eq!(error.to_string(), "exit status: 3: no \u{fffd}[2Jmail");
        let nowhere = ["/nonexistent/program".to_owned()];
        let error = run(&nowhere, &event(), "{}").await.unwrap_err();
        assert!(
            error.to_string().contains("/nonexistent/program"),
            "{error}"
        );
        // Text of an event is never part of a command line.
        shell(
            "test \"$HALFHEARD_EVENT\" = dead_letters && test -n \"$HALFHEARD_TEXT\"",
            LIMIT,
        )
        .await
        .unwrap();
    }
}
