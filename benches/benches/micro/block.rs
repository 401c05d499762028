//! Building, searching and walking through data blocks of 4 and 16 KiB, as they are and compressed.

use std::hint::black_box;

use criterion::{Criterion, Throughput};
use siltstone::internals::parts::{Block, BlockBuilder, BlockCursor, Compressor, decompress};

use crate::fixture::{Cycle, Entries, Key, lazy};
use crate::timing;

/// Bytes of all blocks together that are searched from memory: twice the largest cache of the reference machine.
const COLD_BYTES: usize = 64 << 20;

/// Adds entries from position `first` on until the block is full, as a table's builder does; how many.
fn fill(builder: &mut BlockBuilder, entries: &Entries, first: usize, block_bytes: usize) -> usize {
    let mut at = first;
    while let Some(key) = entries.keys.get(at) {
        let value = entries.value(at);
        if at > first && builder.estimated_bytes() + key.len() + value.len() > block_bytes {
            break;
        }
        builder.add(key, value);
        at += 1;
    }
    at - first
}

/// A full block of the first entries.
pub fn payload(entries: &Entries, block_bytes: usize) -> Vec<u8> {
    let (mut builder, mut out) = (BlockBuilder::default(), Vec::new());
    fill(&mut builder, entries, 0, block_bytes);
    builder.finish(&mut out);
    out
}

/// One block in its stored forms.
struct Fixture {
    raw: Vec<u8>,
    packed: Vec<u8>,
    /// Its keys, in random order.
    probes: Vec<Key>,
    entries: usize,
}

impl Fixture {
    fn new(entries: &Entries, block_bytes: usize) -> Self {
        let raw = payload(entries, block_bytes);
        let block = Block::parse(&raw).expect("it was just built");
        let count = block.entries();
        assert!(raw.len() <= block_bytes && raw.len() > block_bytes * 9 / 10, "{} bytes", raw.len());
        for (at, (key, value)) in entries.iter().take(count).enumerate() {
            assert_eq!((block.get(key), block.lower_bound(key)), (Some(value), at));
        }
        assert_eq!(block.get(&entries.keys[count]), None);
        let mut packed = Vec::new();
        assert!(Compressor::default().compress(&raw, &mut packed));
        assert_eq!(decompress(&packed).expect("it was just compressed"), raw);
        let shuffled = entries.shuffled().into_iter().filter(|&at| at < count);
        let probes = shuffled.map(|at| entries.keys[at]).collect();
        Fixture { packed, probes, entries: count, raw }
    }
}

pub fn bench(c: &mut Criterion) {
    let entries = Entries::new(1000);
    for block_bytes in [4096, 16384] {
        let fixture = Fixture::new(&entries, block_bytes);
        let name = format!("block of {} KiB", block_bytes >> 10);
        build(c, &name, &entries, block_bytes);
        search(c, &name, &fixture);
        search_cold(c, &name, block_bytes);
        iterate(c, &name, &entries, &fixture);
    }
}

fn build(c: &mut Criterion, name: &str, entries: &Entries, block_bytes: usize) {
    let mut group = c.benchmark_group(name);
    group.throughput(Throughput::Bytes(payload(entries, block_bytes).len() as u64));
    let (mut builder, mut raw) = (BlockBuilder::default(), Vec::new());
    group.bench_function("build", |b| {
        b.iter(|| {
            raw.clear();
            fill(&mut builder, entries, 0, block_bytes);
            builder.finish(&mut raw);
            black_box(&raw).len()
        })
    });
    let (mut compressor, mut packed) = (Compressor::default(), Vec::new());
    group.bench_function("build, lz4", |b| {
        b.iter(|| {
            raw.clear();
            packed.clear();
            fill(&mut builder, entries, 0, block_bytes);
            builder.finish(&mut raw);
            compressor.compress(&raw, &mut packed)
        })
    });
}

/// Gets of present keys from one block, parsed anew for each get, as from a mapped table.
fn search(c: &mut Criterion, name: &str, fixture: &Fixture) {
    let mut group = c.benchmark_group(name);
    group.throughput(Throughput::Elements(1));
    group.bench_function("search, in cache", |b| {
        let mut probes = Cycle::new(&fixture.probes);
        b.iter(|| get(&fixture.raw, probes.next()))
    });
    group.bench_function("search, lz4", |b| {
        let mut probes = Cycle::new(&fixture.probes);
        b.iter(|| {
            let raw = decompress(&fixture.packed).expect("it was checked");
            get(&raw, probes.next())
        })
    });
}

/// The first byte of a key's value: what is found is also touched.
#[inline]
fn get(payload: &[u8], key: &Key) -> u8 {
    let block = Block::parse(payload).expect("it was checked");
    block.get(key).expect("the key is in the block")[0]
}

/// So many blocks that a search in one of them comes from memory.
struct ColdBlocks {
    payloads: Vec<Vec<u8>>,
    /// Which block, and a key in it.
    probes: Vec<(usize, Key)>,
}

impl ColdBlocks {
    fn new(block_bytes: usize) -> Self {
        let entries = Entries::new((COLD_BYTES / 116) as u64);
        let mut builder = BlockBuilder::default();
        let (mut payloads, mut block_of) = (Vec::new(), Vec::new());
        while block_of.len() < entries.keys.len() {
            let count = fill(&mut builder, &entries, block_of.len(), block_bytes);
            let mut payload = Vec::new();
            builder.finish(&mut payload);
            block_of.resize(block_of.len() + count, payloads.len());
            payloads.push(payload);
        }
        let probes = entries.shuffled().into_iter().map(|at| (block_of[at], entries.keys[at])).collect();
        ColdBlocks { payloads, probes }
    }
}

fn search_cold(c: &mut Criterion, name: &str, block_bytes: usize) {
    let blocks = lazy(|| ColdBlocks::new(block_bytes));
    let mut group = c.benchmark_group(name);
    group.throughput(Throughput::Elements(1));
    group.bench_function("search, from memory", |b| {
        let mut probes = Cycle::new(&blocks.probes);
        b.iter(|| {
            let (block, key) = probes.next();
            get(&blocks.payloads[*block], key)
        })
    });
}

/// Visits all entries of the cursor's block.
fn walk(cursor: &mut BlockCursor, entries: usize, mut visit: impl FnMut(usize, &[u8], &[u8])) {
    for at in 0..entries {
        cursor.move_to(at).expect("the block has this entry");
        visit(at, cursor.key(), cursor.value());
    }
}

fn iterate(c: &mut Criterion, name: &str, entries: &Entries, fixture: &Fixture) {
    let mut cursor = BlockCursor::new(fixture.raw.clone()).expect("it was checked");
    walk(&mut cursor, fixture.entries, |at, key, value| {
        assert_eq!((key, value), (&entries.keys[at][..], entries.value(at)));
    });
    let touch = |_, key: &[u8], value: &[u8]| {
        black_box((key, value));
    };
    let mut group = c.benchmark_group(name);
    group.throughput(Throughput::Elements(1));
    group.bench_function("iterate, a step", |b| {
        timing::steps(b, fixture.entries as u64, || walk(&mut cursor, fixture.entries, touch));
    });
    group.bench_function("iterate, a step, lz4", |b| {
        timing::steps(b, fixture.entries as u64, || {
            let raw = decompress(&fixture.packed).expect("it was checked");
            walk(&mut BlockCursor::new(raw).expect("it was checked"), fixture.entries, touch);
        });
    });
}
