//! The log's operations on their way back into memtables: gathered and sorted first.
//!
//! Writes came in any order, and inserting them so touches another part of a memtable each time: most of opening a
//! database went into waiting for memory. Sorted, neighbours follow each other.

use std::ops::Range;

use crate::batch::KeyspaceId;
use crate::key::{Trailer, compare_keys, prefix_u64};

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

    /// Hands every operation to `visit`, by keyspace and then in internal order, and forgets them.
    pub(super) fn drain_sorted(&mut self, mut visit: impl FnMut(KeyspaceId, &[u8], Trailer, &[u8])) {
        let Gathered { bytes, ops } = self;
        let key = |op: &GatheredOp| &bytes[op.key.clone()];
        ops.sort_unstable_by(|a, b| {
            let by_key = || compare_keys(a.prefix, key(a), b.prefix, key(b));
            a.keyspace.cmp(&b.keyspace).then_with(by_key).then_with(|| b.trailer.cmp(&a.trailer))
        });
        for op in ops.drain(..) {
            let value = op.key.end..op.key.end + op.value_bytes;
            visit(op.keyspace, &bytes[op.key], op.trailer, &bytes[value]);
        }
        bytes.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::ValueKind;

    #[test]
    fn operations_come_by_keyspace_and_in_internal_order() {
        let mut gathered = Gathered::default();
        let writes: [(KeyspaceId, &[u8], u64, &[u8]); 6] = [
            (9, b"b", 1, b"x"),
            (3, b"longer than eight", 2, b""),
            (9, b"a", 3, b"yy"),
            (9, b"b", 4, b"z"),
            (3, b"longer t", 5, b"v"),
            (9, b"", 6, b"w"),
        ];
        for _ in 0..2 {
            for (keyspace, key, seqno, value) in writes {
                gathered.add(keyspace, key, Trailer::new(seqno, ValueKind::Put), value);
            }
            assert!(gathered.memory_bytes() > 40);
            let mut drained = Vec::new();
            gathered.drain_sorted(|keyspace, key, trailer, value| {
                drained.push((keyspace, key.to_vec(), trailer.seqno(), value.to_vec()));
            });
            let own = |at: usize| (writes[at].0, writes[at].1.to_vec(), writes[at].2, writes[at].3.to_vec());
            let expected = [4, 1, 5, 2, 3, 0].map(own);
            assert_eq!(drained, expected);
            assert_eq!(gathered.memory_bytes(), 0);
        }
    }
}
