//! State as a program sees it, whatever lies beneath: [`KeyValueStore`], which keyspaces, the
//! [`MemoryStore`] and the layers around a store implement.

mod access_log;
mod cache;
mod guard;
mod keyspace;
mod layers;
mod memory;
mod metered;

use std::ops::Bound;

use siltstone::Slice;

use crate::error::Result;

pub use access_log::{Access, AccessLog, Operation};
pub use cache::{CacheOptions, CacheStatistics, Cached};
pub use guard::{LargeMessageGuard, Oversize};
pub use layers::StoreLayers;
pub use memory::MemoryStore;
pub use metered::{Metered, OperationFigures, StoreMetrics};

/// Where a range begins and ends.
pub type StoreBounds<'a> = (Bound<&'a [u8]>, Bound<&'a [u8]>);

/// All keys.
pub const ALL_KEYS: StoreBounds<'static> = (Bound::Unbounded, Bound::Unbounded);

/// The entries of a range, in key order, readable from both ends; of the moment at which they were asked for. After an
/// error they end.
pub type Entries = Box<dyn DoubleEndedIterator<Item = Result<(Slice, Slice)>> + Send>;

/// A put or a delete.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Write {
    /// Sets the value of a key.
    Put {
        /// The key.
        key: Slice,
        /// Its new value.
        value: Slice,
    },
    /// Removes a key, which need not be there.
    Delete {
        /// The key.
        key: Slice,
    },
}

impl Write {
    /// A put.
    pub fn put(key: impl Into<Slice>, value: impl Into<Slice>) -> Self {
        Write::Put { key: key.into(), value: value.into() }
    }

    /// A delete.
    pub fn delete(key: impl Into<Slice>) -> Self {
        Write::Delete { key: key.into() }
    }

    /// The key.
    pub fn key(&self) -> &Slice {
        match self {
            Write::Put { key, .. } | Write::Delete { key } => key,
        }
    }

    /// The value; none of a delete.
    pub fn value(&self) -> Option<&Slice> {
        match self {
            Write::Put { value, .. } => Some(value),
            Write::Delete { .. } => None,
        }
    }

    /// Key and value together, in bytes: what the write takes in a message.
    pub fn message_bytes(&self) -> usize {
        self.key().len() + self.value().map_or(0, |value| value.len())
    }
}

/// An ordered map of byte strings that a program keeps its state in. Calls come from any thread.
///
/// ```
/// use siltstone_changelog::store::{ALL_KEYS, KeyValueStore, MemoryStore, Write};
/// /// Counts a word, in whatever store.
/// fn count(store: &dyn KeyValueStore, word: &str) -> siltstone_changelog::Result<u64> {
///     let old = store.get(word.as_bytes())?;
///     let old = old.and_then(|old| old.first_chunk().map(|bytes| u64::from_le_bytes(*bytes)));
///     let count = old.unwrap_or(0) + 1;
///     store.put(word.as_bytes(), &count.to_le_bytes())?;
///     Ok(count)
/// }
/// let store = MemoryStore::new();
/// assert_eq!((count(&store, "silt")?, count(&store, "silt")?), (1, 2));
/// assert_eq!(store.range(ALL_KEYS)?.count(), 1);
/// # Ok::<(), siltstone_changelog::Error>(())
/// ```
pub trait KeyValueStore: Send + Sync {
    /// The value of `key`, if it has one.
    ///
    /// # Errors
    /// Of the store beneath.
    fn get(&self, key: &[u8]) -> Result<Option<Slice>>;

    /// The values of `keys`, in their order, all of one moment.
    ///
    /// # Errors
    /// Of the store beneath.
    fn get_many(&self, keys: &[&[u8]]) -> Result<Vec<Option<Slice>>>;

    /// Writes all of `writes` or nothing; of several to one key the last one wins.
    ///
    /// # Errors
    /// `InvalidArgument` or `TooLarge` if one of them is not allowed, and whatever the store beneath says: nothing was
    /// written.
    fn write(&self, writes: &[Write]) -> Result<()>;

    /// Whether the store will take `write`: `false` if it is going to leave it out. Whoever holds writes back for later
    /// asks once for each of them before it takes it, so that it shows what the store will.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    fn accept(&self, write: &Write) -> Result<bool>;

    /// The entries of a range; none of a reversed one.
    ///
    /// # Errors
    /// Of the store beneath.
    fn range(&self, bounds: StoreBounds<'_>) -> Result<Entries>;

    /// An immutable view of this moment.
    ///
    /// # Errors
    /// Of the store beneath.
    fn snapshot(&self) -> Result<Box<dyn StoreSnapshot>>;

    /// Makes everything written so far as durable as the store can: a power cut does not take it back, if there is
    /// storage beneath.
    ///
    /// # Errors
    /// Of the store beneath.
    fn flush(&self) -> Result<()>;

    /// Sets the value of `key`.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    fn put(&self, key: &[u8], value: &[u8]) -> Result<()> {
        self.write(&[Write::put(key, value)])
    }

    /// Removes `key`, which need not be there.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    fn delete(&self, key: &[u8]) -> Result<()> {
        self.write(&[Write::delete(key)])
    }
}

/// What a store held at one moment.
pub trait StoreSnapshot: Send + Sync {
    /// The value that `key` had.
    ///
    /// # Errors
    /// Of the store beneath.
    fn get(&self, key: &[u8]) -> Result<Option<Slice>>;

    /// The entries that a range had; as often as asked.
    ///
    /// # Errors
    /// Of the store beneath.
    fn range(&self, bounds: StoreBounds<'_>) -> Result<Entries>;
}

/// Implements the trait for what points to a store.
macro_rules! forward {
    ($($pointer:ty),*) => {$(
        impl<S: KeyValueStore + ?Sized> KeyValueStore for $pointer {
            fn get(&self, key: &[u8]) -> Result<Option<Slice>> {
                (**self).get(key)
            }
            fn get_many(&self, keys: &[&[u8]]) -> Result<Vec<Option<Slice>>> {
                (**self).get_many(keys)
            }
            fn write(&self, writes: &[Write]) -> Result<()> {
                (**self).write(writes)
            }
            fn accept(&self, write: &Write) -> Result<bool> {
                (**self).accept(write)
            }
            fn range(&self, bounds: StoreBounds<'_>) -> Result<Entries> {
                (**self).range(bounds)
            }
            fn snapshot(&self) -> Result<Box<dyn StoreSnapshot>> {
                (**self).snapshot()
            }
            fn flush(&self) -> Result<()> {
                (**self).flush()
            }
        }
    )*};
}

forward!(Box<S>, std::sync::Arc<S>);
