//! Watches the rows: what advances, and when.

use crate::{cluster::Cluster, journal::Journal, work::Work};
use anyhow::{Result, bail};
use serde_json::{Value, json};
use std::{
    fs,
    path::Path,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

const POLL: Duration = Duration::from_millis(500);
/// How often the log says how far the work is.
const TELL: Duration = Duration::from_secs(10);
/// Open jobs below which another sweep is submitted.
const LOW: i64 = 30;
/// Seconds before the end of the faults after which nothing more is submitted.
const LAST_SUBMISSION: f64 = 25.0;

const ROWS: &str = "SELECT concat_ws(' ', (SELECT count(*) FROM epoch_log),
    (SELECT count(*) FROM job WHERE state = 'done'),
    (SELECT count(*) FROM job WHERE state NOT IN ('done', 'failed', 'cancelled')),
    (SELECT count(*) FROM job WHERE state IN ('failed', 'cancelled')),
    (SELECT count(*) FROM attempt))";

/// How far the work is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rows {
    pub epochs: i64,
    pub done: i64,
    pub open: i64,
    pub failed: i64,
    pub attempts: i64,
}

impl Rows {
    /// Reads them.
    ///
    /// # Errors
    ///
    /// The database does not answer.
    pub fn read(cluster: &Cluster) -> Result<Self> {
        let rows = cluster.sql.rows(ROWS)?;
        let numbers: Vec<i64> = rows
            .first()
            .map_or("", String::as_str)
            .split(' ')
            .filter_map(|number| number.parse().ok())
            .collect();
        let [epochs, done, open, failed, attempts] = numbers[..] else {
            bail!("unexpected rows: {rows:?}");
        };
        Ok(Self {
            epochs,
            done,
            open,
            failed,
            attempts,
        })
    }

    fn json(self) -> Value {
        json!({ "epochs": self.epochs, "done": self.done, "open": self.open,
                "failed": self.failed, "attempts": self.attempts })
    }
}

/// When the work advanced, in seconds since the start.
#[derive(Debug, Default)]
pub struct Progress {
    times: Mutex<Vec<f64>>,
    open: std::sync::atomic::AtomicI64,
}

impl Progress {
    /// The first time at or after `t` at which an epoch or a result had arrived.
    pub fn after(&self, t: f64) -> Option<f64> {
        let times = self.times.lock().unwrap_or_else(PoisonError::into_inner);
        times.get(times.partition_point(|&time| time < t)).copied()
    }

    /// Watches until `stop`. Programs that end by themselves are started again.
    pub fn watch(&self, cluster: &Cluster, journal: &Journal, stop: &AtomicBool) {
        let (mut last, mut told) = (Rows::default(), Instant::now());
        while !stop.load(Ordering::Relaxed) {
            if let Err(error) = cluster.restart_ended(journal) {
                journal.write("cannot restart", json!({ "error": format!("{error:#}") }));
            }
            if let Ok(rows) = Rows::read(cluster) {
                if rows.epochs + rows.done > last.epochs + last.done {
                    let mut times = self.times.lock().unwrap_or_else(PoisonError::into_inner);
                    times.push(journal.now());
                }
                self.open.store(rows.open, Ordering::Relaxed);
                last = rows;
            }
            if told.elapsed() > TELL {
                told = Instant::now();
                journal.write("rows", last.json());
            }
            thread::sleep(POLL);
        }
    }

    /// Submits further sweeps while there is time.
    pub fn feed(
        &self,
        cluster: &Cluster,
        journal: &Journal,
        work: &Mutex<Work>,
        seconds: f64,
    ) -> Result<()> {
        while journal.now() < seconds - LAST_SUBMISSION {
            if self.open.load(Ordering::Relaxed) < LOW {
                let mut work = work.lock().unwrap_or_else(PoisonError::into_inner);
                work.submit(cluster, journal, Duration::from_secs(600))?;
            }
            thread::sleep(Duration::from_secs(2));
        }
        Ok(())
    }
}

/// Waits until no job is open.
///
/// # Errors
///
/// Nothing advances for as long as `patience`: then what can be seen is in `dump`.
pub fn finish(
    cluster: &Cluster,
    journal: &Journal,
    patience: Duration,
    dump: &Path,
) -> Result<Rows> {
    let (mut last, mut moved) = (Rows::default(), Instant::now());
    loop {
        cluster.restart_ended(journal)?;
        if let Ok(rows) = Rows::read(cluster) {
            if rows.open == 0 {
                journal.write("finished", rows.json());
                return Ok(rows);
            }
            if (rows.epochs, rows.done) != (last.epochs, last.done) {
                moved = Instant::now();
            }
            last = rows;
        }
        if moved.elapsed() > patience {
            journal.write("stuck", last.json());
            write_stuck(cluster, dump)?;
            bail!(
                "nothing advances for {patience:?} though all faults are over: {last:?}; see {}",
                dump.display()
            );
        }
        thread::sleep(POLL);
    }
}

/// What a person needs to see why nothing advances.
fn write_stuck(cluster: &Cluster, path: &Path) -> Result<()> {
    let tell = |result: Result<String>| result.unwrap_or_else(|error| format!("{error:#}"));
    let rows = |statement: &str| tell(cluster.sql.rows(statement).map(|rows| rows.join("\n")));
    let status = tell(cluster.coord(&["status", "--json"]));
    let jobs = rows("SELECT to_jsonb(job) FROM job WHERE state NOT IN ('done', 'cancelled')");
    let attempts = rows(
        "SELECT to_jsonb(attempt) FROM attempt WHERE job IN
             (SELECT id FROM job WHERE state NOT IN ('done', 'cancelled'))",
    );
    let letters =
        rows("SELECT subject, sequence, reason FROM dead_letter ORDER BY id DESC LIMIT 50");
    let text = format!(
        "status\n{status}\n\njobs\n{jobs}\n\nattempts\n{attempts}\n\ndead letters\n{letters}\n\n\
         logs: {}\n",
        cluster.folders.logs.display()
    );
    Ok(fs::write(path, text)?)
}
