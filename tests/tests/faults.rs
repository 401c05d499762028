//! One failing call at a time: a clear error, nothing acknowledged that is not there, read-only for good where the log
//! is in doubt, reads served, and everything back after a reopen.
//!
//! `SILTSTONE_FAULTS` sets how many places per workload and kind of fault.

use std::io;
use std::path::Path;
use std::sync::Arc;

use siltstone::fs::{Fault, FaultFileSystem, Keep, Op, SimFileSystem};
use siltstone::{Db, Durability, Error, Keyspace, WriteBatch};
use siltstone_tests::state::{dump, dump_keyspaces};
use siltstone_tests::workload::{DIRECTORY, Outcome, Workload, keyspace_options, options};

fn places() -> u64 {
    std::env::var("SILTSTONE_FAULTS").ok().and_then(|places| places.parse().ok()).unwrap_or(60)
}

fn open(fs: &FaultFileSystem) -> siltstone::Result<Db> {
    options().file_system(Arc::new(fs.clone())).open(Path::new(DIRECTORY))
}

/// A database that failed: reads are served and right, and no write is acknowledged any more.
fn check_failed(outcome: &Outcome, db: &Db, keyspaces: &[Keyspace], what: &str) {
    let live: Vec<Keyspace> = keyspaces
        .iter()
        .filter(|keyspace| !matches!(keyspace.get("k"), Err(Error::KeyspaceDropped { .. })))
        .cloned()
        .collect();
    let found = dump_keyspaces(&live).unwrap_or_else(|error| panic!("{what}: reads are not served: {error}"));
    let history = &outcome.history;
    let in_memory = history.check_prefix(&found, db.last_seqno(), history.acknowledged());
    in_memory.unwrap_or_else(|reason| panic!("{what}, before the reopen: {reason}"));
    assert!(db.metrics().read_only_reason.is_some(), "{what}: {:?}, but not read-only", outcome.error);
    if let Some(keyspace) = live.first() {
        let mut batch = WriteBatch::new();
        batch.put(keyspace, "never", "acknowledged");
        let synced = db.write_with(batch.clone(), Durability::Synced);
        assert!(matches!(synced, Err(Error::ReadOnly { .. })), "{what}: {synced:?}");
        let buffered = db.write(batch);
        assert!(matches!(buffered, Err(Error::ReadOnly { .. })), "{what}: {buffered:?}");
    }
    assert!(matches!(db.sync(), Err(Error::ReadOnly { .. })), "{what}: a sync after a failure");
    assert!(matches!(db.flush(), Err(Error::ReadOnly { .. })), "{what}: a flush after a failure");
}

/// Opens what is there and checks it: at least `least` events.
fn check_reopened(sim: &SimFileSystem, outcome: &Outcome, least: usize, what: &str) {
    let fs = FaultFileSystem::new(Arc::new(sim.clone()));
    let db = open(&fs).unwrap_or_else(|error| panic!("{what}: {error}"));
    outcome.history.check_keyspaces(&db.keyspaces()).unwrap_or_else(|reason| panic!("{what}: {reason}"));
    let found = dump(&db, &keyspace_options()).unwrap_or_else(|error| panic!("{what}: {error}"));
    let taken = outcome.history.check_prefix(&found, db.last_seqno(), least);
    taken.unwrap_or_else(|reason| panic!("{what}: {reason}"));
    let report = db.verify();
    assert!(report.is_ok(), "{what}: {report}");
    db.keyspace("keyspace 0", keyspace_options()).unwrap().put("after", "the fault").unwrap();
}

/// Runs `workload` with the fault at call `at` (of kind `only`, if any); whether it hit and was felt.
fn run(workload: &Workload, only: Option<Op>, at: u64, fault: Fault, for_good: bool) -> bool {
    let what = format!("{workload:?}, {fault:?} at call {at} of {only:?}, for good: {for_good}");
    let sim = SimFileSystem::new();
    let fs = FaultFileSystem::new(Arc::new(sim.clone()));
    if let Some(op) = only {
        fs.only(op);
    }
    if for_good {
        fs.fail_from(at, fault)
    } else {
        fs.fail_at(at, fault)
    }
    let mut outcome = workload.run(options().file_system(Arc::new(fs.clone())));
    fs.clear();
    let after_cut = sim.crash_clone(Keep::Nothing, 0);
    if let Some(Error::Io { source, .. }) = &outcome.error {
        let kind =
            if fault == Fault::NoSpace { io::ErrorKind::StorageFull } else { io::Error::from_raw_os_error(5).kind() };
        assert_eq!(source.kind(), kind, "{what}: {:?}", outcome.error);
    }
    if let Some(error) = &outcome.error {
        assert!(matches!(error, Error::Io { .. } | Error::ReadOnly { .. }), "{what}: {error:?}");
    }
    if let Some((db, keyspaces)) = outcome.db.take() {
        if outcome.error.is_some() {
            check_failed(&outcome, &db, &keyspaces, &what);
        }
        // Closing a failed database frees the directory all the same.
        drop(keyspaces);
        let _whatever = db.close();
    }
    check_reopened(&sim, &outcome, outcome.history.acknowledged(), &format!("{what}, reopened"));
    check_reopened(&after_cut, &outcome, outcome.history.synced(), &format!("{what}, after a power cut"));
    outcome.error.is_some()
}

/// How many calls (of one kind) a run without faults makes.
fn calls(workload: &Workload, only: Option<Op>) -> u64 {
    let fs = FaultFileSystem::new(Arc::new(SimFileSystem::new()));
    if let Some(op) = only {
        fs.only(op);
    }
    let outcome = workload.run(options().file_system(Arc::new(fs.clone())));
    assert!(outcome.error.is_none(), "{:?}", outcome.error);
    fs.calls()
}

#[test]
fn any_call_may_fail() {
    for (seed, fault, for_good) in
        [(1, Fault::Io, false), (2, Fault::NoSpace, false), (3, Fault::ShortWrite, false), (4, Fault::NoSpace, true)]
    {
        let workload = Workload { seed, steps: 100, lockstep: seed % 2 == 0 };
        let total = calls(&workload, None);
        let places = places().min(total);
        let felt =
            (0..places).filter(|place| run(&workload, None, 1 + total * place / places, fault, for_good)).count();
        println!("{workload:?}: {fault:?} at {places} of {total} calls, {felt} felt");
        assert!(felt > 0);
    }
}

#[test]
fn any_call_of_a_kind_may_fail() {
    let workload = Workload { seed: 5, steps: 100, lockstep: true };
    let ops = [
        Op::Create,
        Op::CreateMapped,
        Op::Open,
        Op::Rename,
        Op::Remove,
        Op::SyncDir,
        Op::Append,
        Op::Sync,
        Op::Read,
        Op::MappedWrite,
        Op::MappedSync,
    ];
    for op in ops {
        let total = calls(&workload, Some(op));
        let places = (places() / 6).min(total);
        let felt =
            (0..places).filter(|place| run(&workload, Some(op), 1 + total * place / places, Fault::Io, false)).count();
        println!("{op:?}: {places} of {total} calls, {felt} felt");
    }
}

/// Nothing is acknowledged as durable once a sync failed, even if the next one would succeed: the system may have
/// dropped the pages.
#[test]
fn a_failed_sync_is_never_forgotten() {
    let sim = SimFileSystem::new();
    let fs = FaultFileSystem::new(Arc::new(sim.clone()));
    let db = open(&fs).unwrap();
    let keyspace = db.keyspace("a", keyspace_options()).unwrap();
    keyspace.put("before", "1").unwrap();
    db.sync().unwrap();
    keyspace.put("in doubt", "2").unwrap();
    fs.only(Op::MappedSync);
    fs.fail_at(1, Fault::Io);
    let failed = db.sync();
    assert!(matches!(&failed, Err(Error::Io { source, .. }) if source.raw_os_error() == Some(5)), "{failed:?}");
    for _ in 0..3 {
        assert!(matches!(db.sync(), Err(Error::ReadOnly { .. })));
        assert!(matches!(keyspace.put("after", "3"), Err(Error::ReadOnly { .. })));
    }
    assert_eq!(keyspace.get("in doubt").unwrap().unwrap(), "2", "reads go on");
    let left = sim.crash_clone(Keep::Nothing, 0);
    drop((keyspace, db));
    let db = open(&FaultFileSystem::new(Arc::new(left))).unwrap();
    assert_eq!(db.keyspace("a", keyspace_options()).unwrap().get("before").unwrap().unwrap(), "1");
}

/// A full disk: the log's space is reserved before it is used, so the error comes before anything is acknowledged; once
/// there is space and the database is reopened, all is there.
#[test]
fn a_full_disk_refuses_and_loses_nothing() {
    for capacity_bytes in [300 << 10, 500 << 10, 1 << 20] {
        let sim = SimFileSystem::new();
        sim.set_capacity_bytes(Some(capacity_bytes));
        let workload = Workload { seed: capacity_bytes, steps: 3000, lockstep: false };
        let mut outcome = workload.run(options().file_system(Arc::new(sim.clone())));
        let what = format!("{capacity_bytes} bytes");
        let error = outcome.error.as_ref().unwrap_or_else(|| panic!("{what}: never full"));
        let full = match error {
            Error::Io { source, .. } => source.kind() == io::ErrorKind::StorageFull,
            Error::ReadOnly { reason } => reason.contains(&io::Error::from(io::ErrorKind::StorageFull).to_string()),
            _ => false,
        };
        assert!(full, "{what}: {error:?}");
        assert!(outcome.history.acknowledged() > 20);
        let (db, keyspaces) = outcome.db.take().unwrap();
        check_failed(&outcome, &db, &keyspaces, &what);
        drop((keyspaces, db));
        sim.set_capacity_bytes(None);
        check_reopened(&sim, &outcome, outcome.history.acknowledged(), &what);
    }
}
