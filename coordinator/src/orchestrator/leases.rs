//! Leases: what keeps a job with its worker, and what takes it away.
//!
//! Once a second: the attempts in the heartbeats that were heard keep their leases; those whose row
//! names another attempt, or none, are released; work that does not advance is taken away; and leases
//! that ran out end, if the coordinator has heard its workers long enough to say so.

use super::{collect, context::Lead, outage_log::OutageLog, traced};
use crate::observe::events;
use halfheard_shared::{
    broker::{BrokerError, heartbeats::Heard},
    error::chain,
    ids::AttemptId,
    wire::Tell,
};
use halfheard_store::{
    StoreError,
    leases::{Beat, Ended},
};
use halfheard_telemetry::pulse::Pulse;
use halfheard_telemetry::traces;
use std::{
    collections::{HashMap, HashSet},
    time::{Duration, Instant},
};
use tokio_util::sync::CancellationToken;

/// How often leases are looked at.
const ROUND: Duration = Duration::from_secs(1);
/// How often the costs and needs of jobs are estimated from what was measured.
const ESTIMATE_EVERY: Duration = Duration::from_secs(60);
/// How often what was noted about states of jobs is folded.
const FOLD_EVERY: Duration = Duration::from_secs(5);
/// A round that takes so long hangs.
const HANGS: Duration = Duration::from_secs(300);
/// What a worker's watchdog may be late with ending its process.
const SLACK: Duration = Duration::from_secs(5);

/// Why a round failed.
#[derive(Debug, thiserror::Error)]
enum LeaseError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Broker(#[from] BrokerError),
}

impl LeaseError {
    fn count(&self) {
        match self {
            Self::Store(error) => events::database_failed(error),
            Self::Broker(error) => events::broker_failed(error),
        }
    }
}

/// Looks after leases until `stop`.
pub(super) async fn keep_leases(lead: &Lead, stop: &CancellationToken) {
    let mut outage = OutageLog::new("looking after leases failed; retrying");
    let mut advances = Advances::default();
    let pulse = Pulse::start("leases", HANGS);
    loop {
        pulse.beat();
        let pause = tokio::select! {
            () = stop.cancelled() => return,
            outcome = round(lead, &mut advances) => match outcome {
                Ok(()) => {
                    outage.recovered();
                    ROUND.min(lead.options.lease / 4)
                }
                Err(error) => {
                    error.count();
                    // What was heard was not written: it must be heard again before a lease ends.
                    lead.hearing.interrupt();
                    outage.failed(&chain(&error), 0)
                }
            },
        };
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
    }
}

async fn round(lead: &Lead, advances: &mut Advances) -> Result<(), LeaseError> {
    let heard = lead.heartbeats.take();
    let policy = lead.retry_policy();
    let stalled = advances.stalled(&heard, lead.hearing.duration());
    if !stalled.is_empty() {
        let attempts: Vec<AttemptId> = stalled.iter().copied().collect();
        let ended = lead.store.stall(&attempts, &policy).await?;
        report(lead, &ended, "stalled", "its work does not advance");
    }
    let taken_back = lead.store.take_back_drained().await?;
    if taken_back > 0 {
        tracing::info!(jobs = taken_back, "taken back from drained workers");
    }
    renew(lead, &heard, &stalled).await?;
    expire(lead, &mut advances.waits).await?;
    if advances
        .estimated
        .is_none_or(|at| at.elapsed() > ESTIMATE_EVERY)
    {
        advances.estimated = Some(Instant::now());
        let costs = lead.store.estimate_costs().await?;
        let needs = lead.store.estimate_needs().await?;
        tracing::debug!(costs, needs, "estimated anew");
    }
    if advances.folded.is_none_or(|at| at.elapsed() > FOLD_EVERY) {
        advances.folded = Some(Instant::now());
        let rows = lead.store.fold_tallies().await?;
        tracing::trace!(rows, "folded tallies");
    }
    for (sweep, reason) in lead.store.pause_failing().await? {
        tracing::warn!(%sweep, reason, "sweep paused");
    }
    Ok(())
}

/// Renews the leases of what was heard, and releases what is not its worker's any more.
async fn renew(
    lead: &Lead,
    heard: &[(String, Heard)],
    stalled: &HashSet<AttemptId>,
) -> Result<(), LeaseError> {
    let mut beats = Vec::new();
    let mut known = Vec::new();
    for (worker, heard) in heard {
        for held in &heard.beat.holds {
            if heard.fresh && !stalled.contains(&held.attempt) {
                beats.push(Beat {
                    attempt: held.attempt,
                    worker,
                    session: heard.beat.session,
                    saved: held.saved,
                    advanced: held.begun && held.saved > held.resumed,
                });
            } else {
                known.push(held.attempt);
            }
        }
    }
    let mut current: HashSet<AttemptId> = HashSet::new();
    if !beats.is_empty() {
        current.extend(lead.store.renew(&beats, lead.options.lease).await?);
    }
    if !known.is_empty() {
        current.extend(lead.store.still_leased(&known).await?);
    }
    for (worker, heard) in heard {
        let holds = heard.beat.holds.iter().map(|held| held.attempt);
        let attempts: Vec<AttemptId> = holds.filter(|held| !current.contains(held)).collect();
        if !attempts.is_empty() {
            tracing::debug!(worker, attempts = attempts.len(), "released");
            metrics::counter!("halfheard_attempts_released_total").increment(attempts.len() as u64);
            lead.broker.tell(worker, &Tell::Released { attempts }).await;
        }
    }
    Ok(())
}

/// Ends the leases that ran out.
async fn expire(lead: &Lead, waits: &mut Option<Instant>) -> Result<(), LeaseError> {
    if lead.hearing.duration() < lead.options.lease {
        return Ok(());
    }
    // Usually there is none, and the broker need not be asked.
    if !lead.store.has_expired(lead.options.lease).await? {
        *waits = None;
        return Ok(());
    }
    // A result on its way says more than silence.
    if collect::ingested(&lead.broker).await?.is_complete() {
        *waits = None;
    } else if waits.get_or_insert_with(Instant::now).elapsed() < lead.options.lease {
        return Ok(());
    }
    // Longer than a lease it is not waited for: a report that the database neither takes nor refuses must
    // not keep every lost job from being granted again. And asking may have taken a while.
    if lead.hearing.duration() < lead.options.lease {
        return Ok(());
    }
    let ended = lead
        .store
        .expire(lead.options.lease, &lead.retry_policy())
        .await?;
    report(lead, &ended, "silent", "its worker is not heard any more");
    if !ended.is_empty() {
        lead.wake.notify_one();
    }
    Ok(())
}

fn report(lead: &Lead, ended: &[Ended], reason: &'static str, why: &str) {
    events::leases_ended(ended, reason);
    traced::ended(lead, ended.iter().map(|ended| ended.attempt), None);
    for ended in ended {
        let _context = traces::context(ended.job, ended.attempt).entered();
        tracing::warn!(job = %ended.job, worker = ended.worker, gave_up = ended.gave_up, "a lease ended: {why}");
    }
}

/// What the leader remembers from round to round.
#[derive(Debug, Default)]
struct Advances {
    /// When each attempt advanced last, by the leader's clock.
    attempts: HashMap<AttemptId, (u64, Instant)>,
    /// Since when reports have not been ingested completely.
    waits: Option<Instant>,
    /// When the costs and needs of jobs were estimated last.
    estimated: Option<Instant>,
    /// When the tallies were folded last.
    folded: Option<Instant>,
}

impl Advances {
    /// The attempts that were heard and have not advanced for longer than they may, in a time in
    /// which the coordinator heard without interruption.
    fn stalled(&mut self, heard: &[(String, Heard)], hearing: Duration) -> HashSet<AttemptId> {
        let mut stalled = HashSet::new();
        let mut present = HashSet::new();
        for (_, heard) in heard {
            for held in &heard.beat.holds {
                present.insert(held.attempt);
                let advance = self
                    .attempts
                    .entry(held.attempt)
                    .or_insert((held.progress, heard.at));
                if advance.0 != held.progress || !held.begun || held.patience_s == 0 {
                    *advance = (held.progress, heard.at);
                    continue;
                }
                let patience = Duration::from_secs(held.patience_s.into()) + SLACK;
                let stands = heard.at.saturating_duration_since(advance.1);
                if stands > patience && hearing > stands {
                    stalled.insert(held.attempt);
                }
            }
        }
        self.attempts.retain(|attempt, _| present.contains(attempt));
        stalled
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use halfheard_shared::{
        ids::JobId,
        wire::{Heartbeat, Held},
    };
    use serde_json::json;

    const PATIENCE: Duration = Duration::from_secs(60);

    fn heard(progress: u64, at: Instant) -> Vec<(String, Heard)> {
        let worker = json!({"name": "w", "host": "h", "device": "cpu", "version": "0"});
        let json =
            json!({"worker": worker, "pid": 1, "at_ms": 0, "memory_bytes": 0, "doing": null});
        let mut beat: Heartbeat = serde_json::from_value(json).unwrap();
        beat.holds = vec![Held {
            attempt: AttemptId::derive(&[b"a"]),
            job: JobId::derive(&[b"j"]),
            begun: true,
            progress,
            resumed: 0,
            saved: 0,
            patience_s: PATIENCE.as_secs() as u32,
        }];
        vec![(
            "w".to_owned(),
            Heard {
                beat,
                at,
                fresh: true,
            },
        )]
    }

    #[test]
    fn work_that_stands_still_is_stalled_and_work_that_moves_is_not() {
        let (start, long) = (Instant::now(), Duration::from_secs(3600));
        let mut advances = Advances::default();
        let mut look = |progress, seconds, hearing| {
            let at = start + Duration::from_secs(seconds);
            advances.stalled(&heard(progress, at), hearing).len()
        };
        assert_eq!(look(1, 0, long), 0);
        assert_eq!(look(1, 60, long), 0, "within its patience");
        assert_eq!(look(1, 70, long), 1);
        assert_eq!(
            look(1, 70, Duration::from_secs(50)),
            0,
            "deaf time does not count"
        );
        assert_eq!(look(2, 80, long), 0, "it moved");
        assert_eq!(look(2, 200, long), 1);
    }
}
