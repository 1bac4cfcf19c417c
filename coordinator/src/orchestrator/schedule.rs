//! Which sweep is served next: the higher priority first; within equal priority a fair share of the
//! workers to every owner, and of an owner's workers to each of its sweeps by their weights.
//!
//! A share is a number of workers at a time. It is seldom whole, and often there are fewer workers
//! than sweeps, so what each owner and sweep is owed is remembered as worker-seconds: of three
//! sweeps and one worker, each has it a third of the time, however long the jobs of the others
//! take. The memory is the leader's own; a new leader starts with none, which costs nobody more
//! than one turn.

use halfheard_shared::ids::SweepId;
use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

/// How many worker-seconds owed outweigh one worker. What is owed beyond it is forgotten, so that
/// a sweep that could not be served for a long time (its limit, its label) does not get every
/// worker afterwards.
const MEMORY: f64 = 600.0;

/// Fewer worker-seconds than these are nothing.
const FORGOTTEN: f64 = 1e-6;

/// A sweep that has jobs to be granted.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Contender {
    pub(crate) id: SweepId,
    pub(crate) owner: String,
    /// The higher is served first.
    pub(crate) priority: i32,
    /// Its share among its owner's sweeps of the same priority; above 0. An owner's share is that of
    /// its heaviest sweep: many sweeps do not make it larger.
    pub(crate) weight: f64,
    /// How many workers hold jobs of it.
    pub(crate) workers: u32,
    /// How many more of its jobs may be granted, if that is limited.
    pub(crate) room: Option<u32>,
    /// Whether it has training jobs to be granted.
    pub(crate) trainings: bool,
    /// Whether it has evaluation or no-op jobs to be granted.
    pub(crate) evaluations: bool,
}

/// For which kinds of jobs a worker asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Wants {
    /// Training jobs.
    pub(crate) trainings: bool,
    /// Evaluation or no-op jobs.
    pub(crate) evaluations: bool,
}

/// What owners and sweeps are owed, in worker-seconds, at most [`MEMORY`] either way.
#[derive(Clone, Debug, Default)]
pub(crate) struct Schedule {
    /// Who had which workers when the last grants had been made. What a sweep has just before the
    /// next ones says less: short jobs have ended by then.
    had: Vec<Contender>,
    owners: BTreeMap<(i32, String), f64>,
    sweeps: BTreeMap<SweepId, f64>,
}

impl Schedule {
    /// Begins a round of grants, `elapsed` after the last one. Contenders of equal rights are served
    /// in their order.
    pub(crate) fn round(&mut self, contenders: &[Contender], elapsed: Duration) -> Round<'_> {
        let had = std::mem::take(&mut self.had);
        self.charge(&had, elapsed.as_secs_f64());
        self.had = contenders.to_vec();
        // Stable: by age within a priority, as the database gives them.
        self.had.sort_by_key(|c| std::cmp::Reverse(c.priority));
        Round { schedule: self }
    }

    /// Books what was due and what was had since the last round. Who has nothing to be granted at
    /// present is forgotten gradually.
    fn charge(&mut self, contenders: &[Contender], seconds: f64) {
        let mut owners = std::mem::take(&mut self.owners);
        let mut sweeps = std::mem::take(&mut self.sweeps);
        for group in contenders.chunk_by(|a, b| a.priority == b.priority) {
            let shares = Shares::of(group, 0.0);
            for (owner, share) in shares.owners {
                let key = (group[0].priority, owner.to_owned());
                let owed = owners.remove(&key).unwrap_or_default();
                self.owners.insert(key, booked(owed, share, seconds));
            }
            for (id, share) in shares.sweeps {
                let owed = sweeps.remove(&id).unwrap_or_default();
                self.sweeps.insert(id, booked(owed, share, seconds));
            }
        }
        let fading = (-seconds / MEMORY).exp();
        let faded = |owed: f64| owed * fading;
        self.owners
            .extend(owners.into_iter().map(|(key, owed)| (key, faded(owed))));
        self.sweeps
            .extend(sweeps.into_iter().map(|(id, owed)| (id, faded(owed))));
        self.owners.retain(|_, owed| owed.abs() > FORGOTTEN);
        self.sweeps.retain(|_, owed| owed.abs() > FORGOTTEN);
    }
}

/// What is owed after so many seconds of a share.
fn booked(owed: f64, share: Share, seconds: f64) -> f64 {
    (owed + share.lack() * seconds).clamp(-MEMORY, MEMORY)
}

/// The workers that one should have and has.
#[derive(Clone, Copy, Debug, Default)]
struct Share {
    due: f64,
    has: f64,
}

impl Share {
    fn lack(self) -> f64 {
        self.due - self.has
    }
}

/// The shares of sweeps of one priority.
struct Shares<'c> {
    owners: BTreeMap<&'c str, Share>,
    sweeps: HashMap<SweepId, Share>,
}

impl<'c> Shares<'c> {
    /// Divides the workers that the group has, and `more`.
    fn of(group: &'c [Contender], more: f64) -> Self {
        /// The heaviest weight, all weights, workers.
        type Owner = (f64, f64, f64);
        // In order: sums must not depend on the order of a hash table.
        let mut owners: BTreeMap<&str, Owner> = BTreeMap::new();
        for contender in group {
            let owner = owners.entry(&contender.owner).or_default();
            owner.0 = owner.0.max(contender.weight);
            owner.1 += contender.weight;
            owner.2 += f64::from(contender.workers);
        }
        let all: f64 = owners.values().map(|owner| owner.0).sum();
        let workers: f64 = owners.values().map(|owner| owner.2).sum();
        let sweeps = group.iter().map(|contender| {
            let (_, weights, has) = owners[contender.owner.as_str()];
            let share = Share {
                due: (has + more) * contender.weight / weights,
                has: f64::from(contender.workers),
            };
            (contender.id, share)
        });
        let sweeps = sweeps.collect();
        let owners = owners
            .into_iter()
            .map(|(owner, (heaviest, _, has))| {
                let due = (workers + more) * heaviest / all;
                (owner, Share { due, has })
            })
            .collect();
        Self { owners, sweeps }
    }
}

/// The grants that are made at one time.
#[derive(Debug)]
pub(crate) struct Round<'s> {
    schedule: &'s mut Schedule,
}

impl Round<'_> {
    /// The sweeps that have what the next worker wants, in the order in which to serve it. The
    /// first is taken to get the worker.
    pub(crate) fn next(&mut self, wants: Wants) -> Vec<SweepId> {
        let mut order = Vec::new();
        let contenders = &mut self.schedule.had;
        for group in contenders.chunk_by(|a, b| a.priority == b.priority) {
            let shares = Shares::of(group, 1.0);
            let owner = |c: &Contender| {
                let owed = self.schedule.owners.get(&(c.priority, c.owner.clone()));
                claim(shares.owners[c.owner.as_str()], owed)
            };
            let sweep =
                |c: &Contender| claim(shares.sweeps[&c.id], self.schedule.sweeps.get(&c.id));
            let mut ranked: Vec<(f64, &str, f64, SweepId)> = group
                .iter()
                .filter(|c| c.room != Some(0))
                .filter(|c| {
                    (wants.trainings && c.trainings) || (wants.evaluations && c.evaluations)
                })
                .map(|c| (owner(c), c.owner.as_str(), sweep(c), c.id))
                .collect();
            // The sweeps of owners with equal claims are not mixed; equal sweeps stay in order of age.
            ranked.sort_by(|a, b| {
                b.0.total_cmp(&a.0)
                    .then_with(|| a.1.cmp(b.1))
                    .then_with(|| b.2.total_cmp(&a.2))
            });
            order.extend(ranked.into_iter().map(|(.., id)| id));
        }
        let first = order.first();
        if let Some(first) = contenders.iter_mut().find(|c| Some(&c.id) == first) {
            first.workers = first.workers.saturating_add(1);
            first.room = first.room.map(|room| room - 1);
        }
        order
    }
}

/// How much one is to be served: the workers that it lacks, and those that it is owed for earlier.
fn claim(share: Share, owed: Option<&f64>) -> f64 {
    share.lack() + owed.copied().unwrap_or(0.0) / MEMORY
}

#[cfg(test)]
mod tests;
