//! [`FileSource`]: the reading end.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use siltstone::ChangeBatch;
use siltstone::fs::{FileSystem, OsFileSystem};

use super::format::{list_segments, segment_path};
use super::reader::{Next, SegmentReader};
use crate::error::{Error, Result};
use crate::position::Position;
use crate::sink::{Batches, Source, until_error};

/// Reads the log that a [`FileSink`](crate::FileSink) writes, also while it writes. It changes nothing: what a crash
/// left torn at the end is the end.
///
/// A directory that is missing or empty is an empty log.
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

    /// The end of the log: the position after its last batch.
    fn newest(&self, segments: &[u64]) -> Result<u64> {
        let Some(&last) = segments.last() else { return Ok(0) };
        let mut end = last;
        if let Some(mut reader) = SegmentReader::open(&self.fs, &self.directory, last)? {
            while let Next::Batch(_) = reader.next()? {
                end = reader.position();
            }
        }
        Ok(end)
    }
}

impl Source for FileSource {
    fn bounds(&self) -> Result<(Position, Position)> {
        let segments = list_segments(&self.fs, &self.directory)?;
        let oldest = segments.first().copied().unwrap_or(0);
        Ok((Position::from_number(oldest), Position::from_number(self.newest(&segments)?)))
    }

    /// What is read is checked against its checksums. After its end the iterator goes on when the log has grown.
    fn read(&self, from: &Position) -> Result<Batches> {
        let position = from.to_number()?;
        let segments = list_segments(&self.fs, &self.directory)?;
        let out_of_range = |newest| Error::PositionOutOfRange {
            position: from.clone(),
            oldest: Position::from_number(segments.first().copied().unwrap_or(0)),
            newest: Position::from_number(newest),
        };
        let Some(&first) = segments.iter().rev().find(|&&first| first <= position) else {
            if segments.is_empty() && position == 0 {
                let mut tail = Batch { fs: self.fs.clone(), directory: self.directory.clone(), at: 0, reader: None };
                return Ok(until_error(move || tail.next()));
            }
            return Err(out_of_range(self.newest(&segments)?));
        };
        let mut batches = Batch { fs: self.fs.clone(), directory: self.directory.clone(), at: first, reader: None };
        // Record by record, since nothing else tells a position of this log from any other number.
        while batches.at < position {
            if batches.next()?.is_none() {
                return Err(out_of_range(batches.at));
            }
        }
        if batches.at > position {
            return Err(Error::InvalidArgument(format!("{from} is not a position of this log: no batch begins there")));
        }
        Ok(until_error(move || batches.next()))
    }
}

/// Batch after batch, over segments.
#[derive(Debug)]
struct Batch {
    fs: Arc<dyn FileSystem>,
    directory: PathBuf,
    /// Where the next batch begins, or a mark before it.
    at: u64,
    /// The segment that holds it; none before the first look.
    reader: Option<SegmentReader>,
}

impl Batch {
    fn next(&mut self) -> Result<Option<(Position, ChangeBatch)>> {
        loop {
            let Some(reader) = &mut self.reader else {
                if !self.enter(self.at)? {
                    return Ok(None);
                }
                continue;
            };
            let torn = match reader.next()? {
                Next::Batch(batch) => {
                    self.at = reader.position();
                    return Ok(Some((Position::from_number(self.at), batch)));
                }
                Next::End => false,
                Next::Torn => true,
            };
            let segments = list_segments(&self.fs, &self.directory)?;
            let (first, here) = (reader.header.first_position, reader.position());
            let Some(&later) = segments.iter().find(|&&later| later > first) else { return Ok(None) };
            // Sealed since: look again, now that no writer is at work on it.
            match reader.next()? {
                Next::Batch(batch) => {
                    self.at = reader.position();
                    return Ok(Some((Position::from_number(self.at), batch)));
                }
                Next::End if later == reader.position() => {}
                Next::End => return Err(reader.damaged(format!("the log goes on at {later}, not at {here}"))),
                Next::Torn => {
                    let reason = if torn { "a sealed segment is unreadable" } else { "a sealed segment is torn" };
                    return Err(reader.damaged(reason));
                }
            }
            let last_seqno = reader.last_seqno;
            if !self.enter(later)? {
                return Ok(None);
            }
            self.check_chain(last_seqno)?;
        }
    }

    /// Opens the segment that begins at `position`; false if it is not there yet, or not yet whole.
    fn enter(&mut self, position: u64) -> Result<bool> {
        let segments = list_segments(&self.fs, &self.directory)?;
        if !segments.contains(&position) {
            return Ok(false);
        }
        let reader = SegmentReader::open(&self.fs, &self.directory, position)?;
        if reader.is_none() && segments.last() != Some(&position) {
            let path = segment_path(&self.directory, position);
            return Err(Error::corruption(&path, 0, "a sealed segment without a header"));
        }
        let found = reader.is_some();
        if found {
            self.reader = reader;
            self.at = position;
        }
        Ok(found)
    }

    fn check_chain(&self, last_seqno: u64) -> Result<()> {
        match &self.reader {
            Some(reader) if reader.header.prev_seqno != last_seqno => Err(Error::corruption(
                &reader.path,
                24,
                format!("it follows sequence number {}, not {last_seqno}", reader.header.prev_seqno),
            )),
            _ => Ok(()),
        }
    }
}
