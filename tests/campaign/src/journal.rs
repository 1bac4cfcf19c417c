//! The log of a campaign: JSON lines with times, from which it can be replayed.

use crate::fault::Fault;
use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use std::{
    fs::File,
    io::{BufRead as _, BufReader, Write as _},
    path::Path,
    sync::{Mutex, PoisonError},
    time::Instant,
};

/// The log.
#[derive(Debug)]
pub struct Journal {
    file: Mutex<File>,
    start: Mutex<Instant>,
}

impl Journal {
    /// Creates it.
    ///
    /// # Errors
    ///
    /// The file cannot be created.
    pub fn create(path: &Path) -> Result<Self> {
        let file =
            File::create(path).with_context(|| format!("cannot create {}", path.display()))?;
        Ok(Self {
            file: Mutex::new(file),
            start: Mutex::new(Instant::now()),
        })
    }

    /// Time begins now.
    pub fn begin(&self) {
        *self.start.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    /// Seconds since the beginning.
    pub fn now(&self) -> f64 {
        let start = self.start.lock().unwrap_or_else(PoisonError::into_inner);
        start.elapsed().as_secs_f64()
    }

    /// Writes a line: the time, what happened, and its facts.
    pub fn write(&self, what: &str, facts: Value) {
        let mut line = json!({
            "t": (self.now() * 1000.0).round() / 1000.0,
            "when": chrono::Utc::now().to_rfc3339_opts(chrono::SecondsFormat::Millis, true),
            "what": what,
        });
        if let (Value::Object(line), Value::Object(facts)) = (&mut line, facts) {
            line.extend(facts);
        }
        // The log is for people: without it the campaign goes on.
        if let Ok(mut file) = self.file.lock() {
            let _ = writeln!(file, "{line}");
        }
    }
}

/// The seed, the length in seconds, and the faults of a log.
#[derive(Clone, Debug)]
pub struct Replay {
    pub seed: u32,
    pub seconds: f64,
    pub faults: Vec<Fault>,
}

impl Replay {
    /// Reads a log.
    ///
    /// # Errors
    ///
    /// It cannot be read, or is not the log of a campaign.
    pub fn read(path: &Path) -> Result<Self> {
        let file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
        let mut replay = Self {
            seed: 0,
            seconds: 0.0,
            faults: Vec::new(),
        };
        for line in BufReader::new(file).lines() {
            let line: Value = serde_json::from_str(&line?).context("a line is not JSON")?;
            match line["what"].as_str() {
                Some("campaign") => {
                    replay.seed = line["seed"].as_u64().unwrap_or(0) as u32;
                    replay.seconds = line["seconds"].as_f64().unwrap_or(0.0);
                }
                Some("fault" | "missed") => {
                    let fault = serde_json::from_value(line["fault"].clone());
                    replay.faults.push(fault.context("a fault cannot be read")?);
                }
                _ => {}
            }
        }
        ensure!(
            replay.seconds > 0.0 && !replay.faults.is_empty(),
            "{} is not the log of a campaign",
            path.display()
        );
        replay.faults.sort_by(|a, b| a.at.total_cmp(&b.at));
        Ok(replay)
    }
}
