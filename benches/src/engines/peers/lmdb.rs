//! LMDB, through `heed`.

use std::ops::Bound;
use std::path::Path;

use heed::types::Bytes;
use heed::{Database, Env, EnvFlags, EnvOpenOptions, PutFlags};

use crate::engines::{Accounts, Direction, Engine};
use crate::error::{Error, Result};
use crate::settings::{Durability, Settings};

/// How much address space an entry gets beyond its key and value, in bytes: page headers, node headers and half-full
/// pages.
const ENTRY_OVERHEAD_BYTES: u64 = 64;

/// How much more address space there is than the entries take: pages that are free, and keys that are inserted later.
const MAP_FACTOR: u64 = 8;

/// More than the threads of any workload.
const MAX_READERS: u32 = 1100;

/// The unnamed database of an LMDB environment.
#[derive(Debug)]
pub struct Lmdb {
    env: Env,
    database: Database<Bytes, Bytes>,
}

fn fault(error: impl std::fmt::Display) -> Error {
    Error::engine(Lmdb::NAME, error)
}

/// The size of the map, in bytes: LMDB cannot grow beyond it, and takes no storage for what is unused.
fn map_bytes(settings: &Settings) -> usize {
    let entry_bytes = (settings.key_bytes + settings.value_bytes) as u64 + ENTRY_OVERHEAD_BYTES;
    let bytes = settings.keys.saturating_mul(entry_bytes).saturating_mul(MAP_FACTOR).saturating_add(1 << 30);
    // A multiple of any page size; 2^46 bytes fit the address space.
    bytes.min(1 << 46).next_multiple_of(1 << 20) as usize
}

fn flags(settings: &Settings) -> EnvFlags {
    let durability = match settings.durability {
        Durability::Synced => EnvFlags::empty(),
        Durability::Buffered | Durability::NoLog => EnvFlags::NO_SYNC | EnvFlags::WRITE_MAP,
    };
    // What LMDB's documentation recommends for data larger than memory.
    let larger_than_memory = settings.memory_limit_mib.is_some();
    durability | if larger_than_memory { EnvFlags::NO_READ_AHEAD } else { EnvFlags::empty() }
}

#[allow(unsafe_code)]
fn open_env(dir: &Path, settings: &Settings) -> heed::Result<Env> {
    let mut options = EnvOpenOptions::new();
    options.map_size(map_bytes(settings)).max_readers(MAX_READERS);
    // SAFETY: The directory is a temporary one of this benchmark: no other process opens it while this one does, its
    // files are changed through LMDB only, and it is no network file system. The flags give up durability on power loss
    // alone, which is what the settings ask for: dirty pages stay with the operating system if the process dies.
    unsafe { options.flags(flags(settings)).open(dir) }
}

/// Visits up to `limit` entries; how many there were.
fn visit_all<'a>(
    entries: impl Iterator<Item = heed::Result<(&'a [u8], &'a [u8])>>,
    limit: usize,
    mut visit: impl FnMut(&[u8], &[u8]) -> Result<()>,
) -> Result<u64> {
    let mut count = 0;
    for entry in entries.take(limit) {
        let (key, value) = entry.map_err(fault)?;
        visit(key, value)?;
        count += 1;
    }
    Ok(count)
}

impl Engine for Lmdb {
    const NAME: &'static str = "lmdb";

    const NOTES: &'static str = "A B-tree in mapped memory without a log or background work, and without compression. \
        `buffered` is `MDB_NOSYNC | MDB_WRITEMAP`: a transaction is in the operating system's hands when it is \
        committed and survives a killed process, but after power loss LMDB promises no consistent database, where logs \
        promise a prefix of the writes. `no-log` is the same. `synced` has neither flag. Under a memory limit `MDB_NORDAHEAD`. Each put and each get is a \
        transaction of its own; one writer at a time; values are visited in place, in the map. It has no cache of its \
        own and no budget: its memory is the operating system's page cache. Bulk loads: `MDB_APPEND` in one \
        transaction. Scans are read transactions. Keys are at most 511 bytes. A full disk is a signal, not an error, \
        with `MDB_WRITEMAP`.";

    fn open(dir: &Path, settings: &Settings) -> Result<Self> {
        let env = open_env(dir, settings).map_err(fault)?;
        let mut transaction = env.write_txn().map_err(fault)?;
        let database = env.create_database(&mut transaction, None).map_err(fault)?;
        transaction.commit().map_err(fault)?;
        Ok(Lmdb { env, database })
    }

    fn reopen(dir: &Path, settings: &Settings) -> Result<Self> {
        Self::open(dir, settings)
    }

    #[inline]
    fn put(&self, key: &[u8], value: &[u8]) -> Result<()> {
        let mut transaction = self.env.write_txn().map_err(fault)?;
        self.database.put(&mut transaction, key, value).map_err(fault)?;
        transaction.commit().map_err(fault)
    }

    fn put_batch(&self, puts: &[(Vec<u8>, Vec<u8>)]) -> Result<()> {
        let mut transaction = self.env.write_txn().map_err(fault)?;
        for (key, value) in puts {
            self.database.put(&mut transaction, key, value).map_err(fault)?;
        }
        transaction.commit().map_err(fault)
    }

    fn bulk_load<K: AsRef<[u8]>, V: AsRef<[u8]>>(&self, entries: impl Iterator<Item = (K, V)>) -> Result<u64> {
        let mut transaction = self.env.write_txn().map_err(fault)?;
        let mut count = 0;
        for (key, value) in entries {
            let (key, value) = (key.as_ref(), value.as_ref());
            self.database.put_with_flags(&mut transaction, PutFlags::APPEND, key, value).map_err(fault)?;
            count += 1;
        }
        transaction.commit().map_err(fault)?;
        self.env.force_sync().map_err(fault)?;
        Ok(count)
    }

    #[inline]
    fn delete(&self, key: &[u8]) -> Result<()> {
        let mut transaction = self.env.write_txn().map_err(fault)?;
        self.database.delete(&mut transaction, key).map_err(fault)?;
        transaction.commit().map_err(fault)
    }

    #[inline]
    fn get<R>(&self, key: &[u8], visit: impl FnOnce(&[u8]) -> R) -> Result<Option<R>> {
        let transaction = self.env.read_txn().map_err(fault)?;
        let value = self.database.get(&transaction, key).map_err(fault)?;
        Ok(value.map(visit))
    }

    fn scan(
        &self,
        from: Option<&[u8]>,
        direction: Direction,
        limit: usize,
        visit: impl FnMut(&[u8], &[u8]) -> Result<()>,
    ) -> Result<u64> {
        let transaction = self.env.read_txn().map_err(fault)?;
        // LMDB has no empty keys, and takes none: all keys lie above.
        let from = match (from, direction) {
            (Some([]), Direction::Reverse) => return Ok(0),
            (Some([]), Direction::Forward) | (None, _) => Bound::Unbounded,
            (Some(from), _) => Bound::Included(from),
        };
        match direction {
            Direction::Forward => {
                let range = (from, Bound::Unbounded);
                visit_all(self.database.range(&transaction, &range).map_err(fault)?, limit, visit)
            }
            Direction::Reverse => {
                let range = (Bound::Unbounded, from);
                visit_all(self.database.rev_range(&transaction, &range).map_err(fault)?, limit, visit)
            }
        }
    }

    fn settle(&self) -> Result<()> {
        Ok(())
    }

    fn accounts(&self) -> Accounts {
        let stat = self.env.stat();
        let pages = stat.branch_pages + stat.leaf_pages + stat.overflow_pages;
        Accounts {
            table_bytes: Some(pages as u64 * u64::from(stat.page_size)),
            details: format!(
                "depth {}, {} branch pages, {} leaf pages, {} overflow pages of {} bytes; last page {}\n",
                stat.depth,
                stat.branch_pages,
                stat.leaf_pages,
                stat.overflow_pages,
                stat.page_size,
                self.env.info().last_page_number,
            ),
            ..Accounts::default()
        }
    }

    fn close(self) -> Result<()> {
        self.env.prepare_for_closing().wait();
        Ok(())
    }
}
