//! [`FileSink`]: the writing end.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use siltstone::fs::{FileLock, FileSystem, LockKind, OsFileSystem, WritableFile};
use siltstone::{ChangeBatch, SeqNo};

use super::format::{
    KIND_BATCH, KIND_MARK, RECORD_HEADER_BYTES, RecordHeader, SEGMENT_HEADER_BYTES, SegmentHeader, list_segments,
    segment_path,
};
use super::reader::{Next, SegmentReader};
use crate::codec;
use crate::error::{Error, Result};
use crate::position::Position;
use crate::sink::{Sink, is_new};

/// Batches are gathered up to this many bytes before they are written to the file.
const BUFFER_BYTES: usize = 256 << 10;

/// The lock file.
const LOCK: &str = "LOCK";

/// The file in which a segment is written anew.
const TEMPORARY: &str = "segment.tmp";

/// How much of a segment is copied at once, in bytes.
const COPY_BYTES: u64 = 256 << 10;

/// How a [`FileSink`] is opened.
///
/// ```
/// # let dir = tempfile::tempdir().unwrap();
/// use siltstone_changelog::{FileSink, FileSinkOptions};
/// let sink = FileSink::open_with(dir.path(), FileSinkOptions::new().segment_bytes(16 << 20))?;
/// # Ok::<(), siltstone_changelog::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct FileSinkOptions {
    segment_bytes: u64,
    file_system: Arc<dyn FileSystem>,
}

impl Default for FileSinkOptions {
    fn default() -> Self {
        FileSinkOptions { segment_bytes: 64 << 20, file_system: Arc::new(OsFileSystem) }
    }
}

impl FileSinkOptions {
    /// The defaults.
    pub fn new() -> Self {
        FileSinkOptions::default()
    }

    /// The size at which a segment is sealed and the next one begun, in bytes; a single batch may make it larger.
    /// Default 64 MiB.
    pub fn segment_bytes(mut self, bytes: u64) -> Self {
        self.segment_bytes = bytes;
        self
    }

    /// Where the log lives; default the operating system's files.
    pub fn file_system(mut self, file_system: Arc<dyn FileSystem>) -> Self {
        self.file_system = file_system;
        self
    }
}

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
    file: Box<dyn WritableFile>,
    path: PathBuf,
    /// The position of the segment's first record.
    first_position: u64,
    /// Encoded records that are not in the file yet; the file ends at `written_bytes` without them.
    buffer: Vec<u8>,
    /// How much of the file is whole records.
    written_bytes: u64,
    /// An append failed, so that the file may be longer than `written_bytes`.
    tail_unknown: bool,
    /// Nothing was written since the last sync.
    synced: bool,
    /// The position after the last batch, marks behind it left out.
    end: u64,
    last_seqno: SeqNo,
    /// Why nothing is written any more: what a failed sync left on storage is unknown for good.
    failed: Option<String>,
    _lock: Box<dyn FileLock>,
}

impl FileSink {
    /// Opens the log in `directory`, creating it if it is missing, with default options. A tail that a crash left torn
    /// is cut off.
    ///
    /// # Errors
    /// `Locked` if another sink holds it, `Corruption` for damage that is not a torn tail, `UnsupportedVersion`, `Io`.
    pub fn open(directory: impl AsRef<Path>) -> Result<Self> {
        FileSink::open_with(directory, FileSinkOptions::default())
    }

    /// As [`open`](FileSink::open), with the options given.
    ///
    /// # Errors
    /// As [`open`](FileSink::open).
    pub fn open_with(directory: impl AsRef<Path>, options: FileSinkOptions) -> Result<Self> {
        let directory = directory.as_ref().to_owned();
        let fs = options.file_system.clone();
        fs.create_dir_all(&directory).map_err(Error::io("creating the log's directory", &directory))?;
        let lock = lock(&fs, &directory)?;
        let tail = recover(&fs, &directory)?;
        let Tail { first_position, prev_seqno, last_seqno, file_bytes, end, fresh } = tail;
        let path = segment_path(&directory, first_position);
        let file = if fresh {
            create_segment(&fs, &directory, SegmentHeader { first_position, prev_seqno })?
        } else {
            rewrite(&fs, &directory, &path, file_bytes)?;
            fs.open_append(&path).map_err(Error::io("opening a segment", &path))?
        };
        let mut sink = FileSink {
            directory,
            options,
            file,
            path,
            first_position,
            buffer: Vec::new(),
            written_bytes: file_bytes,
            tail_unknown: false,
            synced: fresh,
            end,
            last_seqno,
            failed: None,
            _lock: lock,
        };
        // With the mark that says that all of it is on storage.
        sink.flush()?;
        Ok(sink)
    }

    /// The position after the last batch that was appended.
    pub fn position(&self) -> Position {
        Position::from_number(self.end)
    }

    fn check(&self) -> Result<()> {
        match &self.failed {
            None => Ok(()),
            Some(reason) => Err(Error::Io {
                action: "the log takes nothing more: an earlier sync failed",
                path: self.path.clone(),
                source: io::Error::other(reason.clone()),
            }),
        }
    }

    /// Where the next record goes.
    fn next_position(&self) -> u64 {
        self.first_position + (self.written_bytes - SEGMENT_HEADER_BYTES) + self.buffer.len() as u64
    }

    /// Writes the buffer to the file. After an error it can be called again.
    fn write_out(&mut self) -> Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        if self.tail_unknown {
            self.cut_tail()?;
        }
        self.synced = false;
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

    /// Makes all records durable, and marks that.
    fn sync(&mut self) -> Result<()> {
        self.write_out()?;
        if self.synced {
            return Ok(());
        }
        if let Err(error) = self.file.sync() {
            self.failed = Some(error.to_string());
            return self.check();
        }
        self.synced = true;
        // The mark itself need not be on storage: it protects against damage, and goes with the next sync.
        let mark = RecordHeader::new(KIND_MARK, &[])?.encode(self.next_position());
        self.tail_unknown = true;
        self.file.append(&mark).map_err(Error::io("appending to the log", &self.path))?;
        self.tail_unknown = false;
        self.written_bytes += RECORD_HEADER_BYTES;
        Ok(())
    }

    /// Seals the segment and begins the next one.
    fn roll(&mut self) -> Result<()> {
        self.sync()?;
        // A mark may be torn, and behind a sealed segment's end there is no cutting it off.
        if self.tail_unknown {
            self.cut_tail()?;
        }
        // The last mark as well: a sealed segment is whole.
        if let Err(error) = self.file.sync() {
            self.failed = Some(error.to_string());
            return self.check();
        }
        let first_position = self.next_position();
        let header = SegmentHeader { first_position, prev_seqno: self.last_seqno };
        self.file = create_segment(&self.options.file_system, &self.directory, header)?;
        self.path = segment_path(&self.directory, first_position);
        self.first_position = first_position;
        self.written_bytes = SEGMENT_HEADER_BYTES;
        self.end = first_position;
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
        let position = self.next_position();
        let start = self.buffer.len();
        self.buffer.resize(start + RECORD_HEADER_BYTES as usize, 0);
        let header = codec::encode(batch, &mut self.buffer)
            .and_then(|()| RecordHeader::new(KIND_BATCH, &self.buffer[start + RECORD_HEADER_BYTES as usize..]))
            .inspect_err(|_| self.buffer.truncate(start))?;
        self.buffer[start..start + RECORD_HEADER_BYTES as usize].copy_from_slice(&header.encode(position));
        self.last_seqno = batch.last_seqno();
        self.end = self.next_position();
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

impl FileSink {
    fn has_records(&self) -> bool {
        self.end > self.first_position
    }
}

fn lock(fs: &Arc<dyn FileSystem>, directory: &Path) -> Result<Box<dyn FileLock>> {
    let path = directory.join(LOCK);
    fs.lock(&path, LockKind::Exclusive).map_err(|error| match error.kind() {
        io::ErrorKind::WouldBlock => Error::Locked { directory: directory.to_owned() },
        _ => Error::Io { action: "locking the log", path, source: error },
    })
}

/// Creates a segment; its header and its name are durable when this returns.
fn create_segment(fs: &Arc<dyn FileSystem>, directory: &Path, header: SegmentHeader) -> Result<Box<dyn WritableFile>> {
    let path = segment_path(directory, header.first_position);
    let mut file = fs.create(&path).map_err(Error::io("creating a segment", &path))?;
    file.append(&header.encode()).map_err(Error::io("writing a segment's header", &path))?;
    file.sync().map_err(Error::io("syncing a segment's header", &path))?;
    fs.sync_dir(directory).map_err(Error::io("syncing the log's directory", directory))?;
    Ok(file)
}

/// Where writing goes on.
struct Tail {
    first_position: u64,
    prev_seqno: SeqNo,
    last_seqno: SeqNo,
    file_bytes: u64,
    end: u64,
    /// The segment has to be created.
    fresh: bool,
}

/// Puts the first `file_bytes` of a segment into a new file under its name, durably. Syncing the file that was found
/// would not do: if a sync of it failed in the process before, the system may count pages as clean that never got to
/// storage. Not even a mark is proof for itself, and the sealed segment will have to be whole, marks included.
fn rewrite(fs: &Arc<dyn FileSystem>, directory: &Path, path: &Path, file_bytes: u64) -> Result<()> {
    let temporary = directory.join(TEMPORARY);
    let copy = || {
        let found = fs.open(path)?;
        let mut file = fs.create(&temporary)?;
        let mut chunk = vec![0; COPY_BYTES.min(file_bytes) as usize];
        while file.len() < file_bytes {
            chunk.truncate((file_bytes - file.len()).min(COPY_BYTES) as usize);
            found.read_exact_at(&mut chunk, file.len())?;
            file.append(&chunk)?;
        }
        file.sync()?;
        fs.rename(&temporary, path)?;
        fs.sync_dir(directory)
    };
    copy().map_err(Error::io("writing a segment anew", path))
}

/// Removes what an interrupted [`rewrite`] left.
fn remove_temporary(fs: &Arc<dyn FileSystem>, directory: &Path) -> Result<()> {
    let entries = fs.read_dir(directory).map_err(Error::io("listing the log", directory))?;
    if entries.iter().all(|entry| entry.name != TEMPORARY) {
        return Ok(());
    }
    let temporary = directory.join(TEMPORARY);
    fs.remove_file(&temporary).map_err(Error::io("removing an unfinished segment", &temporary))
}

/// Reads the last segment to the end of its whole records.
fn recover(fs: &Arc<dyn FileSystem>, directory: &Path) -> Result<Tail> {
    remove_temporary(fs, directory)?;
    let segments = list_segments(fs, directory)?;
    let Some(&first_position) = segments.last() else { return Ok(Tail::fresh(0, 0)) };
    let Some(mut reader) = SegmentReader::open(fs, directory, first_position)? else {
        return recover_without_header(fs, directory, &segments, first_position);
    };
    let mut end = first_position;
    // What is torn is not taken into the new file.
    while let Next::Batch(_) = reader.next()? {
        end = reader.position();
    }
    Ok(Tail {
        first_position,
        prev_seqno: reader.header.prev_seqno,
        last_seqno: reader.last_seqno,
        file_bytes: reader.offset(),
        end,
        fresh: false,
    })
}

/// The last segment's creation was cut short, so the one before it is sealed and tells where the log ends.
fn recover_without_header(
    fs: &Arc<dyn FileSystem>,
    directory: &Path,
    segments: &[u64],
    first_position: u64,
) -> Result<Tail> {
    let Some(&sealed) = segments.len().checked_sub(2).and_then(|index| segments.get(index)) else {
        return Ok(Tail::fresh(first_position, 0));
    };
    let damaged = |reason| Error::corruption(&segment_path(directory, sealed), 0, reason);
    let mut reader = SegmentReader::open(fs, directory, sealed)?.ok_or_else(|| damaged("its header is missing"))?;
    loop {
        match reader.next()? {
            Next::Batch(_) => {}
            Next::End if reader.position() == first_position => {
                return Ok(Tail::fresh(first_position, reader.last_seqno));
            }
            Next::End | Next::Torn => return Err(reader.damaged("a sealed segment ends too early")),
        }
    }
}

impl Tail {
    fn fresh(first_position: u64, last_seqno: SeqNo) -> Self {
        Tail {
            first_position,
            prev_seqno: last_seqno,
            last_seqno,
            file_bytes: SEGMENT_HEADER_BYTES,
            end: first_position,
            fresh: true,
        }
    }
}
