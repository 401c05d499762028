//! [`Metrics`]: what a database holds and has done.

use std::fmt;
use std::time::Duration;

use crate::compaction::job;
use crate::db::DbHandle;
use crate::key::SeqNo;
use crate::store::Store;
use crate::tree::Tree;

pub use crate::version::amplification::{AmplificationSnapshot, LevelSnapshot};

/// Figures of a whole database; `Display` prints them as tables.
///
/// ```
/// # let dir = tempfile::tempdir().unwrap();
/// # let db = siltstone::Db::open(dir.path())?;
/// # let ks = db.keyspace("words", Default::default())?;
/// ks.put("silt", "1")?;
/// ks.flush()?;
/// let metrics = db.metrics();
/// assert_eq!(metrics.keyspaces[0].amplification.user_bytes, 5);
/// println!("{metrics}");
/// # Ok::<(), siltstone::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Metrics {
    /// The last visible sequence number.
    pub last_seqno: SeqNo,
    /// Memory of the memtables of all keyspaces, active and sealed, in bytes.
    pub memtable_bytes: u64,
    /// Memory of memtables that is kept for the next ones, in bytes.
    pub memtable_pool_bytes: u64,
    /// Memory of the block cache, in bytes.
    pub block_cache_bytes: u64,
    /// Heap memory of open tables (indexes and filters that are not mapped), in bytes.
    pub table_memory_bytes: u64,
    /// Bytes of tables that are mapped; they are the operating system's cache and not part of the memory budget.
    pub mapped_bytes: u64,
    /// Tables that are open.
    pub open_tables: u64,
    /// Tables that left the cache and are held by iterators or pinned values.
    pub pinned_tables: u64,
    /// Live snapshots.
    pub snapshots: u64,
    /// Bytes of records in the log.
    pub wal_bytes: u64,
    /// Bytes of the log's files, prepared and recycled ones included.
    pub wal_file_bytes: u64,
    /// Bytes of log that only change cursors hold back.
    pub wal_retained_bytes: u64,
    /// The highest sequence number known to survive power loss.
    pub synced_seqno: SeqNo,
    /// How long writers were held back by back-pressure, all threads together.
    pub write_delay: Duration,
    /// Why the database takes no writes, if it does not.
    pub read_only_reason: Option<String>,
    /// Each keyspace, by name.
    pub keyspaces: Vec<KeyspaceMetrics>,
}

/// Figures of one keyspace; `Display` prints them as a table.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct KeyspaceMetrics {
    /// Its name.
    pub name: String,
    /// Memory of its memtables, in bytes.
    pub memtable_bytes: u64,
    /// Entries in its memtables.
    pub memtable_entries: u64,
    /// Memtables that wait for their flush.
    pub sealed_memtables: u64,
    /// Compactions under way.
    pub running_compactions: u64,
    /// Bytes that compaction still has to write until every level is at its target.
    pub compaction_debt_bytes: u64,
    /// What each level holds and costs.
    pub amplification: AmplificationSnapshot,
}

impl Metrics {
    pub(crate) fn of(db: &DbHandle) -> Self {
        let store = &*db.store;
        let wal = store.wal.as_deref();
        let wal_bytes = |of: fn(&crate::wal::Wal) -> u64| wal.map_or(0, of);
        Metrics {
            last_seqno: store.visible(),
            memtable_bytes: store.memtable_bytes() as u64,
            memtable_pool_bytes: store.arenas.bytes() as u64,
            block_cache_bytes: store.tables.block_cache().memory_bytes(),
            table_memory_bytes: store.tables.open_memory_bytes(),
            mapped_bytes: store.tables.mapped_bytes(),
            open_tables: store.tables.open_tables(),
            pinned_tables: store.tables.pinned_tables(),
            snapshots: store.snapshots.len() as u64,
            wal_bytes: wal_bytes(crate::wal::Wal::total_bytes),
            wal_file_bytes: wal_bytes(crate::wal::Wal::file_bytes),
            wal_retained_bytes: wal_bytes(crate::wal::Wal::retained_bytes),
            synced_seqno: wal_bytes(crate::wal::Wal::synced_seqno),
            write_delay: db.writer.as_ref().map_or(Duration::ZERO, |writer| writer.pressure.delayed()),
            read_only_reason: store.health.failure(),
            keyspaces: store.live_trees().iter().map(|tree| KeyspaceMetrics::of(tree, store)).collect(),
        }
    }
}

impl KeyspaceMetrics {
    pub(crate) fn of(tree: &Tree, store: &Store) -> Self {
        let (scores, options) = job::scores(store, tree);
        let view = tree.view_arc();
        let memtable_limit_bytes = store.limits.memtable_bytes as u64;
        let amplification =
            tree.amplification.snapshot(&view.version, &scores.scores, memtable_limit_bytes, options.level_ratio);
        KeyspaceMetrics {
            name: tree.name.to_string(),
            memtable_bytes: view.memtables().map(|memtable| memtable.bytes() as u64).sum(),
            memtable_entries: view.memtables().map(|memtable| memtable.entries()).sum(),
            sealed_memtables: view.sealed.len() as u64,
            running_compactions: tree.shape.lock().running().len() as u64,
            compaction_debt_bytes: scores.debt_bytes,
            amplification,
        }
    }
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / (1 << 20) as f64
}

impl fmt::Display for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "memory  memtables {:.1} MiB (+ {:.1} kept), block cache {:.1} MiB, tables {:.1} MiB; mapped {:.1} MiB",
            mib(self.memtable_bytes),
            mib(self.memtable_pool_bytes),
            mib(self.block_cache_bytes),
            mib(self.table_memory_bytes),
            mib(self.mapped_bytes)
        )?;
        writeln!(
            f,
            "log     {:.1} MiB in {:.1} MiB of files, {:.1} MiB for cursors; seqno {}, synced {}",
            mib(self.wal_bytes),
            mib(self.wal_file_bytes),
            mib(self.wal_retained_bytes),
            self.last_seqno,
            self.synced_seqno
        )?;
        writeln!(
            f,
            "in use  {} tables open, {} pinned, {} snapshots; writers delayed {:.3} s",
            self.open_tables,
            self.pinned_tables,
            self.snapshots,
            self.write_delay.as_secs_f64()
        )?;
        if let Some(reason) = &self.read_only_reason {
            writeln!(f, "read-only: {reason}")?;
        }
        self.keyspaces.iter().try_for_each(|keyspace| write!(f, "\n{keyspace}"))
    }
}

impl fmt::Display for KeyspaceMetrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "keyspace {:?}: {} entries in {:.1} MiB of memtables ({} sealed), {} compactions running, debt {:.1} MiB",
            self.name,
            self.memtable_entries,
            mib(self.memtable_bytes),
            self.sealed_memtables,
            self.running_compactions,
            mib(self.compaction_debt_bytes)
        )?;
        writeln!(f, "{}", self.amplification)
    }
}
