//! fjall.

use std::ops::Bound;
use std::path::{Path, PathBuf};

use fjall::config::{BlockSizePolicy, BloomConstructionPolicy, CompressionPolicy, FilterPolicy, FilterPolicyEntry};
use fjall::{CompressionType, Database, Guard, Keyspace, KeyspaceCreateOptions, PersistMode};

use super::quiet::wait_until_quiet;
use crate::engines::{Accounts, Direction, Engine};
use crate::error::{Error, Result};
use crate::settings::{BACKGROUND_THREADS, Compression, Durability, FILTER_BITS_PER_KEY, Settings};

/// How its background threads are called.
const THREADS: &str = "fjall";

/// The number of its levels.
const LEVELS: usize = 7;

/// One keyspace of a fjall database.
pub struct Fjall {
    db: Database,
    keyspace: Keyspace,
    synced: bool,
    dir: PathBuf,
}

fn fault(error: impl std::fmt::Display) -> Error {
    Error::engine(Fjall::NAME, error)
}

fn keyspace_options(settings: &Settings) -> KeyspaceCreateOptions {
    let compression = match settings.compression {
        Compression::None => CompressionPolicy::disabled(),
        Compression::Lz4Bottom => {
            let mut levels = [CompressionType::None; LEVELS];
            levels[LEVELS - 1] = CompressionType::Lz4;
            CompressionPolicy::new(levels)
        }
        Compression::Lz4 => CompressionPolicy::all(CompressionType::Lz4),
    };
    let filter = FilterPolicyEntry::Bloom(BloomConstructionPolicy::BitsPerKey(FILTER_BITS_PER_KEY as f32));
    KeyspaceCreateOptions::default()
        .max_memtable_size(settings.memtable_bytes() as u64)
        .data_block_size_policy(BlockSizePolicy::all(settings.block_bytes))
        .data_block_compression_policy(compression)
        .filter_policy(FilterPolicy::all(filter))
}

/// Visits up to `limit` entries; how many there were.
fn visit_all(
    entries: impl Iterator<Item = Guard>,
    limit: usize,
    mut visit: impl FnMut(&[u8], &[u8]) -> Result<()>,
) -> Result<u64> {
    let mut count = 0;
    for entry in entries.take(limit) {
        let (key, value) = entry.into_inner().map_err(fault)?;
        visit(&key, &value)?;
        count += 1;
    }
    Ok(count)
}

impl Fjall {
    #[inline]
    fn acknowledge(&self) -> Result<()> {
        if self.synced { self.db.persist(PersistMode::SyncData).map_err(fault) } else { Ok(()) }
    }
}

impl Engine for Fjall {
    const NAME: &'static str = "fjall";

    const NOTES: &'static str = "Every write is a write(2) into its journal before it is acknowledged (`buffered`); \
        `synced` is a `persist(SyncData)` after each write, as its documentation has it. It has no writes without its \
        journal: `no-log` is `buffered`. Bloom filters of 10 bits a key, two worker threads. The number of memtables \
        cannot be set. Gets answer values that can be kept. Bulk loads: `start_ingestion`. It has no call to wait for \
        compaction: it is idle when its threads have slept and its files have not changed for 0.2 s, which its time to \
        idle includes. It does not count the bytes that it writes, nor tell its levels.";

    fn open(dir: &Path, settings: &Settings) -> Result<Self> {
        let db = Database::builder(dir)
            .cache_size(settings.cache_bytes() as u64)
            .worker_threads(BACKGROUND_THREADS as usize)
            .open()
            .map_err(fault)?;
        let keyspace = db.keyspace("bench", || keyspace_options(settings)).map_err(fault)?;
        let synced = settings.durability == Durability::Synced;
        Ok(Fjall { db, keyspace, synced, dir: dir.to_owned() })
    }

    fn reopen(dir: &Path, settings: &Settings) -> Result<Self> {
        Self::open(dir, settings)
    }

    #[inline]
    fn put(&self, key: &[u8], value: &[u8]) -> Result<()> {
        self.keyspace.insert(key, value).map_err(fault)?;
        self.acknowledge()
    }

    fn put_batch(&self, puts: &[(Vec<u8>, Vec<u8>)]) -> Result<()> {
        let mut batch = self.db.batch().durability(self.synced.then_some(PersistMode::SyncData));
        for (key, value) in puts {
            batch.insert(&self.keyspace, key.as_slice(), value.as_slice());
        }
        batch.commit().map_err(fault)
    }

    fn bulk_load<K: AsRef<[u8]>, V: AsRef<[u8]>>(&self, entries: impl Iterator<Item = (K, V)>) -> Result<u64> {
        let mut ingestion = self.keyspace.start_ingestion().map_err(fault)?;
        let mut count = 0;
        for (key, value) in entries {
            ingestion.write(key.as_ref(), value.as_ref()).map_err(fault)?;
            count += 1;
        }
        ingestion.finish().map_err(fault)?;
        Ok(count)
    }

    #[inline]
    fn delete(&self, key: &[u8]) -> Result<()> {
        self.keyspace.remove(key).map_err(fault)?;
        self.acknowledge()
    }

    #[inline]
    fn get<R>(&self, key: &[u8], visit: impl FnOnce(&[u8]) -> R) -> Result<Option<R>> {
        let value = self.keyspace.get(key).map_err(fault)?;
        Ok(value.map(|value| visit(&value)))
    }

    fn scan(
        &self,
        from: Option<&[u8]>,
        direction: Direction,
        limit: usize,
        visit: impl FnMut(&[u8], &[u8]) -> Result<()>,
    ) -> Result<u64> {
        let from = from.map_or(Bound::Unbounded, Bound::Included);
        match direction {
            Direction::Forward => visit_all(self.keyspace.range::<&[u8], _>((from, Bound::Unbounded)), limit, visit),
            Direction::Reverse => {
                visit_all(self.keyspace.range::<&[u8], _>((Bound::Unbounded, from)).rev(), limit, visit)
            }
        }
    }

    fn flush(&self) -> Result<()> {
        self.keyspace.rotate_memtable_and_wait().map_err(fault)
    }

    fn settle(&self) -> Result<()> {
        wait_until_quiet(&self.dir, THREADS, || self.db.outstanding_flushes() > 0 || self.db.active_compactions() > 0);
        Ok(())
    }

    fn accounts(&self) -> Accounts {
        Accounts {
            table_bytes: Some(self.keyspace.disk_space()),
            details: format!(
                "{} tables ({} in level 0), {} compactions in {:.1} s, {} journals of {} bytes\n",
                self.keyspace.table_count(),
                self.keyspace.l0_table_count(),
                self.db.compactions_completed(),
                self.db.time_compacting().as_secs_f64(),
                self.db.journal_count(),
                self.db.journal_disk_space().unwrap_or(0),
            ),
            ..Accounts::default()
        }
    }

    fn close(self) -> Result<()> {
        self.db.persist(PersistMode::SyncAll).map_err(fault)
    }
}
