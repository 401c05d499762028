//! A database that follows another one's log, and takes over.

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use common::{Random, contents, scratch, without_empty, write_randomly};
use siltstone::{Db, Options, WriteBatch};
use siltstone_changelog::{
    Batches, Error, FileSink, FileSource, MemorySink, MemorySource, Position, Result, ShipOptions, Shipper, Source,
    Standby, StandbyState, ship,
};

const SEED: u64 = 20_261_130;
const LONG: Duration = Duration::from_secs(60);

fn shipping(directory: &std::path::Path) -> (Db, MemorySink, Shipper) {
    let db = Options::new().memory_bytes(8 << 20).open(directory).unwrap();
    let sink = MemorySink::new();
    let shipper = ship(&db, sink.clone(), ShipOptions::new()).unwrap();
    (db, sink, shipper)
}

/// Waits until the standby holds number `seqno`.
fn reach(standby: &Standby, seqno: u64) {
    let deadline = std::time::Instant::now() + LONG;
    while standby.status().seqno < seqno {
        assert!(std::time::Instant::now() < deadline, "{:?}", standby.status());
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn it_follows_can_be_read_meanwhile_and_takes_over() {
    println!("seed {SEED}");
    let (dir, local, _) = scratch();
    let (db, sink, shipper) = shipping(&local);
    let standby = Standby::follow(sink.source(), dir.path().join("standby")).unwrap();
    let mut random = Random(SEED);
    for _ in 0..10 {
        write_randomly(&db, &mut random, 50).unwrap();
        let end = shipper.flush().unwrap();
        reach(&standby, db.last_seqno());
        assert_eq!(without_empty(contents(standby.db())), without_empty(contents(&db)));
        assert_eq!(standby.position(), end);
    }
    write_randomly(&db, &mut random, 50).unwrap();
    shipper.stop().unwrap();
    let promoted = standby.promote().unwrap();
    assert_eq!(without_empty(contents(&promoted)), without_empty(contents(&db)));
    // It is an owner now: what it writes is shipped on.
    let shipper = ship(&promoted, sink.clone(), ShipOptions::new()).unwrap();
    promoted.keyspace("new", Default::default()).unwrap().put("k", "v").unwrap();
    shipper.stop().unwrap();
    assert_eq!(sink.batches().last().unwrap().last_seqno(), promoted.last_seqno());
}

#[test]
fn a_snapshot_and_its_position_are_of_the_same_moment() {
    let (dir, local, _) = scratch();
    let (db, sink, shipper) = shipping(&local);
    let (a, b) = (db.keyspace("a", Default::default()).unwrap(), db.keyspace("b", Default::default()).unwrap());
    let standby = Standby::follow(sink.source(), dir.path().join("standby")).unwrap();
    let write = std::thread::spawn(move || {
        for number in 1..=2000u64 {
            let mut both = WriteBatch::new();
            both.put(&a, "k", number.to_le_bytes()).put(&b, "k", number.to_le_bytes());
            db.write(both).unwrap();
        }
        shipper.stop().unwrap();
        db
    });
    let mut seen = 0;
    while seen < 2000 {
        let (snapshot, position) = standby.snapshot();
        let value = |name: &str| {
            let keyspace = standby
                .db()
                .keyspaces()
                .contains(&name.to_owned())
                .then(|| standby.db().keyspace(name, Default::default()).unwrap())?;
            snapshot.get(&keyspace, "k").unwrap().map(|value| u64::from_le_bytes(*value.first_chunk().unwrap()))
        };
        let (a, b) = (value("a"), value("b"));
        assert_eq!(a, b, "half a batch was seen");
        // In this log positions count batches.
        assert_eq!(position.to_string(), a.unwrap_or(0).to_string());
        seen = a.unwrap_or(0);
    }
    write.join().unwrap();
}

/// Tells how far the log goes, and gives nothing of it while it is held.
struct Held {
    source: MemorySource,
    is_held: Arc<AtomicBool>,
}

impl Source for Held {
    fn bounds(&self) -> Result<(Position, Position)> {
        self.source.bounds()
    }

    fn seqno_at(&self, position: &Position) -> Result<Option<u64>> {
        self.source.seqno_at(position)
    }

    fn read(&self, from: &Position) -> Result<Batches> {
        let (mut batches, is_held) = (self.source.read(from)?, self.is_held.clone());
        let mut given = 0;
        Ok(Box::new(std::iter::from_fn(move || {
            given += 1;
            // In the middle of what it has.
            while given > 5 && is_held.load(Ordering::Relaxed) {
                std::thread::sleep(Duration::from_millis(1));
            }
            batches.next()
        })))
    }
}

#[test]
fn it_says_how_far_it_is_behind() {
    let (dir, local, _) = scratch();
    let (db, sink, shipper) = shipping(&local);
    let words = db.keyspace("words", Default::default()).unwrap();
    for n in 0..100u32 {
        words.put(n.to_be_bytes(), "v").unwrap();
    }
    shipper.flush().unwrap();
    let is_held = Arc::new(AtomicBool::new(true));
    let source = Held { source: sink.source(), is_held: is_held.clone() };
    let standby = Standby::follow(source, dir.path().join("standby")).unwrap();
    reach(&standby, 5);
    assert_eq!((standby.lag(), standby.status().newest_seqno), (95, 100));
    let lag_time = standby.status().lag_time;
    std::thread::sleep(Duration::from_millis(5));
    assert!(standby.status().lag_time > lag_time, "it grows");
    is_held.store(false, Ordering::Relaxed);
    assert!(standby.wait_until_caught_up(LONG));
    let status = standby.status();
    assert_eq!((standby.lag(), status.lag_time, status.newest_seqno), (0, Duration::ZERO, 100));
}

/// Fails now and then, as a network does.
struct Flaky {
    source: MemorySource,
    calls: Arc<AtomicUsize>,
}

fn flake(calls: &AtomicUsize, every: usize) -> Result<()> {
    if (calls.fetch_add(1, Ordering::Relaxed) + 1).is_multiple_of(every) {
        return Err(Error::Foreign { source: "the network is down".into(), retryable: true });
    }
    Ok(())
}

impl Source for Flaky {
    fn bounds(&self) -> Result<(Position, Position)> {
        self.source.bounds()
    }

    fn read(&self, from: &Position) -> Result<Batches> {
        let (mut batches, calls) = (self.source.read(from)?, self.calls.clone());
        Ok(Box::new(std::iter::from_fn(move || match flake(&calls, 50) {
            Ok(()) => batches.next(),
            Err(error) => Some(Err(error)),
        })))
    }
}

#[test]
fn a_source_that_fails_for_a_while_is_read_on() {
    let (dir, local, _) = scratch();
    let (db, sink, shipper) = shipping(&local);
    let source = Flaky { source: sink.source(), calls: Arc::default() };
    let standby = Standby::follow(source, dir.path().join("standby")).unwrap();
    write_randomly(&db, &mut Random(SEED), 200).unwrap();
    shipper.flush().unwrap();
    reach(&standby, db.last_seqno());
    assert_eq!(without_empty(contents(standby.db())), without_empty(contents(&db)));
}

#[test]
fn it_goes_on_where_it_stopped() {
    let (dir, local, log) = scratch();
    let db = Db::open(&local).unwrap();
    let shipper = ship(&db, FileSink::open(&log).unwrap(), ShipOptions::new()).unwrap();
    let mut random = Random(SEED);
    write_randomly(&db, &mut random, 100).unwrap();
    shipper.flush().unwrap();
    let path = dir.path().join("standby");
    let standby = Standby::follow(FileSource::open(&log), &path).unwrap();
    assert!(standby.wait_until_caught_up(LONG));
    let first = standby.status();
    drop(standby);
    write_randomly(&db, &mut random, 10).unwrap();
    shipper.stop().unwrap();
    let standby = Standby::follow(FileSource::open(&log), &path).unwrap();
    assert_eq!(standby.status().seqno, first.seqno);
    let (promoted, _sink) = standby.promote_with(|| FileSink::open(&log)).unwrap();
    assert_eq!(without_empty(contents(&promoted)), without_empty(contents(&db)));
}

#[test]
fn what_somebody_else_writes_ends_it_with_a_reason() {
    let (dir, local, _) = scratch();
    let (db, sink, shipper) = shipping(&local);
    let standby = Standby::follow(sink.source(), dir.path().join("standby")).unwrap();
    let ks = standby.db().keyspace("mine", Default::default()).unwrap();
    for number in 0..5 {
        ks.put([number], "1").unwrap();
    }
    let words = db.keyspace("words", Default::default()).unwrap();
    let mut batch = WriteBatch::new();
    for number in 0..9 {
        batch.put(&words, [number], "1");
    }
    db.write(batch).unwrap();
    shipper.flush().unwrap();
    let deadline = std::time::Instant::now() + LONG;
    while !matches!(standby.status().state, StandbyState::Failed(_)) {
        assert!(std::time::Instant::now() < deadline);
        std::thread::sleep(Duration::from_millis(1));
    }
    assert!(matches!(standby.promote(), Err(Error::Stopped(_))));
}

#[test]
fn a_log_without_its_beginning_is_refused() {
    let (dir, local, _) = scratch();
    let db = Db::open(&local).unwrap();
    let ks = db.keyspace("ks", Default::default()).unwrap();
    // Takes numbers, and is in no log.
    let mut unlogged = WriteBatch::new();
    unlogged.put(&ks, "unlogged", "1");
    db.write_with(unlogged, siltstone::Durability::NoLog).unwrap();
    ks.put("logged", "1").unwrap();
    let sink = MemorySink::new();
    ship(&db, sink.clone(), ShipOptions::new()).unwrap().stop().unwrap();
    let standby = Standby::follow(sink.source(), dir.path().join("standby")).unwrap();
    match standby.promote() {
        Err(Error::Stopped(reason)) => assert!(matches!(&*reason, Error::Partial { first: 2, .. }), "{reason}"),
        other => panic!("{other:?}"),
    }
}
