//! What the scenarios share.
#![allow(dead_code, reason = "each scenario uses a part of it")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use siltstone::fs::{FileSystem, SimFileSystem};
use siltstone::{Change, ChangeBatch, Clock, Db, Options, WriteBatch};
use siltstone_changelog::{FileSink, FileSinkOptions, FileSource, RetryPolicy, ShipOptions, Source};

/// Every entry of every keyspace.
pub type Contents = BTreeMap<String, BTreeMap<Vec<u8>, Vec<u8>>>;

pub fn contents(db: &Db) -> Contents {
    let mut contents = Contents::new();
    for name in db.keyspaces() {
        let keyspace = db.keyspace(&name, Default::default()).unwrap();
        let entries = keyspace.iter().map(|entry| entry.map(|(key, value)| (key.to_vec(), value.to_vec())).unwrap());
        contents.insert(name, entries.collect());
    }
    contents
}

/// Keyspaces that hold nothing do not matter: one that was never written to is in no log.
pub fn without_empty(mut contents: Contents) -> Contents {
    contents.retain(|_, entries| !entries.is_empty());
    contents
}

pub fn sim() -> (SimFileSystem, Arc<dyn FileSystem>) {
    let sim = SimFileSystem::new();
    (sim.clone(), Arc::new(sim))
}

pub fn small(fs: &SimFileSystem) -> Options {
    Options::new().memory_bytes(4 << 20).background_threads(1).file_system(Arc::new(fs.clone()))
}

pub fn db_path() -> &'static Path {
    Path::new("/db")
}

pub fn log_path() -> &'static Path {
    Path::new("/log")
}

pub fn file_sink(fs: &SimFileSystem, segment_bytes: u64) -> siltstone_changelog::Result<FileSink> {
    let options = FileSinkOptions::new().segment_bytes(segment_bytes).file_system(Arc::new(fs.clone()));
    FileSink::open_with(log_path(), options)
}

pub fn file_source(fs: &SimFileSystem) -> FileSource {
    FileSource::open_on(Arc::new(fs.clone()), log_path())
}

/// Everything a source holds.
pub fn read_all(source: &impl Source) -> siltstone_changelog::Result<Vec<ChangeBatch>> {
    let (oldest, _) = source.bounds()?;
    source.read(&oldest)?.map(|next| next.map(|(_, batch)| batch)).collect()
}

/// What the database's own log holds.
pub fn changes(db: &Db) -> Vec<ChangeBatch> {
    db.changes(1).unwrap().collect::<Result<_, _>>().unwrap()
}

/// A batch of one put, as number `seqno`.
pub fn put(seqno: u64, value: &str) -> ChangeBatch {
    let key = format!("key{seqno:04}");
    let change = Change::Put { keyspace: "words".into(), key: key.into_bytes().into(), value: value.into() };
    ChangeBatch::new(seqno, vec![change]).unwrap()
}

/// A seeded generator (SplitMix64): the same numbers everywhere.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }
}

/// Writes `batches` random batches over a few keyspaces, and drops one now and then.
pub fn write_randomly(db: &Db, random: &mut Random, batches: u64) -> siltstone::Result<()> {
    for _ in 0..batches {
        if random.below(25) == 0 {
            db.drop_keyspace(format!("ks{}", random.below(4)))?;
            continue;
        }
        let mut batch = WriteBatch::new();
        for _ in 0..1 + random.below(6) {
            let keyspace = db.keyspace(format!("ks{}", random.below(4)), Default::default())?;
            let key = format!("key{:03}", random.below(200));
            if random.below(4) == 0 {
                batch.delete(&keyspace, key);
            } else {
                batch.put(&keyspace, key, vec![random.next() as u8; random.below(100) as usize]);
            }
        }
        db.write(batch)?;
    }
    Ok(())
}

/// Time that passes only when somebody sleeps.
#[derive(Debug, Default)]
pub struct ManualClock {
    nanos: AtomicU64,
}

impl Clock for ManualClock {
    fn now(&self) -> Duration {
        Duration::from_nanos(self.nanos.load(Ordering::SeqCst))
    }

    fn since_epoch(&self) -> Duration {
        self.now()
    }

    fn sleep(&self, duration: Duration) {
        self.nanos.fetch_add(duration.as_nanos() as u64, Ordering::SeqCst);
    }
}

/// Ships at once, and never really sleeps.
pub fn eager(clock: &Arc<ManualClock>) -> ShipOptions {
    ShipOptions::new().flush_interval(Duration::ZERO).retry(RetryPolicy::default()).clock(clock.clone())
}

pub fn scratch() -> (tempfile::TempDir, PathBuf, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let (db, log) = (dir.path().join("db"), dir.path().join("log"));
    (dir, db, log)
}
