//! One slot: takes jobs from the broker one after the other, works on them, reports.
//!
//! Threads: libtorch has its own ([`engine`]); everything else (acknowledgements, heartbeats,
//! reports, saving) goes on beside it, so that a long step never looks like a dead worker.

mod blobs;
mod engine;
mod eval_job;
mod eval_monitor;
mod faults;
mod health;
mod leases;
mod inject;
pub mod shutdown;
mod train_monitor;
mod presence;
mod report;
mod outcomes;
mod train_job;
mod numerics_switch;

use self::{
    blobs::Blobs,
    engine::Engine,
    faults::Needed,
    leases::{JobLease, Leases},
    shutdown::Shutdown,
    presence::{Status, Sweeps, now_ms},
    report::Reporter,
    outcomes::{BEFORE, BESIDE, Patience, after},
};
use crate::exit;
use async_nats::jetstream::consumer::PullConsumer;
use bytes::Bytes;
use futures::StreamExt as _;
use halfheard_models::numerics::{self, Numerics};
use halfheard_shared::{
    address::redacted,
    artifacts::{ArtifactError, ArtifactStore, Key},
    broker::{Broker, BrokerError, BrokerSettings, MAX_DELIVERIES, Queue, SweepControl},
    ids::AttemptId,
    wire::{
        Doing, Failure, FailureKind, Fault, FaultKind, ResultBody, ResultMessage, Work, WorkerInfo,
    },
};
use serde::{Deserialize, Serialize};
use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};
use tch::Device;
use tokio::{sync::Semaphore, time::timeout};

/// Evaluations that are lease at once: the cases of one model.
const EVALUATIONS: usize = 16;
/// No-op jobs that are lease at once, when there is nothing else.
const NOOPS: usize = 512;
/// No-op jobs under way.
const NOOPS_AT_ONCE: usize = 4096;
/// How long to wait for a training when there is nothing to do.
const WAIT: Duration = Duration::from_millis(500);
/// How long the job of a sweep that is to stand still stays away.
const STANDS_STILL: Duration = Duration::from_secs(3);

/// What a slot needs to run.
#[derive(Clone, Debug)]
pub struct SlotSettings {
    /// The broker.
    pub broker: BrokerSettings,
    /// The artifact store's address.
    pub artifacts: String,
    /// The data folder.
    pub data_dir: PathBuf,
    /// Where tensors live.
    pub device: Device,
    /// The device's name for people.
    pub device_name: String,
    /// Threads of libtorch.
    pub threads: usize,
    /// How this process computes.
    pub numerics: Numerics,
    /// The worker's unique name.
    pub name: String,
    /// How often to save between epochs.
    pub save_every: Duration,
    /// Leave after so long without work.
    pub once: Option<Duration>,
}

/// Why a slot cannot run.
#[derive(Debug, thiserror::Error)]
pub enum SlotError {
    /// The broker does not let it in.
    #[error(transparent)]
    Broker(#[from] BrokerError),
    /// The artifact store cannot be used.
    #[error(transparent)]
    Artifacts(#[from] ArtifactError),
    /// With `--once`: it could not work for all of that time.
    #[error("for all of the time that --once gives, the worker {0}")]
    Unfit(Fault),
    /// The thread for libtorch did not start, or no signals can be heard.
    #[error("the process cannot be set up: {0}")]
    Process(#[from] std::io::Error),
}

/// Runs one slot until it is told to leave. Returns the process's exit code.
pub async fn run(settings: SlotSettings, shutdown: Shutdown) -> Result<u8, SlotError> {
    tracing::info!(broker = %settings.broker.address(), artifacts = redacted(&settings.artifacts), "connecting");
    let broker = tokio::select! {
        connected = settings.broker.connect_patiently() => connected?,
        () = shutdown.requested() => return Ok(exit::OK),
    };
    let worker = WorkerInfo {
        name: settings.name.clone(),
        host: crate::host(),
        device: settings.device_name.clone(),
        version: crate::VERSION.to_owned(),
        processor: numerics::processor(
            settings.numerics,
            settings.device,
            &settings.device_name,
            settings.threads,
        ),
    };
    let status = Status::default();
    let before = presence::inherited(&broker, &worker.name).await;
    let held = Leases::default();
    let (sweeps, watching) = Sweeps::watch(broker.clone());
    // Heartbeats before anything else: a worker that waits for the store is seen to.
    let beside = [
        tokio::spawn(watching),
        tokio::spawn(held.clone().keep()),
        tokio::spawn(presence::beat(
            broker.clone(),
            worker.clone(),
            status.clone(),
        )),
    ];
    let Some(store) = faults::ready(&settings, &broker, &status, &shutdown).await? else {
        presence::leave(&broker, &worker.name).await;
        return Ok(exit::OK);
    };
    // A device that broke may break again: this process takes up the pause of the one before.
    if let Some(trouble) = before.filter(|before| before.fault.kind == FaultKind::Device) {
        tracing::warn!(
            "the process before this one stopped because it {}",
            trouble.fault
        );
        status.health(|health| health.inherit(trouble, now_ms()));
    }
    let slot = Arc::new(Slot {
        blobs: Blobs::new(&settings.data_dir, store.clone()),
        engine: Engine::start(settings.device, settings.threads)?,
        reporter: Reporter::start(broker.clone()),
        noops: Arc::new(Semaphore::new(NOOPS_AT_ONCE)),
        broken: AtomicBool::new(false),
        turning: AtomicBool::new(false),
        unfit: AtomicBool::new(false),
        needed: Needed::default(),
        broker,
        store,
        worker,
        status,
        held,
        sweeps,
        shutdown,
        settings,
    });
    tracing::info!(worker = %slot.worker.name, device = %slot.worker.device, processor = %slot.worker.processor, threads = slot.settings.threads, "ready for jobs");
    let whole = async {
        slot.work().await;
        slot.reporter.settle(Duration::from_secs(3)).await;
        beside.iter().for_each(tokio::task::JoinHandle::abort);
        if slot.broken.load(Ordering::Relaxed) {
            presence::last_words(&slot.broker, &slot.worker, &slot.status).await;
        } else {
            presence::leave(&slot.broker, &slot.worker.name).await;
        }
        // Acknowledgements may still be on their way out.
        let _ = timeout(Duration::from_millis(500), slot.broker.client().flush()).await;
    };
    tokio::select! {
        () = whole => {}
        () = slot.shutdown.deadline(shutdown::EXIT_DEADLINE) => {
            tracing::warn!("no time for more: what is left comes again to others");
        }
    }
    Ok(if slot.broken.load(Ordering::Relaxed) {
        exit::BROKEN
    } else if slot.turning.load(Ordering::Relaxed) && !slot.shutdown.is_requested() {
        exit::TURN
    } else if slot.unfit.load(Ordering::Relaxed) {
        exit::UNFIT
    } else {
        exit::OK
    })
}

/// Everything a job's way through the worker touches.
struct Slot {
    settings: SlotSettings,
    broker: Broker,
    store: ArtifactStore,
    blobs: Blobs,
    engine: Engine,
    reporter: Reporter,
    worker: WorkerInfo,
    status: Status,
    held: Leases,
    sweeps: Sweeps,
    shutdown: Shutdown,
    noops: Arc<Semaphore>,
    /// Set when this process must not take another job.
    broken: AtomicBool,
    /// Set when the slot's next process is to compute the other way.
    turning: AtomicBool,
    /// Set when it leaves because it could do nothing.
    unfit: AtomicBool,
    /// What was lacking when a fault was met last.
    needed: Needed,
}

/// How often a publication of a job was handed back in good order.
#[derive(Serialize, Deserialize)]
struct HandedBack {
    publication: u32,
    times: u64,
}

impl Slot {
    fn is_over(&self) -> bool {
        let flag = |flag: &AtomicBool| flag.load(Ordering::Relaxed);
        self.shutdown.is_requested() || flag(&self.broken) || flag(&self.turning)
    }

    /// The slot's life.
    async fn work(self: &Arc<Self>) {
        let mut consumers: Option<(PullConsumer, PullConsumer)> = None;
        let mut trouble = 0_u32;
        let mut size = EVALUATIONS;
        let mut idle_since = Instant::now();
        while !self.is_over() {
            if self.status.sitting_out().is_some() {
                if !self.sit_out(idle_since).await {
                    self.unfit.store(true, Ordering::Relaxed);
                    return;
                }
                continue;
            }
            let fetched = async {
                let (train, eval) = match &consumers {
                    Some(both) => both,
                    None => consumers.insert((
                        self.broker.jobs(Queue::Train).await?,
                        self.broker.jobs(Queue::Eval).await?,
                    )),
                };
                // Evaluations first: they are short, and a finished model's row fills sooner.
                let lease = self.fetch(eval, size, None).await?;
                if !lease.is_empty() || self.is_over() {
                    return Ok(lease);
                }
                self.fetch(train, 1, Some(WAIT)).await
            };
            let lease = match fetched.await {
                Ok(lease) => lease,
                Err(error) => {
                    let error: BrokerError = error;
                    if trouble == 0 {
                        tracing::warn!(%error, "no jobs can be lease, trying again");
                    }
                    trouble += 1;
                    consumers = None;
                    let pause = Duration::from_millis(200 << trouble.min(5));
                    self.shutdown.sleep(pause).await;
                    continue;
                }
            };
            if trouble > 0 {
                tracing::info!("jobs can be lease again");
                trouble = 0;
            }
            if lease.is_empty() {
                size = EVALUATIONS;
                let under_way = self.noops.available_permits() < NOOPS_AT_ONCE;
                let once = self.settings.once;
                if !under_way && once.is_some_and(|once| idle_since.elapsed() >= once) {
                    tracing::info!("nothing to do: shutdown");
                    return;
                }
                continue;
            }
            let full = lease.len() == size;
            let noops_only = lease.iter().all(|t| matches!(t.job.work, Work::Noop));
            size = if full && noops_only {
                (size * 4).min(NOOPS)
            } else {
                EVALUATIONS
            };
            self.dispatch(lease).await;
            idle_since = Instant::now();
        }
        // What is under way is short.
        let all = NOOPS_AT_ONCE as u32;
        let _ = timeout(Duration::from_secs(2), self.noops.acquire_many(all)).await;
    }

    /// Up to `most` jobs that are there now; waits up to `wait` for the first.
    async fn fetch(
        &self,
        consumer: &PullConsumer,
        most: usize,
        wait: Option<Duration>,
    ) -> Result<Vec<JobLease>, BrokerError> {
        let failed = |reason: String| BrokerError::Layout {
            what: "jobs".to_owned(),
            action: "fetched",
            reason,
        };
        let patience = wait.unwrap_or_default() + Duration::from_secs(5);
        let mut fetch = consumer.fetch().max_messages(most);
        if let Some(wait) = wait {
            fetch = fetch.expires(wait);
        }
        let mut messages = timeout(patience, fetch.messages())
            .await
            .map_err(|_| failed("no answer".to_owned()))?
            .map_err(|e| failed(e.to_string()))?;
        let mut lease = Vec::new();
        loop {
            match timeout(patience, messages.next()).await {
                Ok(Some(Ok(message))) => match self.held.take(message).await {
                    Ok(job) => lease.push(job),
                    Err(error) => self.cannot_read(&error),
                },
                Ok(None) => return Ok(lease),
                // What has come is worked on; the rest comes again.
                Ok(Some(Err(_))) | Err(_) if !lease.is_empty() => return Ok(lease),
                Ok(Some(Err(error))) => return Err(failed(error.to_string())),
                Err(_) => return Err(failed("no answer".to_owned())),
            }
        }
    }

    /// Sends jobs their ways.
    async fn dispatch(self: &Arc<Self>, all: Vec<JobLease>) {
        let mut noops = Vec::new();
        let mut groups: Vec<Vec<JobLease>> = Vec::new();
        for lease in all {
            match self.sweeps.of(lease.job.sweep) {
                SweepControl::Running => {}
                // Not lease off the queue: the coordinator does that. The sweep may have been
                // submitted again meanwhile, and this be a message of its new life.
                SweepControl::Cancelled | SweepControl::Paused => {
                    self.record_clean_handback(&lease).await;
                    lease.give_back(Some(STANDS_STILL)).await;
                    continue;
                }
            }
            if self.is_over() {
                self.hand_back_unstarted(lease).await;
                continue;
            }
            if let Some(fault) = self.stands_still() {
                let attempt = self.attempt(&lease);
                self.decline(lease, attempt, 0, &fault).await;
                continue;
            }
            let Some(lease) = self.turn(lease).await else {
                continue;
            };
            match &lease.job.work {
                Work::Noop => noops.push(lease),
                Work::Train(spec) => {
                    let spec = spec.clone();
                    self.clone().train(lease, spec).await;
                    self.status.set(None);
                }
                Work::Eval { train, .. } => {
                    let group = groups.iter_mut().find(|group| {
                        matches!(&group[0].job.work, Work::Eval { train: other, .. } if other == train)
                    });
                    match group {
                        Some(group) => group.push(lease),
                        None => groups.push(vec![lease]),
                    }
                }
            }
        }
        if !noops.is_empty() {
            self.noop(noops).await;
        }
        for group in groups {
            if self.is_over() {
                for lease in group {
                    self.hand_back_unstarted(lease).await;
                }
            } else if let Some(fault) = self.stands_still() {
                for lease in group {
                    let attempt = self.attempt(&lease);
                    self.decline(lease, attempt, 0, &fault).await;
                }
            } else {
                self.evaluate(group).await;
                self.status.set(None);
            }
        }
    }

    /// A report about a job, body to be filled in.
    fn report(&self, lease: &JobLease, attempt: AttemptId, body: ResultBody) -> ResultMessage {
        ResultMessage {
            sweep: lease.job.sweep,
            job: lease.job.job,
            attempt,
            publication: lease.job.publication,
            worker: self.worker.clone(),
            at_ms: now_ms(),
            body,
        }
    }

    fn attempt(&self, lease: &JobLease) -> AttemptId {
        AttemptId::fresh(lease.job.job, &self.worker.name, lease.delivery)
    }

    /// What the worker is doing, for the heartbeat.
    fn doing(&self, lease: &JobLease, what: String, max_epochs: u32) {
        self.status.set(Some(Doing {
            sweep: lease.job.sweep,
            job: lease.job.job,
            what,
            epoch: 0,
            max_epochs,
            step: 0,
            steps: 0,
            loss: None,
            case: 0,
            cases: 0,
        }));
    }

    /// Reports an attempt's end and, once the broker has it, removes the job from the queue. While
    /// the broker is away it waits, unless the worker has to leave: then the job comes again.
    async fn report_and_ack(&self, lease: &JobLease, report: ResultMessage) {
        let attempt = report.attempt;
        let report_and_ack = async {
            if !self.reporter.deliver(report).await {
                // It can never be sent: too large. That much can be.
                let failure = Failure {
                    chain: vec!["the result is too large for a message".to_owned()],
                    kind: FailureKind::Permanent,
                };
                let body = ResultBody::Failed(failure);
                self.reporter
                    .deliver(self.report(lease, attempt, body))
                    .await;
            }
            lease.done().await;
        };
        tokio::select! {
            () = report_and_ack => {}
            () = self.shutdown.deadline(shutdown::EXIT_DEADLINE) => {
                tracing::warn!(job = %lease.job.job, "the broker is away: the job will come again");
            }
        }
    }

    /// Whether the job was delivered so often, without a worker living to hand it back, that it
    /// must be what kills them.
    async fn is_crashing(&self, lease: &JobLease) -> bool {
        if lease.delivery <= MAX_DELIVERIES {
            return false;
        }
        let excused = match self.handed_back(lease).await {
            Some(known) if known.publication == lease.job.publication => known.times,
            _ => 0,
        };
        lease.delivery.saturating_sub(excused) > MAX_DELIVERIES
    }

    async fn handed_back(&self, lease: &JobLease) -> Option<HandedBack> {
        let key = Key::HandedBack(lease.job.job);
        let json = self.store.get(&key, 1024).await.ok()??;
        serde_json::from_slice(&json).ok()
    }

    /// Notes that this delivery ends in good order, so that it does not count as a crash.
    async fn record_clean_handback(&self, lease: &JobLease) {
        let before = match self.handed_back(lease).await {
            Some(known) if known.publication == lease.job.publication => known.times,
            _ => 0,
        };
        let now = HandedBack {
            publication: lease.job.publication,
            times: before + 1,
        };
        let note = async {
            let json = serde_json::to_vec(&now).ok()?;
            let key = Key::HandedBack(lease.job.job);
            self.store.put(&key, Bytes::from(json)).await.ok()
        };
        if !matches!(timeout(Duration::from_secs(2), note).await, Ok(Some(()))) {
            tracing::debug!("the hand-back could not be noted");
        }
    }

    /// Gives back a job that was not begun.
    async fn hand_back_unstarted(&self, lease: JobLease) {
        self.record_clean_handback(&lease).await;
        lease.give_back(None).await;
    }

    /// A failure with `what` was being done in front of the error and its causes.
    fn failure(what: &str, error: &dyn std::error::Error, kind: FailureKind) -> ResultBody {
        let mut chain = vec![what.to_owned()];
        chain.extend(halfheard_models::train::chain(error));
        ResultBody::Failed(Failure { chain, kind })
    }
}

/// A training in words: `lnln/no-dmc on mosi, seed 1111`.
fn words(spec: &halfheard_shared::wire::TrainSpec) -> String {
    let variant = if spec.variant.is_empty() {
        String::new()
    } else {
        format!("/{}", spec.variant)
    };
    format!(
        "{}{variant} on {}, seed {}",
        spec.method, spec.dataset, spec.seed
    )
}
