//! Reads from the database, over its socket: whatever is done to the network, the campaign sees the rows.

use anyhow::{Context as _, Result, ensure};
use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

/// A stopped database answers nothing.
const PATIENCE: Duration = Duration::from_secs(4);

/// The database.
#[derive(Clone, Debug)]
pub struct Sql {
    psql: PathBuf,
    socket: PathBuf,
    port: u16,
    patience: Duration,
}

impl Sql {
    /// The database whose socket is in a folder.
    pub fn new(psql: &Path, socket: &Path, port: u16) -> Self {
        Self {
            psql: psql.to_owned(),
            socket: socket.to_owned(),
            port,
            patience: PATIENCE,
        }
    }

    /// Waits longer for an answer.
    pub fn patient(&self) -> Self {
        Self {
            patience: Duration::from_secs(120),
            ..self.clone()
        }
    }

    /// The lines that a statement returns, columns separated by `|`.
    ///
    /// # Errors
    ///
    /// The database does not answer in time, or refuses.
    pub fn rows(&self, statement: &str) -> Result<Vec<String>> {
        let mut child = Command::new(&self.psql)
            .args([
                "-X",
                "-q",
                "-A",
                "-t",
                "-v",
                "ON_ERROR_STOP=1",
                "-U",
                "postgres",
            ])
            .arg("-h")
            .arg(&self.socket)
            .args([
                "-p",
                &self.port.to_string(),
                "-d",
                "postgres",
                "-c",
                statement,
            ])
            .env("PGCONNECT_TIMEOUT", "3")
            // Also while the database is set to take no writes.
            .env("PGOPTIONS", "-c default_transaction_read_only=off")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("cannot run psql")?;
        // Read beside: a long answer would fill the pipe before the end.
        let (out, err) = (child.stdout.take(), child.stderr.take());
        let reader = thread::spawn(move || read(out));
        let errors = thread::spawn(move || read(err));
        let since = Instant::now();
        let status = loop {
            if let Some(status) = child.try_wait()? {
                break status;
            }
            if since.elapsed() > self.patience {
                child.kill()?;
                break child.wait()?;
            }
            thread::sleep(Duration::from_millis(5));
        };
        let output = reader.join().unwrap_or_default();
        let error = errors.join().unwrap_or_default();
        ensure!(status.success(), "psql: {status}: {}", error.trim());
        Ok(output.lines().map(str::to_owned).collect())
    }

    /// A single number.
    ///
    /// # Errors
    ///
    /// As of [`Sql::rows`], or it is none.
    pub fn number(&self, statement: &str) -> Result<i64> {
        let rows = self.rows(statement)?;
        let row = rows.first().context("no row")?;
        row.parse().with_context(|| format!("not a number: {row}"))
    }
}

fn read(from: Option<impl std::io::Read>) -> String {
    let mut text = String::new();
    if let Some(mut from) = from {
        let _ = from.read_to_string(&mut text);
    }
    text
}
