//! The slots of a run's workers.

use super::args::RunArgs;
use crate::{
    local::{
        programs::{Found, Programs},
        worker_check::{self, WorkerCheck},
    },
    submission::{Loaded, memory::DEFAULT_WORKERS},
    tuning::{self, Candidate, Choice, Unused},
};
use anyhow::Context as _;
use halfheard_shared::{device::Devices, numerics::Numerics, text::count};
use std::path::{Path, PathBuf};

/// The slots of the run's workers.
pub(super) struct Slots {
    /// The worker's flags.
    pub(super) flags: Vec<String>,
    /// The device of each slot.
    pub(super) devices: Vec<String>,
    /// The devices by slot, in one line.
    placement: String,
    /// Where their number comes from.
    source: String,
    /// What keeps slots off a GPU, if that may be a surprise.
    pub(super) warning: Option<String>,
}

/// What is known before the worker is asked.
struct Plan {
    worker: PathBuf,
    programs: Programs,
    devices: Devices,
    share: bool,
    /// Slots that a flag or the spec asks for, and which of them.
    requested: Option<(usize, &'static str)>,
    /// Threads that a flag asks for.
    threads: Option<usize>,
    /// The best of what was measured here, and the day; or why that is not used.
    measured: Result<(Choice, String), String>,
    /// Whether slots compute with one thread each, whatever they are told.
    portable: bool,
}

impl Slots {
    /// Queries the worker for the devices of its slots, before anything is started.
    ///
    /// # Errors
    ///
    /// The worker does not answer, or the requested GPUs do not exist.
    pub(super) async fn plan(
        args: &RunArgs,
        loaded: &Loaded,
        data_dir: &Path,
        worker: &Found,
        programs: &Programs,
    ) -> anyhow::Result<Self> {
        let resources = &loaded.spec.resources;
        let devices = match (&args.device, &resources.device) {
            (Some(devices), _) => devices.clone(),
            (None, Some(text)) => text.parse()?,
            (None, None) => Devices::Auto,
        };
        let by_flag = args.workers.map(|n| (usize::from(n), "as --workers says"));
        let by_spec = resources
            .workers
            .map(|n| (usize::from(n), "as the spec says"));
        let plan = Plan {
            worker: worker.path.clone(),
            programs: programs.clone(),
            share: args.share_gpus || resources.share_gpus,
            requested: by_flag.or(by_spec),
            threads: args.threads.map(usize::from),
            measured: measured(loaded, data_dir, &worker.version),
            portable: loaded.resolved.numerics == Numerics::Portable,
            devices,
        };
        let slots = plan.requested.map_or(0, |(slots, _)| slots);
        plan.devices.check(slots, plan.share)?;
        tokio::task::spawn_blocking(move || plan.ask())
            .await
            .context("cannot query the worker")?
    }

    /// Describes the devices in one line, and why they are not GPUs.
    pub(super) fn describe(&self) -> String {
        let Self {
            placement, source, ..
        } = self;
        match &self.warning {
            Some(warning) => format!("{warning} ({placement}; {source})"),
            None => format!("workers: {placement}; {source}"),
        }
    }
}

/// Returns what was measured on this machine and fits the sweep, and when it was measured; or why it is not used.
fn measured(loaded: &Loaded, data_dir: &Path, build: &str) -> Result<(Choice, String), String> {
    if loaded.resolved.numerics == Numerics::Portable {
        return Err("the default, --workers may be as many as there are cores".to_owned());
    }
    let tuning = tuning::of_this_machine(data_dir, build);
    let tuning = tuning.map_err(|unused| match unused {
        Unused::Absent => "the default, `coord tune-machine` measures what is best".to_owned(),
        Unused::Other(_) => format!("the default, since {unused}"),
    })?;
    let choice = tuning::of_sweep(&tuning, loaded);
    let choice = choice.ok_or_else(|| "the default".to_owned())?;
    let date = tuning.measured_at.format("%Y-%m-%d").to_string();
    Ok((choice, date))
}

impl Plan {
    /// Blocks while the worker loads the GPU's library.
    fn ask(self) -> anyhow::Result<Slots> {
        let mut check = self.query(self.first_guess(), self.threads)?;
        let on_cpu = check.gpus == 0 || self.devices == Devices::Cpu;
        let (slots, threads, source) = match (&self.requested, &self.devices) {
            (Some((slots, by)), _) => (*slots, self.threads, (*by).to_owned()),
            (None, Devices::Gpus(gpus)) => (gpus.len(), self.threads, "one per GPU".to_owned()),
            (None, Devices::Auto) if !on_cpu => {
                (check.gpus, self.threads, "one per GPU".to_owned())
            }
            (None, Devices::Auto | Devices::Cpu) => self.on_cpu(),
        };
        if slots > check.slots.len() + check.left_out || threads != self.threads {
            check = self.query(slots, threads)?;
        }
        if self.requested.is_none() {
            // One worker per GPU.
            check.slots.truncate(slots);
            check.left_out = 0;
        }
        if let Some(error) = &check.device_error {
            anyhow::bail!("{error}");
        }
        Ok(Slots {
            flags: [self.flags(slots, threads), vec!["--name=worker".to_owned()]].concat(),
            devices: check.slots.iter().map(|slot| slot.device.clone()).collect(),
            placement: check.placement(),
            source: match on_cpu {
                true => {
                    let threads = if self.portable { 1 } else { check.threads };
                    format!("{} each ({source})", count(threads as usize, "thread"))
                }
                false => source,
            },
            warning: check.warning(),
        })
    }

    /// Slots to ask for while it is not known whether there are GPUs.
    fn first_guess(&self) -> usize {
        match self.requested {
            Some((slots, _)) => slots,
            None => self.devices.slots(DEFAULT_WORKERS),
        }
    }

    /// Slots and threads on the CPU where nobody asks for a number of slots, and where both come from.
    fn on_cpu(&self) -> (usize, Option<usize>, String) {
        match (&self.measured, self.threads) {
            (_, Some(threads)) => (
                DEFAULT_WORKERS,
                Some(threads),
                "as --threads says".to_owned(),
            ),
            (Ok((choice, date)), None) => {
                let Candidate { slots, threads } = choice.candidate;
                let limited = match choice.limited {
                    true => ", as far as memory allows",
                    false => "",
                };
                let source = format!("as `coord tune-machine` measured on {date}{limited}");
                (slots, Some(threads), source)
            }
            (Err(reason), None) => (DEFAULT_WORKERS, None, reason.clone()),
        }
    }

    fn flags(&self, slots: usize, threads: Option<usize>) -> Vec<String> {
        let mut flags = vec![
            "--slots".to_owned(),
            slots.to_string(),
            "--device".to_owned(),
            self.devices.to_string(),
        ];
        if let Some(threads) = threads {
            flags.extend(["--threads".to_owned(), threads.to_string()]);
        }
        flags.extend(self.share.then(|| "--share-gpus".to_owned()));
        flags
    }

    fn query(&self, slots: usize, threads: Option<usize>) -> anyhow::Result<WorkerCheck> {
        let mut flags = self.flags(slots, threads);
        flags.push("--look".to_owned());
        let check = worker_check::query(&self.worker, &self.programs, &flags);
        check.with_context(|| format!("cannot query {} for devices", self.worker.display()))
    }
}
