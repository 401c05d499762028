//! What the tests of several modules need: a small database on the simulated filesystem, and a look inside.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::batch::WriteBatch;
use crate::db::Db;
use crate::fs::SimFileSystem;
use crate::key::SeqNo;
use crate::keyspace::Keyspace;
use crate::options::{KeyspaceOptions, MIN_MEMORY_BYTES, Options};
use crate::store::Store;
use crate::version::manifest::Manifest;
use crate::version::state::ManifestState;
use crate::wal::Wal;
use crate::write::commit::Writer;

/// Where the database lives.
pub(crate) const DIRECTORY: &str = "db";

/// The least memory (1 MiB a memtable, 2 MiB of write buffers) and one background thread.
pub(crate) fn options(fs: &SimFileSystem) -> Options {
    Options::new().memory_bytes(MIN_MEMORY_BYTES).background_threads(1).file_system(Arc::new(fs.clone()))
}

pub(crate) fn open(fs: &SimFileSystem) -> Db {
    options(fs).open(DIRECTORY).unwrap()
}

/// A keyspace that compacts as late as possible.
pub(crate) fn keyspace(db: &Db, name: &str) -> Keyspace {
    db.keyspace(name, KeyspaceOptions::new().level0_trigger(64)).unwrap()
}

pub(crate) fn store(db: &Db) -> &Store {
    &db.handle().store
}

pub(crate) fn wal(db: &Db) -> &Arc<Wal> {
    store(db).wal.as_ref().unwrap()
}

pub(crate) fn writer(db: &Db) -> &Writer {
    db.handle().writer.as_ref().unwrap()
}

/// Writes `bytes` of values of 1,000 bytes, under keys that begin with `from`.
pub(crate) fn fill(ks: &Keyspace, from: &str, bytes: usize) {
    for i in 0..bytes / 1000 {
        ks.put(format!("{from}{i:06}"), vec![i as u8; 1000]).unwrap();
    }
}

/// Writes one batch of metadata.
pub(crate) fn set_metadata(db: &Db, name: &str, value: &str) -> SeqNo {
    let mut batch = WriteBatch::new();
    batch.metadata(name, Some(value));
    db.write(batch).unwrap()
}

/// What the manifest on `fs` says.
pub(crate) fn manifest_state(fs: &SimFileSystem) -> ManifestState {
    Manifest::open(Arc::new(fs.clone()), Path::new(DIRECTORY), true).unwrap().unwrap().1
}

/// The names of all files with this extension.
pub(crate) fn files(fs: &SimFileSystem, extension: &str) -> Vec<String> {
    let paths = fs.paths().into_iter().filter(|path| path.extension().is_some_and(|found| found == extension));
    paths.map(|path| path.file_name().unwrap().to_str().unwrap().to_owned()).collect()
}

/// Waits for what the background does without being asked; a limit of time ends a test that would wait for ever.
pub(crate) fn eventually(what: &str, done: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !done() {
        assert!(Instant::now() < deadline, "{what}: not in 20 s");
        std::thread::sleep(Duration::from_millis(1));
    }
}
