//! One consistent set of sources: the memtables and the version of a keyspace at one moment.

use std::ops::ControlFlow;
use std::sync::Arc;

use bytes::Bytes;

use crate::cursor::{Aim, Cursor, Stretch};
use crate::error::{Error, Result};
use crate::key::{Lookup, SeqNo, Trailer};
use crate::memtable::{Memtable, MemtableCursor};
use crate::read::merge::MergeCursor;
use crate::slice::Slice;
use crate::table::handle::{TableGuard, TableHandle};
use crate::table::iterator::TableCursor;
use crate::table::level_iterator::LevelCursor;
use crate::table::reader::TableHit;
use crate::version::LEVELS;
use crate::version::version::{Level, Version};

/// How many candidate tables a get looks at in one round: all filter lines of a round are requested from memory before
/// the first is tested.
const ROUND_TABLES: usize = 8;

/// The sources of a keyspace, newest first: active memtable, sealed memtables, tables. Immutable, but for the active
/// memtable, which grows; a reader that also fixes a sequence number sees a fixed state.
#[derive(Debug)]
pub(crate) struct View {
    pub(crate) active: Arc<Memtable>,
    /// Newest first.
    pub(crate) sealed: Vec<Arc<Memtable>>,
    pub(crate) version: Arc<Version<TableHandle>>,
}

/// A value found by a get.
pub(crate) enum Found<'a> {
    Memory(&'a [u8]),
    Table(TableHit<'a>),
}

impl Found<'_> {
    pub(crate) fn value(&self) -> &[u8] {
        match self {
            Found::Memory(value) => value,
            Found::Table(hit) => hit.value(),
        }
    }

    /// The value to hand out: a copy if it is small or lies in a memtable, else pinned.
    pub(crate) fn into_slice(self) -> Slice {
        match self {
            Found::Memory(value) => Slice::copy_from_slice(value),
            Found::Table(hit) => hit.into_slice(),
        }
    }
}

/// What one get touched, for the read amplification.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Touched {
    /// Tables whose filter was asked.
    pub(crate) tables: u32,
    /// Blocks that were searched.
    pub(crate) blocks: u32,
}

/// Tables that a get looks at together, newest first: what it needs of all is requested from memory before it waits for
/// that of one.
struct Round {
    tables: [Option<TableGuard>; ROUND_TABLES],
    /// Why the table after these could not be opened.
    failed: Option<Error>,
}

impl Round {
    /// Takes the next candidates.
    #[inline]
    fn request<'v>(candidates: &mut impl Iterator<Item = &'v Arc<TableHandle>>, lookup: &Lookup<'_>) -> Self {
        let mut round = Round { tables: [const { None }; ROUND_TABLES], failed: None };
        let mut len = 0;
        for (place, handle) in round.tables.iter_mut().zip(candidates) {
            match handle.table() {
                Ok(table) => place.insert(table).prefetch_filter(lookup.hash),
                Err(error) => {
                    round.failed = Some(error);
                    break;
                }
            }
            len += 1;
        }
        // Most entries are in the deepest level, so that is where a search most often follows.
        if let Some(deepest) = round.tables[..len].last().and_then(Option::as_ref) {
            deepest.prefetch_index(lookup.key, lookup.prefix);
        }
        round
    }

    /// The newest entry of the key in these tables.
    ///
    /// # Errors
    /// As the tables say, and what [`failed`](Round::failed) holds once they were searched in vain.
    #[inline]
    fn search(&mut self, lookup: &Lookup<'_>, touched: &mut Touched) -> Result<Option<TableHit<'_>>> {
        for table in self.tables.iter().map_while(Option::as_ref) {
            touched.tables += 1;
            if !table.may_contain(lookup.hash) {
                continue;
            }
            touched.blocks += 1;
            if let Some(hit) = table.get(lookup)? {
                return Ok(Some(hit));
            }
        }
        self.failed.take().map_or(Ok(None), Err)
    }

    /// Whether there may be candidates that are not in it.
    #[inline]
    fn is_full(&self) -> bool {
        self.tables[ROUND_TABLES - 1].is_some()
    }
}

impl View {
    /// All memtables, newest first.
    pub(crate) fn memtables(&self) -> impl Iterator<Item = &Arc<Memtable>> {
        std::iter::once(&self.active).chain(&self.sealed)
    }

    /// Finds the newest visible value of a key and hands it to `with`; `None` if the key is absent or deleted.
    #[inline]
    pub(crate) fn find<R>(
        &self,
        lookup: &Lookup<'_>,
        touched: &mut Touched,
        with: impl FnOnce(Found<'_>) -> R,
    ) -> Result<Option<R>> {
        // The first table's lines are on their way while the memtables are asked.
        self.memtables().for_each(|memtable| memtable.prefetch(lookup.hash));
        let mut candidates = self.candidates(lookup.key);
        let mut round = Round::request(&mut candidates, lookup);
        for memtable in self.memtables() {
            if let Some((trailer, value)) = memtable.get(lookup) {
                return Ok(trailer.is_put().then(|| with(Found::Memory(value))));
            }
        }
        loop {
            if let Some(hit) = round.search(lookup, touched)? {
                return Ok(hit.trailer.is_put().then(|| with(Found::Table(hit))));
            }
            if !round.is_full() {
                return Ok(None);
            }
            round = Round::request(&mut candidates, lookup);
        }
    }

    /// The tables whose key range holds the key, newest first: those of level 0, then at most one a level.
    fn candidates<'v>(&'v self, key: &'v [u8]) -> impl Iterator<Item = &'v Arc<TableHandle>> {
        let below = (1..LEVELS).filter_map(move |level| self.version.find(level, key));
        self.version.find_in_level0(key).chain(below)
    }

    /// Cursors over all sources.
    fn sources(&self) -> Result<Vec<Source>> {
        let levels = || (1..LEVELS).filter(|&level| !self.version.levels()[level].is_empty());
        // As many as there are, no more: what is opened and dropped often is to be small for the allocator.
        let mut sources =
            Vec::with_capacity(1 + self.sealed.len() + self.version.level0_runs().count() + levels().count());
        for memtable in self.memtables().filter(|memtable| !memtable.is_empty()) {
            sources.push(Source::Memtable(MemtableCursor::new(memtable.clone())));
        }
        for run in self.version.level0_runs() {
            sources.push(match run {
                [handle] => Source::Table(TableCursor::new(handle.table_arc()?)),
                run => Source::Level(LevelCursor::of_own(Level::disjoint(run.to_vec()))),
            });
        }
        sources.extend(levels().map(|level| Source::Level(LevelCursor::new(self.version.clone(), level))));
        Ok(sources)
    }

    /// One cursor over everything in the view, in internal order.
    pub(crate) fn cursor(&self) -> Result<MergeCursor<Source>> {
        Ok(MergeCursor::new(self.sources()?))
    }
}

/// One sorted run. An enum and not a trait object, so that a step costs a branch and not a virtual call.
pub(crate) enum Source {
    Memtable(MemtableCursor),
    Table(TableCursor),
    Level(LevelCursor),
}

macro_rules! each {
    ($source:expr, $cursor:ident => $call:expr) => {
        match $source {
            Source::Memtable($cursor) => $call,
            Source::Table($cursor) => $call,
            Source::Level($cursor) => $call,
        }
    };
}

impl Cursor for Source {
    #[inline]
    fn valid(&self) -> bool {
        each!(self, cursor => cursor.valid())
    }
    #[inline]
    fn key(&self) -> &[u8] {
        each!(self, cursor => cursor.key())
    }
    #[inline]
    fn key_prefix(&self) -> u64 {
        each!(self, cursor => cursor.key_prefix())
    }
    #[inline]
    fn trailer(&self) -> Trailer {
        each!(self, cursor => cursor.trailer())
    }
    #[inline]
    fn value(&self) -> &[u8] {
        each!(self, cursor => cursor.value())
    }
    #[inline]
    fn value_owner(&self) -> Option<&Bytes> {
        each!(self, cursor => cursor.value_owner())
    }
    fn seek_to_first(&mut self) -> Result<()> {
        each!(self, cursor => cursor.seek_to_first())
    }
    fn seek_to_last(&mut self) -> Result<()> {
        each!(self, cursor => cursor.seek_to_last())
    }
    fn aim(&mut self, at: Aim, key: &[u8], seqno: SeqNo, backward: bool) -> Result<()> {
        each!(self, cursor => cursor.aim(at, key, seqno, backward))
    }
    fn seek(&mut self, key: &[u8], seqno: SeqNo) -> Result<()> {
        each!(self, cursor => cursor.seek(key, seqno))
    }
    fn seek_before(&mut self, key: &[u8]) -> Result<()> {
        each!(self, cursor => cursor.seek_before(key))
    }
    #[inline]
    fn next(&mut self) -> Result<()> {
        each!(self, cursor => cursor.next())
    }
    #[inline]
    fn next_key(&mut self) -> Option<u64> {
        each!(self, cursor => cursor.next_key())
    }
    #[inline]
    fn is_newest(&self) -> bool {
        each!(self, cursor => cursor.is_newest())
    }
    #[inline]
    fn prev(&mut self) -> Result<()> {
        each!(self, cursor => cursor.prev())
    }
    #[inline]
    fn visit<B>(&mut self, stretch: Stretch, with: &mut impl FnMut(&[u8], &[u8]) -> ControlFlow<B>) -> ControlFlow<B> {
        each!(self, cursor => cursor.visit(stretch, with))
    }
}
