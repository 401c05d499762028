//! Making segment files: under another name first, so that a segment is there as a whole or not at all.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use siltstone::fs::{FileSystem, ReadableFile, WritableFile};
use siltstone::{ChangeBatch, SeqNo};

use super::chain::SegmentName;
use super::format::{KIND_BATCH, KIND_END, Place, SEGMENT_HEADER_BYTES, SegmentEnd, SegmentHeader, append_record};
use crate::codec;
use crate::error::{Error, Result};

/// Batches are gathered up to this many bytes before they are written to a file.
pub(super) const BUFFER_BYTES: usize = 256 << 10;

/// How the names of unfinished segments end.
const UNFINISHED: &str = ".tmp";

/// A segment file that is being made.
#[derive(Debug)]
pub(super) struct Unfinished {
    fs: Arc<dyn FileSystem>,
    directory: PathBuf,
    path: PathBuf,
    file: Box<dyn WritableFile>,
    buffer: Vec<u8>,
}

impl Unfinished {
    /// Begins a file that is called `purpose` until it is finished. It begins with its header.
    pub(super) fn begin(fs: &Arc<dyn FileSystem>, directory: &Path, purpose: &str) -> Result<Self> {
        let path = directory.join(format!("{purpose}{UNFINISHED}"));
        let file = fs.create(&path).map_err(Error::io("creating a segment", &path))?;
        Ok(Unfinished { fs: fs.clone(), directory: directory.to_owned(), path, file, buffer: Vec::new() })
    }

    /// How long the file is so far.
    pub(super) fn file_bytes(&self) -> u64 {
        self.file.len() + self.buffer.len() as u64
    }

    pub(super) fn append(&mut self, bytes: &[u8]) -> Result<()> {
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() >= BUFFER_BYTES { self.write_out() } else { Ok(()) }
    }

    fn write_out(&mut self) -> Result<()> {
        self.file.append(&self.buffer).map_err(Error::io("writing a segment", &self.path))?;
        self.buffer.clear();
        Ok(())
    }

    /// Makes it the segment `name`, durably.
    pub(super) fn finish(mut self, name: SegmentName) -> Result<()> {
        self.write_out()?;
        self.file.sync().map_err(Error::io("syncing a segment", &self.path))?;
        let to = name.path(&self.directory);
        self.fs.rename(&self.path, &to).map_err(Error::io("naming a segment", &to))?;
        self.fs.sync_dir(&self.directory).map_err(Error::io("syncing the log's directory", &self.directory))
    }
}

/// Makes a segment for batches to be shipped to, of a header and the records of another one, those before `end_offset`;
/// without one it has none.
pub(super) fn create(
    fs: &Arc<dyn FileSystem>,
    directory: &Path,
    header: &SegmentHeader,
    records: Option<(&dyn ReadableFile, u64)>,
) -> Result<Box<dyn WritableFile>> {
    let name = SegmentName::shipped(header.prev_seqno, header.epoch);
    let path = name.path(directory);
    let mut segment = Unfinished::begin(fs, directory, "next")?;
    segment.append(&header.encode())?;
    if let Some((file, end_offset)) = records {
        let mut offset = SEGMENT_HEADER_BYTES;
        let mut chunk = vec![0; BUFFER_BYTES];
        while offset < end_offset {
            let chunk = &mut chunk[..(end_offset - offset).min(BUFFER_BYTES as u64) as usize];
            file.read_exact_at(chunk, offset).map_err(Error::io("reading a segment", &path))?;
            segment.append(chunk)?;
            offset += chunk.len() as u64;
        }
    }
    segment.finish(name)?;
    fs.open_append(&path).map_err(Error::io("opening a segment", &path))
}

/// A segment that compaction is making.
#[derive(Debug)]
pub(super) struct Rewriting {
    segment: Unfinished,
    header: SegmentHeader,
    place: Place,
    batches: u64,
    record: Vec<u8>,
}

impl Rewriting {
    pub(super) fn begin(fs: &Arc<dyn FileSystem>, directory: &Path, header: SegmentHeader) -> Result<Self> {
        let mut segment = Unfinished::begin(fs, directory, "compaction")?;
        segment.append(&header.encode())?;
        Ok(Rewriting { segment, header, place: header.place(), batches: 0, record: Vec::new() })
    }

    /// How long it is so far.
    pub(super) fn file_bytes(&self) -> u64 {
        self.segment.file_bytes()
    }

    pub(super) fn append(&mut self, batch: &ChangeBatch) -> Result<()> {
        self.batches += 1;
        self.append_record(KIND_BATCH, |out| codec::encode(batch, out))
    }

    /// As [`append`](Self::append), a batch as it is encoded.
    pub(super) fn append_encoded(&mut self, batch: &[u8]) -> Result<()> {
        self.batches += 1;
        self.append_record(KIND_BATCH, |out| {
            out.extend_from_slice(batch);
            Ok(())
        })
    }

    fn append_record(&mut self, kind: u8, encode: impl FnOnce(&mut Vec<u8>) -> Result<()>) -> Result<()> {
        self.record.clear();
        append_record(&mut self.record, kind, self.place, self.segment.file_bytes(), encode)?;
        self.segment.append(&self.record)
    }

    /// Publishes it as what stands for the numbers up to `last_seqno`; how long it is. `allowed` is asked at the last
    /// moment.
    pub(super) fn finish(
        mut self,
        last_seqno: SeqNo,
        epoch: u64,
        sealed_ms: u64,
        allowed: impl FnOnce() -> Result<()>,
    ) -> Result<u64> {
        let end = SegmentEnd { batches: self.batches, last_seqno, epoch, sealed_ms };
        self.append_record(KIND_END, |out| {
            end.encode(out);
            Ok(())
        })?;
        let file_bytes = self.segment.file_bytes();
        let (prev_seqno, generation) = (self.header.prev_seqno, self.header.generation);
        allowed()?;
        self.segment.finish(SegmentName { prev_seqno, last_seqno: Some(last_seqno), epoch, generation })?;
        Ok(file_bytes)
    }
}

/// Removes what was never finished.
pub(super) fn remove_unfinished(fs: &Arc<dyn FileSystem>, directory: &Path) -> Result<()> {
    let entries = fs.read_dir(directory).map_err(Error::io("listing the log", directory))?;
    for entry in entries.iter().filter(|entry| entry.name.ends_with(UNFINISHED)) {
        let path = directory.join(&entry.name);
        fs.remove_file(&path).map_err(Error::io("removing an unfinished segment", &path))?;
    }
    Ok(())
}
