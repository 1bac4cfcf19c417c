//! Specs: refused with all their mistakes, or read.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let Ok(text) = std::str::from_utf8(input) else {
        return;
    };
    match halfheard_shared::spec::read("spec.toml", text) {
        Ok(spec) => {
            for (name, dataset) in &spec.datasets {
                assert!(dataset.kind(name).is_some(), "read() has checked it");
            }
            // Within its own limits.
            let _ = spec.cases();
        }
        Err(error) => {
            // Drawn with the lines that are wrong.
            let _ = (error.to_string(), format!("{error:?}"));
        }
    }
});
