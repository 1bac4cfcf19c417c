//! Pickles: any bytes, several pickles one after the other, every value looked at.

#![no_main]

use halfheard_shared::pickle::{Limits, Pickle, Value};
use libfuzzer_sys::fuzz_target;

/// Values that are looked at; a shared list can be reached in very many ways.
const MAX_VISITS: usize = 20_000;

fn look(pickle: &Pickle<'_>) {
    let mut open = vec![pickle.root()];
    let (mut visits, mut floats, mut doubles, mut ints) = (0, Vec::new(), Vec::new(), Vec::new());
    let mut scratch = Vec::new();
    while let Some(value) = open.pop() {
        visits += 1;
        if visits > MAX_VISITS {
            return;
        }
        let _ = (
            pickle.describe(value),
            pickle.text(value),
            pickle.raw(value),
        );
        let _ = (
            pickle.class(value),
            pickle.class_of(value),
            pickle.get(value, "a"),
        );
        let _ = (pickle.persistent_id(value), pickle.is_opaque(value));
        open.extend(pickle.items(value).into_iter().flatten().take(64).copied());
        if let Some(entries) = pickle.entries(value) {
            open.extend(entries.take(64).flat_map(|(key, value)| [key, value]));
        }
        if let Some(object) = pickle.object(value) {
            open.extend([object.args]);
        }
        open.extend(
            pickle
                .objects(value)
                .into_iter()
                .flatten()
                .take(64)
                .copied(),
        );
        let _ = pickle.object_array(value);
        if let Some(array) = pickle.array(value) {
            let rows = array.shape().first().copied().unwrap_or(1).min(8);
            for row in (0..rows).chain([usize::MAX]) {
                floats.clear();
                doubles.clear();
                ints.clear();
                // A row may be as long as the shape says: it is bounded by the input's bytes.
                if array.row_len() <= 1 << 20 {
                    let _ = array.read_f32(row, &mut floats, &mut scratch);
                    let _ = array.read_f64(row, &mut doubles, &mut scratch);
                    let _ = array.read_i64(row, &mut ints, &mut scratch);
                }
                let _ = array.text_lossy(row);
            }
        }
    }
    let _ = Value::None.kind();
}

fuzz_target!(|input: &[u8]| {
    let mut at = 0;
    // Several pickles may follow each other.
    for _ in 0..4 {
        match Pickle::read_at(input, at, Limits::default()) {
            Ok(pickle) => {
                look(&pickle);
                assert!(pickle.end() > at && pickle.end() <= input.len());
                at = pickle.end();
            }
            Err(error) => {
                let _ = error.to_string();
                return;
            }
        }
    }
});
