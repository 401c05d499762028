//! surrealkv.

use std::path::{Path, PathBuf};

use surrealkv::{CompressionType, LSMIterator, Mode, Options, ReadOptions, Transaction, Tree, TreeBuilder};
use tokio::runtime::{Builder, Runtime};

use super::quiet::wait_until_quiet;
use crate::engines::{Accounts, Direction, Engine};
use crate::error::{Error, Result};
use crate::settings::{Compression, Durability, Settings};

/// How the threads of its runtime are called.
const THREADS: &str = "surrealkv";

/// It has three background tasks (commits, flushes, compactions), and the latter two do not yield while they work.
const RUNTIME_THREADS: usize = 3;

/// Entries of a batch of a bulk load.
const LOAD_BATCH: usize = 1000;

/// A surrealkv tree, with a runtime of its own.
pub struct SurrealKv {
    tree: Tree,
    runtime: Runtime,
    durability: surrealkv::Durability,
    dir: PathBuf,
}

fn fault(error: impl std::fmt::Display) -> Error {
    Error::engine(SurrealKv::NAME, error)
}

fn options(dir: &Path, settings: &Settings) -> Options {
    let compression = match settings.compression {
        Compression::None => vec![],
        Compression::Lz4Bottom => vec![CompressionType::None, CompressionType::SnappyCompression],
        Compression::Lz4 => vec![CompressionType::SnappyCompression],
    };
    Options::new()
        .with_path(dir.to_owned())
        .with_block_size(settings.block_bytes as usize)
        .with_block_cache_capacity(settings.cache_bytes() as u64)
        .with_max_memtable_size(settings.memtable_bytes())
        .with_memtable_stall_threshold(settings.memtables() as usize)
        .with_compression_per_level(compression)
        .with_wal_preallocation(settings.durability == Durability::Synced)
}

/// Moves the iterator over up to `limit` entries; how many there were.
fn visit_all(
    mut iterator: impl LSMIterator,
    direction: Direction,
    limit: usize,
    mut visit: impl FnMut(&[u8], &[u8]) -> Result<()>,
) -> Result<u64> {
    let mut valid = match direction {
        Direction::Forward => iterator.seek_first(),
        Direction::Reverse => iterator.seek_last(),
    };
    let mut count = 0;
    while count < limit as u64 && valid.map_err(fault)? {
        visit(iterator.key().user_key(), &iterator.value_ref().map_err(fault)?)?;
        count += 1;
        valid = match direction {
            Direction::Forward => iterator.next(),
            Direction::Reverse => iterator.prev(),
        };
    }
    Ok(count)
}

impl SurrealKv {
    /// Does `change` in a transaction of its own, again if another one was in its way.
    fn write(&self, change: impl Fn(&mut Transaction) -> surrealkv::Result<()>) -> Result<()> {
        loop {
            let mut transaction = self.tree.begin_with_mode(Mode::WriteOnly).map_err(fault)?;
            transaction.set_durability(self.durability);
            change(&mut transaction).map_err(fault)?;
            match self.runtime.block_on(transaction.commit()) {
                Err(surrealkv::Error::TransactionWriteConflict | surrealkv::Error::TransactionRetry) => {}
                answer => return answer.map_err(fault),
            }
        }
    }

    fn read(&self) -> Result<Transaction> {
        self.tree.begin_with_mode(Mode::ReadOnly).map_err(fault)
    }
}

impl Engine for SurrealKv {
    const NAME: &'static str = "surrealkv";

    const NOTES: &'static str = "Its commits are asynchronous: the calling thread blocks on each, and its background \
        tasks run on a multi-threaded runtime of three threads, one a task (on a current-thread runtime its flushes and \
        compactions would run inside the callers' commits). `buffered` is `Durability::Eventual`: the log is with the \
        operating system when a commit returns; `synced` is `Immediate`, with `with_wal_preallocation`. It has no \
        writes without its log: `no-log` is `buffered`. It has no lz4: the profiles with compression use snappy, below \
        level 0 in place of the bottom level alone. Each put and each get is a transaction of its own; puts that meet a \
        conflict are done again; gets answer a copy. Its memtable's limit counts keys and structure, not values. Bulk \
        loads: batches of 1,000. It has no call to flush its memtable, nor to wait for compaction: it is idle when its \
        threads have slept and its files have not changed for 0.2 s, which its time to idle includes. It does not count \
        the bytes that it writes, nor tell its levels while it is open.";

    fn open(dir: &Path, settings: &Settings) -> Result<Self> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(RUNTIME_THREADS)
            .thread_name(THREADS)
            .enable_time()
            .build()
            .map_err(fault)?;
        let builder = TreeBuilder::with_options(options(dir, settings));
        // Inside the runtime: it spawns its tasks there.
        let tree = runtime.block_on(async { builder.build() }).map_err(fault)?;
        let durability = match settings.durability {
            Durability::NoLog | Durability::Buffered => surrealkv::Durability::Eventual,
            Durability::Synced => surrealkv::Durability::Immediate,
        };
        Ok(SurrealKv { tree, runtime, durability, dir: dir.to_owned() })
    }

    fn reopen(dir: &Path, settings: &Settings) -> Result<Self> {
        Self::open(dir, settings)
    }

    #[inline]
    fn put(&self, key: &[u8], value: &[u8]) -> Result<()> {
        self.write(|transaction| transaction.set(key, value))
    }

    fn put_batch(&self, puts: &[(Vec<u8>, Vec<u8>)]) -> Result<()> {
        self.write(|transaction| {
            puts.iter().try_for_each(|(key, value)| transaction.set(key.as_slice(), value.as_slice()))
        })
    }

    fn bulk_load<K: AsRef<[u8]>, V: AsRef<[u8]>>(&self, mut entries: impl Iterator<Item = (K, V)>) -> Result<u64> {
        let mut count = 0;
        loop {
            let mut transaction = self.tree.begin_with_mode(Mode::WriteOnly).map_err(fault)?;
            let mut batch = 0;
            for (key, value) in entries.by_ref().take(LOAD_BATCH) {
                transaction.set(key.as_ref(), value.as_ref()).map_err(fault)?;
                batch += 1;
            }
            if batch == 0 {
                break;
            }
            self.runtime.block_on(transaction.commit()).map_err(fault)?;
            count += batch;
        }
        self.tree.flush_wal(true).map_err(fault)?;
        Ok(count)
    }

    #[inline]
    fn delete(&self, key: &[u8]) -> Result<()> {
        self.write(|transaction| transaction.delete(key))
    }

    #[inline]
    fn get<R>(&self, key: &[u8], visit: impl FnOnce(&[u8]) -> R) -> Result<Option<R>> {
        let value = self.read()?.get(key).map_err(fault)?;
        Ok(value.map(|value| visit(&value)))
    }

    fn scan(
        &self,
        from: Option<&[u8]>,
        direction: Direction,
        limit: usize,
        visit: impl FnMut(&[u8], &[u8]) -> Result<()>,
    ) -> Result<u64> {
        let transaction = self.read()?;
        let mut bounds = ReadOptions::new();
        match (direction, from) {
            (_, None) => {}
            (Direction::Forward, Some(from)) => bounds.set_iterate_lower_bound(Some(from.to_vec())),
            // Upper bounds are exclusive: the next key after it.
            (Direction::Reverse, Some(from)) => bounds.set_iterate_upper_bound(Some([from, &[0]].concat())),
        }
        visit_all(transaction.range_with_options(&bounds).map_err(fault)?, direction, limit, visit)
    }

    fn settle(&self) -> Result<()> {
        wait_until_quiet(&self.dir, THREADS, || false);
        match self.tree.background_error() {
            Some(error) => Err(fault(format!("{error:?}"))),
            None => Ok(()),
        }
    }

    fn accounts(&self) -> Accounts {
        let tables = std::fs::read_dir(self.dir.join("sstables")).into_iter().flatten().flatten();
        let sizes = tables.filter_map(|table| table.metadata().ok()).map(|metadata| metadata.len());
        let (files, bytes) = sizes.fold((0, 0), |(files, bytes), size| (files + 1, bytes + size));
        Accounts {
            table_bytes: Some(bytes),
            details: format!("{files} tables of {bytes} bytes\n"),
            ..Accounts::default()
        }
    }

    fn close(self) -> Result<()> {
        self.runtime.block_on(self.tree.close()).map_err(fault)
    }
}
