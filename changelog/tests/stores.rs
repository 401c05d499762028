//! One contract for everything that is a store: keyspaces, the store in memory, and every layer around one.

use std::collections::BTreeMap;
use std::ops::Bound::{self, Excluded, Included, Unbounded};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use parking_lot::Mutex;
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use siltstone::fs::SimFileSystem;
use siltstone::{Db, Options, Slice};
use siltstone_changelog::store::{
    ALL_KEYS, AccessLog, CacheOptions, Cached, Entries, KeyValueStore, LargeMessageGuard, MemoryStore, Metered,
    Operation, Oversize, StoreBounds, StoreLayers, StoreSnapshot, Write,
};
use siltstone_changelog::{Error, Result};

type Map = BTreeMap<Vec<u8>, Vec<u8>>;

const SEED: [u8; 32] = *b"the seed of the stores' contract";

/// Counts what reaches it, and fails when told to.
#[derive(Default)]
struct Probe {
    inner: MemoryStore,
    gets: AtomicUsize,
    batches: Mutex<Vec<Vec<Write>>>,
    failing: AtomicBool,
}

impl KeyValueStore for Probe {
    fn get(&self, key: &[u8]) -> Result<Option<Slice>> {
        self.gets.fetch_add(1, Ordering::Relaxed);
        self.inner.get(key)
    }
    fn get_many(&self, keys: &[&[u8]]) -> Result<Vec<Option<Slice>>> {
        self.gets.fetch_add(keys.len(), Ordering::Relaxed);
        self.inner.get_many(keys)
    }
    fn write(&self, writes: &[Write]) -> Result<()> {
        if self.failing.load(Ordering::Relaxed) {
            return Err(Error::Foreign { source: "injected".into(), retryable: true });
        }
        self.batches.lock().push(writes.to_vec());
        self.inner.write(writes)
    }
    fn accept(&self, write: &Write) -> Result<bool> {
        self.inner.accept(write)
    }
    fn range(&self, bounds: StoreBounds<'_>) -> Result<Entries> {
        self.inner.range(bounds)
    }
    fn snapshot(&self) -> Result<Box<dyn StoreSnapshot>> {
        self.inner.snapshot()
    }
    fn flush(&self) -> Result<()> {
        self.inner.flush()
    }
}

fn database() -> Db {
    Options::new().memory_bytes(4 << 20).file_system(Arc::new(SimFileSystem::new())).open("db").unwrap()
}

/// Room for few entries, and for fewer writes that are held back.
fn small_cache() -> CacheOptions {
    CacheOptions::new().cache_bytes(1200).write_batch_bytes(700)
}

/// Every kind of store, empty.
fn stores() -> Vec<(&'static str, Arc<dyn KeyValueStore>)> {
    let keyspace = || database().keyspace("ks", Default::default()).unwrap();
    let layers = StoreLayers::new()
        .cache(small_cache())
        .large_messages(100, Oversize::Refuse)
        .access_log(0.5, |access| assert!(access.succeeded));
    vec![
        ("memory", Arc::new(MemoryStore::new())),
        ("keyspace", Arc::new(keyspace())),
        ("cache", Arc::new(Cached::new(MemoryStore::new(), small_cache()).unwrap())),
        ("no writes held back", Arc::new(Cached::new(keyspace(), small_cache().write_batch_bytes(0)).unwrap())),
        ("guard", Arc::new(LargeMessageGuard::new(MemoryStore::new(), 100, Oversize::Drop))),
        ("layers", Arc::new(layers.around(keyspace()).unwrap())),
    ]
}

#[derive(Clone, Debug)]
enum Step {
    Write(Vec<(u8, Option<u8>)>),
    Get(u8),
    GetMany(Vec<u8>),
    Range(Bound<u8>, Bound<u8>, Vec<bool>),
    Snapshot,
    ReadSnapshot(u8),
    Flush,
}

fn key(number: u8) -> Vec<u8> {
    // Prefixes of each other, and the empty key.
    vec![b'k'; usize::from(number % 16)]
}

fn value(number: u8) -> Vec<u8> {
    vec![number; usize::from(number % 64)]
}

fn bound() -> impl Strategy<Value = Bound<u8>> {
    prop_oneof![any::<u8>().prop_map(Included), any::<u8>().prop_map(Excluded), Just(Unbounded)]
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let write = || (any::<u8>(), proptest::option::weighted(0.7, any::<u8>()));
    let step = prop_oneof![
        6 => write().prop_map(|write| Step::Write(vec![write])),
        2 => proptest::collection::vec(write(), 0..8).prop_map(Step::Write),
        6 => any::<u8>().prop_map(Step::Get),
        2 => proptest::collection::vec(any::<u8>(), 0..6).prop_map(Step::GetMany),
        2 => (bound(), bound(), proptest::collection::vec(any::<bool>(), 0..20))
            .prop_map(|(from, to, ends)| Step::Range(from, to, ends)),
        1 => Just(Step::Snapshot),
        2 => any::<u8>().prop_map(Step::ReadSnapshot),
        1 => Just(Step::Flush),
    ];
    proptest::collection::vec(step, 1..60)
}

fn expected_range(map: &Map, from: &Bound<Vec<u8>>, to: &Bound<Vec<u8>>) -> Vec<(Vec<u8>, Vec<u8>)> {
    let above = |key: &Vec<u8>| match from {
        Included(from) => key >= from,
        Excluded(from) => key > from,
        Unbounded => true,
    };
    let below = |key: &Vec<u8>| match to {
        Included(to) => key <= to,
        Excluded(to) => key < to,
        Unbounded => true,
    };
    map.iter().filter(|(key, _)| above(key) && below(key)).map(|(key, value)| (key.clone(), value.clone())).collect()
}

fn borrowed(bound: &Bound<Vec<u8>>) -> Bound<&[u8]> {
    bound.as_ref().map(|key| &key[..])
}

/// Reads a range from the ends that `ends` says, then the rest forward, and puts it in order.
fn read(mut entries: Entries, ends: &[bool]) -> Vec<(Vec<u8>, Vec<u8>)> {
    let (mut front, mut back) = (Vec::new(), Vec::new());
    let owned = |entry: Result<(Slice, Slice)>| entry.map(|(key, value)| (key.to_vec(), value.to_vec())).unwrap();
    for &at_front in ends {
        let entry = if at_front { entries.next() } else { entries.next_back() };
        let Some(entry) = entry else { break };
        if at_front { front.push(owned(entry)) } else { back.push(owned(entry)) }
    }
    front.extend(entries.by_ref().map(owned));
    assert!(entries.next().is_none() && entries.next_back().is_none(), "it does not stay ended");
    back.reverse();
    front.extend(back);
    front
}

fn run(store: &dyn KeyValueStore, steps: &[Step]) {
    let mut map = Map::new();
    let mut snapshot: Option<(Box<dyn StoreSnapshot>, Map)> = None;
    let owned = |value: Option<Slice>| value.map(|value| value.to_vec());
    for step in steps {
        match step {
            Step::Write(writes) => {
                let batch: Vec<Write> = writes
                    .iter()
                    .map(|&(k, v)| v.map_or_else(|| Write::delete(key(k)), |v| Write::put(key(k), value(v))))
                    .collect();
                store.write(&batch).unwrap();
                for &(k, v) in writes {
                    match v {
                        Some(v) => map.insert(key(k), value(v)),
                        None => map.remove(&key(k)),
                    };
                }
            }
            Step::Get(k) => assert_eq!(owned(store.get(&key(*k)).unwrap()), map.get(&key(*k)).cloned()),
            Step::GetMany(keys) => {
                let keys: Vec<Vec<u8>> = keys.iter().map(|&k| key(k)).collect();
                let asked: Vec<&[u8]> = keys.iter().map(|key| &key[..]).collect();
                let got: Vec<_> = store.get_many(&asked).unwrap().into_iter().map(owned).collect();
                assert_eq!(got, keys.iter().map(|key| map.get(key).cloned()).collect::<Vec<_>>());
            }
            Step::Range(from, to, ends) => {
                let (from, to) = (from.map(key), to.map(key));
                let entries = store.range((borrowed(&from), borrowed(&to))).unwrap();
                // What is written after it was asked for is not part of it.
                store.put(b"k", b"later").unwrap();
                assert_eq!(read(entries, ends), expected_range(&map, &from, &to));
                map.insert(b"k".to_vec(), b"later".to_vec());
            }
            Step::Snapshot => snapshot = Some((store.snapshot().unwrap(), map.clone())),
            Step::ReadSnapshot(k) => {
                if let Some((snapshot, then)) = &snapshot {
                    assert_eq!(owned(snapshot.get(&key(*k)).unwrap()), then.get(&key(*k)).cloned());
                    let all = read(snapshot.range(ALL_KEYS).unwrap(), &[false, true]);
                    assert_eq!(all, expected_range(then, &Unbounded, &Unbounded));
                }
            }
            Step::Flush => store.flush().unwrap(),
        }
    }
    assert_eq!(read(store.range(ALL_KEYS).unwrap(), &[]), expected_range(&map, &Unbounded, &Unbounded));
}

#[test]
fn every_store_answers_as_a_map_does() {
    println!("seed {:?}", std::str::from_utf8(&SEED));
    for which in 0..stores().len() {
        let config = Config { cases: 200, failure_persistence: None, ..Config::default() };
        let mut runner = TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &SEED));
        let outcome = runner.run(&steps(), |steps| {
            run(&*stores().swap_remove(which).1, &steps);
            Ok(())
        });
        outcome.unwrap_or_else(|failure| panic!("{}: {failure}", stores()[which].0));
    }
}

#[test]
fn a_cache_hands_down_each_key_once_oldest_first_and_remembers_misses() {
    let probe = Arc::new(Probe::default());
    let store = Cached::new(probe.clone(), CacheOptions::new()).unwrap();
    for (key, value) in [("b", "1"), ("a", "1"), ("b", "2"), ("c", "1")] {
        store.put(key.as_bytes(), value.as_bytes()).unwrap();
    }
    store.delete(b"a").unwrap();
    assert_eq!(store.get(b"nowhere").unwrap(), None);
    assert_eq!(store.get(b"nowhere").unwrap(), None);
    assert_eq!(probe.gets.load(Ordering::Relaxed), 1, "a miss was not remembered");
    assert!(probe.batches.lock().is_empty(), "nothing asked for the writes yet");
    let snapshot = store.snapshot().unwrap();
    assert_eq!(snapshot.get(b"b").unwrap().unwrap(), "2", "a snapshot sees what was held back");
    assert_eq!(*probe.batches.lock(), [vec![Write::put("b", "2"), Write::delete("a"), Write::put("c", "1")]]);
    let statistics = store.statistics();
    assert_eq!((statistics.writes, statistics.written_down, statistics.batches), (5, 3, 1));
    assert_eq!((statistics.hits, statistics.misses, statistics.dirty_bytes), (1, 1, 0));
    store.flush().unwrap();
    assert_eq!(probe.batches.lock().len(), 1, "nothing new was written");
}

#[test]
fn a_cache_stays_within_its_bytes_and_hands_writes_down_when_it_has_to() {
    let probe = Arc::new(Probe::default());
    let options = CacheOptions::new().cache_bytes(10_000).write_batch_bytes(2_000);
    let store = Cached::new(probe.clone(), options).unwrap();
    for number in 0..200u8 {
        let is_within = || {
            let statistics = store.statistics();
            assert!(statistics.cache_bytes <= 10_000 && statistics.dirty_bytes <= 2_000, "{statistics:?}");
        };
        store.put(&[number], &[number; 100]).unwrap();
        is_within();
        store.get(&[number, 0]).unwrap();
        is_within();
    }
    // Larger than what may be held back: written at once, in one batch, after what was held back.
    let held_back = probe.batches.lock().len();
    let large: Vec<Write> = (0..20u8).map(|number| Write::put([number].to_vec(), vec![1; 200])).collect();
    store.write(&large).unwrap();
    assert_eq!(probe.batches.lock().len(), held_back + 2);
    assert_eq!(probe.batches.lock().last().unwrap(), &large);
    assert_eq!(store.get(&[7]).unwrap().unwrap(), [1; 200]);
    drop(store);
    assert_eq!(probe.inner.range(ALL_KEYS).unwrap().count(), 200);
}

#[test]
fn writes_that_a_cache_could_not_hand_down_are_kept_and_tried_again() {
    let probe = Arc::new(Probe::default());
    let store = Cached::new(probe.clone(), CacheOptions::new().write_batch_bytes(400)).unwrap();
    store.put(b"a", b"1").unwrap();
    store.put(b"b", b"1").unwrap();
    probe.failing.store(true, Ordering::Relaxed);
    // Each is refused: what is held back is full and cannot be handed down.
    assert!(store.put(b"c", b"1").is_err() && store.flush().is_err() && store.range(ALL_KEYS).is_err());
    assert!(store.write(&[Write::put("large", vec![1; 1000])]).is_err());
    assert_eq!(store.get(b"c").unwrap(), None, "a refused write is not there");
    assert_eq!(store.get(b"a").unwrap().unwrap(), "1");
    probe.failing.store(false, Ordering::Relaxed);
    drop(store);
    assert_eq!(*probe.batches.lock(), [vec![Write::put("a", "1"), Write::put("b", "1")]]);
}

#[test]
fn a_cache_and_a_guard_agree_about_what_is_dropped_or_refused() {
    for oversize in [Oversize::Drop, Oversize::Refuse] {
        let layers = StoreLayers::new().cache(CacheOptions::new()).large_messages(10, oversize);
        let memory = Arc::new(MemoryStore::new());
        let store = layers.around(memory.clone()).unwrap();
        store.put(b"key", b"old").unwrap();
        let batch = [Write::put("other", "1"), Write::put("key", "far too large")];
        let written = store.write(&batch);
        let other = match (oversize, written) {
            (Oversize::Drop, Ok(())) => Some(Slice::from("1")),
            (Oversize::Refuse, Err(Error::TooLarge { message_bytes: 16, max_message_bytes: 10 })) => None,
            (_, unexpected) => panic!("{oversize:?}: {unexpected:?}"),
        };
        let held = store.get_many(&[b"key", b"other"]).unwrap();
        assert_eq!(held, [Some(Slice::from("old")), other]);
        store.flush().unwrap();
        assert_eq!(memory.get_many(&[b"key", b"other"]).unwrap(), held, "{oversize:?}: cache and store differ");
    }
}

#[test]
fn a_guard_counts_what_it_drops_once() {
    let guard = Arc::new(LargeMessageGuard::new(MemoryStore::new(), 10, Oversize::Drop));
    let store = Cached::new(guard.clone(), CacheOptions::new()).unwrap();
    store.put(b"key", &[0; 11]).unwrap();
    store.flush().unwrap();
    assert_eq!(guard.dropped(), 1);
    guard.write(&[Write::put("key", vec![0; 11]), Write::put("k", "1")]).unwrap();
    assert_eq!((guard.dropped(), guard.get(b"k").unwrap()), (2, Some(Slice::from("1"))));
}

#[test]
fn keyspaces_refuse_before_a_cache_holds_back_what_they_could_not_take() {
    let store = Cached::new(database().keyspace("ks", Default::default()).unwrap(), CacheOptions::new()).unwrap();
    let too_long = vec![0; siltstone::MAX_KEY_BYTES + 1];
    assert!(matches!(store.put(&too_long, b""), Err(Error::InvalidArgument(_))));
    assert_eq!(store.range(ALL_KEYS).unwrap().count(), 0);
}

#[test]
fn an_access_log_samples_at_its_ratio_whatever_the_rhythm() {
    for ratio in [0.0, 0.01, 0.25, 1.0] {
        let seen: Arc<Mutex<Vec<Operation>>> = Arc::default();
        let log = seen.clone();
        let store = AccessLog::new(MemoryStore::new(), ratio, move |access| {
            assert_eq!(access.keys, [b"key"]);
            log.lock().push(access.operation);
        });
        let store = store.unwrap();
        const ROUNDS: usize = 20_000;
        for _ in 0..ROUNDS {
            store.put(b"key", b"1").unwrap();
            store.get(b"key").unwrap();
        }
        for operation in [Operation::Get, Operation::Write] {
            let count = seen.lock().iter().filter(|&&seen| seen == operation).count() as f64;
            let expected = ratio * ROUNDS as f64;
            // Five standard deviations of a binomial distribution.
            let spread = 5.0 * (expected * (1.0 - ratio)).sqrt();
            assert!((count - expected).abs() <= spread, "{operation:?} at {ratio}: {count} of {expected}");
        }
    }
    for ratio in [-0.1, 1.1, f64::NAN] {
        assert!(matches!(AccessLog::new(MemoryStore::new(), ratio, |_| ()), Err(Error::InvalidArgument(_))), "{ratio}");
    }
}

#[test]
fn figures_count_calls_keys_bytes_and_failures() {
    let probe = Arc::new(Probe::default());
    let store = Metered::new(probe.clone());
    store.write(&[Write::put("a", "123"), Write::delete("b")]).unwrap();
    store.get(b"a").unwrap();
    store.get(b"nowhere").unwrap();
    store.get_many(&[b"a", b"a"]).unwrap();
    store.range(ALL_KEYS).unwrap();
    store.snapshot().unwrap();
    store.flush().unwrap();
    probe.failing.store(true, Ordering::Relaxed);
    store.delete(b"a").unwrap_err();
    let metrics = store.metrics();
    let figures = |operation| {
        let figures = metrics.of(operation);
        assert!(figures.max <= figures.total);
        (figures.calls, figures.failures, figures.keys, figures.bytes)
    };
    assert_eq!(figures(Operation::Write), (2, 1, 3, 5));
    assert_eq!(figures(Operation::Get), (2, 0, 2, 3));
    assert_eq!(figures(Operation::GetMany), (1, 0, 2, 6));
    for operation in [Operation::Range, Operation::Snapshot, Operation::Flush] {
        assert_eq!(figures(operation), (1, 0, 0, 0), "{operation:?}");
    }
    assert_eq!(metrics.to_string().lines().count(), 7);
}

#[test]
fn a_cache_that_could_hold_back_more_than_it_holds_is_refused() {
    let options = CacheOptions::new().cache_bytes(10).write_batch_bytes(11);
    assert!(matches!(Cached::new(MemoryStore::new(), options), Err(Error::InvalidArgument(_))));
}
