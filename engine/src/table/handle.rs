//! The table cache: which tables are open. A version holds a [`TableHandle`] a live table; the file behind it is opened
//! when it is first read and closed when others need its place.

use std::fmt;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};

use super::reader::{ReadMode, Table};
use super::{HasMeta, TableMeta};
use crate::cache::BlockCache;
use crate::error::Result;
use crate::fs::FileSystem;
use crate::sync::Mutex;
use crate::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use crate::sync::{ArcSwapOption, Guard};

/// The file of table `number` in `dir`.
pub(crate) fn table_path(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("{number:06}.table"))
}

/// The number in a table file's name; `None` for other files.
pub(crate) fn table_number(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(".table")?;
    digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok())?
}

impl HasMeta for TableHandle {
    fn meta(&self) -> &TableMeta {
        &self.meta
    }
}

/// Table files that nothing holds any longer, waiting to be deleted.
#[derive(Debug, Default)]
pub(crate) struct Purger {
    queue: Mutex<Vec<PathBuf>>,
    /// Held while files are deleted.
    purging: Mutex<()>,
}

impl Purger {
    fn push(&self, path: PathBuf) {
        self.queue.lock().push(path);
    }

    /// Deletes all files that wait by `remove`; whether there were any. What others are about to delete is gone too when
    /// this returns.
    pub(crate) fn purge(&self, remove: impl FnMut(&PathBuf)) -> bool {
        let _one_at_a_time = self.purging.lock();
        let paths = self.take();
        paths.iter().for_each(remove);
        !paths.is_empty()
    }

    /// Takes all files that wait; the caller deletes them.
    pub(crate) fn take(&self) -> Vec<PathBuf> {
        std::mem::take(&mut *self.queue.lock())
    }
}

/// What all open tables hold together. A table counts from its opening until its last user is gone, which may be after
/// it left the cache. All counters are statistics and soft limits that order no other memory: relaxed is enough for
/// each.
#[derive(Debug, Default)]
struct OpenTotals {
    tables: AtomicU64,
    memory_bytes: AtomicU64,
    mapped_bytes: AtomicU64,
    /// What of the mapped bytes the system can keep in memory.
    cache_bytes: u64,
}

/// A table's share of the totals, given back on drop.
#[derive(Debug)]
pub(crate) struct OpenLease {
    totals: Arc<OpenTotals>,
    memory_bytes: u64,
    mapped_bytes: u64,
}

impl OpenLease {
    fn new(totals: &Arc<OpenTotals>, table: &Table) -> Self {
        let (memory_bytes, mapped_bytes) = (table.memory_bytes(), table.mapped_bytes());
        totals.tables.fetch_add(1, Ordering::Relaxed);
        totals.memory_bytes.fetch_add(memory_bytes, Ordering::Relaxed);
        totals.mapped_bytes.fetch_add(mapped_bytes, Ordering::Relaxed);
        OpenLease { totals: Arc::clone(totals), memory_bytes, mapped_bytes }
    }

    /// Whether more is mapped than the system can keep in memory.
    #[inline]
    pub(super) fn is_beyond_memory(&self) -> bool {
        self.totals.mapped_bytes.load(Ordering::Relaxed) > self.totals.cache_bytes
    }
}

impl Drop for OpenLease {
    fn drop(&mut self) {
        self.totals.tables.fetch_sub(1, Ordering::Relaxed);
        self.totals.memory_bytes.fetch_sub(self.memory_bytes, Ordering::Relaxed);
        self.totals.mapped_bytes.fetch_sub(self.mapped_bytes, Ordering::Relaxed);
    }
}

/// What a [`TableCache`] stays within.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TableCacheLimits {
    /// At least one table may be open.
    pub(crate) max_open_tables: usize,
    /// The heap that open tables hold; one table may hold more.
    pub(crate) max_memory_bytes: u64,
    /// Whether tables are mapped at all.
    pub(crate) mmap_reads: bool,
    /// All mappings together; tables opened beyond are read with system calls.
    pub(crate) mmap_limit_bytes: u64,
    /// How much of the tables' files the system can keep in memory.
    pub(crate) cache_bytes: u64,
}

/// Opens tables and keeps at most a set number of them open.
#[derive(Debug)]
pub(crate) struct TableCache {
    fs: Arc<dyn FileSystem>,
    dir: PathBuf,
    block_cache: Arc<BlockCache>,
    limits: TableCacheLimits,
    purger: Arc<Purger>,
    totals: Arc<OpenTotals>,
    clock: Mutex<ClockRing>,
    handles: Mutex<Registry>,
    /// Set when the database closes under live iterators: from then on nothing is evicted.
    keep_all: AtomicBool,
}

/// Every handle that may be live.
#[derive(Debug, Default)]
struct Registry {
    handles: Vec<Weak<TableHandle>>,
    /// The length at which handles that are gone are looked for next.
    sweep_at: usize,
}

impl Registry {
    fn add(&mut self, handle: &Arc<TableHandle>) {
        if self.handles.len() >= self.sweep_at {
            self.handles.retain(|handle| handle.strong_count() > 0);
            self.sweep_at = (2 * self.handles.len()).max(64);
        }
        self.handles.push(Arc::downgrade(handle));
    }
}

/// The open handles in a ring, for second-chance ("clock") eviction (Corbato, 1968).
#[derive(Debug, Default)]
struct ClockRing {
    /// At most `max_open_tables`; handles that are gone leave their place to the next.
    places: Vec<Weak<TableHandle>>,
    hand: usize,
}

impl TableCache {
    /// A cache of the tables in `dir`.
    pub(crate) fn new(
        fs: Arc<dyn FileSystem>,
        dir: PathBuf,
        block_cache: Arc<BlockCache>,
        limits: TableCacheLimits,
        purger: Arc<Purger>,
    ) -> Self {
        TableCache {
            fs,
            dir,
            block_cache,
            limits: TableCacheLimits { max_open_tables: limits.max_open_tables.max(1), ..limits },
            purger,
            totals: Arc::new(OpenTotals { cache_bytes: limits.cache_bytes, ..OpenTotals::default() }),
            clock: Mutex::default(),
            handles: Mutex::default(),
            keep_all: AtomicBool::new(false),
        }
    }

    /// Opens every live table and keeps it open, so that who still reads needs the files' names no more. What cannot be
    /// opened now will fail when it is read.
    pub(crate) fn open_all(&self) {
        // Relaxed: an eviction that is under way closes a table that is opened again below, or fails when it is read.
        self.keep_all.store(true, Ordering::Relaxed);
        let handles: Vec<_> = self.handles.lock().handles.iter().filter_map(Weak::upgrade).collect();
        for handle in handles {
            let _opened = handle.table();
        }
    }

    /// The heap that open tables hold, in bytes, without cached blocks.
    pub(crate) fn open_memory_bytes(&self) -> u64 {
        self.totals.memory_bytes.load(Ordering::Relaxed)
    }

    /// The bytes of all mappings.
    pub(crate) fn mapped_bytes(&self) -> u64 {
        self.totals.mapped_bytes.load(Ordering::Relaxed)
    }

    /// How many tables are open, pinned ones included.
    pub(crate) fn open_tables(&self) -> u64 {
        self.totals.tables.load(Ordering::Relaxed)
    }

    /// How many tables are open only because a cursor still reads them.
    pub(crate) fn pinned_tables(&self) -> u64 {
        let places = self.clock.lock().places.clone();
        let cached = places.iter().filter_map(Weak::upgrade).filter(|handle| handle.is_open()).count();
        self.open_tables().saturating_sub(cached as u64)
    }

    /// The block cache that the tables share.
    pub(crate) fn block_cache(&self) -> &Arc<BlockCache> {
        &self.block_cache
    }

    fn open(&self, meta: &TableMeta) -> Result<Arc<Table>> {
        // Two opening at once may pass the limit together, by one table: it is soft.
        let fits = self.mapped_bytes().saturating_add(meta.file_bytes) <= self.limits.mmap_limit_bytes;
        let mode = if self.limits.mmap_reads && fits { ReadMode::Map } else { ReadMode::Pread };
        let path = table_path(&self.dir, meta.number);
        let mut table = Table::open(&*self.fs, &path, meta.number, mode, &self.block_cache)?;
        table.number_as(meta);
        table.set_lease(OpenLease::new(&self.totals, &table));
        Ok(Arc::new(table))
    }

    /// Gives `handle`, which was just opened, a place, and closes others until the open tables are within their bounds
    /// again.
    fn admit(&self, handle: &Arc<TableHandle>) {
        let mut ring = self.clock.lock();
        ring.places.push(Arc::downgrade(handle));
        // Relaxed: see `open_all`.
        if self.keep_all.load(Ordering::Relaxed) {
            return;
        }
        let mut freed_bytes = 0;
        let mut victims = Vec::new();
        while ring.places.len() > self.limits.max_open_tables
            || (self.open_memory_bytes().saturating_sub(freed_bytes) > self.limits.max_memory_bytes
                && ring.places.len() > 1)
        {
            let Some(victim) = ring.evict(handle) else { break };
            freed_bytes += victim.memory_bytes();
            victims.push(victim);
        }
        // Not under the lock: closing a table unmaps it, and this may be the last reference to its handle.
        drop(ring);
        victims.iter().for_each(|victim| victim.close());
    }
}

impl ClockRing {
    /// Takes the next handle that was not used since the hand last came by out of the ring; never `except`. Handles
    /// that are gone go on the way. `None` if there is no other.
    fn evict(&mut self, except: &Arc<TableHandle>) -> Option<Arc<TableHandle>> {
        // Ends within two rounds: the first clears every flag that nobody sets again meanwhile; after that any handle
        // goes.
        for step in 0..=2 * self.places.len() {
            if self.places.is_empty() {
                return None;
            }
            self.hand %= self.places.len();
            let candidate = self.places[self.hand].upgrade();
            match candidate {
                Some(candidate) if Arc::ptr_eq(&candidate, except) => self.hand += 1,
                Some(candidate) if candidate.take_used() && step < self.places.len() => self.hand += 1,
                Some(candidate) => {
                    self.places.swap_remove(self.hand);
                    return Some(candidate);
                }
                None => {
                    self.places.swap_remove(self.hand);
                }
            }
        }
        None
    }
}

/// One live table file, shared by all versions it is part of.
pub(crate) struct TableHandle {
    /// What the manifest knows.
    pub(crate) meta: TableMeta,
    cache: Arc<TableCache>,
    table: ArcSwapOption<Table>,
    /// Read since the clock's hand last came by.
    used: AtomicBool,
    obsolete: AtomicBool,
    /// Data blocks, known once the table was open.
    blocks: AtomicU32,
    /// Held while the table is being opened, so that it is opened once.
    opening: Mutex<()>,
}

/// An open table, held for the length of a read without touching a reference count.
pub(crate) struct TableGuard(Guard<Option<Arc<Table>>>);

impl Deref for TableGuard {
    type Target = Table;
    #[inline]
    fn deref(&self) -> &Table {
        match &*self.0 {
            Some(table) => table,
            // Both places that make a guard check that there is a table in it, and a guard never changes.
            None => unreachable!("a table guard without a table"),
        }
    }
}

impl TableHandle {
    /// A handle of the table that `meta` describes. Opens nothing.
    pub(crate) fn new(meta: TableMeta, cache: Arc<TableCache>) -> Arc<Self> {
        let handle = Arc::new(TableHandle {
            meta,
            cache: cache.clone(),
            table: ArcSwapOption::empty(),
            used: AtomicBool::new(false),
            obsolete: AtomicBool::new(false),
            blocks: AtomicU32::new(0),
            opening: Mutex::new(()),
        });
        cache.handles.lock().add(&handle);
        handle
    }

    /// The table, opened if it is not. Without a lock when it is open.
    ///
    /// # Errors
    /// Those of [`Table::open`]; the next call tries again.
    #[inline]
    pub(crate) fn table(self: &Arc<Self>) -> Result<TableGuard> {
        let guard = self.table.load();
        if guard.is_some() {
            self.set_used();
            return Ok(TableGuard(guard));
        }
        let table = self.open()?;
        Ok(TableGuard(Guard::from_inner(Some(table))))
    }

    /// The table, opened if it is not, to be held for long: it stays readable after it left the table cache.
    ///
    /// # Errors
    /// Those of [`Table::open`].
    pub(crate) fn table_arc(self: &Arc<Self>) -> Result<Arc<Table>> {
        match self.table.load_full() {
            Some(table) => {
                self.set_used();
                Ok(table)
            }
            None => self.open(),
        }
    }

    #[cold]
    fn open(self: &Arc<Self>) -> Result<Arc<Table>> {
        let _opening = self.opening.lock();
        if let Some(table) = self.table.load_full() {
            return Ok(table);
        }
        let table = self.cache.open(&self.meta)?;
        // Relaxed: read in `drop`, which the last `Arc` orders after this.
        self.blocks.store(table.properties().data_blocks as u32, Ordering::Relaxed);
        self.set_used();
        // In this order: once it has a place it may be closed again, and a table stored after that would never be.
        self.table.store(Some(Arc::clone(&table)));
        self.cache.admit(self);
        Ok(table)
    }

    /// The file is to be deleted as soon as the last `Arc` of this handle goes: no version and no reader needs it any
    /// longer.
    pub(crate) fn mark_obsolete(&self) {
        // Relaxed: read in `drop`, which the last `Arc` orders after this.
        self.obsolete.store(true, Ordering::Relaxed);
    }

    /// The heap that the table holds while it is open, in bytes.
    fn memory_bytes(&self) -> u64 {
        self.table.load().as_ref().map_or(0, |table| table.memory_bytes())
    }

    /// Whether the table is in the table cache.
    fn is_open(&self) -> bool {
        self.table.load().is_some()
    }

    #[inline]
    fn set_used(&self) {
        // Relaxed: a hint for eviction. It is stored only when clear, so that readers on several cores share its cache
        // line.
        if !self.used.load(Ordering::Relaxed) {
            self.used.store(true, Ordering::Relaxed);
        }
    }

    /// Clears the used flag; answers with what it was.
    fn take_used(&self) -> bool {
        // Relaxed: a hint.
        self.used.swap(false, Ordering::Relaxed)
    }

    fn close(&self) {
        self.table.store(None);
    }
}

impl Drop for TableHandle {
    fn drop(&mut self) {
        // Relaxed: `Arc` orders all uses of the handle before its drop.
        if self.obsolete.load(Ordering::Relaxed) {
            self.table.store(None);
            self.cache.block_cache.remove_table(self.meta.number, self.blocks.load(Ordering::Relaxed));
            self.cache.purger.push(table_path(&self.cache.dir, self.meta.number));
        }
    }
}

impl fmt::Debug for TableHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TableHandle").field("meta", &self.meta).field("open", &self.is_open()).finish_non_exhaustive()
    }
}
