//! Checkpoints: the database of one moment in a directory of its own, which shares its tables.
//!
//! Tables never change, so the checkpoint has second names for their files. What is not in tables yet is in the log; the
//! part of it that a replay needs, up to the moment, is copied into a log of the checkpoint's own. So nothing is flushed,
//! and what a checkpoint costs beside names is the size of the memtables. The manifest comes last: a directory without
//! one is no database.
//!
//! The moment is one under the commit lock, in which the manifest is looked at too: every table it names holds nothing
//! later, and whatever came before is in a table, in the log, or was written without it. The log that is needed is held by
//! a follower of it that is there before.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use crate::batch::{Op, Ops, WriteBatch};
use crate::db::DbHandle;
use crate::error::{Error, Result};
use crate::fs::FileSystem;
use crate::key::SeqNo;
use crate::open::{FIRST_SEGMENT, new_database_id, wal_options};
use crate::read::view::View;
use crate::store::Store;
use crate::table::handle::table_path;
use crate::version::edit::LogFloor;
use crate::version::manifest::Manifest;
use crate::version::state::ManifestState;
use crate::wal;
use crate::wal::tail::Tail;

#[cfg(test)]
mod tests;

/// What there was at the moment.
struct Moment {
    state: ManifestState,
    /// Keep the files of its tables.
    _views: Vec<Arc<View>>,
    seqno: SeqNo,
    metadata: BTreeMap<String, Vec<u8>>,
}

/// See [`Db::checkpoint`](crate::Db::checkpoint).
pub(crate) fn checkpoint(handle: &DbHandle, directory: &Path) -> Result<SeqNo> {
    let (writer, store) = (handle.writer()?, &*handle.store);
    let Some(log) = &store.wal else { return Err(Error::Closed) };
    store.health.check_write()?;
    let fs = &*store.options.file_system;
    check_empty(fs, directory)?;
    let tail = log.tail_from_oldest()?;
    let moment = writer.with_state(|_| Moment::now(store));
    let seqno = moment.seqno;
    fs.create_dir_all(directory).map_err(Error::io("creating the checkpoint's directory", directory))?;
    let written = write(store, moment, tail, directory);
    if written.is_err() {
        remove_files(fs, directory);
    }
    written.map(|()| seqno)
}

impl Moment {
    /// Under the commit lock.
    fn now(store: &Store) -> Self {
        let (state, views) = store.versions.with_state(|state| {
            let views = store.live_trees().iter().map(|tree| tree.view_arc()).collect();
            (state.clone(), views)
        });
        Moment { state, _views: views, seqno: store.visible(), metadata: store.metadata.encoded() }
    }
}

/// # Errors
/// `InvalidArgument` if there is anything in the directory.
fn check_empty(fs: &dyn FileSystem, directory: &Path) -> Result<()> {
    match fs.read_dir(directory) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(Error::io("listing the checkpoint's directory", directory)(error)),
        Ok(entries) => match entries.first() {
            None => Ok(()),
            Some(entry) => Err(Error::InvalidArgument(format!(
                "a checkpoint goes into an empty or missing directory, but {} holds {:?}",
                directory.display(),
                entry.name
            ))),
        },
    }
}

fn write(store: &Store, moment: Moment, tail: Tail, directory: &Path) -> Result<()> {
    let fs = &store.options.file_system;
    for meta in moment.state.keyspaces.values().flat_map(|keyspace| keyspace.levels.iter().flatten()) {
        let (from, to) = (table_path(&store.directory, meta.number), table_path(directory, meta.number));
        fs.hard_link(&from, &to).map_err(Error::io("linking a table", &to))?;
    }
    let Moment { mut state, seqno, metadata, .. } = moment;
    state.database_id = new_database_id(directory);
    state.log_synced_seqno = copy_log(store, &state, seqno, &metadata, tail, directory)?;
    state.log_floor.segment = FIRST_SEGMENT;
    state.last_seqno = state.last_seqno.max(seqno);
    state.metadata = metadata;
    // The tables' names as well.
    fs.sync_dir(directory).map_err(Error::io("syncing the checkpoint's directory", directory))?;
    Manifest::create(fs.clone(), directory, &state).map(drop)
}

/// Writes a log with what the records between the state's floor and `seqno` say, and with all of `metadata`; the last
/// number in it.
fn copy_log(
    store: &Store,
    state: &ManifestState,
    seqno: SeqNo,
    metadata: &BTreeMap<String, Vec<u8>>,
    mut tail: Tail,
    directory: &Path,
) -> Result<SeqNo> {
    let LogFloor { prev_seqno, .. } = state.log_floor;
    let (fs, options) = (store.options.file_system.clone(), wal_options(&store.options));
    let (log, mut writer) = wal::create(fs, directory, state.database_id, FIRST_SEGMENT, prev_seqno, options)?;
    let mut named = BTreeSet::new();
    while let Some(record) = tail.next()? {
        if record.first_seqno > seqno {
            break;
        }
        if record.first_seqno <= prev_seqno {
            continue;
        }
        for op in Ops::new(&record.payload).flatten() {
            if let Op::Metadata { name, .. } = op {
                named.insert(name.to_owned());
            }
        }
        writer.append(record.first_seqno, record.count, &record.payload)?;
    }
    // Changes of metadata alone are not followed, and the records above may say what was so before.
    let mut now = WriteBatch::new();
    named.extend(metadata.keys().cloned());
    named.iter().for_each(|name| now.metadata_in(name, metadata.get(name).map(|value| &value[..])));
    if !now.is_empty() {
        writer.append(log.last_logged_seqno() + 1, 0, &now.encoded)?;
    }
    log.sync_all()?;
    Ok(log.last_logged_seqno())
}

/// Takes back what an attempt left. What cannot be removed is no database without a manifest.
fn remove_files(fs: &dyn FileSystem, directory: &Path) {
    for entry in fs.read_dir(directory).unwrap_or_default() {
        let path = directory.join(&entry.name);
        if let Err(error) = fs.remove_file(&path) {
            tracing::warn!(%error, path = %path.display(), "removing what a failed checkpoint left");
        }
    }
}
