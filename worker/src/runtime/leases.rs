//! Leases: everything that was granted to this worker and is not settled, in one table. Heartbeats
//! say it, and while they do the coordinator leaves it to this worker.
//!
//! A lease ends when the coordinator says so ([`Leases::release`]): that is how a job at work is taken
//! away, and how a final report is known to count. Until then the report is kept and sent again.

use super::{inject, watch::Watch};
use halfheard_shared::{
    ids::{AttemptId, JobId},
    wire::{Held, JobMessage, ResultBody, ResultMessage, Work},
};
use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant, SystemTime},
};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// Attempts that are remembered after their end, because a grant may arrive twice.
const REMEMBERED: usize = 4096;
/// The first pause before an unsettled report is sent again.
const FIRST_RESEND: Duration = Duration::from_secs(30);
/// The longest one: while no coordinator leads, each repetition stays in the stream.
const MAX_RESEND: Duration = Duration::from_secs(300);

/// All leases of this process. Cheap to clone.
#[derive(Clone)]
pub(super) struct Leases {
    table: Arc<Mutex<Table>>,
    watch: Watch,
    settled: Arc<Notify>,
}

#[derive(Default)]
struct Table {
    entries: HashMap<AttemptId, Entry>,
    /// Attempts that were in the table, oldest first.
    past: VecDeque<AttemptId>,
    known: HashSet<AttemptId>,
}

struct Entry {
    job: JobId,
    noop: bool,
    /// Whether its start was reported.
    begun: bool,
    /// Whether this process is busy with it, so that its progress is the process's.
    at_work: bool,
    /// Training steps of the state that it began from.
    resumed: u64,
    /// Training steps in the last stored state.
    saved: u64,
    released: CancellationToken,
    /// What was reported.
    reports: Vec<ResultMessage>,
    /// Set once the broker has the final report.
    resend: Option<Resend>,
}

struct Resend {
    at: Instant,
    pause: Duration,
}

impl Leases {
    pub(super) fn new(watch: Watch) -> Self {
        Self {
            table: Arc::default(),
            watch,
            settled: Arc::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        // Every change is a single operation: a panic elsewhere leaves the table consistent.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn update(&self, attempt: AttemptId, change: impl FnOnce(&mut Entry)) {
        if let Some(entry) = self.lock().entries.get_mut(&attempt) {
            change(entry);
        }
    }

    /// Takes the lease of a granted job. `None` if the grant arrived before.
    pub(super) fn accept(&self, job: JobMessage) -> Option<JobLease> {
        let mut table = self.lock();
        if !table.known.insert(job.attempt) {
            return None;
        }
        table.past.push_back(job.attempt);
        if table.past.len() > REMEMBERED
            && let Some(oldest) = table.past.pop_front()
        {
            // One that is still leased stays known.
            match table.entries.contains_key(&oldest) {
                true => table.past.push_back(oldest),
                false => drop(table.known.remove(&oldest)),
            }
        }
        let released = CancellationToken::new();
        let entry = Entry {
            job: job.job,
            noop: matches!(job.work, Work::Noop),
            begun: false,
            at_work: false,
            resumed: 0,
            saved: 0,
            released: released.clone(),
            reports: Vec::new(),
            resend: None,
        };
        table.entries.insert(job.attempt, entry);
        Some(JobLease {
            job,
            accepted: SystemTime::now(),
            released,
            leases: self.clone(),
        })
    }

    /// Ends leases, because the coordinator says so: those at work are to stop, those reported are
    /// settled.
    pub(super) fn release(&self, attempts: &[AttemptId]) {
        let mut table = self.lock();
        for attempt in attempts {
            if let Some(entry) = table.entries.remove(attempt) {
                entry.released.cancel();
            }
        }
        self.settled.notify_one();
    }

    /// Waits until leases end.
    pub(super) async fn settled(&self) {
        self.settled.notified().await;
    }

    /// Whether this process works on it.
    pub(super) fn at_work(&self, attempt: AttemptId, at_work: bool) {
        self.update(attempt, |entry| entry.at_work = at_work);
    }

    /// Work on it has begun, from a state of `resumed` training steps.
    pub(super) fn begun(&self, attempt: AttemptId, resumed: u64) {
        self.update(attempt, |entry| {
            entry.begun = true;
            entry.resumed = resumed;
            entry.saved = resumed;
        });
    }

    /// A state of `steps` training steps is stored.
    pub(super) fn saved(&self, attempt: AttemptId, steps: u64) {
        self.update(attempt, |entry| entry.saved = entry.saved.max(steps));
    }

    /// Keeps a report until the lease ends.
    pub(super) fn record(&self, report: &ResultMessage) {
        self.update(report.attempt, |entry| entry.reports.push(report.clone()));
    }

    /// The epochs that were reported of an attempt.
    pub(super) fn epochs(&self, attempt: AttemptId) -> Vec<ResultMessage> {
        let table = self.lock();
        let reports = table.entries.get(&attempt).map(|entry| &entry.reports);
        let is_epoch = |report: &&ResultMessage| matches!(report.body, ResultBody::Epoch(_));
        reports
            .into_iter()
            .flatten()
            .filter(is_epoch)
            .cloned()
            .collect()
    }

    /// What heartbeats say.
    pub(super) fn holds(&self) -> Vec<Held> {
        let (progress, patience) = self.watch.now();
        // Rounded up: the watch of this process is to notice first.
        let patience_s = patience.map_or(0, |limit| limit.as_secs_f64().ceil() as u32 + 1);
        let table = self.lock();
        let entries = table.entries.iter();
        entries
            .map(|(&attempt, entry)| Held {
                attempt,
                job: entry.job,
                begun: entry.begun,
                progress: if entry.at_work { progress } else { 0 },
                resumed: entry.resumed,
                saved: entry.saved,
                patience_s: if entry.at_work { patience_s } else { 0 },
            })
            .collect()
    }

    /// No-op jobs that are not settled.
    pub(super) fn noops(&self) -> usize {
        let table = self.lock();
        table.entries.values().filter(|entry| entry.noop).count()
    }

    /// The reports of attempts that have ended and are to be sent again now, in order.
    pub(super) fn due(&self) -> Vec<ResultMessage> {
        let now = Instant::now();
        let mut due = Vec::new();
        for entry in self.lock().entries.values_mut() {
            if let Some(resend) = &mut entry.resend
                && resend.at <= now
            {
                resend.pause = (resend.pause * 2).min(MAX_RESEND);
                resend.at = now + resend.pause;
                due.extend(entry.reports.iter().cloned());
            }
        }
        due
    }
}

/// A granted job. A lease that is dropped before its final report is forgotten, and the
/// coordinator notices.
pub(super) struct JobLease {
    pub(super) job: JobMessage,
    accepted: SystemTime,
    released: CancellationToken,
    leases: Leases,
}

impl JobLease {
    pub(super) fn attempt(&self) -> AttemptId {
        self.job.attempt
    }

    /// When the grant arrived.
    pub(super) fn accepted(&self) -> SystemTime {
        self.accepted
    }

    /// Cancelled when the coordinator ends the lease.
    pub(super) fn released(&self) -> &CancellationToken {
        &self.released
    }

    pub(super) fn is_released(&self) -> bool {
        self.released.is_cancelled()
    }

    /// Whether this process works on it.
    pub(super) fn set_at_work(&self, at_work: bool) {
        self.leases.at_work(self.attempt(), at_work);
    }

    /// The broker has the final report: it is kept, and sent again, until the coordinator ends the lease.
    pub(super) fn reported(self) {
        let pause = inject::resend_every().unwrap_or(FIRST_RESEND);
        self.leases.update(self.attempt(), |entry| {
            entry.at_work = false;
            entry.resend = Some(Resend {
                at: Instant::now() + pause,
                pause,
            });
        });
    }
}

impl Drop for JobLease {
    fn drop(&mut self) {
        let attempt = self.attempt();
        let mut table = self.leases.lock();
        if table
            .entries
            .get(&attempt)
            .is_some_and(|e| e.resend.is_none())
        {
            table.entries.remove(&attempt);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use halfheard_shared::{ids::SweepId, wire::WorkerInfo};

    fn job(number: u64) -> JobMessage {
        let job = JobId::derive(&[&number.to_le_bytes()]);
        JobMessage {
            sweep: SweepId::derive(&[b"s"]),
            job,
            attempt: AttemptId::derive(&[job.as_bytes()]),
            work: Work::Noop,
        }
    }

    fn report(job: &JobMessage, body: ResultBody) -> ResultMessage {
        ResultMessage {
            job: job.job,
            attempt: job.attempt,
            worker: WorkerInfo {
                name: "w".into(),
                host: "h".into(),
                device: "cpu".into(),
                version: "0".into(),
                processor: String::new(),
            },
            body,
        }
    }

    fn leases() -> Leases {
        Leases::new(Watch::default())
    }

    #[test]
    fn repeated_grant_is_accepted_once() {
        let leases = leases();
        let lease = leases.accept(job(1)).unwrap();
        assert!(leases.accept(job(1)).is_none(), "while it is leased");
        leases.release(&[lease.attempt()]);
        drop(lease);
        assert!(leases.accept(job(1)).is_none(), "after its end");
        assert!(leases.holds().is_empty());
        for number in 2..3 * REMEMBERED as u64 {
            drop(leases.accept(job(number)).unwrap());
        }
        let table = leases.lock();
        assert!(table.known.len() <= REMEMBERED && table.past.len() <= REMEMBERED);
    }

    #[test]
    fn lease_dropped_without_report_is_forgotten_and_reported_one_is_kept() {
        let leases = leases();
        drop(leases.accept(job(1)).unwrap());
        assert!(leases.holds().is_empty());
        let lease = leases.accept(job(2)).unwrap();
        leases.record(&report(&job(2), ResultBody::Noop));
        let released = lease.released().clone();
        lease.reported();
        assert_eq!((leases.holds().len(), leases.noops()), (1, 1));
        leases.release(&[job(2).attempt]);
        assert!(released.is_cancelled() && leases.holds().is_empty());
    }

    #[test]
    fn unsettled_reports_are_repeated_together_with_growing_pauses() {
        let leases = leases();
        let lease = leases.accept(job(1)).unwrap();
        let started = ResultBody::Started {
            resumed_after_epoch: 0,
        };
        for body in [started, ResultBody::Noop] {
            leases.record(&report(&job(1), body));
        }
        lease.reported();
        assert!(leases.due().is_empty(), "too early");
        let make_due = || {
            leases.update(job(1).attempt, |entry| {
                entry.resend.as_mut().unwrap().at = Instant::now();
            });
        };
        for _ in 0..9 {
            make_due();
            let due = leases.due();
            assert!(matches!(due[0].body, ResultBody::Started { .. }) && due.len() == 2);
            assert!(leases.due().is_empty(), "once at a time");
        }
        let pause = |leases: &Leases| {
            let table = leases.lock();
            table.entries[&job(1).attempt]
                .resend
                .as_ref()
                .unwrap()
                .pause
        };
        assert_eq!(pause(&leases), MAX_RESEND);
    }

    #[test]
    fn only_jobs_at_work_have_a_limit() {
        let leases = leases();
        let (busy, waiting) = (
            leases.accept(job(1)).unwrap(),
            leases.accept(job(2)).unwrap(),
        );
        busy.set_at_work(true);
        leases.begun(busy.attempt(), 7);
        leases.saved(busy.attempt(), 9);
        leases.watch.enter(super::super::watch::Phase::Steps);
        let holds = leases.holds();
        let of = |lease: &JobLease| {
            let held = holds.iter().find(|held| held.attempt == lease.attempt());
            held.unwrap().clone()
        };
        assert!(of(&busy).patience_s > 0 && of(&busy).progress > 0 && of(&busy).begun);
        assert_eq!((of(&busy).resumed, of(&busy).saved), (7, 9));
        assert_eq!((of(&waiting).patience_s, of(&waiting).progress), (0, 0));
        leases.watch.enter(super::super::watch::Phase::Waiting);
        assert!(leases.holds().iter().all(|held| held.patience_s == 0));
    }
}
