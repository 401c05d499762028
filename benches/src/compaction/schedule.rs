//! [`Schedule`]: when a workload's memtables are full.

use super::costs::Costs;
use super::workload::{Pattern, Phase, Workload};

/// The writes that fill one memtable; they are of one phase.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Chunk {
    /// What is written.
    pub pattern: Pattern,
    /// The number of the first write in its phase.
    pub phase_begin: u64,
    /// The number of the first write in the workload.
    pub begin: u64,
    /// How many writes.
    pub ops: u64,
}

/// A workload, memtable by memtable. The last one of a phase may be smaller.
#[derive(Clone, Debug)]
pub struct Schedule {
    workload: Workload,
    value_bytes: usize,
    memtable_bytes: u64,
    costs: Costs,
    phases: Vec<Phase>,
    ops: u64,
    phase: usize,
    phase_begin: u64,
    begin: u64,
}

impl Schedule {
    /// `keys` times `passes` writes of `workload`, into memtables that are sealed at `memtable_bytes`.
    pub fn new(
        workload: Workload,
        (keys, passes): (u64, u64),
        value_bytes: usize,
        memtable_bytes: u64,
        costs: Costs,
    ) -> Schedule {
        let phases = workload.phases(keys, passes);
        let ops = phases.iter().map(|phase| phase.ops).sum();
        Schedule { workload, value_bytes, memtable_bytes, costs, phases, ops, phase: 0, phase_begin: 0, begin: 0 }
    }

    /// How many writes there are.
    pub fn ops(&self) -> u64 {
        self.ops
    }

    /// The share of deletes among the writes from `phase_begin` on.
    fn deletes(pattern: Pattern, phase_begin: u64) -> f64 {
        match pattern {
            Pattern::Draws { deletes, .. } => deletes,
            Pattern::Window { live } if phase_begin >= live => 0.5,
            _ => 0.0,
        }
    }
}

impl Iterator for Schedule {
    type Item = Chunk;

    fn next(&mut self) -> Option<Chunk> {
        let Phase { pattern, ops } = *self.phases.get(self.phase)?;
        let value_bytes = self.workload.value_bytes(self.value_bytes, self.begin, self.ops) as f64;
        let deletes = Schedule::deletes(pattern, self.phase_begin);
        let memory = deletes * self.costs.delete_memory + (1.0 - deletes) * self.costs.put_memory.of(value_bytes);
        let full = (self.memtable_bytes as f64 / memory.max(1.0)) as u64;
        let left = ops - self.phase_begin;
        let chunk = Chunk { pattern, phase_begin: self.phase_begin, begin: self.begin, ops: full.max(1).min(left) };
        self.begin += chunk.ops;
        self.phase_begin += chunk.ops;
        if self.phase_begin == ops {
            (self.phase, self.phase_begin) = (self.phase + 1, 0);
        }
        Some(chunk)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::ValueEnum;

    #[test]
    fn memtables_follow_each_other_and_cover_every_write() {
        for &workload in Workload::value_variants() {
            let schedule = Schedule::new(workload, (10_000, 3), 100, 1160 * 10, Costs::plain(16));
            let ops = schedule.ops();
            let mut begin = 0;
            for chunk in schedule {
                assert_eq!(chunk.begin, begin, "{workload:?}");
                assert!(chunk.ops > 0 && chunk.ops <= 1000, "{chunk:?}");
                begin += chunk.ops;
            }
            assert_eq!((begin, ops), (30_000, 30_000), "{workload:?}");
        }
    }

    #[test]
    fn deletes_and_short_values_fill_a_memtable_later() {
        let ops = |workload: Workload, at: usize| {
            Schedule::new(workload, (10_000, 3), 100, 11_600, Costs::plain(16)).nth(at).unwrap().ops
        };
        assert_eq!(ops(Workload::Uniform, 0), 100);
        assert_eq!(ops(Workload::DeleteHeavy, 110), 175);
        assert!(ops(Workload::GrowingValues, 0) > 250);
    }
}
