//! Databases whose data lies where a benchmark wants it.

use siltstone::{Compression, Db, Durability, Keyspace, KeyspaceOptions, Options};
use tempfile::TempDir;

use crate::fixture::{Entries, directory};

/// A database with one keyspace, in a directory that goes with it.
pub struct Store {
    pub keyspace: Keyspace,
    pub db: Db,
    _dir: TempDir,
}

/// Puts between two times that compactions come to their end, while a store of several levels is filled.
const SETTLE_EVERY: usize = 5_000;

impl Store {
    /// An empty one; tables are not compressed.
    fn open(options: Options, keyspace: KeyspaceOptions) -> Self {
        let dir = directory();
        let db = options.open(dir.path()).expect("a database can be created");
        let keyspace = db.keyspace("bench", keyspace.compression(Compression::None)).expect("the options are valid");
        Store { keyspace, db, _dir: dir }
    }

    /// An empty one with the options that a program gets that asks for none, tables uncompressed.
    pub fn with_defaults() -> Self {
        Store::open(Options::new(), KeyspaceOptions::new())
    }

    /// An empty one whose memtable takes 256 MiB before it is flushed.
    pub fn with_large_memtable(durability: Durability) -> Self {
        Store::open(Options::new().memory_bytes(1 << 30).durability(durability), KeyspaceOptions::new())
    }

    /// All entries in one memtable.
    pub fn in_memtable(entries: &Entries) -> Self {
        let store = Store::with_large_memtable(Durability::Buffered);
        store.put_all(entries);
        let metrics = store.keyspace.metrics();
        assert_eq!((metrics.memtable_entries, metrics.sealed_memtables), (entries.len(), 0));
        store
    }

    /// All entries in one table.
    pub fn in_one_table(entries: &Entries) -> Self {
        let store = Store::open(Options::new(), KeyspaceOptions::new().target_table_bytes(1 << 30));
        store.put_all(entries);
        store.keyspace.compact().expect("there is space");
        let tables: Vec<u64> = store.tables_by_level().into_iter().filter(|&tables| tables > 0).collect();
        assert_eq!((tables.as_slice(), store.keyspace.metrics().memtable_entries), (&[1][..], 0));
        store
    }

    /// All entries in tables of `levels` levels at least, settled: nothing is left for compactions to do.
    pub fn in_levels(entries: &Entries, levels: usize) -> Self {
        let options = KeyspaceOptions::new().level_ratio(3).base_level_bytes(256 << 10).target_table_bytes(256 << 10);
        let store = Store::open(Options::new().memtable_bytes(256 << 10).background_threads(1), options);
        for (number, at) in (1..).zip(entries.shuffled()) {
            store.put(entries, at);
            // Compactions that fall behind would bring everything to the bottom at once: how far they do is chance.
            if number % SETTLE_EVERY == 0 {
                store.settle();
            }
        }
        store.settle();
        // What came last lies in level 0, too little of it to be moved on.
        for at in (0..entries.keys.len()).step_by(entries.keys.len() / 1000) {
            store.put(entries, at);
        }
        store.settle();
        store.check(entries);
        let tables = store.tables_by_level();
        let filled = tables.iter().filter(|&&tables| tables > 0).count();
        assert!(filled >= levels, "only {filled} levels have tables: {tables:?}");
        store
    }

    /// Puts all entries in random order.
    fn put_all(&self, entries: &Entries) {
        entries.shuffled().into_iter().for_each(|at| self.put(entries, at));
        self.check(entries);
    }

    fn put(&self, entries: &Entries, at: usize) {
        self.keyspace.put(entries.keys[at], entries.value(at)).expect("there is space");
    }

    fn settle(&self) {
        self.keyspace.flush().expect("there is space");
        self.db.wait_for_compaction().expect("there is space");
    }

    /// Checks a sample of the entries, and of what is between them.
    fn check(&self, entries: &Entries) {
        for (key, value) in entries.iter().step_by(97) {
            assert_eq!(self.keyspace.get(key).expect("the store is intact").as_deref(), Some(value));
        }
        assert!(entries.absent().iter().step_by(97).all(|key| !self.keyspace.contains_key(key).expect("it is intact")));
    }

    fn tables_by_level(&self) -> Vec<u64> {
        self.keyspace.metrics().amplification.levels.iter().map(|level| level.tables).collect()
    }
}
