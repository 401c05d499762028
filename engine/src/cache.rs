//! The block cache: decoded blocks of compressed tables and of tables that are not mapped.

use std::hash::{BuildHasher, Hasher};

use bytes::Bytes;
use quick_cache::Weighter;
use quick_cache::sync::Cache;

use crate::error::Result;
use crate::table::block::Block;

/// What a cached block costs beside its bytes: the parsed view, alignment and trailer of its buffer, and the cache's own entry.
const ENTRY_BYTES: u64 = 320;

/// A data block of a table; table numbers are never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct BlockKey {
    pub(crate) table: u64,
    pub(crate) ordinal: u32,
}

#[derive(Clone, Debug)]
struct BlockWeighter;

impl Weighter<BlockKey, Block<Bytes>> for BlockWeighter {
    fn weight(&self, _key: &BlockKey, block: &Block<Bytes>) -> u64 {
        block.bytes().len() as u64 + ENTRY_BYTES
    }
}

/// Keys are two numbers that nobody outside chooses: a multiplicative mix is enough.
#[derive(Clone, Debug, Default)]
struct MixHash(u64);

impl BuildHasher for MixHash {
    type Hasher = MixHash;
    fn build_hasher(&self) -> MixHash {
        MixHash(0)
    }
}

impl Hasher for MixHash {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|&byte| self.write_u64(byte.into()));
    }
    fn write_u32(&mut self, n: u32) {
        self.write_u64(n.into());
    }
    fn write_u64(&mut self, n: u64) {
        let mixed = (self.0 ^ n).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.0 = mixed ^ mixed >> 32;
    }
}

/// Verified, decoded and parsed blocks, at most a set number of bytes of them, shared by all tables of a database.
#[derive(Debug)]
pub(crate) struct BlockCache {
    blocks: Cache<BlockKey, Block<Bytes>, BlockWeighter, MixHash>,
}

impl BlockCache {
    /// A cache of at most `capacity_bytes`, entries included.
    pub(crate) fn new(capacity_bytes: usize) -> Self {
        let lifecycle = quick_cache::sync::DefaultLifecycle::default();
        let items = (capacity_bytes / 4096).max(64);
        BlockCache { blocks: Cache::with(items, capacity_bytes as u64, BlockWeighter, MixHash::default(), lifecycle) }
    }

    /// The block, from the cache or else from `load`; several threads that miss the same block load it once.
    ///
    /// # Errors
    /// What `load` fails with; nothing is cached then.
    #[inline]
    pub(crate) fn get_or_load(
        &self,
        key: BlockKey,
        load: impl FnOnce() -> Result<Block<Bytes>>,
    ) -> Result<Block<Bytes>> {
        self.blocks.get_or_insert_with(&key, load)
    }

    /// Gives back the memory of a table that is gone: its blocks 0 to `blocks`.
    pub(crate) fn remove_table(&self, table: u64, blocks: u32) {
        for ordinal in 0..blocks {
            self.blocks.remove(&BlockKey { table, ordinal });
        }
    }

    /// How many bytes are cached.
    pub(crate) fn memory_bytes(&self) -> u64 {
        self.blocks.weight()
    }

    /// How many bytes may be cached.
    pub(crate) fn capacity_bytes(&self) -> u64 {
        self.blocks.capacity()
    }

    /// How many blocks are cached.
    pub(crate) fn blocks(&self) -> usize {
        self.blocks.len()
    }
}
