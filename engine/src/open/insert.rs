//! [`Inserter`]: the log's operations go into memtables part by part, each beside the reading of the next.

use std::collections::HashMap;
use std::mem;
use std::panic::resume_unwind;
use std::sync::Arc;

use super::gather::Gathered;
use crate::batch::KeyspaceId;
use crate::key::Trailer;
use crate::memtable::Memtable;
use crate::sync::Mutex;
use crate::sync::thread::{self, JoinHandle};

/// See the module. At any time two parts are in memory at most: one is read, one inserted.
pub(super) struct Inserter {
    /// Of keyspaces that were written to, and not dropped since.
    memtables: HashMap<KeyspaceId, Arc<Memtable>>,
    gathered: Gathered,
    /// About how much makes a part, in bytes.
    part_bytes: usize,
    under_way: Option<UnderWay>,
}

/// A part that a thread of its own inserts.
struct UnderWay {
    part: Arc<Mutex<Gathered>>,
    thread: JoinHandle<()>,
}

impl Inserter {
    pub(super) fn new(part_bytes: usize) -> Self {
        Inserter { memtables: HashMap::new(), gathered: Gathered::default(), part_bytes, under_way: None }
    }

    /// Adds an operation, which may go into the memtable that `new_memtable` makes if the keyspace has none.
    pub(super) fn add(
        &mut self,
        keyspace: KeyspaceId,
        key: &[u8],
        trailer: Trailer,
        value: &[u8],
        new_memtable: impl FnOnce() -> Arc<Memtable>,
    ) {
        self.memtables.entry(keyspace).or_insert_with(new_memtable);
        self.gathered.add(keyspace, key, trailer, value);
        if self.gathered.memory_bytes() >= self.part_bytes {
            self.insert_beside();
        }
    }

    /// Forgets a keyspace's operations.
    pub(super) fn remove(&mut self, keyspace: KeyspaceId) {
        self.memtables.remove(&keyspace);
    }

    /// The memtables, once they hold everything.
    pub(super) fn finish(mut self) -> HashMap<KeyspaceId, Arc<Memtable>> {
        self.gathered.sort();
        self.wait();
        self.gathered.insert_into(&self.memtables);
        mem::take(&mut self.memtables)
    }

    fn insert_beside(&mut self) {
        self.gathered.sort();
        let empty = self.wait();
        let part = Arc::new(Mutex::new(mem::replace(&mut self.gathered, empty)));
        let work = {
            let (part, memtables) = (part.clone(), self.memtables.clone());
            move || part.lock().insert_into(&memtables)
        };
        match thread::Builder::new().name("siltstone-replay".to_owned()).spawn(work) {
            Ok(thread) => self.under_way = Some(UnderWay { part, thread }),
            // The system has no more threads, so it is this one's work.
            Err(_) => part.lock().insert_into(&self.memtables),
        }
    }

    /// Waits until nothing is being inserted; what was is empty, and serves the next part.
    fn wait(&mut self) -> Gathered {
        let Some(UnderWay { part, thread }) = self.under_way.take() else { return Gathered::default() };
        if let Err(panic) = thread.join() {
            resume_unwind(panic);
        }
        mem::take(&mut *part.lock())
    }
}

impl Drop for Inserter {
    /// Where reading failed: nothing works on once that is said.
    fn drop(&mut self) {
        if let Some(under_way) = self.under_way.take() {
            let _panicked = under_way.thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::{Lookup, MAX_SEQNO, ValueKind};
    use crate::memtable::ArenaPool;
    use crate::options::MemtableKind;

    #[test]
    fn parts_that_are_inserted_beside_each_other_arrive_whole() {
        const KEYS: u64 = 2000;
        let pool = Arc::new(ArenaPool::new(0, 1 << 20));
        let memtable = || Arc::new(Memtable::new(MemtableKind::BTree, 1 << 20, &pool));
        // One part, several, and one for every operation.
        for part_bytes in [usize::MAX, 20_000, 0] {
            let mut inserter = Inserter::new(part_bytes);
            for seqno in 1..=4 * KEYS {
                // The first keyspace is dropped halfway.
                let keyspace = if seqno <= 2 * KEYS { 1 + (seqno % 2) as KeyspaceId } else { 2 };
                let key = (seqno * 7919 % KEYS).to_be_bytes();
                inserter.add(keyspace, &key, Trailer::new(seqno, ValueKind::Put), &seqno.to_le_bytes(), memtable);
                if seqno == 2 * KEYS {
                    inserter.remove(1);
                }
            }
            assert_eq!(inserter.under_way.is_some(), part_bytes < usize::MAX);
            let memtables = inserter.finish();
            assert!(!memtables.contains_key(&1));
            assert_eq!(memtables[&2].entries(), 3 * KEYS, "{part_bytes}");
            for seqno in 3 * KEYS + 1..4 * KEYS {
                let key = (seqno * 7919 % KEYS).to_be_bytes();
                let (trailer, value) = memtables[&2].get(&Lookup::new(&key, MAX_SEQNO)).unwrap();
                assert_eq!((trailer.seqno(), value), (seqno, &seqno.to_le_bytes()[..]));
            }
        }
    }
}
