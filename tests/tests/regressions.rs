//! Bugs that these tests found, each by the smallest case that shows it.

use std::sync::{Arc, Mutex};

use siltstone::fs::{Keep, Op, SimFileSystem};
use siltstone::{Keyspace, Result};
use siltstone_tests::hook::{HookFileSystem, Side};
use siltstone_tests::log::{check_log, oldest_changes};
use siltstone_tests::options::{tiny, tiny_keyspace};

/// An empty memtable's bytes were taken off when it was flushed but had never been added: the sum went below zero, and
/// writers waited for memory that nobody held.
#[test]
fn a_flush_takes_off_what_was_counted() -> Result<()> {
    let dir = tempfile::tempdir().unwrap();
    let db = tiny().open(dir.path())?;
    let keyspaces = [db.keyspace("a", tiny_keyspace())?, db.keyspace("b", tiny_keyspace())?];
    let counted = |db: &siltstone::Db| db.metrics().memtable_bytes;
    let empty_bytes = counted(&db);
    for round in 0..50u32 {
        for keyspace in &keyspaces {
            keyspace.put(round.to_be_bytes(), "value")?;
            keyspace.flush()?;
        }
        // A flush is waited for by what it installs; what it takes off comes right after.
        db.wait_for_compaction()?;
        assert_eq!(counted(&db), empty_bytes, "round {round}");
    }
    db.drop_keyspace("b")?;
    assert_eq!(counted(&db), empty_bytes / 2);
    Ok(())
}

/// A table flushed while a snapshot lived holds two versions of a key. `compact` moved it to the bottom as it was and
/// never looked at it again.
#[test]
fn compact_drops_what_only_a_gone_snapshot_needed() -> Result<()> {
    let dir = tempfile::tempdir().unwrap();
    let db = tiny().open(dir.path())?;
    let keyspace = db.keyspace("a", tiny_keyspace())?;
    keyspace.put("k", "old")?;
    let snapshot = db.snapshot();
    keyspace.put("k", "new")?;
    keyspace.compact()?;
    assert_eq!(keyspace.approximate_len(), 2, "both versions are needed");
    drop(snapshot);
    keyspace.compact()?;
    assert_eq!(keyspace.approximate_len(), 1);
    assert_eq!(keyspace.get("k")?.unwrap(), "new");
    Ok(())
}

/// A memtable kept the length of a key that was searched for in 16 bits: bounds longer than any key landed anywhere,
/// and a debug build panicked.
#[test]
fn a_search_key_may_be_longer_than_any_stored() -> Result<()> {
    let dir = tempfile::tempdir().unwrap();
    let db = tiny().open(dir.path())?;
    let keyspace = db.keyspace("a", tiny_keyspace())?;
    let longest = vec![b'k'; siltstone::MAX_KEY_BYTES];
    keyspace.put_all([(&b"a"[..], "1"), (&longest, "2"), (b"z", "3")])?;
    keyspace.put(&longest, "4")?;
    for flushed in [false, true] {
        if flushed {
            keyspace.flush()?;
        }
        for len in [siltstone::MAX_KEY_BYTES + 1, siltstone::MAX_KEY_BYTES + 2, 200_000] {
            let long = vec![b'k'; len];
            let from = keyspace.range::<&[u8]>(&long[..]..).map(|entry| Ok(entry?.0)).collect::<Result<Vec<_>>>()?;
            assert_eq!(from, ["z"]);
            let to =
                keyspace.range::<&[u8]>(..&long[..]).rev().map(|entry| Ok(entry?.0)).collect::<Result<Vec<_>>>()?;
            assert_eq!(to, [&longest[..], b"a"]);
            assert_eq!((keyspace.get(&long)?, keyspace.prefix(&long).count()), (None, 0));
        }
    }
    Ok(())
}

/// A flush waited until the sealed memtables had left the tree; those of a keyspace that was dropped meanwhile stay as
/// long as a snapshot from before may read them, so that it waited for ever.
#[test]
fn a_flush_does_not_wait_for_a_dropped_keyspace() -> Result<()> {
    let armed = Arc::new(Mutex::new(None::<siltstone::Db>));
    let to_drop = armed.clone();
    let fs = HookFileSystem::new(Arc::new(SimFileSystem::new()), move |moment| {
        // In the middle of the flush, as its table is created.
        if (moment.side, moment.op) == (Side::Before, Op::Create)
            && let Some(db) = to_drop.lock().unwrap().take()
        {
            assert!(db.drop_keyspace("a").unwrap());
        }
    });
    let db = tiny().background_threads(1).file_system(Arc::new(fs)).open("/db")?;
    let keyspace = db.keyspace("a", tiny_keyspace())?;
    keyspace.put("k", "v")?;
    let snapshot = db.snapshot();
    *armed.lock().unwrap() = Some(db.clone());
    let (done, flushed) = std::sync::mpsc::channel();
    let flushing = keyspace.clone();
    std::thread::spawn(move || done.send(flushing.flush().is_ok()));
    // Long enough on any machine: what it waits for never came.
    assert!(flushed.recv_timeout(std::time::Duration::from_secs(60)).is_ok(), "the flush hangs");
    assert!(armed.lock().unwrap().is_none(), "the keyspace was dropped in the middle");
    assert_eq!(snapshot.get(&keyspace, "k")?.unwrap(), "v");
    db.flush()
}

/// Letting go of log wrote the last number of the moment after the log's sync into the manifest: a write in between
/// was lost by a power cut, but its number was passed over, and the log had a hole.
#[test]
fn the_manifest_is_never_ahead_of_the_log() -> Result<()> {
    let sim = SimFileSystem::new();
    let late = Arc::new(Mutex::new(None::<Keyspace>));
    let writer = late.clone();
    let fs = HookFileSystem::new(Arc::new(sim.clone()), move |moment| {
        if (moment.side, moment.op) == (Side::After, Op::MappedSync) {
            // A copy, so that the lock is not held over the write.
            let keyspace = writer.lock().unwrap().clone();
            if let Some(keyspace) = keyspace {
                keyspace.put("late", "after the sync").unwrap();
            }
        }
    });
    let options = || tiny().background_threads(1);
    let db = options().file_system(Arc::new(fs)).open("/db")?;
    let keyspace = db.keyspace("a", tiny_keyspace())?;
    *late.lock().unwrap() = Some(keyspace.clone());
    let mut releases = 0;
    for round in 0..40u32 {
        let before = oldest_changes(&db).0;
        for key in 0..20u32 {
            keyspace.put((round * 20 + key).to_be_bytes(), vec![b'v'; 1000])?;
        }
        keyspace.flush()?;
        db.wait_for_compaction()?;
        releases += u32::from(oldest_changes(&db).0 > before);
        let left = options().file_system(Arc::new(sim.crash_clone(Keep::Nothing, 0))).open("/db")?;
        check_log(&left, &[left.keyspace("a", tiny_keyspace())?]);
    }
    assert!(releases > 5, "the log was let go of {releases} times");
    late.lock().unwrap().take();
    Ok(())
}
