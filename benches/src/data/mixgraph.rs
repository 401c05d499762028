//! The distributions of the production model of Cao, Dong, Vemuri and Du, "Characterizing, Modeling, and Benchmarking
//! RocksDB Key-Value Workloads at Facebook" (FAST '20): the fit to its use case ZippyDB with hot key ranges and hot keys
//! within them, which db_bench's benchmark `mixgraph` calls "prefix_dist" ("all_dist" is the same without ranges).
//! Constants are named as db_bench's options.
//!
//! Unlike db_bench, key, value size and scan length of an operation are drawn independently of each other, and the rate
//! is not limited by a sine.

use rand::{Rng, RngExt};

use super::{GOLDEN, mix, scale};

/// `-keyrange_num`: the key space is cut into as many ranges, each of its own hotness.
pub const KEYRANGE_NUM: usize = 30;
/// `-keyrange_dist_a`, `_b`, `_c`, `_d`: range x, from 1 on, is accessed with a probability proportional to
/// a e^(bx) + c e^(dx).
pub const KEYRANGE_DIST: [f64; 4] = [14.18, -2.917, 0.0164, -0.08082];
/// `-key_dist_a`, `-key_dist_b`: within a range, the share of accesses that goes to the x hottest keys is a x^b.
pub const KEY_DIST: [f64; 2] = [0.002312, 0.3467];
/// `-value_k` and `-value_sigma` (theta is 0): shape and scale of the value sizes.
pub const VALUE_DIST: [f64; 2] = [0.2615, 25.45];
/// db_bench's shortest value, in bytes.
pub const MIN_VALUE_LEN: usize = 10;
/// `-mix_max_value_size`, in bytes: larger sizes are taken modulo it.
pub const MAX_VALUE_LEN: usize = 1024;
/// `-iter_k` and `-iter_sigma` (theta is 0): shape and scale of the lengths of scans.
pub const ITER_DIST: [f64; 2] = [2.517, 14.236];
/// `-mix_max_scan_len`: longer scans are taken modulo it.
pub const MAX_SCAN_LEN: usize = 10_000;
/// `-mix_get_ratio`, `-mix_put_ratio`; the rest are seeks (`-mix_seek_ratio` 0.03).
pub const MIX_RATIO: [f64; 2] = [0.83, 0.14];

/// Which keys are accessed: hot ranges of the key space, and hot keys within each.
#[derive(Clone, Debug)]
pub struct HotRanges {
    /// The probability that a range up to this one, in key order, is accessed.
    cumulative: [f64; KEYRANGE_NUM],
    keys: u64,
    seed: u64,
}

impl HotRanges {
    /// Ranges over `[0, keys)`, whose places in key order follow from `seed`.
    pub fn new(keys: u64, seed: u64) -> Self {
        let [a, b, c, d] = KEYRANGE_DIST;
        let mut hotness: [f64; KEYRANGE_NUM] = std::array::from_fn(|at| {
            let x = (at + 1) as f64;
            a * (b * x).exp() + c * (d * x).exp()
        });
        // Without it, hot ranges would be neighbours.
        let order = super::Permutation::new(KEYRANGE_NUM as u64, seed);
        let by_rank = hotness;
        for (rank, &hot) in by_rank.iter().enumerate() {
            hotness[order.at(rank as u64) as usize] = hot;
        }
        let total: f64 = hotness.iter().sum();
        let mut sum = 0.0;
        let cumulative = hotness.map(|hot| {
            sum += hot / total;
            sum
        });
        HotRanges { cumulative, keys, seed }
    }

    /// The number of the next key, in `[0, keys)`.
    pub fn draw(&self, random: &mut impl Rng) -> u64 {
        let place: f64 = random.random();
        let range = self.cumulative.partition_point(|&up_to| up_to <= place).min(KEYRANGE_NUM - 1);
        let [start, end] =
            [range, range + 1].map(|at| (u128::from(self.keys) * at as u128 / KEYRANGE_NUM as u128) as u64);
        let rank = key_rank(random.random());
        // Hot keys of a range lie anywhere in it; with fewer keys than ranges some are empty.
        let offset = scale(mix(rank.wrapping_mul(GOLDEN) ^ self.seed), end - start);
        (start + offset).min(self.keys - 1)
    }
}

/// The hotness rank of a key in its range, from 1 on: the inverse of the cumulative a x^b at `u`, of `[0, 1)`.
fn key_rank(u: f64) -> u64 {
    let [a, b] = KEY_DIST;
    ((u / a).powf(b.recip()).ceil() as u64).max(1)
}

/// A number of the generalised Pareto distribution with shape k, scale sigma and location 0: the inverse of its
/// cumulative at `1 - u`, for `u` in `(0, 1]`.
fn pareto([k, sigma]: [f64; 2], u: f64) -> f64 {
    sigma * (u.powf(-k) - 1.0) / k
}

/// The high 53 bits as a number in `(0, 1]`.
fn unit(random: u64) -> f64 {
    ((random >> 11) + 1) as f64 / (1u64 << 53) as f64
}

/// The length that the value gets whose bytes begin with `random`, in bytes.
#[inline]
pub fn value_len(random: u64) -> usize {
    // The float is at most 1e6; a cast saturates anyway.
    let len = pareto(VALUE_DIST, unit(mix(random))).ceil() as usize;
    if len > MAX_VALUE_LEN { (len % MAX_VALUE_LEN).max(MIN_VALUE_LEN) } else { len.max(MIN_VALUE_LEN) }
}

/// How many entries the next scan reads; 0 is a seek alone.
pub fn scan_len(random: &mut impl Rng) -> usize {
    let len = pareto(ITER_DIST, unit(random.next_u64())).ceil() as usize;
    len % MAX_SCAN_LEN
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;
    use rand::rngs::SmallRng;

    const DRAWS: u64 = 200_000;

    #[test]
    fn value_sizes_have_the_moments_of_the_fit() {
        let mut lens: Vec<_> = (0..DRAWS).map(|at| value_len(mix(at))).collect();
        let mean = lens.iter().sum::<usize>() as f64 / DRAWS as f64;
        lens.sort();
        // Mean of the distribution: sigma / (1 - k) = 34.5; rounded up and at least 10: about 36.
        assert!((34.0..38.0).contains(&mean), "{mean}");
        // Median: sigma (2^k - 1) / k = 19.3.
        assert!((19..=21).contains(&lens[lens.len() / 2]), "{}", lens[lens.len() / 2]);
        assert_eq!(lens[0], MIN_VALUE_LEN);
        // 99th of 100: sigma (100^k - 1) / k = 227.
        assert!((215..240).contains(&lens[lens.len() * 99 / 100]), "{}", lens[lens.len() * 99 / 100]);
        assert!(lens[lens.len() - 1] <= MAX_VALUE_LEN);
    }

    #[test]
    fn scans_have_the_lengths_of_the_fit() {
        let mut random = SmallRng::seed_from_u64(1);
        let mut lens: Vec<_> = (0..DRAWS).map(|_| scan_len(&mut random)).collect();
        lens.sort();
        // The median of the distribution is sigma (2^k - 1) / k = 26.7. 5 % of it is longer than 10,000 and is folded
        // over all lengths, which moves the median a little, and the 90th of 100 from 1,854 to about 1,470.
        assert!((25..=29).contains(&lens[lens.len() / 2]), "{}", lens[lens.len() / 2]);
        let ninetieth = lens[lens.len() * 9 / 10];
        assert!((1_380..1_560).contains(&ninetieth), "{ninetieth}");
        assert!(lens[lens.len() - 1] < MAX_SCAN_LEN);
    }

    #[test]
    fn ranges_are_as_hot_as_the_fit_says() {
        let keys = 3_000_000;
        let ranges = HotRanges::new(keys, 42);
        let mut random = SmallRng::seed_from_u64(1);
        let mut by_range = [0u64; KEYRANGE_NUM];
        for _ in 0..DRAWS {
            let key = ranges.draw(&mut random);
            by_range[(key / (keys / KEYRANGE_NUM as u64)) as usize] += 1;
        }
        let expected = |x: f64| {
            let of = |x: f64| 14.18 * (-2.917 * x).exp() + 0.0164 * (-0.08082 * x).exp();
            of(x) / (1..=30).map(|x| of(f64::from(x))).sum::<f64>()
        };
        by_range.sort_by(|a, b| b.cmp(a));
        for (rank, &count) in by_range.iter().enumerate() {
            let (share, expected) = (count as f64 / DRAWS as f64, expected((rank + 1) as f64));
            assert!((share - expected).abs() < 0.05 * expected + 0.001, "{rank}: {share} {expected}");
        }
        assert!(by_range[0] as f64 > 0.7 * DRAWS as f64, "one range in thirty takes three quarters: {by_range:?}");
    }

    #[test]
    fn the_hottest_keys_of_a_range_have_their_share() {
        let mut random = SmallRng::seed_from_u64(1);
        let ranks: Vec<_> = (0..DRAWS).map(|_| key_rank(random.random())).collect();
        for up_to in [1, 100, 10_000, 1_000_000] {
            let share = ranks.iter().filter(|&&rank| rank <= up_to).count() as f64 / DRAWS as f64;
            let expected = 0.002312 * (up_to as f64).powf(0.3467);
            assert!((share - expected).abs() < 0.05 * expected + 0.0005, "{up_to}: {share} {expected}");
        }
    }

    #[test]
    fn a_handful_of_keys_is_enough() {
        let mut random = SmallRng::seed_from_u64(1);
        for keys in [1, 2, 29, 30, 31] {
            let ranges = HotRanges::new(keys, 42);
            assert!((0..1000).all(|_| ranges.draw(&mut random) < keys));
        }
    }
}
