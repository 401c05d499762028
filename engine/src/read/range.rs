//! Iteration over a range of keys, from both ends.

use std::iter::FusedIterator;
use std::ops::{Bound, ControlFlow, RangeBounds};

use super::visible::VisibleCursor;
use crate::cursor::Cursor;
use crate::error::Result;
use crate::key::{compare_keys, prefix_u64};
use crate::slice::Slice;

/// What a range holds, half-open: the keys from `from` on and before `to`. Every kind of bound can be said so, because
/// nothing lies between a key and the same key with a zero byte behind it; and so one seek finds either end.
#[derive(Debug)]
pub(crate) struct Bounds {
    /// Empty if there is no lower bound: the empty key is the smallest.
    from: Slice,
    to: Option<Slice>,
}

/// The bounds of `range`, owned.
pub(crate) fn bounds_of<K: AsRef<[u8]>>(range: &impl RangeBounds<K>) -> Bounds {
    let copy = |key: &K| Slice::copy_from_slice(key.as_ref());
    let from = match range.start_bound() {
        Bound::Included(key) => copy(key),
        Bound::Excluded(key) => next_key(key.as_ref()),
        Bound::Unbounded => Slice::copy_from_slice(&[]),
    };
    let to = match range.end_bound() {
        Bound::Included(key) => Some(next_key(key.as_ref())),
        Bound::Excluded(key) => Some(copy(key)),
        Bound::Unbounded => None,
    };
    Bounds { from, to }
}

/// The bounds of the keys that start with `prefix`.
pub(crate) fn prefix_bounds(prefix: &[u8]) -> Bounds {
    Bounds { from: Slice::copy_from_slice(prefix), to: successor(prefix).map(Slice::from) }
}

/// The smallest key above `key`.
fn next_key(key: &[u8]) -> Slice {
    let mut next = Vec::with_capacity(key.len() + 1);
    next.extend_from_slice(key);
    next.push(0);
    Slice::from(next)
}

/// The smallest key above all keys that start with `prefix`; `None` if there is none, because it is empty or all 0xff.
fn successor(prefix: &[u8]) -> Option<Vec<u8>> {
    let last = prefix.iter().rposition(|&byte| byte != 0xff)?;
    let mut key = prefix[..=last].to_vec();
    key[last] += 1;
    Some(key)
}

/// Opens the cursors of a [`RangeIter`]: at most two, which see the same entries. It keeps alive what they need.
pub(crate) trait OpenCursor {
    /// What lies under the visible entries.
    type Cursor: Cursor;

    /// A cursor that is not positioned.
    ///
    /// # Errors
    /// What the sources say when they cannot be opened.
    fn open(&mut self) -> Result<VisibleCursor<Self::Cursor>>;
}

/// The entries between two bounds, from both ends: owned, fused, point in time.
///
/// Each end has a cursor of its own, which stands on the entry that end gave last; it is opened and positioned by the
/// first call for its end, so that iterating in one direction pays for one. After an error both ends are finished.
pub(crate) struct RangeIter<F: OpenCursor> {
    open: F,
    bounds: Bounds,
    /// [`prefix_u64`] of the bounds; what comes before no bound is not looked at.
    from_prefix: u64,
    to_prefix: Option<u64>,
    front: Option<VisibleCursor<F::Cursor>>,
    back: Option<VisibleCursor<F::Cursor>>,
    finished: bool,
}

impl<F: OpenCursor> RangeIter<F> {
    /// The entries between `bounds`; none if they are reversed.
    pub(crate) fn new(open: F, bounds: Bounds) -> Self {
        RangeIter {
            from_prefix: prefix_u64(&bounds.from),
            to_prefix: bounds.to.as_deref().map(prefix_u64),
            finished: bounds.to.as_ref().is_some_and(|to| *to <= bounds.from),
            open,
            bounds,
            front: None,
            back: None,
        }
    }

    /// Moves the front to its next entry, and answers what `with` makes of it there.
    #[inline]
    pub(crate) fn next_with<R>(&mut self, with: impl FnOnce(&VisibleCursor<F::Cursor>) -> R) -> Option<Result<R>> {
        if self.finished {
            return None;
        }
        match self.advance_front() {
            Ok(true) => self.front.as_ref().map(|front| Ok(with(front))),
            Ok(false) => self.finish(None),
            Err(error) => self.finish(Some(Err(error))),
        }
    }

    /// As [`next_with`](Self::next_with), from the back.
    #[inline]
    pub(crate) fn next_back_with<R>(&mut self, with: impl FnOnce(&VisibleCursor<F::Cursor>) -> R) -> Option<Result<R>> {
        if self.finished {
            return None;
        }
        match self.advance_back() {
            Ok(true) => self.back.as_ref().map(|back| Ok(with(back))),
            Ok(false) => self.finish(None),
            Err(error) => self.finish(Some(Err(error))),
        }
    }

    /// Moves the front on over its next entries, and hands each to `with`, as long as that goes on.
    pub(crate) fn visit<B>(&mut self, mut with: impl FnMut(&[u8], &[u8]) -> ControlFlow<B>) -> Result<ControlFlow<B>> {
        while let Some(visited) = self.next_with(|entry| with(entry.key(), entry.value())) {
            let mut flow = visited?;
            if let (ControlFlow::Continue(()), end, Some(front)) = (&flow, self.front_end(), &mut self.front) {
                flow = front.visit(end, false, &mut with);
            }
            if flow.is_break() {
                return Ok(flow);
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    /// As [`visit`](Self::visit), from the back.
    pub(crate) fn visit_back<B>(
        &mut self,
        mut with: impl FnMut(&[u8], &[u8]) -> ControlFlow<B>,
    ) -> Result<ControlFlow<B>> {
        while let Some(visited) = self.next_back_with(|entry| with(entry.key(), entry.value())) {
            let mut flow = visited?;
            if let (ControlFlow::Continue(()), end, Some(back)) = (&flow, self.back_end(), &mut self.back) {
                flow = back.visit(end, true, &mut with);
            }
            if flow.is_break() {
                return Ok(flow);
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    /// The prefix from which on the front has to look whether it is still inside.
    #[inline]
    fn front_end(&self) -> Option<u64> {
        self.back.as_ref().map(VisibleCursor::key_prefix).or(self.to_prefix)
    }

    /// As [`front_end`](Self::front_end), of the back.
    #[inline]
    fn back_end(&self) -> Option<u64> {
        match &self.front {
            Some(front) => Some(front.key_prefix()),
            None => Some(self.from_prefix).filter(|_| !self.bounds.from.is_empty()),
        }
    }

    /// Moves the front to its next entry; whether there is one.
    #[inline]
    fn advance_front(&mut self) -> Result<bool> {
        let end = self.front_end();
        let Some(front) = &mut self.front else { return self.open_front() };
        front.next()?;
        // A look at the prefix decides nearly always.
        let is_below = front.valid() && end.is_none_or(|end| front.key_prefix() < end);
        Ok(is_below || self.front_is_inside())
    }

    #[inline]
    fn advance_back(&mut self) -> Result<bool> {
        let end = self.back_end();
        let Some(back) = &mut self.back else { return self.open_back() };
        back.prev()?;
        let is_above = back.valid() && end.is_none_or(|end| back.key_prefix() > end);
        Ok(is_above || self.back_is_inside())
    }

    fn open_front(&mut self) -> Result<bool> {
        let front = self.front.insert(self.open.open()?);
        if self.bounds.from.is_empty() { front.seek_to_first() } else { front.seek(&self.bounds.from) }?;
        Ok(self.front_is_inside())
    }

    fn open_back(&mut self) -> Result<bool> {
        let back = self.back.insert(self.open.open()?);
        match &self.bounds.to {
            Some(to) => back.seek_before(to)?,
            None => back.seek_to_last()?,
        }
        Ok(self.back_is_inside())
    }

    /// Whether the front stands on an entry that is below the upper bound and that the back has not given.
    #[inline]
    fn front_is_inside(&self) -> bool {
        let Some(front) = self.front.as_ref().filter(|front| front.valid()) else { return false };
        let compare = |prefix, key: &[u8]| compare_keys(front.key_prefix(), front.key(), prefix, key);
        match (&self.back, &self.bounds.to, self.to_prefix) {
            (Some(back), ..) => compare(back.key_prefix(), back.key()).is_lt(),
            (None, Some(to), Some(prefix)) => compare(prefix, to).is_lt(),
            _ => true,
        }
    }

    /// Whether the back stands on an entry that is above the lower bound and that the front has not given.
    #[inline]
    fn back_is_inside(&self) -> bool {
        let Some(back) = self.back.as_ref().filter(|back| back.valid()) else { return false };
        let compare = |prefix, key: &[u8]| compare_keys(back.key_prefix(), back.key(), prefix, key);
        match &self.front {
            Some(front) => compare(front.key_prefix(), front.key()).is_gt(),
            None => compare(self.from_prefix, &self.bounds.from).is_ge(),
        }
    }

    /// Ends both ends, and lets go of what the cursors pin.
    #[cold]
    fn finish<T>(&mut self, last: Option<T>) -> Option<T> {
        self.finished = true;
        (self.front, self.back) = (None, None);
        last
    }
}

fn entry<C: Cursor>(cursor: &VisibleCursor<C>) -> (Slice, Slice) {
    (Slice::copy_from_slice(cursor.key()), cursor.value_slice())
}

impl<F: OpenCursor> Iterator for RangeIter<F> {
    type Item = Result<(Slice, Slice)>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        self.next_with(entry)
    }
}

impl<F: OpenCursor> DoubleEndedIterator for RangeIter<F> {
    #[inline]
    fn next_back(&mut self) -> Option<Self::Item> {
        self.next_back_with(entry)
    }
}

impl<F: OpenCursor> FusedIterator for RangeIter<F> {}
