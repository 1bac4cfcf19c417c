//! The built programs, as processes that can be killed.

use crate::stage::Stage;
use anyhow::{Context as _, Result, bail, ensure};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use std::{
    ffi::OsStr,
    path::PathBuf,
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

/// The folder of the programs that were built together with the running test.
pub fn program(name: &str) -> Result<PathBuf> {
    let test = std::env::current_exe()?;
    let found = test
        .ancestors()
        .skip(1)
        .take(2)
        .map(|folder| folder.join(name))
        .find(|path| path.is_file());
    found.with_context(|| format!("`{name}` is not built: `cargo build --workspace --bins`"))
}

/// `coord` with connections to the stage's servers.
pub fn coord(stage: &Stage) -> Result<Command> {
    let mut command = Command::new(program("coord")?);
    command
        .env("HALFHEARD_NATS_URL", stage.nats.url())
        .env("HALFHEARD_DATABASE_URL", stage.postgres.url())
        .env("HALFHEARD_DATA_DIR", stage.data_dir())
        .env("HALFHEARD_CONFIG", "/dev/null")
        .env_remove("HALFHEARD_ARTIFACTS")
        .stdin(Stdio::null());
    Ok(command)
}

/// `worker` on one CPU thread with connections to the stage's broker, its data and artifacts in the
/// stage's data folder.
pub fn worker(stage: &Stage) -> Result<Command> {
    let mut command = Command::new(program("worker")?);
    command
        .args(["--device", "cpu", "--threads", "1"])
        .env("HALFHEARD_NATS_URL", stage.nats.url())
        .env("HALFHEARD_DATA_DIR", stage.data_dir())
        .env("HALFHEARD_CONFIG", "/dev/null")
        // Within the short leases of tests.
        .env("HALFHEARD_INJECT_BEAT", "0.5")
        .env_remove("HALFHEARD_ARTIFACTS")
        .stdin(Stdio::null());
    Ok(command)
}

/// A program without this process's `HALFHEARD_*` variables and without a config file.
pub fn bare(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    for (variable, _) in std::env::vars_os() {
        let name = variable.to_string_lossy().into_owned();
        if name.starts_with("HALFHEARD_") && name != "HALFHEARD_DEPS" {
            command.env_remove(variable);
        }
    }
    command
        .env("HALFHEARD_CONFIG", "/dev/null")
        .env("RUST_LOG", "info")
        .stdin(Stdio::null());
    command
}

/// Runs a command to its end; its standard output.
pub fn output(command: &mut Command) -> Result<String> {
    let output = command.output()?;
    ensure!(
        output.status.success(),
        "{command:?} ended with {}: {}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(String::from_utf8(output.stdout)?)
}

/// A process that ends with this value.
#[derive(Debug)]
pub struct Process(Child);

impl Process {
    pub fn spawn(command: &mut Command) -> Result<Self> {
        Ok(Self(command.spawn()?))
    }

    pub fn id(&self) -> u32 {
        self.0.id()
    }

    /// Stops it with SIGSTOP, or lets it go on with SIGCONT.
    pub fn set_stopped(&self, stopped: bool) -> Result<()> {
        let signal = match stopped {
            true => Signal::SIGSTOP,
            false => Signal::SIGCONT,
        };
        Ok(kill(Pid::from_raw(self.0.id().cast_signed()), signal)?)
    }

    /// Kills it with SIGKILL.
    pub fn kill(mut self) -> Result<()> {
        self.0.kill()?;
        self.0.wait()?;
        Ok(())
    }

    /// Ends it with SIGTERM and waits.
    pub fn terminate(self, patience: Duration) -> Result<ExitStatus> {
        kill(Pid::from_raw(self.0.id().cast_signed()), Signal::SIGTERM)?;
        self.wait(patience)
    }

    /// Waits for its end.
    pub fn wait(mut self, patience: Duration) -> Result<ExitStatus> {
        let since = Instant::now();
        loop {
            if let Some(status) = self.0.try_wait()? {
                return Ok(status);
            }
            if since.elapsed() > patience {
                bail!("the process is still there after {patience:?}");
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
