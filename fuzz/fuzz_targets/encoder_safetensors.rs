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
            for (name, shape) in encoder.config().tensors() {
                let values = encoder.tensor(&name).expect("open() has checked it");
                assert_eq!(values.len() as i64, shape.iter().product::<i64>());
            }
            let _ = encoder.check_finite();
        }
        Err(error) => {
            let _ = error.to_string();
        }
    }
});
