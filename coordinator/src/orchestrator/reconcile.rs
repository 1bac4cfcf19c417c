//! Reconciliation: rows and messages are compared, and what is lost is made good.
//!
//! Two things are done at the start of leadership and every so often after:
//!
//! * Streams, consumers and buckets that are gone are made again, and what operators want of their
//!   sweeps is told to the broker: the database says what is true, the bucket `SWEEPS` repeats it.
//! * A job is *lost* when it is published and unfinished, its message is not in the stream, and no
//!   result of it is on its way. A worker publishes its result before it acknowledges the job, so
//!   once the messages have been listed, every result of a job that was not among them is in
//!   `RESULTS` or beyond; when that has been gathered and the row is still unfinished, the message
//!   is gone. Jobs that a living worker says it works on are left to it.

use crate::{
    orchestrator::control::tell, orchestrator::serve::ServeOptions, orchestrator::trouble::Trouble,
};
use async_nats::jetstream::stream::{DirectGetErrorKind, Stream};
use futures::{StreamExt as _, TryStreamExt as _};
use halfheard_shared::retry::Backoff;
use halfheard_shared::{
    broker::{Broker, BrokerError, JOBS, Queue, RESULTS, SweepControl, job_message_id},
    ids::{JobId, SweepId},
    wire::Heartbeat,
};
use halfheard_store::{Store, StoreError, SweepState, recover::StalledJob};
use std::{
    collections::{HashMap, HashSet},
    time::{Duration, Instant},
};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// Every so many rounds all messages are listed even if their number looks right.
const THOROUGH: u32 = 20;
/// How long results under way may take to be gathered before the round is given up.
const CATCH_UP: Duration = Duration::from_secs(20);

/// Why a round did not go through.
#[derive(Debug, thiserror::Error)]
pub enum ReconcileError {
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The broker.
    #[error(transparent)]
    Broker(#[from] BrokerError),
    /// JetStream said something else.
    #[error("the broker cannot be asked: {0}")]
    Ask(String),
}

pub(crate) fn ask(error: impl std::fmt::Display) -> ReconcileError {
    ReconcileError::Ask(error.to_string())
}

/// Compares rows and messages until `stop`.
pub async fn reconcile(
    store: &Store,
    broker: &Broker,
    options: &ServeOptions,
    wake: &Notify,
    stop: &CancellationToken,
) {
    let mut backoff = Backoff::default();
    let mut trouble = Trouble::new("reconciliation waits");
    let mut round: u32 = 0;
    loop {
        let thorough = round.is_multiple_of(THOROUGH);
        let pause = tokio::select! {
            () = stop.cancelled() => return,
            outcome = once(store, broker, options, thorough) => match outcome {
                Ok(republished) => {
                    if republished > 0 {
                        tracing::warn!(jobs = republished, "messages were lost, publishing again");
                        wake.notify_one();
                    }
                    round = round.wrapping_add(1);
                    backoff.reset();
                    trouble.over();
                    options.reconcile_every
                }
                Err(error) => {
                    trouble.met(&error, 0);
                    backoff.pause()
                }
            },
        };
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// One round; returns how many jobs were lost.
pub async fn once(
    store: &Store,
    broker: &Broker,
    options: &ServeOptions,
    thorough: bool,
) -> Result<u64, ReconcileError> {
    broker.ensure().await?;
    control(store, broker).await?;

    let candidates = store.stalled_jobs(options.grace).await?;
    if candidates.is_empty() {
        return Ok(0);
    }
    let jobs = broker.jetstream().get_stream(JOBS).await.map_err(ask)?;
    if !thorough && counts_suffice(&jobs, &candidates).await? {
        return Ok(0);
    }
    let present = messages(&jobs).await?;
    let busy = working_on(broker).await?;
    let lost: Vec<Published> = candidates
        .into_iter()
        .filter(|row| {
            let number = u32::try_from(row.publication).unwrap_or_default();
            !busy.contains(&row.job) && !present.contains(&job_message_id(row.job, number))
        })
        .collect();
    if lost.is_empty() || !gathered(broker).await? {
        return Ok(0);
    }
    Ok(store.republish(&lost).await?)
}

/// Tells the broker what operators want, and takes cancelled jobs off the queues.
pub(crate) async fn control(store: &Store, broker: &Broker) -> Result<(), ReconcileError> {
    let bucket = broker.sweeps().await?;
    let wanted: HashMap<SweepId, SweepState> = store.paused_or_cancelled().await?.into_iter().collect();
    for (&sweep, &state) in &wanted {
        let value = SweepControl::from(state).to_string();
        let told = bucket.get(sweep.to_string()).await.map_err(ask)?;
        if told.is_none_or(|told| told != value) {
            tell(store, broker, sweep).await?;
        }
    }
    // A dispatcher may have published jobs of a sweep while it was being stopped.
    if !wanted.is_empty() {
        let jobs = broker.jetstream().get_stream(JOBS).await.map_err(ask)?;
        for sweep in held(&jobs).await?.into_keys() {
            if wanted.contains_key(&sweep) {
                tell(store, broker, sweep).await?;
            }
        }
    }
    let keys: Vec<String> = bucket
        .keys()
        .await
        .map_err(ask)?
        .try_collect()
        .await
        .map_err(ask)?;
    for key in keys {
        let Ok(sweep) = key.parse::<SweepId>() else {
            continue;
        };
        // A sweep that runs again, or one of another database.
        if !wanted.contains_key(&sweep) {
            tell(store, broker, sweep).await?;
        }
    }
    Ok(())
}

/// Whether the stream holds at least as many messages of each sweep as rows ask for. Then none
/// is missing, short of doubles, which the thorough rounds see through.
async fn counts_suffice(jobs: &Stream, rows: &[Published]) -> Result<bool, ReconcileError> {
    let mut wanted: HashMap<SweepId, usize> = HashMap::new();
    for row in rows {
        *wanted.entry(row.sweep).or_default() += 1;
    }
    let held = held(jobs).await?;
    Ok(wanted
        .iter()
        .all(|(sweep, wanted)| held.get(sweep).is_some_and(|held| held >= wanted)))
}

/// How many messages of each sweep the stream of jobs holds.
async fn held(jobs: &Stream) -> Result<HashMap<SweepId, usize>, ReconcileError> {
    let mut subjects = jobs.info_with_subjects("job.>").await.map_err(ask)?;
    let mut held: HashMap<SweepId, usize> = HashMap::new();
    while let Some((subject, count)) = subjects.try_next().await.map_err(ask)? {
        if let Some(sweep) = subject.rsplit('.').next().and_then(|id| id.parse().ok()) {
            *held.entry(sweep).or_default() += count;
        }
    }
    Ok(held)
}

/// Takes all jobs of a sweep off the queues.
pub(crate) async fn purge(jobs: &Stream, sweep: SweepId) -> Result<(), ReconcileError> {
    for queue in Queue::ALL {
        jobs.purge()
            .filter(queue.subject(sweep))
            .await
            .map_err(ask)?;
    }
    Ok(())
}

/// The ids of all messages in the stream of jobs. It is a work queue: what is acknowledged is not
/// in it, what is being worked on is.
async fn messages(jobs: &Stream) -> Result<HashSet<String>, ReconcileError> {
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
            Err(error) => return Err(ask(error)),
        }
    }
}

/// The jobs that living workers say they work on.
async fn working_on(broker: &Broker) -> Result<HashSet<JobId>, ReconcileError> {
    let bucket = broker.workers().await?;
    let keys: Vec<String> = bucket
        .keys()
        .await
        .map_err(ask)?
        .try_collect()
        .await
        .map_err(ask)?;
    let beats: Vec<Option<bytes::Bytes>> = futures::stream::iter(keys)
        .map(|key| bucket.get(key))
        .buffer_unordered(16)
        .try_collect()
        .await
        .map_err(ask)?;
    Ok(beats
        .into_iter()
        .flatten()
        .filter_map(|beat| serde_json::from_slice::<Heartbeat>(&beat).ok())
        .filter_map(|beat| beat.doing.map(|doing| doing.job))
        .collect())
}

/// Waits until every result that is on the broker now has been gathered; false when that takes
/// too long.
async fn gathered(broker: &Broker) -> Result<bool, ReconcileError> {
    let results = broker.jetstream().get_stream(RESULTS).await.map_err(ask)?;
    let last = results.cached_info().state.last_sequence;
    let mut consumer = broker.results().await?;
    let since = Instant::now();
    loop {
        let info = consumer.info().await.map_err(ask)?;
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
