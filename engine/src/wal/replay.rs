//! Reading a log that was left behind: what is in it, where it ends, and whether that end can be true.
//!
//! A power cut keeps any part of what was not synced, so the first place that is no valid next record usually is just
//! the end. It is damage if anything that was written later says that this place had been synced: an intact record
//! header behind it, in this segment or a later one, or the manifest.

use std::path::{Path, PathBuf};

use super::format::{self, HEADER_BYTES, SegmentHeader};
use super::segment::{Remains, SegmentReader};
use crate::error::{Error, Result};
use crate::fs::FileSystem;
use crate::key::SeqNo;

/// Is called with a record's first sequence number, count of writes, payload, file and offset in it.
pub(crate) type EachRecord<'a> = dyn FnMut(SeqNo, u32, &[u8], &Path, u64) -> Result<()> + 'a;

/// What the manifest knows of the log.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ReplayInput {
    /// The database the log must belong to.
    pub(crate) database_id: u64,
    /// The oldest segment that is needed; older ones are leftovers.
    pub(crate) floor_segment: u64,
    /// Every record up to this number was synced, as [`Wal::synced_seqno`](super::Wal::synced_seqno) said.
    pub(crate) synced_seqno: SeqNo,
    /// Records up to this number are in tables: the log may begin anywhere at or below it.
    pub(crate) prev_seqno_floor: SeqNo,
}

/// A segment that belongs to the log.
#[derive(Clone, Debug)]
pub(crate) struct RecoveredSegment {
    /// Its number.
    pub(crate) number: u64,
    /// Its file.
    pub(crate) path: PathBuf,
    /// The last logged sequence number before it.
    pub(crate) prev_seqno: SeqNo,
    /// Where its last record ends, in bytes.
    pub(crate) end: u64,
    /// The file's length in bytes.
    pub(crate) file_bytes: u64,
}

/// What a replay found.
#[derive(Clone, Debug)]
pub(crate) struct Replayed {
    /// The segments of the log, oldest first, contiguous.
    pub(crate) segments: Vec<RecoveredSegment>,
    /// The last sequence number of the last record; where the log begins if it has none.
    pub(crate) last_logged_seqno: SeqNo,
    /// Every record up to this number is known to be durable.
    pub(crate) synced_seqno: SeqNo,
    /// Everything in segments below this number is known to be durable, headers and records of metadata included.
    pub(crate) first_unproven: u64,
    /// The number that the next segment gets.
    pub(crate) next_segment: u64,
    /// Bytes behind the end of the log in which there still are records, which were never synced and are not part of
    /// the log any more.
    pub(crate) dropped_bytes: u64,
}

/// Reads the log in `dir` and calls `each` for every record from the floor segment on, in order, those included that
/// are in tables already. Unless `read_only`, what is not part of the log is removed, durably, so that no later replay
/// can take it for a part; a crash meanwhile leaves a directory that replays the same way.
///
/// # Errors
/// `Corruption` naming the place if something that was synced is missing or damaged, or the log is another database's;
/// `UnsupportedVersion`; `Io`; the first error of `each`.
pub(crate) fn replay(
    fs: &dyn FileSystem,
    dir: &Path,
    input: &ReplayInput,
    read_only: bool,
    each: &mut EachRecord<'_>,
) -> Result<Replayed> {
    let numbers = list_segments(fs, dir, input.floor_segment, read_only)?;
    let synced_seqno = input.synced_seqno;
    let mut run = Run { fs, dir, input, segments: Vec::new(), numbered_ends: Vec::new(), last: None, synced_seqno };
    let mut end = End { file: dir.to_owned(), offset: 0, reason: "no segment of the log is there" };
    for &number in &numbers {
        match run.segment(number, &end, each)? {
            Step::Read(place) => end = place,
            Step::Stop(place) => {
                end = place;
                break;
            }
        }
    }
    let last_logged_seqno = run.last.unwrap_or(input.prev_seqno_floor);
    let (proven, dropped_bytes) = run.search_behind_end(&numbers)?;
    if proven.max(run.synced_seqno) > last_logged_seqno {
        let synced = proven.max(run.synced_seqno);
        let reason = format!("{}; the log ends at {last_logged_seqno} but was synced up to {synced}", end.reason);
        return Err(Error::corruption(&end.file, end.offset, reason));
    }
    let first_unproven = run.first_unproven(last_logged_seqno);
    let Run { mut segments, synced_seqno, .. } = run;
    if !read_only {
        cut(fs, dir, &numbers, &mut segments)?;
    }
    let next_segment = segments.last().map_or(input.floor_segment, |last| last.number + 1);
    Ok(Replayed { segments, last_logged_seqno, synced_seqno, first_unproven, next_segment, dropped_bytes })
}

/// The numbers of the segments from `floor` on, ascending. Unless `read_only`, removes what older segments and spare
/// files were left over.
fn list_segments(fs: &dyn FileSystem, dir: &Path, floor: u64, read_only: bool) -> Result<Vec<u64>> {
    let mut numbers = Vec::new();
    for entry in fs.read_dir(dir).map_err(Error::io("list directory", dir))? {
        let number = format::segment_number(&entry.name);
        match number {
            Some(number) if number >= floor => numbers.push(number),
            _ if !read_only && (number.is_some() || format::is_spare(&entry.name)) => {
                let path = dir.join(&entry.name);
                fs.remove_file(&path).map_err(Error::io("remove log segment", &path))?;
            }
            _ => {}
        }
    }
    numbers.sort_unstable();
    for (&number, expected) in numbers.iter().zip(floor..) {
        if number != expected {
            let path = format::segment_path(dir, expected);
            return Err(Error::corruption(&path, 0, format!("the segment is missing, but segment {number} is there")));
        }
    }
    Ok(numbers)
}

/// Removes the segments behind the log's end, newest first so that never one is missing in between, and shortens the
/// last one to its records.
fn cut(fs: &dyn FileSystem, dir: &Path, numbers: &[u64], segments: &mut [RecoveredSegment]) -> Result<()> {
    for &number in numbers[segments.len()..].iter().rev() {
        let path = format::segment_path(dir, number);
        fs.remove_file(&path).map_err(Error::io("remove log segment", &path))?;
        fs.sync_dir(dir).map_err(Error::io("sync directory", dir))?;
    }
    if let Some(last) = segments.last_mut()
        && last.file_bytes > last.end
    {
        fs.truncate(&last.path, last.end).map_err(Error::io("truncate log segment", &last.path))?;
        last.file_bytes = last.end;
    }
    Ok(())
}

/// The first place that is no valid next record.
struct End {
    file: PathBuf,
    offset: u64,
    reason: &'static str,
}

enum Step {
    /// The segment was read to this place; the log may go on in the next one.
    Read(End),
    /// The segment is not part of the log, which ends here.
    Stop(End),
}

struct Run<'a> {
    fs: &'a dyn FileSystem,
    dir: &'a Path,
    input: &'a ReplayInput,
    segments: Vec<RecoveredSegment>,
    /// For each segment, where its last record with a number ends: metadata alone has none.
    numbered_ends: Vec<u64>,
    /// The last logged number so far; unknown until the first segment's header is read.
    last: Option<SeqNo>,
    /// The most that the manifest and the records read so far prove.
    synced_seqno: SeqNo,
}

impl Run<'_> {
    fn open(&self, number: u64) -> Result<SegmentReader> {
        let path = format::segment_path(self.dir, number);
        SegmentReader::open(self.fs, &path, number, self.input.database_id)
    }

    fn segment(&mut self, number: u64, previous: &End, each: &mut EachRecord<'_>) -> Result<Step> {
        let mut reader = self.open(number)?;
        let file_bytes = reader.file_bytes()?;
        let header = match reader.header(file_bytes)? {
            Ok(header) => header,
            Err(reason) => return Ok(Step::Stop(End { file: reader.path, offset: 0, reason })),
        };
        if !self.follows(&header, &reader.path)? {
            // The segment before lost records that were written before this one was begun.
            let End { file, offset, reason } = previous;
            return Ok(Step::Stop(End { file: file.clone(), offset: *offset, reason }));
        }
        let mut last = header.prev_seqno;
        let (mut offset, mut numbered_end) = (HEADER_BYTES, HEADER_BYTES);
        let limit = file_bytes.min(header.file_bytes);
        let reason = loop {
            match reader.record(offset, limit)? {
                Ok(record) if record.header.prev_seqno == last => {
                    let found = &record.header;
                    each(found.first_seqno, found.count, &record.payload, &reader.path, offset)?;
                    last = found.last_seqno();
                    self.synced_seqno = self.synced_seqno.max(found.synced_seqno);
                    offset += found.record_bytes();
                    if found.count > 0 {
                        numbered_end = offset;
                    }
                }
                Ok(_) => break "the record does not follow the one before it",
                Err(reason) => break reason,
            }
        };
        self.last = Some(last);
        // The padding of a last record may be cut off.
        let end = offset.min(file_bytes);
        let path = reader.path.clone();
        self.numbered_ends.push(numbered_end.min(file_bytes));
        self.segments.push(RecoveredSegment { number, path, prev_seqno: header.prev_seqno, end, file_bytes });
        Ok(Step::Read(End { file: reader.path, offset: end, reason }))
    }

    /// The first segment that may hold something which is not on storage: a record behind the last one that is proven
    /// to be, if only of metadata, or nothing but its header. A later segment would be lost with either of them.
    fn first_unproven(&self, last_logged_seqno: SeqNo) -> u64 {
        let Some(proven) = self.segments.iter().rposition(|segment| segment.prev_seqno < self.synced_seqno) else {
            return self.segments.first().map_or(self.input.floor_segment, |first| first.number);
        };
        let last = self.segments.get(proven + 1).map_or(last_logged_seqno, |next| next.prev_seqno);
        let segment = &self.segments[proven];
        let is_whole = last <= self.synced_seqno && self.numbered_ends[proven] == segment.end;
        segment.number + u64::from(is_whole)
    }

    /// Whether a segment continues the log.
    fn follows(&self, header: &SegmentHeader, file: &Path) -> Result<bool> {
        let floor = self.input.prev_seqno_floor;
        match self.last {
            Some(last) => {
                let end = self.segments.last().map_or(0, |before| before.end);
                Ok(header.prev_seqno == last && header.follows_end(end))
            }
            None if header.prev_seqno <= floor => Ok(true),
            None => {
                let reason = format!("the log begins after {}, but only {floor} is in tables", header.prev_seqno);
                Err(Error::corruption(file, 40, reason))
            }
        }
    }

    /// Looks through everything behind the end of the log: the most that intact record headers there say was synced,
    /// and how many bytes hold records.
    fn search_behind_end(&self, numbers: &[u64]) -> Result<(SeqNo, u64)> {
        let read = self.segments.len();
        let in_last = self.segments.last().map(|last| (last.number, last.end));
        let behind = numbers[read..].iter().map(|&number| (number, HEADER_BYTES));
        let (mut proven, mut bytes) = (0, 0);
        for (number, from) in in_last.into_iter().chain(behind) {
            let mut reader = self.open(number)?;
            let file_bytes = reader.file_bytes()?;
            let Remains { synced_seqno, end } = reader.search(from, file_bytes)?;
            proven = proven.max(synced_seqno);
            bytes += end - from;
        }
        Ok((proven, bytes))
    }
}
