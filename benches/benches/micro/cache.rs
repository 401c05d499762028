//! The block cache, filled with blocks of 4 KiB.

use criterion::{Criterion, Throughput};
use siltstone::internals::parts::{BlockCache, Payload};
use siltstone_benches::data::Permutation;

use crate::block::payload;
use crate::fixture::{Cycle, Entries, lazy};

const CAPACITY_BYTES: usize = 64 << 20;

/// Blocks that fit with what the cache needs for itself.
const BLOCKS: u32 = 12_000;

/// The table whose blocks are cached, one that has none there, and one whose blocks take the others' places.
const CACHED: u64 = 1;
const ABSENT: u64 = 2;
const NEW: u64 = 3;

struct Fixture {
    cache: BlockCache,
    payload: Payload,
    /// All cached blocks, in random order.
    ordinals: Vec<u32>,
}

impl Fixture {
    fn new() -> Self {
        let payload = Payload::parse(payload(&Entries::new(1000), 4096)).expect("it was just built");
        let cache = BlockCache::new(CAPACITY_BYTES);
        for ordinal in 0..BLOCKS {
            cache.insert(CACHED, ordinal, &payload).expect("nothing is loaded");
        }
        let order = Permutation::new(BLOCKS.into(), 1);
        // The cache may give up blocks before it is full, since its parts are not filled alike.
        let all = (0..BLOCKS.into()).map(|position| order.at(position) as u32);
        let ordinals: Vec<u32> = all.filter(|&ordinal| cache.entries(CACHED, ordinal).is_some()).collect();
        assert!(ordinals.len() > BLOCKS as usize * 9 / 10, "{} blocks are cached", ordinals.len());
        assert_eq!(cache.entries(ABSENT, 0), None);
        assert!(cache.bytes() <= CAPACITY_BYTES as u64);
        Fixture { cache, payload, ordinals }
    }
}

pub fn bench(c: &mut Criterion) {
    let fixture = lazy(Fixture::new);
    let mut group = c.benchmark_group("block cache");
    group.throughput(Throughput::Elements(1));
    group.bench_function("get, hit", |b| {
        let (fixture, mut ordinals) = (&*fixture, Cycle::new(&fixture.ordinals));
        b.iter(|| fixture.cache.entries(CACHED, *ordinals.next()))
    });
    group.bench_function("get, miss", |b| {
        let (fixture, mut ordinals) = (&*fixture, Cycle::new(&fixture.ordinals));
        b.iter(|| fixture.cache.entries(ABSENT, *ordinals.next()))
    });
    // After the first ones each insertion drives another block out.
    group.bench_function("insert", |b| {
        let (fixture, mut ordinal) = (&*fixture, 0u32);
        b.iter(|| {
            ordinal = ordinal.wrapping_add(1);
            fixture.cache.insert(NEW, ordinal, &fixture.payload)
        })
    });
}
