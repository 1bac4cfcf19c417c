//! What describes a dataset: its manifest, its protocol, addresses of stores.

#![no_main]

use halfheard_fuzz::Scratch;
use halfheard_shared::{benchmark::definition::Definition, dataset::Manifest};
use libfuzzer_sys::fuzz_target;
use std::sync::LazyLock;

static SCRATCH: LazyLock<Scratch> = LazyLock::new(Scratch::new);

fuzz_target!(|input: &[u8]| {
    let Some((&which, bytes)) = input.split_first() else {
        return;
    };
    match which {
        b'm' => {
            let path = SCRATCH.put("manifest.json", bytes);
            match Manifest::read(&path) {
                Ok(manifest) => {
                    let text = serde_json::to_string(&manifest).expect("a manifest");
                    let path = SCRATCH.put("again.json", text.as_bytes());
                    Manifest::read(&path).expect("what was written can be read");
                }
                Err(error) => {
                    let _ = error.to_string();
                }
            }
        }
        b'p' => {
            if let Ok(definition) = serde_json::from_slice::<Definition>(bytes)
                && definition.check().is_ok()
            {
                let _ = definition.written_classes();
                let _ = definition.differences(&definition);
            }
        }
        b'u' => {
            if let Ok(text) = std::str::from_utf8(bytes) {
                let shown = halfheard_shared::address::redacted(text);
                let _ = halfheard_shared::address::holds_secret(text, false);
                let _ = shown.to_string();
            }
        }
        _ => {}
    }
});
