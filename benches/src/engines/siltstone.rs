//! This repository's engine.

use std::ops::{Bound, ControlFlow};
use std::path::Path;

use siltstone::{Db, Keyspace, KeyspaceOptions, LevelSnapshot, Options};

use super::{Accounts, Direction, Engine, LevelShape};
use crate::error::{Error, Result};
use crate::settings::{BACKGROUND_THREADS, Compression, Durability, FILTER_BITS_PER_KEY, Settings};

/// One keyspace of a siltstone database.
#[derive(Debug)]
pub struct Siltstone {
    db: Db,
    keyspace: Keyspace,
}

fn fault(error: siltstone::Error) -> Error {
    Error::engine(Siltstone::NAME, error)
}

fn options(settings: &Settings) -> (Options, KeyspaceOptions) {
    let durability = match settings.durability {
        Durability::NoLog => siltstone::Durability::NoLog,
        Durability::Buffered => siltstone::Durability::Buffered,
        Durability::Synced => siltstone::Durability::Synced,
    };
    let compression = match settings.compression {
        Compression::None => siltstone::Compression::None,
        Compression::Lz4Bottom => siltstone::Compression::Lz4Bottom,
        Compression::Lz4 => siltstone::Compression::Lz4,
    };
    let keyspace = KeyspaceOptions::new()
        .block_bytes(settings.block_bytes)
        .compression(compression)
        .filter_bits_per_key(FILTER_BITS_PER_KEY);
    let options = Options::new()
        .memory_bytes(settings.memory_bytes())
        .block_cache_bytes(settings.cache_bytes())
        .memtable_bytes(settings.memtable_bytes())
        .background_threads(BACKGROUND_THREADS as usize)
        .durability(durability);
    (options, keyspace)
}

fn level_shape(level: u32, from: &LevelSnapshot) -> LevelShape {
    LevelShape {
        level,
        files: from.tables,
        bytes: from.file_bytes,
        written_bytes: from.written_bytes,
        read_bytes: from.read_bytes + from.read_output_level_bytes,
    }
}

impl Engine for Siltstone {
    const NAME: &'static str = "siltstone";

    const NOTES: &'static str = "Gets and scans show values where they lie (`get_with`, `visit`). `buffered` is a log in \
        mapped memory: a killed process loses nothing. Uncompressed tables are read in place from the system's page \
        cache, the block cache holds decoded blocks only.";

    fn open(dir: &Path, settings: &Settings) -> Result<Self> {
        let (options, keyspace_options) = options(settings);
        let db = options.open(dir).map_err(fault)?;
        let keyspace = db.keyspace("bench", keyspace_options).map_err(fault)?;
        Ok(Siltstone { db, keyspace })
    }

    fn reopen(dir: &Path, settings: &Settings) -> Result<Self> {
        Self::open(dir, settings)
    }

    #[inline]
    fn put(&self, key: &[u8], value: &[u8]) -> Result<()> {
        self.keyspace.put(key, value).map(drop).map_err(fault)
    }

    fn put_batch(&self, puts: &[(Vec<u8>, Vec<u8>)]) -> Result<()> {
        self.keyspace.put_all(puts.iter().map(|(key, value)| (key, value))).map(drop).map_err(fault)
    }

    fn bulk_load<K: AsRef<[u8]>, V: AsRef<[u8]>>(&self, entries: impl Iterator<Item = (K, V)>) -> Result<u64> {
        let mut count = 0;
        self.keyspace.ingest(entries.inspect(|_| count += 1)).map_err(fault)?;
        Ok(count)
    }

    #[inline]
    fn delete(&self, key: &[u8]) -> Result<()> {
        self.keyspace.delete(key).map(drop).map_err(fault)
    }

    #[inline]
    fn get<R>(&self, key: &[u8], visit: impl FnOnce(&[u8]) -> R) -> Result<Option<R>> {
        self.keyspace.get_with(key, visit).map_err(fault)
    }

    fn scan(
        &self,
        from: Option<&[u8]>,
        direction: Direction,
        limit: usize,
        mut visit: impl FnMut(&[u8], &[u8]) -> Result<()>,
    ) -> Result<u64> {
        let from = from.map_or(Bound::Unbounded, Bound::Included);
        let mut entries = match direction {
            Direction::Forward => self.keyspace.range::<&[u8]>((from, Bound::Unbounded)),
            Direction::Reverse => self.keyspace.range::<&[u8]>((Bound::Unbounded, from)),
        };
        let mut count = 0;
        let visit = |key: &[u8], value: &[u8]| match visit(key, value) {
            Err(error) => ControlFlow::Break(Err(error)),
            Ok(()) => {
                count += 1;
                if count < limit { ControlFlow::Continue(()) } else { ControlFlow::Break(Ok(())) }
            }
        };
        let ended = match (limit, direction) {
            (0, _) => return Ok(0),
            (_, Direction::Forward) => entries.visit(visit),
            (_, Direction::Reverse) => entries.visit_back(visit),
        };
        ended.map_err(fault)?.break_value().unwrap_or(Ok(()))?;
        Ok(count as u64)
    }

    fn flush(&self) -> Result<()> {
        self.db.flush().map_err(fault)
    }

    fn settle(&self) -> Result<()> {
        self.db.wait_for_compaction().map_err(fault)
    }

    fn accounts(&self) -> Accounts {
        let metrics = self.db.metrics();
        let amplification = &self.keyspace.metrics().amplification;
        let levels: Vec<_> =
            (0..).zip(&amplification.levels).map(|(number, level)| level_shape(number, level)).collect();
        let written: u64 = levels.iter().map(|level| level.written_bytes).sum();
        Accounts {
            written_bytes: Some(amplification.wal_bytes + written),
            table_bytes: Some(levels.iter().map(|level| level.bytes).sum()),
            stall_ns: Some(u64::try_from(metrics.write_delay.as_nanos()).unwrap_or(u64::MAX)),
            levels,
            details: metrics.to_string(),
        }
    }

    fn close(self) -> Result<()> {
        self.db.close().map_err(fault)
    }
}
