//! Data blocks.

use bytes::Bytes;

use super::damaged;
use crate::key::{Lookup, Trailer, ValueKind, hash_key};
use crate::table::block;
use crate::{MAX_SEQNO, Result};

/// Builds data blocks, one after the other.
#[derive(Debug, Default)]
pub struct BlockBuilder(block::BlockBuilder);

impl BlockBuilder {
    /// Adds an entry; keys ascend, each comes once.
    #[inline]
    pub fn add(&mut self, key: &[u8], value: &[u8]) {
        let seqno = self.0.len() as u64;
        self.0.add(key, Some(hash_key(key)), Trailer::new(seqno, ValueKind::Put), value);
    }

    /// About how many bytes the block would have.
    #[inline]
    pub fn estimated_bytes(&self) -> usize {
        self.0.estimated_bytes()
    }

    /// Appends the block's payload to `out` and begins the next one.
    pub fn finish(&mut self, out: &mut Vec<u8>) {
        self.0.finish(out);
    }
}

/// A block that is read where it lies, as a mapped one is.
#[derive(Clone, Copy, Debug)]
pub struct Block<'p>(block::Block<&'p [u8]>, &'p [u8]);

impl<'p> Block<'p> {
    /// Parses a payload: a few additions, done anew for every get from a mapped table.
    ///
    /// # Errors
    /// `Corruption`.
    #[inline]
    pub fn parse(payload: &'p [u8]) -> Result<Self> {
        block::Block::parse(payload).map(|block| Block(block, payload)).map_err(damaged)
    }

    /// The value of `key`, which is hashed for it.
    #[inline]
    pub fn get(&self, key: &[u8]) -> Option<&'p [u8]> {
        let at = self.0.find(&Lookup::new(key, MAX_SEQNO))?;
        self.1.get(self.0.value_range(at))
    }

    /// How many entries there are.
    pub fn entries(&self) -> usize {
        self.0.len()
    }

    /// The position of the first entry at or after `key`, by search; as many as there are entries if there is none.
    #[inline]
    pub fn lower_bound(&self, key: &[u8]) -> usize {
        let lookup = Lookup::new(key, MAX_SEQNO);
        self.0.lower_bound(key, lookup.prefix, MAX_SEQNO)
    }
}

/// Walks through a block.
#[derive(Debug, Default)]
pub struct BlockCursor(block::BlockCursor);

impl BlockCursor {
    /// A cursor over the block in `payload`, before the first [`move_to`](BlockCursor::move_to).
    ///
    /// # Errors
    /// `Corruption`.
    pub fn new(payload: Vec<u8>) -> Result<Self> {
        let mut cursor = block::BlockCursor::default();
        cursor.set_block(block::Block::parse(Bytes::from(payload)).map_err(damaged)?);
        Ok(BlockCursor(cursor))
    }

    /// Moves to entry `at`, from 0.
    ///
    /// # Errors
    /// `Corruption` if there is no such entry.
    #[inline]
    pub fn move_to(&mut self, at: usize) -> Result<()> {
        self.0.move_to(at).map_err(damaged)
    }

    /// The entry's key; empty before the first move.
    #[inline]
    pub fn key(&self) -> &[u8] {
        self.0.key()
    }

    /// The entry's value; empty before the first move.
    #[inline]
    pub fn value(&self) -> &[u8] {
        self.0.value()
    }
}
