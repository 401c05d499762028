//! A log in memory, for tests: of this crate and of programs that ship.

use std::sync::Arc;

use parking_lot::Mutex;
use siltstone::{ChangeBatch, SeqNo};

use crate::error::{Error, Result};
use crate::position::Position;
use crate::sink::{Batches, Sink, Source};

/// A sink that keeps batches in memory. Clones share one log, so that a test keeps one while a shipper owns another.
/// Batches that it already has, by their numbers, it skips.
///
/// ```
/// use siltstone_changelog::{MemorySink, ShipOptions, Source, ship};
/// # let dir = tempfile::tempdir().unwrap();
/// let db = siltstone::Db::open(dir.path())?;
/// let sink = MemorySink::new();
/// let shipper = ship(&db, sink.clone(), ShipOptions::new())?;
/// db.keyspace("words", Default::default())?.put("silt", "1")?;
/// sink.fail_flushes(1, true); // it is tried again
/// let position = shipper.flush()?;
/// assert_eq!(sink.source().bounds()?.1, position);
/// # Ok::<(), siltstone_changelog::Error>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct MemorySink {
    log: Arc<Mutex<Log>>,
}

#[derive(Debug, Default)]
struct Log {
    batches: Vec<ChangeBatch>,
    /// How many of them were flushed; positions are such numbers.
    flushed: usize,
    failing_appends: Failing,
    failing_flushes: Failing,
}

/// The calls that fail next.
#[derive(Debug, Default)]
struct Failing {
    calls: usize,
    retryable: bool,
}

impl Failing {
    fn check(&mut self, call: &str) -> Result<()> {
        if self.calls == 0 {
            return Ok(());
        }
        self.calls -= 1;
        Err(Error::Foreign { source: format!("injected failure of {call}").into(), retryable: self.retryable })
    }
}

impl MemorySink {
    /// An empty log.
    pub fn new() -> Self {
        MemorySink::default()
    }

    /// A source that reads what was flushed, now and later.
    pub fn source(&self) -> MemorySource {
        MemorySource { log: self.log.clone() }
    }

    /// Makes the next `calls` appends fail with a foreign error.
    pub fn fail_appends(&self, calls: usize, retryable: bool) {
        self.log.lock().failing_appends = Failing { calls, retryable };
    }

    /// Makes the next `calls` flushes fail with a foreign error.
    pub fn fail_flushes(&self, calls: usize, retryable: bool) {
        self.log.lock().failing_flushes = Failing { calls, retryable };
    }

    /// How many injected failures have yet to happen.
    pub fn failures_left(&self) -> usize {
        let log = self.log.lock();
        log.failing_appends.calls + log.failing_flushes.calls
    }

    /// All batches that were appended, flushed or not.
    pub fn batches(&self) -> Vec<ChangeBatch> {
        self.log.lock().batches.clone()
    }
}

impl Sink for MemorySink {
    fn append(&mut self, batch: &ChangeBatch) -> Result<()> {
        let mut log = self.log.lock();
        log.failing_appends.check("append")?;
        if log.last_seqno() < batch.first_seqno() {
            log.batches.push(batch.clone());
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<Position> {
        let mut log = self.log.lock();
        log.failing_flushes.check("flush")?;
        log.flushed = log.batches.len();
        Ok(Position::from_number(log.flushed as u64))
    }

    fn last_seqno(&mut self) -> Result<Option<SeqNo>> {
        Ok(Some(self.log.lock().last_seqno()))
    }
}

impl Log {
    fn last_seqno(&self) -> SeqNo {
        self.batches.last().map_or(0, ChangeBatch::last_seqno)
    }
}

/// Reads what a [`MemorySink`] holds.
#[derive(Clone, Debug)]
pub struct MemorySource {
    log: Arc<Mutex<Log>>,
}

impl Source for MemorySource {
    fn bounds(&self) -> Result<(Position, Position)> {
        Ok((Position::from_number(0), Position::from_number(self.log.lock().flushed as u64)))
    }

    fn seqno_at(&self, position: &Position) -> Result<Option<SeqNo>> {
        let before = position.to_number()?.checked_sub(1).map(|at| usize::try_from(at).unwrap_or(usize::MAX));
        let log = self.log.lock();
        Ok(before.map_or(Some(0), |at| log.batches.get(at).map(ChangeBatch::last_seqno)))
    }

    fn read(&self, from: &Position) -> Result<Batches> {
        let (oldest, newest) = self.bounds()?;
        let from_number = from.to_number()?;
        if from_number > newest.to_number()? {
            return Err(Error::PositionOutOfRange { position: from.clone(), oldest, newest });
        }
        let log = self.log.clone();
        let mut next = from_number as usize;
        Ok(Box::new(std::iter::from_fn(move || {
            let log = log.lock();
            let batch = log.batches[..log.flushed].get(next)?.clone();
            next += 1;
            Some(Ok((Position::from_number(next as u64), batch)))
        })))
    }
}
