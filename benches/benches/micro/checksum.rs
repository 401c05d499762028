//! CRC-32 of a log record's payload with one put, and of a block.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput};
use siltstone::internals::parts::{checksum, hash_key};

use crate::fixture::{Cycle, Entries};

pub fn bench(c: &mut Criterion) {
    // The check value that the catalogue of CRC algorithms gives for CRC-32/ISO-HDLC.
    assert_eq!(checksum(b"123456789"), 0xcbf4_3926);
    let bytes: Vec<u8> = Entries::new(64).iter().flat_map(|(key, value)| key.iter().chain(value)).copied().collect();
    let mut group = c.benchmark_group("checksum");
    for length in [136, 4096] {
        group.throughput(Throughput::Bytes(length as u64));
        group.bench_with_input(BenchmarkId::new("crc32", length), &bytes[..length], |b, bytes| {
            b.iter(|| checksum(black_box(bytes)))
        });
    }
    group.throughput(Throughput::Elements(1));
    let keys = Entries::new(1000).keys;
    group.bench_function("hash of a key", |b| {
        let mut keys = Cycle::new(&keys);
        b.iter(|| hash_key(keys.next()))
    });
}
