//! Sixteen numbers at once. The compiler makes vector instructions of these loops, of whatever width there is.

/// Numbers that are computed together.
pub(crate) const LANES: usize = 16;

/// Sixteen numbers in single precision.
#[derive(Clone, Copy, Debug, PartialEq)]
#[repr(align(64))]
pub(crate) struct Lanes(pub(crate) [f32; LANES]);

impl Lanes {
    #[inline(always)]
    pub(crate) fn splat(value: f32) -> Self {
        Self([value; LANES])
    }

    /// The first sixteen numbers of `from`.
    #[inline(always)]
    pub(crate) fn load(from: &[f32]) -> Self {
        let mut lanes = [0.0; LANES];
        lanes.copy_from_slice(&from[..LANES]);
        Self(lanes)
    }

    /// As many numbers as there are, at most sixteen, and zeros.
    #[inline(always)]
    pub(crate) fn load_some(from: &[f32]) -> Self {
        let mut lanes = [0.0; LANES];
        let count = from.len().min(LANES);
        lanes[..count].copy_from_slice(&from[..count]);
        Self(lanes)
    }

    #[inline(always)]
    pub(crate) fn store(self, to: &mut [f32]) {
        to[..LANES].copy_from_slice(&self.0);
    }

    #[inline(always)]
    pub(crate) fn map(self, f: impl Fn(f32) -> f32) -> Self {
        let mut lanes = self.0;
        for lane in &mut lanes {
            *lane = f(*lane);
        }
        Self(lanes)
    }

    #[inline(always)]
    pub(crate) fn with(self, other: Self, f: impl Fn(f32, f32) -> f32) -> Self {
        let mut lanes = self.0;
        for (lane, other) in lanes.iter_mut().zip(other.0) {
            *lane = f(*lane, other);
        }
        Self(lanes)
    }

    /// `self * factor + term`, rounded once.
    #[inline(always)]
    pub(crate) fn mul_add(self, factor: Self, term: Self) -> Self {
        let mut lanes = term.0;
        for i in 0..LANES {
            lanes[i] = self.0[i].mul_add(factor.0[i], lanes[i]);
        }
        Self(lanes)
    }

    /// The largest.
    #[inline(always)]
    pub(crate) fn max(self) -> f32 {
        self.fold(|a, b| if a > b { a } else { b })
    }

    /// The sum, of halves first.
    #[inline(always)]
    pub(crate) fn sum(self) -> f32 {
        self.fold(|a, b| a + b)
    }

    #[inline(always)]
    fn fold(self, f: impl Fn(f32, f32) -> f32) -> f32 {
        let mut lanes = self.0;
        let mut half = LANES / 2;
        while half > 0 {
            for i in 0..half {
                lanes[i] = f(lanes[i], lanes[i + half]);
            }
            half /= 2;
        }
        lanes[0]
    }

    /// The exponentials of numbers that are at most 0, to about one unit in the last place; 0 below -87, NaN of NaN.
    ///
    /// `e^x = 2^n e^r` with the integer `n` nearest to `x / ln 2`, and a polynomial for the rest.
    #[inline(always)]
    pub(crate) fn exp_of_negative(self) -> Self {
        self.map(exp_of_negative)
    }
}

/// Smallest argument whose exponential is a normal number.
const LEAST: f32 = -87.0;

#[inline(always)]
fn exp_of_negative(x: f32) -> f32 {
    // Adding and subtracting 1.5 * 2^23 rounds to an integer, which is then in the lowest bits.
    const ROUND: f32 = 12_582_912.0;
    const LN2_HIGH: f32 = 0.693_359_4;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    // No number stays none, through both comparisons.
    let bounded = if x < LEAST { LEAST } else { x };
    let shifted = bounded.mul_add(std::f32::consts::LOG2_E, ROUND);
    let n = shifted - ROUND;
    let r = n.mul_add(-LN2_LOW, n.mul_add(-LN2_HIGH, bounded));
    // Minimax coefficients of e^r in ±ln 2 / 2 (Cephes, Moshier 1989).
    let p = 1.987_569_1e-4_f32;
    let p = p.mul_add(r, 1.398_199_9e-3);
    let p = p.mul_add(r, 8.333_452e-3);
    let p = p.mul_add(r, 4.166_579_6e-2);
    let p = p.mul_add(r, 1.666_666_5e-1);
    let p = p.mul_add(r, 0.5);
    let e = (p * r).mul_add(r, r) + 1.0;
    let exponent = shifted.to_bits().wrapping_add(127).wrapping_shl(23);
    let power = f32::from_bits(exponent);
    if x < LEAST { 0.0 } else { e * power }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exponentials_are_right_to_the_last_bits() {
        let mut x = 0.0_f32;
        while x > -86.9 {
            let got = f64::from(exp_of_negative(x));
            let expected = f64::from(x).exp();
            let error = (got - expected).abs() / expected;
            assert!(error < 1.5e-7, "{x}: {got} instead of {expected}");
            x -= 0.000_37 + x.abs() * 1e-4;
        }
        assert_eq!(exp_of_negative(0.0), 1.0);
        assert_eq!(exp_of_negative(-87.5), 0.0);
        assert_eq!(exp_of_negative(f32::NEG_INFINITY), 0.0);
        assert!(exp_of_negative(f32::NAN).is_nan());
    }

    #[test]
    fn sums_and_maxima_are_those_of_all_lanes() {
        let lanes = Lanes(std::array::from_fn(|i| (i as f32) - 3.0));
        assert_eq!(lanes.sum(), 72.0);
        assert_eq!(lanes.max(), 12.0);
    }
}
