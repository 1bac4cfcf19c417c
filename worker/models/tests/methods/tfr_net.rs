//! TFR-Net: the reconstruction loss of the first epoch, which the reference leaves out.

use crate::{
    small,
    support::{alone, build, encoder, samples, slice},
};
use halfheard_models::methods::{Batch, MethodError, Position};
use halfheard_shared::methods::faults::Faults;

/// A batch with an infinite audio feature at a step that is erased: the input is finite, the
/// reconstruction's target is not.
fn overflowing() -> Batch {
    let mut batch = slice(&samples(1), 0, 8);
    let erased = &batch.present.audio - &batch.kept.audio;
    let place = erased.nonzero().get(0);
    let (sample, step) = (place.int64_value(&[0]), place.int64_value(&[1]));
    if let Some(complete) = &mut batch.complete {
        complete.audio = complete.audio.copy();
        let _ = complete.audio.get(sample).get(step).fill_(f64::INFINITY);
    }
    batch
}

#[test]
fn infinite_reconstruction_is_left_out_of_the_first_epoch_and_fails_the_second() {
    let _alone = alone();
    let (folder, batch) = (encoder(0.0), overflowing());
    let hyper = small("tfr-net");
    let mut method = build("tfr-net", &hyper, folder.path(), 9, Faults::REFERENCE, 1);
    let at = |epoch, step| Position {
        epoch,
        pass: 0,
        step,
        steps: 2,
    };
    for step in 0..2 {
        let outcome = method.train_step(at(1, step), &batch).unwrap();
        let losses = outcome.losses.read(at(1, step)).unwrap();
        assert!(!losses["reconstruction"].is_finite(), "{losses:?}");
        assert!(losses["loss"].is_finite(), "{losses:?}");
        assert_eq!(losses["loss"], losses["task"]);
    }
    // Nothing of it reached a weight.
    for (name, weights) in method.vars().variables() {
        assert_eq!(weights.isfinite().all().int64_value(&[]), 1, "{name}");
    }
    let outcome = method.train_step(at(2, 0), &batch).unwrap();
    match outcome.losses.read(at(2, 0)) {
        Err(MethodError::NonFinite { at, losses }) => {
            assert_eq!(at.epoch, 2);
            assert!(losses["task"].is_finite() && !losses["loss"].is_finite());
        }
        other => panic!("{other:?}"),
    }
}
