//! Random bits by position: which entries are dropped follows from a seed and where they are, so nothing is stored for
//! the gradient and threads need no order.

use crate::lanes::LANES;

/// The random bits of one row.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Row {
    keys: [u32; 2],
}

impl Row {
    /// Row `index` under `seed`.
    #[inline(always)]
    pub(crate) fn new(seed: u64, index: u64) -> Self {
        let bits = mix(seed ^ mix(index.wrapping_add(0x9e37_79b9_7f4a_7c15)));
        Self {
            keys: [bits as u32, (bits >> 32) as u32],
        }
    }

    /// Thirty-two random bits for each of the entries from `start` on.
    #[inline(always)]
    pub(crate) fn bits(self, start: usize) -> [u32; LANES] {
        let mut bits = [0; LANES];
        for (i, bits) in bits.iter_mut().enumerate() {
            let mut x = ((start + i) as u32).wrapping_add(self.keys[0]);
            x = (x ^ (x >> 16)).wrapping_mul(0x7feb_352d);
            x = (x ^ (x >> 15) ^ self.keys[1]).wrapping_mul(0x846c_a68b);
            *bits = x ^ (x >> 16);
        }
        bits
    }
}

/// The finalizer of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014).
#[inline(always)]
fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// The bound below which random bits drop an entry with probability `p`, 0 to 1.
pub(crate) fn threshold(p: f64) -> u32 {
    // A cast of a float saturates.
    (p * 4_294_967_296.0).round() as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bits of many rows: each bit is set half of the time, and neighbours in a row, the same column of
    /// neighbouring rows, and the same place under neighbouring seeds are independent.
    #[test]
    fn bits_are_fair_and_independent() {
        let at = |seed: u64, row: u64, column: usize| {
            Row::new(seed, row).bits(column / LANES * LANES)[column % LANES]
        };
        let mut set = [0u32; 32];
        let mut same = [[0u32; 32]; 3];
        let mut count = 0u32;
        for row in 0..400 {
            for column in 0..400 {
                let here = at(7, row, column);
                let others = [
                    at(7, row, column + 1),
                    at(7, row + 1, column),
                    at(8, row, column),
                ];
                for bit in 0..32 {
                    set[bit] += here >> bit & 1;
                    for (same, other) in same.iter_mut().zip(others) {
                        same[bit] += !(here ^ other) >> bit & 1;
                    }
                }
                count += 1;
            }
        }
        let half = f64::from(count) / 2.0;
        // Five standard deviations.
        let allowed = 5.0 * (f64::from(count) / 4.0).sqrt();
        for counts in same.iter().chain([&set]) {
            for &n in counts {
                assert!((f64::from(n) - half).abs() < allowed, "{n} of {count}");
            }
        }
    }

    #[test]
    fn thresholds_reach_from_never_to_almost_always() {
        assert_eq!(threshold(0.0), 0);
        assert_eq!(threshold(0.5), 1 << 31);
        assert_eq!(threshold(1.0), u32::MAX);
    }
}
