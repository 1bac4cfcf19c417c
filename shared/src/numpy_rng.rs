//! NumPy's legacy generator, to draw the reference's erasure bit for bit.

use rand_mt::Mt;

/// `numpy.random.RandomState(seed)`: the Mersenne Twister MT19937 with NumPy's conversions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RandomState(Mt);

impl RandomState {
    /// `RandomState(seed)` for an integer seed.
    pub fn new(seed: u32) -> Self {
        Self(Mt::new(seed))
    }

    /// `RandomState([...])`: seeded by an array of words.
    pub fn from_key(key: &[u32]) -> Self {
        Self(Mt::new_with_key(key.iter().copied()))
    }

    /// The next number of `uniform()`: 53 random bits in `[0, 1)`.
    pub fn uniform(&mut self) -> f64 {
        let high = f64::from(self.0.next_u32() >> 5);
        let low = f64::from(self.0.next_u32() >> 6);
        (high * 67_108_864.0 + low) / 9_007_199_254_740_992.0
    }

    /// A whole number below `bound`, each as likely as the other to one part in 2^53.
    pub fn below(&mut self, bound: usize) -> usize {
        // A product of a number below 1 and the bound can round up to the bound.
        ((self.uniform() * bound as f64) as usize).min(bound.saturating_sub(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_what_numpy_draws() {
        // numpy.random.RandomState(1111).uniform(size=5)
        let expected = [
            0.09554919920876204,
            0.9250037018616327,
            0.34357342320721895,
            0.3104769418698441,
            0.002009839949097536,
        ];
        let mut rng = RandomState::new(1111);
        let drawn: Vec<f64> = (0..5).map(|_| rng.uniform()).collect();
        assert_eq!(drawn, expected);
    }

    #[test]
    fn below_stays_below() {
        let mut rng = RandomState::from_key(&[1, 2]);
        assert!((0..1000).all(|_| rng.below(3) < 3));
    }
}
