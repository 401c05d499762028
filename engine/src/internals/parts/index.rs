//! Indexes of tables.

use bytes::Bytes;

use super::damaged;
use crate::key::{Trailer, ValueKind, prefix_u64};
use crate::table::format::Handle;
use crate::table::index;
use crate::{MAX_SEQNO, Result};

/// Builds an index of data blocks that lie one after the other.
#[derive(Debug, Default)]
pub struct IndexBuilder {
    index: index::IndexBuilder,
    data_bytes: u64,
}

impl IndexBuilder {
    /// Adds the next data block, of `stored_bytes`, which ends with the key `last`; `next` is the next block's first
    /// key, `None` for the last block.
    pub fn add(&mut self, last: &[u8], next: Option<&[u8]>, stored_bytes: u32) {
        let handle = Handle { offset: self.data_bytes, stored_bytes };
        self.index.add((last, Trailer::new(0, ValueKind::Put)), next, handle);
        self.data_bytes += u64::from(stored_bytes);
    }

    /// The index.
    ///
    /// # Errors
    /// `Corruption` for blocks that did not ascend.
    pub fn finish(mut self) -> Result<Index> {
        let mut payload = Vec::new();
        self.index.finish(&mut payload);
        index::Index::new(Bytes::from(payload), self.data_bytes).map(Index).map_err(damaged)
    }
}

/// An index in memory.
#[derive(Debug)]
pub struct Index(index::Index);

impl Index {
    /// The data block that holds the first entry at or after `key`, from 0; as many as there are blocks if there is
    /// none.
    #[inline]
    pub fn lower_bound(&self, key: &[u8]) -> usize {
        self.0.lower_bound(key, prefix_u64(key), MAX_SEQNO)
    }

    /// Where data block `ordinal` lies: offset and length in bytes.
    ///
    /// # Errors
    /// `Corruption` if there is no such block.
    #[inline]
    pub fn block(&self, ordinal: usize) -> Result<(u64, u32)> {
        self.0.handle(ordinal).map(|handle| (handle.offset, handle.stored_bytes)).map_err(damaged)
    }
}
