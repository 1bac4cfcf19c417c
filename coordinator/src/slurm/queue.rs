//! What Slurm's programs print of jobs, read as data: `squeue` as JSON and as text, `scontrol` and
//! `sacct` for jobs that ended.

use super::{SlurmError, SlurmState};
use chrono::{DateTime, NaiveDateTime, Utc};
use halfheard_shared::text::plain;
use serde::Deserialize;

/// What `squeue` prints as text: id, state, start, end, partition, name, reason.
pub(super) const FORMAT: &str = "%i|%T|%S|%e|%P|%j|%r";
/// What `sacct` prints.
pub(super) const FIELDS: &str = "JobIDRaw,State,Start,End,Reason,ExitCode";
/// Most characters of a reason.
const REASON: usize = 200;

/// A Slurm job as a program showed it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Seen {
    pub(crate) id: i64,
    pub(crate) state: SlurmState,
    /// Why it waits or ended; empty if Slurm gives no reason.
    pub(crate) reason: String,
    pub(crate) started: Option<DateTime<Utc>>,
    pub(crate) ends: Option<DateTime<Utc>>,
    /// How often it was queued again, where that is shown.
    pub(crate) restarts: Option<i32>,
}

fn reason(text: &str) -> String {
    match text.trim() {
        "None" | "(null)" | "N/A" => String::new(),
        text => plain(text).chars().take(REASON).collect(),
    }
}

/// `2026-11-26T15:01:59`, in UTC; `None` for `N/A`, `Unknown` and `NONE`.
fn time(text: &str) -> Option<DateTime<Utc>> {
    let time = NaiveDateTime::parse_from_str(text.trim(), "%Y-%m-%dT%H:%M:%S").ok()?;
    Some(time.and_utc())
}

/// Reads what `squeue --noheader -o FORMAT` printed of the jobs called `name` in `partition`. Lines of
/// others, whatever is in them, are skipped.
pub(super) fn text(printed: &str, name: &str, partition: &str) -> Vec<Seen> {
    let line = |line: &str| {
        let mut fields = line.splitn(7, '|');
        let mut next = || fields.next();
        let (id, state, started, ends) = (next()?, next()?, next()?, next()?);
        if next()?.trim() != partition || next()?.trim() != name {
            return None;
        }
        Some(Seen {
            id: id.trim().parse().ok()?,
            state: SlurmState::parse(state)?,
            reason: reason(next()?),
            started: time(started),
            ends: time(ends),
            restarts: None,
        })
    };
    printed.lines().filter_map(line).collect()
}

/// A number as Slurm prints it: plain up to 22.05, later with whether it is set.
#[derive(Deserialize)]
#[serde(untagged)]
enum Number {
    Plain(i64),
    Optional { set: bool, number: i64 },
}

impl Number {
    fn get(&self) -> Option<i64> {
        match *self {
            Self::Plain(number) => Some(number),
            Self::Optional { set, number } => set.then_some(number),
        }
    }

    fn time(&self) -> Option<DateTime<Utc>> {
        let seconds = self.get().filter(|seconds| *seconds > 0)?;
        DateTime::from_timestamp(seconds, 0)
    }
}

/// A word up to 23.02, later the state with its flags: `["COMPLETED", "COMPLETING"]`.
#[derive(Deserialize)]
#[serde(untagged)]
enum State {
    Word(String),
    Flags(Vec<String>),
}

impl State {
    fn get(&self) -> Option<SlurmState> {
        match self {
            Self::Word(word) => SlurmState::parse(word),
            Self::Flags(words) => {
                let leaving = words.iter().find(|word| *word == "COMPLETING");
                SlurmState::parse(leaving.or(words.first())?)
            }
        }
    }
}

#[derive(Deserialize)]
struct Job {
    job_id: i64,
    job_state: State,
    #[serde(default)]
    state_reason: String,
    start_time: Number,
    end_time: Number,
    #[serde(default)]
    restart_cnt: Option<Number>,
}

#[derive(Deserialize)]
struct Jobs {
    jobs: Vec<serde_json::Value>,
}

/// Reads what `squeue --json` printed of the jobs called `name` in `partition`. Those that have ended
/// are left out, as the text form does.
///
/// # Errors
///
/// It is not JSON of a form that is known.
pub(super) fn json(printed: &str, name: &str, partition: &str) -> Result<Vec<Seen>, SlurmError> {
    let unreadable = |error: serde_json::Error| SlurmError::Unreadable {
        program: "squeue",
        found: error.to_string(),
    };
    let jobs: Jobs = serde_json::from_str(printed).map_err(unreadable)?;
    let mut seen = Vec::new();
    for job in jobs.jobs {
        // Those of others are not looked at: their names may be anything.
        if job["name"] != name || job["partition"] != partition {
            continue;
        }
        let job: Job = serde_json::from_value(job).map_err(unreadable)?;
        let Some(state) = job.job_state.get() else {
            continue;
        };
        if state.is_open() {
            seen.push(Seen {
                id: job.job_id,
                state,
                reason: reason(&job.state_reason),
                started: job.start_time.time(),
                ends: job.end_time.time(),
                restarts: job.restart_cnt.and_then(|n| i32::try_from(n.get()?).ok()),
            });
        }
    }
    Ok(seen)
}

/// Reads what `scontrol show job -o ID` printed.
pub(super) fn scontrol(printed: &str) -> Option<Seen> {
    let field = |key: &str| {
        printed
            .split_whitespace()
            .find_map(|word| word.strip_prefix(key)?.strip_prefix('='))
    };
    Some(Seen {
        id: field("JobId")?.parse().ok()?,
        state: SlurmState::parse(field("JobState")?)?,
        reason: ended_because(field("Reason")?, field("ExitCode").unwrap_or_default()),
        started: field("StartTime").and_then(time),
        ends: field("EndTime").and_then(time),
        restarts: field("Restarts").and_then(|count| count.parse().ok()),
    })
}

/// Reads what `sacct --noheader --parsable2 --allocations -o FIELDS` printed.
pub(super) fn sacct(printed: &str) -> Option<Seen> {
    // A job that was queued again has a line for each time, in order.
    let line = printed.lines().rfind(|line| !line.trim().is_empty())?;
    let mut fields = line.split('|');
    let mut next = || fields.next();
    Some(Seen {
        id: next()?.trim().parse().ok()?,
        state: SlurmState::parse(next()?)?,
        started: next().and_then(time),
        ends: next().and_then(time),
        reason: ended_because(next()?, next().unwrap_or_default()),
        restarts: None,
    })
}

/// The reason with the exit code, `3:0`, or the signal after the colon.
fn ended_because(text: &str, exit: &str) -> String {
    let text = reason(text);
    let exit = match exit.split_once(':') {
        Some(("0", "0")) | None => return text,
        Some(("0", signal)) => format!("signal {signal}"),
        Some((code, _)) => format!("exit code {code}"),
    };
    let exit = reason(&exit);
    match text.as_str() {
        "" | "NonZeroExitCode" => exit,
        text => format!("{text}, {exit}"),
    }
}

#[cfg(test)]
mod tests;
