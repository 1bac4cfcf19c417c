//! What the open jobs of a spec cost on some hardware: measured where the same was trained before,
//! estimated from operations and rates where not.

use super::{estimate::Open, hardware::Hardware, model_name::model_name};
use crate::submission::Loaded;
use halfheard_shared::{
    methods::{self, DataFacts, EncoderShape, faults::Fault, flops::Flops, memory::checkpoints},
    operations::{counted, stops_early},
    spec::{ResolvedDataset, ResolvedMethod, ResolvedSpec},
    wire::{Protocol, Selection, TrainSpec},
};
use halfheard_store::timings::Timing;
use serde::Serialize;
use serde_json::{Map, Value};

/// From where the seconds of a job are known.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub(super) enum Source {
    /// From jobs that trained or evaluated the same.
    Measured {
        /// The device's name, or `cpu`.
        device: String,
        /// How many jobs.
        jobs: u64,
    },
    /// From operations of a step, or of a sample, and the hardware's rate.
    Estimated {
        /// Operations, or bytes where moving them takes longer.
        amount: f64,
        /// What is counted.
        unit: Unit,
        /// How many a second.
        per_second: f64,
    },
    /// From nothing: only the work is known, if it is.
    Unknown,
}

/// What bounds a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Unit {
    Flop,
    Bytes,
}

/// What one job takes.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Cost {
    /// Operations; unknown of external programs.
    pub(super) flop: Option<f64>,
    /// Seconds on one device; of a training, of the most epochs.
    pub(super) seconds: Option<f64>,
    /// Seconds of as many epochs as earlier trainings had, where there were any.
    pub(super) expected_seconds: Option<f64>,
    pub(super) source: Source,
}

impl Cost {
    /// What is expected, or the most.
    fn expected(&self) -> Option<f64> {
        self.expected_seconds.or(self.seconds)
    }
}

/// The open jobs of one model on one dataset.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Row {
    pub(super) method: String,
    pub(super) dataset: String,
    pub(super) training_jobs: usize,
    pub(super) evaluation_jobs: usize,
    /// Operations of a training step.
    pub(super) step_flop: Option<f64>,
    /// Operations of one sample that is predicted.
    pub(super) sample_flop: Option<f64>,
    pub(super) max_epochs: u32,
    /// Whether a training may end sooner.
    pub(super) stops_early: bool,
    /// Median epochs of earlier trainings, where there were any.
    pub(super) expected_epochs: Option<f64>,
    pub(super) training: Cost,
    pub(super) evaluation: Cost,
}

/// Sums over all open jobs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub(super) struct Total {
    /// Operations, of the most epochs, as far as they are known.
    pub(super) flop: f64,
    /// Hours of devices, of the most epochs.
    pub(super) device_hours: f64,
    /// The same of as many epochs as are expected.
    pub(super) expected_device_hours: f64,
    /// Hours of the longest training with one of its evaluations.
    pub(super) longest_chain_hours: f64,
    /// Hours from beginning to end on all devices: the longest chain, or the work over the devices.
    pub(super) makespan_hours: f64,
    /// The same of as many epochs as are expected.
    pub(super) expected_makespan_hours: f64,
}

/// What the open jobs of a spec cost.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Forecast {
    pub(super) hardware: Option<Hardware>,
    pub(super) rows: Vec<Row>,
    pub(super) total: Total,
    /// Models on datasets whose time is not in the total.
    pub(super) unknown: Vec<String>,
}

/// Finds the sizes of what a method reads of a dataset.
pub(super) trait Sizes {
    fn of(&self, method: &ResolvedMethod, dataset: &str) -> Option<(DataFacts, EncoderShape)>;
}

impl Sizes for Loaded {
    fn of(&self, method: &ResolvedMethod, dataset: &str) -> Option<(DataFacts, EncoderShape)> {
        let (data, encoder) = self.sizes(method, dataset)?;
        Some((*data, *encoder))
    }
}

impl Forecast {
    /// Counts what is open. `timings` is what earlier jobs took.
    pub(super) fn new<'a>(
        resolved: &ResolvedSpec,
        sizes: &impl Sizes,
        open: impl Iterator<Item = Open<'a>>,
        timings: &[Timing],
        hardware: Option<Hardware>,
    ) -> Self {
        let rows: Vec<Row> = open
            .filter(|open| open.trainings + open.evaluations > 0)
            .filter_map(|open| {
                let model = Model::find(resolved, sizes, &open)?;
                Some(model.row(&open, timings, hardware.as_ref()))
            })
            .collect();
        let devices = hardware.as_ref().map_or(1, |hardware| hardware.devices);
        let (total, unknown) = sum(&rows, devices);
        Self {
            hardware,
            rows,
            total,
            unknown,
        }
    }
}

/// Adds rows up, and names those of unknown time.
fn sum(rows: &[Row], devices: u32) -> (Total, Vec<String>) {
    let mut total = Total::default();
    let mut unknown = Vec::new();
    let mut expected_chain = 0.0_f64;
    for row in rows {
        let (trainings, evaluations) = (row.training_jobs as f64, row.evaluation_jobs as f64);
        let open = |jobs: f64, known: Option<f64>| if jobs > 0.0 { known } else { Some(0.0) };
        total.flop += trainings * row.training.flop.unwrap_or(0.0)
            + evaluations * row.evaluation.flop.unwrap_or(0.0);
        let most = open(trainings, row.training.seconds);
        let expected = open(trainings, row.training.expected());
        let evaluation = open(evaluations, row.evaluation.seconds);
        if most.is_none() || evaluation.is_none() {
            unknown.push(format!("{} on {}", row.method, row.dataset));
        }
        let [most, expected, evaluation] =
            [most, expected, evaluation].map(|seconds| seconds.unwrap_or(0.0) / 3600.0);
        total.device_hours += trainings * most + evaluations * evaluation;
        total.expected_device_hours += trainings * expected + evaluations * evaluation;
        total.longest_chain_hours = total.longest_chain_hours.max(most + evaluation);
        expected_chain = expected_chain.max(expected + evaluation);
    }
    let devices = f64::from(devices);
    total.makespan_hours = total.longest_chain_hours.max(total.device_hours / devices);
    total.expected_makespan_hours = expected_chain.max(total.expected_device_hours / devices);
    (total, unknown)
}

/// A method on a dataset, with all that its cost depends on.
struct Model<'a> {
    method: &'a ResolvedMethod,
    hyper: &'a Map<String, Value>,
    protocol: &'a Protocol,
    spec: TrainSpec,
    sizes: Option<(DataFacts, EncoderShape)>,
    flops: Option<Flops>,
}

impl<'a> Model<'a> {
    fn find(resolved: &'a ResolvedSpec, sizes: &impl Sizes, open: &Open<'_>) -> Option<Self> {
        let method = resolved
            .methods
            .iter()
            .find(|method| model_name(&method.method, &method.variant) == open.model)?;
        let of = |dataset: &&ResolvedDataset| dataset.benchmark.id() == open.dataset;
        let dataset = resolved.datasets.iter().find(of)?;
        let hyper = method.hyper.get(open.dataset)?;
        let protocol = resolved.protocol_of(method);
        let sizes = sizes.of(method, open.dataset);
        Some(Self {
            flops: counted(
                &method.method,
                hyper,
                protocol,
                sizes.as_ref().map(|(data, encoder)| (data, encoder)),
            ),
            spec: resolved.train_spec(method, dataset, 0),
            method,
            hyper,
            protocol,
            sizes,
        })
    }

    fn row(&self, open: &Open<'_>, timings: &[Timing], hardware: Option<&Hardware>) -> Row {
        let max_epochs = self.spec.max_epochs;
        let same: Vec<&Timing> = timings
            .iter()
            .filter(|timing| self.is_same(timing))
            .collect();
        let epochs = self.expected_epochs(&same);
        let flops = self.flops;
        let predicted = self.predicted_in_epoch();
        let tested = self.predicted_in_evaluation();
        let epoch_flop = flops.map(|f| f.steps * f.step + predicted * f.sample);
        let epoch = match measured(&same, true, hardware) {
            Some(measured) => measured,
            None => estimated(flops, hardware, |f, per_step, per_sample| {
                f.steps * per_step + predicted * per_sample
            }),
        };
        let (seconds, source) = epoch;
        let training = Cost {
            flop: epoch_flop.map(|flop| f64::from(max_epochs) * flop),
            seconds: seconds.map(|seconds| f64::from(max_epochs) * seconds),
            expected_seconds: seconds
                .zip(epochs)
                .map(|(seconds, epochs)| epochs * seconds),
            source,
        };
        let (seconds, source) = match measured(&same, false, hardware) {
            Some(measured) => measured,
            None => of_samples(flops, hardware, tested),
        };
        let evaluation = Cost {
            flop: flops.map(|f| tested * f.sample),
            seconds,
            expected_seconds: None,
            source,
        };
        Row {
            method: open.model.to_owned(),
            dataset: open.dataset.to_owned(),
            training_jobs: open.trainings,
            evaluation_jobs: open.evaluations,
            step_flop: flops.map(|f| f.step),
            sample_flop: flops.map(|f| f.sample),
            max_epochs,
            stops_early: self.stops_early(),
            expected_epochs: epochs,
            training,
            evaluation,
        }
    }

    /// The epochs of trainings that might have had as many as these, and could stop sooner. They depend on no
    /// device.
    fn expected_epochs(&self, same: &[&Timing]) -> Option<f64> {
        let most = self.spec.max_epochs;
        let as_long = |timing: &&&Timing| {
            let epochs = timing.spec.get("max_epochs").and_then(Value::as_u64);
            timing.trains && epochs >= Some(most.into())
        };
        let trainings = same.iter().filter(as_long);
        let epochs = mean(trainings.filter_map(|timing| Some((timing.jobs, timing.epochs?))))?;
        self.stops_early().then(|| epochs.min(most.into()))
    }

    /// Whether a training may end before its last epoch. What an external program does, it alone knows.
    fn stops_early(&self) -> bool {
        stops_early(self.hyper) || methods::find(&self.method.method).is_none()
    }

    /// Samples that are predicted after an epoch: of the splits that select, and of the validation split for
    /// the loss by which the reference stops.
    fn predicted_in_epoch(&self) -> f64 {
        let Some((data, _)) = &self.sizes else {
            return 0.0;
        };
        let [_, valid, test] = data.samples.map(|samples| samples as f64);
        let selection = self.protocol.selection;
        let selecting = match selection {
            Selection::Validation => valid,
            Selection::Test => test,
            Selection::Both => valid + test,
        };
        let fault = Fault::BatchMeanLoss;
        let kept = fault.concerns(&self.method.method) && self.protocol.faults().keeps(fault);
        let again = self.stops_early() && (kept || selection == Selection::Test);
        selecting + if again { valid } else { 0.0 }
    }

    /// Samples that an evaluation predicts, once for each checkpoint.
    fn predicted_in_evaluation(&self) -> f64 {
        let test = self.sizes.map_or(0, |(data, _)| data.samples[2]);
        test as f64 * checkpoints(self.protocol.selection)
    }

    /// Whether jobs that were timed did the same work: the same method on the same files, in batches of the same
    /// size, with as many operations. Rates, weights and dropout do not matter.
    fn is_same(&self, timing: &Timing) -> bool {
        let Ok(spec) = serde_json::from_value::<TrainSpec>(timing.spec.clone()) else {
            return false; // of a release that wrote other specs
        };
        let Ok(hyper) = serde_json::from_str::<Map<String, Value>>(&spec.hyper) else {
            return false;
        };
        let own = &self.spec;
        let files = |spec: &TrainSpec| (spec.data.blake3.clone(), spec.encoder.blake3.clone());
        let about = |spec: &TrainSpec| {
            (
                spec.dataset.id().to_owned(),
                spec.protocol.selection,
                spec.numerics,
            )
        };
        spec.method == own.method
            && about(&spec) == about(own)
            && files(&spec) == files(own)
            && hyper.get("batch_size") == self.hyper.get("batch_size")
            && match methods::find(&spec.method) {
                None => spec.variant == own.variant,
                Some(_) => {
                    let sizes = self.sizes.as_ref().map(|(data, encoder)| (data, encoder));
                    counted(&spec.method, &hyper, &spec.protocol, sizes) == self.flops
                }
            }
    }
}

/// The mean of values, each of so many jobs.
fn mean(of: impl Iterator<Item = (i64, f64)>) -> Option<f64> {
    let (jobs, sum) = of.fold((0.0, 0.0), |(jobs, sum), (n, value)| {
        (jobs + n as f64, sum + n as f64 * value)
    });
    (jobs > 0.0).then(|| sum / jobs)
}

/// Without the index that a machine gives it.
fn device_name(device: &str) -> &str {
    match device.split_once(' ') {
        Some((index, name)) if index.starts_with("cuda:") => name,
        _ => device,
    }
}

/// Seconds of an epoch or an evaluation that were measured on the hardware, or, without one, on the device that
/// did most jobs.
fn measured(
    same: &[&Timing],
    trains: bool,
    hardware: Option<&Hardware>,
) -> Option<(Option<f64>, Source)> {
    let of_kind: Vec<&&Timing> = same
        .iter()
        .filter(|timing| timing.trains == trains)
        .collect();
    // They come the most frequent first.
    let fits = |timing: &&&&Timing| hardware.is_none_or(|hardware| hardware.is(&timing.device));
    let device = device_name(&of_kind.iter().find(fits)?.device);
    let there = of_kind
        .iter()
        .filter(|timing| device_name(&timing.device) == device);
    let jobs: i64 = there.clone().map(|timing| timing.jobs).sum();
    let seconds = mean(there.map(|timing| (timing.jobs, timing.seconds)));
    let source = Source::Measured {
        device: device.to_owned(),
        jobs: jobs.max(0).unsigned_abs(),
    };
    Some((seconds, source))
}

/// Seconds by `of`, from those of a step and of a sample, with what bounds a step.
fn estimated(
    flops: Option<Flops>,
    hardware: Option<&Hardware>,
    of: impl Fn(&Flops, f64, f64) -> f64,
) -> (Option<f64>, Source) {
    let (Some(flops), Some(hardware)) = (flops, hardware) else {
        return (None, Source::Unknown);
    };
    let rate = hardware.flops_per_second;
    let computed = (flops.step, Unit::Flop, rate);
    let moved = hardware
        .bytes_per_second
        .map(|rate| (flops.step_bytes, Unit::Bytes, rate));
    let (amount, unit, per_second) = match moved {
        Some((bytes, unit, moving)) if bytes / moving > flops.step / rate => (bytes, unit, moving),
        _ => computed,
    };
    let seconds = of(&flops, amount / per_second, flops.sample / rate);
    let source = Source::Estimated {
        amount,
        unit,
        per_second,
    };
    (Some(seconds), source)
}

/// Seconds of so many predicted samples.
fn of_samples(
    flops: Option<Flops>,
    hardware: Option<&Hardware>,
    samples: f64,
) -> (Option<f64>, Source) {
    let (Some(flops), Some(hardware)) = (flops, hardware) else {
        return (None, Source::Unknown);
    };
    let source = Source::Estimated {
        amount: flops.sample,
        unit: Unit::Flop,
        per_second: hardware.flops_per_second,
    };
    let seconds = samples * flops.sample / hardware.flops_per_second;
    (Some(seconds), source)
}

#[cfg(test)]
mod tests;
