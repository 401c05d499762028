//! This repository's engine.

use std::ops::Bound;
use std::path::Path;

use siltstone::{Db, Iter, Keyspace, KeyspaceOptions, Options};

use super::{Accounts, Direction, Engine};
use crate::error::{Error, Result};
use crate::settings::{Compression, Durability, Settings};

/// One keyspace of a siltstone database. Gets are plain [`Keyspace::get`], which answers a value that can be kept.
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
    let memory_bytes = settings.memory_mib.saturating_mul(1 << 20);
    let keyspace = KeyspaceOptions::new().block_bytes(settings.block_bytes).compression(compression);
    (Options::new().memory_bytes(memory_bytes).durability(durability), keyspace)
}

/// Visits up to `limit` entries; how many there were.
fn visit_all(
    entries: impl Iterator<Item = <Iter as Iterator>::Item>,
    limit: usize,
    mut visit: impl FnMut(&[u8], &[u8]) -> Result<()>,
) -> Result<u64> {
    let mut count = 0;
    for entry in entries.take(limit) {
        let (key, value) = entry.map_err(fault)?;
        visit(&key, &value)?;
        count += 1;
    }
    Ok(count)
}

impl Engine for Siltstone {
    const NAME: &'static str = "siltstone";

    fn open(dir: &Path, settings: &Settings) -> Result<Self> {
        let (options, keyspace_options) = options(settings);
        let db = options.open(dir).map_err(fault)?;
        let keyspace = db.keyspace("bench", keyspace_options).map_err(fault)?;
        Ok(Siltstone { db, keyspace })
    }

    #[inline]
    fn put(&self, key: &[u8], value: &[u8]) -> Result<()> {
        self.keyspace.put(key, value).map(drop).map_err(fault)
    }

    #[inline]
    fn delete(&self, key: &[u8]) -> Result<()> {
        self.keyspace.delete(key).map(drop).map_err(fault)
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
            Direction::Forward => visit_all(self.keyspace.range::<&[u8]>((from, Bound::Unbounded)), limit, visit),
            Direction::Reverse => visit_all(self.keyspace.range::<&[u8]>((Bound::Unbounded, from)).rev(), limit, visit),
        }
    }

    fn settle(&self) -> Result<()> {
        self.db.wait_for_compaction().map_err(fault)
    }

    fn accounts(&self) -> Accounts {
        let metrics = self.db.metrics();
        let levels = metrics.keyspaces.iter().flat_map(|keyspace| &keyspace.amplification.levels);
        let (written, held) = levels.fold((0, 0), |sum, level| (sum.0 + level.written_bytes, sum.1 + level.file_bytes));
        let wal_bytes: u64 = metrics.keyspaces.iter().map(|keyspace| keyspace.amplification.wal_bytes).sum();
        Accounts { written_bytes: Some(wal_bytes + written), table_bytes: Some(held), details: metrics.to_string() }
    }

    fn close(self) -> Result<()> {
        self.db.close().map_err(fault)
    }
}
