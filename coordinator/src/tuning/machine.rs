//! What a measurement is of: the machine, as far as a process may use it, and the build of the worker.

use super::candidates::Cores;
use crate::submission::memory::{self, gigabytes};
use serde::{Deserialize, Serialize};

/// By how much the memory of the same machine may seem to change, as a share: kernels reserve more or less of it.
const SAME_MEMORY: f64 = 0.05;

/// A machine and a build of the worker.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Machine {
    pub(crate) host: String,
    /// The model of the processor.
    pub(crate) processor: String,
    /// Cores that a process may use.
    pub(crate) cores: usize,
    /// Bytes of memory that a process may use; 0 if unknown.
    pub(crate) memory: u64,
    /// The worker's version.
    pub(crate) build: String,
}

impl Machine {
    /// This machine, with a worker of version `build`.
    pub(crate) fn this(build: &str) -> Self {
        let host = nix::unistd::gethostname().unwrap_or_default();
        let cpus = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        Self {
            host: host.to_string_lossy().into_owned(),
            processor: model_name(&cpus).unwrap_or("unknown").to_owned(),
            cores: Cores::of_this_process().logical,
            memory: memory::total().unwrap_or(0),
            build: build.to_owned(),
        }
    }

    /// Says what a measurement of `self` does not hold for on `now`, if anything.
    pub(crate) fn differs_from(&self, now: &Self) -> Option<String> {
        if self.host != now.host {
            return Some(format!("it is of the machine {}", self.host));
        }
        if self.processor != now.processor {
            return Some(format!("it is of another processor, {}", self.processor));
        }
        if self.cores != now.cores {
            return Some(format!(
                "there were {} cores, now {}",
                self.cores, now.cores
            ));
        }
        let apart = self.memory.abs_diff(now.memory) as f64;
        if apart > SAME_MEMORY * now.memory as f64 {
            return Some(format!(
                "there were {} of memory, now {}",
                gigabytes(self.memory),
                gigabytes(now.memory)
            ));
        }
        (self.build != now.build).then(|| format!("it is of another build, {}", self.build))
    }
}

/// The processor's name in `/proc/cpuinfo`.
fn model_name(cpus: &str) -> Option<&str> {
    let line = cpus.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn measurement_holds_for_the_same_machine_and_build() {
        let machine = Machine {
            host: "lab".to_owned(),
            processor: "AMD EPYC".to_owned(),
            cores: 16,
            memory: 64_000_000_000,
            build: "worker 0.1.0".to_owned(),
        };
        assert_eq!(machine.differs_from(&machine), None);
        let changed = |change: fn(&mut Machine)| {
            let mut now = machine.clone();
            change(&mut now);
            machine.differs_from(&now)
        };
        assert_eq!(changed(|now| now.memory = 62_000_000_000), None);
        for (change, says) in [
            ((|now| now.host = "x".to_owned()) as fn(&mut Machine), "lab"),
            (|now| now.processor = "Intel".to_owned(), "AMD EPYC"),
            (|now| now.cores = 8, "16 cores, now 8"),
            (|now| now.memory /= 2, "64.0 GB of memory, now 32.0 GB"),
            (|now| now.build = "worker 0.2.0".to_owned(), "worker 0.1.0"),
        ] {
            let said = changed(change).unwrap();
            assert!(said.contains(says), "{said}");
        }
    }

    #[test]
    fn processor_is_named_as_the_kernel_does() {
        let text = "processor\t: 0\nmodel name\t: AMD EPYC 9V45\nmodel name\t: other\n";
        assert_eq!(model_name(text), Some("AMD EPYC 9V45"));
        assert_eq!(model_name("processor\t: 0\n"), None);
        let this = Machine::this("worker 1");
        assert!(this.cores > 0 && this.memory > 0 && !this.processor.is_empty());
    }
}
