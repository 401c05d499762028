//! Compaction, retention and take-over of the log in files.

mod common;
#[path = "common/faults.rs"]
mod faults;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use common::{
    ManualClock, Random, contents, db_path, eager, log_path, put, read_all, scratch, small, without_empty,
    write_randomly,
};
use siltstone::fs::{Keep, SimFileSystem};
use siltstone::{Change, ChangeBatch, Clock, SeqNo};
use siltstone_changelog::{
    Error, FileSink, FileSinkOptions, FileSource, LogCleaner, Position, Restore, Sink, Source, ship,
};

/// The state that changes lead to.
type State = BTreeMap<String, BTreeMap<Vec<u8>, Vec<u8>>>;

fn apply(state: &mut State, batch: &ChangeBatch) {
    for change in batch.changes() {
        let keyspace = state.entry(change.keyspace().to_string()).or_default();
        match change {
            Change::Put { key, value, .. } => drop(keyspace.insert(key.to_vec(), value.to_vec())),
            Change::Delete { key, .. } => drop(keyspace.remove(&**key)),
            _ => keyspace.clear(),
        }
    }
    state.retain(|_, entries| !entries.is_empty());
}

fn state_of<'b>(batches: impl IntoIterator<Item = &'b ChangeBatch>) -> State {
    let mut state = State::new();
    batches.into_iter().for_each(|batch| apply(&mut state, batch));
    state
}

/// A batch of a few changes to few keys, after number `last`.
fn random_batch(random: &mut Random, last: SeqNo) -> ChangeBatch {
    let keyspace = |random: &mut Random| format!("ks{}", random.below(3)).as_str().into();
    let changes = (0..1 + random.below(4)).map(|_| {
        let key = format!("key{:02}", random.below(30)).into_bytes().into();
        match random.below(20) {
            0 => Change::DropKeyspace { keyspace: keyspace(random) },
            1..5 => Change::Delete { keyspace: keyspace(random), key },
            _ => {
                let value = vec![random.next() as u8; random.below(40) as usize].into();
                Change::Put { keyspace: keyspace(random), key, value }
            }
        }
    });
    let changes = changes.collect();
    // Numbers may be left out: writes that are not logged take them.
    let first = last + 1 + u64::from(last > 0) * random.below(2);
    ChangeBatch::new(first, changes).unwrap()
}

fn options(fs: &SimFileSystem, clock: &Arc<ManualClock>) -> FileSinkOptions {
    FileSinkOptions::new().segment_bytes(600).file_system(Arc::new(fs.clone())).clock(clock.clone())
}

fn open(options: FileSinkOptions) -> FileSink {
    FileSink::open_with(log_path(), options).unwrap()
}

fn source(fs: &SimFileSystem) -> FileSource {
    FileSource::open_on(Arc::new(fs.clone()), log_path())
}

fn log_bytes(fs: &SimFileSystem) -> usize {
    let is_segment = |path: &std::path::PathBuf| path.extension().is_some_and(|extension| extension == "log");
    // One may be removed meanwhile.
    fs.paths().into_iter().filter(is_segment).map(|path| fs.read(&path).map_or(0, |bytes| bytes.len())).sum()
}

/// A log of `count` batches that overwrite each other, the sink still open.
fn overwritten(fs: &SimFileSystem, options: FileSinkOptions, count: u64) -> (FileSink, State) {
    let (mut sink, mut random, mut state, mut last) = (open(options), Random(5), State::new(), 0);
    for _ in 0..count {
        let batch = random_batch(&mut random, last);
        last = batch.last_seqno();
        apply(&mut state, &batch);
        sink.append(&batch).unwrap();
        sink.flush().unwrap();
    }
    assert_eq!(state_of(&read_all(&source(fs)).unwrap()), state);
    (sink, state)
}

#[test]
fn whatever_is_compacted_when_the_state_is_the_same_for_who_begins_goes_on_or_follows() {
    let (mut resumed, mut refused, mut dropped) = (0, 0, 0);
    for seed in 0..60 {
        let (fs, clock, mut random) = (SimFileSystem::new(), Arc::new(ManualClock::default()), Random(seed));
        let options = || options(&fs, &clock).delete_retention(Duration::from_secs(100));
        let mut sink = open(options());
        let (mut state, mut last) = (State::new(), 0);
        let mut following = source(&fs).read(&source(&fs).bounds().unwrap().0).unwrap();
        let (mut followed, mut lost) = (State::new(), false);
        // What others had read by some time.
        let mut behind: Vec<(Position, State)> = Vec::new();
        for _ in 0..150 {
            match random.below(12) {
                0 => dropped += sink.cleaner().compact().unwrap().dropped_changes,
                1 => clock.sleep(Duration::from_secs(random.below(60))),
                2 => {
                    drop(sink);
                    sink = open(options());
                }
                3 => behind.push((sink.flush().unwrap(), state.clone())),
                4 if !lost => {
                    for next in following.by_ref() {
                        match next {
                            Ok((_, batch)) => apply(&mut followed, &batch),
                            Err(Error::PositionOutOfRange { .. }) => lost = true,
                            Err(error) => panic!("seed {seed}: {error}"),
                        }
                    }
                    assert!(lost || followed == state, "seed {seed}: who follows");
                }
                _ => {
                    let batch = random_batch(&mut random, last);
                    last = batch.last_seqno();
                    apply(&mut state, &batch);
                    sink.append(&batch).unwrap();
                    sink.flush().unwrap();
                }
            }
        }
        assert_eq!(sink.last_seqno().unwrap(), Some(last));
        assert_eq!(state_of(&read_all(&source(&fs)).unwrap()), state, "seed {seed}: who begins");
        assert_ne!(source(&fs).holds_whole_state().unwrap(), Some(false), "seed {seed}");
        for (position, mut had) in behind {
            match source(&fs).read(&position) {
                Ok(batches) => {
                    batches.for_each(|next| apply(&mut had, &next.unwrap().1));
                    assert_eq!(had, state, "seed {seed}: who goes on from {position}");
                    resumed += 1;
                }
                Err(Error::PositionOutOfRange { .. }) => refused += 1,
                Err(error) => panic!("seed {seed}: {error}"),
            }
        }
    }
    println!("{dropped} changes dropped; {resumed} went on, {refused} were too old");
    assert!(dropped > 1000 && resumed > 100 && refused > 50);
}

#[test]
fn a_compacted_log_is_about_as_large_as_the_state_and_is_restored_from() {
    let (local, remote, clock) = (SimFileSystem::new(), SimFileSystem::new(), Arc::new(ManualClock::default()));
    let db = small(&local).open(db_path()).unwrap();
    let sink = open(options(&remote, &clock).segment_bytes(4 << 10));
    let cleaner = sink.cleaner();
    let shipper = ship(&db, sink, eager(&clock)).unwrap();
    let mut random = Random(3);
    let mut sizes = Vec::new();
    for _ in 0..10 {
        write_randomly(&db, &mut random, 400).unwrap();
        shipper.flush().unwrap();
        cleaner.compact().unwrap();
        sizes.push(log_bytes(&remote));
    }
    shipper.stop().unwrap();
    assert!(sizes[9] < 2 * sizes[1], "it grows: {sizes:?}");
    let restored = SimFileSystem::new();
    let restore =
        Restore::new(source(&remote)).into_with("/again", small(&restored)).file_system(Arc::new(restored.clone()));
    let (again, _) = restore.run().unwrap();
    assert_eq!(again.last_seqno(), db.last_seqno());
    assert_eq!(without_empty(contents(&again)), without_empty(contents(&db)));
}

#[test]
fn keys_that_do_not_fit_in_memory_are_compacted_share_by_share() {
    let (fs, clock) = (SimFileSystem::new(), Arc::new(ManualClock::default()));
    let options = options(&fs, &clock).segment_bytes(200 << 10).compaction_memory_bytes(64 << 10);
    let mut sink = open(options);
    let mut state = State::new();
    // 5,000 keys in each segment, of which 1,170 fit.
    for seqno in 1..=30_000 {
        let change = Change::Put {
            keyspace: "words".into(),
            key: format!("key{:05}", seqno * 7 % 5000).into_bytes().into(),
            value: seqno.to_string().into_bytes().into(),
        };
        let batch = ChangeBatch::new(seqno, vec![change]).unwrap();
        apply(&mut state, &batch);
        sink.append(&batch).unwrap();
    }
    sink.flush().unwrap();
    let compacted = sink.cleaner().compact().unwrap();
    assert!(compacted.dropped_changes > 15_000, "{compacted:?}");
    let read = read_all(&source(&fs)).unwrap();
    assert_eq!(state_of(&read), state);
    let sealed = 30_000 - compacted.dropped_changes;
    assert_eq!(read.len() as u64, sealed);
    assert_eq!(sink.cleaner().compact().unwrap().segments, 0, "all of it is clean");
}

#[test]
fn what_is_left_of_a_batch_stays_together_under_its_last_number() {
    let (fs, clock) = (SimFileSystem::new(), Arc::new(ManualClock::default()));
    let mut sink = open(options(&fs, &clock).segment_bytes(1));
    let puts = |keys: &[&str]| {
        keys.iter().map(|key| Change::Put { keyspace: "a".into(), key: (*key).into(), value: "v".into() }).collect()
    };
    for (first, keys) in [(1, &["x", "y", "z"][..]), (4, &["y"]), (5, &["q"])] {
        sink.append(&ChangeBatch::new(first, puts(keys)).unwrap()).unwrap();
    }
    sink.flush().unwrap();
    sink.cleaner().compact().unwrap();
    let read = read_all(&source(&fs)).unwrap();
    let expected = [
        ChangeBatch::new(2, puts(&["x", "z"])).unwrap(),
        ChangeBatch::new(4, puts(&["y"])).unwrap(),
        ChangeBatch::new(5, puts(&["q"])).unwrap(),
    ];
    assert_eq!(read, expected);
    assert_eq!(source(&fs).holds_whole_state().unwrap(), Some(true), "though it begins with number 2");
}

#[test]
fn deletes_go_once_they_were_kept_for_long_enough_and_not_before() {
    let (fs, clock) = (SimFileSystem::new(), Arc::new(ManualClock::default()));
    let options = options(&fs, &clock).segment_bytes(1).delete_retention(Duration::from_secs(10));
    let mut sink = open(options);
    let delete = Change::Delete { keyspace: "words".into(), key: "key0001".into() };
    for batch in [put(1, "v"), ChangeBatch::new(2, vec![delete]).unwrap(), put(3, "v"), put(4, "v")] {
        sink.append(&batch).unwrap();
        clock.sleep(Duration::from_secs(1));
    }
    let position = sink.flush().unwrap();
    let count = |fs: &SimFileSystem| read_all(&source(fs)).unwrap().len();
    assert_eq!(sink.cleaner().compact().unwrap().dropped_changes, 1, "the put, and not the delete");
    assert_eq!(count(&fs), 3);
    clock.sleep(Duration::from_secs(20));
    sink.append(&put(5, "v")).unwrap();
    assert_eq!(sink.cleaner().compact().unwrap().dropped_changes, 1, "the delete");
    sink.append(&put(6, "v")).unwrap();
    sink.flush().unwrap();
    assert_eq!(count(&fs), 4);
    // Who was behind it by then would keep what it deleted.
    assert!(source(&fs).read(&position).is_ok());
    let text = String::from_utf8(position.as_bytes().to_vec()).unwrap();
    let old = Position::from_bytes(text.replace(":4", ":1")).unwrap();
    assert!(matches!(source(&fs).read(&old), Err(Error::PositionOutOfRange { .. })));
}

/// Appends, compacts, and appends again; what was acknowledged last, and the cleaner's answer.
fn work(fs: Arc<dyn siltstone::fs::FileSystem>) -> (SeqNo, siltstone_changelog::Result<()>) {
    let clock = Arc::new(ManualClock::default());
    let options = FileSinkOptions::new().segment_bytes(300).file_system(fs).clock(clock.clone());
    let options = options.delete_retention(Duration::from_secs(5));
    let (mut random, mut last, mut acknowledged) = (Random(11), 0, 0);
    let run = || {
        let mut sink = FileSink::open_with(log_path(), options)?;
        for step in 1..=60 {
            let batch = random_batch(&mut random, last);
            last = batch.last_seqno();
            sink.append(&batch)?;
            sink.flush()?;
            acknowledged = last;
            clock.sleep(Duration::from_secs(1));
            if step % 20 == 0 {
                sink.cleaner().compact()?;
            }
        }
        Ok(())
    };
    let done = run();
    (acknowledged, done)
}

/// The same batches, until number `last`.
fn expected(last: SeqNo) -> State {
    let (mut random, mut state, mut at) = (Random(11), State::new(), 0);
    while at < last {
        let batch = random_batch(&mut random, at);
        at = batch.last_seqno();
        apply(&mut state, &batch);
    }
    state
}

/// What the log holds is what was acknowledged, and perhaps the batch behind it; and it goes on from there.
fn check(fs: &SimFileSystem, acknowledged: SeqNo, what: &str) {
    let state = |fs| {
        let batches = read_all(&source(fs)).unwrap_or_else(|error| panic!("{what}: {error}"));
        (state_of(&batches), batches.last().map_or(0, ChangeBatch::last_seqno))
    };
    let (before, last) = state(fs);
    assert!(last >= acknowledged, "{what}: up to {last}, acknowledged {acknowledged}");
    assert_eq!(before, expected(last), "{what}");
    let mut sink = open(options(fs, &Arc::default()));
    sink.append(&put(last + 1, "more")).unwrap();
    sink.flush().unwrap();
    sink.cleaner().compact().unwrap_or_else(|error| panic!("{what}: {error}"));
    let mut all = before;
    apply(&mut all, &put(last + 1, "more"));
    assert_eq!(state(fs).0, all, "{what}: after going on");
}

#[test]
fn power_cuts_at_every_call_lose_nothing_that_was_acknowledged() {
    let whole = SimFileSystem::new();
    work(Arc::new(whole.clone())).1.unwrap();
    let calls = whole.call_count();
    for n in 0..=calls {
        let fs = SimFileSystem::new();
        fs.stop_after(n);
        let (acknowledged, _) = work(Arc::new(fs.clone()));
        for (keep, seed) in [(Keep::Nothing, 0), (Keep::Some, n), (Keep::All, 0)] {
            check(&fs.crash_clone(keep, seed), acknowledged, &format!("call {n} of {calls}, {keep:?}"));
        }
    }
    faults::record(3 * (calls + 1), 3 * (calls + 1));
}

#[test]
fn every_call_that_fails_is_an_error_and_leaves_the_log_whole() {
    let points = faults::enumerate(|injection| {
        let sim = SimFileSystem::new();
        let fs = faults::faulty(&sim);
        injection.plan(&fs);
        let (acknowledged, done) = work(Arc::new(fs.clone()));
        let happened = fs.injected().is_some();
        if happened {
            check(&sim.crash_clone(Keep::All, 0), acknowledged, &format!("{injection:?}, {done:?}"));
        }
        happened
    });
    faults::record(points, points);
}

#[test]
fn damage_in_a_compacted_segment_is_an_error() {
    let (fs, clock) = (SimFileSystem::new(), Arc::new(ManualClock::default()));
    let (sink, _) = overwritten(&fs, options(&fs, &clock), 40);
    sink.cleaner().compact().unwrap();
    drop(sink);
    let is_compacted = |path: &&std::path::PathBuf| path.to_string_lossy().matches('-').count() == 3;
    let paths = fs.paths();
    let compacted: Vec<_> = paths.iter().filter(is_compacted).collect();
    assert!(!compacted.is_empty());
    for path in compacted {
        let bytes = fs.read(path).unwrap();
        for bit in (0..bytes.len() * 8).step_by(3) {
            let damaged = fs.crash_clone(Keep::All, 0);
            damaged.flip_bit(path, (bit / 8) as u64, (bit % 8) as u32).unwrap();
            let read = read_all(&source(&damaged));
            assert!(
                matches!(&read, Err(Error::Corruption { file, .. } | Error::UnsupportedVersion { file, .. }) if file == path),
                "bit {bit}: {read:?}"
            );
        }
        for len in 0..bytes.len() {
            let damaged = fs.crash_clone(Keep::All, 0);
            damaged.write(path, &bytes[..len]).unwrap();
            assert!(matches!(read_all(&source(&damaged)), Err(Error::Corruption { .. })), "cut to {len}");
        }
    }
}

#[test]
fn old_segments_go_by_size_and_by_age_and_what_is_left_says_that_it_is_not_all() {
    let (fs, clock) = (SimFileSystem::new(), Arc::new(ManualClock::default()));
    let options = options(&fs, &clock).compaction(false).retain_bytes(3000);
    let mut sink = open(options);
    for seqno in 1..=400 {
        sink.append(&put(seqno, "value")).unwrap();
        sink.flush().unwrap();
    }
    wait_until(|| sink.cleaner().status().removed_segments > 0 && log_bytes(&fs) < 5000);
    let read = read_what_is_left(&fs);
    assert!(read.len() > 10 && read.last() == Some(&put(400, "value")));
    assert_eq!(source(&fs).holds_whole_state().unwrap(), Some(false));
    let beginning = Position::from_bytes("0").unwrap();
    assert!(matches!(source(&fs).read(&beginning), Err(Error::PositionOutOfRange { .. })));
    drop(sink);

    let mut sink = open(
        FileSinkOptions::new()
            .segment_bytes(600)
            .file_system(Arc::new(fs.clone()))
            .clock(clock.clone())
            .retain_for(Duration::from_secs(60)),
    );
    clock.sleep(Duration::from_secs(100));
    for seqno in 401..=440 {
        sink.append(&put(seqno, "value")).unwrap();
        sink.flush().unwrap();
    }
    wait_until(|| read_what_is_left(&fs)[0].first_seqno() > 380);
    assert_eq!(read_all(&source(&fs)).unwrap().last(), Some(&put(440, "value")));
}

/// All that there is of a log whose oldest segment may go between the look at it and the reading.
fn read_what_is_left(fs: &SimFileSystem) -> Vec<ChangeBatch> {
    loop {
        match read_all(&source(fs)) {
            Err(Error::PositionOutOfRange { .. }) => {}
            read => return read.unwrap(),
        }
    }
}

fn wait_until(reached: impl Fn() -> bool) {
    let began = std::time::Instant::now();
    while !reached() {
        assert!(began.elapsed() < Duration::from_secs(60), "not within a minute");
        std::thread::yield_now();
    }
}

#[test]
fn compaction_begins_by_itself_when_enough_is_sealed() {
    let (_dir, _, log) = scratch();
    let options = FileSinkOptions::new().segment_bytes(4 << 10).min_dirty_bytes(32 << 10);
    let mut sink = FileSink::open_with(&log, options).unwrap();
    let mut random = Random(1);
    let (mut state, mut last) = (State::new(), 0);
    for _ in 0..5000 {
        let batch = random_batch(&mut random, last);
        last = batch.last_seqno();
        apply(&mut state, &batch);
        sink.append(&batch).unwrap();
        sink.flush().unwrap();
    }
    wait_until(|| sink.cleaner().status().compactions > 1);
    assert!(sink.cleaner().status().error.is_none());
    drop(sink);
    let read = read_all(&FileSource::open(&log)).unwrap();
    assert_eq!(state_of(&read), state);
    assert!(read.len() < 4000, "{} batches are left", read.len());
}

#[test]
fn a_new_owner_has_what_was_acknowledged_and_the_old_one_is_fenced() {
    let (fs, clock) = (SimFileSystem::new(), Arc::new(ManualClock::default()));
    let mut old = open(options(&fs, &clock));
    for seqno in 1..=30 {
        old.append(&put(seqno, "old")).unwrap();
        old.flush().unwrap();
    }
    let mut following = source(&fs).read(&Position::from_bytes("0").unwrap()).unwrap();
    assert_eq!(following.by_ref().count(), 30);
    let refused = FileSink::open_with(log_path(), options(&fs, &clock));
    assert!(matches!(refused, Err(Error::Locked { .. })), "{refused:?}");

    let mut new = open(options(&fs, &clock).take_over(true));
    assert_eq!(new.last_seqno().unwrap(), Some(30));
    for seqno in 31..=33 {
        // Where that would begin a segment, it is told so already.
        assert!(matches!(old.append(&put(seqno, "late")), Ok(()) | Err(Error::Fenced { .. })));
    }
    assert!(matches!(old.flush(), Err(Error::Fenced { .. })));
    assert!(matches!(old.append(&put(34, "late")), Err(Error::Fenced { .. })), "for good");
    assert!(matches!(old.cleaner().compact(), Err(Error::Fenced { .. }) | Ok(_)));
    for seqno in 31..=60 {
        new.append(&put(seqno, "new")).unwrap();
        new.flush().unwrap();
    }
    let all: Vec<_> = (1..=60).map(|seqno| put(seqno, if seqno <= 30 { "old" } else { "new" })).collect();
    assert_eq!(read_all(&source(&fs)).unwrap(), all);
    let followed: Vec<_> = following.map(|next| next.unwrap().1).collect();
    assert_eq!(followed, all[30..], "who followed the old one goes on with the new one");
    drop((old, new));
    assert_eq!(read_all(&source(&fs)).unwrap(), all);
}

#[test]
fn an_owner_that_lives_keeps_others_out_whatever_a_taker_left_that_died() {
    let (fs, clock) = (SimFileSystem::new(), Arc::new(ManualClock::default()));
    let mut old = open(options(&fs, &clock));
    // It made its file, and died before it removed the old one's.
    fs.write(&log_path().join("OWNER-0000000009"), b"").unwrap();
    let refused = FileSink::open_with(log_path(), options(&fs, &clock));
    assert!(matches!(refused, Err(Error::Locked { .. })), "{refused:?}");
    old.append(&put(1, "v")).unwrap();
    old.flush().unwrap();
    drop(old);
    assert_eq!(open(options(&fs, &clock)).last_seqno().unwrap(), Some(1));
}

#[test]
fn readers_end_at_the_last_mark_while_there_is_an_owner() {
    let (fs, clock) = (SimFileSystem::new(), Arc::new(ManualClock::default()));
    let mut old = open(options(&fs, &clock).segment_bytes(1 << 20));
    old.append(&put(1, "acknowledged")).unwrap();
    old.flush().unwrap();
    // Written, and not synced: more than the sink gathers.
    let large = "x".repeat(300 << 10);
    old.append(&put(2, &large)).unwrap();
    old.append(&put(3, "behind it")).unwrap();
    assert_eq!(read_all(&source(&fs)).unwrap(), [put(1, "acknowledged")]);
    let (_, newest) = source(&fs).bounds().unwrap();
    assert!(newest.to_string().ends_with(":1"));
    drop(old);
    assert_eq!(
        read_all(&source(&fs)).unwrap(),
        [put(1, "acknowledged"), put(2, &large)],
        "nobody else can end it sooner"
    );
}

fn is_send<T: Send + Sync>() {}

#[test]
fn a_cleaner_outlives_its_sink_without_holding_the_log() {
    is_send::<LogCleaner>();
    let (fs, clock) = (SimFileSystem::new(), Arc::new(ManualClock::default()));
    let cleaner = open(options(&fs, &clock)).cleaner();
    assert!(matches!(cleaner.compact(), Err(Error::InvalidArgument(_))));
    open(options(&fs, &clock));
}
