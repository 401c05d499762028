//! Cache-line blocked bloom filters: all bits of a key lie in one line of 512 bits, so a probe costs one cache miss.
//!
//! The construction is Putze, Sanders and Singler, "Cache-, Hash- and Space-Efficient Bloom Filters" (2007): the high
//! half of the key's hash picks the line; bit positions are nine-bit pieces of a multiplicative mix of the hash. Bit
//! `p` of a line is bit `p % 8` of its byte `p / 8`.

use bytes::Bytes;

use crate::prefetch::prefetch_at;

/// Bytes of a filter line, which is a cache line.
pub(crate) const LINE_BYTES: usize = 64;
const LINE_BITS: usize = 8 * LINE_BYTES;

/// The most probes a filter has; more gain nothing at 32 bits a key.
pub(crate) const MAX_PROBES: u32 = 16;

/// 2^64 divided by the golden ratio, made odd (Knuth, multiplicative hashing).
const MIX: u64 = 0x9e37_79b9_7f4a_7c15;

/// Nine-bit pieces in a mixed hash.
const PIECES: u32 = 7;

/// How many bits a key sets, for a filter of `bits_per_key`. A little below the ln 2 of a plain bloom filter: lines
/// fill unevenly, and every probe costs time.
pub(crate) fn probes_for(bits_per_key: u32) -> u32 {
    (bits_per_key * 6 / 10).clamp(1, MAX_PROBES)
}

/// Calls `f` with each of the hash's bit positions in its line, all below 512.
#[inline(always)]
fn for_each_position(hash: u64, probes: u32, mut f: impl FnMut(usize)) {
    let mut left = probes;
    let mut mixed = hash.wrapping_mul(MIX);
    loop {
        let mut pieces = mixed;
        for _ in 0..left.min(PIECES) {
            f((pieces >> 55) as usize);
            pieces <<= 9;
        }
        if left <= PIECES {
            return;
        }
        left -= PIECES;
        mixed = (mixed ^ mixed >> 29).wrapping_mul(MIX);
    }
}

/// The hash's line among `lines` (at least 1, below 2^32).
#[inline]
fn line_of(hash: u64, lines: usize) -> usize {
    (((hash >> 32) * lines as u64) >> 32) as usize
}

/// A table's filter, read in place.
#[derive(Clone, Debug)]
pub(crate) struct Filter {
    lines: Bytes,
    probes: u32,
}

impl Filter {
    /// A filter over `lines`. `None` if that is no whole number of lines, or there is none, or `probes` is not 1 to
    /// [`MAX_PROBES`].
    pub(crate) fn new(lines: Bytes, probes: u32) -> Option<Self> {
        let count = lines.len() / LINE_BYTES;
        let fits = lines.len().is_multiple_of(LINE_BYTES) && (1..u32::MAX as usize).contains(&count);
        (fits && (1..=MAX_PROBES).contains(&probes)).then_some(Filter { lines, probes })
    }

    /// The filter's size in bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.lines.len()
    }

    #[inline]
    fn lines(&self) -> &[[u8; LINE_BYTES]] {
        self.lines.as_chunks().0
    }

    /// Starts loading the hash's line.
    #[inline]
    pub(crate) fn prefetch(&self, hash: u64) {
        prefetch_at(&self.lines, LINE_BYTES * line_of(hash, self.lines().len()));
    }

    /// Whether a key of this hash may be in the table; `false` is certain.
    #[inline]
    pub(crate) fn may_contain(&self, hash: u64) -> bool {
        let lines = self.lines();
        let Some(line) = lines.get(line_of(hash, lines.len())) else { return true };
        let mut hit = 1;
        for_each_position(hash, self.probes, |p| hit &= line[p / 8] >> (p % 8));
        hit & 1 == 1
    }
}

/// Gathers the hashes of a table's keys, then sizes the filter.
#[derive(Debug)]
pub(crate) struct FilterBuilder {
    hashes: Vec<u64>,
    bits_per_key: u32,
}

impl FilterBuilder {
    /// A builder of `bits_per_key` bits a key, 0 (no filter) to 32.
    pub(crate) fn new(bits_per_key: u32) -> Self {
        FilterBuilder { hashes: Vec::new(), bits_per_key }
    }

    /// Adds a key by its hash, once a key.
    #[inline]
    pub(crate) fn add(&mut self, hash: u64) {
        if self.bits_per_key > 0 {
            self.hashes.push(hash);
        }
    }

    /// About how many bytes the filter will have.
    #[inline]
    pub(crate) fn estimated_bytes(&self) -> usize {
        self.hashes.len() * self.bits_per_key as usize / 8
    }

    /// Appends the filter's lines to `out` and answers how many probes it has; 0 and nothing if there is no filter.
    pub(crate) fn finish(&self, out: &mut Vec<u8>) -> u32 {
        if self.hashes.is_empty() {
            return 0;
        }
        let count = (self.hashes.len() * self.bits_per_key as usize).div_ceil(LINE_BITS).max(1);
        let probes = probes_for(self.bits_per_key);
        let start = out.len();
        out.resize(start + count * LINE_BYTES, 0);
        let lines: &mut [[u8; LINE_BYTES]] = out[start..].as_chunks_mut().0;
        for &hash in &self.hashes {
            let line = &mut lines[line_of(hash, count)];
            for_each_position(hash, probes, |p| line[p / 8] |= 1 << (p % 8));
        }
        probes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::hash_key;

    fn hashes(range: std::ops::Range<u64>) -> impl Iterator<Item = u64> {
        range.map(|i| hash_key(&i.to_be_bytes()))
    }

    fn filter_of(keys: u64, bits: u32) -> Filter {
        let mut builder = FilterBuilder::new(bits);
        hashes(0..keys).for_each(|hash| builder.add(hash));
        let mut out = Vec::new();
        let probes = builder.finish(&mut out);
        Filter::new(out.into(), probes).unwrap()
    }

    #[test]
    fn no_key_is_ever_denied_and_few_others_are_let_through() {
        for (bits, most_per_mille) in [(1, 700), (4, 200), (8, 40), (10, 20), (16, 5), (32, 2)] {
            for keys in [1, 7, 100, 20_000] {
                let filter = filter_of(keys, bits);
                assert!(hashes(0..keys).all(|hash| filter.may_contain(hash)), "{bits} bits, {keys} keys");
            }
            let filter = filter_of(20_000, bits);
            let passed = hashes(1_000_000..1_020_000).filter(|&hash| filter.may_contain(hash)).count();
            assert!(passed <= 20 * most_per_mille, "{bits} bits: {passed} of 20000");
        }
    }

    #[test]
    fn a_filter_that_cannot_be_is_refused() {
        assert!(Filter::new(Bytes::from(vec![0; 64]), 1).is_some());
        assert!(Filter::new(Bytes::new(), 1).is_none());
        assert!(Filter::new(Bytes::from(vec![0; 63]), 1).is_none());
        assert!(Filter::new(Bytes::from(vec![0; 64]), 0).is_none());
        assert!(Filter::new(Bytes::from(vec![0; 64]), MAX_PROBES + 1).is_none());
        let mut out = Vec::new();
        assert_eq!((FilterBuilder::new(0).finish(&mut out), out.len()), (0, 0));
    }
}
