//! The slots of a run's workers.

use super::args::RunArgs;
use crate::{
    local::{programs::Programs, worker_check},
    submission::memory::DEFAULT_WORKERS,
};
use anyhow::Context as _;
use halfheard_shared::{device::Devices, spec::ResourcesSpec};
use std::path::Path;

/// The slots of the run's workers.
pub(super) struct Slots {
    /// The worker's flags.
    pub(super) flags: Vec<String>,
    /// The device of each slot.
    pub(super) devices: Vec<String>,
    /// The devices by slot, in one line.
    placement: String,
    /// What keeps slots off a GPU, if that may be a surprise.
    pub(super) warning: Option<String>,
}

impl Slots {
    /// Queries the worker for the devices of its slots, before anything is started.
    ///
    /// # Errors
    ///
    /// The worker does not answer, or the requested GPUs do not exist.
    pub(super) async fn plan(
        args: &RunArgs,
        resources: &ResourcesSpec,
        worker: &Path,
        programs: &Programs,
    ) -> anyhow::Result<Self> {
        let devices = match (&args.device, &resources.device) {
            (Some(devices), _) => devices.clone(),
            (None, Some(text)) => text.parse()?,
            (None, None) => Devices::Auto,
        };
        let share = args.share_gpus || resources.share_gpus;
        let requested = args.workers.or(resources.workers).map(usize::from);
        devices.check(requested.unwrap_or(0), share)?;
        let device = devices.to_string();
        let flags = move |slots: usize, look: bool| {
            let mut flags = vec![
                "--slots".to_owned(),
                slots.to_string(),
                "--device".to_owned(),
                device.clone(),
            ];
            flags.extend(share.then(|| "--share-gpus".to_owned()));
            flags.extend(look.then(|| "--look".to_owned()));
            flags
        };
        let (worker, programs) = (worker.to_owned(), programs.clone());
        tokio::task::spawn_blocking(move || {
            let query = |slots| {
                let check = worker_check::query(&worker, &programs, &flags(slots, true));
                check.with_context(|| format!("cannot query {} for devices", worker.display()))
            };
            let mut slots = requested.unwrap_or(devices.slots(DEFAULT_WORKERS));
            let mut check = query(slots)?;
            if requested.is_none() && devices == Devices::Auto && check.gpus > 0 {
                // One worker per GPU.
                slots = check.gpus;
                if slots > DEFAULT_WORKERS {
                    check = query(slots)?;
                }
                check.slots.truncate(slots);
                check.left_out = 0;
            }
            if let Some(error) = &check.device_error {
                anyhow::bail!("{error}");
            }
            Ok(Self {
                flags: [flags(slots, false), vec!["--name=worker".to_owned()]].concat(),
                devices: check.slots.iter().map(|slot| slot.device.clone()).collect(),
                placement: check.placement(),
                warning: check.warning(),
            })
        })
        .await
        .context("cannot query the worker")?
    }

    /// Describes the devices in one line, and why they are not GPUs.
    pub(super) fn describe(&self) -> String {
        match &self.warning {
            Some(warning) => format!("{warning} ({})", self.placement),
            None => format!("workers: {}", self.placement),
        }
    }
}
