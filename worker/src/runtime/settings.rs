//! A slot's settings.

use crate::{external::Limits, shutdown::Deadlines};
use halfheard_models::{device::Device, numerics::Numerics};
use halfheard_shared::broker::BrokerSettings;
use halfheard_telemetry::recorder::Recorder;
use std::{num::NonZeroUsize, path::PathBuf, time::Duration};

/// What a slot needs to run.
#[derive(Clone, Debug)]
pub(crate) struct SlotSettings {
    pub(crate) broker: BrokerSettings,
    /// The artifact store's address.
    pub(crate) artifacts: String,
    pub(crate) data_dir: PathBuf,
    pub(crate) device: Device,
    /// The device's name as shown to people.
    pub(crate) device_name: String,
    /// How many slots compute on the same GPU, this one included.
    pub(crate) sharing: NonZeroUsize,
    /// What jobs may ask for, such as `a100`.
    pub(crate) labels: Vec<String>,
    /// Within which limits external programs run; `None` if they do not.
    pub(crate) external: Option<Limits>,
    /// libtorch's threads.
    pub(crate) threads: usize,
    pub(crate) numerics: Numerics,
    /// The worker's unique name.
    pub(crate) name: String,
    /// How often to save between epochs.
    pub(crate) save_every: Duration,
    /// Exit after this long without work.
    pub(crate) once: Option<Duration>,
    /// Counts what this process does, if its supervisor serves that.
    pub(crate) recorder: Option<Recorder>,
    /// How long a shutdown may take.
    pub(crate) deadlines: Deadlines,
}
