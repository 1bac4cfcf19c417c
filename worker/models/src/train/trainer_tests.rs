//! Training, resuming and evaluating a toy method.

use super::{
    BestRef, CaseResult, Directive, EvalCase, EvalObserver, EvalProgress, LoadedModel, Snapshot,
    StateError, StepReport, TrainError, TrainObserver, TrainOutcome, Trainer, evaluate, failure,
    testing::{Toy, alone, data, dataset, spec},
    trainer::{MIN_IMPROVEMENT, ROUND},
};
use bytes::Bytes;
use halfheard_shared::{
    dataset::Dataset,
    features::Features,
    wire::{CheckpointRef, EpochLog, FailureKind, Selection, TrainSpec},
};
use std::{collections::BTreeMap, sync::Arc};

/// Stops after `stop_after` directives and records what it observes.
#[derive(Default)]
pub(super) struct Recorder {
    pub(super) directives: usize,
    pub(super) stop_after: Option<usize>,
    pub(super) logs: Vec<EpochLog>,
    pub(super) saved: Vec<Snapshot>,
    pub(super) save_always: bool,
}

impl TrainObserver for Recorder {
    fn directive(&mut self, _view: StepReport) -> Directive {
        self.directives += 1;
        match self.stop_after {
            Some(after) if self.directives >= after => Directive::SaveAndStop,
            _ if self.save_always => Directive::Save,
            _ => Directive::Continue,
        }
    }

    fn epoch_ended(&mut self, log: EpochLog) {
        self.logs.push(log);
    }

    fn save(&mut self, snapshot: Snapshot) {
        self.saved.push(snapshot);
    }
}

pub(super) fn trainer(file: &Arc<Dataset>, spec: TrainSpec, toy: Toy) -> Trainer {
    Trainer::new(spec, Box::new(toy), &data(file)).unwrap()
}

/// What must be equal: everything except times.
pub(super) fn without_times(
    mut logs: Vec<EpochLog>,
    finish: TrainOutcome,
) -> (Vec<EpochLog>, Vec<CheckpointRef>, u32) {
    for log in &mut logs {
        (log.train_seconds, log.eval_seconds) = (0.0, 0.0);
    }
    let TrainOutcome::Completed {
        checkpoints,
        contents,
        epochs,
        ..
    } = finish
    else {
        panic!("not done: {finish:?}");
    };
    for checkpoint in &checkpoints {
        let content = contents
            .iter()
            .find(|c| c.blake3.as_str() == checkpoint.blake3);
        assert_eq!(content.unwrap().content.len() as u64, checkpoint.bytes);
    }
    (logs, checkpoints, epochs)
}

fn undisturbed(file: &Arc<Dataset>) -> (Vec<EpochLog>, Vec<CheckpointRef>, u32) {
    undisturbed_under(file, spec(3))
}

fn undisturbed_under(
    file: &Arc<Dataset>,
    spec: TrainSpec,
) -> (Vec<EpochLog>, Vec<CheckpointRef>, u32) {
    let mut recorder = Recorder::default();
    let finish = trainer(file, spec, Toy::new(1111)).run(&mut recorder);
    without_times(recorder.logs, finish.unwrap())
}

/// Three epochs under a regime.
fn spec_under(regime: &str) -> TrainSpec {
    let mut spec = spec(3);
    spec.protocol.train_missing = regime.parse().unwrap();
    spec
}

#[test]
fn each_regime_trains_another_model() {
    let _alone = alone();
    let (_folder, file) = dataset(30);
    let regimes = [
        "complete",
        "fixed:0.2",
        "drawn-once",
        "redrawn",
        "lnln-loader",
    ];
    let trained = regimes.map(|regime| undisturbed_under(&file, spec_under(regime)));
    for (i, one) in trained.iter().enumerate() {
        for (other, name) in trained.iter().zip(regimes).skip(i + 1) {
            assert_ne!(one.0, other.0, "{} and {name}", regimes[i]);
        }
    }
}

#[test]
fn resuming_from_any_step_is_bit_exact() {
    let _alone = alone();
    // The last one's erasure depends on the order of each pass.
    for regime in ["redrawn", "lnln-loader"] {
        resuming_is_exact(&spec_under(regime));
    }
}

fn resuming_is_exact(spec: &TrainSpec) {
    let (_folder, file) = dataset(30);
    let expected = undisturbed_under(&file, spec.clone());
    assert_eq!(expected.2, 3);
    assert_eq!(expected.0.len(), 3);
    assert_eq!(expected.1.len(), 5, "one checkpoint for each criterion");
    // 3 epochs of 2 passes of 4 batches and an end each.
    for stop_after in 1..=27 {
        let mut recorder = Recorder {
            stop_after: Some(stop_after),
            ..Recorder::default()
        };
        let first = trainer(&file, spec.clone(), Toy::new(1111))
            .run(&mut recorder)
            .unwrap();
        let snapshot = recorder.saved.last().unwrap();
        let mut logs = recorder.logs;
        let TrainOutcome::Stopped {
            saved: true,
            after_epoch,
        } = first
        else {
            panic!("{first:?}");
        };
        assert_eq!(after_epoch, snapshot.after_epoch);
        // The next attempt starts with other weights and another generator state.
        let mut next = trainer(&file, spec.clone(), Toy::new(7));
        let best = snapshot.best.clone();
        next.resume(&snapshot.state, &mut |wanted| {
            let found = best.iter().find(|b| b.blake3.as_str() == wanted.blake3);
            found.map(|b| b.content.clone())
        })
        .unwrap();
        assert_eq!(next.after_epoch(), after_epoch);
        let mut recorder = Recorder::default();
        let finish = next.run(&mut recorder).unwrap();
        logs.extend(recorder.logs);
        assert_eq!(
            without_times(logs, finish),
            expected,
            "stopped after {stop_after}"
        );
    }
}

#[test]
fn saving_preserves_results_and_waits_for_updates() {
    let _alone = alone();
    let (_folder, file) = dataset(30);
    let mut recorder = Recorder {
        save_always: true,
        ..Recorder::default()
    };
    let finish = trainer(&file, spec(3), Toy::new(1111)).run(&mut recorder);
    assert_eq!(
        without_times(recorder.logs, finish.unwrap()),
        undisturbed(&file)
    );
    // The second and the fourth of four batches are followed by an update; so is each epoch's end.
    assert_eq!(recorder.saved.len(), 3 * (2 * 2 + 1));
}

#[test]
fn training_reduces_the_loss() {
    let _alone = alone();
    let (_folder, file) = dataset(30);
    let mut recorder = Recorder::default();
    trainer(&file, spec(12), Toy::new(1111))
        .run(&mut recorder)
        .unwrap();
    let (first, last) = (&recorder.logs[0], &recorder.logs[11]);
    assert!(last.losses["task"] < 0.8 * first.losses["task"]);
    assert_eq!(
        first.best_for.len(),
        5,
        "the first epoch is the best so far"
    );
    assert!(last.metrics["validation_loss"] < first.metrics["validation_loss"]);
}

#[test]
fn state_of_another_spec_is_rejected() {
    let _alone = alone();
    let (_folder, file) = dataset(30);
    let mut recorder = Recorder {
        stop_after: Some(10),
        ..Recorder::default()
    };
    trainer(&file, spec(3), Toy::new(1))
        .run(&mut recorder)
        .unwrap();
    let snapshot = &recorder.saved[0];
    let mut other = spec(3);
    other.seed += 1;
    let mut fetch = |_: &BestRef| Some(Bytes::new());
    let error = trainer(&file, other, Toy::new(1)).resume(&snapshot.state, &mut fetch);
    assert!(matches!(error, Err(StateError::Other)), "{error:?}");
    // Another path hint is the same training spec.
    let mut moved = spec(3);
    moved.data.path = "elsewhere".to_owned();
    trainer(&file, moved, Toy::new(1))
        .resume(&snapshot.state, &mut fetch)
        .unwrap();
    // A state is useless without its best checkpoint.
    let gone = trainer(&file, spec(3), Toy::new(1)).resume(&snapshot.state, &mut |_| None);
    assert!(matches!(gone, Err(StateError::Damaged(_))), "{gone:?}");
}

#[test]
fn non_finite_loss_fails_with_its_step_and_parts() {
    let _alone = alone();
    let (_folder, file) = dataset(30);
    let mut toy = Toy::new(1);
    toy.nan_at = Some(2);
    let mut trainer = trainer(&file, spec(3), toy);
    let mut recorder = Recorder::default();
    let error = trainer.run(&mut recorder).unwrap_err();
    let failure = failure("train toy", &error);
    assert_eq!(failure.kind, FailureKind::NonFinite);
    let text = failure.chain.join(": ");
    assert!(text.contains("epoch 2, pass 1, step 1 of 4"), "{text}");
    assert!(text.contains("task = NaN"), "{text}");
    assert_eq!(
        trainer.best_checkpoints().len(),
        5,
        "the finite epoch is kept"
    );
}

/// As on a GPU, where losses are read once a round.
#[test]
fn losses_read_in_rounds_are_the_same_and_fail_at_the_same_step() {
    let _alone = alone();
    let (_folder, file) = dataset(30);
    // Rounds end within epochs, and not at all.
    for round in [3, ROUND] {
        let in_rounds = |toy| {
            let mut trainer = trainer(&file, spec(3), toy);
            trainer.round = round;
            trainer
        };
        let mut recorder = Recorder::default();
        let finish = in_rounds(Toy::new(1111)).run(&mut recorder);
        assert_eq!(
            without_times(recorder.logs, finish.unwrap()),
            undisturbed(&file),
            "{round}"
        );
        for save_always in [false, true] {
            let mut toy = Toy::new(1);
            toy.nan_at = Some(2);
            let mut recorder = Recorder {
                save_always,
                ..Recorder::default()
            };
            let error = in_rounds(toy).run(&mut recorder).unwrap_err();
            let text = failure("train toy", &error).chain.join(": ");
            assert!(text.contains("epoch 2, pass 1, step 1 of 4"), "{text}");
            assert!(text.contains("task = NaN"), "{text}");
            assert_eq!(recorder.logs.len(), 1);
            // Nothing is saved of what came after it.
            let last = recorder.saved.last().map(|s| (s.after_epoch, s.steps));
            assert_eq!(last, save_always.then_some((1, 8)), "{round}");
        }
    }
}

#[test]
fn infinite_loss_that_no_step_uses_is_undefined_in_its_epoch_alone() {
    let _alone = alone();
    let (_folder, file) = dataset(30);
    let toy = || {
        let mut toy = Toy::new(1111);
        toy.unused = Some(2);
        toy
    };
    let mut recorder = Recorder {
        save_always: true,
        ..Recorder::default()
    };
    let finish = trainer(&file, spec(3), toy()).run(&mut recorder);
    let whole = without_times(recorder.logs, finish.unwrap());
    let unused: Vec<_> = whole.0.iter().map(|log| log.losses.get("unused")).collect();
    assert_eq!(unused, [Some(&2.0), None, Some(&2.0)]);
    // It changes nothing else.
    let (mut logs, checkpoints, epochs) = whole.clone();
    for log in &mut logs {
        log.losses.remove("unused");
    }
    assert_eq!((logs, checkpoints, epochs), undisturbed(&file));
    // A state of the middle of that epoch holds it.
    let middle = recorder
        .saved
        .iter()
        .find(|s| s.after_epoch == 1 && s.steps > 10);
    let middle = middle.unwrap();
    let mut resumed = trainer(&file, spec(3), toy());
    let fetch = &mut |wanted: &BestRef| {
        let found = middle
            .best
            .iter()
            .find(|b| b.blake3.as_str() == wanted.blake3);
        found.map(|b| b.content.clone())
    };
    resumed.resume(&middle.state, fetch).unwrap();
    let mut recorder = Recorder::default();
    resumed.run(&mut recorder).unwrap();
    assert!(!recorder.logs[0].losses.contains_key("unused"));
}

#[test]
fn panic_in_a_method_is_a_failure() {
    let _alone = alone();
    let (_folder, file) = dataset(30);
    let mut toy = Toy::new(1);
    toy.panic_at = Some(1);
    let error = trainer(&file, spec(3), toy)
        .run(&mut Recorder::default())
        .unwrap_err();
    let failure = failure("train toy", &error);
    assert_eq!(failure.kind, FailureKind::Permanent, "it would panic again");
    assert!(failure.chain[1].contains("the toy broke"), "{failure:?}");
}

#[test]
fn training_stops_early_after_patience() {
    let _alone = alone();
    let (_folder, file) = dataset(30);
    let mut toy = Toy::new(1);
    toy.patience = Some(1);
    let mut recorder = Recorder::default();
    let finish = trainer(&file, spec(500), toy).run(&mut recorder).unwrap();
    let epochs = without_times(recorder.logs.clone(), finish).2;
    assert!(epochs < 500, "{epochs}");
    let losses: Vec<f64> = recorder
        .logs
        .iter()
        .map(|log| log.metrics["validation_loss"].unwrap())
        .collect();
    let (last, before) = losses.split_last().unwrap();
    assert!(before.windows(2).all(|w| w[1] <= w[0] - MIN_IMPROVEMENT));
    assert!(*last > before[before.len() - 1] - MIN_IMPROVEMENT);
}

#[test]
fn test_selection_keeps_validation_schedule() {
    let _alone = alone();
    let (_folder, file) = dataset(30);
    let run = |selection| {
        let mut spec = spec(3);
        spec.protocol.selection = selection;
        let mut recorder = Recorder::default();
        trainer(&file, spec, Toy::new(1111))
            .run(&mut recorder)
            .unwrap();
        recorder.logs
    };
    let (valid, test) = (run(Selection::Validation), run(Selection::Test));
    for (valid, test) in valid.iter().zip(&test) {
        assert_eq!(valid.losses, test.losses, "the weights are the same");
        assert_eq!(
            valid.metrics["validation_loss"],
            test.metrics["validation_loss"]
        );
        assert_ne!(valid.metrics["mae"], test.metrics["mae"]);
    }
}

/// Records evaluations and stops them after `enough` cases.
#[derive(Default)]
struct EvalRecorder {
    begun: Vec<Vec<usize>>,
    ended: BTreeMap<usize, CaseResult>,
    at: Vec<EvalProgress>,
    enough: Option<usize>,
}

impl EvalObserver for EvalRecorder {
    fn cases_started(&mut self, cases: &[usize]) {
        self.begun.push(cases.to_vec());
    }

    fn should_continue(&mut self, at: EvalProgress) -> bool {
        assert!(at.batch < at.batches, "{at:?}");
        assert_eq!(at.done, self.ended.len());
        self.at.push(at);
        self.enough.is_none_or(|enough| at.done < enough)
    }

    fn case_finished(
        &mut self,
        case: usize,
        seconds: f64,
        outcome: Result<CaseResult, TrainError>,
    ) {
        assert!(seconds >= 0.0 && seconds.is_finite());
        self.ended.insert(case, outcome.unwrap());
    }
}

/// Cases are finished in groups that share a text, and those finished before a stop are reported.
#[test]
fn cases_are_reported_as_they_finish() {
    let _alone = alone();
    let (_folder, file) = dataset(30);
    let finish = trainer(&file, spec(3), Toy::new(1111)).run(&mut Recorder::default());
    let TrainOutcome::Completed {
        checkpoints,
        contents,
        ..
    } = finish.unwrap()
    else {
        panic!("not done");
    };
    let cases: Vec<EvalCase> = ["r=0", "r=0.5", "missing=a", "missing=lv"]
        .iter()
        .map(|case| EvalCase {
            case: case.parse().unwrap(),
            checkpoints: checkpoints.clone(),
            confusions: None,
        })
        .collect();
    let data = data(&file);
    let mut model = LoadedModel::with(spec(3), Box::new(Toy::new(99)));
    let mut fetch = |wanted: &CheckpointRef| {
        let found = contents.iter().find(|c| c.blake3.as_str() == wanted.blake3);
        Ok(found.unwrap().content.clone())
    };
    let mut recorder = EvalRecorder {
        enough: Some(2),
        ..EvalRecorder::default()
    };
    let all = evaluate(
        &mut model,
        &spec(3),
        &data,
        &cases,
        &mut fetch,
        &mut recorder,
    );
    assert!(!all.unwrap(), "it was stopped");
    // Without audio the text is complete, as at r=0.
    assert_eq!(recorder.begun[0], [0, 2]);
    assert!(recorder.ended.keys().eq(&[0, 2]));
    let first: Vec<usize> = recorder
        .at
        .iter()
        .filter(|at| at.done == 0)
        .map(|at| at.batch)
        .collect();
    assert_eq!(first, (0..recorder.at[0].batches).collect::<Vec<_>>());
}

#[test]
fn case_result_is_independent_of_other_cases() {
    let _alone = alone();
    let (_folder, file) = dataset(30);
    let mut recorder = Recorder::default();
    let finish = trainer(&file, spec(3), Toy::new(1111)).run(&mut recorder);
    let TrainOutcome::Completed {
        checkpoints,
        contents,
        ..
    } = finish.unwrap()
    else {
        panic!("not done");
    };
    let cases: Vec<EvalCase> = ["r=0", "r=0.5", "missing=a", "missing=lv"]
        .iter()
        .map(|case| EvalCase {
            case: case.parse().unwrap(),
            checkpoints: checkpoints.clone(),
            confusions: None,
        })
        .collect();
    let data = data(&file);
    let fetched = std::cell::Cell::new(0);
    let run = |cases: &[EvalCase]| -> Vec<CaseResult> {
        let mut model = LoadedModel::with(spec(3), Box::new(Toy::new(99)));
        assert!(model.fits(&spec(3)));
        let mut recorder = EvalRecorder::default();
        let mut fetch = |wanted: &CheckpointRef| {
            fetched.set(fetched.get() + 1);
            let found = contents.iter().find(|c| c.blake3.as_str() == wanted.blake3);
            Ok(found.unwrap().content.clone())
        };
        let all = evaluate(
            &mut model,
            &spec(3),
            &data,
            cases,
            &mut fetch,
            &mut recorder,
        );
        assert!(all.unwrap());
        assert_eq!(recorder.begun.iter().flatten().count(), cases.len());
        recorder.ended.into_values().collect()
    };
    let together = run(&cases);
    assert_eq!(fetched.get(), contents.len(), "each checkpoint once");
    for (case, expected) in cases.iter().zip(&together) {
        assert_eq!(&run(std::slice::from_ref(case))[0], expected);
        assert_eq!(expected.results.len(), 5);
        assert_eq!(expected.predictions.len(), contents.len());
    }
    // Without audio, the toy predicts the same for all samples.
    let blind = &together[2].predictions[0];
    assert!(blind.iter().all(|p| p == &blind[0]));
    assert_ne!(together[0].predictions, together[1].predictions);

    // Features are stored for missing rates and for one criterion's checkpoint.
    let mae = checkpoints.iter().find(|c| c.criterion == "mae").unwrap();
    let features: Vec<Option<Features>> = together
        .iter()
        .map(|evaluated| {
            let kept = evaluated.features.as_ref()?;
            assert_eq!(kept.checkpoint, mae.blake3);
            Some(Features::from_bytes(&kept.content).unwrap())
        })
        .collect();
    let [Some(complete), Some(half), None, None] = &features[..] else {
        panic!("{features:?}");
    };
    assert_eq!(complete.index, (0..11).collect::<Vec<i64>>());
    assert_eq!(complete.width, 12);
    // The toy shows its audio, of which half of the steps are erased.
    let erased = |f: &Features| f.language.iter().filter(|x| **x == 0.0).count();
    assert_eq!(erased(complete), 0);
    assert!(erased(half) > 20, "{}", erased(half));
    let result = together[0].results.iter().find(|r| r.criterion == "mae");
    let predictions = &together[0].predictions[result.unwrap().predictions as usize];
    let offset = predictions[0] - complete.dominant[..12].iter().sum::<f32>();
    for (sample, prediction) in predictions.iter().enumerate() {
        let sum: f32 = complete.row(sample).unwrap().1.iter().sum();
        assert!(
            (prediction - sum - offset).abs() < 1e-5,
            "from one forward pass"
        );
    }
}
