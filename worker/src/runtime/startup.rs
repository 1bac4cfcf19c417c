//! A slot's life: connects, waits until the worker can work, processes jobs, and exits.

use super::{
    blobs::Blobs,
    engine::Engine,
    faults::{LastFault, data_folder_fault, probe_data_folder, store_fault},
    leases::Leases,
    presence::{self, Status, now_ms},
    report::Reporter,
    slot::{ExitReason, MAX_NOOPS, Slot, SlotSettings},
    suspension::MAX_PROBE_INTERVAL,
    sweep_control::SweepControls,
};
use crate::{exit::Exit, identity, shutdown};
use halfheard_models::numerics;
use halfheard_shared::{
    address::redacted,
    artifacts::{ArtifactError, ArtifactStore},
    broker::{Broker, BrokerError},
    shutdown::Shutdown,
    wire::{Fault, FaultKind, WorkerInfo},
};
use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};
use tokio::{sync::Semaphore, task::JoinHandle, time::timeout};

/// Why a slot cannot run.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SlotError {
    #[error(transparent)]
    Broker(#[from] BrokerError),
    #[error(transparent)]
    Artifacts(#[from] ArtifactError),
    /// With `--once`.
    #[error("the worker could not work for the time that --once gives: {0}")]
    Unfit(Fault),
    #[error("cannot start the compute thread")]
    Engine(#[source] std::io::Error),
}

/// Runs one slot until it is to exit.
///
/// # Errors
///
/// The broker refuses the connection, the artifact store's address is invalid, or with `--once` the
/// worker could not work in time.
pub(crate) async fn run(settings: SlotSettings, shutdown: Shutdown) -> Result<Exit, SlotError> {
    tracing::info!(broker = %settings.broker.address(), artifacts = redacted(&settings.artifacts), "connecting");
    let broker = tokio::select! {
        connected = settings.broker.connect_with_retry() => connected?,
        () = shutdown.requested() => return Ok(Exit::Success),
    };
    let worker = worker_info(&settings);
    let status = Status::default();
    let previous = presence::previous_trouble(&broker, &worker.name).await;
    let leases = Leases::new(&worker.name);
    let (sweeps, watching) = SweepControls::watch(broker.clone());
    // Heartbeats first: a worker that waits for the artifact store is visible.
    let background = [
        tokio::spawn(watching),
        tokio::spawn(leases.clone().renew()),
        tokio::spawn(presence::send_heartbeats(
            broker.clone(),
            worker.clone(),
            status.clone(),
        )),
    ];
    let store = wait_until_ready(&settings, &broker, &status, &shutdown).await?;
    let Some(store) = store else {
        presence::deregister(&broker, &worker.name).await;
        return Ok(Exit::Success);
    };
    // A broken device may break again: this process continues its predecessor's suspension.
    if let Some(trouble) = previous.filter(|previous| previous.fault.kind == FaultKind::Device) {
        tracing::warn!("the previous process exited because it {}", trouble.fault);
        status.health(|health| health.inherit(trouble, now_ms()));
    }
    let slot = Arc::new(Slot {
        blobs: Blobs::new(&settings.data_dir, store.clone()),
        engine: Engine::start(settings.device, settings.threads).map_err(SlotError::Engine)?,
        reporter: Reporter::start(broker.clone()),
        noops: Arc::new(Semaphore::new(MAX_NOOPS)),
        last_fault: LastFault::default(),
        exit_reason: Mutex::default(),
        broker,
        store,
        worker,
        status,
        leases,
        sweeps,
        shutdown,
        settings,
    });
    tracing::info!(worker = %slot.worker.name, device = %slot.worker.device, processor = %slot.worker.processor, threads = slot.settings.threads, "ready for jobs");
    tokio::select! {
        () = process_jobs(&slot, &background) => {}
        () = slot.shutdown.deadline(shutdown::EXIT_DEADLINE) => {
            tracing::warn!("shutdown deadline reached; unfinished jobs will be redelivered");
        }
    }
    Ok(slot.exit())
}

fn worker_info(settings: &SlotSettings) -> WorkerInfo {
    WorkerInfo {
        name: settings.name.clone(),
        host: identity::host(),
        device: settings.device_name.clone(),
        version: identity::VERSION.to_owned(),
        processor: numerics::processor_id(
            settings.numerics,
            settings.device,
            &settings.device_name,
            settings.threads,
        ),
    }
}

/// Processes jobs and then takes leave of the broker.
async fn process_jobs(slot: &Arc<Slot>, background: &[JoinHandle<()>]) {
    slot.process_jobs().await;
    slot.reporter.flush(Duration::from_secs(3)).await;
    background.iter().for_each(JoinHandle::abort);
    if slot.exit_reason() == Some(ExitReason::Broken) {
        presence::send_final_heartbeat(&slot.broker, &slot.worker, &slot.status).await;
    } else {
        presence::deregister(&slot.broker, &slot.worker.name).await;
    }
    // Acknowledgements may still be buffered.
    let _ = timeout(Duration::from_millis(500), slot.broker.client().flush()).await;
}

/// Opens the artifact store and waits until it and the data folder can be used; the worker is
/// suspended meanwhile. `None` on shutdown.
///
/// # Errors
///
/// The store's address is invalid; with `--once`, the fault that persisted for that long.
async fn wait_until_ready(
    settings: &SlotSettings,
    broker: &Broker,
    status: &Status,
    shutdown: &Shutdown,
) -> Result<Option<ArtifactStore>, SlotError> {
    let began = Instant::now();
    let mut pause = Duration::from_secs(2);
    let mut logged = None;
    loop {
        let fault = match open_store(settings, broker).await {
            Ok(store) => {
                status.health(|health| health.recovered());
                if logged.is_some() {
                    tracing::info!("the artifact store and the data folder can be used again");
                }
                return Ok(Some(store));
            }
            Err(OpenError::Invalid(error)) => return Err(error.into()),
            Err(OpenError::Fault(fault)) => fault,
        };
        if settings.once.is_some_and(|once| began.elapsed() >= once) {
            return Err(SlotError::Unfit(fault));
        }
        if logged.as_ref() != Some(&fault) {
            tracing::error!("worker suspended: {fault}");
            logged = Some(fault.clone());
        }
        status.suspend(fault, pause);
        shutdown.sleep(pause).await;
        if shutdown.is_requested() {
            return Ok(None);
        }
        pause = (pause * 2).min(MAX_PROBE_INTERVAL);
    }
}

enum OpenError {
    /// Permanent.
    Invalid(ArtifactError),
    /// May pass.
    Fault(Fault),
}

impl From<ArtifactError> for OpenError {
    fn from(error: ArtifactError) -> Self {
        match store_fault(&error) {
            Some(fault) => OpenError::Fault(fault),
            None => OpenError::Invalid(error),
        }
    }
}

async fn open_store(settings: &SlotSettings, broker: &Broker) -> Result<ArtifactStore, OpenError> {
    let folder = &settings.data_dir;
    match probe_data_folder(folder, &settings.name) {
        Ok(None) => {}
        Ok(Some(warning)) => tracing::warn!("{warning}"),
        Err(error) => return Err(OpenError::Fault(data_folder_fault(folder, &error))),
    }
    let store = ArtifactStore::open(&settings.artifacts, Some(broker)).await?;
    store.probe(&settings.name).await?;
    Ok(store)
}
