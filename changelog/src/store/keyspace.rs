//! Keyspaces as stores.

use siltstone::{Keyspace, MAX_KEY_BYTES, MAX_VALUE_BYTES, Slice, Snapshot, WriteBatch};

use super::{Entries, KeyValueStore, StoreBounds, StoreSnapshot, Write};
use crate::error::{Error, Result};

impl KeyValueStore for Keyspace {
    fn get(&self, key: &[u8]) -> Result<Option<Slice>> {
        Ok(Keyspace::get(self, key)?)
    }

    fn get_many(&self, keys: &[&[u8]]) -> Result<Vec<Option<Slice>>> {
        Ok(Keyspace::get_many(self, keys)?)
    }

    fn write(&self, writes: &[Write]) -> Result<()> {
        let mut batch = WriteBatch::new();
        for write in writes {
            match write {
                Write::Put { key, value } => batch.put(self, key, value),
                Write::Delete { key } => batch.delete(self, key),
            };
        }
        self.db().write(batch)?;
        Ok(())
    }

    fn accept(&self, write: &Write) -> Result<bool> {
        let (key_bytes, value_bytes) = (write.key().len(), write.value().map_or(0, |value| value.len()));
        if key_bytes > MAX_KEY_BYTES || value_bytes > MAX_VALUE_BYTES {
            return Err(Error::InvalidArgument(format!(
                "a key has at most {MAX_KEY_BYTES} bytes and a value {MAX_VALUE_BYTES}, unlike {key_bytes} and {value_bytes}"
            )));
        }
        Ok(true)
    }

    fn range(&self, bounds: StoreBounds<'_>) -> Result<Entries> {
        Ok(entries(Keyspace::range::<&[u8]>(self, bounds)))
    }

    fn snapshot(&self) -> Result<Box<dyn StoreSnapshot>> {
        Ok(Box::new(KeyspaceSnapshot { keyspace: self.clone(), snapshot: self.db().snapshot() }))
    }

    /// Syncs the database's log: nothing that a table would have to be made for.
    fn flush(&self) -> Result<()> {
        Ok(self.db().sync()?)
    }
}

struct KeyspaceSnapshot {
    keyspace: Keyspace,
    snapshot: Snapshot,
}

impl StoreSnapshot for KeyspaceSnapshot {
    fn get(&self, key: &[u8]) -> Result<Option<Slice>> {
        Ok(self.snapshot.get(&self.keyspace, key)?)
    }

    fn range(&self, bounds: StoreBounds<'_>) -> Result<Entries> {
        Ok(entries(self.snapshot.range::<&[u8]>(&self.keyspace, bounds)))
    }
}

fn entries(read: siltstone::Iter) -> Entries {
    Box::new(read.map(|entry| Ok(entry?)))
}
