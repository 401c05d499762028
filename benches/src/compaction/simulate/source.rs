//! [`Source`]: what a workload's memtables hold, by the model of [`content`](super::content).

use super::super::schedule::Chunk;
use super::super::workload::{Pattern, Workload, window_puts};
use super::content::{Dropped, Run, Segment, Shares};
use super::population::Population;
use crate::compaction::workload::Popularity;

/// A workload as the model sees it.
#[derive(Clone, Debug)]
pub struct Source {
    workload: Workload,
    keys: u64,
    ops: u64,
    value_bytes: usize,
    population: Population,
}

/// What one memtable takes and holds.
#[derive(Clone, Debug)]
pub struct Filled {
    /// The newest entry of each key.
    pub run: Run,
    /// How many of the writes are puts.
    pub puts: u64,
    /// The length of their values, in bytes.
    pub value_bytes: f64,
}

impl Source {
    /// `keys` times `passes` writes of `workload`.
    pub fn new(workload: Workload, (keys, passes): (u64, u64), value_bytes: usize) -> Source {
        let phases = workload.phases(keys, passes);
        let drawn = phases.iter().find_map(|phase| match phase.pattern {
            Pattern::Draws { popularity, .. } => Some(popularity),
            _ => None,
        });
        let space = workload.key_space(keys, passes);
        Source {
            workload,
            keys: space,
            ops: phases.iter().map(|phase| phase.ops).sum(),
            value_bytes,
            population: Population::new(space, drawn.unwrap_or(Popularity::Uniform)),
        }
    }

    /// The keys that there are.
    pub fn population(&self) -> &Population {
        &self.population
    }

    /// The memtable that the writes of `chunk` fill.
    pub fn memtable(&self, chunk: &Chunk) -> Filled {
        let value_bytes = self.workload.value_bytes(self.value_bytes, chunk.begin + chunk.ops / 2, self.ops) as f64;
        let (run, puts) = match chunk.pattern {
            Pattern::Load => (self.load(chunk, value_bytes), chunk.ops),
            Pattern::Draws { deletes, .. } => {
                let puts = (chunk.ops as f64 * (1.0 - deletes)).round() as u64;
                (self.draws(chunk, deletes, value_bytes), puts)
            }
            Pattern::Ascending => (self.ascending(chunk, value_bytes), chunk.ops),
            Pattern::Window { live } => self.window(chunk, live, value_bytes),
        };
        Filled { run, puts, value_bytes }
    }

    fn whole(&self, chunk: &Chunk, value_bytes: f64) -> Segment {
        self.range((0, self.keys), chunk, value_bytes)
    }

    fn range(&self, (first, end): (u64, u64), chunk: &Chunk, value_bytes: f64) -> Segment {
        let begin = chunk.begin as f64;
        Segment { first, end, value_bytes, birth: begin + chunk.ops as f64 / 2.0, oldest: begin }
    }

    fn load(&self, chunk: &Chunk, value_bytes: f64) -> Run {
        let load = (chunk.ops as f64 / self.keys as f64) as f32;
        let shares = vec![Shares { load, ..Shares::default() }; self.population.classes().len()];
        Run::of_segment(self.whole(chunk, value_bytes), shares)
    }

    fn draws(&self, chunk: &Chunk, deletes: f64, value_bytes: f64) -> Run {
        let shares = self.population.classes().iter().map(|class| {
            let there = self.population.share_drawn(class, chunk.ops as f64);
            let (put, tombstone) = ((there * (1.0 - deletes)) as f32, (there * deletes) as f32);
            Shares { load: 0.0, put, tombstone }
        });
        Run::of_segment(self.whole(chunk, value_bytes), shares.collect())
    }

    /// Keys that were all put, or all deleted.
    fn all(&self, keys: (u64, u64), share: Shares, chunk: &Chunk, value_bytes: f64) -> Run {
        if keys.0 >= keys.1 {
            return Run::default();
        }
        Run::of_segment(self.range(keys, chunk, value_bytes), vec![share; self.population.classes().len()])
    }

    fn ascending(&self, chunk: &Chunk, value_bytes: f64) -> Run {
        let put = Shares { put: 1.0, ..Shares::default() };
        let first = chunk.phase_begin % self.keys;
        let end = first.saturating_add(chunk.ops);
        // Past the last key it begins anew.
        let again = end.saturating_sub(self.keys).min(first);
        let mut run = self.all((0, again), put, chunk, value_bytes);
        run.append(&self.all((first, end.min(self.keys)), put, chunk, value_bytes));
        run
    }

    fn window(&self, chunk: &Chunk, live: u64, value_bytes: f64) -> (Run, u64) {
        let (begin, end) = (chunk.phase_begin, chunk.phase_begin + chunk.ops);
        let (first_put, end_put) = (window_puts(begin, live), window_puts(end, live));
        let deleted = (begin - first_put, end - end_put);
        let put = Shares { put: 1.0, ..Shares::default() };
        let tombstone = Shares { tombstone: 1.0, ..Shares::default() };
        let puts = self.all((first_put, end_put), put, chunk, value_bytes);
        // A key that is deleted was put before, be it in the same memtable.
        let deletes = self.all(deleted, tombstone, chunk, value_bytes);
        let run = deletes.over(&puts, &self.population, chunk.begin, &mut Dropped::default());
        (run, end_put - first_put)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compaction::costs::Costs;
    use crate::compaction::schedule::Schedule;
    use clap::ValueEnum;

    fn chunks(workload: Workload, memtable_bytes: u64) -> Schedule {
        Schedule::new(workload, (10_000, 3), 100, memtable_bytes, Costs::plain(16))
    }

    /// What the memtables hold together, the newest on top, is what a database without tombstones would.
    fn in_the_end(workload: Workload, memtable_bytes: u64) -> (Source, Run) {
        let source = Source::new(workload, (10_000, 3), 100);
        let mut all = Run::default();
        for chunk in chunks(workload, memtable_bytes) {
            let mut dropped = Dropped::default();
            all = source.memtable(&chunk).run.over(&all, source.population(), chunk.begin, &mut dropped);
            all.drop_tombstones((0, u64::MAX), source.population(), chunk.begin, &mut dropped);
        }
        (source, all)
    }

    #[test]
    fn memtables_together_hold_every_live_key_once() {
        for &workload in Workload::value_variants() {
            for memtable_bytes in [5_000, 100_000, 10_000_000] {
                let (source, all) = in_the_end(workload, memtable_bytes);
                let counts = all.counts(source.population());
                // Of the keys that were drawn, (1 - e^-2), half are deleted; the others are as loaded.
                let expected =
                    if workload == Workload::DeleteHeavy { 10_000.0 * (1.0 - 0.8647 / 2.0) } else { 10_000.0 };
                let off = (counts.puts / expected - 1.0).abs();
                assert!(
                    off < 1e-3,
                    "{workload:?}, memtables of {memtable_bytes}: {} keys, not {expected}",
                    counts.puts
                );
            }
        }
    }

    #[test]
    fn the_window_moves_over_the_key_space() {
        let (_, all) = in_the_end(Workload::TimeOrdered, 100_000);
        assert_eq!((all.segments()[0].first, all.segments().last().unwrap().end), (10_000, 20_000));
    }

    #[test]
    fn user_bytes_follow_the_length_of_the_values() {
        let (source, all) = in_the_end(Workload::GrowingValues, 100_000);
        let mean = all.user_bytes(source.population(), 16.0) / 10_000.0 - 16.0;
        assert!((200.0..350.0).contains(&mean), "{mean}: the last write of a key is a late one");
        let (source, all) = in_the_end(Workload::Uniform, 100_000);
        let bytes = all.user_bytes(source.population(), 16.0);
        assert!((bytes / 1_160_000.0 - 1.0).abs() < 1e-3, "{bytes}");
    }
}
