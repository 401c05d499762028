//! Immutable sorted files (SSTables).

mod bits;
pub(crate) mod block;
pub(crate) mod builder;
pub(crate) mod filter;
pub(crate) mod format;
pub(crate) mod handle;
pub(crate) mod index;
pub(crate) mod iterator;
pub(crate) mod level_iterator;
pub(crate) mod properties;
mod readahead;
pub(crate) mod reader;
pub(crate) mod salvage;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod verify;

use bytes::Bytes;

use crate::key::SeqNo;

/// What the manifest knows of a table without opening it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TableMeta {
    /// The file's number; the file is `{number:06}.table`.
    pub(crate) number: u64,
    /// The file's length.
    pub(crate) file_bytes: u64,
    /// Keys and values as the user gave them.
    pub(crate) user_bytes: u64,
    /// Entries, tombstones included.
    pub(crate) entries: u64,
    pub(crate) tombstones: u64,
    /// First and last user key, both in the table.
    pub(crate) smallest: Bytes,
    pub(crate) largest: Bytes,
    pub(crate) min_seqno: SeqNo,
    pub(crate) max_seqno: SeqNo,
}

impl TableMeta {
    /// Whether the table's key range meets `smallest..=largest`.
    pub(crate) fn overlaps(&self, smallest: &[u8], largest: &[u8]) -> bool {
        self.smallest <= largest && self.largest >= smallest
    }
}

/// Something that stands for one table: the engine's table handles, or bare descriptions in tests and simulations.
pub(crate) trait HasMeta {
    /// What the manifest knows of the table. Always the same answer.
    fn meta(&self) -> &TableMeta;
}

impl HasMeta for TableMeta {
    fn meta(&self) -> &TableMeta {
        self
    }
}
