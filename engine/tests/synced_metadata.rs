//! Metadata takes no sequence number; what is promised for a write holds for it all the same.

use std::sync::Arc;

use siltstone::fs::{Keep, SimFileSystem};
use siltstone::{Db, Durability, Options, WriteBatch};

fn open(fs: &Arc<SimFileSystem>) -> Db {
    Options::new().memory_bytes(siltstone::MIN_MEMORY_BYTES).file_system(fs.clone()).open("/db").unwrap()
}

fn metadata(value: &str) -> WriteBatch {
    let mut batch = WriteBatch::new();
    batch.metadata("position", Some(value));
    batch
}

#[test]
fn a_synced_batch_of_metadata_alone_survives_a_power_cut() {
    let fs = Arc::new(SimFileSystem::new());
    let db = open(&fs);
    db.keyspace("ks", Default::default()).unwrap().put("k", "v").unwrap();
    db.sync().unwrap();
    db.write_with(metadata("1"), Durability::Synced).unwrap();
    let after = open(&Arc::new(fs.crash_clone(Keep::Nothing, 0)));
    assert_eq!(after.metadata("position").unwrap(), "1");
}

#[test]
fn a_sync_covers_metadata_that_came_after_the_last_operation() {
    let fs = Arc::new(SimFileSystem::new());
    let db = open(&fs);
    db.keyspace("ks", Default::default()).unwrap().put("k", "v").unwrap();
    db.sync().unwrap();
    db.write(metadata("1")).unwrap();
    assert!(open(&Arc::new(fs.crash_clone(Keep::Nothing, 0))).metadata("position").is_none(), "the cut can lose it");
    db.sync().unwrap();
    let after = open(&Arc::new(fs.crash_clone(Keep::Nothing, 0)));
    assert_eq!(after.metadata("position").unwrap(), "1");
}
