//! Memtables.

use std::sync::Arc;

use super::steps;
use crate::key::{Lookup, Trailer, ValueKind};
use crate::memtable::{self, ArenaPool};
use crate::{MAX_SEQNO, MemtableKind, Options, SeqNo};

/// One memtable, without an engine around it.
#[derive(Debug)]
pub struct Memtable(Arc<memtable::Memtable>);

/// A position in a [`Memtable`], which it keeps alive.
pub struct MemtableCursor(pub(super) memtable::MemtableCursor);

steps!(MemtableCursor);

impl Memtable {
    /// An empty memtable that will be sealed at `expected_bytes`; its index is sized for that. Its memory comes in the
    /// chunks that a database with default [`Options`] takes, and none is kept from one memtable to the next.
    pub fn new(kind: MemtableKind, expected_bytes: usize) -> Self {
        let pool = Arc::new(ArenaPool::new(0, Options::default().limits().buffer_bytes));
        Memtable(Arc::new(memtable::Memtable::new(kind, expected_bytes, &pool)))
    }

    /// Puts a value. `seqno` was not used before and is at most [`MAX_SEQNO`].
    #[inline]
    pub fn insert(&mut self, key: &[u8], seqno: SeqNo, value: &[u8]) {
        self.0.insert(key, Trailer::new(seqno, ValueKind::Put), value);
    }

    /// The newest value of `key`; the key is hashed, and the index asked first, as in the engine.
    #[inline]
    pub fn get(&self, key: &[u8]) -> Option<&[u8]> {
        self.0.get(&Lookup::new(key, MAX_SEQNO)).map(|(_, value)| value)
    }

    /// A cursor that is not positioned yet.
    pub fn cursor(&self) -> MemtableCursor {
        MemtableCursor(memtable::MemtableCursor::new(self.0.clone()))
    }

    /// Memory held, in bytes.
    pub fn bytes(&self) -> usize {
        self.0.bytes()
    }
}

impl std::fmt::Debug for MemtableCursor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MemtableCursor").finish_non_exhaustive()
    }
}
