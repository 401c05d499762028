//! What the commit lock protects: the log's writing end, the last sequence number, and which memtable takes each
//! keyspace's writes.

use std::sync::Arc;

use crate::batch::{KeyspaceId, Op, Ops, WriteBatch};
use crate::error::{Error, Result};
use crate::key::{MAX_SEQNO, SeqNo, Trailer, ValueKind};
use crate::memtable::Memtable;
use crate::options::Durability;
use crate::store::Store;
use crate::sync::atomic::Ordering;
use crate::tree::Tree;
use crate::wal::WalWriter;
use crate::write::queue::{Commit, Request};

/// One keyspace as the commit path sees it.
struct Slot {
    id: KeyspaceId,
    tree: Arc<Tree>,
    /// The same memtable as in the tree's view, at hand without loading the view.
    active: Arc<Memtable>,
}

/// The numbers of what goes past the log.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Numbers {
    /// So many, behind the last one.
    Next(u64),
    /// All behind the last one up to this, as another database gave them.
    UpTo(SeqNo),
}

/// What a batch asks for once its operations are in the memtables.
struct Inserted {
    /// Some memtable is to be sealed.
    full: bool,
    has_metadata: bool,
}

/// See the module.
pub(crate) struct CommitState {
    store: Arc<Store>,
    log: WalWriter,
    last_seqno: SeqNo,
    /// The live keyspaces, by ascending id.
    slots: Vec<Slot>,
}

impl CommitState {
    pub(crate) fn new(store: Arc<Store>, log: WalWriter) -> Self {
        let last_seqno = store.visible();
        CommitState { store, log, last_seqno, slots: Vec::new() }
    }

    /// Writes to `tree` go to its active memtable from now on.
    pub(crate) fn add(&mut self, tree: Arc<Tree>) {
        let active = tree.view().active.clone();
        let at = self.slots.partition_point(|slot| slot.id < tree.id);
        self.slots.insert(at, Slot { id: tree.id, tree, active });
    }

    #[inline]
    fn find(&self, id: KeyspaceId) -> Option<usize> {
        self.slots.binary_search_by_key(&id, |slot| slot.id).ok()
    }

    fn slot(&self, id: KeyspaceId) -> Result<&Slot> {
        match self.find(id) {
            Some(at) => Ok(&self.slots[at]),
            None => Err(Error::KeyspaceDropped { name: self.store.name_of(id).to_string() }),
        }
    }

    /// Every operation's keyspace must be live before anything is written.
    fn check(&self, encoded: &[u8]) -> Result<()> {
        for op in Ops::new(encoded) {
            match op.map_err(|reason| Error::InvalidArgument(reason.to_owned()))? {
                Op::Put { keyspace, .. } | Op::Delete { keyspace, .. } | Op::DropKeyspace { keyspace } => {
                    self.slot(keyspace)?;
                }
                Op::Metadata { .. } => {}
            }
        }
        Ok(())
    }

    /// The number of the batch's first operation.
    fn first_seqno(&self, request: &Request) -> Result<SeqNo> {
        let next = self.last_seqno + 1;
        let first = request.first_seqno.unwrap_or(next);
        if first < next {
            let reason = format!("a batch from another log begins at {first}, but {next} is the next number here");
            return Err(Error::InvalidArgument(reason));
        }
        if first + SeqNo::from(request.count) > MAX_SEQNO {
            return Err(Error::InvalidArgument(format!("sequence numbers end at {MAX_SEQNO}")));
        }
        Ok(first)
    }

    /// Applies checked operations to the memtables; metadata is left for after the publication.
    fn insert(&mut self, encoded: &[u8], first: SeqNo, logged: bool) -> Result<Inserted> {
        let limit_bytes = self.store.limits.memtable_bytes;
        let (mut full, mut has_metadata, mut grown_bytes, mut seqno) = (false, false, 0, first);
        let mut ops = Ops::new(encoded);
        let mut left_bytes = encoded.len();
        while let Some(Ok(op)) = ops.next() {
            let op_bytes = left_bytes - ops.remaining_bytes();
            left_bytes = ops.remaining_bytes();
            let (id, key, kind, value) = match op {
                Op::Put { keyspace, key, value } => (keyspace, key, ValueKind::Put, value),
                Op::Delete { keyspace, key } => (keyspace, key, ValueKind::Delete, &[][..]),
                Op::DropKeyspace { keyspace } => {
                    self.drop_slot(keyspace, seqno);
                    seqno += 1;
                    continue;
                }
                Op::Metadata { .. } => {
                    has_metadata = true;
                    continue;
                }
            };
            let slot = self.slot(id)?;
            let before_bytes = slot.active.bytes();
            slot.active.insert(key, Trailer::new(seqno, kind), value);
            let after_bytes = slot.active.bytes();
            if !logged {
                // Relaxed: read by the closing, which holds the commit lock before.
                slot.tree.unlogged.store(true, Ordering::Relaxed);
            }
            let wal_bytes = if logged { op_bytes } else { 0 };
            slot.tree.amplification.record_write((key.len() + value.len()) as u64, wal_bytes as u64);
            grown_bytes += after_bytes - before_bytes;
            full |= after_bytes >= limit_bytes;
            seqno += 1;
        }
        let total_bytes = self.store.grow_memtables(grown_bytes);
        let full = full || total_bytes >= self.store.limits.write_buffer_bytes / 2;
        Ok(Inserted { full, has_metadata })
    }

    /// After the log's publication: whoever sees an entry and then syncs the log has it on storage.
    fn set_metadata(&self, encoded: &[u8], logged: bool) {
        for op in Ops::new(encoded).flatten() {
            if let Op::Metadata { name, value } = op {
                self.store.metadata.set(name, value, logged);
            }
        }
    }

    fn drop_slot(&mut self, id: KeyspaceId, seqno: SeqNo) {
        if let Some(at) = self.find(id) {
            self.slots.remove(at).tree.mark_dropped(seqno);
        }
    }

    /// Gives `numbers` to entries that `install` makes durable and visible in keyspaces `ids`, past log and memtables; it
    /// gets the last of them, which is also the answer. After an error no number is taken.
    pub(crate) fn number(
        &mut self,
        ids: &[KeyspaceId],
        numbers: Numbers,
        install: impl FnOnce(SeqNo) -> Result<()>,
    ) -> Result<SeqNo> {
        ids.iter().try_for_each(|&id| self.slot(id).map(drop))?;
        let last = match numbers {
            Numbers::Next(count) => self.last_seqno.saturating_add(count),
            Numbers::UpTo(last) => last,
        };
        if last >= MAX_SEQNO {
            return Err(Error::InvalidArgument(format!("sequence numbers end at {MAX_SEQNO}")));
        }
        if last <= self.last_seqno {
            let next = self.last_seqno + 1;
            return Err(Error::InvalidArgument(format!("numbers up to {last}, but {next} is the next number here")));
        }
        install(last)?;
        self.last_seqno = last;
        self.log.publish(last);
        Ok(last)
    }

    /// Seals memtables that are full, then, while the active ones together take more than half of the write buffers,
    /// the largest.
    pub(crate) fn seal_full(&mut self) {
        let limits = self.store.limits;
        let mut active: Vec<(usize, KeyspaceId)> = self
            .slots
            .iter()
            .filter(|slot| !slot.active.is_empty())
            .map(|slot| (slot.active.bytes(), slot.id))
            .collect();
        active.sort_unstable_by(|a, b| b.cmp(a));
        let mut active_bytes: usize = active.iter().map(|(bytes, _)| bytes).sum();
        for (bytes, id) in active {
            if bytes >= limits.memtable_bytes || active_bytes >= limits.write_buffer_bytes / 2 {
                self.seal(id);
                active_bytes -= bytes;
            }
        }
    }

    /// Seals a keyspace's active memtable, unless it is empty, and tells the background.
    pub(crate) fn seal(&mut self, id: KeyspaceId) {
        let Some(at) = self.find(id) else { return };
        let slot = &mut self.slots[at];
        if slot.active.is_empty() {
            return;
        }
        // Whole segments go with its flush, unsynced. Smaller memtables share theirs.
        if slot.active.bytes() as u64 >= self.store.limits.wal_segment_bytes {
            self.log.end_segment();
        }
        if let Some(wal) = &self.store.wal {
            *slot.tree.sealed_at.lock() = Some(self.store.moment(wal));
        }
        let next = self.store.new_memtable(&slot.tree.options());
        slot.tree.seal(next.clone());
        slot.active = next;
        self.store.flush_wanted(&slot.tree);
    }

    /// Takes no more writes: seals what was written without the log, and forgets every keyspace, so that nothing keeps
    /// the closed database's memory. Answers with the trees to flush.
    pub(crate) fn close(&mut self) -> Vec<Arc<Tree>> {
        let unlogged: Vec<_> = self
            .slots
            .iter()
            .map(|slot| slot.tree.clone())
            .filter(|tree| tree.unlogged.load(Ordering::Relaxed))
            .collect();
        for tree in &unlogged {
            self.seal(tree.id);
        }
        self.slots.clear();
        unlogged
    }
}

impl CommitState {
    /// Gives the space back that the log keeps for its next segments, unless something was written after `seqno`.
    pub(crate) fn give_back_spares(&mut self, seqno: SeqNo) {
        if self.last_seqno != seqno {
            return;
        }
        if let Err(error) = self.log.give_back_spares() {
            // Nothing needs these files: what is left over is removed when the database is opened the next time.
            tracing::warn!(%error, "giving back log segments");
        }
    }

    /// Logs what metadata is now where that was not logged: the log may hold an earlier change, which replay would
    /// bring back. For the end of a close, when the data that came with it is in tables.
    ///
    /// # Errors
    /// `Io` if the log cannot be written.
    pub(crate) fn log_metadata(&mut self) -> Result<()> {
        let mut batch = WriteBatch::new();
        for (name, value) in self.store.metadata.unlogged() {
            batch.metadata_in(&name, value.as_deref());
        }
        if batch.is_empty() {
            return Ok(());
        }
        self.log.append(self.last_seqno + 1, 0, &batch.encoded)?;
        self.log.publish(self.last_seqno);
        Ok(())
    }
}

impl Commit for CommitState {
    fn commit(&mut self, request: &Request) -> Result<SeqNo> {
        self.store.health.check_write()?;
        self.check(&request.encoded)?;
        let first = self.first_seqno(request)?;
        let last = first + SeqNo::from(request.count) - 1;
        let logged = request.durability != Durability::NoLog;
        if logged && let Err(error) = self.log.append(first, request.count, &request.encoded) {
            self.store.health.fail("writing the log", &error);
            return Err(error);
        }
        let inserted = self.insert(&request.encoded, first, logged)?;
        self.last_seqno = last;
        self.store.ask_for_preparation();
        self.store.publish(last);
        self.log.publish(last);
        if inserted.has_metadata {
            self.set_metadata(&request.encoded, logged);
        }
        if inserted.full {
            self.seal_full();
        }
        Ok(last)
    }

    fn in_doubt(&mut self) {
        let panicked = Error::InvalidArgument("a thread panicked".to_owned());
        self.store.health.fail("a commit", &panicked);
    }
}

#[cfg(test)]
mod tests;
