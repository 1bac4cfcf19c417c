//! Processes that outlived an earlier run that was killed.

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

/// How long to wait after each signal.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Returns the arguments of a running process.
pub(super) fn command_line(pid: i32) -> Option<Vec<OsString>> {
    let bytes = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    // A zombie has none.
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

/// Returns the current folder of a running process.
pub(super) fn current_folder(pid: i32) -> Option<PathBuf> {
    std::fs::read_link(format!("/proc/{pid}/cwd")).ok()
}

/// Terminates process `pid` with `signals`, one after the other, while `still_ours` confirms that it
/// is the same process: ids are reused.
///
/// It may be exiting on its own, so this waits a moment first.
pub(super) async fn terminate(
    pid: i32,
    name: &'static str,
    signals: &[Signal],
    still_ours: impl Fn(i32) -> bool,
) -> Result<(), LocalError> {
    if exited(pid, Duration::from_secs(1), &still_ours).await {
        return Ok(());
    }
    for &signal in signals {
        tracing::info!(name, pid, %signal, "stopping a process of an earlier run");
        // Fails if it has just exited.
        let _ = kill(Pid::from_raw(pid), signal);
        if exited(pid, TIMEOUT, &still_ours).await {
            return Ok(());
        }
    }
    Err(LocalError::Stale { name, pid })
}

async fn exited(pid: i32, timeout: Duration, still_ours: &impl Fn(i32) -> bool) -> bool {
    let since = Instant::now();
    while still_ours(pid) {
        if since.elapsed() > timeout {
            return false;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    true
}
