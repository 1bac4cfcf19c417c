//! Where a tensor's numbers lie in a file, and what they are as 32-bit floats.

/// How a number is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dtype {
    F16,
    BF16,
    F32,
    F64,
    /// Of no use as a weight, under the name that the file gives it.
    Other(&'static str),
}

impl Dtype {
    /// Bytes of a number; 0 if it is not a weight.
    pub(super) fn size(self) -> usize {
        match self {
            Dtype::F16 | Dtype::BF16 => 2,
            Dtype::F32 => 4,
            Dtype::F64 => 8,
            Dtype::Other(_) => 0,
        }
    }
}

/// Where a tensor lies. What makes one has checked that all of it lies within the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// The file's index among the encoder's.
    pub file: usize,
    pub dtype: Dtype,
    pub shape: Vec<usize>,
    /// Steps from number to number in each dimension, in numbers; `None`: one after the other.
    pub strides: Option<Vec<usize>>,
    /// The first number's offset in the file, in bytes.
    pub at: usize,
}

impl Place {
    /// How many numbers it has.
    pub(super) fn count(&self) -> usize {
        self.shape.iter().product()
    }

    /// Its numbers in the order of the last dimension first, from the file's `bytes`. Those of
    /// another precision are converted as they are: halves exactly, doubles to the nearest.
    pub(super) fn read(&self, bytes: &[u8]) -> Vec<f32> {
        let size = self.dtype.size();
        let number = |at: usize| number(self.dtype, &bytes[at..at + size]);
        let Some(strides) = &self.strides else {
            let end = self.at + self.count() * size;
            let numbers = bytes[self.at..end].chunks_exact(size.max(1));
            return match self.dtype {
                // By far the most usual.
                Dtype::F32 => numbers
                    .map(|n| n.try_into().map_or(f32::NAN, f32::from_le_bytes))
                    .collect(),
                dtype => numbers.map(|n| self::number(dtype, n)).collect(),
            };
        };
        let mut values = Vec::with_capacity(self.count());
        let mut index = vec![0; self.shape.len()];
        for _ in 0..self.count() {
            let step: usize = index
                .iter()
                .zip(strides)
                .map(|(i, stride)| i * stride)
                .sum();
            values.push(number(self.at + step * size));
            for (i, dim) in index.iter_mut().zip(&self.shape).rev() {
                *i += 1;
                if *i < *dim {
                    break;
                }
                *i = 0;
            }
        }
        values
    }
}

/// The number in `bytes`, little-endian; NaN for what is none.
fn number(dtype: Dtype, bytes: &[u8]) -> f32 {
    match (dtype, bytes) {
        (Dtype::F16, &[a, b]) => from_half(u16::from_le_bytes([a, b])),
        // The upper half of a 32-bit float.
        (Dtype::BF16, &[a, b]) => f32::from_le_bytes([0, 0, a, b]),
        (Dtype::F32, &[a, b, c, d]) => f32::from_le_bytes([a, b, c, d]),
        (Dtype::F64, bytes) => bytes
            .try_into()
            .map_or(f32::NAN, |b| f64::from_le_bytes(b) as f32),
        _ => f32::NAN,
    }
}

/// A half-precision float (IEEE 754 binary16): every one of them is a 32-bit float.
fn from_half(bits: u16) -> f32 {
    let sign = u32::from(bits >> 15) << 31;
    let exponent = u32::from(bits >> 10) & 0x1f;
    let fraction = u32::from(bits) & 0x3ff;
    match exponent {
        // Subnormal: the fraction counts steps of 2^-24, which is exact.
        0 => {
            let magnitude = fraction as f32 / 16_777_216.0;
            f32::from_bits(sign | magnitude.to_bits())
        }
        0x1f => f32::from_bits(sign | 0x7f80_0000 | fraction << 13),
        _ => f32::from_bits(sign | (exponent + 112) << 23 | fraction << 13),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_precision_converts_exactly() {
        for (bits, value) in [
            (0x3c00, 1.0),
            (0xc000, -2.0),
            (0x7bff, 65_504.0),
            (0x0400, 2.0_f32.powi(-14)),
            (0x0001, 2.0_f32.powi(-24)),
            (0x8001, -(2.0_f32.powi(-24))),
            (0x03ff, 1023.0 * 2.0_f32.powi(-24)),
            (0x3555, 0.333_251_95),
            (0x0000, 0.0),
        ] {
            assert_eq!(from_half(bits), value, "{bits:#x}");
        }
        assert!(from_half(0x8000).is_sign_negative());
        assert_eq!(from_half(0x7c00), f32::INFINITY);
        assert!(from_half(0x7e00).is_nan());
        assert_eq!(number(Dtype::BF16, &[0x80, 0x3f]), 1.0);
        assert_eq!(number(Dtype::F64, &0.1_f64.to_le_bytes()), 0.1_f32);
    }

    #[test]
    fn transposed_tensor_is_read_in_order() {
        let bytes: Vec<u8> = (0..6).flat_map(|i| (i as f32).to_le_bytes()).collect();
        let place = |strides: Option<Vec<usize>>| Place {
            file: 0,
            dtype: Dtype::F32,
            shape: vec![2, 3],
            strides,
            at: 0,
        };
        assert_eq!(place(None).read(&bytes), [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]);
        assert_eq!(
            place(Some(vec![1, 2])).read(&bytes),
            [0.0, 2.0, 4.0, 1.0, 3.0, 5.0]
        );
    }
}
