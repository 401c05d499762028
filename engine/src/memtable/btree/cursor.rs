//! Positions in the tree.

use std::ptr::null;
use std::sync::Arc;

use bytes::Bytes;

use super::super::record::Record;
use super::node::{Leaf, Order, Target, prefetch_node};
use super::{BTree, Place};
use crate::cursor::{Aim, Cursor};
use crate::error::Result;
use crate::key::{SeqNo, Trailer, prefix_u64};
use crate::sync::atomic::Ordering::Acquire;

/// How many entries ahead a cursor that steps fetches: records lie where their writes put them, each a cache miss away.
const AHEAD: usize = 4;

/// How many entries a seek fetches: what few steps need, not what a scan needs.
const LANDING: usize = 2;

/// What sorts before every entry of its key.
const NEWEST: Trailer = Trailer(u64::MAX);

impl Place {
    /// Before the first entry of `leaf`, or behind its last.
    fn at_end_of(leaf: *const Leaf, last: bool) -> Option<Place> {
        // SAFETY: callers hand in null or a leaf of their tree.
        let order = unsafe { leaf.as_ref()? }.keys.order();
        Some(Place { leaf, order, position: if last { order.len() } else { 0 } })
    }

    #[inline]
    fn leaf(&self) -> &Leaf {
        // SAFETY: places are made of leaves of a tree that outlives them.
        unsafe { &*self.leaf }
    }

    /// This place if an entry is there, else that of the first entry of the next leaf. (No leaf is empty.)
    #[inline]
    fn settled(self) -> Option<Place> {
        if self.position < self.order.len() {
            return Some(self);
        }
        Place::at_end_of(self.leaf().next.load(Acquire), false)
    }

    /// The place of the entry before this place.
    #[inline]
    fn before(self) -> Option<Place> {
        if self.position > 0 {
            return Some(Place { position: self.position - 1, ..self });
        }
        let previous = Place::at_end_of(self.leaf().previous.load(Acquire), true)?;
        Some(Place { position: previous.position.checked_sub(1)?, ..previous })
    }

    /// The place of the next entry in a direction.
    #[inline]
    fn step(self, backward: bool) -> Option<Place> {
        if backward { self.before() } else { Place { position: self.position + 1, ..self }.settled() }
    }

    /// The leaf after this one in a direction; null if there is none.
    #[inline]
    fn neighbour(&self, backward: bool) -> *const Leaf {
        let leaf = self.leaf();
        if backward { leaf.previous.load(Acquire) } else { leaf.next.load(Acquire) }
    }

    /// The record some entries further on in a direction, as far as the next leaf: null if there is none.
    #[inline]
    fn ahead(&self, backward: bool) -> *const Record {
        let position = if backward { self.position.wrapping_sub(AHEAD) } else { self.position + AHEAD };
        if position < self.order.len() {
            return self.record_at(position);
        }
        let Some(next) = Place::at_end_of(self.neighbour(backward), backward) else { return null() };
        let len = next.order.len();
        let position = if backward { len.wrapping_add(position) } else { position - self.order.len() };
        if position < len { next.record_at(position) } else { null() }
    }

    #[inline]
    fn record_at(&self, position: usize) -> *const Record {
        self.leaf().keys.record_pointer(self.order.slot(position))
    }

    /// Where the target is to be found in this place's leaf.
    #[inline]
    fn in_leaf(self, target: &Target<'_>) -> Place {
        let keys = &self.leaf().keys;
        let order = keys.order();
        Place { order, position: keys.rank(order, target, false), ..self }
    }

    /// The first entry at or after this place.
    #[inline]
    pub(super) fn record(self) -> Option<*const Record> {
        self.settled().map(|place| place.record_at(place.position))
    }
}

/// A position in a [`BTree`] that keeps its owner alive.
pub(crate) struct BTreeCursor<O> {
    /// The entry it stands on; null when it is not valid.
    record: *const Record,
    prefix: u64,
    /// Where that was at `version`.
    place: Place,
    version: u64,
    /// The place of the key that was aimed at, after the first step only its leaf, and the version it holds for.
    aimed: Option<(Aim, Place, u64)>,
    /// Lies in `_owner`.
    tree: *const BTree,
    _owner: Arc<O>,
}

// SAFETY: the pointers lead into the tree, which is `Sync` and which `_owner` keeps alive wherever the cursor goes.
unsafe impl<O: Send + Sync> Send for BTreeCursor<O> {}

impl<O> BTreeCursor<O> {
    /// A cursor over `tree`, which lies in `owner`; not positioned yet.
    pub(super) fn new(owner: Arc<O>, tree: *const BTree) -> Self {
        let place = Place { leaf: null(), order: Order::default(), position: 0 };
        BTreeCursor { record: null(), prefix: 0, place, version: 0, aimed: None, tree, _owner: owner }
    }

    #[inline]
    fn tree(&self) -> &'static BTree {
        // SAFETY: `tree` was borrowed from `*_owner`, which an `Arc` neither moves nor frees while this cursor holds
        // it. The lifetime is not really static: what is derived from it stays in this cursor, or is handed out bounded
        // by a borrow of it.
        unsafe { &*self.tree }
    }

    #[inline]
    fn entry(&self) -> &Record {
        debug_assert!(!self.record.is_null(), "the cursor is not valid");
        // SAFETY: callers are valid, so `record` is a record of the tree, which lives as long as the tree.
        unsafe { &*self.record }
    }

    #[inline]
    fn stand_on(&mut self, place: Place, record: *const Record, version: u64) {
        (self.place, self.record, self.version) = (place, record, version);
        self.prefix = prefix_u64(self.entry().key());
    }

    /// Searches anew, and stands on what was found.
    fn position(&mut self, search: impl Fn(&BTree) -> Option<Place>) {
        let tree = self.tree();
        let (found, version) = tree.read(|| search(tree).map(|place| (place, place.record_at(place.position))));
        match found {
            Some((place, record)) => self.stand_on(place, record, version),
            None => self.record = null(),
        }
    }

    /// Goes to `next`, a place that was found from one that holds for `version`, if no split came in between; `false` if
    /// one did.
    #[inline]
    fn try_stand_on(&mut self, next: Option<Place>, version: u64) -> bool {
        let record = next.map_or(null(), |place| place.record_at(place.position));
        if !self.tree().is_at(version) {
            return false;
        }
        match next {
            Some(place) => self.stand_on(place, record, version),
            None => self.record = null(),
        }
        true
    }

    /// The place of the next entry in a direction. What comes some steps later is fetched: the record, and beside a leaf
    /// that was just entered the one after it.
    #[inline]
    fn next_place(&self, backward: bool) -> Option<Place> {
        let next = self.place.step(backward)?;
        Record::prefetch(next.ahead(backward));
        if next.leaf != self.place.leaf {
            prefetch_node(next.neighbour(backward).cast(), 0);
        }
        Some(next)
    }

    /// The entry at `place`, which was found from where the cursor stands, if no split came in between, and the prefix of
    /// its key.
    #[inline]
    fn peek(&self, place: Place) -> Option<(*const Record, u64)> {
        let record = place.record_at(place.position);
        if !self.tree().is_at(self.version) {
            return None;
        }
        // SAFETY: a place that holds for the tree's version names a record of the tree, which lives as long as the tree.
        Some((record, prefix_u64(unsafe { &*record }.key())))
    }

    /// Moves to the next entry in a direction.
    #[inline]
    fn step(&mut self, backward: bool) {
        let next = self.next_place(backward);
        if !self.try_stand_on(next, self.version) {
            let (here, tree) = (std::ptr::from_ref(self.entry()), self.tree());
            self.position(|_| {
                // SAFETY: the record the cursor stands on, which lives as long as the tree.
                let here = unsafe { &*here };
                tree.find(&Target { key: here.key(), trailer: here.trailer })?.step(backward)
            });
        }
    }

    /// Seeks the target: from where it was aimed at if no split came since, else from the root.
    #[inline]
    fn seek_from(&mut self, target: &Target<'_>, step: impl Fn(Place) -> Option<Place>) {
        let aimed = self.aimed.take().filter(|&(at, ..)| at == Aim::Block);
        if !aimed.is_some_and(|(_, place, version)| self.try_stand_on(step(place), version)) {
            self.position(|tree| step(tree.find(target)?));
        }
    }
}

impl<O> Cursor for BTreeCursor<O> {
    #[inline]
    fn valid(&self) -> bool {
        !self.record.is_null()
    }

    #[inline]
    fn key(&self) -> &[u8] {
        self.entry().key()
    }

    #[inline]
    fn key_prefix(&self) -> u64 {
        self.prefix
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
        self.position(|tree| Place::at_end_of(tree.edge(false), false));
        Ok(())
    }

    fn seek_to_last(&mut self) -> Result<()> {
        self.position(|tree| Place::at_end_of(tree.edge(true), true)?.before());
        Ok(())
    }

    fn aim(&mut self, at: Aim, key: &[u8], seqno: SeqNo, backward: bool) -> Result<()> {
        let target = Target { key, trailer: if backward { NEWEST } else { Trailer::seek(seqno) } };
        let tree = self.tree();
        match (at, self.aimed.take()) {
            (Aim::Index, _) => {
                let (leaf, version) = tree.read(|| tree.descend(&target, |_, _| ()));
                let at_start = |leaf| Place { leaf, order: Order::default(), position: 0 };
                self.aimed = (!leaf.is_null()).then(|| (at, at_start(leaf), version));
            }
            (Aim::Block, Some((_, leaf, version))) => {
                // May be torn; `try_stand_on` notices when it seeks from here.
                let place = leaf.in_leaf(&target);
                let first = if backward { place.position.saturating_sub(LANDING) } else { place.position };
                (first..place.order.len()).take(LANDING).for_each(|at| Record::prefetch(place.record_at(at)));
                self.aimed = Some((at, place, version));
            }
            (Aim::Block, None) => {}
        }
        Ok(())
    }

    fn seek(&mut self, key: &[u8], seqno: SeqNo) -> Result<()> {
        self.seek_from(&Target { key, trailer: Trailer::seek(seqno) }, Place::settled);
        Ok(())
    }

    fn seek_before(&mut self, key: &[u8]) -> Result<()> {
        self.seek_from(&Target { key, trailer: NEWEST }, Place::before);
        Ok(())
    }

    #[inline]
    fn next(&mut self) -> Result<()> {
        self.step(false);
        Ok(())
    }

    #[inline]
    fn next_key(&mut self) -> Option<u64> {
        let place = self.next_place(false)?;
        let (record, prefix) = self.peek(place)?;
        // Of equal prefixes the keys may be equal too.
        (prefix > self.prefix).then(|| {
            (self.place, self.record, self.prefix) = (place, record, prefix);
            prefix
        })
    }

    #[inline]
    fn is_newest(&self) -> bool {
        // What is written meanwhile is newer than anything that whoever asks may see.
        self.place.before().and_then(|before| self.peek(before)).is_some_and(|(_, prefix)| prefix < self.prefix)
    }

    #[inline]
    fn prev(&mut self) -> Result<()> {
        self.step(true);
        Ok(())
    }
}
