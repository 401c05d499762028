//! One segment of the log: what all threads know of it, and reading it.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;

use super::format::{self, HEADER_BYTES, RECORD_ALIGN, RECORD_HEADER_BYTES, RecordHeader, SegmentHeader};
use crate::error::{Error, Result};
use crate::fs::{FileSystem, MappedSync, ReadableFile, copy};
use crate::key::SeqNo;
use crate::sync::atomic::AtomicU64;

/// How much is read from a segment at once, in bytes.
const CHUNK_BYTES: u64 = 256 << 10;

/// A segment as the log lists it. Whoever holds one keeps its file from being recycled, not from being removed.
#[derive(Debug)]
pub(super) struct Segment {
    pub(super) number: u64,
    pub(super) path: PathBuf,
    /// The last logged sequence number before this segment.
    pub(super) prev_seqno: SeqNo,
    /// The file's length.
    pub(super) file_bytes: u64,
    /// Where the last record ends; stored by the writer (release) after the record's bytes, so a reader that loads it
    /// (acquire) finds whole records below it.
    pub(super) end: AtomicU64,
    pub(super) backing: Backing,
}

/// How a segment is made durable.
#[derive(Debug)]
pub(super) enum Backing {
    /// Written by this process.
    Mapped(Arc<dyn MappedSync>),
    /// Found by recovery.
    Recovered,
}

impl Segment {
    /// Makes the bytes `start..end` durable.
    pub(super) fn sync(&self, fs: &dyn FileSystem, start: u64, end: u64) -> Result<()> {
        let synced = match &self.backing {
            Backing::Mapped(syncer) => syncer.sync(start..end),
            Backing::Recovered => self.rewrite(fs),
        };
        synced.map_err(Error::io("sync log segment", &self.path))
    }

    /// Puts the segment into a new file under its name, durably. Syncing the file that was found would not do: if a sync
    /// of it failed in the process before, the system may count pages as clean that never got to storage.
    fn rewrite(&self, fs: &dyn FileSystem) -> io::Result<()> {
        let dir = self.path.parent().unwrap_or(Path::new(""));
        // The next open removes it, if it stays.
        let temporary = format::spare_path(dir, self.number);
        copy(fs, &*fs.open(&self.path)?, &temporary)?;
        fs.rename(&temporary, &self.path)?;
        fs.sync_dir(dir)
    }
}

/// One record as read back.
#[derive(Clone, Debug)]
pub(super) struct Record {
    pub(super) header: RecordHeader,
    pub(super) payload: Bytes,
}

/// Reads a segment's file in chunks. Every length found in the file is checked against `limit`, which never exceeds the
/// file, before it is used.
#[derive(Debug)]
pub(super) struct SegmentReader {
    file: Arc<dyn ReadableFile>,
    pub(super) path: PathBuf,
    number: u64,
    database_id: u64,
    salt: u32,
    chunk: Bytes,
    chunk_start: u64,
}

impl SegmentReader {
    /// Opens the file of segment `number`.
    pub(super) fn open(fs: &dyn FileSystem, path: &Path, number: u64, database_id: u64) -> Result<Self> {
        Ok(SegmentReader {
            file: fs.open(path).map_err(Error::io("open log segment", path))?,
            path: path.to_owned(),
            number,
            database_id,
            salt: format::salt(database_id, number),
            chunk: Bytes::new(),
            chunk_start: 0,
        })
    }

    /// The file's length in bytes.
    pub(super) fn file_bytes(&self) -> Result<u64> {
        self.file.len().map_err(Error::io("read log segment", &self.path))
    }

    /// The segment's header, or why there is none; see [`SegmentHeader::decode`].
    pub(super) fn header(&mut self, limit: u64) -> Result<std::result::Result<SegmentHeader, &'static str>> {
        match self.header_bytes(limit)? {
            Some(bytes) => SegmentHeader::decode(&bytes, self.number, self.database_id, &self.path),
            None => Ok(Err("the file is shorter than a segment header")),
        }
    }

    /// The bytes where the header is; `None` if the file is shorter.
    ///
    /// # Errors
    /// Reading failed.
    pub(super) fn header_bytes(&mut self, limit: u64) -> Result<Option<[u8; HEADER_BYTES as usize]>> {
        if limit < HEADER_BYTES {
            return Ok(None);
        }
        let at = self.load(0, HEADER_BYTES, limit)?;
        Ok(self.chunk[at..].first_chunk().copied())
    }

    /// The record at `offset` if one lies there whole, below `limit`; otherwise why not.
    ///
    /// # Errors
    /// Reading failed.
    pub(super) fn record(&mut self, offset: u64, limit: u64) -> Result<std::result::Result<Record, &'static str>> {
        const HEADER: u64 = RECORD_HEADER_BYTES as u64;
        if limit.saturating_sub(offset) < HEADER {
            return Ok(Err("the file ends"));
        }
        let at = self.load(offset, HEADER, limit)?;
        let header = match self.chunk[at..].first_chunk() {
            Some(bytes) => RecordHeader::decode(bytes, self.salt, self.number),
            None => Err("the file ends"),
        };
        let header = match header {
            Ok(header) => header,
            Err(reason) => return Ok(Err(reason)),
        };
        let payload_bytes = u64::from(header.payload_bytes);
        if payload_bytes > limit - offset - HEADER {
            return Ok(Err("the record reaches past the end of the file"));
        }
        let at = self.load(offset, HEADER + payload_bytes, limit)? + RECORD_HEADER_BYTES;
        let payload = self.chunk.slice(at..at + header.payload_bytes as usize);
        if format::payload_crc(self.salt, &payload) != header.payload_crc {
            return Ok(Err("the checksum of the record's payload does not fit"));
        }
        Ok(Ok(Record { header, payload }))
    }

    /// The intact record header at `offset`, whatever its payload is like.
    ///
    /// # Errors
    /// Reading failed.
    pub(super) fn record_header(&mut self, offset: u64, limit: u64) -> Result<Option<RecordHeader>> {
        if limit.saturating_sub(offset) < RECORD_HEADER_BYTES as u64 {
            return Ok(None);
        }
        let at = self.load(offset, RECORD_HEADER_BYTES as u64, limit)?;
        let bytes = self.chunk[at..].first_chunk();
        Ok(bytes.and_then(|bytes| RecordHeader::decode(bytes, self.salt, self.number).ok()))
    }

    /// Checks that the header is intact and continues the log at `prev_seqno`.
    ///
    /// # Errors
    /// `Corruption`; reading failed.
    pub(super) fn check_header(&mut self, prev_seqno: SeqNo) -> Result<()> {
        let file_bytes = self.file_bytes()?;
        match self.header(file_bytes)? {
            Ok(header) if header.prev_seqno == prev_seqno => Ok(()),
            Ok(_) => Err(Error::corruption(&self.path, 40, "the segment does not follow the one before it")),
            Err(reason) => Err(Error::corruption(&self.path, 0, reason)),
        }
    }

    /// Checks that the bytes between the records up to `end`, which are intact, are zeros, as they are written. The last
    /// record of a file may have none behind it.
    ///
    /// # Errors
    /// `Corruption` naming the first place that is not zero; reading failed.
    pub(super) fn check_padding(&mut self, end: u64) -> Result<()> {
        let mut offset = HEADER_BYTES;
        while let Some(header) = self.record_header(offset, end)? {
            let padding_at = offset + RECORD_HEADER_BYTES as u64 + u64::from(header.payload_bytes);
            offset += header.record_bytes();
            let bytes = offset.min(end).saturating_sub(padding_at);
            let at = self.load(padding_at, bytes, end)?;
            if self.chunk[at..at + bytes as usize].iter().any(|&byte| byte != 0) {
                return Err(Error::corruption(&self.path, padding_at, "the bytes behind a record are not zeros"));
            }
        }
        Ok(())
    }

    /// Searches `from..limit` for intact record headers.
    ///
    /// # Errors
    /// Reading failed.
    pub(super) fn search(&mut self, from: u64, limit: u64) -> Result<Remains> {
        let mut remains = Remains { synced_seqno: 0, end: from };
        let mut offset = from.next_multiple_of(RECORD_ALIGN);
        while limit.saturating_sub(offset) >= RECORD_HEADER_BYTES as u64 {
            let mut at = self.load(offset, RECORD_HEADER_BYTES as u64, limit)?;
            while let Some(bytes) = self.chunk[at..].first_chunk() {
                if let Ok(header) = RecordHeader::decode(bytes, self.salt, self.number) {
                    remains.synced_seqno = remains.synced_seqno.max(header.synced_seqno);
                    remains.end = remains.end.max(limit.min(offset + header.record_bytes()));
                }
                at += RECORD_ALIGN as usize;
                offset += RECORD_ALIGN;
                if at > self.chunk.len() {
                    break;
                }
            }
        }
        Ok(remains)
    }

    /// Makes `offset..offset + len`, which lies below `limit`, part of the chunk (shorter if it reaches past `limit`)
    /// and answers where in the chunk `offset` is.
    fn load(&mut self, offset: u64, len: u64, limit: u64) -> Result<usize> {
        let chunk_end = self.chunk_start + self.chunk.len() as u64;
        if offset < self.chunk_start || offset + len > chunk_end {
            let wanted = len.max(CHUNK_BYTES).min(limit.saturating_sub(offset));
            let mut chunk = vec![0; wanted as usize];
            self.file.read_exact_at(&mut chunk, offset).map_err(Error::io("read log segment", &self.path))?;
            self.chunk = chunk.into();
            self.chunk_start = offset;
        }
        Ok((offset - self.chunk_start) as usize)
    }
}

/// What lies behind the end of a log.
#[derive(Clone, Copy, Debug)]
pub(super) struct Remains {
    /// The highest `synced_seqno` of any intact record header.
    pub(super) synced_seqno: SeqNo,
    /// Where the last record ends.
    pub(super) end: u64,
}
