//! Reading the records of one segment.

use std::path::PathBuf;
use std::sync::Arc;

use siltstone::fs::{FileSystem, ReadableFile};
use siltstone::{ChangeBatch, SeqNo};

use super::format::{
    KIND_BATCH, KIND_MARK, RECORD_HEADER_BYTES, RecordHeader, SEGMENT_HEADER_BYTES, SegmentHeader, segment_path,
};
use crate::codec::{self, DecodeError};
use crate::error::{Error, Result};

/// How much is read at once, in bytes, unless a record is larger.
const CHUNK_BYTES: u64 = 256 << 10;

/// One segment file, being read.
#[derive(Debug)]
pub(super) struct SegmentReader {
    fs: Arc<dyn FileSystem>,
    file: Arc<dyn ReadableFile>,
    pub(super) path: PathBuf,
    pub(super) header: SegmentHeader,
    /// How long the file was when it was last asked.
    file_bytes: u64,
    chunk: Vec<u8>,
    chunk_offset: u64,
    /// Where in the file the next record begins.
    offset: u64,
    /// The last sequence number before that.
    pub(super) last_seqno: SeqNo,
}

/// What is at some place of a segment.
#[derive(Debug)]
enum Found {
    Batch(ChangeBatch, u64),
    Mark(u64),
    /// The file ends here.
    End,
    /// No record.
    Unreadable(&'static str),
}

/// What a segment holds next.
#[derive(Debug)]
pub(super) enum Next {
    Batch(ChangeBatch),
    /// The file ends, after whole records.
    End,
    /// What follows is no record, and nothing proves that it ever was.
    Torn,
}

impl SegmentReader {
    /// Opens the segment that begins at `position`; `None` if its header never got to storage, which only the last
    /// segment may say of itself.
    pub(super) fn open(fs: &Arc<dyn FileSystem>, directory: &std::path::Path, position: u64) -> Result<Option<Self>> {
        let path = segment_path(directory, position);
        let file = fs.open(&path).map_err(Error::io("opening a segment", &path))?;
        let file_bytes = file.len().map_err(Error::io("reading a segment", &path))?;
        let mut bytes = [0; SEGMENT_HEADER_BYTES as usize];
        if file_bytes < SEGMENT_HEADER_BYTES {
            return Ok(None);
        }
        file.read_exact_at(&mut bytes, 0).map_err(Error::io("reading a segment", &path))?;
        let header = match SegmentHeader::decode(&path, &bytes) {
            // The header is synced before the first record is written.
            Err(Error::Corruption { .. }) if file_bytes == SEGMENT_HEADER_BYTES => return Ok(None),
            header => header?,
        };
        if header.first_position != position {
            return Err(Error::corruption(&path, 16, format!("it begins at {}", header.first_position)));
        }
        Ok(Some(SegmentReader {
            fs: fs.clone(),
            file,
            path,
            header,
            file_bytes,
            chunk: Vec::new(),
            chunk_offset: 0,
            offset: SEGMENT_HEADER_BYTES,
            last_seqno: header.prev_seqno,
        }))
    }

    /// The position of the next record.
    pub(super) fn position(&self) -> u64 {
        self.position_of(self.offset)
    }

    /// Where in the file the next record begins.
    pub(super) fn offset(&self) -> u64 {
        self.offset
    }

    fn position_of(&self, offset: u64) -> u64 {
        self.header.first_position + (offset - SEGMENT_HEADER_BYTES)
    }

    /// The next batch, behind any marks.
    ///
    /// # Errors
    /// `Corruption` for what had been on storage and is unreadable now, `UnsupportedVersion`, `Io`.
    pub(super) fn next(&mut self) -> Result<Next> {
        loop {
            self.refresh()?;
            let found = match self.record()? {
                // Proof that the place was synced may also be proof that a writer finished it just now: look again.
                Found::Unreadable(_) if self.has_mark_behind()? => {
                    self.chunk.clear();
                    match self.record()? {
                        Found::Unreadable(reason) => return Err(self.damaged(reason)),
                        found => found,
                    }
                }
                found => found,
            };
            match found {
                Found::Batch(batch, record_bytes) => {
                    if batch.first_seqno() <= self.last_seqno {
                        return Err(self.damaged("the batch does not follow the one before it"));
                    }
                    self.offset += record_bytes;
                    self.last_seqno = batch.last_seqno();
                    return Ok(Next::Batch(batch));
                }
                Found::Mark(record_bytes) => self.offset += record_bytes,
                Found::End => return Ok(Next::End),
                Found::Unreadable(_) => return Ok(Next::Torn),
            }
        }
    }

    /// `Corruption` at the next record.
    pub(super) fn damaged(&self, reason: impl Into<String>) -> Error {
        Error::corruption(&self.path, self.offset, reason)
    }

    /// Asks for the length again at the end of what was known: a writer may have gone on.
    fn refresh(&mut self) -> Result<()> {
        if self.offset + RECORD_HEADER_BYTES > self.file_bytes {
            self.update_length()?;
        }
        Ok(())
    }

    /// By its name: a sink that was opened since may have put the records into a new file.
    fn update_length(&mut self) -> Result<()> {
        self.file = self.fs.open(&self.path).map_err(Error::io("opening a segment", &self.path))?;
        self.file_bytes = self.file.len().map_err(Error::io("reading a segment", &self.path))?;
        Ok(())
    }

    fn record(&mut self) -> Result<Found> {
        if self.offset == self.file_bytes {
            return Ok(Found::End);
        }
        let Some(header) = self.header_at(self.offset)? else {
            return Ok(Found::Unreadable("the record's checksum does not fit"));
        };
        if header.is_newer() {
            return Err(self.newer(format!("a record of kind {}", header.kind)));
        }
        let payload_offset = self.offset + RECORD_HEADER_BYTES;
        let Some(payload) = self.bytes(payload_offset, u64::from(header.payload_bytes))? else {
            return Ok(Found::Unreadable("the record is cut off"));
        };
        if !header.matches(payload) {
            return Ok(Found::Unreadable("the payload's checksum does not fit"));
        }
        if header.kind != KIND_BATCH {
            return Ok(Found::Mark(header.record_bytes()));
        }
        match codec::decode(payload) {
            Ok(batch) => Ok(Found::Batch(batch, header.record_bytes())),
            Err(DecodeError::Malformed(reason)) => Err(self.damaged(reason)),
            Err(error @ DecodeError::UnknownKind(_)) => Err(self.newer(error.to_string())),
        }
    }

    fn newer(&self, reason: String) -> Error {
        Error::UnsupportedVersion { file: self.path.clone(), reason }
    }

    fn header_at(&mut self, offset: u64) -> Result<Option<RecordHeader>> {
        let position = self.position_of(offset);
        let Some(bytes) = self.bytes(offset, RECORD_HEADER_BYTES)? else { return Ok(None) };
        let mut header = [0; RECORD_HEADER_BYTES as usize];
        header.copy_from_slice(bytes);
        Ok(RecordHeader::decode(&header, position))
    }

    /// `len` bytes from `offset` on, or `None` if the file ends before.
    fn bytes(&mut self, offset: u64, len: u64) -> Result<Option<&[u8]>> {
        let end = offset.saturating_add(len);
        if end > self.file_bytes {
            return Ok(None);
        }
        let chunk_end = self.chunk_offset + self.chunk.len() as u64;
        if offset < self.chunk_offset || end > chunk_end {
            let chunk_bytes = len.max(CHUNK_BYTES).min(self.file_bytes - offset);
            self.chunk.resize(chunk_bytes as usize, 0);
            self.chunk_offset = offset;
            if let Err(error) = self.file.read_exact_at(&mut self.chunk, offset) {
                self.chunk.clear();
                return Err(Error::io("reading a segment", &self.path)(error));
            }
        }
        let start = (offset - self.chunk_offset) as usize;
        Ok(self.chunk.get(start..start + len as usize))
    }

    /// Whether a mark lies anywhere behind the next record. Only for damage and torn tails: it looks at every byte.
    fn has_mark_behind(&mut self) -> Result<bool> {
        self.update_length()?;
        self.chunk.clear();
        let mut offset = self.offset + 1;
        while offset + RECORD_HEADER_BYTES <= self.file_bytes {
            if let Some(header) = self.header_at(offset)?
                && header.kind == KIND_MARK
            {
                return Ok(true);
            }
            offset += 1;
        }
        Ok(false)
    }
}
