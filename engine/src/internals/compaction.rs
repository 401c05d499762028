//! The compaction picker on virtual tables: whatever it does with a database's tables, without the database.

use std::sync::Arc;

use bytes::Bytes;

use crate::compaction::cut;
use crate::compaction::leveled;
use crate::compaction::plan::Plan;
use crate::compaction::score::{LeveledOptions, Scores};
use crate::compaction::shape::Shape;
use crate::key::SeqNo;
use crate::options::KeyspaceOptions;
use crate::table::TableMeta;
use crate::version::amplification;
use crate::write::pressure::{Debt, delay_ns_per_kib};

pub use crate::compaction::order::PickOrder;

/// How many levels a tree has, level 0 included.
pub const LEVELS: usize = crate::version::LEVELS;

/// A table without contents; keys are numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VirtualTable {
    /// Tells tables apart; never used twice in a tree.
    pub number: u64,
    /// Its first key.
    pub first: u64,
    /// Its last key, which is not before the first.
    pub last: u64,
    /// The length of its file, at least 1.
    pub file_bytes: u64,
    /// Entries, tombstones included.
    pub entries: u64,
    /// Recorded deletes.
    pub tombstones: u64,
    /// The oldest write in it.
    pub min_seqno: SeqNo,
    /// The newest.
    pub max_seqno: SeqNo,
}

fn key(number: u64) -> Bytes {
    Bytes::copy_from_slice(&number.to_be_bytes())
}

/// The number that a key stands for.
fn number(key: &[u8]) -> u64 {
    key.first_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes))
}

impl VirtualTable {
    fn meta(self) -> Arc<TableMeta> {
        Arc::new(TableMeta {
            number: self.number,
            file_bytes: self.file_bytes.max(1),
            user_bytes: self.file_bytes,
            entries: self.entries,
            tombstones: self.tombstones,
            smallest: key(self.first),
            largest: key(self.last.max(self.first)),
            min_seqno: self.min_seqno,
            max_seqno: self.max_seqno,
        })
    }
}

/// A keyspace's levels as the picker sees them, with virtual tables in them.
#[derive(Debug)]
pub struct VirtualTree {
    shape: Shape,
    options: LeveledOptions,
}

/// A compaction that was picked and waits to be carried out.
#[derive(Debug)]
pub struct Job {
    plan: Plan,
}

impl VirtualTree {
    /// An empty tree of a keyspace with `options`, whose memtables are sealed at `memtable_bytes`.
    pub fn new(options: &KeyspaceOptions, memtable_bytes: u64) -> Self {
        VirtualTree { shape: Shape::empty(options.pick_order), options: LeveledOptions::new(options, memtable_bytes) }
    }

    /// Puts a flushed memtable into level 0.
    pub fn flush(&mut self, table: VirtualTable) {
        self.shape.install(vec![(0, table.meta())], &[]);
    }

    /// The most urgent compaction that nothing blocks, which is then under way; `None` if there is none.
    pub fn start_next(&mut self) -> Option<Job> {
        let plan = leveled::pick(&self.shape, &self.options, SeqNo::MAX)?;
        self.shape.start(plan.running());
        Some(Job { plan })
    }

    /// Puts `outputs` in the place of the job's inputs; of a trivial move, the inputs themselves are the outputs.
    pub fn finish(&mut self, job: &Job, outputs: &[VirtualTable]) {
        let removed: Vec<u64> = job.inputs().iter().chain(job.output_inputs()).copied().collect();
        let added = outputs.iter().map(|table| (job.output_level(), table.meta())).collect();
        self.shape.install(added, &removed);
        self.shape.finish(&job.plan.running());
    }

    /// File bytes of each level.
    pub fn level_bytes(&self) -> [u64; LEVELS] {
        self.shape.level_bytes()
    }

    /// How many tables each level has.
    pub fn level_tables(&self) -> [u64; LEVELS] {
        std::array::from_fn(|level| self.shape.tables(level).len() as u64)
    }

    /// The numbers of the tables of `level`: of level 0 the newest first, otherwise by key.
    pub fn numbers(&self, level: usize) -> impl Iterator<Item = u64> {
        self.shape.tables(level).iter().map(|table| table.meta.number)
    }

    /// The first level under level 0 that should hold data.
    pub fn base_level(&self) -> usize {
        Scores::new(&self.shape, &self.options).base_level
    }

    /// The delay that the engine would put on writers now, in nanoseconds a KiB.
    pub fn delay_ns_per_kib(&self) -> u64 {
        delay_ns_per_kib(&Debt {
            level0_runs: self.shape.tables(0).len(),
            level0_trigger: self.options.level0_trigger,
            compaction_bytes: Scores::new(&self.shape, &self.options).debt_bytes,
            base_level_bytes: self.options.base_bytes,
        })
    }

    /// First and last keys of the tables in levels deeper than `level` that meet `first..=last`, in no order.
    pub fn tables_below(&self, level: usize, first: u64, last: u64) -> Vec<(u64, u64)> {
        let (smallest, largest) = (first.to_be_bytes(), last.to_be_bytes());
        let levels = (level + 1).max(1)..LEVELS;
        let tables = levels.flat_map(|below| &self.shape.tables(below)[self.shape.run(below, &smallest, &largest)]);
        tables.map(|table| (number(&table.meta.smallest), number(&table.meta.largest))).collect()
    }

    /// The size at which an output table is ended, in bytes.
    pub fn target_table_bytes(&self) -> u64 {
        self.options.target_table_bytes
    }

    /// How many tables were looked at so far: what picking and following cost.
    pub fn steps(&self) -> u64 {
        self.shape.steps()
    }

    /// What ends the job's output tables.
    pub fn cutter<'j>(&self, job: &'j Job) -> Cutter<'j> {
        Cutter { cutter: cut::Cutter::of(&job.plan, &self.options) }
    }
}

impl Job {
    /// The level that is compacted.
    pub fn level(&self) -> usize {
        self.plan.level
    }

    /// Where the outputs go.
    pub fn output_level(&self) -> usize {
        self.plan.output_level
    }

    /// The numbers of the input tables in [`level`](Self::level): of level 0 the newest first, otherwise by key.
    pub fn inputs(&self) -> &[u64] {
        &self.plan.inputs
    }

    /// The numbers of the input tables in [`output_level`](Self::output_level), by key.
    pub fn output_inputs(&self) -> &[u64] {
        &self.plan.output_inputs
    }

    /// First and last key of all inputs.
    pub fn bounds(&self) -> (u64, u64) {
        (number(&self.plan.smallest), number(&self.plan.largest))
    }

    /// Whether the inputs only change their level.
    pub fn is_trivial_move(&self) -> bool {
        self.plan.trivial_move
    }

    /// Whether nothing older than the inputs exists for any of their keys, so that all tombstones go.
    pub fn is_bottom(&self) -> bool {
        self.plan.bottom
    }
}

/// Where the engine ends output tables; keys are numbers.
#[derive(Clone, Debug)]
pub struct Cutter<'j> {
    cutter: cut::Cutter<'j>,
}

impl Cutter<'_> {
    /// Whether the open table, of `open_bytes`, ends before `at`, which is after all keys it was asked for so far.
    /// `None`: no table is open.
    pub fn cuts_before(&mut self, at: u64, open_bytes: Option<u64>) -> bool {
        self.cutter.cuts_before(&at.to_be_bytes(), open_bytes)
    }

    /// The length at which the open table ends wherever it is, in bytes.
    pub fn limit_bytes(&self) -> u64 {
        self.cutter.limit_bytes()
    }

    /// The first key after the next table of the level below: until there, only the length matters.
    pub fn next_boundary(&self) -> Option<u64> {
        self.cutter.next_grandparent().map(|table| number(&table.largest).saturating_add(1))
    }
}

/// How many levels the leveled formula sees under level 0: see [`predicted_write_amplification`].
pub fn predicted_levels(live_user_bytes: u64, memtable_bytes: u64, level_ratio: u64) -> u64 {
    amplification::predicted_levels(live_user_bytes, memtable_bytes, level_ratio) as u64
}

/// What the leveled formula says of write amplification, log included, as the engine's metrics show it.
pub fn predicted_write_amplification(live_user_bytes: u64, memtable_bytes: u64, level_ratio: u64) -> f64 {
    amplification::predicted_write_amplification(live_user_bytes, memtable_bytes, level_ratio)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(number: u64, keys: (u64, u64), file_bytes: u64) -> VirtualTable {
        let (first, last) = keys;
        let (min_seqno, max_seqno) = (number, number);
        VirtualTable { number, first, last, file_bytes, entries: 10, tombstones: 0, min_seqno, max_seqno }
    }

    #[test]
    fn a_virtual_tree_is_picked_like_a_real_one() {
        let mut tree = VirtualTree::new(&KeyspaceOptions::new(), 1 << 20);
        for number in 1..5 {
            assert!(tree.start_next().is_none());
            tree.flush(table(number, (0, 1000), 1 << 20));
        }
        let job = tree.start_next().unwrap();
        assert_eq!((job.level(), job.output_level(), job.inputs()), (0, LEVELS - 1, &[4, 3, 2, 1][..]));
        assert!(job.is_bottom() && !job.is_trivial_move() && job.bounds() == (0, 1000));
        assert!(tree.start_next().is_none(), "it is under way");
        tree.finish(&job, &[table(5, (0, 499), 1 << 20), table(6, (500, 1000), 1 << 20)]);
        assert_eq!(tree.level_tables(), [0, 0, 0, 0, 0, 0, 2]);
        assert_eq!(tree.tables_below(0, 0, 499), [(0, 499)]);
        assert_eq!(tree.tables_below(LEVELS - 1, 0, 499), []);
        assert!(tree.start_next().is_none() && tree.steps() > 0);
    }

    #[test]
    fn the_cutter_is_the_engines() {
        let mut tree = VirtualTree::new(&KeyspaceOptions::new(), 1 << 20);
        (1..5).for_each(|number| tree.flush(table(number, (0, 1000), 1 << 20)));
        let job = tree.start_next().unwrap();
        let mut cutter = tree.cutter(&job);
        assert_eq!((cutter.limit_bytes(), cutter.next_boundary()), (tree.target_table_bytes(), None));
        assert!(!cutter.cuts_before(500, Some(cutter.limit_bytes() - 1)));
        assert!(cutter.cuts_before(501, Some(cutter.limit_bytes())));
    }
}
