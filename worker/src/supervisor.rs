//! The supervisor: one child process a slot, because libtorch has one random generator and one
//! set of threads for a whole process. A child that crashes is started again, after a while that
//! grows; signals are passed on.

use crate::{
    exit, memory,
    numerics::{Numerics, environment},
    runtime::leaving::Leaving,
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use std::{
    ffi::OsString,
    process::{ExitStatus, Stdio},
    time::{Duration, Instant},
};
use tokio::process::{Child, Command};

/// A slot that ran so long has no trouble starting.
const SETTLED: Duration = Duration::from_secs(60);
/// The longest pause before a slot is started again.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// Runs `slots` children of this program with this process's own flags and `--slot N`. Returns the
/// exit code when all are done.
pub async fn run(
    slots: usize,
    flags: Vec<OsString>,
    name: &str,
    leaving: Leaving,
) -> std::io::Result<u8> {
    let mut tasks = tokio::task::JoinSet::new();
    for slot in 0..slots {
        let supervised = Supervised {
            slot,
            flags: flags.clone(),
            name: name.to_owned(),
            leaving: leaving.clone(),
        };
        tasks.spawn(supervised.run());
    }
    let mut code = exit::OK;
    while let Some(ended) = tasks.join_next().await {
        let ended = ended.unwrap_or(exit::INTERNAL);
        if ended != exit::OK {
            // What one slot cannot do, the others cannot either.
            code = ended;
            leaving.leave();
        }
    }
    Ok(code)
}

struct Supervised {
    slot: usize,
    flags: Vec<OsString>,
    name: String,
    leaving: Leaving,
}

impl Supervised {
    async fn run(self) -> u8 {
        let mut crashes = 0_u32;
        let mut numerics = Numerics::default();
        while !self.leaving.is_asked() {
            let began = Instant::now();
            let mut child = match self.start(numerics) {
                Ok(child) => child,
                Err(error) => {
                    tracing::error!(slot = self.slot, %error, "the slot cannot be started");
                    return exit::INTERNAL;
                }
            };
            // `wait` would close it, and its end tells the child that we are gone.
            let _held = child.stdin.take();
            let status = tokio::select! {
                status = child.wait() => status,
                () = self.leaving.asked() => self.stop(&mut child).await,
            };
            let code = match status {
                Ok(status) => match code(status) {
                    Code::Over(code) => return code,
                    Code::Turn => {
                        numerics = numerics.other();
                        continue;
                    }
                    Code::Crashed => status,
                },
                Err(error) => {
                    tracing::error!(slot = self.slot, %error, "the slot cannot be waited for");
                    return exit::INTERNAL;
                }
            };
            if self.leaving.is_asked() {
                return exit::AT_ONCE;
            }
            crashes = if began.elapsed() > SETTLED {
                1
            } else {
                crashes + 1
            };
            let pause = Duration::from_secs(1 << (crashes - 1).min(6)).min(LONGEST_PAUSE);
            tracing::error!(slot = self.slot, ended = %code, "the slot crashed; it starts again in {pause:?}");
            self.leaving.sleep(pause).await;
        }
        exit::OK
    }

    fn start(&self, numerics: Numerics) -> std::io::Result<Child> {
        // This very program, even if its file has been replaced by another version meanwhile.
        Command::new("/proc/self/exe")
            .arg0("worker")
            .args(&self.flags)
            .arg("--slot")
            .arg(self.slot.to_string())
            .arg("--name")
            .arg(&self.name)
            .arg("--numerics")
            .arg(numerics.as_str())
            .envs(memory::for_child())
            .envs(environment(numerics).iter().copied())
            // Held open for as long as this process lives: its end tells the child.
            .stdin(Stdio::piped())
            // Ctrl-C in a terminal goes to the whole group; the children hear of it from here, once.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
    }

    /// Tells the child to leave and waits; a child that cannot is ended.
    async fn stop(&self, child: &mut Child) -> std::io::Result<ExitStatus> {
        if let Some(pid) = child.id().and_then(|pid| i32::try_from(pid).ok()) {
            // One that is gone already needs no signal.
            let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
        }
        tokio::select! {
            status = child.wait() => status,
            () = self.leaving.past(Duration::from_secs(12)) => {
                tracing::warn!(slot = self.slot, "the slot does not leave: ending it");
                child.kill().await?;
                child.wait().await
            }
        }
    }
}

enum Code {
    /// Not to be started again.
    Over(u8),
    /// To be started again, to compute the other way.
    Turn,
    /// To be started again.
    Crashed,
}

fn code(status: ExitStatus) -> Code {
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    match code {
        Some(
            code @ (exit::OK
            | exit::USAGE
            | exit::BROKER
            | exit::DEVICE
            | exit::ARTIFACTS
            | exit::UNFIT
            | exit::AT_ONCE),
        ) => Code::Over(code),
        Some(exit::TURN) => Code::Turn,
        _ => Code::Crashed,
    }
}
