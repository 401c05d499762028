//! [`Standby`]: a database that follows a log, ready to take over.

use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use siltstone::{Clock, Db, Options, SeqNo, Snapshot, SystemClock};

use crate::applier::Applier;
use crate::error::{Error, Result};
use crate::figures;
use crate::position::Position;
use crate::restore::{Restore, finish};
use crate::retry::{Backoff, RetryPolicy, sleep};
use crate::sink::{Batches, Source};

/// How long a standby that has read everything waits before it looks again.
const POLL: Duration = Duration::from_millis(10);

/// How often a standby that is behind asks how far it is.
const LOOK: Duration = Duration::from_secs(1);

/// What a standby is doing.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum StandbyState {
    /// Reading what it does not have yet.
    CatchingUp,
    /// It had everything when it looked last.
    CaughtUp,
    /// Waiting before a failed call of the source is tried again.
    Retrying {
        /// How many tries have failed in a row.
        failures: u32,
        /// What the last one said.
        error: Arc<Error>,
    },
    /// Ended for good by an error.
    Failed(Arc<Error>),
}

/// How far a standby has got.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct StandbyStatus {
    /// What it is doing.
    pub state: StandbyState,
    /// The position after the last batch that was applied.
    pub position: Position,
    /// The number of its last change.
    pub seqno: SeqNo,
    /// Batches applied since it began.
    pub batches: u64,
    /// Bytes of keys and values in them.
    pub user_bytes: u64,
    /// When it had everything the last time, by its clock; none: not since it began.
    pub caught_up_at: Option<Duration>,
    /// The last number that it has seen in the log, or that the source told of when it looked last (about every second while
    /// there is more to read).
    pub newest_seqno: SeqNo,
    /// How long it has not had everything; zero while it has.
    pub lag_time: Duration,
}

/// Follows a log into a database of its own, which can be read meanwhile, and becomes the owner when it is
/// [promoted](Standby::promote). Whatever stops it, it goes on where it was when it is opened again.
///
/// ```
/// use siltstone_changelog::{MemorySink, ShipOptions, Standby, ship};
/// # let scratch = tempfile::tempdir().unwrap();
/// # let (local, standby) = (scratch.path().join("local"), scratch.path().join("standby"));
/// let db = siltstone::Db::open(&local)?;
/// let sink = MemorySink::new();
/// let shipper = ship(&db, sink.clone(), ShipOptions::new())?;
/// db.keyspace("words", Default::default())?.put("silt", "1")?;
/// shipper.stop()?; // the machine is lost
///
/// let standby = Standby::follow(sink.source(), &standby)?;
/// let db = standby.promote()?;
/// assert_eq!(db.keyspace("words", Default::default())?.get("silt")?.unwrap(), "1");
/// # Ok::<(), siltstone_changelog::Error>(())
/// ```
#[derive(Debug)]
pub struct Standby {
    db: Db,
    shared: Arc<Shared>,
    clock: Arc<dyn Clock>,
    began: Duration,
    thread: Option<JoinHandle<Result<()>>>,
}

#[derive(Debug)]
struct Shared {
    /// Held while a batch is applied: position and data are of the same moment for who holds it.
    progress: Mutex<Progress>,
    changed: Condvar,
}

#[derive(Debug)]
struct Progress {
    status: StandbyStatus,
    /// Go on to the end of the log as it is now, then end.
    finishing: bool,
    /// End at once.
    stopping: bool,
}

impl Standby {
    /// Follows `source` into a database in `directory`, which must be empty or missing, or hold a standby or a restore that
    /// was interrupted.
    ///
    /// # Errors
    /// As [`Restore::run`](crate::Restore::run) before the first batch. Later errors show in [`status`](Self::status).
    pub fn follow<S: Source + Send + 'static>(source: S, directory: impl AsRef<Path>) -> Result<Standby> {
        Standby::follow_with(source, directory, Options::new())
    }

    /// As [`follow`](Self::follow), with the options to open the database with.
    ///
    /// # Errors
    /// As [`follow`](Self::follow).
    pub fn follow_with<S: Source + Send + 'static>(
        source: S,
        directory: impl AsRef<Path>,
        options: Options,
    ) -> Result<Standby> {
        Standby::of(Restore::new(source).into_with(directory, options))
    }

    /// As [`follow`](Self::follow), of what a restore would do, keyspaces' options and all.
    ///
    /// # Errors
    /// As [`follow`](Self::follow).
    pub fn of<S: Source + Send + 'static>(mut restore: Restore<S>) -> Result<Standby> {
        let (db, position, _) = restore.open()?;
        let status = StandbyStatus {
            state: StandbyState::CatchingUp,
            position,
            seqno: db.last_seqno(),
            batches: 0,
            user_bytes: 0,
            caught_up_at: None,
            newest_seqno: db.last_seqno(),
            lag_time: Duration::ZERO,
        };
        let progress = Mutex::new(Progress { status, finishing: false, stopping: false });
        let shared = Arc::new(Shared { progress, changed: Condvar::new() });
        let (source, applier) = restore.into_parts();
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::default());
        let began = clock.now();
        let follower =
            Follower { db: db.clone(), source, applier, shared: shared.clone(), clock: clock.clone(), looked_at: None };
        let thread = std::thread::Builder::new().name("siltstone-standby".to_owned()).spawn(move || follower.run());
        let thread = thread.map_err(|source| Error::Foreign { source: Box::new(source), retryable: false })?;
        Ok(Standby { db, shared, clock, began, thread: Some(thread) })
    }

    /// How far it has got.
    pub fn status(&self) -> StandbyStatus {
        let status = self.shared.progress.lock().status.clone();
        let behind_since = match status.state {
            StandbyState::CaughtUp => return status,
            _ => status.caught_up_at.unwrap_or(self.began),
        };
        StandbyStatus { lag_time: self.clock.now().saturating_sub(behind_since), ..status }
    }

    /// How many sequence numbers of the log are not applied yet, as far as it knows: 0 when it has caught up, and at least 1
    /// while it has not.
    pub fn lag(&self) -> u64 {
        let status = self.status();
        let seqnos = status.newest_seqno.saturating_sub(status.seqno);
        if matches!(status.state, StandbyState::CaughtUp) { 0 } else { seqnos.max(1) }
    }

    /// The position after the last batch that was applied.
    pub fn position(&self) -> Position {
        self.shared.progress.lock().status.position.clone()
    }

    /// What it holds, and the position that it stands for. The handles of keyspaces that a snapshot needs are those of
    /// [`db`](Self::db).
    pub fn snapshot(&self) -> (Snapshot, Position) {
        let progress = self.shared.progress.lock();
        (self.db.snapshot(), progress.status.position.clone())
    }

    /// The database, for reading: what is written to it before it is promoted ends the following.
    pub fn db(&self) -> &Db {
        &self.db
    }

    /// Waits until it has had everything that was in the log when it looked, or it ended, or `timeout` has passed; whether
    /// it has.
    pub fn wait_until_caught_up(&self, timeout: Duration) -> bool {
        let deadline = std::time::Instant::now() + timeout;
        let mut progress = self.shared.progress.lock();
        loop {
            match progress.status.state {
                StandbyState::CaughtUp => return true,
                StandbyState::Failed(_) => return false,
                _ => {}
            }
            if self.shared.changed.wait_until(&mut progress, deadline).timed_out() {
                return false;
            }
        }
    }

    /// Reads the log to its end, and gives the database away: it is an owner's from now on. **Fence the old owner first**,
    /// or use [`promote_with`](Self::promote_with): what that ships later is not in here.
    ///
    /// # Errors
    /// What ended the following, or what the source says now.
    pub fn promote(self) -> Result<Db> {
        self.promote_with(|| Ok(())).map(|(db, ())| db)
    }

    /// As [`promote`](Self::promote), after `open_sink` has opened the log for writing, which fences the old owner: what it
    /// shipped until then is in here, and nothing it ships later is in the log.
    ///
    /// # Errors
    /// As [`promote`](Self::promote), and what `open_sink` says.
    pub fn promote_with<K>(mut self, open_sink: impl FnOnce() -> Result<K>) -> Result<(Db, K)> {
        let sink = open_sink()?;
        self.shared.progress.lock().finishing = true;
        self.shared.changed.notify_all();
        let ended = self.thread.take().map(JoinHandle::join);
        match ended {
            Some(Ok(ended)) => ended?,
            _ => return Err(Error::InvalidArgument("the standby's thread panicked".to_owned())),
        }
        finish(&self.db, &self.position())?;
        Ok((self.db.clone(), sink))
    }
}

impl Drop for Standby {
    fn drop(&mut self) {
        if let Some(thread) = self.thread.take() {
            self.shared.progress.lock().stopping = true;
            self.shared.changed.notify_all();
            let _ = thread.join();
        }
    }
}

/// The thread's part.
struct Follower<S> {
    db: Db,
    source: S,
    applier: Applier,
    shared: Arc<Shared>,
    clock: Arc<dyn Clock>,
    /// When the source was asked for its newest number the last time.
    looked_at: Option<Duration>,
}

impl<S: Source> Follower<S> {
    fn run(mut self) -> Result<()> {
        let mut backoff = Backoff::new(RetryPolicy::default());
        let ended = loop {
            match self.follow(&mut backoff) {
                Ok(()) => break Ok(()),
                Err(error) if error.is_retryable() => {
                    let Some(wait) = backoff.failed(self.clock.now()) else { break Err(error) };
                    tracing::warn!(%error, ?wait, "the source failed, trying again");
                    let state = StandbyState::Retrying { failures: backoff.failures(), error: Arc::new(error) };
                    self.note(|status| status.state = state);
                    let shared = self.shared.clone();
                    if !sleep(&*self.clock, wait, || shared.progress.lock().stopping) {
                        break Ok(());
                    }
                }
                Err(error) => break Err(error),
            }
        };
        ended.map_err(|error| {
            tracing::error!(%error, "the standby ended");
            let error = Arc::new(error);
            self.note(|status| status.state = StandbyState::Failed(error.clone()));
            Error::Stopped(error)
        })
    }

    fn note(&self, change: impl FnOnce(&mut StandbyStatus)) {
        change(&mut self.shared.progress.lock().status);
        self.shared.changed.notify_all();
    }

    /// Follows until it is told to end, or the source fails.
    fn follow(&mut self, backoff: &mut Backoff) -> Result<()> {
        let position = self.shared.progress.lock().status.position.clone();
        let mut batches = self.source.read(&position)?;
        loop {
            // Asked before looking: what was there then is what it has to read.
            let finishing = self.shared.progress.lock().finishing;
            self.read_on(&mut batches, backoff)?;
            let mut progress = self.shared.progress.lock();
            if progress.stopping || finishing {
                return Ok(());
            }
            let now = self.clock.now();
            (progress.status.state, progress.status.caught_up_at) = (StandbyState::CaughtUp, Some(now));
            progress.status.newest_seqno = progress.status.seqno;
            figures::standby_lag(0);
            self.shared.changed.notify_all();
            if !progress.finishing {
                self.shared.changed.wait_for(&mut progress, POLL);
            }
        }
    }

    /// Applies what there is.
    fn read_on(&mut self, batches: &mut Batches, backoff: &mut Backoff) -> Result<()> {
        for next in batches.by_ref() {
            let (position, batch) = next?;
            backoff.succeeded();
            self.look()?;
            let mut progress = self.shared.progress.lock();
            if progress.stopping {
                return Ok(());
            }
            self.applier.apply(&self.db, &batch, &position)?;
            let status = &mut progress.status;
            (status.position, status.seqno) = (position, batch.last_seqno());
            status.state = StandbyState::CatchingUp;
            status.newest_seqno = status.newest_seqno.max(status.seqno);
            status.batches += 1;
            status.user_bytes += batch.user_bytes();
        }
        Ok(())
    }

    /// Asks the source how far the log goes, now and then.
    fn look(&mut self) -> Result<()> {
        let now = self.clock.now();
        if self.looked_at.is_some_and(|at| now.saturating_sub(at) < LOOK) {
            return Ok(());
        }
        self.looked_at = Some(now);
        let (_, newest) = self.source.bounds()?;
        if let Some(newest) = self.source.seqno_at(&newest)? {
            let mut progress = self.shared.progress.lock();
            progress.status.newest_seqno = newest.max(progress.status.seqno);
            figures::standby_lag(newest.saturating_sub(progress.status.seqno));
        }
        Ok(())
    }
}
