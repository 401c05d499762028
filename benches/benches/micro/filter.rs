//! Building and asking filters of 10 bits a key, one that stays in the processor's nearer caches and one that does not.

use std::hint::black_box;

use criterion::{Criterion, Throughput};
use siltstone::internals::parts::{Filter, FilterBuilder, hash_key};
use siltstone_benches::data::mix;

use crate::fixture::{Cycle, Entries, Lazy, lazy};
use crate::timing;

const BITS_PER_KEY: u32 = 10;

/// Hashes of keys: the filter is asked with one hash a get, however many tables there are.
struct Hashes {
    present: Vec<u64>,
    absent: Vec<u64>,
}

impl Hashes {
    /// Of real keys.
    fn of_keys(count: u64) -> Self {
        let entries = Entries::new(count);
        let hashes = |keys: Vec<_>| keys.iter().map(|key: &[u8; 16]| hash_key(key)).collect();
        Hashes { present: hashes(entries.present()), absent: hashes(entries.absent()) }
    }

    /// Random ones, where so many keys would not fit.
    fn random(count: u64) -> Self {
        Hashes { present: (0..count).map(mix).collect(), absent: (count..2 * count).map(mix).collect() }
    }
}

fn builder(hashes: &[u64]) -> FilterBuilder {
    let mut builder = FilterBuilder::new(BITS_PER_KEY);
    hashes.iter().for_each(|&hash| builder.add(hash));
    builder
}

fn filter(hashes: &Hashes) -> Filter {
    let mut lines = Vec::new();
    let probes = builder(&hashes.present).build(&mut lines);
    let filter = Filter::new(lines, probes).expect("it was just built");
    assert!(hashes.present.iter().all(|&hash| filter.may_contain(hash)));
    let false_positives = hashes.absent.iter().filter(|&&hash| filter.may_contain(hash)).count();
    assert!(false_positives < hashes.absent.len() / 50, "{false_positives} of {}", hashes.absent.len());
    filter
}

pub fn bench(c: &mut Criterion) {
    let small = lazy(|| Hashes::of_keys(100_000));
    build(c, &small);
    probe(c, "100 K keys", &small);
    probe(c, "16 M keys", &lazy(|| Hashes::random(16_000_000)));
}

fn build(c: &mut Criterion, hashes: &Lazy<'_, Hashes>) {
    let mut group = c.benchmark_group("filter");
    group.throughput(Throughput::Elements(1));
    group.bench_function("build, a key", |b| {
        let mut lines = Vec::new();
        timing::steps(b, hashes.present.len() as u64, || {
            black_box(builder(&hashes.present).build(&mut lines));
        });
    });
}

fn probe(c: &mut Criterion, size: &str, hashes: &Lazy<'_, Hashes>) {
    let filter = lazy(|| filter(hashes));
    let mut group = c.benchmark_group(format!("filter of {size}"));
    group.throughput(Throughput::Elements(1));
    group.bench_function("probe, present", |b| {
        let (filter, mut probes) = (&*filter, Cycle::new(&hashes.present));
        b.iter(|| filter.may_contain(*probes.next()))
    });
    group.bench_function("probe, absent", |b| {
        let (filter, mut probes) = (&*filter, Cycle::new(&hashes.absent));
        b.iter(|| filter.may_contain(*probes.next()))
    });
}
