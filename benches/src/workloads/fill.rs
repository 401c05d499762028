//! Filling an empty store.

use std::ops::Range;
use std::rc::Rc;

use super::{Phase, Worker, Workload};
use crate::data::{FillOrder, Permutation};
use crate::engines::Engine;
use crate::error::{Error, Result};
use crate::measure::{Counters, Kind, Tally};

/// How many puts a batch of fillbatch has.
pub const BATCH_PUTS: u64 = 100;

/// The order of the fills that have a random one.
pub(super) fn random_order(phase: &Phase<'_>) -> Permutation {
    phase.data.order(phase.number)
}

impl Phase<'_> {
    /// In which order its steps write the keys, if it is a fill.
    pub fn fill_order(&self) -> FillOrder {
        match self.workload {
            Workload::FillSeq | Workload::BulkLoad => FillOrder::Ascending,
            _ => FillOrder::Random(random_order(self)),
        }
    }
}

/// Puts the key of the stratum that `order` names, for each step.
pub(super) fn put_each<E: Engine>(worker: &mut Worker<'_, E>, order: impl Fn(u64) -> u64) -> Result<()> {
    while let Some(steps) = worker.phase.claims.claim() {
        for step in steps {
            worker.put(worker.data.loaded(order(step)))?;
        }
    }
    Ok(())
}

/// Puts all keys that were claimed together in one batch.
pub(super) fn put_batches<E: Engine>(worker: &mut Worker<'_, E>) -> Result<()> {
    let order = random_order(worker.phase);
    while let Some(steps) = worker.phase.claims.claim() {
        let data = worker.data;
        worker.put_batch(steps.map(|step| data.loaded(order.at(step))))?;
    }
    Ok(())
}

/// Hands all entries to the engine, one after the other. A latency is that of the step from an entry to the next.
pub(super) fn bulk_load<E: Engine>(worker: &mut Worker<'_, E>) -> Result<()> {
    let phase = worker.phase;
    let entries = Entries {
        phase,
        tally: &mut worker.tallies[Kind::Entries as usize],
        counters: &phase.counters[worker.number as usize],
        steps: 0..0,
        block: Rc::default(),
        place: 0,
    };
    let loaded = worker.engine.bulk_load(entries)?;
    let handed_over = worker.tallies[Kind::Entries as usize].ops;
    if loaded != handed_over {
        let what = format!("bulk load: {handed_over} entries were handed over and {loaded} loaded");
        return Err(Error::WrongAnswer(what));
    }
    // All or nothing: there is no more to know before the load is complete, and nobody reads.
    for stratum in 0..loaded {
        let claim = worker.ledger.begin_put(worker.data.loaded(stratum))?;
        worker.user_bytes += worker.data.entry_bytes(claim.id, claim.version);
        claim.complete();
    }
    Ok(())
}

/// The entries of a bulk load: those of all strata, in order, until the phase is over.
struct Entries<'a> {
    phase: &'a Phase<'a>,
    tally: &'a mut Tally,
    counters: &'a Counters,
    /// The strata left in `block`.
    steps: Range<u64>,
    /// Keys and values, one after the other: one allocation for many entries, so that making them costs little.
    block: Rc<Vec<u8>>,
    /// Where the next one begins.
    place: usize,
}

/// A key or a value within a block.
struct Piece {
    block: Rc<Vec<u8>>,
    place: Range<usize>,
}

impl AsRef<[u8]> for Piece {
    #[inline]
    fn as_ref(&self) -> &[u8] {
        &self.block[self.place.clone()]
    }
}

impl Entries<'_> {
    /// The version that the first put of a key writes.
    const VERSION: u64 = 1;

    fn make(&mut self, steps: Range<u64>) {
        let (mut block, mut key, mut value) = (Vec::new(), Vec::new(), Vec::new());
        for stratum in steps.clone() {
            let id = self.phase.data.loaded(stratum);
            self.phase.data.key(id, &mut key);
            self.phase.data.value(id, Self::VERSION, &mut value);
            block.extend_from_slice(&key);
            block.extend_from_slice(&value);
        }
        (self.steps, self.block, self.place) = (steps, Rc::new(block), 0);
    }

    fn piece(&mut self, len: u64) -> Piece {
        let place = self.place..self.place + len as usize;
        self.place = place.end;
        Piece { block: self.block.clone(), place }
    }
}

impl Iterator for Entries<'_> {
    type Item = (Piece, Piece);

    #[inline]
    fn next(&mut self) -> Option<(Piece, Piece)> {
        self.tally.recorder.step();
        if self.steps.is_empty() {
            let Some(steps) = self.phase.claims.claim() else {
                // What the engine does after the last entry is no step to another.
                self.tally.recorder.finish();
                return None;
            };
            self.make(steps);
        }
        let id = self.phase.data.loaded(self.steps.next()?);
        let key_bytes = self.phase.data.key_bytes();
        let entry_bytes = self.phase.data.entry_bytes(id, Self::VERSION);
        self.tally.ops += 1;
        self.counters.set(Kind::Entries, self.tally.ops);
        Some((self.piece(key_bytes), self.piece(entry_bytes - key_bytes)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{Dataset, Ledger};
    use crate::measure::Timing;
    use crate::settings::Settings;

    #[test]
    fn a_bulk_load_is_made_of_all_entries_in_order() {
        let settings = Settings { keys: 1000, value_bytes: 30, ..Settings::default() };
        let data = Dataset::new(settings.keys, 16, 30, settings.seed).unwrap();
        let ledger = Ledger::new(&data);
        let phase = Phase::new(Workload::BulkLoad, 1, &ledger, &settings, "test");
        let mut tally = Tally::new(1, Timing::Sample);
        let counters = &phase.counters[0];
        let mut entries =
            Entries { phase: &phase, tally: &mut tally, counters, steps: 0..0, block: Rc::default(), place: 0 };
        let mut kept = Vec::new();
        for stratum in 0..1000 {
            let (key, value) = entries.next().unwrap();
            data.check_key(data.loaded(stratum), key.as_ref()).unwrap();
            kept.push(value);
        }
        assert!(entries.next().is_none() && entries.next().is_none());
        for (stratum, value) in kept.iter().enumerate() {
            data.check(data.loaded(stratum as u64), 1, value.as_ref()).unwrap();
        }
        assert_eq!((tally.ops, phase.counters[0].get(Kind::Entries)), (1000, 1000));
    }
}
