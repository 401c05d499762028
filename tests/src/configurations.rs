//! The named configurations of the metamorphic runs: each pushes one choice to where it could change an answer.

use std::sync::Arc;

use siltstone::{Compression, Durability, KeyspaceOptions, MemtableKind, Options};

use crate::options::{Between, Config, EagerClock};

/// A name, and what it makes of the tiny configuration.
type Named = (&'static str, fn(Config) -> Config);

/// All of them.
const NAMED: [Named; 46] = [
    ("tiny", |config| config),
    ("as shipped", |config| {
        config.database(|_| Options::new().memory_bytes(16 << 20)).each_keyspace(|_| KeyspaceOptions::new())
    }),
    // ---- tables ----
    ("one entry a block", |config| config.each_keyspace(|keyspace| keyspace.block_bytes(1))),
    ("blocks of 64 bytes", |config| config.each_keyspace(|keyspace| keyspace.block_bytes(64))),
    ("blocks of 64 KiB", |config| config.each_keyspace(|keyspace| keyspace.block_bytes(64 << 10))),
    ("one block a table", |config| config.each_keyspace(|keyspace| keyspace.block_bytes(1 << 20))),
    ("no filters", |config| config.each_keyspace(|keyspace| keyspace.filter_bits_per_key(0))),
    ("filters of one bit", |config| config.each_keyspace(|keyspace| keyspace.filter_bits_per_key(1))),
    ("filters of 32 bits", |config| config.each_keyspace(|keyspace| keyspace.filter_bits_per_key(32))),
    ("no compression", |config| config.each_keyspace(|keyspace| keyspace.compression(Compression::None))),
    ("compression of all", |config| config.each_keyspace(|keyspace| keyspace.compression(Compression::Lz4))),
    ("large tables", |config| config.each_keyspace(|keyspace| keyspace.target_table_bytes(1 << 30))),
    // ---- memory ----
    ("memtables of 4 KiB", |config| config.database(|options| options.memtable_bytes(4 << 10))),
    ("memtables of 16 KiB", |config| config.database(|options| options.memtable_bytes(16 << 10))),
    ("memtables of 2 MiB", |config| config.database(|options| options.memtable_bytes(2 << 20))),
    ("skiplists", |config| config.each_keyspace(|keyspace| keyspace.memtable(MemtableKind::SkipList))),
    ("skiplists of 4 KiB", |config| {
        let config = config.database(|options| options.memtable_bytes(4 << 10));
        config.each_keyspace(|keyspace| keyspace.memtable(MemtableKind::SkipList))
    }),
    // ---- reading ----
    ("pread", |config| config.database(|options| options.mmap_reads(false))),
    ("pread without a cache", |config| {
        config.database(|options| options.mmap_reads(false).block_cache_bytes(0).memtable_bytes(4 << 10))
    }),
    ("pread with a tiny cache", |config| {
        let config = config.database(|options| options.mmap_reads(false).block_cache_bytes(4 << 10));
        config.each_keyspace(|keyspace| keyspace.compression(Compression::Lz4))
    }),
    ("a large cache", |config| config.database(|options| options.mmap_reads(false).block_cache_bytes(2 << 20))),
    ("few mapped bytes", |config| config.database(|options| options.mmap_limit_bytes(20 << 10))),
    ("mapped, uncompressed, small", |config| {
        let config = config.database(|options| options.memtable_bytes(4 << 10));
        config.each_keyspace(|keyspace| keyspace.compression(Compression::None).block_bytes(64))
    }),
    ("few open tables", |config| {
        config.database(|options| options.max_open_tables(16).memtable_bytes(4 << 10).mmap_reads(false))
    }),
    // ---- the log ----
    ("synced", |config| config.promising(Durability::Synced)),
    ("not logged", |config| config.promising(Durability::NoLog)),
    ("not logged, small", |config| {
        config.promising(Durability::NoLog).database(|options| options.memtable_bytes(4 << 10))
    }),
    ("a short log", |config| config.database(|options| options.max_wal_bytes(64 << 10))),
    ("a long log", |config| config.database(|options| options.wal_segment_bytes(1 << 20).max_wal_bytes(1 << 30))),
    // ---- compaction ----
    ("one thread", |config| config.database(|options| options.background_threads(1).memtable_bytes(4 << 10))),
    ("four threads", |config| config.database(|options| options.background_threads(4).memtable_bytes(4 << 10))),
    ("fixed levels", |config| config.each_keyspace(|keyspace| keyspace.dynamic_levels(false))),
    ("a ratio of 2", |config| {
        let config = config.database(|options| options.memtable_bytes(4 << 10));
        config.each_keyspace(|keyspace| keyspace.level_ratio(2).level0_trigger(1))
    }),
    ("a ratio of 100", |config| config.each_keyspace(|keyspace| keyspace.level_ratio(100))),
    ("compaction from one table on", |config| config.each_keyspace(|keyspace| keyspace.level0_trigger(1))),
    ("hardly any compaction", |config| {
        let config = config.database(|options| options.memtable_bytes(4 << 10));
        config.each_keyspace(|keyspace| keyspace.level0_trigger(64))
    }),
    ("a compaction rate", |config| {
        let clock = Arc::new(EagerClock::default());
        config.database(|options| options.compaction_bytes_per_second(64 << 10).clock(clock))
    }),
    ("upkeep between", |config| Config { between: Between::Upkeep, ..config }),
    ("upkeep between, not logged, fixed levels", |config| {
        let config = config.promising(Durability::NoLog).each_keyspace(|keyspace| keyspace.dynamic_levels(false));
        Config { between: Between::Upkeep, ..config }
    }),
    // ---- reopening ----
    ("closed between", |config| Config { between: Between::Close, ..config }),
    ("dropped between", |config| Config { between: Between::Drop, ..config }),
    ("reopened between", |config| {
        let config = config.database(|options| options.memtable_bytes(4 << 10));
        Config { between: Between::Reopen, ..config }
    }),
    ("reopened between, not logged", |config| Config {
        between: Between::Reopen,
        ..config.promising(Durability::NoLog)
    }),
    // ---- the system's files ----
    ("real files", |config| Config { real_files: true, ..config }),
    ("real files, pread, small", |config| {
        let config = config.database(|options| options.mmap_reads(false).memtable_bytes(16 << 10));
        Config { real_files: true, between: Between::Reopen, ..config }
    }),
    // ---- everything at once ----
    ("each keyspace another", |config| {
        let mut config = config.database(|options| options.memtable_bytes(16 << 10).background_threads(4));
        config.keyspaces = [
            config.keyspaces[0].clone().block_bytes(1).filter_bits_per_key(0).level0_trigger(1),
            KeyspaceOptions::new().memtable(MemtableKind::SkipList).compression(Compression::None),
            config.keyspaces[2].clone().block_bytes(1 << 20).compression(Compression::Lz4).dynamic_levels(false),
        ];
        config
    }),
];

/// All named configurations.
pub fn all() -> Vec<Config> {
    NAMED.iter().map(|(name, _)| named(name)).collect()
}

/// The configuration of that name.
///
/// # Panics
/// If there is none.
pub fn named(name: &str) -> Config {
    let found = NAMED.iter().find(|(other, _)| *other == name);
    let (_, change) = found.unwrap_or_else(|| panic!("no configuration {name:?}"));
    change(Config::tiny(format!("configurations::named({name:?})")))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_are_unique_and_options_are_allowed() {
        let names: BTreeSet<_> = NAMED.iter().map(|(name, _)| name).collect();
        assert_eq!(names.len(), NAMED.len());
        for config in all() {
            let db = config.options.clone().file_system(config.file_system());
            let dir = tempfile::tempdir().unwrap();
            let db = db.open(dir.path()).unwrap_or_else(|error| panic!("{config:?}: {error}"));
            for (n, options) in config.keyspaces.iter().enumerate() {
                db.keyspace(n.to_string(), options.clone()).unwrap_or_else(|error| panic!("{config:?}: {error}"));
            }
        }
    }
}
