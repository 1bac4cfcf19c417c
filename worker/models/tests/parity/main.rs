//! Every method against its reference implementation. The recordings in
//! `$HALFHEARD_SHARED/parity` contain weights, inputs, and the predictions of every forward pass in
//! several epochs of the reference's own trainer. Shapes and hyper-parameters are read from the
//! recording; [`cases`] translates the names.

#![expect(clippy::unwrap_used, reason = "a test fails on what a recording lacks")]

mod cases;
mod recording;

use cases::Case;
use halfheard_models::{
    context::Optimizations,
    methods::{Batch, Build, Method, MethodError, Position, builder},
    numerics::{Numerics, initialize},
    precision::Precision,
    train::mean_of_batches,
};
use halfheard_shared::methods::faults::Faults;
use recording::{Recording, shared};
use serde_json::Value;
use std::{collections::BTreeMap, fs, path::Path};
use tch::{Device, Tensor};

/// The largest difference from the recorded prediction of one call.
fn difference(recording: &Recording, call: usize, prediction: &Tensor) -> f64 {
    let expected = recording.get(&format!("call.{call:03}"));
    assert_eq!(
        prediction.numel(),
        expected.numel(),
        "number of samples in call {call}"
    );
    (prediction.reshape([-1]) - expected.reshape([-1]))
        .abs()
        .max()
        .double_value(&[])
}

/// Compares the recorded parts of the loss, in the order of the metadata.
fn compare_losses(
    meta: &Value,
    recorded: &Tensor,
    losses: &BTreeMap<&'static str, f64>,
    allowed: f64,
) {
    let names = meta["hyper"]["losses"].as_str().unwrap();
    for (i, name) in names.split(',').enumerate() {
        let expected = recorded.double_value(&[i as i64]);
        let gap = (losses[name] - expected).abs();
        assert!(
            gap <= allowed * expected.abs().max(1.0),
            "{name} is {}, recorded {expected}",
            losses[name]
        );
    }
}

fn load_weights(recording: &Recording, method: &dyn Method) {
    let mut variables: BTreeMap<String, Tensor> = method.vars().variables().into_iter().collect();
    let mut loaded: BTreeMap<String, &Tensor> = BTreeMap::new();
    let _guard = tch::no_grad_guard();
    for (name, tensor) in &recording.tensors {
        let Some(name) = name.strip_prefix("weights.") else {
            continue;
        };
        let Some(stored) = cases::stored_as(name) else {
            continue;
        };
        if let Some(first) = loaded.insert(stored.clone(), tensor) {
            assert!(tensor.equal(first), "`{name}` is not `{stored}`");
            continue;
        }
        let mut variable = variables
            .remove(&stored)
            .unwrap_or_else(|| panic!("the method has no weight `{name}`"));
        assert_eq!(variable.size(), tensor.size(), "shape of `{name}`");
        variable.copy_(tensor);
    }
    assert!(
        variables.is_empty(),
        "weights that the reference does not have: {:?}",
        variables.keys().collect::<Vec<_>>()
    );
}

/// Builds the method with the recorded hyper-parameters and weights.
fn build(case: &Case, recording: &Recording, encoder: &Path) -> Box<dyn Method> {
    let recorded = &recording.meta["hyper"];
    let mut hyper = (case.hyper)(recorded);
    hyper["batch_size"] = recording.meta["batch_size"].clone();
    let max_epochs = recorded["n_epochs"]
        .as_u64()
        .or_else(|| recorded["max_epochs"].as_u64())
        .unwrap_or_else(|| recording.meta["epochs"].as_u64().unwrap());
    tch::manual_seed(1);
    let method = builder(case.method).unwrap()(&Build {
        hyper: &hyper,
        dataset: recorded["dataset_name"].as_str().unwrap_or("mosi"),
        data: recording.shape(),
        encoder,
        device: Device::Cpu,
        faults: Faults::REFERENCE,
        max_epochs: max_epochs as u32,
        // The reference computes whole tensors, one at a time; optimizations round sums differently.
        // tests/methods checks that they change no result by more than that.
        optimizations: Optimizations::NONE,
        precision: Precision::Float32,
    })
    .unwrap();
    load_weights(recording, method.as_ref());
    method
}

/// Compares predictions with the recorded calls, in order.
struct Comparison<'a> {
    case: &'a Case,
    recording: &'a Recording,
    /// The recorded kind of every call: `train` or `eval`.
    kinds: Vec<&'a str>,
    limits: Value,
    calls: usize,
    training_steps: i64,
    largest: f64,
}

impl<'a> Comparison<'a> {
    fn new(case: &'a Case, recording: &'a Recording) -> Self {
        let tolerances = fs::read_to_string(shared().join("parity/tolerances.json")).unwrap();
        let mut tolerances: Value = serde_json::from_str(&tolerances).unwrap();
        let kinds = recording.meta["calls"].as_array().unwrap();
        Self {
            case,
            recording,
            kinds: kinds.iter().map(|kind| kind.as_str().unwrap()).collect(),
            limits: tolerances[case.recording].take(),
            calls: 0,
            training_steps: 0,
            largest: 0.0,
        }
    }

    fn limit(&self, name: &str) -> f64 {
        self.limits[name].as_f64().unwrap()
    }

    fn prediction(&mut self, kind: &str, prediction: &Tensor) {
        let call = self.calls;
        assert_eq!(self.kinds[call], kind, "kind of call {call}");
        let gap = difference(self.recording, call, prediction);
        let allowed = self.limit(if call == 0 {
            "first_call"
        } else {
            "every_call"
        });
        assert!(
            gap <= allowed,
            "{}: call {call} ({kind}) differs by {gap:e}, allowed {allowed:e}",
            self.case.method
        );
        self.largest = self.largest.max(gap);
        self.calls += 1;
    }

    fn losses(&mut self, losses: &BTreeMap<&'static str, f64>) {
        if let Some(recorded) = self.recording.try_get("losses") {
            compare_losses(
                &self.recording.meta,
                &recorded.get(self.training_steps),
                losses,
                self.limit("every_call").max(1e-4),
            );
            self.training_steps += 1;
        }
    }

    fn predictions(&mut self, method: &dyn Method, batches: &[Batch]) {
        for batch in batches {
            self.prediction("eval", &method.predict(batch, None).unwrap());
        }
    }
}

/// Trains one epoch.
fn train(method: &mut dyn Method, epoch: u32, batches: &[Batch], comparison: &mut Comparison<'_>) {
    let steps = batches.len();
    for pass in 0..method.passes() {
        let at = |step| Position {
            epoch,
            pass,
            step,
            steps,
        };
        method.begin_pass(at(0)).unwrap();
        let taken = method.steps_of_pass(pass, steps);
        for (step, batch) in batches.iter().take(taken).enumerate() {
            let outcome = method.train_step(at(step), batch).unwrap();
            comparison.losses(&outcome.losses.read(at(step)).unwrap());
            comparison.prediction("train", &outcome.prediction);
        }
        method.end_pass(at(taken)).unwrap();
    }
}

/// Predicts the validation split in the recorded order. Returns the loss that the recorded schedules
/// use, as the trainer takes it.
fn validate(method: &dyn Method, batches: Vec<Batch>, comparison: &mut Comparison<'_>) -> f64 {
    let batches = batches.into_iter().map(Ok::<_, MethodError>);
    mean_of_batches(method, batches, &mut |prediction| {
        comparison.prediction("eval", prediction);
    })
    .unwrap()
}

fn check(case: &Case) {
    let Some(recording) = Recording::open(case.recording) else {
        return;
    };
    initialize(Numerics::Machine).unwrap();
    tch::set_num_threads(1);
    let encoder = tempfile::tempdir().unwrap();
    recording.write_encoder(encoder.path());
    let mut method = build(case, &recording, encoder.path());
    let mut comparison = Comparison::new(case, &recording);

    let meta = &recording.meta;
    let size = meta["batch_size"].as_i64().unwrap();
    let epochs = meta["epochs"].as_u64().unwrap() as u32;
    let batches = |split| recording.batches(split, case.erased, size);
    let train_batches = batches("train");
    for batch in &train_batches {
        method.prepare(batch).unwrap();
    }
    let validates = meta["hyper"]["do_validation"].as_bool().unwrap_or(true);
    for epoch in 1..=epochs {
        train(method.as_mut(), epoch, &train_batches, &mut comparison);
        let validation = if validates {
            batches("valid")
        } else {
            Vec::new()
        };
        let loss = validate(method.as_ref(), validation, &mut comparison);
        if case.test_each_epoch {
            comparison.predictions(method.as_ref(), &batches("test"));
        }
        method.end_epoch(epoch, loss).unwrap();
    }
    if !case.test_each_epoch {
        comparison.predictions(method.as_ref(), &batches("test"));
    }
    assert_eq!(comparison.calls, comparison.kinds.len(), "calls compared");
    println!(
        "{}: {} calls, largest difference {:.2e}, allowed {:.0e}",
        case.method,
        comparison.calls,
        comparison.largest,
        comparison.limit("every_call")
    );
}
