//! [`Snapshot`]: a read view at one sequence number.

use std::ops::RangeBounds;
use std::sync::Arc;

use crate::db::DbHandle;
use crate::error::Result;
use crate::iter::{Iter, bounds_of, prefix_bounds};
use crate::key::SeqNo;
use crate::keyspace::Keyspace;
use crate::slice::Slice;

/// The database as it was at one sequence number; later writes do not show.
///
/// Cheap to clone, `Send + Sync`, and not tied to the lifetime of anything. While it lives, compaction keeps the
/// versions it sees; [`Db::metrics`](crate::Db::metrics) shows how many are live.
///
/// ```
/// # let dir = tempfile::tempdir().unwrap();
/// # let db = siltstone::Db::open(dir.path())?;
/// # let ks = db.keyspace("ks", Default::default())?;
/// ks.put("k", "old")?;
/// let snapshot = db.snapshot();
/// ks.put("k", "new")?;
/// assert_eq!(snapshot.get(&ks, "k")?.unwrap(), "old");
/// assert_eq!(ks.get("k")?.unwrap(), "new");
/// # Ok::<(), siltstone::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Snapshot(Arc<Registered>);

#[derive(Debug)]
struct Registered {
    db: Arc<DbHandle>,
    seqno: SeqNo,
}

impl Drop for Registered {
    fn drop(&mut self) {
        self.db.store.release_snapshot(self.seqno);
    }
}

impl Snapshot {
    pub(crate) fn new(db: Arc<DbHandle>) -> Self {
        let seqno = db.store.snapshots.acquire(|| db.store.visible());
        Snapshot(Arc::new(Registered { db, seqno }))
    }

    /// The sequence number this snapshot reads: it sees every write up to it and none after.
    pub fn seqno(&self) -> SeqNo {
        self.0.seqno
    }

    /// The value of `key` at this snapshot. A keyspace younger than the snapshot is empty in it.
    ///
    /// # Errors
    /// `Closed`; `KeyspaceDropped` if the keyspace was gone before the snapshot was taken; `Corruption` and `Io` from
    /// the tables; `InvalidArgument` for a keyspace of another database.
    pub fn get(&self, keyspace: &Keyspace, key: impl AsRef<[u8]>) -> Result<Option<Slice>> {
        self.check(keyspace)?;
        keyspace.get_at(key.as_ref(), self.0.seqno, |found| found.into_slice())
    }

    /// The values of `keys`, in the order asked.
    ///
    /// # Errors
    /// As [`get`](Snapshot::get).
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let db = siltstone::Db::open(dir.path())?;
    /// # let ks = db.keyspace("ks", Default::default())?;
    /// ks.put("a", "1")?;
    /// let snapshot = db.snapshot();
    /// ks.put("b", "2")?;
    /// assert_eq!(snapshot.get_many(&ks, ["a", "b"])?, [Some("1".into()), None]);
    /// # Ok::<(), siltstone::Error>(())
    /// ```
    pub fn get_many<K: AsRef<[u8]>>(
        &self,
        keyspace: &Keyspace,
        keys: impl IntoIterator<Item = K>,
    ) -> Result<Vec<Option<Slice>>> {
        // In this order: see `Keyspace::check_view`.
        let view = keyspace.tree().view_arc();
        self.check(keyspace)?;
        keyspace.get_many_at(keys, &view, self.0.seqno)
    }

    /// Whether `key` has a value at this snapshot.
    ///
    /// # Errors
    /// As [`get`](Snapshot::get).
    pub fn contains_key(&self, keyspace: &Keyspace, key: impl AsRef<[u8]>) -> Result<bool> {
        self.check(keyspace)?;
        Ok(keyspace.get_at(key.as_ref(), self.0.seqno, |_| ())?.is_some())
    }

    /// All entries in key order, from both ends.
    pub fn iter(&self, keyspace: &Keyspace) -> Iter {
        self.range::<&[u8]>(keyspace, ..)
    }

    /// The entries whose keys lie in `bounds`; a reversed range is empty.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let db = siltstone::Db::open(dir.path())?;
    /// # let ks = db.keyspace("ks", Default::default())?;
    /// ks.put_all([("a", "1"), ("b", "2")])?;
    /// let snapshot = db.snapshot();
    /// ks.delete("a")?;
    /// let first = snapshot.range(&ks, "a"..="b").next().unwrap()?;
    /// assert_eq!(first.0, "a");
    /// # Ok::<(), siltstone::Error>(())
    /// ```
    pub fn range<K: AsRef<[u8]>>(&self, keyspace: &Keyspace, bounds: impl RangeBounds<K>) -> Iter {
        self.iter_in(keyspace, bounds_of(&bounds))
    }

    /// The entries whose keys begin with `prefix`.
    pub fn prefix(&self, keyspace: &Keyspace, prefix: impl AsRef<[u8]>) -> Iter {
        self.iter_in(keyspace, prefix_bounds(prefix.as_ref()))
    }

    fn iter_in(&self, keyspace: &Keyspace, bounds: crate::iter::KeyBounds) -> Iter {
        // In this order: see `Keyspace::check_view`.
        let view = keyspace.tree().view_arc();
        match self.check(keyspace) {
            Ok(()) => Iter::new(self.0.db.clone(), view, self.0.seqno, bounds),
            Err(error) => Iter::failed(error),
        }
    }

    fn check(&self, keyspace: &Keyspace) -> Result<()> {
        self.0.db.store.health.check_read()?;
        keyspace.check_owner(&self.0.db)?;
        keyspace.tree().check_live(self.0.seqno)
    }
}
