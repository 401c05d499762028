//! Power cuts at every call while restoring: position and data agree, and another run goes on from there.

mod common;

use std::sync::Arc;

use common::{Random, changes, contents, db_path, eager, sim, small, without_empty, write_randomly};
use siltstone::ChangeBatch;
use siltstone::fs::{Keep, SimFileSystem};
use siltstone_changelog::{MemorySink, MemorySource, Restore, SOURCE_POSITION, ship};

fn restore(source: MemorySource, fs: &SimFileSystem) -> siltstone_changelog::Result<siltstone::Db> {
    let restore = Restore::new(source).into_with(db_path(), small(fs)).file_system(Arc::new(fs.clone()));
    restore.run().map(|(db, _)| db)
}

#[test]
fn an_interrupted_restore_goes_on() {
    let db = small(&sim().0).open(db_path()).unwrap();
    let sink = MemorySink::new();
    let shipper = ship(&db, sink.clone(), eager(&Arc::default())).unwrap();
    write_randomly(&db, &mut Random(3), 60).unwrap();
    shipper.stop().unwrap();
    let (expected, log) = (without_empty(contents(&db)), changes(&db));

    let whole = SimFileSystem::new();
    restore(sink.source(), &whole).unwrap().close().unwrap();
    for n in 0..whole.call_count() {
        let fs = SimFileSystem::new();
        fs.stop_after(n);
        drop(restore(sink.source(), &fs));
        for (keep, seed) in [(Keep::Nothing, 0), (Keep::Some, n), (Keep::All, 0)] {
            let fs = fs.crash_clone(keep, seed);
            check_position(&fs, &log, &format!("call {n}, {keep:?}"));
            match restore(sink.source(), &fs) {
                Ok(again) => {
                    assert!(without_empty(contents(&again)) == expected, "call {n}, {keep:?}");
                    assert_eq!(again.last_seqno(), db.last_seqno(), "call {n}, {keep:?}");
                }
                // It was finished: a database like any other.
                Err(error) => {
                    assert!(
                        matches!(error, siltstone_changelog::Error::NotEmpty { .. }),
                        "call {n}, {keep:?}: {error}"
                    );
                    let done = small(&fs).open(db_path()).unwrap();
                    assert!(without_empty(contents(&done)) == expected, "call {n}, {keep:?}: finished");
                }
            }
        }
    }
}

/// The stored position is the one after the last batch that is in. Looked at in a copy, so that nothing is changed.
fn check_position(fs: &SimFileSystem, log: &[ChangeBatch], what: &str) {
    let db = small(&fs.crash_clone(Keep::All, 0)).open(db_path()).unwrap_or_else(|error| panic!("{what}: {error}"));
    let applied = log.iter().take_while(|batch| batch.last_seqno() <= db.last_seqno()).count();
    let position = db.metadata(SOURCE_POSITION);
    let position = position.map_or(0, |bytes| String::from_utf8(bytes.to_vec()).unwrap().parse().unwrap());
    // A keyspace drop is synced by itself, and its position follows it: it may be applied again.
    let behind_drop = applied > 0 && matches!(log[applied - 1].changes(), [siltstone::Change::DropKeyspace { .. }]);
    assert!(position == applied || (behind_drop && position + 1 == applied), "{what}: {position} of {applied}");
}
