//! The appending half of the log.

use std::sync::Arc;

use super::Wal;
use super::format::{self, HEADER_BYTES, RECORD_ALIGN, RECORD_HEADER_BYTES, RecordHeader};
use super::segment::Segment;
use crate::error::{Error, Result};
use crate::fs::MappedFile;
use crate::key::{MAX_SEQNO, SeqNo};
use crate::sync::atomic::Ordering;

/// Appends records; owned by whoever holds the commit lock.
///
/// A record is a copy into a mapped file: it survives the death of the process once [`append`](WalWriter::append)
/// returned, and a power cut once [`Wal::sync_through`] did.
#[derive(Debug)]
pub(crate) struct WalWriter {
    wal: Arc<Wal>,
    file: Box<dyn MappedFile>,
    segment: Arc<Segment>,
    /// The fields below repeat what the segment and the log hold, so that an append touches no shared line that it does
    /// not write.
    salt: u32,
    end: u64,
    last_seqno: SeqNo,
    /// Where in the segment it is time to prepare the next one; `u64::MAX` once that was said.
    spare_mark: u64,
    failed: Option<String>,
}

impl WalWriter {
    /// A writer that continues at the start of `segment`, whose header is written.
    pub(super) fn new(wal: Arc<Wal>, file: Box<dyn MappedFile>, segment: Arc<Segment>) -> Self {
        let salt = format::salt(wal.database_id, segment.number);
        let spare_mark = wal.spare_mark(segment.file_bytes);
        let last_seqno = segment.prev_seqno;
        WalWriter { wal, file, segment, salt, end: HEADER_BYTES, last_seqno, spare_mark, failed: None }
    }

    /// Goes on in the next segment, if that has a file ready: what comes from here on is needed for longer than what the
    /// log holds so far, and is not to be kept, and synced, together with it. Should it fail, the log takes no more.
    pub(crate) fn end_segment(&mut self) {
        if self.failed.is_none() && self.end > HEADER_BYTES && self.wal.has_prepared() {
            // Remembered, and told to the next who appends.
            let _ = self.roll(0);
        }
    }

    /// Appends the record of the writes `first_seqno..first_seqno + count` (none for a record of metadata, whose
    /// `first_seqno` is the next number). Rolls to the next segment when it does not fit; a record larger than a
    /// segment gets one of its own size. Tails see it after [`publish`](WalWriter::publish).
    ///
    /// # Errors
    /// `InvalidArgument`, with nothing written, if a number is not above the last logged one or exceeds [`MAX_SEQNO`],
    /// or the payload exceeds 4 GiB. `Io` if there is no space or the device fails: an unknown part of the record may
    /// be in the log, which takes no more (`ReadOnly`).
    #[inline]
    pub(crate) fn append(&mut self, first_seqno: SeqNo, count: u32, payload: &[u8]) -> Result<()> {
        let last_seqno = if count == 0 { self.last_seqno } else { first_seqno.saturating_add(u64::from(count) - 1) };
        if self.failed.is_some()
            || first_seqno <= self.last_seqno
            || last_seqno > MAX_SEQNO
            || payload.len() > u32::MAX as usize
        {
            return Err(self.refuse(first_seqno, count));
        }
        let record_bytes = format::record_bytes(payload.len());
        if record_bytes > self.segment.file_bytes - self.end {
            self.roll(record_bytes)?;
        }
        let header = RecordHeader {
            payload_crc: format::payload_crc(self.salt, payload),
            first_seqno,
            count,
            payload_bytes: payload.len() as u32,
            prev_seqno: self.last_seqno,
            // Relaxed: the number itself is all that is read, and it was stored after the sync it speaks of.
            synced_seqno: self.wal.synced_seqno.load(Ordering::Relaxed),
        };
        let header = header.encode(self.salt, self.segment.number);
        let payload_at = self.end + RECORD_HEADER_BYTES as u64;
        let padding_at = payload_at + payload.len() as u64;
        let padding = &[0; RECORD_ALIGN as usize][..(self.end + record_bytes - padding_at) as usize];
        // The padding first: a recycled file holds old bytes there, and the record is one only with its last write.
        let padded = if padding.is_empty() { Ok(()) } else { self.file.write_at(padding_at, padding) };
        let written = padded
            .and_then(|()| self.file.write_at(self.end, &header))
            .and_then(|()| self.file.write_at(payload_at, payload));
        if let Err(error) = written {
            self.failed = Some(error.to_string());
            return Err(Error::io("append to the log", &self.segment.path)(error));
        }
        self.end += record_bytes;
        self.last_seqno = last_seqno;
        // Release, both: whoever loads either sees the record's bytes, and whoever loads the number sees an end that
        // covers it.
        self.segment.end.store(self.end, Ordering::Release);
        self.wal.last_logged_seqno.store(last_seqno, Ordering::Release);
        if self.end >= self.spare_mark {
            self.spare_mark = u64::MAX;
            self.wal.wants_spare();
        }
        Ok(())
    }

    /// Shows all records appended so far to tails and wakes those that wait. `last_seqno` is the database's last
    /// visible sequence number: that of the last record, or a later one that was written without the log.
    #[inline]
    pub(crate) fn publish(&mut self, last_seqno: SeqNo) {
        self.wal.publish(self.last_seqno, last_seqno);
    }

    /// Gives the space back that is kept for the next segments; the next append asks for them again. For when nothing is
    /// being written: a roll that comes before they are ready makes its file itself.
    ///
    /// # Errors
    /// `Io`. The log itself goes on.
    pub(crate) fn give_back_spares(&mut self) -> Result<()> {
        self.spare_mark = self.wal.spare_mark(self.segment.file_bytes);
        self.wal.give_back_spares()
    }

    #[cold]
    fn refuse(&self, first_seqno: SeqNo, count: u32) -> Error {
        match &self.failed {
            Some(reason) => Error::ReadOnly { reason: format!("the log failed: {reason}") },
            None => Error::InvalidArgument(format!(
                "a record of {count} writes from {first_seqno} on cannot follow {} in the log",
                self.last_seqno
            )),
        }
    }

    #[cold]
    fn roll(&mut self, record_bytes: u64) -> Result<()> {
        self.begin_segment(record_bytes).inspect_err(|error| self.failed = Some(error.to_string()))
    }

    fn begin_segment(&mut self, record_bytes: u64) -> Result<()> {
        let number = self.segment.number + 1;
        let mut file = self.wal.take_segment_file(number, HEADER_BYTES + record_bytes)?;
        let segment = self.wal.start_segment(number, self.last_seqno, self.end, file.as_mut())?;
        let full = std::mem::replace(&mut self.file, file);
        self.wal.list_segment(segment.clone(), full);
        self.salt = format::salt(self.wal.database_id, number);
        self.spare_mark = self.wal.spare_mark(segment.file_bytes);
        self.segment = segment;
        self.end = HEADER_BYTES;
        Ok(())
    }
}
