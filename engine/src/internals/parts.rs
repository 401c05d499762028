//! Single parts of the engine, for micro benchmarks: each is a thin wrapper that calls what the engine calls.
//!
//! Errors are the engine's ([`crate::Error`]). Keys and values have the engine's bounds
//! ([`crate::MAX_KEY_BYTES`], [`crate::MAX_VALUE_BYTES`]).

mod block;
mod cache;
mod codec;
mod filter;
mod index;
mod log;
mod memtable;
mod table;

pub use block::{Block, BlockBuilder, BlockCursor};
pub use cache::{BlockCache, Payload};
pub use codec::{Compressor, checksum, decompress, hash_key};
pub use filter::{Filter, FilterBuilder};
pub use index::{Index, IndexBuilder};
pub use log::Log;
pub use memtable::{Memtable, MemtableCursor};
pub use table::{MergeCursor, Table};

/// Where a payload that does not parse is said to lie: benchmarks have no file.
fn damaged(reason: &str) -> crate::Error {
    crate::Error::corruption(std::path::Path::new("payload"), 0, reason)
}

/// Gives a wrapper around one of the engine's cursors its steps.
macro_rules! steps {
    ($cursor:ident) => {
        impl $cursor {
            /// Moves to the first entry.
            ///
            /// # Errors
            /// As the cursor's source fails.
            pub fn seek_to_first(&mut self) -> crate::Result<()> {
                crate::cursor::Cursor::seek_to_first(&mut self.0)
            }

            /// Moves to the first entry at or after `key`.
            ///
            /// # Errors
            /// As the cursor's source fails.
            pub fn seek(&mut self, key: &[u8]) -> crate::Result<()> {
                crate::cursor::Cursor::seek(&mut self.0, key, crate::MAX_SEQNO)
            }

            /// Moves one entry forward; past the last one the cursor is not valid. Only while valid.
            ///
            /// # Errors
            /// As the cursor's source fails.
            #[inline]
            pub fn step(&mut self) -> crate::Result<()> {
                crate::cursor::Cursor::next(&mut self.0)
            }

            /// Whether the cursor stands on an entry.
            #[inline]
            pub fn valid(&self) -> bool {
                crate::cursor::Cursor::valid(&self.0)
            }

            /// The entry's key. Only while valid.
            #[inline]
            pub fn key(&self) -> &[u8] {
                crate::cursor::Cursor::key(&self.0)
            }

            /// The entry's value. Only while valid.
            #[inline]
            pub fn value(&self) -> &[u8] {
                crate::cursor::Cursor::value(&self.0)
            }
        }
    };
}
use steps;
