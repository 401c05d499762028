//! Stepping through a block.

use std::ops::ControlFlow;

use bytes::Bytes;

use super::{Block, FIXED_RESTS, HAS_SHORTS, Reason};
use crate::cursor::Stretch;
use crate::key::{Trailer, prefix_u64};
use crate::prefetch::{LINE_BYTES, prefetch_at};

/// How many lines of values are worth asking for: what follows the processor fetches by itself.
const VALUE_LINES: usize = 4;

/// How many entries ahead a reader that goes backward asks for values.
const BACKWARD_ENTRIES: usize = 3;

/// The bytes of a prefix.
const WORD_BYTES: usize = size_of::<u64>();

/// Room for a key of usual length: growing once costs less than growing suffix by suffix.
const KEY_BYTES: usize = 64;

/// Stands on one entry of a held block. It owns the key's memory, so going to another block allocates nothing.
#[derive(Debug, Default)]
pub(crate) struct BlockCursor {
    block: Block<Bytes>,
    position: usize,
    /// Begins with the block's shared prefix.
    key: Vec<u8>,
    key_prefix: u64,
    /// The shared prefix's part of `key_prefix`, and how far a suffix's prefix is shifted to complete it.
    shared_prefix: u64,
    /// Of the block, if its keys are such; `key` then has their length.
    uniform: Option<Uniform>,
}

/// The keys of a block that all have one length, with rests of at most eight bytes: then a key changes in place, and its
/// last eight bytes are one word, of which the rest is the end and the prefix what comes before it.
#[derive(Debug)]
struct Uniform {
    rests_at: usize,
    rest_bytes: usize,
    /// Which bits of that word are the rest.
    rest_mask: u64,
    /// Where in the key the prefix begins, and where the word.
    prefix_at: usize,
    word_at: usize,
}

impl Uniform {
    fn of(block: &Block<Bytes>) -> Option<Self> {
        let rest_bytes = block.rest_bytes as usize;
        if block.flags & (FIXED_RESTS | HAS_SHORTS) != FIXED_RESTS || rest_bytes > WORD_BYTES {
            return None;
        }
        let (prefix_at, rests_at) = (block.shared_bytes.into(), block.rests_at as usize);
        let rest_mask = !u64::MAX.unbounded_shl(8 * rest_bytes as u32);
        Some(Uniform { rests_at, rest_bytes, rest_mask, prefix_at, word_at: prefix_at + rest_bytes })
    }

    /// How long the keys are.
    fn key_bytes(&self) -> usize {
        self.word_at + WORD_BYTES
    }

    /// Writes the suffix of entry `i` into `key`, whose length is that of every key of the block.
    #[inline]
    fn write_suffix(&self, bytes: &[u8], i: usize, prefix: u64, key: &mut [u8]) {
        let rest_ends_at = self.rests_at + (i + 1) * self.rest_bytes;
        // The header comes before the rests, so that there always is a word that ends with one.
        let word = word_at(bytes, rest_ends_at.wrapping_sub(WORD_BYTES)).copied().map_or(0, u64::from_be_bytes);
        let begin = prefix.unbounded_shl(8 * self.rest_bytes as u32);
        if let Some(last) = key.get_mut(self.word_at..).and_then(<[u8]>::first_chunk_mut) {
            *last = (begin | word & self.rest_mask).to_be_bytes();
        }
        if let Some(first) = key.get_mut(self.prefix_at..).and_then(<[u8]>::first_chunk_mut) {
            *first = prefix.to_be_bytes();
        }
    }
}

#[inline]
fn word_at(bytes: &[u8], at: usize) -> Option<&[u8; WORD_BYTES]> {
    bytes.get(at..).and_then(<[u8]>::first_chunk)
}

impl BlockCursor {
    /// Goes over to `block`, which was checked. The cursor stands nowhere until [`move_to`](BlockCursor::move_to).
    pub(crate) fn set_block(&mut self, block: Block<Bytes>) {
        self.key.clear();
        self.key.reserve(KEY_BYTES);
        self.key.extend_from_slice(block.shared());
        self.shared_prefix = prefix_u64(&self.key);
        self.uniform = Uniform::of(&block);
        if let Some(uniform) = &self.uniform {
            self.key.resize(uniform.key_bytes(), 0);
        }
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
    /// The block has no such entry.
    #[inline]
    pub(crate) fn move_to(&mut self, i: usize) -> Result<(), Reason> {
        let Some(&prefix) = self.block.prefixes().get(i) else { return Err("no such entry in the block") };
        self.place(i, u64::from_le_bytes(prefix));
        Ok(())
    }

    /// Stands on entry `i`, whose prefix in the column is `prefix`. What is not part of the key is found when it is asked
    /// for: a merge steps over entries that nobody sees.
    #[inline(always)]
    fn place(&mut self, i: usize, prefix: u64) {
        match &self.uniform {
            Some(uniform) => uniform.write_suffix(&self.block.bytes, i, prefix, &mut self.key),
            None => self.rebuild_key(i),
        }
        self.key_prefix = self.full_prefix(prefix);
        self.position = i;
    }

    /// Makes `key` that of entry `i`.
    #[inline(never)]
    fn rebuild_key(&mut self, i: usize) {
        self.key.truncate(self.block.shared_bytes.into());
        self.block.push_suffix(i, &mut self.key);
    }

    /// Starts loading the entry's value, and the values behind it, or, `backward`, before it.
    #[inline]
    pub(crate) fn prefetch_values(&self, backward: bool) {
        if backward {
            let first = self.position.saturating_sub(BACKWARD_ENTRIES - 1);
            (first..=self.position).for_each(|i| self.prefetch_value(i));
        } else {
            self.prefetch_lines(self.block.value_range(self.position).start, VALUE_LINES);
        }
    }

    /// Starts loading the beginning of entry `i`'s value.
    #[inline]
    fn prefetch_value(&self, i: usize) {
        let value = self.block.value_range(i);
        self.prefetch_lines(value.start, value.len().div_ceil(LINE_BYTES).min(VALUE_LINES));
    }

    #[inline]
    fn prefetch_lines(&self, start: usize, lines: usize) {
        (0..lines).for_each(|line| prefetch_at(&self.block.bytes, start.saturating_add(line * LINE_BYTES)));
    }

    /// See [`Cursor::next_key`](crate::cursor::Cursor::next_key). Only while standing on an entry.
    #[inline]
    pub(crate) fn next_key(&mut self) -> Option<u64> {
        let [here, there] = *self.block.prefixes().get(self.position..)?.first_chunk()?;
        let there = u64::from_le_bytes(there);
        // Of equal prefixes the keys may be equal too.
        (there > u64::from_le_bytes(here)).then(|| {
            self.place(self.position + 1, there);
            self.key_prefix
        })
    }

    /// Starts loading a value that some steps backward lead to: the processor is slow to see that memory is read from the
    /// end, and does not see at all that it is read in pieces that are each read from the beginning.
    #[inline]
    pub(crate) fn prefetch_backward(&self) {
        if let Some(there) = self.position.checked_sub(BACKWARD_ENTRIES) {
            self.prefetch_value(there);
        }
    }

    /// See [`Cursor::is_newest`](crate::cursor::Cursor::is_newest). Only while standing on an entry.
    #[inline]
    pub(crate) fn is_newest(&self) -> bool {
        let prefixes = self.block.prefixes();
        let before = self.position.checked_sub(1).and_then(|before| prefixes.get(before..));
        let Some(&[before, here]) = before.and_then(<[_]>::first_chunk) else { return false };
        u64::from_le_bytes(before) < u64::from_le_bytes(here)
    }

    /// See [`Cursor::visit`](crate::cursor::Cursor::visit). Only while standing on an entry.
    #[inline]
    pub(crate) fn visit<B>(
        &mut self,
        stretch: Stretch,
        with: &mut impl FnMut(&[u8], &[u8]) -> ControlFlow<B>,
    ) -> ControlFlow<B> {
        if stretch.backward { self.visit_backward(stretch, with) } else { self.visit_forward(stretch, with) }
    }

    fn visit_forward<B>(
        &mut self,
        stretch: Stretch,
        with: &mut impl FnMut(&[u8], &[u8]) -> ControlFlow<B>,
    ) -> ControlFlow<B> {
        let all_are_shown = self.block.is_all_put_by(stretch.snapshot);
        while let Some(&[here, there]) = self.block.prefixes().get(self.position..).and_then(<[_]>::first_chunk) {
            let (next, there) = (self.position + 1, u64::from_le_bytes(there));
            let is_shown = all_are_shown || self.block.trailer(next).is_put_by(stretch.snapshot);
            if there <= u64::from_le_bytes(here) || self.full_prefix(there) > stretch.limit || !is_shown {
                break;
            }
            self.place(next, there);
            with(&self.key, self.block.value(next))?;
        }
        ControlFlow::Continue(())
    }

    fn visit_backward<B>(
        &mut self,
        stretch: Stretch,
        with: &mut impl FnMut(&[u8], &[u8]) -> ControlFlow<B>,
    ) -> ControlFlow<B> {
        let all_are_shown = self.block.is_all_put_by(stretch.snapshot);
        while let Some(first) = self.position.checked_sub(2)
            && let Some(looked_at) = self.block.prefixes().get(first..).and_then(<[_]>::first_chunk)
        {
            let [before, there, here] = looked_at.map(u64::from_le_bytes);
            let next = first + 1;
            let is_shown = all_are_shown || self.block.trailer(next).is_put_by(stretch.snapshot);
            if before >= there || there >= here || self.full_prefix(there) < stretch.limit || !is_shown {
                break;
            }
            self.prefetch_backward();
            self.place(next, there);
            with(&self.key, self.block.value(next))?;
        }
        ControlFlow::Continue(())
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
        self.block.trailer(self.position)
    }

    /// The entry's value.
    #[inline]
    pub(crate) fn value(&self) -> &[u8] {
        self.block.value(self.position)
    }
}
