//! LZ4 of a half-compressible block of 4 KiB.

use std::hint::black_box;

use criterion::{Criterion, Throughput};
use siltstone::internals::parts::{Compressor, decompress};

use crate::block::payload;
use crate::fixture::Entries;

pub fn bench(c: &mut Criterion) {
    let raw = payload(&Entries::new(1000), 4096);
    let (mut compressor, mut packed) = (Compressor::default(), Vec::new());
    assert!(compressor.compress(&raw, &mut packed));
    assert_eq!(decompress(&packed).expect("it was just compressed"), raw);
    let mut group = c.benchmark_group("lz4");
    group.throughput(Throughput::Bytes(raw.len() as u64));
    group.bench_function("encode 4 KiB", |b| {
        // Compressed blocks are never larger than what they hold.
        let mut out = Vec::with_capacity(2 * raw.len());
        b.iter(|| {
            out.clear();
            compressor.compress(black_box(&raw), &mut out)
        })
    });
    // The engine allocates the decoded block: that is part of it.
    group.bench_function("decode 4 KiB", |b| b.iter(|| decompress(black_box(&packed))));
}
