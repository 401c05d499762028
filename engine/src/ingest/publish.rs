//! Making ingested tables part of a tree: all at once, for readers and after a crash.
//!
//! Order: the tables and their names are on storage already; the log is synced, so that what came before the ingest is
//! durable if it is; the edit that names them is synced; readers get the new version, and then its number. Meanwhile
//! the commit lock is held, since a write or a snapshot in between would have a number above that of entries which are
//! not there yet.

use std::cell::Cell;
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
use crate::write::state::{CommitState, Numbers};

/// The log held for each durable change cursor, by its name.
type Cursors = HashMap<String, Option<RetentionPin>>;

/// Tables for one keyspace, which are on storage and disjoint.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) tree: Arc<Tree>,
    pub(super) tables: Vec<TableMeta>,
    /// Deletes were left out because the keyspace was empty.
    pub(super) for_empty: bool,
}

/// Makes all tables visible under `numbers`; the last of them. Each keyspace has one part, and they come by ascending id.
/// After an error their files are removed, unless the manifest may name them.
pub(super) fn publish(handle: &DbHandle, writer: &Writer, parts: &[Part], numbers: Numbers) -> Result<SeqNo> {
    let store = &*handle.store;
    let Some(wal) = &store.wal else { return Err(Error::Closed) };
    let ingest = Ingest { store, wal, parts, numbers, is_named: Cell::new(false) };
    let answer = prepare(handle, writer, &ingest).and_then(|()| {
        // In the order of the locks, see `docs/architecture.md`.
        let cursors = store.cursors.lock();
        check_unfollowed(&cursors)?;
        let _only_flushes: Vec<_> = parts.iter().map(|part| part.tree.flushing.lock()).collect();
        writer.with_state(|state| ingest.commit(state))
    });
    match &answer {
        Ok(_) => parts.iter().for_each(|part| store.compaction_wanted(&part.tree)),
        Err(_) if ingest.is_named.get() => {}
        Err(_) => remove(store, parts),
    }
    answer
}

/// Removes the files of tables that no edit names.
pub(super) fn remove(store: &Store, parts: &[Part]) {
    remove_tables(store, parts.iter().flat_map(|part| &part.tables).map(|meta| meta.number));
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
    let mut flush_first = Vec::new();
    for part in ingest.parts {
        let places = Places::reserve(&part.tree, &part.tables);
        if meets_memtables(part, &part.tree.view(), &places)? {
            flush_first.push(part.tree.clone());
        }
    }
    if flush_first.is_empty() { Ok(()) } else { handle.flush_trees(&flush_first) }
}

struct Ingest<'a> {
    store: &'a Store,
    wal: &'a Wal,
    parts: &'a [Part],
    numbers: Numbers,
    /// Whether the manifest may name the tables.
    is_named: Cell<bool>,
}

impl Ingest<'_> {
    /// Under the commit lock, and those of the trees' flushes.
    fn commit(&self, state: &mut CommitState) -> Result<SeqNo> {
        self.store.health.check_write()?;
        for part in self.parts {
            part.tree.check_live(MAX_SEQNO)?;
            if part.for_empty && !is_empty(&part.tree.view()) {
                let reason = format!("keyspace {:?} was written to meanwhile", part.tree.name);
                return Err(Error::InvalidArgument(reason));
            }
        }
        let sync = |wal: &Wal| wal.sync_all().inspect_err(|error| self.store.health.fail("syncing the log", error));
        sync(self.wal)?;
        let places = self.parts.iter().map(|part| self.place(part, state)).collect::<Result<Vec<_>>>()?;
        let ids: Vec<_> = self.parts.iter().map(|part| part.tree.id).collect();
        state.number(&ids, self.numbers, |last| self.install(&places, last))
    }

    /// Where the tables of a part go.
    fn place<'p>(&self, part: &'p Part, state: &mut CommitState) -> Result<Places<'p>> {
        let places = Places::reserve(&part.tree, &part.tables);
        if !meets_memtables(part, &part.tree.view(), &places)? {
            return Ok(places);
        }
        // Written since they were flushed a moment ago, so there is not much of it.
        state.seal(part.tree.id);
        flush::flush_sealed(self.store, self.wal, &part.tree)
            .inspect_err(|error| self.store.health.fail("a flush", error))?;
        drop(places);
        Ok(Places::reserve(&part.tree, &part.tables))
    }

    /// One edit for all tables: durable, then visible.
    fn install(&self, places: &[Places<'_>], seqno: SeqNo) -> Result<()> {
        let Ingest { store, wal, .. } = *self;
        let mut keyspaces = Vec::with_capacity(self.parts.len());
        let mut handles = Vec::with_capacity(self.parts.len());
        for (part, places) in self.parts.iter().zip(places) {
            let numbered = |meta: &TableMeta| TableMeta { min_seqno: seqno, max_seqno: seqno, ..meta.clone() };
            let added: Vec<(usize, TableMeta)> =
                places.levels().iter().copied().zip(part.tables.iter().map(numbered)).collect();
            for (level, meta) in &added {
                part.tree.amplification.record_write(meta.user_bytes, 0);
                part.tree.amplification.record_flush(*level, meta.file_bytes);
            }
            let handle =
                |(level, meta): &(usize, TableMeta)| (*level, TableHandle::new(meta.clone(), store.tables.clone()));
            handles.push(added.iter().map(handle).collect::<Vec<_>>());
            keyspaces.push(KeyspaceEdit { id: part.tree.id, added, ..KeyspaceEdit::default() });
        }
        self.is_named.set(true);
        let installed = store.versions.install(
            |state| {
                Some(Edit {
                    keyspaces,
                    log_synced_seqno: Some(wal.synced_seqno().max(state.log_synced_seqno)),
                    ingested_seqno: Some(seqno),
                    ..Edit::default()
                })
            },
            || {
                wal.note_ingested(seqno);
                self.parts.iter().zip(handles).for_each(|(part, handles)| part.tree.install(&[], handles, &[]));
                store.publish(seqno);
            },
        );
        installed.inspect_err(|error| store.health.fail("writing the manifest", error)).map(|_| ())
    }
}

/// Whether a keyspace holds nothing at all.
pub(super) fn is_empty(view: &View) -> bool {
    view.version.levels().iter().all(|level| level.is_empty()) && view.memtables().all(|memtable| memtable.is_empty())
}

/// Whether memtables hold keys that a reader would look up there first; or, for tables of level 0, anything: when they are
/// flushed, the age of what they hold must not reach from before the ingest to behind it.
fn meets_memtables(part: &Part, view: &View, places: &Places<'_>) -> Result<bool> {
    let mut filled = view.memtables().filter(|memtable| !memtable.is_empty());
    if places.levels().contains(&0) {
        return Ok(filled.next().is_some());
    }
    for memtable in filled {
        for table in &part.tables {
            if holds_key_in(memtable, table)? {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

/// Whether a memtable that nobody writes to meanwhile holds a key in a table's range.
fn holds_key_in(memtable: &Arc<Memtable>, table: &TableMeta) -> Result<bool> {
    let mut cursor = MemtableCursor::new(memtable.clone());
    cursor.seek(&table.smallest, MAX_SEQNO)?;
    Ok(cursor.valid() && *cursor.key() <= table.largest[..])
}
