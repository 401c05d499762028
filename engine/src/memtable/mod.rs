//! Sorted writes in memory: one memtable is the newest run of a keyspace's tree, until it is sealed and flushed to a
//! table.
//!
//! One writer at a time (whoever holds the commit lock), any number of readers at the same time, which take no lock. A
//! reader that has learned a sequence number (with acquire) from its publication (with release) finds every entry up to
//! it.

mod arena;
mod btree;
mod index;
mod record;
mod skiplist;
#[cfg(test)]
mod tests;

use crate::sync::atomic::{AtomicU64, Ordering};
pub(crate) use arena::ArenaPool;
use btree::{BTree, BTreeCursor};
use index::Indexed;
use record::Record;
use skiplist::{SkipList, SkipListCursor};

use std::sync::Arc;

use bytes::Bytes;

use crate::cursor::{Aim, Cursor};
use crate::error::Result;
use crate::key::{Lookup, SeqNo, Trailer};
use crate::options::MemtableKind;

/// A structure that holds the entries of a memtable.
trait Representation: Send + Sync + Sized + 'static {
    /// A position that keeps `O`, which the representation lies in, alive.
    type Cursor<O: Send + Sync + 'static>: Cursor + Send + 'static;

    /// An empty one, which takes large chunks of memory from `pool`.
    fn new(pool: &Arc<ArenaPool>) -> Self;

    /// Adds an entry. `before_visible` hears of its record before any reader can meet it, and never at the same time as
    /// that of another insertion. An entry with the same key and trailer as one that is there changes nothing.
    fn insert(&self, key: &[u8], trailer: Trailer, value: &[u8], before_visible: impl FnOnce(&Self, &Record));

    /// The newest entry of a key at or below a sequence number.
    fn get(&self, lookup: &Lookup) -> Option<&Record>;

    /// Visits the record of every entry, in order, versions included. Inside an insertion only, so that nothing changes
    /// meanwhile.
    fn for_each(&self, visit: impl FnMut(&Record));

    /// Memory held, in bytes, the allocator's overhead included as far as it can be told.
    fn bytes(&self) -> usize;

    /// A cursor over the representation that `part` finds in `owner`.
    fn cursor<O: Send + Sync + 'static>(owner: Arc<O>, part: impl for<'a> FnOnce(&'a O) -> &'a Self)
    -> Self::Cursor<O>;
}

/// The representations, so that a call costs no indirection.
enum Entries {
    BTree(Indexed<BTree>),
    SkipList(Box<Indexed<SkipList>>),
}

/// Counters of one memtable. One writer changes them, without read-modify-write; readers get figures.
#[derive(Default)]
struct Counters {
    entries: AtomicU64,
    tombstones: AtomicU64,
    /// `!first_seqno`, so that 0 means none.
    first_seqno_inverted: AtomicU64,
    last_seqno: AtomicU64,
}

// All of Relaxed: insertions are ordered by the representation's lock, readers only want a figure; one who needs an
// exact one has sealed the memtable, which synchronizes.
impl Counters {
    #[inline]
    fn count(&self, trailer: Trailer) {
        let add = |counter: &AtomicU64, n| counter.store(counter.load(Ordering::Relaxed) + n, Ordering::Relaxed);
        let raise = |counter: &AtomicU64, n| counter.store(counter.load(Ordering::Relaxed).max(n), Ordering::Relaxed);
        add(&self.entries, 1);
        add(&self.tombstones, trailer.is_delete().into());
        raise(&self.first_seqno_inverted, !trailer.seqno());
        raise(&self.last_seqno, trailer.seqno());
    }
}

/// The newest writes of a keyspace, sorted, in memory.
pub(crate) struct Memtable {
    entries: Entries,
    counters: Counters,
}

impl Memtable {
    /// An empty memtable, which takes a few KiB until it is written to. `expected_bytes` is the size at which it will
    /// be sealed.
    pub(crate) fn new(kind: MemtableKind, expected_bytes: usize, pool: &Arc<ArenaPool>) -> Self {
        let entries = match kind {
            MemtableKind::BTree => Entries::BTree(Indexed::new(expected_bytes, pool)),
            MemtableKind::SkipList => Entries::SkipList(Box::new(Indexed::new(expected_bytes, pool))),
        };
        Memtable { entries, counters: Counters::default() }
    }

    /// Adds an entry. The caller is the only writer, has checked the lengths against [`crate::MAX_KEY_BYTES`] and
    /// [`crate::MAX_VALUE_BYTES`], and never adds the same sequence number twice.
    #[inline]
    pub(crate) fn insert(&self, key: &[u8], trailer: Trailer, value: &[u8]) {
        let count = || self.counters.count(trailer);
        match &self.entries {
            Entries::BTree(tree) => tree.insert(key, trailer, value, count),
            Entries::SkipList(list) => list.insert(key, trailer, value, count),
        }
    }

    /// The newest entry of `lookup.key` with a sequence number of at most `lookup.seqno`: its trailer, and its value
    /// (empty for a tombstone).
    #[inline]
    pub(crate) fn get(&self, lookup: &Lookup) -> Option<(Trailer, &[u8])> {
        let record = match &self.entries {
            Entries::BTree(tree) => tree.get(lookup),
            Entries::SkipList(list) => list.get(lookup),
        }?;
        Some((record.trailer, record.value()))
    }

    /// Asks the processor to fetch what a [`get`](Self::get) of a key with this hash reads first.
    #[inline]
    pub(crate) fn prefetch(&self, hash: u64) {
        match &self.entries {
            Entries::BTree(tree) => tree.prefetch(hash),
            Entries::SkipList(list) => list.prefetch(hash),
        }
    }

    /// Memory held, in bytes: what the arena has reserved, nodes with the allocator's overhead (estimated), and the
    /// index.
    pub(crate) fn bytes(&self) -> usize {
        let entries = match &self.entries {
            Entries::BTree(tree) => tree.bytes(),
            Entries::SkipList(list) => list.bytes(),
        };
        size_of::<Self>() + entries
    }

    /// Entries, versions and tombstones included.
    #[inline]
    pub(crate) fn entries(&self) -> u64 {
        self.counters.entries.load(Ordering::Relaxed)
    }

    /// Entries that are tombstones.
    pub(crate) fn tombstones(&self) -> u64 {
        self.counters.tombstones.load(Ordering::Relaxed)
    }

    /// Whether nothing was added.
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.entries() == 0
    }

    /// The smallest sequence number added, if any.
    pub(crate) fn first_seqno(&self) -> Option<SeqNo> {
        let inverted = self.counters.first_seqno_inverted.load(Ordering::Relaxed);
        (inverted != 0).then_some(!inverted)
    }

    /// The largest sequence number added, if any.
    pub(crate) fn last_seqno(&self) -> Option<SeqNo> {
        (!self.is_empty()).then(|| self.counters.last_seqno.load(Ordering::Relaxed))
    }
}

impl std::fmt::Debug for Memtable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let seqnos = (self.first_seqno(), self.last_seqno());
        f.debug_struct("Memtable").field("entries", &self.entries()).field("seqnos", &seqnos).finish_non_exhaustive()
    }
}

/// A position in a memtable, which it keeps alive. Sees entries that are added behind it while it is used, so readers
/// filter by sequence number. Values may not be pinned: they are copied out.
pub(crate) struct MemtableCursor(Position);

enum Position {
    BTree(BTreeCursor<Memtable>),
    SkipList(SkipListCursor<Memtable>),
}

impl MemtableCursor {
    /// A cursor that is not positioned yet.
    pub(crate) fn new(memtable: Arc<Memtable>) -> Self {
        MemtableCursor(match memtable.entries {
            Entries::BTree(_) => Position::BTree(BTree::cursor(memtable, |memtable| match &memtable.entries {
                Entries::BTree(tree) => tree.records(),
                Entries::SkipList(_) => unreachable!("a memtable never changes its representation"),
            })),
            Entries::SkipList(_) => {
                Position::SkipList(SkipList::cursor(memtable, |memtable| match &memtable.entries {
                    Entries::SkipList(list) => list.records(),
                    Entries::BTree(_) => unreachable!("a memtable never changes its representation"),
                }))
            }
        })
    }
}

/// Hands a call to the cursor of the representation at hand.
macro_rules! delegate {
    ($self:ident.$call:ident($($argument:expr),*)) => {
        match &$self.0 {
            Position::BTree(cursor) => cursor.$call($($argument),*),
            Position::SkipList(cursor) => cursor.$call($($argument),*),
        }
    };
    (mut $self:ident.$call:ident($($argument:expr),*)) => {
        match &mut $self.0 {
            Position::BTree(cursor) => cursor.$call($($argument),*),
            Position::SkipList(cursor) => cursor.$call($($argument),*),
        }
    };
}

impl Cursor for MemtableCursor {
    #[inline]
    fn valid(&self) -> bool {
        delegate!(self.valid())
    }

    #[inline]
    fn key(&self) -> &[u8] {
        delegate!(self.key())
    }

    #[inline]
    fn key_prefix(&self) -> u64 {
        delegate!(self.key_prefix())
    }

    #[inline]
    fn trailer(&self) -> Trailer {
        delegate!(self.trailer())
    }

    #[inline]
    fn value(&self) -> &[u8] {
        delegate!(self.value())
    }

    #[inline]
    fn value_owner(&self) -> Option<&Bytes> {
        delegate!(self.value_owner())
    }

    fn seek_to_first(&mut self) -> Result<()> {
        delegate!(mut self.seek_to_first())
    }

    fn seek_to_last(&mut self) -> Result<()> {
        delegate!(mut self.seek_to_last())
    }

    fn aim(&mut self, at: Aim, key: &[u8], seqno: SeqNo, backward: bool) -> Result<()> {
        delegate!(mut self.aim(at, key, seqno, backward))
    }

    fn seek(&mut self, key: &[u8], seqno: SeqNo) -> Result<()> {
        delegate!(mut self.seek(key, seqno))
    }

    fn seek_before(&mut self, key: &[u8]) -> Result<()> {
        delegate!(mut self.seek_before(key))
    }

    #[inline]
    fn next(&mut self) -> Result<()> {
        delegate!(mut self.next())
    }

    #[inline]
    fn next_key(&mut self) -> Option<u64> {
        delegate!(mut self.next_key())
    }

    #[inline]
    fn is_newest(&self) -> bool {
        delegate!(self.is_newest())
    }

    #[inline]
    fn prev(&mut self) -> Result<()> {
        delegate!(mut self.prev())
    }
}
