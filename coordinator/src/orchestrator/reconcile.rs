//! Reconciliation: compares rows with messages and republishes lost jobs.
//!
//! It runs when leadership begins and periodically after that:
//!
//! * It creates missing streams, consumers and buckets, and publishes sweep control: the database is
//!   authoritative, the bucket `SWEEPS` is a copy.
//! * A job is *lost* if it is published and unfinished, its message is not in the stream, and no
//!   result of it is in transit. A worker publishes its result before it acknowledges the job. So once
//!   the messages are listed, every result of a job that is not among them is in `RESULTS` or
//!   ingested; if all of `RESULTS` is ingested and the row is still unfinished, the message is lost.
//!   Jobs that a live worker reports as its own are left alone.

use super::{
    options::ServeOptions,
    outage_log::OutageLog,
    sweep_control::publish_all,
    sync::{SyncError, jetstream, queued_messages},
};
use async_nats::jetstream::stream::{DirectGetErrorKind, Stream};
use halfheard_shared::{
    broker::{Broker, JOBS, RESULTS, job_message_id},
    error::chain,
    ids::{JobId, SweepId},
};
use halfheard_store::{Store, recover::StalledJob};
use std::{
    collections::{HashMap, HashSet},
    time::{Duration, Instant},
};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// Interval, in rounds, at which all messages are listed even if their number is right.
const THOROUGH: u32 = 20;
/// How long to wait for results in transit before the round is abandoned.
const CATCH_UP: Duration = Duration::from_secs(20);

/// Compares rows and messages until `stop`.
pub(super) async fn reconcile(
    store: &Store,
    broker: &Broker,
    options: &ServeOptions,
    wake: &Notify,
    stop: &CancellationToken,
) {
    let mut outage = OutageLog::new("reconciliation failed; retrying");
    let mut round: u32 = 0;
    loop {
        let thorough = round.is_multiple_of(THOROUGH);
        let pause = tokio::select! {
            () = stop.cancelled() => return,
            outcome = once(store, broker, options, thorough) => match outcome {
                Ok(republished) => {
                    if republished > 0 {
                        tracing::warn!(jobs = republished, "job messages were lost; publishing them again");
                        wake.notify_one();
                    }
                    round = round.wrapping_add(1);
                    outage.recovered();
                    options.reconcile_every
                }
                Err(error) => outage.failed(&chain(&error), 0),
            },
        };
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// Runs one round and returns the number of lost jobs.
async fn once(
    store: &Store,
    broker: &Broker,
    options: &ServeOptions,
    thorough: bool,
) -> Result<u64, SyncError> {
    broker.ensure().await?;
    publish_all(store, broker).await?;

    let candidates = store.stalled_jobs(options.grace).await?;
    if candidates.is_empty() {
        return Ok(0);
    }
    let jobs = broker
        .jetstream()
        .get_stream(JOBS)
        .await
        .map_err(jetstream)?;
    if !thorough && counts_suffice(&jobs, &candidates).await? {
        return Ok(0);
    }
    let present = messages(&jobs).await?;
    let busy = busy_jobs(broker).await?;
    let lost: Vec<StalledJob> = candidates
        .into_iter()
        .filter(|row| {
            let number = u32::try_from(row.publication).unwrap_or_default();
            !busy.contains(&row.job) && !present.contains(&job_message_id(row.job, number))
        })
        .collect();
    if lost.is_empty() || !wait_until_drained(broker).await? {
        return Ok(0);
    }
    Ok(store.republish(&lost).await?)
}

/// Returns whether the stream holds at least as many messages of each sweep as there are rows. Then
/// none is missing, unless there are duplicates; the thorough rounds see those.
async fn counts_suffice(jobs: &Stream, rows: &[StalledJob]) -> Result<bool, SyncError> {
    let mut wanted: HashMap<SweepId, usize> = HashMap::new();
    for row in rows {
        *wanted.entry(row.sweep).or_default() += 1;
    }
    let queued = queued_messages(jobs).await?;
    Ok(wanted
        .iter()
        .all(|(sweep, wanted)| queued.get(sweep).is_some_and(|queued| queued >= wanted)))
}

/// Lists the ids of all messages in the stream of jobs, a work queue: it holds jobs in progress, but
/// no acknowledged ones.
async fn messages(jobs: &Stream) -> Result<HashSet<String>, SyncError> {
    let mut ids = HashSet::new();
    let mut sequence = 1;
    loop {
        match jobs
            .direct_get_builder()
            .sequence(sequence)
            .next_by_subject("job.>")
            .send()
            .await
        {
            Ok(message) => {
                sequence = message.sequence + 1;
                if let Some(id) = message.headers.get("Nats-Msg-Id") {
                    ids.insert(id.to_string());
                }
            }
            Err(error) if error.kind() == DirectGetErrorKind::NotFound => return Ok(ids),
            Err(error) => return Err(jetstream(error)),
        }
    }
}

/// Returns the jobs in progress, by the workers' heartbeats.
async fn busy_jobs(broker: &Broker) -> Result<HashSet<JobId>, SyncError> {
    let workers = broker.live_workers().await?.into_iter();
    Ok(workers
        .filter_map(|worker| worker.doing.map(|doing| doing.job))
        .collect())
}

/// Waits until every result that is on the broker now is ingested. Returns false on timeout.
async fn wait_until_drained(broker: &Broker) -> Result<bool, SyncError> {
    let results = broker
        .jetstream()
        .get_stream(RESULTS)
        .await
        .map_err(jetstream)?;
    let last = results.cached_info().state.last_sequence;
    let mut consumer = broker.results().await?;
    let since = Instant::now();
    loop {
        let info = consumer.info().await.map_err(jetstream)?;
        let all = info.num_pending == 0 && info.num_ack_pending == 0;
        if all || info.ack_floor.stream_sequence >= last {
            return Ok(true);
        }
        if since.elapsed() > CATCH_UP {
            return Ok(false);
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
