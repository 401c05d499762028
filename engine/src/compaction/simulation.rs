//! The picker at work on virtual tables: real entries, no files.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::leveled::pick;
use super::manual::{ManualRequest, ManualStep, pick_range};
use super::order::PickOrder;
use super::plan::{Plan, PlanKind};
use super::score::{LeveledOptions, Scores};
use super::shape::{Running, Shape};
use crate::key::SeqNo;
use crate::table::HasMeta;
use crate::table::TableMeta;
use crate::version::version::Version;
use crate::version::{LAST_LEVEL, LEVELS};

/// Bytes of a value's entry and of a tombstone's, as the user counts and as the file does.
const PUT_BYTES: u64 = 116;
const DELETE_BYTES: u64 = 16;

#[derive(Clone, Copy, Debug, PartialEq)]
struct Entry {
    key: u32,
    seqno: SeqNo,
    tombstone: bool,
}

struct SimTable {
    meta: TableMeta,
    entries: Vec<Entry>,
}

impl HasMeta for SimTable {
    fn meta(&self) -> &TableMeta {
        &self.meta
    }
}

impl SimTable {
    /// A table of entries in key order, at least one, each key once.
    fn new(number: u64, entries: Vec<Entry>) -> Self {
        let key = |at: usize| Bytes::copy_from_slice(&entries[at].key.to_be_bytes());
        let tombstones = entries.iter().filter(|entry| entry.tombstone).count() as u64;
        let puts = entries.len() as u64 - tombstones;
        let user_bytes = puts * PUT_BYTES + tombstones * DELETE_BYTES;
        let meta = TableMeta {
            number,
            file_bytes: user_bytes,
            user_bytes,
            entries: entries.len() as u64,
            tombstones,
            smallest: key(0),
            largest: key(entries.len() - 1),
            min_seqno: entries.iter().map(|entry| entry.seqno).min().unwrap(),
            max_seqno: entries.iter().map(|entry| entry.seqno).max().unwrap(),
        };
        SimTable { meta, entries }
    }
}

/// A keyspace of virtual tables, its model, and up to two running compactions.
struct Tree {
    options: LeveledOptions,
    memtable_entries: usize,
    version: Version<SimTable>,
    shape: Shape,
    memtable: BTreeMap<u32, Entry>,
    model: BTreeMap<u32, Entry>,
    jobs: Vec<(Plan, Running)>,
    next_number: u64,
    seqno: SeqNo,
    oldest_snapshot: SeqNo,
    user_bytes: u64,
    flushed_bytes: u64,
    compacted_bytes: u64,
    moved_bytes: u64,
    kinds: BTreeMap<String, u64>,
}

impl Tree {
    fn new(memtable_entries: usize, dynamic_levels: bool) -> Self {
        let memtable_bytes = memtable_entries as u64 * PUT_BYTES;
        let options = LeveledOptions {
            level0_trigger: 4,
            level0_bytes: memtable_bytes * 4,
            level_ratio: 10,
            dynamic_levels,
            base_bytes: memtable_bytes * 4,
            target_table_bytes: memtable_bytes / 2,
            compress_bottom: false,
            pick_order: PickOrder::MinOverlap,
        };
        Tree {
            options,
            memtable_entries,
            version: Version::empty(),
            shape: Shape::empty(PickOrder::MinOverlap),
            memtable: BTreeMap::new(),
            model: BTreeMap::new(),
            jobs: Vec::new(),
            next_number: 1,
            seqno: 0,
            oldest_snapshot: SeqNo::MAX,
            user_bytes: 0,
            flushed_bytes: 0,
            compacted_bytes: 0,
            moved_bytes: 0,
            kinds: BTreeMap::new(),
        }
    }

    fn number(&mut self) -> u64 {
        self.next_number += 1;
        self.next_number - 1
    }

    fn write(&mut self, key: u32, tombstone: bool) {
        self.seqno += 1;
        let entry = Entry { key, seqno: self.seqno, tombstone };
        self.user_bytes += if tombstone { DELETE_BYTES } else { PUT_BYTES };
        self.memtable.insert(key, entry);
        self.model.insert(key, entry);
        if self.memtable.len() >= self.memtable_entries {
            self.flush();
        }
    }

    fn flush(&mut self) {
        if self.memtable.is_empty() {
            return;
        }
        let entries = std::mem::take(&mut self.memtable).into_values().collect();
        let table = SimTable::new(self.number(), entries);
        self.flushed_bytes += table.meta.file_bytes;
        self.install(vec![(0, Arc::new(table))], &[]);
    }

    fn install(&mut self, added: Vec<(usize, Arc<SimTable>)>, removed: &[u64]) {
        let metas = added.iter().map(|(level, table)| (*level, Arc::new(table.meta.clone()))).collect();
        self.shape.install(metas, removed);
        self.version = self.version.apply(added, removed);
        self.version.check().unwrap();
    }

    fn pick(&self) -> Option<Plan> {
        pick(&self.shape, &self.options, self.oldest_snapshot)
    }

    fn start(&mut self, plan: Plan) {
        let running = plan.running();
        let busy: Vec<u64> = self.jobs.iter().flat_map(|(_, job)| job.inputs.clone()).collect();
        assert!(running.inputs.iter().all(|number| !busy.contains(number)), "picked while busy: {plan:?}");
        assert!(!plan.inputs.is_empty());
        *self.kinds.entry(format!("{:?}{}", plan.kind, if plan.trivial_move { " move" } else { "" })).or_default() += 1;
        self.shape.start(running.clone());
        self.jobs.push((plan, running));
    }

    /// Carries out running job `at`.
    fn finish(&mut self, at: usize) {
        let (plan, running) = self.jobs.swap_remove(at);
        let take = |level: usize, numbers: &[u64]| {
            let tables = self.version.levels()[level].tables().iter();
            let taken: Vec<_> = tables.filter(|table| numbers.contains(&table.meta.number)).cloned().collect();
            assert_eq!(taken.len(), numbers.len(), "inputs must be where the plan says: {plan:?}");
            taken
        };
        let mut inputs = take(plan.level, &plan.inputs);
        inputs.extend(take(plan.output_level, &plan.output_inputs));
        if plan.trivial_move {
            assert!(plan.output_inputs.is_empty() && plan.level < plan.output_level);
            self.moved_bytes += plan.input_bytes;
            self.install(inputs.into_iter().map(|table| (plan.output_level, table)).collect(), &running.inputs);
            self.shape.finish(&running);
            return;
        }
        let entries = self.merge(&plan, &inputs);
        let outputs = self.split(&plan, entries);
        self.compacted_bytes += outputs.iter().map(|table| table.meta.file_bytes).sum::<u64>();
        let added = outputs.into_iter().map(|table| (plan.output_level, Arc::new(table))).collect();
        self.install(added, &running.inputs);
        self.shape.finish(&running);
    }

    /// Of each key the newest entry, and that only if it is no tombstone that hides nothing. (No snapshots:
    /// `oldest_snapshot` keeps tombstones only.)
    fn merge(&self, plan: &Plan, inputs: &[Arc<SimTable>]) -> Vec<Entry> {
        let mut newest: BTreeMap<u32, Entry> = BTreeMap::new();
        // Later inputs are older in their keys, so the first entry of a key must be its newest: that is the order of
        // levels under test.
        for entry in inputs.iter().flat_map(|table| &table.entries) {
            let first = *newest.entry(entry.key).or_insert(*entry);
            assert!(first.seqno >= entry.seqno, "an older entry lies above a newer one: {first:?} {entry:?}");
        }
        let droppable = |entry: &Entry| {
            let below = self.version.key_range_may_exist_below(plan.output_level, &entry.key.to_be_bytes());
            assert!(!(plan.bottom && below), "bottom, but {entry:?} may be below");
            entry.tombstone && entry.seqno < self.oldest_snapshot && plan.output_level > 0 && !below
        };
        newest.into_values().filter(|entry| !droppable(entry)).collect()
    }

    fn split(&mut self, plan: &Plan, entries: Vec<Entry>) -> Vec<SimTable> {
        let mut outputs = Vec::new();
        let mut pending: Vec<Entry> = Vec::new();
        let mut bytes = 0;
        let mut grandparents = plan.grandparents.iter().peekable();
        for entry in entries {
            let mut passed = false;
            while grandparents.next_if(|table| table.largest[..] < entry.key.to_be_bytes()[..]).is_some() {
                passed = true;
            }
            let full = bytes >= self.options.target_table_bytes;
            if full || (passed && bytes >= self.options.target_table_bytes / 2) {
                outputs.push(SimTable::new(self.number(), std::mem::take(&mut pending)));
                bytes = 0;
            }
            bytes += if entry.tombstone { DELETE_BYTES } else { PUT_BYTES };
            pending.push(entry);
        }
        if !pending.is_empty() {
            outputs.push(SimTable::new(self.number(), pending));
        }
        outputs
    }

    /// Starts what can be started and finishes a random job, `steps` times or until nothing is left.
    fn work(&mut self, rng: &mut StdRng, steps: usize) -> usize {
        for done in 0..steps {
            while self.jobs.len() < 2 {
                match self.pick() {
                    Some(plan) => self.start(plan),
                    None => break,
                }
            }
            if self.jobs.is_empty() {
                return done;
            }
            let at = rng.random_range(0..self.jobs.len());
            self.finish(at);
        }
        steps
    }

    /// Works until nothing is left to do.
    fn settle(&mut self, rng: &mut StdRng) {
        let limit = 20_000;
        assert!(self.work(rng, limit) < limit, "no end of compactions: {:?}", self.version);
        let scores = Scores::new(&self.shape, &self.options);
        assert_eq!(scores.urgent().next(), None, "{scores:?}");
        assert_eq!(scores.debt_bytes, 0, "{scores:?}");
    }

    /// Every key is found first where it is newest, as a get would.
    fn check_against_model(&self) {
        let mut found: BTreeMap<u32, Entry> = self.memtable.clone();
        for table in self.version.tables() {
            for entry in &table.entries {
                let first = *found.entry(entry.key).or_insert(*entry);
                assert!(first.seqno >= entry.seqno, "{first:?} hides {entry:?}");
            }
        }
        for (key, entry) in &self.model {
            match found.get(key) {
                Some(found) => assert_eq!(found, entry),
                None => assert!(entry.tombstone, "{entry:?} is lost"),
            }
        }
    }

    fn live_bytes(&self) -> u64 {
        self.model.values().filter(|entry| !entry.tombstone).count() as u64 * PUT_BYTES
    }

    fn space_amplification(&self) -> f64 {
        self.version.file_bytes() as f64 / self.live_bytes() as f64
    }

    fn write_amplification(&self) -> f64 {
        (self.flushed_bytes + self.compacted_bytes) as f64 / self.user_bytes as f64
    }

    fn level_bytes(&self) -> [u64; LEVELS] {
        std::array::from_fn(|level| self.version.levels()[level].totals().file_bytes)
    }
}

/// Random mixes of puts and deletes of every kind of locality, two jobs at a time.
#[test]
fn any_history_keeps_the_order_of_ages_and_comes_to_rest() {
    for seed in 0..40 {
        println!("seed {seed}");
        let mut rng = StdRng::seed_from_u64(seed);
        let mut tree = Tree::new(rng.random_range(5..60), seed % 3 != 0);
        tree.options.compress_bottom = seed % 2 == 0;
        tree.options.level_ratio = rng.random_range(2..11);
        tree.options.level0_trigger = rng.random_range(1..6);
        let keys: u32 = rng.random_range(50..5000);
        let mut next = 0;
        for round in 0..60 {
            let (deletes, kind) = (rng.random_range(0..100), rng.random_range(0..3));
            let around = rng.random_range(0..keys);
            for _ in 0..rng.random_range(0..400) {
                next += 1;
                let key = match kind {
                    0 => rng.random_range(0..keys),
                    1 => (around + rng.random_range(0..20)) % keys,
                    _ => next % keys,
                };
                tree.write(key, rng.random_range(0..100) < deletes);
            }
            if round % 7 == 0 {
                tree.oldest_snapshot = if rng.random_bool(0.5) { tree.seqno } else { SeqNo::MAX };
            }
            let steps = rng.random_range(0..12);
            tree.work(&mut rng, steps);
            tree.check_against_model();
        }
        tree.settle(&mut rng);
        tree.check_against_model();
        tree.oldest_snapshot = SeqNo::MAX;
        tree.flush();
        tree.settle(&mut rng);
        tree.check_against_model();
    }
}

/// The write amplification of random overwrites, log included, against the leveled formula (3 + (f + 1)(L - 1) with f =
/// 6 at ratio 10).
#[test]
fn write_amplification_is_near_the_formula() {
    for (seed, keys, levels) in [(1, 40_000u32, 2.0), (2, 4_500, 1.0), (3, 80_000, 3.0)] {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut tree = Tree::new(500, true);
        for _ in 0..keys * 4 {
            tree.write(rng.random_range(0..keys), false);
            if tree.memtable.is_empty() {
                tree.work(&mut rng, 100);
            }
        }
        let measured = 1.0 + tree.write_amplification();
        let formula = 3.0 + 7.0 * (levels - 1.0);
        println!("{keys} keys: WA {measured:.1}, formula {formula:.1}, SA {:.2}", tree.space_amplification());
        println!("  {:?} {:?}", tree.kinds, tree.level_bytes());
        assert!(measured < 2.0 * formula, "seed {seed}: {measured} is over twice {formula}");
        tree.flush();
        tree.settle(&mut rng);
        tree.check_against_model();
        println!("  at rest: SA {:.2}, levels {:?}", tree.space_amplification(), tree.level_bytes());
        assert!(tree.space_amplification() < 1.3);
    }
}

/// A sorted load is flushed and then only moved.
#[test]
fn a_sorted_load_is_not_rewritten() {
    let mut rng = StdRng::seed_from_u64(4);
    let mut tree = Tree::new(500, true);
    for key in 0..100_000 {
        tree.write(key, false);
        if tree.memtable.is_empty() {
            tree.work(&mut rng, 2);
        }
    }
    tree.settle(&mut rng);
    assert_eq!(tree.compacted_bytes, 0, "{:?}", tree.kinds);
    assert!(tree.moved_bytes >= tree.flushed_bytes * 9 / 10);
    assert!(tree.version.levels()[LAST_LEVEL].totals().file_bytes > 0);
}

#[test]
fn deleting_half_gives_the_space_back() {
    let mut rng = StdRng::seed_from_u64(5);
    let mut tree = Tree::new(500, true);
    let keys = 40_000;
    for _ in 0..keys * 3 {
        tree.write(rng.random_range(0..keys), false);
        if tree.memtable.is_empty() {
            tree.work(&mut rng, 4);
        }
    }
    for key in (0..keys).filter(|key| key % 2 == 0) {
        tree.write(key, true);
        if tree.memtable.is_empty() {
            tree.work(&mut rng, 4);
        }
    }
    tree.flush();
    tree.settle(&mut rng);
    tree.check_against_model();
    println!("SA {:.3} {:?} {:?}", tree.space_amplification(), tree.level_bytes(), tree.kinds);
    assert!(tree.space_amplification() < 1.3, "{}", tree.space_amplification());
    assert!(tree.kinds.keys().any(|kind| kind.starts_with("TombstoneDense")));
}

/// A manual compaction ends, under load too, and leaves no tombstone and one entry a key in its range.
#[test]
fn manual_compaction_ends_with_all_at_the_bottom() {
    for seed in 0..12 {
        println!("seed {seed}");
        let mut rng = StdRng::seed_from_u64(seed);
        let mut tree = Tree::new(100, seed % 3 != 0);
        let under_load = seed % 2 == 1;
        let write = |tree: &mut Tree, rng: &mut StdRng| tree.write(rng.random_range(0..10_000), rng.random_bool(0.2));
        for n in 0..40_000 {
            write(&mut tree, &mut rng);
            if n % 500 == 0 {
                tree.work(&mut rng, 3);
            }
        }
        tree.flush();
        let bound = |key: u32| Some(Bytes::copy_from_slice(&key.to_be_bytes()));
        let whole = seed < 6;
        let request = ManualRequest {
            smallest: if whole { None } else { bound(2000) },
            largest: if whole { None } else { bound(6000) },
            through_seqno: tree.seqno,
            below_number: tree.next_number,
            rewrite_all: seed % 4 == 0,
        };
        let mut steps = 0;
        loop {
            steps += 1;
            assert!(steps < 3000, "no end");
            let step = pick_range(&tree.shape, &tree.options, &request);
            match step {
                ManualStep::Run(plan) => {
                    assert_eq!(plan.kind, PlanKind::Manual);
                    tree.start(plan);
                    tree.finish(tree.jobs.len() - 1);
                }
                ManualStep::Blocked => tree.finish(0),
                ManualStep::Done => break,
            }
            if under_load {
                (0..30).for_each(|_| write(&mut tree, &mut rng));
                if let Some(plan) = tree.pick().filter(|_| tree.jobs.is_empty()) {
                    tree.start(plan);
                }
            }
        }
        tree.check_against_model();
        if !under_load {
            (0..tree.jobs.len()).for_each(|_| tree.finish(0));
            let in_range = |key: u32| whole || (2000..=6000).contains(&key);
            let deepest = (1..LEVELS).rev().find(|&level| tree.level_bytes()[level] > 0).unwrap();
            for (level, tables) in tree.version.levels().iter().enumerate() {
                for entry in tables.tables().iter().flat_map(|table| &table.entries).filter(|entry| in_range(entry.key))
                {
                    assert!(level == deepest && !entry.tombstone, "{entry:?} in level {level}");
                }
            }
        }
    }
}
