//! A cache that writes go into first.

use lru::LruCache;
use parking_lot::Mutex;
use siltstone::Slice;

use super::{Entries, KeyValueStore, StoreBounds, StoreSnapshot, Write};
use crate::error::{Error, Result};

/// What an entry takes beside its key and value, in bytes: the key once more, its place in the table, its neighbours.
const ENTRY_BYTES: usize = 160;

/// How much a [`Cached`] store holds.
///
/// ```
/// use siltstone_changelog::store::CacheOptions;
/// let options = CacheOptions::new().cache_bytes(64 << 20).write_batch_bytes(4 << 20);
/// # let _ = options;
/// ```
#[derive(Clone, Debug)]
pub struct CacheOptions {
    cache_bytes: usize,
    write_batch_bytes: usize,
}

impl Default for CacheOptions {
    fn default() -> Self {
        CacheOptions { cache_bytes: 16 << 20, write_batch_bytes: 1 << 20 }
    }
}

impl CacheOptions {
    /// The defaults.
    pub fn new() -> Self {
        CacheOptions::default()
    }

    /// How much may be held in all, in bytes: keys, values, and 160 an entry. Default 16 MiB.
    pub fn cache_bytes(mut self, bytes: usize) -> Self {
        self.cache_bytes = bytes;
        self
    }

    /// How much of it may be writes that the store beneath has not got yet; 0: each is handed down at once. At most
    /// [`cache_bytes`](Self::cache_bytes). Default 1 MiB.
    pub fn write_batch_bytes(mut self, bytes: usize) -> Self {
        self.write_batch_bytes = bytes;
        self
    }
}

/// What a [`Cached`] store did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CacheStatistics {
    /// Gets that the cache answered, those of absent keys included.
    pub hits: u64,
    /// Gets that the store beneath had to answer.
    pub misses: u64,
    /// Writes taken.
    pub writes: u64,
    /// Writes handed down: of several to one key since the last time only the newest is.
    pub written_down: u64,
    /// Batches they were handed down in.
    pub batches: u64,
    /// How much is held now, in bytes, as the options count.
    pub cache_bytes: usize,
    /// How much of it the store beneath has not got yet.
    pub dirty_bytes: usize,
}

/// A store whose writes are held back and handed down together, oldest first and each key once: when there are enough,
/// when the oldest has to make room, before a range or a snapshot is read (they see everything), by
/// [`flush`](KeyValueStore::flush), and when it is dropped. What was read is held too, also that a key is absent.
///
/// What is held back and not flushed is lost with the process. When the store beneath fails, what it was to take is
/// kept and tried again the next time.
///
/// ```
/// use siltstone_changelog::store::{CacheOptions, Cached, KeyValueStore, MemoryStore};
/// use std::sync::Arc;
/// let beneath = Arc::new(MemoryStore::new());
/// let store = Cached::new(beneath.clone(), CacheOptions::new())?;
/// store.put(b"silt", b"1")?;
/// assert_eq!(store.get(b"silt")?.unwrap(), "1");
/// assert_eq!(beneath.get(b"silt")?, None);
/// store.flush()?;
/// assert_eq!(beneath.get(b"silt")?.unwrap(), "1");
/// # Ok::<(), siltstone_changelog::Error>(())
/// ```
#[derive(Debug)]
pub struct Cached<S: KeyValueStore> {
    inner: S,
    options: CacheOptions,
    /// Held while the store beneath is asked: what is remembered is never older than what was written meanwhile.
    held: Mutex<Held>,
}

#[derive(Debug)]
struct Held {
    /// The least recently used one goes first.
    entries: LruCache<Slice, Entry>,
    /// The keys of dirty entries, each once, in the order in which they became dirty.
    dirty: Vec<Slice>,
    statistics: CacheStatistics,
}

#[derive(Debug)]
struct Entry {
    /// `None`: the key is absent.
    value: Option<Slice>,
    /// The store beneath has not got it yet.
    dirty: bool,
}

fn entry_bytes(key: &[u8], value: Option<&Slice>) -> usize {
    ENTRY_BYTES + key.len() + value.map_or(0, |value| value.len())
}

impl Held {
    fn new() -> Self {
        Held { entries: LruCache::unbounded(), dirty: Vec::new(), statistics: CacheStatistics::default() }
    }

    /// Sets what is held of a key; there is room.
    fn set(&mut self, key: Slice, value: Option<Slice>, dirty: bool) {
        let bytes = entry_bytes(&key, value.as_ref());
        let was_dirty = self.forget(&key);
        debug_assert!(dirty || !was_dirty, "a write that was held back is forgotten");
        if dirty {
            self.statistics.dirty_bytes += bytes;
        }
        if dirty && !was_dirty {
            self.dirty.push(key.clone());
        }
        self.statistics.cache_bytes += bytes;
        self.entries.put(key, Entry { value, dirty });
    }

    /// Lets go of what is held of a key; whether it was dirty. Its place among the dirty ones is left to the caller.
    fn forget(&mut self, key: &Slice) -> bool {
        let Some(old) = self.entries.pop(key) else { return false };
        let bytes = entry_bytes(key, old.value.as_ref());
        self.statistics.cache_bytes -= bytes;
        if old.dirty {
            self.statistics.dirty_bytes -= bytes;
        }
        old.dirty
    }

    /// The dirty entries as writes, oldest first.
    fn writes(&self) -> Vec<Write> {
        let write = |key: &Slice| {
            Some(match &self.entries.peek(key)?.value {
                Some(value) => Write::Put { key: key.clone(), value: value.clone() },
                None => Write::Delete { key: key.clone() },
            })
        };
        self.dirty.iter().filter_map(write).collect()
    }

    /// The store beneath has got all writes.
    fn clean(&mut self) {
        for key in self.dirty.drain(..) {
            if let Some(entry) = self.entries.peek_mut(&key) {
                entry.dirty = false;
            }
        }
        self.statistics.dirty_bytes = 0;
    }
}

impl<S: KeyValueStore> Cached<S> {
    /// Caches `inner`, which nobody else may write to meanwhile.
    ///
    /// # Errors
    /// `InvalidArgument` if `write_batch_bytes` exceeds `cache_bytes`.
    pub fn new(inner: S, options: CacheOptions) -> Result<Self> {
        if options.write_batch_bytes > options.cache_bytes {
            return Err(Error::InvalidArgument(format!(
                "write_batch_bytes must be at most cache_bytes, which is {}, unlike {}",
                options.cache_bytes, options.write_batch_bytes
            )));
        }
        Ok(Cached { inner, options, held: Mutex::new(Held::new()) })
    }

    /// What it did so far.
    pub fn statistics(&self) -> CacheStatistics {
        self.held.lock().statistics
    }

    /// Hands all writes down.
    fn drain(&self, held: &mut Held) -> Result<()> {
        if held.dirty.is_empty() {
            return Ok(());
        }
        let writes = held.writes();
        self.write_down(held, &writes)?;
        held.clean();
        Ok(())
    }

    fn write_down(&self, held: &mut Held, writes: &[Write]) -> Result<()> {
        self.inner.write(writes)?;
        held.statistics.written_down += writes.len() as u64;
        held.statistics.batches += 1;
        Ok(())
    }

    /// Lets go of what was used longest ago, until `bytes` more have room.
    fn make_room(&self, held: &mut Held, bytes: usize) -> Result<()> {
        while held.statistics.cache_bytes + bytes > self.options.cache_bytes {
            let Some((key, oldest)) = held.entries.peek_lru() else { break };
            if oldest.dirty {
                self.drain(held)?;
            } else {
                let key = key.clone();
                held.forget(&key);
            }
        }
        Ok(())
    }

    /// Holds what the store beneath answered, if there is room for it.
    fn remember(&self, held: &mut Held, key: &[u8], value: Option<&Slice>) {
        let bytes = entry_bytes(key, value);
        // A write that fails is told to whoever writes next, not to this reader.
        if bytes <= self.options.cache_bytes && self.make_room(held, bytes).is_ok() {
            held.set(Slice::from(key), value.cloned(), false);
        }
    }

    /// Writes to the store beneath at once what is too much to be held back.
    fn write_through(&self, held: &mut Held, writes: &[Write]) -> Result<()> {
        self.drain(held)?;
        self.write_down(held, writes)?;
        for write in writes {
            held.forget(write.key());
        }
        Ok(())
    }
}

impl<S: KeyValueStore> KeyValueStore for Cached<S> {
    fn get(&self, key: &[u8]) -> Result<Option<Slice>> {
        let held = &mut *self.held.lock();
        if let Some(entry) = held.entries.get(key) {
            held.statistics.hits += 1;
            return Ok(entry.value.clone());
        }
        held.statistics.misses += 1;
        let value = self.inner.get(key)?;
        self.remember(held, key, value.as_ref());
        Ok(value)
    }

    fn get_many(&self, keys: &[&[u8]]) -> Result<Vec<Option<Slice>>> {
        let held = &mut *self.held.lock();
        let found: Vec<_> = keys.iter().map(|&key| held.entries.get(key).map(|entry| entry.value.clone())).collect();
        let missing: Vec<&[u8]> =
            keys.iter().zip(&found).filter(|(_, found)| found.is_none()).map(|(&key, _)| key).collect();
        held.statistics.hits += (keys.len() - missing.len()) as u64;
        held.statistics.misses += missing.len() as u64;
        let asked = if missing.is_empty() { Vec::new() } else { self.inner.get_many(&missing)? };
        for (key, value) in missing.iter().zip(&asked) {
            self.remember(held, key, value.as_ref());
        }
        let mut asked = asked.into_iter();
        Ok(found.into_iter().map(|found| found.unwrap_or_else(|| asked.next().flatten())).collect())
    }

    fn write(&self, writes: &[Write]) -> Result<()> {
        let mut accepted = Vec::with_capacity(writes.len());
        for write in writes {
            if self.inner.accept(write)? {
                accepted.push(write);
            }
        }
        let bytes: usize = accepted.iter().map(|write| entry_bytes(write.key(), write.value())).sum();
        let held = &mut *self.held.lock();
        if bytes > self.options.write_batch_bytes {
            let accepted: Vec<Write> = accepted.into_iter().cloned().collect();
            self.write_through(held, &accepted)?;
            held.statistics.writes += accepted.len() as u64;
            return Ok(());
        }
        if held.statistics.dirty_bytes + bytes > self.options.write_batch_bytes {
            self.drain(held)?;
        }
        self.make_room(held, bytes)?;
        held.statistics.writes += accepted.len() as u64;
        for write in accepted {
            held.set(write.key().clone(), write.value().cloned(), true);
        }
        Ok(())
    }

    fn accept(&self, write: &Write) -> Result<bool> {
        self.inner.accept(write)
    }

    fn range(&self, bounds: StoreBounds<'_>) -> Result<Entries> {
        let held = &mut *self.held.lock();
        self.drain(held)?;
        self.inner.range(bounds)
    }

    fn snapshot(&self) -> Result<Box<dyn StoreSnapshot>> {
        let held = &mut *self.held.lock();
        self.drain(held)?;
        self.inner.snapshot()
    }

    fn flush(&self) -> Result<()> {
        let held = &mut *self.held.lock();
        self.drain(held)?;
        self.inner.flush()
    }
}

impl<S: KeyValueStore> Drop for Cached<S> {
    fn drop(&mut self) {
        if let Err(error) = self.drain(&mut self.held.lock()) {
            tracing::error!(%error, "writes that a cache held back are lost");
        }
    }
}
