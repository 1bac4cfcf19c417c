//! The names of subjects, streams and buckets. All carry the installation's prefix, so that several
//! installations can share one broker.
//!
//! A worker's name is one token, `gpu7-0`, or two where workers have a login for each team,
//! `team-a.gpu7-0`: the broker's permissions know only whole tokens, and `halfheard.ask.team-a.*`
//! keeps the workers of a team to names of their own.

use crate::text::valid_worker;
use std::{fmt, str::FromStr};

/// The prefix of an installation that does not choose one.
pub const DEFAULT_PREFIX: &str = "halfheard";
/// The longest prefix.
const MAX_PREFIX: usize = 32;

/// The names that one installation uses on the broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Names {
    prefix: String,
}

/// A prefix that the broker does not allow.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a prefix of names on the broker")]
pub struct InvalidPrefix(String);

impl crate::error::Hint for InvalidPrefix {
    fn hint(&self) -> Option<String> {
        Some(format!(
            "use lower-case letters, digits and hyphens, at most {MAX_PREFIX}: `team-a`"
        ))
    }
}

impl Default for Names {
    fn default() -> Self {
        Self {
            prefix: DEFAULT_PREFIX.to_owned(),
        }
    }
}

impl FromStr for Names {
    type Err = InvalidPrefix;

    fn from_str(prefix: &str) -> Result<Self, InvalidPrefix> {
        let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if prefix.is_empty() || prefix.len() > MAX_PREFIX || !prefix.chars().all(allowed) {
            return Err(InvalidPrefix(prefix.chars().take(64).collect()));
        }
        Ok(Self {
            prefix: prefix.to_owned(),
        })
    }
}

impl fmt::Display for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.prefix)
    }
}

impl Names {
    /// The subject on which a worker asks for jobs.
    pub fn ask(&self, worker: &str) -> String {
        format!("{}.ask.{worker}", self.prefix)
    }

    /// The subjects on which workers ask.
    pub fn asks(&self) -> String {
        format!("{}.ask.>", self.prefix)
    }

    /// The subject on which the leader tells a worker something.
    pub fn tell(&self, worker: &str) -> String {
        format!("{}.tell.{worker}", self.prefix)
    }

    /// The subject of a worker's reports.
    pub fn result(&self, worker: &str) -> String {
        format!("{}.result.{worker}", self.prefix)
    }

    /// The subjects of all reports.
    pub fn results(&self) -> String {
        format!("{}.result.>", self.prefix)
    }

    /// The subject on which one coordinator hears itself.
    pub fn ping(&self, coordinator: &str) -> String {
        format!("{}.ping.{coordinator}", self.prefix)
    }

    /// The stream of reports.
    pub fn results_stream(&self) -> String {
        format!("{}_RESULTS", self.prefix)
    }

    /// The bucket of heartbeats.
    pub fn workers_bucket(&self) -> String {
        format!("{}_WORKERS", self.prefix)
    }

    /// The subject on which a worker writes its heartbeat to the bucket.
    pub fn heartbeat(&self, worker: &str) -> String {
        format!("$KV.{}_WORKERS.{worker}", self.prefix)
    }

    /// The subjects on which heartbeats are written to their bucket; behind the bucket's is the
    /// worker's name.
    pub fn heartbeats(&self) -> String {
        format!("$KV.{}_WORKERS.>", self.prefix)
    }

    /// The worker of a request, report or heartbeat, by the subject on which it came. The broker lets
    /// no worker publish on another's, so that this, and not what the message says, is who it is
    /// from. `None` for any other subject.
    pub fn worker_of<'s>(&self, subject: &'s str) -> Option<&'s str> {
        let worker = match subject.strip_prefix("$KV.") {
            Some(rest) => rest
                .strip_prefix(self.prefix.as_str())?
                .strip_prefix("_WORKERS.")?,
            None => {
                let rest = subject
                    .strip_prefix(self.prefix.as_str())?
                    .strip_prefix('.')?;
                let (kind, worker) = rest.split_once('.')?;
                matches!(kind, "ask" | "result" | "tell").then_some(worker)?
            }
        };
        valid_worker(worker).then_some(worker)
    }

    /// The bucket of artifacts, for `nats://`.
    pub fn artifacts_bucket(&self) -> String {
        format!("{}_ARTIFACTS", self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::MAX_WORKER;

    #[test]
    fn worker_is_read_from_subject() {
        let names: Names = "team-a".parse().unwrap();
        for worker in ["gpu7-0", "red.gpu7-0"] {
            for subject in [names.ask(worker), names.result(worker), names.tell(worker)] {
                assert_eq!(names.worker_of(&subject), Some(worker), "{subject}");
            }
            let beat = format!("$KV.team-a_WORKERS.{worker}");
            assert_eq!(names.worker_of(&beat), Some(worker));
        }
        for other in [
            "team-b.ask.w",
            "team-a.ask",
            "team-a.ask.",
            "team-a.ask.a.b.c",
            "team-a.ask.a..b",
            "team-a.ask.\u{1b}[2J",
            "team-a.ping.c",
            "team-ax.ask.w",
            "$KV.team-a_ARTIFACTS.w",
            "$KV.team-b_WORKERS.w",
            "",
        ] {
            assert_eq!(names.worker_of(other), None, "{other}");
        }
        assert_eq!(
            names.worker_of(&names.ask(&"w".repeat(MAX_WORKER + 1))),
            None
        );
    }

    #[test]
    fn prefix_is_one_token() {
        for bad in ["", "a.b", "A", "a b", "*", ">", &"a".repeat(33)] {
            assert!(bad.parse::<Names>().is_err(), "{bad}");
        }
        let names: Names = "team-a".parse().unwrap();
        assert_eq!(names.ask("gpu7-0"), "team-a.ask.gpu7-0");
        assert_eq!(names.results_stream(), "team-a_RESULTS");
    }
}
