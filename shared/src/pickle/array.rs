//! NumPy's arrays and dtypes as they stand in a pickle.

use super::{Handle, PickleErrorKind as Kind, Value, error::shown};

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
