//! The simulator: the engine's picker and its cutting of tables, driven over virtual tables whose contents are expected
//! shares of a key space. A database of ten terabytes is 160,000 of them.
//!
//! [`content`] is the model of what tables hold and of merging, [`population`] of which keys are drawn how often,
//! [`source`] of what memtables hold; [`table`] cuts, and [`tree`] carries out what the picker says. Between two
//! flushes, everything that is due is compacted: what the simulator tells is what a strategy costs when the background
//! keeps up.

pub mod content;
pub mod population;
pub mod source;
pub mod table;
pub mod tree;

use std::time::Instant;

use siltstone::internals::compaction::LEVELS;
use siltstone::internals::strategy::Strategy;

use super::costs::Costs;
use super::formula::Prediction;
use super::outcome::{LevelOutcome, Moment, Origin, Outcome, Touched, peak_space_amplification};
use super::scale::Scale;
use super::schedule::Schedule;
use super::workload::Workload;
use content::{Dropped, Run};
use source::Source;
use tree::Tree;

/// False positives of a filter of 10 bits a key, about: the blocks that a get of a key searches for nothing.
const FALSE_POSITIVES: f64 = 0.01;

/// The tree is looked at for the first time after this many memtables, and then whenever their number has grown by
/// half.
const FIRST_LOOK: u64 = 16;

/// Writes `workload` into a virtual tree; `on_progress` is told how many of the writes are done.
///
/// # Errors
/// [`crate::Error::Settings`] for a scale that no run can have.
pub fn simulate(
    workload: Workload,
    strategy: &Strategy,
    scale: &Scale,
    costs: Costs,
    mut on_progress: impl FnMut(u64, u64),
) -> crate::Result<Outcome> {
    scale.check()?;
    let began = Instant::now();
    let writes = (scale.keys, scale.passes);
    let source = Source::new(workload, writes, scale.value_bytes);
    let schedule = Schedule::new(workload, writes, scale.value_bytes, scale.fill_bytes(), costs);
    let ops = schedule.ops();
    let mut tree = Tree::new(strategy, scale, source.population().clone(), costs);
    let mut account =
        Account { truth: Run::default(), now: Moment::default(), series: Vec::new(), next_look: FIRST_LOOK };
    for (memtable, chunk) in schedule.enumerate() {
        let filled = source.memtable(&chunk);
        let end = chunk.begin + chunk.ops;
        account.write(&filled, chunk.ops, end, &source, &costs);
        tree.flush(filled.run, chunk.begin, end);
        account.look(memtable as u64 + 1, end == ops, &mut tree, &source, &costs);
        on_progress(end, ops);
    }
    let seconds = began.elapsed().as_secs_f64();
    Ok(account.outcome((workload, strategy, scale), &tree, &source, seconds))
}

/// What the writes were, and the tree over time.
struct Account {
    /// What a database without tombstones would hold.
    truth: Run,
    now: Moment,
    series: Vec<Moment>,
    next_look: u64,
}

impl Account {
    fn write(&mut self, filled: &source::Filled, ops: u64, end: u64, source: &Source, costs: &Costs) {
        let deletes = (ops - filled.puts) as f64;
        let puts = filled.puts as f64;
        self.now.ops = end;
        self.now.user_bytes += (puts * (costs.key_bytes + filled.value_bytes) + deletes * costs.key_bytes) as u64;
        self.now.log_bytes += (puts * costs.put_log.of(filled.value_bytes) + deletes * costs.delete_log) as u64;
        let mut dropped = Dropped::default();
        self.truth = filled.run.over(&self.truth, source.population(), end, &mut dropped);
        self.truth.drop_tombstones((0, u64::MAX), source.population(), end, &mut dropped);
    }

    fn look(&mut self, memtables: u64, last: bool, tree: &mut Tree, source: &Source, costs: &Costs) {
        if memtables < self.next_look && !last {
            return;
        }
        self.next_look = self.next_look * 3 / 2;
        self.now.level_bytes = tree.level_bytes();
        self.now.written_bytes = tree.written_bytes();
        self.now.live_bytes = self.truth.user_bytes(source.population(), costs.key_bytes) as u64;
        self.now.disk_bytes = tree.take_peak_bytes();
        self.series.push(self.now);
    }

    fn outcome(
        self,
        (workload, strategy, scale): (Workload, &Strategy, &Scale),
        tree: &Tree,
        source: &Source,
        seconds: f64,
    ) -> Outcome {
        let mut levels = tree.levels();
        read_amplification(&mut levels, tree, &self.truth, source);
        let deepest = (1..LEVELS).rev().find(|&level| levels[level].tables > 0).unwrap_or(LEVELS - 1);
        Outcome {
            origin: Origin::Simulated,
            workload,
            strategy: strategy.to_string(),
            scale: scale.clone(),
            machine: String::new(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            predicted: Prediction::new(
                self.now.live_bytes,
                scale.memtable_bytes(),
                strategy.level_ratio(),
                strategy.level0_trigger(),
                deepest,
            ),
            levels,
            peak_space_amplification: peak_space_amplification(&self.series),
            series: self.series,
            seconds,
            idle_seconds: 0.0,
            picker_steps: Some(tree.picker_steps()),
        }
    }
}

/// What gets would touch, of keys drawn uniformly: of those that are there (`truth`), and of all in the key space for
/// those that are not. A key is in a level with the share of the keys that are, and is looked for there unless it was
/// found above.
fn read_amplification(levels: &mut [LevelOutcome; LEVELS], tree: &Tree, truth: &Run, source: &Source) {
    let live = truth.counts(source.population()).puts.max(1.0);
    let mut looked_for = 1.0;
    for (number, level) in levels.iter_mut().enumerate() {
        let tables = tree.coverage_of(number, truth) * looked_for;
        let found = (level.entries as f64 / live).min(1.0) * looked_for;
        let missed = (tables - found).max(0.0);
        level.present = Touched { tables, blocks: found + missed * FALSE_POSITIVES };
        let absent = tree.coverage(number);
        level.absent = Touched { tables: absent, blocks: absent * FALSE_POSITIVES };
        looked_for -= found;
    }
}

#[cfg(test)]
mod tests;
