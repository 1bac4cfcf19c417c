//! The text-only control: neither training nor prediction depends on audio and vision.

use crate::{
    equal, small,
    support::{alone, batches, build, encoder, samples, slice, step},
};
use halfheard_models::methods::{Batch, Inputs};
use halfheard_shared::methods::faults::Faults;

/// `batch` with audio and vision that no arithmetic survives.
fn unreadable(batch: &Batch) -> Batch {
    let without = |inputs: &Inputs| Inputs {
        text: inputs.text.shallow_clone(),
        audio: inputs.audio.full_like(f64::NAN),
        vision: inputs.vision.full_like(f64::NAN),
        audio_lengths: inputs.audio_lengths.zeros_like(),
        vision_lengths: inputs.vision_lengths.zeros_like(),
        host_lengths: None,
    };
    let all = slice(batch, 0, batch.len());
    Batch {
        input: without(&batch.input),
        complete: batch.complete.as_ref().map(without),
        ..all
    }
}

#[test]
fn text_only_depends_on_neither_audio_nor_vision() {
    let _alone = alone();
    let (folder, all) = (encoder(0.1), samples(1));
    let hyper = small("text-only");
    let train = |all: &Batch| {
        let mut method = build("text-only", &hyper, folder.path(), 9, Faults::REFERENCE, 1);
        let batches = batches(all, method.batch_size());
        let losses: Vec<_> = (0..3 * batches.len())
            .map(|n| step(method.as_mut(), &batches, n))
            .collect();
        (losses, method)
    };
    let ((whole_losses, whole), (losses, text_alone)) = (train(&all), train(&unreadable(&all)));
    assert_eq!(whole_losses, losses);
    // Weights and moments, so gradients too.
    equal("text-only", whole.as_ref(), text_alone.as_ref());
    let predict = |batch: &Batch| whole.predict(batch, None).unwrap();
    assert!(predict(&all).equal(&predict(&unreadable(&all))));
    // Of the text, every weight but the unused pooler's is trained.
    let fresh = build("text-only", &hyper, folder.path(), 9, Faults::REFERENCE, 1);
    let fresh = fresh.state().unwrap().tensors;
    for (name, tensor) in whole.state().unwrap().tensors {
        if let Some(before) = fresh.get(&name).filter(|_| name.starts_with("weights.")) {
            assert_eq!(tensor.equal(before), name.contains("pooler"), "{name}");
        }
    }
}
