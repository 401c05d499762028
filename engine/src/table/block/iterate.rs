//! Stepping through a block.

use std::ops::Range;

use bytes::Bytes;

use super::{Block, HAS_SHORTS, Reason};
use crate::key::{Trailer, prefix_u64};
use crate::prefetch::{LINE_BYTES, prefetch_at};

/// How many lines of values are worth asking for: what follows the processor fetches by itself.
const VALUE_LINES: usize = 4;

/// Room for a key of usual length: growing once costs less than growing suffix by suffix.
const KEY_BYTES: usize = 64;

/// Stands on one entry of a held block. It owns the key's memory, so going to another block allocates nothing.
#[derive(Debug)]
pub(crate) struct BlockCursor {
    block: Block<Bytes>,
    position: usize,
    /// Begins with the block's shared prefix.
    key: Vec<u8>,
    key_prefix: u64,
    /// The shared prefix's part of `key_prefix`, and how far a suffix's prefix is shifted to complete it.
    shared_prefix: u64,
    trailer: Trailer,
    value: Range<usize>,
}

impl Default for BlockCursor {
    fn default() -> Self {
        BlockCursor {
            block: Block::default(),
            position: 0,
            key: Vec::new(),
            key_prefix: 0,
            shared_prefix: 0,
            trailer: Trailer(0),
            value: 0..0,
        }
    }
}

/// Copies between slices of one length; eight bytes, what keys of sixteen end with, without a call.
#[inline]
fn copy(from: &[u8], to: &mut [u8]) {
    match (from.as_array::<8>(), to.as_mut_array::<8>()) {
        (Some(from), Some(to)) => *to = *from,
        _ => to.copy_from_slice(from),
    }
}

impl BlockCursor {
    /// Goes over to `block`, which was checked. The cursor stands nowhere until [`move_to`](BlockCursor::move_to).
    pub(crate) fn set_block(&mut self, block: Block<Bytes>) {
        self.key.clear();
        self.key.reserve(KEY_BYTES);
        self.key.extend_from_slice(block.shared());
        self.shared_prefix = prefix_u64(&self.key);
        self.block = block;
        self.position = 0;
    }

    /// The block the cursor is in.
    #[inline]
    pub(crate) fn block(&self) -> &Block<Bytes> {
        &self.block
    }

    /// The entry's position in the block.
    #[inline]
    pub(crate) fn position(&self) -> usize {
        self.position
    }

    /// Stands on entry `i`.
    ///
    /// # Errors
    /// The block has no such entry, or its value is not in it.
    #[inline]
    pub(crate) fn move_to(&mut self, i: usize) -> Result<(), Reason> {
        let Some(&prefix) = self.block.prefixes().get(i) else { return Err("no such entry in the block") };
        self.place(i, u64::from_le_bytes(prefix))
    }

    /// Stands on entry `i`, whose prefix in the column is `prefix`.
    #[inline]
    fn place(&mut self, i: usize, prefix: u64) -> Result<(), Reason> {
        let block = &self.block;
        let value = block.value_range(i);
        if value.start > value.end || value.end > block.bytes.len() {
            return Err("a value outside its block");
        }
        let rest = block.rest(i);
        let suffix = prefix.to_be_bytes();
        // Keys of one length are the rule: then the key changes in place and its length does not.
        let in_place = self.key.get_mut(block.shared_bytes.into()..).and_then(<[u8]>::split_first_chunk_mut);
        match in_place {
            Some((first, last)) if block.flags & HAS_SHORTS == 0 && last.len() == rest.len() => {
                *first = suffix;
                copy(rest, last);
            }
            _ => {
                self.key.truncate(block.shared_bytes.into());
                self.key.extend_from_slice(&suffix[..block.short(i)]);
                self.key.extend_from_slice(rest);
            }
        }
        self.key_prefix = self.full_prefix(prefix);
        self.trailer = block.trailer(i);
        self.value = value;
        self.position = i;
        Ok(())
    }

    /// Starts loading the entry's value, and the values behind it, or, `backward`, before it.
    #[inline]
    pub(crate) fn prefetch_values(&self, backward: bool) {
        for line in 0..VALUE_LINES {
            let away = line * LINE_BYTES;
            let at = if backward { self.value.end.checked_sub(1 + away) } else { self.value.start.checked_add(away) };
            at.into_iter().for_each(|at| prefetch_at(&self.block.bytes, at));
        }
    }

    /// See [`Cursor::next_within`](crate::cursor::Cursor::next_within). Only while standing on an entry.
    #[inline]
    pub(crate) fn next_within(&mut self, limit: Option<u64>) -> bool {
        let next = self.position + 1;
        let Some(&[here, there]) = self.block.prefixes().get(self.position..).and_then(<[_]>::first_chunk) else {
            return false;
        };
        let there = u64::from_le_bytes(there);
        // Of equal prefixes the keys may be equal too.
        there > u64::from_le_bytes(here)
            && limit.is_none_or(|limit| self.full_prefix(there) < limit)
            && self.place(next, there).is_ok()
    }

    /// Starts loading a value that some steps backward lead to: the processor is slow to see that memory is read from the
    /// end.
    #[inline]
    pub(crate) fn prefetch_backward(&self) {
        let at = self.value.start.checked_sub(VALUE_LINES * LINE_BYTES);
        at.into_iter().for_each(|at| prefetch_at(&self.block.bytes, at));
    }

    /// See [`Cursor::prev_within`](crate::cursor::Cursor::prev_within). Only while standing on an entry.
    #[inline]
    pub(crate) fn prev_within(&mut self, limit: Option<u64>) -> bool {
        let three = self.position.checked_sub(2).and_then(|from| self.block.prefixes().get(from..));
        let Some(&three) = three.and_then(<[_]>::first_chunk) else { return false };
        let [newer, there, here] = three.map(u64::from_le_bytes);
        newer < there
            && there < here
            && limit.is_none_or(|limit| self.full_prefix(there) > limit)
            && self.place(self.position - 1, there).is_ok()
    }

    /// See [`Cursor::is_newest`](crate::cursor::Cursor::is_newest). Only while standing on an entry.
    #[inline]
    pub(crate) fn is_newest(&self) -> bool {
        let prefixes = self.block.prefixes();
        let before = self.position.checked_sub(1).and_then(|before| prefixes.get(before..));
        let Some(&[before, here]) = before.and_then(<[_]>::first_chunk) else { return false };
        u64::from_le_bytes(before) < u64::from_le_bytes(here)
    }

    /// [`prefix_u64`] of the key whose suffix has `prefix`.
    #[inline]
    fn full_prefix(&self, prefix: u64) -> u64 {
        let shared = u32::from(self.block.shared_bytes);
        // Nothing of a suffix is left where the shared prefix takes all eight bytes.
        self.shared_prefix | prefix.checked_shr(8 * shared).unwrap_or(0)
    }

    /// The entry's key.
    #[inline]
    pub(crate) fn key(&self) -> &[u8] {
        &self.key
    }

    /// The first eight bytes of the key.
    #[inline]
    pub(crate) fn key_prefix(&self) -> u64 {
        self.key_prefix
    }

    /// The entry's sequence number and kind.
    #[inline]
    pub(crate) fn trailer(&self) -> Trailer {
        self.trailer
    }

    /// The entry's value.
    #[inline]
    pub(crate) fn value(&self) -> &[u8] {
        self.block.bytes.get(self.value.clone()).unwrap_or_default()
    }
}
