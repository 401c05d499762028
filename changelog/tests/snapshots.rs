//! Whole databases in an object store.

mod common;

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use common::{Random, contents, write_randomly};
use object_store::local::LocalFileSystem;
use siltstone::{Db, Options};
use siltstone_changelog::{Error, SnapshotOptions, SnapshotStore};

const SEED: u64 = 20_261_130;

struct Place {
    dir: tempfile::TempDir,
    random: Random,
}

impl Place {
    fn new() -> Self {
        println!("seed {SEED}");
        Place { dir: tempfile::tempdir().unwrap(), random: Random(SEED) }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn database(&mut self) -> Db {
        let db = Options::new().memory_bytes(8 << 20).open(self.path("db")).unwrap();
        self.grow(&db);
        db
    }

    /// Tables and memtables.
    fn grow(&mut self, db: &Db) {
        write_randomly(db, &mut self.random, 300).unwrap();
        db.flush().unwrap();
        write_randomly(db, &mut self.random, 50).unwrap();
    }

    fn store(&self) -> SnapshotStore {
        SnapshotStore::in_directory(self.path("snapshots")).unwrap()
    }

    fn blobs(&self) -> Vec<PathBuf> {
        fs::read_dir(self.path("snapshots/blobs")).unwrap().map(|entry| entry.unwrap().path()).collect()
    }

    /// What a snapshot restores to.
    fn restored(&self, store: &SnapshotStore, id: &str, name: &str) -> Db {
        store.restore(id, self.path(name)).unwrap();
        Db::open(self.path(name)).unwrap()
    }
}

#[test]
fn snapshots_are_listed_restored_and_pruned_and_tables_go_up_once() {
    let mut place = Place::new();
    let db = place.database();
    let store = place.store();
    assert!(store.list().unwrap().is_empty());
    let first = store.upload(&db, place.path("scratch")).unwrap();
    assert!(first.tables > 0 && !place.path("scratch").exists());
    let expected = (contents(&db), db.last_seqno());
    let unchanged = store.upload(&db, place.path("scratch")).unwrap();
    assert_eq!(unchanged.tables, 0, "{unchanged:?}");
    // Another process finds out by what is there.
    assert_eq!(place.store().upload(&db, place.path("scratch")).unwrap().tables, 0);
    place.grow(&db);
    let later = store.upload(&db, place.path("scratch")).unwrap();
    assert!(later.tables > 0);
    let ids: Vec<String> = store.list().unwrap().into_iter().map(|snapshot| snapshot.id).collect();
    assert_eq!(ids.len(), 4);
    assert_eq!((&ids[0], &ids[3]), (&first.snapshot.id, &later.snapshot.id));
    for (id, expected) in [(&ids[0], expected.clone()), (&ids[3], (contents(&db), db.last_seqno()))] {
        let again = place.restored(&store, id, id);
        assert_eq!((contents(&again), again.last_seqno()), expected);
    }
    // Young blobs may belong to an upload that is under way.
    let before = place.blobs().len();
    let kept = store.prune(1).unwrap();
    assert_eq!((kept.snapshots, kept.blobs, place.blobs().len()), (3, 0, before));
    let strict = SnapshotStore::on(
        Arc::new(LocalFileSystem::new_with_prefix(place.path("snapshots")).unwrap()),
        "",
        SnapshotOptions::new().grace(Duration::ZERO),
    );
    let pruned = strict.unwrap().prune(1).unwrap();
    assert!(pruned.snapshots == 0 && pruned.blobs > 0, "{pruned:?}");
    assert_eq!(contents(&place.restored(&store, &ids[3], "last")), contents(&db));
}

#[test]
fn damage_is_found_and_an_interrupted_download_goes_on() {
    let mut place = Place::new();
    let db = place.database();
    let store = place.store();
    let id = store.upload(&db, place.path("scratch")).unwrap().snapshot.id;
    let largest = place.blobs().into_iter().max_by_key(|path| fs::metadata(path).unwrap().len()).unwrap();
    let whole = fs::read(&largest).unwrap();
    let mut damaged = whole.clone();
    damaged[whole.len() / 2] ^= 1;
    for bad in [&damaged[..], &whole[..whole.len() - 1]] {
        fs::write(&largest, bad).unwrap();
        assert!(matches!(store.restore(&id, place.path("again")), Err(Error::Corruption { .. })));
        assert!(!place.path("again/CURRENT").exists(), "it is no database yet");
    }
    fs::write(&largest, &whole).unwrap();
    // What came before is not fetched again: it could not be.
    let there: Vec<PathBuf> = fs::read_dir(place.path("again")).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(there.iter().any(|path| path.extension().is_none_or(|extension| extension != "part")));
    store.restore(&id, place.path("again")).unwrap();
    assert_eq!(contents(&Db::open(place.path("again")).unwrap()), contents(&db));
    let index = place.path("snapshots/snapshots").join(format!("{id}.json"));
    fs::write(&index, b"{").unwrap();
    assert!(matches!(store.list(), Err(Error::Corruption { .. })));
    assert!(matches!(store.restore("nothing", place.path("x")), Err(Error::Foreign { retryable: false, .. })));
}

#[test]
fn places_that_are_none_are_refused() {
    for bad in ["", "no url", "ftp://host/x"] {
        let opened = SnapshotStore::at(bad, [], SnapshotOptions::new());
        assert!(matches!(opened, Err(Error::InvalidArgument(_))), "{bad}");
    }
    let place = Place::new();
    let url = format!("file://{}", place.path("by-url").display());
    fs::create_dir(place.path("by-url")).unwrap();
    assert!(SnapshotStore::at(&url, [], SnapshotOptions::new()).unwrap().list().unwrap().is_empty());
}
