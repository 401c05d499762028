//! What has to hold of a database after a power cut.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use siltstone::fs::{FileSystem, Keep, SimFileSystem};
use siltstone::{ChangeBatch, Db, Durability, Error, SeqNo, WriteBatch};

use super::points::each_call;
use crate::evidence::record;
use crate::history::History;
use crate::log::oldest_changes;
use crate::state::{State, Write, apply, difference, dump};
use crate::workload::{DIRECTORY, cursors, dump_metadata, keyspace_options, options};

/// Opens the database of the workloads for writing.
///
/// # Errors
/// The database's.
pub fn open(fs: Arc<dyn FileSystem>) -> siltstone::Result<Db> {
    options().file_system(fs).open(Path::new(DIRECTORY))
}

/// What a database shows.
#[derive(Clone, Debug, PartialEq)]
struct Shown {
    keyspaces: Vec<String>,
    state: State,
    last_seqno: SeqNo,
}

impl Shown {
    fn by(db: &Db) -> siltstone::Result<Shown> {
        let mut state = dump(db, &keyspace_options())?;
        dump_metadata(db, &mut state);
        Ok(Shown { keyspaces: db.keyspaces(), state, last_seqno: db.last_seqno() })
    }

    /// Panics where two differ.
    fn compare(&self, other: &Shown, what: &str) {
        assert_eq!(difference(&self.state, &other.state), None, "{what}");
        assert_eq!((&self.keyspaces, self.last_seqno), (&other.keyspaces, other.last_seqno), "{what}");
    }
}

/// Counts of what was checked.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    /// States recovered.
    pub states: u64,
    /// States recovered after a second cut, inside a recovery.
    pub double_states: u64,
    /// States opened read-only.
    pub read_only_opens: u64,
    /// Events that were acknowledged and, not being synced, lost: cuts that take nothing back prove nothing.
    pub taken_back: u64,
}

impl Counts {
    /// Adds them to the evidence.
    pub fn record(&self) {
        record("crash_states", self.states);
        record("double_crash_states", self.double_states);
        record("read_only_opens", self.read_only_opens);
        record("lost", 0);
        record("wrong", 0);
    }
}

/// A state that a power cut left, durable as it is.
#[derive(Debug)]
pub struct Left<'h> {
    /// The storage.
    pub sim: SimFileSystem,
    /// What the workload had tried and been told.
    pub history: &'h History,
    /// How many events have to be there.
    pub least: usize,
    /// Decides what is done with the state; see [`check`](Left::check).
    pub seed: u64,
    /// How to come here again, for messages.
    pub what: String,
}

impl Left<'_> {
    /// Opens the state read-only, then for writing, and checks everything that is promised of it; with `twice` cuts the
    /// power again at every call of the recovery.
    ///
    /// # Panics
    /// With `what`, where something does not hold.
    pub fn check(&self, twice: bool, counts: &mut Counts) {
        let what = &self.what;
        let read_only = self.open_read_only();
        counts.read_only_opens += 1;
        if twice {
            counts.double_states += self.cut_recovery(&read_only);
        }
        let db = open(Arc::new(self.sim.clone())).unwrap_or_else(|error| panic!("{what}: {error}"));
        let shown = Shown::by(&db).unwrap_or_else(|error| panic!("{what}: {error}"));
        match &read_only {
            Some(read_only) => shown.compare(read_only, &format!("{what}: after a read-only open")),
            None => assert_eq!(shown, Shown::default_of_new(), "{what}: a database that cannot be opened read-only"),
        }
        let taken = self.check_shown(&db, &shown);
        counts.taken_back += self.history.acknowledged().saturating_sub(taken) as u64;
        self.go_on(db, shown);
        counts.states += 1;
    }

    /// Everything that the history says of what is there; answers how many events that is.
    fn check_shown(&self, db: &Db, shown: &Shown) -> usize {
        let (what, history) = (&self.what, self.history);
        history.check_keyspaces(&shown.keyspaces).unwrap_or_else(|reason| panic!("{what}: {reason}"));
        let taken = history.check_prefix(&shown.state, shown.last_seqno, self.least);
        let taken = taken.unwrap_or_else(|reason| panic!("{what}: {reason}"));
        let (oldest, changes) = oldest_changes(db);
        let changes: Vec<ChangeBatch> =
            changes.collect::<siltstone::Result<_>>().unwrap_or_else(|error| panic!("{what}: {error}"));
        history.check_changes(taken, oldest, &changes).unwrap_or_else(|reason| panic!("{what}: {reason}"));
        history.check_last_seqno(taken, shown.last_seqno).unwrap_or_else(|reason| panic!("{what}: {reason}"));
        for (cursor, next) in cursors(db) {
            assert!(next >= oldest, "{what}: cursor {cursor} needs {next}, the log begins at {oldest}");
        }
        let report = db.verify();
        assert!(report.is_ok(), "{what}: {report}");
        taken
    }

    /// Opens read-only, which changes nothing, and answers what it shows; nothing where there is no database yet.
    fn open_read_only(&self) -> Option<Shown> {
        let what = &self.what;
        let before = files(&self.sim);
        let opened = options().read_only(true).file_system(Arc::new(self.sim.clone())).open(DIRECTORY);
        let shown = match opened {
            Ok(db) => {
                let shown = Shown::by(&db).unwrap_or_else(|error| panic!("{what}, read-only: {error}"));
                let report = db.verify();
                assert!(report.is_ok(), "{what}, read-only: {report}");
                db.close().unwrap_or_else(|error| panic!("{what}, read-only: {error}"));
                Some(shown)
            }
            Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => None,
            Err(error) => panic!("{what}, read-only: {error}"),
        };
        assert_eq!(self.sim.call_count(), 0, "{what}: a read-only open made calls that change storage");
        assert!(files(&self.sim) == before, "{what}: a read-only open changed files");
        shown
    }

    /// Cuts the power at every call of a recovery. All that is there is durable, so each time the same has to be shown.
    fn cut_recovery(&self, expected: &Option<Shown>) -> u64 {
        let recovering = self.sim.fork();
        let mut states = 0;
        let run = |fs| drop(open(fs).unwrap_or_else(|error| panic!("{}: {error}", self.what)));
        each_call(&recovering, &Arc::new(Mutex::new(())), run, |point| {
            let seed = self.seed.wrapping_mul(1000).wrapping_add(point.calls);
            let keep = [Keep::Nothing, Keep::Some, Keep::Some, Keep::All][seed as usize % 4];
            let what = format!("{}, and again at call {} of the recovery, {keep:?} {seed}", self.what, point.calls);
            let again = point.sim.crash_clone(keep, seed);
            let db = open(Arc::new(again.clone())).unwrap_or_else(|error| panic!("{what}: {error}"));
            let shown = Shown::by(&db).unwrap_or_else(|error| panic!("{what}: {error}"));
            if let Some(expected) = expected {
                shown.compare(expected, &what);
            }
            let left = Left { sim: again, what, ..*self };
            left.check_shown(&db, &shown);
            left.go_on(db, shown);
            states += 1;
        });
        states
    }

    /// It takes writes, and keeps them: through a clean close or another power cut, as the seed says.
    fn go_on(&self, db: Db, mut shown: Shown) {
        let what = format!("{}, gone on", self.what);
        let writes = write_on(&db).unwrap_or_else(|error| panic!("{what}: {error}"));
        writes.iter().for_each(|write| apply(&mut shown.state, write));
        (shown.keyspaces, shown.last_seqno) = (db.keyspaces(), db.last_seqno());
        let cut = self.seed.is_multiple_of(2);
        let sim = if cut { self.sim.crash_clone(Keep::Nothing, 0) } else { self.sim.clone() };
        db.close().unwrap_or_else(|error| panic!("{what}: {error}"));
        drop(db);
        let again = open(Arc::new(sim.clone())).unwrap_or_else(|error| panic!("{what}, cut {cut}: {error}"));
        let found = Shown::by(&again).unwrap_or_else(|error| panic!("{what}, cut {cut}: {error}"));
        found.compare(&shown, &format!("{what}, cut {cut}"));
        again.close().unwrap_or_else(|error| panic!("{what}, cut {cut}: {error}"));
        check_files(&sim, &what);
    }
}

/// A synced batch over two keyspaces, which may have to be created first.
fn write_on(db: &Db) -> siltstone::Result<Vec<Write>> {
    let mut batch = WriteBatch::new();
    let mut writes = Vec::new();
    for name in ["keyspace 0", "keyspace 2"] {
        let keyspace = db.keyspace(name, keyspace_options())?;
        batch.put(&keyspace, "after", "the cut").delete(&keyspace, "");
        writes.push((name.to_owned(), b"after".to_vec(), Some(b"the cut".to_vec())));
        writes.push((name.to_owned(), Vec::new(), None));
    }
    db.write_with(batch, Durability::Synced)?;
    Ok(writes)
}

impl Shown {
    fn default_of_new() -> Shown {
        Shown { keyspaces: Vec::new(), state: State::new(), last_seqno: 0 }
    }
}

/// Every file with its contents.
fn files(sim: &SimFileSystem) -> BTreeMap<PathBuf, Vec<u8>> {
    let read = |path: PathBuf| sim.read(&path).map(|bytes| (path, bytes)).expect("it was just listed");
    sim.paths().into_iter().map(read).collect()
}

/// After a clean close nothing lies about: the tables are those that are live, and there is one manifest.
fn check_files(sim: &SimFileSystem, what: &str) {
    let db = options().read_only(true).file_system(Arc::new(sim.clone())).open(DIRECTORY);
    let report = db.unwrap_or_else(|error| panic!("{what}: {error}")).verify();
    assert!(report.is_ok(), "{what}: {report}");
    let paths: Vec<String> = sim.paths().iter().map(|path| path.display().to_string()).collect();
    let tables = paths.iter().filter(|path| path.ends_with(".table")).count();
    assert_eq!(tables as u64, report.tables, "{what}: tables that nothing names, among {paths:?}");
    let others = paths.iter().filter(|path| path.contains("MANIFEST") || path.contains(".tmp")).count();
    assert_eq!(others, 1, "{what}: files left over, among {paths:?}");
}
