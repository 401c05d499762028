//! [`Db`]: an open database.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;

use crate::background::Pool;
use crate::batch::WriteBatch;
use crate::changes::{ChangeBatch, Changes};
use crate::error::{Error, Result};
use crate::key::SeqNo;
use crate::keyspace::Keyspace;
use crate::metrics::Metrics;
use crate::name::KeyspaceName;
use crate::options::{Durability, KeyspaceOptions, Options};
use crate::slice::Slice;
use crate::snapshot::Snapshot;
use crate::store::Store;
use crate::sync::Mutex;
use crate::tree::Tree;
use crate::verify::Report;
use crate::write::commit::Writer;

/// As long as it lives no compaction begins by itself; see [`Db::hold_compactions`].
#[derive(Debug)]
#[must_use = "compactions begin again when it is dropped"]
pub struct CompactionHold(Db);

impl Drop for CompactionHold {
    fn drop(&mut self) {
        crate::maintenance::release_compactions(&self.0.0.store);
    }
}

/// An open database: keyspaces, a log of their mutations, and the threads that keep them in shape.
///
/// Cheap to clone, `Send + Sync`. The database closes with [`close`](Db::close), or when the last handle of any kind (a
/// `Db`, [`Keyspace`], [`Snapshot`] or iterator) goes.
///
/// ```
/// # let dir = tempfile::tempdir().unwrap();
/// let db = siltstone::Db::open(dir.path())?;
/// let words = db.keyspace("words", Default::default())?;
/// words.put("silt", "what a stream lays down")?;
/// assert_eq!(words.get("silt")?.unwrap(), "what a stream lays down");
/// db.close()?;
/// # Ok::<(), siltstone::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Db(Arc<DbHandle>);

/// What all handles share; dropping the last one closes.
#[derive(Debug)]
pub(crate) struct DbHandle {
    pub(crate) store: Arc<Store>,
    /// None when opened read-only.
    pub(crate) writer: Option<Arc<Writer>>,
    /// Empty when opened read-only, and from the close on.
    pub(crate) pools: Mutex<Vec<Pool>>,
    /// Keyspaces are created and dropped one at a time.
    pub(crate) catalog: Mutex<()>,
}

impl Db {
    pub(crate) fn new(handle: DbHandle) -> Self {
        Db(Arc::new(handle))
    }

    pub(crate) fn from_handle(handle: Arc<DbHandle>) -> Self {
        Db(handle)
    }

    #[cfg(test)]
    pub(crate) fn handle(&self) -> &Arc<DbHandle> {
        &self.0
    }

    /// Opens the database in directory `path` with default options, creating it if it is missing.
    ///
    /// # Errors
    /// See [`Options::open`].
    pub fn open(path: impl AsRef<Path>) -> Result<Db> {
        Options::new().open(path)
    }

    /// Opens the keyspace `name`, creating it if it is missing (durably: two syncs). Its options hold for what is
    /// written from now on.
    ///
    /// # Errors
    /// `InvalidArgument` for a name that is empty, longer than 255 bytes, or holds `/`, `\` or a control character, and
    /// for options out of bounds; `ReadOnly` when it would have to be created; `Closed`; `Io`.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let db = siltstone::Db::open(dir.path())?;
    /// use siltstone::{Error, KeyspaceOptions};
    /// let scans = db.keyspace("scans", KeyspaceOptions::new().block_bytes(16 << 10))?;
    /// assert_eq!(scans.name(), "scans");
    /// assert!(matches!(db.keyspace("no/slashes", KeyspaceOptions::new()), Err(Error::InvalidArgument(_))));
    /// # Ok::<(), siltstone::Error>(())
    /// ```
    pub fn keyspace(&self, name: impl AsRef<str>, options: KeyspaceOptions) -> Result<Keyspace> {
        let tree = self.0.open_tree(name.as_ref(), options)?;
        Ok(Keyspace::new(self.0.clone(), tree))
    }

    /// The names of all keyspaces, sorted; none once closed.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let db = siltstone::Db::open(dir.path())?;
    /// db.keyspace("b", Default::default())?;
    /// db.keyspace("a", Default::default())?;
    /// assert_eq!(db.keyspaces(), ["a", "b"]);
    /// # Ok::<(), siltstone::Error>(())
    /// ```
    pub fn keyspaces(&self) -> Vec<String> {
        if self.0.store.health.is_closed() {
            return Vec::new();
        }
        self.0.store.trees.read().by_name.keys().map(ToString::to_string).collect()
    }

    /// Drops a keyspace with all its data, durably; whether it was there. Handles to it give `KeyspaceDropped` from
    /// then on; iterators and snapshots from before go on; a keyspace created later under the name is a new one.
    ///
    /// # Errors
    /// `ReadOnly`, `Closed`, `Io`.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let db = siltstone::Db::open(dir.path())?;
    /// db.keyspace("scratch", Default::default())?.put("k", "v")?;
    /// assert!(db.drop_keyspace("scratch")?);
    /// assert!(!db.drop_keyspace("scratch")?);
    /// assert!(db.keyspace("scratch", Default::default())?.get("k")?.is_none());
    /// # Ok::<(), siltstone::Error>(())
    /// ```
    pub fn drop_keyspace(&self, name: impl AsRef<str>) -> Result<bool> {
        self.0.drop_tree(name.as_ref(), None)
    }

    /// Writes a batch with the database's durability: all of it becomes visible and durable together. Answers the
    /// sequence number of its last operation; an empty batch takes none and answers [`last_seqno`](Db::last_seqno).
    ///
    /// # Errors
    /// `InvalidArgument` for what the batch refused; `KeyspaceDropped`, `Closed`; `Io` if the log cannot be written,
    /// and `ReadOnly` after that. Nothing was written then.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let db = siltstone::Db::open(dir.path())?;
    /// # let ks = db.keyspace("ks", Default::default())?;
    /// let mut batch = siltstone::WriteBatch::new();
    /// batch.put(&ks, "a", "1").delete(&ks, "b");
    /// let last = db.write(batch)?;
    /// assert_eq!(last, db.last_seqno());
    /// # Ok::<(), siltstone::Error>(())
    /// ```
    pub fn write(&self, batch: WriteBatch) -> Result<SeqNo> {
        self.0.write(batch)
    }

    /// Writes a batch with the durability given.
    ///
    /// # Errors
    /// As [`write`](Db::write).
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let db = siltstone::Db::open(dir.path())?;
    /// # let ks = db.keyspace("ks", Default::default())?;
    /// let mut batch = siltstone::WriteBatch::new();
    /// batch.put(&ks, "order", "paid");
    /// db.write_with(batch, siltstone::Durability::Synced)?; // survives power loss from here on
    /// # Ok::<(), siltstone::Error>(())
    /// ```
    pub fn write_with(&self, batch: WriteBatch, durability: Durability) -> Result<SeqNo> {
        self.0.writer()?.write(batch, durability)
    }

    /// Applies a batch of another database's log under its own sequence numbers, together with `metadata` (for instance
    /// the position it was read from): how a replica is built. A batch that is already in, by its numbers, changes
    /// nothing but the metadata, so delivery may repeat. Keyspaces that are missing are created.
    ///
    /// # Errors
    /// `InvalidArgument` if the batch overlaps what is here only in part; otherwise as [`write`](Db::write).
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let db = siltstone::Db::open(dir.path())?;
    /// # let ks = db.keyspace("ks", Default::default())?;
    /// ks.put("k", "v")?;
    /// let other = tempfile::tempdir().unwrap();
    /// let replica = siltstone::Db::open(other.path())?;
    /// for batch in db.changes(1)? {
    ///     replica.apply(&batch?, &[("applied from", "db")])?;
    /// }
    /// assert_eq!(replica.last_seqno(), db.last_seqno());
    /// assert_eq!(replica.keyspace("ks", Default::default())?.get("k")?.unwrap(), "v");
    /// # Ok::<(), siltstone::Error>(())
    /// ```
    pub fn apply<V: AsRef<[u8]>>(&self, changes: &ChangeBatch, metadata: &[(&str, V)]) -> Result<SeqNo> {
        crate::apply::apply(&self.0, changes, metadata)
    }

    /// Applies many batches of another database's log at once, past log and memtables: of each keyspace the latest change
    /// of each key, with its value or none for a delete, in ascending order of keys. All of it becomes visible at once,
    /// durably, under the numbers up to `last_seqno`, the last one of these batches. For the restore of a database, since
    /// sorted entries cost a fraction of [`apply`](Db::apply). Keyspaces that are missing are created. The parts are written
    /// side by side; a keyspace may have several, in ascending order of their keys.
    ///
    /// As what is [ingested](crate::Keyspace::ingest), it is not in this database's own log.
    ///
    /// # Errors
    /// `InvalidArgument` for keys out of order, in a part or in parts of one keyspace, a number that is not above
    /// [`last_seqno`](Db::last_seqno), while a change cursor follows the log, and for what is over its limit; nothing is
    /// applied then. Otherwise as [`write`](Db::write).
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let db = siltstone::Db::open(dir.path())?;
    /// let sorted = vec![("a", Some("1")), ("b", None), ("c", Some("3"))];
    /// db.apply_sorted(vec![("letters".into(), sorted.into_iter())], 17)?;
    /// assert_eq!(db.last_seqno(), 17);
    /// assert_eq!(db.keyspace("letters", Default::default())?.get("c")?.unwrap(), "3");
    /// # Ok::<(), siltstone::Error>(())
    /// ```
    pub fn apply_sorted<E, K, V>(&self, parts: Vec<(KeyspaceName, E)>, last_seqno: SeqNo) -> Result<()>
    where
        E: Iterator<Item = (K, Option<V>)> + Send,
        K: AsRef<[u8]>,
        V: AsRef<[u8]>,
    {
        crate::ingest::apply_sorted(&self.0, parts, last_seqno)
    }

    /// Keeps compactions from beginning by themselves until the answer is dropped; those that run go on, and so do flushes.
    /// For loading much at once: everything that came meanwhile is merged together afterwards, instead of again and again.
    /// Reads look through more tables, and the less memory there is for them the longer it is held.
    /// [`wait_for_compaction`](Db::wait_for_compaction) does not wait for what is held.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let db = siltstone::Db::open(dir.path())?;
    /// let ks = db.keyspace("squares", Default::default())?;
    /// let hold = db.hold_compactions();
    /// for n in 0..1000u32 {
    ///     ks.put(n.to_be_bytes(), (n * n).to_be_bytes())?;
    /// }
    /// drop(hold);
    /// db.wait_for_compaction()?;
    /// # Ok::<(), siltstone::Error>(())
    /// ```
    pub fn hold_compactions(&self) -> CompactionHold {
        crate::maintenance::hold_compactions(&self.0.store);
        CompactionHold(self.clone())
    }

    /// A read view of everything at this moment.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let db = siltstone::Db::open(dir.path())?;
    /// # let ks = db.keyspace("ks", Default::default())?;
    /// ks.put("k", "old")?;
    /// let snapshot = db.snapshot();
    /// ks.put("k", "new")?;
    /// assert_eq!(snapshot.get(&ks, "k")?.unwrap(), "old");
    /// # Ok::<(), siltstone::Error>(())
    /// ```
    pub fn snapshot(&self) -> Snapshot {
        Snapshot::new(self.0.clone())
    }

    /// The sequence number of the last operation that is visible; 0 before the first.
    pub fn last_seqno(&self) -> SeqNo {
        self.0.store.visible()
    }

    /// The value of a metadata entry; see [`WriteBatch::metadata`].
    pub fn metadata(&self, name: &str) -> Option<Slice> {
        self.0.store.metadata.get(name)
    }

    /// Makes every write so far durable against power loss.
    ///
    /// # Errors
    /// `Io` if the sync fails: the database is read-only from then on. `ReadOnly`, `Closed`.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let db = siltstone::Db::open(dir.path())?;
    /// # let ks = db.keyspace("ks", Default::default())?;
    /// ks.put("k", "v")?; // survives a killed process
    /// db.sync()?; // and now power loss
    /// assert_eq!(db.metrics().synced_seqno, db.last_seqno());
    /// # Ok::<(), siltstone::Error>(())
    /// ```
    pub fn sync(&self) -> Result<()> {
        self.0.writer()?.sync_all()
    }

    /// Writes everything in memory to tables and waits for it.
    ///
    /// # Errors
    /// `ReadOnly` (with the reason if the flush fails), `Closed`.
    pub fn flush(&self) -> Result<()> {
        self.0.flush_trees(&self.0.store.live_trees())
    }

    /// Waits until no flush or compaction is running or due. Files that nothing needs any longer are removed by then, and
    /// if nothing is written meanwhile, so are those that the log keeps for its next segments.
    ///
    /// # Errors
    /// `ReadOnly` with the reason if the background failed; `Closed`.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let db = siltstone::Db::open(dir.path())?;
    /// # let ks = db.keyspace("ks", Default::default())?;
    /// ks.put("k", "v")?;
    /// db.flush()?;
    /// db.wait_for_compaction()?;
    /// assert_eq!(ks.metrics().running_compactions, 0);
    /// # Ok::<(), siltstone::Error>(())
    /// ```
    pub fn wait_for_compaction(&self) -> Result<()> {
        let store = &self.0.store;
        let seqno = store.visible();
        crate::maintenance::wait_until_idle(store)?;
        self.0.writer()?.with_state(|state| state.give_back_spares(seqno));
        Ok(())
    }

    /// The mutation log from `from` on, live: batch after batch, in order. `from` is inclusive (the batch that holds it
    /// comes first, whole) and may be `last_seqno() + 1`. Writes with [`Durability::NoLog`] are not in the log.
    ///
    /// # Errors
    /// `NotRetained` if the log no longer holds `from`, with the oldest that it holds; `InvalidArgument` if `from` is
    /// beyond `last_seqno() + 1`; `ReadOnly` on a read-only database; `Closed`.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let db = siltstone::Db::open(dir.path())?;
    /// let words = db.keyspace("words", Default::default())?;
    /// words.put("silt", "1")?;
    /// let mut changes = db.changes(1)?;
    /// let batch = changes.next().unwrap()?;
    /// assert_eq!((batch.first_seqno(), batch.last_seqno()), (1, 1));
    /// assert!(changes.next().is_none(), "caught up");
    /// words.put("sand", "2")?;
    /// assert!(changes.next().is_some(), "and on it goes");
    /// # Ok::<(), siltstone::Error>(())
    /// ```
    pub fn changes(&self, from: SeqNo) -> Result<Changes> {
        Changes::open(&self.0, from)
    }

    /// Keeps the log from sequence number `next` on for the consumer `name`, also across restarts, until the cursor
    /// moves on or is removed. A consumer that stores what it has done calls this with the number that follows; a
    /// cursor that would hold back more than [`Options::max_retained_wal_bytes`] is given up, and its consumer gets
    /// `NotRetained`.
    ///
    /// # Errors
    /// `InvalidArgument` for a name over 200 bytes; otherwise as [`write`](Db::write).
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let db = siltstone::Db::open(dir.path())?;
    /// # let ks = db.keyspace("ks", Default::default())?;
    /// ks.put("k", "v")?;
    /// db.set_change_cursor("mailer", 1)?; // keep the log from 1 on, whatever is flushed
    /// for batch in db.changes(db.change_cursor("mailer").unwrap())? {
    ///     db.set_change_cursor("mailer", batch?.last_seqno() + 1)?; // done with it
    /// }
    /// assert_eq!(db.change_cursor("mailer"), Some(2));
    /// # Ok::<(), siltstone::Error>(())
    /// ```
    pub fn set_change_cursor(&self, name: &str, next: SeqNo) -> Result<()> {
        crate::changes::set_cursor(self, &self.0, name, next, &[])
    }

    /// As [`set_change_cursor`](Db::set_change_cursor), and writes `metadata` in the same batch.
    ///
    /// # Errors
    /// As [`set_change_cursor`](Db::set_change_cursor).
    pub fn set_change_cursor_with(&self, name: &str, next: SeqNo, metadata: &[(&str, &[u8])]) -> Result<()> {
        crate::changes::set_cursor(self, &self.0, name, next, metadata)
    }

    /// The number from which on the log is kept for the consumer `name`, if it has a cursor.
    pub fn change_cursor(&self, name: &str) -> Option<SeqNo> {
        crate::changes::cursor(&self.0.store, name)
    }

    /// The names of all consumers that have a cursor, in order.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let db = siltstone::Db::open(dir.path())?;
    /// db.set_change_cursor("mailer", 1)?;
    /// assert_eq!(db.change_cursors(), ["mailer"]);
    /// # Ok::<(), siltstone::Error>(())
    /// ```
    pub fn change_cursors(&self) -> Vec<String> {
        crate::changes::cursors(&self.0.store)
    }

    /// Removes the cursor of a consumer, if it has one.
    ///
    /// # Errors
    /// As [`write`](Db::write).
    pub fn remove_change_cursor(&self, name: &str) -> Result<()> {
        crate::changes::remove_cursor(self, &self.0, name)
    }

    /// Makes a copy of the database, as it is at some moment during the call, in `directory`, which must be empty or missing;
    /// the last sequence number in it. It is a database of its own, to be opened, moved or uploaded: it shares the tables'
    /// files as long as both are on one device (they are copied otherwise), and has its own log, with what the memtables
    /// hold. Nothing is flushed, and writes go on meanwhile. What was written with
    /// [`NoLog`](crate::Durability::NoLog) is in it as far as it was flushed.
    ///
    /// # Errors
    /// `InvalidArgument` if there is anything in the directory; `Io`, and then what was made there is removed again;
    /// `ReadOnly`, `Closed`.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let (path, copy) = (dir.path().join("db"), dir.path().join("copy"));
    /// let db = siltstone::Db::open(&path)?;
    /// let ks = db.keyspace("ks", Default::default())?;
    /// ks.put("k", "before")?;
    /// db.checkpoint(&copy)?;
    /// ks.put("k", "after")?;
    /// let copy = siltstone::Db::open(&copy)?;
    /// assert_eq!(copy.keyspace("ks", Default::default())?.get("k")?.unwrap(), "before");
    /// # Ok::<(), siltstone::Error>(())
    /// ```
    pub fn checkpoint(&self, directory: impl AsRef<Path>) -> Result<SeqNo> {
        crate::checkpoint::checkpoint(&self.0, directory.as_ref())
    }

    /// Reads every byte of every live table and of the log, and checks it against its checksum and against what should
    /// be there.
    pub fn verify(&self) -> Report {
        crate::verify::verify(&self.0.store)
    }

    /// What the database has done and holds; prints as a table.
    pub fn metrics(&self) -> Metrics {
        Metrics::of(&self.0)
    }

    /// Closes the database: waits for writes that are under way, makes the log durable, ends the threads and frees the
    /// directory. Handles, snapshots and new iterators give `Closed` from then on; iterators that are under way may
    /// finish. Closing again is fine.
    ///
    /// # Errors
    /// `Io` if the log cannot be made durable; the database is closed all the same.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let db = siltstone::Db::open(dir.path())?;
    /// # let ks = db.keyspace("ks", Default::default())?;
    /// db.close()?;
    /// assert!(matches!(ks.get("k"), Err(siltstone::Error::Closed)));
    /// siltstone::Db::open(dir.path())?; // the directory is free
    /// # Ok::<(), siltstone::Error>(())
    /// ```
    pub fn close(&self) -> Result<()> {
        self.0.close()
    }
}

#[cfg(test)]
impl Db {
    /// What all parts share, for tests that look inside.
    pub(crate) fn store(&self) -> &Arc<Store> {
        &self.0.store
    }
}

impl DbHandle {
    #[inline]
    pub(crate) fn writer(&self) -> Result<&Writer> {
        match &self.writer {
            Some(writer) => Ok(writer),
            None => Err(self.store.health.check_write().err().unwrap_or(Error::Closed)),
        }
    }

    pub(crate) fn write(&self, batch: WriteBatch) -> Result<SeqNo> {
        self.writer()?.write(batch, self.store.options.durability)
    }

    /// Seals the memtables of `trees` and waits until what is sealed now is in tables, or of no use since the keyspace
    /// was dropped.
    pub(crate) fn flush_trees(&self, trees: &[Arc<Tree>]) -> Result<()> {
        self.store.health.check_write()?;
        self.writer()?.with_state(|state| trees.iter().for_each(|tree| state.seal(tree.id)));
        for tree in trees {
            let sealed = tree.view().sealed.clone();
            let gone = || {
                let view = tree.view();
                // A dropped tree is flushed no more; what it holds stays as long as a snapshot may read it.
                tree.is_dropped()
                    || !view.sealed.iter().any(|memtable| sealed.iter().any(|other| Arc::ptr_eq(memtable, other)))
            };
            self.store.wait_until(gone)?;
        }
        Ok(())
    }

    fn close(&self) -> Result<()> {
        if !self.store.health.close() {
            return Ok(());
        }
        let unlogged: Vec<Arc<Tree>> = match &self.writer {
            // Taking the commit lock waits for the write that is under way; the next one sees the database closed.
            Some(writer) => writer.with_state(|state| state.close()),
            None => Vec::new(),
        };
        if let Some(wal) = &self.store.wal {
            wal.wake_tails();
        }
        self.pools.lock().drain(..).for_each(|mut pool| pool.stop());
        let sealed = self.flush_unlogged(&unlogged).and_then(|()| self.seal_files());
        self.store.pin_for_iterators();
        let dropped = std::mem::take(&mut self.store.trees.write().dropped);
        for tree in self.store.live_trees().into_iter().chain(dropped.into_iter().map(|(_, tree)| tree)) {
            tree.clear(self.store.uncounted_memtable(&tree.options()));
        }
        self.store.tenure.end();
        drop(self.store.lock.lock().take());
        sealed
    }

    /// What was written without the log would be lost with its memtables; metadata would be what the log says.
    fn flush_unlogged(&self, trees: &[Arc<Tree>]) -> Result<()> {
        if self.store.health.has_failed() {
            return Ok(());
        }
        trees.iter().try_for_each(|tree| crate::flush::flush_tree(&self.store, tree))?;
        self.writer.as_ref().map_or(Ok(()), |writer| writer.with_state(|state| state.log_metadata()))
    }

    /// Makes the log durable and notes in the manifest how far it goes, so that later damage to either is told from a
    /// crash.
    fn seal_files(&self) -> Result<()> {
        let Some(wal) = &self.store.wal else { return Ok(()) };
        if self.store.health.has_failed() {
            return Ok(());
        }
        wal.sync_all()?;
        crate::flush::note_synced(&self.store, wal)?;
        self.store.versions.seal()?;
        crate::maintenance::purge(&self.store);
        if let Some(writer) = &self.writer {
            writer.with_state(|state| state.give_back_spares(self.store.visible()));
        }
        Ok(())
    }
}

impl Drop for DbHandle {
    fn drop(&mut self) {
        // Perhaps a panic drops the handle: one more here would end the process.
        match catch_unwind(AssertUnwindSafe(|| self.close())) {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::error!(%error, "closing the database"),
            Err(_panic) => tracing::error!("closing the database panicked"),
        }
    }
}
