//! A private nats-server with JetStream.

use super::{
    LocalError,
    child::{ServerProcess, log_tail},
    files,
    programs::Found,
    stale,
    startup::{START_TIMEOUT, free_port},
};
use halfheard_shared::broker::BrokerSettings;
use nix::sys::signal::Signal;
use std::{
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

/// Its name in errors and logs.
const NAME: &str = "nats-server";
/// How long it may take to stop.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);
/// Maximum number of ports to try.
const PORTS: usize = 5;

/// A private nats-server on the loopback interface, with its own login and its streams below one folder.
#[derive(Debug)]
pub(super) struct NatsServer {
    program: PathBuf,
    folder: PathBuf,
    password: String,
    port: u16,
    process: Option<ServerProcess>,
}

impl NatsServer {
    /// Starts a server with its files in `folder`, and continues with the streams in it.
    ///
    /// # Errors
    ///
    /// Its files cannot be written, or it does not start.
    pub(super) async fn start(program: &Found, folder: &Path) -> Result<Self, LocalError> {
        files::create_folder(folder, 0o700)?;
        stop_stale(folder).await?;
        let mut server = Self {
            program: program.path.clone(),
            folder: folder.to_owned(),
            password: files::random_password()?,
            port: 0,
            process: None,
        };
        let mut attempts = 0;
        loop {
            attempts += 1;
            // Another process may take the port before the server listens on it.
            server.port = free_port()?;
            match server.restart().await {
                Err(LocalError::Start { reason, .. })
                    if attempts < PORTS && reason.contains("address already in use") => {}
                Err(error) => return Err(error),
                Ok(()) => return Ok(server),
            }
        }
    }

    /// Returns its address with user and password.
    pub(super) fn url(&self) -> String {
        format!("nats://halfheard:{}@127.0.0.1:{}", self.password, self.port)
    }

    /// Returns its address without them.
    #[cfg(test)]
    pub(super) fn address(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    /// Returns the file of its log.
    fn log(&self) -> PathBuf {
        self.folder.join("nats.log")
    }

    /// Returns whether it exited unexpectedly.
    pub(super) fn has_exited(&mut self) -> bool {
        self.process
            .as_mut()
            .is_some_and(|process| process.exited().is_some())
    }

    /// Restarts it on the same port and files, after a kill or a crash.
    ///
    /// # Errors
    ///
    /// It does not start.
    pub(super) async fn restart(&mut self) -> Result<(), LocalError> {
        self.process = None;
        let config = self.folder.join("nats.conf");
        files::write_private(&config, &self.config(), None)?;
        let mut command = Command::new(&self.program);
        command.arg("-c").arg(&config).current_dir("/");
        let process =
            ServerProcess::start(command, NAME, &self.log(), Signal::SIGTERM).map_err(|error| {
                LocalError::Start {
                    name: NAME,
                    reason: error.to_string(),
                    log: self.log(),
                }
            })?;
        self.process = Some(process);
        self.ready().await
    }

    /// Kills it with SIGKILL.
    pub(super) async fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().await;
        }
    }

    /// Stops it.
    pub(super) async fn stop(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.stop(STOP_TIMEOUT).await;
        }
    }

    /// Waits until JetStream answers.
    async fn ready(&mut self) -> Result<(), LocalError> {
        let since = Instant::now();
        let settings = BrokerSettings::at(self.url());
        loop {
            let exited = self.has_exited();
            if exited || since.elapsed() > START_TIMEOUT {
                self.kill().await;
                let what = if exited {
                    "it exited at once"
                } else {
                    "it does not answer"
                };
                return Err(LocalError::Start {
                    name: NAME,
                    reason: format!("{what}; the end of its log:\n{}", log_tail(&self.log())),
                    log: self.log(),
                });
            }
            if let Ok(broker) = settings.connect().await
                && broker.jetstream().query_account().await.is_ok()
            {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(30)).await;
        }
    }

    /// Returns the configuration. It holds the password: every user can read command lines.
    fn config(&self) -> String {
        let quoted =
            |path: PathBuf| serde_json::Value::from(path.display().to_string()).to_string();
        format!(
            "server_name: halfheard\n\
             listen: \"127.0.0.1:{port}\"\n\
             pid_file: {pid}\n\
             max_payload: 4MB\n\
             jetstream {{\n  store_dir: {store}\n}}\n\
             authorization {{\n  user: halfheard\n  password: \"{password}\"\n}}\n",
            port = self.port,
            pid = quoted(self.folder.join("nats.pid")),
            store = quoted(self.folder.join("streams")),
            password = self.password,
        )
    }
}

/// Stops a server that an earlier run left running: two on the same files would destroy them.
async fn stop_stale(folder: &Path) -> Result<(), LocalError> {
    let Ok(text) = std::fs::read_to_string(folder.join("nats.pid")) else {
        return Ok(());
    };
    let config = folder.join("nats.conf");
    let ours = |pid| {
        stale::command_line(pid).is_some_and(|arguments| {
            arguments
                .iter()
                .any(|argument| Path::new(argument) == config)
        })
    };
    if let Some(pid) = text.trim().parse().ok().filter(|&pid| ours(pid)) {
        stale::terminate(pid, NAME, &[Signal::SIGTERM, Signal::SIGKILL], ours).await?;
    }
    Ok(())
}
