//! What is too large for a message of the log.

use std::sync::atomic::{AtomicU64, Ordering};

use siltstone::Slice;

use super::{Entries, KeyValueStore, StoreBounds, StoreSnapshot, Write};
use crate::error::{Error, Result};

/// What becomes of a write that is too large.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Oversize {
    /// It is refused with [`Error::TooLarge`], and with it the whole batch.
    Refuse,
    /// It is left out, and everybody sees the key's old value: a cache above this layer too.
    Drop,
}

/// Keeps what the log's topic could not take out of a store, before it is written anywhere.
///
/// ```
/// use siltstone_changelog::store::{KeyValueStore, LargeMessageGuard, MemoryStore, Oversize};
/// let store = LargeMessageGuard::new(MemoryStore::new(), 1000, Oversize::Refuse);
/// assert!(store.put(b"silt", &[0; 1000]).unwrap_err().to_string().contains("1004 bytes"));
/// assert_eq!(store.get(b"silt")?, None);
/// # Ok::<(), siltstone_changelog::Error>(())
/// ```
#[derive(Debug)]
pub struct LargeMessageGuard<S> {
    inner: S,
    max_message_bytes: usize,
    oversize: Oversize,
    dropped: AtomicU64,
}

impl<S> LargeMessageGuard<S> {
    /// Lets writes through whose key and value have at most `max_message_bytes` bytes together.
    pub fn new(inner: S, max_message_bytes: usize, oversize: Oversize) -> Self {
        LargeMessageGuard { inner, max_message_bytes, oversize, dropped: AtomicU64::new(0) }
    }

    /// How many writes were left out.
    pub fn dropped(&self) -> u64 {
        // Relaxed: a figure.
        self.dropped.load(Ordering::Relaxed)
    }
}

impl<S: KeyValueStore> KeyValueStore for LargeMessageGuard<S> {
    fn get(&self, key: &[u8]) -> Result<Option<Slice>> {
        self.inner.get(key)
    }

    fn get_many(&self, keys: &[&[u8]]) -> Result<Vec<Option<Slice>>> {
        self.inner.get_many(keys)
    }

    fn write(&self, writes: &[Write]) -> Result<()> {
        let is_small = |write: &Write| write.message_bytes() <= self.max_message_bytes;
        if writes.iter().all(is_small) {
            return self.inner.write(writes);
        }
        let mut accepted = Vec::with_capacity(writes.len());
        for write in writes {
            if self.accept(write)? {
                accepted.push(write.clone());
            }
        }
        self.inner.write(&accepted)
    }

    fn accept(&self, write: &Write) -> Result<bool> {
        let message_bytes = write.message_bytes();
        match self.oversize {
            _ if message_bytes <= self.max_message_bytes => self.inner.accept(write),
            Oversize::Refuse => Err(Error::TooLarge { message_bytes, max_message_bytes: self.max_message_bytes }),
            Oversize::Drop => {
                self.dropped.fetch_add(1, Ordering::Relaxed);
                tracing::warn!(message_bytes, max = self.max_message_bytes, "a write too large for the log is dropped");
                Ok(false)
            }
        }
    }

    fn range(&self, bounds: StoreBounds<'_>) -> Result<Entries> {
        self.inner.range(bounds)
    }

    fn snapshot(&self) -> Result<Box<dyn StoreSnapshot>> {
        self.inner.snapshot()
    }

    fn flush(&self) -> Result<()> {
        self.inner.flush()
    }
}
