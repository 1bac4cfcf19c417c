//! What a form did, as the page that it leads back to says it. Only these words travel in the address,
//! so no link can put words of its own on the page.

use halfheard_shared::text::count;
use std::{fmt, str::FromStr};

/// What a form did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Did {
    /// The sweep was paused.
    Paused,
    /// The sweep was resumed.
    Resumed,
    /// The sweep was cancelled, with so many jobs.
    Cancelled(u64),
    /// So many jobs run again.
    Retried(u64),
    /// The sweep has this priority now.
    Priority(i32),
    /// The worker is granted nothing more.
    Drained,
    /// So many jobs were taken back from the worker, which is granted nothing more.
    TakenBack(u64),
    /// The worker is granted jobs again.
    Undrained,
    /// It was so before.
    Nothing,
}

impl Did {
    /// What stands in the address after `did=`.
    pub(crate) fn key(self) -> String {
        match self {
            Self::Paused => "paused".to_owned(),
            Self::Resumed => "resumed".to_owned(),
            Self::Cancelled(jobs) => format!("cancelled-{jobs}"),
            Self::Retried(jobs) => format!("retried-{jobs}"),
            Self::Priority(priority) => format!("priority-{priority}"),
            Self::Drained => "drained".to_owned(),
            Self::TakenBack(jobs) => format!("taken-{jobs}"),
            Self::Undrained => "undrained".to_owned(),
            Self::Nothing => "nothing".to_owned(),
        }
    }
}

/// Not the key of anything that a form does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Unknown;

impl FromStr for Did {
    type Err = Unknown;

    fn from_str(key: &str) -> Result<Self, Unknown> {
        let (word, number) = key.split_once('-').unwrap_or((key, ""));
        let jobs = || number.parse().map_err(|_| Unknown);
        match word {
            "cancelled" => Ok(Self::Cancelled(jobs()?)),
            "retried" => Ok(Self::Retried(jobs()?)),
            "taken" => Ok(Self::TakenBack(jobs()?)),
            "priority" => Ok(Self::Priority(number.parse().map_err(|_| Unknown)?)),
            "paused" => Ok(Self::Paused),
            "resumed" => Ok(Self::Resumed),
            "drained" => Ok(Self::Drained),
            "undrained" => Ok(Self::Undrained),
            "nothing" => Ok(Self::Nothing),
            _ => Err(Unknown),
        }
    }
}

impl fmt::Display for Did {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let jobs = |jobs: u64| count(usize::try_from(jobs).unwrap_or(usize::MAX), "job");
        match *self {
            Self::Paused => f.write_str("Paused: jobs in progress continue, no others start."),
            Self::Resumed => f.write_str("Resumed."),
            Self::Cancelled(stopped) => write!(f, "Cancelled: {} stopped.", jobs(stopped)),
            Self::Retried(0) => f.write_str("Nothing to retry."),
            Self::Retried(1) => f.write_str("1 job will run again."),
            Self::Retried(again) => write!(f, "{} will run again.", jobs(again)),
            Self::Priority(priority) => write!(f, "The priority is {priority} now."),
            Self::Drained => f.write_str("Drained: it finishes what it has and gets nothing more."),
            Self::TakenBack(taken) => {
                write!(
                    f,
                    "Drained: {} taken back, and it gets nothing more.",
                    jobs(taken)
                )
            }
            Self::Undrained => f.write_str("It gets jobs again."),
            Self::Nothing => f.write_str("Nothing changed: it was so before."),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn address_carries_known_words_only() {
        for did in [
            Did::Paused,
            Did::Resumed,
            Did::Cancelled(3),
            Did::Retried(0),
            Did::Priority(-5),
            Did::Drained,
            Did::TakenBack(2),
            Did::Undrained,
            Did::Nothing,
        ] {
            assert_eq!(did.key().parse(), Ok(did));
        }
        for bad in ["", "paid", "retried-", "retried-x", "priority-<b>"] {
            assert_eq!(bad.parse::<Did>(), Err(Unknown), "{bad}");
        }
        assert_eq!(Did::Retried(1).to_string(), "1 job will run again.");
    }
}
