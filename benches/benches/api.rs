//! Micro benchmarks of what a program calls: `cargo bench -p siltstone-benches`.

#![allow(missing_docs)] // criterion_group! makes an undocumented function

use std::hint::black_box;
use std::time::Duration;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use siltstone::{Compression, Db, Keyspace, KeyspaceOptions, WriteBatch};
use siltstone_benches::data::Dataset;
use tempfile::TempDir;

const KEYS: u64 = 200_000;
const BATCH_PUTS: u64 = 100;

fn dataset() -> Dataset {
    Dataset::new(KEYS, 16, 100, 42).unwrap()
}

fn open() -> (TempDir, Db, Keyspace) {
    let dir = tempfile::tempdir().unwrap();
    let db = Db::open(dir.path()).unwrap();
    let keyspace = db.keyspace("bench", KeyspaceOptions::new().compression(Compression::None)).unwrap();
    (dir, db, keyspace)
}

fn filled(data: &Dataset) -> (TempDir, Db, Keyspace) {
    let (dir, db, keyspace) = open();
    let order = data.order(1);
    let (mut key, mut value) = (Vec::new(), Vec::new());
    for position in 0..KEYS {
        let id = order.at(position);
        data.key(id, &mut key);
        data.value(id, 1, &mut value);
        keyspace.put(&key, &value).unwrap();
    }
    (dir, db, keyspace)
}

fn puts(c: &mut Criterion) {
    let data = dataset();
    let (_dir, db, keyspace) = filled(&data);
    let (mut key, mut value) = (Vec::new(), Vec::new());
    data.value(0, 1, &mut value);
    let mut group = c.benchmark_group("write");
    let mut draw = 0;
    group.throughput(Throughput::Elements(1));
    group.bench_function("put", |b| {
        b.iter(|| {
            draw += 1;
            data.key(data.random(1, draw), &mut key);
            keyspace.put(&key, &value).unwrap()
        })
    });
    group.throughput(Throughput::Elements(BATCH_PUTS));
    group.bench_function("batch of 100", |b| {
        let fill = || {
            let mut batch = WriteBatch::new();
            for _ in 0..BATCH_PUTS {
                draw += 1;
                data.key(data.random(1, draw), &mut key);
                batch.put(&keyspace, &key, &value);
            }
            batch
        };
        b.iter_batched(fill, |batch| db.write(batch).unwrap(), BatchSize::SmallInput)
    });
}

/// Reads from a store whose data is in `place`.
fn reads_from(c: &mut Criterion, place: &str, data: &Dataset, keyspace: &Keyspace) {
    let mut key = Vec::new();
    let mut draw = 0;
    let mut group = c.benchmark_group(place);
    group.throughput(Throughput::Elements(1));
    let mut next = |missing: bool, key: &mut Vec<u8>| {
        draw += 1;
        let id = data.random(2, draw);
        if missing { data.missing_key(id, key) } else { data.key(id, key) }
    };
    group.bench_function("get hit", |b| {
        b.iter(|| {
            next(false, &mut key);
            keyspace.get(&key).unwrap()
        })
    });
    group.bench_function("get_with hit", |b| {
        b.iter(|| {
            next(false, &mut key);
            keyspace.get_with(&key, |value| value[50]).unwrap()
        })
    });
    group.bench_function("get miss", |b| {
        b.iter(|| {
            next(true, &mut key);
            keyspace.get(&key).unwrap()
        })
    });
    group.bench_function("seek + 10", |b| {
        b.iter(|| {
            next(false, &mut key);
            keyspace.range::<&[u8]>(&key[..]..).take(10).for_each(|entry| drop(black_box(entry.unwrap())))
        })
    });
    group.throughput(Throughput::Elements(KEYS));
    group.bench_function("scan", |b| b.iter(|| keyspace.iter().for_each(|entry| drop(black_box(entry.unwrap())))));
    group.bench_function("scan reverse", |b| {
        b.iter(|| keyspace.iter().rev().for_each(|entry| drop(black_box(entry.unwrap()))))
    });
}

fn reads(c: &mut Criterion) {
    let data = dataset();
    let (_dir, _db, keyspace) = filled(&data);
    reads_from(c, "memtable", &data, &keyspace);
    keyspace.compact().unwrap();
    reads_from(c, "tables", &data, &keyspace);
}

criterion_group! {
    name = benches;
    config = Criterion::default().warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(1)).sample_size(10);
    targets = puts, reads
}
criterion_main!(benches);
