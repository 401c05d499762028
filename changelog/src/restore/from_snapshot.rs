//! Beginning a restore with a snapshot.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use siltstone::{Db, Durability, WriteBatch};

use super::read_ahead::Until;
use super::{RESTORING, Restore, SOURCE_POSITION};
use crate::error::{Error, Result};
use crate::position::Position;
use crate::ship::position_entry;
use crate::sink::Source;
use crate::snapshot::SnapshotStore;

/// Marks a directory into which a snapshot is downloaded, until it is a database that is marked itself. It holds the
/// snapshot's name.
pub(super) const MARKER: &str = "RESTORING";

/// The file that makes a directory a database.
const CURRENT: &str = "CURRENT";

/// Where a restore may begin instead of at the beginning of the log.
#[derive(Clone, Debug)]
pub(super) struct Snapshots {
    store: Arc<SnapshotStore>,
    /// Under which the database that they were made of shipped.
    cursor: String,
}

impl<S: Source> Restore<S> {
    /// Begins with the newest of these snapshots that is not ahead of the log, and reads only what lies behind it; without
    /// one, from the beginning. `cursor` is what the database that they were made of had in
    /// [`ShipOptions::cursor`](crate::ShipOptions::cursor) (`changelog` by default). Only on the
    /// system's files.
    ///
    /// ```
    /// # let scratch = tempfile::tempdir().unwrap();
    /// # let path = |name: &str| scratch.path().join(name);
    /// use std::sync::Arc;
    /// use siltstone_changelog::{FileSink, FileSource, Restore, ShipOptions, SnapshotStore, ship};
    /// let db = siltstone::Db::open(path("db"))?;
    /// let shipper = ship(&db, FileSink::open(path("log"))?, ShipOptions::new())?;
    /// let words = db.keyspace("words", Default::default())?;
    /// words.put("silt", "1")?;
    /// let snapshots = Arc::new(SnapshotStore::in_directory(path("snapshots"))?);
    /// shipper.flush()?;
    /// snapshots.upload(&db, path("checkpoint"))?;
    /// words.put("clay", "2")?;
    /// shipper.stop()?; // the machine is lost
    ///
    /// let restore = Restore::new(FileSource::open(path("log"))).from_snapshots(snapshots, "changelog");
    /// let (again, _) = restore.into(path("again")).on_progress(|progress| assert!(progress.changes <= 1)).run()?;
    /// assert_eq!(again.last_seqno(), 2);
    /// # Ok::<(), siltstone_changelog::Error>(())
    /// ```
    pub fn from_snapshots(mut self, store: Arc<SnapshotStore>, cursor: impl Into<String>) -> Self {
        self.snapshots = Some(Snapshots { store, cursor: cursor.into() });
        self
    }

    /// Downloads a snapshot if that is how this restore begins; whether the directory now is one that is not marked yet.
    /// `newest` is the end of the log.
    pub(super) fn download(&self, newest: &Position) -> Result<bool> {
        let Some(snapshots) = &self.snapshots else { return Ok(false) };
        if self.file_system.is_some() {
            return Err(Error::InvalidArgument("snapshots are restored into the system's files only".to_owned()));
        }
        let marker = self.directory.join(MARKER);
        let id = match fs::read_to_string(&marker) {
            Ok(id) => id,
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(Error::io("reading which snapshot it is", &marker)(error));
            }
            Err(_) if self.directory.join(CURRENT).exists() => return Ok(false),
            Err(_) => {
                let Some(id) = self.usable(&snapshots.store, newest)? else { return Ok(false) };
                mark(&self.directory, &id)?;
                id
            }
        };
        snapshots.store.restore(&id, &self.directory)?;
        Ok(true)
    }

    /// The newest snapshot that the log goes on from.
    fn usable(&self, store: &SnapshotStore, newest: &Position) -> Result<Option<String>> {
        let newest_seqno = self.source.seqno_at(newest)?;
        let usable = |seqno| match self.until {
            Until::Newest => newest_seqno.is_none_or(|newest| seqno <= newest),
            Until::Seqno(until) => seqno <= until,
            Until::Position(_) => false,
        };
        Ok(store.list()?.into_iter().rev().find(|snapshot| usable(snapshot.seqno)).map(|snapshot| snapshot.id))
    }

    /// Makes a database that was downloaded one that is being restored.
    pub(super) fn adopt(&self, db: &Db) -> Result<()> {
        let Some(snapshots) = &self.snapshots else { return Ok(()) };
        let shipped = || db.metadata(&position_entry(&snapshots.cursor));
        let position = db.metadata(SOURCE_POSITION).or_else(shipped);
        if position.is_none() && db.last_seqno() > 0 && self.source.holds_whole_state()? == Some(false) {
            let reason = format!("no position in the log is noted in the snapshot, not under {:?}", snapshots.cursor);
            return Err(Error::Stale { directory: self.directory.clone(), reason });
        }
        // Whoever followed the log that this database had follows it no more.
        db.change_cursors().iter().try_for_each(|name| db.remove_change_cursor(name))?;
        let mut begun = WriteBatch::new();
        begun.metadata(RESTORING, Some("1")).metadata(SOURCE_POSITION, position);
        db.write_with(begun, Durability::Synced)?;
        remove_marker(&self.directory)
    }
}

/// Notes durably which snapshot comes into a directory, before any of it does.
fn mark(directory: &Path, id: &str) -> Result<()> {
    let unfinished: PathBuf = directory.join(format!("{MARKER}.tmp"));
    let write = || {
        fs::create_dir_all(directory)?;
        fs::write(&unfinished, id)?;
        fs::File::open(&unfinished)?.sync_all()?;
        fs::rename(&unfinished, directory.join(MARKER))?;
        fs::File::open(directory)?.sync_all()
    };
    write().map_err(Error::io("noting which snapshot it is", directory))
}

fn remove_marker(directory: &Path) -> Result<()> {
    let remove = || {
        fs::remove_file(directory.join(MARKER))?;
        fs::File::open(directory)?.sync_all()
    };
    remove().map_err(Error::io("removing the note of a snapshot", directory))
}
