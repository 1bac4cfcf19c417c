//! What external programs say, and bundles of their files and states.

#![no_main]

use halfheard_shared::{bundle::Bundle, external::Event};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let Some((&which, bytes)) = input.split_first() else {
        return;
    };
    match which {
        b'b' => {
            if let Ok(bundle) = Bundle::decode(bytes) {
                let once = bundle.encode().expect("what was read can be written");
                let again = Bundle::decode(&once).expect("what was written can be read");
                assert_eq!(again, bundle);
            }
        }
        _ => {
            if let Ok(event) = serde_json::from_slice::<Event>(bytes) {
                let once = serde_json::to_vec(&event).expect("what was read can be written");
                let _ = serde_json::from_slice::<Event>(&once);
            }
        }
    }
});
