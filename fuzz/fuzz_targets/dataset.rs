//! Dataset files: what opens can be read to its end.

#![no_main]

use halfheard_fuzz::Scratch;
use halfheard_shared::dataset::{Dataset, Split};
use libfuzzer_sys::fuzz_target;
use std::sync::LazyLock;

static SCRATCH: LazyLock<Scratch> = LazyLock::new(Scratch::new);

fuzz_target!(|input: &[u8]| {
    let path = SCRATCH.put("x.safetensors", input);
    let data = match Dataset::open(&path) {
        Ok(data) => data,
        Err(error) => {
            let _ = error.to_string();
            return;
        }
    };
    let _ = data.check_features();
    for split in Split::ALL {
        let view = data.split(split);
        let samples = view.len();
        assert_eq!(view.labels().len(), samples);
        assert_eq!(view.audio_lengths().len(), samples);
        assert_eq!(view.vision_lengths().len(), samples);
        assert_eq!(view.text().len(), samples * 3 * data.shapes().text_len);
        for sample in 0..samples.min(1000) {
            let _ = (view.id(sample), view.raw_text(sample));
            assert!(view.audio_lengths()[sample] >= 0);
            let _ = data.kind().class_of(view.labels()[sample]);
        }
    }
});
