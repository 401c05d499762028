//! A version: the tables of one keyspace at one moment, immutable, in levels.
//!
//! Level 0 holds flushed memtables, newest first; they may overlap. Every other level is sorted by key and its tables
//! are disjoint, so that one binary search finds the only table that can hold a key. All versions of one user key that
//! are in a level are in one table of it (level 0 aside).

use std::cmp::Ordering;
use std::sync::Arc;

use bytes::Bytes;

use crate::key::prefix_u64;
use crate::table::{HasMeta, TableMeta};

use super::LEVELS;

/// The order of level 0: newest first, by largest sequence number, then by file number.
pub(crate) fn newer_first(a: &TableMeta, b: &TableMeta) -> Ordering {
    (b.max_seqno, b.number).cmp(&(a.max_seqno, a.number))
}

/// Sums over the tables of a level.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct LevelTotals {
    /// The length of the files.
    pub(crate) file_bytes: u64,
    /// Keys and values as the user gave them.
    pub(crate) user_bytes: u64,
    /// Tombstones included.
    pub(crate) entries: u64,
    /// Recorded deletes.
    pub(crate) tombstones: u64,
}

/// The tables of one level, with what a search needs in columns beside them. Cheap to clone.
pub(crate) struct Level<T> {
    tables: Arc<[Arc<T>]>,
    /// What all bounds in `columns` begin with; it is left out of the prefixes, so that keys with a long common start
    /// still differ in theirs.
    shared: Bytes,
    /// The prefixes of the largest keys of all tables, followed by those of the smallest keys: one allocation.
    columns: Arc<[u64]>,
    totals: LevelTotals,
}

/// The tables of one keyspace at one moment. Cheap to clone; levels are shared between versions.
pub(crate) struct Version<T> {
    levels: [Level<T>; LEVELS],
}

impl<T> Clone for Level<T> {
    fn clone(&self) -> Self {
        Level {
            tables: self.tables.clone(),
            shared: self.shared.clone(),
            columns: self.columns.clone(),
            totals: self.totals,
        }
    }
}

impl<T> Clone for Version<T> {
    fn clone(&self) -> Self {
        Version { levels: self.levels.clone() }
    }
}

impl<T: HasMeta> std::fmt::Debug for Level<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.tables.iter().map(|table| table.meta().number)).finish()
    }
}

impl<T: HasMeta> std::fmt::Debug for Version<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(&self.levels).finish()
    }
}

/// The length of what `a` and `b` begin with alike.
fn common_prefix(a: &[u8], b: &[u8]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

impl<T: HasMeta> Level<T> {
    fn empty() -> Self {
        Level { tables: Arc::new([]), shared: Bytes::new(), columns: Arc::new([]), totals: LevelTotals::default() }
    }

    /// Builds level `number` of `tables` in any order.
    fn new(number: usize, mut tables: Vec<Arc<T>>) -> Self {
        if number == 0 {
            tables.sort_by(|a, b| newer_first(a.meta(), b.meta()));
        } else {
            tables.sort_by(|a, b| a.meta().smallest.cmp(&b.meta().smallest));
        }
        let Some(first) = tables.first().map(|table| &table.meta().smallest) else {
            return Level::empty();
        };
        let mut shared_len = first.len();
        let mut totals = LevelTotals::default();
        for meta in tables.iter().map(|table| table.meta()) {
            shared_len = common_prefix(&first[..shared_len], &meta.smallest)
                .min(common_prefix(&first[..shared_len], &meta.largest));
            totals.file_bytes += meta.file_bytes;
            totals.user_bytes += meta.user_bytes;
            totals.entries += meta.entries;
            totals.tombstones += meta.tombstones;
        }
        let largest = tables.iter().map(|table| prefix_u64(&table.meta().largest[shared_len..]));
        let smallest = tables.iter().map(|table| prefix_u64(&table.meta().smallest[shared_len..]));
        Level {
            columns: largest.chain(smallest).collect(),
            shared: first.slice(..shared_len),
            totals,
            tables: tables.into(),
        }
    }

    /// A level other than 0 of `tables`, which share no user key.
    pub(crate) fn disjoint(tables: Vec<Arc<T>>) -> Self {
        Level::new(1, tables)
    }

    /// The tables: level 0 newest first, the others by key.
    #[inline]
    pub(crate) fn tables(&self) -> &Arc<[Arc<T>]> {
        &self.tables
    }

    /// The sums over the tables.
    pub(crate) fn totals(&self) -> &LevelTotals {
        &self.totals
    }

    /// Whether the level has no table.
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.tables.is_empty()
    }

    /// The prefix of `key` as it stands in the columns; `None` if no table's range can cover the key, since all bounds
    /// begin with `shared`.
    #[inline]
    fn prefix_in(&self, key: &[u8]) -> Option<u64> {
        if self.shared.is_empty() {
            return Some(prefix_u64(key));
        }
        key.strip_prefix(&*self.shared).map(prefix_u64)
    }

    /// Whether the smallest key of table `at` is at most `key`, which has `prefix`.
    #[inline]
    fn begins_before(&self, at: usize, key: &[u8], prefix: u64) -> bool {
        let smallest = self.columns[self.tables.len() + at];
        prefix > smallest || (prefix == smallest && self.tables[at].meta().smallest <= key)
    }

    /// Whether the largest key of table `at` is less than `key`, which has `prefix`.
    #[inline]
    fn ends_before(&self, at: usize, key: &[u8], prefix: u64) -> bool {
        let largest = self.columns[at];
        largest < prefix || (largest == prefix && self.tables[at].meta().largest < key)
    }

    /// The table whose range covers `key`, in a level other than 0. Touches a table only if a prefix ties.
    #[inline]
    fn find(&self, key: &[u8]) -> Option<&Arc<T>> {
        let len = self.tables.len();
        if len == 0 {
            return None;
        }
        let prefix = self.prefix_in(key)?;
        let at = self.count_before(&self.columns[..len], key, prefix, |table| &table.largest);
        if at == len || !self.begins_before(at, key, prefix) {
            return None;
        }
        Some(&self.tables[at])
    }

    /// How many tables end before `key`, in a level other than 0.
    pub(crate) fn count_ending_before(&self, key: &[u8]) -> usize {
        match self.prefix_in(key) {
            Some(prefix) => self.count_before(&self.columns[..self.tables.len()], key, prefix, |table| &table.largest),
            None => self.count_all_if_after(key),
        }
    }

    /// How many tables begin before `key`, in a level other than 0.
    pub(crate) fn count_beginning_before(&self, key: &[u8]) -> usize {
        match self.prefix_in(key) {
            Some(prefix) => self.count_before(&self.columns[self.tables.len()..], key, prefix, |table| &table.smallest),
            None => self.count_all_if_after(key),
        }
    }

    /// All tables if `key`, which does not begin as all bounds do, comes after them, else none.
    fn count_all_if_after(&self, key: &[u8]) -> usize {
        if *key < *self.shared { 0 } else { self.tables.len() }
    }

    /// How many bounds are before `key`, which has `prefix`: `column` holds their prefixes, `bound` tells one of them.
    #[inline]
    fn count_before(&self, column: &[u64], key: &[u8], prefix: u64, bound: fn(&TableMeta) -> &Bytes) -> usize {
        let at = column.partition_point(|&other| other < prefix);
        if column.get(at) == Some(&prefix) { at + self.count_tied(at, column, key, prefix, bound) } else { at }
    }

    /// How many bounds from `from` on, all with `prefix`, are before `key`.
    #[cold]
    fn count_tied(
        &self,
        from: usize,
        column: &[u64],
        key: &[u8],
        prefix: u64,
        bound: fn(&TableMeta) -> &Bytes,
    ) -> usize {
        let tied = column[from..].partition_point(|&other| other == prefix);
        self.tables[from..from + tied].partition_point(|table| *bound(table.meta()) < key)
    }

    fn check(&self, number: usize) -> Result<(), String> {
        let metas: Vec<_> = self.tables.iter().map(|table| table.meta()).collect();
        for meta in &metas {
            super::edit::check_table(meta).map_err(|reason| format!("level {number}: {reason}"))?;
        }
        let refuse = |why: &str, a: &TableMeta, b: &TableMeta| {
            Err(format!("level {number}: tables {} and {} {why}", a.number, b.number))
        };
        for (at, a) in metas.iter().enumerate() {
            // Level 0 is short; elsewhere neighbours decide.
            for b in if number == 0 { &metas[at + 1..] } else { &metas[at + 1..metas.len().min(at + 2)] } {
                if number > 0 && a.largest >= b.smallest {
                    return refuse("are not in order or overlap", a, b);
                }
                if number == 0 && newer_first(a, b).is_ge() {
                    return refuse("are not ordered newest first", a, b);
                }
                if number == 0 && a.overlaps(&b.smallest, &b.largest) && a.min_seqno <= b.max_seqno {
                    return refuse("overlap in keys and in age", a, b);
                }
            }
        }
        let fresh = Level::new(number, self.tables.to_vec());
        if fresh.totals != self.totals || fresh.columns != self.columns || fresh.shared != self.shared {
            return Err(format!("level {number}: the sums or columns are not those of the tables"));
        }
        Ok(())
    }
}

impl<T: HasMeta> Version<T> {
    /// A version without tables.
    pub(crate) fn empty() -> Self {
        Version { levels: std::array::from_fn(|_| Level::empty()) }
    }

    /// This version without the tables whose numbers are in `removed`, in whatever level, and with `added`. A table may
    /// be in both: it changes its level. Levels of `added` are below [`LEVELS`]; tables for a deeper one are left out,
    /// which the manifest's state has refused before.
    pub(crate) fn apply(&self, added: Vec<(usize, Arc<T>)>, removed: &[u64]) -> Version<T> {
        let mut removed = removed.to_vec();
        removed.sort_unstable();
        let is_removed = |table: &Arc<T>| removed.binary_search(&table.meta().number).is_ok();
        let mut fresh: [Vec<Arc<T>>; LEVELS] = Default::default();
        for (level, table) in added {
            debug_assert!(level < LEVELS);
            if let Some(tables) = fresh.get_mut(level) {
                tables.push(table);
            }
        }
        let mut number = 0;
        let levels = fresh.map(|mut tables| {
            let (at, old) = (number, &self.levels[number]);
            number += 1;
            if tables.is_empty() && (removed.is_empty() || !old.tables.iter().any(is_removed)) {
                return old.clone();
            }
            tables.extend(old.tables.iter().filter(|table| !is_removed(table)).cloned());
            Level::new(at, tables)
        });
        Version { levels }
    }

    /// The levels, 0 first.
    #[inline]
    pub(crate) fn levels(&self) -> &[Level<T>; LEVELS] {
        &self.levels
    }

    /// All tables, from the newest data to the oldest.
    pub(crate) fn tables(&self) -> impl Iterator<Item = &Arc<T>> {
        self.levels.iter().flat_map(|level| level.tables.iter())
    }

    /// The level-0 tables whose range covers `key`, newest first.
    #[inline]
    pub(crate) fn find_in_level0<'a>(&'a self, key: &'a [u8]) -> impl Iterator<Item = &'a Arc<T>> {
        let level = &self.levels[0];
        let prefix = level.prefix_in(key);
        let tables = if prefix.is_some() { &level.tables[..] } else { &[] };
        let prefix = prefix.unwrap_or(0);
        let covers = move |at: usize| level.begins_before(at, key, prefix) && !level.ends_before(at, key, prefix);
        tables.iter().enumerate().filter(move |(at, _)| covers(*at)).map(|(_, table)| table)
    }

    /// The table of `level` (1 to 6) whose range covers `key`. The hot path of every get.
    #[inline]
    pub(crate) fn find(&self, level: usize, key: &[u8]) -> Option<&Arc<T>> {
        debug_assert!(level > 0, "level 0 may hold several such tables");
        self.levels[level].find(key)
    }

    /// Whether a level deeper than `level` may hold `key`. For a tombstone that goes to `level`: if not, and no older
    /// level-0 table covers the key (see [`key_may_exist_in_older_level0`](Self::key_may_exist_in_older_level0)), it
    /// hides nothing.
    #[inline]
    pub(crate) fn key_range_may_exist_below(&self, level: usize, key: &[u8]) -> bool {
        self.levels.iter().skip((level + 1).max(1)).any(|level| level.find(key).is_some())
    }

    /// The tables of `level` that meet `smallest..=largest`; of level 0 all.
    pub(crate) fn run(&self, level: usize, smallest: &[u8], largest: &[u8]) -> &[Arc<T>] {
        let tables = self.levels[level].tables();
        if level == 0 {
            return tables;
        }
        let begin = tables.partition_point(|table| table.meta().largest < smallest);
        let len = tables[begin..].partition_point(|table| table.meta().smallest <= largest);
        &tables[begin..begin + len]
    }

    /// The sorted runs of level 0, newest first. The tables of one ingest, which are disjoint, are one run, and the
    /// only ones that share their largest number; every other table is a run of its own.
    pub(crate) fn level0_runs(&self) -> impl Iterator<Item = &[Arc<T>]> {
        self.levels[0].tables.chunk_by(|a, b| a.meta().max_seqno == b.meta().max_seqno)
    }

    /// The length of all table files together, in bytes.
    pub(crate) fn file_bytes(&self) -> u64 {
        self.levels.iter().map(|level| level.totals.file_bytes).sum()
    }

    /// The level checker: order, disjointness, ranges and ages.
    ///
    /// Level 0 is compared table by table: where keys overlap, ages must not. Deeper levels only prove their own order,
    /// because there the sequence numbers of tables interleave: a merge leaves a wide range behind, whatever its
    /// neighbours have.
    ///
    /// # Errors
    /// What does not fit.
    pub(crate) fn check(&self) -> Result<(), String> {
        let mut numbers: Vec<u64> = self.tables().map(|table| table.meta().number).collect();
        numbers.sort_unstable();
        if let Some(pair) = numbers.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(format!("table {} is there twice", pair[0]));
        }
        self.levels.iter().enumerate().try_for_each(|(number, level)| level.check(number))
    }
}

#[cfg(test)]
pub(crate) mod testing {
    use super::*;
    use crate::key::SeqNo;

    /// A table of 100 entries and 1,000 bytes.
    pub(crate) fn table(number: u64, smallest: &[u8], largest: &[u8], min_seqno: SeqNo, max_seqno: SeqNo) -> TableMeta {
        TableMeta {
            number,
            file_bytes: 1000,
            user_bytes: 900,
            entries: 100,
            tombstones: 0,
            smallest: Bytes::copy_from_slice(smallest),
            largest: Bytes::copy_from_slice(largest),
            min_seqno,
            max_seqno,
        }
    }
}

#[cfg(test)]
mod tests;
