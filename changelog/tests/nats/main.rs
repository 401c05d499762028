//! Shipping to a real NATS server, and what comes back.

#[path = "../common/mod.rs"]
mod common;
#[path = "../common/process.rs"]
mod process;
mod server;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock};
use std::time::Duration;

use common::{Random, changes, contents, put, read_all, without_empty, write_randomly};
use server::Server;
use siltstone::{Change, ChangeBatch, Db, Options};
use siltstone_changelog::{
    Error, NatsOptions, NatsSink, NatsSource, Position, Restore, ShipOptions, Sink, Source, ship,
};

const SEED: u64 = 20_261_130;

/// The server that tests share which leave it alone.
fn shared() -> Option<&'static Mutex<Server>> {
    static SERVER: OnceLock<Option<Mutex<Server>>> = OnceLock::new();
    SERVER.get_or_init(|| Server::start().map(Mutex::new)).as_ref()
}

/// A stream of its own on the shared server.
fn options() -> Option<NatsOptions> {
    static STREAMS: AtomicUsize = AtomicUsize::new(0);
    let address = shared()?.lock().unwrap().address();
    Some(NatsOptions::new(address, format!("test{}", STREAMS.fetch_add(1, Ordering::Relaxed))).unwrap())
}

fn database() -> (tempfile::TempDir, Db) {
    println!("seed {SEED}");
    let directory = tempfile::tempdir().unwrap();
    let db = Options::new().memory_bytes(16 << 20).open(directory.path()).unwrap();
    (directory, db)
}

/// What the log restores is what is in `db`.
fn check(db: &Db, options: &NatsOptions) -> Position {
    let directory = tempfile::tempdir().unwrap();
    let (again, position) = Restore::new(NatsSource::open(options.clone())).into(directory.path()).run().unwrap();
    assert_eq!(without_empty(contents(&again)), without_empty(contents(db)));
    assert_eq!(read_all(&NatsSource::open(options.clone())).unwrap(), changes(db));
    position
}

#[test]
fn what_is_shipped_is_restored_and_shipping_goes_on_after_a_restart() {
    let Some(options) = options() else { return };
    let (_directory, db) = database();
    let mut random = Random(SEED);
    for _ in 0..2 {
        let shipper = ship(&db, NatsSink::open(options.clone()).unwrap(), ShipOptions::new()).unwrap();
        write_randomly(&db, &mut random, 500).unwrap();
        let end = shipper.stop().unwrap();
        assert_eq!(check(&db, &options), end);
    }
}

#[test]
fn a_later_writer_fences_an_earlier_one() {
    let Some(options) = options() else { return };
    let mut old = NatsSink::open(options.clone()).unwrap();
    old.append(&put(1, "old")).unwrap();
    old.flush().unwrap();
    old.append(&put(2, "lost")).unwrap();
    let mut new = NatsSink::open(options.clone()).unwrap();
    assert_eq!(new.last_seqno().unwrap(), Some(1));
    assert!(matches!(old.flush(), Err(Error::Fenced { .. })));
    new.append(&put(2, "new")).unwrap();
    let end = new.flush().unwrap();
    let source = NatsSource::open(options);
    assert_eq!(read_all(&source).unwrap(), [put(1, "old"), put(2, "new")]);
    assert_eq!(source.bounds().unwrap().1, end);
}

#[test]
fn a_batch_larger_than_a_message_comes_back_whole_and_readers_follow() {
    let Some(options) = options() else { return };
    let mut sink = NatsSink::open(options.clone()).unwrap();
    let change = |number: u8| Change::Put {
        keyspace: if number.is_multiple_of(2) { "a" } else { "b" }.into(),
        key: vec![number].into(),
        value: vec![number; 400_000].into(),
    };
    let large = ChangeBatch::new(2, (0..10).map(change).collect()).unwrap();
    sink.append(&put(1, "small")).unwrap();
    sink.append(&large).unwrap();
    let first = sink.flush().unwrap();
    let source = NatsSource::open(options);
    let mut batches = source.read(&source.bounds().unwrap().0).unwrap();
    let (middle, batch) = batches.next().unwrap().unwrap();
    assert_eq!(batch, put(1, "small"));
    // Not by a comparison that would print it.
    assert!(batches.next().unwrap().unwrap() == (first, large.clone()));
    assert!(batches.next().is_none());
    sink.append(&put(12, "later")).unwrap();
    let second = sink.flush().unwrap();
    assert_eq!(batches.next().unwrap().unwrap(), (second.clone(), put(12, "later")));
    let rest: Vec<_> = source.read(&middle).unwrap().map(|batch| batch.unwrap().1).collect();
    assert!(rest == [large, put(12, "later")]);
    assert!(source.read(&second).unwrap().next().is_none());
}

#[test]
fn positions_of_other_streams_and_of_what_was_let_go_are_refused() {
    let (Some(options), Some(others)) = (options(), options()) else { return };
    let write = |options: &NatsOptions| {
        let mut sink = NatsSink::open(options.clone()).unwrap();
        let mut positions = Vec::new();
        for seqno in 1..40 {
            sink.append(&put(seqno, &"v".repeat(1000))).unwrap();
            positions.push(sink.flush().unwrap());
        }
        positions
    };
    let (ours, theirs) = (write(&options.clone().max_bytes(20_000)), write(&others));
    let source = NatsSource::open(options);
    assert!(matches!(source.read(&theirs[5]).map(drop), Err(Error::Mismatch(_))));
    let foreign = Position::from_bytes("17").unwrap();
    assert!(matches!(source.read(&foreign).map(drop), Err(Error::InvalidArgument(_))));
    assert!(matches!(source.read(&ours[0]).map(drop), Err(Error::PositionOutOfRange { .. })));
    assert_eq!(source.read(&ours[37]).unwrap().count(), 1);
    let directory = tempfile::tempdir().unwrap();
    let restore = Restore::new(source).into(directory.path()).run();
    assert!(matches!(restore.map(drop), Err(Error::Partial { .. })));
}

#[test]
fn a_server_that_restarts_delays_shipping_and_loses_nothing() {
    let Some(mut server) = Server::start() else { return };
    let options = NatsOptions::new(server.address(), "state").unwrap().request_timeout(Duration::from_secs(2));
    let (_directory, db) = database();
    let words = db.keyspace("words", Default::default()).unwrap();
    let shipper = ship(&db, NatsSink::open(options.clone()).unwrap(), ShipOptions::new()).unwrap();
    let write = |round: u32| {
        for number in round * 100..(round + 1) * 100 {
            words.put(number.to_be_bytes(), "1").unwrap();
        }
    };
    write(0);
    shipper.flush().unwrap();
    for round in 1..4 {
        server.kill();
        write(2 * round);
        std::thread::sleep(Duration::from_secs(1));
        assert!(shipper.lag() > 0);
        server.go_on();
        write(2 * round + 1);
        shipper.flush().unwrap();
    }
    check(&db, &options);
}
