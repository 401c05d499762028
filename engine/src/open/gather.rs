//! The log's operations on their way back into memtables: gathered and sorted first.
//!
//! Writes came in any order, and inserting them so touches another part of a memtable each time: most of opening a
//! database went into waiting for memory. Sorted, neighbours follow each other.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use crate::batch::KeyspaceId;
use crate::key::{Trailer, compare_keys, hash_key, prefix_u64};
use crate::memtable::Memtable;
use crate::prefetch::prefetch_lines;

/// How many operations ahead a place in the memtable's index is asked for; the key, which tells the place, so many more.
const AHEAD_OPS: usize = 8;

/// How many cache lines of an operation are asked for; more of a longer one follow by themselves.
const OP_LINES: usize = 3;

/// Operations of a part of the log.
#[derive(Debug, Default)]
pub(super) struct Gathered {
    /// Their keys and values.
    bytes: Vec<u8>,
    ops: Vec<GatheredOp>,
}

#[derive(Debug)]
struct GatheredOp {
    keyspace: KeyspaceId,
    /// [`prefix_u64`] of the key.
    prefix: u64,
    trailer: Trailer,
    key: Range<usize>,
    value_bytes: usize,
}

impl Gathered {
    pub(super) fn add(&mut self, keyspace: KeyspaceId, key: &[u8], trailer: Trailer, value: &[u8]) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(key);
        let key_range = start..self.bytes.len();
        self.bytes.extend_from_slice(value);
        let prefix = prefix_u64(key);
        self.ops.push(GatheredOp { keyspace, prefix, trailer, key: key_range, value_bytes: value.len() });
    }

    /// The memory it takes, in bytes.
    pub(super) fn memory_bytes(&self) -> usize {
        self.bytes.len() + self.ops.len() * size_of::<GatheredOp>()
    }

    /// Sorts the operations by keyspace, and then in internal order.
    pub(super) fn sort(&mut self) {
        let key = |op: &GatheredOp| &self.bytes[op.key.clone()];
        self.ops.sort_unstable_by(|a, b| {
            let by_key = || compare_keys(a.prefix, key(a), b.prefix, key(b));
            a.keyspace.cmp(&b.keyspace).then_with(by_key).then_with(|| b.trailer.cmp(&a.trailer))
        });
    }

    /// Inserts every operation into its keyspace's memtable, those of keyspaces without one excepted, and forgets them.
    /// Fast if they are sorted.
    pub(super) fn insert_into(&mut self, memtables: &HashMap<KeyspaceId, Arc<Memtable>>) {
        for ops in self.ops.chunk_by(|a, b| a.keyspace == b.keyspace) {
            let Some(memtable) = memtables.get(&ops[0].keyspace) else { continue };
            for (at, op) in ops.iter().enumerate() {
                // Sorted operations meet in the memtable's tree, but neither here nor in its index.
                if let Some(ahead) = ops.get(at + 2 * AHEAD_OPS) {
                    prefetch_lines(self.bytes[ahead.key.start..].as_ptr(), OP_LINES);
                }
                if let Some(ahead) = ops.get(at + AHEAD_OPS) {
                    memtable.prefetch(hash_key(&self.bytes[ahead.key.clone()]));
                }
                let value = op.key.end..op.key.end + op.value_bytes;
                memtable.insert(&self.bytes[op.key.clone()], op.trailer, &self.bytes[value]);
            }
        }
        self.ops.clear();
        self.bytes.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::{Lookup, ValueKind};
    use crate::memtable::ArenaPool;
    use crate::options::MemtableKind;

    #[test]
    fn operations_come_by_keyspace_and_in_internal_order() {
        let writes: [(KeyspaceId, &[u8], u64, &[u8]); 6] = [
            (9, b"b", 1, b"x"),
            (3, b"longer than eight", 2, b""),
            (9, b"a", 3, b"yy"),
            (9, b"b", 4, b"z"),
            (3, b"longer t", 5, b"v"),
            (9, b"", 6, b"w"),
        ];
        let pool = Arc::new(ArenaPool::new(0, 1 << 20));
        let memtable = || Arc::new(Memtable::new(MemtableKind::BTree, 1 << 20, &pool));
        let mut gathered = Gathered::default();
        for _ in 0..2 {
            for (keyspace, key, seqno, value) in writes {
                gathered.add(keyspace, key, Trailer::new(seqno, ValueKind::Put), value);
            }
            assert!(gathered.memory_bytes() > 40);
            gathered.sort();
            let order: Vec<_> = gathered.ops.iter().map(|op| op.trailer.seqno()).collect();
            assert_eq!(order, [5, 2, 6, 3, 4, 1]);
            // Keyspace 3 was dropped.
            let memtables = HashMap::from([(9, memtable()), (5, memtable())]);
            gathered.insert_into(&memtables);
            assert_eq!((gathered.memory_bytes(), memtables[&5].entries(), memtables[&9].entries()), (0, 0, 4));
            for (_, key, seqno, value) in writes.into_iter().filter(|write| write.0 == 9) {
                let found = memtables[&9].get(&Lookup::new(key, seqno));
                assert_eq!(found, Some((Trailer::new(seqno, ValueKind::Put), value)));
            }
        }
    }
}
