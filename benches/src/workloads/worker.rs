//! [`Worker`]: one thread of a workload, and the operations it does: each is timed, counted, and checked against what
//! the store should hold.

use super::Phase;
use super::route::Route;
use crate::data::{Claim, Dataset, Known, Ledger};
use crate::engines::{Direction, Engine};
use crate::error::{Error, Result};
use crate::measure::{Counters, Kind, Tally};

/// One thread of a workload.
#[derive(Debug)]
pub struct Worker<'a, E> {
    /// What it shares with the other threads.
    pub phase: &'a Phase<'a>,
    /// Tells the threads of a workload apart.
    pub number: u32,
    /// Bytes of keys and values that it put; of deletes, the keys.
    pub user_bytes: u64,
    pub(super) engine: &'a E,
    pub(super) data: &'a Dataset,
    pub(super) ledger: &'a Ledger,
    pub(super) tallies: [Tally; Kind::ALL.len()],
    counters: &'a Counters,
    key: Vec<u8>,
    value: Vec<u8>,
    /// The keys and values of a batch, kept for the next.
    batch: Vec<(Vec<u8>, Vec<u8>)>,
    window: Vec<Known>,
}

impl<'a, E: Engine> Worker<'a, E> {
    /// Thread `number`, from 0 on, of those that the phase has counters for.
    pub fn new(engine: &'a E, phase: &'a Phase<'a>, number: u32) -> Self {
        let seed = phase.settings.seed ^ u64::from(number);
        let timing = |kind| phase.workload.timing(kind, phase.settings);
        Worker {
            phase,
            number,
            user_bytes: 0,
            engine,
            data: phase.data,
            ledger: phase.ledger,
            tallies: Kind::ALL.map(|kind| Tally::new(seed, timing(kind))),
            counters: &phase.counters[number as usize],
            key: Vec::new(),
            value: Vec::new(),
            batch: Vec::new(),
            window: Vec::new(),
        }
    }

    /// What it counted of each kind, in the order of [`Kind::ALL`], after its last operation.
    pub fn into_tallies(mut self) -> [Tally; Kind::ALL.len()] {
        self.tallies.iter_mut().for_each(|tally| tally.recorder.finish());
        self.tallies
    }

    /// Counts operations that were done.
    #[inline]
    pub(super) fn count(&mut self, kind: Kind, ops: u64) {
        let tally = &mut self.tallies[kind as usize];
        tally.ops += ops;
        self.counters.set(kind, tally.ops);
    }

    /// Gets key `id`, and checks the answer.
    #[inline]
    pub(super) fn get(&mut self, id: u64) -> Result<()> {
        self.data.key(id, &mut self.key);
        let before = self.ledger.know(id);
        let check = |value: &[u8]| self.ledger.check(id, before, value);
        let answer = self.tallies[Kind::Gets as usize].recorder.time(|| self.engine.get(&self.key, check))?;
        match answer {
            Some(checked) => checked.map_err(in_get)?,
            None => self.ledger.check_missing(id, before).map_err(in_get)?,
        }
        self.count(Kind::Gets, 1);
        Ok(())
    }

    /// Gets a key of stratum `stratum` that was never written.
    #[inline]
    pub(super) fn get_missing(&mut self, stratum: u64) -> Result<()> {
        self.data.missing_key(stratum, &mut self.key);
        let answer = self.tallies[Kind::Gets as usize].recorder.time(|| self.engine.get(&self.key, <[u8]>::len))?;
        if answer.is_some() {
            return Err(Error::WrongAnswer(format!("get: {:02x?} was never written and is there", self.key)));
        }
        self.count(Kind::Gets, 1);
        Ok(())
    }

    /// Puts the next version of key `id`.
    #[inline]
    pub(super) fn put(&mut self, id: u64) -> Result<()> {
        let claim = self.ledger.begin_put(id)?;
        self.data.key(id, &mut self.key);
        self.data.value(id, claim.version, &mut self.value);
        self.tallies[Kind::Puts as usize].recorder.time(|| self.engine.put(&self.key, &self.value))?;
        self.user_bytes += (self.key.len() + self.value.len()) as u64;
        claim.complete();
        self.count(Kind::Puts, 1);
        Ok(())
    }

    /// Writes into tables what is in memory.
    pub(super) fn flush(&mut self) -> Result<()> {
        self.tallies[Kind::Flushes as usize].recorder.time(|| self.engine.flush())?;
        self.count(Kind::Flushes, 1);
        Ok(())
    }

    /// Puts a key that no fill writes, and that was not there.
    pub(super) fn insert(&mut self) -> Result<()> {
        let id = self.ledger.insert()?;
        self.put(id)?;
        self.ledger.inserted();
        Ok(())
    }

    /// Puts the next version of all `ids`, each there once, in one batch. A latency is that of the batch.
    pub(super) fn put_batch(&mut self, ids: impl Iterator<Item = u64>) -> Result<()> {
        let claims = ids.map(|id| self.ledger.begin_put(id)).collect::<Result<Vec<Claim<'_>>>>()?;
        self.batch.resize_with(claims.len(), Default::default);
        for (claim, (key, value)) in claims.iter().zip(&mut self.batch) {
            self.data.key(claim.id, key);
            self.data.value(claim.id, claim.version, value);
            self.user_bytes += (key.len() + value.len()) as u64;
        }
        self.tallies[Kind::Puts as usize].recorder.time(|| self.engine.put_batch(&self.batch))?;
        self.count(Kind::Puts, claims.len() as u64);
        claims.into_iter().for_each(Claim::complete);
        Ok(())
    }

    /// Deletes key `id`.
    #[inline]
    pub(super) fn delete(&mut self, id: u64) -> Result<()> {
        let claim = self.ledger.begin_delete(id)?;
        self.data.key(id, &mut self.key);
        self.tallies[Kind::Deletes as usize].recorder.time(|| self.engine.delete(&self.key))?;
        self.user_bytes += self.key.len() as u64;
        claim.complete();
        self.count(Kind::Deletes, 1);
        Ok(())
    }

    /// Reads the value of key `id`, checks it, and puts the next version.
    #[inline]
    pub(super) fn update(&mut self, id: u64) -> Result<()> {
        let claim = self.ledger.begin_put(id)?;
        self.data.key(id, &mut self.key);
        let mut checked = Err(Error::WrongAnswer(format!("key {id} was not read")));
        let mut written = 0;
        let change = |old: Option<&[u8]>, new: &mut Vec<u8>| {
            // Nobody else writes it now, so the version before is the only right one.
            checked = match old {
                Some(value) => self.ledger.check(id, claim.before, value),
                None => self.ledger.check_missing(id, claim.before),
            };
            self.data.value(id, claim.version, new);
            written = new.len();
        };
        self.tallies[Kind::Updates as usize].recorder.time(|| self.engine.update(&self.key, change))?;
        checked.map_err(|error| in_operation("update", error))?;
        self.user_bytes += (self.key.len() + written) as u64;
        claim.complete();
        self.count(Kind::Updates, 1);
        Ok(())
    }

    /// Seeks to key `id`, reads up to `limit` entries from there on, and checks them. A latency is that of all of it.
    pub(super) fn seek(&mut self, id: u64, direction: Direction, limit: usize) -> Result<()> {
        self.data.key(id, &mut self.key);
        let mut route = Route::new(self.ledger, direction, id);
        if self.phase.is_concurrent() {
            route.look_ahead(limit, &mut self.window);
        }
        let window = &self.window[..];
        let visit = |key: &[u8], value: &[u8]| route.check(key, value, window);
        let scan = || self.engine.scan(Some(&self.key), direction, limit, visit);
        let count = self.tallies[Kind::Seeks as usize].recorder.time(scan)?;
        route.check_end(count, limit, window)?;
        self.count(Kind::Seeks, 1);
        Ok(())
    }

    /// Reads all entries, and checks them; ends early when the phase is over. A latency is that of the step from an
    /// entry to the next. The store must not change meanwhile.
    pub(super) fn scan(&mut self, direction: Direction) -> Result<()> {
        /// How many entries pass between two looks at the clock.
        const LOOK_EVERY: u64 = 1024;
        let mut route = Route::of_all(self.ledger, direction);
        let tally = &mut self.tallies[Kind::Entries as usize];
        let (claims, counters) = (&self.phase.claims, self.counters);
        let visit = |key: &[u8], value: &[u8]| {
            tally.recorder.step();
            route.check(key, value, &[])?;
            tally.ops += 1;
            counters.set(Kind::Entries, tally.ops);
            if tally.ops.is_multiple_of(LOOK_EVERY) && claims.is_over() { Err(Error::Ended) } else { Ok(()) }
        };
        match self.engine.scan(None, direction, usize::MAX, visit) {
            Ok(count) => route.check_end(count, usize::MAX, &[]),
            Err(Error::Ended) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

#[cold]
fn in_get(error: Error) -> Error {
    in_operation("get", error)
}

#[cold]
fn in_operation(operation: &str, error: Error) -> Error {
    match error {
        Error::WrongAnswer(what) => Error::WrongAnswer(format!("{operation}: {what}")),
        other => other,
    }
}
