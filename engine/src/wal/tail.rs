//! Following the log.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::format::HEADER_BYTES;
use super::retention::Cursor;
use super::segment::{Record, Segment, SegmentReader};
use super::{SegmentList, Wal};
use crate::error::{Error, Result};
use crate::key::SeqNo;
use crate::sync::atomic::Ordering;

/// One published record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TailRecord {
    /// The sequence number of its first write.
    pub(crate) first_seqno: SeqNo,
    /// How many writes it holds.
    pub(crate) count: u32,
    /// The encoded writes. Shares (and keeps alive) the chunk it was read in, at most 256 KiB unless the record is
    /// larger.
    pub(crate) payload: Bytes,
}

/// Reads published records in order, live. Its place is known to retention, which may invalidate it.
#[derive(Debug)]
pub(crate) struct Tail {
    wal: Arc<Wal>,
    cursor: Arc<Cursor>,
    segment: Arc<Segment>,
    reader: SegmentReader,
    /// Where in the segment the next record begins.
    offset: u64,
    /// The last number of the record before that.
    last_seqno: SeqNo,
    /// Records that end before this number, which is at least 1, are passed over.
    from: SeqNo,
    /// Whether numbers that an ingest took may be missing: to read what there is, not to follow.
    passes_ingests: bool,
}

impl SegmentList {
    /// The segment in which a tail starts that is registered with `from`.
    fn start_of_tail(&self, from: SeqNo) -> Arc<Segment> {
        // `register` made sure that the oldest readable segment begins before `from`.
        let segment = self.live.iter().rev().find(|listed| listed.segment.prev_seqno < from);
        segment.map_or_else(|| self.oldest(), |listed| &listed.segment).clone()
    }
}

impl Wal {
    /// Follows the log from `from` on. A record that holds `from` is delivered whole.
    ///
    /// # Errors
    /// `NotRetained` if `from` is gone; `InvalidArgument` if it is beyond the number after the last published one;
    /// `Io`.
    pub(crate) fn tail(self: &Arc<Self>, from: SeqNo) -> Result<Tail> {
        // Sequence numbers begin with 1; 0 asks for the same.
        let from = from.max(1);
        // Relaxed: the caller knows of `from - 1` through some other synchronisation, which makes its publication
        // visible here.
        let last = self.published_seqno.load(Ordering::Relaxed);
        if from > last + 1 {
            return Err(Error::InvalidArgument(format!(
                "the log ends at {last}, it cannot be followed from {from} on"
            )));
        }
        let cursor = {
            let mut list = self.segments.lock();
            self.check_retained(&list, from)?;
            list.register(from)?
        };
        self.open_tail(cursor, from)
    }

    /// Follows the log from the oldest number on that it holds.
    ///
    /// # Errors
    /// `Io`.
    pub(crate) fn tail_from_oldest(self: &Arc<Self>) -> Result<Tail> {
        let (from, cursor) = {
            // One lock for both: nothing is let go of between asking and registering.
            let mut list = self.segments.lock();
            let from = list.oldest().prev_seqno + 1;
            (from, list.register(from)?)
        };
        let mut tail = self.open_tail(cursor, from)?;
        tail.passes_ingests = true;
        Ok(tail)
    }

    fn open_tail(self: &Arc<Self>, cursor: Arc<Cursor>, from: SeqNo) -> Result<Tail> {
        let (segment, reader) = self.open_start(from).inspect_err(|_| self.unregister(&cursor))?;
        let last_seqno = segment.prev_seqno;
        let passes_ingests = false;
        Ok(Tail { wal: self.clone(), cursor, segment, reader, offset: HEADER_BYTES, last_seqno, from, passes_ingests })
    }

    fn open_start(&self, from: SeqNo) -> Result<(Arc<Segment>, SegmentReader)> {
        loop {
            let segment = self.segments.lock().start_of_tail(from);
            if let Some(reader) = self.open_listed(&segment)? {
                return Ok((segment, reader));
            }
        }
    }

    /// A reader of a segment that was in the list a moment ago; none if it was let go of meanwhile. That happens to a
    /// registered tail as well: a segment of metadata alone has no number that its cursor needs.
    pub(super) fn open_listed(&self, segment: &Segment) -> Result<Option<SegmentReader>> {
        match SegmentReader::open(self.fs.as_ref(), &segment.path, segment.number, self.database_id) {
            Ok(reader) => Ok(Some(reader)),
            Err(error) if self.lists(segment) => Err(error),
            Err(_) => Ok(None),
        }
    }

    /// Whether the segment is part of the log, and not let go of.
    pub(super) fn lists(&self, segment: &Segment) -> bool {
        self.segments.lock().live.iter().any(|listed| listed.segment.number == segment.number)
    }
}

impl Tail {
    /// The next record, or `None` if there is none yet; ask again, or [`wait`](Tail::wait).
    ///
    /// # Errors
    /// `NotRetained` if the tail fell too far behind, or an ingest took numbers that it has not passed: it stays so.
    /// `Corruption` and `Io` from reading.
    pub(crate) fn next(&mut self) -> Result<Option<TailRecord>> {
        self.cursor.check(&self.wal)?;
        let needs = self.needs();
        self.check_whole(needs)?;
        match self.read_next() {
            // Again: a record that was published after an ingest has been read by one who did not know of that yet.
            Ok(record) => self.check_whole(needs).map(|()| record),
            // A file that went away or was recycled meanwhile is no damage.
            Err(error) => self.cursor.check(&self.wal).and(Err(error)),
        }
    }

    /// The next number that is to be read.
    fn needs(&self) -> SeqNo {
        self.from.max(self.last_seqno + 1)
    }

    /// # Errors
    /// `NotRetained` if an ingest took numbers from `needs` on.
    fn check_whole(&self, needs: SeqNo) -> Result<()> {
        // Acquire, here and where the published number is loaded: whoever sees a number that was published after an
        // ingest sees what that stored before.
        let ingested = self.wal.ingested_seqno.load(Ordering::Acquire);
        if needs > ingested || self.passes_ingests {
            return Ok(());
        }
        Err(Error::NotRetained { requested: needs, oldest: self.wal.oldest_retained_seqno() })
    }

    /// Waits until there is a record to read, or an error to get, at most for `timeout`, or until somebody wakes all
    /// tails. Answers whether there is one.
    pub(crate) fn wait(&self, timeout: Duration) -> bool {
        let wal = &self.wal;
        // What comes before the place that was asked for is passed over, so it is nothing to read.
        let read_seqno = self.last_seqno.max(self.from - 1);
        if wal.published_logged.load(Ordering::Acquire) > read_seqno || self.check_whole(self.needs()).is_err() {
            return true;
        }
        let deadline = Instant::now().checked_add(timeout);
        let mut lock = wal.tail_lock.lock();
        // SeqCst, both: see `Wal::publish`. The increment comes under the lock, so that a wake-up cannot fall between
        // the check and the wait.
        wal.waiting_tails.fetch_add(1, Ordering::SeqCst);
        // Who stores that there was an ingest wakes all tails after that, under the lock held here.
        if wal.published_logged.load(Ordering::SeqCst) <= read_seqno && self.check_whole(self.needs()).is_ok() {
            match deadline {
                Some(deadline) => drop(wal.tail_wakeup.wait_until(&mut lock, deadline)),
                None => wal.tail_wakeup.wait(&mut lock),
            }
        }
        // Relaxed: the lock is held; a count that is too high for a moment costs a needless wake-up.
        wal.waiting_tails.fetch_sub(1, Ordering::Relaxed);
        // Acquire pairs with the store in `Wal::publish`.
        wal.published_logged.load(Ordering::Acquire) > read_seqno || self.check_whole(self.needs()).is_err()
    }

    fn read_next(&mut self) -> Result<Option<TailRecord>> {
        loop {
            // Acquire pairs with the store in `Wal::publish`: ends and segments seen from here on cover every record up
            // to this number.
            let published = self.wal.published_logged.load(Ordering::Acquire);
            if published <= self.last_seqno {
                return Ok(None);
            }
            // Acquire pairs with the writer's release: the bytes below the end are whole records.
            let end = self.segment.end.load(Ordering::Acquire);
            if self.offset >= end {
                if !self.enter_next_segment()? {
                    return Ok(None);
                }
                continue;
            }
            let Record { header, payload } = match self.reader.record(self.offset, end)? {
                Ok(record) if record.header.prev_seqno == self.last_seqno => record,
                Ok(_) => return Err(self.damaged("the record does not follow the one before it")),
                Err(reason) => return Err(self.damaged(reason)),
            };
            // Published as well: the number published is the last one of a record, and above that of the record before
            // this one.
            let last = header.last_seqno();
            debug_assert!(last <= published);
            self.offset += header.record_bytes();
            self.last_seqno = last;
            self.cursor.advance(last + 1);
            if last >= self.from {
                return Ok(Some(TailRecord { first_seqno: header.first_seqno, count: header.count, payload }));
            }
        }
    }

    /// Moves to the segment after this one; false if there is none.
    fn enter_next_segment(&mut self) -> Result<bool> {
        loop {
            let next = {
                let list = self.wal.segments.lock();
                list.live.iter().map(|listed| &listed.segment).find(|next| next.number > self.segment.number).cloned()
            };
            let Some(next) = next else { return Ok(false) };
            // Segments in between may have been released only if they held nothing.
            if next.prev_seqno != self.last_seqno {
                return Err(self.damaged("the next segment does not follow this one"));
            }
            if let Some(reader) = self.wal.open_listed(&next)? {
                (self.segment, self.reader, self.offset) = (next, reader, HEADER_BYTES);
                return Ok(true);
            }
        }
    }

    fn damaged(&self, reason: &'static str) -> Error {
        Error::corruption(&self.segment.path, self.offset, reason)
    }
}

impl Drop for Tail {
    fn drop(&mut self) {
        self.wal.unregister(&self.cursor);
    }
}
