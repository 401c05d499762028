//! What the workloads write and expect back: everything follows from the seed, so that no table of the written data is
//! needed to check an answer.

mod dataset;
mod permutation;

pub use dataset::{Dataset, Expected};
pub use permutation::Permutation;

/// A bijective scrambling of 64 bits, each output bit depending on all input bits: the finaliser of SplitMix64 (Steele,
/// Lea, Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014).
///
/// ```
/// assert_ne!(siltstone_benches::data::mix(1), siltstone_benches::data::mix(2));
/// ```
#[inline]
pub fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// 2^64 divided by the golden ratio: its multiples spread evenly over 64 bits.
pub(crate) const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// Scales 64 random bits to `[0, bound)` by a multiplication; the bias is at most `bound` in 2^64.
#[inline]
pub(crate) fn scale(random: u64, bound: u64) -> u64 {
    ((u128::from(random) * u128::from(bound)) >> 64) as u64
}
