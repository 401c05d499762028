//! A database, shipped while it is written, comes back from the log as it was.

mod common;

use std::sync::{Arc, Mutex};

use common::{Random, contents, read_all, scratch, without_empty, write_randomly};
use siltstone::{Db, KeyspaceOptions, Options};
use siltstone_changelog::{Error, FileSink, FileSinkOptions, FileSource, Restore, ShipOptions, ship};

#[test]
fn keyspaces_with_drops_and_recreation_come_back() {
    for seed in 0..8 {
        let (dir, local, log) = scratch();
        let db = Options::new().memory_bytes(4 << 20).open(&local).unwrap();
        let sink = FileSink::open_with(&log, FileSinkOptions::new().segment_bytes(4096)).unwrap();
        let shipper = ship(&db, sink, ShipOptions::new()).unwrap();
        write_randomly(&db, &mut Random(seed), 300).unwrap();
        let position = shipper.flush().unwrap();
        assert_eq!(shipper.lag(), 0, "seed {seed}");
        assert_eq!(shipper.position(), Some(position.clone()));
        assert_eq!(shipper.stop().unwrap(), position);

        let again = dir.path().join("again");
        let (restored, at) = Restore::new(FileSource::open(&log)).into(&again).run().unwrap();
        assert_eq!(at, position, "seed {seed}");
        assert_eq!(restored.last_seqno(), db.last_seqno(), "seed {seed}");
        assert_eq!(without_empty(contents(&restored)), without_empty(contents(&db)), "seed {seed}");
        let before = contents(&restored);
        restored.close().unwrap();
        assert_eq!(contents(&Db::open(&again).unwrap()), before, "seed {seed}: after a reopen");
    }
}

#[test]
fn shipping_goes_on_after_a_restore_without_duplicates() {
    let (dir, local, log) = scratch();
    let db = Db::open(&local).unwrap();
    let shipper = ship(&db, FileSink::open(&log).unwrap(), ShipOptions::new()).unwrap();
    let mut random = Random(1);
    write_randomly(&db, &mut random, 100).unwrap();
    shipper.stop().unwrap();
    db.close().unwrap();

    let again = dir.path().join("again");
    let (db, _) = Restore::new(FileSource::open(&log)).into(&again).run().unwrap();
    let shipper = ship(&db, FileSink::open(&log).unwrap(), ShipOptions::new()).unwrap();
    write_randomly(&db, &mut random, 100).unwrap();
    shipper.stop().unwrap();

    let batches = read_all(&FileSource::open(&log)).unwrap();
    let numbers: Vec<u64> = batches.iter().flat_map(|batch| batch.first_seqno()..=batch.last_seqno()).collect();
    assert_eq!(numbers, (1..=db.last_seqno()).collect::<Vec<_>>(), "each number once, in order");
    let third = dir.path().join("third");
    let (third, _) = Restore::new(FileSource::open(&log)).into(third).run().unwrap();
    assert_eq!(without_empty(contents(&third)), without_empty(contents(&db)));
}

#[test]
fn a_restore_reports_progress_and_uses_the_options_given() {
    let (dir, local, log) = scratch();
    let db = Db::open(&local).unwrap();
    let shipper = ship(&db, FileSink::open(&log).unwrap(), ShipOptions::new()).unwrap();
    let words = db.keyspace("words", Default::default()).unwrap();
    for i in 0..3000u32 {
        words.put(i.to_be_bytes(), vec![i as u8; 1000]).unwrap();
    }
    shipper.stop().unwrap();
    let reports = Arc::new(Mutex::new(Vec::new()));
    let collected = reports.clone();
    let restore = Restore::new(FileSource::open(&log))
        .into(dir.path().join("again"))
        .keyspace_options("words", KeyspaceOptions::new().block_bytes(1024))
        .on_progress(move |progress| collected.lock().unwrap().push(progress.clone()));
    let (restored, position) = restore.run().unwrap();
    let reports = reports.lock().unwrap();
    let last = reports.last().unwrap();
    assert_eq!((last.batches, last.changes, last.user_bytes), (3000, 3000, 3000 * 1004));
    assert_eq!((&last.position, &last.newest), (&position, &position));
    assert!(reports.len() > 2 && reports.windows(2).all(|pair| pair[0].user_bytes <= pair[1].user_bytes));
    assert_eq!(contents(&restored), contents(&db));
}

#[test]
fn a_restore_goes_into_an_empty_directory_only() {
    let (dir, local, log) = scratch();
    let db = Db::open(&local).unwrap();
    let shipper = ship(&db, FileSink::open(&log).unwrap(), ShipOptions::new()).unwrap();
    db.keyspace("words", Default::default()).unwrap().put("silt", "1").unwrap();
    shipper.stop().unwrap();
    db.close().unwrap();

    let refused = |directory: &std::path::Path| match Restore::new(FileSource::open(&log)).into(directory).run() {
        Err(Error::NotEmpty { reason, .. }) => reason,
        other => panic!("{other:?}"),
    };
    assert!(refused(&local).contains("database"));
    assert_eq!(contents(&Db::open(&local).unwrap())["words"].len(), 1, "what was there is still there");
    let files = dir.path().join("files");
    std::fs::create_dir(&files).unwrap();
    std::fs::write(files.join("letter.txt"), "dear").unwrap();
    assert!(refused(&files).contains("letter.txt"));
    assert_eq!(std::fs::read_dir(&files).unwrap().count(), 1, "nothing was created");
    let empty = dir.path().join("empty");
    std::fs::create_dir(&empty).unwrap();
    Restore::new(FileSource::open(&log)).into(&empty).run().unwrap().0.close().unwrap();
    assert!(refused(&empty).contains("not an interrupted restore"), "a finished restore is a database like any other");
}
