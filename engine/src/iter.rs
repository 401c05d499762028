//! [`Iter`]: the public iterator over a keyspace.

use std::iter::FusedIterator;
use std::ops::ControlFlow;
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

    /// Hands the next entries to `with`, one after the other, until it breaks or there are none left; answers what it
    /// broke with. The fastest way to read many: a step is decided where the entries lie. What comes after the last one
    /// that `with` saw is next; all ways to read may be mixed.
    ///
    /// # Errors
    /// As [`next_with`](Self::next_with).
    ///
    /// ```
    /// use std::ops::ControlFlow;
    ///
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let db = siltstone::Db::open(dir.path())?;
    /// # let ks = db.keyspace("ks", Default::default())?;
    /// ks.put_all([("a", "1"), ("b", "22"), ("c", "333")])?;
    /// let mut entries = ks.iter();
    /// let long = entries.visit(|key, value| match value.len() {
    ///     0..2 => ControlFlow::Continue(()),
    ///     _ => ControlFlow::Break(key.to_vec()),
    /// })?;
    /// assert_eq!(long, ControlFlow::Break(b"b".to_vec()));
    /// assert_eq!(entries.next().unwrap()?.0, "c");
    /// # Ok::<(), siltstone::Error>(())
    /// ```
    pub fn visit<B>(&mut self, with: impl FnMut(&[u8], &[u8]) -> ControlFlow<B>) -> Result<ControlFlow<B>> {
        match &mut self.0 {
            State::Running(range) => range.visit(with),
            State::Failed(error) => error.take().map_or(Ok(ControlFlow::Continue(())), Err),
        }
    }

    /// As [`visit`](Self::visit), from the back.
    ///
    /// # Errors
    /// As [`next_with`](Self::next_with).
    ///
    /// ```
    /// use std::ops::ControlFlow;
    ///
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let db = siltstone::Db::open(dir.path())?;
    /// # let ks = db.keyspace("ks", Default::default())?;
    /// ks.put_all([("a", "1"), ("b", "2")])?;
    /// let mut keys = Vec::new();
    /// let all = ks.iter().visit_back(|key, _value| -> ControlFlow<()> {
    ///     keys.push(key.to_vec());
    ///     ControlFlow::Continue(())
    /// })?;
    /// assert_eq!((all, keys), (ControlFlow::Continue(()), vec![b"b".to_vec(), b"a".to_vec()]));
    /// # Ok::<(), siltstone::Error>(())
    /// ```
    pub fn visit_back<B>(&mut self, with: impl FnMut(&[u8], &[u8]) -> ControlFlow<B>) -> Result<ControlFlow<B>> {
        match &mut self.0 {
            State::Running(range) => range.visit_back(with),
            State::Failed(error) => error.take().map_or(Ok(ControlFlow::Continue(())), Err),
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
