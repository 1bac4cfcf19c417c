//! Looks in the background, and answers from what it saw.

use super::{
    events::database_failed,
    gauges,
    looks::{Look, Memory},
    probe::Probe,
};
use halfheard_shared::{
    artifacts::Disk,
    broker::{Broker, heartbeats::Heartbeats},
    error::chain,
};
use halfheard_store::Store;
use halfheard_telemetry::{
    catalogue::COORDINATOR,
    exposition::{Samples, merge},
    http::{Report, Watched},
    pulse::{self, Pulse},
    recorder::Recorder,
};
use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::time::timeout;

/// How often the database is looked at, at most: a look takes at most a twentieth of the time.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// See [`LOOK_EVERY`].
const SHARE: u32 = 20;
/// How long a look may take.
const LOOK_TIMEOUT: Duration = Duration::from_secs(60);
/// How often the servers are asked whether they are there.
const PROBE_EVERY: Duration = Duration::from_secs(2);

/// What machines see of this coordinator. Cheap to clone.
#[derive(Clone)]
pub struct Observer(Arc<State>);

struct State {
    store: Store,
    broker: Broker,
    heartbeats: Heartbeats,
    /// The artifact store's address.
    artifacts: String,
    version: &'static str,
    /// What was counted; absent where nothing records.
    recorder: Option<Recorder>,
    probe: Mutex<Probe>,
    look: Mutex<Option<Arc<Look>>>,
    disk: Mutex<Option<Disk>>,
}

impl Observer {
    /// One that has seen nothing yet. `heartbeats` must be listened to, by whoever made it.
    pub fn new(
        store: Store,
        broker: Broker,
        heartbeats: Heartbeats,
        artifacts: String,
        recorder: Option<Recorder>,
    ) -> Self {
        Self(Arc::new(State {
            store,
            broker,
            heartbeats,
            artifacts,
            version: env!("CARGO_PKG_VERSION"),
            recorder,
            probe: Mutex::new(Probe::pending()),
            look: Mutex::new(None),
            disk: Mutex::new(None),
        }))
    }

    /// Looks for as long as it runs.
    pub async fn watch(&self) {
        let disk = Disk::keep_measuring(&self.0.artifacts, |disk| *locked(&self.0.disk) = disk);
        tokio::join!(self.keep_probing(), self.keep_looking(), disk);
    }

    async fn keep_probing(&self) {
        let pulse = Pulse::start("probe", PROBE_EVERY + Duration::from_secs(30));
        loop {
            pulse.beat();
            let probe = Probe::new(&self.0.store, &self.0.broker).await;
            *locked(&self.0.probe) = probe;
            tokio::time::sleep(PROBE_EVERY).await;
        }
    }

    async fn keep_looking(&self) {
        let longest = LOOK_TIMEOUT * (SHARE + 1) + LOOK_EVERY;
        let pulse = Pulse::start("observe", longest);
        let mut memory = Memory::default();
        loop {
            pulse.beat();
            let pause = match timeout(LOOK_TIMEOUT, memory.look(&self.0.store)).await {
                Ok(Ok(look)) => {
                    let pause = LOOK_EVERY.max(look.took * SHARE);
                    *locked(&self.0.look) = Some(Arc::new(look));
                    pause
                }
                Ok(Err(error)) => {
                    database_failed(&error);
                    tracing::debug!(error = chain(&error), "cannot look at the database");
                    LOOK_EVERY
                }
                Err(_) => {
                    tracing::warn!("looking at the database takes too long; its gauges are old");
                    LOOK_TIMEOUT
                }
            };
            tokio::time::sleep(pause).await;
        }
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Watched for Observer {
    fn metrics(&self) -> String {
        let state = &self.0;
        let mut samples = Samples::default();
        samples.add("halfheard_build_info", &[state.version], 1.0);
        gauges::servers(&locked(&state.probe), &mut samples);
        let look = locked(&state.look).clone();
        if let Some(look) = &look {
            gauges::database(look, &mut samples);
        }
        let drained = look.as_ref().map_or(&[][..], |look| &look.drained);
        gauges::workers(&state.heartbeats, drained, &mut samples);
        if let Some(bytes) = resident_bytes() {
            samples.add("halfheard_resident_memory_bytes", &[], bytes as f64);
        }
        if let Some(disk) = *locked(&state.disk) {
            samples.add("halfheard_artifacts_free_bytes", &[], disk.free as f64);
            samples.add("halfheard_artifacts_size_bytes", &[], disk.size as f64);
        }
        let recorded = state.recorder.as_ref().map(Recorder::render);
        merge([
            samples.render(COORDINATOR).as_str(),
            recorded.as_deref().unwrap_or_default(),
        ])
    }

    fn health(&self) -> Report {
        let mut report = Report::default();
        for (name, stalled) in pulse::stalled() {
            let outcome = match stalled {
                Some(since) => Err(format!("has not ticked for {} s", since.as_secs())),
                None => Ok(()),
            };
            report.check(name, outcome);
        }
        report
    }

    fn readiness(&self) -> Report {
        let mut report = Report::default();
        for (name, outcome) in locked(&self.0.probe).verdicts() {
            report.check(name, outcome);
        }
        report
    }
}

/// A coordinator that waits for its servers.
pub(crate) struct Starting;

impl Watched for Starting {
    fn metrics(&self) -> String {
        let mut samples = Samples::default();
        samples.add("halfheard_build_info", &[env!("CARGO_PKG_VERSION")], 1.0);
        samples.render(COORDINATOR)
    }

    fn health(&self) -> Report {
        Report::default()
    }

    fn readiness(&self) -> Report {
        let mut report = Report::default();
        report.check(
            "start",
            Err("waits for the database or the broker".to_owned()),
        );
        report
    }
}

/// Resident memory of this process in bytes; `None` if the kernel does not report it.
fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let size = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(
        size.trim()
            .strip_suffix(" kB")?
            .trim()
            .parse::<u64>()
            .ok()?
            * 1024,
    )
}
