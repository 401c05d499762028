//! What the compaction picker sees: the levels' tables, and which of them are being compacted.
//!
//! A [`Shape`] follows its tree: it is told of every change, and keeps what a pick needs in order. So a pick, and a
//! change, look at the tables that they are about and their neighbours in the next level, not at all there are: a
//! database of ten terabytes has 160,000.

use std::cell::Cell;
use std::cmp::Ordering;
use std::collections::{BTreeSet, HashMap};
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

use super::order::PickOrder;
use crate::key::prefix_u64;
use crate::table::{HasMeta, TableMeta};
use crate::version::version::{Version, newer_first};
use crate::version::{LAST_LEVEL, LEVELS};

/// A compaction that has been started and is not installed yet.
#[derive(Clone, Debug)]
pub(crate) struct Running {
    /// The numbers of its input tables, in whatever level.
    pub(crate) inputs: Vec<u64>,
    /// The level that is compacted.
    pub(crate) level: usize,
    /// Where its outputs go.
    pub(crate) output_level: usize,
    /// The first key of its inputs, before which no output begins.
    pub(crate) smallest: Bytes,
    /// The last key of its inputs, after which no output ends.
    pub(crate) largest: Bytes,
}

/// One table.
#[derive(Clone, Debug)]
pub(crate) struct TableShape {
    /// What the manifest knows of it. A copy: the picker must not keep a file open.
    pub(crate) meta: Arc<TableMeta>,
    /// [`prefix_u64`] of its smallest key: a search among many tables reads these, and hardly any key.
    prefix: u64,
    /// File bytes of the tables of the next level that it overlaps; 0 in level 0, where nobody asks.
    overlap_bytes: u64,
}

impl TableShape {
    fn new(meta: Arc<TableMeta>) -> Self {
        TableShape { prefix: prefix_u64(&meta.smallest), meta, overlap_bytes: 0 }
    }

    /// Where its smallest key lies from `key`, whose prefix is given.
    fn compare(&self, prefix: u64, key: &[u8]) -> Ordering {
        self.prefix.cmp(&prefix).then_with(|| self.meta.smallest[..].cmp(key))
    }
}

/// The tables of one level.
#[derive(Debug, Default)]
struct LevelShape {
    /// Level 0 newest first, the others by key.
    tables: Vec<TableShape>,
    file_bytes: u64,
    /// File bytes of the tables that running compactions take.
    busy_bytes: u64,
    /// Rank and number of each table: the order in which they should be compacted. Empty in level 0 and the bottom
    /// level, which pick otherwise, and for an order that has no ranks.
    ranked: BTreeSet<(u64, u64)>,
    /// The smallest keys of the tables that may be worth a compaction for their tombstones; level 0 left out.
    dense: BTreeSet<Bytes>,
}

/// Where a table is.
#[derive(Clone, Debug)]
struct Place {
    level: usize,
    smallest: Bytes,
    busy: bool,
}

/// A tree as the picker sees it.
#[derive(Debug, Default)]
pub(crate) struct Shape {
    levels: [LevelShape; LEVELS],
    places: HashMap<u64, Place>,
    running: Vec<Running>,
    order: PickOrder,
    /// The last key of what was last taken from each level, for [`PickOrder::RoundRobin`].
    cursors: [Option<Bytes>; LEVELS],
    /// How many tables were looked at: what picking and following cost.
    steps: Cell<u64>,
}

impl Shape {
    /// The shape of an empty tree.
    pub(crate) fn empty(order: PickOrder) -> Self {
        Shape { order, ..Shape::default() }
    }

    /// The shape of `version`, without a compaction that runs.
    pub(crate) fn of<T: HasMeta>(version: &Version<T>, order: PickOrder) -> Self {
        let mut shape = Shape::empty(order);
        let tables = version.levels().iter().enumerate();
        let added = tables.flat_map(|(at, level)| level.tables().iter().map(move |table| (at, table.meta().clone())));
        shape.install(added.map(|(level, meta)| (level, Arc::new(meta))).collect(), &[]);
        shape
    }

    /// Picks in `order` from now on.
    pub(crate) fn set_order(&mut self, order: PickOrder) {
        if self.order == order {
            return;
        }
        self.order = order;
        for level in 0..LEVELS {
            self.levels[level].ranked.clear();
            for at in 0..self.levels[level].tables.len() {
                self.enter(level, at);
            }
        }
    }

    /// The tables of `level`: level 0 newest first, the others by key.
    pub(crate) fn tables(&self, level: usize) -> &[TableShape] {
        &self.levels[level].tables
    }

    /// File bytes of each level, busy tables included.
    pub(crate) fn level_bytes(&self) -> [u64; LEVELS] {
        std::array::from_fn(|level| self.levels[level].file_bytes)
    }

    /// File bytes of `level` that no running compaction takes.
    pub(crate) fn idle_bytes(&self, level: usize) -> u64 {
        self.levels[level].file_bytes.saturating_sub(self.levels[level].busy_bytes)
    }

    /// The compactions that are not installed yet.
    pub(crate) fn running(&self) -> &[Running] {
        &self.running
    }

    /// Whether `table` is an input of a running compaction.
    pub(crate) fn is_busy(&self, table: &TableShape) -> bool {
        self.steps.set(self.steps.get() + 1);
        !self.running.is_empty() && self.places.get(&table.meta.number).is_some_and(|place| place.busy)
    }

    /// How many tables were looked at since the shape was made.
    #[cfg_attr(not(any(test, feature = "internals")), allow(dead_code))]
    pub(crate) fn steps(&self) -> u64 {
        self.steps.get()
    }

    /// Which tables of `level`, 1 or deeper, meet `smallest..=largest`.
    pub(crate) fn run(&self, level: usize, smallest: &[u8], largest: &[u8]) -> Range<usize> {
        let tables = &self.levels[level].tables;
        let after = self.position(level, smallest);
        let meets = |before: &usize| tables[*before].meta.largest[..] >= *smallest;
        let begin = after.checked_sub(1).filter(meets).unwrap_or(after);
        let largest_prefix = prefix_u64(largest);
        let begins_within = |table: &TableShape| table.compare(largest_prefix, largest).is_le();
        // What follows is most often a handful among many thousands: doubling steps find its end.
        let mut reach = 1;
        while tables.get(begin + reach).is_some_and(begins_within) {
            reach *= 2;
        }
        let near = &tables[begin..tables.len().min(begin + reach)];
        let len = near.partition_point(begins_within);
        self.steps.set(self.steps.get() + u64::from(tables.len().max(1).ilog2() + reach.ilog2()) + 1);
        begin..begin + len
    }

    /// Whether a running compaction will put tables into `level` that may meet `smallest..=largest`.
    pub(crate) fn is_output_range(&self, level: usize, smallest: &[u8], largest: &[u8]) -> bool {
        let meets = |job: &&Running| job.smallest <= largest && job.largest >= smallest;
        self.running.iter().filter(|job| job.output_level == level).any(|job| meets(&job))
    }

    /// Whether no table deeper than `level` meets `smallest..=largest`: what lies there is the oldest there is of these
    /// keys.
    pub(crate) fn nothing_below(&self, level: usize, smallest: &[u8], largest: &[u8]) -> bool {
        (level + 1..LEVELS).all(|below| self.run(below, smallest, largest).is_empty())
    }

    /// The first level from 1 on that holds tables or will when running compactions are done.
    pub(crate) fn first_populated(&self) -> Option<usize> {
        (1..LEVELS)
            .find(|&level| !self.tables(level).is_empty() || self.running.iter().any(|job| job.output_level == level))
    }

    /// The deepest level that holds tables, level 0 left out.
    pub(crate) fn deepest_populated(&self) -> Option<usize> {
        (1..LEVELS).rev().find(|&level| !self.tables(level).is_empty())
    }

    /// The tables of `level`, from 1 to the last but one, in the order in which they should be compacted.
    pub(crate) fn candidates(&self, level: usize) -> impl Iterator<Item = usize> {
        let LevelShape { tables, ranked, .. } = &self.levels[level];
        let turned = if self.order == PickOrder::RoundRobin { tables.len() } else { 0 };
        let begins_by = |key: &Bytes| {
            let prefix = prefix_u64(key);
            tables.partition_point(|table| table.compare(prefix, key).is_le())
        };
        let first = self.cursors[level].as_ref().map_or(0, begins_by);
        let around = (first..turned).chain(0..first.min(turned));
        let places = ranked.iter().filter_map(|(_, number)| self.places.get(number));
        around.chain(places.map(move |place| self.position(level, &place.smallest)))
    }

    /// The tables of `level`, by key, that may be worth a compaction for their tombstones: half of their entries, or a
    /// quarter if the next level has nothing below them.
    pub(crate) fn dense(&self, level: usize) -> impl Iterator<Item = usize> {
        self.levels[level].dense.iter().map(move |smallest| self.position(level, smallest))
    }

    /// How many tables of `level` begin before `smallest`.
    fn position(&self, level: usize, smallest: &[u8]) -> usize {
        let prefix = prefix_u64(smallest);
        self.levels[level].tables.partition_point(|table| table.compare(prefix, smallest).is_lt())
    }
}

/// Following the tree.
impl Shape {
    /// Marks the inputs of `job` as busy, until [`finish`](Self::finish).
    pub(crate) fn start(&mut self, job: Running) {
        for number in &job.inputs {
            self.set_busy(*number, true);
        }
        if job.level != job.output_level {
            let of_level = |number: &&u64| self.places.get(number).is_some_and(|place| place.level == job.level);
            let taken = job.inputs.iter().filter(of_level).filter_map(|number| self.table(*number));
            self.cursors[job.level] = taken.map(|meta| meta.largest.clone()).max();
        }
        self.running.push(job);
    }

    /// Ends the mark of `job`, whether it was installed or not.
    pub(crate) fn finish(&mut self, job: &Running) {
        if let Some(at) = self.running.iter().position(|other| other.inputs == job.inputs) {
            self.running.swap_remove(at);
        }
        job.inputs.iter().for_each(|number| self.set_busy(*number, false));
    }

    /// Takes out the tables whose numbers are in `removed`, in whatever level, and puts in `added`. A table may be in
    /// both: it changes its level, and stays busy if it was.
    pub(crate) fn install(&mut self, added: Vec<(usize, Arc<TableMeta>)>, removed: &[u64]) {
        let mut changes: [Change; LEVELS] = Default::default();
        for number in removed {
            let Some(meta) = self.table(*number).cloned() else { continue };
            let Some(place) = self.places.remove(number) else { continue };
            changes[place.level].widen(&meta);
            changes[place.level].removed.push((meta, place.busy));
        }
        for (level, meta) in added {
            let moved = || changes.iter().flat_map(|change| &change.removed);
            let busy = moved().any(|(other, busy)| *busy && other.number == meta.number);
            // The manifest's state has refused deeper levels before.
            let Some(change) = changes.get_mut(level) else { continue };
            change.widen(&meta);
            change.added.push((meta, busy));
        }
        // From the bottom up: what a level overlaps is there when it is looked at.
        for level in (0..LEVELS).rev() {
            let change = std::mem::take(&mut changes[level]);
            if let Some((smallest, largest)) = change.bounds.clone() {
                self.replace(level, change);
                self.overlaps_changed(level, &smallest, &largest);
            }
        }
    }

    fn table(&self, number: u64) -> Option<&Arc<TableMeta>> {
        let place = self.places.get(&number)?;
        let tables = &self.levels[place.level].tables;
        let at = match place.level {
            0 => tables.iter().position(|table| table.meta.number == number)?,
            level => self.position(level, &place.smallest),
        };
        tables.get(at).map(|table| &table.meta).filter(|meta| meta.number == number)
    }

    fn set_busy(&mut self, number: u64, busy: bool) {
        let Some(file_bytes) = self.table(number).map(|meta| meta.file_bytes) else { return };
        let Some(place) = self.places.get_mut(&number) else { return };
        let level = &mut self.levels[place.level];
        match (std::mem::replace(&mut place.busy, busy), busy) {
            (false, true) => level.busy_bytes += file_bytes,
            (true, false) => level.busy_bytes -= file_bytes,
            _ => {}
        }
    }

    /// Carries out `change` on the part of `level` that it is about.
    fn replace(&mut self, level: usize, change: Change) {
        let Some((smallest, largest)) = &change.bounds else { return };
        let range = if level == 0 { 0..self.tables(0).len() } else { self.run(level, smallest, largest) };
        range.clone().for_each(|at| self.leave(level, at));
        self.steps.set(self.steps.get() + range.len() as u64 + change.added.len() as u64);
        let LevelShape { tables, file_bytes, busy_bytes, .. } = &mut self.levels[level];
        for (meta, busy) in &change.removed {
            *file_bytes -= meta.file_bytes;
            *busy_bytes -= if *busy { meta.file_bytes } else { 0 };
        }
        let gone = |table: &TableShape| change.removed.iter().any(|(meta, _)| meta.number == table.meta.number);
        let mut fresh: Vec<TableShape> = tables[range.clone()].iter().filter(|table| !gone(table)).cloned().collect();
        for (meta, busy) in change.added {
            *file_bytes += meta.file_bytes;
            *busy_bytes += if busy { meta.file_bytes } else { 0 };
            self.places.insert(meta.number, Place { level, smallest: meta.smallest.clone(), busy });
            fresh.push(TableShape::new(meta));
        }
        match level {
            0 => fresh.sort_by(|a, b| newer_first(&a.meta, &b.meta)),
            _ => fresh.sort_by(|a, b| a.compare(b.prefix, &b.meta.smallest)),
        }
        let begin = range.start;
        let len = fresh.len();
        tables.splice(range, fresh);
        for at in begin..begin + len {
            self.measure(level, at);
            self.enter(level, at);
        }
    }

    /// Tables of `level` between `smallest` and `largest` have come or gone: what the level above overlaps is new.
    fn overlaps_changed(&mut self, level: usize, smallest: &Bytes, largest: &Bytes) {
        if level < 2 {
            return;
        }
        for at in self.run(level - 1, smallest, largest) {
            self.leave(level - 1, at);
            self.measure(level - 1, at);
            self.enter(level - 1, at);
        }
    }

    fn measure(&mut self, level: usize, at: usize) {
        if level == 0 || level == LAST_LEVEL {
            return;
        }
        let meta = &self.tables(level)[at].meta;
        let overlapped = self.run(level + 1, &meta.smallest, &meta.largest);
        self.steps.set(self.steps.get() + overlapped.len() as u64);
        let overlap_bytes = self.tables(level + 1)[overlapped].iter().map(|table| table.meta.file_bytes).sum();
        self.levels[level].tables[at].overlap_bytes = overlap_bytes;
    }

    /// Takes the table at a place out of the orders.
    fn leave(&mut self, level: usize, at: usize) {
        let LevelShape { tables, ranked, dense, .. } = &mut self.levels[level];
        let table = &tables[at];
        if let Some(rank) = self.order.rank(&table.meta, table.overlap_bytes) {
            ranked.remove(&(rank, table.meta.number));
        }
        dense.remove(&table.meta.smallest);
    }

    /// Puts it in.
    fn enter(&mut self, level: usize, at: usize) {
        if level == 0 {
            return;
        }
        let LevelShape { tables, ranked, dense, .. } = &mut self.levels[level];
        let TableShape { meta, overlap_bytes, .. } = &tables[at];
        let rank = self.order.rank(meta, *overlap_bytes).filter(|_| level < LAST_LEVEL);
        if let Some(rank) = rank {
            ranked.insert((rank, meta.number));
        }
        let least = if *overlap_bytes == 0 { meta.entries.div_ceil(4) } else { meta.entries.div_ceil(2) };
        if meta.tombstones >= least.max(1) {
            dense.insert(meta.smallest.clone());
        }
    }
}

/// What happens to one level, with the keys between which it happens.
#[derive(Debug, Default)]
struct Change {
    removed: Vec<(Arc<TableMeta>, bool)>,
    added: Vec<(Arc<TableMeta>, bool)>,
    bounds: Option<(Bytes, Bytes)>,
}

impl Change {
    fn widen(&mut self, meta: &TableMeta) {
        let (smallest, largest) = self.bounds.take().unwrap_or_else(|| (meta.smallest.clone(), meta.largest.clone()));
        let smallest = if meta.smallest < smallest { meta.smallest.clone() } else { smallest };
        let largest = if meta.largest > largest { meta.largest.clone() } else { largest };
        self.bounds = Some((smallest, largest));
    }
}

#[cfg(test)]
mod tests;
