//! Which keys a memtable may hold: a bloom filter whose bits for one key lie in one cache line.
//!
//! After Putze, Sanders, Singler, "Cache-, Hash- and Space-Efficient Bloom Filters" (2007), the blocked variant.

#![allow(unsafe_code)]

use std::sync::atomic::{AtomicU64, Ordering};

/// Bits set for each key: the best number for ten bits a key, where it gives about 1 % false positives.
const PROBES: u32 = 6;

const LINE_WORDS: usize = 8;

/// Eight words that share a cache line.
#[derive(Debug)]
#[repr(C, align(64))]
struct Line([AtomicU64; LINE_WORDS]);

/// A blocked bloom filter with one writer and any number of readers at the same time.
#[derive(Debug)]
pub(crate) struct AtomicFilter {
    lines: Box<[Line]>,
}

impl AtomicFilter {
    /// A filter for about `keys` keys, `bits_per_key` bits each; more keys only raise the share of false positives. Its pages are not touched
    /// before they are used.
    pub(crate) fn for_keys(keys: usize, bits_per_key: u32) -> Self {
        let lines =
            keys.saturating_mul(bits_per_key as usize).div_ceil(8 * size_of::<Line>()).clamp(1, u32::MAX as usize);
        // SAFETY: a line is an array of atomic words, for which zeroed memory is the valid value 0.
        AtomicFilter { lines: unsafe { Box::<[Line]>::new_zeroed_slice(lines).assume_init() } }
    }

    /// Its memory, in bytes.
    pub(crate) fn memory_bytes(&self) -> usize {
        size_of_val(&*self.lines)
    }

    /// Adds a key by its [`crate::key::hash_key`]. Only one thread may add at a time: bits that two add together can get lost.
    #[inline]
    pub(crate) fn insert(&self, hash: u64) {
        let line = self.line(hash);
        for (word, bit) in probes(hash) {
            // Relaxed, and no read-modify-write: there is one writer, and whoever must find the key learns of it through the
            // release of its sequence number, which comes after these stores.
            let word = &line.0[word];
            word.store(word.load(Ordering::Relaxed) | bit, Ordering::Relaxed);
        }
    }

    /// Whether the key with this hash may have been added; never `false` for one that was.
    #[inline]
    pub(crate) fn may_contain(&self, hash: u64) -> bool {
        let line = self.line(hash);
        // Relaxed: see `insert`.
        probes(hash).all(|(word, bit)| line.0[word].load(Ordering::Relaxed) & bit != 0)
    }

    /// Asks the processor to fetch the line that [`may_contain`](Self::may_contain) will read.
    #[inline]
    pub(crate) fn prefetch(&self, hash: u64) {
        super::arena::prefetch(self.line(hash));
    }

    #[inline]
    fn line(&self, hash: u64) -> &Line {
        // The upper half of the hash, scaled to the number of lines: always below it.
        &self.lines[(((hash >> 32) * self.lines.len() as u64) >> 32) as usize]
    }
}

/// The word and the bit of each probe: nine bits of a scrambled lower half of the hash each.
#[inline]
fn probes(hash: u64) -> impl Iterator<Item = (usize, u64)> {
    let mixed = u64::from(hash as u32).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (0..PROBES).map(move |probe| {
        let nine = mixed >> (9 * probe + 10) & 511;
        ((nine >> 6) as usize, 1 << (nine & 63))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::hash_key;

    #[test]
    fn added_keys_are_found_and_few_others() {
        for keys in [0usize, 1, 300, 20_000] {
            let filter = AtomicFilter::for_keys(keys, 10);
            for i in 0..keys {
                filter.insert(hash_key(&i.to_le_bytes()));
            }
            assert!((0..keys).all(|i| filter.may_contain(hash_key(&i.to_le_bytes()))));
            let wrong = (keys..keys + 100_000).filter(|i| filter.may_contain(hash_key(&i.to_le_bytes()))).count();
            assert!(wrong < 2_000, "{wrong} of 100,000 false positives with {keys} keys");
        }
    }
}
