//! What a shipper and its thread share.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use siltstone::SeqNo;

use crate::error::{Error, Result};
use crate::position::Position;

/// What a shipper is doing.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum State {
    /// Following the log.
    Running,
    /// Waiting before a failed call of the sink is tried again.
    Retrying {
        /// How many tries have failed in a row.
        failures: u32,
        /// What the last one said.
        error: Arc<Error>,
    },
    /// Ended for good by an error.
    Failed(Arc<Error>),
    /// Ended because it was told to.
    Stopped,
}

/// How far a shipper has got.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Status {
    /// What it is doing.
    pub state: State,
    /// The last sequence number the sink acknowledged, or where shipping began.
    pub acknowledged_seqno: SeqNo,
    /// The sink's position after it, as far as it is known.
    pub position: Option<Position>,
    /// Batches acknowledged since this shipper began.
    pub batches: u64,
    /// Bytes of keys and values in them.
    pub user_bytes: u64,
    /// Batches that the sink took since this shipper began, acknowledged or not.
    pub sent_batches: u64,
    /// Bytes of keys and values in them.
    pub sent_bytes: u64,
    /// How often a call of the sink was tried again since this shipper began.
    pub retries: u64,
    /// How long this shipper has been at work.
    pub elapsed: Duration,
    /// Flushes of the sink.
    pub flushes: u64,
    /// The time spent in the last round's sync of the local log, appends and flush.
    pub last_round: Duration,
}

impl Status {
    /// Bytes of keys and values that the sink took a second, on average since this shipper began.
    pub fn sent_bytes_per_second(&self) -> f64 {
        self.per_second(self.sent_bytes)
    }

    /// Bytes of keys and values that the sink acknowledged a second, on average since this shipper began.
    pub fn acknowledged_bytes_per_second(&self) -> f64 {
        self.per_second(self.user_bytes)
    }

    fn per_second(&self, count: u64) -> f64 {
        if self.elapsed.is_zero() { 0.0 } else { count as f64 / self.elapsed.as_secs_f64() }
    }
}

/// The state behind the lock.
#[derive(Debug)]
pub(super) struct Progress {
    pub(super) status: Status,
    /// Everything up to this number is acknowledged or was never logged.
    pub(super) covered_seqno: SeqNo,
    /// When nothing was left to acknowledge the last time, by the shipper's clock.
    pub(super) caught_up_at: Duration,
    /// How many calls of `flush` have asked, and the highest number any of them needs.
    pub(super) asked: u64,
    pub(super) target_seqno: SeqNo,
    /// How many of them were served.
    pub(super) served: u64,
    pub(super) stopping: bool,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Shared {
    progress: Mutex<Progress>,
    changed: Condvar,
}

impl Shared {
    pub(super) fn new(acknowledged_seqno: SeqNo, position: Option<Position>, now: Duration) -> Self {
        let status = Status {
            state: State::Running,
            acknowledged_seqno,
            position,
            batches: 0,
            user_bytes: 0,
            sent_batches: 0,
            sent_bytes: 0,
            retries: 0,
            elapsed: Duration::ZERO,
            flushes: 0,
            last_round: Duration::ZERO,
        };
        let progress = Progress {
            status,
            covered_seqno: acknowledged_seqno,
            caught_up_at: now,
            asked: 0,
            target_seqno: 0,
            served: 0,
            stopping: false,
        };
        Shared { progress: Mutex::new(progress), changed: Condvar::new() }
    }

    pub(super) fn with<R>(&self, read: impl FnOnce(&Progress) -> R) -> R {
        read(&self.progress.lock())
    }

    pub(super) fn update<R>(&self, change: impl FnOnce(&mut Progress) -> R) -> R {
        let answer = change(&mut self.progress.lock());
        self.changed.notify_all();
        answer
    }

    /// Waits until everything up to `target_seqno` is acknowledged.
    pub(super) fn flush(&self, target_seqno: SeqNo) -> Result<Position> {
        let mut progress = self.progress.lock();
        progress.asked += 1;
        progress.target_seqno = progress.target_seqno.max(target_seqno);
        let ticket = progress.asked;
        loop {
            if let State::Failed(error) = &progress.status.state {
                return Err(Error::Stopped(error.clone()));
            }
            if progress.served >= ticket
                && let Some(position) = &progress.status.position
            {
                return Ok(position.clone());
            }
            if matches!(progress.status.state, State::Stopped) {
                return Err(Error::Stopped(Arc::new(Error::InvalidArgument("the shipper was stopped".to_owned()))));
            }
            self.changed.wait(&mut progress);
        }
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.with(|progress| progress.stopping)
    }
}
