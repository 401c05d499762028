//! The one iterator trait inside the engine.

use std::ops::ControlFlow;

use bytes::Bytes;

use crate::error::Result;
use crate::key::{SeqNo, Trailer};

/// What [`Cursor::aim`] requests from memory: the second is found by the first, and leads to the entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Aim {
    /// The part of a table's index, or the leaf of a memtable's tree.
    Index,
    /// The data block, or the entry in a memtable.
    Block,
}

/// Which of the entries that follow may be shown without a look at any other cursor.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stretch {
    /// Those with a prefix of at most this, or backward of at least this.
    pub(crate) limit: u64,
    /// Those that a reader at this number sees, and that are values.
    pub(crate) snapshot: SeqNo,
    pub(crate) backward: bool,
}

impl Stretch {
    /// All that a reader at `snapshot` sees.
    #[inline]
    pub(crate) fn all(snapshot: SeqNo, backward: bool) -> Self {
        Stretch { limit: if backward { 0 } else { u64::MAX }, snapshot, backward }
    }

    /// What of it comes before an entry of prefix `end`, by the prefix alone; `None` if no prefix does.
    #[inline]
    pub(crate) fn before(self, end: Option<u64>) -> Option<Self> {
        let Some(end) = end else { return Some(self) };
        let limit =
            if self.backward { end.checked_add(1)?.max(self.limit) } else { end.checked_sub(1)?.min(self.limit) };
        Some(Stretch { limit, ..self })
    }
}

/// A position in a sorted run of internal entries: a memtable, a block, a table, a level or a merge of those.
///
/// A new cursor is not positioned. `next` and `prev` may only be called while [`valid`](Cursor::valid); moving past
/// either end makes the cursor invalid without an error. After an error the cursor is invalid, so damage can never look
/// like the end: the caller holds the `Err`.
///
/// Entries are in internal order (key ascending, newest first). Several entries may share a user key.
pub(crate) trait Cursor {
    /// Whether the cursor stands on an entry.
    fn valid(&self) -> bool;

    /// The entry's user key. Only while valid.
    fn key(&self) -> &[u8];

    /// The first eight bytes of [`key`](Cursor::key) as [`crate::key::prefix_u64`] gives them. Only while valid.
    fn key_prefix(&self) -> u64;

    /// The entry's sequence number and kind. Only while valid.
    fn trailer(&self) -> Trailer;

    /// The entry's value (empty for a tombstone). Only while valid.
    fn value(&self) -> &[u8];

    /// The memory that [`value`](Cursor::value) lies in, when it may be pinned; `None` means copy it.
    fn value_owner(&self) -> Option<&Bytes>;

    /// Moves to the first entry.
    fn seek_to_first(&mut self) -> Result<()>;

    /// Moves to the last entry.
    fn seek_to_last(&mut self) -> Result<()>;

    /// Says that [`seek`](Self::seek) of this key and number, or backward [`seek_before`](Self::seek_before) of this key,
    /// is what comes next: what that will look at is found and requested from memory, step by step in the order of
    /// [`Aim`], so that several cursors wait for theirs together. Where the cursor stands is open until then.
    fn aim(&mut self, _at: Aim, _key: &[u8], _seqno: SeqNo, _backward: bool) -> Result<()> {
        Ok(())
    }

    /// Moves to the first entry at or after (`key`, `seqno`) in internal order: that is the newest entry of `key` with
    /// a sequence number of at most `seqno`, or else the first entry of a larger key.
    fn seek(&mut self, key: &[u8], seqno: SeqNo) -> Result<()>;

    /// Moves to the last entry whose user key is strictly less than `key`.
    fn seek_before(&mut self, key: &[u8]) -> Result<()>;

    /// Moves one entry forward.
    fn next(&mut self) -> Result<()>;

    /// Moves one entry forward if a look at what lies beside the entry shows that the next one is of another key; answers
    /// the prefix of that key if it moved. Only while valid.
    #[inline]
    fn next_key(&mut self) -> Option<u64> {
        None
    }

    /// As [`next_key`](Cursor::next_key), but passes over older entries of the key too, if looks are enough for that: some
    /// may be passed even if it does not move. Only for who wants none of them.
    #[inline]
    fn leave_key(&mut self) -> Option<u64> {
        self.next_key()
    }

    /// Whether a look at what lies beside the entry shows that no newer one of its key comes before it. Only while
    /// valid.
    #[inline]
    fn is_newest(&self) -> bool {
        false
    }

    /// Moves one entry backward.
    fn prev(&mut self) -> Result<()>;

    /// Moves on over entries of `stretch`, and hands key and value of each to `with`, as long as that goes on and a look
    /// at what lies beside the entry shows that its key has no other. It stands on the last of them then, or where it
    /// stood. Only while valid, and after a move in the direction of the stretch.
    #[inline]
    fn visit<B>(&mut self, _stretch: Stretch, _with: &mut impl FnMut(&[u8], &[u8]) -> ControlFlow<B>) -> ControlFlow<B>
    where
        Self: Sized,
    {
        ControlFlow::Continue(())
    }
}

#[cfg(test)]
pub(crate) mod testing {
    use super::*;

    /// How far a cursor is aimed before it seeks: nothing of it may change what is found.
    pub(crate) const AIMS: [&[Aim]; 4] = [&[], &[Aim::Index], &[Aim::Index, Aim::Block], &[Aim::Block]];

    /// [`Cursor::seek`] after these steps of [`Cursor::aim`].
    pub(crate) fn aim_and_seek(cursor: &mut dyn Cursor, aims: &[Aim], key: &[u8], seqno: SeqNo) {
        aims.iter().for_each(|&at| cursor.aim(at, key, seqno, false).unwrap());
        cursor.seek(key, seqno).unwrap();
    }

    /// [`Cursor::seek_before`] after these steps of [`Cursor::aim`].
    pub(crate) fn aim_and_seek_before(cursor: &mut dyn Cursor, aims: &[Aim], key: &[u8]) {
        aims.iter().for_each(|&at| cursor.aim(at, key, crate::key::MAX_SEQNO, true).unwrap());
        cursor.seek_before(key).unwrap();
    }
}
