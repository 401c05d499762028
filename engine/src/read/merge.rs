//! Many sorted runs as one.

use std::cmp::Ordering;
use std::ops::ControlFlow;

use bytes::Bytes;

use crate::cursor::{Aim, Cursor, Stretch};
use crate::error::Result;
use crate::key::{MAX_SEQNO, SeqNo, Trailer, compare_keys};

/// Merges cursors in internal order (key ascending, newest first). Entries that are equal in key and trailer come in
/// the order of the children.
///
/// The child that stands on the merge's entry, the winner, is kept out of the heap: after it has moved it is compared
/// with the heap's top only, and the heap changes only when it lost. So one child costs nothing, two cost one
/// comparison a step, and of many a run that dominates costs one comparison a step too.
pub(crate) struct MergeCursor<C> {
    children: Vec<C>,
    /// [`NOBODY`] when the merge is not valid.
    winner: Waiting,
    backward: bool,
    /// The valid children other than the winner, the one that comes next in the direction of the merge on top (a binary
    /// heap).
    ///
    /// Invariant: forward they stand on their first entry after the winner's, but for older ones of its key that
    /// `leave_key` passed, backward on their last entry before it; children that are not valid have no such entry.
    heap: Vec<Waiting>,
}

/// A child, with the prefix of its key, so that most comparisons do not go to the child.
#[derive(Clone, Copy)]
struct Waiting {
    prefix: u64,
    child: usize,
}

const NOBODY: Waiting = Waiting { prefix: 0, child: usize::MAX };

fn compare_entries<C: Cursor>(a: &C, b: &C) -> Ordering {
    compare_keys(a.key_prefix(), a.key(), b.key_prefix(), b.key()).then_with(|| b.trailer().cmp(&a.trailer()))
}

impl<C: Cursor> MergeCursor<C> {
    /// A merge of `children`, any number of them, not positioned yet.
    pub(crate) fn new(children: Vec<C>) -> Self {
        MergeCursor { children, winner: NOBODY, backward: false, heap: Vec::new() }
    }

    /// Whether `a` comes before `b` in the direction of the merge; ties go to the child in front.
    #[inline]
    fn is_before(&self, a: Waiting, b: Waiting) -> bool {
        if a.prefix == b.prefix {
            self.is_before_tied(a.child, b.child)
        } else {
            (a.prefix < b.prefix) != self.backward
        }
    }

    #[inline(never)]
    fn is_before_tied(&self, a: usize, b: usize) -> bool {
        let order = compare_entries(&self.children[a], &self.children[b]).then(a.cmp(&b));
        if self.backward { order.is_gt() } else { order.is_lt() }
    }

    #[inline]
    fn waiting(&self, child: usize) -> Waiting {
        Waiting { prefix: self.children[child].key_prefix(), child }
    }

    fn aim_all(&mut self, key: &[u8], seqno: SeqNo, backward: bool) -> Result<()> {
        self.winner = NOBODY;
        // One alone waits for nobody else.
        let several = if self.children.len() > 1 { &mut self.children[..] } else { &mut [] };
        for at in [Aim::Index, Aim::Block] {
            several.iter_mut().try_for_each(|child| child.aim(at, key, seqno, backward))?;
        }
        Ok(())
    }

    /// Positions every child by `seek`, then finds the winner of the direction.
    fn seek_all(&mut self, backward: bool, mut seek: impl FnMut(&mut C) -> Result<()>) -> Result<()> {
        self.winner = NOBODY;
        self.backward = backward;
        for child in &mut self.children {
            seek(child)?;
        }
        self.collect(NOBODY.child);
        self.pop_winner();
        Ok(())
    }

    /// Makes the heap anew from the valid children other than `except`.
    fn collect(&mut self, except: usize) {
        self.heap.clear();
        for child in 0..self.children.len() {
            if child != except && self.children[child].valid() {
                self.heap.push(self.waiting(child));
            }
        }
        for at in (0..self.heap.len() / 2).rev() {
            self.sift_down(at);
        }
    }

    /// Takes the top of the heap as the winner.
    fn pop_winner(&mut self) {
        self.winner = NOBODY;
        if !self.heap.is_empty() {
            self.winner = self.heap.swap_remove(0);
            self.sift_down(0);
        }
    }

    fn sift_down(&mut self, mut at: usize) {
        let Some(&sinking) = self.heap.get(at) else { return };
        loop {
            let mut below = 2 * at + 1;
            let Some(&(mut least)) = self.heap.get(below) else { break };
            if let Some(&right) = self.heap.get(below + 1)
                && self.is_before(right, least)
            {
                (least, below) = (right, below + 1);
            }
            if !self.is_before(least, sinking) {
                break;
            }
            self.heap[at] = least;
            at = below;
        }
        self.heap[at] = sinking;
    }

    /// Whether the winner's prefix alone shows that no other child stands on its key.
    #[inline]
    fn is_alone(&self) -> bool {
        self.heap.first().is_none_or(|top| top.prefix != self.winner.prefix)
    }

    /// Moves the top past its entry, which has the winner's prefix, if that is an older one of the winner's key and a
    /// look beside it is enough.
    #[inline]
    fn pass_older(&mut self) -> Option<()> {
        let top = self.heap.first_mut()?;
        let [winner, other] = self.children.get_disjoint_mut([self.winner.child, top.child]).ok()?;
        if winner.key() != other.key() {
            return None;
        }
        top.prefix = other.next_key()?;
        self.sift_down(0);
        Some(())
    }

    /// Finds the winner again after it has moved in the direction of the merge, to a key of `prefix`.
    #[inline]
    fn settle(&mut self, prefix: u64) {
        self.winner.prefix = prefix;
        if let Some(&top) = self.heap.first()
            && self.is_before(top, self.winner)
        {
            self.heap[0] = self.winner;
            self.winner = top;
            self.sift_down(0);
        }
    }

    /// Moves every child but the winner to the other side of the winner's entry.
    ///
    /// Each stands on the nearest entry of one side, so one step takes it to the nearest of the other. A memtable may
    /// have got an entry in between since: hence the loops.
    #[cold]
    fn turn(&mut self, backward: bool) -> Result<()> {
        let winner = std::mem::replace(&mut self.winner, NOBODY);
        for other in 0..self.children.len() {
            let Ok([at, child]) = self.children.get_disjoint_mut([winner.child, other]) else { continue };
            if !child.valid() {
                if backward { child.seek_to_last() } else { child.seek_to_first() }?;
            }
            let side = |child: &C| compare_entries(child, at).then(other.cmp(&winner.child));
            while backward && child.valid() && side(child).is_gt() {
                child.prev()?;
            }
            while !backward && child.valid() && side(child).is_lt() {
                child.next()?;
            }
        }
        self.winner = winner;
        self.backward = backward;
        self.collect(winner.child);
        Ok(())
    }

    /// Moves the winner, and finds the next one. After an error the merge is not valid.
    #[inline]
    fn step(&mut self, backward: bool) -> Result<()> {
        if self.backward != backward {
            self.turn(backward)?;
        }
        let child = &mut self.children[self.winner.child];
        if let Err(error) = if backward { child.prev() } else { child.next() } {
            self.winner = NOBODY;
            return Err(error);
        }
        if child.valid() {
            let prefix = child.key_prefix();
            self.settle(prefix);
        } else {
            self.pop_winner();
        }
        Ok(())
    }
}

impl<C: Cursor> Cursor for MergeCursor<C> {
    #[inline]
    fn valid(&self) -> bool {
        self.winner.child != NOBODY.child
    }

    #[inline]
    fn key(&self) -> &[u8] {
        self.children[self.winner.child].key()
    }

    #[inline]
    fn key_prefix(&self) -> u64 {
        self.winner.prefix
    }

    #[inline]
    fn trailer(&self) -> Trailer {
        self.children[self.winner.child].trailer()
    }

    #[inline]
    fn value(&self) -> &[u8] {
        self.children[self.winner.child].value()
    }

    #[inline]
    fn value_owner(&self) -> Option<&Bytes> {
        self.children[self.winner.child].value_owner()
    }

    fn seek_to_first(&mut self) -> Result<()> {
        self.seek_all(false, C::seek_to_first)
    }

    fn seek_to_last(&mut self) -> Result<()> {
        self.seek_all(true, C::seek_to_last)
    }

    fn seek(&mut self, key: &[u8], seqno: SeqNo) -> Result<()> {
        self.aim_all(key, seqno, false)?;
        self.seek_all(false, |child| child.seek(key, seqno))
    }

    fn seek_before(&mut self, key: &[u8]) -> Result<()> {
        self.aim_all(key, MAX_SEQNO, true)?;
        self.seek_all(true, |child| child.seek_before(key))
    }

    #[inline]
    fn next(&mut self) -> Result<()> {
        self.step(false)
    }

    #[inline]
    fn next_key(&mut self) -> Option<u64> {
        if self.backward || !self.is_alone() {
            return None;
        }
        let prefix = self.children[self.winner.child].next_key()?;
        self.settle(prefix);
        Some(self.winner.prefix)
    }

    #[inline]
    fn leave_key(&mut self) -> Option<u64> {
        if self.backward {
            return None;
        }
        while !self.is_alone() {
            self.pass_older()?;
        }
        self.next_key()
    }

    #[inline]
    fn is_newest(&self) -> bool {
        // Forward, what comes before was passed, and is not at hand.
        self.backward && self.is_alone() && self.children[self.winner.child].is_newest()
    }

    #[inline]
    fn prev(&mut self) -> Result<()> {
        self.step(true)
    }

    #[inline]
    fn visit<B>(&mut self, stretch: Stretch, with: &mut impl FnMut(&[u8], &[u8]) -> ControlFlow<B>) -> ControlFlow<B> {
        debug_assert_eq!(stretch.backward, self.backward);
        // The winner stays in front of all keys that the top has or leads to.
        let Some(alone) = stretch.before(self.heap.first().map(|top| top.prefix)) else {
            return ControlFlow::Continue(());
        };
        let child = &mut self.children[self.winner.child];
        let flow = child.visit(alone, with);
        self.winner.prefix = child.key_prefix();
        flow
    }
}
