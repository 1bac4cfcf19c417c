//! Writes small pickles of protocol 4, as Python would.

use missbench_shared::dataset::Kind;

/// A Python value.
#[derive(Clone)]
pub enum Py {
    /// `None`.
    None,
    /// An integer.
    Int(i64),
    /// A text.
    Text(String),
    /// A list.
    List(Vec<Py>),
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
    pub fn floats(shape: &[i64], values: &[f32]) -> Self {
        let data = values.iter().flat_map(|x| x.to_le_bytes()).collect();
        Py::Array {
            code: "f4",
            shape: shape.to_vec(),
            data,
        }
    }

    /// An `i8` array.
    pub fn ints(shape: &[i64], values: &[i64]) -> Self {
        let data = values.iter().flat_map(|x| x.to_le_bytes()).collect();
        Py::Array {
            code: "i8",
            shape: shape.to_vec(),
            data,
        }
    }

    /// The pickle of this value.
    pub fn pickle(&self) -> Vec<u8> {
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
pub fn dataset(kind: Kind) -> Py {
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
pub fn field<'a>(content: &'a mut Py, split: &str, name: &str) -> &'a mut Py {
    let Py::Dict(splits) = content else {
        panic!("no dict")
    };
    let (_, fields) = splits.iter_mut().find(|(key, _)| key == split).unwrap();
    let Py::Dict(fields) = fields else {
        panic!("no dict")
    };
    &mut fields.iter_mut().find(|(key, _)| key == name).unwrap().1
}
