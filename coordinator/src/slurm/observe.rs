//! What a look at Slurm's queue means for an allocation: a pure function.

use super::{
    policy::{self, Phase},
    queue::Seen,
    state::{Kind, SlurmState},
};
use chrono::{DateTime, TimeDelta, Utc};
use halfheard_store::allocation::Allocation;
use std::time::Duration;

/// An allocation that ends badly this soon died: another would as well.
const AT_ONCE: Duration = Duration::from_secs(60);

/// What became of an allocation since the look before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// Its state or its reason.
    State,
    /// Slurm took it back and queued it again.
    Requeued,
    /// It ended.
    Ended,
}

/// Brings an allocation up to date with what was seen; `None`: Slurm does not know it any more. `idle`
/// is how long its worker stays without work. A job that is queued again has the same number, and stays
/// the same allocation.
pub(super) fn observe(
    allocation: &mut Allocation,
    seen: Option<&Seen>,
    idle: Duration,
    now: DateTime<Utc>,
) -> Option<Change> {
    let before = allocation.clone();
    let Some(seen) = seen else {
        allocation.state = SlurmState::LOST.to_owned();
        allocation.reason = "Slurm does not know it any more".to_owned();
        allocation.ends = None;
        allocation.ended = Some(now);
        let since = (now - allocation.submitted).to_std().unwrap_or_default();
        allocation.died = since < AT_ONCE;
        return Some(Change::Ended);
    };
    let kind = seen.state.kind();
    allocation.state = seen.state.word().to_owned();
    allocation.reason = seen.reason.clone();
    allocation.restarts = match seen.restarts {
        Some(restarts) => restarts.max(before.restarts),
        None => before.restarts + i32::from(was_requeued(&before, seen)),
    };
    match kind {
        // Its start and end are estimates.
        Kind::Waiting => (allocation.started, allocation.ends) = (None, None),
        Kind::Running => (allocation.started, allocation.ends) = (seen.started, seen.ends),
        Kind::Leaving => allocation.ends = None,
        Kind::Ended | Kind::Failed => {
            allocation.started = seen.started.or(before.started);
            allocation.ends = None;
            let ended = seen.ends.unwrap_or(now).min(now);
            allocation.ended = Some(ended);
            allocation.died = died(allocation, kind, ended, idle);
            if allocation.died && allocation.reason.is_empty() {
                allocation.reason = "it ended at once".to_owned();
            }
            return Some(Change::Ended);
        }
    }
    if allocation.restarts > before.restarts {
        Some(Change::Requeued)
    } else {
        (*allocation != before).then_some(Change::State)
    }
}

/// Whether it ran, and waits or runs anew: for the text form, which does not count restarts.
fn was_requeued(before: &Allocation, seen: &Seen) -> bool {
    match (seen.state.kind(), before.started, seen.started) {
        (Kind::Waiting, Some(_), _) => true,
        // It came back between two looks.
        (Kind::Running, Some(first), Some(now)) => now - first > TimeDelta::seconds(1),
        _ => false,
    }
}

/// Whether another allocation would end as badly: it failed at once, or its worker exited before it could
/// have found that there is no work.
fn died(allocation: &Allocation, kind: Kind, ended: DateTime<Utc>, idle: Duration) -> bool {
    let ran = match allocation.started {
        Some(started) => (ended - started).to_std().unwrap_or_default(),
        None => Duration::ZERO,
    };
    match kind {
        Kind::Failed => ran < AT_ONCE,
        _ => allocation.state == "COMPLETED" && ran < AT_ONCE.min(idle),
    }
}

/// What an allocation that has not ended is to the policy.
pub(super) fn phase(allocation: &Allocation, now: DateTime<Utc>) -> Phase {
    let state = SlurmState::parse(&allocation.state);
    match state.map(|state| state.kind()) {
        Some(Kind::Waiting) => Phase::Pending,
        Some(Kind::Running) => Phase::Running(match allocation.ends {
            Some(ends) => (ends - now).to_std().unwrap_or_default(),
            // No limit.
            None => Duration::MAX,
        }),
        _ => Phase::Leaving,
    }
}

/// How many allocations in a row died, newest first, and when the last of them did.
pub(super) fn deaths(ended: &[Allocation]) -> Option<(u32, DateTime<Utc>)> {
    let mut ended: Vec<&Allocation> = ended.iter().filter(|a| a.ended.is_some()).collect();
    // One that an operator cancelled before it began says nothing.
    ended.retain(|allocation| allocation.died || allocation.started.is_some());
    ended.sort_by_key(|allocation| std::cmp::Reverse(allocation.ended));
    let died = ended
        .iter()
        .take_while(|allocation| allocation.died)
        .count();
    let last = ended.first()?.ended?;
    (died > 0).then(|| (u32::try_from(died).unwrap_or(u32::MAX), last))
}

/// How long nothing is submitted because of those.
pub(super) fn backs_off(ended: &[Allocation], now: DateTime<Utc>) -> Option<Duration> {
    let (died, last) = deaths(ended)?;
    let since = (now - last).to_std().unwrap_or_default();
    policy::backoff(died)
        .checked_sub(since)
        .filter(|left| !left.is_zero())
}

#[cfg(test)]
mod tests;
