//! The skiplist representation: `crossbeam_skiplist`'s `base` layer over an arena.
//!
//! # Why no reader pins an epoch
//! `crossbeam_skiplist::base` asks for an epoch guard so that a removed node is not freed under a reader. Here no node
//! is ever removed:
//! - only `get_or_insert` changes the list. It marks no node (marking is what `remove`, `insert`, `clear` and `pop_*`
//!   do), so no traversal ever meets a marked link and none unlinks anything (`help_unlink` runs only behind a mark);
//! - the one other way to free a node is a reference count that falls to zero. Each node starts with a count of two
//!   (its lowest link and the `RefEntry` of its insertion), and nothing here calls `release`, so no count ever falls.
//!   `RefEntry` has no destructor, and dropping the list frees its nodes whatever their counts say, so nothing leaks
//!   either;
//! - nodes are therefore freed only by the list's own drop, which needs the list exclusively.
//!
//! A guard would protect against nothing, so [`guard`] hands out the one that pins nothing. The links themselves are
//! atomics that are stored with release (or stronger) and loaded with consume or acquire: a node that can be reached is
//! complete, guard or not.

#![allow(unsafe_code)]

use std::cmp::Ordering;
use std::mem::MaybeUninit;
use std::ptr::{self, NonNull};
use std::slice;
use std::sync::Arc;
use std::sync::atomic::{self, AtomicPtr, AtomicUsize};

use bytes::Bytes;
use crossbeam_epoch::Guard;
use crossbeam_skiplist::base;
use parking_lot::Mutex;

use super::Representation;
use super::arena::{Arena, ArenaPool};
use super::record::Record;
use crate::cursor::Cursor;
use crate::error::Result;
use crate::key::{Lookup, MAX_KEY_BYTES, SeqNo, Trailer, prefix_u64};
use crate::prefetch::prefetch;

type Nodes = base::SkipList<Entry, ()>;
type Node = base::Entry<'static, 'static, Entry, ()>;

/// What a node costs on the heap, in bytes, on average: entry, reference count and 2 links (towers are geometric with p
/// = 1/2), with the allocator's header and rounding to 16.
const NODE_BYTES: usize = 75;

/// How many cache lines of an entry's bytes a cursor fetches ahead.
const PREFETCHED_LINES: usize = 3;

/// The guard that pins nothing; see the module's page.
#[inline]
fn guard() -> &'static Guard {
    // SAFETY: it is used with `Nodes` of this module only, whose nodes are never removed while the list is shared
    // (module page), so no load can meet memory that is freed before the list.
    unsafe { crossbeam_epoch::unprotected() }
}

/// An entry of the list, or a probe that is compared with them. Ordered by key, then newest first; the first eight
/// bytes of the key decide most comparisons without touching its memory.
///
/// In a node the links follow: the prefix comes last, so that a step of a search finds both in one cache line more
/// often.
#[repr(C)]
struct Entry {
    /// `key_bytes` of key, then `value_bytes` of value.
    bytes: NonNull<u8>,
    value_bytes: u32,
    key_bytes: u16,
    /// The entry before this one, so that a step backward is no search. Null for the first one, and for one that is
    /// just being inserted: then searching finds it. While an insertion is under way this may still name the entry
    /// before the new one.
    previous: AtomicPtr<Entry>,
    trailer: Trailer,
    prefix: u64,
}

// SAFETY: `bytes` is only read, and lives and stays unchanged as long as the entry (`Entry::new`); `previous` is
// atomic.
unsafe impl Send for Entry {}
// SAFETY: as above.
unsafe impl Sync for Entry {}

impl Entry {
    /// # Safety
    /// `bytes` must point to `key` followed by `value_bytes` of value, readable and unchanged as long as the entry is
    /// used.
    #[inline]
    unsafe fn new(key: &[u8], trailer: Trailer, bytes: NonNull<u8>, value_bytes: u32) -> Self {
        let (prefix, key_bytes) = (prefix_u64(key), key.len() as u16);
        debug_assert_eq!(usize::from(key_bytes), key.len());
        Entry { prefix, trailer, bytes, value_bytes, key_bytes, previous: AtomicPtr::new(ptr::null_mut()) }
    }

    #[inline]
    fn key(&self) -> &[u8] {
        // SAFETY: `new`'s contract: `bytes` starts with the key.
        unsafe { slice::from_raw_parts(self.bytes.as_ptr(), self.key_bytes.into()) }
    }

    #[inline]
    fn value(&self) -> &[u8] {
        // SAFETY: `new`'s contract: the value follows the key in the same allocation.
        unsafe { slice::from_raw_parts(self.bytes.as_ptr().add(self.key_bytes.into()), self.value_bytes as usize) }
    }

    /// The record that its bytes belong to.
    ///
    /// # Safety
    /// It is an entry of the list, not a probe.
    #[inline]
    unsafe fn record(&self) -> &Record {
        // SAFETY: the bytes of an entry of the list follow a record's header (`SkipList::insert`), which lives as long.
        unsafe { self.bytes.cast::<Record>().sub(1).as_ref() }
    }

    /// Asks the processor to fetch the key and the start of the value, for a reader that steps here next.
    #[inline]
    fn prefetch(&self) {
        for line in 0..PREFETCHED_LINES {
            prefetch(self.bytes.as_ptr().wrapping_add(64 * line));
        }
    }

    fn cmp_tied(&self, other: &Self) -> Ordering {
        self.key().cmp(other.key()).then_with(|| other.trailer.cmp(&self.trailer))
    }
}

impl Ord for Entry {
    #[inline]
    fn cmp(&self, other: &Self) -> Ordering {
        self.prefix.cmp(&other.prefix).then_with(|| self.cmp_tied(other))
    }
}

impl PartialOrd for Entry {
    #[inline]
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Entry {
    #[inline]
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Entry {}

/// Calls `search` with an entry that sorts as (`key`, `trailer`) among those that can be here. It cannot outlive the
/// call, nor therefore `key`.
#[inline]
fn with_probe<R>(key: &[u8], trailer: Trailer, search: impl FnOnce(&Entry) -> R) -> R {
    // A longer key than any that is stored comes right behind all versions of its longest prefix that could be stored.
    let (key, trailer) = key.get(..MAX_KEY_BYTES + 1).map_or((key, trailer), |long| (&long[..MAX_KEY_BYTES], OLDEST));
    // SAFETY: the probe has no value, and `key` is borrowed for the whole call.
    search(&unsafe { Entry::new(key, trailer, NonNull::from(key).cast(), 0) })
}

/// What sorts before every entry of its key.
const NEWEST: Trailer = Trailer(u64::MAX);

/// What sorts behind every entry of its key: writes are numbered from 1 on.
const OLDEST: Trailer = Trailer(0);

/// Single entries in a skiplist; keys and values in an arena.
pub(crate) struct SkipList {
    nodes: Nodes,
    reserved_bytes: AtomicUsize,
    // After `nodes`: entries point into the arena.
    writer: Mutex<Writer>,
}

struct Writer {
    arena: Arena,
    /// The last entry of the list; null while there is none.
    last: AtomicPtr<Entry>,
}

impl Representation for SkipList {
    type Cursor<O: Send + Sync + 'static> = SkipListCursor<O>;

    fn new(pool: &Arc<ArenaPool>) -> Self {
        SkipList {
            nodes: Nodes::new(crossbeam_epoch::default_collector().clone()),
            reserved_bytes: AtomicUsize::new(0),
            writer: Mutex::new(Writer { arena: Arena::new(pool), last: AtomicPtr::new(ptr::null_mut()) }),
        }
    }

    #[inline]
    fn insert(&self, key: &[u8], trailer: Trailer, value: &[u8], before_visible: impl FnOnce(&Self, &Record)) {
        let writer = &mut *self.writer.lock();
        let record = Record::allocate(&mut writer.arena, key, trailer, value);
        // Relaxed: a figure.
        self.reserved_bytes.store(writer.arena.reserved_bytes(), atomic::Ordering::Relaxed);
        // SAFETY: it was just allocated in the arena of this list, which never changes it and lives as long as the nodes.
        let entry = unsafe {
            before_visible(self, record.as_ref());
            Entry::new(key, trailer, record.add(1).cast(), value.len() as u32)
        };
        let node = self.nodes.get_or_insert(entry, (), guard());
        let next = node.next(guard());
        link_back(node.key(), next.as_ref().map(|next| next.key()), &mut writer.last);
    }

    #[inline]
    fn get(&self, lookup: &Lookup) -> Option<&Record> {
        let found = with_probe(lookup.key, Trailer::seek(lookup.seqno), |probe| {
            self.nodes.lower_bound(std::ops::Bound::Included(probe), guard())
        })?;
        let entry = found.key();
        // SAFETY: it is an entry of the list.
        (entry.prefix == lookup.prefix && entry.key() == lookup.key).then(|| unsafe { entry.record() })
    }

    fn for_each(&self, mut visit: impl FnMut(&Record)) {
        // SAFETY: they are entries of the list.
        self.nodes.iter(guard()).for_each(|node| visit(unsafe { node.key().record() }));
    }

    #[inline]
    fn bytes(&self) -> usize {
        // Relaxed: a figure.
        self.reserved_bytes.load(atomic::Ordering::Relaxed) + self.nodes.len() * NODE_BYTES
    }

    fn cursor<O: Send + Sync + 'static>(
        owner: Arc<O>,
        part: impl for<'a> FnOnce(&'a O) -> &'a Self,
    ) -> Self::Cursor<O> {
        SkipListCursor {
            current: ptr::null(),
            node: MaybeUninit::uninit(),
            node_is_current: false,
            list: part(&owner),
            _owner: owner,
        }
    }
}

/// Links `entry`, which has just become visible before `next`, backward. Under the writer's lock.
#[inline]
fn link_back(entry: &Entry, next: Option<&Entry>, last: &mut AtomicPtr<Entry>) {
    let this = ptr::from_ref(entry).cast_mut();
    let behind = match next {
        Some(next) => &next.previous,
        None => &*last,
    };
    // Relaxed: only writers change these links, and the lock orders writers.
    let previous = behind.load(atomic::Ordering::Relaxed);
    // They are linked already if (key, trailer) was in the list before: the first insertion stays.
    if previous != this {
        entry.previous.store(previous, atomic::Ordering::Relaxed);
        // Release, for the acquire in `SkipListCursor::prev`: whoever reaches the entry by this link sees it complete,
        // its own link included.
        behind.store(this, atomic::Ordering::Release);
    }
}

/// A position in a [`SkipList`] that keeps its owner alive.
pub(crate) struct SkipListCursor<O> {
    /// The entry it stands on; null when it is not valid.
    current: *const Entry,
    /// The node of `current`, when `node_is_current`: steps backward follow entries and only know those. `MaybeUninit`
    /// so that no reference into the list is asserted to live while the cursor is being dropped.
    node: MaybeUninit<Node>,
    node_is_current: bool,
    /// Lies in `_owner`.
    list: *const SkipList,
    _owner: Arc<O>,
}

// SAFETY: the pointers lead into the list, which is `Sync` and which `_owner` keeps alive wherever the cursor goes. The
// node's guard is the static one that pins nothing and has no thread.
unsafe impl<O: Send + Sync> Send for SkipListCursor<O> {}

impl<O> SkipListCursor<O> {
    #[inline]
    fn nodes(&self) -> &'static Nodes {
        // SAFETY: `list` was borrowed from `*_owner`, which an `Arc` neither moves nor frees while this cursor holds
        // it. The lifetime is not really static: what is derived from it stays in this cursor, or is handed out bounded
        // by a borrow of it.
        unsafe { &(*self.list).nodes }
    }

    #[inline]
    fn entry(&self) -> &Entry {
        debug_assert!(!self.current.is_null(), "the cursor is not valid");
        // SAFETY: callers are valid, so `current` points to an entry of the list, which lives as long as the list.
        unsafe { &*self.current }
    }

    #[inline]
    fn stand_on(&mut self, node: Option<Node>) {
        self.node_is_current = node.is_some();
        self.current = ptr::null();
        if let Some(node) = node {
            self.current = node.key();
            // Follow the link now: while the caller is busy with this entry, the next one's node and bytes come in.
            if let Some(next) = node.next() {
                next.key().prefetch();
            }
            self.node.write(node);
        }
    }
}

impl<O> Cursor for SkipListCursor<O> {
    #[inline]
    fn valid(&self) -> bool {
        !self.current.is_null()
    }

    #[inline]
    fn key(&self) -> &[u8] {
        self.entry().key()
    }

    #[inline]
    fn key_prefix(&self) -> u64 {
        self.entry().prefix
    }

    #[inline]
    fn trailer(&self) -> Trailer {
        self.entry().trailer
    }

    #[inline]
    fn value(&self) -> &[u8] {
        self.entry().value()
    }

    #[inline]
    fn value_owner(&self) -> Option<&Bytes> {
        None
    }

    fn seek_to_first(&mut self) -> Result<()> {
        self.stand_on(self.nodes().front(guard()));
        Ok(())
    }

    fn seek_to_last(&mut self) -> Result<()> {
        self.stand_on(self.nodes().back(guard()));
        Ok(())
    }

    fn seek(&mut self, key: &[u8], seqno: SeqNo) -> Result<()> {
        let found = with_probe(key, Trailer::seek(seqno), |probe| {
            self.nodes().lower_bound(std::ops::Bound::Included(probe), guard())
        });
        self.stand_on(found);
        Ok(())
    }

    fn seek_before(&mut self, key: &[u8]) -> Result<()> {
        let found =
            with_probe(key, NEWEST, |probe| self.nodes().upper_bound(std::ops::Bound::Excluded(probe), guard()));
        self.stand_on(found);
        Ok(())
    }

    #[inline]
    fn next(&mut self) -> Result<()> {
        let next = if self.node_is_current {
            // SAFETY: `node_is_current` is set only after `node` was written.
            unsafe { self.node.assume_init_ref() }.next()
        } else {
            self.nodes().lower_bound(std::ops::Bound::Excluded(self.entry()), guard())
        };
        self.stand_on(next);
        Ok(())
    }

    #[inline]
    fn prev(&mut self) -> Result<()> {
        // Acquire, for the release in `link_back`.
        let previous = self.entry().previous.load(atomic::Ordering::Acquire);
        if previous.is_null() {
            self.stand_on(self.nodes().upper_bound(std::ops::Bound::Excluded(self.entry()), guard()));
        } else {
            self.node_is_current = false;
            self.current = previous;
            let next = self.entry().previous.load(atomic::Ordering::Acquire);
            // SAFETY: it is null or an entry of the list, complete by the acquire, which lives as long as the list.
            if let Some(next) = unsafe { next.as_ref() } {
                next.prefetch();
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::ValueKind;

    /// That steps backward arrive is tested elsewhere, by the search they fall back to if need be; this is about their
    /// cost.
    #[test]
    fn every_entry_names_the_one_before_it() {
        let list = SkipList::new(&Arc::new(ArenaPool::new(0, 1 << 20)));
        for seqno in 1..=1000u64 {
            let key = (seqno * 7919 % 1009).to_be_bytes();
            list.insert(&key, Trailer::new(seqno, ValueKind::Put), b"value", |_, _| ());
        }
        let mut before = ptr::null_mut();
        for node in list.nodes.iter(guard()) {
            assert_eq!(node.key().previous.load(atomic::Ordering::Acquire), before);
            before = ptr::from_ref(node.key()).cast_mut();
        }
    }
}
