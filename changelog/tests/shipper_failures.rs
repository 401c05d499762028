//! Sinks that fail: tried again where that helps, reported where it does not.

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::{ManualClock, changes, db_path, eager, sim, small};
use siltstone::{ChangeBatch, Clock, Db, Keyspace};
use siltstone_changelog::{Error, MemorySink, Position, Result, RetryPolicy, Sink, State, ship};

fn open() -> (Db, Keyspace) {
    let db = small(&sim().0).open(db_path()).unwrap();
    let words = db.keyspace("words", Default::default()).unwrap();
    (db, words)
}

#[test]
fn retryable_failures_are_ridden_out_in_order_and_once() {
    let (db, words) = open();
    let (sink, clock) = (MemorySink::new(), Arc::new(ManualClock::default()));
    let shipper = ship(&db, sink.clone(), eager(&clock)).unwrap();
    for i in 0..50u32 {
        if i % 5 == 0 {
            sink.fail_appends(3, true);
            sink.fail_flushes(2, true);
        }
        words.put(i.to_be_bytes(), "v").unwrap();
    }
    shipper.flush().unwrap();
    assert_eq!(sink.batches(), changes(&db));
    assert_eq!(sink.failures_left(), 0);
    assert!(clock.now() > Duration::from_millis(50), "it waited between tries");
    assert!(matches!(shipper.status().state, State::Running));
    assert_eq!(db.change_cursor("changelog"), Some(51));
    shipper.stop().unwrap();
}

#[test]
fn figures_tell_what_was_sent_acknowledged_and_tried_again_and_what_is_behind() {
    let (db, words) = open();
    let (sink, clock) = (MemorySink::new(), Arc::new(ManualClock::default()));
    let shipper = ship(&db, sink.clone(), eager(&clock)).unwrap();
    for i in 0..10u32 {
        words.put(i.to_be_bytes(), "value").unwrap();
    }
    shipper.flush().unwrap();
    clock.sleep(Duration::from_secs(2));
    let status = shipper.status();
    assert_eq!((status.sent_batches, status.sent_bytes), (10, 90));
    assert_eq!((status.batches, status.user_bytes, status.retries), (10, 90, 0));
    assert_eq!(status.elapsed, clock.now());
    assert_eq!(status.sent_bytes_per_second(), 90.0 / status.elapsed.as_secs_f64());
    assert_eq!(status.acknowledged_bytes_per_second(), status.sent_bytes_per_second());
    assert_eq!((shipper.lag(), shipper.lag_time()), (0, Duration::ZERO));
    sink.fail_flushes(3, false);
    words.put("late", "v").unwrap();
    assert!(shipper.flush().is_err());
    clock.sleep(Duration::from_secs(7));
    let status = shipper.status();
    assert_eq!((status.sent_batches, status.batches), (11, 10), "taken, and not acknowledged");
    assert_eq!(shipper.lag(), 1);
    assert!(shipper.lag_time() >= Duration::from_secs(7), "{:?}", shipper.lag_time());
    // Whole segments of the log, which nobody else needs once they are flushed.
    for n in 0..400u32 {
        words.put(n.to_be_bytes(), vec![0; 10_000]).unwrap();
    }
    db.flush().unwrap();
    assert!(shipper.retained_wal_bytes() > 1 << 20, "{}", shipper.retained_wal_bytes());
    drop(shipper);
    sink.fail_flushes(0, false);
    sink.fail_appends(2, true);
    let shipper = ship(&db, sink.clone(), eager(&clock)).unwrap();
    words.put("later", "v").unwrap();
    shipper.flush().unwrap();
    assert_eq!(shipper.status().retries, 2);
}

#[test]
fn a_permanent_failure_stops_and_every_call_says_why() {
    let (db, words) = open();
    let (sink, clock) = (MemorySink::new(), Arc::new(ManualClock::default()));
    let shipper = ship(&db, sink.clone(), eager(&clock)).unwrap();
    words.put("a", "1").unwrap();
    shipper.flush().unwrap();
    sink.fail_flushes(1, false);
    words.put("b", "2").unwrap();
    let error = shipper.flush().unwrap_err();
    assert!(matches!(&error, Error::Stopped(why) if why.to_string().contains("injected")), "{error}");
    assert!(matches!(shipper.status().state, State::Failed(_)));
    assert_eq!(shipper.lag(), 1);
    assert!(matches!(shipper.stop(), Err(Error::Stopped(_))));
    assert_eq!(db.change_cursor("changelog"), Some(2), "what was not acknowledged is not noted");

    let shipper = ship(&db, sink.clone(), eager(&clock)).unwrap();
    shipper.stop().unwrap();
    assert_eq!(sink.batches(), changes(&db), "a new shipper takes up where that one stopped");
}

#[test]
fn retries_end_after_the_time_they_are_given() {
    let (db, words) = open();
    let (sink, clock) = (MemorySink::new(), Arc::new(ManualClock::default()));
    let policy = RetryPolicy { max_elapsed: Duration::from_secs(60), ..RetryPolicy::default() };
    sink.fail_appends(usize::MAX, true);
    let shipper = ship(&db, sink, eager(&clock).retry(policy)).unwrap();
    words.put("a", "1").unwrap();
    assert!(matches!(shipper.flush(), Err(Error::Stopped(_))));
    assert_eq!(clock.now(), Duration::from_secs(60));
}

#[test]
fn closing_the_database_ends_shipping() {
    let (db, words) = open();
    let clock = Arc::new(ManualClock::default());
    let shipper = ship(&db, MemorySink::new(), eager(&clock)).unwrap();
    words.put("a", "1").unwrap();
    shipper.flush().unwrap();
    db.close().unwrap();
    let error = shipper.stop().unwrap_err();
    assert!(
        matches!(&error, Error::Stopped(why) if matches!(**why, Error::Engine(siltstone::Error::Closed))),
        "{error}"
    );
}

/// Panics when it is flushed.
struct Panics;

impl Sink for Panics {
    fn append(&mut self, _: &ChangeBatch) -> Result<()> {
        Ok(())
    }

    fn flush(&mut self) -> Result<Position> {
        panic!("on purpose")
    }
}

#[test]
fn a_sink_that_panics_leaves_nobody_waiting() {
    let (db, words) = open();
    let shipper = ship(&db, Panics, eager(&Arc::default())).unwrap();
    words.put("a", "1").unwrap();
    assert!(matches!(shipper.flush(), Err(Error::Stopped(_))));
}
