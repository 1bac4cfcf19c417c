//! What becomes of a file's values on their way: those that are not finite, lengths that are not
//! given, padding at the start, texts that are none, fields that are opaque; and of the name.

use crate::pickler::{
    Py, dataset, entries, everywhere, field, foreign, import_as, import_bytes_with, imported,
    refusal, report, said, text, treatment, without,
};
use halfheard_import::{
    ImportError,
    import::{Request, import},
    nonfinite::{NonFinite, Reference},
};
use halfheard_shared::dataset::{
    DataFolder, Dataset, DatasetError, Kind, LengthSource, NotFinite, Split,
};
use std::path::Path;

#[test]
fn non_finite_values_are_counted_or_rejected_by_choice() {
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

    // The whole file is checked before it is refused, and every problem is reported.
    let message = report(&with(NonFinite::Reference).unwrap_err());
    for says in [
        "split train: `audio`, sample 1: NaN at step 1, feature 0;",
        "split test: `vision`, sample 0: inf at step 1, feature 1, the first of 3 (1 -inf, 1 +inf, 1 too large for float32)",
        "--nonfinite zero",
    ] {
        assert!(message.contains(says), "`{says}` is not in {message}");
    }
    let message = report(&with(NonFinite::Refuse).unwrap_err());
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
fn aligned_files_take_lengths_of_text() {
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
        "treated as aligned, with the lengths of the text's mask",
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
        "test: the file has no vision_lengths; every sample is treated as full",
    );
    everywhere(&mut content, "vision", &Py::floats(&[2, 3, 1], &[0.5; 6]));
    let (imported, data) = import(&content);
    assert_eq!(data.split(Split::Test).audio_lengths(), [4, 4]);
    said(
        &imported.manifest.notes,
        "test: the file has no audio_lengths; every sample is treated as full",
    );
}

#[test]
fn start_padding_is_moved_to_end() {
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
    let (_, data) = crate::pickler::imported(Kind::Mosi, &content);
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
fn invalid_utf8_in_texts_is_replaced() {
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
    said(&notes, "train: 2 of `raw_text` are not valid UTF-8");
    said(
        &notes,
        "valid: 1 of `raw_text` are not texts and were left empty",
    );
    said(&notes, "test: 1 of `raw_text` are not valid UTF-8");
    assert!(
        data.split(Split::Train)
            .raw_text(1)
            .starts_with("a\u{fffd}")
    );
    assert_eq!(data.split(Split::Valid).raw_text(0), "");
    assert_eq!(data.split(Split::Test).raw_text(0), "ok");
    assert_eq!(data.split(Split::Test).id(1), "18");
}

#[expect(clippy::too_many_lines, reason = "one scenario, step by step")]
#[test]
fn required_fields_of_other_classes_are_rejected_with_conversion() {
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
            "nothing in the file was executed",
            "import pickle, numpy, gzip; d = pickle.load(open(\"",
            &format!(
                "for s, f in [(\"train\", \"{name}\"), (\"valid\", \"{name}\"), (\"test\", \"{name}\")]: x = d[s][f]; d[s][f] = {convert}\n"
            ),
            "pickle.dump(d, open(\"",
        ] {
            assert!(message.contains(says), "`{says}` is not in {message}");
        }
        // Three lines of Python.
        assert_eq!(message.lines().count(), 5, "{message}");
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
        message
            .contains("the file holds an object of `pandas.core.frame.DataFrame`, expected a dict"),
        "{message}"
    );
    assert!(!std::path::Path::new("/tmp/halfheard-was-here").exists());
}

#[test]
fn file_of_another_dataset_is_noted() {
    let (notes, _) = imported(Kind::Mosi, &dataset(Kind::Sims));
    said(&notes, "labels for each modality, as SIMS has");
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

#[test]
fn existing_name_is_not_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let folder = DataFolder::new(dir.path());
    let file = dir.path().join("f");
    let try_import = |content: Py| {
        std::fs::write(&file, content.pickle()).unwrap();
        let request = Request {
            file: &file,
            kind: Kind::Mosi,
            nonfinite: NonFinite::Reference,
            reference: Reference::Mmsa,
            name: "x",
            folder: &folder,
            replace: false,
            max_bytes: None,
        };
        import(&request, &mut |_, _, _| {})
    };
    let first = try_import(dataset(Kind::Mosi)).unwrap();
    let mut other = dataset(Kind::Mosi);
    *field(&mut other, "test", "regression_labels") = Py::floats(&[2, 1], &[1.0, 2.0]);
    let error = try_import(other).unwrap_err();
    assert!(
        matches!(error, ImportError::Dataset(DatasetError::Taken { .. })),
        "{error}"
    );
    assert_eq!(folder.manifest("x").unwrap(), first.manifest);
    try_import(dataset(Kind::Mosi)).expect("the same content is no conflict");
}

#[test]
fn real_mosi_file_is_imported() {
    let shared = std::env::var("HALFHEARD_SHARED")
        .unwrap_or_else(|_| concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared").to_owned());
    let file = Path::new(&shared).join("data/mosi_utterance_50.pkl.gz");
    if !file.exists() {
        eprintln!("skipped: there is no {}", file.display());
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let imported = import_as(Kind::Mosi, &file, dir.path()).unwrap();
    let manifest = &imported.manifest;
    let sizes = Split::ALL.map(|split| manifest.splits[&split].samples);
    assert_eq!(Some(sizes), Kind::Mosi.paper_sizes());
    assert_eq!(manifest.notes, [""; 0]);
    let data = Dataset::open(&imported.path).unwrap();
    assert_eq!(
        (
            data.shapes().audio_dim,
            data.shapes().vision_dim,
            data.shapes().text_len
        ),
        (73, 100, 50)
    );
    let test = data.split(Split::Test);
    // The file's description: 57.8% of the non-zero test labels have one sign.
    let negative = test.labels().iter().filter(|&&y| y < 0.0).count() as f64;
    let nonzero = test.labels().iter().filter(|&&y| y != 0.0).count() as f64;
    assert!(
        (negative / nonzero - 0.578).abs() < 0.001,
        "{}",
        negative / nonzero
    );
    for sample in 0..test.len() {
        let row = &test.text()[sample * 150..][..150];
        let tokens = row[50..100].iter().filter(|&&m| m == 1).count();
        assert_eq!((row[0], row[tokens - 1]), (101, 102));
        assert!(!test.id(sample).is_empty() && !test.raw_text(sample).is_empty());
    }
}
