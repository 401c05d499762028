//! Bugs that these tests found, each by the smallest case that shows it.

use siltstone::Result;
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
