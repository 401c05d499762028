//! Configurations, random ones and the smallest: every one has to give the same answers.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use rand::RngExt;
use rand::rngs::StdRng;
use siltstone::fs::{FileSystem, OsFileSystem, SimFileSystem};
use siltstone::{Clock, Compression, Durability, KeyspaceOptions, MemtableKind, Options};

use crate::steps::rng;

/// How many keyspaces the operations are spread over.
pub const KEYSPACES: usize = 3;

/// What a configuration does between the operations of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Between {
    /// Nothing.
    Nothing,
    /// Closes and opens, after every operation.
    Close,
    /// Drops every handle and opens, after every operation.
    Drop,
    /// Reopens after some operations, in every way.
    Reopen,
    /// Flushes, compacts, syncs and verifies after some operations.
    Upkeep,
}

/// A database's and its keyspaces' options, and what is done between operations.
#[derive(Clone)]
pub struct Config {
    /// What to print to get the same again: an expression.
    pub source: String,
    /// For the database; the filesystem comes from [`file_system`](Config::file_system).
    pub options: Options,
    /// What its writes promise unless they say; also set in `options`.
    pub durability: Durability,
    /// For keyspace 0, 1 and 2.
    pub keyspaces: [KeyspaceOptions; KEYSPACES],
    /// The system's files instead of simulated ones.
    pub real_files: bool,
    /// See [`Between`].
    pub between: Between,
    /// Laid around the filesystem, for tests of the tests.
    pub wrap: fn(Arc<dyn FileSystem>) -> Arc<dyn FileSystem>,
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.source)
    }
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

/// A clock by which sleeping takes no time: what waits by it goes its way at once.
#[derive(Debug, Default)]
pub struct EagerClock(std::sync::Mutex<Duration>);

impl Clock for EagerClock {
    fn now(&self) -> Duration {
        *self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn sleep(&self, duration: Duration) {
        *self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner) += duration;
    }
}

fn one_of<T: Copy>(rng: &mut StdRng, all: &[T]) -> T {
    all[rng.random_range(0..all.len())]
}

impl Config {
    /// [`tiny`] and [`tiny_keyspace`] on simulated files; `source` names it.
    pub fn tiny(source: String) -> Config {
        Config {
            source,
            options: tiny(),
            durability: Durability::Buffered,
            keyspaces: std::array::from_fn(|_| tiny_keyspace()),
            real_files: false,
            between: Between::Nothing,
            wrap: |inner| inner,
        }
    }

    /// The configuration of a seed.
    pub fn seeded(seed: u64) -> Config {
        Config { source: format!("options::Config::seeded({seed})"), ..Config::random(&mut rng(seed)) }
    }

    /// A configuration drawn by `rng`. Its options have a filesystem of their own.
    pub fn random(rng: &mut StdRng) -> Config {
        let durability =
            one_of(rng, &[Durability::Buffered, Durability::Buffered, Durability::Synced, Durability::NoLog]);
        let options = tiny()
            .durability(durability)
            .memtable_bytes(one_of(rng, &[4 << 10, 16 << 10, 64 << 10]))
            .mmap_reads(rng.random())
            .mmap_limit_bytes(one_of(rng, &[0, 20 << 10, 1 << 30]))
            .block_cache_bytes(one_of(rng, &[0, 16 << 10, 1 << 20]))
            .max_open_tables(one_of(rng, &[16, 1000]))
            .background_threads(one_of(rng, &[1, 2, 4]));
        // The real files take long to sync; they are met often enough.
        let real_files = rng.random_bool(0.15);
        let simulated: Arc<dyn FileSystem> = Arc::new(SimFileSystem::new());
        use Between::{Nothing, Reopen, Upkeep};
        Config {
            options: if real_files { options } else { options.file_system(simulated) },
            durability,
            keyspaces: std::array::from_fn(|_| Config::random_keyspace(rng)),
            real_files,
            between: one_of(rng, &[Nothing, Nothing, Nothing, Reopen, Upkeep]),
            ..Config::tiny("a random configuration".to_owned())
        }
    }

    fn random_keyspace(rng: &mut StdRng) -> KeyspaceOptions {
        tiny_keyspace()
            .block_bytes(one_of(rng, &[1, 64, 200, 1024, 4096]))
            .filter_bits_per_key(one_of(rng, &[0, 2, 10, 32]))
            .compression(one_of(rng, &[Compression::None, Compression::Lz4Bottom, Compression::Lz4]))
            .level0_trigger(one_of(rng, &[1, 2, 4]))
            .level_ratio(one_of(rng, &[2, 4, 10]))
            .target_table_bytes(one_of(rng, &[4 << 10, 16 << 10]))
            .dynamic_levels(rng.random())
            .memtable(one_of(rng, &[MemtableKind::BTree, MemtableKind::SkipList]))
    }

    /// Changes the options of all keyspaces.
    pub fn each_keyspace(mut self, change: impl Fn(KeyspaceOptions) -> KeyspaceOptions) -> Self {
        self.keyspaces = self.keyspaces.map(change);
        self
    }

    /// Changes the database's options.
    pub fn database(mut self, change: impl FnOnce(Options) -> Options) -> Self {
        self.options = change(self.options);
        self
    }

    /// Sets what writes promise unless they say.
    pub fn promising(mut self, durability: Durability) -> Self {
        self.durability = durability;
        self.database(|options| options.durability(durability))
    }

    /// A filesystem for one run.
    pub fn file_system(&self) -> Arc<dyn FileSystem> {
        (self.wrap)(if self.real_files { Arc::new(OsFileSystem) } else { Arc::new(SimFileSystem::new()) })
    }
}
