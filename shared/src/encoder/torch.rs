//! The tensors of a `pytorch_model.bin`: what `torch.save` makes of a model's weights.
//!
//! It is a zip of a pickle and of the tensors' numbers, or, as PyTorch wrote it before 1.6, several
//! pickles followed by the numbers. The pickle names functions that rebuild tensors and the kinds of
//! their storages. Those few names are known here and done by hand; an object of any other is
//! refused, and nothing is ever executed.

use super::{
    error::{AGAIN, EncoderError, Result, convert},
    files::recognize,
    values::{Dtype, Place},
    zip,
};
use crate::pickle::{Limits, Pickle, Value};
use std::{collections::HashMap, ops::Range, path::Path};

/// A model has some hundred tensors.
const LIMITS: Limits = Limits {
    objects: 2_000_000,
    memo: 500_000,
    depth: 64,
    stack: 500_000,
};

/// The most dimensions of a tensor.
const MAX_DIMS: usize = 8;

/// How a file of the old kind begins: a pickle of its magic number.
const MAGIC: &[u8] = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.";

/// The tensors of `folder/name`, whose content is `bytes` and whose index among the encoder's files
/// is `file`.
pub(super) fn tensors(
    folder: &Path,
    name: &str,
    bytes: &[u8],
    file: usize,
) -> Result<Vec<(String, Place)>> {
    let read = if let Some(kind) = recognize(bytes) {
        let found = format!("its {name} is {}", kind.what);
        return Err(EncoderError::new(folder, found, kind.remedy));
    } else if bytes.starts_with(b"PK\x03\x04") {
        zipped(bytes)
    } else if bytes.starts_with(MAGIC) {
        legacy(bytes)
    } else {
        Err(Problem::damaged(
            "is none of the files that `torch.save` writes",
        ))
    };
    let places = read.map_err(|problem| {
        let remedy = match problem.convert {
            true => convert(folder, ""),
            false => AGAIN.to_owned(),
        };
        EncoderError::new(folder, format!("its {name} {}", problem.what), remedy)
    })?;
    Ok(places
        .into_iter()
        .map(|(tensor, place)| (tensor, Place { file, ..place }))
        .collect())
}

/// What is wrong with a file.
struct Problem {
    what: String,
    /// Whether writing it anew with another program helps; otherwise it is damaged.
    convert: bool,
}

impl Problem {
    fn damaged(what: impl Into<String>) -> Self {
        Self {
            what: what.into(),
            convert: false,
        }
    }

    fn foreign(what: impl Into<String>) -> Self {
        Self {
            what: what.into(),
            convert: true,
        }
    }
}

type Read<T> = std::result::Result<T, Problem>;

fn unpickled<'a>(bytes: &'a [u8], at: usize) -> Read<Pickle<'a>> {
    Pickle::read_at(bytes, at, LIMITS)
        .map_err(|e| Problem::damaged(format!("holds a pickle that cannot be read: {e}")))
}

/// The kind of file that PyTorch writes since 1.6.
fn zipped(bytes: &[u8]) -> Read<Vec<(String, Place)>> {
    let files = zip::files(bytes).map_err(Problem::damaged)?;
    // All lie in one folder, whose name is that of the file as it was written.
    let prefix = files
        .keys()
        .find_map(|name| name.strip_suffix("data.pkl"))
        .filter(|prefix| prefix.matches('/').count() == 1)
        .ok_or_else(|| Problem::damaged("is a zip, but none that `torch.save` writes"))?
        .to_owned();
    let part = |name: &str| files.get(&format!("{prefix}{name}")).cloned();
    let content = |name: &str| part(name).and_then(|range| bytes.get(range));
    if content("byteorder").is_some_and(|order| order != b"little") {
        return Err(Problem::foreign("was written on a big-endian machine"));
    }
    let state = content("data.pkl").unwrap_or_default();
    let pickle = unpickled(state, 0)?;
    let described = described(&pickle)?;
    described
        .into_iter()
        .map(|(name, tensor)| {
            let range = part(&format!("data/{}", tensor.storage))
                .ok_or_else(|| Problem::damaged(format!("lacks the numbers of `{name}`")))?;
            let place = tensor.place(&name, range)?;
            Ok((name, place))
        })
        .collect()
}

/// The kind of file that PyTorch wrote before 1.6.
fn legacy(bytes: &[u8]) -> Read<Vec<(String, Place)>> {
    let version = unpickled(bytes, MAGIC.len())?;
    if version.root() != Value::Int(1001) {
        return Err(Problem::foreign("has an unknown version"));
    }
    let system = unpickled(bytes, version.end())?;
    if system.get(system.root(), "little_endian") == Some(Value::Bool(false)) {
        return Err(Problem::foreign("was written on a big-endian machine"));
    }
    let state = unpickled(bytes, system.end())?;
    let described = described(&state)?;
    let sizes: HashMap<&str, usize> = described
        .iter()
        .map(|(_, tensor)| (tensor.storage.as_str(), tensor.bytes_a_number))
        .collect();
    let keys = unpickled(bytes, state.end())?;
    // The storages follow in the order of their keys, each behind its count of numbers.
    let mut storages: HashMap<&str, Range<usize>> = HashMap::new();
    let mut at = keys.end();
    for key in keys.items(keys.root()).unwrap_or_default() {
        let key = keys.text(*key).unwrap_or_default();
        let cut = || Problem::damaged("is cut off: numbers are missing at its end");
        let count = bytes.get(at..).and_then(|rest| rest.first_chunk::<8>());
        let count = usize::try_from(u64::from_le_bytes(*count.ok_or_else(cut)?)).ok();
        let Some(size) = sizes.get(key) else {
            return Err(Problem::foreign(format!(
                "has a storage `{}` that no tensor uses",
                key.chars().take(40).collect::<String>()
            )));
        };
        let end = count
            .and_then(|count| count.checked_mul(*size)?.checked_add(at + 8))
            .filter(|end| *end <= bytes.len())
            .ok_or_else(cut)?;
        storages.insert(key, at + 8..end);
        at = end;
    }
    described
        .iter()
        .map(|(name, tensor)| {
            let range = storages
                .get(tensor.storage.as_str())
                .ok_or_else(|| Problem::damaged(format!("lacks the numbers of `{name}`")))?;
            Ok((name.clone(), tensor.place(name, range.clone())?))
        })
        .collect()
}

/// A tensor as the pickle describes it.
struct Described {
    /// The key of its storage.
    storage: String,
    dtype: Dtype,
    bytes_a_number: usize,
    /// In numbers.
    offset: usize,
    shape: Vec<usize>,
    strides: Vec<usize>,
}

impl Described {
    /// Where it lies, its storage being `range` of the file.
    fn place(&self, name: &str, range: Range<usize>) -> Read<Place> {
        let beyond = || {
            Problem::damaged(format!(
                "says of `{name}` that it extends beyond its storage"
            ))
        };
        let held = range.len() / self.bytes_a_number.max(1);
        let count = self
            .shape
            .iter()
            .try_fold(1_usize, |all, dim| all.checked_mul(*dim))
            .ok_or_else(beyond)?;
        let last = self
            .shape
            .iter()
            .zip(&self.strides)
            .try_fold(self.offset, |at, (dim, stride)| {
                dim.saturating_sub(1).checked_mul(*stride)?.checked_add(at)
            })
            .ok_or_else(beyond)?;
        // Numbers that are shared (a stride of 0) would let a small file ask for any memory.
        if count > held || (count > 0 && last >= held) {
            return Err(beyond());
        }
        let mut expected = 1;
        let mut in_order = true;
        for (dim, stride) in self.shape.iter().zip(&self.strides).rev() {
            in_order &= *dim == 1 || *stride == expected;
            expected *= dim;
        }
        Ok(Place {
            file: 0,
            dtype: self.dtype,
            shape: self.shape.clone(),
            strides: (!in_order).then(|| self.strides.clone()),
            at: range.start + self.offset * self.bytes_a_number,
        })
    }
}

#[cfg(test)]
pub(super) fn lies_beyond(shape: &[usize], strides: &[usize], bytes: usize) -> bool {
    let described = Described {
        storage: String::new(),
        dtype: Dtype::F32,
        bytes_a_number: 4,
        offset: 0,
        shape: shape.to_vec(),
        strides: strides.to_vec(),
    };
    described.place("x", 0..bytes).is_err()
}

/// The tensors that a pickled `state_dict` describes, by name.
fn described(pickle: &Pickle<'_>) -> Read<Vec<(String, Described)>> {
    let root = pickle.root();
    let (Value::Dict(_), Some(entries)) = (root, pickle.entries(root)) else {
        let what = pickle.describe(root);
        return Err(Problem::foreign(format!(
            "holds {what}; the weights alone are expected (`model.state_dict()`)"
        )));
    };
    let mut tensors = Vec::new();
    for (key, value) in entries {
        let Some(name) = pickle.text(key) else {
            continue;
        };
        match value {
            Value::Object(_) => {
                let tensor = tensor(pickle, value).map_err(|why| {
                    let what: String = name.chars().take(80).collect();
                    match why {
                        Some(why) => Problem::foreign(format!("holds `{what}`, {why}")),
                        None => Problem::foreign(format!(
                            "holds `{what}`, {}, and a tensor is expected; nothing of it was \
                             executed",
                            pickle.describe(value)
                        )),
                    }
                })?;
                tensors.push((name.to_owned(), tensor));
            }
            // A trainer's checkpoint has the weights one level below.
            Value::Dict(_) if name == "state_dict" || name == "model_state_dict" => {
                return Err(Problem::foreign(format!(
                    "is a trainer's checkpoint, with the weights under `{name}`; the weights alone \
                     are expected"
                )));
            }
            Value::Class(_) | Value::Global(_) | Value::Persistent(_) => {
                return Err(Problem::foreign(format!(
                    "holds {} among its weights; nothing of it was executed",
                    pickle.describe(value)
                )));
            }
            // A number of steps, a text: no weight.
            _ => {}
        }
    }
    Ok(tensors)
}

/// The tensor that `value` would rebuild. `Err(None)`: it is none.
fn tensor<'a>(
    pickle: &Pickle<'a>,
    value: Value<'a>,
) -> std::result::Result<Described, Option<&'static str>> {
    let object = pickle.object(value).ok_or(None)?;
    let args = pickle.items(object.args).ok_or(None)?;
    let (size, stride, storage, offset) = match (pickle.class(object.of), args) {
        (Some(("torch._utils", "_rebuild_parameter")), [inner, ..]) => {
            // A parameter is a tensor; one within another is none that PyTorch writes.
            let of = pickle.object(*inner).map(|inner| inner.of);
            return match of.and_then(|of| pickle.class(of)) {
                Some(("torch._utils", "_rebuild_parameter")) | None => Err(None),
                Some(_) => tensor(pickle, *inner),
            };
        }
        (
            Some(("torch._utils", "_rebuild_tensor_v2" | "_rebuild_tensor")),
            [storage, offset, size, stride, ..],
        ) => (*size, *stride, *storage, *offset),
        _ => return Err(None),
    };
    let id = pickle.persistent_id(storage).ok_or(None)?;
    let [kind, class, key, _place, _count, view @ ..] = pickle.items(id).ok_or(None)? else {
        return Err(None);
    };
    if pickle.text(*kind) != Some("storage") {
        return Err(None);
    }
    if view.iter().any(|view| *view != Value::None) {
        return Err(Some("which is a view, as PyTorch no longer writes them"));
    }
    let (dtype, bytes_a_number) = match pickle.class(*class) {
        Some(("torch", "FloatStorage")) => (Dtype::F32, 4),
        Some(("torch", "HalfStorage")) => (Dtype::F16, 2),
        Some(("torch", "BFloat16Storage")) => (Dtype::BF16, 2),
        Some(("torch", "DoubleStorage")) => (Dtype::F64, 8),
        Some(("torch", "LongStorage")) => (Dtype::Other("I64"), 8),
        Some(("torch", "IntStorage")) => (Dtype::Other("I32"), 4),
        Some(("torch", "ShortStorage")) => (Dtype::Other("I16"), 2),
        Some(("torch", "CharStorage")) => (Dtype::Other("I8"), 1),
        Some(("torch", "ByteStorage")) => (Dtype::Other("U8"), 1),
        Some(("torch", "BoolStorage")) => (Dtype::Other("BOOL"), 1),
        _ => return Err(Some("whose storage is of an unknown kind")),
    };
    let whole = |value: Value<'a>| match value {
        Value::Int(number) => usize::try_from(number).ok(),
        _ => None,
    };
    let list = |value: Value<'a>| -> Option<Vec<usize>> {
        let items = pickle
            .items(value)
            .filter(|items| items.len() <= MAX_DIMS)?;
        items.iter().map(|item| whole(*item)).collect()
    };
    let (Some(shape), Some(strides), Some(offset), Some(key)) =
        (list(size), list(stride), whole(offset), pickle.text(*key))
    else {
        return Err(Some("whose size makes no sense"));
    };
    if shape.len() != strides.len() {
        return Err(Some("whose size makes no sense"));
    }
    Ok(Described {
        storage: key.to_owned(),
        dtype,
        bytes_a_number,
        offset,
        shape,
        strides,
    })
}
