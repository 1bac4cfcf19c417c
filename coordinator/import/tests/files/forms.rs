//! Feature files in the forms in which people share them: what is clear is read as it is meant and
//! said, what is not is refused in words that help.

use crate::pickler::{
    Py, dataset, entries, everywhere, field, foreign, import_bytes, import_bytes_with, imported,
    refusal, said, same, text, treatment,
};
use halfheard_import::{
    ImportError,
    nonfinite::{NonFinite, Reference},
};
use halfheard_shared::dataset::{Kind, LengthSource, Split};

#[test]
fn unneeded_fields_may_hold_anything() {
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
    assert!(!std::path::Path::new("/tmp/halfheard-was-here").exists());
}

#[test]
fn dicts_of_derived_classes_are_accepted() {
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
fn dict_of_splits_is_found_in_list_or_later_pickle() {
    let (_, plain) = imported(Kind::Mosi, &dataset(Kind::Mosi));
    let (notes, data) = imported(
        Kind::Mosi,
        &Py::List(vec![text("features"), dataset(Kind::Mosi)]),
    );
    same(&plain, &data);
    said(&notes, "is inside a list");
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
        message.contains("the file holds a list, expected a dict of `train`"),
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
fn common_names_of_splits_are_accepted() {
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
        message.contains("missing split `valid`; dev and val"),
        "{message}"
    );
    let mut content = dataset(Kind::Mosi);
    entries(&mut content).push(("dev".to_owned(), other));
    let (_, data) = imported(Kind::Mosi, &content);
    same(&plain, &data);
}

#[test]
fn sims_v2_follows_protocol_of_sims() {
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
fn text_tensors_of_any_layout_and_type_are_accepted() {
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
    said(&notes, "train: text_bert is [N, L, 3] and was transposed");
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
            "has shape [2, 4, 4], expected [N, 3, L]",
        ),
        (
            Py::List(vec![one(), Py::Int(3)]),
            "holds an integer at sample 1, expected a two-dimensional array",
        ),
        (
            Py::List(vec![one(), Py::floats(&[3, 4], &[0.5; 12])]),
            "sample 1: value 0.5 at position 0 is not an integer",
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
fn features_as_lists_of_unequal_arrays_are_padded() {
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
fn labels_and_lengths_as_any_list_are_accepted() {
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
