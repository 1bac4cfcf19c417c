//! Splits: labels, erasure, batches.

use super::*;
use crate::train::testing::{dataset, dataset_of};
use halfheard_shared::{benchmark::definition::DefinitionSpec, wire::Fidelity};

fn values(tensor: &Tensor) -> Vec<f32> {
    Vec::try_from(tensor.flatten(0, -1)).unwrap()
}

/// Methods distinguish positive from negative by the sign: they see centered labels, and their
/// predictions are shifted back.
#[test]
fn labels_are_centered_and_predictions_shifted_back() {
    let text = "label_range = [0, 16]\nlanguage = \"en\"\nclasses = [2, 17]";
    let spec: DefinitionSpec = toml::from_str(text).unwrap();
    let kind = Protocol::own(spec.resolve().unwrap()).unwrap();
    let (_moved_folder, moved) = dataset_of(kind, 20);
    let (_folder, plain) = dataset(20);
    let split = |file: &Arc<Dataset>| {
        let data = Data::new(file.clone(), Device::Cpu);
        data.split(Split::Test).unwrap()
    };
    let (moved, plain) = (split(&moved), split(&plain));
    let (there, here) = (values(moved.device_labels()), values(plain.device_labels()));
    for ((there, here), original) in there.iter().zip(here).zip(moved.labels()) {
        assert!((there - here).abs() < 1e-5, "{there} {here}");
        assert_eq!(there + 8.0, *original);
    }
    let predictions = Tensor::from_slice(&[-0.5f32, 0.0, 2.0]);
    assert_eq!(moved.to_labels(&predictions).unwrap(), [7.5, 8.0, 10.0]);
    assert_eq!(plain.to_labels(&predictions).unwrap(), [-0.5, 0.0, 2.0]);
}

#[test]
fn batch_contains_samples_and_their_erasure() {
    let (_folder, file) = dataset(20);
    let data = Data::new(file.clone(), Device::Cpu);
    let split = data.split(Split::Test).unwrap();
    let case: Case = "missing=la".parse().unwrap();
    let erased = split.erase_case(&case, 1111, TokenIds::BERT).unwrap();
    let rows = Rows::new(vec![3, 1], Device::Cpu).unwrap();
    let batch = split.batch(rows, &erased, true).unwrap();
    let view = file.split(Split::Test);
    let size = file.shapes().audio_len * file.shapes().audio_dim;
    let complete = batch.complete.as_ref().unwrap();
    assert_eq!(
        values(&complete.audio),
        [
            &view.audio()[3 * size..4 * size],
            &view.audio()[size..2 * size]
        ]
        .concat()
    );
    assert!(values(&batch.input.audio).iter().all(|&x| x == 0.0));
    assert_eq!(values(&batch.labels), [view.labels()[3], view.labels()[1]]);
    // Vision is complete up to its length; [CLS] stays, the first word does not.
    assert_eq!(values(&batch.kept.vision), values(&batch.present.vision));
    let ids = |t: &Tensor| Vec::<i64>::try_from(t.get(0).get(0)).unwrap();
    let (was, is) = (ids(&complete.text), ids(&batch.input.text));
    assert_eq!((is[0], is[1]), (was[0], TokenIds::BERT.unknown));
    assert_eq!(values(&batch.missing_rate.text), [1.0, 1.0]);
    assert_eq!(values(&batch.missing_rate.vision), [0.0, 0.0]);
}

fn protocol(fidelity: Fidelity) -> wire::Protocol {
    wire::Protocol {
        selection: wire::Selection::Validation,
        train_missing: halfheard_shared::regime::Regime::Redrawn,
        erasure_seed: 1111,
        selection_rate: 500,
        fidelity,
        switched: Vec::new(),
    }
}

fn pass(seed: u64, epoch: u32) -> Pass<'static> {
    Pass {
        seed,
        epoch,
        pass: 0,
        order: &[],
        batch_size: 8,
    }
}

/// Otherwise samples would lose other steps in each epoch, and would not keep what was drawn once.
#[test]
fn corrected_training_draws_new_numbers_only_with_new_rates() {
    let (_folder, file) = dataset(20);
    let split = Data::new(file, Device::Cpu).split(Split::Train).unwrap();
    let kept = |regime: &str, epoch, fidelity| {
        let (regime, protocol) = (regime.parse().unwrap(), protocol(fidelity));
        let erased = split.erase_training(regime, pass(1, epoch), &protocol, TokenIds::BERT);
        values(&erased.unwrap().kept.audio)
    };
    for regime in ["fixed:0.5", "drawn-once", "lnln-loader"] {
        let first = kept(regime, 1, Fidelity::Reference);
        assert_ne!(first, kept("complete", 1, Fidelity::Reference));
        for fidelity in [Fidelity::Reference, Fidelity::Corrected] {
            assert_eq!(kept(regime, 2, fidelity), first, "{regime}");
        }
    }
    assert_ne!(
        kept("redrawn", 1, Fidelity::Corrected),
        kept("redrawn", 1, Fidelity::Reference)
    );
}

#[test]
fn training_erasure_is_a_pure_function_of_seed_and_epoch() {
    let (_folder, file) = dataset(20);
    let split = Data::new(file, Device::Cpu).split(Split::Train).unwrap();
    for fidelity in [Fidelity::Reference, Fidelity::Corrected] {
        let protocol = protocol(fidelity);
        let draw = |seed, epoch| {
            let erased = split
                .erase_training(
                    Regime::Redrawn,
                    pass(seed, epoch),
                    &protocol,
                    TokenIds::BERT,
                )
                .unwrap();
            values(&erased.kept.audio)
        };
        assert_eq!(draw(1111, 2), draw(1111, 2));
        assert_ne!(draw(1111, 2), draw(1111, 3));
        assert_ne!(draw(1111, 2), draw(1112, 2));
    }
    let complete = split
        .erase_training(
            Regime::Complete,
            pass(1111, 1),
            &protocol(Fidelity::Reference),
            TokenIds::BERT,
        )
        .unwrap();
    assert_eq!(values(&complete.kept.audio), values(&split.present.audio));
}
