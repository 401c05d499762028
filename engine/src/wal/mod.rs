//! The write-ahead log: a sequence of segment files `{number:06}.wal` with records of consecutive commits.
//!
//! One [`WalWriter`] appends (under the commit lock); syncing, following and releasing go on beside it through the
//! shared [`Wal`]. Lock order, outermost first: spares, segments; none is held over a call into another part of
//! the engine.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::fs::{FileSystem, MappedFile};
use crate::key::SeqNo;
use crate::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use crate::sync::{Condvar, Mutex};
use format::HEADER_BYTES;
use replay::Replayed;
use retention::Cursor;
use segment::{Backing, Segment, SegmentReader};
use spare::Spares;
use sync::Syncs;

mod format;
pub(crate) mod replay;
pub(crate) mod retention;
pub(crate) mod salvage;
mod segment;
mod spare;
mod sync;
pub(crate) mod tail;
#[cfg(test)]
mod tests;
mod writer;

pub(crate) use retention::Floor;
pub(crate) use sync::Mark;
pub(crate) use writer::WalWriter;

/// The length of a log's first segment, in bytes; each next one doubles up to [`WalOptions::segment_bytes`].
const FIRST_SEGMENT_BYTES: u64 = 256 << 10;

/// The least a segment may have, in bytes.
const MIN_SEGMENT_BYTES: u64 = 4096;

/// How a log is sized.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WalOptions {
    /// A full-grown segment, in bytes; taken as a multiple of 4 KiB.
    pub(crate) segment_bytes: u64,
    /// How many bytes of segments that flushing no longer needs may be held back for cursors.
    pub(crate) max_retained_bytes: u64,
}

/// The shared half of the log.
#[derive(Debug)]
pub(crate) struct Wal {
    fs: Arc<dyn FileSystem>,
    dir: PathBuf,
    database_id: u64,
    options: WalOptions,
    /// The last sequence number of the last record appended. Only the writer stores it, after the bytes.
    last_logged_seqno: AtomicU64,
    /// Likewise of the last record that tails may see.
    published_logged: AtomicU64,
    /// The last sequence number that is visible in the database, logged or not.
    published_seqno: AtomicU64,
    /// Every record up to this number is durable. It is always the last number of some record.
    synced_seqno: AtomicU64,
    /// The last number that an ingest took; 0 without any. Nothing of it is in the log.
    ingested_seqno: AtomicU64,
    needs_spare: AtomicBool,
    /// How often a segment was synced.
    sync_count: AtomicU64,
    /// How many tails are waiting for `published_logged` to move.
    waiting_tails: AtomicU32,
    tail_lock: Mutex<()>,
    tail_wakeup: Condvar,
    syncs: Syncs,
    spares: Mutex<Spares>,
    /// A file is ready, or failed to be.
    spare_made: Condvar,
    segments: Mutex<SegmentList>,
}

/// The segments and who needs them.
#[derive(Debug)]
struct SegmentList {
    /// Oldest first, never empty; the last is the active one. Numbers are contiguous.
    live: VecDeque<Listed>,
    /// The length from which the next segment's follows: the last regular one's, not that of an oversize record's.
    grown_bytes: u64,
    /// What [`Wal::plan_release`] was last told.
    flushed_seqno: SeqNo,
    /// Segments below are as good as gone: the manifest is being told.
    planned_floor: u64,
    cursors: Vec<Arc<Cursor>>,
}

#[derive(Debug)]
struct Listed {
    segment: Arc<Segment>,
    /// The mapping of a full segment, so that its file can be used again.
    file: Option<Box<dyn MappedFile>>,
}

impl SegmentList {
    fn active(&self) -> &Arc<Segment> {
        // `live` is never empty: it is made with the active segment, and releasing leaves that.
        &self.live[self.live.len() - 1].segment
    }

    /// The oldest segment that may still be read.
    fn oldest(&self) -> &Arc<Segment> {
        let found = self.live.iter().find(|listed| listed.segment.number >= self.planned_floor);
        found.map_or_else(|| self.active(), |listed| &listed.segment)
    }
}

/// Whether a file name is that of a segment below `floor`.
pub(crate) fn is_before(name: &str, floor: u64) -> bool {
    format::segment_number(name).is_some_and(|number| number < floor)
}

/// Starts a new log in `dir` with segment `first_segment`; its header and name are durable when this returns.
/// `prev_seqno` is the last sequence number of the database.
///
/// # Errors
/// `Io`.
pub(crate) fn create(
    fs: Arc<dyn FileSystem>,
    dir: &Path,
    database_id: u64,
    first_segment: u64,
    prev_seqno: SeqNo,
    options: WalOptions,
) -> Result<(Arc<Wal>, WalWriter)> {
    let replayed = Replayed {
        segments: Vec::new(),
        last_logged_seqno: prev_seqno,
        synced_seqno: prev_seqno,
        first_unproven: first_segment,
        next_segment: first_segment,
        dropped_bytes: 0,
    };
    open_after_replay(fs, dir, database_id, replayed, prev_seqno, options)
}

/// Continues a replayed log in a new segment. The recovered segments stay listed, for tails, and are made durable by
/// the next sync unless replay proved that they are. `last_seqno` is the database's last visible number, logged or not.
///
/// # Errors
/// `Io`.
pub(crate) fn open_after_replay(
    fs: Arc<dyn FileSystem>,
    dir: &Path,
    database_id: u64,
    replayed: Replayed,
    last_seqno: SeqNo,
    options: WalOptions,
) -> Result<(Arc<Wal>, WalWriter)> {
    let segment_bytes = options.segment_bytes.max(MIN_SEGMENT_BYTES) / MIN_SEGMENT_BYTES * MIN_SEGMENT_BYTES;
    let last = replayed.last_logged_seqno;
    let prev_end = replayed.segments.last().map_or(0, |segment| segment.end);
    let recovered_bytes: u64 = replayed.segments.iter().map(|segment| segment.end).sum();
    let mut live: VecDeque<Listed> = replayed.segments.into_iter().map(Listed::recovered).collect();

    // As large as the log already was: a database that stays small keeps small segments.
    let grown_bytes = recovered_bytes.clamp(FIRST_SEGMENT_BYTES.min(segment_bytes), segment_bytes);
    let file_bytes = grown_bytes.next_multiple_of(MIN_SEGMENT_BYTES);
    let wal = Wal {
        fs,
        dir: dir.to_owned(),
        database_id,
        options: WalOptions { segment_bytes, ..options },
        last_logged_seqno: AtomicU64::new(last),
        published_logged: AtomicU64::new(last),
        published_seqno: AtomicU64::new(last_seqno.max(last)),
        synced_seqno: AtomicU64::new(replayed.synced_seqno),
        ingested_seqno: AtomicU64::new(0),
        needs_spare: AtomicBool::new(false),
        sync_count: AtomicU64::new(0),
        waiting_tails: AtomicU32::new(0),
        tail_lock: Mutex::new(()),
        tail_wakeup: Condvar::new(),
        syncs: Syncs::from(replayed.first_unproven),
        spares: Mutex::new(Spares::behind(replayed.next_segment)),
        spare_made: Condvar::new(),
        segments: Mutex::new(SegmentList {
            live: VecDeque::new(),
            grown_bytes: file_bytes,
            flushed_seqno: 0,
            planned_floor: 0,
            cursors: Vec::new(),
        }),
    };
    let path = format::segment_path(dir, replayed.next_segment);
    let mut file = wal.fs.create_mapped(&path, file_bytes).map_err(Error::io("create log segment", &path))?;
    let segment = wal.start_segment(replayed.next_segment, last, prev_end, file.as_mut())?;
    segment.sync(wal.fs.as_ref(), 0, HEADER_BYTES)?;
    wal.fs.sync_dir(dir).map_err(Error::io("sync directory", dir))?;
    live.push_back(Listed { segment: segment.clone(), file: None });
    wal.segments.lock().live = live;
    let wal = Arc::new(wal);
    Ok((wal.clone(), WalWriter::new(wal, file, segment)))
}

impl Listed {
    fn recovered(segment: replay::RecoveredSegment) -> Self {
        let replay::RecoveredSegment { number, path, prev_seqno, end, file_bytes } = segment;
        let segment = Segment { number, path, prev_seqno, file_bytes, end: end.into(), backing: Backing::Recovered };
        Listed { segment: Arc::new(segment), file: None }
    }
}

impl Wal {
    /// The last sequence number of the last record appended, published or not.
    pub(crate) fn last_logged_seqno(&self) -> SeqNo {
        // Acquire pairs with the writer's release after the record's bytes and the segment's end.
        self.last_logged_seqno.load(Ordering::Acquire)
    }

    /// Reads the whole log again and checks every record; how many there are.
    ///
    /// # Errors
    /// `Corruption` naming the first place that does not fit; `Io`.
    pub(crate) fn verify(self: &Arc<Self>) -> Result<u64> {
        let mut tail = self.tail_from_oldest()?;
        let mut records = 0;
        while tail.next()?.is_some() {
            records += 1;
        }
        // Kept from being recycled, not from being removed: a segment that is gone meanwhile is not part of the log.
        let segments: Vec<Arc<Segment>> =
            self.segments.lock().live.iter().map(|listed| listed.segment.clone()).collect();
        for segment in segments {
            // Acquire pairs with the writer's release: the bytes below the end are whole.
            let end = segment.end.load(Ordering::Acquire);
            let checked = SegmentReader::open(&*self.fs, &segment.path, segment.number, self.database_id).and_then(
                |mut reader| {
                    reader.check_header(segment.prev_seqno)?;
                    reader.check_padding(end)
                },
            );
            if self.lists(&segment) {
                checked?;
            }
        }
        Ok(records)
    }

    /// How often a segment was synced.
    #[cfg(test)]
    pub(crate) fn sync_count(&self) -> u64 {
        self.sync_count.load(Ordering::Relaxed)
    }

    /// The number of the oldest segment that is still listed.
    #[cfg(test)]
    pub(crate) fn oldest_segment(&self) -> u64 {
        self.segments.lock().oldest().number
    }

    /// The number of the segment that is being appended to.
    #[cfg(test)]
    pub(crate) fn active_segment(&self) -> u64 {
        self.segments.lock().active().number
    }

    /// Bytes of records in the log, segment headers included.
    pub(crate) fn total_bytes(&self) -> u64 {
        // Acquire for the sake of uniformity; the sum is a statistic.
        self.segments.lock().live.iter().map(|listed| listed.segment.end.load(Ordering::Acquire)).sum()
    }

    /// Bytes of the log's files on storage, spare ones included.
    pub(crate) fn file_bytes(&self) -> u64 {
        let listed: u64 = self.segments.lock().live.iter().map(|listed| listed.segment.file_bytes).sum();
        listed + self.spare_bytes()
    }

    /// Appends the new active segment and keeps the full one's mapping if its file is worth using again.
    fn list_segment(&self, segment: Arc<Segment>, full: Box<dyn MappedFile>) {
        let mut list = self.segments.lock();
        if segment.file_bytes <= self.options.segment_bytes {
            list.grown_bytes = list.grown_bytes.max(segment.file_bytes);
        }
        if full.len() == self.options.segment_bytes
            && let Some(previous) = list.live.back_mut()
        {
            previous.file = Some(full);
        }
        list.live.push_back(Listed { segment, file: None });
    }

    #[inline]
    fn publish(&self, logged: SeqNo, seqno: SeqNo) {
        // Relaxed: only `tail` compares it, with a number its caller already knows to be visible.
        self.published_seqno.store(seqno.max(logged), Ordering::Relaxed);
        // SeqCst with the load below, against the increment and load in `Tail::wait`: either the waiter sees this
        // number or we see the waiter.
        self.published_logged.store(logged, Ordering::SeqCst);
        if self.waiting_tails.load(Ordering::SeqCst) > 0 {
            self.wake_tails();
        }
    }

    /// Everything up to `seqno` was ingested, or written before an ingest: the log does not hold all of it. Whoever
    /// follows from there or before gets `NotRetained` from now on. Only before the number is published, or any later
    /// one.
    pub(crate) fn note_ingested(&self, seqno: SeqNo) {
        // Release: see `Tail::check_whole`.
        self.ingested_seqno.store(seqno, Ordering::Release);
        self.wake_tails();
    }

    /// Wakes all waiting tails, for instance because the database closes.
    #[cold]
    pub(crate) fn wake_tails(&self) {
        // A waiter between its check and its wait holds the lock.
        drop(self.tail_lock.lock());
        self.tail_wakeup.notify_all();
    }
}
