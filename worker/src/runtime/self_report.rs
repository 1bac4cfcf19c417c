//! What this process tells its supervisor, every other second.

use super::{presence::Status, watch::Watch};
use crate::slot_report::{EVERY, SlotReport};
use async_nats::connection::State;
use halfheard_models::{
    device::Device,
    memory::{self, PeakMemory},
};
use halfheard_shared::broker::Broker;
use halfheard_telemetry::recorder::Recorder;
use std::{
    io::Write as _,
    sync::{Arc, OnceLock, atomic::Ordering},
    time::{Duration, Instant},
};

/// Where the reports come from.
pub(super) struct SelfReport {
    pub(super) recorder: Recorder,
    pub(super) status: Status,
    pub(super) watch: Watch,
    /// Once it is connected.
    pub(super) broker: Arc<OnceLock<Broker>>,
    pub(super) device: Device,
}

impl SelfReport {
    /// Reports on a thread of its own until the supervisor listens no more: the pipe may be full for as
    /// long as that one is stopped.
    pub(super) fn start(self) -> std::io::Result<()> {
        std::thread::Builder::new()
            .name("self-report".to_owned())
            .spawn(move || {
                let (mut busy, mut idle) = (Duration::ZERO, Duration::ZERO);
                let mut last = Instant::now();
                let memory = memory::of_device(self.device);
                while self.write(memory).is_ok() {
                    std::thread::sleep(EVERY);
                    match self.status.is_busy() {
                        true => busy += last.elapsed(),
                        false => idle += last.elapsed(),
                    }
                    last = Instant::now();
                    metrics::counter!("halfheard_worker_busy_seconds_total")
                        .absolute(busy.as_secs());
                    metrics::counter!("halfheard_worker_idle_seconds_total")
                        .absolute(idle.as_secs());
                }
            })?;
        Ok(())
    }

    /// Writes one report, whole.
    fn write(&self, memory: u64) -> std::io::Result<()> {
        let mut line = serde_json::to_vec(&self.report(memory))?;
        line.push(b'\n');
        let mut stdout = std::io::stdout().lock();
        stdout.write_all(&line)?;
        stdout.flush()
    }

    fn report(&self, memory: u64) -> SlotReport {
        let broker = self.broker.get();
        let connected =
            broker.is_some_and(|broker| broker.client().connection_state() == State::Connected);
        let connects = broker.map_or(0, |broker| {
            let statistics = broker.client().statistics();
            statistics.connects.load(Ordering::Relaxed)
        });
        let suspension = self.status.suspension();
        let flag = |flag: bool| f64::from(u8::from(flag));
        metrics::counter!("halfheard_worker_reconnects_total").absolute(connects.saturating_sub(1));
        metrics::gauge!("halfheard_worker_connected").set(flag(connected));
        metrics::gauge!("halfheard_worker_sitting_out").set(flag(suspension.is_some()));
        metrics::gauge!("halfheard_worker_resident_memory_bytes")
            .set(memory::resident_bytes().unwrap_or(0) as f64);
        metrics::gauge!("halfheard_worker_device_memory_bytes").set(memory as f64);
        let used = PeakMemory::new(Some(self.device)).now();
        metrics::gauge!("halfheard_worker_device_memory_used_bytes").set(used as f64);
        let unready = match suspension {
            _ if !connected => Some("not connected to the broker".to_owned()),
            Some((fault, _)) => Some(format!("sits out: {fault}")),
            None => None,
        };
        SlotReport {
            metrics: self.recorder.render(),
            hangs: self.watch.overdue(),
            unready,
        }
    }
}
