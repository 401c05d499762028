//! [`Report`]: every byte read and checked.

use std::fmt;

use crate::error::{Error, Result};
use crate::key::SeqNo;
use crate::store::Store;
use crate::table::TableMeta;
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
    // After the view: what is in its tables was visible before, or, if it was ingested, becomes so before the manifest
    // is let go of.
    let last_seqno = store.versions.with_state(|_| store.visible());
    for handle in view.version.tables() {
        report.tables += 1;
        report.table_bytes += handle.meta.file_bytes;
        let verified = verify_table(store, handle, last_seqno);
        report.blocks += report.note(verified);
    }
}

/// Opens the table anew, past what is open and cached: filter, index and properties are read again too. The handle
/// keeps the file from being removed.
fn verify_table(store: &Store, handle: &TableHandle, last_seqno: SeqNo) -> Result<u64> {
    let (number, path) = (handle.meta.number, table_path(&store.directory, handle.meta.number));
    let fs = &*store.options.file_system;
    let mut table = Table::open(fs, &path, number, ReadMode::Pread, store.tables.block_cache())?;
    table.number_as(&handle.meta);
    check_stated(&handle.meta, &table.meta()?, last_seqno).map_err(|reason| Error::corruption(&path, 0, reason))?;
    table.verify()
}

/// Checks that a table is what the manifest says it is, and that it holds nothing newer than `last_seqno`.
fn check_stated(stated: &TableMeta, found: &TableMeta, last_seqno: SeqNo) -> Result<(), String> {
    if found != stated {
        return Err(format!("the manifest states {stated:?}, the table {found:?}"));
    }
    if found.max_seqno > last_seqno {
        return Err(format!("it holds number {}, but {last_seqno} is the last one", found.max_seqno));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::fs::SimFileSystem;
    use crate::options::Options;
    use crate::table::handle::TableHandle;

    #[test]
    fn a_table_that_is_not_what_the_manifest_states_is_found() {
        let db = Options::new().file_system(Arc::new(SimFileSystem::new())).open("/db").unwrap();
        let ks = db.keyspace("ks", Default::default()).unwrap();
        ks.put("k", "v").unwrap();
        ks.put("l", "w").unwrap();
        ks.flush().unwrap();
        assert!(db.verify().is_ok());
        let store = db.store();
        let tree = store.live_trees().remove(0);
        let meta = tree.view().version.levels()[0].tables()[0].meta.clone();
        let with = |change: fn(&mut TableMeta)| {
            let mut stated = meta.clone();
            change(&mut stated);
            let handle = TableHandle::new(stated, store.tables.clone());
            tree.install(&[], vec![(0, handle)], &[meta.number]);
            db.verify()
        };
        for change in [
            (|stated| stated.smallest = "j".into()) as fn(&mut TableMeta),
            |stated| stated.largest = "k".into(),
            |stated| stated.min_seqno = 0,
            |stated| stated.entries = 3,
        ] {
            let report = with(change);
            let [Error::Corruption { file, reason, .. }] = &report.errors[..] else { panic!("{report}") };
            assert!(file.ends_with("000001.table") && reason.contains("the manifest states"), "{report}");
        }
        assert!(with(|_| ()).is_ok());
    }
}
