//! The parent of a program: a process between the worker and the program that adopts all orphans of the
//! program, ends everything when the worker is gone, and keeps signals meant for the worker away.
//!
//! It is this program, started as `worker guard-program`. On its standard input it gets one line, the
//! [`Order`], then [`TERMINATE`] when the program is to end; the end of the input means that the worker is
//! gone.

use super::tree;
use nix::{
    sys::{
        prctl,
        resource::{Resource, getrlimit, setrlimit},
        signal::{Signal, killpg},
    },
    unistd::{Pid, setsid},
};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    os::unix::process::{CommandExt as _, ExitStatusExt as _},
    path::PathBuf,
    process::{ExitCode, ExitStatus, Stdio},
    time::Duration,
};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::{Child, Command},
    signal::unix::{SignalKind, signal},
};

/// The argument that starts a guard.
pub(crate) const ARGUMENT: &str = "guard-program";
/// The line that asks the program to end.
pub(super) const TERMINATE: &str = "terminate";
/// The guard's exit code when the program cannot be started; then it says why on standard error.
pub(super) const NOT_STARTED: u8 = 127;
/// How long processes may take to die.
const DEATH: Duration = Duration::from_secs(5);

/// What to run.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Order {
    pub(super) command: Vec<String>,
    pub(super) folder: PathBuf,
    pub(super) environment: BTreeMap<String, String>,
    /// Beyond this many more processes of the user, none can be started, where the kernel counts them.
    pub(super) processes: u32,
    /// The largest file that it can write, in bytes.
    pub(super) file: u64,
}

/// Runs the program that standard input names.
pub(crate) fn run() -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let code = match runtime {
        Ok(runtime) => {
            let code = runtime.block_on(guard());
            // A read of standard input may be under way, for as long as the worker lives.
            runtime.shutdown_background();
            code
        }
        Err(error) => {
            eprintln!("cannot start the program: {error}");
            NOT_STARTED
        }
    };
    code.into()
}

async fn guard() -> u8 {
    // Received and ignored: they are meant for the worker, which says when the program is to end. A handler
    // is not inherited by the program, what is ignored would be.
    let kinds = [
        SignalKind::terminate(),
        SignalKind::interrupt(),
        SignalKind::hangup(),
        SignalKind::user_defined1(),
    ];
    let handlers: Vec<_> = kinds.into_iter().map(signal).collect();
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    let order = match lines.next_line().await {
        Ok(Some(line)) => serde_json::from_str::<Order>(&line),
        _ => return NOT_STARTED,
    };
    let started = order
        .map_err(std::io::Error::other)
        .and_then(|order| start(&order));
    let mut child = match started {
        Ok(child) => child,
        Err(error) => {
            eprintln!("cannot start the program: {error}");
            return NOT_STARTED;
        }
    };
    let own = std::process::id() as i32;
    let group = child.id().map(|pid| Pid::from_raw(pid as i32));
    let status = loop {
        tokio::select! {
            status = child.wait() => break status.ok(),
            line = lines.next_line() => match line {
                Ok(Some(line)) if line == TERMINATE => {
                    if let Some(group) = group {
                        let _ = killpg(group, Signal::SIGTERM);
                    }
                }
                Ok(Some(_)) => {}
                Ok(None) | Err(_) => break None,
            },
        }
    };
    // What it has left behind, and what holds its output open.
    tree::end_below(own, DEATH);
    drop(handlers);
    status.map_or(137, exit_code)
}

fn exit_code(status: ExitStatus) -> u8 {
    let code = status.code();
    let killed = status.signal().map(|signal| 128 + signal);
    code.or(killed)
        .and_then(|code| u8::try_from(code).ok())
        .unwrap_or(255)
}

fn start(order: &Order) -> std::io::Result<Child> {
    prctl::set_child_subreaper(true)?;
    // Signals to the worker's group do not reach it. It fails only for who leads a group already.
    let _ = setsid();
    limit(Resource::RLIMIT_CORE, 0)?;
    limit(Resource::RLIMIT_FSIZE, order.file)?;
    // The kernel counts all of a user's, and none of root's.
    let others = own_threads();
    limit(
        Resource::RLIMIT_NPROC,
        others + u64::from(order.processes) * 4,
    )?;
    let (program, arguments) = order
        .command
        .split_first()
        .ok_or_else(|| std::io::Error::other("no command"))?;
    let mut command = std::process::Command::new(program);
    command
        .args(arguments)
        .current_dir(&order.folder)
        .env_clear()
        .envs(&order.environment)
        .stdin(Stdio::null())
        .process_group(0);
    Command::from(command).spawn()
}

/// Lowers a limit of this process and its children.
fn limit(resource: Resource, most: u64) -> std::io::Result<()> {
    let (_, hard) = getrlimit(resource)?;
    setrlimit(resource, most.min(hard), most.min(hard))?;
    Ok(())
}

/// The threads of this user.
fn own_threads() -> u64 {
    let user = nix::unistd::getuid().as_raw();
    let Ok(listed) = std::fs::read_dir("/proc") else {
        return 0;
    };
    let mut threads = 0;
    for entry in listed.flatten() {
        use std::os::unix::fs::MetadataExt as _;
        let is_own = entry.metadata().is_ok_and(|about| about.uid() == user);
        if is_own && let Ok(tasks) = std::fs::read_dir(entry.path().join("task")) {
            threads += tasks.count() as u64;
        }
    }
    threads
}
