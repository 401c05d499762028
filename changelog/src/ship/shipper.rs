//! [`Shipper`]: the handle on shipping that goes on in the background.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use siltstone::{Clock, Db};

use super::options::ShipOptions;
use super::shared::{Shared, State, Status};
use super::{start, worker};
use crate::error::{Error, Result};
use crate::position::Position;
use crate::sink::Sink;

/// Ships the log of `db` to `sink` in a thread of its own: from where the sink stopped the last time, in order, at
/// least once, and nothing that a power cut could take back (the local log is synced before anything is sent). What the
/// sink acknowledged is noted in the database under the options' cursor, together with the sink's position; until then
/// the database keeps its log, up to [`Options::max_retained_wal_bytes`](siltstone::Options::max_retained_wal_bytes).
///
/// **Call it right after opening an empty database**, before the first flush: what was flushed before the first call
/// may be gone from the log, and then this is an error ([`Error::Partial`]) unless [`ShipOptions::allow_partial`] says
/// otherwise.
///
/// The shipper holds a handle of the database, which therefore stays open until the shipper is stopped or dropped, or
/// until [`Db::close`] is called, which ends shipping (the rest is shipped the next time).
///
/// # Errors
/// `Mismatch` if the sink holds what the database does not, or lacks what it acknowledged; `Partial`; `NotRetained` if
/// the log no longer holds what the sink needs; whatever the sink says; errors of the database (a read-only one cannot
/// ship).
///
/// ```
/// # let dir = tempfile::tempdir().unwrap();
/// use siltstone_changelog::{MemorySink, ShipOptions, ship};
/// let db = siltstone::Db::open(dir.path())?;
/// let shipper = ship(&db, MemorySink::new(), ShipOptions::new())?;
/// db.keyspace("words", Default::default())?.put("silt", "1")?;
/// shipper.flush()?;
/// assert_eq!(shipper.lag(), 0);
/// # Ok::<(), siltstone_changelog::Error>(())
/// ```
pub fn ship<S: Sink + 'static>(db: &Db, sink: S, options: ShipOptions) -> Result<Shipper> {
    let mut sink: Box<dyn Sink> = Box::new(sink);
    if options.flush_bytes == 0 {
        return Err(Error::InvalidArgument("flush_bytes must be at least 1".to_owned()));
    }
    let (next, position) = start::find(db, &mut *sink, &options)?;
    let changes = db.changes(next).map_err(worker::engine_error)?;
    // Before anything is shipped, so that a restart knows that this sink was shipped to.
    let entry = start::position_entry(&options.cursor);
    let noted: Vec<(&str, &[u8])> = position.iter().map(|position| (&*entry, position.as_bytes())).collect();
    db.set_change_cursor_with(&options.cursor, next, &noted).map_err(worker::engine_error)?;
    db.sync()?;
    let clock = options.clock.clone();
    let began = clock.now();
    let shared = Arc::new(Shared::new(next - 1, position, began));
    let worker = worker::Worker::new(db.clone(), sink, changes, options, shared.clone());
    let thread = std::thread::Builder::new().name("siltstone-ship".to_owned()).spawn(move || worker.run());
    let thread = thread.map_err(Error::io("starting the shipper's thread", std::path::Path::new("")))?;
    Ok(Shipper { db: db.clone(), shared, clock, began, thread: Some(thread) })
}

/// Shipping that goes on in the background; see [`ship`]. Dropping it ends shipping after the round that is under way;
/// [`stop`](Shipper::stop) ships the rest first.
#[derive(Debug)]
pub struct Shipper {
    db: Db,
    shared: Arc<Shared>,
    clock: Arc<dyn Clock>,
    began: Duration,
    thread: Option<JoinHandle<()>>,
}

impl Shipper {
    /// Waits until the sink has acknowledged everything that was written before the call; the position after it.
    ///
    /// # Errors
    /// `Stopped`, with the reason, once shipping has ended with an error. While a sink fails in a way that is tried
    /// again, this waits.
    pub fn flush(&self) -> Result<Position> {
        self.shared.flush(self.db.last_seqno())
    }

    /// How many sequence numbers are not acknowledged yet. Those of writes that are not logged count until the shipper
    /// has passed them.
    pub fn lag(&self) -> u64 {
        self.db.last_seqno().saturating_sub(self.shared.with(|progress| progress.covered_seqno))
    }

    /// For how long something has not been acknowledged: since the shipper had nothing left to do the last time; zero if
    /// that is now.
    pub fn lag_time(&self) -> Duration {
        if self.lag() == 0 {
            return Duration::ZERO;
        }
        self.clock.now().saturating_sub(self.shared.with(|progress| progress.caught_up_at))
    }

    /// How much of its log the database holds back for those who follow it, in bytes, beyond what it needs itself.
    pub fn retained_wal_bytes(&self) -> u64 {
        self.db.metrics().wal_retained_bytes
    }

    /// The sink's position after what it acknowledged last; `None` before it was flushed for the first time.
    pub fn position(&self) -> Option<Position> {
        self.status().position
    }

    /// What the shipper is doing, and how far it has got.
    pub fn status(&self) -> Status {
        let status = self.shared.with(|progress| progress.status.clone());
        Status { elapsed: self.clock.now().saturating_sub(self.began), ..status }
    }

    /// Ships everything that was written before the call, and ends; the position after it.
    ///
    /// # Errors
    /// As [`flush`](Shipper::flush). Shipping has ended all the same.
    pub fn stop(mut self) -> Result<Position> {
        let position = self.flush();
        self.end();
        position
    }

    fn end(&mut self) {
        self.shared.update(|progress| progress.stopping = true);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("a sink panicked while it was shipped to");
        }
    }
}

impl Drop for Shipper {
    fn drop(&mut self) {
        self.end();
    }
}

/// Tells waiting callers that the thread has ended, also when a sink panics.
pub(super) struct Ended(pub(super) Arc<Shared>);

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.update(|progress| {
            if std::thread::panicking() {
                let error = Error::Foreign { source: "the sink panicked".into(), retryable: false };
                progress.status.state = State::Failed(Arc::new(error));
            } else if !matches!(progress.status.state, State::Failed(_)) {
                progress.status.state = State::Stopped;
            }
        });
    }
}
