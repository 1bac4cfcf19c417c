//! An encoder's weights as safetensors.

#![no_main]

use halfheard_fuzz::{Scratch, encoder_files};
use halfheard_shared::encoder::Encoder;
use libfuzzer_sys::fuzz_target;
use std::sync::LazyLock;

static SCRATCH: LazyLock<Scratch> = LazyLock::new(|| {
    let scratch = Scratch::new();
    scratch.put("config.json", &encoder_files().0);
    scratch
});

fuzz_target!(|input: &[u8]| {
    SCRATCH.put("model.safetensors", input);
    match Encoder::open(SCRATCH.path()) {
        Ok(encoder) => {
            let is_finite = encoder.check_finite().is_ok();
            for (name, shape) in encoder.config().tensors() {
                match encoder.tensor(&name) {
                    Ok(values) => assert_eq!(values.len() as i64, shape.iter().product::<i64>()),
                    Err(error) => assert!(!is_finite, "open() has checked the rest: {error}"),
                }
            }
        }
        Err(error) => {
            let _ = error.to_string();
        }
    }
});
