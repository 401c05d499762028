//! Making ingested tables part of a tree: all at once, for readers and after a crash.
//!
//! Order: the tables and their names are on storage already; the log is synced, so that what came before the ingest is
//! durable if it is; the edit that names them is synced; readers get the new version, and then its number. Meanwhile
//! the commit lock is held, since a write or a snapshot in between would have a number above that of entries which are
//! not there yet.

use std::collections::HashMap;
use std::sync::Arc;

use super::place::Places;
use crate::compaction::output::remove_tables;
use crate::cursor::Cursor;
use crate::db::DbHandle;
use crate::error::{Error, Result};
use crate::flush;
use crate::key::{MAX_SEQNO, SeqNo};
use crate::memtable::{Memtable, MemtableCursor};
use crate::read::view::View;
use crate::store::Store;
use crate::table::TableMeta;
use crate::table::handle::TableHandle;
use crate::tree::Tree;
use crate::version::edit::{Edit, KeyspaceEdit};
use crate::wal::Wal;
use crate::wal::retention::RetentionPin;
use crate::write::commit::Writer;
use crate::write::state::CommitState;

/// The log held for each durable change cursor, by its name.
type Cursors = HashMap<String, Option<RetentionPin>>;

/// Makes `tables`, which are on storage and disjoint, visible under the next numbers; the last of them. After an error
/// their files are removed, unless the manifest may name them.
pub(super) fn publish(handle: &DbHandle, writer: &Writer, tree: &Arc<Tree>, tables: Vec<TableMeta>) -> Result<SeqNo> {
    let store = &*handle.store;
    let Some(wal) = &store.wal else { return Err(Error::Closed) };
    let mut ingest = Ingest { store, wal, tree, tables, is_named: false };
    let answer = prepare(handle, writer, &ingest).and_then(|()| {
        // In the order of the locks, see `docs/architecture.md`.
        let cursors = store.cursors.lock();
        check_unfollowed(&cursors)?;
        let _only_flush = tree.flushing.lock();
        writer.with_state(|state| ingest.commit(state))
    });
    match &answer {
        Ok(_) => store.compaction_wanted(tree),
        Err(_) if ingest.is_named => {}
        Err(_) => remove_tables(store, ingest.tables.iter().map(|meta| meta.number)),
    }
    answer
}

/// Nobody who relies on the log may miss what is ingested.
///
/// # Errors
/// `InvalidArgument` that names the change cursors which still hold log.
pub(super) fn check_unfollowed(cursors: &Cursors) -> Result<()> {
    let holds_log = |pin: &&RetentionPin| pin.advance(0).is_ok();
    let mut names: Vec<&String> =
        cursors.iter().filter(|(_, pin)| pin.as_ref().filter(holds_log).is_some()).map(|(name, _)| name).collect();
    if names.is_empty() {
        return Ok(());
    }
    names.sort_unstable();
    Err(Error::InvalidArgument(format!(
        "what is ingested is not in the mutation log, which the change cursors {names:?} follow: write it with `put_all`, \
         or remove them first"
    )))
}

/// Does beforehand what would take long while writers wait.
fn prepare(handle: &DbHandle, writer: &Writer, ingest: &Ingest<'_>) -> Result<()> {
    writer.sync_all()?;
    let places = Places::reserve(ingest.tree, &ingest.tables);
    let flush_first = ingest.meets_memtables(&ingest.tree.view(), &places)?;
    drop(places);
    if flush_first { handle.flush_trees(std::slice::from_ref(ingest.tree)) } else { Ok(()) }
}

struct Ingest<'a> {
    store: &'a Store,
    wal: &'a Wal,
    tree: &'a Arc<Tree>,
    tables: Vec<TableMeta>,
    /// Whether the manifest may name the tables.
    is_named: bool,
}

impl Ingest<'_> {
    /// Under the commit lock, and that of the tree's flushes.
    fn commit(&mut self, state: &mut CommitState) -> Result<SeqNo> {
        self.store.health.check_write()?;
        self.tree.check_live(MAX_SEQNO)?;
        let sync = |wal: &Wal| wal.sync_all().inspect_err(|error| self.store.health.fail("syncing the log", error));
        sync(self.wal)?;
        let mut places = Places::reserve(self.tree, &self.tables);
        if self.meets_memtables(&self.tree.view(), &places)? {
            // Written since they were flushed a moment ago, so there is not much of it.
            state.seal(self.tree.id);
            flush::flush_sealed(self.store, self.wal, self.tree)
                .inspect_err(|error| self.store.health.fail("a flush", error))?;
            drop(places);
            places = Places::reserve(self.tree, &self.tables);
        }
        let entries = self.tables.iter().map(|meta| meta.entries).sum();
        state.number(self.tree.id, entries, |last| self.install(places.levels(), last))
    }

    /// Whether memtables hold keys that a reader would look up there first; or, for tables of level 0, anything: when
    /// they are flushed, the age of what they hold must not reach from before the ingest to behind it.
    fn meets_memtables(&self, view: &View, places: &Places<'_>) -> Result<bool> {
        let mut filled = view.memtables().filter(|memtable| !memtable.is_empty());
        if places.levels().contains(&0) {
            return Ok(filled.next().is_some());
        }
        for memtable in filled {
            for table in &self.tables {
                if holds_key_in(memtable, table)? {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    /// One edit for all tables: durable, then visible.
    fn install(&mut self, levels: &[usize], seqno: SeqNo) -> Result<()> {
        let Ingest { store, wal, tree, .. } = *self;
        let numbered = |meta: &TableMeta| TableMeta { min_seqno: seqno, max_seqno: seqno, ..meta.clone() };
        let added: Vec<(usize, TableMeta)> = levels.iter().copied().zip(self.tables.iter().map(numbered)).collect();
        let handle =
            |(level, meta): &(usize, TableMeta)| (*level, TableHandle::new(meta.clone(), store.tables.clone()));
        let handles: Vec<_> = added.iter().map(handle).collect();
        for (level, meta) in &added {
            tree.amplification.record_write(meta.user_bytes, 0);
            tree.amplification.record_flush(*level, meta.file_bytes);
        }
        self.is_named = true;
        let installed = store.versions.install(
            |state| {
                let keyspace = KeyspaceEdit { id: tree.id, added, ..KeyspaceEdit::default() };
                Some(Edit {
                    keyspaces: vec![keyspace],
                    log_synced_seqno: Some(wal.synced_seqno().max(state.log_synced_seqno)),
                    ingested_seqno: Some(seqno),
                    ..Edit::default()
                })
            },
            || {
                wal.note_ingested(seqno);
                tree.install(&[], handles, &[]);
                store.publish(seqno);
            },
        );
        installed.inspect_err(|error| store.health.fail("writing the manifest", error)).map(|_| ())
    }
}

/// Whether a memtable that nobody writes to meanwhile holds a key in a table's range.
fn holds_key_in(memtable: &Arc<Memtable>, table: &TableMeta) -> Result<bool> {
    let mut cursor = MemtableCursor::new(memtable.clone());
    cursor.seek(&table.smallest, MAX_SEQNO)?;
    Ok(cursor.valid() && *cursor.key() <= table.largest[..])
}
