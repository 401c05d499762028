//! A B+ tree for one writer and any number of readers that take no lock: the default representation.
//!
//! A skiplist of single entries pays a cache miss a step; here a search touches a few nodes of many keys each, laid out
//! so that most comparisons read a column of eight-byte key prefixes and no key. (The measurements that led here are of
//! `std`'s B-tree and of blocked skiplists; a B+ tree has the same nodes and no randomness.)
//!
//! # Concurrency
//! Entries are never removed, and neither they nor nodes are freed before the arena. An insertion into a node that has
//! room writes a free slot and then stores the node's order: readers see the order before or after, both right. A split
//! moves entries and lets slots be used again, which a reader must not see halfway: it happens inside a change of the
//! tree's `version`, odd meanwhile. A reader loads the version before and after; if it was odd or differs, what was
//! read in between is thrown away. All that a reader follows are atomics whose targets live as long as the tree, so
//! even what is thrown away was read without a data race. (A sequence lock: Boehm, "Can Seqlocks Get Along with
//! Programming Language Memory Models?", MSPC 2012, whose fences are used here.)
//!
//! A reader that loses [`ATTEMPTS`] times takes the writer's lock once, so it always makes progress.

#![allow(unsafe_code)]

mod cursor;
mod node;

use std::ptr::null_mut;
use std::sync::Arc;

use super::Representation;
use super::arena::{Arena, ArenaPool};
use super::record::Record;
use crate::key::{Lookup, Trailer};
use crate::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use crate::sync::atomic::{AtomicPtr, AtomicU64, AtomicUsize, fence};
use crate::sync::{IS_MODEL, Mutex, hint};
pub(super) use cursor::BTreeCursor;
use node::{Inner, Keys, Leaf, Order, SLOTS, Target, as_keys, prefetch_node};

/// How often a reader tries before it asks the writer to wait.
const ATTEMPTS: usize = if IS_MODEL { 2 } else { 64 };

/// More levels than a tree whose nodes hold at least seven entries can have in any memory.
const MAX_LEVELS: usize = 24;

/// See the module.
pub(crate) struct BTree {
    /// Null while the tree is empty.
    root: AtomicPtr<Keys>,
    /// Odd while a split is under way.
    version: AtomicU64,
    reserved_bytes: AtomicUsize,
    writer: Mutex<Arena>,
}

/// A position in a leaf, as it was at some version.
#[derive(Clone, Copy)]
struct Place {
    leaf: *const Leaf,
    order: Order,
    /// At most `order.len()`.
    position: usize,
}

/// The inner nodes from the root to a leaf, and at which rank the way left each.
struct Path<'t> {
    steps: [Option<(&'t Inner, usize)>; MAX_LEVELS],
    len: usize,
}

impl BTree {
    /// Calls `search` until it ran while no split did; its answer, and the version it holds for.
    #[inline]
    fn read<R>(&self, search: impl Fn() -> R) -> (R, u64) {
        for _ in 0..ATTEMPTS {
            let version = self.version.load(Acquire);
            if version & 1 == 0 {
                let answer = search();
                if self.is_at(version) {
                    return (answer, version);
                }
            }
            hint::spin_loop();
        }
        self.read_locked(search)
    }

    #[cold]
    fn read_locked<R>(&self, search: impl Fn() -> R) -> (R, u64) {
        let _no_split = self.writer.lock();
        (search(), self.version.load(Relaxed))
    }

    /// Whether nothing that was read since `version` was loaded can be from a later version.
    #[inline]
    fn is_at(&self, version: u64) -> bool {
        // Pairs with the fence in `change`: if anything read before was stored after it, the load sees the version
        // change.
        fence(Acquire);
        self.version.load(Relaxed) == version
    }

    /// Runs a split. Only under the writer's lock.
    fn change<R>(&self, split: impl FnOnce() -> R) -> R {
        let version = self.version.load(Relaxed);
        self.version.store(version + 1, Relaxed);
        fence(Release);
        let answer = split();
        self.version.store(version + 2, Release);
        answer
    }

    /// The root, and how many levels of inner nodes there are above the leaves. Null if the tree is empty.
    #[inline]
    fn root(&self) -> (*mut Keys, u16) {
        let root = self.root.load(Acquire);
        // SAFETY: null or a node of this tree; `level` never changes after the node became visible.
        (root, unsafe { root.as_ref() }.map_or(0, |keys| keys.level))
    }

    /// Goes down to the leaf that the target belongs into, without a look at the leaf; `visit` hears of the inner nodes
    /// on the way. Null if the tree is empty.
    #[inline]
    fn descend<'t>(&'t self, target: &Target<'_>, mut visit: impl FnMut(&'t Inner, usize)) -> *const Leaf {
        let (mut node, levels) = self.root();
        for level in (0..levels).rev() {
            // SAFETY: root and children are nodes of this tree. Each child is one level below its parent, and what is
            // above level 0 was allocated as `Inner`.
            let inner = unsafe { &*node.cast::<Inner>() };
            let order = inner.keys.order();
            let rank = inner.keys.rank(order, target, true);
            node = inner.child(order, rank);
            prefetch_node(node, level);
            visit(inner, rank);
        }
        node.cast()
    }

    /// The place of the first entry at or after the target. May be torn: only inside `read`, or under the writer's
    /// lock.
    #[inline]
    fn find(&self, target: &Target<'_>) -> Option<Place> {
        let leaf = self.descend(target, |_, _| ());
        // SAFETY: null or a leaf of this tree.
        let keys = unsafe { &leaf.as_ref()?.keys };
        let order = keys.order();
        Some(Place { leaf, order, position: keys.rank(order, target, false) })
    }

    /// The leaf at one end.
    fn edge(&self, last: bool) -> *const Leaf {
        let (mut node, levels) = self.root();
        for _ in 0..levels {
            // SAFETY: as in `descend`.
            let inner = unsafe { &*node.cast::<Inner>() };
            let order = inner.keys.order();
            node = inner.child(order, if last { order.len() } else { 0 });
        }
        node.cast()
    }

    /// Makes `record` the first entry. The leaf is seen when the entry is in it: a cursor takes it for granted that no
    /// leaf is empty.
    fn plant(&self, arena: &mut Arena, record: &Record) {
        let first = Leaf::allocate(arena, 0);
        first.keys.insert(0, record, |_| ());
        self.root.store(as_keys(first), Release);
    }

    fn insert_into(&self, arena: &mut Arena, leaf: &Leaf, path: &Path<'_>, position: usize, record: &Record) {
        if leaf.keys.order().len() < SLOTS {
            return leaf.keys.insert(position, record, |_| ());
        }
        self.change(|| self.split_leaf(arena, leaf, path, position, record));
    }

    /// Splits a full leaf in the middle, or, at the end of the tree, so that the left one stays full: sorted writes
    /// fill their leaves.
    fn split_leaf(&self, arena: &mut Arena, leaf: &Leaf, path: &Path<'_>, position: usize, record: &Record) {
        let at_end = position == SLOTS && leaf.next.load(Relaxed).is_null();
        let middle = if at_end { SLOTS } else { SLOTS / 2 };
        let separator = if at_end { record } else { leaf.keys.record(leaf.keys.order().slot(middle)) };
        let right = leaf.split(arena, middle, separator, path.high(path.len));
        if position <= middle && !at_end {
            leaf.keys.insert(position, record, |_| ());
        } else {
            right.keys.insert(position - middle, record, |_| ());
        }
        self.insert_child(arena, path, separator, as_keys(right));
    }

    /// Adds `child`, whose entries begin with `separator`, right of where the path leads; full nodes on the way up are
    /// split.
    fn insert_child(&self, arena: &mut Arena, path: &Path<'_>, separator: &Record, child: *mut Keys) {
        let (mut separator, mut child) = (separator, child);
        for depth in (0..path.len).rev() {
            let Some((inner, rank)) = path.steps[depth] else { break };
            if inner.keys.order().len() < SLOTS {
                return inner.insert(rank, separator, child);
            }
            let middle = SLOTS / 2;
            let promoted = inner.keys.record(inner.keys.order().slot(middle));
            let right = inner.split(arena, middle, path.high(depth));
            if rank <= middle {
                inner.insert(rank, separator, child);
            } else {
                right.insert(rank - middle - 1, separator, child);
            }
            (separator, child) = (promoted, as_keys(right));
        }
        let old = self.root.load(Relaxed);
        // SAFETY: the root is a node of this tree, and not null: something below it was split.
        let level = unsafe { (*old).level } + 1;
        let root = Inner::allocate(arena, level, 0, old);
        root.insert(0, separator, child);
        self.root.store(as_keys(root), Release);
    }
}

impl<'t> Path<'t> {
    fn new() -> Self {
        Path { steps: [None; MAX_LEVELS], len: 0 }
    }

    fn push(&mut self, inner: &'t Inner, rank: usize) {
        self.steps[self.len % MAX_LEVELS] = Some((inner, rank));
        self.len += 1;
    }

    /// The record that bounds what lies under the step before `depth` from above: the next one to the right in the
    /// nearest node that has one.
    fn high(&self, depth: usize) -> Option<&'t Record> {
        self.steps[..depth].iter().rev().flatten().find_map(|(inner, rank)| {
            let order = inner.keys.order();
            (*rank < order.len()).then(|| inner.keys.record(order.slot(*rank)))
        })
    }
}

impl Representation for BTree {
    type Cursor<O: Send + Sync + 'static> = BTreeCursor<O>;

    fn new(pool: &Arc<ArenaPool>) -> Self {
        BTree {
            root: AtomicPtr::new(null_mut()),
            version: AtomicU64::new(0),
            reserved_bytes: AtomicUsize::new(0),
            writer: Mutex::new(Arena::new(pool)),
        }
    }

    #[inline]
    fn insert(&self, key: &[u8], trailer: Trailer, value: &[u8], before_visible: impl FnOnce(&Self, &Record)) {
        let arena = &mut *self.writer.lock();
        let mut path = Path::new();
        let target = Target { key, trailer };
        let leaf = self.descend(&target, |inner, rank| path.push(inner, rank));
        // SAFETY: null or a leaf of this tree; the writer's lock is held, so nothing is torn.
        let place = unsafe { leaf.as_ref() }.map(|leaf| (leaf, leaf.keys.order()));
        let position = place.map_or(0, |(leaf, order)| leaf.keys.rank(order, &target, false));
        if place.is_some_and(|(leaf, order)| leaf.keys.is_at(order, position, &target)) {
            return;
        }
        let record = Record::allocate(arena, key, trailer, value);
        // SAFETY: the record was just allocated in the arena of this tree.
        let record = unsafe { record.as_ref() };
        before_visible(self, record);
        match place {
            Some((leaf, _)) => self.insert_into(arena, leaf, &path, position, record),
            None => self.plant(arena, record),
        }
        // Relaxed: a figure.
        self.reserved_bytes.store(arena.reserved_bytes(), Relaxed);
    }

    #[inline]
    fn get(&self, lookup: &Lookup) -> Option<&Record> {
        let target = Target { key: lookup.key, trailer: Trailer::seek(lookup.seqno) };
        let (found, _) = self.read(|| self.find(&target).and_then(|place| place.record()));
        // SAFETY: a record of this tree.
        let record = unsafe { &*found? };
        (record.key() == lookup.key).then_some(record)
    }

    fn for_each(&self, mut visit: impl FnMut(&Record)) {
        // Called inside an insertion, so nothing changes meanwhile.
        let mut leaf = self.edge(false);
        // SAFETY: null or a leaf of this tree.
        while let Some(here) = unsafe { leaf.as_ref() } {
            let order = here.keys.order();
            (0..order.len()).for_each(|position| visit(here.keys.record(order.slot(position))));
            leaf = here.next.load(Acquire);
        }
    }

    #[inline]
    fn bytes(&self) -> usize {
        // Relaxed: a figure.
        self.reserved_bytes.load(Relaxed)
    }

    fn cursor<O: Send + Sync + 'static>(
        owner: Arc<O>,
        part: impl for<'a> FnOnce(&'a O) -> &'a Self,
    ) -> Self::Cursor<O> {
        let tree = std::ptr::from_ref(part(&owner));
        BTreeCursor::new(owner, tree)
    }
}
