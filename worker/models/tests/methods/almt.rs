//! ALMT as the paper ran it: 50 frames of audio and vision.

use crate::{
    small,
    support::{SHAPE, alone, build, encoder, hyper, samples, slice},
};
use halfheard_models::methods::{Batch, Method};
use halfheard_shared::methods::{faults::Faults, find};
use serde_json::json;
use tch::Tensor;

/// `batch` without leading zeros, and with other numbers from this frame on.
fn changed_from(batch: &Batch, frame: i64) -> Batch {
    let mut changed = slice(batch, 0, batch.len());
    for features in [&mut changed.input.audio, &mut changed.input.vision] {
        *features = features.copy();
        let _ = features.narrow(1, 0, 1).fill_(0.5);
        let rest = features.size()[1] - frame;
        let _ = features.narrow(1, frame, rest).fill_(7.0);
    }
    changed
}

#[test]
fn only_the_first_frames_are_read() {
    let _alone = alone();
    let (folder, all) = (encoder(0.0), samples(1));
    let model = |frames: i64| {
        let mut hyper = small("almt");
        hyper["frames"] = json!(frames);
        build("almt", &hyper, folder.path(), 9, Faults::REFERENCE, 1)
    };
    let predict =
        |method: &dyn Method, batch: &Batch| -> Tensor { method.predict(batch, None).unwrap() };
    let (third, fourth) = (changed_from(&all, 3), changed_from(&all, 4));
    let three = model(3);
    assert!(predict(three.as_ref(), &third).equal(&predict(three.as_ref(), &fourth)));
    let four = model(4);
    assert!(!predict(four.as_ref(), &third).equal(&predict(four.as_ref(), &fourth)));
    // Positions are those of the frames that are read.
    let length = |method: &dyn Method, name: &str| {
        let weights = method.state().unwrap().tensors;
        let mut weights = weights.into_iter();
        let found = weights.find(|(key, _)| key.contains(name) && key.ends_with("pos_embedding"));
        found
            .unwrap_or_else(|| panic!("no positions of {name}"))
            .1
            .size()[1]
    };
    let whole = model(0);
    let tokens = 4;
    assert_eq!(length(three.as_ref(), "embedding_a"), 3 + tokens);
    assert_eq!(
        length(whole.as_ref(), "embedding_a"),
        SHAPE.audio_length + tokens
    );
    assert_eq!(
        length(whole.as_ref(), "embedding_l"),
        SHAPE.text_length + tokens
    );
    // As many as there are, or more, is all.
    let more = model(50);
    assert!(predict(more.as_ref(), &all).equal(&predict(whole.as_ref(), &all)));
}

#[test]
fn paper_variant_reads_fifty_frames_and_trains_to_the_end() {
    let _alone = alone();
    let own = hyper("almt", "sims", Some("paper"), &json!({}));
    assert_eq!(
        (&own["frames"], &own["early_stop"]),
        (&json!(50), &json!(0))
    );
    assert_eq!(
        (&own["max_epochs"], &own["fusion_depth"]),
        (&json!(200), &json!(4))
    );
    assert!(find("almt").unwrap().variants.contains_key("paper"));
    let folder = encoder(0.0);
    let mut small = small("almt");
    small["early_stop"] = json!(0);
    let method = build("almt", &small, folder.path(), 9, Faults::REFERENCE, 1);
    assert_eq!(method.patience(), None);
}
