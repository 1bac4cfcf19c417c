//! The Slurm jobs that `coord slurm` submitted.

use chrono::{TimeDelta, Utc};
use halfheard_shared::text::plain;
use halfheard_store::{Store, StoreError, allocation::Allocation};
use serde::Serialize;
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

/// The allocations that have not ended, and what those of the last day came to.
#[derive(Serialize)]
pub(super) struct Allocations {
    open: Vec<Allocation>,
    /// How often those of the last day were preempted, or their node failed, and were queued again.
    preempted: u32,
    /// Those of the last hour that ended badly.
    failed: Vec<Allocation>,
}

impl Allocations {
    /// # Errors
    ///
    /// The database's.
    pub(super) async fn load(store: &Store) -> Result<Self, StoreError> {
        let all = store.allocations().await?;
        let restarts = all.iter().map(|a| a.restarts.unsigned_abs());
        let preempted = all.iter().filter(|a| a.state == "PREEMPTED").count();
        let preempted = restarts.sum::<u32>() + u32::try_from(preempted).unwrap_or(u32::MAX);
        let (open, ended): (Vec<_>, Vec<_>) = all.into_iter().partition(|a| a.ended.is_none());
        let hour = Utc::now() - TimeDelta::hours(1);
        let lately = |a: &Allocation| a.died && a.ended.is_some_and(|ended| ended > hour);
        Ok(Self {
            open,
            preempted,
            failed: ended.into_iter().filter(lately).collect(),
        })
    }
}

impl fmt::Display for Allocations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let places: BTreeSet<_> = self.open.iter().map(place).collect();
        for (cluster, partition) in places {
            // `2 RUNNING, 1 PENDING (Resources)`: Slurm's words, as `squeue` has them.
            let mut states: BTreeMap<(&str, &str), usize> = BTreeMap::new();
            let here = self
                .open
                .iter()
                .filter(|a| place(a) == (cluster, partition));
            for allocation in here {
                let key = (allocation.state.as_str(), allocation.reason.as_str());
                *states.entry(key).or_default() += 1;
            }
            let states: Vec<String> = states
                .iter()
                .map(|((state, reason), number)| match *reason {
                    "" => format!("{number} {state}"),
                    reason => format!("{number} {state} ({})", plain(reason)),
                })
                .collect();
            let states = states.join(", ");
            writeln!(f, "Slurm allocations in {partition} of {cluster}: {states}")?;
        }
        if self.preempted > 0 {
            writeln!(
                f,
                "Slurm took {} back within a day (preempted, or nodes failed)",
                self.preempted
            )?;
        }
        if let Some(last) = self.failed.last() {
            writeln!(
                f,
                "Slurm allocation {} failed: {} ({}); its log: {}",
                last.slurm_id,
                last.state,
                plain(&last.reason),
                plain(&last.log)
            )?;
        }
        Ok(())
    }
}

fn place(allocation: &Allocation) -> (&str, &str) {
    (&allocation.cluster, &allocation.partition)
}
