//! The state of the model: the rows, the messages on their way, and what each process remembers.

use crate::rules::{self, Job, Report};

/// Ticks that a lease lasts.
pub(super) const TTL: u8 = 2;
/// A lease that ends an hour ahead, because the database's clock was set back.
pub(super) const FAR: u8 = 50;
/// Attempts that something still refers to.
pub(super) const SLOTS: usize = 4;
/// Kinds of reports: `Started`, a result, `Failed`, `HandedBack`.
const KINDS: u8 = 4;

/// How many faults of each kind may still happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct Faults {
    /// A worker's process dies; a new one starts.
    pub crash: u8,
    /// A worker cannot reach the broker, or is stopped.
    pub cut: u8,
    /// The broker, the database or the leader is away.
    pub outage: u8,
    /// The broker loses what it has stored.
    pub storage: u8,
    /// A request or an answer is lost.
    pub lost: u8,
    /// A request or an answer takes longer than the worker waits.
    pub late: u8,
    /// An attempt fails by the job's own fault.
    pub failure: u8,
    /// A worker hands a job back.
    pub hand_back: u8,
    /// An operator cancels.
    pub operator: u8,
    /// The database's clock is set.
    pub clock: u8,
}

impl std::fmt::Display for Faults {
    /// Names the kinds that may happen, with how often.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let kinds = [
            (self.crash, "crash"),
            (self.cut, "cut"),
            (self.outage, "outage"),
            (self.storage, "storage"),
            (self.lost, "lost"),
            (self.late, "late"),
            (self.failure, "failure"),
            (self.hand_back, "hand_back"),
            (self.operator, "operator"),
            (self.clock, "clock"),
        ];
        let named = kinds.into_iter().filter(|(times, _)| *times > 0);
        for (number, (times, kind)) in named.enumerate() {
            let comma = if number == 0 { "" } else { ", " };
            write!(f, "{comma}{kind}: {times}")?;
        }
        Ok(())
    }
}

/// An attempt: its row, and what became of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Attempt {
    pub(super) worker: usize,
    pub(super) session: u8,
    pub(super) ask: u8,
    pub(super) row: rules::Attempt,
    /// Not a column: its session has received the grant.
    pub(super) received: bool,
    /// Not a column: its result was computed.
    pub(super) computed: bool,
}

/// How far a worker is with what it was granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Phase {
    /// Not begun.
    Waiting,
    /// At work; whether the report of that was sent.
    AtWork(bool),
    /// Ended with this report; whether it was sent.
    Ended(Report, bool),
}

/// What a worker was granted and has not settled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Held {
    pub(super) attempt: usize,
    pub(super) phase: Phase,
}

/// A worker: a slot, and the memory of its process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub(super) struct Worker {
    pub(super) session: u8,
    /// The number of its last request.
    pub(super) asked: u8,
    /// The number of the last request whose answer arrived.
    pub(super) received: u8,
    /// What the leader wants to see again in the next request; 0 if nothing.
    pub(super) proof: u8,
    /// It waits for the answer to the last request.
    pub(super) waits: bool,
    pub(super) held: [Option<Held>; 2],
    pub(super) cut: bool,
    /// It has beaten in this tick.
    pub(super) beaten: bool,
    /// Ticks since the last fault of its own.
    pub(super) good: u8,
}

/// A request on its way, or held by the leader.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ask {
    pub(super) worker: usize,
    pub(super) session: u8,
    pub(super) number: u8,
    pub(super) received: u8,
    pub(super) proof: u8,
}

/// An answer on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Answer {
    pub(super) worker: usize,
    pub(super) number: u8,
    pub(super) content: Content,
}

/// What an answer says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Content {
    /// This is yours.
    Granted(usize),
    /// Ask again with this number: the leader does not know yet that the session lives.
    Prove(u8),
}

/// A session that has not proved yet that it lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Contender {
    pub(super) session: u8,
    /// What it must show. The number of its request stands for a random one.
    pub(super) proof: u8,
    /// Reports that were there when it asked and are not ingested.
    pub(super) reports: u16,
}

/// The memory of the leading process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub(super) struct Leader {
    /// For each worker, the session that is served and its newest request.
    pub(super) confirmed: [Option<(u8, u8)>; 2],
    pub(super) contender: [Option<Contender>; 2],
    /// For each worker, the attempts in its last heartbeat, until they are renewed.
    pub(super) heard: [Option<u8>; 2],
    /// Ticks without a gap in which it heard everything.
    pub(super) hears: u8,
}

/// What must never happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Wrong {
    /// An attempt of a worker that lives and could be heard was taken away.
    Taken,
    /// An attempt was granted to a worker that lives, which never heard of it.
    Untold,
    /// An attempt was called lost while its final report waited to be read.
    Discarded,
    /// A process was given the same attempt twice.
    Twice,
    /// The attempt that has the job was ended by the report of another.
    Stolen,
    /// A result was ingested and did not count.
    Ignored,
    /// A lease lasts longer than leases do.
    Endless,
    /// A worker that lives computed a result that nobody has any more.
    ResultLost,
}

/// Everything.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct State {
    pub(super) job: Job,
    /// Ticks until the lease ends.
    pub(super) lease: u8,
    pub(super) attempts: [Option<Attempt>; SLOTS],
    pub(super) workers: [Worker; 2],
    /// Sorted.
    pub(super) asks: [Option<Ask>; 3],
    /// Sorted.
    pub(super) answers: [Option<Answer>; 3],
    /// Reports in the stream that were not delivered, one bit each; see [`report_bit`].
    pub(super) stream: u16,
    /// Reports delivered to the leader and not yet ingested.
    pub(super) delivered: u16,
    /// Reports that were delivered, and whose confirmation the broker will miss.
    pub(super) unconfirmed: u16,
    pub(super) leader: Leader,
    pub(super) no_leader: bool,
    pub(super) no_broker: bool,
    pub(super) no_database: bool,
    /// Something was away in this tick.
    pub(super) gap: bool,
    pub(super) faults: Faults,
    /// How many results were stored.
    pub(super) stored: u8,
    /// How many attempts failed by the job's own fault, since the last retry.
    pub(super) own_failures: u8,
    pub(super) wrong: Option<Wrong>,
}

/// The bit of a report in a set of reports.
pub(super) fn report_bit(attempt: usize, report: Report) -> u16 {
    let kind = match report {
        Report::Started => 0,
        Report::Result(_) => 1,
        Report::Failed => 2,
        Report::HandedBack => 3,
    };
    1 << (attempt as u8 * KINDS + kind)
}

/// The attempt and the report of the bit with this number.
pub(super) fn report_of(number: u8) -> (usize, Report) {
    let report = match number % KINDS {
        0 => Report::Started,
        1 => Report::Result(0),
        2 => Report::Failed,
        _ => Report::HandedBack,
    };
    (usize::from(number / KINDS), report)
}

/// The bits of all reports of an attempt, or of its final ones.
pub(super) fn reports_of(attempt: usize, final_only: bool) -> u16 {
    let bits = if final_only { 0b1110 } else { 0b1111 };
    bits << (attempt as u8 * KINDS)
}

/// Adds an element and sorts; false if there is no room.
pub(super) fn insert<T: Copy + Ord, const N: usize>(set: &mut [Option<T>; N], new: T) -> bool {
    if set.contains(&Some(new)) {
        return true;
    }
    let Some(free) = set.iter_mut().find(|slot| slot.is_none()) else {
        return false;
    };
    *free = Some(new);
    set.sort_unstable();
    true
}

/// Keeps the elements for which `keep` holds, sorted.
pub(super) fn retain<T: Copy + Ord, const N: usize>(
    set: &mut [Option<T>; N],
    keep: impl Fn(&T) -> bool,
) {
    for slot in set.iter_mut() {
        *slot = slot.filter(&keep);
    }
    set.sort_unstable();
}

impl State {
    /// Whether the worker and the broker reach each other.
    pub(super) fn is_connected(&self, worker: usize) -> bool {
        !self.no_broker && !self.workers[worker].cut
    }

    /// Whether the leader can read messages and write rows.
    pub(super) fn all_work(&self) -> bool {
        !self.no_leader && !self.no_broker && !self.no_database
    }

    /// Reports that are stored by the broker and not known to be ingested.
    pub(super) fn waiting(&self) -> u16 {
        self.stream | self.delivered | self.unconfirmed
    }

    /// Forgets what nothing refers to, so that equal situations are equal states.
    pub(super) fn normalize(&mut self) {
        self.job.attempt = self.job.leased();
        if self.job.attempt.is_none() {
            self.lease = 0;
        }
        let marks = self.leader.contender.iter().flatten();
        let reports = marks.fold(self.waiting(), |all, one| all | one.reports);
        let heard = self
            .leader
            .heard
            .iter()
            .flatten()
            .fold(0, |all, one| all | one);
        for attempt in 0..SLOTS {
            let held = self
                .workers
                .iter()
                .flat_map(|worker| &worker.held)
                .flatten();
            let used = self.job.attempt == Some(attempt as u8)
                || reports & reports_of(attempt, false) != 0
                || heard & (1 << attempt) != 0
                || held.into_iter().any(|held| held.attempt == attempt)
                || self
                    .answers
                    .iter()
                    .flatten()
                    .any(|answer| answer.content == Content::Granted(attempt));
            if !used {
                self.attempts[attempt] = None;
            }
        }
    }
}
