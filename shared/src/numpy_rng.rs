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

    fn drawn<const N: usize>(mut rng: RandomState) -> [f64; N] {
        std::array::from_fn(|_| rng.uniform())
    }

    /// What NumPy 2 prints for `RandomState(seed).uniform(size=...)`.
    #[test]
    fn matches_numpy_draws() {
        let expected = [
            0.09554919920876204,
            0.9250037018616327,
            0.34357342320721895,
            0.3104769418698441,
            0.002009839949097536,
        ];
        assert_eq!(drawn(RandomState::new(1111)), expected);
        let expected = [0.5488135039273248, 0.7151893663724195, 0.6027633760716439];
        assert_eq!(drawn(RandomState::new(0)), expected);
        let expected = [0.0976320289940138, 0.9123828453026218, 0.78903530185164];
        assert_eq!(drawn(RandomState::new(u32::MAX)), expected);
    }

    #[test]
    fn matches_numpy_draws_with_list_seed() {
        let expected = [0.6098612722867289, 0.8866970434146851, 0.47633673750662764];
        assert_eq!(drawn(RandomState::from_key(&[1, 2, 3])), expected);
    }

    #[test]
    fn matches_numpy_after_state_is_exhausted() {
        let mut rng = RandomState::new(5);
        for _ in 0..2000 {
            rng.uniform();
        }
        assert_eq!(rng.uniform(), 0.7839603852815328);
    }

    #[test]
    fn below_is_bounded_and_reaches_every_value() {
        let mut rng = RandomState::from_key(&[1, 2]);
        let mut seen = [0; 3];
        for _ in 0..3000 {
            seen[rng.below(3)] += 1;
        }
        assert!(seen.iter().all(|n| (900..1100).contains(n)), "{seen:?}");
    }
}
