//! Writing through the whole engine: encoding, the commit lock, the log, the memtable, publication.

use std::sync::Barrier;
use std::time::Duration;

use criterion::{BatchSize, Criterion, Throughput};
use siltstone::{Durability, Keyspace, WriteBatch};

use crate::fixture::{Cycle, Entries, Key, Lazy, lazy};
use crate::store::Store;
use crate::timing::{self, time};

/// Puts into one store, which is far from its first flush then; the next ones go to a new store.
const PUTS: u64 = 200_000;

const BATCH_PUTS: u64 = 100;

/// Puts of each thread between two looks at the clock, where each is synced.
const SYNCED_PUTS: u64 = 100;

pub fn bench(c: &mut Criterion) {
    let entries = lazy(|| Entries::new(PUTS));
    let keys = lazy(|| entries.present());
    let mut group = c.benchmark_group("commit");
    group.throughput(Throughput::Elements(1));
    for (name, durability) in [("no log", Durability::NoLog), ("buffered", Durability::Buffered)] {
        for threads in [1, 2] {
            let threads_name = if threads == 1 { "uncontended".to_owned() } else { format!("{threads} threads") };
            group.bench_function(format!("put, {name}, {threads_name}"), |b| {
                timing::timed_steps(b, PUTS, || {
                    let store = Store::with_large_memtable(durability);
                    let elapsed = put_all(&store.keyspace, &keys, threads);
                    assert_eq!(store.keyspace.iter().count() as u64, PUTS);
                    elapsed
                });
            });
        }
    }
    for threads in [1, 2, 8] {
        let store = lazy(|| Store::with_large_memtable(Durability::Synced));
        let puts = threads * SYNCED_PUTS;
        group.bench_function(format!("put, synced, {threads} threads"), |b| {
            timing::timed_steps(b, puts, || put_all(&store.keyspace, &keys[..puts as usize], threads as usize));
        });
    }
    group.bench_function("batch of 100 puts, buffered, a put", |b| {
        timing::timed_steps(b, PUTS, || {
            let store = Store::with_large_memtable(Durability::Buffered);
            let batches: Vec<WriteBatch> = keys.chunks(BATCH_PUTS as usize).map(|keys| batch(&store, keys)).collect();
            let elapsed = time(|| {
                for batch in batches {
                    store.db.write(batch).expect("there is space");
                }
            });
            assert_eq!(store.keyspace.iter().count() as u64, PUTS);
            elapsed
        });
    });
    group.finish();
    steady(c, &keys);
}

fn batch(store: &Store, keys: &[Key]) -> WriteBatch {
    let mut batch = WriteBatch::new();
    for key in keys {
        batch.put(&store.keyspace, key, [0x5a; 100]);
    }
    batch
}

/// Puts all keys, each of the threads its part; from the moment that all have started until the last is done.
fn put_all(keyspace: &Keyspace, keys: &[Key], threads: usize) -> Duration {
    let barrier = Barrier::new(threads + 1);
    let put_part = |part: &[Key]| {
        barrier.wait();
        for key in part {
            keyspace.put(key, [0x5a; 100]).expect("there is space");
        }
    };
    std::thread::scope(|scope| {
        let parts = keys.chunks(keys.len().div_ceil(threads));
        let running: Vec<_> = parts.map(|part| scope.spawn(|| put_part(part))).collect();
        barrier.wait();
        time(|| running.into_iter().for_each(|thread| thread.join().expect("the puts were checked")))
    })
}

/// Overwrites without end, with flushes and compactions beside it.
fn steady(c: &mut Criterion, keys: &Lazy<'_, Vec<Key>>) {
    let store = lazy(Store::with_defaults);
    let mut group = c.benchmark_group("commit, steady state");
    group.throughput(Throughput::Elements(1));
    group.bench_function("put, buffered", |b| {
        let (keyspace, mut keys) = (&store.keyspace, Cycle::new(keys));
        b.iter(|| keyspace.put(keys.next(), [0x5a; 100]).expect("there is space"))
    });
    group.bench_function("batch of 100 puts, buffered", |b| {
        let mut groups = Cycle::new(keys.as_chunks::<{ BATCH_PUTS as usize }>().0);
        let fill = || batch(&store, groups.next());
        b.iter_batched(fill, |batch| store.db.write(batch).expect("there is space"), BatchSize::SmallInput)
    });
}
