//! redb.

mod unsynced;

use std::fs::File;
use std::ops::Bound;
use std::path::Path;

use redb::backends::FileBackend;
use redb::{Builder, Database, ReadableDatabase, Table, TableDefinition, WriteTransaction};

use self::unsynced::Unsynced;
use crate::engines::{Accounts, Direction, Engine};
use crate::error::{Error, Result};
use crate::settings::{Durability, Settings};

const FILE_NAME: &str = "bench.redb";

const TABLE: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("bench");

/// One table of a redb database.
pub struct Redb {
    db: Database,
    file: File,
    durability: redb::Durability,
}

fn fault(error: impl std::fmt::Display) -> Error {
    Error::engine(Redb::NAME, error)
}

/// Visits up to `limit` entries; how many there were.
fn visit_all<'a>(
    entries: impl Iterator<Item = redb::Result<Entry<'a>>>,
    limit: usize,
    mut visit: impl FnMut(&[u8], &[u8]) -> Result<()>,
) -> Result<u64> {
    let mut count = 0;
    for entry in entries.take(limit) {
        let (key, value) = entry.map_err(fault)?;
        visit(key.value(), value.value())?;
        count += 1;
    }
    Ok(count)
}

type Entry<'a> = (redb::AccessGuard<'a, &'static [u8]>, redb::AccessGuard<'a, &'static [u8]>);

impl Redb {
    fn begin(&self) -> Result<WriteTransaction> {
        let mut transaction = self.db.begin_write().map_err(fault)?;
        transaction.set_durability(self.durability).map_err(fault)?;
        Ok(transaction)
    }

    /// Does `change` in a transaction of its own.
    fn write<R>(
        &self,
        change: impl FnOnce(&mut Table<'_, &'static [u8], &'static [u8]>) -> redb::Result<R>,
    ) -> Result<R> {
        let transaction = self.begin()?;
        let answer = {
            let mut table = transaction.open_table(TABLE).map_err(fault)?;
            change(&mut table).map_err(fault)?
        };
        transaction.commit().map_err(fault)?;
        Ok(answer)
    }
}

impl Engine for Redb {
    const NAME: &'static str = "redb";

    const NOTES: &'static str = "A copy-on-write B-tree without a log or background work, and without compression. Its \
        `Durability` knows what survives power loss (`Immediate`) and what a killed process loses (`None`); nothing \
        between. `buffered` is `Immediate` over a storage backend whose sync does nothing: each commit is written to \
        the operating system and survives a killed process. `synced` is `Immediate`, `no-log` is `None`. Its cache has \
        the whole memory budget, for it holds the dirty pages as well. Each put and each get is a transaction of its \
        own; one writer at a time; values are visited in place. Bulk loads: one transaction. After a kill it walks all \
        data when it opens, unless commits are slower (`set_quick_repair`, not used here).";

    fn open(dir: &Path, settings: &Settings) -> Result<Self> {
        let path = dir.join(FILE_NAME);
        let file = File::options().read(true).write(true).create(true).truncate(false).open(path).map_err(fault)?;
        let backend = FileBackend::new(file.try_clone().map_err(fault)?).map_err(fault)?;
        let mut builder = Builder::new();
        builder.set_cache_size(settings.memory_bytes());
        let db = match settings.durability {
            Durability::Buffered => builder.create_with_backend(Unsynced(backend)),
            Durability::Synced | Durability::NoLog => builder.create_with_backend(backend),
        };
        let durability = match settings.durability {
            Durability::NoLog => redb::Durability::None,
            Durability::Buffered | Durability::Synced => redb::Durability::Immediate,
        };
        let redb = Redb { db: db.map_err(fault)?, file, durability };
        // Readers want a table that is there.
        redb.write(|_| Ok(()))?;
        Ok(redb)
    }

    fn reopen(dir: &Path, settings: &Settings) -> Result<Self> {
        Self::open(dir, settings)
    }

    #[inline]
    fn put(&self, key: &[u8], value: &[u8]) -> Result<()> {
        self.write(|table| table.insert(key, value).map(drop))
    }

    fn put_batch(&self, puts: &[(Vec<u8>, Vec<u8>)]) -> Result<()> {
        self.write(|table| {
            puts.iter().try_for_each(|(key, value)| table.insert(key.as_slice(), value.as_slice()).map(drop))
        })
    }

    fn bulk_load<K: AsRef<[u8]>, V: AsRef<[u8]>>(&self, entries: impl Iterator<Item = (K, V)>) -> Result<u64> {
        let mut transaction = self.begin()?;
        transaction.set_durability(redb::Durability::Immediate).map_err(fault)?;
        let mut count = 0;
        {
            let mut table = transaction.open_table(TABLE).map_err(fault)?;
            for (key, value) in entries {
                table.insert(key.as_ref(), value.as_ref()).map_err(fault)?;
                count += 1;
            }
        }
        transaction.commit().map_err(fault)?;
        // The backend may have left that out.
        self.file.sync_data().map_err(fault)?;
        Ok(count)
    }

    #[inline]
    fn delete(&self, key: &[u8]) -> Result<()> {
        self.write(|table| table.remove(key).map(drop))
    }

    #[inline]
    fn get<R>(&self, key: &[u8], visit: impl FnOnce(&[u8]) -> R) -> Result<Option<R>> {
        let table = self.db.begin_read().map_err(fault)?.open_table(TABLE).map_err(fault)?;
        let value = table.get(key).map_err(fault)?;
        Ok(value.map(|value| visit(value.value())))
    }

    fn scan(
        &self,
        from: Option<&[u8]>,
        direction: Direction,
        limit: usize,
        visit: impl FnMut(&[u8], &[u8]) -> Result<()>,
    ) -> Result<u64> {
        let table = self.db.begin_read().map_err(fault)?.open_table(TABLE).map_err(fault)?;
        let from = from.map_or(Bound::Unbounded, Bound::Included);
        match direction {
            Direction::Forward => {
                visit_all(table.range::<&[u8]>((from, Bound::Unbounded)).map_err(fault)?, limit, visit)
            }
            Direction::Reverse => {
                visit_all(table.range::<&[u8]>((Bound::Unbounded, from)).map_err(fault)?.rev(), limit, visit)
            }
        }
    }

    fn settle(&self) -> Result<()> {
        Ok(())
    }

    fn accounts(&self) -> Accounts {
        // Its statistics walk the whole tree.
        Accounts::default()
    }

    fn close(self) -> Result<()> {
        self.db.close().map_err(fault)
    }
}
