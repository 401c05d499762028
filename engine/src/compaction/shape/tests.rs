use super::*;
use crate::version::version::testing::table;

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};

impl Shape {
    /// The shape of `version` while `running` goes on.
    pub(crate) fn new<T: HasMeta>(version: &Version<T>, running: &[Running]) -> Self {
        let mut shape = Shape::of(version, PickOrder::default());
        shape.running = running.to_vec();
        running.iter().flat_map(|job| &job.inputs).for_each(|number| shape.set_busy(*number, true));
        shape
    }
}

const ORDERS: [PickOrder; 4] =
    [PickOrder::MinOverlap, PickOrder::OldestFirst, PickOrder::RoundRobin, PickOrder::LargestFirst];

/// A table of keys `first..first + keys`.
fn keyed(number: u64, first: u32, keys: u32, file_bytes: u64) -> Arc<TableMeta> {
    let (smallest, largest) = (first.to_be_bytes(), (first + keys - 1).to_be_bytes());
    Arc::new(TableMeta { file_bytes, ..table(number, &smallest, &largest, number, number) })
}

/// A version of random tables, with gaps and tombstones, and the tables.
fn random_version(rng: &mut StdRng) -> Version<TableMeta> {
    let mut tables = Vec::new();
    let mut number = 0;
    for level in 0..LEVELS {
        let mut at = 0;
        for _ in 0..rng.random_range(0..30) {
            let keys = rng.random_range(1..100);
            number += 1;
            let mut meta = keyed(number, at, keys, rng.random_range(1..50)).as_ref().clone();
            meta.tombstones = if rng.random_bool(0.3) { rng.random_range(0..=100) } else { 0 };
            tables.push((level, Arc::new(meta)));
            at += keys + rng.random_range(0..60) * rng.random_range(0..2);
        }
    }
    Version::empty().apply(tables, &[])
}

/// What an order is, from nothing but the tables.
fn brute_force(shape: &Shape, level: usize) -> Vec<u64> {
    let overlap = |meta: &TableMeta| -> u64 {
        let below = shape.tables(level + 1).iter().map(|table| &table.meta);
        below.filter(|other| other.overlaps(&meta.smallest, &meta.largest)).map(|other| other.file_bytes).sum()
    };
    let mut metas: Vec<_> = shape.tables(level).iter().map(|table| table.meta.clone()).collect();
    metas.sort_by(|a, b| {
        let order = match shape.order {
            PickOrder::MinOverlap => {
                let ratio = |meta: &TableMeta| overlap(meta) as f64 / meta.file_bytes as f64;
                ratio(a).total_cmp(&ratio(b))
            }
            PickOrder::OldestFirst => a.min_seqno.cmp(&b.min_seqno),
            PickOrder::LargestFirst => b.file_bytes.cmp(&a.file_bytes),
            PickOrder::RoundRobin => return a.smallest.cmp(&b.smallest),
        };
        order.then(a.number.cmp(&b.number))
    });
    metas.iter().map(|meta| meta.number).collect()
}

fn assert_same(shape: &Shape, fresh: &Shape) {
    for level in 0..LEVELS {
        let tables = |shape: &Shape| -> Vec<_> {
            shape.tables(level).iter().map(|table| (table.meta.clone(), table.overlap_bytes)).collect()
        };
        assert_eq!(tables(shape), tables(fresh), "level {level}");
        assert_eq!(shape.level_bytes()[level], fresh.level_bytes()[level]);
        assert_eq!(shape.idle_bytes(level), fresh.idle_bytes(level));
        assert_eq!(shape.levels[level].ranked, fresh.levels[level].ranked, "level {level}");
        assert_eq!(shape.levels[level].dense, fresh.levels[level].dense, "level {level}");
    }
    assert_eq!(shape.places.len(), fresh.places.len());
}

/// A shape that was told of every change is the shape of the version that the changes led to.
#[test]
fn a_shape_follows_its_tree() {
    for seed in 0..60 {
        let mut rng = StdRng::seed_from_u64(seed);
        let order = ORDERS[seed as usize % ORDERS.len()];
        let mut version = random_version(&mut rng);
        let mut shape = Shape::of(&version, order);
        for next in 1000..1060 {
            let numbers: Vec<u64> = version.tables().map(|table| table.number).collect();
            let removed: Vec<u64> = numbers.sample(&mut rng, 3).copied().collect();
            // One table comes back in level 0 or in another level where its keys are free, one is new.
            let mut added = Vec::new();
            let moved = version.tables().find(|table| removed.contains(&table.number)).cloned();
            let level = rng.random_range(0..LEVELS);
            let free = |meta: &TableMeta| shape.run(level, &meta.smallest, &meta.largest).is_empty();
            added.extend(moved.filter(|meta| level == 0 || free(meta)).map(|meta| (level, meta)));
            added.push((0, keyed(next, rng.random_range(0..1000), 20, 7)));
            shape.install(added.clone(), &removed);
            version = version.apply(added, &removed);
            assert_same(&shape, &Shape::of(&version, order));
        }
    }
}

#[test]
fn orders_are_what_they_say() {
    for seed in 0..20 {
        let version = random_version(&mut StdRng::seed_from_u64(seed));
        let mut shape = Shape::of(&version, PickOrder::LargestFirst);
        for order in ORDERS {
            shape.set_order(order);
            for level in 1..LAST_LEVEL {
                let numbers: Vec<u64> = shape.candidates(level).map(|at| shape.tables(level)[at].meta.number).collect();
                assert_eq!(numbers, brute_force(&shape, level), "{order:?}, level {level}, seed {seed}");
            }
        }
    }
}

fn job(level: usize, inputs: &[u64], range: (u32, u32)) -> Running {
    Running {
        inputs: inputs.to_vec(),
        level,
        output_level: level + 1,
        smallest: Bytes::copy_from_slice(&range.0.to_be_bytes()),
        largest: Bytes::copy_from_slice(&range.1.to_be_bytes()),
    }
}

#[test]
fn round_robin_goes_on_where_it_stopped_and_around() {
    let tables = (0..4).map(|n| (3, keyed(u64::from(n), n * 10, 10, 1))).collect();
    let mut shape = Shape::of(&Version::empty().apply(tables, &[]), PickOrder::RoundRobin);
    let order = |shape: &Shape| shape.candidates(3).collect::<Vec<_>>();
    assert_eq!(order(&shape), [0, 1, 2, 3]);
    let first = job(3, &[0, 1], (0, 19));
    shape.start(first.clone());
    assert_eq!(order(&shape), [2, 3, 0, 1]);
    shape.install(Vec::new(), &[0, 1]);
    shape.finish(&first);
    assert_eq!(order(&shape), [0, 1]);
    shape.start(job(3, &[3], (30, 39)));
    assert_eq!(order(&shape), [0, 1]);
}

#[test]
fn busy_bytes_are_given_back_whatever_becomes_of_a_job() {
    let tables = vec![(1, keyed(1, 0, 10, 5)), (1, keyed(2, 10, 10, 7)), (2, keyed(3, 0, 20, 11))];
    let mut shape = Shape::of(&Version::empty().apply(tables, &[]), PickOrder::default());
    let job_of_1 = job(1, &[1], (0, 9));
    shape.start(job_of_1.clone());
    assert_eq!((shape.idle_bytes(1), shape.level_bytes()[1], shape.running().len()), (7, 12, 1));
    assert!(shape.is_busy(&shape.tables(1)[0]) && !shape.is_busy(&shape.tables(1)[1]));
    shape.finish(&job_of_1);
    assert_eq!((shape.idle_bytes(1), shape.running().len()), (12, 0), "it failed");

    shape.start(job_of_1.clone());
    shape.install(vec![(3, keyed(1, 0, 10, 5))], &[1]);
    assert_eq!((shape.idle_bytes(1), shape.idle_bytes(3), shape.level_bytes()[3]), (7, 0, 5), "moved, still busy");
    shape.finish(&job_of_1);
    assert_eq!(shape.idle_bytes(3), 5);

    shape.start(job(1, &[2], (10, 19)));
    shape.install(vec![(2, keyed(9, 20, 5, 6))], &[2]);
    assert_eq!((shape.idle_bytes(1), shape.idle_bytes(2)), (0, 17), "outputs are not busy");
}

/// What a pick, and following it, cost does not grow with the number of tables. (A pick that is made from the version
/// alone looks at every table of two levels: 44,000 here.)
#[test]
fn picking_among_many_tables_looks_at_few() {
    for tables in [4_000, 40_000] {
        let bottom = (0..tables).map(|n| (6, keyed(u64::from(n) + 1, n * 100, 100, 1000)));
        let upper = (0..tables / 10).map(|n| (5, keyed(u64::from(tables + n) + 1, n * 1000 + 50, 1000, 1000)));
        let mut shape = Shape::of(&Version::empty().apply(bottom.chain(upper).collect(), &[]), PickOrder::MinOverlap);
        let before = shape.steps();
        for pick in 0..10 {
            let at = shape.candidates(5).next().unwrap();
            let meta = shape.tables(5)[at].meta.clone();
            let run = shape.run(6, &meta.smallest, &meta.largest);
            let merged: Vec<_> = shape.tables(6)[run].iter().map(|table| table.meta.clone()).collect();
            let first = u32::from_be_bytes(merged[0].smallest[..].try_into().unwrap());
            let outputs = (0..merged.len() as u32)
                .map(|n| (6, keyed(u64::from(pick * 100 + n) + 1_000_000, first + n * 100, 100, 1100)));
            let removed: Vec<u64> = merged.iter().map(|meta| meta.number).chain([meta.number]).collect();
            shape.install(outputs.collect(), &removed);
        }
        let steps = (shape.steps() - before) / 10;
        assert!(steps < 200, "{steps} tables were looked at in a compaction, of {tables}");
    }
}
