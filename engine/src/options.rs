//! How a database and a keyspace are opened.

use std::sync::Arc;

use crate::clock::{Clock, SystemClock};
use crate::compaction::order::PickOrder;
use crate::error::{Error, Result};
use crate::fs::{FileSystem, OsFileSystem};

/// The least [`Options::memory_bytes`] allows.
pub const MIN_MEMORY_BYTES: usize = 4 << 20;

/// What an acknowledged write survives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum Durability {
    /// Not logged: lost with the process unless its keyspace was flushed since, and never seen by
    /// [`Db::changes`](crate::Db::changes). For data that can be made anew.
    NoLog,
    /// Survives a killed process at any instruction; after a power cut the database is a prefix of the writes.
    #[default]
    Buffered,
    /// Survives power loss: acknowledged only once the log is on storage.
    Synced,
}

/// How table blocks are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum Compression {
    /// As they are: they can be read in place.
    None,
    /// LZ4 on the bottom level, nothing above it, where data is short-lived.
    #[default]
    Lz4Bottom,
    /// LZ4 on every level.
    Lz4,
}

/// Which structure holds a keyspace's newest writes in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum MemtableKind {
    /// A B+ tree for one writer and readers without locks.
    #[default]
    BTree,
    /// A skiplist of single entries (`crossbeam-skiplist`): slower, and the measure the tree is tested against.
    SkipList,
}

/// How a [`Db`](crate::Db) is opened, in the manner of [`std::fs::OpenOptions`].
///
/// ```
/// # let dir = tempfile::tempdir().unwrap();
/// use siltstone::{Durability, Options};
/// let db = Options::new().memory_bytes(64 << 20).durability(Durability::Synced).open(dir.path())?;
/// # Ok::<(), siltstone::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Options {
    pub(crate) memory_bytes: usize,
    pub(crate) memtable_bytes: Option<usize>,
    pub(crate) block_cache_bytes: Option<usize>,
    pub(crate) durability: Durability,
    pub(crate) read_only: bool,
    pub(crate) create_if_missing: bool,
    pub(crate) mmap_reads: bool,
    pub(crate) mmap_limit_bytes: Option<u64>,
    pub(crate) max_open_tables: usize,
    pub(crate) background_threads: usize,
    pub(crate) compaction_bytes_per_second: Option<u64>,
    pub(crate) wal_segment_bytes: Option<u64>,
    pub(crate) max_wal_bytes: Option<u64>,
    pub(crate) max_retained_wal_bytes: u64,
    pub(crate) file_system: Arc<dyn FileSystem>,
    pub(crate) clock: Arc<dyn Clock>,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            memory_bytes: 256 << 20,
            memtable_bytes: None,
            block_cache_bytes: None,
            durability: Durability::default(),
            read_only: false,
            create_if_missing: true,
            mmap_reads: true,
            mmap_limit_bytes: None,
            max_open_tables: 1000,
            background_threads: 2,
            compaction_bytes_per_second: None,
            wal_segment_bytes: None,
            max_wal_bytes: None,
            max_retained_wal_bytes: 4 << 30,
            file_system: Arc::new(OsFileSystem),
            clock: Arc::new(SystemClock::default()),
        }
    }
}

impl Options {
    /// The defaults: 256 MiB of memory, [`Durability::Buffered`], created if missing.
    pub fn new() -> Self {
        Options::default()
    }

    /// The one memory budget, in bytes: memtables, block cache and what the engine keeps of tables stay inside it (+10
    /// %). At least 4 MiB ([`MIN_MEMORY_BYTES`]). Default 256 MiB. Pages of mapped tables are the operating system's
    /// cache and do not count; nor does a memtable that was flushed, or whose keyspace was dropped, as long as a snapshot,
    /// an iterator or a value still holds it.
    pub fn memory_bytes(mut self, bytes: usize) -> Self {
        self.memory_bytes = bytes;
        self
    }

    /// The size at which a memtable is sealed and flushed, in bytes, at least 4 KiB and at most half of
    /// [`memory_bytes`](Self::memory_bytes). Default: a quarter of the budget.
    pub fn memtable_bytes(mut self, bytes: usize) -> Self {
        self.memtable_bytes = Some(bytes);
        self
    }

    /// The block cache's share of the budget, in bytes, at most half of it. Default: a quarter.
    pub fn block_cache_bytes(mut self, bytes: usize) -> Self {
        self.block_cache_bytes = Some(bytes);
        self
    }

    /// What [`Db::write`](crate::Db::write) and the keyspaces' writes promise. Default [`Durability::Buffered`].
    pub fn durability(mut self, durability: Durability) -> Self {
        self.durability = durability;
        self
    }

    /// Opens without changing a byte: reads the tables and the log that a closed or killed writer left. Writes give
    /// [`Error::ReadOnly`]; a directory that a writer holds gives [`Error::Locked`].
    pub fn read_only(mut self, read_only: bool) -> Self {
        self.read_only = read_only;
        self
    }

    /// Whether a directory without a database gets a new one (default), or is an error.
    pub fn create_if_missing(mut self, create: bool) -> Self {
        self.create_if_missing = create;
        self
    }

    /// Whether uncompressed tables are read through memory mappings (default): fastest, but a failing disk then is a
    /// signal instead of an [`Error::Io`].
    pub fn mmap_reads(mut self, mmap: bool) -> Self {
        self.mmap_reads = mmap;
        self
    }

    /// How many bytes of tables may be mapped; tables opened beyond are read with system calls through the block cache.
    /// Default: eight times the memory that the process may use (of its control group, or the machine's).
    pub fn mmap_limit_bytes(mut self, bytes: u64) -> Self {
        self.mmap_limit_bytes = Some(bytes);
        self
    }

    /// How many tables are kept open at most, 16 or more. Default 1,000.
    pub fn max_open_tables(mut self, tables: usize) -> Self {
        self.max_open_tables = tables;
        self
    }

    /// How many threads flush and compact, 1 to 64. Default 2.
    pub fn background_threads(mut self, threads: usize) -> Self {
        self.background_threads = threads;
        self
    }

    /// How many bytes a second compactions may write, all together, 64 KiB or more. Default: no limit. Flushes are not
    /// limited: writers wait for them.
    pub fn compaction_bytes_per_second(mut self, bytes: u64) -> Self {
        self.compaction_bytes_per_second = Some(bytes);
        self
    }

    /// The size of a full-grown log segment in bytes, at least 64 KiB. Default: a 32nd of the memory budget, at
    /// most 16 MiB. The first segments of a database are smaller.
    pub fn wal_segment_bytes(mut self, bytes: u64) -> Self {
        self.wal_segment_bytes = Some(bytes);
        self
    }

    /// How large the log may grow before the memtable that pins its oldest segment is flushed, in bytes. Default: the
    /// memory budget.
    pub fn max_wal_bytes(mut self, bytes: u64) -> Self {
        self.max_wal_bytes = Some(bytes);
        self
    }

    /// How many bytes of log a lagging change cursor may hold back; past it the cursor is invalidated with
    /// [`Error::NotRetained`]. Default 4 GiB.
    pub fn max_retained_wal_bytes(mut self, bytes: u64) -> Self {
        self.max_retained_wal_bytes = bytes;
        self
    }

    /// Where the database lives; default the operating system's files. See [`crate::fs`].
    pub fn file_system(mut self, file_system: Arc<dyn FileSystem>) -> Self {
        self.file_system = file_system;
        self
    }

    /// What tells the time; default the system's monotonic clock.
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// Checks every option against its bounds.
    pub(crate) fn check(&self) -> Result<()> {
        let half = self.memory_bytes as u64 / 2;
        let limits = self.limits();
        in_bounds("memory_bytes", self.memory_bytes as u64, MIN_MEMORY_BYTES as u64, u64::MAX)?;
        in_bounds("memtable_bytes", limits.memtable_bytes as u64, 4 << 10, half)?;
        in_bounds("block_cache_bytes", limits.block_cache_bytes as u64, 0, half)?;
        in_bounds("max_open_tables", self.max_open_tables as u64, 16, u64::MAX)?;
        in_bounds("background_threads", self.background_threads as u64, 1, 64)?;
        in_bounds(
            "compaction_bytes_per_second",
            self.compaction_bytes_per_second.unwrap_or(1 << 20),
            64 << 10,
            u64::MAX,
        )?;
        in_bounds("wal_segment_bytes", limits.wal_segment_bytes, 64 << 10, 1 << 30)?;
        in_bounds("max_wal_bytes", limits.max_wal_bytes, limits.wal_segment_bytes, u64::MAX)
    }

    /// The parts of the memory budget, and the log's sizes that follow from it.
    pub(crate) fn limits(&self) -> Limits {
        let memory_bytes = self.memory_bytes;
        Limits {
            memtable_bytes: self.memtable_bytes.unwrap_or(memory_bytes / 4),
            write_buffer_bytes: memory_bytes / 2,
            block_cache_bytes: self.block_cache_bytes.unwrap_or(memory_bytes / 4),
            table_memory_bytes: memory_bytes / 8,
            buffer_bytes: (memory_bytes / 64).clamp(64 << 10, 2 << 20).next_power_of_two(),
            wal_segment_bytes: self.wal_segment_bytes.unwrap_or((memory_bytes as u64 / 32).clamp(64 << 10, 16 << 20)),
            max_wal_bytes: self.max_wal_bytes.unwrap_or(memory_bytes as u64),
        }
    }
}

/// How the memory budget is divided.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// One memtable, when it is sealed.
    pub(crate) memtable_bytes: usize,
    /// All memtables together, active and sealed.
    pub(crate) write_buffer_bytes: usize,
    pub(crate) block_cache_bytes: usize,
    /// What open tables hold on the heap.
    pub(crate) table_memory_bytes: usize,
    /// What a table being written is appended in at most, and what a memtable's memory grows by: a power of two.
    pub(crate) buffer_bytes: usize,
    /// A full-grown log segment.
    pub(crate) wal_segment_bytes: u64,
    /// The log, before the memtable that pins its oldest segment is flushed.
    pub(crate) max_wal_bytes: u64,
}

/// How a keyspace's tree is shaped. Stored with the keyspace; the options of the latest
/// [`Db::keyspace`](crate::Db::keyspace) call hold for everything written from then on.
///
/// ```
/// use siltstone::{Compression, KeyspaceOptions};
/// let options = KeyspaceOptions::new().block_bytes(16 << 10).compression(Compression::None);
/// # let _ = options;
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyspaceOptions {
    pub(crate) block_bytes: u32,
    pub(crate) filter_bits_per_key: u32,
    pub(crate) compression: Compression,
    pub(crate) level0_trigger: u32,
    pub(crate) level_ratio: u32,
    pub(crate) dynamic_levels: bool,
    pub(crate) base_level_bytes: Option<u64>,
    pub(crate) target_table_bytes: Option<u64>,
    pub(crate) memtable: MemtableKind,
    /// Not kept in the manifest.
    pub(crate) pick_order: PickOrder,
}

impl Default for KeyspaceOptions {
    fn default() -> Self {
        KeyspaceOptions {
            block_bytes: 4096,
            filter_bits_per_key: 10,
            compression: Compression::default(),
            level0_trigger: 4,
            level_ratio: 10,
            dynamic_levels: true,
            base_level_bytes: None,
            target_table_bytes: None,
            memtable: MemtableKind::default(),
            pick_order: PickOrder::default(),
        }
    }
}

impl KeyspaceOptions {
    /// The defaults.
    pub fn new() -> Self {
        KeyspaceOptions::default()
    }

    /// The size of a table block before compression, 1 B to 1 MiB; a block has at least one entry, whatever its size.
    /// Small blocks favour gets, large ones scans. Default 4 KiB.
    pub fn block_bytes(mut self, bytes: u32) -> Self {
        self.block_bytes = bytes;
        self
    }

    /// Bloom filter bits a key, 0 (no filter) to 32. Default 10: about 1 % false positives.
    pub fn filter_bits_per_key(mut self, bits: u32) -> Self {
        self.filter_bits_per_key = bits;
        self
    }

    /// Which levels are compressed. Default [`Compression::Lz4Bottom`].
    pub fn compression(mut self, compression: Compression) -> Self {
        self.compression = compression;
        self
    }

    /// How many level-0 tables start a compaction, 1 to 64: or fewer that hold as much together, where flushes wrote several
    /// memtables into one. Default 4.
    pub fn level0_trigger(mut self, tables: u32) -> Self {
        self.level0_trigger = tables;
        self
    }

    /// How many times larger each level is than the one above it, 2 to 100. Default 10.
    pub fn level_ratio(mut self, ratio: u32) -> Self {
        self.level_ratio = ratio;
        self
    }

    /// Whether level targets follow the size of the bottom level (default), which keeps space amplification near 1 +
    /// 1/ratio.
    pub fn dynamic_levels(mut self, dynamic: bool) -> Self {
        self.dynamic_levels = dynamic;
        self
    }

    /// The target size of the first level under level 0, in bytes, 64 KiB or more. Default: four memtables.
    pub fn base_level_bytes(mut self, bytes: u64) -> Self {
        self.base_level_bytes = Some(bytes);
        self
    }

    /// The target size of a table, in bytes, 4 KiB to 1 GiB. Default: half a memtable, 64 KiB to 64 MiB.
    pub fn target_table_bytes(mut self, bytes: u64) -> Self {
        self.target_table_bytes = Some(bytes);
        self
    }

    /// Which structure holds the newest writes.
    pub fn memtable(mut self, kind: MemtableKind) -> Self {
        self.memtable = kind;
        self
    }

    pub(crate) fn check(&self) -> Result<()> {
        in_bounds("block_bytes", self.block_bytes.into(), 1, 1 << 20)?;
        in_bounds("filter_bits_per_key", self.filter_bits_per_key.into(), 0, 32)?;
        in_bounds("level0_trigger", self.level0_trigger.into(), 1, 64)?;
        in_bounds("level_ratio", self.level_ratio.into(), 2, 100)?;
        in_bounds("base_level_bytes", self.base_level_bytes.unwrap_or(1 << 20), 64 << 10, u64::MAX)?;
        in_bounds("target_table_bytes", self.target_table_bytes.unwrap_or(1 << 20), 4 << 10, 1 << 30)
    }
}

fn in_bounds(name: &str, value: u64, least: u64, most: u64) -> Result<()> {
    if (least..=most).contains(&value) {
        return Ok(());
    }
    let most = if most == u64::MAX { String::new() } else { format!(" and at most {most}") };
    Err(Error::InvalidArgument(format!("{name} must be at least {least}{most}, not {value}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_out_of_bounds_name_what_is_allowed() {
        let refused = |options: Options| matches!(options.check(), Err(Error::InvalidArgument(_)));
        assert!(Options::new().check().is_ok());
        assert!(Options::new().memory_bytes(MIN_MEMORY_BYTES).check().is_ok());
        assert!(refused(Options::new().memory_bytes(MIN_MEMORY_BYTES - 1)));
        assert!(refused(Options::new().memtable_bytes(200 << 20)));
        assert!(refused(Options::new().background_threads(0)));
        assert!(KeyspaceOptions::new().check().is_ok());
        assert!(KeyspaceOptions::new().level_ratio(1).check().is_err());
        assert!(KeyspaceOptions::new().block_bytes(0).check().is_err());
    }
}
