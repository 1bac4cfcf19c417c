//! A child process that does not outlive this one and is stopped in an orderly way.

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use std::{
    fs::File,
    io::{Read as _, Seek as _, SeekFrom},
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio},
    sync::{OnceLock, mpsc},
    time::{Duration, Instant},
};

/// How often an exit is polled.
const POLL: Duration = Duration::from_millis(20);

/// A task for the thread that starts children.
type Job = Box<dyn FnOnce() + Send>;

/// A running child. On drop it is asked to stop and, after a few seconds, killed.
#[derive(Debug)]
pub(super) struct ServerProcess {
    child: Child,
    name: String,
    log: PathBuf,
    stop_with: Signal,
    exited: Option<ExitStatus>,
}

impl ServerProcess {
    /// Starts `command` and appends its output to `log`.
    ///
    /// The child gets `stop_with` when this process dies, however it dies. It has its own process
    /// group: Ctrl-C on the terminal reaches this process only, which then stops its children in
    /// order.
    ///
    /// # Errors
    ///
    /// The log cannot be opened, or the program cannot be started.
    pub(super) fn start(
        mut command: Command,
        name: impl Into<String>,
        log: &Path,
        stop_with: Signal,
    ) -> std::io::Result<Self> {
        let output = open_log(log)?;
        command
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .process_group(0);
        Ok(Self {
            child: spawn(command, stop_with)?,
            name: name.into(),
            log: log.to_owned(),
            stop_with,
            exited: None,
        })
    }

    /// Returns the file of its log.
    pub(super) fn log(&self) -> &Path {
        &self.log
    }

    /// Returns its exit status, if it has exited.
    pub(super) fn exited(&mut self) -> Option<ExitStatus> {
        if self.exited.is_none() {
            self.exited = self.child.try_wait().ok().flatten();
        }
        self.exited
    }

    /// Sends a signal, unless it has exited.
    pub(super) fn signal(&mut self, signal: Signal) {
        if self.exited().is_none() {
            // It may exit in between; it is not reaped, so the id is still its own.
            let _ = kill(pid(&self.child), signal);
        }
    }

    /// Waits until it exits, for `timeout` at most. Returns whether it exited.
    pub(super) async fn wait(&mut self, timeout: Duration) -> bool {
        let since = Instant::now();
        while self.exited().is_none() {
            if since.elapsed() >= timeout {
                return false;
            }
            tokio::time::sleep(POLL).await;
        }
        true
    }

    /// Asks it to stop and kills it after `timeout`. Returns whether it stopped in time.
    pub(super) async fn stop(&mut self, timeout: Duration) -> bool {
        self.signal(self.stop_with);
        if self.wait(timeout).await {
            return true;
        }
        tracing::warn!(name = self.name, "process does not stop; killing it");
        self.kill().await;
        false
    }

    /// Kills it with SIGKILL.
    pub(super) async fn kill(&mut self) {
        self.signal(Signal::SIGKILL);
        // Only a process stuck in the kernel survives SIGKILL.
        self.wait(Duration::from_secs(10)).await;
    }

    /// Returns the last lines of its log.
    pub(super) fn log_tail(&self) -> String {
        log_tail(&self.log)
    }
}

impl Drop for ServerProcess {
    fn drop(&mut self) {
        self.signal(self.stop_with);
        let since = Instant::now();
        while self.exited().is_none() && since.elapsed() < Duration::from_secs(5) {
            std::thread::sleep(POLL);
        }
        self.signal(Signal::SIGKILL);
        let _ = self.child.wait();
    }
}

/// A running child that is spoken to by pipes. On drop it is killed.
#[derive(Debug)]
pub(super) struct PipedProcess(Child);

impl PipedProcess {
    /// Starts `command`, with `errors` as its standard error.
    ///
    /// The child is killed when this process dies, however it dies. It has its own process group: Ctrl-C
    /// on the terminal reaches this process only.
    ///
    /// # Errors
    ///
    /// The program cannot be started.
    pub(super) fn start(mut command: Command, errors: File) -> std::io::Result<Self> {
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(errors)
            .process_group(0);
        Ok(Self(spawn(command, Signal::SIGKILL)?))
    }

    /// Returns its standard input and output, once.
    pub(super) fn pipes(&mut self) -> Option<(ChildStdin, ChildStdout)> {
        self.0.stdin.take().zip(self.0.stdout.take())
    }

    /// Waits until it exits.
    ///
    /// # Errors
    ///
    /// The operating system's.
    pub(super) async fn wait(&mut self) -> std::io::Result<ExitStatus> {
        loop {
            if let Some(status) = self.0.try_wait()? {
                return Ok(status);
            }
            tokio::time::sleep(POLL).await;
        }
    }
}

impl Drop for PipedProcess {
    fn drop(&mut self) {
        // Fails if it has exited.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn pid(child: &Child) -> Pid {
    Pid::from_raw(child.id().cast_signed())
}

/// Starts `command` so that it gets `signal` when this process dies.
///
/// The kernel sends the signal when the *thread* that started the child exits, and a runtime's
/// threads come and go. So one permanent thread starts all children.
fn spawn(mut command: Command, signal: Signal) -> std::io::Result<Child> {
    static STARTER: OnceLock<Option<mpsc::Sender<Job>>> = OnceLock::new();
    let starter = STARTER.get_or_init(|| {
        let (sender, jobs) = mpsc::channel::<Job>();
        std::thread::Builder::new()
            .name("children".to_owned())
            .spawn(move || jobs.into_iter().for_each(|job| job()))
            .ok()
            .map(|_| sender)
    });
    let gone = || std::io::Error::other("cannot start the thread that starts children");
    let (sender, started) = mpsc::sync_channel(1);
    let job = Box::new(move || {
        die_with_this_process(&mut command, signal);
        let _ = sender.send(command.spawn());
    });
    starter
        .as_ref()
        .ok_or_else(gone)?
        .send(job)
        .map_err(|_| gone())?;
    started.recv().map_err(|_| gone())?
}

#[cfg(target_os = "linux")]
fn die_with_this_process(command: &mut Command, signal: Signal) {
    let parent = nix::unistd::getpid();
    // SAFETY: between fork and exec only system calls are made, and nothing is allocated.
    unsafe {
        command.pre_exec(move || {
            nix::sys::prctl::set_pdeathsig(signal)?;
            // It may have died before that call.
            if nix::unistd::getppid() == parent {
                Ok(())
            } else {
                Err(std::io::Error::from_raw_os_error(nix::libc::ECHILD))
            }
        });
    }
}

#[cfg(not(target_os = "linux"))]
fn die_with_this_process(_command: &mut Command, _signal: Signal) {}

/// Opens a log for appending; a large one is rotated first.
fn open_log(path: &Path) -> std::io::Result<std::fs::File> {
    const LARGE: u64 = 16 << 20;
    if std::fs::metadata(path).is_ok_and(|meta| meta.len() > LARGE) {
        std::fs::rename(path, path.with_extension("old.log"))?;
    }
    std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
}

/// Returns the last lines of a log, for an error.
pub(crate) fn log_tail(path: &Path) -> String {
    const BYTES: u64 = 8 << 10;
    const LINES: usize = 15;
    let read = || -> std::io::Result<String> {
        let mut file = std::fs::File::open(path)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(BYTES)))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    let text = read().unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    let tail: Vec<String> = lines[lines.len().saturating_sub(LINES)..]
        .iter()
        .map(|line| format!("  | {line}"))
        .collect();
    tail.join("\n")
}
