//! Versions, views and memtables that change under readers: writers, flushes and compactions of an open database, and
//! reads of every kind beside them.

use std::path::Path;
use std::sync::Arc;

use super::explore::explore;
use crate::batch::WriteBatch;
use crate::db::Db;
use crate::fs::SimFileSystem;
use crate::key::SeqNo;
use crate::keyspace::Keyspace;
use crate::options::{Compression, KeyspaceOptions, Options};
use crate::slice::Slice;
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::sync::{Mutex, thread};

/// How many batches each writer writes.
const BATCHES: u64 = 4;

/// The tiniest options, on a filesystem of its own.
pub(super) fn options(sim: &SimFileSystem) -> Options {
    let options = Options::new().memory_bytes(4 << 20).memtable_bytes(64 << 10).background_threads(1);
    options.wal_segment_bytes(64 << 10).max_wal_bytes(64 << 10).file_system(Arc::new(sim.clone()))
}

pub(super) fn open(options: Options) -> (Db, Keyspace) {
    let db = options.open(Path::new("db")).unwrap();
    let keyspace_options = KeyspaceOptions::new().level0_trigger(2).compression(Compression::None);
    let keyspace = db.keyspace("ks", keyspace_options).unwrap();
    (db, keyspace)
}

pub(super) fn number(value: Option<Slice>) -> u64 {
    value.map_or(0, |value| u64::from_le_bytes(value[..8].try_into().unwrap()))
}

/// What writers and readers agree on.
struct Shared {
    db: Db,
    keyspace: Keyspace,
    /// The sequence number of every batch: of the pair's writer, and of the single one's.
    pairs: Mutex<Vec<SeqNo>>,
    singles: Mutex<Vec<SeqNo>>,
    /// The last pair that was acknowledged.
    acknowledged: AtomicU64,
    /// What reads saw: their sequence number, and the number of the pair and of the single.
    seen: Mutex<Vec<(SeqNo, u64, u64)>>,
}

impl Shared {
    fn new() -> Arc<Self> {
        let (db, keyspace) = open(options(&SimFileSystem::new()));
        let (pairs, singles, seen) = (Mutex::default(), Mutex::default(), Mutex::default());
        Arc::new(Shared { db, keyspace, pairs, singles, acknowledged: AtomicU64::new(0), seen })
    }

    /// Batch `n` puts `n` to two keys.
    fn write_pairs(&self) {
        for n in 1..=BATCHES {
            let mut batch = WriteBatch::new();
            batch.put(&self.keyspace, "a", n.to_le_bytes()).put(&self.keyspace, "b", n.to_le_bytes());
            let seqno = self.db.write(batch).unwrap();
            self.pairs.lock().push(seqno);
            self.acknowledged.store(n, Ordering::SeqCst);
        }
    }

    fn write_singles(&self) {
        for n in 1..=BATCHES {
            let seqno = self.keyspace.put("c", n.to_le_bytes()).unwrap();
            self.singles.lock().push(seqno);
        }
    }

    /// Reads in every way, beside the writers.
    fn read(&self) {
        let (keyspace, mut last) = (&self.keyspace, 0);
        for _ in 0..2 {
            let least = self.acknowledged.load(Ordering::SeqCst).max(last);
            let snapshot = self.db.snapshot();
            let values = keyspace.get_many(["a", "b"]).unwrap().into_iter().map(number).collect::<Vec<_>>();
            assert_eq!(values[0], values[1], "half a batch");
            assert!(values[0] >= least, "{} after {least}", values[0]);
            let entries: Vec<_> = keyspace.iter().map(|entry| entry.unwrap()).collect();
            let of = |key: &str| number(entries.iter().find(|entry| entry.0 == key).map(|entry| entry.1.clone()));
            assert!(of("a") == of("b") && of("a") >= values[0], "{} and {} after {}", of("a"), of("b"), values[0]);
            let (first, second) = (number(keyspace.get("a").unwrap()), number(keyspace.get("b").unwrap()));
            assert!(first >= of("a") && second >= first, "{first}, then {second} after {}", of("a"));
            last = second;
            let [a, b, c] = ["a", "b", "c"].map(|key| number(snapshot.get(keyspace, key).unwrap()));
            assert_eq!(a, b, "half a batch in a snapshot");
            assert!(a >= least, "a snapshot of {a} after {least}");
            let again: Vec<_> = snapshot.iter(keyspace).map(|entry| number(Some(entry.unwrap().1))).collect();
            assert_eq!(again, [a, b, c].into_iter().filter(|&n| n > 0).collect::<Vec<_>>(), "a snapshot moved");
            self.seen.lock().push((snapshot.seqno(), a, c));
        }
    }

    /// Every read at a number saw exactly what was committed up to it.
    fn check(&self) {
        let (pairs, singles) = (self.pairs.lock(), self.singles.lock());
        let up_to = |seqnos: &[SeqNo], at: SeqNo| seqnos.iter().filter(|&&seqno| seqno <= at).count() as u64;
        for &(seqno, pair, single) in &*self.seen.lock() {
            assert_eq!(
                (pair, single),
                (up_to(&pairs, seqno), up_to(&singles, seqno)),
                "at {seqno}: {pairs:?} {singles:?}"
            );
        }
        let total = 2 * pairs.len() + singles.len();
        assert_eq!(self.db.last_seqno(), total as SeqNo, "numbers without gaps");
    }
}

fn run(shared: &Arc<Shared>, all: &[fn(&Shared)]) {
    let spawn = |part: &fn(&Shared)| {
        let (part, shared) = (*part, shared.clone());
        thread::spawn(move || part(&shared))
    };
    let threads: Vec<_> = all.iter().map(spawn).collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    shared.check();
    shared.db.close().unwrap();
}

/// A reader finds each write in the memtable it went to or in the table that this became: never in neither, and never
/// a mix of before and after.
#[test]
fn reads_find_a_memtable_or_its_table() {
    explore(600, || {
        let shared = Shared::new();
        let flush: fn(&Shared) = |shared| (0..2).for_each(|_| shared.keyspace.flush().unwrap());
        run(&shared, &[Shared::write_pairs, Shared::write_singles, flush, Shared::read]);
        assert_eq!(shared.db.metrics().read_only_reason, None);
    });
}

/// The same while compactions replace tables: what a reader may still need is not removed, and versions that a snapshot
/// sees are kept.
#[test]
fn reads_find_what_a_compaction_moves() {
    explore(400, || {
        let shared = Shared::new();
        let compact: fn(&Shared) = |shared| {
            shared.keyspace.flush().unwrap();
            shared.keyspace.compact().unwrap();
            shared.keyspace.flush().unwrap();
            shared.keyspace.compact().unwrap();
        };
        run(&shared, &[Shared::write_pairs, compact, Shared::read]);
    });
}

/// A table's file stays as long as an iterator may still open it, and goes when nothing holds it.
#[test]
fn a_table_is_removed_when_nobody_can_read_it() {
    explore(400, || {
        let sim = SimFileSystem::new();
        let (db, keyspace) = open(options(&sim));
        for round in 1..=2u64 {
            (0..3u8).for_each(|key| drop(keyspace.put([key], round.to_le_bytes()).unwrap()));
            keyspace.flush().unwrap();
        }
        let reading = thread::spawn({
            let keyspace = keyspace.clone();
            move || {
                let forward: Vec<_> = keyspace.iter().map(|entry| number(Some(entry.unwrap().1))).collect();
                let backward: Vec<_> = keyspace.iter().rev().map(|entry| number(Some(entry.unwrap().1))).collect();
                assert_eq!((forward, backward), (vec![2; 3], vec![2; 3]));
                assert_eq!(number(keyspace.get([1]).unwrap()), 2);
            }
        });
        keyspace.compact().unwrap();
        reading.join().unwrap();
        db.wait_for_compaction().unwrap();
        db.close().unwrap();
        let tables = sim.paths().into_iter().filter(|path| path.extension().is_some_and(|ext| ext == "table"));
        assert_eq!(tables.count(), 1, "what was compacted away is gone");
    });
}
