//! Stepping through a table.

use std::ops::{ControlFlow, Range};
use std::sync::Arc;

use bytes::Bytes;

use super::block::{BlockCursor, Reason};
use super::readahead::ReadAhead;
use super::reader::Table;
use crate::cursor::{Aim, Cursor, Stretch};
use crate::error::Result;
use crate::key::{MAX_SEQNO, SeqNo, Trailer, prefix_u64};

/// Says that no block is loaded.
const NO_BLOCK: usize = usize::MAX;

/// How far a cursor found its way to a key.
#[derive(Debug, Default)]
enum Aimed {
    #[default]
    Nowhere,
    /// The part of the index.
    Part(Range<usize>),
    /// The block.
    Block(usize),
}

/// A cursor over a table. It holds one block at a time.
#[derive(Debug)]
pub(crate) struct TableCursor {
    table: Arc<Table>,
    /// Which block `entry` is in.
    ordinal: usize,
    entry: BlockCursor,
    valid: bool,
    /// What is known of the key that was aimed at, until it is sought.
    aimed: Aimed,
    /// Whether blocks that have to be read or decoded go into the block cache.
    fill_cache: bool,
    ahead: ReadAhead,
}

impl TableCursor {
    /// A cursor that stands nowhere.
    pub(crate) fn new(table: Arc<Table>) -> Self {
        TableCursor {
            table,
            ordinal: NO_BLOCK,
            entry: BlockCursor::default(),
            valid: false,
            aimed: Aimed::Nowhere,
            fill_cache: true,
            ahead: ReadAhead::new(),
        }
    }

    /// A cursor for one pass over tables that will not be read again: it leaves the block cache to those who come back.
    pub(crate) fn for_compaction(table: Arc<Table>) -> Self {
        TableCursor { fill_cache: false, ahead: ReadAhead::whole_pass(), ..TableCursor::new(table) }
    }

    /// The block that the key belongs into, if it was not found before.
    #[inline]
    fn find_block(&mut self, key: &[u8], prefix: u64, seqno: SeqNo) -> usize {
        let index = self.table.index();
        let found = match std::mem::take(&mut self.aimed) {
            Aimed::Nowhere => index.lower_bound(key, prefix, seqno),
            Aimed::Part(part) => index.lower_bound_in(key, prefix, seqno, &part),
            Aimed::Block(ordinal) => ordinal,
        };
        debug_assert_eq!(found, index.lower_bound(key, prefix, seqno), "aimed at another key");
        found
    }

    fn load(&mut self, ordinal: usize) -> Result<()> {
        if self.ordinal != ordinal {
            self.valid = false;
            self.ordinal = NO_BLOCK;
            let block =
                if self.fill_cache { self.table.block(ordinal)? } else { self.table.block_uncached(ordinal)? };
            self.entry.set_block(block);
            self.ordinal = ordinal;
        }
        Ok(())
    }

    /// Loads the block next to the last one.
    fn load_next(&mut self, ordinal: usize, backward: bool) -> Result<()> {
        self.table.read_ahead(&mut self.ahead, ordinal, backward)?;
        self.load(ordinal)
    }

    /// Loads a block somewhere.
    fn load_anywhere(&mut self, ordinal: usize) -> Result<()> {
        self.ahead.restart();
        self.table.will_read_block(ordinal)?;
        self.load(ordinal)
    }

    /// Stands on entry `i` of the loaded block.
    #[inline]
    fn stand(&mut self, i: usize) -> Result<()> {
        match self.entry.move_to(i) {
            Ok(()) => {
                self.valid = true;
                Ok(())
            }
            Err(reason) => self.fail(reason),
        }
    }

    /// Stands on entry `i` of a block that was just entered: its value is not far from being read, and nothing has
    /// fetched it yet.
    #[inline]
    fn land(&mut self, i: usize, backward: bool) -> Result<()> {
        self.stand(i)?;
        self.entry.prefetch_values(backward);
        Ok(())
    }

    #[cold]
    fn fail(&mut self, reason: Reason) -> Result<()> {
        self.valid = false;
        Err(self.table.damaged(self.table.handle(self.ordinal)?, reason))
    }

    /// Stands on the first entry of block `ordinal`, or behind the last block.
    #[cold]
    fn first_of(&mut self, ordinal: usize) -> Result<()> {
        if ordinal >= self.table.index().len() {
            self.valid = false;
            return Ok(());
        }
        self.load_next(ordinal, false)?;
        self.table.prefetch_block(ordinal + 1);
        self.stand(0)
    }

    /// Stands on the last entry of the block before `ordinal`, or before the first block.
    #[cold]
    fn last_before(&mut self, ordinal: usize) -> Result<()> {
        let Some(ordinal) = ordinal.checked_sub(1) else {
            self.valid = false;
            return Ok(());
        };
        self.load_next(ordinal, true)?;
        self.table.prefetch_block(ordinal.wrapping_sub(1));
        match self.entry.block().len().checked_sub(1) {
            Some(last) => self.land(last, true),
            None => self.fail("a data block without entries"),
        }
    }
}

impl Cursor for TableCursor {
    #[inline]
    fn valid(&self) -> bool {
        self.valid
    }

    #[inline]
    fn key(&self) -> &[u8] {
        self.entry.key()
    }

    #[inline]
    fn key_prefix(&self) -> u64 {
        self.entry.key_prefix()
    }

    #[inline]
    fn trailer(&self) -> Trailer {
        self.entry.trailer()
    }

    #[inline]
    fn value(&self) -> &[u8] {
        self.entry.value()
    }

    #[inline]
    fn value_owner(&self) -> Option<&Bytes> {
        Some(self.entry.block().bytes())
    }

    fn seek_to_first(&mut self) -> Result<()> {
        self.first_of(0)
    }

    fn seek_to_last(&mut self) -> Result<()> {
        self.last_before(self.table.index().len())
    }

    fn aim(&mut self, at: Aim, key: &[u8], seqno: SeqNo, _backward: bool) -> Result<()> {
        self.valid = false;
        let prefix = prefix_u64(key);
        self.aimed = match at {
            Aim::Index => Aimed::Part(self.table.prefetch_index(key, prefix)),
            Aim::Block => {
                let ordinal = self.find_block(key, prefix, seqno);
                self.table.prefetch_block(ordinal);
                Aimed::Block(ordinal)
            }
        };
        Ok(())
    }

    fn seek(&mut self, key: &[u8], seqno: SeqNo) -> Result<()> {
        self.valid = false;
        let prefix = prefix_u64(key);
        let ordinal = self.find_block(key, prefix, seqno);
        if ordinal == self.table.index().len() {
            return Ok(());
        }
        self.load_anywhere(ordinal)?;
        let i = self.entry.block().lower_bound(key, prefix, seqno);
        // A key between a block's last and its separator belongs before the next block.
        if i == self.entry.block().len() { self.first_of(ordinal + 1) } else { self.land(i, false) }
    }

    fn seek_before(&mut self, key: &[u8]) -> Result<()> {
        self.valid = false;
        let prefix = prefix_u64(key);
        let ordinal = self.find_block(key, prefix, MAX_SEQNO);
        if ordinal == self.table.index().len() {
            return self.last_before(ordinal);
        }
        self.load_anywhere(ordinal)?;
        match self.entry.block().lower_bound(key, prefix, MAX_SEQNO).checked_sub(1) {
            Some(i) => self.land(i, true),
            None => self.last_before(ordinal),
        }
    }

    #[inline]
    fn next(&mut self) -> Result<()> {
        debug_assert!(self.valid);
        let i = self.entry.position() + 1;
        if i < self.entry.block().len() { self.stand(i) } else { self.first_of(self.ordinal.saturating_add(1)) }
    }

    #[inline]
    fn next_key(&mut self) -> Option<u64> {
        self.entry.next_key()
    }

    #[inline]
    fn is_newest(&self) -> bool {
        match self.entry.position() {
            0 => self.table.index().begins_key(self.ordinal),
            _ => self.entry.is_newest(),
        }
    }

    #[inline]
    fn prev(&mut self) -> Result<()> {
        debug_assert!(self.valid);
        match self.entry.position().checked_sub(1) {
            Some(i) => {
                self.entry.prefetch_backward();
                self.stand(i)
            }
            None => self.last_before(self.ordinal),
        }
    }

    #[inline]
    fn visit<B>(&mut self, stretch: Stretch, with: &mut impl FnMut(&[u8], &[u8]) -> ControlFlow<B>) -> ControlFlow<B> {
        self.entry.visit(stretch, with)
    }
}
