//! [`Bits`]: what is known of each data block of an open table.

use std::sync::atomic::{AtomicU64, Ordering};

/// A bit for each data block, clear at first, which any thread may set.
#[derive(Debug)]
pub(super) struct Bits(Box<[AtomicU64]>);

// All of Relaxed: a bit is no more than the memory of a look at bytes that never change; whoever sees it late looks
// again.
impl Bits {
    /// For `count` blocks.
    pub(super) fn new(count: usize) -> Self {
        Bits((0..count.div_ceil(64)).map(|_| AtomicU64::new(0)).collect())
    }

    /// The heap they take, in bytes.
    pub(super) fn bytes(&self) -> usize {
        size_of_val(&self.0[..])
    }

    /// Whether the bit of block `ordinal` is set; not if there is no such block.
    #[inline]
    pub(super) fn get(&self, ordinal: usize) -> bool {
        self.0.get(ordinal / 64).is_some_and(|word| word.load(Ordering::Relaxed) >> (ordinal % 64) & 1 == 1)
    }

    /// Sets the bit of block `ordinal`, if there is one.
    pub(super) fn set(&self, ordinal: usize) {
        if let Some(word) = self.0.get(ordinal / 64) {
            word.fetch_or(1 << (ordinal % 64), Ordering::Relaxed);
        }
    }
}
