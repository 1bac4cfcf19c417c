//! NumPy's arrays and dtypes inside a pickle: building them from their pickled state.

use super::view::{ArrayView, float_at};
use super::{Container, Handle, Pickle, PickleErrorKind as Kind, Value, error::shown};

/// The most dimensions; NumPy 1 has the same.
const MAX_RANK: usize = 32;
/// No feature array has more elements; keeps products of sizes far from overflow.
const MAX_ELEMENTS: usize = 1 << 46;

/// What an element is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DtypeKind {
    /// `b1`.
    Bool,
    /// `i1` to `i8`.
    Int,
    /// `u1` to `u8`.
    UInt,
    /// `f2`, `f4`, `f8`.
    Float,
    /// `S#`: bytes, zero-padded.
    Bytes,
    /// `U#`: UTF-32, zero-padded.
    Text,
    /// Python objects.
    Object,
}

/// An element type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dtype {
    /// What it is about.
    pub kind: DtypeKind,
    /// Its bytes.
    pub size: usize,
    /// Whether its bytes are in big-endian order.
    pub big_endian: bool,
}

impl Dtype {
    /// From NumPy's code, `f4`, `<f4` or `U12`.
    pub(super) fn parse(code: &str) -> Result<Self, Kind> {
        let unsupported = || Kind::Unsupported(format!("arrays of type `{}`", shown(code)));
        let (big_endian, rest) = match code.as_bytes().first() {
            Some(b'>') => (true, &code[1..]),
            Some(b'<' | b'|' | b'=') => (false, &code[1..]),
            _ => (false, code),
        };
        let mut chars = rest.chars();
        let letter = chars.next().ok_or_else(unsupported)?;
        let digits = chars.as_str();
        let number: usize = match digits {
            "" => 0,
            digits if digits.len() <= 9 && digits.bytes().all(|b| b.is_ascii_digit()) => {
                digits.parse().map_err(|_| unsupported())?
            }
            _ => return Err(unsupported()),
        };
        let (kind, size) = match (letter, number) {
            ('b', 1) | ('?', 0) => (DtypeKind::Bool, 1),
            ('i', 1 | 2 | 4 | 8) => (DtypeKind::Int, number),
            ('u', 1 | 2 | 4 | 8) => (DtypeKind::UInt, number),
            ('f', 2 | 4 | 8) => (DtypeKind::Float, number),
            ('S', _) => (DtypeKind::Bytes, number),
            ('U', _) => (DtypeKind::Text, number * 4),
            ('O', _) => (DtypeKind::Object, 8),
            _ => return Err(unsupported()),
        };
        Ok(Self {
            kind,
            size,
            big_endian,
        })
    }

    /// Its name for messages, `f4`.
    pub fn name(&self) -> String {
        let (letter, size) = match self.kind {
            DtypeKind::Bool => ('b', self.size),
            DtypeKind::Int => ('i', self.size),
            DtypeKind::UInt => ('u', self.size),
            DtypeKind::Float => ('f', self.size),
            DtypeKind::Bytes => ('S', self.size),
            DtypeKind::Text => ('U', self.size / 4),
            DtypeKind::Object => return "object".to_owned(),
        };
        format!("{letter}{size}")
    }
}

/// Where an array's elements are.
#[derive(Debug, Clone, Copy)]
pub(super) enum Data<'a> {
    /// Bytes.
    Raw(Value<'a>),
    /// A list of as many items.
    Objects(Value<'a>),
    /// Of a type that is not supported; the reason, a text in `owned`.
    Unreadable(Handle),
}

/// An array as it stands in the pickle's table.
#[derive(Debug)]
pub(super) struct Array<'a> {
    pub dtype: Dtype,
    pub shape: Vec<usize>,
    pub fortran: bool,
    pub data: Data<'a>,
}

impl Array<'_> {
    /// What `_reconstruct` makes before the state comes.
    pub(super) fn empty() -> Self {
        Self {
            dtype: Dtype {
                kind: DtypeKind::UInt,
                size: 1,
                big_endian: false,
            },
            shape: vec![0],
            fortran: false,
            data: Data::Raw(Value::Bytes(&[])),
        }
    }
}

fn malformed<T>(what: impl Into<String>) -> Result<T, Kind> {
    Err(Kind::Malformed(what.into()))
}

impl<'a> Pickle<'a> {
    fn shape_of(&self, value: Value<'a>) -> Result<Vec<usize>, Kind> {
        let single = [value];
        let items = match value {
            // `_frombuffer` may give a single number.
            Value::Int(_) => &single[..],
            _ => match self.items(value) {
                Some(items) => items,
                None => return malformed("an array's shape is not a tuple"),
            },
        };
        if items.len() > MAX_RANK {
            return malformed(format!("an array of {} dimensions", items.len()));
        }
        let mut elements = 1usize;
        let mut shape = Vec::with_capacity(items.len());
        for item in items {
            let Value::Int(size) = item else {
                return malformed("an array's size is not an integer");
            };
            let Ok(size) = usize::try_from(*size) else {
                return malformed(format!("an array of size {size}"));
            };
            elements = match elements.checked_mul(size.max(1)) {
                Some(elements) if elements <= MAX_ELEMENTS => elements,
                _ => {
                    return Err(Kind::Limit {
                        what: "elements in one array",
                        limit: MAX_ELEMENTS as u64,
                    });
                }
            };
            shape.push(size);
        }
        Ok(shape)
    }

    fn dtype_of(&self, value: Value<'a>) -> Result<Dtype, Kind> {
        match value {
            Value::Dtype(handle) => match self.dtypes.get(handle.0 as usize) {
                Some(Ok(dtype)) => Ok(*dtype),
                Some(Err(why)) => Err(Kind::Unsupported(
                    self.text(Value::OwnedStr(*why))
                        .unwrap_or_default()
                        .to_owned(),
                )),
                None => malformed("an unknown dtype"),
            },
            _ => malformed(format!("{} where a dtype is due", value.kind())),
        }
    }

    fn checked(
        &self,
        shape: Vec<usize>,
        dtype: Dtype,
        fortran: bool,
        data: Value<'a>,
    ) -> Result<Array<'a>, Kind> {
        let elements: usize = shape.iter().product();
        if dtype.kind == DtypeKind::Object {
            return match (data, self.items(data)) {
                (Value::List(_), Some(items)) if items.len() == elements => Ok(Array {
                    dtype,
                    shape,
                    fortran,
                    data: Data::Objects(data),
                }),
                _ => malformed(format!(
                    "an object array of shape {shape:?} whose items do not fit"
                )),
            };
        }
        if dtype.size == 0 {
            return Err(Kind::Unsupported(
                "arrays of elements without width".to_owned(),
            ));
        }
        let Some(bytes) = self
            .raw(data)
            .filter(|_| !matches!(data, Value::Str(_) | Value::OwnedStr(_)))
        else {
            return malformed(format!("{} where an array's bytes are due", data.kind()));
        };
        // MAX_ELEMENTS times any size that `Dtype::parse` lets through fits 128 bits.
        if bytes.len() as u128 != elements as u128 * dtype.size as u128 {
            return malformed(format!(
                "an array of shape {shape:?} and type {} with {} bytes",
                dtype.name(),
                bytes.len()
            ));
        }
        Ok(Array {
            dtype,
            shape,
            fortran,
            data: Data::Raw(data),
        })
    }

    /// The array from the state that NumPy pickles: (version,) shape, dtype, is_fortran, data.
    pub(super) fn array_from_state(&self, state: Value<'a>) -> Result<Array<'a>, Kind> {
        let items = match (state, self.items(state)) {
            (Value::Tuple(_), Some(items)) => items,
            _ => return malformed("an array's state is not a tuple"),
        };
        let (shape, dtype, fortran, data) = match *items {
            [Value::Int(0 | 1), shape, dtype, fortran, data] | [shape, dtype, fortran, data] => {
                (shape, dtype, fortran, data)
            }
            _ => return malformed("an array's state of an unknown version"),
        };
        let fortran = match fortran {
            Value::Bool(fortran) => fortran,
            Value::Int(n) => n != 0,
            _ => return malformed("an array's order is not a bool"),
        };
        self.checked(self.shape_of(shape)?, self.dtype_of(dtype)?, fortran, data)
    }

    /// The array from the arguments of `_frombuffer`: buffer, dtype, shape, order (, axis order).
    pub(super) fn array_from_buffer(&self, args: &[Value<'a>]) -> Result<Array<'a>, Kind> {
        let (buffer, dtype, shape, order) = match *args {
            [buffer, dtype, shape, order] | [buffer, dtype, shape, order, Value::None] => {
                (buffer, dtype, shape, order)
            }
            [_, _, _, _, _] => {
                return Err(Kind::Unsupported(
                    "an array with permuted axes: make it contiguous (numpy.ascontiguousarray) and write it again".to_owned(),
                ));
            }
            _ => return malformed("`_frombuffer` with other arguments than NumPy gives"),
        };
        let fortran = match self.text(order) {
            Some("C") => false,
            Some("F") => true,
            _ => return malformed("`_frombuffer` with an order other than C and F"),
        };
        self.checked(
            self.shape_of(shape)?,
            self.dtype_of(dtype)?,
            fortran,
            buffer,
        )
    }

    /// The dtype from the arguments of `numpy.dtype`: code, align, copy.
    pub(super) fn dtype_from_args(&self, args: &[Value<'a>]) -> Result<Dtype, Kind> {
        match args {
            [code] | [code, _, _] => match self.text(*code) {
                Some(code) => Dtype::parse(code),
                None => Err(Kind::Unsupported(format!(
                    "a dtype given as {}",
                    code.kind()
                ))),
            },
            _ => malformed("`numpy.dtype` with other arguments than NumPy gives"),
        }
    }

    /// A dtype with its pickled state: version, byte order, subdtype, names, fields, size,
    /// alignment, flags (, metadata).
    pub(super) fn dtype_with_state(&self, dtype: Dtype, state: Value<'a>) -> Result<Dtype, Kind> {
        let items = match (state, self.items(state)) {
            (Value::Tuple(_), Some(items)) => items,
            _ => return malformed("a dtype's state is not a tuple"),
        };
        let [
            Value::Int(3 | 4),
            order,
            subdtype,
            names,
            fields,
            Value::Int(size),
            _alignment,
            ..,
        ] = *items
        else {
            return malformed("a dtype's state of an unknown version");
        };
        if [subdtype, names, fields]
            .iter()
            .any(|value| *value != Value::None)
        {
            return Err(Kind::Unsupported("arrays of records".to_owned()));
        }
        let big_endian = match self.text(order) {
            Some(">") => true,
            Some("<" | "|" | "=") => false,
            _ => return malformed("a dtype with an unknown byte order"),
        };
        // The size stands in the code already, -1 here; fixed-width texts repeat it.
        if size != -1 && usize::try_from(size) != Ok(dtype.size) {
            return malformed(format!("a dtype {} with {size} bytes", dtype.name()));
        }
        Ok(Dtype {
            big_endian,
            ..dtype
        })
    }

    /// One number or text from the arguments of `scalar`: dtype, bytes.
    pub(super) fn scalar(&mut self, args: &[Value<'a>]) -> Result<Value<'a>, Kind> {
        let [dtype, data] = *args else {
            return malformed("`scalar` with other arguments than NumPy gives");
        };
        let array = self.checked(vec![1], self.dtype_of(dtype)?, false, data)?;
        let Data::Raw(data) = array.data else {
            return Err(Kind::Unsupported("an object scalar".to_owned()));
        };
        let Some(bytes) = self.raw(data) else {
            return malformed("a scalar without bytes");
        };
        let view = ArrayView::new(&array, bytes);
        match view.dtype().kind {
            DtypeKind::Bool => Ok(Value::Bool(bytes[0] != 0)),
            DtypeKind::Int | DtypeKind::UInt => {
                let mut out = Vec::new();
                match view.read_i64(0, &mut out, &mut Vec::new()) {
                    Ok(()) => Ok(Value::Int(out[0])),
                    Err(_) => malformed("an integer over 64 bits"),
                }
            }
            DtypeKind::Float => Ok(Value::Float(float_at(bytes, view.dtype()))),
            DtypeKind::Bytes | DtypeKind::Text => match view.text(0) {
                Some(text) => {
                    let text = text.into_owned().into_bytes();
                    self.owned.push(text);
                    Ok(Value::OwnedStr(Handle(self.owned.len() as u32 - 1)))
                }
                None => malformed("a scalar that is not text"),
            },
            DtypeKind::Object => Err(Kind::Unsupported("an object scalar".to_owned())),
        }
    }

    pub(super) fn container(&self, handle: Handle) -> Option<&Container<'a>> {
        self.containers.get(handle.0 as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dtypes_by_code() {
        assert_eq!(Dtype::parse("U581").map(|d| d.size), Ok(2324));
        assert_eq!(Dtype::parse(">f8").map(|d| d.big_endian), Ok(true));
        for code in ["", "c8", "V4", "f16", "M8", "U99999999999", "i3", "<", "é"] {
            assert!(Dtype::parse(code).is_err(), "{code}");
        }
    }
}
