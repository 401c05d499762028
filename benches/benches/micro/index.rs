//! Searching the index of a table of 2 M entries of 116 B: one separator a block.

use criterion::{Criterion, Throughput};
use siltstone::internals::parts::{Index, IndexBuilder};

use crate::fixture::{Cycle, Entries, Key, lazy};

/// Blocks of 4 KiB in such a table.
const BLOCKS: u64 = 60_000;

/// Entries a block, of which only every so many are made: the first and the last.
const BLOCK_KEYS: usize = 2;

fn index(entries: &Entries) -> Index {
    let mut builder = IndexBuilder::default();
    let mut blocks = entries.keys.chunks_exact(BLOCK_KEYS).peekable();
    while let Some(block) = blocks.next() {
        builder.add(&block[BLOCK_KEYS - 1], blocks.peek().map(|next| next[0].as_slice()), 4101);
    }
    let index = builder.finish().expect("blocks ascend");
    for (at, key) in entries.keys.iter().enumerate() {
        assert_eq!(index.lower_bound(key), at / BLOCK_KEYS);
    }
    index
}

pub fn bench(c: &mut Criterion) {
    let entries = lazy(|| Entries::new(BLOCK_KEYS as u64 * BLOCKS));
    let index = lazy(|| index(&entries));
    let probes = lazy(|| entries.present());
    let mut group = c.benchmark_group("index");
    group.throughput(Throughput::Elements(1));
    group.bench_function("search 60 K blocks", |b| {
        let (index, mut probes) = (&*index, Cycle::<Key>::new(&probes));
        b.iter(|| {
            let ordinal = index.lower_bound(probes.next());
            index.block(ordinal).expect("every probe is in some block")
        })
    });
}
