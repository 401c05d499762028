//! A filesystem of byte vectors, and tables made from lists of entries, for the tests of this module.

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;

use super::TableMeta;
use super::builder::{TableBuilder, TableWriteOptions};
use super::handle::table_path;
use super::properties::Origin;
use super::reader::{ReadMode, Table};
use crate::cache::BlockCache;
use crate::error::Result;
use crate::fs::{DirEntry, FileLock, FileSystem, LockKind, MappedFile, ReadableFile, WritableFile};
use crate::key::{Trailer, ValueKind};

/// A key, its trailer and its value.
pub(crate) type Entry = (Vec<u8>, Trailer, Vec<u8>);

/// What all files hold.
#[derive(Clone, Debug, Default)]
pub(crate) struct MemFs(Arc<Mutex<BTreeMap<PathBuf, Vec<u8>>>>);

#[derive(Debug)]
struct MemFile {
    fs: MemFs,
    path: PathBuf,
    bytes: Vec<u8>,
}

impl MemFs {
    pub(crate) fn put(&self, path: &Path, bytes: Vec<u8>) {
        self.0.lock().insert(path.to_owned(), bytes);
    }

    pub(crate) fn bytes(&self, path: &Path) -> Vec<u8> {
        self.0.lock().get(path).cloned().unwrap_or_default()
    }
}

impl WritableFile for MemFile {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }
    fn sync(&mut self) -> io::Result<()> {
        self.fs.put(&self.path, self.bytes.clone());
        Ok(())
    }
    fn start_writeback(&mut self, range: Range<u64>) -> io::Result<()> {
        assert!(range.end <= self.len());
        Ok(())
    }
    fn len(&self) -> u64 {
        self.bytes.len() as u64
    }
}

#[derive(Debug)]
struct MemReader(Bytes);

impl ReadableFile for MemReader {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.len() as u64)
    }
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let end = offset as usize + buffer.len();
        let bytes = self.0.get(offset as usize..end).ok_or(io::ErrorKind::UnexpectedEof)?;
        buffer.copy_from_slice(bytes);
        Ok(())
    }
    fn map(&self) -> io::Result<Bytes> {
        Ok(self.0.clone())
    }
}

fn unsupported<T>() -> io::Result<T> {
    Err(io::ErrorKind::Unsupported.into())
}

impl FileSystem for MemFs {
    fn create(&self, path: &Path) -> io::Result<Box<dyn WritableFile>> {
        Ok(Box::new(MemFile { fs: self.clone(), path: path.to_owned(), bytes: Vec::new() }))
    }
    fn open_append(&self, _: &Path) -> io::Result<Box<dyn WritableFile>> {
        unsupported()
    }
    fn open(&self, path: &Path) -> io::Result<Arc<dyn ReadableFile>> {
        let bytes = self.0.lock().get(path).cloned().ok_or(io::ErrorKind::NotFound)?;
        Ok(Arc::new(MemReader(bytes.into())))
    }
    fn create_mapped(&self, _: &Path, _: u64) -> io::Result<Box<dyn MappedFile>> {
        unsupported()
    }
    fn rename(&self, _: &Path, _: &Path) -> io::Result<()> {
        unsupported()
    }
    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.0.lock().remove(path).map(|_| ()).ok_or(io::ErrorKind::NotFound.into())
    }
    fn truncate(&self, _: &Path, _: u64) -> io::Result<()> {
        unsupported()
    }
    fn create_dir_all(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }
    fn read_dir(&self, _: &Path) -> io::Result<Vec<DirEntry>> {
        unsupported()
    }
    fn sync_dir(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }
    fn lock(&self, _: &Path, _: LockKind) -> io::Result<Box<dyn FileLock>> {
        unsupported()
    }
    fn memory_bytes(&self) -> Option<u64> {
        None
    }
}

/// Where test tables live.
pub(crate) fn dir() -> PathBuf {
    PathBuf::from("/db")
}

/// Writes `entries`, which are in order, as table `number`.
pub(crate) fn write_table(fs: &MemFs, number: u64, options: TableWriteOptions, entries: &[Entry]) -> Result<TableMeta> {
    let path = table_path(&dir(), number);
    let mut builder = TableBuilder::new(fs.create(&path).expect("in memory"), path, number, options, Origin::default());
    for (key, trailer, value) in entries {
        builder.add(key, *trailer, value)?;
    }
    builder.finish()
}

/// Opens table `number` with a block cache of its own.
pub(crate) fn open_table(fs: &MemFs, number: u64, mode: ReadMode) -> Result<Arc<Table>> {
    Table::open(fs, &table_path(&dir(), number), number, mode, &Arc::new(BlockCache::new(1 << 20))).map(Arc::new)
}

/// Sorts into internal order and drops all but one entry of the same key and sequence number.
pub(crate) fn in_order(mut entries: Vec<Entry>) -> Vec<Entry> {
    entries.sort_by(|a, b| a.0.cmp(&b.0).then(b.1.cmp(&a.1)));
    entries.dedup_by(|a, b| a.0 == b.0 && a.1.seqno() == b.1.seqno());
    entries
}

/// A put.
pub(crate) fn put(key: impl Into<Vec<u8>>, seqno: u64, value: impl Into<Vec<u8>>) -> Entry {
    (key.into(), Trailer::new(seqno, ValueKind::Put), value.into())
}

/// A tombstone.
pub(crate) fn delete(key: impl Into<Vec<u8>>, seqno: u64) -> Entry {
    (key.into(), Trailer::new(seqno, ValueKind::Delete), Vec::new())
}

/// The newest of `entries` that a lookup may see.
pub(crate) fn model_get<'e>(entries: &'e [Entry], key: &[u8], seqno: u64) -> Option<&'e Entry> {
    entries.iter().find(|entry| entry.0 == key && entry.1.seqno() <= seqno)
}

/// The position of the first of `entries` at or after (`key`, `seqno`).
pub(crate) fn model_seek(entries: &[Entry], key: &[u8], seqno: u64) -> usize {
    entries.partition_point(|entry| &entry.0[..] < key || (entry.0 == key && entry.1.seqno() > seqno))
}
