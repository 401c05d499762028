//! A memtable of 500 K entries in random order, in each representation.

use std::hint::black_box;

use criterion::{Criterion, Throughput};
use siltstone::MemtableKind;
use siltstone::internals::parts::Memtable;

use crate::fixture::{Cycle, Entries, Key, Lazy, lazy};
use crate::timing::{self, time};

const ENTRIES: u64 = 500_000;

const MEMTABLE_BYTES: usize = 64 << 20;

/// Entries, and the order they are put in: keys and values lie in that order, so that the harness reads them without a
/// cache miss each.
struct Puts {
    entries: Entries,
    keys: Vec<Key>,
    values: Vec<[u8; 100]>,
}

impl Puts {
    fn new() -> Self {
        let entries = Entries::new(ENTRIES);
        let shuffled = entries.shuffled();
        let keys = shuffled.iter().map(|&at| entries.keys[at]).collect();
        let values = shuffled.iter().map(|&at| entries.value(at).try_into().expect("a value has 100 bytes")).collect();
        Puts { entries, keys, values }
    }

    fn put_all(&self, memtable: &mut Memtable) {
        let entries = self.keys.iter().zip(&self.values);
        for (seqno, (key, value)) in (1..).zip(entries) {
            memtable.insert(key, seqno, value);
        }
    }

    /// A memtable with all entries, which holds exactly those.
    fn memtable(&self, kind: MemtableKind) -> Memtable {
        let mut memtable = Memtable::new(kind, MEMTABLE_BYTES);
        self.put_all(&mut memtable);
        let mut cursor = memtable.cursor();
        cursor.seek_to_first().expect("memory does not fail");
        for (key, value) in self.entries.iter() {
            assert!(cursor.valid() && cursor.key() == key && cursor.value() == value);
            assert_eq!(memtable.get(key), Some(value));
            cursor.step().expect("memory does not fail");
        }
        assert!(!cursor.valid());
        assert!(self.entries.absent().iter().all(|key| memtable.get(key).is_none()));
        memtable
    }
}

pub fn bench(c: &mut Criterion) {
    let puts = lazy(Puts::new);
    for (name, kind) in [("btree", MemtableKind::BTree), ("skiplist", MemtableKind::SkipList)] {
        of_kind(c, name, kind, &puts);
    }
}

fn of_kind(c: &mut Criterion, name: &str, kind: MemtableKind, puts: &Lazy<'_, Puts>) {
    let memtable = lazy(|| puts.memtable(kind));
    let absent = lazy(|| puts.entries.absent());
    let mut group = c.benchmark_group(format!("memtable, {name}"));
    group.throughput(Throughput::Elements(1));
    group.bench_function("insert", |b| {
        let puts = &**puts;
        timing::timed_steps(b, ENTRIES, || {
            let mut memtable = Memtable::new(kind, MEMTABLE_BYTES);
            time(|| puts.put_all(&mut memtable))
        });
    });
    group.bench_function("get, present", |b| {
        let (memtable, mut probes) = (&*memtable, Cycle::new(&puts.keys));
        b.iter(|| memtable.get(probes.next()).expect("it was put")[0])
    });
    // The filter answers nearly all of them.
    group.bench_function("get, absent", |b| {
        let (memtable, mut probes) = (&*memtable, Cycle::new(&absent));
        b.iter(|| memtable.get(probes.next()).is_some())
    });
    group.bench_function("iterate, a step", |b| {
        let mut cursor = memtable.cursor();
        timing::steps(b, ENTRIES, || {
            cursor.seek_to_first().expect("memory does not fail");
            while cursor.valid() {
                black_box((cursor.key(), cursor.value()));
                cursor.step().expect("memory does not fail");
            }
        });
    });
}
