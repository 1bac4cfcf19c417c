//! What machines see of a worker: what its slots said last, served by their supervisor.

use crate::{identity, slot_report::SlotReport};
use halfheard_shared::artifacts::Disk;
use halfheard_telemetry::{
    catalogue::WORKER,
    exposition::{Samples, merge},
    http::{Report, Watched},
};
use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// A slot that says nothing for so long does not live. Reports come every other second, and after a crash
/// a slot waits for at most a minute.
const SILENT: Duration = Duration::from_secs(90);
/// An older report does not count as one.
const STALE: Duration = Duration::from_secs(15);

/// The slots of a worker. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Slots(Arc<State>);

#[derive(Debug)]
struct State {
    slots: Mutex<Vec<Slot>>,
    disk: Mutex<Option<Disk>>,
}

#[derive(Clone, Debug)]
struct Slot {
    /// When it was heard or ended last, or the worker began.
    heard: Instant,
    report: Option<SlotReport>,
    crashes: u32,
}

impl Slots {
    /// So many slots, which have said nothing yet.
    pub(crate) fn new(slots: usize) -> Self {
        let slot = Slot {
            heard: Instant::now(),
            report: None,
            crashes: 0,
        };
        Self(Arc::new(State {
            slots: Mutex::new(vec![slot; slots]),
            disk: Mutex::default(),
        }))
    }

    /// Measures the disk of the artifact store for as long as it runs.
    pub(crate) async fn watch_disk(self, artifacts: String) {
        let known = |disk| *self.0.disk.lock().unwrap_or_else(PoisonError::into_inner) = disk;
        Disk::keep_measuring(&artifacts, known).await;
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Slot>> {
        self.0.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn update(&self, slot: usize, change: impl FnOnce(&mut Slot)) {
        if let Some(slot) = self.lock().get_mut(slot) {
            change(slot);
        }
    }

    /// A slot reported.
    pub(crate) fn heard(&self, slot: usize, report: SlotReport) {
        self.update(slot, |slot| {
            slot.heard = Instant::now();
            slot.report = Some(report);
        });
    }

    /// A slot's process ended.
    pub(crate) fn ended(&self, slot: usize, crashed: bool) {
        self.update(slot, |slot| {
            slot.heard = Instant::now();
            slot.report = None;
            slot.crashes += u32::from(crashed);
        });
    }

    /// One check for each slot.
    fn checks(&self, check: impl Fn(&Slot) -> Result<(), String>) -> Report {
        let mut report = Report::default();
        for (number, slot) in self.lock().iter().enumerate() {
            report.check(format!("slot {number}"), check(slot));
        }
        report
    }
}

fn lives(slot: &Slot) -> Result<(), String> {
    let silence = slot.heard.elapsed();
    if silence > SILENT {
        return Err(format!("not heard for {} s", silence.as_secs()));
    }
    match slot.report.as_ref().and_then(|report| report.hangs.clone()) {
        Some(hangs) => Err(hangs),
        None => Ok(()),
    }
}

fn works(slot: &Slot) -> Result<(), String> {
    lives(slot)?;
    match &slot.report {
        None => Err("its process is starting".to_owned()),
        Some(_) if slot.heard.elapsed() > STALE => Err(format!(
            "not heard for {} s",
            slot.heard.elapsed().as_secs()
        )),
        Some(report) => report.unready.clone().map_or(Ok(()), Err),
    }
}

impl Watched for Slots {
    fn metrics(&self) -> String {
        let slots = self.lock().clone();
        let mut samples = Samples::default();
        samples.add("halfheard_build_info", &[identity::VERSION], 1.0);
        for (number, slot) in slots.iter().enumerate() {
            let number = number.to_string();
            let up = slot.report.is_some() && slot.heard.elapsed() <= STALE && lives(slot).is_ok();
            samples.add(
                "halfheard_worker_slot_up",
                &[&number],
                f64::from(u8::from(up)),
            );
            let crashes = f64::from(slot.crashes);
            samples.add("halfheard_worker_slot_crashes_total", &[&number], crashes);
        }
        let disk = self.0.disk.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(disk) = *disk {
            samples.add("halfheard_artifacts_free_bytes", &[], disk.free as f64);
            samples.add("halfheard_artifacts_size_bytes", &[], disk.size as f64);
        }
        let own = samples.render(WORKER);
        let reports = slots.iter().filter_map(|slot| slot.report.as_ref());
        let reported = reports.map(|report| report.metrics.as_str());
        merge(std::iter::once(own.as_str()).chain(reported))
    }

    fn health(&self) -> Report {
        self.checks(lives)
    }

    fn readiness(&self) -> Report {
        self.checks(works)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(number: u8) -> SlotReport {
        SlotReport {
            metrics: format!(
                "# TYPE halfheard_worker_connected gauge\nhalfheard_worker_connected{{slot=\"{number}\"}} 1\n"
            ),
            ..SlotReport::default()
        }
    }

    #[test]
    fn worker_is_ready_when_every_slot_is_and_unhealthy_when_one_hangs() {
        let slots = Slots::new(2);
        assert!(
            slots.health().is_ok() && !slots.readiness().is_ok(),
            "starting"
        );
        slots.heard(0, report(0));
        slots.heard(1, report(1));
        assert!(slots.readiness().is_ok());
        let out = SlotReport {
            unready: Some("sits out".to_owned()),
            ..report(1)
        };
        slots.heard(1, out);
        assert!(slots.health().is_ok() && !slots.readiness().is_ok());
        let hangs = SlotReport {
            hangs: Some("no step for 60 s".to_owned()),
            ..report(1)
        };
        slots.heard(1, hangs);
        assert!(!slots.health().is_ok());
        slots.ended(1, true);
        assert!(
            slots.health().is_ok() && !slots.readiness().is_ok(),
            "restarting"
        );
        slots.lock()[0].heard = Instant::now() - SILENT * 2;
        assert!(!slots.health().is_ok());
    }

    #[test]
    fn metrics_of_slots_are_one_family() {
        let slots = Slots::new(2);
        slots.heard(0, report(0));
        slots.heard(1, report(1));
        slots.ended(0, true);
        slots.heard(0, report(0));
        let text = slots.metrics();
        let count = |part: &str| text.matches(part).count();
        assert_eq!(
            count("# TYPE halfheard_worker_connected gauge"),
            1,
            "{text}"
        );
        assert_eq!(count("\nhalfheard_worker_connected{slot="), 2, "{text}");
        assert!(
            text.contains("halfheard_worker_slot_crashes_total{slot=\"0\"} 1"),
            "{text}"
        );
    }
}
