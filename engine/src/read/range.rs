//! Iteration over a range of keys, from both ends.

use std::iter::FusedIterator;
use std::ops::{Bound, RangeBounds};

use super::visible::VisibleCursor;
use crate::cursor::Cursor;
use crate::error::Result;
use crate::key::{compare_keys, prefix_u64};
use crate::slice::Slice;

/// What a range holds: the lower and the upper bound.
pub(crate) type Bounds = (Bound<Slice>, Bound<Slice>);

/// The bounds of `range`, owned.
pub(crate) fn bounds_of<K: AsRef<[u8]>>(range: &impl RangeBounds<K>) -> Bounds {
    let own = |bound: Bound<&K>| bound.map(|key| Slice::copy_from_slice(key.as_ref()));
    (own(range.start_bound()), own(range.end_bound()))
}

/// The bounds of the keys that start with `prefix`.
pub(crate) fn prefix_bounds(prefix: &[u8]) -> Bounds {
    let upper = successor(prefix).map_or(Bound::Unbounded, |key| Bound::Excluded(Slice::from(key)));
    (Bound::Included(Slice::copy_from_slice(prefix)), upper)
}

/// The smallest key above all keys that start with `prefix`; `None` if there is none, because it is empty or all 0xff.
fn successor(prefix: &[u8]) -> Option<Vec<u8>> {
    let last = prefix.iter().rposition(|&byte| byte != 0xff)?;
    let mut key = prefix[..=last].to_vec();
    key[last] += 1;
    Some(key)
}

/// Whether no key can lie between the bounds.
fn is_empty((lower, upper): &Bounds) -> bool {
    match (lower, upper) {
        (Bound::Unbounded, _) => matches!(upper, Bound::Excluded(key) if key.is_empty()),
        (_, Bound::Unbounded) => false,
        (Bound::Included(lower), Bound::Included(upper)) => lower > upper,
        (Bound::Included(lower) | Bound::Excluded(lower), Bound::Included(upper) | Bound::Excluded(upper)) => {
            lower >= upper
        }
    }
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
    /// Of the key in the upper bound.
    upper_prefix: u64,
    /// Of the key in the lower bound.
    lower_prefix: u64,
    front: Option<VisibleCursor<F::Cursor>>,
    back: Option<VisibleCursor<F::Cursor>>,
    finished: bool,
}

impl<F: OpenCursor> RangeIter<F> {
    /// The entries between `bounds`; none if they are reversed.
    pub(crate) fn new(open: F, bounds: Bounds) -> Self {
        let prefix = |bound: &Bound<Slice>| match bound {
            Bound::Included(key) | Bound::Excluded(key) => prefix_u64(key),
            Bound::Unbounded => 0,
        };
        RangeIter {
            lower_prefix: prefix(&bounds.0),
            upper_prefix: prefix(&bounds.1),
            finished: is_empty(&bounds),
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

    /// Moves the front to its next entry; whether there is one.
    #[inline]
    fn advance_front(&mut self) -> Result<bool> {
        let limit = match (&self.back, &self.bounds.1) {
            (Some(back), _) => Some(back.key_prefix()),
            (None, Bound::Unbounded) => None,
            (None, _) => Some(self.upper_prefix),
        };
        let Some(front) = &mut self.front else { return self.open_front() };
        Ok(front.next_below(limit)? || self.front_is_inside())
    }

    #[inline]
    fn advance_back(&mut self) -> Result<bool> {
        let limit = match (&self.front, &self.bounds.0) {
            (Some(front), _) => Some(front.key_prefix()),
            (None, Bound::Unbounded) => None,
            (None, _) => Some(self.lower_prefix),
        };
        let Some(back) = &mut self.back else { return self.open_back() };
        Ok(back.prev_above(limit)? || self.back_is_inside())
    }

    fn open_front(&mut self) -> Result<bool> {
        let front = self.front.insert(self.open.open()?);
        match &self.bounds.0 {
            Bound::Unbounded => front.seek_to_first()?,
            Bound::Included(key) => front.seek(key)?,
            Bound::Excluded(key) => {
                front.seek(key)?;
                if front.valid() && front.key() == &key[..] {
                    front.next()?;
                }
            }
        }
        Ok(self.front_is_inside())
    }

    fn open_back(&mut self) -> Result<bool> {
        let back = self.back.insert(self.open.open()?);
        match &self.bounds.1 {
            Bound::Unbounded => back.seek_to_last()?,
            Bound::Excluded(key) => back.seek_before(key)?,
            Bound::Included(key) => {
                // The last entry at or before `key` is `key`, or else the last one before it.
                back.seek(key)?;
                if !(back.valid() && back.key() == &key[..]) {
                    back.seek_before(key)?;
                }
            }
        }
        Ok(self.back_is_inside())
    }

    /// Whether the front stands on an entry that is below the upper bound and that the back has not given.
    #[inline]
    fn front_is_inside(&self) -> bool {
        let Some(front) = self.front.as_ref().filter(|front| front.valid()) else { return false };
        let compare = |prefix, key: &[u8]| compare_keys(front.key_prefix(), front.key(), prefix, key);
        match (&self.back, &self.bounds.1) {
            (Some(back), _) => compare(back.key_prefix(), back.key()).is_lt(),
            (None, Bound::Excluded(key)) => compare(self.upper_prefix, key).is_lt(),
            (None, Bound::Included(key)) => compare(self.upper_prefix, key).is_le(),
            (None, Bound::Unbounded) => true,
        }
    }

    /// Whether the back stands on an entry that is above the lower bound and that the front has not given.
    #[inline]
    fn back_is_inside(&self) -> bool {
        let Some(back) = self.back.as_ref().filter(|back| back.valid()) else { return false };
        let compare = |prefix, key: &[u8]| compare_keys(back.key_prefix(), back.key(), prefix, key);
        match (&self.front, &self.bounds.0) {
            (Some(front), _) => compare(front.key_prefix(), front.key()).is_gt(),
            (None, Bound::Excluded(key)) => compare(self.lower_prefix, key).is_gt(),
            (None, Bound::Included(key)) => compare(self.lower_prefix, key).is_ge(),
            (None, Bound::Unbounded) => true,
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
