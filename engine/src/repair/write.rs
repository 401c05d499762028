//! The tables that a repair writes: under names of their own until everything is ready.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::cache::BlockCache;
use crate::compaction::retention::{Retention, Verdict};
use crate::compaction::score::LeveledOptions;
use crate::cursor::Cursor;
use crate::error::{Error, Result};
use crate::fs::FileSystem;
use crate::key::{SeqNo, Trailer, ValueKind};
use crate::memtable::{Memtable, MemtableCursor};
use crate::options::{Compression, KeyspaceOptions, Options};
use crate::read::merge::MergeCursor;
use crate::table::TableMeta;
use crate::table::builder::{TableBuilder, TableWriteOptions};
use crate::table::handle::table_path;
use crate::table::iterator::TableCursor;
use crate::table::properties::Origin;
use crate::table::reader::{ReadMode, Table};
use crate::table::salvage::SalvagedTable;
use crate::version::LAST_LEVEL;

use super::keep::REPAIR_SUFFIX;

/// See the module.
pub(super) struct Tables<'a> {
    options: &'a Options,
    fs: Arc<dyn FileSystem>,
    dir: &'a Path,
    next: u64,
    /// The numbers of those that are written and wanted.
    unpublished: BTreeSet<u64>,
    cache: Arc<BlockCache>,
}

/// For which keyspace, and where in it, a table is written.
pub(super) struct Target<'a> {
    pub(super) origin: Origin,
    pub(super) options: &'a KeyspaceOptions,
    pub(super) level: usize,
}

impl<'a> Tables<'a> {
    /// New tables get numbers from `next` on.
    pub(super) fn new(options: &'a Options, fs: Arc<dyn FileSystem>, dir: &'a Path, next: u64) -> Self {
        Tables { options, fs, dir, next, unpublished: BTreeSet::new(), cache: Arc::new(BlockCache::new(0)) }
    }

    /// A number above that of every table.
    pub(super) fn next_number(&self) -> u64 {
        self.next
    }

    fn temporary_path(&self, number: u64) -> PathBuf {
        self.dir.join(format!("{number:06}{REPAIR_SUFFIX}"))
    }

    fn begin(&mut self, target: &Target<'_>) -> Result<TableBuilder> {
        let number = self.next;
        self.next = number.checked_add(1).ok_or_else(|| Error::InvalidArgument("table numbers are used up".into()))?;
        let path = self.temporary_path(number);
        let file = self.fs.create(&path).map_err(Error::io("creating a table", &path))?;
        self.unpublished.insert(number);
        let options = TableWriteOptions {
            block_bytes: target.options.block_bytes as usize,
            filter_bits_per_key: target.options.filter_bits_per_key,
            compress: match target.options.compression {
                Compression::None => false,
                Compression::Lz4Bottom => target.level == LAST_LEVEL,
                Compression::Lz4 => true,
            },
            append_bytes: self.options.limits().buffer_bytes,
        };
        Ok(TableBuilder::new(file, path, number, options, target.origin.clone()))
    }

    /// Takes back a table that is of no use any more.
    pub(super) fn discard(&mut self, number: u64) -> Result<()> {
        if !self.unpublished.remove(&number) {
            return Ok(());
        }
        let path = self.temporary_path(number);
        self.fs.remove_file(&path).map_err(Error::io("removing", &path))
    }

    /// Writes what checks out of a damaged table; nothing if that is nothing. Answers also how many entries there were.
    /// `seqno`: the number that all entries have, if the table does not know better.
    pub(super) fn rewrite(
        &mut self,
        table: &mut SalvagedTable,
        target: &Target<'_>,
        seqno: Option<SeqNo>,
    ) -> Result<(Option<TableMeta>, u64)> {
        let number = self.next;
        let mut builder = self.begin(target)?;
        let entries = table.for_each(&mut |key, trailer, value| {
            let kind = if trailer.is_delete() { ValueKind::Delete } else { ValueKind::Put };
            builder.add(key, seqno.map_or(trailer, |seqno| Trailer::new(seqno, kind)), value)
        })?;
        if entries == 0 {
            drop(builder);
            self.discard(number)?;
            return Ok((None, 0));
        }
        Ok((Some(builder.finish()?), entries))
    }

    /// Writes what is newest of each key in a memtable.
    pub(super) fn write_memtable(&mut self, memtable: Arc<Memtable>, target: &Target<'_>) -> Result<Vec<TableMeta>> {
        self.write_run(MemtableCursor::new(memtable), Retention::new(Vec::new(), false), target, u64::MAX)
    }

    /// Merges tables of one keyspace, of whatever age, into a run for the last level: of each key what has the highest
    /// number. Where several have none, as in the last level, the table that was written last is right, because it was
    /// made of the others.
    ///
    /// Numbers and deletes are kept, other than in a compaction: a repair that was stopped and is run again meets these
    /// tables beside the ones that they were made of, and must not take an older version for a newer one.
    pub(super) fn merge(&mut self, mut numbers: Vec<u64>, target: &Target<'_>) -> Result<Vec<TableMeta>> {
        numbers.sort_unstable_by_key(|&number| std::cmp::Reverse(number));
        let open = |number: &u64| self.open(*number).map(TableCursor::for_compaction);
        let cursor = MergeCursor::new(numbers.iter().map(open).collect::<Result<Vec<_>>>()?);
        let leveled = LeveledOptions::new(target.options, self.options.limits().memtable_bytes as u64);
        let written = self.write_run(cursor, Retention::new(Vec::new(), false), target, leveled.target_table_bytes)?;
        numbers.into_iter().try_for_each(|number| self.discard(number))?;
        Ok(written)
    }

    fn open(&self, number: u64) -> Result<Arc<Table>> {
        let unpublished = self.unpublished.contains(&number);
        let path = if unpublished { self.temporary_path(number) } else { table_path(self.dir, number) };
        Table::open(&*self.fs, &path, number, ReadMode::Pread, &self.cache).map(Arc::new)
    }

    /// Writes what `retention` keeps into tables of about `target_bytes`.
    fn write_run<C: Cursor>(
        &mut self,
        mut cursor: C,
        mut retention: Retention,
        target: &Target<'_>,
        target_bytes: u64,
    ) -> Result<Vec<TableMeta>> {
        let (mut finished, mut current) = (Vec::new(), None::<TableBuilder>);
        let mut last_key: Option<Vec<u8>> = None;
        cursor.seek_to_first()?;
        while cursor.valid() {
            let key = cursor.key();
            if last_key.as_deref() != Some(key) {
                // All versions of a key go into one table.
                if let Some(full) = current.take_if(|table| table.file_bytes() >= target_bytes) {
                    finished.push(full.finish()?);
                }
                let last_key = last_key.get_or_insert_default();
                last_key.clear();
                last_key.extend_from_slice(key);
                retention.next_key();
            }
            if let Verdict::Keep(trailer) = retention.decide(cursor.trailer(), || true) {
                let mut table = match current.take() {
                    Some(table) => table,
                    None => self.begin(target)?,
                };
                table.add(cursor.key(), trailer, cursor.value())?;
                current = Some(table);
            }
            cursor.next()?;
        }
        if let Some(table) = current {
            finished.push(table.finish()?);
        }
        Ok(finished)
    }

    /// Gives all tables their names, durably.
    pub(super) fn publish(self) -> Result<()> {
        for &number in &self.unpublished {
            let path = table_path(self.dir, number);
            self.fs.rename(&self.temporary_path(number), &path).map_err(Error::io("renaming to", &path))?;
        }
        self.fs.sync_dir(self.dir).map_err(Error::io("syncing the directory", self.dir))
    }
}
