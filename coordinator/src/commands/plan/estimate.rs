//! What a sweep will take: room in the artifact store and in the database, and, for programs that read it, the
//! time on whatever worker it was measured on.

use super::model_name::model_name;
use crate::{housekeeping::size::Bytes, submission::Loaded};
use halfheard_shared::{
    methods::{
        self, Setup,
        memory::{checkpoints, needed},
    },
    wire::{MAX_BYTES, Selection},
};
use halfheard_store::gc::Measured;
use serde::Serialize;
use std::fmt;

/// Bytes of a report beside its predictions: names, metrics.
const REPORT: u64 = 16 << 10;
/// What rows and indexes of one evaluation take in the database beside its predictions: about fifteen
/// metrics for each of five criteria, once for each split that selects.
const EVALUATION_ROWS: u64 = 12 << 10;

/// The open jobs of one model on one dataset.
pub(super) struct Open<'a> {
    /// `METHOD` or `METHOD/VARIANT`.
    pub(super) model: &'a str,
    pub(super) dataset: &'a str,
    pub(super) trainings: usize,
    pub(super) evaluations: usize,
}

/// What the open jobs will take.
#[derive(Debug, Default, Serialize)]
pub(super) struct Estimate {
    /// Of checkpoints.
    checkpoint_bytes: u64,
    /// Of the largest saved state: each training at work has one.
    state_bytes: u64,
    /// Of predictions and results in the database.
    database_bytes: u64,
    /// Of the largest report.
    report_bytes: u64,
    /// Models on datasets whose checkpoints were never measured: theirs are computed from the model.
    computed: usize,
    /// Models on datasets of which no size is known.
    unknown: Vec<String>,
    /// Seconds on one worker, of what was measured.
    seconds: f64,
    /// Models on datasets that were never trained: their time is not in `seconds`.
    unmeasured: Vec<String>,
}

impl Estimate {
    /// Adds up what is open. `measured` is what earlier trainings took.
    pub(super) fn new<'a>(
        loaded: &Loaded,
        open: impl Iterator<Item = Open<'a>>,
        measured: &[Measured],
    ) -> Self {
        let mut estimate = Self::default();
        for open in open.filter(|open| open.trainings + open.evaluations > 0) {
            let earlier = earlier(loaded, &open, measured);
            estimate.add_room(loaded, &open, earlier.as_ref());
            estimate.add_time(loaded, &open, earlier.as_ref());
        }
        estimate
    }

    fn add_room(&mut self, loaded: &Loaded, open: &Open<'_>, earlier: Option<&Measured>) {
        let trainings = open.trainings as u64;
        let selection = loaded.resolved.protocol.selection;
        let memory = memory_of(loaded, open);
        self.state_bytes = self
            .state_bytes
            .max(memory.map_or(0, |memory| memory.state));
        match (earlier.and_then(|earlier| earlier.checkpoint_bytes), memory) {
            (Some(bytes), _) => self.checkpoint_bytes += trainings * bytes as u64,
            (None, Some(memory)) => {
                self.computed += 1;
                let each = (checkpoints(selection) * memory.checkpoint as f64) as u64;
                self.checkpoint_bytes = self
                    .checkpoint_bytes
                    .saturating_add(trainings.saturating_mul(each));
            }
            (None, None) => self.unknown.push(named(open)),
        }
        let Some([.., test]) = loaded.samples(open.dataset) else {
            return;
        };
        let vector = 4 * test as u64;
        let each = (checkpoints(selection) * vector as f64) as u64
            + EVALUATION_ROWS * selection.splits().len() as u64;
        self.database_bytes = self
            .database_bytes
            .saturating_add((open.evaluations as u64).saturating_mul(each));
        // At worst each criterion has predictions of its own.
        let criteria = loaded
            .resolved
            .datasets
            .iter()
            .find(|dataset| dataset.benchmark.id() == open.dataset)
            .map_or(5, |dataset| selection.criteria(dataset.benchmark).len());
        let report = vector
            .saturating_mul(criteria as u64)
            .saturating_add(REPORT);
        self.report_bytes = self.report_bytes.max(report);
    }

    fn add_time(&mut self, loaded: &Loaded, open: &Open<'_>, earlier: Option<&Measured>) {
        let Some(earlier) = earlier else {
            self.unmeasured.push(named(open));
            return;
        };
        let most = max_epochs(loaded, open).unwrap_or(u32::MAX);
        let epochs = earlier.epochs.min(f64::from(most));
        self.seconds += open.trainings as f64 * epochs * earlier.epoch_seconds;
        self.seconds += open.evaluations as f64 * earlier.evaluation_seconds.unwrap_or(0.0);
    }
}

/// What earlier trainings of a model took; if they selected on other splits, converted to the checkpoints and
/// predictions of this sweep.
fn earlier(loaded: &Loaded, open: &Open<'_>, measured: &[Measured]) -> Option<Measured> {
    let both = loaded.resolved.protocol.selection == Selection::Both;
    let same_model = |earlier: &&Measured| {
        earlier.dataset == open.dataset
            && model_name(&earlier.method, &earlier.variant) == open.model
    };
    let own = || measured.iter().filter(same_model);
    let exact = own().find(|earlier| earlier.both == both);
    let found = exact.or_else(|| own().next())?.clone();
    let [_, valid, test] = loaded.samples(open.dataset).unwrap_or([0, 1, 1]);
    Some(converted(found, both, test as f64 / valid.max(1) as f64))
}

/// What a training would take if it selected on both splits, or on one. `share` is the size of the test split
/// relative to the validation split.
fn converted(found: Measured, both: bool, share: f64) -> Measured {
    let (times, seconds) = match (found.both, both) {
        (false, true) => (2.0, found.predict_seconds * share),
        (true, false) => (0.5, -found.predict_seconds * share / (1.0 + share)),
        _ => return found,
    };
    Measured {
        epoch_seconds: found.epoch_seconds + seconds,
        checkpoint_bytes: found.checkpoint_bytes.map(|bytes| bytes * times),
        evaluation_seconds: found.evaluation_seconds.map(|seconds| seconds * times),
        ..found
    }
}

fn named(open: &Open<'_>) -> String {
    format!("{} on {}", open.model, open.dataset)
}

fn memory_of(loaded: &Loaded, open: &Open<'_>) -> Option<methods::memory::Memory> {
    let method = loaded
        .resolved
        .methods
        .iter()
        .find(|method| model_name(&method.method, &method.variant) == open.model)?;
    let (data, encoder) = loaded.sizes(method, open.dataset)?;
    let setup = Setup {
        hyper: method.hyper.get(open.dataset)?,
        faults: loaded.resolved.protocol_of(method).faults(),
        data: Some(data),
        encoder: Some(encoder),
    };
    needed(methods::find(&method.method)?, setup)
}

fn max_epochs(loaded: &Loaded, open: &Open<'_>) -> Option<u32> {
    let resolved = &loaded.resolved;
    let method = resolved
        .methods
        .iter()
        .find(|method| model_name(&method.method, &method.variant) == open.model)?;
    let dataset = resolved
        .datasets
        .iter()
        .find(|dataset| dataset.benchmark.id() == open.dataset)?;
    let seed = *resolved.seeds.first()?;
    Some(resolved.train_spec(method, dataset, seed).max_epochs)
}

impl fmt::Display for Estimate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.checkpoint_bytes + self.database_bytes > 0 {
            let (checkpoints, state) = (Bytes(self.checkpoint_bytes), Bytes(self.state_bytes));
            write!(f, "disk: about {checkpoints} of checkpoints")?;
            if self.computed > 0 {
                write!(f, " (not measured yet: computed from the models)")?;
            }
            writeln!(
                f,
                ", {state} for the state of each training at work, {} in the database",
                Bytes(self.database_bytes)
            )?;
        }
        if self.report_bytes > MAX_BYTES as u64 {
            writeln!(
                f,
                "note: a result may have {}, and messages of more than {} are refused: split the test set",
                Bytes(self.report_bytes),
                Bytes(MAX_BYTES as u64)
            )?;
        }
        Ok(())
    }
}

/// Seconds as `2.5 s`, `40 s`, `12 min`, `5.5 h`, `3.2 days`.
pub(super) fn duration(seconds: f64) -> String {
    match seconds {
        s if s < 0.05 => "under 0.1 s".to_owned(),
        s if s < 9.95 => format!("{s:.1} s"),
        s if s < 100.0 => format!("{s:.0} s"),
        s if s < 6000.0 => format!("{:.0} min", s / 60.0),
        s if s < 172_800.0 => format!("{:.1} h", s / 3600.0),
        s => format!("{:.1} days", s / 86_400.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_has_the_unit_that_fits() {
        assert_eq!(duration(0.01), "under 0.1 s");
        assert_eq!(duration(2.54), "2.5 s");
        assert_eq!(duration(42.0), "42 s");
        assert_eq!(duration(720.0), "12 min");
        assert_eq!(duration(19_800.0), "5.5 h");
        assert_eq!(duration(276_480.0), "3.2 days");
    }

    #[test]
    fn measured_training_is_converted_to_both_splits_and_back() {
        let one = Measured {
            method: "lnln".to_owned(),
            variant: String::new(),
            dataset: "mosi".to_owned(),
            epoch_seconds: 10.0,
            epochs: 200.0,
            checkpoint_bytes: Some(3e6),
            evaluation_seconds: Some(2.0),
            both: false,
            predict_seconds: 1.0,
        };
        assert_eq!(converted(one.clone(), false, 3.0), one);
        // A test split of three times the validation split takes three times its seconds.
        let both = converted(one, true, 3.0);
        assert_eq!(
            (both.epoch_seconds, both.evaluation_seconds),
            (13.0, Some(4.0))
        );
        assert_eq!(both.checkpoint_bytes, Some(6e6));
        let measured = Measured {
            both: true,
            predict_seconds: 4.0,
            ..both
        };
        let back = converted(measured, false, 3.0);
        assert_eq!(
            (back.epoch_seconds, back.evaluation_seconds),
            (10.0, Some(2.0))
        );
    }
}
