//! The tables a flush, a compaction or an ingest writes: filtered by retention, cut at good places.

use std::cmp::Ordering;

use crate::compaction::cut::Cutter;
use crate::compaction::plan::{Grandparent, Plan};
use crate::compaction::retention::{Retention, Verdict};
use crate::compaction::score::LeveledOptions;
use crate::cursor::Cursor;
use crate::error::{Error, Result};
use crate::key::{SeqNo, Trailer, compare_keys};
use crate::options::Compression;
use crate::store::Store;
use crate::table::TableMeta;
use crate::table::builder::{TableBuilder, TableWriteOptions};
use crate::table::handle::table_path;
use crate::table::properties::Origin;
use crate::tenure::TenuredFile;
use crate::tree::Tree;
use crate::version::amplification::TombstoneAges;

/// How often a long run looks whether something more urgent waits: about every hundred blocks.
const ENTRIES_A_CHECK: u32 = 4096;

/// What was written and left out.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Written {
    pub(crate) entries_read: u64,
    pub(crate) shadowed: u64,
    pub(crate) tombstones_dropped: u64,
    /// Of all tombstones left out.
    pub(crate) tombstone_ages: TombstoneAges,
}

impl Written {
    /// Counts an entry that was left out when `seqno` was the newest there was.
    #[inline]
    fn drop_entry(&mut self, verdict: Verdict, trailer: Trailer, seqno: SeqNo) {
        match verdict {
            Verdict::Keep(_) => {}
            Verdict::DropShadowed => self.shadowed += 1,
            Verdict::DropTombstone => self.tombstones_dropped += 1,
        }
        if trailer.is_delete() {
            self.tombstone_ages.add(seqno.saturating_sub(trailer.seqno()));
        }
    }
}

impl std::ops::Add for Written {
    type Output = Written;
    fn add(self, other: Written) -> Written {
        Written {
            entries_read: self.entries_read + other.entries_read,
            shadowed: self.shadowed + other.shadowed,
            tombstones_dropped: self.tombstones_dropped + other.tombstones_dropped,
            tombstone_ages: self.tombstone_ages + other.tombstone_ages,
        }
    }
}

/// Writes entries into as many tables as their sizes and the boundaries ask for.
pub(crate) struct Outputs<'s> {
    store: &'s Store,
    compression: Compression,
    table_options: TableWriteOptions,
    origin: Origin,
    cutter: Cutter<'s>,
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
    /// The newest visible write when this began: what the ages of tombstones are counted to.
    begun_seqno: SeqNo,
}

impl<'s> Outputs<'s> {
    /// For a flush: one table, uncompressed unless every level is to be compressed. It holds every write of `tree` up
    /// to `flushed_seqno` that is in no table yet.
    pub(crate) fn level0(store: &'s Store, tree: &Tree, flushed_seqno: SeqNo) -> Self {
        Outputs::with(store, tree, flushed_seqno, false, Cutter::new(u64::MAX, 0, &[]))
    }

    /// For a compaction: cut near the target size, where tables of the level below the output end.
    /// Every write of `tree` up to `flushed_seqno` is in tables.
    ///
    /// Only these tables are appended in steps of a whole buffer, which with enough memory are large pages: gets and
    /// seeks take a tenth less time then. But large pages may be slow to get: a virtual machine that lends its unused
    /// memory to others gives back just those, and writing to them was measured at 0.4 GB/s, to others at 4. A
    /// compaction has time; a flush and an ingest are waited for.
    pub(crate) fn new(
        store: &'s Store,
        tree: &Tree,
        flushed_seqno: SeqNo,
        picker: &LeveledOptions,
        plan: &'s Plan,
    ) -> Self {
        let mut outputs = Outputs::with(store, tree, flushed_seqno, plan.bottom, Cutter::of(plan, picker));
        outputs.limited = true;
        outputs.table_options.append_bytes = store.limits.buffer_bytes;
        outputs
    }

    /// For an ingest, whose entries come by [`add`](Outputs::add): cut as for a compaction. `below`: the tables that
    /// the outputs may come to lie on. Numbers that are not those of the entries come later, from the manifest.
    pub(crate) fn ingest(
        store: &'s Store,
        tree: &Tree,
        picker: &LeveledOptions,
        below: &'s [Grandparent],
        numbered_later: bool,
    ) -> Self {
        let cutter = Cutter::new(picker.target_table_bytes, picker.max_grandparent_bytes(), below);
        let mut outputs = Outputs::with(store, tree, 0, false, cutter);
        outputs.origin.ingested = numbered_later;
        outputs
    }

    fn with(store: &'s Store, tree: &Tree, flushed_seqno: SeqNo, bottom: bool, cutter: Cutter<'s>) -> Self {
        let options = tree.options();
        Outputs {
            store,
            compression: options.compression,
            table_options: TableWriteOptions {
                append_bytes: store.limits.buffer_bytes / 2,
                block_bytes: options.block_bytes as usize,
                filter_bits_per_key: options.filter_bits_per_key,
                compress: compresses(options.compression, bottom),
            },
            origin: Origin { keyspace: tree.id, name: tree.name.to_string(), flushed_seqno, ingested: false },
            cutter,
            current: None,
            finished: Vec::new(),
            started: Vec::new(),
            paid_bytes: 0,
            limited: false,
            last_key: Vec::new(),
            last_prefix: 0,
            last_trailer: Trailer(0),
            written: Written::default(),
            begun_seqno: store.visible(),
        }
    }

    /// Writes an entry whose key is new. `is_bottom` is asked, when a table begins with it, whether that will lie on
    /// the bottom.
    pub(crate) fn add(
        &mut self,
        key: &[u8],
        prefix: u64,
        trailer: Trailer,
        value: &[u8],
        is_bottom: impl FnOnce() -> bool,
    ) -> Result<()> {
        self.begin_key(key, prefix)?;
        if self.current.is_none() {
            self.table_options.compress = compresses(self.compression, is_bottom());
        }
        self.table()?.add(key, trailer, value)
    }

    /// The key that was begun last; empty before the first.
    pub(crate) fn last_key(&self) -> &[u8] {
        &self.last_key
    }

    /// Whether a key, whose prefix is `prefix`, comes after the one that was begun last.
    #[inline]
    pub(crate) fn is_after_last(&self, key: &[u8], prefix: u64) -> bool {
        self.started.is_empty() || compare_keys(self.last_prefix, &self.last_key, prefix, key).is_lt()
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
                dropped => self.written.drop_entry(dropped, cursor.trailer(), self.begun_seqno),
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
        let open_bytes = self.current.as_ref().map(TableBuilder::file_bytes);
        if self.cutter.cuts_before(key, open_bytes) { self.cut() } else { Ok(()) }
    }

    fn cut(&mut self) -> Result<()> {
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
        let store = self.store;
        let number = store.versions.next_file_number();
        let path = table_path(&store.directory, number);
        let created = store.tenure.during(|| store.options.file_system.create(&path))?;
        // Also after an error there may be a file.
        self.started.push(number);
        let file = created.map_err(Error::io("creating a table", &path))?;
        let file = Box::new(TenuredFile::new(file, store.tenure.clone()));
        self.current = Some(TableBuilder::new(file, path, number, self.table_options, self.origin.clone()));
        Ok(())
    }

    /// Finishes the last table and makes all names durable; after an error (`written`, or one here) removes what was
    /// begun. That the directory is not ours any more is `Closed`, whatever failed for that.
    pub(crate) fn finish_after(mut self, written: Result<()>) -> Result<(Vec<TableMeta>, Written)> {
        match written.and_then(|()| self.cut()).and_then(|()| self.sync_directory()) {
            Ok(()) => {
                self.started.clear();
                Ok((std::mem::take(&mut self.finished), self.written))
            }
            Err(_) if self.store.tenure.has_ended() => Err(Error::Closed),
            Err(error) => Err(error),
        }
    }

    fn sync_directory(&self) -> Result<()> {
        if self.started.is_empty() {
            return Ok(());
        }
        let store = self.store;
        let synced = store.tenure.during(|| store.options.file_system.sync_dir(&store.directory))?;
        synced.map_err(Error::io("syncing the directory", &store.directory))
    }
}

impl Drop for Outputs<'_> {
    /// Removes what was begun and not finished, after a panic as after an error.
    fn drop(&mut self) {
        self.current = None;
        remove_tables(self.store, self.started.drain(..));
    }
}

/// Removes files of tables that no edit names. Best effort: what stays is an orphan that the next open removes.
pub(crate) fn remove_tables(store: &Store, numbers: impl IntoIterator<Item = u64>) {
    for number in numbers {
        let remove = || store.options.file_system.remove_file(&table_path(&store.directory, number));
        let _left_over = store.tenure.during(remove);
    }
}

/// Whether a table's blocks are compressed.
fn compresses(compression: Compression, is_bottom: bool) -> bool {
    match compression {
        Compression::None => false,
        Compression::Lz4Bottom => is_bottom,
        Compression::Lz4 => true,
    }
}
