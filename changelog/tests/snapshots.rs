//! Whole databases in an object store.

mod common;

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use common::{Contents, Random, contents, without_empty, write_randomly};
use object_store::local::LocalFileSystem;
use siltstone::{Db, Options};
use siltstone_changelog::{
    Error, FileSink, FileSource, MemorySink, Moment, Restore, ShipOptions, Shipper, SnapshotOptions, SnapshotStore,
    ship,
};

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

/// A database that ships to files, with a snapshot in the middle.
struct Shipping {
    place: Place,
    db: Db,
    shipper: Shipper,
    store: Arc<SnapshotStore>,
}

impl Shipping {
    fn new() -> Self {
        let place = Place::new();
        let db = Options::new().memory_bytes(8 << 20).open(place.path("db")).unwrap();
        let shipper = ship(&db, FileSink::open(place.path("log")).unwrap(), ShipOptions::new()).unwrap();
        let store = Arc::new(place.store());
        Shipping { place, db, shipper, store }
    }

    fn write(&mut self, batches: u64) {
        write_randomly(&self.db, &mut self.place.random, batches).unwrap();
    }

    fn snapshot(&self) -> String {
        self.store.upload(&self.db, self.place.path("scratch")).unwrap().snapshot.id
    }

    fn restore(&self, name: &str) -> Restore<FileSource> {
        let restore = Restore::new(FileSource::open(self.place.path("log")));
        restore.from_snapshots(self.store.clone(), "changelog").into(self.place.path(name))
    }

    fn contents(&self) -> Contents {
        without_empty(contents(&self.db))
    }
}

#[test]
fn a_restore_takes_the_newest_snapshot_and_the_log_behind_it() {
    let mut shipping = Shipping::new();
    shipping.write(300);
    shipping.shipper.flush().unwrap();
    shipping.db.flush().unwrap();
    shipping.snapshot();
    shipping.write(100);
    shipping.shipper.flush().unwrap();
    shipping.snapshot();
    let at_snapshot = shipping.db.last_seqno();
    shipping.write(40);
    shipping.shipper.flush().unwrap();
    let changes = Arc::new(AtomicU64::new(0));
    let seen = changes.clone();
    let restore =
        shipping.restore("again").on_progress(move |progress| seen.store(progress.changes, Ordering::Relaxed));
    let (again, position) = restore.run().unwrap();
    assert_eq!(without_empty(contents(&again)), shipping.contents());
    assert_eq!(again.last_seqno(), shipping.db.last_seqno());
    assert_eq!(changes.load(Ordering::Relaxed), again.last_seqno() - at_snapshot, "only what lies behind it");
    assert_eq!(Some(position), shipping.shipper.position());
    assert!(!shipping.place.path("again/RESTORING").exists());
    // It is the owner from now on.
    shipping.shipper.stop().unwrap();
    let sink = FileSink::open(shipping.place.path("log")).unwrap();
    again.keyspace("ks0", Default::default()).unwrap().put("more", "1").unwrap();
    ship(&again, sink, ShipOptions::new()).unwrap().stop().unwrap();
    let whole = Restore::new(FileSource::open(shipping.place.path("log"))).into(shipping.place.path("whole"));
    assert_eq!(without_empty(contents(&whole.run().unwrap().0)), without_empty(contents(&again)));
}

#[test]
fn a_snapshot_that_is_ahead_of_the_log_or_of_the_target_is_not_taken() {
    let mut shipping = Shipping::new();
    shipping.write(100);
    let committed = shipping.shipper.flush().unwrap();
    let expected = shipping.contents();
    let early = shipping.snapshot();
    shipping.write(50);
    shipping.shipper.flush().unwrap();
    let late = shipping.snapshot();
    assert_ne!(early, late);
    let restored = shipping.restore("target").run_to(&committed).unwrap();
    assert!(matches!(restored.moment, Moment::Target { undone_keys: 1.. }), "{:?}", restored.moment);
    assert_eq!(without_empty(contents(&restored.db)), expected);

    // Written, in a snapshot, and never shipped.
    let Shipping { place, db, shipper, store } = shipping;
    shipper.stop().unwrap();
    let mut ahead = Shipping {
        shipper: ship(&db, MemorySink::new(), ShipOptions::new().cursor("other").allow_partial(true)).unwrap(),
        place,
        db,
        store,
    };
    let shipped = ahead.contents();
    ahead.write(30);
    ahead.snapshot();
    let (again, _) = ahead.restore("behind").run().unwrap();
    assert_eq!(without_empty(contents(&again)), shipped);
}

#[test]
fn a_restore_that_ends_while_it_downloads_or_right_after_goes_on() {
    let mut shipping = Shipping::new();
    shipping.write(200);
    shipping.shipper.flush().unwrap();
    let id = shipping.snapshot();
    shipping.write(20);
    shipping.shipper.flush().unwrap();
    let expected = shipping.contents();
    for missing in [vec!["CURRENT"], vec!["CURRENT", "table", "wal"], vec![]] {
        let name = format!("without-{}", missing.len());
        let directory = shipping.place.path(&name);
        shipping.store.restore(&id, &directory).unwrap();
        fs::write(directory.join("RESTORING"), &id).unwrap();
        for entry in fs::read_dir(&directory).unwrap() {
            let path = entry.unwrap().path();
            if missing.iter().any(|end| path.to_string_lossy().ends_with(end)) {
                fs::remove_file(path).unwrap();
            }
        }
        fs::write(directory.join("000009.table.part"), "half").unwrap();
        let (again, _) = shipping.restore(&name).run().unwrap();
        assert_eq!(without_empty(contents(&again)), expected, "{missing:?}");
        assert!(!directory.join("RESTORING").exists());
    }
    // A database of somebody's own is none of these.
    drop(Db::open(shipping.place.path("own")).unwrap().keyspace("mine", Default::default()).unwrap());
    assert!(matches!(shipping.restore("own").run(), Err(Error::NotEmpty { .. })));
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
