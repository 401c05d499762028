//! Stepping through a level: tables one after the other.

use std::ops::ControlFlow;
use std::sync::Arc;

use bytes::Bytes;

use super::handle::TableHandle;
use super::iterator::TableCursor;
use super::reader::Table;
use crate::cursor::{Aim, Cursor, Stretch};
use crate::error::Result;
use crate::key::{SeqNo, Trailer};
use crate::version::version::{Level, Version};

/// The tables that a cursor goes through.
#[derive(Debug)]
enum Run {
    /// A level of a version: shared, so that opening a cursor costs one reference count.
    Level(Arc<Version<TableHandle>>, usize),
    Own(Box<Level<TableHandle>>),
}

impl Run {
    #[inline]
    fn level(&self) -> &Level<TableHandle> {
        match self {
            Run::Level(version, number) => &version.levels()[*number],
            Run::Own(level) => level,
        }
    }
}

/// A cursor over tables that are sorted and share no user key. Opens a table when it gets there.
#[derive(Debug)]
pub(crate) struct LevelCursor {
    run: Run,
    /// Which table `cursor` is in.
    at: usize,
    /// Always of the table `at`; `None` before the first seek.
    cursor: Option<TableCursor>,
    /// How many tables end before the key that was aimed at, or backward begin before it, until it is sought.
    aimed: Option<usize>,
    open: fn(Arc<Table>) -> TableCursor,
}

impl LevelCursor {
    /// A cursor over a level of `version`, one other than 0, that stands nowhere.
    pub(crate) fn new(version: Arc<Version<TableHandle>>, number: usize) -> Self {
        LevelCursor::of_run(Run::Level(version, number))
    }

    /// A cursor over the tables of `level`, which was made for it.
    pub(crate) fn of_own(level: Level<TableHandle>) -> Self {
        LevelCursor::of_run(Run::Own(Box::new(level)))
    }

    /// As [`of_own`](LevelCursor::of_own), of cursors made [for compaction](TableCursor::for_compaction).
    pub(crate) fn for_compaction(level: Level<TableHandle>) -> Self {
        LevelCursor { open: TableCursor::for_compaction, ..LevelCursor::of_own(level) }
    }

    fn of_run(run: Run) -> Self {
        debug_assert!(run.level().tables().windows(2).all(|pair| pair[0].meta.largest < pair[1].meta.smallest));
        LevelCursor { run, at: 0, cursor: None, aimed: None, open: TableCursor::new }
    }

    /// Goes to table `at` and lets `seek` place the cursor in it; `false` and nowhere if there is no such table.
    fn enter(&mut self, at: usize, seek: impl FnOnce(&mut TableCursor) -> Result<()>) -> Result<bool> {
        let Some(handle) = self.run.level().tables().get(at) else {
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
        let Some(last) = self.run.level().tables().len().checked_sub(1) else { return Ok(()) };
        self.enter(last, |cursor| cursor.seek_to_last())?;
        self.skip_backward()
    }

    fn aim(&mut self, step: Aim, key: &[u8], seqno: SeqNo, backward: bool) -> Result<()> {
        let count = match self.aimed.take().filter(|_| step != Aim::Index) {
            Some(count) => count,
            None if backward => self.run.level().count_beginning_before(key),
            None => self.run.level().count_ending_before(key),
        };
        let at = if backward { count.saturating_sub(1) } else { count };
        self.enter(at, |cursor| cursor.aim(step, key, seqno, backward))?;
        self.aimed = Some(count);
        Ok(())
    }

    fn seek(&mut self, key: &[u8], seqno: SeqNo) -> Result<()> {
        let at = self.aimed.take().unwrap_or_else(|| self.run.level().count_ending_before(key));
        if self.enter(at, |cursor| cursor.seek(key, seqno))? { self.skip_forward() } else { Ok(()) }
    }

    fn seek_before(&mut self, key: &[u8]) -> Result<()> {
        let count = self.aimed.take().unwrap_or_else(|| self.run.level().count_beginning_before(key));
        let Some(at) = count.checked_sub(1) else {
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
    fn next_key(&mut self) -> Option<u64> {
        self.cursor.as_mut()?.next_key()
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

    #[inline]
    fn visit<B>(&mut self, stretch: Stretch, with: &mut impl FnMut(&[u8], &[u8]) -> ControlFlow<B>) -> ControlFlow<B> {
        self.cursor.as_mut().map_or(ControlFlow::Continue(()), |cursor| cursor.visit(stretch, with))
    }
}
