//! What is known of this machine.

use super::{
    choice::{Choice, Room, choose},
    file::Tuning,
    machine::Machine,
};
use crate::{
    local::programs::{Part, Programs},
    submission::{Loaded, memory},
};
use halfheard_shared::error::chain;
use std::{fmt, path::Path};

/// Why nothing measured can be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Unused {
    /// Nothing was measured here.
    Absent,
    /// What was measured is of another machine or build, or cannot be read.
    Other(String),
}

impl fmt::Display for Unused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Absent => f.write_str("not measured; `coord tune-machine` does it in a minute"),
            Self::Other(reason) => write!(
                f,
                "what `coord tune-machine` measured is not used because {reason}; run it again"
            ),
        }
    }
}

/// Returns what was measured on this machine with a worker of version `build`.
///
/// # Errors
///
/// Why nothing can be used.
pub(crate) fn of_this_machine(data_dir: &Path, build: &str) -> Result<Tuning, Unused> {
    of_machine(data_dir, &Machine::this(build))
}

/// Returns the same for the worker that `coord run` would start; nothing, if there is none.
///
/// # Errors
///
/// Why nothing can be used.
pub(crate) fn of_installed_worker(data_dir: &Path) -> Option<Result<Tuning, Unused>> {
    // Without a measurement there is no need to ask the worker for its version.
    if matches!(of_this_machine(data_dir, ""), Err(Unused::Absent)) {
        return Some(Err(Unused::Absent));
    }
    let worker = Programs::discover().find(Part::Worker).ok()?;
    Some(of_this_machine(data_dir, &worker.version))
}

/// Returns the best of what was measured that has room for the largest method of a sweep.
pub(crate) fn of_sweep(tuning: &Tuning, loaded: &Loaded) -> Option<Choice> {
    let largest = memory::of_sweep(loaded).first().map(|need| need.bytes);
    let room = Room {
        free: memory::available(),
        slot: largest,
    };
    choose(&tuning.candidates, room)
}

fn of_machine(data_dir: &Path, machine: &Machine) -> Result<Tuning, Unused> {
    let tuning = match Tuning::read(data_dir, &machine.host) {
        Ok(tuning) => tuning.ok_or(Unused::Absent)?,
        Err(error) => return Err(Unused::Other(chain(&error))),
    };
    match tuning.machine.differs_from(machine) {
        Some(difference) => Err(Unused::Other(difference)),
        None => Ok(tuning),
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::{
            candidates::Candidate,
            choice::{Measured, MethodRate},
            file,
        },
        *,
    };

    #[test]
    fn result_of_another_build_machine_or_form_is_not_used() {
        let folder = tempfile::tempdir().unwrap();
        let found = |build: &str| of_this_machine(folder.path(), build);
        assert_eq!(found("worker 1"), Err(Unused::Absent));
        let measured = Measured {
            candidate: Candidate {
                slots: 1,
                threads: 1,
            },
            methods: vec![MethodRate {
                method: "almt".to_owned(),
                steps_per_second: 0.5,
                slot_memory: 0,
            }],
        };
        let tuning = Tuning::new(Machine::this("worker 1"), vec![measured]);
        let path = tuning.save(folder.path()).unwrap();
        assert_eq!(found("worker 1"), Ok(tuning.clone()));
        let said = found("worker 2").unwrap_err().to_string();
        assert!(said.contains("another build, worker 1") && said.contains("run it again"));

        // Copied from another machine.
        let mut other = tuning.clone();
        other.machine.host = "elsewhere".to_owned();
        let elsewhere = other.save(folder.path()).unwrap();
        std::fs::rename(elsewhere, &path).unwrap();
        let said = found("worker 1").unwrap_err().to_string();
        assert!(said.contains("of the machine elsewhere"), "{said}");

        assert_eq!(path, file::path(folder.path(), &tuning.machine.host));
        std::fs::write(&path, "{").unwrap();
        let said = found("worker 1").unwrap_err().to_string();
        assert!(said.contains("damaged"), "{said}");
    }
}
