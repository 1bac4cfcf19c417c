//! Feature files in the forms in which people share them: what is clear is read as it is meant and
//! said, what is not is refused in words that help.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod pickler;

use coordinator::data::{
    import::ImportError,
    nonfinite::{NonFinite, Reference},
};
use missbench_shared::dataset::{
    Dataset, Kind, LengthSource, Manifest, NotFinite, Source, Split, Treatment,
};
use pickler::{Py, dataset, field, import_bytes, import_bytes_with, imported, refusal};
use std::collections::BTreeMap;

fn text(s: &str) -> Py {
    Py::Text(s.to_owned())
}

/// The entries of a dict, to change them.
fn entries(dict: &mut Py) -> &mut Vec<(String, Py)> {
    match dict {
        Py::Dict(entries) => entries,
        _ => panic!("no dict"),
    }
}

/// Sets one field in every split.
fn everywhere(content: &mut Py, name: &str, value: &Py) {
    for split in ["train", "valid", "test"] {
        let (_, fields) = entries(content)
            .iter_mut()
            .find(|(key, _)| key == split)
            .unwrap();
        let fields = entries(fields);
        fields.retain(|(key, _)| key != name);
        fields.push((name.to_owned(), value.clone()));
    }
}

fn without(content: &mut Py, name: &str) {
    everywhere(content, name, &Py::None);
}

fn treatment(manifest: &Manifest) -> &BTreeMap<Split, Treatment> {
    match &manifest.source {
        Source::Import { treatment, .. } => treatment,
        Source::Synthesize { .. } => panic!("it was imported"),
    }
}

fn said(notes: &[String], what: &str) {
    assert!(
        notes.iter().any(|note| note.contains(what)),
        "`{what}` is not in {notes:?}"
    );
}

/// Whether two datasets hold the same, text, features, labels and lengths.
fn same(a: &Dataset, b: &Dataset) {
    for split in Split::ALL {
        let (a, b) = (a.split(split), b.split(split));
        assert_eq!(a.text(), b.text());
        assert_eq!(a.audio(), b.audio());
        assert_eq!(a.vision(), b.vision());
        assert_eq!(a.labels(), b.labels());
        assert_eq!(a.audio_lengths(), b.audio_lengths());
        assert_eq!(a.vision_lengths(), b.vision_lengths());
    }
}

/// An object that would leave a mark if it were made.
fn foreign() -> Py {
    Py::object("os", "mkdir", &[text("/tmp/missbench-was-here")])
}

#[test]
fn what_is_not_needed_may_be_anything() {
    let (_, plain) = imported(Kind::Mosi, &dataset(Kind::Mosi));
    let path = || Py::object("pathlib", "PosixPath", &[text("/"), text("data")]);
    let day = || {
        Py::object(
            "datetime",
            "datetime",
            &[Py::Raw(b"C\x0a\x07\xe8\x01\x01\0\0\0\0\0\0".to_vec())],
        )
    };
    let cases: Vec<(&str, Py)> = vec![
        ("a path", path()),
        ("a moment", day()),
        ("a config", Py::object("argparse", "Namespace", &[])),
        (
            "a tensor",
            Py::object(
                "torch._utils",
                "_rebuild_tensor_v2",
                &[foreign(), Py::Int(0)],
            ),
        ),
        (
            "a table",
            Py::object("pandas.core.frame", "DataFrame", &[foreign()]),
        ),
        ("a command", foreign()),
        (
            "times",
            Py::Array {
                code: "M8[ns]",
                shape: vec![1],
                data: vec![0; 8],
            },
        ),
        (
            "a number",
            Py::Raw(b"\x8a\x0b\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x00".to_vec()),
        ),
        ("a list of them", Py::List(vec![path(), day()])),
    ];
    for (what, value) in cases {
        // Beside the splits, and in a field that nobody reads.
        let mut content = dataset(Kind::Mosi);
        entries(&mut content).insert(0, ("config".to_owned(), value.clone()));
        everywhere(&mut content, "annotations", &value);
        let (_, data) = imported(Kind::Mosi, &content);
        same(&plain, &data);
        // Raw texts and ids are only shown.
        let mut content = dataset(Kind::Mosi);
        everywhere(&mut content, "raw_text", &value);
        if !matches!(value, Py::List(_) | Py::Array { .. }) {
            let (notes, data) = imported(Kind::Mosi, &content);
            same(&plain, &data);
            said(&notes, "`raw_text` is ");
            assert_eq!(data.split(Split::Test).raw_text(1), "", "{what}");
        }
    }
    assert!(!std::path::Path::new("/tmp/missbench-was-here").exists());
}

#[test]
fn dicts_of_other_classes_are_dicts() {
    let (_, plain) = imported(Kind::Mosi, &dataset(Kind::Mosi));
    let Py::Dict(splits) = dataset(Kind::Mosi) else {
        panic!()
    };
    for start in [
        &b"ccollections\ndefaultdict\ncbuiltins\ndict\n\x85R("[..],
        b"ccollections\nOrderedDict\n)R(",
        // Classes derived from dict, as configurations have them.
        b"ceasydict\nEasyDict\n)\x81(",
        b"ccopyreg\n_reconstructor\n(caddict\nDict\ncbuiltins\ndict\n}tR(",
    ] {
        let mut opcodes = start.to_vec();
        for (key, value) in &splits {
            for part in [&text(key), value] {
                let pickle = part.pickle();
                // Without the protocol and the end.
                opcodes.extend(&pickle[2..pickle.len() - 1]);
            }
        }
        opcodes.push(b'u');
        let (_, data) = imported(Kind::Mosi, &Py::Raw(opcodes));
        same(&plain, &data);
    }
}

#[test]
fn the_dict_may_be_in_a_list_or_in_a_later_pickle() {
    let (_, plain) = imported(Kind::Mosi, &dataset(Kind::Mosi));
    let (notes, data) = imported(
        Kind::Mosi,
        &Py::List(vec![text("features"), dataset(Kind::Mosi)]),
    );
    same(&plain, &data);
    said(&notes, "stands inside a list");
    let info = Py::Dict(vec![("made by".to_owned(), text("us"))]);
    let two = [info.pickle(), dataset(Kind::Mosi).pickle()].concat();
    let imported = import_bytes(Kind::Mosi, &two).unwrap();
    said(&imported.manifest.notes, "the splits are in pickle 2");
    // What follows a usable pickle is ignored, as Python does.
    let followed = [dataset(Kind::Mosi).pickle(), b"rubbish".to_vec()].concat();
    assert!(import_bytes(Kind::Mosi, &followed).is_ok());
    // Two dicts: which one is meant?
    let message = refusal(
        Kind::Mosi,
        &Py::List(vec![dataset(Kind::Mosi), dataset(Kind::Mosi)]),
    );
    assert!(
        message.contains("the file holds a list, a dict of `train`"),
        "{message}"
    );
    // One split alone.
    let Py::Dict(mut splits) = dataset(Kind::Mosi) else {
        panic!()
    };
    let message = refusal(Kind::Mosi, &splits.remove(0).1);
    assert!(
        message.contains("one split alone: put all three into one dict"),
        "{message}"
    );
}

#[test]
fn splits_go_by_the_names_that_people_give_them() {
    let (_, plain) = imported(Kind::Mosi, &dataset(Kind::Mosi));
    let renamed = |names: [&str; 3]| {
        let Py::Dict(splits) = dataset(Kind::Mosi) else {
            panic!()
        };
        let splits = names.iter().zip(splits);
        Py::Dict(
            splits
                .map(|(name, (_, value))| ((*name).to_owned(), value))
                .collect(),
        )
    };
    for names in [
        ["train", "dev", "test"],
        ["train", "val", "test"],
        ["Train", "Valid", "Test"],
        ["TRAIN", "validation", "testing"],
    ] {
        let (notes, data) = imported(Kind::Mosi, &renamed(names));
        same(&plain, &data);
        said(
            &notes,
            &format!("the file's `{}` is the split valid", names[1]),
        );
    }
    // Its own name goes first; without it two others are one too many.
    let mut content = renamed(["train", "dev", "test"]);
    let other = Py::Dict(Vec::new());
    entries(&mut content).push(("val".to_owned(), other.clone()));
    let message = refusal(Kind::Mosi, &content);
    assert!(
        message.contains("no `valid` split but dev and val"),
        "{message}"
    );
    let mut content = dataset(Kind::Mosi);
    entries(&mut content).push(("dev".to_owned(), other));
    let (_, data) = imported(Kind::Mosi, &content);
    same(&plain, &data);
}

#[test]
fn sims_v2_is_read_by_the_protocol_of_sims() {
    // A fourth split and fields that nobody reads; -inf in both modalities, as its loader expects.
    let mut content = dataset(Kind::Sims);
    let Py::Dict(splits) = dataset(Kind::Sims) else {
        panic!()
    };
    entries(&mut content).push(("train_mix".to_owned(), splits[0].1.clone()));
    everywhere(
        &mut content,
        "mask",
        &Py::List(vec![Py::Int(1), Py::Int(0)]),
    );
    let mut dark = vec![-0.5; 12];
    dark[7] = f32::NEG_INFINITY;
    *field(&mut content, "train", "vision") = Py::floats(&[2, 2, 3], &dark);
    let import = |reference| {
        import_bytes_with(
            Kind::Sims,
            NonFinite::Reference,
            reference,
            &content.pickle(),
        )
    };
    let (imported, data) = import(Reference::SimsV2).unwrap();
    said(&imported.manifest.notes, "not read: the split train_mix");
    said(
        &imported.manifest.notes,
        "train: 1 vision values were set to 0 (1 -inf)",
    );
    said(
        &imported.manifest.notes,
        "train has 2 samples, CH-SIMS v2 (with labels) has 2722",
    );
    assert_eq!(data.split(Split::Train).vision()[7], 0.0);
    // By MMSA's loader, which reads the first SIMS, it is refused.
    assert!(matches!(
        import(Reference::Mmsa),
        Err(ImportError::NonFinite(_))
    ));
}

#[test]
fn values_that_are_not_finite_are_counted_or_refused_by_choice() {
    let mut content = dataset(Kind::Mosi);
    let mut audio = vec![0.5; 12];
    audio[1] = f32::NEG_INFINITY;
    audio[8] = f32::NAN;
    *field(&mut content, "train", "audio") = Py::floats(&[2, 3, 2], &audio);
    let mut vision = vec![-0.5f64; 12];
    vision[4] = f64::INFINITY;
    vision[5] = 1e300;
    vision[11] = f64::NEG_INFINITY;
    *field(&mut content, "test", "vision") = Py::doubles(&[2, 2, 3], &vision);
    let bytes = content.pickle();
    let with = |nonfinite| import_bytes_with(Kind::Mosi, nonfinite, Reference::Mmsa, &bytes);

    let (imported, data) = with(NonFinite::Zero).unwrap();
    let train = data.split(Split::Train).audio();
    assert_eq!((train[1], train[8], train[0]), (0.0, 0.0, 0.5));
    let test = data.split(Split::Test).vision();
    assert_eq!((test[4], test[5], test[11], test[3]), (0.0, 0.0, 0.0, -0.5));
    said(
        &imported.manifest.notes,
        "train: 2 audio values were set to 0 (1 -inf, 1 NaN)",
    );
    let counts = |split: Split, field: &str| {
        treatment(&imported.manifest)[&split]
            .zeroed
            .get(field)
            .copied()
    };
    assert_eq!(
        counts(Split::Train, "audio"),
        Some(NotFinite {
            neg_inf: 1,
            nan: 1,
            ..NotFinite::default()
        })
    );
    assert_eq!(
        counts(Split::Test, "vision"),
        Some(NotFinite {
            neg_inf: 1,
            pos_inf: 1,
            nan: 0,
            too_large: 1
        })
    );
    assert_eq!(counts(Split::Valid, "audio"), None);
    assert_eq!(imported.manifest.source.zeroed(), 5);

    // All of the file is looked at before it is refused, and all of it is told.
    let message = with(NonFinite::Reference).unwrap_err().to_string();
    for says in [
        "split train: `audio`, sample 1: NaN at step 1, feature 0;",
        "split test: `vision`, sample 0: inf at step 1, feature 1, the first of 3 (1 -inf, 1 +inf, 1 too large for float32)",
        "--nonfinite zero",
    ] {
        assert!(message.contains(says), "`{says}` is not in {message}");
    }
    let message = with(NonFinite::Refuse).unwrap_err().to_string();
    assert!(
        message.contains("`audio`, sample 0: -inf at step 0, feature 1, the first of 2"),
        "{message}"
    );
    // A number that single precision cannot hold is called what it is.
    let mut content = dataset(Kind::Mosi);
    vision[4] = -0.5;
    vision[11] = -0.5;
    *field(&mut content, "test", "vision") = Py::doubles(&[2, 2, 3], &vision);
    let message = refusal(Kind::Mosi, &content);
    assert!(
        message.contains("1e300 (too large for float32) at step 1, feature 2"),
        "{message}"
    );
}

#[test]
fn lengths_of_aligned_files_are_those_of_the_text() {
    // Steps as many as tokens, no lengths.
    let mut content = dataset(Kind::Mosi);
    let mask = [
        101, 7, 102, 0, 1, 1, 1, 0, 0, 0, 0, 0, 101, 102, 0, 0, 1, 1, 0, 0, 0, 0, 0, 0,
    ];
    everywhere(&mut content, "text_bert", &Py::ints(&[2, 3, 4], &mask));
    everywhere(&mut content, "audio", &Py::floats(&[2, 4, 2], &[0.5; 16]));
    everywhere(&mut content, "vision", &Py::floats(&[2, 4, 1], &[0.5; 8]));
    let given = content.clone();
    without(&mut content, "audio_lengths");
    let import = |content: &Py| {
        import_bytes_with(
            Kind::Mosi,
            NonFinite::Reference,
            Reference::Mmsa,
            &content.pickle(),
        )
        .unwrap()
    };
    let (imported, data) = import(&content);
    said(
        &imported.manifest.notes,
        "taken as aligned, lengths are those of the text's mask",
    );
    for split in Split::ALL {
        assert_eq!(data.split(split).audio_lengths(), [3, 2]);
        assert_eq!(data.split(split).vision_lengths(), [3, 2]);
        let treatment = &treatment(&imported.manifest)[&split];
        assert_eq!(treatment.audio_lengths, LengthSource::Text);
        assert_eq!(treatment.vision_lengths, LengthSource::Text);
    }
    // With lengths of one the other is not guessed; with other steps neither.
    let (imported, data) = import(&given);
    assert_eq!(data.split(Split::Test).audio_lengths(), [1, 3]);
    assert_eq!(data.split(Split::Test).vision_lengths(), [4, 4]);
    assert_eq!(
        treatment(&imported.manifest)[&Split::Test].vision_lengths,
        LengthSource::Full
    );
    said(
        &imported.manifest.notes,
        "test: the file has no vision_lengths; every sample counts as full",
    );
    everywhere(&mut content, "vision", &Py::floats(&[2, 3, 1], &[0.5; 6]));
    let (imported, data) = import(&content);
    assert_eq!(data.split(Split::Test).audio_lengths(), [4, 4]);
    said(
        &imported.manifest.notes,
        "test: the file has no audio_lengths; every sample counts as full",
    );
}

#[test]
fn texts_stand_in_any_order_and_type() {
    let (_, plain) = imported(Kind::Mosi, &dataset(Kind::Mosi));
    let rows = [101, 2003, 102, 0, 1, 1, 1, 0, 0, 0, 0, 0];
    // [N, L, 3].
    let turned: Vec<i64> = (0..4)
        .flat_map(|at| [rows[at], rows[4 + at], rows[8 + at]])
        .collect();
    let mut content = dataset(Kind::Mosi);
    everywhere(
        &mut content,
        "text_bert",
        &Py::ints(&[2, 4, 3], &turned.repeat(2)),
    );
    let (notes, data) = imported(Kind::Mosi, &content);
    same(&plain, &data);
    said(&notes, "train: text_bert is [N, L, 3] and was turned");
    // Floats, lists of arrays, lists of lists, arrays of objects, of either order.
    let floats: Vec<f32> = rows.iter().map(|&x| x as f32).collect();
    let lists = |shape: [usize; 2], values: &[i64]| {
        Py::List(
            values
                .chunks(shape[1])
                .map(|row| Py::List(row.iter().map(|&x| Py::Int(x)).collect()))
                .collect(),
        )
    };
    let one = || Py::ints(&[3, 4], &rows);
    for form in [
        Py::floats(&[2, 3, 4], &floats.repeat(2)),
        Py::List(vec![one(), Py::floats(&[3, 4], &floats)]),
        Py::List(vec![lists([3, 4], &rows), one()]),
        Py::List(vec![lists([4, 3], &turned), Py::ints(&[4, 3], &turned)]),
        Py::objects(&[2], vec![one(), one()]),
        Py::objects(
            &[2, 3, 4],
            rows.repeat(2)
                .iter()
                .map(|&x| Py::Float(x as f64))
                .collect(),
        ),
        // Rows that are arrays of one dimension.
        Py::List(vec![
            Py::List(
                rows.chunks(4).map(|row| Py::ints(&[4], row)).collect()
            );
            2
        ]),
    ] {
        let mut content = dataset(Kind::Mosi);
        everywhere(&mut content, "text_bert", &form);
        let (_, data) = imported(Kind::Mosi, &content);
        same(&plain, &data);
    }
    for (form, says) in [
        (
            Py::ints(&[2, 4, 4], &[0; 32]),
            "has shape [2, 4, 4], [N, 3, L] is expected",
        ),
        (
            Py::List(vec![one(), Py::Int(3)]),
            "holds an integer at sample 1, an array of two dimensions",
        ),
        (
            Py::List(vec![one(), Py::floats(&[3, 4], &[0.5; 12])]),
            "sample 1: value 0.5 at position 0 is no whole number",
        ),
        (Py::List(vec![]), "three sizes above 0"),
        (
            Py::objects(&[2, 3, 4], vec![text("a"); 24]),
            "holds a text at position 0",
        ),
    ] {
        let mut content = dataset(Kind::Mosi);
        *field(&mut content, "train", "text_bert") = form;
        let message = refusal(Kind::Mosi, &content);
        assert!(message.contains(says), "`{says}` is not in {message}");
    }
}

#[test]
fn features_may_be_lists_of_arrays_even_of_different_lengths() {
    let (_, plain) = imported(Kind::Mosi, &dataset(Kind::Mosi));
    let mut content = dataset(Kind::Mosi);
    everywhere(
        &mut content,
        "audio",
        &Py::List(vec![
            Py::floats(&[3, 2], &[0.5; 6]),
            Py::doubles(&[3, 2], &[0.5; 6]),
        ]),
    );
    let (_, data) = imported(Kind::Mosi, &content);
    same(&plain, &data);

    let ragged = |steps: [i64; 2]| {
        Py::objects(
            &[2],
            steps
                .iter()
                .map(|&t| Py::floats(&[t, 3], &vec![1.0; 3 * t as usize]))
                .collect(),
        )
    };
    let mut content = dataset(Kind::Mosi);
    everywhere(&mut content, "vision", &ragged([1, 4]));
    // Of another length in another split: all are padded to the longest.
    *field(&mut content, "test", "vision") = ragged([5, 2]);
    let (imported, data) = import_bytes_with(
        Kind::Mosi,
        NonFinite::Reference,
        Reference::Mmsa,
        &content.pickle(),
    )
    .unwrap();
    assert_eq!(data.shapes().vision_len, 5);
    assert_eq!(data.split(Split::Train).vision_lengths(), [1, 4]);
    assert_eq!(data.split(Split::Test).vision_lengths(), [5, 2]);
    let expected = [vec![1.0; 3], vec![0.0; 12], vec![1.0; 12], vec![0.0; 3]].concat();
    assert_eq!(data.split(Split::Valid).vision(), expected);
    said(
        &imported.manifest.notes,
        "train: vision is a list of arrays of different lengths",
    );
    assert_eq!(
        treatment(&imported.manifest)[&Split::Test].vision_lengths,
        LengthSource::Arrays
    );

    let mut content = dataset(Kind::Mosi);
    *field(&mut content, "train", "vision") = Py::List(vec![
        Py::floats(&[2, 3], &[0.0; 6]),
        Py::floats(&[2, 2], &[0.0; 4]),
    ]);
    let message = refusal(Kind::Mosi, &content);
    assert!(
        message.contains("has 2 features at sample 1 and 3 at others"),
        "{message}"
    );
    // A small file that would be padded to a huge one.
    let mut samples = vec![Py::floats(&[1, 1], &[0.0]); 3000];
    samples.push(Py::Array {
        code: "i1",
        shape: vec![10_000, 1],
        data: vec![0; 10_000],
    });
    *field(&mut content, "train", "vision") = Py::List(samples);
    let message = refusal(Kind::Mosi, &content);
    assert!(
        message.contains("has samples of very different sizes"),
        "{message}"
    );
}

#[test]
fn labels_and_lengths_stand_in_lists_of_any_form() {
    let (_, plain) = imported(Kind::Mosi, &dataset(Kind::Mosi));
    let labels = [-1.0, 0.5].map(Py::Float);
    for form in [
        Py::List(labels.to_vec()),
        Py::List(labels.iter().map(|y| Py::List(vec![y.clone()])).collect()),
        Py::List(vec![Py::doubles(&[1], &[-1.0]), Py::floats(&[], &[0.5])]),
        Py::objects(&[2], labels.to_vec()),
        Py::objects(&[2, 1], labels.to_vec()),
        Py::doubles(&[2, 1], &[-1.0, 0.5]),
    ] {
        let mut content = dataset(Kind::Mosi);
        everywhere(&mut content, "regression_labels", &form);
        let (_, data) = imported(Kind::Mosi, &content);
        same(&plain, &data);
    }
    let mut content = dataset(Kind::Mosi);
    let two = Py::List(vec![Py::List(labels.to_vec()); 2]);
    everywhere(&mut content, "regression_labels", &two);
    let message = refusal(Kind::Mosi, &content);
    assert!(message.contains("holds a list at sample 0"), "{message}");
}

#[test]
fn padding_at_the_start_is_moved_to_the_end() {
    // As MMSA-FET writes with padding_location=start: text, audio and vision alike.
    let mut content = dataset(Kind::Mosi);
    let left = [
        0, 101, 2003, 102, 0, 1, 1, 1, 0, 0, 0, 0, 0, 0, 101, 102, 0, 0, 1, 1, 0, 0, 0, 0,
    ];
    everywhere(&mut content, "text_bert", &Py::ints(&[2, 3, 4], &left));
    // audio_lengths are 1 and 3 of 3.
    let audio = [0., 0., 0., 0., 1., 2., 3., 4., 5., 6., 7., 8.];
    everywhere(&mut content, "audio", &Py::floats(&[2, 3, 2], &audio));
    everywhere(
        &mut content,
        "vision_lengths",
        &Py::List(vec![Py::Int(1), Py::Int(2)]),
    );
    // Vision is padded at the end after all.
    let vision = [1., 2., 3., 0., 0., 0., 4., 5., 6., 7., 8., 9.];
    everywhere(&mut content, "vision", &Py::floats(&[2, 2, 3], &vision));
    let (imported, data) = import_bytes_with(
        Kind::Mosi,
        NonFinite::Reference,
        Reference::Mmsa,
        &content.pickle(),
    )
    .unwrap();
    let train = data.split(Split::Train);
    assert_eq!(
        train.text(),
        [
            101, 2003, 102, 0, 1, 1, 1, 0, 0, 0, 0, 0, 101, 102, 0, 0, 1, 1, 0, 0, 0, 0, 0, 0
        ]
    );
    assert_eq!(
        train.audio(),
        [1., 2., 0., 0., 0., 0., 3., 4., 5., 6., 7., 8.]
    );
    assert_eq!(train.vision(), vision);
    said(
        &imported.manifest.notes,
        "train: 2 texts are padded at the start (padding_location=start)",
    );
    said(
        &imported.manifest.notes,
        "train: the padding at the start of audio was moved to the end",
    );
    let moved = &treatment(&imported.manifest)[&Split::Train].moved;
    assert_eq!(moved.get("text_bert"), Some(&2));
    assert_eq!((moved.get("audio"), moved.get("vision")), (Some(&1), None));

    // Aligned and padded at the start: lengths are the text's, features are moved alike.
    without(&mut content, "audio_lengths");
    without(&mut content, "vision_lengths");
    let steps = [0., 1., 2., 3., 0., 0., 4., 5.];
    everywhere(&mut content, "audio", &Py::floats(&[2, 4, 1], &steps));
    everywhere(&mut content, "vision", &Py::floats(&[2, 4, 1], &steps));
    let (_, data) = pickler::imported(Kind::Mosi, &content);
    let test = data.split(Split::Test);
    assert_eq!(test.audio_lengths(), [3, 2]);
    assert_eq!(test.audio(), [1., 2., 3., 0., 4., 5., 0., 0.]);
    assert_eq!(test.vision(), test.audio());
    // A mask with a hole is neither.
    *field(&mut content, "train", "text_bert") =
        Py::ints(&[2, 3, 4], &[0, 1, 0, 1, 0, 1, 0, 1, 0, 0, 0, 0].repeat(2));
    assert!(refusal(Kind::Mosi, &content).contains("a mask that is not ones followed by zeros"));
}

#[test]
fn texts_that_are_not_utf8_are_shown_as_well_as_can_be() {
    let mut content = dataset(Kind::Mosi);
    // GBK bytes, a surrogate, no text at all (pandas' NaN).
    let odd = Py::List(vec![
        Py::Raw(b"C\x04\xc4\xe3\xba\xc3".to_vec()),
        Py::Raw(b"X\x04\0\0\0a\xed\xb2\x80".to_vec()),
    ]);
    *field(&mut content, "train", "raw_text") = odd;
    *field(&mut content, "valid", "raw_text") = Py::List(vec![Py::Float(f64::NAN), text("is")]);
    *field(&mut content, "test", "raw_text") = Py::Array {
        code: "S3",
        shape: vec![2, 1],
        data: b"ok\0\xff\xfea".to_vec(),
    };
    *field(&mut content, "test", "id") = Py::ints(&[2], &[17, 18]);
    let (notes, data) = imported(Kind::Mosi, &content);
    said(&notes, "train: 2 of `raw_text` are not UTF-8");
    said(&notes, "valid: 1 of `raw_text` are no texts and stay empty");
    said(&notes, "test: 1 of `raw_text` are not UTF-8");
    assert!(
        data.split(Split::Train)
            .raw_text(1)
            .starts_with("a\u{fffd}")
    );
    assert_eq!(data.split(Split::Valid).raw_text(0), "");
    assert_eq!(data.split(Split::Test).raw_text(0), "ok");
    assert_eq!(data.split(Split::Test).id(1), "18");
}

#[test]
fn needed_fields_of_other_classes_are_refused_by_name_with_a_way_on() {
    let tensor = Py::object(
        "torch._utils",
        "_rebuild_tensor_v2",
        &[
            Py::object("torch.storage", "_load_from_bytes", &[]),
            Py::Int(0),
        ],
    );
    let series = Py::Raw(b"cpandas.core.series\nSeries\n)\x81}b".to_vec());
    let memmap = Py::Raw(b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nmemmap\nK\x00\x85C\x01btR(K\x01K\x02\x85NNC\x02aatb".to_vec());
    let masked = Py::object(
        "numpy.ma.core",
        "_mareconstruct",
        &[Py::Raw(b"cnumpy.ma.core\nMaskedArray\n".to_vec())],
    );
    let times = Py::Array {
        code: "M8[ns]",
        shape: vec![2],
        data: vec![0; 16],
    };
    for (name, value, class, convert) in [
        (
            "audio",
            tensor.clone(),
            "a PyTorch tensor (`torch._utils._rebuild_tensor_v2`)",
            "x.detach().cpu().numpy()",
        ),
        (
            "vision",
            Py::List(vec![tensor.clone(), tensor]),
            "a list of a PyTorch tensor",
            "[e.detach().cpu().numpy() for e in x]",
        ),
        (
            "regression_labels",
            series.clone(),
            "a pandas Series (`pandas.core.series.Series`)",
            "numpy.array(x)",
        ),
        (
            "audio_lengths",
            series,
            "`audio_lengths` is a pandas Series",
            "numpy.array(x)",
        ),
        (
            "audio",
            memmap,
            "a memory-mapped array (`numpy.memmap`)",
            "numpy.array(x)",
        ),
        (
            "audio",
            masked,
            "a masked array (`numpy.ma.core.MaskedArray`)",
            "numpy.ma.filled(x, 0)",
        ),
        (
            "regression_labels",
            times,
            "arrays of type `M8[ns]`",
            "numpy.array(x)",
        ),
        ("text_bert", foreign(), "`os.mkdir`", "numpy.array(x)"),
    ] {
        let mut content = dataset(Kind::Mosi);
        everywhere(&mut content, name, &value);
        let message = refusal(Kind::Mosi, &content);
        for says in [
            &format!("split train: `{name}` is "),
            class,
            &format!("split test: `{name}` is "),
            "Nothing in the file was executed",
            "import pickle, numpy, gzip; d = pickle.load(open(\"",
            &format!(
                "for s, f in [(\"train\", \"{name}\"), (\"valid\", \"{name}\"), (\"test\", \"{name}\")]: x = d[s][f]; d[s][f] = {convert}\n"
            ),
            "pickle.dump(d, open(\"",
        ] {
            assert!(message.contains(says), "`{says}` is not in {message}");
        }
        // Three lines of Python.
        assert_eq!(message.lines().count(), 4, "{message}");
    }
    // A table for a split.
    let mut content = dataset(Kind::Mosi);
    entries(&mut content)[1].1 = Py::Raw(b"cpandas.core.frame\nDataFrame\n)\x81}b".to_vec());
    let message = refusal(Kind::Mosi, &content);
    assert!(
        message.contains("split valid is a pandas DataFrame"),
        "{message}"
    );
    assert!(
        message.contains("d[s] = {f: list(d[s][f]) for f in d[s].keys()}"),
        "{message}"
    );
    // The whole file.
    let message = refusal(
        Kind::Mosi,
        &Py::Raw(b"cpandas.core.frame\nDataFrame\n)\x81}b".to_vec()),
    );
    assert!(
        message.contains("the file holds an object of `pandas.core.frame.DataFrame`, a dict"),
        "{message}"
    );
    assert!(!std::path::Path::new("/tmp/missbench-was-here").exists());
}

#[test]
fn another_datasets_file_is_noticed() {
    let (notes, _) = imported(Kind::Mosi, &dataset(Kind::Sims));
    said(&notes, "labels of each modality alone, as SIMS has");
    let mut content = dataset(Kind::Mosi);
    everywhere(
        &mut content,
        "raw_text",
        &Py::List(vec![text("你好"), text("很好")]),
    );
    let (notes, _) = imported(Kind::Mosi, &content);
    said(
        &notes,
        "most texts are Chinese, and mosi is English: did you mean --as sims?",
    );
    let (notes, _) = imported(Kind::Sims, &dataset(Kind::Sims));
    said(&notes, "no text is Chinese");
    // Labels within [-1, 1], enough of them to tell.
    let samples = 100i64;
    let mut content = dataset(Kind::Mosi);
    let rows = [101, 102, 1, 1, 0, 0].repeat(samples as usize);
    everywhere(
        &mut content,
        "text_bert",
        &Py::ints(&[samples, 3, 2], &rows),
    );
    everywhere(
        &mut content,
        "audio",
        &Py::floats(&[samples, 1, 1], &vec![0.0; 100]),
    );
    everywhere(
        &mut content,
        "vision",
        &Py::floats(&[samples, 1, 1], &vec![0.0; 100]),
    );
    everywhere(
        &mut content,
        "regression_labels",
        &Py::floats(&[samples], &vec![-1.0; 100]),
    );
    for name in ["audio_lengths", "id", "raw_text"] {
        without(&mut content, name);
    }
    let (notes, _) = imported(Kind::Mosi, &content);
    said(&notes, "all labels are within [-1, 1]");
    everywhere(
        &mut content,
        "regression_labels",
        &Py::floats(&[samples], &vec![1.2; 100]),
    );
    let (notes, _) = imported(Kind::Mosi, &content);
    assert!(
        !notes.iter().any(|note| note.contains("all labels")),
        "{notes:?}"
    );
}
