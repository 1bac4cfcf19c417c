//! The exit codes of `worker`.

use std::{fmt::Write as _, process::ExitCode};

/// How a supervisor or a slot exits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Exit {
    Success = 0,
    Usage = 2,
    Broker = 3,
    Device = 4,
    Artifacts = 5,
    Forced = 6,
    Unfit = 7,
    Internal = 70,
    /// Slot only: the supervisor starts a new process.
    Broken = 71,
    /// Slot only: the supervisor starts a process that computes in the other mode.
    SwitchNumerics = 72,
}

impl Exit {
    const ALL: [Exit; 10] = [
        Exit::Success,
        Exit::Usage,
        Exit::Broker,
        Exit::Device,
        Exit::Artifacts,
        Exit::Forced,
        Exit::Unfit,
        Exit::Internal,
        Exit::Broken,
        Exit::SwitchNumerics,
    ];

    pub(crate) fn code(self) -> u8 {
        self as u8
    }

    pub(crate) fn from_code(code: i32) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|exit| i32::from(exit.code()) == code)
    }

    fn meaning(self) -> &'static str {
        match self {
            Exit::Success => "graceful shutdown, or --once and nothing left to do",
            Exit::Usage => "invalid flags or settings",
            Exit::Broker => "the broker refused the connection",
            Exit::Device => "the requested device cannot be used",
            Exit::Artifacts => "the artifact store cannot be used",
            Exit::Forced => "forced by a second signal, or a slot had to be killed",
            Exit::Unfit => {
                "--once, and all that time the worker lacked what its jobs need: a store, data, a method, a device"
            }
            Exit::Internal => "cannot start a process or a thread",
            Exit::Broken => {
                "the device failed (a slot's code; the supervisor starts a new process)"
            }
            Exit::SwitchNumerics => {
                "a job requires other numerics (a slot's code; the supervisor restarts the slot for it)"
            }
        }
    }

    /// The table of exit codes for `--help`.
    pub(crate) fn help() -> String {
        let mut help = "Exit codes:".to_owned();
        for exit in Self::ALL {
            let _ = write!(help, "\n  {:>2}  {}", exit.code(), exit.meaning());
        }
        help
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        exit.code().into()
    }
}
