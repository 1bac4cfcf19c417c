//! Products of matrices in bfloat16: every method trains like that, close to float32.

use crate::{
    fast, methods,
    support::{alone, batches, build_with, encoder, samples, step},
};
use halfheard_models::{
    context::Optimizations,
    methods::{Batch, Method},
    precision::Precision,
};
use std::path::Path;
use tch::{Kind, Tensor};

const STEPS: usize = 3;

/// A method, what it predicts at first, and the losses of a few steps, after which it is.
fn trained(
    id: &str,
    encoder: &Path,
    all: &Batch,
    precision: Precision,
) -> (Box<dyn Method>, Tensor, Vec<f64>) {
    let mut method = build_with(id, &fast(id), encoder, (Optimizations::ALL, precision));
    let batches = batches(all, method.batch_size());
    for batch in &batches {
        method.prepare(batch).unwrap();
    }
    let before = method.predict(all, None).unwrap();
    let losses = (0..STEPS)
        .flat_map(|n| step(method.as_mut(), &batches, n).into_values())
        .collect();
    (method, before, losses)
}

#[test]
fn every_method_trains_close_to_float32() {
    let _alone = alone();
    let (folder, all) = (encoder(0.0), samples(1));
    for id in methods() {
        let run = |precision| trained(id, folder.path(), &all, precision);
        let (_, exact, exact_losses) = run(Precision::Float32);
        let (method, reduced, reduced_losses) = run(Precision::Bfloat16);
        assert_eq!(reduced.kind(), Kind::Float, "{id}");
        assert_ne!(reduced, exact, "{id}: nothing is in bfloat16");
        // Eight bits in each of a few dozen products.
        assert!(
            reduced.allclose(&exact, 0.05, 0.05, false),
            "{id}: {reduced} instead of {exact}"
        );
        for (reduced, exact) in reduced_losses.iter().zip(&exact_losses) {
            assert!(
                (reduced - exact).abs() < 0.1 * exact.abs() + 0.05,
                "{id}: losses {reduced_losses:?} instead of {exact_losses:?}"
            );
        }
        for (name, weight) in method.vars().variables() {
            // Batch norms count their batches.
            let counts = name.ends_with("num_batches_tracked");
            assert_eq!(weight.kind() == Kind::Float, !counts, "{id}: `{name}`");
            let gradient = weight.grad();
            assert!(
                !gradient.defined() || gradient.kind() == Kind::Float,
                "{id}: `{name}`"
            );
        }
    }
}

/// What dropout draws must not depend on the state that an earlier step left, nor on when weights were rounded.
#[test]
fn equal_steps_give_equal_bits() {
    let _alone = alone();
    let (folder, all) = (encoder(0.1), samples(1));
    for id in methods() {
        let run = || {
            let (method, ..) = trained(id, folder.path(), &all, Precision::Bfloat16);
            method.predict(&all, None).unwrap()
        };
        assert_eq!(run(), run(), "{id}");
    }
}
