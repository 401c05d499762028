//! The block cache: decoded blocks of compressed tables and of tables that are not mapped.

use std::hash::{BuildHasher, Hasher};

use bytes::Bytes;
use quick_cache::Weighter;
use quick_cache::sync::Cache;

use crate::error::Result;
use crate::table::block::Block;

/// What a cached block costs beside its bytes: the parsed view, alignment and trailer of its buffer, and the cache's
/// own entry.
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

    /// How many blocks are cached.
    #[cfg(test)]
    pub(crate) fn blocks(&self) -> usize {
        self.blocks.len()
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::error::Error;
    use crate::key::{Trailer, ValueKind};
    use crate::table::block::BlockBuilder;

    fn block(value_bytes: usize) -> Block<Bytes> {
        let mut builder = BlockBuilder::default();
        builder.add(b"key", None, Trailer::new(1, ValueKind::Put), &vec![0; value_bytes]);
        let mut out = Vec::new();
        builder.finish(&mut out);
        Block::parse(out.into()).unwrap()
    }

    #[test]
    fn a_block_is_loaded_once_and_a_failure_is_not_kept() {
        let cache = BlockCache::new(1 << 20);
        let key = BlockKey { table: 1, ordinal: 2 };
        let failed = cache.get_or_load(key, || Err(Error::corruption(Path::new("x"), 0, "no")));
        assert!(failed.is_err() && cache.blocks() == 0);
        cache.get_or_load(key, || Ok(block(100))).unwrap();
        let again = cache.get_or_load(key, || panic!("loaded twice")).unwrap();
        assert_eq!(again.value(0), [0; 100]);
        cache.remove_table(1, 3);
        assert_eq!((cache.blocks(), cache.memory_bytes()), (0, 0));
    }

    #[test]
    fn memory_stays_within_the_capacity() {
        let cache = BlockCache::new(256 << 10);
        for ordinal in 0..1000 {
            cache.get_or_load(BlockKey { table: 1, ordinal }, || Ok(block(4000))).unwrap();
        }
        cache.get_or_load(BlockKey { table: 2, ordinal: 0 }, || Ok(block(1 << 20))).unwrap();
        assert!(cache.blocks() > 10);
        assert!(cache.memory_bytes() <= 256 << 10, "{} bytes", cache.memory_bytes());
    }
}
