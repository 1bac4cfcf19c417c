//! What can go wrong with Slurm's programs.

use halfheard_shared::error::Hint;
use std::path::PathBuf;

/// What can go wrong with Slurm's programs.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SlurmError {
    /// A program cannot be started.
    #[error("cannot run {program}")]
    Start {
        /// Its name.
        program: &'static str,
        /// Why.
        source: std::io::Error,
    },
    /// A program did not end in time.
    #[error("{program} did not end within {seconds} s")]
    Slow {
        /// Its name.
        program: &'static str,
        /// How long it was waited for.
        seconds: u64,
    },
    /// A program refused.
    #[error("{program} failed ({status}): {stderr}")]
    Failed {
        /// Its name.
        program: &'static str,
        /// `exit status: 1`.
        status: String,
        /// The beginning of what it wrote to standard error.
        stderr: String,
    },
    /// A program printed more than is read.
    #[error("{program} printed more than {limit} bytes")]
    Large {
        /// Its name.
        program: &'static str,
        /// How much is read.
        limit: usize,
    },
    /// A program printed something else than expected.
    #[error("cannot read what {program} printed: {found}")]
    Unreadable {
        /// Its name.
        program: &'static str,
        /// What is wrong.
        found: String,
    },
    /// No partition has this name.
    #[error("unknown partition `{name}`; the cluster has {have}")]
    NoPartition {
        /// What was asked for.
        name: String,
        /// All that exist.
        have: String,
    },
    /// A folder or file of the workers.
    #[error("cannot {action} {}", path.display())]
    File {
        /// `create`, `write`.
        action: &'static str,
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Settings of workers that others can read.
    #[error("the settings of workers in {} can be read by other users", path.display())]
    Exposed {
        /// The file.
        path: PathBuf,
    },
    /// A login in an argument of the worker.
    #[error(
        "an argument of the worker holds a password or token, and Slurm shows a job's arguments"
    )]
    SecretInArgument,
    /// Another process submits to this partition.
    #[error(
        "another `coord slurm` ({holder}) submits to partition `{partition}` of cluster `{cluster}`"
    )]
    Taken {
        /// Machine and process.
        holder: String,
        /// The partition.
        partition: String,
        /// The cluster.
        cluster: String,
    },
}

impl Hint for SlurmError {
    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Start { .. } => {
                "run it on a login node, where Slurm's programs are on PATH, or name \
                 their folder in HALFHEARD_SLURM_BIN"
                    .to_owned()
            }
            Self::NoPartition { .. } => "`sinfo` lists what you may use".to_owned(),
            Self::Exposed { path } => format!("`chmod 600 {}`", path.display()),
            Self::SecretInArgument => "put it into the workers' settings (--env)".to_owned(),
            Self::Taken { .. } => {
                "stop that one first; if it was killed, its right ends within a minute".to_owned()
            }
            Self::Slow { .. }
            | Self::Failed { .. }
            | Self::Large { .. }
            | Self::Unreadable { .. }
            | Self::File { .. } => return None,
        })
    }
}
