//! Reads pickles as data, without ever executing what they name.
//!
//! Python's own unpickler imports and calls whatever a pickle asks for. Here the few constructors
//! that plain data and NumPy's arrays need are recognized by name and done by hand. Every other
//! name stays what it is, a name ([`Value::Class`]), and what it would have made is an opaque
//! object ([`Value::Object`]): the name, the arguments and the state it was given, as plain values.
//! Array contents are borrowed from the input, never copied, but for protocols 0 to 2, where bytes
//! are written as text.
//!
//! Protocols 0 to 5, arrays by NumPy 1 and 2. Nesting, objects, memo, stack and copied bytes are
//! bounded by [`Limits`]; no input makes this panic or use more than a few hundred megabytes beyond
//! itself.
//!
//! ```
//! use halfheard_shared::pickle::{Limits, Pickle, Value};
//!
//! // Two pickles one after the other: {"a": os.system("x")} and 7.
//! let bytes = b"}X\x01\0\0\0acos\nsystem\nX\x01\0\0\0x\x85Rs.K\x07.";
//! let first = Pickle::read(bytes, Limits::default())?;
//! let object = first.get(first.root(), "a").expect("it has the key");
//! assert_eq!(first.class_of(object).as_deref(), Some("os.system"));
//! let args = first.object(object).expect("it is opaque").args;
//! assert_eq!(first.text(first.items(args).expect("a tuple")[0]), Some("x"));
//! let second = Pickle::read_at(bytes, first.end(), Limits::default())?;
//! assert_eq!(second.root(), Value::Int(7));
//! # Ok::<(), halfheard_shared::pickle::PickleError>(())
//! ```

mod array;
mod cursor;
mod error;
mod machine;
mod numpy;
mod objects;
mod opcodes;
mod view;

pub use array::{Dtype, DtypeKind};
pub use error::{PickleError, PickleErrorKind};
pub use view::{ArrayView, NotANumber};

use std::borrow::Cow;

/// Bounds on what a pickle may ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Container items; a container, array or object counts as several, by the memory it takes
    /// (some 40 bytes for each).
    pub objects: usize,
    /// Memo entries (24 bytes for each).
    pub memo: usize,
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
            memo: 2_000_000,
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
    /// A longer integer, in two's complement, least byte first.
    BigInt(&'a [u8]),
    /// A longer integer, in decimal digits.
    Decimal(&'a str),
    /// A float.
    Float(f64),
    /// Text in the input.
    Str(&'a str),
    /// Text in the input that is not UTF-8: with surrogates, which stand alone for no character.
    BrokenStr(&'a [u8]),
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
    /// One of the names that are done by hand.
    Global(Global),
    /// Any other name; see [`Pickle::class_of`].
    Class(Handle),
    /// What such a name would have made; see [`Pickle::object`].
    Object(Handle),
    /// Something kept outside the pickle; see [`Pickle::persistent_id`].
    Persistent(Handle),
}

impl Value<'_> {
    /// What it is, for messages.
    pub fn kind(&self) -> &'static str {
        match self {
            Value::None => "None",
            Value::Bool(_) => "a bool",
            Value::Int(_) => "an integer",
            Value::BigInt(_) | Value::Decimal(_) => "an integer of more than 64 bits",
            Value::Float(_) => "a float",
            Value::Str(_) | Value::OwnedStr(_) => "a text",
            Value::BrokenStr(_) => "a text that is not UTF-8",
            Value::Bytes(_) | Value::OwnedBytes(_) => "bytes",
            Value::Tuple(_) => "a tuple",
            Value::List(_) => "a list",
            Value::Dict(_) => "a dict",
            Value::Array(_) => "an array",
            Value::Dtype(_) => "a dtype",
            Value::Global(_) => "a constructor",
            Value::Class(_) => "a class or function",
            Value::Object(_) => "an object",
            Value::Persistent(_) => "an object kept outside the pickle",
        }
    }
}

/// The names that are done by hand; none is ever called.
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
    /// `collections.defaultdict`.
    DefaultDict,
}

impl Global {
    /// Its name in Python.
    pub fn name(self) -> &'static str {
        match self {
            Self::Reconstruct => "numpy.core.multiarray._reconstruct",
            Self::Scalar => "numpy.core.multiarray.scalar",
            Self::FromBuffer => "numpy.core.numeric._frombuffer",
            Self::NdArray => "numpy.ndarray",
            Self::Dtype => "numpy.dtype",
            Self::Encode => "_codecs.encode",
            Self::ByteArray => "builtins.bytearray",
            Self::Bytes => "builtins.bytes",
            Self::OrderedDict => "collections.OrderedDict",
            Self::DefaultDict => "collections.defaultdict",
        }
    }

    /// The constructor of that name, if it is done by hand.
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
            ("collections", "defaultdict") => Self::DefaultDict,
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

/// A name that is not done by hand.
#[derive(Debug, Clone, Copy)]
struct Class<'a> {
    module: Value<'a>,
    name: Value<'a>,
}

/// What a name that is not done by hand would have made: how it was to be made, and nothing more.
#[derive(Debug, Clone, Copy)]
pub struct Object<'a> {
    /// What would have been called: a [`Value::Class`], mostly.
    pub of: Value<'a>,
    /// The arguments, a tuple; after them, as a last item, a dict of named ones if there were any.
    pub args: Value<'a>,
    /// The state it was given afterwards; `None` without one.
    pub state: Value<'a>,
    /// What was appended to it, a list; `None` where nothing was.
    pub items: Value<'a>,
    /// What was set in it by key, a dict; `None` where nothing was.
    pub entries: Value<'a>,
    depth: usize,
}

/// A pickle that has been read.
#[derive(Debug)]
pub struct Pickle<'a> {
    root: Value<'a>,
    containers: Vec<Container<'a>>,
    arrays: Vec<array::Array<'a>>,
    /// Those that are not supported by their names, in `owned`.
    dtypes: Vec<Result<Dtype, Handle>>,
    classes: Vec<Class<'a>>,
    objects: Vec<Object<'a>>,
    /// The ids of what is kept outside.
    persistent: Vec<Value<'a>>,
    owned: Vec<Vec<u8>>,
    end: usize,
}

impl<'a> Pickle<'a> {
    /// Reads one pickle from the start of `bytes`; what follows its end is ignored, as Python does.
    ///
    /// # Errors
    /// Anything over `limits`, anything malformed, with the offset.
    pub fn read(bytes: &'a [u8], limits: Limits) -> Result<Self, PickleError> {
        Self::read_at(bytes, 0, limits)
    }

    /// Reads the pickle that begins at `offset`: some files hold several, one after the other
    /// ([`Pickle::end`]). Offsets in errors count from the start of `bytes`.
    ///
    /// # Errors
    /// As [`Pickle::read`].
    pub fn read_at(bytes: &'a [u8], offset: usize, limits: Limits) -> Result<Self, PickleError> {
        machine::Machine::new(bytes, offset, limits).run()
    }

    /// Where the pickle ends: the offset of the first byte behind its end mark.
    pub fn end(&self) -> usize {
        self.end
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
    pub fn raw(&self, value: Value<'a>) -> Option<&[u8]> {
        match value {
            Value::Str(text) => Some(text.as_bytes()),
            Value::Bytes(bytes) | Value::BrokenStr(bytes) => Some(bytes),
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

    /// The keys and values of a dict, or of an object of a class derived from it, in order.
    pub fn entries(
        &self,
        value: Value<'a>,
    ) -> Option<impl DoubleEndedIterator<Item = (Value<'a>, Value<'a>)>> {
        let dict = match value {
            // A class derived from dict, with what was set in it.
            Value::Object(_) => self.object(value)?.entries,
            value => value,
        };
        match dict {
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

    /// What is known of an opaque object.
    pub fn object(&self, value: Value<'a>) -> Option<&Object<'a>> {
        match value {
            Value::Object(handle) => self.objects.get(handle.0 as usize),
            _ => None,
        }
    }

    /// The id under which something is kept outside the pickle.
    pub fn persistent_id(&self, value: Value<'a>) -> Option<Value<'a>> {
        match value {
            Value::Persistent(handle) => self.persistent.get(handle.0 as usize).copied(),
            _ => None,
        }
    }

    /// Module and name of a [`Value::Class`], as they stand in the pickle.
    pub fn class(&self, value: Value<'a>) -> Option<(&str, &str)> {
        let Value::Class(handle) = value else {
            return None;
        };
        let class = self.classes.get(handle.0 as usize)?;
        Some((self.text(class.module)?, self.text(class.name)?))
    }

    /// The class of an opaque object, or the name that a value is, for messages: `pathlib.PosixPath`.
    /// Python hides some behind a helper that gets the class as its first argument; then it is that
    /// argument's.
    pub fn class_of(&self, value: Value<'a>) -> Option<String> {
        // Objects may be made by objects; nobody needs to follow that far.
        let mut value = value;
        for _ in 0..8 {
            match value {
                Value::Global(global) => return Some(global.name().to_owned()),
                Value::Class(_) => {
                    let (module, name) = self.class(value)?;
                    return Some(format!("{}.{}", error::shown(module), error::shown(name)));
                }
                Value::Object(_) => {
                    let object = self.object(value)?;
                    let helper = match object.of {
                        Value::Class(_) => {
                            let (_, name) = self.class(object.of)?;
                            name.starts_with('_') || name == "getattr"
                        }
                        Value::Global(global) => global == Global::Reconstruct,
                        _ => false,
                    };
                    let first = self
                        .items(object.args)
                        .and_then(|args| args.first().copied());
                    value = match first {
                        Some(class @ Value::Class(_)) if helper => class,
                        _ => object.of,
                    };
                }
                _ => return None,
            }
        }
        None
    }

    /// What a value is, for messages: as [`Value::kind`], with the class of an opaque one and the
    /// type of an array whose elements cannot be read.
    pub fn describe(&self, value: Value<'a>) -> String {
        match value {
            Value::Object(_) => match self.class_of(value) {
                Some(class) => format!("an object of `{class}`"),
                None => value.kind().to_owned(),
            },
            Value::Class(_) | Value::Global(_) => match self.class_of(value) {
                Some(class) => format!("the class or function `{class}`"),
                None => value.kind().to_owned(),
            },
            Value::Array(handle) => match self.arrays.get(handle.0 as usize).map(|a| a.data) {
                Some(array::Data::Objects(_)) => "an array of objects".to_owned(),
                Some(array::Data::Unreadable(why)) => {
                    let why = self.text(Value::OwnedStr(why)).unwrap_or_default();
                    format!("an array that cannot be read ({why})")
                }
                _ => value.kind().to_owned(),
            },
            _ => value.kind().to_owned(),
        }
    }

    /// An array of numbers or of texts of fixed width.
    pub fn array(&self, value: Value<'a>) -> Option<ArrayView<'_>> {
        let Value::Array(handle) = value else {
            return None;
        };
        let array = self.arrays.get(handle.0 as usize)?;
        let data = match array.data {
            array::Data::Raw(bytes) => self.raw(bytes)?,
            array::Data::Objects(_) | array::Data::Unreadable(_) => return None,
        };
        Some(ArrayView::new(array, data))
    }

    /// The items of a one-dimensional object array.
    pub fn objects(&self, value: Value<'a>) -> Option<&[Value<'a>]> {
        self.object_array(value)
            .filter(|(shape, _)| shape.len() == 1)
            .map(|(_, items)| items)
    }

    /// The shape and the items, in C order, of an object array.
    pub fn object_array(&self, value: Value<'a>) -> Option<(&[usize], &[Value<'a>])> {
        let Value::Array(handle) = value else {
            return None;
        };
        let array = self.arrays.get(handle.0 as usize)?;
        match array.data {
            // NumPy writes the items of an object array in C order, whatever the order in memory.
            array::Data::Objects(list) => Some((&array.shape, self.items(list)?)),
            _ => None,
        }
    }

    /// Whether a value is something that is not done by hand: an object, its class, something kept
    /// outside the pickle, or an array of a type that is not supported.
    pub fn is_opaque(&self, value: Value<'a>) -> bool {
        match value {
            Value::Object(_) | Value::Class(_) | Value::Global(_) | Value::Persistent(_) => true,
            Value::Array(handle) => self
                .arrays
                .get(handle.0 as usize)
                .is_some_and(|array| matches!(array.data, array::Data::Unreadable(_))),
            _ => false,
        }
    }

    /// One text out of an array of fixed-width texts; see [`ArrayView::text`].
    pub fn array_text(&self, value: Value<'a>, index: usize) -> Option<String> {
        self.array(value)?.text(index).map(Cow::into_owned)
    }
}

#[cfg(test)]
mod tests;
