//! What has to hold after a fault.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::Arc;

use siltstone::fs::{Fault, FaultFileSystem, FileSystem, Keep, SimFileSystem};
use siltstone::{Db, Durability, Error, Keyspace, Options, Result, WriteBatch};

use crate::history::History;
use crate::state::{State, difference, dump, dump_keyspaces, read_both_ways};
use crate::workload::{DIRECTORY, keyspace_options, options};

/// A filesystem in memory, and the same behind one whose calls may fail.
pub(super) fn file_systems() -> (SimFileSystem, FaultFileSystem) {
    let sim = SimFileSystem::new();
    (sim.clone(), FaultFileSystem::new(Arc::new(sim)))
}

/// The options of every open.
pub(super) fn on(fs: &FaultFileSystem) -> Options {
    options().file_system(Arc::new(fs.clone()))
}

/// Opens the database.
pub(super) fn open(fs: &FaultFileSystem) -> Result<Db> {
    on(fs).open(Path::new(DIRECTORY))
}

/// What the system says of a fault, in its own words.
fn words(fault: Fault) -> String {
    io::Error::from_raw_os_error(if fault == Fault::NoSpace { 28 } else { 5 }).to_string()
}

/// The error tells what failed, where, and how; a failed call is never taken for damage.
pub(super) fn assert_clear(error: &Error, fault: Fault, what: &str) {
    assert_clear_words(error, &words(fault), what);
}

/// As [`assert_clear`], where the system said `words`.
pub(super) fn assert_clear_words(error: &Error, words: &str, what: &str) {
    match error {
        Error::Io { action, path, source } => {
            assert!(!action.is_empty() && path.starts_with(DIRECTORY), "{what}: {error:?} names no place");
            assert!(source.to_string().contains(words), "{what}: {error:?} instead of {words:?}");
        }
        Error::ReadOnly { reason } => {
            assert!(reason.contains(words), "{what}: {reason:?} does not say {words:?}");
            assert!(reason.contains(DIRECTORY), "{what}: {reason:?} names no file");
        }
        other => panic!("{what}: {other:?}"),
    }
}

/// Those of `keyspaces` that were not dropped.
pub(super) fn live(keyspaces: &[Keyspace]) -> Vec<Keyspace> {
    let is_live = |keyspace: &&Keyspace| !matches!(keyspace.get("k"), Err(Error::KeyspaceDropped { .. }));
    keyspaces.iter().filter(is_live).cloned().collect()
}

/// Reads are served, from both ends, by key and through a snapshot, and are right: everything acknowledged is there.
pub(super) fn assert_serves(history: &History, db: &Db, keyspaces: &[Keyspace], what: &str) {
    let live = live(keyspaces);
    let found = dump_keyspaces(&live).unwrap_or_else(|error| panic!("{what}: reads are not served: {error}"));
    let taken = history.check_prefix(&found, db.last_seqno(), history.acknowledged());
    taken.unwrap_or_else(|reason| panic!("{what}, before the reopen: {reason}"));
    let snapshot = db.snapshot();
    for keyspace in &live {
        let map = read_both_ways(what, snapshot.iter(keyspace), snapshot.iter(keyspace));
        let map = map.unwrap_or_else(|error| panic!("{what}: a snapshot is not served: {error}"));
        assert!(
            found.get(&keyspace.name().to_string()).cloned().unwrap_or_default() == map,
            "{what}: a snapshot differs"
        );
        for (key, value) in &map {
            let got = keyspace.get(key).unwrap_or_else(|error| panic!("{what}: a get is not served: {error}"));
            assert_eq!(got.as_deref(), Some(&value[..]), "{what}: get and iterator disagree");
        }
    }
}

/// The database takes no writes, says why, and acknowledges nothing.
pub(super) fn assert_refuses(db: &Db, keyspaces: &[Keyspace], what: &str) {
    assert!(db.metrics().read_only_reason.is_some(), "{what}: not read-only");
    let last_seqno = db.last_seqno();
    let read_only = |answer: Result<(), Error>, call: &str| {
        assert!(matches!(answer, Err(Error::ReadOnly { .. })), "{what}: {call}: {answer:?}");
    };
    if let Some(keyspace) = live(keyspaces).first() {
        let mut batch = WriteBatch::new();
        batch.put(keyspace, "never", "acknowledged");
        for durability in [Durability::NoLog, Durability::Buffered, Durability::Synced] {
            read_only(db.write_with(batch.clone(), durability).map(drop), "a write");
        }
        read_only(keyspace.put("never", "acknowledged").map(drop), "a put");
        read_only(keyspace.compact(), "a compaction");
        read_only(keyspace.flush(), "a flush");
        read_only(db.drop_keyspace(keyspace.name()).map(drop), "a drop");
    }
    read_only(db.sync(), "a sync");
    read_only(db.flush(), "a flush of all");
    read_only(db.wait_for_compaction(), "waiting");
    read_only(db.set_change_cursor("cursor", last_seqno + 1), "a cursor");
    assert_eq!(db.last_seqno(), last_seqno, "{what}: a refused write took a number");
}

/// Opens what is there, on a filesystem where nothing fails any more, and checks it: at least `least` events, intact,
/// taking writes, which then survive a power cut together with all that was read; and no file is left over. How many
/// databases were opened.
pub(super) fn assert_recovers(
    sim: &SimFileSystem,
    fs: &FaultFileSystem,
    history: &History,
    least: usize,
    what: &str,
) -> u64 {
    let db = open(fs).unwrap_or_else(|error| panic!("{what}: {error}"));
    history.check_keyspaces(&db.keyspaces()).unwrap_or_else(|reason| panic!("{what}: {reason}"));
    let found = dump(&db, &keyspace_options()).unwrap_or_else(|error| panic!("{what}: {error}"));
    let taken = history.check_prefix(&found, db.last_seqno(), least);
    taken.unwrap_or_else(|reason| panic!("{what}: {reason}"));
    assert_intact(&db, what);
    let keyspace = db.keyspace("keyspace 0", keyspace_options()).unwrap();
    keyspace.put("after", "the fault").unwrap_or_else(|error| panic!("{what}: {error}"));
    db.sync().unwrap_or_else(|error| panic!("{what}: {error}"));
    let expected = dump(&db, &keyspace_options()).unwrap();
    assert_holds(&sim.crash_clone(Keep::Nothing, 0), &expected, &format!("{what}, and then a power cut"));
    assert_tidy(sim, fs, db, &[keyspace], &expected, what);
    3
}

/// Tables, levels and log are as they should be.
fn assert_intact(db: &Db, what: &str) {
    let report = db.verify();
    assert!(report.is_ok(), "{what}: {report}");
}

/// A database left by a power cut holds exactly `expected`.
fn assert_holds(left: &SimFileSystem, expected: &State, what: &str) {
    let fs = FaultFileSystem::new(Arc::new(left.clone()));
    let db = open(&fs).unwrap_or_else(|error| panic!("{what}: {error}"));
    let found = dump(&db, &keyspace_options()).unwrap_or_else(|error| panic!("{what}: {error}"));
    if let Some(difference) = difference(&found, expected) {
        panic!("{what}: what was synced is not there: {difference}");
    }
    assert_intact(&db, what);
}

/// After a compaction and a close there are only the files that the database names, and they hold `expected`.
fn assert_tidy(
    sim: &SimFileSystem,
    fs: &FaultFileSystem,
    db: Db,
    keyspaces: &[Keyspace],
    expected: &State,
    what: &str,
) {
    let compacted = keyspaces.iter().try_for_each(Keyspace::compact).and_then(|()| db.wait_for_compaction());
    compacted.and_then(|()| db.close()).unwrap_or_else(|error| panic!("{what}: {error}"));
    let wal_file_bytes = db.metrics().wal_file_bytes;
    drop(db);
    let mut files: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
    let entries = sim.read_dir(Path::new(DIRECTORY)).unwrap();
    for entry in &entries {
        let kind = entry.name.rsplit_once('.').map_or(&entry.name[..entry.name.len().min(8)], |(_, kind)| kind);
        let kind = if kind == "spare" { "wal" } else { kind };
        let (count, bytes) = files.entry(kind).or_default();
        (*count, *bytes) = (*count + 1, *bytes + entry.len);
    }
    let log = files.remove("wal").unwrap_or_default();
    assert_eq!(log.1, wal_file_bytes, "{what}: the log's files: {entries:?}");
    let db = on(fs).read_only(true).open(Path::new(DIRECTORY)).unwrap_or_else(|error| panic!("{what}: {error}"));
    let report = db.verify();
    assert!(report.is_ok(), "{what}, closed: {report}");
    let tables = files.remove("table").unwrap_or_default();
    assert_eq!(tables, (report.tables, report.table_bytes), "{what}: the tables: {entries:?}");
    let others: Vec<(&str, u64)> = files.into_iter().map(|(kind, (count, _))| (kind, count)).collect();
    assert_eq!(others, [("CURRENT", 1), ("LOCK", 1), ("MANIFEST", 1)], "{what}: {entries:?}");
    let found = dump(&db, &keyspace_options()).unwrap_or_else(|error| panic!("{what}, closed: {error}"));
    if let Some(difference) = difference(&found, expected) {
        panic!("{what}, compacted and closed: {difference}");
    }
}
