//! Sealed memtables become a level-0 table.
//!
//! Order: write and sync the table, sync the directory, sync the log as far as it went when the memtable was sealed,
//! append and sync the edit, publish. The log comes before the edit because that makes this keyspace's writes durable: a
//! power cut must not keep them and take back an earlier write to another keyspace. Segments that the same edit lets go of hold nothing that
//! is not in tables, so they are not synced: most of the log never gets to storage if nobody asks for it sooner.

use std::collections::HashSet;
use std::sync::Arc;

use crate::batch::KeyspaceId;
use crate::compaction::output::Outputs;
use crate::compaction::retention::Retention;
use crate::cursor::Cursor;
use crate::error::Result;
use crate::key::SeqNo;
use crate::memtable::{Memtable, MemtableCursor};
use crate::moment::Moment;
use crate::read::merge::MergeCursor;
use crate::store::Store;
use crate::table::TableMeta;
use crate::table::handle::TableHandle;
use crate::tree::Tree;
use crate::version::edit::{Edit, KeyspaceEdit};
use crate::version::state::ManifestState;
use crate::wal::Wal;

/// Flushes the sealed memtables of the next tree that waits; whether there was one.
///
/// # Errors
/// What stopped the flush; the caller makes it stick.
pub(crate) fn flush_next(store: &Store) -> Result<bool> {
    let Some(next) = store.flushes.pop() else { return Ok(false) };
    flush_tree(store, &next.tree)?;
    Ok(true)
}

/// Flushes all memtables of `tree` that are sealed now into one table.
pub(crate) fn flush_tree(store: &Store, tree: &Arc<Tree>) -> Result<()> {
    let _only_flush = tree.flushing.lock();
    let Some(wal) = &store.wal else { return Ok(()) };
    if flush_sealed(store, wal, tree)? {
        release_log(store, wal)?;
        store.compaction_wanted(tree);
    }
    Ok(())
}

/// Flushes all memtables of `tree` that are sealed now into one table; whether there were any. The caller holds
/// `flushing`. Segments that are not needed any more stay until [`release_log`] is called.
pub(crate) fn flush_sealed(store: &Store, wal: &Wal, tree: &Arc<Tree>) -> Result<bool> {
    let sealed = tree.view().sealed.clone();
    if sealed.is_empty() || tree.is_dropped() {
        return Ok(false);
    }
    let moment = tree.sealed_at.lock().clone().unwrap_or_else(|| store.moment(wal));
    let newest = sealed.iter().filter_map(|memtable| memtable.last_seqno()).max().unwrap_or(0);
    let tables = write_table(store, tree, &sealed, newest)?;
    let installed = install(store, wal, tree, &sealed, newest, tables, moment)?;
    if installed {
        let flushed_bytes = sealed.iter().map(|memtable| memtable.bytes()).sum();
        // Freed before it is given to others.
        drop(sealed);
        store.shrink_memtables(flushed_bytes);
    }
    Ok(installed)
}

/// Writes what live readers can still see of the memtables; at most one table, since level 0 takes any size.
fn write_table(store: &Store, tree: &Tree, sealed: &[Arc<Memtable>], newest: SeqNo) -> Result<Vec<TableMeta>> {
    let cursors = sealed.iter().map(|memtable| MemtableCursor::new(memtable.clone())).collect();
    let mut cursor = MergeCursor::new(cursors);
    let mut retention = Retention::new(store.snapshots.list(), false);
    let mut outputs = Outputs::level0(store, tree, newest);
    let written = cursor
        .seek_to_first()
        .and_then(|()| outputs.write_all(&mut cursor, None, &mut retention, &mut |_| true, &mut || Ok(())));
    let (tables, _) = outputs.finish_after(written)?;
    let written_bytes = tables.iter().map(|meta| meta.file_bytes).sum();
    tree.amplification.record_flush(0, written_bytes);
    Ok(tables)
}

/// Puts the tables in the place of the memtables; `false` if the keyspace was dropped meanwhile.
fn install(
    store: &Store,
    wal: &Wal,
    tree: &Tree,
    sealed: &[Arc<Memtable>],
    newest: SeqNo,
    tables: Vec<TableMeta>,
    moment: Moment,
) -> Result<bool> {
    let handles: Vec<_> = tables.iter().map(|meta| (0, TableHandle::new(meta.clone(), store.tables.clone()))).collect();
    let mark = moment.mark();
    let floor = wal.plan_release(flushed_through(store, sealed), mark);
    wal.sync_kept(floor.map_or(0, |floor| floor.segment), mark)?;
    let installed = store.versions.install(
        |state| {
            if !state.keyspaces.contains_key(&tree.id) {
                return None;
            }
            let added = tables.into_iter().map(|meta| (0, meta)).collect();
            let keyspace = KeyspaceEdit { id: tree.id, flushed_seqno: Some(newest), added, removed: Vec::new() };
            Some(Edit { keyspaces: vec![keyspace], ..moment.edit(state, wal, floor) })
        },
        || tree.install(sealed, handles.clone(), &[]),
    )?;
    match installed {
        Some(_) => wal.note_kept(mark),
        None => handles.iter().for_each(|(_, handle)| handle.mark_obsolete()),
    }
    Ok(installed.is_some())
}

/// Lets go of the log that nothing needs any more: first the manifest says so, then the segments go.
pub(crate) fn release_log(store: &Store, wal: &Wal) -> Result<()> {
    let moment = store.moment(wal);
    let mark = moment.mark();
    let Some(floor) = wal.plan_release(flushed_through(store, &[]), mark) else { return Ok(()) };
    if store.versions.with_state(|state| state.log_floor.segment) < floor.segment {
        wal.sync_kept(floor.segment, mark)?;
        store.versions.install(|state| Some(moment.edit(state, wal, Some(floor))), || ())?;
        wal.note_kept(mark);
    }
    wal.release_below(floor.segment);
    forget_names(store, &known_keyspaces(store));
    Ok(())
}

/// The keyspaces that the manifest knows: those that live, and those that were dropped but are named in the log.
fn known_keyspaces(store: &Store) -> HashSet<KeyspaceId> {
    store.versions.with_state(|state| state.keyspaces.keys().chain(state.dropped.keys()).copied().collect())
}

/// Forgets the names of keyspaces that nobody can ask for any more. `known` is a moment old: who was dropped since is in
/// it as living, who was created since is found below.
fn forget_names(store: &Store, known: &HashSet<KeyspaceId>) {
    let mut trees = store.trees.write();
    let live: HashSet<_> = trees.by_name.values().map(|tree| tree.id).collect();
    // A handle of a dropped keyspace says in its errors which one that was.
    trees.names.retain(|id, name| known.contains(id) || live.contains(id) || name.is_shared());
}

/// Notes in the manifest how far the log is known to be on storage: at a clean close, so that what is missing later is
/// damage.
pub(crate) fn note_synced(store: &Store, wal: &Wal) -> Result<()> {
    let metadata = store.metadata.encoded();
    let edit = |state: &ManifestState| Edit {
        log_synced_seqno: Some(wal.synced_seqno().max(state.log_synced_seqno)),
        last_seqno: Some(store.visible().max(state.last_seqno)),
        metadata: Some(metadata),
        ..Edit::default()
    };
    store.versions.install(|state| Some(edit(state)), || ()).map(|_| ())
}

/// Every write up to the answer is in tables (or was never logged), or in one of `flushed`. The visible number is read
/// before the views: a write that is logged but not yet in a memtable is above it.
fn flushed_through(store: &Store, flushed: &[Arc<Memtable>]) -> SeqNo {
    let visible = store.visible();
    let mut through = visible;
    for tree in store.live_trees() {
        let view = tree.view();
        let others = view.memtables().filter(|memtable| !flushed.iter().any(|other| Arc::ptr_eq(memtable, other)));
        for first in others.filter_map(|memtable| memtable.first_seqno()) {
            through = through.min(first - 1);
        }
    }
    through
}

#[cfg(test)]
mod tests;
