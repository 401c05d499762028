//! A store in memory.

use std::ops::Bound;

use imbl::OrdMap;
use parking_lot::Mutex;
use siltstone::Slice;

use super::{Entries, KeyValueStore, StoreBounds, StoreSnapshot, Write};
use crate::error::Result;

/// The state of a [`MemoryStore`] at one moment: versions share what they have in common, so that a copy costs nothing.
type Map = OrdMap<Slice, Slice>;

/// A store in memory, for tests and for state that may be lost. Snapshots and iterators cost nothing to open, and what
/// is written later does not change them.
///
/// ```
/// use siltstone_changelog::store::{KeyValueStore, MemoryStore};
/// let store = MemoryStore::new();
/// store.put(b"silt", b"1")?;
/// let before = store.snapshot()?;
/// store.put(b"silt", b"2")?;
/// assert_eq!(before.get(b"silt")?.unwrap(), "1");
/// # Ok::<(), siltstone_changelog::Error>(())
/// ```
#[derive(Debug, Default)]
pub struct MemoryStore {
    map: Mutex<Map>,
}

impl MemoryStore {
    /// An empty store.
    pub fn new() -> Self {
        MemoryStore::default()
    }

    fn now(&self) -> Map {
        self.map.lock().clone()
    }
}

impl KeyValueStore for MemoryStore {
    fn get(&self, key: &[u8]) -> Result<Option<Slice>> {
        Ok(self.map.lock().get(key).cloned())
    }

    fn get_many(&self, keys: &[&[u8]]) -> Result<Vec<Option<Slice>>> {
        let map = self.now();
        Ok(keys.iter().map(|&key| map.get(key).cloned()).collect())
    }

    fn write(&self, writes: &[Write]) -> Result<()> {
        let mut map = self.map.lock();
        for write in writes {
            match write {
                Write::Put { key, value } => map.insert(key.clone(), value.clone()),
                Write::Delete { key } => map.remove(key),
            };
        }
        Ok(())
    }

    fn accept(&self, _write: &Write) -> Result<bool> {
        Ok(true)
    }

    fn range(&self, bounds: StoreBounds<'_>) -> Result<Entries> {
        StoreSnapshot::range(&self.now(), bounds)
    }

    fn snapshot(&self) -> Result<Box<dyn StoreSnapshot>> {
        Ok(Box::new(self.now()))
    }

    fn flush(&self) -> Result<()> {
        Ok(())
    }
}

impl StoreSnapshot for Map {
    fn get(&self, key: &[u8]) -> Result<Option<Slice>> {
        Ok(OrdMap::get(self, key).cloned())
    }

    fn range(&self, (from, to): StoreBounds<'_>) -> Result<Entries> {
        let (from, to) = (from.map(Slice::from), to.map(Slice::from));
        Ok(Box::new(MemoryEntries { map: self.clone(), from, to }))
    }
}

/// What is left of a range.
struct MemoryEntries {
    map: Map,
    from: Bound<Slice>,
    to: Bound<Slice>,
}

impl MemoryEntries {
    fn rest(&self) -> impl DoubleEndedIterator<Item = (&Slice, &Slice)> {
        self.map.range((self.from.clone(), self.to.clone()))
    }
}

fn cloned((key, value): (&Slice, &Slice)) -> (Slice, Slice) {
    (key.clone(), value.clone())
}

impl Iterator for MemoryEntries {
    type Item = Result<(Slice, Slice)>;

    fn next(&mut self) -> Option<Self::Item> {
        let entry = self.rest().next().map(cloned)?;
        self.from = Bound::Excluded(entry.0.clone());
        Some(Ok(entry))
    }
}

impl DoubleEndedIterator for MemoryEntries {
    fn next_back(&mut self) -> Option<Self::Item> {
        let entry = self.rest().next_back().map(cloned)?;
        self.to = Bound::Excluded(entry.0.clone());
        Some(Ok(entry))
    }
}
