//! Gets through the whole engine, by where the data lies.

use criterion::{Criterion, Throughput};
use siltstone::Keyspace;

use crate::fixture::{Cycle, Entries, Lazy, lazy};
use crate::store::Store;

const ENTRIES: u64 = 500_000;

/// The fewest runs a get may have to look into in the last of the stores.
const LEVELS: usize = 5;

pub fn bench(c: &mut Criterion) {
    let entries = lazy(|| Entries::new(ENTRIES));
    let memtable = lazy(|| Store::in_memtable(&entries));
    from(c, "get, from a memtable", &entries, || &memtable.keyspace);
    let table = lazy(|| Store::in_one_table(&entries));
    from(c, "get, from one table", &entries, || &table.keyspace);
    let levels = lazy(|| Store::in_levels(&entries, LEVELS));
    from(c, "get, from five levels", &entries, || &levels.keyspace);
}

/// `store` answers the same keyspace each time; it is asked for when it is needed.
fn from<'s>(c: &mut Criterion, name: &str, entries: &Lazy<'_, Entries>, store: impl Fn() -> &'s Keyspace) {
    let present = lazy(|| entries.present());
    let absent = lazy(|| entries.absent());
    let mut group = c.benchmark_group(name);
    group.throughput(Throughput::Elements(1));
    group.bench_function("present, a value to keep", |b| {
        let (keyspace, mut probes) = (store(), Cycle::new(&present));
        b.iter(|| keyspace.get(probes.next()).expect("the store is intact"))
    });
    group.bench_function("present, visited in place", |b| {
        let (keyspace, mut probes) = (store(), Cycle::new(&present));
        b.iter(|| keyspace.get_with(probes.next(), |value| value[50]).expect("the store is intact"))
    });
    group.bench_function("absent", |b| {
        let (keyspace, mut probes) = (store(), Cycle::new(&absent));
        b.iter(|| keyspace.get(probes.next()).expect("the store is intact"))
    });
}
