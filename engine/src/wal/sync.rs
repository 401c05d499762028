//! Making the log durable: one caller syncs for all who wait.
//!
//! Who comes while a sync is under way waits until it ends, and then either finds its record covered or does the next
//! one, for itself and for everybody who came meanwhile. They do not wait for a mutex: those get it one after the other,
//! and a caller that was just served could take it again before any of them, for its next record alone.

use std::io;
use std::path::Path;
use std::sync::Arc;

use super::Wal;
use super::format::HEADER_BYTES;
use super::segment::Segment;
use crate::error::{Error, Result};
use crate::key::SeqNo;
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::sync::thread::{self, Thread};
use crate::sync::{IS_MODEL, Mutex};

/// How often the one who syncs lets others run before, for each one that the last sync served. Measured with 16 threads
/// on two cores: 44, 47 and 51 thousand synced puts a second with 1, 4 and 16; it costs what the others use it for, or
/// about as many times half a microsecond.
const YIELDS: usize = if IS_MODEL { 1 } else { 16 };

/// The syncs of a log.
#[derive(Debug)]
pub(super) struct Syncs {
    state: Mutex<SyncState>,
    /// How many have ended. Stored under the lock of `state`.
    ended: AtomicU64,
}

#[derive(Debug)]
struct SyncState {
    reached: Reached,
    /// Somebody syncs.
    is_running: bool,
    /// Those who wait for that to end.
    waiting: Vec<Thread>,
    /// How many did when the last one ended.
    served: usize,
    /// A failed sync: the system may have dropped the dirty pages, so no later sync proves anything.
    failed: Option<(io::ErrorKind, String)>,
}

/// Segments below this one are durable, and this one is up to `offset`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Reached {
    segment: u64,
    offset: u64,
}

/// How far the log went at some moment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mark {
    seqno: SeqNo,
    /// Its bytes end at or before this place, and so does metadata logged by then, which has no number.
    place: Reached,
}

impl Mark {
    /// The last number logged.
    pub(crate) fn seqno(&self) -> SeqNo {
        self.seqno
    }

    /// The segment that was being appended to.
    pub(super) fn segment(&self) -> u64 {
        self.place.segment
    }
}

impl Syncs {
    /// Those of a log in which nothing from segment `first_unproven` on is known to be durable.
    pub(super) fn from(first_unproven: u64) -> Self {
        let reached = Reached { segment: first_unproven, offset: 0 };
        let state = SyncState { reached, is_running: false, waiting: Vec::new(), served: 0, failed: None };
        Syncs { state: Mutex::new(state), ended: AtomicU64::new(0) }
    }

    /// Waits until nobody syncs and `is_done` or it is this caller's turn. `None` if it is done.
    fn wait_for_turn(&self, dir: &Path, is_done: impl Fn() -> bool) -> Result<Option<Turn<'_>>> {
        let mut state = loop {
            // Acquire pairs with the release when a sync ended: then what it reached is seen too.
            let ended = self.ended.load(Ordering::Acquire);
            // Without the lock: all that waited look at the same time.
            if is_done() {
                return Ok(None);
            }
            let mut state = self.state.lock();
            if self.ended.load(Ordering::Relaxed) != ended {
                // It may be done by now.
                continue;
            }
            if !state.is_running {
                break state;
            }
            state.waiting.push(thread::current());
            drop(state);
            while self.ended.load(Ordering::Relaxed) == ended {
                thread::park();
            }
        };
        if let Some((kind, reason)) = &state.failed {
            return Err(Error::io("sync the log", dir)(io::Error::new(*kind, reason.clone())));
        }
        state.is_running = true;
        Ok(Some(Turn { syncs: self, reached: state.reached, company: state.served }))
    }
}

/// The role of the one who syncs, until it is dropped, however that comes.
struct Turn<'s> {
    syncs: &'s Syncs,
    reached: Reached,
    /// How many others the last sync served.
    company: usize,
}

impl Turn<'_> {
    fn fail(&self, error: &Error) {
        let kind = match error {
            Error::Io { source, .. } => source.kind(),
            _ => io::ErrorKind::Other,
        };
        self.syncs.state.lock().failed = Some((kind, format!("an earlier sync failed: {error}")));
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let waiting = {
            let mut state = self.syncs.state.lock();
            // It may have been moved meanwhile; see `Wal::note_kept`.
            state.reached = state.reached.max(self.reached);
            (state.is_running, state.served) = (false, state.waiting.len());
            // Release: see `wait_for_turn`.
            self.syncs.ended.fetch_add(1, Ordering::Release);
            std::mem::take(&mut state.waiting)
        };
        waiting.iter().for_each(Thread::unpark);
    }
}

impl Wal {
    /// Makes every record up to `seqno` durable; the last one appended is enough for any larger number. Callers that
    /// come while one syncs are served by the next sync together. Appending goes on meanwhile.
    ///
    /// # Errors
    /// `Io`; it sticks: after a failed sync nothing more is ever reported as synced.
    pub(crate) fn sync_through(&self, seqno: SeqNo) -> Result<()> {
        let seqno = seqno.min(self.last_logged_seqno());
        if self.synced_seqno() >= seqno {
            return Ok(());
        }
        match self.syncs.wait_for_turn(&self.dir, || self.synced_seqno() >= seqno)? {
            Some(turn) => self.sync_appended(turn),
            None => Ok(()),
        }
    }

    /// How far the log goes now.
    pub(crate) fn mark(&self) -> Mark {
        // The number first: what is read after it covers every record up to it.
        let seqno = self.last_logged_seqno();
        let active = self.segments.lock().active().clone();
        // Acquire pairs with the writer's release: the bytes below the end are whole.
        let end = active.end.load(Ordering::Acquire);
        // A header is synced with the first record behind it: without one, the log ends before it as well.
        let offset = if end > HEADER_BYTES { end } else { 0 };
        Mark { seqno, place: Reached { segment: active.number, offset } }
    }

    /// Both: metadata alone has no number, and bytes may be synced before their number is published.
    fn is_synced(&self, mark: Mark) -> bool {
        self.synced_seqno() >= mark.seqno && self.syncs.state.lock().reached >= mark.place
    }

    /// Makes everything appended so far durable, records of metadata alone included.
    ///
    /// # Errors
    /// As [`sync_through`](Wal::sync_through).
    pub(crate) fn sync_all(&self) -> Result<()> {
        let mark = self.mark();
        match self.syncs.wait_for_turn(&self.dir, || self.is_synced(mark))? {
            Some(turn) => self.sync_appended(turn),
            None => Ok(()),
        }
    }

    /// Makes durable what a log that begins with segment `floor` holds up to `mark`. What was logged before that is on
    /// storage only once the manifest says that the log begins there: tell it, then call
    /// [`note_kept`](Wal::note_kept).
    ///
    /// # Errors
    /// As [`sync_through`](Wal::sync_through).
    pub(crate) fn sync_kept(&self, floor: u64, mark: Mark) -> Result<()> {
        // With the turn: else another's sync could be told of a failure that this one's pages met.
        let Some(turn) = self.syncs.wait_for_turn(&self.dir, || self.is_synced(mark))? else { return Ok(()) };
        let from = turn.reached.max(Reached { segment: floor, offset: 0 });
        self.sync_between(&turn, from, mark.place).map(|_| ())
    }

    /// The manifest, durably, says that the log begins at the floor that [`sync_kept`](Wal::sync_kept) was given, or
    /// behind it, and that what came before is in tables: so all up to `mark` is on storage.
    pub(crate) fn note_kept(&self, mark: Mark) {
        let mut state = self.syncs.state.lock();
        state.reached = state.reached.max(mark.place);
        // Release: who reads the number finds its records on storage.
        self.synced_seqno.fetch_max(mark.seqno, Ordering::Release);
    }

    fn sync_appended(&self, mut turn: Turn<'_>) -> Result<()> {
        self.let_others_append(turn.company);
        let mark = self.mark();
        turn.reached = self.sync_between(&turn, turn.reached, mark.place)?;
        // Release: who reads the number finds the sync done.
        self.synced_seqno.fetch_max(mark.seqno, Ordering::Release);
        Ok(())
    }

    /// Makes the bytes between two places durable; where it ended.
    fn sync_between(&self, turn: &Turn<'_>, from: Reached, to: Reached) -> Result<Reached> {
        let between = from.segment..=to.segment;
        let segments: Vec<Arc<Segment>> = {
            let list = self.segments.lock();
            list.live.iter().map(|listed| &listed.segment).filter(|s| between.contains(&s.number)).cloned().collect()
        };
        let mut reached = from;
        for segment in segments {
            let start = if segment.number == from.segment { from.offset } else { 0 };
            let end = if segment.number == to.segment { to.offset } else { segment.end.load(Ordering::Acquire) };
            if start < end {
                let synced = segment.sync(self.fs.as_ref(), start, end);
                // What was let go of meanwhile is gone, as is the need for it.
                if self.lists(&segment) {
                    synced.inspect_err(|error| turn.fail(error))?;
                }
                // Relaxed: a figure.
                self.sync_count.fetch_add(1, Ordering::Relaxed);
            }
            reached = Reached { segment: segment.number, offset: end };
        }
        Ok(reached)
    }

    /// Those whom the last sync served are likely to be about to append again: if they get to it now, this sync covers
    /// them, and if not, they wait for the next.
    fn let_others_append(&self, company: usize) {
        let before = self.last_logged_seqno();
        for _ in 0..company.saturating_mul(YIELDS) {
            if self.last_logged_seqno() - before >= company as u64 {
                break;
            }
            thread::yield_now();
        }
    }

    /// Every record up to this number is durable; always the last number of some record, or where the log began.
    pub(crate) fn synced_seqno(&self) -> SeqNo {
        // Acquire pairs with the release store after the sync.
        self.synced_seqno.load(Ordering::Acquire)
    }
}
