//! A slot's life: connects, waits until the worker can work, processes jobs, and exits.

use super::{
    blobs::Blobs,
    engine::Engine,
    faults::{LastFault, data_folder_fault, probe_data_folder, store_fault},
    leases::Leases,
    presence::{self, Announcement, Status, now_ms},
    report::Reporter,
    self_report::SelfReport,
    settings::SlotSettings,
    settling,
    slot::{ExitReason, MAX_NOOPS, Slot},
    suspension::MAX_PROBE_INTERVAL,
    watch::Watch,
    watchdog::Watchdog,
};
use crate::{exit::Exit, identity};
use halfheard_models::{memory, numerics};
use halfheard_shared::{
    address::redacted,
    artifacts::{ArtifactError, ArtifactStore},
    broker::{Broker, BrokerError},
    shutdown::Shutdown,
    wire::{Fault, FaultKind, WorkerInfo},
};
use std::{
    sync::{Arc, Mutex, OnceLock},
    time::{Duration, Instant},
};
use tokio::{sync::Semaphore, task::JoinHandle, time::timeout};
use uuid::Uuid;

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
    #[error("cannot start a thread")]
    Thread(#[source] std::io::Error),
}

/// Runs one slot until it is to exit.
///
/// # Errors
///
/// The broker refuses the connection, the artifact store's address is invalid, or with `--once` the
/// worker could not work in time.
pub(crate) async fn run(settings: SlotSettings, shutdown: Shutdown) -> Result<Exit, SlotError> {
    tracing::info!(broker = %settings.broker.address(), artifacts = redacted(&settings.artifacts), "connecting");
    let (watch, status) = (Watch::default(), Status::default());
    let connected = Arc::new(OnceLock::new());
    report_to_supervisor(&settings, &watch, &status, &connected)?;
    let broker = tokio::select! {
        connected = settings.broker.connect_with_retry() => connected?,
        () = shutdown.requested() => return Ok(Exit::Success),
    };
    // Only this sets it.
    let _ = connected.set(broker.clone());
    let leases = Leases::new(watch.clone());
    let announcement = announce(&settings, leases.clone()).await;
    let name = &announcement.worker.name;
    let previous = presence::previous_trouble(&broker, name).await;
    // Heartbeats first: a worker that waits for the artifact store is visible.
    let mut background = vec![
        tokio::spawn(settling::listen(
            broker.clone(),
            name.clone(),
            leases.clone(),
            status.clone(),
        )),
        tokio::spawn(presence::send_heartbeats(
            broker.clone(),
            announcement.clone(),
            status.clone(),
        )),
    ];
    let ready = wait_until_ready(&settings, &broker, &status, &shutdown).await?;
    let Some((store, store_id)) = ready else {
        presence::deregister(&broker, name).await;
        return Ok(Exit::Success);
    };
    // A broken device may break again: this process continues its predecessor's suspension.
    if let Some(trouble) = previous.filter(|previous| previous.fault.kind == FaultKind::Device) {
        tracing::warn!("the previous process exited because it {}", trouble.fault);
        status.health(|health| health.inherit(trouble, now_ms()));
    }
    let pieces = watch.clone();
    let store = store.with_progress(Arc::new(move || pieces.advanced()));
    let watchdog = Watchdog {
        watch: watch.clone(),
        broker: broker.clone(),
        announcement: announcement.clone(),
        status: status.clone(),
    };
    watchdog.start().map_err(SlotError::Thread)?;
    let reporter = Reporter::start(broker.clone());
    background.push(tokio::spawn(settling::repeat(
        reporter.clone(),
        leases.clone(),
    )));
    let slot = Arc::new(Slot {
        blobs: Blobs::new(&settings.data_dir, store.clone(), watch.clone()),
        engine: Engine::start(&settings, watch.clone()).map_err(SlotError::Thread)?,
        reporter,
        noops: Arc::new(Semaphore::new(MAX_NOOPS)),
        last_fault: LastFault::default(),
        exit_reason: Mutex::default(),
        broker,
        store,
        store_id,
        announcement,
        status,
        leases,
        watch,
        shutdown,
        settings,
    });
    let worker = &slot.announcement.worker;
    tracing::info!(worker = %worker.name, device = %worker.device, processor = %worker.processor, threads = slot.settings.threads, "ready for jobs");
    tokio::select! {
        () = process_jobs(&slot, &background) => {}
        () = slot.shutdown.deadline(slot.settings.deadlines.exit()) => {
            tracing::warn!("shutdown deadline reached; unfinished jobs will be granted again");
        }
    }
    Ok(slot.exit())
}

/// Tells the supervisor how the slot is, if it serves that.
fn report_to_supervisor(
    settings: &SlotSettings,
    watch: &Watch,
    status: &Status,
    connected: &Arc<OnceLock<Broker>>,
) -> Result<(), SlotError> {
    let Some(recorder) = settings.recorder.clone() else {
        return Ok(());
    };
    let report = SelfReport {
        recorder,
        status: status.clone(),
        watch: watch.clone(),
        broker: connected.clone(),
        device: settings.device,
    };
    report.start().map_err(SlotError::Thread)
}

/// What this process says of itself.
async fn announce(settings: &SlotSettings, leases: Leases) -> Arc<Announcement> {
    let device = settings.device;
    // The driver may take a while.
    let memory = tokio::task::spawn_blocking(move || memory::of_device(device));
    Arc::new(Announcement {
        worker: worker_info(settings),
        session: Uuid::new_v4(),
        labels: settings.labels.clone(),
        external: settings.external.is_some(),
        // Slots that share a GPU must not be granted jobs that need more of it together than there is.
        memory: memory.await.unwrap_or(0) / settings.sharing.get() as u64,
        leases,
    })
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
        presence::send_final_heartbeat(&slot.broker, &slot.announcement, &slot.status).await;
    } else {
        presence::deregister(&slot.broker, &slot.announcement.worker.name).await;
    }
    // The last messages may still be buffered.
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
) -> Result<Option<(ArtifactStore, String)>, SlotError> {
    let began = Instant::now();
    let mut pause = Duration::from_secs(2);
    let mut logged = None;
    loop {
        let fault = match open_store(settings, broker).await {
            Ok(opened) => {
                status.health(|health| health.recovered());
                if logged.is_some() {
                    tracing::info!("the artifact store and the data folder can be used again");
                }
                return Ok(Some(opened));
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

/// Opens the artifact store. Returns its own id with it.
async fn open_store(
    settings: &SlotSettings,
    broker: &Broker,
) -> Result<(ArtifactStore, String), OpenError> {
    let folder = &settings.data_dir;
    match probe_data_folder(folder, &settings.name).await {
        Ok(None) => {}
        Ok(Some(warning)) => tracing::warn!("{warning}"),
        Err(error) => return Err(OpenError::Fault(data_folder_fault(folder, &error))),
    }
    let store = ArtifactStore::open(&settings.artifacts, Some(broker)).await?;
    store.probe(&settings.name).await?;
    let id = store.id().await?;
    Ok((store, id))
}
