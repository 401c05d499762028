//! A sink and a database that do not belong together are told apart before anything is lost.

mod common;

use common::{db_path, put, scratch, sim, small};
use siltstone::Db;
use siltstone_changelog::{Error, FileSink, FileSource, MemorySink, Restore, ShipOptions, Sink, ship};

#[test]
fn an_empty_database_does_not_ship_to_a_log_that_has_more() {
    let (_dir, local, log) = scratch();
    let mut sink = FileSink::open(&log).unwrap();
    (1..=3).for_each(|seqno| sink.append(&put(seqno, "v")).unwrap());
    sink.flush().unwrap();
    drop(sink);
    let db = Db::open(&local).unwrap();
    let refused = ship(&db, FileSink::open(&log).unwrap(), ShipOptions::new()).unwrap_err();
    assert!(matches!(&refused, Error::Mismatch(reason) if reason.contains("restore")), "{refused}");
    let words = db.keyspace("words", Default::default()).unwrap();
    for i in 0..9u32 {
        words.put(i.to_be_bytes(), "other").unwrap();
    }
    let refused = ship(&db, FileSink::open(&log).unwrap(), ShipOptions::new()).unwrap_err();
    assert!(matches!(&refused, Error::Mismatch(reason) if reason.contains("neither")), "{refused}");
}

#[test]
fn a_sink_that_lost_what_it_acknowledged_is_refused() {
    let (_dir, local, log) = scratch();
    let db = Db::open(&local).unwrap();
    let shipper = ship(&db, FileSink::open(&log).unwrap(), ShipOptions::new()).unwrap();
    db.keyspace("words", Default::default()).unwrap().put("silt", "1").unwrap();
    shipper.stop().unwrap();
    std::fs::remove_dir_all(&log).unwrap();
    let refused = ship(&db, FileSink::open(&log).unwrap(), ShipOptions::new()).unwrap_err();
    assert!(matches!(&refused, Error::Mismatch(reason) if reason.contains("acknowledged")), "{refused}");
}

#[test]
fn a_log_that_would_begin_in_the_middle_needs_permission() {
    let (fs, _) = sim();
    let db = small(&fs).open(db_path()).unwrap();
    let words = db.keyspace("words", Default::default()).unwrap();
    // Enough for several log segments, all flushed and so released.
    for i in 0..3000u32 {
        words.put(i.to_be_bytes(), vec![7; 1000]).unwrap();
    }
    db.flush().unwrap();
    db.wait_for_compaction().unwrap();
    let sink = MemorySink::new();
    let first = match ship(&db, sink.clone(), ShipOptions::new()) {
        Err(Error::Partial { first, .. }) => first,
        other => panic!("{other:?}"),
    };
    assert!(first > 1);
    let shipper = ship(&db, sink.clone(), ShipOptions::new().allow_partial(true)).unwrap();
    words.put("last", "1").unwrap();
    shipper.stop().unwrap();
    assert_eq!(sink.batches()[0].first_seqno(), first);
    let (again, _) = sim();
    let refused = Restore::new(sink.source()).into_with(db_path(), small(&again)).run().unwrap_err();
    assert!(matches!(refused, Error::Partial { .. }), "{refused}");
}

#[test]
fn a_sink_directory_has_one_owner_and_any_number_of_readers() {
    let (_dir, _, log) = scratch();
    let mut sink = FileSink::open(&log).unwrap();
    assert!(matches!(FileSink::open(&log), Err(Error::Locked { .. })));
    sink.append(&put(1, "v")).unwrap();
    sink.flush().unwrap();
    assert_eq!(common::read_all(&FileSource::open(&log)).unwrap(), [put(1, "v")]);
    drop(sink);
    FileSink::open(&log).unwrap();
}
