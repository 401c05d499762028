use super::*;
use crate::batch::WriteBatch;
use crate::db::Db;
use crate::fs::{Keep, SimFileSystem};
use crate::keyspace::Keyspace;
use crate::testing::{
    DIRECTORY, eventually, files, fill, keyspace, manifest_state, open, options, set_metadata, store, wal, writer,
};

fn active_bytes(db: &Db) -> usize {
    store(db).live_trees().iter().map(|tree| tree.view().active.bytes()).sum()
}

/// How many tables and sealed memtables a keyspace has.
fn sealed_or_flushed(ks: &Keyspace) -> usize {
    let view = ks.tree().view();
    view.sealed.len() + view.version.tables().count()
}

#[test]
fn writes_go_to_their_keyspace_in_whatever_order_keyspaces_were_opened() {
    let fs = SimFileSystem::new();
    let names = ["e", "d", "c", "b", "a"];
    let check = |db: &Db, value: &str| {
        for name in names {
            assert_eq!(keyspace(db, name).get("k").unwrap().unwrap(), format!("{name}{value}"));
        }
    };
    let db = open(&fs);
    let keyspaces = names.map(|name| keyspace(&db, name));
    for (ks, name) in keyspaces.iter().zip(names) {
        ks.put("k", format!("{name}1")).unwrap();
    }
    check(&db, "1");
    // Reopened, they come by name.
    let db = open(&fs.crash_clone(Keep::All, 0));
    check(&db, "1");
    for name in names {
        keyspace(&db, name).put("k", format!("{name}2")).unwrap();
    }
    check(&db, "2");
}

#[test]
fn a_batch_of_another_log_begins_after_everything_that_is_here() {
    let db = open(&SimFileSystem::new());
    let ks = keyspace(&db, "ks");
    ks.put("k", "v").unwrap();
    let write_at = |first| {
        let mut batch = WriteBatch::new();
        batch.put(&ks, "k", "w");
        writer(&db).write_at(batch, first)
    };
    for first in [0, 1, MAX_SEQNO] {
        assert!(matches!(write_at(first), Err(Error::InvalidArgument(_))), "{first}");
    }
    assert_eq!((write_at(2).unwrap(), write_at(10).unwrap()), (2, 10));
    assert_eq!(write_at(MAX_SEQNO - 1).unwrap(), MAX_SEQNO - 1);
    assert!(matches!(ks.put("k", "x"), Err(Error::InvalidArgument(_))), "the numbers are used up");
    assert_eq!(ks.get("k").unwrap().unwrap(), "w");
}

#[test]
fn the_last_operation_of_a_batch_on_a_key_wins() {
    let db = open(&SimFileSystem::new());
    let ks = keyspace(&db, "ks");
    let mut batch = WriteBatch::new();
    batch.put(&ks, "a", "1").delete(&ks, "b").put(&ks, "b", "2").put(&ks, "a", "3").put(&ks, "c", "4").delete(&ks, "c");
    assert_eq!(db.write(batch).unwrap(), 6);
    assert_eq!(ks.get("a").unwrap().unwrap(), "3");
    assert_eq!(ks.get("b").unwrap().unwrap(), "2");
    assert!(ks.get("c").unwrap().is_none());
    assert_eq!((db.last_seqno(), ks.put("d", "5").unwrap()), (6, 7));
}

#[test]
fn a_batch_that_names_a_dropped_keyspace_writes_nothing() {
    let db = open(&SimFileSystem::new());
    let (ks, gone) = (keyspace(&db, "ks"), keyspace(&db, "gone"));
    assert!(db.drop_keyspace("gone").unwrap());
    let last = db.last_seqno();
    let mut batch = WriteBatch::new();
    batch.put(&ks, "k", "v").put(&gone, "k", "v");
    assert!(matches!(db.write(batch), Err(Error::KeyspaceDropped { name }) if name == "gone"));
    assert!(matches!(gone.put("k", "v"), Err(Error::KeyspaceDropped { .. })));
    assert_eq!((db.last_seqno(), ks.get("k").unwrap()), (last, None));
}

#[test]
fn metadata_is_set_and_removed_by_its_batch() {
    let db = open(&SimFileSystem::new());
    set_metadata(&db, "position", "7");
    assert_eq!(db.metadata("position").unwrap(), "7");
    let mut batch = WriteBatch::new();
    batch.metadata("position", None::<&str>);
    db.write(batch).unwrap();
    assert_eq!((db.metadata("position"), db.last_seqno()), (None, 0));
}

#[test]
fn what_is_written_is_counted_in_memory_and_log() {
    let db = open(&SimFileSystem::new());
    let (a, b) = (keyspace(&db, "a"), keyspace(&db, "b"));
    let mut batch = WriteBatch::new();
    batch.put(&a, "key", "value").metadata("position", Some("7")).put(&a, "k", "v").put(&b, "k", vec![7; 300]);
    let encoded_bytes = batch.encoded_bytes() as u64;
    db.write(batch).unwrap();
    let figures = |ks: &Keyspace| {
        let amplification = ks.metrics().amplification;
        (amplification.user_bytes, amplification.wal_bytes)
    };
    let (mut in_a, mut in_b) = (Vec::new(), Vec::new());
    crate::batch::encode_put(&mut in_a, a.id(), b"key", b"value");
    crate::batch::encode_put(&mut in_a, a.id(), b"k", b"v");
    crate::batch::encode_put(&mut in_b, b.id(), b"k", &[7; 300]);
    assert_eq!((figures(&a), figures(&b)), ((10, in_a.len() as u64), (301, in_b.len() as u64)));
    assert!(encoded_bytes > (in_a.len() + in_b.len()) as u64, "metadata is nobody's");
    let mut unlogged = WriteBatch::new();
    unlogged.put(&a, "k", "v");
    db.write_with(unlogged, Durability::NoLog).unwrap();
    assert_eq!(figures(&a), (12, in_a.len() as u64));
    fill(&a, "", 300_000);
    assert_eq!(store(&db).memtable_bytes(), active_bytes(&db));
}

#[test]
fn a_full_memtable_is_sealed_by_the_write_that_filled_it_and_no_other() {
    let limit_bytes = 1 << 20;
    let db = options(&SimFileSystem::new()).memory_bytes(16 << 20).memtable_bytes(limit_bytes).open(DIRECTORY).unwrap();
    let (small, full) = (keyspace(&db, "small"), keyspace(&db, "full"));
    small.put("k", "v").unwrap();
    let mut puts = 0;
    while sealed_or_flushed(&full) == 0 {
        assert!(full.tree().view().active.bytes() < limit_bytes);
        puts += 1;
        full.put(format!("{puts:06}"), [7; 1000]).unwrap();
    }
    assert!(puts > 500, "{puts}");
    assert_eq!((sealed_or_flushed(&small), full.tree().view().active.entries()), (0, 0));
}

#[test]
fn half_of_the_write_buffers_full_seals_the_largest_until_the_rest_is_below() {
    // Half of the write buffers is 2 MiB here, and no memtable is full alone.
    let db = options(&SimFileSystem::new()).memory_bytes(8 << 20).open(DIRECTORY).unwrap();
    let keyspaces = ["a", "b", "c", "d"].map(|name| keyspace(&db, name));
    let sealed = || keyspaces.each_ref().map(sealed_or_flushed);
    let put_kib = |sizes: [usize; 4]| {
        let mut batch = WriteBatch::new();
        for (ks, kib) in keyspaces.iter().zip(sizes) {
            (0..kib).for_each(|i| _ = batch.put(ks, format!("{kib}-{i}"), [i as u8; 1000]));
        }
        db.write(batch).unwrap();
    };
    put_kib([100, 200, 300, 400]);
    assert_eq!(sealed(), [0; 4]);
    put_kib([300, 1000, 900, 100]);
    assert_eq!(sealed(), [0, 1, 1, 0], "with the largest gone there still is too much");
    assert!(active_bytes(&db) < 2 << 20);
}

#[test]
fn the_next_log_segment_is_made_ready_without_another_write() {
    let db = open(&SimFileSystem::new());
    let ks = keyspace(&db, "ks");
    let before = wal(&db).file_bytes();
    ks.put("k", vec![1; 140_000]).unwrap();
    eventually("a segment is prepared", || wal(&db).file_bytes() > before);
}

#[test]
fn the_background_is_told_once_that_the_log_needs_a_segment() {
    let db = open(&SimFileSystem::new());
    let ks = keyspace(&db, "ks");
    db.wait_for_compaction().unwrap();
    let told = || store(&db).ahead.generation();
    let before = told();
    ks.put("k", "v").unwrap();
    assert_eq!(told(), before, "nothing is needed yet");
    ks.put("k", vec![1; 140_000]).unwrap();
    assert!(told() > before);
}

/// A roll waits for the file that is being made, and asks for the next one in the same commit: nothing was ever seen to be
/// ready in between, and the thread slept until half a second was over.
#[test]
fn what_is_needed_again_at_once_is_asked_for_again() {
    let db = open(&SimFileSystem::new());
    let ks = keyspace(&db, "ks");
    db.handle().pools.lock().drain(..).for_each(|mut pool| pool.stop());
    let told = || store(&db).ahead.generation();
    let before = told();
    ks.put("k", vec![1; 140_000]).unwrap();
    ks.put("k", "v").unwrap();
    assert_eq!(told(), before + 1, "once for one need");
    while store(&db).prepare_ahead() {}
    // It rolls, and needs the segment after the next.
    ks.put("k", vec![1; 140_000]).unwrap();
    assert_eq!(told(), before + 2);
}

#[test]
fn metadata_that_was_not_logged_is_not_taken_back_by_what_was() {
    let fs = SimFileSystem::new();
    let db = open(&fs);
    keyspace(&db, "ks").put("k", "v").unwrap();
    set_metadata(&db, "position", "old");
    let mut batch = WriteBatch::new();
    batch.metadata("position", Some("new"));
    db.write_with(batch, Durability::NoLog).unwrap();
    db.close().unwrap();
    assert_eq!(open(&fs).metadata("position").unwrap(), "new");
}

#[test]
fn nothing_is_written_after_a_panic_in_the_middle() {
    let db = open(&SimFileSystem::new());
    let ks = keyspace(&db, "ks");
    let panics = || writer(&db).with_state(|_| panic!("as asked for"));
    assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(panics)).is_err());
    assert!(matches!(ks.put("k", "v"), Err(Error::ReadOnly { .. })));
}

#[test]
fn only_what_was_not_logged_is_flushed_by_a_close() {
    let fs = SimFileSystem::new();
    let db = open(&fs);
    let (logged, unlogged) = (keyspace(&db, "logged"), keyspace(&db, "unlogged"));
    logged.put("k", "v").unwrap();
    let mut batch = WriteBatch::new();
    batch.put(&unlogged, "k", "v");
    db.write_with(batch, Durability::NoLog).unwrap();
    assert_eq!(db.changes(1).unwrap().count(), 1);
    let killed = open(&fs.crash_clone(Keep::All, 0));
    assert!(keyspace(&killed, "logged").get("k").unwrap().is_some());
    assert!(keyspace(&killed, "unlogged").get("k").unwrap().is_none());
    db.close().unwrap();
    let tables = manifest_state(&fs).keyspaces.into_values().map(|ks| (ks.name, ks.levels[0].len()));
    assert_eq!(tables.collect::<Vec<_>>(), [("logged".to_owned(), 0), ("unlogged".to_owned(), 1)]);
    assert_eq!(files(&fs, "table").len(), 1);
    let db = open(&fs);
    for name in ["logged", "unlogged"] {
        assert_eq!(keyspace(&db, name).get("k").unwrap().unwrap(), "v");
    }
}
