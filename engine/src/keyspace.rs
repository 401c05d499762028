//! [`Keyspace`]: a named, ordered map inside a database.

use std::ops::RangeBounds;
use std::sync::Arc;

use crate::batch::{KeyspaceId, WriteBatch};
use crate::db::{Db, DbHandle};
use crate::error::{Error, Result};
use crate::iter::{Iter, KeyBounds, bounds_of, prefix_bounds};
use crate::key::{Lookup, MAX_SEQNO, SeqNo};
use crate::metrics::KeyspaceMetrics;
use crate::name::KeyspaceName;
use crate::read::view::{Found, Touched, View};
use crate::slice::Slice;
use crate::tree::Tree;

/// One get in this many is counted for the read amplification; by the key's hash, so that no counter is shared between
/// threads.
const SAMPLE_MASK: u64 = 63;

/// A named, ordered map with its own tree and options (RocksDB: column family; Samza: store).
///
/// Cheap to clone, `Send + Sync`; keeps the database open. Keys are byte strings of 0 to 65,535 bytes in unsigned byte
/// order, values byte strings of up to 1 GiB.
///
/// ```
/// # let dir = tempfile::tempdir().unwrap();
/// # let db = siltstone::Db::open(dir.path())?;
/// let users = db.keyspace("users", Default::default())?;
/// users.put("ada", "1815")?;
/// users.put("alan", "1912")?;
/// assert_eq!(users.get("ada")?.unwrap(), "1815");
/// let names: Vec<_> = users.prefix("a").map(|entry| entry.map(|(key, _)| key)).collect::<Result<_, _>>()?;
/// assert_eq!(names, ["ada", "alan"]);
/// # Ok::<(), siltstone::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Keyspace {
    tree: Arc<Tree>,
    db: Arc<DbHandle>,
}

impl Keyspace {
    pub(crate) fn new(db: Arc<DbHandle>, tree: Arc<Tree>) -> Self {
        Keyspace { tree, db }
    }

    pub(crate) fn tree(&self) -> &Arc<Tree> {
        &self.tree
    }

    /// The keyspace's name.
    pub fn name(&self) -> &KeyspaceName {
        &self.tree.name
    }

    /// The database that the keyspace belongs to.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let db = siltstone::Db::open(dir.path())?;
    /// # let ks = db.keyspace("ks", Default::default())?;
    /// ks.put("k", "v")?;
    /// let before = ks.db().snapshot();
    /// ks.delete("k")?;
    /// assert_eq!(before.get(&ks, "k")?.unwrap(), "v");
    /// # Ok::<(), siltstone::Error>(())
    /// ```
    pub fn db(&self) -> Db {
        Db::from_handle(self.db.clone())
    }

    // ---- reading ----

    /// The value of `key`.
    ///
    /// # Errors
    /// `Closed`, `KeyspaceDropped`, and from the tables `Corruption` and `Io`.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let db = siltstone::Db::open(dir.path())?;
    /// # let ks = db.keyspace("ks", Default::default())?;
    /// ks.put("k", "v")?;
    /// assert_eq!(ks.get("k")?.as_deref(), Some(&b"v"[..]));
    /// assert_eq!(ks.get("absent")?, None);
    /// # Ok::<(), siltstone::Error>(())
    /// ```
    #[inline]
    pub fn get(&self, key: impl AsRef<[u8]>) -> Result<Option<Slice>> {
        self.get_latest(key.as_ref(), |found| found.into_slice())
    }

    /// Hands the value of `key` to `with` where it lies, without a copy, and answers what that makes of it; `None` if
    /// the key is absent.
    ///
    /// # Errors
    /// As [`get`](Keyspace::get).
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let db = siltstone::Db::open(dir.path())?;
    /// # let ks = db.keyspace("ks", Default::default())?;
    /// ks.put("n", 7u64.to_le_bytes())?;
    /// let n = ks.get_with("n", |value| value.try_into().ok().map(u64::from_le_bytes))?;
    /// assert_eq!(n, Some(Some(7)));
    /// # Ok::<(), siltstone::Error>(())
    /// ```
    #[inline]
    pub fn get_with<R>(&self, key: impl AsRef<[u8]>, with: impl FnOnce(&[u8]) -> R) -> Result<Option<R>> {
        self.get_latest(key.as_ref(), |found| with(found.value()))
    }

    /// Whether `key` has a value.
    ///
    /// # Errors
    /// As [`get`](Keyspace::get).
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let db = siltstone::Db::open(dir.path())?;
    /// # let ks = db.keyspace("ks", Default::default())?;
    /// ks.put("here", "")?;
    /// assert!(ks.contains_key("here")? && !ks.contains_key("there")?);
    /// # Ok::<(), siltstone::Error>(())
    /// ```
    pub fn contains_key(&self, key: impl AsRef<[u8]>) -> Result<bool> {
        Ok(self.get_latest(key.as_ref(), |_| ())?.is_some())
    }

    /// The values of `keys`, in the order asked, all at one sequence number.
    ///
    /// # Errors
    /// As [`get`](Keyspace::get).
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let db = siltstone::Db::open(dir.path())?;
    /// # let ks = db.keyspace("ks", Default::default())?;
    /// ks.put_all([("a", "1"), ("b", "2")])?;
    /// let values = ks.get_many(["b", "absent", "a"])?;
    /// assert_eq!(values, [Some("2".into()), None, Some("1".into())]);
    /// # Ok::<(), siltstone::Error>(())
    /// ```
    pub fn get_many<K: AsRef<[u8]>>(&self, keys: impl IntoIterator<Item = K>) -> Result<Vec<Option<Slice>>> {
        let (view, seqno) = self.db.store.consistent(&self.tree);
        self.check_view(seqno)?;
        self.get_many_at(keys, &view, seqno)
    }

    /// Whether a view that was taken before can be read at `seqno`. Closing and dropping leave their mark before they
    /// empty the view, so asking comes after taking it: who asked first could take an empty one for the truth.
    fn check_view(&self, seqno: SeqNo) -> Result<()> {
        self.db.store.health.check_read()?;
        self.tree.check_live(seqno)
    }

    pub(crate) fn get_many_at<K: AsRef<[u8]>>(
        &self,
        keys: impl IntoIterator<Item = K>,
        view: &View,
        seqno: SeqNo,
    ) -> Result<Vec<Option<Slice>>> {
        let mut touched = Touched::default();
        let find = |key: K| view.find(&Lookup::new(key.as_ref(), seqno), &mut touched, |found| found.into_slice());
        keys.into_iter().map(find).collect()
    }

    /// All entries in key order, from both ends, as of now.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let db = siltstone::Db::open(dir.path())?;
    /// # let ks = db.keyspace("ks", Default::default())?;
    /// ks.put_all([("a", "1"), ("b", "2")])?;
    /// let entries = ks.iter();
    /// ks.delete("a")?; // the iterator is a point in time
    /// assert_eq!(entries.count(), 2);
    /// # Ok::<(), siltstone::Error>(())
    /// ```
    pub fn iter(&self) -> Iter {
        self.range::<&[u8]>(..)
    }

    /// The entries whose keys lie in `bounds`, in key order, from both ends, as of now. A reversed range is empty.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let db = siltstone::Db::open(dir.path())?;
    /// # let ks = db.keyspace("ks", Default::default())?;
    /// ks.put_all([("a", "1"), ("b", "2"), ("c", "3")])?;
    /// let (last, _) = ks.range("a".."c").next_back().unwrap()?;
    /// assert_eq!(last, "b");
    /// # Ok::<(), siltstone::Error>(())
    /// ```
    pub fn range<K: AsRef<[u8]>>(&self, bounds: impl RangeBounds<K>) -> Iter {
        self.iter_in(bounds_of(&bounds))
    }

    /// The entries whose keys begin with `prefix`, in key order, from both ends, as of now.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let db = siltstone::Db::open(dir.path())?;
    /// # let ks = db.keyspace("ks", Default::default())?;
    /// ks.put_all([("user/ada", "1"), ("user/alan", "2"), ("zone/utc", "3")])?;
    /// let users: Vec<_> = ks.prefix("user/").rev().collect::<Result<_, _>>()?;
    /// assert_eq!(users[0].0, "user/alan");
    /// assert_eq!(users.len(), 2);
    /// # Ok::<(), siltstone::Error>(())
    /// ```
    pub fn prefix(&self, prefix: impl AsRef<[u8]>) -> Iter {
        self.iter_in(prefix_bounds(prefix.as_ref()))
    }

    fn iter_in(&self, bounds: KeyBounds) -> Iter {
        let (view, seqno) = self.db.store.consistent(&self.tree);
        match self.check_view(seqno) {
            Ok(()) => Iter::new(self.db.clone(), view, seqno, bounds),
            Err(error) => Iter::failed(error),
        }
    }

    /// About how many keys there are: exact while everything is in memory or compacted and nothing was overwritten or
    /// deleted since, otherwise too high by the overwrites and deletes that compaction has yet to merge. Costs
    /// microseconds, whatever the size; 0 once closed or dropped.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let db = siltstone::Db::open(dir.path())?;
    /// # let ks = db.keyspace("ks", Default::default())?;
    /// ks.put_all([("a", "1"), ("b", "2")])?;
    /// assert_eq!(ks.approximate_len(), 2);
    /// # Ok::<(), siltstone::Error>(())
    /// ```
    pub fn approximate_len(&self) -> u64 {
        if self.tree.is_dropped() {
            // A snapshot may keep what it held.
            return 0;
        }
        let view = self.tree.view();
        let memtables = view.memtables().map(|memtable| (memtable.entries(), memtable.tombstones()));
        let tables = view.version.tables().map(|handle| (handle.meta.entries, handle.meta.tombstones));
        let (entries, tombstones) = memtables.chain(tables).fold((0, 0), |sum, next| (sum.0 + next.0, sum.1 + next.1));
        // Each tombstone hides itself and, most likely, one older entry.
        entries.saturating_sub(2 * tombstones)
    }

    // ---- writing ----

    /// Puts `value` under `key`, with the database's durability; answers the sequence number.
    ///
    /// # Errors
    /// `InvalidArgument` for a key over 65,535 bytes or a value over 1 GiB; `KeyspaceDropped`, `Closed`; `Io` if the
    /// log cannot be written (the database is read-only from then on), `ReadOnly` after that.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let db = siltstone::Db::open(dir.path())?;
    /// # let ks = db.keyspace("ks", Default::default())?;
    /// let seqno = ks.put("silt", "fine")?;
    /// assert_eq!(ks.put("silt", "finer")?, seqno + 1);
    /// assert!(ks.put(vec![0; 65_536], "a key that is too long").is_err());
    /// # Ok::<(), siltstone::Error>(())
    /// ```
    #[inline]
    pub fn put(&self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Result<SeqNo> {
        self.db.writer()?.put(&self.tree, key.as_ref(), value.as_ref())
    }

    /// Deletes `key`; an absent key is fine.
    ///
    /// # Errors
    /// As [`put`](Keyspace::put).
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let db = siltstone::Db::open(dir.path())?;
    /// # let ks = db.keyspace("ks", Default::default())?;
    /// ks.put("silt", "fine")?;
    /// ks.delete("silt")?;
    /// ks.delete("never there")?;
    /// assert!(!ks.contains_key("silt")?);
    /// # Ok::<(), siltstone::Error>(())
    /// ```
    #[inline]
    pub fn delete(&self, key: impl AsRef<[u8]>) -> Result<SeqNo> {
        self.db.writer()?.delete(&self.tree, key.as_ref())
    }

    /// Puts all entries as one batch: all of them, or, on any error, none.
    ///
    /// # Errors
    /// As [`put`](Keyspace::put).
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let db = siltstone::Db::open(dir.path())?;
    /// # let ks = db.keyspace("ks", Default::default())?;
    /// ks.put_all([("a", "1"), ("b", "2")])?;
    /// assert_eq!(ks.iter().count(), 2);
    /// # Ok::<(), siltstone::Error>(())
    /// ```
    pub fn put_all<K: AsRef<[u8]>, V: AsRef<[u8]>>(&self, entries: impl IntoIterator<Item = (K, V)>) -> Result<SeqNo> {
        let mut batch = WriteBatch::new();
        for (key, value) in entries {
            batch.put(self, key, value);
        }
        self.db.write(batch)
    }

    /// Deletes all `keys` as one batch.
    ///
    /// # Errors
    /// As [`put`](Keyspace::put).
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let db = siltstone::Db::open(dir.path())?;
    /// # let ks = db.keyspace("ks", Default::default())?;
    /// ks.put_all([("a", "1"), ("b", "2"), ("c", "3")])?;
    /// ks.delete_all(["a", "c", "x"])?;
    /// assert_eq!(ks.iter().next().unwrap()?.0, "b");
    /// # Ok::<(), siltstone::Error>(())
    /// ```
    pub fn delete_all<K: AsRef<[u8]>>(&self, keys: impl IntoIterator<Item = K>) -> Result<SeqNo> {
        let mut batch = WriteBatch::new();
        for key in keys {
            batch.delete(self, key);
        }
        self.db.write(batch)
    }

    /// Puts all `entries`, whose keys are strictly ascending, past log and memtable, straight into tables, as a bulk
    /// load should be. All of them, or, on any error, none. Answers the sequence number of the last one, as if they had
    /// been put as one batch after everything that was written before the call returns; without any entry, [`last_seqno`](crate::Db::last_seqno).
    ///
    /// Keys that exist are replaced. The entries survive power loss when this returns, whatever the durability, and so
    /// does every logged write before them. Other threads read and write while the tables are written, and wait at the
    /// end for about one sync of the manifest (and for a flush, if memtables hold keys that the entries overlap).
    /// Memory stays bounded, whatever the number of entries.
    ///
    /// **The entries are not in the mutation log.** So that nobody misses them, this is refused while the database has
    /// a change cursor (a shipper has one), and whoever follows or asks for [`changes`](crate::Db::changes) from a
    /// number at or before the ingest gets `NotRetained`.
    ///
    /// # Errors
    /// `InvalidArgument` for a key that does not come after the one before it, a key over 65,535 bytes or a value over
    /// 1 GiB, each with its position counted from 0, and while there are change cursors; `KeyspaceDropped`, `Closed`;
    /// `Io` if a table, the log or the manifest cannot be written (the last two turn the database read-only),
    /// `ReadOnly` after that. Files that were begun are removed, at the latest by the next open.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let db = siltstone::Db::open(dir.path())?;
    /// # let ks = db.keyspace("ks", Default::default())?;
    /// let squares = (0..1000u32).map(|n| (n.to_be_bytes(), (n * n).to_string()));
    /// let seqno = ks.ingest(squares)?;
    /// assert_eq!((seqno, db.last_seqno()), (1000, 1000));
    /// assert_eq!(ks.get(12u32.to_be_bytes())?.unwrap(), "144");
    /// assert!(ks.ingest([("b", "1"), ("a", "2")]).is_err(), "not sorted");
    /// assert!(ks.get("b")?.is_none(), "all or none");
    /// # Ok::<(), siltstone::Error>(())
    /// ```
    pub fn ingest<K: AsRef<[u8]>, V: AsRef<[u8]>>(&self, entries: impl IntoIterator<Item = (K, V)>) -> Result<SeqNo> {
        crate::ingest::ingest(&self.db, &self.tree, entries.into_iter())
    }

    // ---- upkeep ----

    /// Writes everything in memory to tables, and waits for it: it then survives power loss whatever the durability it
    /// was written with.
    ///
    /// # Errors
    /// `KeyspaceDropped`, `ReadOnly`, `Closed`; `ReadOnly` with the reason if the flush fails.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let db = siltstone::Db::open(dir.path())?;
    /// # let ks = db.keyspace("ks", Default::default())?;
    /// ks.put("k", "v")?;
    /// ks.flush()?;
    /// assert_eq!(ks.metrics().memtable_entries, 0);
    /// # Ok::<(), siltstone::Error>(())
    /// ```
    pub fn flush(&self) -> Result<()> {
        self.db.flush_trees(std::slice::from_ref(&self.tree))?;
        self.tree.check_live(MAX_SEQNO)
    }

    /// Flushes, and then merges all tables down to the bottom level, so that every overwritten or deleted version that
    /// no snapshot needs is gone.
    ///
    /// # Errors
    /// As [`flush`](Keyspace::flush), and `Corruption` if a table cannot be read.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let db = siltstone::Db::open(dir.path())?;
    /// # let ks = db.keyspace("ks", Default::default())?;
    /// ks.put("k", "old")?;
    /// ks.flush()?;
    /// ks.put("k", "new")?;
    /// ks.compact()?;
    /// let entries: u64 = ks.metrics().amplification.levels.iter().map(|level| level.entries).sum();
    /// assert_eq!(entries, 1, "the old version is gone");
    /// # Ok::<(), siltstone::Error>(())
    /// ```
    pub fn compact(&self) -> Result<()> {
        self.flush()?;
        crate::maintenance::compact_all(&self.db.store, &self.tree)?;
        self.tree.check_live(MAX_SEQNO)
    }

    /// The keyspace's amplification and level figures.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let db = siltstone::Db::open(dir.path())?;
    /// # let ks = db.keyspace("ks", Default::default())?;
    /// ks.put("k", "v")?;
    /// println!("{}", ks.metrics()); // a line a level, then write, space and read amplification
    /// # Ok::<(), siltstone::Error>(())
    /// ```
    pub fn metrics(&self) -> KeyspaceMetrics {
        KeyspaceMetrics::of(&self.tree, &self.db.store)
    }

    // ---- inside ----

    pub(crate) fn id(&self) -> KeyspaceId {
        self.tree.id
    }

    /// What a get made now would read, for [`internals`](crate::internals).
    #[cfg(feature = "internals")]
    pub(crate) fn latest(&self) -> Result<(Arc<View>, SeqNo)> {
        let view = self.tree.view_arc();
        let seqno = self.db.store.visible();
        self.check_view(seqno)?;
        Ok((view, seqno))
    }

    /// Which open database this handle belongs to.
    pub(crate) fn database(&self) -> u64 {
        self.db.store.instance
    }

    pub(crate) fn check_owner(&self, db: &Arc<DbHandle>) -> Result<()> {
        if Arc::ptr_eq(&self.db, db) {
            return Ok(());
        }
        Err(Error::InvalidArgument("the keyspace belongs to another database than the snapshot".to_owned()))
    }

    #[inline]
    fn get_latest<R>(&self, key: &[u8], with: impl FnOnce(Found<'_>) -> R) -> Result<Option<R>> {
        let view = self.tree.view();
        let seqno = self.db.store.visible();
        self.find(&view, key, seqno, with)
    }

    #[inline]
    pub(crate) fn get_at<R>(&self, key: &[u8], seqno: SeqNo, with: impl FnOnce(Found<'_>) -> R) -> Result<Option<R>> {
        self.find(&self.tree.view(), key, seqno, with)
    }

    #[inline]
    fn find<R>(&self, view: &View, key: &[u8], seqno: SeqNo, with: impl FnOnce(Found<'_>) -> R) -> Result<Option<R>> {
        self.check_view(seqno)?;
        let lookup = Lookup::new(key, seqno);
        let mut touched = Touched::default();
        let answer = view.find(&lookup, &mut touched, with);
        if lookup.hash & SAMPLE_MASK == 0 {
            self.tree.amplification.record_get(touched.tables.into(), touched.blocks.into());
        }
        answer
    }
}

/// The parts of a batch that need to know keyspaces.
impl WriteBatch {
    /// Adds a put of `value` under `key`. Key: 0 to 65,535 bytes; value: 0 to 1 GiB.
    pub fn put(&mut self, keyspace: &Keyspace, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> &mut Self {
        self.put_in(keyspace.database(), keyspace.id(), key.as_ref(), value.as_ref());
        self
    }

    /// Adds a delete of `key`; deleting an absent key is fine.
    pub fn delete(&mut self, keyspace: &Keyspace, key: impl AsRef<[u8]>) -> &mut Self {
        self.delete_in(keyspace.database(), keyspace.id(), key.as_ref());
        self
    }
}
