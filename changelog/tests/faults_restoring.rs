//! Faults at every call while restoring: of the database's filesystem, of the source's, of the source itself. An error
//! says so, position and data agree, and another run goes on from there.

mod common;
#[path = "common/faults.rs"]
mod faults;

use std::path::Path;
use std::sync::{Arc, Mutex};

use common::{
    Contents, Random, changes, contents, db_path, eager, file_sink, file_source, log_path, sim, small, without_empty,
    write_randomly,
};
use faults::{enumerate, faulty, record};
use siltstone::fs::{FaultFileSystem, Keep, SimFileSystem};
use siltstone::{ChangeBatch, Db, Options};
use siltstone_changelog::{Batches, Error, FileSource, Position, Restore, Result, SOURCE_POSITION, Source, ship};

/// A shipped log, and what it stands for.
struct Shipped {
    remote: SimFileSystem,
    log: Vec<ChangeBatch>,
    expected: Contents,
    last_seqno: u64,
}

fn shipped(batches: u64) -> Shipped {
    let db = small(&sim().0).open(db_path()).unwrap();
    let remote = SimFileSystem::new();
    let shipper = ship(&db, file_sink(&remote, 600).unwrap(), eager(&Arc::default())).unwrap();
    write_randomly(&db, &mut Random(3), batches).unwrap();
    shipper.stop().unwrap();
    Shipped { log: changes(&db), expected: without_empty(contents(&db)), last_seqno: db.last_seqno(), remote }
}

fn restore(source: impl Source, fs: &FaultFileSystem) -> Result<Db> {
    let options = Options::new().memory_bytes(4 << 20).background_threads(1);
    let restore = Restore::new(source).into_with(db_path(), options).file_system(Arc::new(fs.clone()));
    restore.run().map(|(db, _)| db)
}

fn assert_clear(error: &Error, directory: &Path, what: &str) {
    match error {
        Error::Io { path, .. } | Error::Engine(siltstone::Error::Io { path, .. }) => {
            assert!(path.starts_with(directory), "{what}: {error}");
        }
        Error::Engine(siltstone::Error::ReadOnly { reason }) => assert!(reason.contains("os error"), "{what}: {error}"),
        other => panic!("{what}: {other:?}"),
    }
}

impl Shipped {
    fn assert_whole(&self, db: &Db, what: &str) {
        assert!(without_empty(contents(db)) == self.expected, "{what}: restored something else");
        assert_eq!(db.last_seqno(), self.last_seqno, "{what}");
        let report = db.verify();
        assert!(report.is_ok(), "{what}: {report}");
    }

    /// The stored position is the one after the last batch that is in.
    fn assert_position(&self, sim: &SimFileSystem, what: &str) {
        let db = small(&sim.crash_clone(Keep::All, 0)).open(db_path());
        let db = db.unwrap_or_else(|error| panic!("{what}: {error}"));
        let next = match db.metadata(SOURCE_POSITION) {
            None => self.log.first().cloned(),
            Some(bytes) => {
                let mut rest = file_source(&self.remote).read(&Position::from_bytes(bytes).unwrap()).unwrap();
                rest.next().transpose().unwrap_or_else(|error| panic!("{what}: {error}")).map(|(_, batch)| batch)
            }
        };
        let missing = self.log.iter().find(|batch| batch.last_seqno() > db.last_seqno()).cloned();
        // A keyspace drop is synced by itself, and its position follows it: it may be applied again.
        let drops = |batch: &ChangeBatch| matches!(batch.changes(), [siltstone::Change::DropKeyspace { .. }]);
        let behind_drop = next.as_ref().is_some_and(|next| drops(next) && next.last_seqno() == db.last_seqno());
        assert!(next == missing || behind_drop, "{what}: the position is before {next:?}, not {missing:?}");
    }

    /// Restores on, to the end, and once more after a power cut.
    fn assert_goes_on(&self, sim: &SimFileSystem, fs: &FaultFileSystem, what: &str) {
        self.assert_position(sim, what);
        match restore(file_source(&self.remote), fs) {
            Ok(db) => self.assert_whole(&db, what),
            // It was finished: a database like any other.
            Err(Error::NotEmpty { .. }) => {
                let db = Options::new().file_system(Arc::new(fs.clone())).open(db_path()).unwrap();
                self.assert_whole(&db, &format!("{what}, finished"));
                db.sync().unwrap();
            }
            Err(error) => panic!("{what}: {error}"),
        }
        let left = sim.crash_clone(Keep::Nothing, 0);
        self.assert_whole(&small(&left).open(db_path()).unwrap(), &format!("{what}, and a power cut"));
    }
}

#[test]
fn every_call_of_the_databases_filesystem_fails() {
    let shipped = shipped(25);
    let mut reopens = 0;
    let points = enumerate(|injection| {
        let sim = SimFileSystem::new();
        let fs = faulty(&sim);
        injection.plan(&fs);
        let restored = restore(file_source(&shipped.remote), &fs);
        let Some(injected) = fs.injected() else { return false };
        let what = format!("{injection:?} ({injected:?})");
        fs.clear();
        match restored {
            Err(error) => assert_clear(&error, db_path(), &what),
            Ok(db) => {
                shipped.assert_whole(&db, &what);
                let left = sim.crash_clone(Keep::Nothing, 0);
                shipped.assert_whole(&small(&left).open(db_path()).unwrap(), &format!("{what}: restored, power cut"));
            }
        }
        let left = sim.crash_clone(Keep::Nothing, 0);
        shipped.assert_goes_on(&left, &faulty(&left), &format!("{what}, after a power cut"));
        shipped.assert_goes_on(&sim, &fs, &what);
        reopens += 4;
        true
    });
    println!("{points} calls of the database's filesystem");
    record(points, reopens);
}

#[test]
fn every_call_of_the_sources_filesystem_fails() {
    let shipped = shipped(25);
    let mut reopens = 0;
    let points = enumerate(|injection| {
        let sim = SimFileSystem::new();
        let fs = faulty(&sim);
        let remote = faulty(&shipped.remote);
        injection.plan(&remote);
        let restored = restore(FileSource::open_on(Arc::new(remote.clone()), log_path()), &fs);
        let Some(injected) = remote.injected() else { return false };
        let what = format!("{injection:?} of the source's filesystem ({injected:?})");
        match restored {
            Err(error) => assert_clear(&error, log_path(), &what),
            Ok(_) => panic!("{what}: a read failed, and nobody was told"),
        }
        shipped.assert_goes_on(&sim, &fs, &what);
        reopens += 2;
        true
    });
    println!("{points} calls of the source's filesystem");
    record(points, reopens);
}

/// Gives an error in the place of the batch `at`, and notes from where it is read.
struct Flaky {
    source: FileSource,
    at: usize,
    retryable: bool,
    read_from: Arc<Mutex<Vec<Position>>>,
}

impl Source for Flaky {
    fn bounds(&self) -> Result<(Position, Position)> {
        self.source.bounds()
    }

    fn read(&self, from: &Position) -> Result<Batches> {
        self.read_from.lock().unwrap().push(from.clone());
        let error = Error::Foreign { source: "out of reach".into(), retryable: self.retryable };
        Ok(Box::new(self.source.read(from)?.take(self.at).chain(std::iter::once(Err(error)))))
    }
}

#[test]
fn every_batch_of_the_source_fails() {
    let shipped = shipped(25);
    for retryable in [false, true] {
        for at in 0..=shipped.log.len() {
            let sim = SimFileSystem::new();
            let (fs, read_from) = (faulty(&sim), Arc::default());
            let source =
                || Flaky { source: file_source(&shipped.remote), at, retryable, read_from: Arc::clone(&read_from) };
            let error = restore(source(), &fs).unwrap_err();
            assert!(matches!(&error, Error::Foreign { .. }) && error.is_retryable() == retryable, "{error}");
            // The second run begins behind what the first one applied, and gets as much further.
            let second = restore(source(), &fs).unwrap_err();
            assert!(matches!(second, Error::Foreign { .. }), "{second}");
            let read_from: Vec<Position> = read_from.lock().unwrap().clone();
            let (oldest, _) = file_source(&shipped.remote).bounds().unwrap();
            let expected = file_source(&shipped.remote).read(&oldest).unwrap().take(at).last();
            let expected = expected.map_or(oldest.clone(), |batch| batch.unwrap().0);
            assert_eq!(read_from, [oldest, expected], "failed at batch {at}");
            shipped.assert_goes_on(&sim, &fs, &format!("failed at batch {at}"));
        }
    }
    record(2 * shipped.log.len() as u64, 4 * shipped.log.len() as u64);
}
