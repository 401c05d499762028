//! Stepping through a level: tables one after the other.

use std::sync::Arc;

use bytes::Bytes;

use super::handle::TableHandle;
use super::iterator::TableCursor;
use super::reader::Table;
use crate::cursor::{Aim, Cursor};
use crate::error::Result;
use crate::key::{SeqNo, Trailer};
use crate::version::version::Level;

/// A cursor over tables that are sorted and share no user key. Opens a table when it gets there.
#[derive(Debug)]
pub(crate) struct LevelCursor {
    level: Level<TableHandle>,
    /// Which table `cursor` is in.
    at: usize,
    /// Always of the table `at`; `None` before the first seek.
    cursor: Option<TableCursor>,
    open: fn(Arc<Table>) -> TableCursor,
}

impl LevelCursor {
    /// A cursor over `level`, one other than 0, that stands nowhere.
    pub(crate) fn new(level: Level<TableHandle>) -> Self {
        debug_assert!(level.tables().windows(2).all(|pair| pair[0].meta.largest < pair[1].meta.smallest));
        LevelCursor { level, at: 0, cursor: None, open: TableCursor::new }
    }

    /// As [`new`](LevelCursor::new), of cursors made [for compaction](TableCursor::for_compaction).
    pub(crate) fn for_compaction(level: Level<TableHandle>) -> Self {
        LevelCursor { open: TableCursor::for_compaction, ..LevelCursor::new(level) }
    }

    /// Goes to table `at` and lets `seek` place the cursor in it; `false` and nowhere if there is no such table.
    fn enter(&mut self, at: usize, seek: impl FnOnce(&mut TableCursor) -> Result<()>) -> Result<bool> {
        let Some(handle) = self.level.tables().get(at) else {
            self.cursor = None;
            return Ok(false);
        };
        if self.cursor.is_none() || self.at != at {
            self.cursor = None;
            self.cursor = Some((self.open)(handle.table_arc()?));
            self.at = at;
        }
        match &mut self.cursor {
            Some(cursor) => seek(cursor).map(|()| true),
            None => Ok(false),
        }
    }

    /// If the cursor ran off its table's end, goes on to the next table that has an entry.
    fn skip_forward(&mut self) -> Result<()> {
        while !self.valid() && self.enter(self.at + 1, |cursor| cursor.seek_to_first())? {}
        Ok(())
    }

    /// If the cursor ran off its table's start, goes back to the last table before that has an entry.
    fn skip_backward(&mut self) -> Result<()> {
        while !self.valid() {
            let Some(at) = self.at.checked_sub(1) else {
                self.cursor = None;
                return Ok(());
            };
            self.enter(at, |cursor| cursor.seek_to_last())?;
        }
        Ok(())
    }

    #[cold]
    fn next_table(&mut self) -> Result<()> {
        self.skip_forward()
    }

    #[cold]
    fn prev_table(&mut self) -> Result<()> {
        self.skip_backward()
    }
}

impl Cursor for LevelCursor {
    #[inline]
    fn valid(&self) -> bool {
        self.cursor.as_ref().is_some_and(TableCursor::valid)
    }

    #[inline]
    fn key(&self) -> &[u8] {
        self.cursor.as_ref().map_or(&[], |cursor| cursor.key())
    }

    #[inline]
    fn key_prefix(&self) -> u64 {
        self.cursor.as_ref().map_or(0, |cursor| cursor.key_prefix())
    }

    #[inline]
    fn trailer(&self) -> Trailer {
        self.cursor.as_ref().map_or(Trailer(0), |cursor| cursor.trailer())
    }

    #[inline]
    fn value(&self) -> &[u8] {
        self.cursor.as_ref().map_or(&[], |cursor| cursor.value())
    }

    #[inline]
    fn value_owner(&self) -> Option<&Bytes> {
        self.cursor.as_ref().and_then(|cursor| cursor.value_owner())
    }

    fn seek_to_first(&mut self) -> Result<()> {
        if self.enter(0, |cursor| cursor.seek_to_first())? { self.skip_forward() } else { Ok(()) }
    }

    fn seek_to_last(&mut self) -> Result<()> {
        let Some(last) = self.level.tables().len().checked_sub(1) else { return Ok(()) };
        self.enter(last, |cursor| cursor.seek_to_last())?;
        self.skip_backward()
    }

    fn aim(&mut self, step: Aim, key: &[u8], seqno: SeqNo, backward: bool) -> Result<()> {
        let at = if backward {
            self.level.count_beginning_before(key).saturating_sub(1)
        } else {
            self.level.count_ending_before(key)
        };
        self.enter(at, |cursor| cursor.aim(step, key, seqno, backward)).map(drop)
    }

    fn seek(&mut self, key: &[u8], seqno: SeqNo) -> Result<()> {
        let at = self.level.count_ending_before(key);
        if self.enter(at, |cursor| cursor.seek(key, seqno))? { self.skip_forward() } else { Ok(()) }
    }

    fn seek_before(&mut self, key: &[u8]) -> Result<()> {
        let Some(at) = self.level.count_beginning_before(key).checked_sub(1) else {
            self.cursor = None;
            return Ok(());
        };
        self.enter(at, |cursor| cursor.seek_before(key))?;
        self.skip_backward()
    }

    #[inline]
    fn next(&mut self) -> Result<()> {
        if let Some(cursor) = &mut self.cursor {
            cursor.next()?;
            if !cursor.valid() {
                return self.next_table();
            }
        }
        Ok(())
    }

    #[inline]
    fn next_within(&mut self, limit: Option<u64>) -> bool {
        self.cursor.as_mut().is_some_and(|cursor| cursor.next_within(limit))
    }

    #[inline]
    fn prev_within(&mut self, limit: Option<u64>) -> bool {
        self.cursor.as_mut().is_some_and(|cursor| cursor.prev_within(limit))
    }

    #[inline]
    fn is_newest(&self) -> bool {
        self.cursor.as_ref().is_some_and(TableCursor::is_newest)
    }

    #[inline]
    fn prev(&mut self) -> Result<()> {
        if let Some(cursor) = &mut self.cursor {
            cursor.prev()?;
            if !cursor.valid() {
                return self.prev_table();
            }
        }
        Ok(())
    }
}
