//! What the workloads write and expect back. Keys and values follow from the seed, so that no copy of the written data
//! is needed to check an answer; a ledger of four bytes a key says which version the store should hold.

mod choose;
mod dataset;
mod ledger;
pub mod mixgraph;
mod permutation;

pub use choose::{Latest, Scrambled, ZIPF_EXPONENT};
pub use dataset::{Dataset, VARIABLE};
pub use ledger::{Claim, FillOrder, Known, Ledger};
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
