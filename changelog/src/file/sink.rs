//! [`FileSink`]: the writing end.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use siltstone::fs::WritableFile;
use siltstone::{ChangeBatch, SeqNo};

use super::chain::{Listing, SegmentName};
use super::cleaner::LogCleaner;
use super::format::{
    KIND_BATCH, KIND_MARK, MARK_RECORD_BYTES, Place, SEGMENT_HEADER_BYTES, SegmentHeader, append_record,
};
use super::options::FileSinkOptions;
use super::owner::{Becoming, Owner};
use super::recover::{Tail, fresh, recover};
use super::segment::BUFFER_BYTES;
use super::source::position;
use crate::codec;
use crate::error::{Error, Result};
use crate::position::Position;
use crate::sink::{Sink, is_new};

/// A log in a directory of segment files. One sink owns the directory at a time; any number of
/// [`FileSource`](crate::FileSource)s may read it meanwhile.
///
/// Batches that it has already, by their numbers, it skips. Dropping it writes out nothing: what matters was flushed.
///
/// ```
/// # let dir = tempfile::tempdir().unwrap();
/// use siltstone::{Change, ChangeBatch};
/// use siltstone_changelog::{FileSink, FileSource, Sink, Source};
/// let batch = ChangeBatch::new(1, vec![Change::Delete { keyspace: "words".into(), key: "silt".into() }])?;
/// let mut sink = FileSink::open(dir.path())?;
/// sink.append(&batch)?;
/// let end = sink.flush()?;
///
/// let source = FileSource::open(dir.path());
/// let (oldest, newest) = source.bounds()?;
/// assert_eq!(newest, end);
/// let read: Vec<_> = source.read(&oldest)?.collect::<Result<_, _>>()?;
/// assert_eq!(read, [(end, batch)]);
/// # Ok::<(), siltstone_changelog::Error>(())
/// ```
#[derive(Debug)]
pub struct FileSink {
    directory: PathBuf,
    options: FileSinkOptions,
    owner: Arc<Owner>,
    cleaner: LogCleaner,
    file: Box<dyn WritableFile>,
    path: PathBuf,
    header: SegmentHeader,
    place: Place,
    /// Encoded records that are not in the file yet; the file ends at `written_bytes` without them.
    buffer: Vec<u8>,
    /// How much of the file is whole records.
    written_bytes: u64,
    /// An append failed, so that the file may be longer than `written_bytes`.
    tail_unknown: bool,
    /// No record was written since the last sync.
    synced: bool,
    /// Nor since the last mark.
    marked: bool,
    last_seqno: SeqNo,
    failed: Option<Failure>,
}

/// Why nothing is written any more.
#[derive(Debug)]
enum Failure {
    /// A sync failed: what is on storage is unknown for good.
    Sync(String),
    /// There is another owner.
    Fenced,
}

impl FileSink {
    /// Opens the log in `directory`, creating it if it is missing, with default options. A tail that a crash left torn
    /// is cut off.
    ///
    /// # Errors
    /// `Locked` if another sink holds it and is not to be [taken over from](FileSinkOptions::take_over), `Corruption` for
    /// damage that is not a torn tail, `UnsupportedVersion`, `Io`.
    pub fn open(directory: impl AsRef<Path>) -> Result<Self> {
        FileSink::open_with(directory, FileSinkOptions::default())
    }

    /// As [`open`](FileSink::open), with the options given.
    ///
    /// # Errors
    /// As [`open`](FileSink::open).
    pub fn open_with(directory: impl AsRef<Path>, options: FileSinkOptions) -> Result<Self> {
        options.check()?;
        let directory = directory.as_ref().to_owned();
        let fs = options.file_system.clone();
        fs.create_dir_all(&directory).map_err(Error::io("creating the log's directory", &directory))?;
        let becoming = Becoming::begin(&fs, &directory, &*options.clock)?;
        let listing = Listing::read(&fs, &directory)?;
        let owner = Arc::new(becoming.finish(&listing, options.take_over, &*options.clock)?);
        let tail = recover(&fs, &directory, owner.epoch, options.now_ms())?;
        drop(becoming);
        let Tail { header, file, file_bytes, last_seqno } = tail;
        let cleaner = LogCleaner::new(&directory, &options, &owner)?;
        let mut sink = FileSink {
            path: segment_path(&directory, &header),
            directory,
            options,
            owner,
            cleaner,
            file,
            header,
            place: header.place(),
            buffer: Vec::new(),
            written_bytes: file_bytes,
            tail_unknown: false,
            synced: true,
            marked: file_bytes == SEGMENT_HEADER_BYTES,
            last_seqno,
            failed: None,
        };
        // With the mark that says that all of it is on storage.
        sink.flush()?;
        Ok(sink)
    }

    /// The position after the last batch that was appended.
    pub fn position(&self) -> Position {
        position(self.header.log_id, self.last_seqno)
    }

    /// A handle on what is done with sealed segments, for when the sink itself is shipped to.
    pub fn cleaner(&self) -> LogCleaner {
        self.cleaner.clone()
    }

    fn check(&self) -> Result<()> {
        match &self.failed {
            None => Ok(()),
            Some(Failure::Fenced) => Err(Error::Fenced { log: self.directory.display().to_string() }),
            Some(Failure::Sync(reason)) => Err(Error::Io {
                action: "the log takes nothing more: an earlier sync failed",
                path: self.path.clone(),
                source: io::Error::other(reason.clone()),
            }),
        }
    }

    /// Whether the log is still this sink's.
    fn check_owner(&mut self) -> Result<()> {
        let checked = self.owner.check();
        if let Err(Error::Fenced { .. }) = checked {
            self.failed = Some(Failure::Fenced);
        }
        checked
    }

    /// Where in the file the next record goes.
    fn next_offset(&self) -> u64 {
        self.written_bytes + self.buffer.len() as u64
    }

    fn has_records(&self) -> bool {
        self.last_seqno > self.header.prev_seqno
    }

    /// Writes the buffer to the file. After an error it can be called again.
    fn write_out(&mut self) -> Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        if self.tail_unknown {
            self.cut_tail()?;
        }
        (self.synced, self.marked) = (false, false);
        self.tail_unknown = true;
        self.file.append(&self.buffer).map_err(Error::io("appending to the log", &self.path))?;
        self.tail_unknown = false;
        self.written_bytes += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }

    fn cut_tail(&mut self) -> Result<()> {
        let fs = &self.options.file_system;
        fs.truncate(&self.path, self.written_bytes).map_err(Error::io("cutting off a torn record", &self.path))?;
        self.file = fs.open_append(&self.path).map_err(Error::io("opening a segment", &self.path))?;
        self.tail_unknown = false;
        Ok(())
    }

    /// Makes all records durable, and marks that. After an error that is no failed sync it can be called again.
    fn sync(&mut self) -> Result<()> {
        self.write_out()?;
        if !self.synced {
            self.sync_file()?;
            self.synced = true;
        }
        // After the sync: who takes over later than this reads what was synced.
        self.check_owner()?;
        if self.marked {
            return Ok(());
        }
        if self.tail_unknown {
            self.cut_tail()?;
        }
        // The mark itself need not be on storage: it protects against damage, and goes with the next sync.
        let mut mark = Vec::with_capacity(MARK_RECORD_BYTES as usize);
        append_record(&mut mark, KIND_MARK, self.place, self.written_bytes, |out| {
            out.extend_from_slice(&self.last_seqno.to_le_bytes());
            Ok(())
        })?;
        self.tail_unknown = true;
        self.file.append(&mark).map_err(Error::io("appending to the log", &self.path))?;
        (self.tail_unknown, self.marked) = (false, true);
        self.written_bytes += MARK_RECORD_BYTES;
        Ok(())
    }

    fn sync_file(&mut self) -> Result<()> {
        match self.file.sync() {
            Ok(()) => Ok(()),
            Err(error) => {
                self.failed = Some(Failure::Sync(error.to_string()));
                self.check()
            }
        }
    }

    /// Seals the segment and begins the next one.
    fn roll(&mut self) -> Result<()> {
        self.sync()?;
        // The last mark as well: a sealed segment is whole.
        self.sync_file()?;
        let (fs, log_id, now_ms) = (&self.options.file_system, self.header.log_id, self.options.now_ms());
        let next = fresh(fs, &self.directory, self.last_seqno, log_id, self.owner.epoch, now_ms)?;
        self.path = segment_path(&self.directory, &next.header);
        self.cleaner.sealed(self.written_bytes);
        (self.file, self.written_bytes) = (next.file, next.file_bytes);
        (self.header, self.place) = (next.header, next.header.place());
        Ok(())
    }
}

impl Sink for FileSink {
    fn append(&mut self, batch: &ChangeBatch) -> Result<()> {
        self.check()?;
        if !is_new(batch, self.last_seqno)? {
            return Ok(());
        }
        if self.written_bytes + self.buffer.len() as u64 >= self.options.segment_bytes && self.has_records() {
            self.roll()?;
        }
        if self.buffer.len() >= BUFFER_BYTES {
            self.write_out()?;
        }
        let (place, offset) = (self.place, self.next_offset());
        append_record(&mut self.buffer, KIND_BATCH, place, offset, |out| codec::encode(batch, out))?;
        self.last_seqno = batch.last_seqno();
        Ok(())
    }

    fn flush(&mut self) -> Result<Position> {
        self.check()?;
        self.sync()?;
        Ok(self.position())
    }

    fn last_seqno(&mut self) -> Result<Option<SeqNo>> {
        Ok(Some(self.last_seqno))
    }
}

impl Drop for FileSink {
    fn drop(&mut self) {
        self.cleaner.stop();
    }
}

fn segment_path(directory: &Path, header: &SegmentHeader) -> PathBuf {
    SegmentName::shipped(header.prev_seqno, header.epoch).path(directory)
}
