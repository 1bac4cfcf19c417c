//! The values of a pickle, and the bounds on them.

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
pub struct Handle(pub(super) u32);

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
    pub(super) fn find(module: &str, name: &str) -> Option<Self> {
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
pub(super) struct Container<'a> {
    pub(super) items: Vec<Value<'a>>,
    pub(super) depth: usize,
}

/// A name that is not done by hand.
#[derive(Debug, Clone, Copy)]
pub(super) struct Class<'a> {
    pub(super) module: Value<'a>,
    pub(super) name: Value<'a>,
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
    pub(super) depth: usize,
}
