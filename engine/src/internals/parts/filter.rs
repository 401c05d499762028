//! Filters of tables.

use bytes::Bytes;

use crate::table::filter;

/// Gathers the keys of a filter.
#[derive(Debug)]
pub struct FilterBuilder(filter::FilterBuilder);

impl FilterBuilder {
    /// A builder of `bits_per_key` bits a key, 0 (no filter) to 32.
    pub fn new(bits_per_key: u32) -> Self {
        FilterBuilder(filter::FilterBuilder::new(bits_per_key))
    }

    /// Adds a key by its [`hash`](super::hash_key).
    #[inline]
    pub fn add(&mut self, hash: u64) {
        self.0.add(hash);
    }

    /// Makes the filter's lines into `out`, which is cleared before; answers the number of probes, 0 for no filter.
    pub fn build(&self, out: &mut Vec<u8>) -> u32 {
        out.clear();
        self.0.finish(out)
    }
}

/// A filter in memory.
#[derive(Clone, Debug)]
pub struct Filter(filter::Filter);

impl Filter {
    /// The filter that [`FilterBuilder::build`] made; `None` if it is none.
    pub fn new(lines: Vec<u8>, probes: u32) -> Option<Self> {
        // In a table file lines begin at multiples of a cache line: so here.
        let mut aligned = vec![0; lines.len() + filter::LINE_BYTES];
        let skip_bytes = aligned.as_ptr().align_offset(filter::LINE_BYTES).min(filter::LINE_BYTES);
        aligned[skip_bytes..skip_bytes + lines.len()].copy_from_slice(&lines);
        filter::Filter::new(Bytes::from(aligned).slice(skip_bytes..skip_bytes + lines.len()), probes).map(Filter)
    }

    /// Starts loading what [`may_contain`](Filter::may_contain) will read.
    #[inline]
    pub fn prefetch(&self, hash: u64) {
        self.0.prefetch(hash);
    }

    /// Whether a key of this hash may have been added.
    #[inline]
    pub fn may_contain(&self, hash: u64) -> bool {
        self.0.may_contain(hash)
    }
}
