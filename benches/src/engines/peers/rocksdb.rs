//! RocksDB.

mod event_log;

use std::path::{Path, PathBuf};

use rocksdb::{
    BlockBasedOptions, Cache, DB, DBCompressionType, DBRawIterator, IngestExternalFileOptions, Options, ReadOptions,
    SstFileWriter, WaitForCompactOptions, WriteBatch, WriteOptions, properties,
};

use crate::engines::{Accounts, Direction, Engine, LevelShape};
use crate::error::{Error, Result};
use crate::settings::{BACKGROUND_THREADS, Compression, Durability, FILTER_BITS_PER_KEY, Settings};

/// How long a table of a bulk load gets, in bytes: RocksDB's `target_file_size_base`.
const TABLE_BYTES: u64 = 64 << 20;

/// The default column family of a RocksDB database.
#[derive(Debug)]
pub struct RocksDb {
    db: DB,
    dir: PathBuf,
    write_options: NoDebug<WriteOptions>,
    read_options: NoDebug<ReadOptions>,
    options: NoDebug<Options>,
}

/// What the crate made without `Debug`.
struct NoDebug<T>(T);

impl<T> std::fmt::Debug for NoDebug<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(std::any::type_name::<T>())
    }
}

fn fault(error: impl std::fmt::Display) -> Error {
    Error::engine(RocksDb::NAME, error)
}

fn options(settings: &Settings) -> Options {
    let mut table = BlockBasedOptions::default();
    table.set_block_size(settings.block_bytes as usize);
    // The kind of cache that it makes itself if it is given none; 0: it finds out how large an entry is.
    table.set_block_cache(&Cache::new_hyper_clock_cache(settings.cache_bytes(), 0));
    table.set_bloom_filter(f64::from(FILTER_BITS_PER_KEY), false);
    let mut options = Options::default();
    options.create_if_missing(true);
    options.set_block_based_table_factory(&table);
    options.set_write_buffer_size(settings.memtable_bytes());
    options.set_max_write_buffer_number(settings.memtables() as i32);
    options.set_max_background_jobs(BACKGROUND_THREADS as i32);
    options.set_level_compaction_dynamic_level_bytes(true);
    options.set_target_file_size_base(TABLE_BYTES);
    let (upper, bottom) = match settings.compression {
        Compression::None => (DBCompressionType::None, DBCompressionType::None),
        Compression::Lz4Bottom => (DBCompressionType::None, DBCompressionType::Lz4),
        Compression::Lz4 => (DBCompressionType::Lz4, DBCompressionType::Lz4),
    };
    options.set_compression_type(upper);
    options.set_bottommost_compression_type(bottom);
    options
}

fn write_options(settings: &Settings) -> WriteOptions {
    let mut options = WriteOptions::default();
    match settings.durability {
        Durability::NoLog => options.disable_wal(true),
        // The log is written to the operating system with each write.
        Durability::Buffered => {}
        Durability::Synced => options.set_sync(true),
    }
    options
}

/// Moves the iterator over up to `limit` entries; how many there were.
fn visit_all(
    mut iterator: DBRawIterator<'_>,
    direction: Direction,
    limit: usize,
    mut visit: impl FnMut(&[u8], &[u8]) -> Result<()>,
) -> Result<u64> {
    let mut count = 0;
    while count < limit as u64 {
        let Some((key, value)) = iterator.item() else {
            iterator.status().map_err(fault)?;
            break;
        };
        visit(key, value)?;
        count += 1;
        match direction {
            Direction::Forward => iterator.next(),
            Direction::Reverse => iterator.prev(),
        }
    }
    Ok(count)
}

impl Engine for RocksDb {
    const NAME: &'static str = "rocksdb";

    const NOTES: &'static str = "Every write is a write(2) into its log before it is acknowledged (`buffered`), with \
        fdatasync for `synced`, without a log for `no-log`. Bloom filters of 10 bits a key, dynamic level bytes, two \
        background jobs; its hyper-clock block cache holds data blocks, indexes and filters are on the heap beside it. \
        Gets pin the value in the cache and visit it in place. Iterators read ahead by themselves (8 KiB, doubling up \
        to 256 KiB, once they have read on), as db_bench leaves it. Bulk loads: `SstFileWriter`, tables of 64 MiB, \
        ingested by hard link. Checksums of blocks are verified when they enter the cache. Bytes by level come from \
        its event log, those of the write-ahead log from its statistics in units of 10 MiB.";

    fn open(dir: &Path, settings: &Settings) -> Result<Self> {
        let options = options(settings);
        let db = DB::open(&options, dir).map_err(fault)?;
        Ok(RocksDb {
            db,
            dir: dir.to_owned(),
            write_options: NoDebug(write_options(settings)),
            read_options: NoDebug(ReadOptions::default()),
            options: NoDebug(options),
        })
    }

    fn reopen(dir: &Path, settings: &Settings) -> Result<Self> {
        Self::open(dir, settings)
    }

    #[inline]
    fn put(&self, key: &[u8], value: &[u8]) -> Result<()> {
        self.db.put_opt(key, value, &self.write_options.0).map_err(fault)
    }

    fn put_batch(&self, puts: &[(Vec<u8>, Vec<u8>)]) -> Result<()> {
        let mut batch = WriteBatch::default();
        for (key, value) in puts {
            batch.put(key, value);
        }
        self.db.write_opt(batch, &self.write_options.0).map_err(fault)
    }

    fn bulk_load<K: AsRef<[u8]>, V: AsRef<[u8]>>(&self, entries: impl Iterator<Item = (K, V)>) -> Result<u64> {
        let (mut count, mut paths) = (0, Vec::new());
        let mut entries = entries.peekable();
        while entries.peek().is_some() {
            let path = self.dir.join(format!("load-{}.sst", paths.len()));
            count += self.write_table(&path, &mut entries)?;
            paths.push(path);
        }
        if paths.is_empty() {
            return Ok(0);
        }
        let mut options = IngestExternalFileOptions::default();
        options.set_move_files(true);
        self.db.ingest_external_file_opts(&options, paths).map_err(fault)?;
        Ok(count)
    }

    #[inline]
    fn delete(&self, key: &[u8]) -> Result<()> {
        self.db.delete_opt(key, &self.write_options.0).map_err(fault)
    }

    #[inline]
    fn get<R>(&self, key: &[u8], visit: impl FnOnce(&[u8]) -> R) -> Result<Option<R>> {
        let value = self.db.get_pinned_opt(key, &self.read_options.0).map_err(fault)?;
        Ok(value.map(|value| visit(&value)))
    }

    fn scan(
        &self,
        from: Option<&[u8]>,
        direction: Direction,
        limit: usize,
        visit: impl FnMut(&[u8], &[u8]) -> Result<()>,
    ) -> Result<u64> {
        let mut iterator = self.db.raw_iterator();
        match (direction, from) {
            (Direction::Forward, Some(from)) => iterator.seek(from),
            (Direction::Forward, None) => iterator.seek_to_first(),
            (Direction::Reverse, Some(from)) => iterator.seek_for_prev(from),
            (Direction::Reverse, None) => iterator.seek_to_last(),
        }
        visit_all(iterator, direction, limit, visit)
    }

    fn flush(&self) -> Result<()> {
        self.db.flush().map_err(fault)
    }

    fn settle(&self) -> Result<()> {
        self.db.wait_for_compact(&WaitForCompactOptions::default()).map_err(fault)
    }

    fn accounts(&self) -> Accounts {
        let text = |name| self.db.property_value(name).ok().flatten().unwrap_or_default();
        let totals = text(properties::DBSTATS);
        let levels = self.levels();
        let tables: u64 = levels.iter().map(|level| level.written_bytes).sum();
        Accounts {
            written_bytes: event_log::wal_bytes(&totals).map(|wal_bytes| wal_bytes + tables),
            table_bytes: Some(levels.iter().map(|level| level.bytes).sum()),
            stall_ns: event_log::stall_ns(&totals),
            levels,
            details: totals + &text(properties::CFSTATS_NO_FILE_HISTOGRAM),
        }
    }

    fn close(self) -> Result<()> {
        // Dropping it closes it.
        Ok(())
    }
}

impl RocksDb {
    /// Writes entries into a table of its own until it is full; how many.
    fn write_table<K: AsRef<[u8]>, V: AsRef<[u8]>>(
        &self,
        path: &Path,
        entries: &mut impl Iterator<Item = (K, V)>,
    ) -> Result<u64> {
        let mut writer = SstFileWriter::create(&self.options.0);
        writer.open(path).map_err(fault)?;
        let (mut count, mut bytes) = (0, 0);
        for (key, value) in entries {
            let (key, value) = (key.as_ref(), value.as_ref());
            writer.put(key, value).map_err(fault)?;
            count += 1;
            bytes += (key.len() + value.len()) as u64;
            if bytes >= TABLE_BYTES {
                break;
            }
        }
        writer.finish().map_err(fault)?;
        Ok(count)
    }

    /// What each level holds, and what the event log says was written into it.
    fn levels(&self) -> Vec<LevelShape> {
        let mut levels = event_log::levels(&self.dir);
        for file in self.db.live_files().unwrap_or_default() {
            let level = usize::try_from(file.level).unwrap_or(0);
            let at = event_log::level(&mut levels, level);
            at.files += 1;
            at.bytes += file.size as u64;
        }
        levels
    }
}
