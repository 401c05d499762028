//! The writing face of a database: back-pressure, then the commit queue, then the sync that a durability asks for.

use std::cell::Cell;
use std::sync::Arc;

use crate::batch::{KeyspaceId, WriteBatch, check_lengths, encode_delete, encode_put};
use crate::error::{Error, Result};
use crate::key::SeqNo;
use crate::options::Durability;
use crate::store::Store;
use crate::tree::Tree;
use crate::wal::WalWriter;
use crate::write::pressure::{Pressure, memtable_delay_ns_per_kib};
use crate::write::queue::{CommitQueue, Request};
use crate::write::state::CommitState;

thread_local! {
    /// Where single operations are encoded: no allocation a put.
    static SCRATCH: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// A scratch buffer that a large value made larger than this is given back to the system.
const SCRATCH_KEEP_BYTES: usize = 1 << 20;

/// Commits batches.
pub(crate) struct Writer {
    store: Arc<Store>,
    queue: CommitQueue<CommitState>,
    pub(crate) pressure: Pressure,
}

impl std::fmt::Debug for Writer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Writer").field("visible", &self.store.visible()).finish_non_exhaustive()
    }
}

impl Writer {
    pub(crate) fn new(store: Arc<Store>, log: WalWriter) -> Self {
        let queue = CommitQueue::new(CommitState::new(store.clone(), log));
        Writer { store, queue, pressure: Pressure::default() }
    }

    /// Changes something under the commit lock.
    pub(crate) fn with_state<R>(&self, change: impl FnOnce(&mut CommitState) -> R) -> R {
        self.queue.with_state(change)
    }

    /// Puts one value.
    #[inline]
    pub(crate) fn put(&self, tree: &Tree, key: &[u8], value: &[u8]) -> Result<SeqNo> {
        check_lengths(key.len(), value.len())?;
        self.single(|out| encode_put(out, tree.id, key, value))
    }

    /// Deletes one key.
    #[inline]
    pub(crate) fn delete(&self, tree: &Tree, key: &[u8]) -> Result<SeqNo> {
        check_lengths(key.len(), 0)?;
        self.single(|out| encode_delete(out, tree.id, key))
    }

    #[inline]
    fn single(&self, encode: impl FnOnce(&mut Vec<u8>)) -> Result<SeqNo> {
        let mut encoded = SCRATCH.take();
        encoded.clear();
        encode(&mut encoded);
        let durability = self.store.options.durability;
        let (encoded, answer) = self.commit(Request { encoded, count: 1, durability, first_seqno: None });
        if encoded.capacity() <= SCRATCH_KEEP_BYTES {
            SCRATCH.set(encoded);
        }
        answer
    }

    /// Writes a batch.
    pub(crate) fn write(&self, batch: WriteBatch, durability: Durability) -> Result<SeqNo> {
        self.store.health.check_write()?;
        self.check(&batch)?;
        if batch.is_empty() {
            return Ok(self.store.visible());
        }
        self.commit(Request { encoded: batch.encoded, count: batch.count, durability, first_seqno: None }).1
    }

    /// Writes a batch that has its own numbers.
    pub(crate) fn write_at(&self, batch: WriteBatch, first_seqno: SeqNo) -> Result<SeqNo> {
        self.store.health.check_write()?;
        self.check(&batch)?;
        let durability = Durability::Buffered;
        let request =
            Request { encoded: batch.encoded, count: batch.count, durability, first_seqno: Some(first_seqno) };
        self.commit(request).1
    }

    fn check(&self, batch: &WriteBatch) -> Result<()> {
        batch.check()?;
        if batch.database != 0 && batch.database != self.store.instance {
            return Err(Error::InvalidArgument("the batch was built with keyspaces of another database".to_owned()));
        }
        Ok(())
    }

    fn commit(&self, request: Request) -> (Vec<u8>, Result<SeqNo>) {
        if let Err(error) = self.make_room(request.encoded.len()) {
            return (request.encoded, Err(error));
        }
        let (durability, count) = (request.durability, request.count);
        let (request, answer) = self.queue.commit(request);
        (request.encoded, answer.and_then(|seqno| self.make_durable(seqno, count, durability)))
    }

    #[inline]
    fn make_durable(&self, seqno: SeqNo, count: u32, durability: Durability) -> Result<SeqNo> {
        match (durability, count) {
            (Durability::NoLog | Durability::Buffered, _) => {}
            // Metadata alone has no number: the number before it says nothing about its record.
            (Durability::Synced, 0) => self.sync_all()?,
            (Durability::Synced, _) => self.sync_through(seqno)?,
        }
        Ok(seqno)
    }

    /// Makes the log durable up to `seqno`; callers at the same time share one sync.
    ///
    /// # Errors
    /// The failure of this or an earlier sync: after one, nothing is acknowledged as synced again.
    pub(crate) fn sync_through(&self, seqno: SeqNo) -> Result<()> {
        let Some(wal) = &self.store.wal else { return self.store.health.check_write() };
        self.store.health.check_write()?;
        wal.sync_through(seqno).inspect_err(|error| self.store.health.fail("syncing the log", error))
    }

    /// Makes everything in the log durable, records of metadata alone included.
    ///
    /// # Errors
    /// As [`sync_through`](Writer::sync_through).
    pub(crate) fn sync_all(&self) -> Result<()> {
        self.store.health.check_write()?;
        let Some(wal) = &self.store.wal else { return Ok(()) };
        wal.sync_all().inspect_err(|error| self.store.health.fail("syncing the log", error))
    }

    /// Holds the caller back as long as the debt asks for.
    #[inline]
    fn make_room(&self, bytes: usize) -> Result<()> {
        let store = &*self.store;
        let (used_bytes, limit_bytes) = (store.memtable_bytes(), store.limits.write_buffer_bytes);
        let delay_ns = self.pressure.get() + memtable_delay_ns_per_kib(used_bytes, limit_bytes);
        if delay_ns > 0 {
            self.pressure.delay(bytes, delay_ns, &*store.options.clock);
        }
        if used_bytes >= limit_bytes {
            return self.wait_for_room();
        }
        Ok(())
    }

    /// Holds a caller back who writes `bytes` past the memtables, as long as the trees' debt asks for.
    pub(crate) fn hold_back(&self, bytes: usize) {
        let delay_ns = self.pressure.get();
        if delay_ns > 0 {
            self.pressure.delay(bytes, delay_ns, &*self.store.options.clock);
        }
    }

    #[cold]
    fn wait_for_room(&self) -> Result<()> {
        let store = &*self.store;
        let before = store.options.clock.now();
        let answer = store.wait_until(|| store.memtable_bytes() < store.limits.write_buffer_bytes);
        self.pressure.add_delayed(store.options.clock.now().saturating_sub(before));
        answer
    }

    /// Drops a keyspace: the drop is an operation in the log, with a number of its own.
    pub(crate) fn drop_keyspace(&self, id: KeyspaceId, first_seqno: Option<SeqNo>) -> Result<SeqNo> {
        let mut batch = WriteBatch::new();
        batch.drop_keyspace(id);
        let durability = Durability::Synced;
        self.commit(Request { encoded: batch.encoded, count: batch.count, durability, first_seqno }).1
    }
}

#[cfg(test)]
mod tests;
