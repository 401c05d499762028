//! What a shipper holds is bounded, and a sink that is too far behind is told so.

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use common::{ManualClock, changes, db_path, eager, sim, small};
use siltstone::ChangeBatch;
use siltstone_changelog::{Error, MemorySink, Position, Result, Sink, ship};

/// Notes the most that was appended between two flushes, in bytes of keys and values.
struct Measuring {
    inner: MemorySink,
    pending: u64,
    most: Arc<AtomicU64>,
}

impl Sink for Measuring {
    fn append(&mut self, batch: &ChangeBatch) -> Result<()> {
        self.pending += batch.user_bytes();
        self.most.fetch_max(self.pending, Ordering::SeqCst);
        self.inner.append(batch)
    }

    fn flush(&mut self) -> Result<Position> {
        self.pending = 0;
        self.inner.flush()
    }
}

#[test]
fn what_lies_between_two_flushes_is_bounded() {
    let db = small(&sim().0).memory_bytes(64 << 20).open(db_path()).unwrap();
    let words = db.keyspace("words", Default::default()).unwrap();
    for i in 0..2000u32 {
        words.put(i.to_be_bytes(), vec![7; 996]).unwrap();
    }
    let most = Arc::new(AtomicU64::new(0));
    let inner = MemorySink::new();
    let sink = Measuring { inner: inner.clone(), pending: 0, most: most.clone() };
    let clock = Arc::new(ManualClock::default());
    let shipper = ship(&db, sink, eager(&clock).flush_bytes(100_000)).unwrap();
    shipper.flush().unwrap();
    assert_eq!(inner.batches().last().unwrap().last_seqno(), 2000);
    let most = most.load(Ordering::SeqCst);
    assert!((80_000..=101_000).contains(&most), "{most} bytes between two flushes");
    assert!(shipper.status().flushes >= 20);
}

#[test]
fn a_sink_that_is_too_far_behind_must_start_anew() {
    let (fs, _) = sim();
    let options = || small(&fs).max_retained_wal_bytes(256 << 10);
    let db = options().open(db_path()).unwrap();
    let words = db.keyspace("words", Default::default()).unwrap();
    let (sink, clock) = (MemorySink::new(), Arc::new(ManualClock::default()));
    let shipper = ship(&db, sink.clone(), eager(&clock)).unwrap();
    words.put("first", "1").unwrap();
    shipper.flush().unwrap();
    drop(shipper);
    for i in 0..6000u32 {
        words.put(i.to_be_bytes(), vec![7; 1000]).unwrap();
    }
    db.flush().unwrap();
    db.wait_for_compaction().unwrap();
    let refused = |error: Error| match error {
        Error::NotRetained { requested, oldest } => assert!(requested == 2 && oldest > 2, "{requested} {oldest}"),
        other => panic!("{other}"),
    };
    refused(ship(&db, sink.clone(), eager(&clock)).unwrap_err());
    db.close().unwrap();
    let db = options().open(db_path()).unwrap();
    refused(ship(&db, sink.clone(), eager(&clock)).unwrap_err());
    assert_eq!(sink.batches().len(), 1);
    assert!(!changes_begin_at_one(&db), "the log is really gone");
}

fn changes_begin_at_one(db: &siltstone::Db) -> bool {
    db.changes(1).is_ok() && !changes(db).is_empty()
}
