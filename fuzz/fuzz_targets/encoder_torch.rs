//! An encoder's weights as `torch.save` writes them: a zip of a pickle and numbers, or the old form.

#![no_main]

use halfheard_fuzz::Scratch;
use halfheard_shared::encoder::Encoder;
use libfuzzer_sys::fuzz_target;
use std::sync::LazyLock;

/// That of the files that PyTorch wrote for the tests.
const CONFIG: &[u8] = include_bytes!("../../shared/tests/data/encoders/bert-zip/config.json");

static SCRATCH: LazyLock<Scratch> = LazyLock::new(|| {
    let scratch = Scratch::new();
    scratch.put("config.json", CONFIG);
    scratch
});

fuzz_target!(|input: &[u8]| {
    SCRATCH.put("pytorch_model.bin", input);
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
