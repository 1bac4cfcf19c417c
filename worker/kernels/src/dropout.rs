//! Dropout (Srivastava et al., JMLR 2014) without a mask in memory.
//!
//! libtorch draws a random number in double precision for each entry, one after the other on one core, and keeps a factor
//! of 32 bits for the gradient. Here what is dropped follows from a seed and the entry's place, in any thread, and is
//! computed again on the way back.

use crate::{
    dispatch::{Instructions, Work},
    lanes::{LANES, Lanes},
    parallel,
    random::{Row, threshold},
};

/// Which entries are dropped, and by what the others grow.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Dropout {
    /// The probability with which an entry is dropped: at least 0 and below 1.
    pub p: f64,
    /// Which entries these are follows from it.
    pub seed: u64,
    /// Threads that work on it.
    pub threads: usize,
}

/// Numbers that a thread takes at once, under random bits of their own: 64 KiB in single precision.
const PART: usize = 16 * 1024;

/// A number in memory.
pub trait Number: Copy + Send + Sync {
    /// In single precision, without a loss.
    fn to_f32(self) -> f32;
    /// The nearest to `x`.
    fn from_f32(x: f32) -> Self;
}

impl Number for f32 {
    #[inline(always)]
    fn to_f32(self) -> f32 {
        self
    }

    #[inline(always)]
    fn from_f32(x: f32) -> Self {
        x
    }
}

/// The upper half of a number in single precision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub struct Bfloat16(pub u16);

impl Number for Bfloat16 {
    #[inline(always)]
    fn to_f32(self) -> f32 {
        f32::from_bits(u32::from(self.0) << 16)
    }

    /// The nearest; of two, the even one.
    #[inline(always)]
    fn from_f32(x: f32) -> Self {
        let bits = x.to_bits();
        let rounded = bits.wrapping_add(0x7fff + (bits >> 16 & 1)) >> 16;
        // Rounding could make infinity of what is no number.
        let quiet = bits >> 16 | 0x40;
        Self(if x.is_nan() { quiet } else { rounded } as u16)
    }
}

impl Dropout {
    /// Writes `x`, with each entry dropped or scaled, to `out`, added to `base` if there is one.
    ///
    /// # Panics
    ///
    /// If the lengths differ.
    pub fn apply<T: Number>(&self, base: Option<&[T]>, x: &[T], out: &mut [T]) {
        assert!(base.is_none_or(|base| base.len() == x.len()));
        assert_eq!(x.len(), out.len());
        let parts: Vec<Part<'_, T>> = out
            .chunks_mut(PART)
            .enumerate()
            .map(|(index, out)| {
                let range = index * PART..index * PART + out.len();
                Part {
                    random: Row::new(self.seed, index as u64),
                    dropped: threshold(self.p),
                    scale: (1.0 / (1.0 - self.p)) as f32,
                    base: base.map(|base| &base[range.clone()]),
                    x: &x[range],
                    out,
                }
            })
            .collect();
        let instructions = Instructions::detect();
        parallel::for_all(self.threads, parts, &|part| instructions.run(part));
    }
}

struct Part<'a, T> {
    random: Row,
    dropped: u32,
    scale: f32,
    base: Option<&'a [T]>,
    x: &'a [T],
    out: &'a mut [T],
}

impl<T: Number> Work for Part<'_, T> {
    #[inline(always)]
    fn run(self) {
        let (whole, rest) = self.out.as_chunks_mut::<LANES>();
        let done = whole.len() * LANES;
        for (i, out) in whole.iter_mut().enumerate() {
            let at = i * LANES;
            let factors = factors(self.random, at, self.dropped, self.scale);
            let x = load(&self.x[at..at + LANES]);
            let y = match self.base {
                Some(base) => load(&base[at..at + LANES]).with(x.with(factors, mul), add),
                None => x.with(factors, mul),
            };
            for lane in 0..LANES {
                out[lane] = T::from_f32(y.0[lane]);
            }
        }
        let factors = factors(self.random, done, self.dropped, self.scale);
        for (lane, out) in rest.iter_mut().enumerate() {
            let x = self.x[done + lane].to_f32() * factors.0[lane];
            let base = self.base.map(|base| base[done + lane].to_f32());
            *out = T::from_f32(base.map_or(x, |base| base + x));
        }
    }
}

#[inline(always)]
fn mul(a: f32, b: f32) -> f32 {
    a * b
}

#[inline(always)]
fn add(a: f32, b: f32) -> f32 {
    a + b
}

#[inline(always)]
fn load<T: Number>(from: &[T]) -> Lanes {
    let mut lanes = [0.0; LANES];
    for lane in 0..LANES {
        lanes[lane] = from[lane].to_f32();
    }
    Lanes(lanes)
}

/// What the entries from `start` on are multiplied by: 0 or `scale`. A product with 0 keeps what is no number.
#[inline(always)]
fn factors(random: Row, start: usize, dropped: u32, scale: f32) -> Lanes {
    let bits = random.bits(start);
    let mut factors = [0.0; LANES];
    for lane in 0..LANES {
        factors[lane] = if bits[lane] < dropped { 0.0 } else { scale };
    }
    Lanes(factors)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dropout(p: f64, seed: u64, threads: usize) -> Dropout {
        Dropout { p, seed, threads }
    }

    fn applied(dropout: Dropout, count: usize) -> Vec<f32> {
        let mut out = vec![f32::NAN; count];
        dropout.apply(None, &vec![1.0; count], &mut out);
        out
    }

    #[test]
    fn share_p_is_dropped_and_the_rest_keeps_the_expectation() {
        let count = 10 * PART + 7;
        for p in [0.0, 0.1, 0.5, 0.9] {
            let out = applied(dropout(p, 3, 2), count);
            let zeros = out.iter().filter(|&&y| y == 0.0).count() as f64;
            let n = count as f64;
            // Five standard deviations.
            let allowed = 5.0 * (n * p * (1.0 - p)).sqrt();
            assert!((zeros - n * p).abs() <= allowed, "{p}: {zeros} of {n}");
            let kept = (1.0 / (1.0 - p)) as f32;
            assert!(out.iter().all(|&y| y == 0.0 || y == kept), "{p}");
        }
    }

    #[test]
    fn parts_and_seeds_drop_different_entries() {
        let out = applied(dropout(0.5, 3, 1), 2 * PART);
        let other = applied(dropout(0.5, 4, 1), 2 * PART);
        let same = |a: &[f32], b: &[f32]| a.iter().zip(b).filter(|(a, b)| a == b).count() as f64;
        let half = PART as f64 / 2.0;
        let allowed = 5.0 * (PART as f64 / 4.0).sqrt();
        for agree in [
            same(&out[..PART], &out[PART..]),
            same(&out[..PART], &other[..PART]),
        ] {
            assert!((agree - half).abs() < allowed, "{agree} of {PART}");
        }
    }

    #[test]
    fn bits_are_those_of_any_number_of_threads() {
        for count in [0, 1, 15, 16, 17, PART, 3 * PART + 5] {
            let x: Vec<f32> = (0..count).map(|i| i as f32 * 0.37 - 5.0).collect();
            let run = |threads| {
                let mut out = vec![f32::NAN; count];
                dropout(0.3, 9, threads).apply(None, &x, &mut out);
                out
            };
            assert_eq!(run(1), run(3), "{count}");
        }
    }

    #[test]
    fn sum_is_that_of_base_and_what_is_left() {
        let count = PART + 21;
        let x: Vec<f32> = (0..count).map(|i| (i % 91) as f32 - 40.5).collect();
        let base: Vec<f32> = (0..count).map(|i| (i % 17) as f32 * 0.1).collect();
        let (mut alone, mut sum) = (vec![0.0; count], vec![0.0; count]);
        let dropout = dropout(0.4, 5, 2);
        dropout.apply(None, &x, &mut alone);
        dropout.apply(Some(&base), &x, &mut sum);
        for i in 0..count {
            assert_eq!(sum[i], base[i] + alone[i]);
        }
    }

    #[test]
    fn what_is_no_number_stays_none() {
        let mut out = vec![0.0; 64];
        dropout(0.5, 1, 1).apply(None, &[f32::NAN; 64], &mut out);
        assert!(out.iter().all(|y| y.is_nan()));
    }

    #[test]
    fn bfloat16_rounds_to_the_nearest() {
        for (x, bits) in [
            (1.0_f32, 0x3f80),
            // Halfway to the next: to the even one, down and up.
            (257.0 / 256.0, 0x3f80),
            (259.0 / 256.0, 0x3f82),
            (1.004, 0x3f81),
            (-2.5, 0xc020),
            (f32::INFINITY, 0x7f80),
            (f32::MAX, 0x7f80),
        ] {
            assert_eq!(Bfloat16::from_f32(x), Bfloat16(bits), "{x}");
        }
        assert!(Bfloat16::from_f32(f32::NAN).to_f32().is_nan());
        assert!(
            Bfloat16::from_f32(f32::from_bits(0x7fff_ffff))
                .to_f32()
                .is_nan()
        );
        let x: Vec<Bfloat16> = (0..PART + 9)
            .map(|i| Bfloat16::from_f32(i as f32 * 0.01))
            .collect();
        let mut out = vec![Bfloat16(0xffff); x.len()];
        dropout(0.5, 2, 2).apply(None, &x, &mut out);
        for (x, y) in x.iter().zip(out) {
            assert!(y.0 == 0 || y.to_f32() == 2.0 * x.to_f32());
        }
    }
}
