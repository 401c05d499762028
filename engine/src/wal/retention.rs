//! Who still needs which segments, and letting go of the others.

use std::sync::Arc;

use super::sync::Mark;
use super::{SegmentList, Wal};
use crate::error::{Error, Result};
use crate::key::SeqNo;
use crate::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// A reader's or durable consumer's place in the log, as retention sees it.
#[derive(Debug)]
pub(super) struct Cursor {
    /// The oldest sequence number still needed; only grows.
    needs: AtomicU64,
    /// Set once, when the cursor held back too much; what it needs may be gone.
    invalidated: AtomicBool,
}

impl Cursor {
    /// Needs nothing before `seqno` any more.
    #[inline]
    pub(super) fn advance(&self, seqno: SeqNo) {
        // Relaxed: an old value only keeps a segment longer, and the owner reads what it needed before it advances; a
        // file it still holds is never recycled.
        self.needs.fetch_max(seqno, Ordering::Relaxed);
    }

    /// # Errors
    /// `NotRetained` once the cursor was invalidated.
    #[inline]
    pub(super) fn check(&self, wal: &Wal) -> Result<()> {
        // Acquire pairs with the release in `plan_release`, so that the oldest number named is the one that made this
        // cursor invalid, or a later one.
        if self.invalidated.load(Ordering::Acquire) { Err(self.not_retained(wal)) } else { Ok(()) }
    }

    #[cold]
    fn not_retained(&self, wal: &Wal) -> Error {
        // Relaxed: only the cursor's owner, who asks here, advances it.
        Error::NotRetained { requested: self.needs.load(Ordering::Relaxed), oldest: wal.oldest_retained_seqno() }
    }
}

/// Holds the log back from `from` on for a durable consumer, until it is dropped. It never blocks writers: when it
/// holds back too much, it is invalidated.
#[derive(Debug)]
pub(crate) struct RetentionPin {
    wal: Arc<Wal>,
    cursor: Arc<Cursor>,
}

impl RetentionPin {
    /// Needs nothing before `seqno` any more; smaller numbers than before change nothing.
    ///
    /// # Errors
    /// `NotRetained` once the pin was invalidated.
    pub(crate) fn advance(&self, seqno: SeqNo) -> Result<()> {
        self.cursor.check(&self.wal)?;
        self.cursor.advance(seqno);
        Ok(())
    }
}

/// The oldest segment that is kept, and the last logged number before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Floor {
    pub(crate) segment: u64,
    pub(crate) prev_seqno: SeqNo,
}

impl Drop for RetentionPin {
    fn drop(&mut self) {
        self.wal.unregister(&self.cursor);
    }
}

impl SegmentList {
    /// Registers a cursor that needs `from` and everything after it.
    pub(super) fn register(&mut self, from: SeqNo) -> Result<Arc<Cursor>> {
        let oldest = self.oldest().prev_seqno + 1;
        if from < oldest {
            return Err(Error::NotRetained { requested: from, oldest });
        }
        let cursor = Arc::new(Cursor { needs: from.into(), invalidated: false.into() });
        self.cursors.push(cursor.clone());
        Ok(cursor)
    }

    /// The last logged number in the `index`-th segment or before it; `None` for the active one, which may still grow.
    fn last_seqno(&self, index: usize) -> Option<SeqNo> {
        Some(self.live.get(index + 1)?.segment.prev_seqno)
    }

    /// How many of the oldest segments hold nothing above `seqno`.
    fn count_through(&self, seqno: SeqNo) -> usize {
        (0..).take_while(|&index| self.last_seqno(index).is_some_and(|last| last <= seqno)).count()
    }

    /// Invalidates the cursors that hold back more than `max_bytes` of the first `flushed` segments.
    fn invalidate(&self, flushed: usize, max_bytes: u64) {
        let mut held_bytes = 0u64;
        let mut first_held = flushed;
        while first_held > 0 {
            held_bytes = held_bytes.saturating_add(self.live[first_held - 1].segment.file_bytes);
            if held_bytes > max_bytes {
                break;
            }
            first_held -= 1;
        }
        // The numbers up to here are in segments beyond the bound; none if all fit.
        let Some(beyond) = first_held.checked_sub(1).and_then(|index| self.last_seqno(index)) else { return };
        for cursor in &self.cursors {
            // Relaxed: see `Cursor::advance`. Release: see `Cursor::check`.
            if cursor.needs.load(Ordering::Relaxed) <= beyond {
                cursor.invalidated.store(true, Ordering::Release);
            }
        }
    }
}

impl Wal {
    /// Holds the log back from `from` on.
    ///
    /// # Errors
    /// `NotRetained` if that is gone already.
    pub(crate) fn pin(self: &Arc<Self>, from: SeqNo) -> Result<RetentionPin> {
        let from = from.max(1);
        let mut list = self.segments.lock();
        self.check_retained(&list, from)?;
        let cursor = list.register(from)?;
        drop(list);
        Ok(RetentionPin { wal: self.clone(), cursor })
    }

    pub(super) fn unregister(&self, cursor: &Arc<Cursor>) {
        self.segments.lock().cursors.retain(|other| !Arc::ptr_eq(other, cursor));
    }

    /// The oldest sequence number that a tail or pin may start from.
    pub(crate) fn oldest_retained_seqno(&self) -> SeqNo {
        self.oldest_retained_in(&self.segments.lock())
    }

    fn oldest_retained_in(&self, list: &SegmentList) -> SeqNo {
        // Acquire pairs with the release in `note_ingested`.
        list.oldest().prev_seqno.max(self.ingested_seqno.load(Ordering::Acquire)) + 1
    }

    /// Whether everything from `from` on is in the log.
    ///
    /// # Errors
    /// `NotRetained` if it is not.
    pub(super) fn check_retained(&self, list: &SegmentList, from: SeqNo) -> Result<()> {
        let oldest = self.oldest_retained_in(list);
        if from < oldest { Err(Error::NotRetained { requested: from, oldest }) } else { Ok(()) }
    }

    /// Bytes of segment files that only cursors hold back, as of the last [`plan_release`](Wal::plan_release).
    pub(crate) fn retained_bytes(&self) -> u64 {
        let list = self.segments.lock();
        let flushed = list.count_through(list.flushed_seqno);
        list.live.iter().take(flushed).map(|listed| listed.segment.file_bytes).sum()
    }

    /// Bytes of records in segments that flushing still needs, as of the last [`plan_release`](Wal::plan_release).
    pub(crate) fn needed_bytes(&self) -> u64 {
        let list = self.segments.lock();
        let flushed = list.count_through(list.flushed_seqno);
        // Relaxed: a statistic.
        list.live.iter().skip(flushed).map(|listed| listed.segment.end.load(Ordering::Relaxed)).sum()
    }

    /// Which segments may go once everything up to `flushed_seqno` is in tables: all below the number answered, if any.
    /// They are no longer offered to new tails and pins from then on. Sync the log from there on up to `mark`, write the
    /// number into the manifest, sync that, then call [`release_below`](Wal::release_below).
    ///
    /// Nothing goes that was logged after `mark`: the manifest says beside the floor what else was true at that moment.
    /// Cursors that hold back more than [`max_retained_bytes`](super::WalOptions::max_retained_bytes) are invalidated
    /// here.
    pub(crate) fn plan_release(&self, flushed_seqno: SeqNo, mark: Mark) -> Option<Floor> {
        let flushed_seqno = flushed_seqno.min(mark.seqno());
        let mut list = self.segments.lock();
        list.flushed_seqno = list.flushed_seqno.max(flushed_seqno);
        // Not what others said: their tables may not be in the manifest yet.
        let flushed = list.count_through(flushed_seqno);
        list.invalidate(flushed, self.options.max_retained_bytes);
        // Relaxed, both: invalidation happens under the lock held here; for the number see `Cursor::advance`.
        let valid = list.cursors.iter().filter(|cursor| !cursor.invalidated.load(Ordering::Relaxed));
        let needed = valid.map(|cursor| cursor.needs.load(Ordering::Relaxed)).min();
        let passed = needed.map_or(flushed, |needed| list.count_through(needed.saturating_sub(1)));
        // The mark's own segment may hold metadata behind it, which has no number.
        let before_mark = list.live.iter().take_while(|listed| listed.segment.number < mark.segment()).count();
        let first = &list.live[flushed.min(passed).min(before_mark)].segment;
        let floor = Floor { segment: first.number, prev_seqno: first.prev_seqno };
        let is_new = floor.segment > list.live[0].segment.number;
        list.planned_floor = list.planned_floor.max(floor.segment);
        is_new.then_some(floor)
    }

    /// Lets go of the segments below `floor`, as [`plan_release`](Wal::plan_release) answered it and the manifest says
    /// durably: full-grown ones that nobody reads are kept for reuse, the others removed. For a background thread.
    ///
    /// Nothing needs these files, so that it puts nothing in doubt if that fails: what is left over is removed when the
    /// database is opened the next time.
    pub(crate) fn release_below(&self, floor: u64) {
        loop {
            let oldest = {
                let mut list = self.segments.lock();
                let floor = floor.min(list.planned_floor);
                if list.live.len() < 2 || list.live[0].segment.number >= floor {
                    return;
                }
                list.live.pop_front()
            };
            let Some(oldest) = oldest else { return };
            // The list gives out no more references, so the last one is the last for good.
            let released = match (Arc::try_unwrap(oldest.segment), oldest.file) {
                (Ok(segment), Some(file)) => self.recycle(segment, file),
                (Ok(segment), None) => self.remove(&segment),
                (Err(shared), _) => self.remove(&shared),
            };
            if let Err(error) = released {
                tracing::warn!(%error, "releasing a log segment");
            }
        }
    }
}
