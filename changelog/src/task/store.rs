//! A task's store.

use std::sync::Arc;

use siltstone::{Keyspace, Slice};

use super::Shared;
use super::overlay::{Writes, merged};
use crate::error::{Error, Result};
use crate::store::{Entries, KeyValueStore, StoreBounds, StoreSnapshot, Write};

/// A store of a [`Task`](crate::Task): it shows what was written since the last commit, and nobody else sees that before
/// the next one.
#[derive(Clone, Debug)]
pub struct TaskStore {
    pub(super) shared: Arc<Shared>,
    pub(super) keyspace: Keyspace,
}

impl KeyValueStore for TaskStore {
    fn get(&self, key: &[u8]) -> Result<Option<Slice>> {
        let overlay = self.shared.overlay.lock();
        match overlay.get(self.keyspace.name(), key) {
            Some(written) => Ok(written.clone()),
            None => KeyValueStore::get(&self.keyspace, key),
        }
    }

    fn get_many(&self, keys: &[&[u8]]) -> Result<Vec<Option<Slice>>> {
        let overlay = self.shared.overlay.lock();
        let committed = KeyValueStore::get_many(&self.keyspace, keys)?;
        let newest =
            |(&key, committed): (&&[u8], _)| overlay.get(self.keyspace.name(), key).cloned().unwrap_or(committed);
        Ok(keys.iter().zip(committed).map(newest).collect())
    }

    fn write(&self, writes: &[Write]) -> Result<()> {
        for write in writes {
            self.accept(write)?;
        }
        self.shared.check()?;
        self.shared.overlay.lock().write(self.keyspace.name(), writes);
        Ok(())
    }

    fn accept(&self, write: &Write) -> Result<bool> {
        let limit = self.shared.max_message_bytes;
        if write.message_bytes() > limit {
            return Err(Error::TooLarge { message_bytes: write.message_bytes(), max_message_bytes: limit });
        }
        self.keyspace.accept(write)
    }

    fn range(&self, bounds: StoreBounds<'_>) -> Result<Entries> {
        let overlay = self.shared.overlay.lock();
        let committed = KeyValueStore::range(&self.keyspace, bounds)?;
        Ok(merged(&overlay.writes(self.keyspace.name()), bounds, committed))
    }

    fn snapshot(&self) -> Result<Box<dyn StoreSnapshot>> {
        let overlay = self.shared.overlay.lock();
        let committed = KeyValueStore::snapshot(&self.keyspace)?;
        Ok(Box::new(TaskSnapshot { writes: overlay.writes(self.keyspace.name()), committed }))
    }

    /// Does nothing: what makes writes durable is the task's commit.
    fn flush(&self) -> Result<()> {
        self.shared.check()
    }
}

struct TaskSnapshot {
    writes: Writes,
    committed: Box<dyn StoreSnapshot>,
}

impl StoreSnapshot for TaskSnapshot {
    fn get(&self, key: &[u8]) -> Result<Option<Slice>> {
        match self.writes.get(key) {
            Some(written) => Ok(written.clone()),
            None => self.committed.get(key),
        }
    }

    fn range(&self, bounds: StoreBounds<'_>) -> Result<Entries> {
        Ok(merged(&self.writes, bounds, self.committed.range(bounds)?))
    }
}
