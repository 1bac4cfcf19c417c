//! Where the workers of a run compute.

use super::RunArgs;
use crate::{local::programs::Programs, local::worker_check};
use anyhow::Context as _;
use halfheard_shared::{device::Devices, spec::ResourcesSpec};
use std::path::Path;

/// Workers on the CPU, where neither a flag nor the spec says how many.
pub(crate) const WORKERS: usize = 2;

/// The slots of the run's workers.
pub(super) struct Slots {
    /// The worker's flags.
    pub(super) flags: Vec<String>,
    /// The device of each slot.
    pub(super) devices: Vec<String>,
    /// The same for people.
    pub(super) places: String,
    /// What keeps slots off a GPU, where somebody may wonder.
    pub(super) warning: Option<String>,
}

impl Slots {
    /// Asks the worker where its slots would compute, before anything is started.
    ///
    /// # Errors
    ///
    /// The worker does not answer, or the GPUs that were asked for are not there.
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
        let asked = args.workers.or(resources.workers).map(usize::from);
        devices.check(asked.unwrap_or(0), share)?;
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
            let ask = |slots| {
                let check = worker_check::ask(&worker, &programs, &flags(slots, true));
                check.with_context(|| format!("asking {} for its devices", worker.display()))
            };
            let mut slots = asked.unwrap_or(devices.slots(WORKERS));
            let mut check = ask(slots)?;
            if asked.is_none() && devices == Devices::Auto && check.gpus > 0 {
                // A worker for each GPU.
                slots = check.gpus;
                if slots > WORKERS {
                    check = ask(slots)?;
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
                places: check.places(),
                warning: check.warning(),
            })
        })
        .await
        .context("asking the worker")?
    }

    /// The first line of a run: where it computes, and why not on a GPU.
    pub(super) fn line(&self) -> String {
        match &self.warning {
            Some(warning) => format!("{warning} ({})", self.places),
            None => format!("workers: {}", self.places),
        }
    }
}
