//! [`Report`]: every byte read and checked.

use std::fmt;

use crate::error::{Error, Result};
use crate::store::Store;
use crate::table::handle::{TableHandle, table_path};
use crate::table::reader::{ReadMode, Table};
use crate::tree::Tree;

/// What [`Db::verify`](crate::Db::verify) read and found.
///
/// ```
/// # let dir = tempfile::tempdir().unwrap();
/// # let db = siltstone::Db::open(dir.path())?;
/// let report = db.verify();
/// assert!(report.is_ok(), "{report}");
/// # Ok::<(), siltstone::Error>(())
/// ```
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct Report {
    /// Tables read.
    pub tables: u64,
    /// Blocks in them.
    pub blocks: u64,
    /// Bytes of tables.
    pub table_bytes: u64,
    /// Log records read.
    pub log_records: u64,
    /// What does not fit, each with file, offset and reason. `Closed` if the database is.
    pub errors: Vec<Error>,
}

impl Report {
    /// Whether everything is as it should be.
    pub fn is_ok(&self) -> bool {
        self.errors.is_empty()
    }

    fn note<T: Default>(&mut self, result: Result<T>) -> T {
        result.unwrap_or_else(|error| {
            self.errors.push(error);
            T::default()
        })
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Report { tables, blocks, table_bytes, log_records, errors } = self;
        writeln!(
            f,
            "{tables} tables, {blocks} blocks, {table_bytes} bytes, {log_records} log records: {} errors",
            errors.len()
        )?;
        errors.iter().try_for_each(|error| writeln!(f, "  {error}"))
    }
}

/// Checks all live tables, how they lie in their levels, manifest and `CURRENT`, and the log.
pub(crate) fn verify(store: &Store) -> Report {
    let mut report = Report::default();
    report.note(store.health.check_read());
    if !report.is_ok() {
        return report;
    }
    for tree in store.live_trees() {
        verify_tree(store, &tree, &mut report);
    }
    report.note(store.versions.verify());
    if let Some(wal) = &store.wal {
        let records = wal.verify();
        report.log_records = report.note(records);
    }
    report
}

fn verify_tree(store: &Store, tree: &Tree, report: &mut Report) {
    let view = tree.view_arc();
    if let Err(reason) = view.version.check() {
        report.errors.push(Error::corruption(&store.directory, 0, format!("keyspace {:?}: {reason}", tree.name)));
    }
    for handle in view.version.tables() {
        report.tables += 1;
        report.table_bytes += handle.meta.file_bytes;
        let verified = verify_table(store, handle);
        report.blocks += report.note(verified);
    }
}

/// Opens the table anew, past what is open and cached: filter, index and properties are read again too. The handle keeps
/// the file from being removed.
fn verify_table(store: &Store, handle: &TableHandle) -> Result<u64> {
    let (number, path) = (handle.meta.number, table_path(&store.directory, handle.meta.number));
    let table = Table::open(&*store.options.file_system, &path, number, ReadMode::Pread, store.tables.block_cache())?;
    if table.meta()? != handle.meta {
        return Err(Error::corruption(&path, 0, "the table is not the one that the manifest describes"));
    }
    table.verify()
}
