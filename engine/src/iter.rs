//! [`Iter`]: the public iterator over a keyspace.

use std::iter::FusedIterator;
use std::sync::Arc;

use crate::db::DbHandle;
use crate::error::{Error, Result};
use crate::key::SeqNo;
use crate::read::merge::MergeCursor;
use crate::read::range::{OpenCursor, RangeIter};
use crate::read::view::{Source, View};
use crate::read::visible::VisibleCursor;
use crate::slice::Slice;
use crate::sync::atomic::Ordering;

pub(crate) use crate::read::range::{Bounds as KeyBounds, bounds_of, prefix_bounds};

/// The entries of a keyspace, or of a part of it, in key order, from both ends.
///
/// Owned (`Send + 'static`), point in time, fused at both ends; `next` and `next_back` meet. An error is an item, and
/// the last one.
///
/// ```
/// # let dir = tempfile::tempdir().unwrap();
/// # let db = siltstone::Db::open(dir.path())?;
/// # let ks = db.keyspace("ks", Default::default())?;
/// ks.put_all([("a", "1"), ("b", "2"), ("c", "3")])?;
/// let mut entries = ks.iter();
/// assert_eq!(entries.next().unwrap()?.0, "a");
/// assert_eq!(entries.next_back().unwrap()?.0, "c");
/// assert_eq!(entries.next().unwrap()?.1, "2");
/// assert!(entries.next().is_none() && entries.next_back().is_none());
/// # Ok::<(), siltstone::Error>(())
/// ```
pub struct Iter(State);

enum State {
    Running(Box<RangeIter<Opener>>),
    /// An error to give once.
    Failed(Option<Error>),
}

/// Opens cursors over one view, and keeps the view and the database alive.
struct Opener {
    view: Arc<View>,
    seqno: SeqNo,
    db: Arc<DbHandle>,
}

impl Drop for Opener {
    fn drop(&mut self) {
        // Relaxed: a count that closing reads; see there.
        self.db.store.iterators.fetch_sub(1, Ordering::Relaxed);
    }
}

impl OpenCursor for Opener {
    type Cursor = MergeCursor<Source>;

    fn open(&mut self) -> Result<VisibleCursor<MergeCursor<Source>>> {
        Ok(VisibleCursor::new(self.view.cursor()?, self.seqno))
    }
}

impl Iter {
    pub(crate) fn new(db: Arc<DbHandle>, view: Arc<View>, seqno: SeqNo, bounds: KeyBounds) -> Self {
        db.store.iterators.fetch_add(1, Ordering::Relaxed);
        Iter(State::Running(Box::new(RangeIter::new(Opener { view, seqno, db }, bounds))))
    }

    /// Hands the next key and its value to `with` where they lie, without a copy, and answers what that makes of them;
    /// `None` at the end. It may be mixed with [`next`](Iterator::next), which copies or pins what it answers.
    ///
    /// # Errors
    /// From the tables `Corruption` and `Io`; the iterator ends.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let db = siltstone::Db::open(dir.path())?;
    /// # let ks = db.keyspace("ks", Default::default())?;
    /// ks.put_all([("a", "1"), ("b", "22")])?;
    /// let (mut entries, mut value_bytes) = (ks.iter(), 0);
    /// while let Some(read) = entries.next_with(|_key, value| value_bytes += value.len()) {
    ///     read?;
    /// }
    /// assert_eq!(value_bytes, 3);
    /// # Ok::<(), siltstone::Error>(())
    /// ```
    #[inline]
    pub fn next_with<R>(&mut self, with: impl FnOnce(&[u8], &[u8]) -> R) -> Option<Result<R>> {
        match &mut self.0 {
            State::Running(range) => range.next_with(|entry| with(entry.key(), entry.value())),
            State::Failed(error) => error.take().map(Err),
        }
    }

    /// As [`next_with`](Self::next_with), from the back.
    ///
    /// # Errors
    /// As [`next_with`](Self::next_with).
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let db = siltstone::Db::open(dir.path())?;
    /// # let ks = db.keyspace("ks", Default::default())?;
    /// ks.put_all([("a", "1"), ("b", "2")])?;
    /// let is_b = ks.iter().next_back_with(|key, _value| key == b"b");
    /// assert!(is_b.unwrap()?);
    /// # Ok::<(), siltstone::Error>(())
    /// ```
    #[inline]
    pub fn next_back_with<R>(&mut self, with: impl FnOnce(&[u8], &[u8]) -> R) -> Option<Result<R>> {
        match &mut self.0 {
            State::Running(range) => range.next_back_with(|entry| with(entry.key(), entry.value())),
            State::Failed(error) => error.take().map(Err),
        }
    }

    /// An iterator that gives `error` and ends.
    pub(crate) fn failed(error: Error) -> Self {
        Iter(State::Failed(Some(error)))
    }
}

impl Iterator for Iter {
    type Item = Result<(Slice, Slice)>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        match &mut self.0 {
            State::Running(range) => range.next(),
            State::Failed(error) => error.take().map(Err),
        }
    }
}

impl DoubleEndedIterator for Iter {
    #[inline]
    fn next_back(&mut self) -> Option<Self::Item> {
        match &mut self.0 {
            State::Running(range) => range.next_back(),
            State::Failed(error) => error.take().map(Err),
        }
    }
}

impl FusedIterator for Iter {}

impl std::fmt::Debug for Iter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.0 {
            State::Running(_) => f.write_str("Iter { .. }"),
            State::Failed(error) => f.debug_tuple("Iter").field(error).finish(),
        }
    }
}
