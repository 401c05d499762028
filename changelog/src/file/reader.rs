//! Reading the records of one segment.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use siltstone::bytes::Bytes;
use siltstone::fs::{FileSystem, ReadableFile};
use siltstone::{ChangeBatch, SeqNo};

use super::chain::SegmentName;
use super::format::{
    END_BYTES, KIND_BATCH, KIND_END, KIND_MARK, MARK_RECORD_BYTES, Place, RECORD_HEADER_BYTES, RecordHeader,
    SEGMENT_HEADER_BYTES, SegmentEnd, SegmentHeader,
};
use crate::codec::{DecodeError, Decoder, Encoded};
use crate::error::{Error, Result};

/// How much is read at once, in bytes, unless a record is larger.
const CHUNK_BYTES: u64 = 256 << 10;

/// One segment file, being read.
#[derive(Debug)]
pub(super) struct SegmentReader {
    file: Arc<dyn ReadableFile>,
    pub(super) path: PathBuf,
    pub(super) name: SegmentName,
    pub(super) header: SegmentHeader,
    place: Place,
    /// Of one that compaction made.
    pub(super) end: Option<SegmentEnd>,
    /// How long the file was when it was last asked.
    file_bytes: u64,
    /// What was read last; batches share its memory.
    chunk: Bytes,
    chunk_offset: u64,
    decoder: Decoder,
    /// Where in the file the next record begins.
    offset: u64,
    /// The last number before that; at the end of one that compaction made, the end of its range.
    pub(super) last_seqno: SeqNo,
    batches: u64,
    /// A mark is here, or nothing is marked behind.
    marked_offset: u64,
}

/// What becomes of a batch, and of the chunk it lies in.
pub(super) type Decode<'a, B> = dyn FnMut(Encoded<'_>, &Bytes) -> std::result::Result<B, DecodeError> + 'a;

/// What is at some place of a segment.
#[derive(Debug)]
enum Found {
    /// One that is not decoded yet, and where in the chunk it is.
    Batch(Range<usize>),
    Mark(SeqNo),
    /// The file ends here.
    End,
    /// No record.
    Unreadable(&'static str),
}

/// What a segment holds next.
#[derive(Debug)]
pub(super) enum Next<B = ChangeBatch> {
    Batch(B),
    /// The file ends, after whole records.
    End,
    /// What follows is no record, and nothing proves that it ever was.
    Torn,
}

impl SegmentReader {
    /// Opens a segment.
    ///
    /// # Errors
    /// `Io`, of kind `NotFound` for one that is gone, as after compaction; `Corruption`, `UnsupportedVersion`.
    pub(super) fn open(fs: &Arc<dyn FileSystem>, directory: &Path, name: SegmentName) -> Result<Self> {
        let path = name.path(directory);
        let file = fs.open(&path).map_err(Error::io("opening a segment", &path))?;
        let file_bytes = file.len().map_err(Error::io("reading a segment", &path))?;
        let mut bytes = [0; SEGMENT_HEADER_BYTES as usize];
        if file_bytes < SEGMENT_HEADER_BYTES {
            return Err(Error::corruption(&path, file_bytes, "the header is cut off"));
        }
        file.read_exact_at(&mut bytes, 0).map_err(Error::io("reading a segment", &path))?;
        let header = SegmentHeader::decode(&path, &bytes)?;
        let end = match name.last_seqno {
            Some(_) => Some(read_end(&path, &*file, file_bytes, &header)?),
            None => None,
        };
        check_name(&path, name, &header, end.as_ref())?;
        Ok(SegmentReader {
            file,
            path,
            name,
            header,
            place: header.place(),
            end,
            file_bytes,
            chunk: Bytes::new(),
            chunk_offset: 0,
            decoder: Decoder::default(),
            offset: SEGMENT_HEADER_BYTES,
            last_seqno: header.prev_seqno,
            batches: 0,
            marked_offset: SEGMENT_HEADER_BYTES,
        })
    }

    /// Where in the file the next record begins.
    pub(super) fn offset(&self) -> u64 {
        self.offset
    }

    /// The file, whatever name it has by now.
    pub(super) fn file(&self) -> &dyn ReadableFile {
        &*self.file
    }

    /// The next batch, behind any marks.
    ///
    /// # Errors
    /// `Corruption` for what had been on storage and is unreadable now, `UnsupportedVersion`, `Io`.
    pub(super) fn next(&mut self) -> Result<Next> {
        self.next_with(&mut |batch, chunk| batch.to_batch(chunk))
    }

    /// What `decode` makes of the next batch, which lies in a chunk, behind any marks.
    ///
    /// # Errors
    /// As [`next`](Self::next).
    pub(super) fn next_with<B>(&mut self, decode: &mut Decode<'_, B>) -> Result<Next<B>> {
        loop {
            self.refresh()?;
            let found = match self.record()? {
                Found::Unreadable(reason) if self.end.is_some() => return Err(self.damaged(reason)),
                // Proof that the place was synced may also be proof that a writer finished it just now: look again.
                Found::Unreadable(_) if self.has_mark_behind()? => {
                    self.chunk = Bytes::new();
                    match self.record()? {
                        Found::Unreadable(reason) => return Err(self.damaged(reason)),
                        found => found,
                    }
                }
                found => found,
            };
            match found {
                Found::Batch(at) => return self.batch(at, decode).map(Next::Batch),
                Found::Mark(last_seqno) if last_seqno == self.last_seqno => self.offset += MARK_RECORD_BYTES,
                Found::Mark(last_seqno) => {
                    return Err(self.damaged(format!("number {last_seqno} is said to be the last one before it")));
                }
                Found::End => {
                    self.check_end()?;
                    return Ok(Next::End);
                }
                Found::Unreadable(_) => return Ok(Next::Torn),
            }
        }
    }

    fn batch<B>(&mut self, at: Range<usize>, decode: &mut Decode<'_, B>) -> Result<B> {
        let record_bytes = RECORD_HEADER_BYTES + at.len() as u64;
        let batch = match self.decoder.open(&self.chunk[at]) {
            Ok(batch) if batch.numbers.first <= self.last_seqno => {
                return Err(self.damaged("the batch does not follow the one before it"));
            }
            Ok(batch) => {
                let last_seqno = batch.numbers.last;
                decode(batch, &self.chunk).map(|batch| (batch, last_seqno))
            }
            Err(error) => Err(error),
        };
        match batch {
            Ok((batch, last_seqno)) => {
                (self.offset, self.last_seqno) = (self.offset + record_bytes, last_seqno);
                self.batches += 1;
                Ok(batch)
            }
            Err(DecodeError::Malformed(reason)) => Err(self.damaged(reason)),
            Err(error @ DecodeError::UnknownKind(_)) => Err(self.newer(error.to_string())),
        }
    }

    /// As [`next_with`](Self::next_with), of what lies under a mark.
    pub(super) fn next_marked_with<B>(&mut self, decode: &mut Decode<'_, B>) -> Result<Next<B>> {
        if self.offset >= self.marked_offset && !self.find_mark()? {
            return Ok(Next::End);
        }
        self.next_with(decode)
    }

    /// The last number in the segment, if its file ends with what tells: a mark, or the end of what compaction made.
    pub(super) fn newest_seqno(&mut self) -> Result<Option<SeqNo>> {
        if let Some(end) = self.end {
            return Ok(Some(end.last_seqno));
        }
        self.update_length()?;
        let Some(offset) = self.file_bytes.checked_sub(MARK_RECORD_BYTES) else { return Ok(None) };
        let header = self.header_at(offset)?.filter(|header| header.kind == KIND_MARK);
        let Some(header) = header else { return Ok(None) };
        let payload = self.bytes(offset + RECORD_HEADER_BYTES, u64::from(header.payload_bytes))?;
        let payload = payload.map(|at| &self.chunk[at]).filter(|payload| header.matches(payload));
        Ok(payload.and_then(|payload| payload.try_into().ok()).map(u64::from_le_bytes))
    }

    /// Looks for the next mark behind whole records, beginning with the next one.
    fn find_mark(&mut self) -> Result<bool> {
        self.update_length()?;
        let mut offset = self.offset;
        while let Some(header) = self.header_at(offset)? {
            if header.kind == KIND_MARK && offset > self.offset {
                self.marked_offset = offset;
                return Ok(true);
            }
            offset += header.record_bytes();
        }
        Ok(false)
    }

    /// What compaction made has to hold as many batches as it says.
    fn check_end(&mut self) -> Result<()> {
        let Some(end) = self.end else { return Ok(()) };
        if self.batches != end.batches || self.last_seqno > end.last_seqno {
            return Err(self.damaged(format!("it has {} batches, not {}", self.batches, end.batches)));
        }
        self.last_seqno = end.last_seqno;
        Ok(())
    }

    /// `Corruption` at the next record.
    pub(super) fn damaged(&self, reason: impl Into<String>) -> Error {
        Error::corruption(&self.path, self.offset, reason)
    }

    /// Asks for the length again at the end of what was known: a writer may have gone on.
    fn refresh(&mut self) -> Result<()> {
        if self.end.is_none() && self.offset + RECORD_HEADER_BYTES > self.file_bytes {
            self.update_length()?;
        }
        Ok(())
    }

    /// By the handle, and not by the name: that may be gone.
    fn update_length(&mut self) -> Result<()> {
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
        let is_end = self.end.is_some() && payload_offset + END_BYTES == self.file_bytes;
        let Some(at) = self.bytes(payload_offset, u64::from(header.payload_bytes))? else {
            return Ok(Found::Unreadable("the record is cut off"));
        };
        let payload = &self.chunk[at.clone()];
        if !header.matches(payload) {
            return Ok(Found::Unreadable("the payload's checksum does not fit"));
        }
        match header.kind {
            KIND_BATCH => Ok(Found::Batch(at)),
            KIND_MARK => match payload.try_into() {
                Ok(last_seqno) => Ok(Found::Mark(u64::from_le_bytes(last_seqno))),
                Err(_) => Err(self.damaged("a mark of another length")),
            },
            // Opening has looked at it, and it is the last thing in the file.
            KIND_END if is_end => Ok(Found::End),
            _ => Err(self.damaged("an end in the middle")),
        }
    }

    fn newer(&self, reason: String) -> Error {
        Error::UnsupportedVersion { file: self.path.clone(), reason }
    }

    fn header_at(&mut self, offset: u64) -> Result<Option<RecordHeader>> {
        let Some(at) = self.bytes(offset, RECORD_HEADER_BYTES)? else { return Ok(None) };
        let bytes = self.chunk[at].first_chunk();
        Ok(bytes.and_then(|bytes| RecordHeader::decode(bytes, self.place, offset)))
    }

    /// Where in the chunk `len` bytes from `offset` on are, or `None` if the file ends before.
    fn bytes(&mut self, offset: u64, len: u64) -> Result<Option<Range<usize>>> {
        let end = offset.saturating_add(len);
        if end > self.file_bytes {
            return Ok(None);
        }
        let chunk_end = self.chunk_offset + self.chunk.len() as u64;
        if offset < self.chunk_offset || end > chunk_end {
            self.load(offset, len.max(CHUNK_BYTES).min(self.file_bytes - offset))?;
        }
        let start = (offset - self.chunk_offset) as usize;
        Ok(Some(start..start + len as usize))
    }

    fn load(&mut self, offset: u64, len: u64) -> Result<()> {
        self.chunk = Bytes::new();
        let mut chunk = vec![0; len as usize];
        self.file.read_exact_at(&mut chunk, offset).map_err(Error::io("reading a segment", &self.path))?;
        (self.chunk, self.chunk_offset) = (chunk.into(), offset);
        // A name's count of references is not to go to and fro between those who read on and those who let go.
        self.decoder = Decoder::default();
        Ok(())
    }

    /// Whether a mark lies anywhere behind the next record. Only for damage and torn tails: it looks at every byte.
    fn has_mark_behind(&mut self) -> Result<bool> {
        self.update_length()?;
        self.chunk = Bytes::new();
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

/// The end of what compaction made.
fn read_end(path: &Path, file: &dyn ReadableFile, file_bytes: u64, header: &SegmentHeader) -> Result<SegmentEnd> {
    let offset = file_bytes.saturating_sub(RECORD_HEADER_BYTES + END_BYTES).max(SEGMENT_HEADER_BYTES);
    let damaged = || Error::corruption(path, offset, "it has no end");
    let (mut record, mut payload) = ([0; RECORD_HEADER_BYTES as usize], [0; END_BYTES as usize]);
    if offset + RECORD_HEADER_BYTES + END_BYTES != file_bytes {
        return Err(damaged());
    }
    file.read_exact_at(&mut record, offset)
        .and_then(|()| file.read_exact_at(&mut payload, offset + RECORD_HEADER_BYTES))
        .map_err(Error::io("reading a segment", path))?;
    match RecordHeader::decode(&record, header.place(), offset) {
        Some(record) if record.kind == KIND_END && record.matches(&payload) => Ok(SegmentEnd::decode(&payload)),
        _ => Err(damaged()),
    }
}

/// A segment that was exchanged for another one does not pass for it.
fn check_name(path: &Path, name: SegmentName, header: &SegmentHeader, end: Option<&SegmentEnd>) -> Result<()> {
    let here = SegmentName {
        prev_seqno: header.prev_seqno,
        last_seqno: end.map(|end| end.last_seqno),
        epoch: end.map_or(header.epoch, |end| end.epoch),
        generation: header.generation,
    };
    if here != name {
        return Err(Error::corruption(path, 16, format!("it is the segment {here}")));
    }
    let is_plain = header.clean_seqno == 0 && header.deletes_seqno == 0 && !header.is_clean && !header.is_whole;
    if end.is_none() && !is_plain {
        return Err(Error::corruption(path, 56, "it says of itself what only compaction does"));
    }
    Ok(())
}
