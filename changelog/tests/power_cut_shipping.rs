//! Power cuts at every call while shipping: the sink never holds what the database lost, and holds everything it
//! acknowledged.

mod common;

use std::sync::Arc;

use common::{ManualClock, Random, changes, db_path, eager, file_sink, file_source, read_all, small, write_randomly};
use siltstone::fs::{Keep, SimFileSystem};
use siltstone_changelog::{Position, Sink, Source, ship};

/// Works until the power goes; answers the last position and number that were acknowledged to the caller.
fn work(local: &SimFileSystem, remote: &SimFileSystem) -> Option<(Position, u64)> {
    let db = small(local).open(db_path()).ok()?;
    let clock = Arc::new(ManualClock::default());
    let sink = file_sink(remote, 600).ok()?;
    let shipper = ship(&db, sink, eager(&clock)).ok()?;
    let mut random = Random(7);
    let mut acknowledged = None;
    for _ in 0..8 {
        if write_randomly(&db, &mut random, 3).is_err() {
            break;
        }
        let last = db.last_seqno();
        match shipper.flush() {
            Ok(position) => acknowledged = Some((position, last)),
            Err(_) => break,
        }
    }
    acknowledged
}

/// After recovery, what the sink holds is a prefix of what the database holds, and shipping goes on to the same end.
fn check(local: &SimFileSystem, remote: &SimFileSystem, acknowledged: Option<(Position, u64)>, what: &str) {
    let db = small(local).open(db_path()).unwrap_or_else(|error| panic!("{what}: {error}"));
    let source = file_source(remote);
    let shipped = read_all(&source).unwrap_or_else(|error| panic!("{what}: {error}"));
    let here = changes(&db);
    assert!(here.starts_with(&shipped), "{what}: the sink holds {} batches, the log {}", shipped.len(), here.len());
    if let Some((position, last)) = acknowledged {
        assert!(shipped.last().is_some_and(|batch| batch.last_seqno() >= last), "{what}: acknowledged {last}");
        assert!(source.read(&position).is_ok(), "{what}: {position} is a position of the log");
    }
    let sink = file_sink(remote, 600).unwrap_or_else(|error| panic!("{what}: {error}"));
    let shipper = ship(&db, sink, eager(&Arc::default())).unwrap_or_else(|error| panic!("{what}: {error}"));
    write_randomly(&db, &mut Random(8), 3).unwrap();
    shipper.stop().unwrap_or_else(|error| panic!("{what}: {error}"));
    assert_eq!(read_all(&source).unwrap(), changes(&db), "{what}: after shipping on");
}

#[test]
fn the_database_loses_power_and_the_sink_does_not() {
    let whole = SimFileSystem::new();
    assert!(work(&whole, &SimFileSystem::new()).is_some());
    for n in 0..=whole.call_count() {
        let (local, remote) = (SimFileSystem::new(), SimFileSystem::new());
        local.stop_after(n);
        let acknowledged = work(&local, &remote);
        for (keep, seed) in [(Keep::Nothing, 0), (Keep::Some, n), (Keep::All, 0)] {
            let remote = remote.crash_clone(Keep::All, 0);
            let what = format!("call {n}, {keep:?}");
            check(&local.crash_clone(keep, seed), &remote, acknowledged.clone(), &what);
        }
    }
}

#[test]
fn one_machine_holds_both_and_loses_power() {
    let whole = SimFileSystem::new();
    assert!(work(&whole, &whole).is_some());
    for n in 0..=whole.call_count() {
        let fs = SimFileSystem::new();
        fs.stop_after(n);
        let acknowledged = work(&fs, &fs);
        for (keep, seed) in [(Keep::Nothing, 0), (Keep::Some, n), (Keep::Some, n + 1000)] {
            let fs = fs.crash_clone(keep, seed);
            check(&fs, &fs, acknowledged.clone(), &format!("call {n}, {keep:?} {seed}"));
        }
    }
}

/// The process is killed between a sink's write and its sync.
#[test]
fn what_a_sink_holds_but_never_acknowledged_is_acknowledged_before_it_counts() {
    let (local, remote) = (SimFileSystem::new(), SimFileSystem::new());
    let db = small(&local).open(db_path()).unwrap();
    let shipper = ship(&db, file_sink(&remote, 1 << 20).unwrap(), eager(&Arc::default())).unwrap();
    write_randomly(&db, &mut Random(9), 2).unwrap();
    shipper.stop().unwrap();
    let next = db.last_seqno() + 1;
    db.keyspace("ks0", Default::default()).unwrap().put("k", "v").unwrap();
    let mut sink = file_sink(&remote, 1 << 20).unwrap();
    sink.append(&db.changes(next).unwrap().next().unwrap().unwrap()).unwrap();
    remote.stop_after(remote.call_count() + 1);
    assert!(sink.flush().is_err());
    let remote = remote.fork();

    let shipper = ship(&db, file_sink(&remote, 1 << 20).unwrap(), eager(&Arc::default())).unwrap();
    assert_eq!(shipper.lag(), 0);
    let source = file_source(&remote.crash_clone(Keep::Nothing, 0));
    assert_eq!(read_all(&source).unwrap(), changes(&db), "not on storage, but acknowledged");
    assert_eq!(shipper.stop().unwrap(), source.bounds().unwrap().1, "a position before what was acknowledged");
    // The next start knows the same.
    let shipper = ship(&db, file_sink(&remote, 1 << 20).unwrap(), eager(&Arc::default())).unwrap();
    assert_eq!(shipper.position(), Some(source.bounds().unwrap().1));
}
