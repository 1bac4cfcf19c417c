//! Selecting on both splits, and the validation losses that schedules and early stopping go by.

use super::{
    BestRef, TrainOutcome, order,
    testing::{Toy, alone, data, dataset, spec},
    trainer_tests::{Recorder, trainer, without_times},
    validation,
};
use crate::{
    context::EncoderCache,
    methods::{
        Batch, Losses, Method, MethodError, MethodState, Position, ReferenceErasure,
        ReferenceValidation, StepOutcome,
    },
};
use halfheard_shared::{
    case::Rate,
    dataset::Dataset,
    methods::faults::Fault,
    regime::Regime,
    wire::{CheckpointRef, EpochLog, Fidelity, Selection, TrainSpec},
};
use std::{cell::RefCell, rc::Rc, sync::Arc};
use tch::{Device, Kind, Reduction, Tensor, nn};

type Trained = (Vec<EpochLog>, Vec<CheckpointRef>, u32);

fn selecting(selection: Selection, epochs: u32) -> TrainSpec {
    let mut spec = spec(epochs);
    spec.protocol.selection = selection;
    spec
}

fn train(file: &Arc<Dataset>, spec: TrainSpec) -> Trained {
    let mut recorder = Recorder::default();
    let finish = trainer(file, spec, Toy::new(1111)).run(&mut recorder);
    without_times(recorder.logs, finish.unwrap())
}

/// The checkpoints whose criteria begin with `prefix`, without it.
fn chosen(checkpoints: &[CheckpointRef], prefix: &str) -> Vec<CheckpointRef> {
    let own = checkpoints.iter().filter_map(|checkpoint| {
        let criterion = checkpoint.criterion.strip_prefix(prefix)?.to_owned();
        let plain = !criterion.contains(':');
        plain.then(|| CheckpointRef {
            criterion,
            ..checkpoint.clone()
        })
    });
    own.collect()
}

/// Both choices of one training are those of a training that selects on either split, bit for bit.
#[test]
fn both_splits_choose_as_each_would_alone() {
    let _alone = alone();
    let (_folder, file) = dataset(30);
    let each = [Selection::Validation, Selection::Test, Selection::Both];
    let [valid, test, both] = each.map(|selection| train(&file, selecting(selection, 12)));
    assert_eq!(chosen(&both.1, ""), valid.1);
    assert_eq!(chosen(&both.1, "test:"), test.1);
    assert_eq!(both.1.len(), 10);
    assert_ne!(valid.1, test.1, "the splits choose differently here");
    for ((both, valid), test) in both.0.iter().zip(&valid.0).zip(&test.0) {
        assert_eq!((&both.losses, &both.losses), (&valid.losses, &test.losses));
        for (id, value) in &valid.metrics {
            assert_eq!(both.metrics[id], *value, "{id}");
        }
        for (id, value) in test
            .metrics
            .iter()
            .filter(|(id, _)| *id != "validation_loss")
        {
            assert_eq!(both.metrics[&format!("test:{id}")], *value, "{id}");
        }
        assert_eq!(
            both.metrics.len(),
            valid.metrics.len() + test.metrics.len() - 1
        );
        let best = |prefix: &str, of: &EpochLog| {
            let ids = of.best_for.iter().map(|id| format!("{prefix}{id}"));
            ids.collect::<Vec<_>>()
        };
        assert_eq!(
            both.best_for,
            [best("", valid), best("test:", test)].concat()
        );
    }
}

/// Stops a training after every number of steps and resumes it from the saved state.
fn resumes_exactly(file: &Arc<Dataset>, spec: &TrainSpec, toy: &dyn Fn() -> Toy) {
    let run = |stop_after, resumed: Option<&super::Snapshot>| {
        let mut recorder = Recorder {
            stop_after,
            ..Recorder::default()
        };
        let mut trainer = trainer(file, spec.clone(), toy());
        if let Some(saved) = resumed {
            let fetch = &mut |wanted: &BestRef| {
                let mut best = saved.best.iter();
                let found = best.find(|b| b.blake3.as_str() == wanted.blake3);
                found.map(|b| b.content.clone())
            };
            trainer.resume(&saved.state, fetch).unwrap();
        }
        let outcome = trainer.run(&mut recorder).unwrap();
        (recorder, outcome)
    };
    let (recorder, outcome) = run(None, None);
    let steps = recorder.directives;
    let expected = without_times(recorder.logs, outcome);
    for stop_after in 1..steps {
        let (first, outcome) = run(Some(stop_after), None);
        assert!(matches!(outcome, TrainOutcome::Stopped { saved: true, .. }));
        let (rest, outcome) = run(None, first.saved.last());
        let logs = [first.logs, rest.logs].concat();
        assert_eq!(
            without_times(logs, outcome),
            expected,
            "stopped after {stop_after}"
        );
    }
}

#[test]
fn selection_on_both_splits_resumes_bit_exactly() {
    let _alone = alone();
    let (_folder, file) = dataset(30);
    resumes_exactly(&file, &selecting(Selection::Both, 3), &|| Toy::new(1111));
}

#[test]
fn loss_of_batches_resumes_bit_exactly() {
    let _alone = alone();
    let (_folder, file) = dataset(30);
    let mut spec = selecting(Selection::Both, 4);
    spec.method = "misa".to_owned();
    resumes_exactly(&file, &spec, &|| {
        let mut toy = Toy::new(1111);
        toy.patience = Some(2);
        toy
    });
}

/// What a method was asked to predict: the samples and the missing rate of a batch.
type Asked = Rc<RefCell<Vec<(i64, f64)>>>;

/// A method that errs as planned: on sample 0 by one that falls with the epochs, on others not at all.
struct Planted {
    vars: nn::VarStore,
    epoch: u32,
    uses: bool,
    erasure: ReferenceErasure,
    asked: Asked,
}

impl Planted {
    fn new(uses: bool, erasure: ReferenceErasure) -> (Box<Self>, Asked) {
        let vars = nn::VarStore::new(Device::Cpu);
        let _ = vars.root().zeros("w", &[1]);
        let asked = Asked::default();
        let planted = Self {
            vars,
            epoch: 1,
            uses,
            erasure,
            asked: asked.clone(),
        };
        (Box::new(planted), asked)
    }

    fn error(epoch: u32) -> f64 {
        f64::from(64 - epoch) / 8.0
    }
}

impl Method for Planted {
    fn vars(&self) -> &nn::VarStore {
        &self.vars
    }

    fn batch_size(&self) -> usize {
        2
    }

    fn train_step(&mut self, _at: Position, batch: &Batch) -> Result<StepOutcome, MethodError> {
        Ok(StepOutcome {
            prediction: batch.labels.shallow_clone(),
            losses: Losses::new(&[("loss", &Tensor::from(1.0))], &[]),
        })
    }

    fn predict(&self, batch: &Batch, _cache: Option<&EncoderCache>) -> Result<Tensor, MethodError> {
        let rate = batch.missing_rate.text.mean(Kind::Double).double_value(&[]);
        self.asked.borrow_mut().push((batch.len(), rate));
        let first = batch.index.eq(0).to_kind(Kind::Float);
        Ok(&batch.labels + first * Self::error(self.epoch))
    }

    fn validation_loss(&self, prediction: &Tensor, labels: &Tensor) -> f64 {
        prediction
            .l1_loss(labels, Reduction::Mean)
            .double_value(&[])
    }

    fn uses_validation_loss(&self) -> bool {
        self.uses
    }

    fn reference_validation(&self) -> ReferenceValidation {
        ReferenceValidation {
            erasure: self.erasure,
            rounded: true,
        }
    }

    fn end_epoch(&mut self, epoch: u32, _validation_loss: f64) -> Result<(), MethodError> {
        self.epoch = epoch + 1;
        Ok(())
    }

    fn patience(&self) -> Option<u32> {
        self.uses.then_some(1)
    }

    fn state(&self) -> Result<MethodState, MethodError> {
        Ok(MethodState::default())
    }

    fn restore(&mut self, _state: &MethodState) -> Result<(), MethodError> {
        Ok(())
    }
}

fn planted(file: &Arc<Dataset>, spec: TrainSpec, method: Box<Planted>) -> Trained {
    let mut recorder = Recorder::default();
    let mut trainer = super::Trainer::new(spec, method, &data(file)).unwrap();
    let finish = trainer.run(&mut recorder);
    without_times(recorder.logs, finish.unwrap())
}

fn misa(epochs: u32) -> TrainSpec {
    let mut spec = spec(epochs);
    spec.method = "misa".to_owned();
    spec
}

fn losses(trained: &Trained) -> Vec<f64> {
    let logs = trained.0.iter();
    logs.map(|log| log.metrics["validation_loss"].unwrap())
        .collect()
}

/// The 9 samples of the validation split are batches of 2, 2, 2, 2 and 1: the mean of batch means depends on
/// whether the erring sample is alone in the last, which the order of the epoch decides.
fn batch_mean(epoch: u32) -> f64 {
    let order = order::permutation(9, 1111, epoch, u32::MAX as usize);
    let alone = order[8] == 0;
    let loss = Planted::error(epoch) / if alone { 1.0 } else { 2.0 } / 5.0;
    (loss * 1e4).round() / 1e4
}

#[test]
fn early_stopping_goes_by_the_loss_of_the_reference_or_of_all_samples() {
    let _alone = alone();
    let (_folder, file) = dataset(30);
    let run = |fidelity, switched: &[Fault], selection| {
        let mut spec = misa(30);
        spec.protocol.fidelity = fidelity;
        spec.protocol.switched = switched.to_vec();
        spec.protocol.selection = selection;
        planted(
            &file,
            spec,
            Planted::new(true, ReferenceErasure::Complete).0,
        )
    };
    // With batch means: until the erring sample is alone in the last batch of an epoch.
    let alone = (1..)
        .find(|epoch| batch_mean(*epoch) > batch_mean(1))
        .unwrap();
    assert!((2..30).contains(&alone), "{alone}");
    let reference = run(Fidelity::Reference, &[], Selection::Validation);
    assert_eq!(reference.2, alone);
    let expected: Vec<f64> = (1..=alone).map(batch_mean).collect();
    let close = |a: &[f64], b: &[f64]| a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-6);
    assert!(close(&losses(&reference), &expected), "{reference:?}");
    // Over all samples the loss falls in every epoch.
    let corrected = run(Fidelity::Corrected, &[], Selection::Validation);
    assert_eq!(corrected.2, 30);
    let expected: Vec<f64> = (1..=30).map(|epoch| Planted::error(epoch) / 9.0).collect();
    assert!(close(&losses(&corrected), &expected), "{corrected:?}");
    // It is one fault of several, and no selection changes it.
    let fault = [Fault::BatchMeanLoss];
    assert_eq!(
        run(Fidelity::Reference, &fault, Selection::Validation),
        corrected
    );
    assert_eq!(
        run(Fidelity::Corrected, &fault, Selection::Validation),
        reference
    );
    for selection in [Selection::Test, Selection::Both] {
        let other = run(Fidelity::Reference, &[], selection);
        assert_eq!((other.2, losses(&other)), (alone, losses(&reference)));
    }
}

#[test]
fn validation_split_of_the_reference_is_erased_as_there() {
    let _alone = alone();
    let (_folder, file) = dataset(30);
    let rate = Rate::from_thousandths;
    let trained = |otherwise| ReferenceErasure::AsTrained { otherwise };
    // Selection predicts 9 samples at once at its rate; the reference's split comes in batches of two.
    let asked = |uses, method: &str, erasure, regime, selection_rate: u16| {
        let mut spec = misa(1);
        spec.method = method.to_owned();
        spec.protocol.train_missing = regime;
        spec.protocol.selection_rate = selection_rate;
        let (method, asked) = Planted::new(uses, erasure);
        planted(&file, spec, method);
        let asked = asked.borrow();
        assert_eq!(asked[0].0, 9);
        let rates = asked[1..]
            .iter()
            .map(|(_, rate)| (rate * 1000.0).round() as u16);
        let sizes: i64 = asked[1..].iter().map(|(samples, _)| samples).sum();
        assert!(sizes == 0 || sizes == 9, "{asked:?}");
        rates.collect::<Vec<u16>>()
    };
    let complete = ReferenceErasure::Complete;
    assert_eq!(asked(true, "misa", complete, Regime::Redrawn, 500), [0; 5]);
    let own = trained(Some(rate(200)));
    assert_eq!(asked(true, "tfr-net", own, Regime::Redrawn, 500), [200; 5]);
    assert_eq!(
        asked(true, "tfr-net", own, Regime::Fixed(rate(300)), 500),
        [300; 5]
    );
    assert_eq!(asked(true, "tfr-net", own, Regime::Complete, 500), [0; 5]);
    // Where it is erased as the selection is, nothing is predicted twice.
    let none: [u16; 0] = [];
    assert_eq!(
        asked(true, "emt-dlfr", trained(None), Regime::Redrawn, 500),
        none
    );
    assert_eq!(asked(true, "tfr-net", own, Regime::Redrawn, 200), none);
    // Nor where nothing goes by the loss, and for methods whose reference has no such loss.
    assert_eq!(asked(false, "misa", complete, Regime::Redrawn, 500), none);
    assert_eq!(asked(true, "lnln", complete, Regime::Redrawn, 500), none);
}

/// Batches of predictions that are there have the loss of batches that are predicted.
#[test]
fn predictions_of_the_selection_have_the_same_loss() {
    let _alone = alone();
    let (_folder, file) = dataset(30);
    let mut spec = misa(3);
    spec.protocol.selection_rate = 0;
    let run = |selection| {
        let mut spec = spec.clone();
        spec.protocol.selection = selection;
        losses(&planted(
            &file,
            spec,
            Planted::new(true, ReferenceErasure::Complete).0,
        ))
    };
    // With the test split alone, the validation split is predicted for the loss.
    assert_eq!(run(Selection::Validation), run(Selection::Test));
}

#[test]
fn mean_of_no_batches_is_zero() {
    let (method, _) = Planted::new(true, ReferenceErasure::Complete);
    let none = std::iter::empty::<Result<Batch, MethodError>>();
    assert_eq!(
        validation::mean_of_batches(&*method, none, &mut |_| {}).unwrap(),
        0.0
    );
}
