//! Random numbers, the same on every machine and in every release.

/// SplitMix64 (Steele, Lea and Flood, 2014).
pub(super) struct Random {
    state: u64,
}

impl Random {
    /// A stream for a sequence of numbers; other sequences give unrelated streams.
    pub(super) fn new(key: &[u64]) -> Self {
        let mut this = Self {
            state: 0x6d69_7373_6265_6e63,
        };
        for &part in key {
            this.state ^= part;
            this.state = this.next();
        }
        this
    }

    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Uniform in [0, 1), a multiple of 2^-24.
    pub(super) fn unit(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1u32 << 24) as f32
    }

    /// Uniform in [from, to).
    pub(super) fn between(&mut self, from: f32, to: f32) -> f32 {
        from + (to - from) * self.unit()
    }

    /// Uniform in 0..count; the bias of the remainder does not matter here.
    pub(super) fn below(&mut self, count: usize) -> usize {
        (self.next() % count.max(1) as u64) as usize
    }

    /// One of `items`; `None` if it is empty.
    pub(super) fn pick<'a, T>(&mut self, items: &'a [T]) -> Option<&'a T> {
        items.get(self.below(items.len()))
    }

    /// Approximately normal with mean 0 and deviation 1: the sum of twelve uniform numbers, which needs no
    /// logarithm and is therefore the same on every platform.
    pub(super) fn normal(&mut self) -> f32 {
        let mut sum = -6.0;
        for _ in 0..12 {
            sum += self.unit();
        }
        sum
    }
}
