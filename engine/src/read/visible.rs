//! What a reader at one sequence number sees of a run of internal entries.

use std::ops::ControlFlow;

use bytes::Bytes;

use crate::cursor::{Cursor, Stretch};
use crate::error::Result;
use crate::key::{SeqNo, Trailer, prefix_u64};
use crate::slice::Slice;

/// After this many steps over entries of one key a seek takes over, so that a key with many versions costs a seek, not
/// a walk. (The number is RocksDB's `max_sequential_skip_in_iterations`.)
const MAX_STEPS: u32 = 8;

/// A key, remembered after its cursor has moved on. Keys of up to 16 bytes, the usual ones, are two words and are never
/// copied.
#[derive(Default)]
struct Remembered {
    prefix: u64,
    second: u64,
    len: usize,
    /// What lies behind the first 16 bytes.
    rest: Vec<u8>,
}

impl Remembered {
    #[inline]
    fn set(&mut self, prefix: u64, key: &[u8]) {
        (self.prefix, self.second, self.len) = (prefix, second(key), key.len());
        if key.len() > 16 {
            self.rest.clear();
            self.rest.extend_from_slice(&key[16..]);
        }
    }

    #[inline]
    fn is(&self, prefix: u64, key: &[u8]) -> bool {
        // Zero padding tells nothing apart by itself, but with the same length it does.
        self.prefix == prefix
            && self.len == key.len()
            && self.second == second(key)
            && (key.len() <= 16 || self.rest == key[16..])
    }
}

#[inline]
fn second(key: &[u8]) -> u64 {
    prefix_u64(key.get(8..).unwrap_or_default())
}

/// A value, kept after its cursor has moved on.
enum Kept {
    Copied,
    Pinned(Bytes),
}

/// Values of up to this many bytes are copied even if they could be pinned: [`Slice::pin`] would copy them too.
const COPY_BYTES: usize = 256;

/// Where the inner cursor is, relative to the entry that is shown.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Position {
    /// Nothing is shown.
    Invalid,
    /// The inner cursor stands on the entry.
    Here,
    /// The inner cursor stands before all entries of the key (or nowhere, if there is nothing before); the entry is in
    /// the buffers.
    Kept,
}

/// Shows the newest entry of each user key at or below a sequence number, if it is a value: at most one entry a key, no
/// tombstones.
///
/// `C` is in internal order. Both directions may be mixed. As with [`Cursor`], `next` and `prev` may only be called
/// while valid, and after an error the cursor is not valid.
pub(crate) struct VisibleCursor<C> {
    inner: C,
    snapshot: SeqNo,
    position: Position,
    /// Forward: the key the inner cursor has just left, or is leaving.
    last: Remembered,
    /// Backward: the entry shown.
    key: Vec<u8>,
    key_prefix: u64,
    value: Vec<u8>,
    kept: Kept,
}

impl<C: Cursor> VisibleCursor<C> {
    /// What `snapshot` sees of `inner`; not positioned yet.
    pub(crate) fn new(inner: C, snapshot: SeqNo) -> Self {
        VisibleCursor {
            inner,
            snapshot,
            position: Position::Invalid,
            last: Remembered::default(),
            key: Vec::new(),
            key_prefix: 0,
            value: Vec::new(),
            kept: Kept::Copied,
        }
    }

    /// Whether the cursor stands on an entry.
    #[inline]
    pub(crate) fn valid(&self) -> bool {
        self.position != Position::Invalid
    }

    /// The entry's key. Only while valid.
    #[inline]
    pub(crate) fn key(&self) -> &[u8] {
        if self.position == Position::Here { self.inner.key() } else { &self.key }
    }

    /// [`prefix_u64`] of the key. Only while valid.
    #[inline]
    pub(crate) fn key_prefix(&self) -> u64 {
        if self.position == Position::Here { self.inner.key_prefix() } else { self.key_prefix }
    }

    /// The entry's value. Only while valid.
    #[inline]
    pub(crate) fn value(&self) -> &[u8] {
        match (self.position, &self.kept) {
            (Position::Here, _) => self.inner.value(),
            (_, Kept::Copied) => &self.value,
            (_, Kept::Pinned(bytes)) => bytes,
        }
    }

    /// The entry's value, independent of the cursor: pinned where it lies if it is large and may be, copied otherwise.
    /// Only while valid.
    #[inline]
    pub(crate) fn value_slice(&self) -> Slice {
        match (self.position, &self.kept) {
            (Position::Here, _) => match self.inner.value_owner() {
                Some(owner) => Slice::pin(owner, self.inner.value()),
                None => Slice::copy_from_slice(self.inner.value()),
            },
            (_, Kept::Copied) => Slice::copy_from_slice(&self.value),
            (_, Kept::Pinned(bytes)) => Slice::share(bytes, bytes),
        }
    }

    /// Moves to the first entry.
    pub(crate) fn seek_to_first(&mut self) -> Result<()> {
        self.position = Position::Invalid;
        self.inner.seek_to_first()?;
        self.find_forward()
    }

    /// Moves to the first entry whose key is at least `key`.
    pub(crate) fn seek(&mut self, key: &[u8]) -> Result<()> {
        self.position = Position::Invalid;
        self.inner.seek(key, self.snapshot)?;
        self.find_forward()
    }

    /// Moves to the last entry.
    pub(crate) fn seek_to_last(&mut self) -> Result<()> {
        self.position = Position::Invalid;
        self.inner.seek_to_last()?;
        self.find_backward()
    }

    /// Moves to the last entry whose key is strictly less than `key`.
    pub(crate) fn seek_before(&mut self, key: &[u8]) -> Result<()> {
        self.position = Position::Invalid;
        self.inner.seek_before(key)?;
        self.find_backward()
    }

    /// Moves to the next entry. Only while valid.
    #[inline]
    pub(crate) fn next(&mut self) -> Result<()> {
        if self.position == Position::Here && self.inner.leave_key().is_some() {
            if self.is_visible_put() {
                return Ok(());
            }
            self.position = Position::Invalid;
        } else {
            self.leave_forward()?;
        }
        self.find_forward()
    }

    /// Moves the inner cursor forward, past all entries of the key that is shown.
    fn leave_forward(&mut self) -> Result<()> {
        if self.position == Position::Kept {
            // The inner cursor stands before the versions of the key that is shown: seek behind the newer ones, skip
            // the rest.
            self.position = Position::Invalid;
            self.last.set(self.key_prefix, &self.key);
            self.inner.seek(&self.key, self.snapshot)?;
        } else {
            self.position = Position::Invalid;
            self.last.set(self.inner.key_prefix(), self.inner.key());
            self.inner.next()?;
        }
        self.skip_last()
    }

    #[inline]
    fn is_visible_put(&self) -> bool {
        self.inner.trailer().is_put_by(self.snapshot)
    }

    /// Moves to the previous entry. Only while valid.
    #[inline]
    pub(crate) fn prev(&mut self) -> Result<()> {
        let here = self.position == Position::Here;
        self.position = Position::Invalid;
        if here {
            self.inner.prev()?;
        }
        self.find_backward()
    }

    /// Moves on over entries with prefixes before `end`, in the direction of the last move, and hands each to `with`, as
    /// long as that goes on and they are found without a look at any other. Only while valid.
    #[inline]
    pub(crate) fn visit<B>(
        &mut self,
        end: Option<u64>,
        backward: bool,
        with: &mut impl FnMut(&[u8], &[u8]) -> ControlFlow<B>,
    ) -> ControlFlow<B> {
        match Stretch::all(self.snapshot, backward).before(end) {
            Some(stretch) if self.position == Position::Here => self.inner.visit(stretch, with),
            _ => ControlFlow::Continue(()),
        }
    }

    /// Moves the inner cursor forward, past the other entries of the key in `last`.
    #[inline]
    fn skip_last(&mut self) -> Result<()> {
        let mut steps = 0;
        while self.inner.valid() && self.last.is(self.inner.key_prefix(), self.inner.key()) {
            steps += 1;
            if steps == MAX_STEPS {
                // Behind all of its versions, but for one with sequence number 0.
                self.seek_version(0)?;
            } else {
                self.inner.next()?;
            }
        }
        Ok(())
    }

    /// Shows the first visible entry from the inner cursor on, which stands on the first entry of a key or on a later
    /// one that no visible entry of the key comes before.
    #[inline]
    fn find_forward(&mut self) -> Result<()> {
        let mut steps = 0;
        while self.inner.valid() {
            if self.is_visible_put() {
                self.position = Position::Here;
                return Ok(());
            }
            let is_too_new = self.inner.trailer().seqno() > self.snapshot;
            let moved = if is_too_new { self.inner.next_key() } else { self.inner.leave_key() };
            if moved.is_some() {
                continue;
            }
            if is_too_new {
                steps = if self.last.is(self.inner.key_prefix(), self.inner.key()) { steps + 1 } else { 1 };
                if steps == MAX_STEPS {
                    self.seek_version(self.snapshot)?;
                } else {
                    self.last.set(self.inner.key_prefix(), self.inner.key());
                    self.inner.next()?;
                }
            } else {
                self.last.set(self.inner.key_prefix(), self.inner.key());
                self.inner.next()?;
                self.skip_last()?;
            }
        }
        Ok(())
    }

    /// Seeks the inner cursor to the newest version of its key at or below `seqno`, or to the next key.
    #[cold]
    fn seek_version(&mut self, seqno: SeqNo) -> Result<()> {
        self.remember_key();
        self.inner.seek(&self.key, seqno)
    }

    #[inline]
    fn remember_key(&mut self) {
        self.key.clear();
        self.key.extend_from_slice(self.inner.key());
        self.key_prefix = self.inner.key_prefix();
    }

    #[inline]
    fn is_on_key(&self) -> bool {
        self.inner.valid() && self.inner.key_prefix() == self.key_prefix && self.inner.key() == self.key
    }

    /// Moves the inner cursor backward, before all entries of the key in `key`.
    #[inline]
    fn leave_backward(&mut self) -> Result<()> {
        let mut steps = 0;
        while self.is_on_key() {
            steps += 1;
            if steps == MAX_STEPS {
                return self.inner.seek_before(&self.key);
            }
            self.inner.prev()?;
        }
        Ok(())
    }

    /// Shows the last visible entry from the inner cursor on backward, which stands on the oldest entry of a key, or on
    /// one that is too new.
    #[inline]
    fn find_backward(&mut self) -> Result<()> {
        while self.inner.valid() {
            // The oldest and the newest: there is no other to look at, and nothing to keep.
            if self.is_visible_put() && self.inner.is_newest() {
                self.position = Position::Here;
                return Ok(());
            }
            self.remember_key();
            if self.keep_newest()? {
                self.position = Position::Kept;
                return Ok(());
            }
        }
        Ok(())
    }

    /// Keeps the newest visible entry of the key in `key`, if any, and leaves the key backward. Answers whether there
    /// is a value. The inner cursor stands where [`find_backward`](Self::find_backward) says.
    #[inline]
    fn keep_newest(&mut self) -> Result<bool> {
        let mut newest = None;
        let mut steps = 0;
        loop {
            let trailer = self.inner.trailer();
            if trailer.seqno() > self.snapshot {
                // What comes backward is newer still.
                self.leave_backward()?;
                break;
            }
            steps += 1;
            if steps == MAX_STEPS {
                return self.keep_newest_by_seek();
            }
            newest = Some(trailer);
            self.keep_value(trailer);
            self.inner.prev()?;
            if !self.is_on_key() {
                break;
            }
        }
        Ok(newest.is_some_and(Trailer::is_put))
    }

    /// Does what [`keep_newest`](Self::keep_newest) does, for a key with many versions.
    #[cold]
    fn keep_newest_by_seek(&mut self) -> Result<bool> {
        self.inner.seek(&self.key, self.snapshot)?;
        let found = self.is_on_key() && self.inner.trailer().is_put();
        if found {
            self.keep_value(self.inner.trailer());
        }
        self.inner.seek_before(&self.key)?;
        Ok(found)
    }

    #[inline]
    fn keep_value(&mut self, trailer: Trailer) {
        if !trailer.is_put() {
            return;
        }
        let value = self.inner.value();
        self.kept = match self.inner.value_owner() {
            Some(owner) if value.len() > COPY_BYTES => Kept::Pinned(owner.slice_ref(value)),
            _ => {
                self.value.clear();
                self.value.extend_from_slice(value);
                Kept::Copied
            }
        };
    }
}
