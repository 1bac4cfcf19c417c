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

    /// `randint(low, high)`: a whole number from `low` to `high - 1`. Numbers are drawn with as many bits
    /// as the range needs until one is in it, none if only one is possible.
    ///
    /// Panics if `high` is not above `low`.
    pub fn integer(&mut self, low: u32, high: u32) -> u32 {
        assert!(low < high, "an empty range");
        low + self.at_most(high - 1 - low)
    }

    /// `permutation(count)`: the numbers below `count` in a random order, each order as likely as the
    /// other, so that a number may well stay in its place.
    pub fn permutation(&mut self, count: u32) -> Vec<u32> {
        let mut order: Vec<u32> = (0..count).collect();
        for last in (1..count).rev() {
            let other = self.at_most(last);
            order.swap(last as usize, other as usize);
        }
        order
    }

    /// The next two numbers of `standard_normal()`, in their order. NumPy computes them in pairs, too, by
    /// Marsaglia's polar method.
    pub fn standard_normals(&mut self) -> [f64; 2] {
        loop {
            let x = 2.0 * self.uniform() - 1.0;
            let y = 2.0 * self.uniform() - 1.0;
            let square = x * x + y * y;
            if square < 1.0 && square != 0.0 {
                let factor = (-2.0 * square.ln() / square).sqrt();
                return [factor * y, factor * x];
            }
        }
    }

    fn at_most(&mut self, max: u32) -> u32 {
        if max == 0 {
            return 0;
        }
        let mask = u32::MAX >> max.leading_zeros();
        loop {
            let number = self.0.next_u32() & mask;
            if number <= max {
                return number;
            }
        }
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

    /// What NumPy prints for `RandomState(1111).randint(0, 100, size=12)` and its like.
    #[test]
    fn integers_match_numpy() {
        let drawn = |high| -> Vec<u32> {
            let mut rng = RandomState::new(1111);
            (0..12).map(|_| rng.integer(0, high)).collect()
        };
        assert_eq!(drawn(100), [28, 55, 81, 12, 34, 52, 24, 22, 20, 11, 14, 8]);
        assert_eq!(drawn(3), [0, 1, 1, 0, 2, 0, 0, 2, 0, 2, 0, 2]);
        let mut rng = RandomState::new(1111);
        let mixed = [2, 3, 5, 9, 17, 18, 100, 70_000].map(|high| rng.integer(1, high));
        assert_eq!(mixed, [1, 1, 4, 6, 2, 13, 35, 789]);
        assert_eq!(rng.uniform(), 0.23559472439157547);
    }

    #[test]
    fn integer_of_one_value_draws_nothing() {
        let mut rng = RandomState::new(1111);
        assert_eq!([rng.integer(1, 2), rng.integer(7, 8)], [1, 7]);
        assert_eq!(rng, RandomState::new(1111));
    }

    #[test]
    fn permutations_match_numpy() {
        let of = |seed, count| RandomState::new(seed).permutation(count);
        assert_eq!(of(1111, 10), [9, 3, 8, 0, 6, 2, 4, 1, 5, 7]);
        assert_eq!(of(7, 5), [0, 3, 2, 1, 4]);
        assert_eq!((of(3, 1), of(3, 0)), (vec![0], vec![]));
        let mut rng = RandomState::new(42);
        assert_eq!(rng.permutation(1000)[..5], [521, 737, 740, 660, 411]);
        assert_eq!(rng.uniform(), 0.9899602323899452);
    }

    /// To a last bit or two of the logarithm, which differs between mathematical libraries.
    #[test]
    fn standard_normals_match_numpy() {
        let close = |mut rng: RandomState, expected: [f64; 4]| {
            let drawn = [rng.standard_normals(), rng.standard_normals()].concat();
            for (drawn, expected) in drawn.iter().zip(expected) {
                assert!((drawn - expected).abs() < 1e-14, "{drawn} {expected}");
            }
        };
        close(
            RandomState::new(1111),
            [
                -1.3000103150215676,
                -1.0729890356374097,
                0.7901991944578705,
                -0.8782654963603305,
            ],
        );
        close(
            RandomState::from_key(&[1, 2, 3]),
            [
                0.8985824482099501,
                0.25528876596298244,
                0.9517262521759671,
                -0.056633916373920894,
            ],
        );
    }
}
