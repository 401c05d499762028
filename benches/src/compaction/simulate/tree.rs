//! [`Tree`]: the engine's picker at work on virtual tables.

use std::collections::HashMap;

use rand::SeedableRng;
use rand::rngs::StdRng;
use siltstone::internals::compaction::{Job, LEVELS, VirtualTable, VirtualTree};
use siltstone::internals::strategy::Strategy;

use super::super::costs::Costs;
use super::super::outcome::LevelOutcome;
use super::super::scale::Scale;
use super::content::{Dropped, Run};
use super::population::Population;
use super::table::{Encoding, Table, cut, split};

/// A keyspace of virtual tables. Compactions take no time: all that is due is done between two flushes.
#[derive(Debug)]
pub struct Tree {
    picker: VirtualTree,
    population: Population,
    costs: Costs,
    background_threads: u64,
    tables: HashMap<u64, Table>,
    next_number: u64,
    counters: [Counters; LEVELS],
    rng: StdRng,
    /// The most file bytes there were at once since this was last asked, inputs and outputs of a job together.
    peak_bytes: u64,
}

/// What went into a level.
#[derive(Clone, Copy, Debug, Default)]
struct Counters {
    written_bytes: u64,
    read_bytes: u64,
    moved_bytes: u64,
    dropped: Dropped,
}

impl Tree {
    /// An empty tree.
    pub fn new(strategy: &Strategy, scale: &Scale, population: Population, costs: Costs) -> Tree {
        Tree {
            picker: VirtualTree::new(&scale.keyspace_options(strategy), scale.memtable_bytes()),
            population,
            costs,
            background_threads: scale.background_threads,
            tables: HashMap::new(),
            next_number: 1,
            counters: Default::default(),
            rng: StdRng::seed_from_u64(scale.seed),
            peak_bytes: 0,
        }
    }

    /// Makes a level-0 table of what a memtable held, the writes after `begin` and up to `end`, and compacts until
    /// nothing is due.
    pub fn flush(&mut self, run: Run, begin: u64, end: u64) {
        let encoding = Encoding { costs: &self.costs, bottom: false };
        let Some(mut table) = Table::new(run, &self.population, encoding, &mut self.rng) else { return };
        (table.meta.min_seqno, table.meta.max_seqno) = (begin + 1, end);
        self.counters[0].written_bytes += table.meta.file_bytes;
        let meta = self.add(table);
        self.picker.flush(meta);
        self.note_peak(0);
        while let Some(job) = self.picker.start_next() {
            self.carry_out(&job, end);
        }
    }

    fn add(&mut self, mut table: Table) -> VirtualTable {
        table.meta.number = self.next_number;
        self.next_number += 1;
        let meta = table.meta;
        self.tables.insert(meta.number, table);
        meta
    }

    fn note_peak(&mut self, more_bytes: u64) {
        let bytes: u64 = self.picker.level_bytes().iter().sum();
        self.peak_bytes = self.peak_bytes.max(bytes + more_bytes);
    }

    fn carry_out(&mut self, job: &Job, now: u64) {
        let numbers = job.inputs().iter().chain(job.output_inputs());
        let metas: Vec<VirtualTable> = numbers.filter_map(|number| self.tables.get(number)).map(|t| t.meta).collect();
        let counters = &mut self.counters[job.output_level()];
        let input_bytes: u64 = metas.iter().map(|meta| meta.file_bytes).sum();
        if job.is_trivial_move() {
            counters.moved_bytes += input_bytes;
            self.picker.finish(job, &metas);
            return;
        }
        counters.read_bytes += input_bytes;
        let merged = self.merge(job, now);
        let outputs = self.outputs(job, &merged, &metas);
        let output_bytes = outputs.iter().map(|table| table.meta.file_bytes).sum();
        self.counters[job.output_level()].written_bytes += output_bytes;
        self.note_peak(output_bytes);
        for meta in &metas {
            self.tables.remove(&meta.number);
        }
        let outputs: Vec<VirtualTable> = outputs.into_iter().map(|table| self.add(table)).collect();
        self.picker.finish(job, &outputs);
    }

    /// All that is left of the job's inputs.
    fn merge(&mut self, job: &Job, now: u64) -> Run {
        let population = &self.population;
        let dropped = &mut self.counters[job.output_level()].dropped;
        let of = |number: &u64| self.tables.get(number).map(|table| &table.run);
        let in_order = |numbers: &[u64]| {
            numbers.iter().filter_map(of).fold(Run::default(), |mut run, next| {
                run.append(next);
                run
            })
        };
        let upper = match job.level() {
            0 => job
                .inputs()
                .iter()
                .filter_map(of)
                .fold(Run::default(), |newer, older| newer.over(older, population, now, dropped)),
            _ => in_order(job.inputs()),
        };
        let mut merged = upper.over(&in_order(job.output_inputs()), population, now, dropped);
        // What lies below is many tables where the job spans all keys: only looked at where it matters.
        if job.output_level() > 0 && merged.holds_tombstones() {
            let (first, last) = job.bounds();
            for range in nothing_below(&self.picker, job, (first, last.saturating_add(1))) {
                merged.drop_tombstones(range, population, now, dropped);
            }
        }
        merged
    }

    /// Tables of `merged`, cut as the engine's threads would, their ages those of the inputs that they meet.
    fn outputs(&mut self, job: &Job, merged: &Run, inputs: &[VirtualTable]) -> Vec<Table> {
        let encoding = Encoding { costs: &self.costs, bottom: job.is_bottom() };
        let input_bytes: u64 = inputs.iter().map(|meta| meta.file_bytes).sum();
        let worth = input_bytes / self.picker.target_table_bytes().saturating_mul(2).max(1);
        let parts = self.background_threads.min(worth).max(1);
        let runs = split(merged, &self.population, encoding, parts)
            .into_iter()
            .flat_map(|part| cut(&part, &self.population, encoding, self.picker.cutter(job)))
            .collect::<Vec<_>>();
        let (population, rng) = (&self.population, &mut self.rng);
        let tables = runs.into_iter().filter_map(|run| Table::new(run, population, encoding, rng));
        let mut tables: Vec<Table> = tables.collect();
        // At the bottom sequence numbers are forgotten.
        for table in tables.iter_mut().filter(|_| !job.is_bottom()) {
            let met = || inputs.iter().filter(|meta| meta.first <= table.meta.last && meta.last >= table.meta.first);
            table.meta.min_seqno = met().map(|meta| meta.min_seqno).min().unwrap_or(0);
            table.meta.max_seqno = met().map(|meta| meta.max_seqno).max().unwrap_or(0);
        }
        tables
    }
}

/// Figures.
impl Tree {
    /// File bytes of each level.
    pub fn level_bytes(&self) -> [u64; LEVELS] {
        self.picker.level_bytes()
    }

    /// Bytes written into each level so far.
    pub fn written_bytes(&self) -> [u64; LEVELS] {
        self.counters.map(|counters| counters.written_bytes)
    }

    /// The most file bytes there were at once since this was last asked.
    pub fn take_peak_bytes(&mut self) -> u64 {
        std::mem::take(&mut self.peak_bytes)
    }

    /// Tables that the picker looked at.
    pub fn picker_steps(&self) -> u64 {
        self.picker.steps()
    }

    /// How many entries the tables of each level hold, and how many of them are tombstones.
    pub fn entries(&self) -> [(f64, f64); LEVELS] {
        std::array::from_fn(|level| {
            self.runs(level).fold((0.0, 0.0), |sum, table| {
                let counts = table.run.counts(&self.population);
                (sum.0 + counts.entries(), sum.1 + counts.tombstones)
            })
        })
    }

    /// The share of all keys that lie within a table of `level`; of level 0, the sum over its tables.
    pub fn coverage(&self, level: usize) -> f64 {
        let keys = self.population.keys() as f64;
        self.runs(level).map(|table| (table.meta.last - table.meta.first + 1) as f64 / keys).sum()
    }

    /// The share of the values of `run` whose keys lie within a table of `level`; of level 0, the sum over its tables.
    pub fn coverage_of(&self, level: usize, run: &Run) -> f64 {
        let all = run.counts(&self.population).puts.max(1.0);
        let within = |table: &Table| run.slice(table.meta.first, table.meta.last + 1).counts(&self.population).puts;
        self.runs(level).map(within).sum::<f64>() / all
    }

    fn runs(&self, level: usize) -> impl Iterator<Item = &Table> {
        self.picker.numbers(level).filter_map(|number| self.tables.get(&number))
    }

    /// What each level holds and cost.
    pub fn levels(&self) -> [LevelOutcome; LEVELS] {
        let (tables, bytes, entries) = (self.picker.level_tables(), self.picker.level_bytes(), self.entries());
        std::array::from_fn(|level| {
            let Counters { written_bytes, read_bytes, moved_bytes, dropped } = self.counters[level];
            LevelOutcome {
                tables: tables[level],
                file_bytes: bytes[level],
                entries: entries[level].0.round() as u64,
                tombstones: entries[level].1.round() as u64,
                written_bytes,
                read_bytes,
                moved_bytes,
                dropped_shadowed: dropped.shadowed.round() as u64,
                tombstones_gone: dropped.tombstones.round() as u64,
                tombstone_age_mean: dropped.age_sum / dropped.tombstones.max(1.0),
                tombstone_age_max: dropped.age_max as u64,
                ..LevelOutcome::default()
            }
        })
    }
}

/// The parts of `first..end` that no table deeper than the job's output covers.
fn nothing_below(picker: &VirtualTree, job: &Job, (first, end): (u64, u64)) -> Vec<(u64, u64)> {
    if job.is_bottom() {
        return vec![(first, end)];
    }
    let mut covered = picker.tables_below(job.output_level(), first, end.saturating_sub(1));
    covered.sort_unstable();
    let mut gaps = Vec::new();
    let mut from = first;
    for (covered_first, covered_last) in covered {
        if covered_first > from {
            gaps.push((from, covered_first));
        }
        from = from.max(covered_last.saturating_add(1));
    }
    if from < end {
        gaps.push((from, end));
    }
    gaps
}

#[cfg(test)]
mod tests;
