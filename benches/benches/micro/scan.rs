//! Seeks and scans through the whole engine, by where the data lies.

use std::hint::black_box;

use criterion::{Criterion, Throughput};
use siltstone::Iter;

use crate::fixture::{Cycle, Entries, Key, Lazy, lazy};
use crate::store::Store;
use crate::timing;

const ENTRIES: u64 = 500_000;

pub fn bench(c: &mut Criterion) {
    let entries = lazy(|| Entries::new(ENTRIES));
    let memtable = lazy(|| Store::in_memtable(&entries));
    over(c, "scan of a memtable", &entries, &memtable);
    let levels = lazy(|| Store::in_levels(&entries, 5));
    over(c, "scan of five levels", &entries, &levels);
}

/// Touches all of `entries`; how many there were.
fn touch(entries: impl Iterator<Item = <Iter as Iterator>::Item>) -> u64 {
    entries.map(|entry| drop(black_box(entry.expect("the store is intact")))).count() as u64
}

fn over(c: &mut Criterion, name: &str, entries: &Lazy<'_, Entries>, store: &Lazy<'_, Store>) {
    let probes = lazy(|| entries.present());
    let mut group = c.benchmark_group(name);
    group.throughput(Throughput::Elements(1));
    for next in [10, 100] {
        group.bench_function(format!("seek + {next}"), |b| {
            let (keyspace, mut probes) = (&store.keyspace, Cycle::new(&probes));
            b.iter(|| touch(keyspace.range::<&Key>(probes.next()..).take(next)))
        });
        group.bench_function(format!("seek + {next} in reverse"), |b| {
            let (keyspace, mut probes) = (&store.keyspace, Cycle::new(&probes));
            b.iter(|| touch(keyspace.range::<&Key>(..=probes.next()).rev().take(next)))
        });
    }
    group.bench_function("forward, a step", |b| {
        timing::steps(b, ENTRIES, || assert_eq!(touch(store.keyspace.iter()), ENTRIES));
    });
    group.bench_function("reverse, a step", |b| {
        timing::steps(b, ENTRIES, || assert_eq!(touch(store.keyspace.iter().rev()), ENTRIES));
    });
}
