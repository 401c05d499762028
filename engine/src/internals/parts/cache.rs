//! The block cache.

use bytes::Bytes;

use super::damaged;
use crate::cache::{self, BlockKey};
use crate::table::block;
use crate::{Error, Result};

/// A block cache without tables: blocks are named by two numbers.
#[derive(Debug)]
pub struct BlockCache(cache::BlockCache);

impl BlockCache {
    /// A cache of at most `capacity_bytes`.
    pub fn new(capacity_bytes: usize) -> Self {
        BlockCache(cache::BlockCache::new(capacity_bytes))
    }

    /// How many entries block `ordinal` of `table` has, if it is cached. A miss is answered by the load that fails at
    /// once: nothing is cached.
    #[inline]
    pub fn entries(&self, table: u64, ordinal: u32) -> Option<usize> {
        self.0.get_or_load(BlockKey { table, ordinal }, || Err(Error::Closed)).ok().map(|block| block.len())
    }

    /// Caches a block, its payload shared, unless it is cached.
    ///
    /// # Errors
    /// `Corruption` of the payload.
    #[inline]
    pub fn insert(&self, table: u64, ordinal: u32, payload: &Payload) -> Result<()> {
        self.0.get_or_load(BlockKey { table, ordinal }, || Ok(payload.0.clone())).map(drop)
    }

    /// Bytes cached.
    pub fn bytes(&self) -> u64 {
        self.0.memory_bytes()
    }
}

/// A block for [`BlockCache::insert`]; copies share their bytes.
#[derive(Clone, Debug)]
pub struct Payload(block::Block<Bytes>);

impl Payload {
    /// Parses a block's payload.
    ///
    /// # Errors
    /// `Corruption`.
    pub fn parse(payload: Vec<u8>) -> Result<Self> {
        block::Block::parse(Bytes::from(payload)).map(Payload).map_err(damaged)
    }
}
