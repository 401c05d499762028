//! siltstone: an embedded, pure-Rust LSM key-value engine whose mutation log can be shipped to a sink and restored from
//! it.

pub mod fs;

mod apply;
mod background;
mod batch;
mod cache;
mod catalog;
mod changes;
mod checkpoint;
mod clock;
mod compaction;
mod cursor;
mod damage;
mod db;
mod error;
mod flush;
#[cfg(fuzzing)]
pub mod fuzzing;
mod health;
mod ingest;
#[cfg(feature = "internals")]
#[doc(hidden)]
pub mod internals;
mod iter;
mod key;
mod keyspace;
mod maintenance;
mod memtable;
mod metadata;
mod metrics;
#[cfg(all(test, any(siltstone_loom, siltstone_shuttle)))]
mod models;
mod moment;
mod name;
mod open;
mod options;
mod prefetch;
mod read;
mod repair;
mod slice;
mod snapshot;
mod store;
mod sync;
mod table;
mod tenure;
#[cfg(test)]
mod testing;
mod tree;
mod varint;
mod verify;
mod version;
mod wal;
mod write;

pub use batch::WriteBatch;
/// The crate of the memory that [`Slice::share`] shares.
pub use bytes;
pub use changes::{Change, ChangeBatch, Changes};
pub use clock::{Clock, SystemClock};
pub use damage::Damage;
pub use db::{CompactionHold, Db};
pub use error::{Error, Result};
pub use iter::Iter;
pub use key::{MAX_KEY_BYTES, MAX_SEQNO, MAX_VALUE_BYTES, SeqNo};
pub use keyspace::Keyspace;
pub use metrics::{AmplificationSnapshot, KeyspaceMetrics, LevelSnapshot, Metrics};
pub use name::KeyspaceName;
pub use options::{Compression, Durability, KeyspaceOptions, MIN_MEMORY_BYTES, MemtableKind, Options};
pub use repair::{Fate, RepairReport, RepairedFile, repair};
pub use slice::Slice;
pub use snapshot::Snapshot;
pub use verify::Report;

// The examples of the README are compiled with the documentation tests.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct ReadmeDoctests;
