//! The file with what was measured: one for each machine, since a data folder may be on a shared disk.

use super::{
    candidates::{Candidate, MAX_SLOTS},
    choice::Measured,
    machine::Machine,
};
use chrono::{DateTime, Utc};
use halfheard_shared::{
    atomic_file::{self, DEFAULT_MODE},
    text::token,
};
use serde::{Deserialize, Serialize};
use std::{
    io::{self, Read as _},
    path::{Path, PathBuf},
};

/// The format of the file; another one is not read.
const FORMAT: u32 = 1;
/// A larger file is not one of ours.
const MAX_BYTES: u64 = 1 << 20;
/// The longest part of a file's name.
const MAX_NAME: usize = 100;

/// What was measured on a machine.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Tuning {
    format: u32,
    pub(crate) machine: Machine,
    pub(crate) measured_at: DateTime<Utc>,
    pub(crate) candidates: Vec<Measured>,
}

/// Why a file cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum FileError {
    /// It cannot be read.
    #[error("cannot read it")]
    Read(#[from] io::Error),
    /// It is not JSON of this form.
    #[error("it is damaged")]
    Damaged(#[from] serde_json::Error),
    /// It has another format, or values that nobody measured.
    #[error("it is damaged: {0}")]
    Invalid(&'static str),
}

/// Returns the file of a machine in a data folder.
pub(crate) fn path(data_dir: &Path, host: &str) -> PathBuf {
    let name = token(host, MAX_NAME);
    data_dir.join("machines").join(format!("{name}.json"))
}

impl Tuning {
    pub(crate) fn new(machine: Machine, candidates: Vec<Measured>) -> Self {
        Self {
            format: FORMAT,
            machine,
            measured_at: Utc::now(),
            candidates,
        }
    }

    /// Writes it into a data folder, and returns where.
    ///
    /// # Errors
    ///
    /// The folder cannot be written.
    pub(crate) fn save(&self, data_dir: &Path) -> io::Result<PathBuf> {
        let path = path(data_dir, &self.machine.host);
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        let mut text = serde_json::to_vec_pretty(self)?;
        text.push(b'\n');
        atomic_file::write(&path, DEFAULT_MODE, &text)?;
        Ok(path)
    }

    /// Reads what was measured on the machine `host`; `None` if nothing was.
    pub(super) fn read(data_dir: &Path, host: &str) -> Result<Option<Self>, FileError> {
        let file = match std::fs::File::open(path(data_dir, host)) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let mut text = Vec::new();
        file.take(MAX_BYTES).read_to_end(&mut text)?;
        let tuning: Self = serde_json::from_slice(&text)?;
        tuning.check()?;
        Ok(Some(tuning))
    }

    fn check(&self) -> Result<(), FileError> {
        if self.format != FORMAT {
            return Err(FileError::Invalid("it has another format"));
        }
        if self.candidates.is_empty() {
            return Err(FileError::Invalid("nothing is in it"));
        }
        for Measured { candidate, methods } in &self.candidates {
            let Candidate { slots, threads } = *candidate;
            let cores = self.machine.cores;
            if !(1..=MAX_SLOTS).contains(&slots) || threads == 0 || threads > cores {
                return Err(FileError::Invalid("impossible numbers of slots or threads"));
            }
            let rate = |rate: f64| rate.is_finite() && rate > 0.0;
            if methods.is_empty() || !methods.iter().all(|m| rate(m.steps_per_second)) {
                return Err(FileError::Invalid("impossible speeds"));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{super::choice::MethodRate, *};

    fn tuning() -> Tuning {
        let machine = Machine {
            host: "lab.example/../x".to_owned(),
            processor: "AMD EPYC".to_owned(),
            cores: 2,
            memory: 1 << 34,
            build: "worker 0.1.0".to_owned(),
        };
        let measured = Measured {
            candidate: Candidate {
                slots: 2,
                threads: 1,
            },
            methods: vec![MethodRate {
                method: "almt".to_owned(),
                steps_per_second: 0.5,
                slot_memory: 1 << 31,
            }],
        };
        Tuning::new(machine, vec![measured])
    }

    #[test]
    fn file_is_read_as_it_was_written() {
        let folder = tempfile::tempdir().unwrap();
        let written = tuning();
        let host = written.machine.host.clone();
        assert!(Tuning::read(folder.path(), &host).unwrap().is_none());
        let path = written.save(folder.path()).unwrap();
        // No part of a host's name leaves the folder.
        assert_eq!(path.parent().unwrap(), folder.path().join("machines"));
        assert_eq!(Tuning::read(folder.path(), &host).unwrap(), Some(written));
        assert!(Tuning::read(folder.path(), "other").unwrap().is_none());
    }

    #[test]
    fn damaged_file_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let good = tuning();
        let path = good.save(folder.path()).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        for damaged in [
            String::new(),
            text[..text.len() / 2].to_owned(),
            text.replace("\"format\": 1", "\"format\": 2"),
            text.replace("\"slots\": 2", "\"slots\": 0"),
            text.replace("\"slots\": 2", "\"slots\": 100000"),
            text.replace("\"threads\": 1", "\"threads\": 3"),
            text.replace("0.5", "-0.5"),
            text.replace("0.5", "0.0"),
            "x".repeat(2 << 20),
        ] {
            assert_ne!(damaged, text);
            std::fs::write(&path, &damaged).unwrap();
            let error = Tuning::read(folder.path(), &good.machine.host).unwrap_err();
            assert!(error.to_string().contains("damaged"), "{error}");
        }
        std::fs::remove_file(&path).unwrap();
        std::fs::create_dir(&path).unwrap();
        let error = Tuning::read(folder.path(), &good.machine.host).unwrap_err();
        assert!(matches!(error, FileError::Read(_)), "{error}");
    }
}
