//! Snapshots in an object store: whole databases, to restore from and to begin a log's reading with.
//!
//! A snapshot is a checkpoint's files. Each file is a *blob*, named by its length and the SHA-256 of its contents, so that
//! tables, which never change, are uploaded once however many snapshots have them, and what comes back is known to be
//! what went there. The *index* of a snapshot ([`index`]) names its files; it is written last, so whoever sees one finds
//! all its blobs. Blobs that no index names are removed only when they are old: an upload may be about to name them.

mod blobs;
mod index;
mod store;

pub use index::SnapshotInfo;
pub use store::{Pruned, SnapshotOptions, SnapshotStore, Uploaded};
