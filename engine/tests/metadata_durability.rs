//! A batch of metadata alone is as durable as any other.

use std::path::Path;
use std::sync::Arc;

use siltstone::fs::{Keep, SimFileSystem};
use siltstone::{Db, Durability, Options, WriteBatch};

fn open(fs: &SimFileSystem) -> Db {
    Options::new().memory_bytes(4 << 20).file_system(Arc::new(fs.clone())).open(Path::new("/db")).unwrap()
}

fn note(value: &str) -> WriteBatch {
    let mut batch = WriteBatch::new();
    batch.metadata("note", Some(value));
    batch
}

fn after_power_cut(fs: &SimFileSystem) -> Option<String> {
    let db = open(&fs.crash_clone(Keep::Nothing, 0));
    db.metadata("note").map(|note| String::from_utf8(note.to_vec()).unwrap())
}

#[test]
fn synced_metadata_survives_a_power_cut() {
    let fs = SimFileSystem::new();
    let db = open(&fs);
    db.keyspace("ks", Default::default()).unwrap().put("k", "v").unwrap();
    db.sync().unwrap();
    db.write_with(note("synced"), Durability::Synced).unwrap();
    assert_eq!(after_power_cut(&fs).as_deref(), Some("synced"));
}

#[test]
fn syncing_covers_metadata_written_after_the_last_data() {
    let fs = SimFileSystem::new();
    let db = open(&fs);
    db.keyspace("ks", Default::default()).unwrap().put("k", "v").unwrap();
    db.sync().unwrap();
    db.write(note("buffered")).unwrap();
    assert_eq!(after_power_cut(&fs), None, "the model loses what was not synced");
    db.sync().unwrap();
    assert_eq!(after_power_cut(&fs).as_deref(), Some("buffered"));
}
