//! [`PickOrder`]: which table of a level is compacted first.

use crate::table::TableMeta;

/// Which table of a level that is over its target goes down first.
///
/// All but the first are there to be compared with it; benches/ says how they do. Not kept in the manifest: a keyspace
/// that is opened without saying otherwise picks by [`MinOverlap`](PickOrder::MinOverlap).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(not(feature = "internals"), allow(dead_code))]
pub enum PickOrder {
    /// Fewest bytes of the next level to rewrite per byte moved down (RocksDB: `kMinOverlappingRatio`), the lowest
    /// number of equals.
    #[default]
    MinOverlap,
    /// The smallest sequence number (RocksDB: `kOldestSmallestSeqFirst`): the range that has waited longest.
    OldestFirst,
    /// Through the key space, from where the last one ended (LevelDB; RocksDB: `kRoundRobin`). The place is forgotten
    /// when the database closes.
    RoundRobin,
    /// The longest file (RocksDB: `kByCompensatedSize`, without its compensation for deletes: tables dense in
    /// tombstones are looked for apart from this).
    LargestFirst,
}

impl PickOrder {
    /// The place of a table that overlaps `overlap_bytes` of the next level, the smallest first; `None` if this order
    /// goes by key.
    pub(crate) fn rank(self, meta: &TableMeta, overlap_bytes: u64) -> Option<u64> {
        match self {
            // Ratios are not negative, and so ordered as their bits are.
            PickOrder::MinOverlap => Some((overlap_bytes as f64 / meta.file_bytes.max(1) as f64).to_bits()),
            PickOrder::OldestFirst => Some(meta.min_seqno),
            PickOrder::RoundRobin => None,
            PickOrder::LargestFirst => Some(!meta.file_bytes),
        }
    }
}
