//! [`Permutation`]: the numbers below n in a random order, without a table.

use super::mix;

/// The numbers `[0, n)` in an order that depends on a seed; each position has its number in constant time and no
/// memory.
///
/// Multiplications by odd numbers and xor-shifts permute the numbers below the next power of two; a result of `n` or
/// more is permuted again until it is below ("cycle walking", Black and Rogaway, "Ciphers with arbitrary finite
/// domains", CT-RSA 2002), which takes under two rounds on average.
///
/// ```
/// let order = siltstone_benches::data::Permutation::new(5, 1);
/// let mut all: Vec<u64> = (0..5).map(|position| order.at(position)).collect();
/// all.sort();
/// assert_eq!(all, [0, 1, 2, 3, 4]);
/// ```
#[derive(Clone, Debug)]
pub struct Permutation {
    n: u64,
    mask: u64,
    shift: u32,
    multipliers: [u64; 3],
    offset: u64,
}

impl Permutation {
    /// The order of `[0, n)` that `seed` gives; `n` up to 2^63.
    pub fn new(n: u64, seed: u64) -> Self {
        let bits = n.max(2).saturating_sub(1).ilog2() + 1;
        let multipliers = [1, 2, 3].map(|round| mix(seed.wrapping_add(round)) | 1);
        let mask = u64::MAX >> (64 - bits);
        Permutation { n, mask, shift: bits.div_ceil(2), multipliers, offset: mix(!seed) }
    }

    /// The number at `position`, both in `[0, n)`; a position out of bounds gives itself.
    #[inline]
    pub fn at(&self, position: u64) -> u64 {
        if position >= self.n {
            return position;
        }
        let mut x = position;
        loop {
            x = self.round(x);
            if x < self.n {
                return x;
            }
        }
    }

    /// Permutes `[0, mask]`: every step can be undone within `mask`.
    #[inline]
    fn round(&self, x: u64) -> u64 {
        let mut x = x.wrapping_add(self.offset) & self.mask;
        for multiplier in self.multipliers {
            x = x.wrapping_mul(multiplier) & self.mask;
            x ^= x >> self.shift;
        }
        x
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_comes_exactly_once() {
        for n in [1, 2, 3, 4, 5, 7, 8, 9, 1000, 1023, 1024, 1025, 65_537, 100_003] {
            for seed in [0, 1, 42, u64::MAX] {
                let order = Permutation::new(n, seed);
                let mut seen = vec![false; n as usize];
                for position in 0..n {
                    let number = order.at(position);
                    assert!(!std::mem::replace(&mut seen[number as usize], true), "n {n}, seed {seed}: {number} twice");
                }
                assert!(seen.iter().all(|&seen| seen), "n {n}, seed {seed}");
            }
        }
    }

    #[test]
    fn neighbours_are_far_apart() {
        let n = 100_000;
        let order = Permutation::new(n, 42);
        let near = (1..n).filter(|&i| order.at(i).abs_diff(order.at(i - 1)) < n / 100).count();
        // 2 % expected of a random order.
        assert!((1000..3000).contains(&near), "{near}");
        let ascending = (1..n).filter(|&i| order.at(i) > order.at(i - 1)).count();
        assert!((48_000..52_000).contains(&ascending), "{ascending}");
    }
}
