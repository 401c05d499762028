//! Random configurations: every one has to give the same answers.

use std::sync::Arc;

use rand::RngExt;
use rand::rngs::StdRng;
use siltstone::fs::SimFileSystem;
use siltstone::{Compression, Durability, KeyspaceOptions, MemtableKind, Options};

/// How many keyspaces the operations are spread over.
pub const KEYSPACES: usize = 3;

/// A database's and its keyspaces' options.
#[derive(Clone, Debug)]
pub struct Config {
    /// For the database.
    pub options: Options,
    /// What its single writes promise; also set in `options`.
    pub durability: Durability,
    /// For keyspace 0, 1 and 2.
    pub keyspaces: [KeyspaceOptions; KEYSPACES],
}

/// Tiny options, so that a few writes already flush, roll and compact.
pub fn tiny() -> Options {
    Options::new().memory_bytes(4 << 20).memtable_bytes(64 << 10).wal_segment_bytes(64 << 10).max_wal_bytes(256 << 10)
}

/// Keyspace options to go with [`tiny`].
pub fn tiny_keyspace() -> KeyspaceOptions {
    KeyspaceOptions::new()
        .block_bytes(512)
        .level0_trigger(2)
        .target_table_bytes(4 << 10)
        .base_level_bytes(64 << 10)
        .level_ratio(4)
}

fn one_of<T: Copy>(rng: &mut StdRng, all: &[T]) -> T {
    all[rng.random_range(0..all.len())]
}

impl Config {
    /// A configuration drawn by `rng`.
    pub fn random(rng: &mut StdRng) -> Config {
        let durability =
            one_of(rng, &[Durability::Buffered, Durability::Buffered, Durability::Synced, Durability::NoLog]);
        let options = tiny()
            .durability(durability)
            .mmap_reads(rng.random())
            .mmap_limit_bytes(one_of(rng, &[0, 20 << 10, 1 << 30]))
            .block_cache_bytes(one_of(rng, &[0, 16 << 10, 1 << 20]))
            .max_open_tables(one_of(rng, &[16, 1000]))
            .background_threads(one_of(rng, &[1, 2, 4]));
        // The real files take long to sync; they are met often enough.
        let simulated = rng.random_bool(0.75);
        let options = if simulated { options.file_system(Arc::new(SimFileSystem::new())) } else { options };
        Config { options, durability, keyspaces: std::array::from_fn(|_| Config::random_keyspace(rng)) }
    }

    fn random_keyspace(rng: &mut StdRng) -> KeyspaceOptions {
        tiny_keyspace()
            .block_bytes(one_of(rng, &[64, 200, 1024, 4096]))
            .filter_bits_per_key(one_of(rng, &[0, 2, 10, 32]))
            .compression(one_of(rng, &[Compression::None, Compression::Lz4Bottom, Compression::Lz4]))
            .level0_trigger(one_of(rng, &[1, 2, 4]))
            .target_table_bytes(one_of(rng, &[4 << 10, 16 << 10]))
            .dynamic_levels(rng.random())
            .memtable(one_of(rng, &[MemtableKind::BTree, MemtableKind::SkipList]))
    }
}
