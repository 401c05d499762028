//! Bugs that these tests found, each by the smallest case that shows it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use siltstone::fs::{Keep, Op, SimFileSystem};
use siltstone::{Durability, Keyspace, Result, WriteBatch};
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
    let (writer, files) = (late.clone(), sim.clone());
    let fs = HookFileSystem::new(Arc::new(sim.clone()), move |moment| {
        // Not of a file that is being made ready for the log, and holds nothing yet: a commit may be waiting for that.
        let holds_records = || files.read(moment.path).is_ok_and(|bytes| bytes.iter().any(|&byte| byte != 0));
        if (moment.side, moment.op) == (Side::After, Op::MappedSync) && holds_records() {
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

/// A batch of another log that is refused leaves no trace, not even the keyspaces that it would have created; and none
/// is taken for applied once the database is closed.
#[test]
fn a_refused_batch_of_another_log_creates_no_keyspace() -> Result<()> {
    use siltstone::{Change, ChangeBatch, Error, KeyspaceName};
    let db = tiny().file_system(Arc::new(SimFileSystem::new())).open("/db")?;
    let put = |name: &str, key: &[u8]| Change::Put { keyspace: name.into(), key: key.into(), value: "v".into() };
    let long = vec![0; siltstone::MAX_KEY_BYTES + 1];
    let drop = Change::DropKeyspace { keyspace: KeyspaceName::from("a") };
    for other in [put("a/b", b"k"), put("b", &long), drop] {
        let batch = ChangeBatch::new(1, vec![put("a", b"k"), other])?;
        assert!(matches!(db.apply::<&str>(&batch, &[]), Err(Error::InvalidArgument(_))));
        assert!(db.keyspaces().is_empty(), "{:?}", db.keyspaces());
    }
    let batch = ChangeBatch::new(1, vec![put("a", b"k")])?;
    assert!(matches!(db.apply(&batch, &[("", "v")]), Err(Error::InvalidArgument(_))));
    assert!(db.keyspaces().is_empty());
    assert_eq!(db.apply::<&str>(&batch, &[])?, 1);
    db.close()?;
    assert!(matches!(db.apply::<&str>(&batch, &[]), Err(Error::Closed)), "though it is in");
    Ok(())
}

/// Memtables of dropped keyspaces that a snapshot keeps counted as memory of writers, and were never flushed: at some
/// point every write waited for ever.
#[test]
fn dropped_keyspaces_that_a_snapshot_keeps_do_not_stop_writers() -> Result<()> {
    let db = siltstone::Options::new().memory_bytes(4 << 20).file_system(Arc::new(SimFileSystem::new())).open("/db")?;
    let (done, answer) = std::sync::mpsc::channel();
    let writing = db.clone();
    std::thread::spawn(move || {
        let write = || -> Result<()> {
            let mut snapshots = Vec::new();
            for round in 0..8u32 {
                let keyspace = writing.keyspace("a", siltstone::KeyspaceOptions::new())?;
                (0..80u32).try_for_each(|n| keyspace.put(n.to_be_bytes(), vec![round as u8; 10 << 10]).map(drop))?;
                snapshots.push((writing.snapshot(), keyspace));
                writing.drop_keyspace("a")?;
            }
            for (round, (snapshot, keyspace)) in snapshots.iter().enumerate() {
                assert_eq!(snapshot.get(keyspace, 3u32.to_be_bytes())?.unwrap()[0], round as u8);
            }
            Ok(())
        };
        done.send(write())
    });
    answer.recv_timeout(std::time::Duration::from_secs(60)).expect("writes go on")
}

/// What a handle of a dropped keyspace cannot do is an error, flush and compact too, and also for a flush that is under
/// way when the keyspace goes: its caller was told that all of it is durable.
#[test]
fn a_flush_of_a_dropped_keyspace_says_so() -> Result<()> {
    let doomed: Arc<Mutex<Option<siltstone::Db>>> = Arc::default();
    let hook = {
        let doomed = doomed.clone();
        move |moment: &siltstone_tests::hook::Moment<'_>| {
            if (moment.side, moment.op) == (Side::Before, Op::Create) {
                let db = doomed.lock().unwrap().take();
                db.iter().for_each(|db| assert!(db.drop_keyspace("a").unwrap()));
            }
        }
    };
    let file_system = HookFileSystem::new(Arc::new(SimFileSystem::new()), hook);
    let db = tiny().file_system(Arc::new(file_system)).open("/db")?;
    let keyspace = db.keyspace("a", tiny_keyspace())?;
    keyspace.put("k", "v")?;
    *doomed.lock().unwrap() = Some(db.clone());
    let dropped = |answer: Result<()>| matches!(answer, Err(siltstone::Error::KeyspaceDropped { .. }));
    assert!(dropped(keyspace.flush()), "dropped while its table was created");
    assert!(dropped(keyspace.flush()) && dropped(keyspace.compact()), "and afterwards");
    Ok(())
}

/// A keyspace that was dropped while a snapshot lived said that it still had keys; and once closed, its handle kept
/// their memory.
#[test]
fn a_dropped_keyspace_is_empty_and_a_close_lets_go_of_it() -> Result<()> {
    let db = tiny().file_system(Arc::new(SimFileSystem::new())).open("/db")?;
    let keyspace = db.keyspace("a", tiny_keyspace())?;
    keyspace.put("k", "v")?;
    keyspace.flush()?;
    let snapshot = db.snapshot();
    db.drop_keyspace("a")?;
    assert_eq!(keyspace.approximate_len(), 0);
    assert_eq!(snapshot.get(&keyspace, "k")?.unwrap(), "v", "which the snapshot does not mind");
    let entries = || keyspace.metrics().amplification.levels.iter().map(|level| level.entries).sum::<u64>();
    assert_eq!(entries(), 1);
    db.close()?;
    assert_eq!(entries(), 0);
    Ok(())
}

/// Metadata that was not logged was there until the close, and after the reopening it was what the log had said before:
/// a position that went back.
#[test]
fn unlogged_metadata_outlives_a_close() -> Result<()> {
    use siltstone::{Durability, WriteBatch};
    let file_system = Arc::new(SimFileSystem::new());
    let open = || tiny().file_system(file_system.clone()).open("/db");
    let db = open()?;
    let keyspace = db.keyspace("a", tiny_keyspace())?;
    let write = |position: Option<&str>, durability| {
        let mut batch = WriteBatch::new();
        batch.put(&keyspace, "k", "v").metadata("position", position).metadata("constant", Some("c"));
        db.write_with(batch, durability)
    };
    write(Some("1"), Durability::Buffered)?;
    write(Some("2"), Durability::NoLog)?;
    db.close()?;
    let db = open()?;
    assert_eq!(db.metadata("position").unwrap(), "2");
    let mut removal = WriteBatch::new();
    removal.metadata("position", None::<&str>);
    db.write_with(removal, Durability::NoLog)?;
    drop(db);
    let db = open()?;
    assert_eq!((db.metadata("position"), db.metadata("constant")), (None, Some("c".into())));
    assert!(db.verify().is_ok());
    Ok(())
}

/// A follower that begins in the middle of a segment was told that there is something to read, when it was all before
/// its place: it came back at once from a wait, with nothing.
#[test]
fn waiting_for_changes_minds_where_they_begin() -> Result<()> {
    let db = tiny().file_system(Arc::new(SimFileSystem::new())).open("/db")?;
    let keyspace = db.keyspace("a", tiny_keyspace())?;
    keyspace.put_all([("a", "1"), ("b", "2")])?;
    let now = std::time::Duration::ZERO;
    assert!(db.changes(2)?.wait(now), "the batch that holds 2");
    let mut next = db.changes(3)?;
    assert!(!next.wait(now), "caught up");
    keyspace.put("c", "3")?;
    assert!(next.wait(now));
    assert_eq!(next.next().unwrap()?.first_seqno(), 3);
    Ok(())
}

/// Once the log of a dropped keyspace was let go of, a write through its handle said that keyspace "#1" was dropped.
#[test]
fn a_dropped_keyspace_is_known_by_its_name() -> Result<()> {
    let db = tiny().file_system(Arc::new(SimFileSystem::new())).open("/db")?;
    let (dropped, other) = (db.keyspace("a", tiny_keyspace())?, db.keyspace("b", tiny_keyspace())?);
    dropped.put("k", "v")?;
    db.drop_keyspace("a")?;
    while db.changes(1).is_ok() {
        (0..100u32).try_for_each(|n| other.put(n.to_be_bytes(), [7; 2000]).map(drop))?;
        db.flush()?;
        db.wait_for_compaction()?;
    }
    let named = |answer: Result<u64>| matches!(answer, Err(siltstone::Error::KeyspaceDropped { name }) if name == "a");
    assert!(named(dropped.put("k", "v")) && named(dropped.delete_all(["k"])));
    Ok(())
}

/// A follower holds back the numbers that it has not read, and so not a segment in which there is nothing but metadata:
/// that was let go of between its choice as the next one and its opening, and the follower got the missing file as an
/// error.
#[test]
fn a_follower_passes_over_metadata_that_is_let_go_of() -> Result<()> {
    let sim = SimFileSystem::new();
    let armed = Arc::new(Mutex::new(None::<siltstone::Db>));
    let (to_flush, files) = (armed.clone(), sim.clone());
    let fs = HookFileSystem::new(Arc::new(sim), move |moment| {
        let is_log = moment.path.extension().is_some_and(|extension| extension == "wal");
        if (moment.side, moment.op) == (Side::Before, Op::Open)
            && is_log
            && let Some(db) = to_flush.lock().unwrap().take()
        {
            db.flush().unwrap();
            while files.paths().iter().any(|path| path == moment.path) {
                std::thread::yield_now();
            }
        }
    });
    let db = tiny().background_threads(1).file_system(Arc::new(fs)).open("/db")?;
    let keyspace = db.keyspace("a", tiny_keyspace())?;
    keyspace.put("k", "before")?;
    let mut changes = db.changes(1)?;
    assert_eq!(changes.next().unwrap()?.last_seqno(), 1);
    for number in 0..100 {
        let mut batch = WriteBatch::new();
        batch.metadata(&format!("entry {}", number % 10), Some(vec![number; 3000]));
        db.write(batch)?;
    }
    keyspace.put("k", "after")?;
    *armed.lock().unwrap() = Some(db.clone());
    assert_eq!(changes.next().unwrap()?.last_seqno(), 2);
    assert!(armed.lock().unwrap().is_none(), "the log was let go of in the middle");
    Ok(())
}

/// Those who waited for a sync waited for its lock, and got it one after the other; who was served took it again before
/// them, for its next write alone: sixteen threads shared a sync between less than two.
#[test]
fn writers_that_wait_for_a_sync_share_the_next() -> Result<()> {
    const WRITERS: u64 = 8;
    const WRITES: u64 = 40;
    let syncs = Arc::new(AtomicU64::new(0));
    let counted = syncs.clone();
    let fs = HookFileSystem::new(Arc::new(SimFileSystem::new()), move |moment| {
        if moment.op == Op::MappedSync && moment.side == Side::Before {
            counted.fetch_add(1, Ordering::Relaxed);
            // About what storage takes: long enough for all others to come meanwhile.
            std::thread::sleep(Duration::from_millis(1));
        }
    });
    let options = tiny().file_system(Arc::new(fs)).memory_bytes(4 << 20).durability(Durability::Synced);
    let db = options.open("/db")?;
    let keyspace = db.keyspace("a", Default::default())?;
    let before = syncs.load(Ordering::Relaxed);
    std::thread::scope(|scope| {
        let write = |writer: u64| {
            let keyspace = &keyspace;
            move || (0..WRITES).try_for_each(|i| keyspace.put((writer * WRITES + i).to_be_bytes(), "value").map(drop))
        };
        let writers: Vec<_> = (0..WRITERS).map(|writer| scope.spawn(write(writer))).collect();
        writers.into_iter().try_for_each(|writer| writer.join().unwrap())
    })?;
    let syncs = syncs.load(Ordering::Relaxed) - before;
    assert!(syncs >= WRITES, "no writer can have two writes in one sync: {syncs}");
    assert!(syncs < WRITERS * WRITES / 2, "{syncs} syncs for {} writes", WRITERS * WRITES);
    Ok(())
}
