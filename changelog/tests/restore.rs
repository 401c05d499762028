//! Restoring: sorted straight into tables, interrupted, to a target, and what is undone.

mod common;
#[path = "common/faults.rs"]
mod faults;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use common::{
    Contents, ManualClock, Random, contents, db_path, eager, file_sink, file_source, log_path, put, read_all, scratch,
    sim, small, without_empty, write_randomly,
};
use siltstone::fs::{Keep, SimFileSystem};
use siltstone::{Db, WriteBatch};
use siltstone_changelog::{
    Error, FileSink, FileSinkOptions, FileSource, MemorySink, Moment, Position, Restore, SOURCE_POSITION, ShipOptions,
    Shipper, Sink, Source, ship,
};

/// So small that the test's logs are sorted in many pieces.
const CHUNK_BYTES: u64 = 2 << 10;

fn restore<S: Source>(source: S, fs: &SimFileSystem) -> Restore<S> {
    restore_with(source, Arc::new(fs.clone()))
}

fn restore_with<S: Source>(source: S, fs: Arc<dyn siltstone::fs::FileSystem>) -> Restore<S> {
    let options = siltstone::Options::new().memory_bytes(4 << 20).background_threads(1);
    Restore::new(source).into_with(db_path(), options).file_system(fs).chunk_bytes(CHUNK_BYTES)
}

/// A shipped log, what it stands for, and its last number.
fn shipped(seed: u64, batches: u64) -> (SimFileSystem, Contents, u64) {
    let db = small(&sim().0).open(db_path()).unwrap();
    let remote = SimFileSystem::new();
    let shipper = ship(&db, file_sink(&remote, 4 << 10).unwrap(), eager(&Arc::default())).unwrap();
    write_randomly(&db, &mut Random(seed), batches).unwrap();
    shipper.stop().unwrap();
    (remote, without_empty(contents(&db)), db.last_seqno())
}

#[test]
fn what_is_sorted_into_tables_is_what_was_shipped() {
    for seed in 0..12 {
        let (remote, expected, last_seqno) = shipped(seed, 400);
        for chunk_bytes in [0, 1 << 10, 8 << 10, 1 << 30] {
            let fs = SimFileSystem::new();
            let (db, position) = restore(file_source(&remote), &fs).chunk_bytes(chunk_bytes).run().unwrap();
            let check = |db: &Db, when: &str| {
                assert!(without_empty(contents(db)) == expected, "seed {seed}, {chunk_bytes} bytes, {when}");
                assert_eq!(db.last_seqno(), last_seqno, "seed {seed}, {chunk_bytes} bytes, {when}");
                assert!(db.verify().is_ok(), "seed {seed}, {chunk_bytes} bytes, {when}");
            };
            assert_eq!(position, file_source(&remote).bounds().unwrap().1);
            check(&db, "restored");
            db.wait_for_compaction().unwrap();
            check(&db, "compacted");
            db.close().unwrap();
            let again = small(&fs.crash_clone(Keep::Nothing, 0)).open(db_path()).unwrap();
            check(&again, "after a power cut");
            // And it ships on.
            let shipper = ship(&again, file_sink(&remote, 4 << 10).unwrap(), eager(&Arc::default())).unwrap();
            assert_eq!(shipper.lag(), 0);
            shipper.stop().unwrap();
        }
    }
}

#[test]
fn tables_are_written_past_the_log_and_the_memtables() {
    let (remote, ..) = shipped(1, 2000);
    let fs = SimFileSystem::new();
    let (db, _) = restore(file_source(&remote), &fs).chunk_bytes(1 << 20).run().unwrap();
    let refused = db.changes(1).err();
    assert!(matches!(refused, Some(siltstone::Error::NotRetained { .. })), "{refused:?}: it is in the log");
}

/// Restores as often as it takes until nothing is interrupted any more; how often that was.
fn restore_on(fs: &SimFileSystem, remote: &SimFileSystem) -> (Db, u64) {
    for runs in 1.. {
        let flag = Arc::new(AtomicBool::new(false));
        let (set, mut reports) = (flag.clone(), 0);
        let restore = restore(file_source(remote), fs).interrupt_on(flag).on_progress(move |_| {
            reports += 1;
            set.store(reports == 2, Ordering::Relaxed);
        });
        match restore.run() {
            Ok((db, _)) => return (db, runs),
            Err(Error::Interrupted { position }) => {
                let db = small(&fs.crash_clone(Keep::All, 0)).open(db_path()).unwrap();
                assert_eq!(db.metadata(SOURCE_POSITION).as_deref(), Some(position.as_bytes()));
            }
            Err(error) => panic!("{error}"),
        }
    }
    unreachable!()
}

#[test]
fn an_interrupted_restore_goes_on_where_it_was() {
    let (remote, expected, last_seqno) = shipped(2, 300);
    let fs = SimFileSystem::new();
    let (db, runs) = restore_on(&fs, &remote);
    assert!(runs > 3, "{runs} runs");
    assert_eq!((without_empty(contents(&db)), db.last_seqno()), (expected, last_seqno));
}

/// What is in is a first part of the log, and the position is not ahead of it; another run comes to the end.
fn check_resumed(fs: &SimFileSystem, remote: &SimFileSystem, expected: &Contents, last_seqno: u64, what: &str) {
    let db = small(&fs.crash_clone(Keep::All, 0)).open(db_path()).unwrap_or_else(|error| panic!("{what}: {error}"));
    if let Some(position) = db.metadata(SOURCE_POSITION) {
        let text = String::from_utf8(position.to_vec()).unwrap();
        let (_, seqno) = text.split_once(':').unwrap();
        assert!(seqno.parse::<u64>().unwrap() <= db.last_seqno(), "{what}: {text} is ahead of {}", db.last_seqno());
    }
    match restore(file_source(remote), fs).run() {
        Ok((again, _)) => {
            assert!(without_empty(contents(&again)) == *expected, "{what}");
            assert_eq!(again.last_seqno(), last_seqno, "{what}");
        }
        Err(Error::NotEmpty { .. }) => {
            let done = small(fs).open(db_path()).unwrap();
            assert!(without_empty(contents(&done)) == *expected, "{what}: finished");
        }
        Err(error) => panic!("{what}: {error}"),
    }
}

#[test]
fn power_cuts_at_every_call_of_a_sorted_restore() {
    let (remote, expected, last_seqno) = shipped(3, 60);
    let whole = SimFileSystem::new();
    restore(file_source(&remote), &whole).run().unwrap().0.close().unwrap();
    for n in 0..whole.call_count() {
        let fs = SimFileSystem::new();
        fs.stop_after(n);
        drop(restore(file_source(&remote), &fs).run());
        for (keep, seed) in [(Keep::Nothing, 0), (Keep::Some, n), (Keep::All, 0)] {
            let what = format!("call {n}, {keep:?}");
            check_resumed(&fs.crash_clone(keep, seed), &remote, &expected, last_seqno, &what);
        }
    }
    faults::record(3 * whole.call_count(), 3 * whole.call_count());
}

#[test]
fn every_failing_call_of_a_sorted_restore_is_an_error_and_it_goes_on() {
    let (remote, expected, last_seqno) = shipped(3, 40);
    let points = faults::enumerate(|injection| {
        let sim = SimFileSystem::new();
        let fs = faults::faulty(&sim);
        injection.plan(&fs);
        let done = restore_with(file_source(&remote), Arc::new(fs.clone())).run().map(drop);
        let happened = fs.injected().is_some();
        if happened {
            let what = format!("{injection:?}, {done:?}");
            check_resumed(&sim.crash_clone(Keep::All, 0), &remote, &expected, last_seqno, &what);
        }
        happened
    });
    faults::record(points, points);
}

/// A program with a database that is shipped, and its log.
struct Program {
    db: Db,
    shipper: Shipper,
    sink: MemorySink,
}

impl Program {
    fn new() -> Self {
        let db = small(&sim().0).open(db_path()).unwrap();
        let sink = MemorySink::new();
        let shipper = ship(&db, sink.clone(), eager(&Arc::default())).unwrap();
        Program { db, shipper, sink }
    }

    fn contents(&self) -> Contents {
        without_empty(contents(&self.db))
    }
}

#[test]
fn what_lies_after_the_target_is_undone_also_for_who_reads_the_log() {
    for seed in 0..20 {
        let (program, mut random) = (Program::new(), Random(seed));
        write_randomly(&program.db, &mut random, 80).unwrap();
        let target = program.shipper.flush().unwrap();
        let expected = program.contents();
        write_randomly(&program.db, &mut random, 1 + seed * 3).unwrap();
        let end = program.shipper.stop().unwrap();

        let fs = SimFileSystem::new();
        let restored = restore(program.sink.source(), &fs).run_to(&target).unwrap();
        assert_eq!(restored.position, end);
        assert!(matches!(restored.moment, Moment::Target { .. }), "{:?}", restored.moment);
        assert_eq!(without_empty(contents(&restored.db)), expected, "seed {seed}");
        // Sealed by shipping it.
        let shipper = ship(&restored.db, program.sink.clone(), eager(&Arc::default())).unwrap();
        shipper.stop().unwrap();
        let fresh = SimFileSystem::new();
        let (again, _) = restore(program.sink.source(), &fresh).run().unwrap();
        assert_eq!(without_empty(contents(&again)), expected, "seed {seed}: who reads the log from the beginning");
        assert_eq!(again.last_seqno(), restored.db.last_seqno());
    }
}

#[test]
fn every_case_of_a_target() {
    let program = Program::new();
    let words = program.db.keyspace("words", Default::default()).unwrap();
    let mut positions = Vec::new();
    for value in ["1", "2", "3"] {
        words.put("k", value).unwrap();
        positions.push(program.shipper.flush().unwrap());
    }
    program.shipper.stop().unwrap();
    let source = || program.sink.source();
    let value = |db: &Db| {
        let value = db.keyspace("words", Default::default()).unwrap().get("k").unwrap();
        value.map(|value| String::from_utf8(value.to_vec()).unwrap())
    };
    // The end: nothing to undo.
    let at_end = restore(source(), &SimFileSystem::new()).run_to(&positions[2]).unwrap();
    assert_eq!((value(&at_end.db).as_deref(), at_end.moment), (Some("3"), Moment::Target { undone_keys: 0 }));
    // The beginning: everything.
    let beginning = Position::from_bytes("0").unwrap();
    let empty = restore(source(), &SimFileSystem::new()).run_to(&beginning).unwrap();
    assert_eq!((value(&empty.db), empty.moment), (None, Moment::Target { undone_keys: 1 }));
    // Outside the log.
    let unknown = Position::from_bytes("77").unwrap();
    let newest = restore(source(), &SimFileSystem::new()).run_to(&unknown).unwrap();
    assert!(matches!(&newest.moment, Moment::Newest { reason } if reason.contains("77")), "{:?}", newest.moment);
    assert_eq!(value(&newest.db).as_deref(), Some("3"));
    // State from before, from then, and from after.
    for (local, is_usable) in [(0, true), (1, true), (2, false)] {
        let fs = SimFileSystem::new();
        let first = MemorySink::new();
        let batches = program.sink.batches();
        for batch in &batches[..=local] {
            first.clone().append(batch).unwrap();
        }
        first.clone().flush().unwrap();
        drop(restore(first.source(), &fs).run().unwrap());
        let again = restore(source(), &fs).reuse(true).run_to(&positions[1]);
        match again {
            Ok(restored) if is_usable => assert_eq!(value(&restored.db).as_deref(), Some("2"), "{local}"),
            Err(Error::Stale { reason, .. }) if !is_usable => assert!(reason.contains("ahead"), "{reason}"),
            other => panic!("{local}: {other:?}"),
        }
    }
}

#[test]
fn a_target_that_compaction_has_passed_is_restored_to_the_newest_state_instead() {
    let (fs, clock) = (SimFileSystem::new(), Arc::new(ManualClock::default()));
    let options = FileSinkOptions::new().segment_bytes(1).file_system(Arc::new(fs.clone())).clock(clock);
    let mut sink = FileSink::open_with(log_path(), options).unwrap();
    let mut positions = Vec::new();
    let change = |seqno: u64, value: &str| {
        let put = siltstone::Change::Put { keyspace: "words".into(), key: "k".into(), value: value.into() };
        siltstone::ChangeBatch::new(seqno, vec![put]).unwrap()
    };
    for (seqno, value) in [(1, "1"), (2, "2"), (3, "3"), (4, "4")] {
        sink.append(&change(seqno, value)).unwrap();
        positions.push(sink.flush().unwrap());
    }
    sink.cleaner().compact().unwrap();
    let run_to = |target: &Position| restore(file_source(&fs), &SimFileSystem::new()).run_to(target).unwrap();
    assert!(matches!(run_to(&positions[0]).moment, Moment::Newest { reason } if reason.contains("compaction")));
    assert_eq!(run_to(&positions[2]).moment, Moment::Target { undone_keys: 1 });
}

/// The end-to-end case of a stream task: inputs 1, 2, 3, 2, 97, -97 are committed, 98 and 99 are not.
#[test]
fn committed_inputs_count_and_others_are_taken_back() {
    let (dir, local, log) = scratch();
    let db = Db::open(&local).unwrap();
    let shipper = ship(&db, FileSink::open(&log).unwrap(), ShipOptions::new()).unwrap();
    let numbers = db.keyspace("numbers", Default::default()).unwrap();
    let process = |number: i32| {
        match number {
            0.. => numbers.put(number.to_string(), "seen").unwrap(),
            _ => numbers.delete((-number).to_string()).unwrap(),
        };
    };
    [1, 2, 3, 2, 97, -97].into_iter().for_each(process);
    let committed = shipper.flush().unwrap();
    [98, 99].into_iter().for_each(process);
    shipper.stop().unwrap();
    db.close().unwrap();

    let restore = Restore::new(FileSource::open(&log)).into(dir.path().join("again"));
    let restored = restore.run_to(&committed).unwrap();
    let keys = |db: &Db| -> Vec<String> {
        let entries = db.keyspace("numbers", Default::default()).unwrap().iter();
        entries.map(|entry| String::from_utf8(entry.unwrap().0.to_vec()).unwrap()).collect()
    };
    assert_eq!(keys(&restored.db), ["1", "2", "3"]);
    ship(&restored.db, FileSink::open(&log).unwrap(), ShipOptions::new()).unwrap().stop().unwrap();
    let gained = read_all(&FileSource::open(&log)).unwrap();
    let deleted: Vec<String> = gained.last().unwrap().changes().iter().map(|change| format!("{change:?}")).collect();
    assert_eq!(deleted.len(), 2);
    assert!(deleted.iter().all(|change| change.starts_with("Delete")), "{deleted:?}");
    let (again, _) = Restore::new(FileSource::open(&log)).into(dir.path().join("third")).run().unwrap();
    assert_eq!(keys(&again), ["1", "2", "3"]);
}

#[test]
fn a_database_that_is_followed_is_not_sorted_into() {
    let fs = SimFileSystem::new();
    let db = small(&fs).open(Path::new("/x")).unwrap();
    db.set_change_cursor("somebody", 1).unwrap();
    let refused = db.apply_sorted(vec![("a".into(), vec![("k", Some("v"))].into_iter())], 5);
    assert!(matches!(refused, Err(siltstone::Error::InvalidArgument(reason)) if reason.contains("somebody")));
    db.remove_change_cursor("somebody").unwrap();
    db.write(WriteBatch::new()).unwrap();
    db.apply(&put(1, "v"), &[] as &[(&str, &str)]).unwrap();
    let sorted = |last| db.apply_sorted(vec![("a".into(), vec![("k", Some("v"))].into_iter())], last);
    assert!(matches!(sorted(1), Err(siltstone::Error::InvalidArgument(_))), "the number is taken");
    sorted(7).unwrap();
    assert_eq!(db.last_seqno(), 7);
}
