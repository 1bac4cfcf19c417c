//! Writes small pickles of protocol 4, as Python would, and imports them.

#![allow(dead_code, reason = "not every test uses all of it")]

use halfheard_import::{
    ImportError,
    import::{Imported, Request, import},
    nonfinite::{NonFinite, Reference},
};
use halfheard_shared::dataset::{DataFolder, Dataset, Kind, Manifest, Source, Split, Treatment};
use halfheard_shared::error::{Printer, hint_of};
use std::{collections::BTreeMap, path::Path};

/// Imports a file as the dataset `x` of the data folder at `root`.
pub(crate) fn import_as(kind: Kind, file: &Path, root: &Path) -> Result<Imported, ImportError> {
    import_with(kind, NonFinite::Reference, Reference::Mmsa, file, root)
}

/// The same, with a word on what is not finite.
pub(crate) fn import_with(
    kind: Kind,
    nonfinite: NonFinite,
    reference: Reference,
    file: &Path,
    root: &Path,
) -> Result<Imported, ImportError> {
    let folder = DataFolder::new(root);
    let request = Request {
        file,
        kind,
        nonfinite,
        reference,
        name: "x",
        folder: &folder,
        replace: true,
        max_bytes: None,
    };
    import(&request, &mut |_, _, _| {})
}

/// Imports bytes; on refusal nothing may be left behind.
pub(crate) fn import_bytes(kind: Kind, bytes: &[u8]) -> Result<Imported, ImportError> {
    import_bytes_with(kind, NonFinite::Reference, Reference::Mmsa, bytes)
        .map(|(imported, _)| imported)
}

/// The same with a word on what is not finite, and the dataset that was made.
pub(crate) fn import_bytes_with(
    kind: Kind,
    nonfinite: NonFinite,
    reference: Reference,
    bytes: &[u8],
) -> Result<(Imported, Dataset), ImportError> {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("features.pkl");
    std::fs::write(&file, bytes).unwrap();
    let root = dir.path().join("data");
    let imported = import_with(kind, nonfinite, reference, &file, &root);
    if imported.is_err() {
        let left = std::fs::read_dir(root.join("datasets")).map_or(0, Iterator::count);
        assert_eq!(left, 0, "a refused file leaves nothing");
    }
    // The map outlives the folder that it is in.
    imported.map(|imported| {
        let data = Dataset::open(&imported.path).unwrap();
        (imported, data)
    })
}

/// Imports a sound file: the notes and the dataset.
pub(crate) fn imported(kind: Kind, content: &Py) -> (Vec<String>, Dataset) {
    let (imported, data) = import_bytes_with(
        kind,
        NonFinite::Reference,
        Reference::Mmsa,
        &content.pickle(),
    )
    .unwrap();
    (imported.manifest.notes, data)
}

/// The error of a rejected file, with causes and hint.
pub(crate) fn refusal(kind: Kind, content: &Py) -> String {
    report(&import_bytes(kind, &content.pickle()).unwrap_err())
}

/// An error as it is printed, with causes and hint.
pub(crate) fn report(error: &ImportError) -> String {
    Printer::new(&[hint_of::<ImportError>]).plain(error)
}

/// A Python value.
#[derive(Clone)]
pub(crate) enum Py {
    /// `None`.
    None,
    /// An integer.
    Int(i64),
    /// A text.
    Text(String),
    /// A float.
    Float(f64),
    /// A list.
    List(Vec<Py>),
    /// The opcodes of a value, as they are.
    Raw(Vec<u8>),
    /// A dict with text keys.
    Dict(Vec<(String, Py)>),
    /// A little-endian NumPy array in C order.
    Array {
        /// Its type, `f4`.
        code: &'static str,
        /// Its shape.
        shape: Vec<i64>,
        /// Its bytes.
        data: Vec<u8>,
    },
}

impl Py {
    /// An `f4` array.
    pub(crate) fn floats(shape: &[i64], values: &[f32]) -> Self {
        let data = values.iter().flat_map(|x| x.to_le_bytes()).collect();
        Py::Array {
            code: "f4",
            shape: shape.to_vec(),
            data,
        }
    }

    /// An `i8` array.
    pub(crate) fn ints(shape: &[i64], values: &[i64]) -> Self {
        let data = values.iter().flat_map(|x| x.to_le_bytes()).collect();
        Py::Array {
            code: "i8",
            shape: shape.to_vec(),
            data,
        }
    }

    /// An `f8` array.
    pub(crate) fn doubles(shape: &[i64], values: &[f64]) -> Self {
        let data = values.iter().flat_map(|x| x.to_le_bytes()).collect();
        Py::Array {
            code: "f8",
            shape: shape.to_vec(),
            data,
        }
    }

    /// An array of objects.
    pub(crate) fn objects(shape: &[i64], items: Vec<Py>) -> Self {
        let mut out =
            b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85C\x01b\x87R(K\x01("
                .to_vec();
        shape.iter().for_each(|&size| Py::Int(size).write(&mut out));
        out.extend(b"tcnumpy\ndtype\nX\x02\x00\x00\x00O8\x89\x88\x87R(K\x03X\x01\x00\x00\x00|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK?tb\x89");
        Py::List(items).write(&mut out);
        out.extend(b"tb");
        Py::Raw(out)
    }

    /// An object of a class, made of positional arguments.
    pub(crate) fn object(module: &str, name: &str, args: &[Py]) -> Self {
        let mut out = format!("c{module}\n{name}\n(").into_bytes();
        args.iter().for_each(|arg| arg.write(&mut out));
        out.extend(b"tR");
        Py::Raw(out)
    }

    /// The pickle of this value.
    pub(crate) fn pickle(&self) -> Vec<u8> {
        let mut out = b"\x80\x04".to_vec();
        self.write(&mut out);
        out.push(b'.');
        out
    }

    fn write(&self, out: &mut Vec<u8>) {
        match self {
            Py::None => out.push(b'N'),
            Py::Int(number) => {
                out.extend(b"\x8a\x08");
                out.extend(number.to_le_bytes());
            }
            Py::Text(text) => {
                out.push(b'X');
                out.extend((text.len() as u32).to_le_bytes());
                out.extend(text.as_bytes());
            }
            Py::Float(number) => {
                out.push(b'G');
                out.extend(number.to_be_bytes());
            }
            Py::Raw(opcodes) => out.extend(opcodes),
            Py::List(items) => {
                out.extend(b"](");
                items.iter().for_each(|item| item.write(out));
                out.push(b'e');
            }
            Py::Dict(entries) => {
                out.extend(b"}(");
                for (key, value) in entries {
                    Py::Text(key.clone()).write(out);
                    value.write(out);
                }
                out.push(b'u');
            }
            Py::Array { code, shape, data } => {
                out.extend(b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85C\x01b\x87R(K\x01(");
                shape.iter().for_each(|&size| Py::Int(size).write(out));
                out.extend(b"tcnumpy\ndtype\n");
                Py::Text((*code).to_owned()).write(out);
                out.extend(b"\x89\x88\x87R(K\x03");
                Py::Text("<".to_owned()).write(out);
                out.extend(b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89B");
                out.extend((data.len() as u32).to_le_bytes());
                out.extend(data);
                out.extend(b"tb");
            }
        }
    }
}

/// A sound dataset of two samples a split: text `[2, 3, 4]`, audio `[2, 3, 2]`, vision `[2, 2, 3]`.
pub(crate) fn dataset(kind: Kind) -> Py {
    let split = || {
        let text = [101, 2003, 102, 0, 1, 1, 1, 0, 0, 0, 0, 0];
        let mut fields = vec![
            ("text_bert", Py::ints(&[2, 3, 4], &text.repeat(2))),
            ("audio", Py::floats(&[2, 3, 2], &[0.5; 12])),
            ("vision", Py::floats(&[2, 2, 3], &[-0.5; 12])),
            ("regression_labels", Py::floats(&[2], &[-1.0, 0.5])),
            ("audio_lengths", Py::List(vec![Py::Int(1), Py::Int(3)])),
            (
                "id",
                Py::List(vec![Py::Text("a".into()), Py::Text("b".into())]),
            ),
            (
                "raw_text",
                Py::List(vec![Py::Text("is".into()), Py::Text("is".into())]),
            ),
        ];
        if kind.has_unimodal_labels() {
            fields.push(("regression_labels_T", Py::floats(&[2], &[0.25; 2])));
            fields.push(("regression_labels_A", Py::floats(&[2], &[0.5; 2])));
            fields.push(("regression_labels_V", Py::floats(&[2, 1], &[0.75; 2])));
        }
        Py::Dict(
            fields
                .into_iter()
                .map(|(name, value)| (name.to_owned(), value))
                .collect(),
        )
    };
    Py::Dict(
        ["train", "valid", "test"]
            .map(|name| (name.to_owned(), split()))
            .to_vec(),
    )
}

/// One field of a split, to change it.
pub(crate) fn field<'a>(content: &'a mut Py, split: &str, name: &str) -> &'a mut Py {
    let Py::Dict(splits) = content else {
        panic!("no dict")
    };
    let (_, fields) = splits.iter_mut().find(|(key, _)| key == split).unwrap();
    let Py::Dict(fields) = fields else {
        panic!("no dict")
    };
    &mut fields.iter_mut().find(|(key, _)| key == name).unwrap().1
}

/// A text.
pub(crate) fn text(s: &str) -> Py {
    Py::Text(s.to_owned())
}

/// The entries of a dict, to change them.
pub(crate) fn entries(dict: &mut Py) -> &mut Vec<(String, Py)> {
    match dict {
        Py::Dict(entries) => entries,
        _ => panic!("no dict"),
    }
}

/// Sets one field in every split.
pub(crate) fn everywhere(content: &mut Py, name: &str, value: &Py) {
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

/// Takes one field away from every split.
pub(crate) fn without(content: &mut Py, name: &str) {
    everywhere(content, name, &Py::None);
}

/// What an import did to each split.
pub(crate) fn treatment(manifest: &Manifest) -> &BTreeMap<Split, Treatment> {
    match &manifest.source {
        Source::Import { treatment, .. } => treatment,
        Source::Synthesize { .. } => panic!("it was imported"),
    }
}

/// Whether a note says this.
pub(crate) fn said(notes: &[String], what: &str) {
    assert!(
        notes.iter().any(|note| note.contains(what)),
        "`{what}` is not in {notes:?}"
    );
}

/// Whether two datasets hold the same, text, features, labels and lengths.
pub(crate) fn same(a: &Dataset, b: &Dataset) {
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
pub(crate) fn foreign() -> Py {
    Py::object("os", "mkdir", &[text("/tmp/halfheard-was-here")])
}
