use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::batch::WriteBatch;
use crate::db::Db;
use crate::error::{Error, Result};
use crate::fs::{Fault, FaultFileSystem, Keep, SimFileSystem};
use crate::options::Durability;
use crate::snapshot::Snapshot;
use crate::testing::{DIRECTORY, fill, keyspace, open, options, set_metadata};

const CHECKPOINT: &str = "checkpoint";

type Contents = BTreeMap<String, Vec<(Vec<u8>, Vec<u8>)>>;

fn contents_at(db: &Db, snapshot: &Snapshot) -> Contents {
    let read = |name: &String| {
        let entries = snapshot.iter(&keyspace(db, name));
        entries.map(|entry| entry.map(|(key, value)| (key.to_vec(), value.to_vec())).unwrap()).collect()
    };
    db.keyspaces().into_iter().map(|name| (name.clone(), read(&name))).collect()
}

fn contents(db: &Db) -> Contents {
    contents_at(db, &db.snapshot())
}

fn open_checkpoint(fs: &SimFileSystem) -> Result<Db> {
    options(fs).open(CHECKPOINT)
}

/// Tables on several levels, memtables, a dropped keyspace, and metadata that was set and removed.
fn filled(fs: &SimFileSystem) -> Db {
    let db = open(fs);
    let (a, b) = (keyspace(&db, "a"), keyspace(&db, "b"));
    fill(&a, "old", 300_000);
    a.compact().unwrap();
    fill(&b, "b", 200_000);
    b.flush().unwrap();
    keyspace(&db, "dropped").put("k", "v").unwrap();
    db.drop_keyspace("dropped").unwrap();
    set_metadata(&db, "kept", "1");
    set_metadata(&db, "removed", "1");
    let mut both = WriteBatch::new();
    both.put(&a, "x", "in memory").put(&b, "x", "in memory").metadata("kept", Some("2")).metadata("again", Some("1"));
    db.write(both).unwrap();
    let mut last = WriteBatch::new();
    last.metadata("removed", None::<&str>).metadata("again", None::<&str>);
    db.write(last).unwrap();
    db
}

#[test]
fn it_is_the_database_of_its_moment() {
    let fs = SimFileSystem::new();
    let db = filled(&fs);
    let expected = contents(&db);
    let seqno = db.checkpoint(CHECKPOINT).unwrap();
    assert_eq!(seqno, db.last_seqno());
    // What comes later is not in it, and what compaction removes stays in it.
    let a = keyspace(&db, "a");
    fill(&a, "old", 300_000);
    a.compact().unwrap();
    db.flush().unwrap();
    let again = open_checkpoint(&fs).unwrap();
    assert_eq!((contents(&again), again.last_seqno()), (expected, seqno));
    assert_eq!(again.metadata("kept").unwrap(), "2");
    assert_eq!((again.metadata("removed"), again.metadata("again")), (None, None));
    assert!(again.verify().is_ok(), "{:?}", again.verify());
    // Both go on by themselves.
    keyspace(&again, "b").put("only", "there").unwrap();
    assert_eq!(keyspace(&db, "b").get("only").unwrap(), None);
    again.close().unwrap();
    db.close().unwrap();
    assert_eq!(keyspace(&open_checkpoint(&fs).unwrap(), "b").get("only").unwrap().unwrap(), "there");
}

#[test]
fn a_directory_that_holds_something_is_refused_and_left_alone() {
    let fs = SimFileSystem::new();
    let db = filled(&fs);
    db.checkpoint(CHECKPOINT).unwrap();
    let before = fs.paths();
    match db.checkpoint(CHECKPOINT) {
        Err(Error::InvalidArgument(reason)) => assert!(reason.contains("empty"), "{reason}"),
        other => panic!("{other:?}"),
    }
    assert_eq!(fs.paths(), before);
    db.close().unwrap();
    assert!(matches!(db.checkpoint("elsewhere"), Err(Error::Closed)));
}

#[test]
fn writes_go_on_meanwhile_and_batches_are_whole() {
    let fs = SimFileSystem::new();
    let db = filled(&fs);
    let (a, b) = (keyspace(&db, "a"), keyspace(&db, "b"));
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for number in 0u64.. {
                let mut both = WriteBatch::new();
                both.put(&a, "n", number.to_le_bytes()).put(&b, "n", number.to_le_bytes());
                both.put(&a, number.to_be_bytes(), [7; 500]).metadata("n", Some(number.to_le_bytes()));
                db.write(both).unwrap();
                if stop.load(Ordering::Relaxed) {
                    break;
                }
            }
        });
        for round in 0..10 {
            let directory = format!("checkpoint{round}");
            let seqno = db.checkpoint(&directory).unwrap();
            let again = options(&fs).open(&directory).unwrap();
            assert_eq!(again.last_seqno(), seqno);
            let number = |name: &str| keyspace(&again, name).get("n").unwrap();
            assert_eq!((number("a"), number("a")), (number("b"), again.metadata("n")), "{directory}");
            again.close().unwrap();
        }
        stop.store(true, Ordering::Relaxed);
    });
}

#[test]
fn what_was_written_without_the_log_is_in_it_once_flushed() {
    let fs = SimFileSystem::new();
    let db = open(&fs);
    let ks = keyspace(&db, "ks");
    let unlogged = |key: &str| {
        let mut batch = WriteBatch::new();
        batch.put(&ks, key, "1");
        db.write_with(batch, Durability::NoLog).unwrap();
    };
    unlogged("flushed");
    ks.flush().unwrap();
    unlogged("in memory");
    ks.put("logged", "1").unwrap();
    db.checkpoint(CHECKPOINT).unwrap();
    let again = open_checkpoint(&fs).unwrap();
    let keys: Vec<_> = contents(&again)["ks"].iter().map(|(key, _)| String::from_utf8(key.clone()).unwrap()).collect();
    assert_eq!(keys, ["flushed", "logged"]);
}

/// Whatever call fails: an error, the database goes on, and what is there is no database; or all of it was made.
#[test]
fn a_call_that_fails_leaves_nothing_and_harms_nothing() {
    for at in 1.. {
        let sim = SimFileSystem::new();
        let fault = FaultFileSystem::new(Arc::new(sim.clone()));
        let db = options(&sim).file_system(Arc::new(fault.clone())).open(DIRECTORY).unwrap();
        let ks = keyspace(&db, "ks");
        fill(&ks, "k", 50_000);
        ks.flush().unwrap();
        ks.put("last", "1").unwrap();
        // The background has nothing left to do, so that every call is the checkpoint's.
        db.wait_for_compaction().unwrap();
        let expected = contents(&db);
        fault.fail_at(at, Fault::Io);
        let made = db.checkpoint(CHECKPOINT);
        let failed = fault.injected().is_some();
        fault.clear();
        let crashed = sim.crash_clone(Keep::Nothing, 0);
        if made.is_ok() {
            assert_eq!(contents(&open_checkpoint(&crashed).unwrap()), expected, "at call {at}");
        } else {
            let is_current = |path: &Path| path.starts_with(CHECKPOINT) && path.ends_with("CURRENT");
            assert!(!crashed.paths().iter().any(|path| is_current(path)), "at call {at}");
            ks.put("goes on", "1").unwrap();
            db.checkpoint("another").unwrap();
            assert_eq!(contents(&options(&sim).open("another").unwrap()), contents(&db), "at call {at}");
        }
        if !failed {
            return;
        }
    }
}
