//! siltstone: an embedded, pure-Rust LSM key-value engine whose mutation log can be shipped to a sink and restored from it.

pub mod fs;

mod batch;
mod cache;
mod clock;
mod compaction;
mod cursor;
mod db;
mod error;
mod key;
mod keyspace;
mod memtable;
mod open;
mod options;
mod read;
mod slice;
mod table;
mod varint;
mod version;
mod wal;
mod write;

pub use batch::WriteBatch;
pub use clock::{Clock, SystemClock};
pub use db::Db;
pub use error::{Error, Result};
pub use key::{MAX_KEY_BYTES, MAX_SEQNO, MAX_VALUE_BYTES, SeqNo};
pub use keyspace::Keyspace;
pub use options::{Compression, Durability, KeyspaceOptions, MIN_MEMORY_BYTES, MemtableKind, Options};
pub use slice::Slice;
