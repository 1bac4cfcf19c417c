//! Processes that an earlier run left behind, because it was killed and they were slow to follow.

use super::LocalError;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use std::{
    ffi::OsString,
    os::unix::ffi::OsStringExt as _,
    path::PathBuf,
    time::{Duration, Instant},
};

/// How long each signal is given.
const PATIENCE: Duration = Duration::from_secs(10);

/// The arguments of a running process.
pub(super) fn command_line(pid: i32) -> Option<Vec<OsString>> {
    let bytes = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    // One that has ended and is not yet reaped has none.
    if bytes.is_empty() {
        return None;
    }
    Some(
        bytes
            .split(|byte| *byte == 0)
            .map(|argument| OsString::from_vec(argument.to_vec()))
            .collect(),
    )
}

/// The current folder of a running process.
pub(super) fn current_folder(pid: i32) -> Option<PathBuf> {
    std::fs::read_link(format!("/proc/{pid}/cwd")).ok()
}

/// Ends process `pid` with `signals`, one after the other, for as long as `still_ours` says that
/// the process is the one that was meant: a process id is used again.
///
/// It may be about to end by itself, so it is given a moment first.
pub(super) async fn end(
    pid: i32,
    name: &'static str,
    signals: &[Signal],
    still_ours: impl Fn(i32) -> bool,
) -> Result<(), LocalError> {
    if gone(pid, Duration::from_secs(1), &still_ours).await {
        return Ok(());
    }
    for &signal in signals {
        tracing::info!(name, pid, %signal, "an earlier run left it behind, it is stopped");
        // It may have ended just now.
        let _ = kill(Pid::from_raw(pid), signal);
        if gone(pid, PATIENCE, &still_ours).await {
            return Ok(());
        }
    }
    Err(LocalError::Stale { name, pid })
}

async fn gone(pid: i32, patience: Duration, still_ours: &impl Fn(i32) -> bool) -> bool {
    let since = Instant::now();
    while still_ours(pid) {
        if since.elapsed() > patience {
            return false;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    true
}
