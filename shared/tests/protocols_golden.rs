//! What the Python package must compute, too: masks of the field's protocols. Its tests read the file. With
//! `UPDATE_GOLDEN=1` in the environment it is written anew.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use halfheard_shared::erasure::{block, bursts, modalities, present};
use serde_json::{Value, json};
use std::path::Path;

/// Rows of a mask as text, one character a step.
fn rows(mask: &[u8], steps: usize) -> Vec<String> {
    let row = |row: &[u8]| row.iter().map(|k| char::from(b'0' + k)).collect();
    mask.chunks(steps).map(row).collect()
}

fn golden() -> Value {
    let steps = 24;
    let lengths = [24, 0, 1, 2, 3, 4, 9, 17, 23, 24, 12, 7];
    let mask = present(&lengths, steps);
    let mut runs = Vec::new();
    for (kind, erase) in [
        ("block", block as fn(&[u8], usize, f64, u32) -> Vec<u8>),
        ("bursts", bursts),
    ] {
        for rate in [0.0, 0.1, 0.25, 0.5, 0.8, 0.85, 1.0] {
            for seed in [1111, u32::MAX] {
                let kept = rows(&erase(&mask, lengths.len(), rate, seed), steps);
                runs.push(json!({"kind": kind, "rate": rate, "seed": seed, "kept": kept}));
            }
        }
    }
    let random_modality: Vec<Value> = [
        (0, 0.3),
        (1, 0.5),
        (31, 0.4),
        (32, 0.1),
        (40, 0.0),
        (40, 0.66),
        (40, 0.7),
        (97, 0.3),
        (97, 0.6),
    ]
    .into_iter()
    .map(|(samples, rate)| {
        let kept = modalities::kept(samples, rate, 1111).concat();
        json!({"samples": samples, "rate": rate, "seed": 1111, "kept": rows(&kept, 3)})
    })
    .collect();
    json!({
        "steps": steps, "lengths": lengths, "runs": runs, "random_modality": random_modality,
    })
}

#[test]
fn masks_of_the_python_package_are_current() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../python/tests/data/protocols.json");
    let golden = golden();
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        let text = serde_json::to_string_pretty(&golden).unwrap() + "\n";
        std::fs::write(&file, text).unwrap();
    }
    let known: Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
    assert_eq!(known, golden);
}
