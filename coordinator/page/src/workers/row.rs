//! One worker as the page shows it.

use halfheard_progress::describe_worker;
use halfheard_shared::wire::Heartbeat;
use halfheard_store::{drained::Drained, worker_tallies::WorkerTally};

/// How a worker stands: one of these, the most pressing first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Standing {
    /// It takes no jobs for a fault of its own.
    SitsOut,
    /// Something is wrong, and it works all the same.
    Faulty,
    /// An operator gives it nothing more.
    Drained,
    /// It works.
    Busy,
    /// It waits for jobs.
    Idle,
}

impl Standing {
    /// All of them, the most pressing first.
    pub(super) const ALL: [Self; 5] = [
        Self::SitsOut,
        Self::Faulty,
        Self::Drained,
        Self::Busy,
        Self::Idle,
    ];

    pub(super) fn of(beat: &Heartbeat, drained: bool) -> Self {
        match (&beat.trouble, drained, &beat.doing) {
            (Some(trouble), _, _) if trouble.sits_out => Self::SitsOut,
            (Some(_), _, _) => Self::Faulty,
            (None, true, _) => Self::Drained,
            (None, false, Some(_)) => Self::Busy,
            (None, false, None) => Self::Idle,
        }
    }

    /// In addresses, and as a class.
    pub(super) fn key(self) -> &'static str {
        match self {
            Self::SitsOut => "out",
            Self::Faulty => "fault",
            Self::Drained => "drained",
            Self::Busy => "busy",
            Self::Idle => "idle",
        }
    }

    /// In words.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::SitsOut => "sitting out",
            Self::Faulty => "with a fault",
            Self::Drained => "drained",
            Self::Busy => "at work",
            Self::Idle => "idle",
        }
    }

    /// A symbol and a class of the page's states.
    pub(super) fn mark(self) -> (&'static str, &'static str) {
        match self {
            Self::SitsOut => ("✗", "failed"),
            Self::Faulty => ("!", "failed"),
            Self::Drained => ("‖", "queued"),
            Self::Busy => ("▶", "running"),
            Self::Idle => ("○", "ready"),
        }
    }
}

/// Words, each with the number behind it.
type Natural = Vec<(String, u64)>;

/// One worker.
#[derive(Clone, Debug)]
pub(super) struct Row<'a> {
    pub(super) beat: &'a Heartbeat,
    pub(super) standing: Standing,
    /// Steps or batches a second.
    pub(super) pace: Option<f64>,
    /// Attempts that ended in the last hour; `None` while the database is away.
    pub(super) tally: Option<WorkerTally>,
    pub(super) drained: Option<Drained>,
    /// Whether most workers have another version.
    pub(super) other_version: bool,
}

impl Row<'_> {
    /// Whether `filter` occurs somewhere in it, in whatever case.
    pub(super) fn matches(&self, filter: &str) -> bool {
        let filter = filter.trim().to_lowercase();
        let worker = &self.beat.worker;
        let what = describe_worker(self.beat);
        let fixed = [
            &worker.name,
            &worker.host,
            &worker.device,
            &worker.version,
            &what,
        ];
        filter.is_empty()
            || fixed
                .into_iter()
                .chain(&self.beat.labels)
                .any(|text| text.to_lowercase().contains(&filter))
    }

    /// By machine and name, with numbers in their order: `gpu2` before `gpu10`.
    pub(super) fn order(&self) -> (Natural, Natural) {
        (
            natural(&self.beat.worker.host),
            natural(&self.beat.worker.name),
        )
    }
}

/// A name as words, each with the number behind it.
fn natural(name: &str) -> Natural {
    let mut parts: Natural = vec![(String::new(), 0)];
    let mut in_number = false;
    for c in name.chars() {
        let digit = c.to_digit(10);
        if in_number && digit.is_none() {
            parts.push((String::new(), 0));
        }
        in_number = digit.is_some();
        // Never empty: it begins with one part.
        let Some((word, number)) = parts.last_mut() else {
            break;
        };
        match digit {
            Some(digit) => *number = number.saturating_mul(10).saturating_add(digit.into()),
            None => word.push(c),
        }
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_in_the_order_of_their_numbers() {
        let mut names = ["gpu10-2", "gpu2-10", "gpu2-9", "cpu", "gpu2", "1", ""];
        names.sort_by_key(|name| natural(name));
        assert_eq!(
            names,
            ["", "1", "cpu", "gpu2", "gpu2-9", "gpu2-10", "gpu10-2"]
        );
    }
}
