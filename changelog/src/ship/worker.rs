//! The shipper's thread: rounds of reading, syncing the local log, appending, flushing, and noting what was
//! acknowledged.

use std::sync::Arc;
use std::time::Duration;

use siltstone::{ChangeBatch, Changes, Db, SeqNo};

use super::options::ShipOptions;
use super::shared::{Shared, State};
use super::shipper::Ended;
use super::start::position_entry;
use crate::background::give_way;
use crate::error::{Error, Result};
use crate::figures;
use crate::position::Position;
use crate::retry::{Backoff, sleep};
use crate::sink::Sink;

/// How long the thread waits for changes before it looks whether somebody asks for something.
const POLL: Duration = Duration::from_millis(20);

/// How much callers' threads go before this one, as `nice` counts it: as they do before flushes and compactions.
const NICENESS: i32 = 5;

/// What a change takes in memory beside its key and value, in bytes: two slices of five words, a name, and their
/// allocations.
const CHANGE_BYTES: u64 = 128;

/// See the module.
pub(super) struct Worker {
    db: Db,
    sink: Box<dyn Sink>,
    changes: Changes,
    options: ShipOptions,
    backoff: Backoff,
    shared: Arc<Shared>,
}

/// What one round sends. Bounds the shipper's memory, and what lies between two flushes of the sink.
#[derive(Default)]
struct Round {
    batches: Vec<ChangeBatch>,
    /// Of keys and values.
    user_bytes: u64,
    /// In memory.
    bytes: u64,
    /// The log was read to its end, and the database's last number before that.
    caught_up: Option<SeqNo>,
    /// How many calls of `flush` had asked when the round began, and what they need.
    asked: u64,
    target_seqno: SeqNo,
}

/// Why the thread ends.
enum End {
    Stopped,
    Failed(Error),
}

impl From<Error> for End {
    fn from(error: Error) -> Self {
        End::Failed(error)
    }
}

impl From<siltstone::Error> for End {
    fn from(error: siltstone::Error) -> Self {
        End::Failed(engine_error(error))
    }
}

/// A cursor that lost its place is told in this crate's own words.
pub(super) fn engine_error(error: siltstone::Error) -> Error {
    match error {
        siltstone::Error::NotRetained { requested, oldest } => Error::NotRetained { requested, oldest },
        error => Error::Engine(error),
    }
}

impl Worker {
    pub(super) fn new(
        db: Db,
        sink: Box<dyn Sink>,
        changes: Changes,
        options: ShipOptions,
        shared: Arc<Shared>,
    ) -> Self {
        let backoff = Backoff::new(options.retry);
        Worker { db, sink, changes, options, backoff, shared }
    }

    pub(super) fn run(mut self) {
        let _ended = Ended(self.shared.clone());
        give_way(NICENESS);
        let end = loop {
            if let Err(end) = self.round() {
                break end;
            }
        };
        if let End::Failed(error) = end {
            match &error {
                Error::Engine(siltstone::Error::Closed) => tracing::info!("shipping ends with the database"),
                error => tracing::error!(%error, "shipping stopped"),
            }
            self.shared.update(|progress| progress.status.state = State::Failed(Arc::new(error)));
        }
    }

    fn round(&mut self) -> Result<(), End> {
        let round = self.gather()?;
        let last = round.batches.last().map(ChangeBatch::last_seqno);
        let unknown = self.shared.with(|progress| progress.status.position.is_none());
        let asked = round.asked > self.shared.with(|progress| progress.served);
        if last.is_some() || (asked && unknown) {
            let position = self.send(&round)?;
            self.acknowledge(&round, position)?;
        }
        self.shared.update(|progress| {
            let reached = last.unwrap_or(progress.status.acknowledged_seqno);
            if round.caught_up.is_some() || reached >= round.target_seqno {
                progress.served = progress.served.max(round.asked);
            }
            progress.covered_seqno = round.caught_up.unwrap_or(0).max(reached);
        });
        Ok(())
    }

    /// Reads batches until there are enough for a round, somebody asks for a flush, or the first has waited long
    /// enough.
    fn gather(&mut self) -> Result<Round, End> {
        let mut round = Round::default();
        let mut deadline = None;
        loop {
            (round.asked, round.target_seqno) = self.shared.with(|progress| (progress.asked, progress.target_seqno));
            let asked = round.asked > self.shared.with(|progress| progress.served);
            if self.fill(&mut round)? {
                return Ok(round);
            }
            if self.shared.is_stopping() {
                return Err(End::Stopped);
            }
            if asked {
                return Ok(round);
            }
            let now = self.options.clock.now();
            let wait = match (&mut deadline, round.batches.is_empty()) {
                (_, true) => POLL,
                (deadline, false) => {
                    let deadline = *deadline.get_or_insert(now + self.options.flush_interval);
                    if now >= deadline {
                        return Ok(round);
                    }
                    POLL.min(deadline - now)
                }
            };
            self.note_unlogged(&round);
            self.changes.wait(wait);
        }
    }

    /// Reads to the end of the log or until the round is full; whether it is.
    fn fill(&mut self, round: &mut Round) -> Result<bool, End> {
        while round.bytes < self.options.flush_bytes {
            let last_seqno = self.db.last_seqno();
            let Some(batch) = self.changes.next().transpose()? else {
                round.caught_up = Some(last_seqno);
                return Ok(false);
            };
            round.caught_up = None;
            let user_bytes = batch.user_bytes();
            round.user_bytes += user_bytes;
            round.bytes += user_bytes + CHANGE_BYTES * batch.changes().len() as u64;
            round.batches.push(batch);
        }
        Ok(true)
    }

    /// With nothing left to read, what is not acknowledged was never logged.
    fn note_unlogged(&self, round: &Round) {
        if let (true, Some(last_seqno)) = (round.batches.is_empty(), round.caught_up) {
            let now = self.options.clock.now();
            self.shared.update(|progress| {
                progress.covered_seqno = progress.covered_seqno.max(last_seqno);
                progress.caught_up_at = now;
            });
        }
    }

    /// Sends a round, and has the sink acknowledge it.
    fn send(&mut self, round: &Round) -> Result<Position, End> {
        let before = self.options.clock.now();
        // Nothing is shipped that a power cut could take back: the numbers would be used again, for other contents.
        self.db.sync()?;
        for batch in &round.batches {
            self.retry(|sink| sink.append(batch))?;
        }
        let (batches, bytes) = (round.batches.len() as u64, round.user_bytes);
        figures::sent(&self.options.cursor, batches, bytes);
        self.shared.update(|progress| {
            progress.status.sent_batches += batches;
            progress.status.sent_bytes += bytes;
        });
        let position = self.retry(|sink| sink.flush())?;
        let took = self.options.clock.now().saturating_sub(before);
        self.shared.update(|progress| progress.status.last_round = took);
        Ok(position)
    }

    /// Notes in the database what the sink has, so that the log may go and a restart goes on from here.
    fn acknowledge(&mut self, round: &Round, position: Position) -> Result<(), End> {
        let acknowledged = self.shared.with(|progress| progress.status.acknowledged_seqno);
        let last = round.batches.last().map_or(acknowledged, ChangeBatch::last_seqno);
        let entry = position_entry(&self.options.cursor);
        self.db.set_change_cursor_with(&self.options.cursor, last + 1, &[(&entry, position.as_bytes())])?;
        let (batches, bytes) = (round.batches.len() as u64, round.user_bytes);
        figures::acknowledged(&self.options.cursor, batches, bytes, self.db.last_seqno().saturating_sub(last));
        self.shared.update(|progress| {
            let status = &mut progress.status;
            status.acknowledged_seqno = last;
            status.position = Some(position);
            status.batches += batches;
            status.user_bytes += bytes;
            status.flushes += 1;
        });
        Ok(())
    }

    fn retry<R>(&mut self, mut call: impl FnMut(&mut dyn Sink) -> Result<R>) -> Result<R, End> {
        loop {
            let error = match call(&mut *self.sink) {
                Ok(answer) => {
                    if self.backoff.failures() > 0 {
                        self.backoff.succeeded();
                        self.shared.update(|progress| progress.status.state = State::Running);
                    }
                    return Ok(answer);
                }
                Err(error) if !error.is_retryable() => return Err(End::Failed(error)),
                Err(error) => error,
            };
            let Some(wait) = self.backoff.failed(self.options.clock.now()) else { return Err(End::Failed(error)) };
            tracing::warn!(%error, ?wait, "the sink failed, trying again");
            let state = State::Retrying { failures: self.backoff.failures(), error: Arc::new(error) };
            figures::retried(&self.options.cursor);
            self.shared.update(|progress| {
                progress.status.state = state;
                progress.status.retries += 1;
            });
            let shared = &self.shared;
            if !sleep(&*self.options.clock, wait, || shared.is_stopping()) {
                return Err(End::Stopped);
            }
        }
    }
}
