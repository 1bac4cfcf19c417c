//! The exit codes of `coord`.

use std::process::ExitCode;

/// How a command of `coord` ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// The command did what it was asked to do.
    Success = 0,
    /// An error, which is printed.
    Error = 1,
    /// The command line is invalid (clap exits with this code itself).
    Usage = 2,
    /// The sweep is finished and some of its jobs failed.
    FailedJobs = 3,
    /// An audit found errors or warnings, or `certify --strict` no certificate without differences.
    Findings = 4,
    /// Ctrl-C or SIGTERM.
    Interrupted = 130,
}

impl Exit {
    /// All of them, in numeric order.
    pub const ALL: [Self; 6] = [
        Self::Success,
        Self::Error,
        Self::Usage,
        Self::FailedJobs,
        Self::Findings,
        Self::Interrupted,
    ];

    /// Returns the number that the shell sees.
    pub const fn code(self) -> u8 {
        self as u8
    }

    /// Returns the code of a finished sweep.
    pub(crate) const fn of_sweep(failed_jobs: i64) -> Self {
        match failed_jobs {
            0 => Self::Success,
            _ => Self::FailedJobs,
        }
    }

    const fn meaning(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Error => "an error",
            Self::Usage => "invalid usage",
            Self::FailedJobs => "the sweep is finished and some of its jobs failed",
            Self::Findings => {
                "an audit found errors or warnings, or `certify --strict` differences"
            }
            Self::Interrupted => "interrupted by Ctrl-C or SIGTERM",
        }
    }

    /// Lists all codes, one per line, for `--help`.
    pub(crate) fn help() -> String {
        let line = |exit: Self| format!("  {:<5} {}", exit.code(), exit.meaning());
        let lines: Vec<String> = Self::ALL.into_iter().map(line).collect();
        format!("Exit codes:\n{}", lines.join("\n"))
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}
