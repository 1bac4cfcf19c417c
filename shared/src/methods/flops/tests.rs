use super::{
    super::{
        faults::{Fault, Faults},
        *,
    },
    blocks, counted,
};
use crate::dataset::Shapes;

const BASE: EncoderShape = EncoderShape::BERT_BASE;

const SMALL: EncoderShape = EncoderShape {
    width: 384,
    layers: 6,
    intermediate: 1_536,
    ..BASE
};

/// MOSI as MMSA distributes it, with features of its own lengths.
const MOSI: DataFacts = DataFacts {
    shapes: Shapes {
        text_len: 50,
        audio_len: 375,
        audio_dim: 5,
        vision_len: 500,
        vision_dim: 20,
    },
    samples: [1_284, 229, 686],
    tokens: Some(15),
};

/// The work of a method with these hyper-parameters changed.
fn work(
    id: &str,
    data: &DataFacts,
    encoder: &EncoderShape,
    changes: &[(&str, f64)],
) -> flops::Flops {
    worked(id, data, encoder, changes, Faults::REFERENCE)
}

fn worked(
    id: &str,
    data: &DataFacts,
    encoder: &EncoderShape,
    changes: &[(&str, f64)],
    faults: Faults,
) -> flops::Flops {
    let info = find(id).unwrap();
    let mut hyper = info.resolve("mosi", &[]).unwrap();
    for (key, value) in changes {
        let value = match hyper[*key].is_f64() {
            true => Value::from(*value),
            false => Value::from(*value as u64),
        };
        assert!(hyper.insert((*key).to_owned(), value).is_some(), "{key}");
    }
    let setup = Setup {
        hyper: &hyper,
        faults,
        data: Some(data),
        encoder: Some(encoder),
    };
    counted(info, setup).unwrap()
}

/// A layer of BERT-base over 50 tokens, by hand: projections of `50 x 768 x 768` four times, the
/// feed-forward layers `50 x 768 x 3072` twice, scores and values `50 x 50 x 768` twice, each product two
/// operations for each number.
#[test]
fn encoder_costs_what_its_products_cost() {
    let layer = 2 * 50 * (4 * 768 * 768 + 2 * 768 * 3_072) + 2 * 2 * 50 * 50 * 768_u64;
    assert_eq!(layer, 715_468_800);
    assert_eq!(blocks::encoder(&BASE, 50.0, 50.0), 12.0 * layer as f64);
    // The head of the text-only control is one more row; without padding, 15 tokens are left.
    let control = work("text-only", &MOSI, &BASE, &[("batch_size", 64.0)]);
    let packed = 12 * (2 * 15 * (4 * 768 * 768 + 2 * 768 * 3_072) + 4 * 50 * 50 * 768_u64);
    assert_eq!(control.sample, (packed + 2 * 768) as f64);
    assert_eq!(control.step, 3.0 * 64.0 * control.sample);
    assert_eq!(control.steps, 21.0);
}

/// An estimate by hand put the step at about 1.3 TFLOP, half of it in the embeddings of audio and vision. By its
/// products it is 1.08: the last layer of each embedding computes the tokens that are kept, not all steps.
#[test]
fn step_of_lnln_on_mosi_is_about_a_trillion_operations() {
    let lnln = work("lnln", &MOSI, &SMALL, &[]);
    assert!((1.0e12..1.4e12).contains(&lnln.step), "{lnln:?}");
    let blind = MOSI.shapes;
    let blind = DataFacts {
        shapes: Shapes {
            audio_len: 1,
            vision_len: 1,
            ..blind
        },
        ..MOSI
    };
    let rest = work("lnln", &blind, &SMALL, &[]).step;
    assert!((0.4..0.6).contains(&(rest / lnln.step)), "{rest:e}");
    // The complete view is in training alone.
    let trained = lnln.step / (3.0 * 64.0);
    assert!((1.9..2.1).contains(&(trained / lnln.sample)), "{lnln:?}");
}

#[test]
fn more_samples_steps_and_layers_are_more_work() {
    for info in all() {
        let id = info.id.as_str();
        let plain = work(id, &MOSI, &SMALL, &[("batch_size", 32.0)]);
        assert!(
            plain.step > 0.0 && plain.sample > 0.0 && plain.step_bytes > 0.0,
            "{id}"
        );
        assert!(
            plain.step.is_finite() && plain.steps >= 41.0,
            "{id}: {plain:?}"
        );
        let larger = work(id, &MOSI, &SMALL, &[("batch_size", 64.0)]);
        assert!(
            larger.step > 1.9 * plain.step && larger.steps < plain.steps,
            "{id}"
        );
        let deeper = work(
            id,
            &MOSI,
            &EncoderShape { layers: 7, ..SMALL },
            &[("batch_size", 32.0)],
        );
        assert!(
            deeper.step > plain.step && deeper.sample > plain.sample,
            "{id}"
        );
        for (name, shapes) in [
            (
                "text",
                Shapes {
                    text_len: 51,
                    ..MOSI.shapes
                },
            ),
            (
                "audio",
                Shapes {
                    audio_len: 400,
                    ..MOSI.shapes
                },
            ),
            (
                "vision",
                Shapes {
                    vision_len: 525,
                    ..MOSI.shapes
                },
            ),
        ] {
            let longer = work(
                id,
                &DataFacts { shapes, ..MOSI },
                &SMALL,
                &[("batch_size", 32.0)],
            );
            // These read a mean, no more frames than tokens of a text, as many as tokens, or none.
            let reads = name == "text" || !["lf-dnn", "misa", "tetfn", "text-only"].contains(&id);
            assert_eq!(longer.step > plain.step, reads, "{id}: {name}");
            assert_eq!(longer.sample > plain.sample, reads, "{id}: {name}");
        }
    }
}

#[test]
fn training_counts_what_each_method_does_twice_or_not_at_all() {
    let batch = [("batch_size", 32.0)];
    let share = |id: &str| {
        let work = work(id, &MOSI, &BASE, &batch);
        work.step / (32.0 * work.sample)
    };
    // Erased and complete views go through the encoder; EMT-DLFR also rebuilds inputs.
    for id in ["lnln", "emt-dlfr"] {
        assert!((5.5..6.7).contains(&share(id)), "{id}: {}", share(id));
    }
    for id in ["misa", "self-mm", "cenet", "tetfn", "almt", "text-only"] {
        assert_eq!(share(id), 3.0, "{id}");
    }
    // The encoder is not trained.
    assert!((1.0..1.2).contains(&share("lf-dnn")), "{}", share("lf-dnn"));
    // Without the losses that compare views, there is one.
    let alone = work("lnln", &MOSI, &BASE, &[("beta", 0.0), ("gamma", 0.0)]);
    assert_eq!(alone.step, 3.0 * 64.0 * alone.sample);
    // Two passes over the batches; on MOSEI the first is over half of them.
    let steps = |changes: &[(&str, f64)]| work("mmim", &MOSI, &BASE, changes).steps;
    assert_eq!(steps(&[]), 82.0);
    assert_eq!(steps(&[("bound_share", 0.5)]), 62.0);
    // TFR-Net's reference updates after every batch and once more after four.
    let bytes = |faults| worked("tfr-net", &MOSI, &BASE, &[], faults).step_bytes;
    let once = Faults::REFERENCE.with(Fault::TfrDoubleStep, false);
    assert!(bytes(Faults::REFERENCE) > bytes(once) + 2e9);
}

#[test]
fn nothing_is_counted_of_external_programs_and_unknown_sizes() {
    let hyper = Map::from_iter([("batch_size".to_owned(), Value::from(8))]);
    let own = MethodInfo::external("mine", &hyper);
    let setup = Setup {
        hyper: &own.hyper,
        faults: Faults::REFERENCE,
        data: Some(&MOSI),
        encoder: Some(&BASE),
    };
    assert_eq!(counted(&own, setup), None);
    let lnln = find("lnln").unwrap();
    let hyper = lnln.resolve("mosi", &[]).unwrap();
    let blind = Setup {
        hyper: &hyper,
        data: None,
        ..setup
    };
    assert_eq!(counted(lnln, blind), None);
}
