//! One program of the cluster, which can be killed, stopped and started again.

use anyhow::{Context as _, Result};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use std::{
    fs::{self, OpenOptions},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

type Make = Box<dyn Fn() -> Command + Send>;

/// A program that is to run all the time.
pub struct Daemon {
    name: String,
    log: PathBuf,
    make: Make,
    child: Option<Child>,
}

impl std::fmt::Debug for Daemon {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Daemon({})", self.name)
    }
}

impl Daemon {
    /// A program that `make` describes; its output goes to `log`.
    pub fn new(name: &str, log: PathBuf, make: impl Fn() -> Command + Send + 'static) -> Self {
        Self {
            name: name.to_owned(),
            log,
            make: Box::new(make),
            child: None,
        }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Starts it.
    ///
    /// # Errors
    ///
    /// It cannot be started.
    pub fn start(&mut self) -> Result<()> {
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&self.log)?;
        let child = (self.make)()
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("cannot start {}", self.name))?;
        self.child = Some(child);
        Ok(())
    }

    /// Its process, if it runs.
    pub fn pid(&self) -> Option<i32> {
        self.child.as_ref().map(|child| child.id().cast_signed())
    }

    /// How it ended, if it did by itself since the last call.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        let status = self.child.as_mut()?.try_wait().ok()??;
        self.child = None;
        Some(status)
    }

    /// Sends a signal to it alone.
    pub fn signal(&self, signal: Signal) {
        if let Some(pid) = self.pid() {
            // It may have ended in this moment.
            let _ = kill(Pid::from_raw(pid), signal);
        }
    }

    /// Sends a signal to it and to all processes below it.
    pub fn signal_all(&self, signal: Signal) {
        if let Some(pid) = self.pid() {
            for pid in children(pid).into_iter().chain([pid]) {
                let _ = kill(Pid::from_raw(pid), signal);
            }
        }
    }

    /// Kills it alone.
    ///
    /// # Errors
    ///
    /// It cannot be waited for.
    pub fn kill(&mut self) -> Result<()> {
        if let Some(mut child) = self.child.take() {
            child.kill()?;
            child.wait()?;
        }
        Ok(())
    }

    /// Sends a signal and waits for its end; kills it after `patience`. Returns whether it ended by
    /// itself.
    ///
    /// # Errors
    ///
    /// It cannot be waited for.
    pub fn end(&mut self, signal: Signal, patience: Duration) -> Result<bool> {
        self.signal(signal);
        let Some(child) = &mut self.child else {
            return Ok(true);
        };
        let since = Instant::now();
        while since.elapsed() < patience {
            if child.try_wait()?.is_some() {
                self.child = None;
                return Ok(true);
            }
            thread::sleep(Duration::from_millis(20));
        }
        self.kill()?;
        Ok(false)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.signal_all(Signal::SIGKILL);
        let _ = self.kill();
    }
}

/// A process as `/proc` shows it.
struct Seen {
    parent: i32,
    is_zombie: bool,
}

fn seen(pid: i32) -> Option<Seen> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may hold anything.
    let mut rest = stat.rsplit_once(')')?.1.split_whitespace();
    let is_zombie = rest.next()? == "Z";
    let parent = rest.next()?.parse().ok()?;
    Some(Seen { parent, is_zombie })
}

/// The processes directly below one.
pub fn children(of: i32) -> Vec<i32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|&pid| seen(pid).is_some_and(|seen| seen.parent == of && !seen.is_zombie))
        .collect()
}

/// The arguments of a process.
pub fn arguments(pid: i32) -> Vec<String> {
    let line = fs::read(Path::new("/proc").join(pid.to_string()).join("cmdline"));
    let line = line.unwrap_or_default();
    let parts = line.split(|&byte| byte == 0);
    parts
        .map(|part| String::from_utf8_lossy(part).into_owned())
        .collect()
}
