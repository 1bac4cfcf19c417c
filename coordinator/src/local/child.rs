//! A child process that does not outlive this one, and is stopped in good order.

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use std::{
    io::{Read as _, Seek as _, SeekFrom},
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{OnceLock, mpsc},
    time::{Duration, Instant},
};

/// How often an exit is looked for.
const POLL: Duration = Duration::from_millis(20);

/// A job for the thread that starts children.
type Job = Box<dyn FnOnce() + Send>;

/// A running child. Dropped, it is told to stop and, if it does not within a few seconds, killed.
#[derive(Debug)]
pub struct ServerProcess {
    child: Child,
    name: String,
    log: PathBuf,
    stop_with: Signal,
    exited: Option<ExitStatus>,
}

impl ServerProcess {
    /// Starts `command` with its output going to the end of `log`.
    ///
    /// The child gets `stop_with` when this process dies, however it dies. It is in a process
    /// group of its own: Ctrl-C on the terminal reaches this process alone, which then stops its
    /// children in order.
    ///
    /// # Errors
    ///
    /// The log cannot be opened, or the program cannot be run.
    pub fn start(
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

    /// What it is called.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Where its output goes.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// How it ended, if it has.
    pub fn exited(&mut self) -> Option<ExitStatus> {
        if self.exited.is_none() {
            self.exited = self.child.try_wait().ok().flatten();
        }
        self.exited
    }

    /// Sends a signal; one that has ended already is left alone.
    pub fn signal(&mut self, signal: Signal) {
        if self.exited().is_none() {
            // It may end between the two lines; it is not reaped, so the id is still its own.
            let _ = kill(pid(&self.child), signal);
        }
    }

    /// Waits until it ends, at most `patience`. Returns whether it ended.
    pub async fn wait(&mut self, patience: Duration) -> bool {
        let since = Instant::now();
        while self.exited().is_none() {
            if since.elapsed() >= patience {
                return false;
            }
            tokio::time::sleep(POLL).await;
        }
        true
    }

    /// Asks it to stop, waits `patience`, then kills it. Returns whether it stopped by itself.
    pub async fn stop(&mut self, patience: Duration) -> bool {
        self.signal(self.stop_with);
        if self.wait(patience).await {
            return true;
        }
        tracing::warn!(name = self.name, "it does not stop and is killed");
        self.kill().await;
        false
    }

    /// Ends it with SIGKILL.
    pub async fn kill(&mut self) {
        self.signal(Signal::SIGKILL);
        // Nothing outlives SIGKILL but a process stuck in the kernel.
        self.wait(Duration::from_secs(10)).await;
    }

    /// The last lines of its log.
    pub fn log_tail(&self) -> String {
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

fn pid(child: &Child) -> Pid {
    Pid::from_raw(child.id().cast_signed())
}

/// Starts `command` so that it gets `signal` when this process dies.
///
/// The kernel sends that signal when the *thread* ends that started the child, and a runtime's
/// threads come and go: all children are started by one thread that stays.
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
    let gone = || std::io::Error::other("the thread that starts children cannot be had");
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
            // It may have died before the line above.
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

/// Opens a log to write at its end; a large one is put aside first.
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

/// The last lines of a log, for an error.
pub(super) fn log_tail(path: &Path) -> String {
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
