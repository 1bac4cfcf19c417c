//! Features from the artifact store: what can be read is consistent.

#![no_main]

use halfheard_shared::features::Features;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    match Features::from_bytes(input) {
        Ok(features) => {
            for sample in 0..features.samples() {
                assert!(features.row(sample).is_some());
            }
            let bytes = features.to_bytes().expect("what was read can be written");
            assert_eq!(Features::from_bytes(&bytes).expect("and read"), features);
        }
        Err(error) => {
            let _ = error.to_string();
        }
    }
});
