//! The tables a flush or a compaction writes: filtered by retention, cut at good places.

use std::cmp::Ordering;
use std::path::Path;

use crate::compaction::plan::{Grandparent, Plan};
use crate::compaction::retention::{Retention, Verdict};
use crate::compaction::score::LeveledOptions;
use crate::cursor::Cursor;
use crate::error::{Error, Result};
use crate::key::{Trailer, compare_keys};
use crate::options::{Compression, KeyspaceOptions};
use crate::store::Store;
use crate::table::TableMeta;
use crate::table::builder::{TableBuilder, TableWriteOptions};
use crate::table::handle::table_path;

/// How often a long run looks whether something more urgent waits: about every hundred blocks.
const ENTRIES_A_CHECK: u32 = 4096;

/// What was written and left out.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Written {
    pub(crate) entries_read: u64,
    pub(crate) shadowed: u64,
    pub(crate) tombstones_dropped: u64,
}

impl std::ops::Add for Written {
    type Output = Written;
    fn add(self, other: Written) -> Written {
        Written {
            entries_read: self.entries_read + other.entries_read,
            shadowed: self.shadowed + other.shadowed,
            tombstones_dropped: self.tombstones_dropped + other.tombstones_dropped,
        }
    }
}

/// Writes entries into as many tables as their sizes and the boundaries ask for.
pub(crate) struct Outputs<'s> {
    store: &'s Store,
    table_options: TableWriteOptions,
    target_bytes: u64,
    /// How many bytes of the level below the output one table may overlap: what a later compaction of it has to
    /// rewrite.
    max_overlap_bytes: u64,
    /// The tables of the level below the output, ascending: where cutting keeps later compactions small.
    grandparents: &'s [Grandparent],
    next_grandparent: usize,
    /// Bytes of the level below that the current table overlaps.
    overlap_bytes: u64,
    current: Option<TableBuilder>,
    finished: Vec<TableMeta>,
    started: Vec<u64>,
    /// How much of what was written the rate limiter knows.
    paid_bytes: u64,
    limited: bool,
    last_key: Vec<u8>,
    last_prefix: u64,
    last_trailer: Trailer,
    written: Written,
}

impl<'s> Outputs<'s> {
    /// For a flush: one table, uncompressed unless every level is to be compressed.
    pub(crate) fn level0(store: &'s Store, options: &KeyspaceOptions) -> Self {
        Outputs::with(store, options, false, u64::MAX, 0, &[])
    }

    /// For a compaction: cut near the target size, where tables of the level below the output end.
    pub(crate) fn new(store: &'s Store, options: &KeyspaceOptions, picker: &LeveledOptions, plan: &'s Plan) -> Self {
        // Inside level 0 the outputs must stay one run: tables of one age.
        let target_bytes = if plan.output_level == 0 { u64::MAX } else { picker.target_table_bytes };
        let grandparents = if plan.output_level == 0 { &[][..] } else { &plan.grandparents };
        let max_overlap_bytes = picker.max_grandparent_bytes();
        let outputs = Outputs::with(store, options, plan.bottom, target_bytes, max_overlap_bytes, grandparents);
        Outputs { limited: true, ..outputs }
    }

    fn with(
        store: &'s Store,
        options: &KeyspaceOptions,
        bottom: bool,
        target_bytes: u64,
        max_overlap_bytes: u64,
        grandparents: &'s [Grandparent],
    ) -> Self {
        let compress = match options.compression {
            Compression::None => false,
            Compression::Lz4Bottom => bottom,
            Compression::Lz4 => true,
        };
        Outputs {
            store,
            table_options: TableWriteOptions {
                append_bytes: store.limits.buffer_bytes,
                block_bytes: options.block_bytes as usize,
                filter_bits_per_key: options.filter_bits_per_key,
                compress,
            },
            target_bytes,
            max_overlap_bytes,
            grandparents,
            next_grandparent: 0,
            overlap_bytes: 0,
            current: None,
            finished: Vec::new(),
            started: Vec::new(),
            paid_bytes: 0,
            limited: false,
            last_key: Vec::new(),
            last_prefix: 0,
            last_trailer: Trailer(0),
            written: Written::default(),
        }
    }

    /// Writes what `retention` keeps of the entries from where `cursor` is positioned up to the key `end`.
    /// `exists_below` is asked for keys of tombstones; `pause` is called now and then and may stop the run.
    pub(crate) fn write_all<C: Cursor>(
        &mut self,
        cursor: &mut C,
        end: Option<&[u8]>,
        retention: &mut Retention,
        exists_below: &mut dyn FnMut(&[u8]) -> bool,
        pause: &mut dyn FnMut() -> Result<()>,
    ) -> Result<()> {
        let mut first = true;
        let mut until_check = ENTRIES_A_CHECK;
        while cursor.valid() {
            let key = cursor.key();
            let order = if first {
                Ordering::Less
            } else {
                compare_keys(self.last_prefix, &self.last_key, cursor.key_prefix(), key)
            };
            if order.is_lt() {
                if end.is_some_and(|end| key >= end) {
                    break;
                }
                first = false;
                self.begin_key(key, cursor.key_prefix())?;
                retention.next_key();
            } else if order.is_gt() || cursor.trailer() >= self.last_trailer {
                return Err(self.out_of_order());
            }
            self.last_trailer = cursor.trailer();
            self.written.entries_read += 1;
            match retention.decide(cursor.trailer(), || exists_below(key)) {
                Verdict::Keep(trailer) => self.table()?.add(key, trailer, cursor.value())?,
                Verdict::DropShadowed => self.written.shadowed += 1,
                Verdict::DropTombstone => self.written.tombstones_dropped += 1,
            }
            cursor.next()?;
            until_check -= 1;
            if until_check == 0 {
                until_check = ENTRIES_A_CHECK;
                self.keep_to_rate();
                pause()?;
            }
        }
        Ok(())
    }

    /// An input is not sorted although its checksums fit. Merged on it would spread: newer versions could end up behind
    /// older ones.
    #[cold]
    fn out_of_order(&self) -> Error {
        let reason = "the inputs of a flush or compaction have entries out of order; `verify` names the table";
        Error::corruption(&self.store.directory, 0, reason)
    }

    fn keep_to_rate(&mut self) {
        let Some(rate) = self.store.compaction_rate.as_ref().filter(|_| self.limited) else { return };
        let finished_bytes: u64 = self.finished.iter().map(|meta| meta.file_bytes).sum();
        let written_bytes = finished_bytes + self.current.as_ref().map_or(0, TableBuilder::file_bytes);
        let new_bytes = written_bytes.saturating_sub(self.paid_bytes);
        self.paid_bytes = written_bytes;
        rate.take(new_bytes, &*self.store.options.clock, || self.store.signal.is_stopping());
    }

    /// All versions of a key go into one table, so tables are cut only here.
    fn begin_key(&mut self, key: &[u8], prefix: u64) -> Result<()> {
        self.last_key.clear();
        self.last_key.extend_from_slice(key);
        self.last_prefix = prefix;
        let passed = self.pass_grandparents(key);
        if self.current.as_ref().is_some_and(|table| self.cut_here(table.file_bytes(), passed)) {
            self.cut()?;
        }
        Ok(())
    }

    /// Passes the tables below that end before `key`; whether there were any.
    fn pass_grandparents(&mut self, key: &[u8]) -> bool {
        let before = self.next_grandparent;
        while let Some(table) = self.grandparents.get(self.next_grandparent).filter(|table| table.largest[..] < *key) {
            self.overlap_bytes = self.overlap_bytes.saturating_add(table.file_bytes);
            self.next_grandparent += 1;
        }
        self.next_grandparent > before
    }

    /// A table is cut where a table of the level below ends, from half the target on, so that a later compaction of it
    /// reads few tables in part; earlier when it would overlap too much. Where no such place comes, half over the
    /// target; where none is left, at the target.
    fn cut_here(&self, bytes: u64, passed: bool) -> bool {
        let target = self.target_bytes;
        let aligned = passed && (bytes >= target / 2 || self.overlap_bytes > self.max_overlap_bytes);
        let more_to_come = self.next_grandparent < self.grandparents.len();
        aligned || bytes >= if more_to_come { target.saturating_add(target / 2) } else { target }
    }

    fn cut(&mut self) -> Result<()> {
        self.overlap_bytes = 0;
        if let Some(table) = self.current.take() {
            self.finished.push(table.finish()?);
        }
        Ok(())
    }

    #[inline]
    fn table(&mut self) -> Result<&mut TableBuilder> {
        if self.current.is_none() {
            self.start()?;
        }
        match &mut self.current {
            Some(table) => Ok(table),
            None => unreachable!("a table was just started"),
        }
    }

    #[cold]
    fn start(&mut self) -> Result<()> {
        let number = self.store.versions.next_file_number();
        let path = table_path(&self.store.directory, number);
        let fs = &self.store.options.file_system;
        let file = fs.create(&path).map_err(Error::io("creating a table", &path))?;
        self.started.push(number);
        self.current = Some(TableBuilder::new(file, path, number, self.table_options));
        Ok(())
    }

    /// Finishes the last table and makes all names durable; after an error (`written`, or one here) removes what was
    /// begun.
    pub(crate) fn finish_after(mut self, written: Result<()>) -> Result<(Vec<TableMeta>, Written)> {
        let finished = written.and_then(|()| self.cut()).and_then(|()| self.sync_directory());
        match finished {
            Ok(()) => Ok((self.finished, self.written)),
            Err(error) => {
                self.current = None;
                let fs = &self.store.options.file_system;
                for number in self.started {
                    // Best effort: what stays is an orphan that the next open removes.
                    let _left_over = fs.remove_file(&table_path(&self.store.directory, number));
                }
                Err(error)
            }
        }
    }

    fn sync_directory(&self) -> Result<()> {
        if self.started.is_empty() {
            return Ok(());
        }
        let directory: &Path = &self.store.directory;
        self.store.options.file_system.sync_dir(directory).map_err(Error::io("syncing the directory", directory))
    }
}
