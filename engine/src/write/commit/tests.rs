use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use super::*;
use crate::clock::{Clock, ManualClock};
use crate::fs::{Fault, FaultFileSystem, Keep, Op, SimFileSystem};
use crate::testing::{DIRECTORY, files, keyspace, open, options, set_metadata, store, wal, writer};

#[test]
fn a_batch_belongs_to_the_database_that_its_keyspaces_are_of() {
    let (one, other) = (open(&SimFileSystem::new()), open(&SimFileSystem::new()));
    let ks = keyspace(&one, "ks");
    keyspace(&other, "ks");
    let mut batch = WriteBatch::new();
    batch.put(&ks, "k", "v");
    assert!(matches!(other.write(batch.clone()), Err(Error::InvalidArgument(_))));
    assert!(matches!(writer(&other).write_at(batch.clone(), 1), Err(Error::InvalidArgument(_))));
    assert_eq!((other.last_seqno(), one.write(batch).unwrap()), (0, 1));
    set_metadata(&other, "metadata alone", "belongs anywhere");
}

#[test]
fn an_empty_batch_answers_with_the_last_number() {
    let db = open(&SimFileSystem::new());
    let ks = keyspace(&db, "ks");
    assert_eq!(db.write(WriteBatch::new()).unwrap(), 0);
    assert_eq!((ks.put("k", "v").unwrap(), ks.delete("k").unwrap()), (1, 2));
    assert_eq!(db.write(WriteBatch::new()).unwrap(), 2);
}

#[test]
fn what_is_acknowledged_as_synced_is_on_storage() {
    let fs = SimFileSystem::new();
    let db = open(&fs);
    let ks = keyspace(&db, "ks");
    let kept = |key: &str| {
        let db = open(&fs.crash_clone(Keep::Nothing, 0));
        keyspace(&db, "ks").get(key).unwrap().is_some()
    };
    ks.put("buffered", "v").unwrap();
    assert!(!kept("buffered"));
    let mut batch = WriteBatch::new();
    batch.put(&ks, "synced", "v");
    assert_eq!(db.write_with(batch, Durability::Synced).unwrap(), 2);
    assert!(kept("buffered") && kept("synced"));
    let mut metadata = WriteBatch::new();
    metadata.metadata("position", Some("7"));
    db.write_with(metadata, Durability::Synced).unwrap();
    assert_eq!(open(&fs.crash_clone(Keep::Nothing, 0)).metadata("position").unwrap(), "7");
    ks.put("later", "v").unwrap();
    db.sync().unwrap();
    assert!(kept("later"));
}

#[test]
fn a_failed_sync_ends_all_writing() {
    for by_batch in [true, false] {
        let sim = SimFileSystem::new();
        let fs = FaultFileSystem::new(Arc::new(sim.clone()));
        let db = options(&sim).file_system(Arc::new(fs.clone())).open(DIRECTORY).unwrap();
        let ks = keyspace(&db, "ks");
        ks.put("k", "v").unwrap();
        fs.only(Op::MappedSync);
        fs.fail_at(1, Fault::Io);
        let mut batch = WriteBatch::new();
        batch.put(&ks, "k", "w");
        let failed = if by_batch { db.write_with(batch, Durability::Synced).map(drop) } else { db.sync() };
        assert!(matches!(failed, Err(Error::Io { .. })));
        assert!(matches!(ks.put("k", "x"), Err(Error::ReadOnly { .. })));
        assert!(matches!(db.sync(), Err(Error::ReadOnly { .. })));
        assert!(ks.get("k").unwrap().is_some());
    }
}

#[test]
fn dropping_a_keyspace_takes_a_number_of_its_own_and_is_durable() {
    let fs = SimFileSystem::new();
    let db = open(&fs);
    let ks = keyspace(&db, "ks");
    ks.put("k", "v").unwrap();
    assert_eq!(writer(&db).drop_keyspace(ks.id(), None).unwrap(), 2);
    assert_eq!((db.last_seqno(), wal(&db).synced_seqno()), (2, 2));
    assert!(open(&fs.crash_clone(Keep::Nothing, 0)).keyspaces().is_empty());
}

#[test]
fn a_writer_keeps_its_small_scratch_memory_and_gives_a_large_one_back() {
    let db = open(&SimFileSystem::new());
    let ks = keyspace(&db, "ks");
    ks.put("k", [7; 1000]).unwrap();
    let scratch = SCRATCH.take();
    assert!(scratch.capacity() >= 1000);
    SCRATCH.set(scratch);
    ks.put("k", vec![7; SCRATCH_KEEP_BYTES + 1]).unwrap();
    assert_eq!(SCRATCH.take().capacity(), 0);
}

#[test]
fn debt_of_either_kind_holds_writers_back() {
    let clock = Arc::new(ManualClock::default());
    let db = options(&SimFileSystem::new()).clock(clock.clone()).open(DIRECTORY).unwrap();
    let ks = keyspace(&db, "ks");
    let delay_of_a_kib = || {
        let before = clock.now();
        (0..100).for_each(|_| writer(&db).make_room(1024).unwrap());
        (clock.now() - before).as_micros() / 100
    };
    ks.put("k", "v").unwrap();
    assert_eq!(delay_of_a_kib(), 0);
    writer(&db).pressure.set(100_000);
    assert_eq!(delay_of_a_kib(), 100);
    let limit_bytes = store(&db).limits.write_buffer_bytes;
    let used_bytes = limit_bytes / 8 * 7;
    let grown_bytes = used_bytes - store(&db).memtable_bytes();
    store(&db).grow_memtables(grown_bytes);
    let of_memory = u128::from(memtable_delay_ns_per_kib(used_bytes, limit_bytes)) / 1000;
    assert!(of_memory > 2);
    assert!(delay_of_a_kib().abs_diff(100 + of_memory) <= 1, "both together");
    writer(&db).pressure.set(0);
    assert!(delay_of_a_kib().abs_diff(of_memory) <= 1);
    store(&db).shrink_memtables(grown_bytes);
    assert_eq!(delay_of_a_kib(), 0);
}

/// With the flush held up, the write buffers fill and the writer has to wait; it goes on when the flush does.
#[test]
fn a_writer_waits_for_room_and_never_goes_past_the_write_buffers() {
    let fs = SimFileSystem::new();
    let db = options(&fs).clock(Arc::new(ManualClock::default())).open(DIRECTORY).unwrap();
    let ks = keyspace(&db, "ks");
    let limit_bytes = store(&db).limits.write_buffer_bytes;
    let (written, most_bytes) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let flushing = ks.tree().flushing.lock();
    std::thread::scope(|scope| {
        let writing = scope.spawn(|| {
            for i in 0..400 {
                ks.put(format!("{i:06}"), vec![1; 10_000]).unwrap();
                written.store(i + 1, Ordering::SeqCst);
                most_bytes.fetch_max(store(&db).memtable_bytes(), Ordering::SeqCst);
            }
        });
        while store(&db).memtable_bytes() < limit_bytes {
            std::thread::yield_now();
        }
        // Nothing happens now. The test cannot fail for want of time, only miss what is wrong.
        std::thread::sleep(Duration::from_millis(100));
        assert!(!writing.is_finished() && written.load(Ordering::SeqCst) < 300);
        drop(flushing);
        writing.join().unwrap();
    });
    // One write, and the new memtable that comes with a seal.
    assert!(most_bytes.load(Ordering::SeqCst) < limit_bytes + (200 << 10), "{most_bytes:?}");
    assert!(!files(&fs, "table").is_empty());
}

#[test]
fn a_writer_that_waits_for_room_learns_of_a_failure() {
    let db = open(&SimFileSystem::new());
    let ks = keyspace(&db, "ks");
    store(&db).grow_memtables(store(&db).limits.write_buffer_bytes);
    store(&db).health.fail("a test", &Error::InvalidArgument("on purpose".to_owned()));
    assert!(matches!(ks.put("k", "v"), Err(Error::ReadOnly { reason }) if reason.contains("on purpose")));
}
