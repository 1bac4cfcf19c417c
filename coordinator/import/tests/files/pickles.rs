//! Feature pickles: what NumPy writes is read, all else is refused, nothing is ever executed.

use crate::pickler::{Py, dataset, field, import_as, import_bytes, refusal, report};
use halfheard_import::{
    ImportError,
    import::{Request, import},
    input::InputError,
    nonfinite::{NonFinite, Reference},
};
use halfheard_shared::{
    case::Modality,
    dataset::{DataFolder, Dataset, Kind, Split},
    pickle::{Limits, Pickle, PickleErrorKind as Kind_},
};
use proptest::prelude::*;
use std::{io::Write as _, path::PathBuf};

/// The files that NumPy wrote.
fn goldens() -> Vec<PathBuf> {
    let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data");
    let mut files: Vec<PathBuf> = std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e == "pkl"))
        .collect();
    files.sort();
    assert_eq!(files.len(), 20);
    files
}

#[test]
fn all_protocols_and_layouts_give_the_same_dataset() {
    let dir = tempfile::tempdir().unwrap();
    let mut hashes = Vec::new();
    for file in goldens() {
        let imported = import_as(Kind::Mosi, &file, dir.path())
            .unwrap_or_else(|e| panic!("{}: {e}", file.display()));
        hashes.push(imported.manifest.blake3.clone());

        let data = Dataset::open(&imported.path).unwrap();
        for (split, n, start) in [
            (Split::Train, 5usize, 0usize),
            (Split::Valid, 2, 10),
            (Split::Test, 3, 20),
        ] {
            let view = data.split(split);
            assert_eq!(view.len(), n);
            for i in 0..n {
                let k = 3 + i % 3;
                let row = &view.text()[i * 18..][..18];
                let mut expected = [0i32; 18];
                expected[..k].fill(1000 + (start + i) as i32);
                (expected[0], expected[k - 1]) = (101, 102);
                expected[6..6 + k].fill(1);
                assert_eq!(row, expected);
                assert_eq!(view.audio_lengths()[i], 1 + i as i64 % 4);
                assert_eq!(view.vision_lengths()[i], 1 + i as i64 % 3);
                assert_eq!(view.id(i), format!("v{start}$_${i}"));
                assert_eq!(view.raw_text(i), format!("GÜT {}", start + i));
                assert_eq!(view.labels()[i], ((i * 7) as f32 % 13.0 - 6.0) / 2.0);
            }
            for (at, &x) in view.audio().iter().enumerate() {
                // Element [0, 1, 2] was -inf.
                let expected = if at == 5 {
                    0.0
                } else {
                    at as f32 / 8.0 - start as f32
                };
                assert_eq!(x, expected, "{split} audio {at}");
            }
            for (at, &x) in view.vision().iter().enumerate() {
                assert_eq!(x, at as f32 / 4.0 + start as f32, "{split} vision {at}");
            }
        }
        let notes = imported.manifest.notes.join("\n");
        assert!(
            notes.contains("test: 1 audio values were set to 0 (1 -inf)"),
            "{notes}"
        );
        assert!(
            notes.contains("train has 5 samples, the paper's mosi has 1284"),
            "{notes}"
        );
    }
    hashes.dedup();
    assert_eq!(hashes.len(), 1, "the bytes are the same, too");
}

#[test]
fn compressed_files_are_detected_by_content_and_bounded() {
    let dir = tempfile::tempdir().unwrap();
    let plain = std::fs::read(&goldens()[8]).unwrap();
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(&plain).unwrap();
    let packed = encoder.finish().unwrap();
    let expected = import_bytes(Kind::Mosi, &plain).unwrap().manifest.blake3;
    assert_eq!(
        import_bytes(Kind::Mosi, &packed).unwrap().manifest.blake3,
        expected
    );

    for end in (0..packed.len()).step_by(7) {
        let error = import_bytes(Kind::Mosi, &packed[..end]).unwrap_err();
        assert!(
            matches!(error, ImportError::Input(_) | ImportError::Pickle { .. }),
            "cut to {end}: {error}"
        );
    }
    let file = dir.path().join("f");
    std::fs::write(&file, &packed).unwrap();
    let folder = DataFolder::new(dir.path());
    let request = Request {
        file: &file,
        kind: Kind::Mosi,
        nonfinite: NonFinite::Reference,
        reference: Reference::Mmsa,
        name: "x",
        folder: &folder,
        replace: false,
        max_bytes: Some(plain.len() as u64 - 1),
    };
    let error = import(&request, &mut |_, _, _| {}).unwrap_err();
    assert!(
        matches!(error, ImportError::Input(InputError::TooLarge { .. })),
        "{error}"
    );
}

#[test]
fn code_in_pickle_is_never_executed() {
    let class = |bytes: &[u8], name: &str| {
        let pickle = Pickle::read(bytes, Limits::default()).unwrap();
        assert_eq!(pickle.class_of(pickle.root()).as_deref(), Some(name));
        // As the root it is no dict of splits.
        let message = report(&import_bytes(Kind::Mosi, bytes).unwrap_err());
        assert!(message.contains(name), "{message}");
    };
    class(b"cos\nsystem\n(S'id'\ntR.", "os.system");
    class(
        b"\x80\x02cposix\nsystem\nq\x01X\x02\x00\x00\x00id\x85R.",
        "posix.system",
    );
    class(
        b"\x80\x04\x8c\x08builtins\x8c\x04eval\x93\x8c\x011\x85R.",
        "builtins.eval",
    );
    class(b"(S'id'\nios\nsystem\n.", "os.system");
    class(
        b"\x80\x03cnumpy.core.multiarray\n_vec_string\n.",
        "numpy.core.multiarray._vec_string",
    );
    class(
        b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n.",
        "torch._utils._rebuild_tensor_v2",
    );
    // Names cannot be put together from allowed halves, nor hide behind dots or control characters.
    class(
        b"\x80\x04\x8c\x05numpy\x8c\x0fndarray.tofile\x0a\x93.",
        "numpy.ndarray.tofile\\n",
    );
    let refused = |bytes: &[u8]| Pickle::read(bytes, Limits::default()).unwrap_err();
    // What is not in the file cannot be read.
    for bytes in [&b"\x82\x01."[..], b"\x97."] {
        let error = refused(bytes);
        assert!(matches!(error.kind, Kind_::Opcode(_)), "{error}");
        assert_eq!(error.offset, 0, "{error}");
    }
    // Calls and states of plain values.
    for bytes in [
        &b"})R."[..],
        b"cnumpy\ndtype\n}b.",
        b"]}b.",
        b"}o.",
        b"(o.",
        b"ca\nB\n}R.",
        b"\x8c\x01a)R.",
    ] {
        let error = refused(bytes);
        assert!(matches!(error.kind, Kind_::Malformed(_)), "{error}");
    }
}

#[test]
fn bombs_are_rejected() {
    // The default bound on objects is so high that reaching it takes long in a debug build.
    let limits = Limits {
        objects: 100_000,
        ..Limits::default()
    };
    let refused = |bytes: &[u8]| Pickle::read(bytes, limits).unwrap_err();
    let limit = |bytes: &[u8], of: &str| match refused(bytes).kind {
        Kind_::Limit { what, .. } => assert_eq!(what, of),
        other => panic!("{of}: {other}"),
    };
    let many = |unit: &[u8], count: usize, tail: &[u8]| {
        let mut bytes = unit.repeat(count);
        bytes.extend_from_slice(tail);
        bytes
    };
    // Nested deep, by marks and by lists.
    limit(&many(b"(", 1_000_000, b"."), "open marks");
    let nested = [b"]".repeat(10_000), b"a".repeat(9_999), b".".to_vec()].concat();
    limit(&nested, "levels of nesting");
    limit(
        &many(b")\x85", 1, &[b"\x85".repeat(200), b".".to_vec()].concat()),
        "levels of nesting",
    );
    // Values without end.
    limit(&many(b"N", 3_000_000, b"."), "values on the stack");
    let lists = many(b"]0", 200_000, b"N.");
    limit(&lists, "objects");
    // The same value remembered again and again, under other numbers.
    let mut memo = b"N".to_vec();
    for index in (0..200_000u32).map(|n| n * 20) {
        memo.push(b'r');
        memo.extend(index.to_le_bytes());
    }
    memo.push(b'.');
    // Entries lie far apart, so they end sooner than there are too many.
    limit(&memo, "memo entries");
    // One text decoded again and again.
    let mut decoded = b"c_codecs\nencode\nq\x00".to_vec();
    decoded.extend(b"X\xe8\x03\x00\x00");
    decoded.extend(b"a".repeat(1000));
    decoded.extend(b"q\x01X\x06\x00\x00\x00latin1q\x02000");
    for _ in 0..1000 {
        decoded.extend(b"h\x00h\x01h\x02\x86R0");
    }
    decoded.extend(b"N.");
    limit(&decoded, "decoded bytes");
    // Doubling: each tuple holds the one before twice. Nothing expands it, so it is just deep.
    limit(
        &[b")".to_vec(), b"2\x86".repeat(200), b".".to_vec()].concat(),
        "levels of nesting",
    );
    // Lengths beyond the end, up to overflow.
    for bytes in [
        &b"B\xff\xff\xff\xffabc."[..],
        b"X\xff\xff\xff\x7fabc.",
        b"\x8e\xff\xff\xff\xff\xff\xff\xff\xffabc.",
        b"\x96\xff\xff\xff\xff\xff\xff\xff\x7fabc.",
        b"\x8d\x00\x00\x00\x00\x01\x00\x00\x00abc.",
        b"\x80\x04\x95\xff\xff\xff\xff\xff\xff\xff\xff}.",
        b"\x8b\xff\xff\xff\xff\x01.",
    ] {
        let error = refused(bytes);
        assert!(matches!(error.kind, Kind_::Truncated(_)), "{error}");
    }
}

#[test]
fn arrays_that_do_not_fit_their_bytes_are_rejected() {
    for (shape, bytes) in [
        (vec![2, 3], 23),
        (vec![2, 3], 25),
        (vec![-1, 3], 24),
        (vec![1 << 40, 1 << 40], 24),
        (vec![0, i64::MAX], 0),
        (vec![i64::MAX, i64::MAX, 4], 24),
        (vec![1; 40], 4),
    ] {
        let content = Py::Array {
            code: "f4",
            shape: shape.clone(),
            data: vec![0; bytes],
        };
        let error = Pickle::read(&content.pickle(), Limits::default()).unwrap_err();
        assert!(
            matches!(error.kind, Kind_::Malformed(_) | Kind_::Limit { .. }),
            "{shape:?}: {error}"
        );
    }
    let content = Py::Array {
        code: "O8",
        shape: vec![1],
        data: vec![0; 8],
    };
    assert!(Pickle::read(&content.pickle(), Limits::default()).is_err());
}

#[test]
fn truncation_anywhere_is_rejected() {
    for file in goldens() {
        let bytes = std::fs::read(&file).unwrap();
        Pickle::read(&bytes, Limits::default()).unwrap();
        // Every byte where it is quick, some in the others (protocol 0 decodes every character).
        let name = file.to_string_lossy();
        let all = ["numpy2-protocol2", "numpy2-protocol4", "numpy2-protocol5"];
        let step = if all.iter().any(|n| name.contains(n)) {
            1
        } else {
            29
        };
        for end in (0..bytes.len()).step_by(step) {
            assert!(
                Pickle::read(&bytes[..end], Limits::default()).is_err(),
                "{} cut to {end}",
                file.display()
            );
        }
    }
}

#[test]
fn integers_of_all_widths_are_read() {
    let read =
        |bytes: &[u8]| Pickle::read(bytes, Limits::default()).map(|p| format!("{:?}", p.root()));
    assert_eq!(read(b"\x8a\x00.").unwrap(), "Int(0)");
    assert_eq!(read(b"\x8a\x01\xff.").unwrap(), "Int(-1)");
    assert_eq!(read(b"\x8a\x02\xff\x00.").unwrap(), "Int(255)");
    assert_eq!(
        read(b"\x8a\x09\xff\xff\xff\xff\xff\xff\xff\x7f\x00.").unwrap(),
        format!("Int({})", i64::MAX)
    );
    assert!(
        read(b"\x8a\x09\xff\xff\xff\xff\xff\xff\xff\xff\x00.")
            .unwrap()
            .starts_with("BigInt("),
        "2^64 - 1"
    );
    assert_eq!(read(b"I-5\n.").unwrap(), "Int(-5)");
    assert_eq!(read(b"L12345678901L\n.").unwrap(), "Int(12345678901)");
    assert_eq!(read(b"F0.5\n.").unwrap(), "Float(0.5)");
}

#[test]
fn sims_requires_unimodal_labels() {
    let imported = import_bytes(Kind::Sims, &dataset(Kind::Sims).pickle());
    assert!(imported.is_ok(), "{imported:?}");
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("f");
    std::fs::write(&file, dataset(Kind::Sims).pickle()).unwrap();
    let imported = import_as(Kind::Sims, &file, dir.path()).unwrap();
    let data = Dataset::open(&imported.path).unwrap();
    let valid = data.split(Split::Valid);
    assert_eq!(valid.labels_of(Modality::Text).unwrap(), [0.25, 0.25]);
    assert_eq!(valid.labels_of(Modality::Vision).unwrap(), [0.75, 0.75]);

    let message = refusal(Kind::Sims, &dataset(Kind::Mosi));
    assert!(
        message.contains("missing field `regression_labels_T`") && message.contains("--as"),
        "{message}"
    );
    // The labels of MOSI are out of SIMS' range.
    let mut wide = dataset(Kind::Sims);
    *field(&mut wide, "test", "regression_labels") = Py::floats(&[2], &[0.5, -1.5]);
    let message = refusal(Kind::Sims, &wide);
    assert!(
        message.contains("test: `regression_labels`, sample 1: label -1.5 is outside [-1, 1]"),
        "{message}"
    );
}

#[expect(clippy::too_many_lines, reason = "one scenario, step by step")]
#[test]
fn invalid_values_are_reported() {
    let good = || dataset(Kind::Mosi);
    import_bytes(Kind::Mosi, &good().pickle()).unwrap();
    let with = |split: &str, name: &str, change: &dyn Fn(&mut Py)| {
        let mut content = good();
        change(field(&mut content, split, name));
        refusal(Kind::Mosi, &content)
    };
    let poke = |at: usize, value: f32| {
        move |array: &mut Py| match array {
            Py::Array { data, .. } => {
                data[at * 4..at * 4 + 4].copy_from_slice(&value.to_le_bytes())
            }
            _ => panic!("no array"),
        }
    };
    let poke_int = |at: usize, value: i64| {
        move |array: &mut Py| match array {
            Py::Array { data, .. } => {
                data[at * 8..at * 8 + 8].copy_from_slice(&value.to_le_bytes())
            }
            _ => panic!("no array"),
        }
    };
    // Audio is [2, 3, 2], vision [2, 2, 3], text [2, 3, 4].
    for (message, says) in [
        (
            with("valid", "audio", &poke(9, f32::NAN)),
            "split valid: `audio`, sample 1: NaN at step 1, feature 1",
        ),
        (
            with("test", "audio", &poke(0, f32::INFINITY)),
            "split test: `audio`, sample 0: inf at step 0, feature 0",
        ),
        (
            with("train", "vision", &poke(5, f32::NEG_INFINITY)),
            "split train: `vision`, sample 0: -inf at step 1, feature 2",
        ),
        (
            with("train", "regression_labels", &poke(1, 3.01)),
            "sample 1: label 3.01 is outside [-3, 3]",
        ),
        (
            with("train", "regression_labels", &poke(0, f32::NAN)),
            "label NaN is outside",
        ),
        (
            with("train", "text_bert", &poke_int(12, -7)),
            "`text_bert`, sample 1: token id -7",
        ),
        (
            with("train", "text_bert", &poke_int(1, 1 << 31)),
            "sample 0: token id 2147483648",
        ),
        (
            with("train", "text_bert", &poke_int(4, 0)),
            "not ones followed by zeros",
        ),
        (
            with("train", "text_bert", &poke_int(5, 0)),
            "not ones followed by zeros",
        ),
        (
            with("train", "text_bert", &poke_int(4, 1 << 32 | 1)),
            "not ones followed by zeros",
        ),
        (with("train", "text_bert", &poke_int(8, 2)), "segment"),
        (
            with("train", "audio_lengths", &|f| {
                *f = Py::List(vec![Py::Int(1), Py::Int(4)])
            }),
            "sample 1: length 4",
        ),
        (
            with("train", "audio_lengths", &|f| {
                *f = Py::List(vec![Py::Int(1)])
            }),
            "has 1 numbers for 2 samples",
        ),
        (
            with("train", "audio_lengths", &|f| {
                *f = Py::List(vec![Py::Int(1), Py::Text("2".into())])
            }),
            "holds a text at sample 1",
        ),
        (
            with("train", "id", &|f| {
                *f = Py::List(vec![Py::Text("a".into())])
            }),
            "has 1 texts for 2 samples",
        ),
        (
            with("train", "audio", &|f| *f = Py::Int(3)),
            "is an integer, expected an array of numbers",
        ),
        (
            with("train", "audio", &|f| *f = Py::floats(&[2, 6], &[0.0; 12])),
            "has shape [2, 6]",
        ),
        (
            with("train", "audio", &|f| {
                *f = Py::floats(&[1, 3, 2], &[0.0; 6])
            }),
            "has 1 samples, `text_bert` has 2",
        ),
        (
            with("test", "vision", &|f| {
                *f = Py::floats(&[2, 3, 3], &[0.0; 18])
            }),
            "split test has text 4, audio 3x2, vision 3x3, split train has",
        ),
        (
            with("train", "audio", &|f| {
                *f = Py::Array {
                    code: "U1",
                    shape: vec![2, 3, 2],
                    data: vec![0; 48],
                }
            }),
            "has type U1, expected numbers",
        ),
    ] {
        assert!(message.contains(says), "`{message}` does not say `{says}`");
    }
    // Half a token.
    let mut content = good();
    *field(&mut content, "train", "text_bert") = Py::floats(&[2, 3, 4], &[0.5; 24]);
    assert!(refusal(Kind::Mosi, &content).contains("value 0.5 at position 0 is not an integer"));
}

#[test]
fn missing_fields_are_reported_or_filled_in() {
    let without = |split: &str, name: &str| {
        let mut content = dataset(Kind::Mosi);
        *field(&mut content, split, name) = Py::None;
        import_bytes(Kind::Mosi, &content.pickle())
    };
    let message = report(&without("valid", "text_bert").unwrap_err());
    assert!(
        message.contains("split valid: missing field `text_bert`; it has text_bert, audio"),
        "{message}"
    );
    assert!(message.contains("made for BERT"), "{message}");
    let notes = without("valid", "audio_lengths").unwrap().manifest.notes;
    assert!(notes.contains(
        &"valid: the file has no audio_lengths; every sample is treated as full".to_owned()
    ));
    assert!(
        without("test", "id")
            .unwrap()
            .manifest
            .notes
            .iter()
            .any(|n| n.contains("numbered"))
    );
    assert!(
        without("test", "raw_text")
            .unwrap()
            .manifest
            .notes
            .iter()
            .any(|n| n.contains("texts are empty"))
    );

    let Py::Dict(mut splits) = dataset(Kind::Mosi) else {
        panic!()
    };
    splits.remove(2);
    let message = refusal(Kind::Mosi, &Py::Dict(splits));
    assert_eq!(
        message,
        "error: missing split `test`; the file has train, valid\n"
    );
    assert!(refusal(Kind::Mosi, &Py::Int(1)).contains("holds an integer, expected a dict"));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, ..ProptestConfig::default() })]

    /// Whatever a byte is changed to, reading ends with a dataset or an error, never a panic.
    #[test]
    fn damage_never_panics(
        file in 0usize..20,
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let mut bytes = std::fs::read(&goldens()[file]).unwrap();
        for (at, value) in &edits {
            let at = at.index(bytes.len());
            bytes[at] = *value;
        }
        // Opcodes live at the start and between arrays: changes there matter most.
        if let Some(cut) = cut {
            let at = cut.index(bytes.len());
            bytes.remove(at);
        }
        let _ = import_bytes(Kind::Mosi, &bytes);
    }

    /// The same for bytes that are mostly opcodes.
    #[test]
    fn random_programs_never_panic(
        program in prop::collection::vec(
            prop::sample::select(b"(.012FIJKLMNPQRSTUVXabcdeghijlopqrstu)]}BC\x80\x81\x85\x86\x87\x88\x89\x8a\x8b\x8c\x8e\x8f\x90\x91\x92\x93\x94\x95\x96\x00\x01\x02\n".to_vec()),
            0..200,
        )
    ) {
        let _ = Pickle::read(&program, Limits::default());
        // Behind something to work with.
        let prelude = b"ca\nB\n)\x81q\x05cnumpy.core.multiarray\n_reconstruct\nq\x00cnumpy\nndarray\nq\x01K\x00\x85q\x02C\x01bq\x03\x87R";
        let _ = Pickle::read(&[prelude.as_slice(), &program].concat(), Limits::default());
    }
}
