//! Reads the elements of an array: row by row, whatever their type, order and byte order.

use super::array::{Array, Dtype, DtypeKind};
use std::borrow::Cow;

pub(super) fn float_at(bytes: &[u8], dtype: Dtype) -> f64 {
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
        // Subnormal: a multiple of the smallest, 2^-24.
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

    /// Puts a row's numbers into `out` (cleared first), as they stand in the array.
    pub fn read_f64(
        &self,
        row: usize,
        out: &mut Vec<f64>,
        scratch: &mut Vec<u8>,
    ) -> Result<(), NotANumber> {
        let little = Dtype {
            big_endian: false,
            ..self.dtype
        };
        let bytes = self.row(row, scratch)?;
        out.clear();
        match self.dtype.kind {
            DtypeKind::Float => out.extend(
                bytes
                    .chunks_exact(little.size)
                    .map(|item| float_at(item, little)),
            ),
            _ => each_integer(little, bytes, |x| out.push(x as f64))?,
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

    /// One element of an array `[N]` or `[N, 1]` of texts, without the zeros it is padded with.
    /// Invalid text (bytes that are not UTF-8, a lone surrogate) becomes U+FFFD; the second value
    /// tells whether all of it was text. `None` if the array has another shape or no texts.
    pub fn text_lossy(&self, index: usize) -> Option<(Cow<'p, str>, bool)> {
        if !matches!(self.shape, [n] | [n, 1] if index < *n) {
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
                let text = String::from_utf8_lossy(&item[..end]);
                let sound = matches!(text, Cow::Borrowed(_));
                Some((text, sound))
            }
            DtypeKind::Text => {
                let mut text = String::new();
                let mut zeros = 0;
                let mut sound = true;
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
                    let character = char::from_u32(code);
                    sound &= character.is_some();
                    text.push(character.unwrap_or(char::REPLACEMENT_CHARACTER));
                }
                Some((Cow::Owned(text), sound))
            }
            _ => None,
        }
    }

    /// As [`ArrayView::text_lossy`], for what is text as a whole.
    pub fn text(&self, index: usize) -> Option<Cow<'p, str>> {
        self.text_lossy(index)
            .filter(|(_, sound)| *sound)
            .map(|(text, _)| text)
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
    fn half_precision_is_exact() {
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
    fn only_whole_numbers_are_accepted() {
        assert_eq!(whole(-3.0), Ok(-3));
        assert_eq!(whole(0.5), Err(0.5));
        assert!(
            whole(f64::NAN).is_err() && whole(f64::INFINITY).is_err() && whole(9.3e18).is_err()
        );
        assert_eq!(whole(i64::MIN as f64), Ok(i64::MIN));
    }
}
