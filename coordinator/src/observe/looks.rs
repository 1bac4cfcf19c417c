//! One look at the database, and what the looks before are remembered for.

use halfheard_shared::ids::SweepId;
use halfheard_store::{
    JobState, Store, StoreError, SweepState,
    drained::Drained,
    observation::{JobGroup, Pace, Standing, SweepGroup},
};
use std::{
    collections::{BTreeMap, HashMap},
    time::{Duration, Instant},
};

/// The most sweeps with gauges of their own: each has a dozen series.
const SWEEPS: usize = 20;
/// How often the cost of sweeps is summed up: it reads every attempt of theirs.
const COST_EVERY: Duration = Duration::from_secs(60);

/// What the database said.
#[derive(Clone, Debug)]
pub(super) struct Look {
    pub(super) at: Instant,
    pub(super) took: Duration,
    pub(super) jobs: Vec<JobGroup>,
    /// Sweeps by state: running, paused, finished, cancelled.
    pub(super) sweeps: BTreeMap<&'static str, u64>,
    /// The newest unfinished sweeps that run.
    pub(super) newest: Vec<Running>,
    pub(super) paces: Vec<Pace>,
    pub(super) standing: Standing,
    pub(super) drained: Vec<Drained>,
}

/// An unfinished sweep that runs.
#[derive(Clone, Debug)]
pub(super) struct Running {
    pub(super) id: SweepId,
    pub(super) name: String,
    pub(super) jobs: Vec<(JobState, i64)>,
    /// When it advanced last.
    pub(super) advanced: Instant,
    /// For how many seconds slots were busy with it.
    pub(super) busy: Option<f64>,
}

/// What is remembered from look to look.
#[derive(Debug, Default)]
pub(super) struct Memory {
    /// How far each sweep was, and since when.
    advances: HashMap<SweepId, (i64, i64, Instant)>,
    costs: HashMap<SweepId, f64>,
    summed: Option<Instant>,
}

impl Memory {
    /// Looks at the database.
    pub(super) async fn look(&mut self, store: &Store) -> Result<Look, StoreError> {
        let began = Instant::now();
        let jobs = store.job_groups().await?;
        let groups = store.sweep_groups().await?;
        let paces = store.paces().await?;
        let standing = store.standing().await?;
        let drained = store.drained().await?;
        let (sweeps, mut newest) = self.sweeps(groups);
        if self.summed.is_none_or(|at| at.elapsed() >= COST_EVERY) {
            let ids: Vec<SweepId> = newest.iter().map(|sweep| sweep.id).collect();
            self.costs = store.busy_seconds(&ids).await?.into_iter().collect();
            self.summed = Some(Instant::now());
        }
        for sweep in &mut newest {
            sweep.busy = self.costs.get(&sweep.id).copied();
        }
        Ok(Look {
            at: Instant::now(),
            took: began.elapsed(),
            jobs,
            sweeps,
            newest,
            paces,
            standing,
            drained,
        })
    }

    /// Counts sweeps by state, and finds the newest that run.
    fn sweeps(&mut self, groups: Vec<SweepGroup>) -> (BTreeMap<&'static str, u64>, Vec<Running>) {
        let mut sweeps: HashMap<SweepId, Vec<SweepGroup>> = HashMap::new();
        for group in groups {
            sweeps.entry(group.sweep).or_default().push(group);
        }
        let mut states: BTreeMap<_, u64> = ["running", "paused", "finished", "cancelled"]
            .map(|state| (state, 0))
            .into();
        let mut running = Vec::new();
        for (id, groups) in sweeps {
            let open = groups.iter().any(|g| g.state.is_some_and(is_open));
            let state = match groups[0].wanted {
                SweepState::Cancelled => "cancelled",
                _ if !open => "finished",
                SweepState::Paused => "paused",
                SweepState::Running => "running",
            };
            *states.entry(state).or_default() += 1;
            if state == "running" {
                running.push((groups[0].created, id, groups));
            }
        }
        running.sort_by_key(|(created, id, _)| std::cmp::Reverse((*created, *id)));
        running.truncate(SWEEPS);
        let newest: Vec<Running> = running
            .into_iter()
            .map(|(_, id, groups)| Running {
                id,
                name: groups[0].name.clone(),
                advanced: self.advanced(id, &groups),
                jobs: groups
                    .iter()
                    .filter_map(|g| Some((g.state?, g.jobs)))
                    .collect(),
                busy: None,
            })
            .collect();
        let remembered = |id: &SweepId| newest.iter().any(|sweep| sweep.id == *id);
        self.advances.retain(|id, _| remembered(id));
        (states, newest)
    }

    /// When a sweep advanced last: a job ended, or saved states have other steps.
    fn advanced(&mut self, id: SweepId, groups: &[SweepGroup]) -> Instant {
        let ended = groups.iter().filter(|g| !g.state.is_some_and(is_open));
        let ended = ended.map(|group| group.jobs).sum();
        let steps = groups.iter().map(|group| group.steps).sum();
        let now = Instant::now();
        let known = self.advances.entry(id).or_insert((ended, steps, now));
        if (known.0, known.1) != (ended, steps) {
            *known = (ended, steps, now);
        }
        known.2
    }
}

fn is_open(state: JobState) -> bool {
    use JobState::{Blocked, Queued, Ready, Running};
    matches!(state, Blocked | Ready | Queued | Running)
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::{TimeDelta, Utc};

    fn group(number: u32, wanted: SweepState, state: Option<JobState>, steps: i64) -> SweepGroup {
        SweepGroup {
            sweep: SweepId::derive(&[&number.to_le_bytes()]),
            name: format!("sweep {number}"),
            wanted,
            created: Utc::now() + TimeDelta::hours(number.into()),
            state,
            jobs: 3,
            steps,
        }
    }

    #[test]
    fn sweeps_are_counted_and_the_newest_running_are_kept() {
        let running = |n| group(n, SweepState::Running, Some(JobState::Ready), 0);
        let mut groups: Vec<SweepGroup> = (0..30).map(running).collect();
        groups.push(group(40, SweepState::Running, Some(JobState::Done), 0));
        groups.push(group(41, SweepState::Running, None, 0));
        groups.push(group(42, SweepState::Paused, Some(JobState::Running), 0));
        groups.push(group(43, SweepState::Cancelled, Some(JobState::Running), 0));
        let (states, newest) = Memory::default().sweeps(groups);
        let expected = [
            ("cancelled", 1),
            ("finished", 2),
            ("paused", 1),
            ("running", 30),
        ];
        assert_eq!(states, expected.into());
        assert_eq!(newest.len(), SWEEPS);
        assert_eq!(
            (newest[0].name.as_str(), newest[19].name.as_str()),
            ("sweep 29", "sweep 10")
        );
    }

    #[test]
    fn saved_steps_and_ended_jobs_are_an_advance_and_a_new_lease_is_none() {
        let mut memory = Memory::default();
        let mut at = |state, steps| {
            std::thread::sleep(Duration::from_millis(2));
            let groups = vec![
                group(1, SweepState::Running, Some(JobState::Ready), 0),
                group(1, SweepState::Running, Some(state), steps),
            ];
            memory.sweeps(groups).1[0].advanced
        };
        let first = at(JobState::Queued, 5);
        assert_eq!(at(JobState::Running, 5), first);
        let saved = at(JobState::Running, 6);
        assert!(saved > first);
        assert!(at(JobState::Done, 6) > saved);
    }
}
