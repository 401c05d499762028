//! [`FileSource`]: the reading end.

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use siltstone::bytes::Bytes;
use siltstone::fs::{FileSystem, OsFileSystem};
use siltstone::{ChangeBatch, SeqNo};

use super::chain::{Listing, SegmentName};
use super::format::SegmentHeader;
use super::owner::is_owned;
use super::reader::{Decode, Next, SegmentReader};
use crate::codec::Encoded;
use crate::error::{Error, Result};
use crate::position::Position;
use crate::scan::{LentChange, Numbers, Scan};
use crate::sink::{Batches, Source, until_error};

/// How often a segment is looked for that compaction or a new owner replaced between the look at the directory and the
/// opening.
const LOOKS: u32 = 10;

/// Reads the log that a [`FileSink`](crate::FileSink) writes, also while it writes. It changes nothing: what a crash
/// left torn at the end is the end.
///
/// A directory that is missing or empty is an empty log.
///
/// What compaction leaves out is left out: on the way from the oldest position the state is that of no moment, until
/// everything is read that was there when the reading began.
///
/// ```
/// # let dir = tempfile::tempdir().unwrap();
/// use siltstone_changelog::{FileSource, Source};
/// let source = FileSource::open(dir.path());
/// let (oldest, newest) = source.bounds()?;
/// assert_eq!(oldest, newest);
/// assert!(source.read(&oldest)?.next().is_none());
/// # Ok::<(), siltstone_changelog::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct FileSource {
    directory: PathBuf,
    fs: Arc<dyn FileSystem>,
}

impl FileSource {
    /// A source of the log in `directory`. Nothing is read yet.
    pub fn open(directory: impl AsRef<Path>) -> Self {
        FileSource::open_on(Arc::new(OsFileSystem), directory)
    }

    /// As [`open`](FileSource::open), on another filesystem.
    pub fn open_on(file_system: Arc<dyn FileSystem>, directory: impl AsRef<Path>) -> Self {
        FileSource { directory: directory.as_ref().to_owned(), fs: file_system }
    }

    fn reading(&self, after_seqno: SeqNo) -> Reading {
        Reading {
            fs: self.fs.clone(),
            directory: self.directory.clone(),
            after_seqno,
            log_id: None,
            deletes_seqno: 0,
            segment: None,
        }
    }

    /// Opens the first or the last segment.
    fn edge(&self, pick: fn(&[SegmentName]) -> Option<&SegmentName>) -> Result<Option<SegmentReader>> {
        retry_missing(|| {
            let log = Listing::read(&self.fs, &self.directory)?.log();
            pick(&log).map(|&name| SegmentReader::open(&self.fs, &self.directory, name)).transpose()
        })
    }

    /// The log's number and the last number it holds; none if there is no log.
    fn newest(&self) -> Result<Option<(u64, SeqNo)>> {
        let Some(mut last) = self.edge(<[SegmentName]>::last)? else { return Ok(None) };
        if let Some(newest) = last.newest_seqno()? {
            return Ok(Some((last.header.log_id, newest)));
        }
        let mut reading = self.reading(last.header.prev_seqno);
        // Nothing is made of what is read.
        reading.deletes_seqno = SeqNo::MAX;
        while reading.next_batch()?.is_some() {}
        Ok(Some((last.header.log_id, reading.after_seqno)))
    }
}

impl Source for FileSource {
    fn bounds(&self) -> Result<(Position, Position)> {
        let Some(first) = self.edge(<[SegmentName]>::first)? else { return Ok((beginning(), beginning())) };
        let (log_id, newest) = self.newest()?.unwrap_or((first.header.log_id, first.header.prev_seqno));
        Ok((position(first.header.log_id, first.header.prev_seqno), position(log_id, newest)))
    }

    /// What is read is checked against its checksums. After its end the iterator goes on when the log has grown.
    ///
    /// # Errors
    /// `PositionOutOfRange` also where deletes behind `from` are gone, so that what was read up to there cannot be brought
    /// up to date; `Mismatch` for a position of another log.
    fn read(&self, from: &Position) -> Result<Batches> {
        let mut reading = self.read_from(from)?;
        Ok(until_error(move || reading.next_batch()))
    }

    fn scan(&self, from: &Position) -> Result<Box<dyn Scan>> {
        Ok(Box::new(self.read_from(from)?))
    }

    fn holds_whole_state(&self) -> Result<Option<bool>> {
        let first = self.edge(<[SegmentName]>::first)?;
        Ok(match first {
            None => None,
            Some(first) if first.header.prev_seqno > 0 => Some(false),
            // Of what was shipped the first number decides.
            Some(first) if first.end.is_none() => None,
            Some(first) => Some(first.header.is_whole),
        })
    }

    fn seqno_at(&self, position: &Position) -> Result<Option<SeqNo>> {
        Ok(Some(parse(position)?.1))
    }

    fn is_exact(&self, position: &Position) -> Result<bool> {
        Ok(parse(position)?.1 >= self.largest(|header| header.clean_seqno)?)
    }
}

impl FileSource {
    fn read_from(&self, from: &Position) -> Result<Reading> {
        let (log_id, seqno) = parse(from)?;
        let mut reading = self.reading(seqno);
        let Some(first) = self.edge(<[SegmentName]>::first)? else {
            return match seqno {
                0 if log_id.is_none() => Ok(reading),
                _ => {
                    Err(Error::PositionOutOfRange { position: from.clone(), oldest: beginning(), newest: beginning() })
                }
            };
        };
        let header = first.header;
        if let Some(other) = log_id.filter(|&id| id != header.log_id) {
            let reason = format!("{from} is a position of log {other:016x}, this is log {:016x}", header.log_id);
            return Err(Error::Mismatch(reason));
        }
        let deletes_seqno = self.largest(|header| header.deletes_seqno)?;
        let from_start = seqno == header.prev_seqno;
        let too_old = seqno < header.prev_seqno || (seqno < deletes_seqno && !from_start);
        let last = self.edge(<[SegmentName]>::last)?.map_or(0, |last| last.header.prev_seqno);
        // The last segment is only read through where that can tell something.
        let newest = if seqno > last || too_old { self.newest()?.map_or(last, |(_, newest)| newest) } else { last };
        if too_old || seqno > newest {
            let oldest = if seqno < header.prev_seqno { header.prev_seqno } else { deletes_seqno };
            let (oldest, newest) = (position(header.log_id, oldest), position(header.log_id, newest));
            return Err(Error::PositionOutOfRange { position: from.clone(), oldest, newest });
        }
        reading.log_id = Some(header.log_id);
        reading.deletes_seqno = deletes_seqno;
        Ok(reading)
    }

    /// The largest number that `of` says of the segments that compaction made; 0 without any.
    fn largest(&self, of: fn(&SegmentHeader) -> SeqNo) -> Result<SeqNo> {
        retry_missing(|| {
            let mut largest = 0;
            for name in
                Listing::read(&self.fs, &self.directory)?.log().into_iter().filter(|name| name.last_seqno.is_some())
            {
                largest = largest.max(of(&SegmentReader::open(&self.fs, &self.directory, name)?.header));
            }
            Ok(largest)
        })
    }
}

/// The beginning of whichever log it is.
fn beginning() -> Position {
    Position::from_number(0)
}

/// The place behind number `seqno` of a log.
pub(super) fn position(log_id: u64, seqno: SeqNo) -> Position {
    // One is made for each batch that is read: nothing is allocated for it.
    let mut text = [0; 16 + 1 + 20];
    let mut rest = &mut text[..];
    let written = write!(rest, "{log_id:016x}:{seqno}");
    debug_assert!(written.is_ok(), "there is room for the longest");
    let unused_bytes = rest.len();
    Position::from_text(&text[..text.len() - unused_bytes])
}

/// The log, if it says which, and the last number before a position.
fn parse(position: &Position) -> Result<(Option<u64>, SeqNo)> {
    let text = String::from_utf8_lossy(position.as_bytes());
    if *position == beginning() {
        return Ok((None, 0));
    }
    let parts = text.split_once(':').and_then(|(log_id, seqno)| {
        let log_id = u64::from_str_radix(log_id, 16).ok().filter(|_| log_id.len() == 16)?;
        Some((Some(log_id), seqno.parse().ok()?))
    });
    parts.ok_or_else(|| Error::InvalidArgument(format!("{position} is not a position of a log in files")))
}

/// What `look` finds, where a file that it opens may have been replaced since it was listed.
fn retry_missing<R>(mut look: impl FnMut() -> Result<R>) -> Result<R> {
    for _ in 1..LOOKS {
        match look() {
            Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {}
            found => return found,
        }
    }
    look()
}

/// Batch after batch, over segments.
#[derive(Debug)]
struct Reading {
    fs: Arc<dyn FileSystem>,
    directory: PathBuf,
    /// The last number that was read.
    after_seqno: SeqNo,
    log_id: Option<u64>,
    /// Deletes up to here were gone when the reading began, with all that they had deleted.
    deletes_seqno: SeqNo,
    segment: Option<Segment>,
}

#[derive(Debug)]
struct Segment {
    reader: SegmentReader,
    state: SegmentState,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SegmentState {
    /// The last one, which its owner may be writing: what lies under a mark counts.
    Written,
    /// The last one, and its owner is gone: all that is whole counts.
    Abandoned,
    /// Another one follows, or compaction made it: all of it counts, and it must be whole.
    Sealed,
}

impl Scan for Reading {
    fn next(&mut self, take: &mut dyn FnMut(LentChange<'_>)) -> Result<Option<Numbers>> {
        self.next_with(&mut |batch, _| {
            let numbers = batch.numbers;
            batch.lend(take).map(|()| numbers)
        })
    }

    fn position(&self) -> Result<Position> {
        Ok(self.log_id.map_or_else(beginning, |log_id| position(log_id, self.after_seqno)))
    }
}

impl Reading {
    fn next_batch(&mut self) -> Result<Option<(Position, ChangeBatch)>> {
        let batch = self.next_with(&mut |batch, chunk| batch.to_batch(chunk))?;
        batch.map(|batch| Ok((self.position()?, batch))).transpose()
    }

    /// What `decode` makes of the next batch.
    fn next_with<B>(&mut self, decode: &mut Decode<'_, B>) -> Result<Option<B>> {
        loop {
            let Some(segment) = &mut self.segment else {
                if !self.enter()? {
                    return Ok(None);
                }
                continue;
            };
            let after_seqno = self.after_seqno;
            let mut decode_new = |batch: Encoded<'_>, chunk: &Bytes| match batch.numbers.last > after_seqno {
                true => decode(batch, chunk).map(Some),
                false => Ok(None),
            };
            let next = match segment.state {
                SegmentState::Written => segment.reader.next_marked_with(&mut decode_new)?,
                _ => segment.reader.next_with(&mut decode_new)?,
            };
            let is_torn = match next {
                Next::Batch(None) => continue,
                Next::Batch(batch) => {
                    self.after_seqno = segment.reader.last_seqno;
                    return Ok(batch);
                }
                Next::End => false,
                Next::Torn => true,
            };
            if !self.go_on(is_torn)? {
                return Ok(None);
            }
        }
    }

    /// Opens the segment that goes on behind what was read; false if there is none.
    fn enter(&mut self) -> Result<bool> {
        let mut oldest_seqno = None;
        let found = retry_missing(|| {
            let log = Listing::read(&self.fs, &self.directory)?.log();
            oldest_seqno = log.first().map(|first| first.prev_seqno);
            let Some(at) = log.iter().rposition(|name| name.prev_seqno <= self.after_seqno) else { return Ok(None) };
            let reader = SegmentReader::open(&self.fs, &self.directory, log[at])?;
            let is_sealed = at + 1 < log.len() || reader.end.is_some();
            let state = if is_sealed { SegmentState::Sealed } else { SegmentState::Written };
            Ok(Some(Segment { reader, state }))
        })?;
        let Some(segment) = found else { return oldest_seqno.map_or(Ok(false), |oldest| Err(self.let_go(oldest))) };
        let header = segment.reader.header;
        if *self.log_id.get_or_insert(header.log_id) != header.log_id {
            let reason = format!("it is of log {:016x}", header.log_id);
            return Err(Error::corruption(&segment.reader.path, 16, reason));
        }
        // Compaction has been here since the reading began: what these deletes deleted may have been read before.
        if header.deletes_seqno > self.deletes_seqno.max(self.after_seqno) {
            return Err(self.let_go(header.deletes_seqno));
        }
        self.segment = Some(segment);
        Ok(true)
    }

    /// What follows what was read last is gone.
    fn let_go(&self, oldest_seqno: SeqNo) -> Error {
        let log_id = self.log_id.unwrap_or(0);
        let oldest = position(log_id, oldest_seqno);
        Error::PositionOutOfRange { position: position(log_id, self.after_seqno), newest: oldest.clone(), oldest }
    }

    /// At the end of what could be read of the segment: whether there is more to look at, here or in another one.
    fn go_on(&mut self, is_torn: bool) -> Result<bool> {
        let Some(segment) = &mut self.segment else { return Ok(false) };
        let listing = Listing::read(&self.fs, &self.directory)?;
        let log = listing.log();
        let Some(at) = log.iter().position(|name| *name == segment.reader.name) else {
            // Compacted, or a new owner's by now: what replaced it holds what was read, and what follows.
            self.after_seqno = self.after_seqno.max(segment.reader.last_seqno);
            self.segment = None;
            return Ok(!log.is_empty());
        };
        let next = log.get(at + 1);
        match (segment.state, next) {
            (SegmentState::Sealed, Some(next)) => {
                let end_seqno = segment.reader.last_seqno;
                if is_torn {
                    return Err(segment.reader.damaged("a sealed segment is torn"));
                }
                if next.prev_seqno > end_seqno {
                    let reason =
                        format!("it ends with number {end_seqno}, and the next one follows {}", next.prev_seqno);
                    return Err(segment.reader.damaged(reason));
                }
                self.after_seqno = self.after_seqno.max(end_seqno);
                self.segment = None;
                Ok(true)
            }
            (_, Some(_)) => {
                segment.state = SegmentState::Sealed;
                Ok(true)
            }
            // Whoever owned it may have begun another one since the look: this is asked again at the end of what is whole.
            (SegmentState::Written, None) if !is_owned(&self.fs, &self.directory, &listing.owners)? => {
                segment.state = SegmentState::Abandoned;
                Ok(true)
            }
            (_, None) => Ok(false),
        }
    }
}
