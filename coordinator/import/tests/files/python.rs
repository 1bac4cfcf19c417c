//! Pickles as Python itself writes them, with objects of many classes (`data/forms/make_forms.py`).

use crate::pickler::{import_as, import_bytes, import_bytes_with, report};
use halfheard_import::nonfinite::{NonFinite, Reference};
use halfheard_shared::{
    dataset::{Dataset, Kind, LengthSource, Source, Split},
    encoder::TokenIds,
    erasure::{erase_text, kept, present},
    pickle::{Limits, Pickle},
};
use proptest::prelude::*;
use std::{
    path::{Path, PathBuf},
    process::Command,
};

fn form(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/data/forms")
        .join(name)
}

fn imported(name: &str) -> (Vec<String>, Source, Dataset) {
    let bytes = std::fs::read(form(name)).unwrap();
    let (imported, data) =
        import_bytes_with(Kind::Mosi, NonFinite::Reference, Reference::Mmsa, &bytes)
            .unwrap_or_else(|e| panic!("{name}: {e}"));
    (imported.manifest.notes, imported.manifest.source, data)
}

#[test]
fn erasure_of_aligned_file_equals_reference() {
    let (notes, _, data) = imported("aligned.pkl");
    assert!(
        notes.iter().any(|note| note.contains("treated as aligned")),
        "{notes:?}"
    );
    let expected: serde_json::Value =
        serde_json::from_slice(&std::fs::read(form("aligned-masks.json")).unwrap()).unwrap();
    for split in Split::ALL {
        let view = data.split(split);
        let l = data.shapes().text_len;
        for rate in ["0.3", "0.7"] {
            let expected = &expected[format!("{split} {rate}")];
            let lengths: Vec<i64> = expected["lengths"]
                .as_array()
                .unwrap()
                .iter()
                .map(|n| n.as_i64().unwrap())
                .collect();
            assert_eq!(view.audio_lengths(), lengths);
            assert_eq!(view.vision_lengths(), lengths);
            let bits = |name: &str| -> Vec<u8> {
                let rows = expected[name].as_array().unwrap().iter();
                rows.flat_map(|row| row.as_str().unwrap().bytes().map(|b| b - b'0'))
                    .collect()
            };
            let rates = vec![rate.parse::<f64>().unwrap(); view.len()];
            for lengths in [view.audio_lengths(), view.vision_lengths()] {
                assert_eq!(
                    kept(&present(lengths, l), &rates, 1111),
                    bits("features"),
                    "{split} {rate}"
                );
            }
            let part = |which: usize| -> Vec<i64> {
                view.text()
                    .chunks_exact(3 * l)
                    .flat_map(|row| row[which * l..][..l].iter().map(|&x| x.into()))
                    .collect()
            };
            let mask: Vec<u8> = part(1).iter().map(|&m| m as u8).collect();
            assert_eq!(
                erase_text(&part(0), &mask, &rates, 1111, TokenIds::BERT).kept,
                bits("text"),
                "{split} {rate}"
            );
        }
    }
}

#[test]
fn unrelated_objects_are_ignored() {
    let (_, _, plain) = imported("aligned.pkl");
    for protocol in [0, 2, 4, 5] {
        let name = format!("foreign-protocol{protocol}.pkl");
        let (_, _, data) = imported(&name);
        assert_eq!(data.blake3(), plain.blake3(), "{name}");
        // Each of them is known for what it is.
        let bytes = std::fs::read(form(&name)).unwrap();
        let pickle = Pickle::read(&bytes, Limits::default()).unwrap();
        let config = pickle.get(pickle.root(), "config").unwrap();
        let class = |key: &str| {
            pickle
                .class_of(pickle.get(config, key).unwrap())
                .unwrap_or_default()
        };
        for (key, expected) in [
            ("path", "pathlib.PosixPath"),
            ("args", "argparse.Namespace"),
            ("table", "pandas.DataFrame"),
            ("series", "pandas.Series"),
            ("id", "uuid.UUID"),
            ("decimal", "decimal.Decimal"),
            ("counter", "collections.Counter"),
            ("type", "numpy.float32"),
            ("masked", "numpy.ma.core.MaskedArray"),
            ("scalar", "numpy.core.multiarray.scalar"),
        ] {
            let found = class(key);
            let module = expected.split('.').next().unwrap();
            let last = expected.rsplit('.').next().unwrap();
            assert!(
                found.starts_with(module) && found.ends_with(last),
                "{name}: {key} is {found}"
            );
        }
        for key in ["records", "times", "complexes"] {
            let described = pickle.describe(pickle.get(config, key).unwrap());
            assert!(
                described.starts_with("an array that cannot be read"),
                "{name}: {key} is {described}"
            );
        }
    }
}

#[test]
fn start_padding_of_mmsa_fet_is_moved() {
    let (notes, source, data) = imported("fet-start.pkl");
    let Source::Import { treatment, .. } = source else {
        panic!()
    };
    let shapes = data.shapes();
    let mut moved = 0;
    for split in Split::ALL {
        let view = data.split(split);
        assert_eq!(treatment[&split].audio_lengths, LengthSource::Given);
        for (features, lengths, steps, width) in [
            (
                view.audio(),
                view.audio_lengths(),
                shapes.audio_len,
                shapes.audio_dim,
            ),
            (
                view.vision(),
                view.vision_lengths(),
                shapes.vision_len,
                shapes.vision_dim,
            ),
        ] {
            for (sample, &length) in features.chunks_exact(steps * width).zip(lengths) {
                let (own, padding) = sample.split_at(length as usize * width);
                assert!(own.iter().all(|&x| x != 0.0), "{split}");
                assert!(padding.iter().all(|&x| x == 0.0), "{split}");
                moved += usize::from(!padding.is_empty());
            }
        }
        let l = shapes.text_len;
        for row in view.text().chunks_exact(3 * l) {
            let tokens = row[l..2 * l].iter().filter(|&&m| m == 1).count();
            assert!(row[l..l + tokens].iter().all(|&m| m == 1));
            assert_eq!((row[0], row[tokens - 1]), (101, 102));
        }
    }
    assert!(moved > 10, "{moved}");
    assert!(
        notes
            .iter()
            .any(|note| note.contains("padding_location=start")),
        "{notes:?}"
    );
    assert!(
        notes
            .iter()
            .any(|note| note.contains("train: the padding at the start of audio was moved")),
        "{notes:?}"
    );
}

/// Python with what the files need, if there is one.
fn python() -> Option<&'static str> {
    let there = Command::new("python3")
        .args(["-c", "import numpy, pandas"])
        .output()
        .is_ok_and(|out| out.status.success());
    if !there {
        eprintln!("skipped in part: there is no python3 with NumPy and pandas");
    }
    there.then_some("python3")
}

#[test]
fn suggested_conversion_lines_work() {
    let dir = tempfile::tempdir().unwrap();
    let python = python();
    for (name, says) in [
        (
            "series",
            "split train: `regression_labels` is a pandas Series (`pandas.Series`)",
        ),
        (
            "masked",
            "split train: `audio` is a masked array (`numpy.ma.MaskedArray`)",
        ),
        (
            "memmap",
            "split train: `vision` is a memory-mapped array (`numpy.memmap`)",
        ),
        (
            "frame",
            "split valid is a pandas DataFrame (`pandas.DataFrame`)",
        ),
    ] {
        let file = dir.path().join(format!("{name} \"1\".pkl"));
        std::fs::copy(form(&format!("{name}.pkl")), &file).unwrap();
        let message = report(&import_as(Kind::Mosi, &file, dir.path()).unwrap_err());
        // NumPy 1 and 2 have their classes in different modules.
        let message_plain = message.replace("numpy.ma.core.", "numpy.ma.");
        assert!(message_plain.contains(says), "{message}");
        let lines: Vec<&str> = message.lines().skip(2).map(str::trim).collect();
        assert_eq!(lines.len(), 3, "{message}");
        if let Some(python) = python {
            let script = dir.path().join("convert.py");
            std::fs::write(&script, lines.join("\n")).unwrap();
            let output = Command::new(python).arg(&script).output().unwrap();
            assert!(
                output.status.success(),
                "{}",
                String::from_utf8_lossy(&output.stderr)
            );
            let converted = dir.path().join(format!("{name} \"1\".plain.pkl"));
            import_as(Kind::Mosi, &converted, dir.path()).unwrap_or_else(|e| panic!("{name}: {e}"));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    /// Whatever a byte is changed to, reading ends with a dataset or an error, never a panic.
    #[test]
    fn damage_among_objects_never_panics(
        file in prop::sample::select(vec![
            "foreign-protocol0.pkl", "foreign-protocol2.pkl", "foreign-protocol4.pkl",
            "foreign-protocol5.pkl", "fet-start.pkl", "frame.pkl", "masked.pkl",
        ]),
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let mut bytes = std::fs::read(form(file)).unwrap();
        for (at, value) in &edits {
            let at = at.index(bytes.len());
            bytes[at] = *value;
        }
        if let Some(cut) = cut {
            let at = cut.index(bytes.len());
            bytes.remove(at);
        }
        let _ = import_bytes(Kind::Mosi, &bytes);
    }
}
