//! NumPy's arrays and dtypes inside a pickle: building them from their pickled state, reading them.

use super::{Container, Handle, Pickle, PickleErrorKind as Kind, Value, error::shown};
use std::borrow::Cow;

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
    /// What it is.
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
                None => return malformed("an array's shape is no tuple"),
            },
        };
        if items.len() > MAX_RANK {
            return malformed(format!("an array of {} dimensions", items.len()));
        }
        let mut elements = 1usize;
        let mut shape = Vec::with_capacity(items.len());
        for item in items {
            let Value::Int(size) = item else {
                return malformed("an array's size is no integer");
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
                Some(dtype) => Ok(*dtype),
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
            _ => return malformed("an array's state is no tuple"),
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
            _ => return malformed("an array's order is no bool"),
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
            _ => return malformed("a dtype's state is no tuple"),
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
                None => malformed("a scalar that is no text"),
            },
            DtypeKind::Object => Err(Kind::Unsupported("an object scalar".to_owned())),
        }
    }

    pub(super) fn container(&self, handle: Handle) -> Option<&Container<'a>> {
        self.containers.get(handle.0 as usize)
    }
}

fn float_at(bytes: &[u8], dtype: Dtype) -> f64 {
    let mut little = [0u8; 8];
    let n = dtype.size.min(8).min(bytes.len());
    little[..n].copy_from_slice(&bytes[..n]);
    if dtype.big_endian {
        little[..n].reverse();
    }
    match n {
        2 => f64::from(half(u16::from_le_bytes([little[0], little[1]]))),
        4 => f64::from(f32::from_le_bytes([
            little[0], little[1], little[2], little[3],
        ])),
        _ => f64::from_le_bytes(little),
    }
}

/// IEEE half precision to single; exact.
fn half(bits: u16) -> f32 {
    let sign = u32::from(bits >> 15) << 31;
    let exponent = u32::from((bits >> 10) & 0x1f);
    let fraction = u32::from(bits & 0x3ff);
    match exponent {
        // Subnormal: so many times the smallest, 2^-24.
        0 => {
            f32::from_bits(sign | 0x3f80_0000) * fraction as f32 * f32::from_bits((127 - 24) << 23)
        }
        31 => f32::from_bits(sign | 0x7f80_0000 | (fraction << 13)),
        _ => f32::from_bits(sign | ((exponent + 127 - 15) << 23) | (fraction << 13)),
    }
}

/// An element that cannot be read as asked.
#[derive(Debug, Clone, PartialEq)]
pub enum NotANumber {
    /// The array is not of numbers.
    Type(Dtype),
    /// The row does not exist.
    Row(usize),
    /// A value that is not a whole number of 64 bits.
    Fraction {
        /// Its position in the row.
        at: usize,
        /// The value.
        value: f64,
    },
}

/// An array, borrowed. A *row* is all that stands under one index of the first dimension.
#[derive(Debug, Clone, Copy)]
pub struct ArrayView<'p> {
    dtype: Dtype,
    shape: &'p [usize],
    fortran: bool,
    data: &'p [u8],
}

impl<'p> ArrayView<'p> {
    pub(super) fn new(array: &'p Array<'_>, data: &'p [u8]) -> Self {
        Self {
            dtype: array.dtype,
            shape: &array.shape,
            fortran: array.fortran,
            data,
        }
    }

    /// Its element type.
    pub fn dtype(&self) -> Dtype {
        self.dtype
    }

    /// Its shape.
    pub fn shape(&self) -> &'p [usize] {
        self.shape
    }

    /// Elements in a row.
    pub fn row_len(&self) -> usize {
        self.shape.iter().skip(1).product()
    }

    /// One row's elements in C order and little-endian; copied to `scratch` only if they are not so.
    fn row<'s>(&self, row: usize, scratch: &'s mut Vec<u8>) -> Result<&'s [u8], NotANumber>
    where
        'p: 's,
    {
        let rows = self.shape.first().copied().unwrap_or(1);
        if row >= rows {
            return Err(NotANumber::Row(row));
        }
        let size = self.dtype.size;
        let count = self.row_len();
        if count == 0 {
            return Ok(&[]);
        }
        // One dimension is the same in both orders.
        if !self.fortran || self.shape.len() < 2 {
            let start = row * count * size;
            let bytes = self
                .data
                .get(start..start + count * size)
                .ok_or(NotANumber::Row(row))?;
            if !self.dtype.big_endian || size == 1 {
                return Ok(bytes);
            }
            scratch.clear();
            scratch.extend_from_slice(bytes);
        } else {
            // Fortran order: the first index moves fastest.
            let mut strides = vec![size; self.shape.len()];
            for axis in 1..self.shape.len() {
                strides[axis] = strides[axis - 1] * self.shape[axis - 1];
            }
            scratch.clear();
            scratch.reserve(count * size);
            let mut index = vec![0usize; self.shape.len()];
            for _ in 0..count {
                let at = row * size
                    + index
                        .iter()
                        .zip(&strides)
                        .skip(1)
                        .map(|(i, s)| i * s)
                        .sum::<usize>();
                scratch
                    .extend_from_slice(self.data.get(at..at + size).ok_or(NotANumber::Row(row))?);
                // Count up, the last index fastest.
                for axis in (1..self.shape.len()).rev() {
                    index[axis] += 1;
                    if index[axis] < self.shape[axis] {
                        break;
                    }
                    index[axis] = 0;
                }
            }
        }
        if self.dtype.big_endian {
            let unit = if self.dtype.kind == DtypeKind::Text {
                4
            } else {
                size
            };
            if self.dtype.kind != DtypeKind::Bytes {
                scratch.chunks_exact_mut(unit).for_each(<[u8]>::reverse);
            }
        }
        Ok(scratch)
    }

    /// Puts a row's numbers into `out` (cleared first), rounded to single precision as NumPy's
    /// `astype(float32)` does. `scratch` is reused memory.
    pub fn read_f32(
        &self,
        row: usize,
        out: &mut Vec<f32>,
        scratch: &mut Vec<u8>,
    ) -> Result<(), NotANumber> {
        let bytes = self.row(row, scratch)?;
        out.clear();
        match (self.dtype.kind, self.dtype.size) {
            (DtypeKind::Float, 4) => out.extend(numbers(bytes).map(f32::from_le_bytes)),
            (DtypeKind::Float, 8) => {
                out.extend(numbers(bytes).map(|b| f64::from_le_bytes(b) as f32))
            }
            (DtypeKind::Float, _) => {
                out.extend(numbers(bytes).map(|b| half(u16::from_le_bytes(b))))
            }
            _ => each_integer(self.dtype, bytes, |x| out.push(x as f32))?,
        }
        Ok(())
    }

    /// Puts a row's numbers into `out` (cleared first); they must be whole, floats too.
    pub fn read_i64(
        &self,
        row: usize,
        out: &mut Vec<i64>,
        scratch: &mut Vec<u8>,
    ) -> Result<(), NotANumber> {
        let dtype = self.dtype;
        let bytes = self.row(row, scratch)?;
        out.clear();
        if dtype.kind == DtypeKind::Float {
            let little = Dtype {
                big_endian: false,
                ..dtype
            };
            for (at, item) in bytes.chunks_exact(dtype.size).enumerate() {
                out.push(
                    whole(float_at(item, little))
                        .map_err(|value| NotANumber::Fraction { at, value })?,
                );
            }
            return Ok(());
        }
        let mut wrong = None;
        each_integer(dtype, bytes, |x| match i64::try_from(x) {
            Ok(x) => out.push(x),
            Err(_) => wrong = wrong.or(Some(x)),
        })?;
        match wrong {
            None => Ok(()),
            Some(x) => Err(NotANumber::Fraction {
                at: 0,
                value: x as f64,
            }),
        }
    }

    /// One element of a one-dimensional array of texts, without the zeros it is padded with. Bytes
    /// must be UTF-8.
    pub fn text(&self, index: usize) -> Option<Cow<'p, str>> {
        if self.shape.len() != 1 || index >= self.shape[0] {
            return None;
        }
        let item = self
            .data
            .get(index * self.dtype.size..(index + 1) * self.dtype.size)?;
        match self.dtype.kind {
            DtypeKind::Bytes => {
                let end = item
                    .iter()
                    .rposition(|&b| b != 0)
                    .map_or(0, |last| last + 1);
                std::str::from_utf8(&item[..end]).ok().map(Cow::Borrowed)
            }
            DtypeKind::Text => {
                let mut text = String::new();
                let mut zeros = 0;
                for unit in numbers::<4>(item) {
                    let code = if self.dtype.big_endian {
                        u32::from_be_bytes(unit)
                    } else {
                        u32::from_le_bytes(unit)
                    };
                    if code == 0 {
                        zeros += 1;
                        continue;
                    }
                    // Zeros inside a text stay, zeros at its end are padding.
                    text.extend(std::iter::repeat_n('\0', zeros));
                    zeros = 0;
                    text.push(char::from_u32(code)?);
                }
                Some(Cow::Owned(text))
            }
            _ => None,
        }
    }
}

/// A float that is a whole number of 64 bits; itself otherwise.
pub(super) fn whole(value: f64) -> Result<i64, f64> {
    // 2^63 itself is one too many; NaN fails the comparison.
    let end = 2f64.powi(63);
    if value.fract() == 0.0 && (-end..end).contains(&value) {
        Ok(value as i64)
    } else {
        Err(value)
    }
}

/// The elements of little-endian bytes, `N` bytes each.
fn numbers<const N: usize>(bytes: &[u8]) -> impl ExactSizeIterator<Item = [u8; N]> {
    bytes.as_chunks::<N>().0.iter().copied()
}

fn each_integer(dtype: Dtype, bytes: &[u8], mut f: impl FnMut(i128)) -> Result<(), NotANumber> {
    match (dtype.kind, dtype.size) {
        (DtypeKind::Bool, _) => numbers(bytes).for_each(|[b]: [u8; 1]| f(i128::from(b != 0))),
        (DtypeKind::Int, 1) => numbers(bytes).for_each(|b| f(i8::from_le_bytes(b).into())),
        (DtypeKind::Int, 2) => numbers(bytes).for_each(|b| f(i16::from_le_bytes(b).into())),
        (DtypeKind::Int, 4) => numbers(bytes).for_each(|b| f(i32::from_le_bytes(b).into())),
        (DtypeKind::Int, _) => numbers(bytes).for_each(|b| f(i64::from_le_bytes(b).into())),
        (DtypeKind::UInt, 1) => numbers(bytes).for_each(|b| f(u8::from_le_bytes(b).into())),
        (DtypeKind::UInt, 2) => numbers(bytes).for_each(|b| f(u16::from_le_bytes(b).into())),
        (DtypeKind::UInt, 4) => numbers(bytes).for_each(|b| f(u32::from_le_bytes(b).into())),
        (DtypeKind::UInt, _) => numbers(bytes).for_each(|b| f(u64::from_le_bytes(b).into())),
        _ => return Err(NotANumber::Type(dtype)),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_are_exact() {
        for (bits, value) in [
            (0x0000, 0.0),
            (0x3c00, 1.0),
            (0xc000, -2.0),
            (0x3555, 0.333_251_95),
            (0x0001, 5.960_464_5e-8),
            (0x7bff, 65504.0),
            (0xfc00, f32::NEG_INFINITY),
        ] {
            assert_eq!(half(bits), value);
        }
        assert!(half(0x7e00).is_nan());
    }

    #[test]
    fn whole_numbers_only() {
        assert_eq!(whole(-3.0), Ok(-3));
        assert_eq!(whole(0.5), Err(0.5));
        assert!(
            whole(f64::NAN).is_err() && whole(f64::INFINITY).is_err() && whole(9.3e18).is_err()
        );
        assert_eq!(whole(i64::MIN as f64), Ok(i64::MIN));
    }

    #[test]
    fn dtypes_by_code() {
        assert_eq!(Dtype::parse("U581").map(|d| d.size), Ok(2324));
        assert_eq!(Dtype::parse(">f8").map(|d| d.big_endian), Ok(true));
        for code in ["", "c8", "V4", "f16", "M8", "U99999999999", "i3", "<", "é"] {
            assert!(Dtype::parse(code).is_err(), "{code}");
        }
    }
}
