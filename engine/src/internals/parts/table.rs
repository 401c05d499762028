//! Tables, and merges of them.

use std::path::Path;
use std::sync::Arc;

use super::steps;
use crate::Result;
use crate::cache::BlockCache;
use crate::error::Error;
use crate::fs::{FileSystem, OsFileSystem};
use crate::key::{Trailer, ValueKind};
use crate::read::merge;
use crate::table::builder::{TableBuilder, TableWriteOptions};
use crate::table::handle::table_path;
use crate::table::iterator::TableCursor;
use crate::table::properties::Origin;
use crate::table::reader::{self, ReadMode};

/// A table that is read through memory, without an engine around it.
#[derive(Clone, Debug)]
pub struct Table(Arc<reader::Table>);

impl Table {
    /// Writes table `number` into `dir`, with blocks of 4 KiB, uncompressed, and opens it. Keys ascend, each comes once.
    ///
    /// # Errors
    /// `Io`, `InvalidArgument`.
    pub fn create<K, V>(dir: &Path, number: u64, entries: impl IntoIterator<Item = (K, V)>) -> Result<Self>
    where
        K: AsRef<[u8]>,
        V: AsRef<[u8]>,
    {
        let path = table_path(dir, number);
        let file = OsFileSystem.create(&path).map_err(Error::io("create", &path))?;
        let options =
            TableWriteOptions { block_bytes: 4096, filter_bits_per_key: 10, compress: false, append_bytes: 1 << 20 };
        let mut builder = TableBuilder::new(file, path.clone(), number, options, Origin::default());
        for (key, value) in entries {
            builder.add(key.as_ref(), Trailer::new(number, ValueKind::Put), value.as_ref())?;
        }
        builder.finish()?;
        let cache = Arc::new(BlockCache::new(0));
        reader::Table::open(&OsFileSystem, &path, number, ReadMode::Map, &cache).map(|table| Table(Arc::new(table)))
    }
}

/// A position in a merge of tables.
pub struct MergeCursor(merge::MergeCursor<TableCursor>);

steps!(MergeCursor);

impl MergeCursor {
    /// A merge of `tables`, not positioned yet. Of the same key all versions come, the table with the largest number
    /// first.
    pub fn new(tables: &[Table]) -> Self {
        MergeCursor(merge::MergeCursor::new(tables.iter().map(|table| TableCursor::new(table.0.clone())).collect()))
    }
}

impl std::fmt::Debug for MergeCursor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MergeCursor").finish_non_exhaustive()
    }
}
