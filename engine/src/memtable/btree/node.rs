//! The nodes of the tree, and searching one node.
//!
//! Every field that changes after a node became visible is an atomic, so a reader that meets a node in the middle of a
//! change reads old or new values, never anything else; whether they belong together it learns from the tree's version
//! (see the parent module).

use std::cmp::Ordering;
use std::ptr::{NonNull, null_mut};

use super::super::arena::Arena;
use super::super::record::Record;
use crate::key::{Trailer, prefix_u64};
use crate::prefetch::{LINE_BYTES, prefetch_lines};
use crate::sync::IS_MODEL;
use crate::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use crate::sync::atomic::{AtomicPtr, AtomicU64};

/// Entries of a node: with 14, a leaf is exactly four cache lines, and the order of all slots fits one word.
/// (A model splits a node after fewer insertions: its every atomic step is explored.)
pub(super) const SLOTS: usize = if IS_MODEL { 4 } else { 14 };

/// The order of a node's entries: bits 60 to 63 count them, bits `4 i` to `4 i + 3` name the slot of the `i`-th. One
/// store of it makes an entry visible. (After the leaf permutation of Masstree: Mao, Kohler, Morris, "Cache Craftiness
/// for Fast Multicore Key-Value Storage", EuroSys 2012.)
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Order(pub(super) u64);

impl Order {
    #[inline]
    pub(super) fn len(self) -> usize {
        (self.0 >> 60) as usize
    }

    /// The slot of the entry at `position`.
    #[inline]
    pub(super) fn slot(self, position: usize) -> usize {
        // The remainder costs nothing (slots of positions below `len` are below `SLOTS`) and spares the bounds check.
        (self.0 >> (4 * position) & 15) as usize % (SLOTS + 1)
    }

    /// With `slot` put in at `position`.
    fn with(self, position: usize, slot: usize) -> Self {
        let slots = self.0 & (u64::MAX >> 4);
        let below = slots & ((1 << (4 * position)) - 1);
        let above = (slots ^ below) << 4;
        Order((self.len() as u64 + 1) << 60 | (above & (u64::MAX >> 4)) | (slot as u64) << (4 * position) | below)
    }

    /// The first `len` entries only.
    fn truncated(self, len: usize) -> Self {
        Order((len as u64) << 60 | self.0 & ((1 << (4 * len)) - 1))
    }

    /// A slot that holds no entry. The node is not full.
    fn free_slot(self) -> usize {
        let used = (0..self.len()).fold(0u32, |used, position| used | 1 << self.slot(position));
        (!used).trailing_zeros() as usize % SLOTS
    }
}

/// What is searched for: a place in the internal order.
#[derive(Clone, Copy)]
pub(super) struct Target<'a> {
    pub(super) key: &'a [u8],
    pub(super) trailer: Trailer,
}

impl Target<'_> {
    /// How the target compares with an entry: by key, then newest first.
    #[inline]
    pub(super) fn compare(&self, record: &Record) -> Ordering {
        self.key.cmp(record.key()).then_with(|| record.trailer.cmp(&self.trailer))
    }
}

/// What leaves and inner nodes share: sorted records, with eight bytes of each key in a column of their own.
///
/// All keys that belong into a node agree in their first `skip` bytes, because its bounds do; the column holds what
/// comes after.
#[repr(C)]
pub(super) struct Keys {
    order: AtomicU64,
    /// 0 for a leaf, else how many levels lie below.
    pub(super) level: u16,
    skip: u16,
    prefixes: [AtomicU64; SLOTS],
    records: [AtomicPtr<Record>; SLOTS],
}

impl Keys {
    #[inline]
    fn new(level: u16, skip: u16) -> Self {
        Keys {
            order: AtomicU64::new(Order::default().0),
            level,
            skip,
            prefixes: std::array::from_fn(|_| AtomicU64::new(0)),
            records: std::array::from_fn(|_| AtomicPtr::new(null_mut())),
        }
    }

    #[inline]
    pub(super) fn order(&self) -> Order {
        // Acquire pairs with the release in `insert`: the slots that the order names are filled.
        Order(self.order.load(Acquire))
    }

    /// The record in a slot that `order` names.
    #[inline]
    pub(super) fn record(&self, slot: usize) -> &Record {
        // Acquire pairs with the release in `fill`: a slot that was given to another record meanwhile shows that record
        // complete.
        let record = self.records[slot % SLOTS].load(Acquire);
        debug_assert!(!record.is_null(), "the slot was never filled");
        // SAFETY: a slot that an order names was filled before that order was stored, and from then on always points to
        // a record, none of which is freed before the arena, which this node lies in itself.
        unsafe { &*record }
    }

    #[inline]
    pub(super) fn record_pointer(&self, slot: usize) -> *const Record {
        self.records[slot % SLOTS].load(Acquire)
    }

    #[inline]
    fn prefix_of(&self, key: &[u8]) -> u64 {
        prefix_u64(key.get(self.skip.into()..).unwrap_or_default())
    }

    /// How many entries of `order` come before the target, or, with `or_equal`, before or at it.
    #[inline]
    pub(super) fn rank(&self, order: Order, target: &Target<'_>, or_equal: bool) -> usize {
        let prefix = self.prefix_of(target.key);
        // Relaxed: filled before `order`, which was loaded with acquire.
        let prefix_at = |position: usize| self.prefixes[order.slot(position) % SLOTS].load(Relaxed);
        let first = partition(0, order.len(), |position| prefix_at(position) < prefix);
        if first == order.len() || prefix_at(first) != prefix {
            return first;
        }
        let ties_end = partition(first, order.len(), |position| prefix_at(position) <= prefix);
        partition(first, ties_end, |position| {
            let compared = target.compare(self.record(order.slot(position)));
            compared.is_gt() || (or_equal && compared.is_eq())
        })
    }

    /// Whether the entry at `position` is the target. Its record is looked at only if its prefix does not tell.
    #[inline]
    pub(super) fn is_at(&self, order: Order, position: usize, target: &Target<'_>) -> bool {
        let is_tied = |slot: usize| self.prefixes[slot % SLOTS].load(Relaxed) == self.prefix_of(target.key);
        position < order.len()
            && is_tied(order.slot(position))
            && target.compare(self.record(order.slot(position))).is_eq()
    }

    /// Puts a record into the free `slot`; nobody sees it before an order names it.
    #[inline]
    fn fill(&self, slot: usize, prefix: u64, record: *const Record) {
        self.prefixes[slot].store(prefix, Relaxed);
        self.records[slot].store(record.cast_mut(), Release);
    }

    /// Makes `record` the entry at `position`; answers the slot it took. The node is not full. `before_visible` runs
    /// when the slot is known, before a reader can meet it.
    #[inline]
    pub(super) fn insert(&self, position: usize, record: &Record, before_visible: impl FnOnce(usize)) {
        let order = self.order();
        let slot = order.free_slot();
        self.fill(slot, self.prefix_of(record.key()), record);
        before_visible(slot);
        self.order.store(order.with(position, slot).0, Release);
    }

    /// Fills an empty node, which nobody sees yet, with the entries of `from` from `position` on; `moved` hears of
    /// each: its slot there and here.
    fn take_from(&self, from: &Keys, position: usize, mut moved: impl FnMut(usize, usize)) {
        let order = from.order();
        let mut own = Order::default();
        for at in position..order.len() {
            let (there, here) = (order.slot(at), own.len());
            let record = from.record(there);
            let prefix = if self.skip == from.skip {
                from.prefixes[there % SLOTS].load(Relaxed)
            } else {
                self.prefix_of(record.key())
            };
            self.fill(here, prefix, record);
            moved(there, here);
            own = own.with(here, here);
        }
        self.order.store(own.0, Release);
    }

    /// Forgets the entries from `len` on. Only inside a change of version: their slots will be used again.
    fn truncate(&self, len: usize) {
        self.order.store(self.order().truncated(len).0, Release);
    }

    /// How many first bytes the keys of a new node right of this one agree in, given the new node's bounds. Only a gain
    /// of four bytes and more is taken: less leaves the column telling about as many keys apart, and costs reading
    /// every key anew.
    fn skip_between(&self, low: &Record, high: Option<&Record>) -> u16 {
        let Some(high) = high else { return 0 };
        let common = low.key().iter().zip(high.key()).take_while(|(a, b)| a == b).count() as u16;
        if common >= self.skip + 4 { common } else { self.skip }
    }
}

/// The first position in `low..high` for which `before` is false; it is true up to some position and false from there
/// on.
#[inline]
fn partition(mut low: usize, high: usize, before: impl Fn(usize) -> bool) -> usize {
    let mut len = high - low;
    while len > 0 {
        let half = len / 2;
        let (right, rest) = (low + half + 1, len - half - 1);
        (low, len) = if before(low + half) { (right, rest) } else { (low, half) };
    }
    low
}

/// A node with entries, linked to both neighbours.
#[repr(C, align(64))]
pub(super) struct Leaf {
    pub(super) keys: Keys,
    pub(super) next: AtomicPtr<Leaf>,
    pub(super) previous: AtomicPtr<Leaf>,
}

/// A node over nodes: `first` holds what comes before the first record, `children[slot]` what is at or after the record
/// in that slot, and before the next record.
#[repr(C, align(64))]
pub(super) struct Inner {
    pub(super) keys: Keys,
    pub(super) first: AtomicPtr<Keys>,
    pub(super) children: [AtomicPtr<Keys>; SLOTS],
}

/// Puts a node into the arena. Shared from the start: all that changes later is atomic.
fn allocate<'a, T>(arena: &mut Arena, node: T) -> &'a T {
    let place: NonNull<T> = arena.allocate(size_of::<T>(), align_of::<T>()).cast();
    // SAFETY: the arena gave this room to nobody else, aligned for `T`. The lifetime is bounded by the callers, who hand
    // the node to the tree that owns the arena. Nothing is lost by never dropping it: nodes own nothing.
    unsafe {
        place.write(node);
        place.as_ref()
    }
}

/// A pointer to a whole node by what it begins with.
pub(super) fn as_keys<T>(node: &T) -> *mut Keys {
    std::ptr::from_ref(node).cast_mut().cast()
}

impl Leaf {
    pub(super) fn allocate<'a>(arena: &mut Arena, skip: u16) -> &'a Leaf {
        let (next, previous) = (AtomicPtr::new(null_mut()), AtomicPtr::new(null_mut()));
        allocate(arena, Leaf { keys: Keys::new(0, skip), next, previous })
    }

    /// Moves the entries from `position` on, before which `low` and after which `high` bounds them, into a new leaf on
    /// the right. Inside a change of version.
    pub(super) fn split<'a>(
        &self,
        arena: &mut Arena,
        position: usize,
        low: &Record,
        high: Option<&Record>,
    ) -> &'a Leaf {
        let right = Leaf::allocate(arena, self.keys.skip_between(low, high));
        right.keys.take_from(&self.keys, position, |_, _| ());
        let next = self.next.load(Relaxed);
        right.next.store(next, Relaxed);
        right.previous.store(std::ptr::from_ref(self).cast_mut(), Relaxed);
        let link = std::ptr::from_ref(right).cast_mut();
        // SAFETY: links lead to leaves of this tree, which live as long as the arena.
        if let Some(next) = unsafe { next.as_ref() } {
            next.previous.store(link, Release);
        }
        self.next.store(link, Release);
        self.keys.truncate(position);
        right
    }
}

impl Inner {
    pub(super) fn allocate<'a>(arena: &mut Arena, level: u16, skip: u16, first: *mut Keys) -> &'a Inner {
        let children = std::array::from_fn(|_| AtomicPtr::new(null_mut()));
        allocate(arena, Inner { keys: Keys::new(level, skip), first: AtomicPtr::new(first), children })
    }

    /// The child that holds what is at or after the entry before `rank`.
    #[inline]
    pub(super) fn child(&self, order: Order, rank: usize) -> *mut Keys {
        match rank.checked_sub(1) {
            None => self.first.load(Acquire),
            Some(before) => self.children[order.slot(before) % SLOTS].load(Acquire),
        }
    }

    /// Adds the child right of `record`, at `position`. The node is not full.
    pub(super) fn insert(&self, position: usize, record: &Record, child: *mut Keys) {
        self.keys.insert(position, record, |slot| self.children[slot].store(child, Release));
    }

    /// Moves the children right of the record at `position` into a new node, and takes that record out: it separates
    /// the two. Inside a change of version.
    pub(super) fn split<'a>(&self, arena: &mut Arena, position: usize, high: Option<&Record>) -> &'a Inner {
        let order = self.keys.order();
        let separator = self.keys.record(order.slot(position));
        let skip = self.keys.skip_between(separator, high);
        let right = Inner::allocate(arena, self.keys.level, skip, self.child(order, position + 1));
        right.keys.take_from(&self.keys, position + 1, |there, here| {
            right.children[here].store(self.children[there % SLOTS].load(Relaxed), Relaxed);
        });
        self.keys.truncate(position);
        right
    }
}

/// Asks the processor to fetch a node, `level` levels above the leaves.
#[inline]
pub(super) fn prefetch_node(node: *const Keys, level: u16) {
    let bytes = if level == 0 { size_of::<Leaf>() } else { size_of::<Inner>() };
    prefetch_lines(node, bytes / LINE_BYTES);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_leaf_is_four_cache_lines() {
        assert_eq!((size_of::<Leaf>(), size_of::<Inner>()), (256, 384));
    }

    #[test]
    fn orders_agree_with_a_list_of_slots() {
        for seed in 0..200usize {
            let (mut order, mut model) = (Order::default(), Vec::new());
            for step in 0..SLOTS {
                let position = (seed * 7 + step * 5) % (model.len() + 1);
                let slot = order.free_slot();
                assert!(!model.contains(&slot));
                order = order.with(position, slot);
                model.insert(position, slot);
                assert_eq!((0..order.len()).map(|at| order.slot(at)).collect::<Vec<_>>(), model);
            }
            let half = order.truncated(seed % SLOTS);
            assert_eq!((0..half.len()).map(|at| half.slot(at)).collect::<Vec<_>>(), model[..seed % SLOTS]);
        }
    }
}
