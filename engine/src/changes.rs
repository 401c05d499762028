//! [`Changes`]: the mutation log as batches of named changes, live.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::batch::{KeyspaceId, Op, Ops, WriteBatch};
use crate::db::{Db, DbHandle};
use crate::error::{Error, Result};
use crate::key::SeqNo;
use crate::name::KeyspaceName;
use crate::slice::Slice;
use crate::store::Store;
use crate::wal::tail::{Tail, TailRecord};

/// Metadata entries under which change cursors are kept; the control character keeps them apart from the user's.
const CURSOR_PREFIX: &str = "\u{1}cursor/";

/// The longest name of a change cursor, in bytes.
const MAX_CURSOR_NAME_BYTES: usize = 200;

/// One mutation, as the log has it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Change {
    /// A value was put.
    Put {
        /// Into which keyspace.
        keyspace: KeyspaceName,
        /// Under which key.
        key: Slice,
        /// The value.
        value: Slice,
    },
    /// A key was deleted.
    Delete {
        /// From which keyspace.
        keyspace: KeyspaceName,
        /// The key.
        key: Slice,
    },
    /// A keyspace was dropped with all it held; one that is used later under its name is a new one.
    DropKeyspace {
        /// Which.
        keyspace: KeyspaceName,
    },
}

impl Change {
    /// The keyspace that the change is about.
    pub fn keyspace(&self) -> &KeyspaceName {
        match self {
            Change::Put { keyspace, .. } | Change::Delete { keyspace, .. } | Change::DropKeyspace { keyspace } => {
                keyspace
            }
        }
    }
}

/// One committed batch: what became visible and durable together. Cheap to clone.
///
/// Change `i` of the batch has sequence number `first_seqno() + i`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChangeBatch {
    first_seqno: SeqNo,
    changes: Held,
}

/// Changes of one batch. Most batches of a log have a single one, which is held in place: nothing is allocated for it.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Held {
    One(Change),
    /// None or several.
    Many(Arc<[Change]>),
}

impl Held {
    fn as_slice(&self) -> &[Change] {
        match self {
            Held::One(change) => std::slice::from_ref(change),
            Held::Many(changes) => changes,
        }
    }
}

impl ChangeBatch {
    /// A batch whose first change has number `first_seqno`: what a source makes of what it read back.
    ///
    /// # Errors
    /// `InvalidArgument` for no changes, or for numbers that are 0 or above [`MAX_SEQNO`](crate::MAX_SEQNO).
    ///
    /// ```
    /// use siltstone::{Change, ChangeBatch};
    /// let change = Change::Put { keyspace: "words".into(), key: "silt".into(), value: "1".into() };
    /// let batch = ChangeBatch::new(7, vec![change.clone(), change])?;
    /// assert_eq!((batch.first_seqno(), batch.last_seqno()), (7, 8));
    /// # Ok::<(), siltstone::Error>(())
    /// ```
    pub fn new(first_seqno: SeqNo, mut changes: Vec<Change>) -> Result<Self> {
        let changes = match changes.pop() {
            Some(only) if changes.is_empty() => Held::One(only),
            last => {
                changes.extend(last);
                Held::Many(changes.into())
            }
        };
        ChangeBatch::checked(first_seqno, changes)
    }

    /// A batch of a single change, with number `seqno`.
    ///
    /// # Errors
    /// As [`new`](ChangeBatch::new).
    ///
    /// ```
    /// use siltstone::{Change, ChangeBatch};
    /// let change = Change::Delete { keyspace: "words".into(), key: "silt".into() };
    /// assert_eq!(ChangeBatch::single(7, change.clone())?, ChangeBatch::new(7, vec![change])?);
    /// # Ok::<(), siltstone::Error>(())
    /// ```
    pub fn single(seqno: SeqNo, change: Change) -> Result<Self> {
        ChangeBatch::checked(seqno, Held::One(change))
    }

    fn checked(first_seqno: SeqNo, changes: Held) -> Result<Self> {
        let count = changes.as_slice().len();
        let last = first_seqno.checked_add(count as u64);
        if count == 0 || first_seqno == 0 || last.is_none_or(|last| last > crate::key::MAX_SEQNO) {
            let reason = format!("a batch has changes and numbers from 1 on, not {count} from {first_seqno} on");
            return Err(Error::InvalidArgument(reason));
        }
        Ok(ChangeBatch { first_seqno, changes })
    }

    /// The sequence number of the first change.
    pub fn first_seqno(&self) -> SeqNo {
        self.first_seqno
    }

    /// The sequence number of the last change.
    pub fn last_seqno(&self) -> SeqNo {
        self.first_seqno + self.changes().len() as u64 - 1
    }

    /// The changes, in the order in which they apply.
    pub fn changes(&self) -> &[Change] {
        self.changes.as_slice()
    }

    /// Bytes of keys and values.
    pub fn user_bytes(&self) -> u64 {
        let bytes = |change: &Change| match change {
            Change::Put { key, value, .. } => key.len() + value.len(),
            Change::Delete { key, .. } => key.len(),
            Change::DropKeyspace { .. } => 0,
        };
        self.changes().iter().map(bytes).sum::<usize>() as u64
    }
}

/// Follows the mutation log; see [`Db::changes`].
///
/// `None` from `next` means caught up: ask again later, or [`wait`](Changes::wait). While it lives it keeps the log
/// from its place on, up to [`Options::max_retained_wal_bytes`](crate::Options::max_retained_wal_bytes); past that it
/// is given up and answers `NotRetained`.
#[derive(Debug)]
pub struct Changes {
    db: Arc<DbHandle>,
    tail: Tail,
    names: HashMap<KeyspaceId, KeyspaceName>,
    /// That of the change before: they come in runs.
    last_name: Option<(KeyspaceId, KeyspaceName)>,
}

impl Changes {
    pub(crate) fn open(db: &Arc<DbHandle>, from: SeqNo) -> Result<Self> {
        db.store.health.check_read()?;
        let Some(wal) = &db.store.wal else {
            return Err(Error::ReadOnly { reason: "the log is followed where it is written".to_owned() });
        };
        let last = db.store.visible();
        if from > last + 1 {
            let reason = format!("changes are read from 1 to {} (the next number), not from {from}", last + 1);
            return Err(Error::InvalidArgument(reason));
        }
        Ok(Changes { tail: wal.tail(from)?, db: db.clone(), names: HashMap::new(), last_name: None })
    }

    /// Waits until there is something to read, at most `timeout`; whether there is.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let db = siltstone::Db::open(dir.path())?;
    /// # let ks = db.keyspace("ks", Default::default())?;
    /// let mut changes = db.changes(1)?;
    /// std::thread::spawn(move || ks.put("k", "v"));
    /// while changes.next().is_none() {
    ///     changes.wait(std::time::Duration::from_secs(1));
    /// }
    /// # Ok::<(), siltstone::Error>(())
    /// ```
    pub fn wait(&mut self, timeout: Duration) -> bool {
        self.db.store.health.is_closed() || self.tail.wait(timeout)
    }

    fn read(&mut self) -> Result<Option<ChangeBatch>> {
        self.db.store.health.check_read()?;
        while let Some(record) = self.tail.next()? {
            // A record of metadata alone has no numbers and is nobody's business outside.
            if record.count > 0 {
                return self.decode(record).map(Some);
            }
        }
        Ok(None)
    }

    fn decode(&mut self, record: TailRecord) -> Result<ChangeBatch> {
        let damaged = |reason: &str| Error::corruption(Path::new("log"), record.first_seqno, reason);
        let payload = &record.payload;
        let mut changes = Ops::new(payload).filter_map(|op| match op {
            Ok(op) => self.change(payload, op).map(Ok),
            Err(reason) => Some(Err(damaged(reason))),
        });
        let batch = match (changes.next().transpose()?, record.count) {
            (Some(only), 1) => {
                // What follows can only be metadata: looked through for damage.
                changes.try_for_each(|change| change.map(drop))?;
                ChangeBatch::single(record.first_seqno, only)
            }
            (first, _) => {
                let all = first.into_iter().map(Ok).chain(changes).collect::<Result<_>>()?;
                ChangeBatch::new(record.first_seqno, all)
            }
        };
        batch.map_err(|error| damaged(&error.to_string()))
    }

    /// What an operation of a record changed; none of metadata.
    fn change(&mut self, payload: &Bytes, op: Op<'_>) -> Option<Change> {
        Some(match op {
            Op::Put { keyspace, key, value } => Change::Put {
                keyspace: self.name(keyspace),
                key: Slice::share(payload, key),
                value: Slice::share(payload, value),
            },
            Op::Delete { keyspace, key } => {
                Change::Delete { keyspace: self.name(keyspace), key: Slice::share(payload, key) }
            }
            Op::DropKeyspace { keyspace } => Change::DropKeyspace { keyspace: self.name(keyspace) },
            Op::Metadata { .. } => return None,
        })
    }

    fn name(&mut self, id: KeyspaceId) -> KeyspaceName {
        if let Some((last, name)) = &self.last_name
            && *last == id
        {
            return name.clone();
        }
        let name = self.names.entry(id).or_insert_with(|| self.db.store.name_of(id)).clone();
        self.last_name = Some((id, name.clone()));
        name
    }
}

impl Iterator for Changes {
    type Item = Result<ChangeBatch>;

    fn next(&mut self) -> Option<Self::Item> {
        self.read().transpose()
    }
}

/// Moves a durable cursor, and writes more metadata with it.
pub(crate) fn set_cursor(
    db: &Db,
    handle: &DbHandle,
    name: &str,
    next: SeqNo,
    metadata: &[(&str, &[u8])],
) -> Result<()> {
    let store = &handle.store;
    let wal = store.wal.as_ref().ok_or_else(|| Error::ReadOnly { reason: "it was opened read-only".to_owned() })?;
    if !(1..=MAX_CURSOR_NAME_BYTES).contains(&name.len()) {
        let reason = format!("a change cursor's name has 1 to {MAX_CURSOR_NAME_BYTES} bytes, not {}", name.len());
        return Err(Error::InvalidArgument(reason));
    }
    let mut cursors = store.cursors.lock();
    // Before the write, so that a place that is gone is an error that leaves the cursor where it was.
    if let Some(Some(pin)) = cursors.get(name) {
        pin.advance(0)?;
    }
    let pin = wal.pin(next)?;
    let mut batch = WriteBatch::new();
    batch.metadata_in(&format!("{CURSOR_PREFIX}{name}"), Some(&next.to_le_bytes()));
    for (name, value) in metadata {
        batch.metadata(name, Some(value));
    }
    db.write(batch)?;
    cursors.insert(name.to_owned(), Some(pin));
    Ok(())
}

/// See [`Db::change_cursors`](crate::Db::change_cursors).
pub(crate) fn cursors(store: &Store) -> Vec<String> {
    let mut names: Vec<String> = store.cursors.lock().keys().cloned().collect();
    names.sort_unstable();
    names
}

/// The durable cursor of that name.
pub(crate) fn cursor(store: &Store, name: &str) -> Option<SeqNo> {
    decode_cursor(&store.metadata.get(&format!("{CURSOR_PREFIX}{name}"))?)
}

fn decode_cursor(value: &[u8]) -> Option<SeqNo> {
    value.try_into().ok().map(u64::from_le_bytes)
}

/// Ends a durable cursor.
pub(crate) fn remove_cursor(db: &Db, handle: &DbHandle, name: &str) -> Result<()> {
    let mut batch = WriteBatch::new();
    batch.metadata_in(&format!("{CURSOR_PREFIX}{name}"), None);
    db.write(batch)?;
    handle.store.cursors.lock().remove(name);
    Ok(())
}

/// Pins the log for every durable cursor: at open, before anything can let go of log.
pub(crate) fn restore_cursors(store: &Store) {
    let Some(wal) = &store.wal else { return };
    let mut cursors = store.cursors.lock();
    for (name, value) in store.metadata.with_prefix(CURSOR_PREFIX) {
        let Some(next) = decode_cursor(&value) else { continue };
        let name = name[CURSOR_PREFIX.len()..].to_owned();
        // A cursor whose place is gone stays, lost: its consumer is told when it asks for the changes.
        cursors.insert(name, wal.pin(next).ok());
    }
}

#[cfg(test)]
mod tests;
