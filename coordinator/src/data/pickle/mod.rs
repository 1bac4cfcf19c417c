//! Reads the field's feature pickles without ever executing what they name.
//!
//! Python's own unpickler imports and calls whatever a pickle asks for. Here a pickle is data: the
//! few constructors that NumPy's arrays need are recognised by name and done by hand, every other
//! name is refused with its offset. Array contents are borrowed from the input, never copied, but
//! for protocols 0 to 2, where bytes are written as text.
//!
//! Protocols 0 to 5, arrays by NumPy 1 and 2. Nesting, objects, stack and copied bytes are bounded
//! by [`Limits`]; no input makes this panic or use more than a few hundred megabytes beyond itself.

mod cursor;
mod error;
mod machine;
mod numpy;
mod view;

pub use error::{PickleError, PickleErrorKind};
pub use numpy::{Dtype, DtypeKind};
pub use view::{ArrayView, NotANumber};

use std::borrow::Cow;

/// Bounds on what a pickle may ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Containers, container items, memo entries and arrays together.
    pub objects: usize,
    /// Containers inside containers, and open marks.
    pub depth: usize,
    /// Values on the stack.
    pub stack: usize,
}

impl Default for Limits {
    fn default() -> Self {
        // The largest of the field's files, MOSEI, has about 200,000 objects at a depth of 4.
        Self {
            objects: 8_000_000,
            depth: 64,
            stack: 2_000_000,
        }
    }
}

/// An index into one of a pickle's tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Handle(u32);

/// A value in a pickle. Small: containers and arrays stand in the pickle's tables, so a value that
/// occurs twice is held once, and a cycle harms nobody.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Value<'a> {
    /// `None`.
    None,
    /// `True` or `False`.
    Bool(bool),
    /// An integer of up to 64 bits.
    Int(i64),
    /// A float.
    Float(f64),
    /// Text in the input.
    Str(&'a str),
    /// Bytes in the input (also a Python 2 string).
    Bytes(&'a [u8]),
    /// Text that had to be decoded.
    OwnedStr(Handle),
    /// Bytes that had to be decoded.
    OwnedBytes(Handle),
    /// A tuple.
    Tuple(Handle),
    /// A list or a set.
    List(Handle),
    /// A dict.
    Dict(Handle),
    /// A NumPy array.
    Array(Handle),
    /// A NumPy dtype.
    Dtype(Handle),
    /// One of the allowed constructors.
    Global(Global),
}

impl Value<'_> {
    /// What it is, for messages.
    pub fn kind(&self) -> &'static str {
        match self {
            Value::None => "None",
            Value::Bool(_) => "a bool",
            Value::Int(_) => "an integer",
            Value::Float(_) => "a float",
            Value::Str(_) | Value::OwnedStr(_) => "a text",
            Value::Bytes(_) | Value::OwnedBytes(_) => "bytes",
            Value::Tuple(_) => "a tuple",
            Value::List(_) => "a list",
            Value::Dict(_) => "a dict",
            Value::Array(_) => "an array",
            Value::Dtype(_) => "a dtype",
            Value::Global(_) => "a constructor",
        }
    }
}

/// The names that a pickle may use; all are done by hand, none is ever called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Global {
    /// `numpy.core.multiarray._reconstruct`: an empty array, filled by a later state.
    Reconstruct,
    /// `numpy.core.multiarray.scalar`: one number.
    Scalar,
    /// `numpy.core.numeric._frombuffer`: an array over a buffer (protocol 5).
    FromBuffer,
    /// `numpy.ndarray`.
    NdArray,
    /// `numpy.dtype`.
    Dtype,
    /// `_codecs.encode`: bytes written as Latin-1 text (protocols 0 to 2).
    Encode,
    /// `builtins.bytearray`.
    ByteArray,
    /// `builtins.bytes`.
    Bytes,
    /// `collections.OrderedDict`.
    OrderedDict,
}

impl Global {
    /// The constructor of that name, if it is allowed.
    fn find(module: &str, name: &str) -> Option<Self> {
        Some(match (module, name) {
            ("numpy.core.multiarray" | "numpy._core.multiarray", "_reconstruct") => {
                Self::Reconstruct
            }
            ("numpy.core.multiarray" | "numpy._core.multiarray", "scalar") => Self::Scalar,
            ("numpy.core.numeric" | "numpy._core.numeric", "_frombuffer") => Self::FromBuffer,
            ("numpy", "ndarray") => Self::NdArray,
            ("numpy", "dtype") => Self::Dtype,
            ("_codecs", "encode") => Self::Encode,
            ("builtins" | "__builtin__", "bytearray") => Self::ByteArray,
            ("builtins" | "__builtin__", "bytes") => Self::Bytes,
            ("collections", "OrderedDict") => Self::OrderedDict,
            _ => return None,
        })
    }
}

/// A container's items; a dict's are key, value, key, value.
#[derive(Debug, Default)]
struct Container<'a> {
    items: Vec<Value<'a>>,
    depth: usize,
}

/// A pickle that has been read.
#[derive(Debug)]
pub struct Pickle<'a> {
    root: Value<'a>,
    containers: Vec<Container<'a>>,
    arrays: Vec<numpy::Array<'a>>,
    dtypes: Vec<Dtype>,
    owned: Vec<Vec<u8>>,
}

impl<'a> Pickle<'a> {
    /// Reads one pickle from the start of `bytes`; what follows its end is ignored, as Python does.
    ///
    /// # Errors
    /// Anything but plain values and arrays, anything over `limits`, anything malformed, with the
    /// offset.
    pub fn read(bytes: &'a [u8], limits: Limits) -> Result<Self, PickleError> {
        machine::Machine::new(bytes, limits).run()
    }

    /// The value that was pickled.
    pub fn root(&self) -> Value<'a> {
        self.root
    }

    /// The text of a text value, or of bytes that are UTF-8 (Python 2 wrote texts so).
    pub fn text(&self, value: Value<'a>) -> Option<&str> {
        match value {
            Value::Str(text) => Some(text),
            Value::OwnedStr(_) | Value::Bytes(_) | Value::OwnedBytes(_) => {
                std::str::from_utf8(self.raw(value)?).ok()
            }
            _ => None,
        }
    }

    /// The bytes of bytes or of a text.
    fn raw(&self, value: Value<'a>) -> Option<&[u8]> {
        match value {
            Value::Str(text) => Some(text.as_bytes()),
            Value::Bytes(bytes) => Some(bytes),
            Value::OwnedStr(handle) | Value::OwnedBytes(handle) => {
                self.owned.get(handle.0 as usize).map(Vec::as_slice)
            }
            _ => None,
        }
    }

    /// The items of a list, set or tuple.
    pub fn items(&self, value: Value<'a>) -> Option<&[Value<'a>]> {
        match value {
            Value::Tuple(handle) | Value::List(handle) => self
                .containers
                .get(handle.0 as usize)
                .map(|c| c.items.as_slice()),
            _ => None,
        }
    }

    /// The keys and values of a dict, in order.
    pub fn entries(
        &self,
        value: Value<'a>,
    ) -> Option<impl DoubleEndedIterator<Item = (Value<'a>, Value<'a>)>> {
        match value {
            Value::Dict(handle) => self
                .containers
                .get(handle.0 as usize)
                .map(|c| c.items.chunks_exact(2).map(|pair| (pair[0], pair[1]))),
            _ => None,
        }
    }

    /// A dict's value under a text key; the last one where a key was set twice, as in Python.
    pub fn get(&self, dict: Value<'a>, key: &str) -> Option<Value<'a>> {
        self.entries(dict)?
            .rev()
            .find(|(k, _)| self.text(*k) == Some(key))
            .map(|(_, value)| value)
    }

    /// An array.
    pub fn array(&self, value: Value<'a>) -> Option<ArrayView<'_>> {
        let Value::Array(handle) = value else {
            return None;
        };
        let array = self.arrays.get(handle.0 as usize)?;
        let data = match array.data {
            numpy::Data::Raw(bytes) => self.raw(bytes)?,
            numpy::Data::Objects(_) => return None,
        };
        Some(ArrayView::new(array, data))
    }

    /// The items of a one-dimensional object array.
    pub fn objects(&self, value: Value<'a>) -> Option<&[Value<'a>]> {
        let Value::Array(handle) = value else {
            return None;
        };
        let array = self.arrays.get(handle.0 as usize)?;
        match array.data {
            numpy::Data::Objects(list) if array.shape.len() == 1 => self.items(list),
            _ => None,
        }
    }

    /// One text out of an array of fixed-width texts; see [`ArrayView::text`].
    pub fn array_text(&self, value: Value<'a>, index: usize) -> Option<String> {
        self.array(value)?.text(index).map(Cow::into_owned)
    }
}
