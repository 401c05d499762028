//! The bytes of the log. Numbers are little-endian.
//!
//! ```text
//! segment  header (64 bytes) | records, each 8-byte aligned | zeros, or what a recycled file held before
//! header   magic 8 | crc32 of what follows u32 | version u32 | segment u64 | database id u64 | file bytes u64 | prev seqno u64 |
//!          prev end u64 | zeros 8
//! record   header crc32 u32 | payload crc32 u32 | segment u64 | first seqno u64 | count u32 | payload bytes u32 |
//!          prev seqno u64 | synced seqno u64 | payload | 0 to 7 zeros
//! ```
//!
//! A record has two checksums, so that a search through damage may trust a header whose payload is torn, and spends
//! constant time on each candidate. The header's covers the payload's. Both start from a salt made of database id and
//! segment number: a value that holds a copy of some log, or a recycled file's old bytes, never pass for a record of
//! this segment.

use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::key::{MAX_SEQNO, SeqNo};

/// Length of a segment's header, in bytes.
pub(super) const HEADER_BYTES: u64 = 64;

/// Length of a record's header, in bytes.
pub(super) const RECORD_HEADER_BYTES: usize = 48;

/// Where records begin.
pub(super) const RECORD_ALIGN: u64 = 8;

const MAGIC: [u8; 8] = *b"siltwal\n";
const VERSION: u32 = 1;

/// The file of segment `number`.
pub(super) fn segment_path(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("{number:06}.wal"))
}

/// The file that the file of segment `number` becomes while it waits for its next use.
pub(super) fn spare_path(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("{number:06}.spare"))
}

/// The number in a segment's file name.
pub(super) fn segment_number(name: &str) -> Option<u64> {
    number_before(name, ".wal")
}

/// Whether a file name is that of a waiting file.
pub(super) fn is_spare(name: &str) -> bool {
    number_before(name, ".spare").is_some()
}

/// Only the one spelling that [`segment_path`] makes counts, so that no two names mean one number.
fn number_before(name: &str, suffix: &str) -> Option<u64> {
    let number: u64 = name.strip_suffix(suffix)?.parse().ok()?;
    (format!("{number:06}{suffix}") == name).then_some(number)
}

/// The start value of all checksums of a segment. CRC32 over 16 bytes tells apart any two numbers whose difference fits
/// 32 adjacent bits, so the segments of one database differ from each other for certain, those of two databases almost
/// certainly.
pub(super) fn salt(database_id: u64, segment: u64) -> u32 {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&database_id.to_le_bytes());
    bytes[8..].copy_from_slice(&segment.to_le_bytes());
    crc32fast::hash(&bytes)
}

#[inline]
fn crc(salt: u32, bytes: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new_with_initial(salt);
    hasher.update(bytes);
    hasher.finalize()
}

/// How many bytes a record takes, header and padding included.
#[inline]
pub(super) fn record_bytes(payload_bytes: usize) -> u64 {
    (RECORD_HEADER_BYTES as u64 + payload_bytes as u64).next_multiple_of(RECORD_ALIGN)
}

#[inline]
fn u32_at<const N: usize>(bytes: &[u8; N], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

#[inline]
fn u64_at<const N: usize>(bytes: &[u8; N], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}

/// What a segment says about itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SegmentHeader {
    pub(super) segment: u64,
    pub(super) database_id: u64,
    /// The file's length when it was made; recovery may have shortened it since.
    pub(super) file_bytes: u64,
    /// The last logged sequence number before this segment.
    pub(super) prev_seqno: SeqNo,
    /// Where the last record of the segment before ends; 0 if this is not known. Records of metadata alone take no
    /// numbers: only this tells that some are missing there.
    pub(super) prev_end: u64,
}

impl SegmentHeader {
    /// Whether the segment before, whose records were read up to `end`, is whole; the padding of its last record does
    /// not count.
    pub(super) fn follows_end(&self, end: u64) -> bool {
        self.prev_end == 0 || self.prev_end.next_multiple_of(RECORD_ALIGN) == end.next_multiple_of(RECORD_ALIGN)
    }

    /// The header's bytes.
    pub(super) fn encode(&self) -> [u8; HEADER_BYTES as usize] {
        let mut bytes = [0; HEADER_BYTES as usize];
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[12..16].copy_from_slice(&VERSION.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.segment.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.database_id.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.file_bytes.to_le_bytes());
        bytes[40..48].copy_from_slice(&self.prev_seqno.to_le_bytes());
        bytes[48..56].copy_from_slice(&self.prev_end.to_le_bytes());
        let crc = crc32fast::hash(&bytes[12..]);
        bytes[8..12].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// Reads the header of the file of segment `segment` of database `database_id`. The inner `Err` says why these
    /// bytes are none: never written, torn, or left from the file's earlier use.
    ///
    /// # Errors
    /// `UnsupportedVersion`; `Corruption` if it is intact but of another database.
    pub(super) fn decode(
        bytes: &[u8; HEADER_BYTES as usize],
        segment: u64,
        database_id: u64,
        file: &Path,
    ) -> Result<std::result::Result<Self, &'static str>> {
        if bytes[..8] != MAGIC {
            return Ok(Err("no segment header"));
        }
        if crc32fast::hash(&bytes[12..]) != u32_at(bytes, 8) {
            return Ok(Err("the checksum of the segment header does not fit"));
        }
        let found = u32_at(bytes, 12);
        if found > VERSION {
            return Err(Error::UnsupportedVersion { file: file.to_owned(), found, supported: VERSION });
        }
        let header = SegmentHeader {
            segment: u64_at(bytes, 16),
            database_id: u64_at(bytes, 24),
            file_bytes: u64_at(bytes, 32),
            prev_seqno: u64_at(bytes, 40),
            prev_end: u64_at(bytes, 48),
        };
        if header.database_id != database_id {
            return Err(Error::corruption(file, 24, "the segment belongs to another database"));
        }
        if header.segment != segment {
            return Ok(Err("the segment header is that of another segment"));
        }
        Ok(Ok(header))
    }
}

/// The segment's number and the database's id that a header states; not checked.
pub(super) fn stated(header: &[u8; HEADER_BYTES as usize]) -> (u64, u64) {
    (u64_at(header, 16), u64_at(header, 24))
}

/// What a record says about itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RecordHeader {
    pub(super) payload_crc: u32,
    pub(super) first_seqno: SeqNo,
    /// How many sequence numbers the record takes; 0 for one that carries nothing but metadata.
    pub(super) count: u32,
    pub(super) payload_bytes: u32,
    /// The last sequence number of the record before, in whatever segment.
    pub(super) prev_seqno: SeqNo,
    /// Every record up to this number was known to be synced when this one was written.
    pub(super) synced_seqno: SeqNo,
}

impl RecordHeader {
    /// The header's bytes.
    #[inline]
    pub(super) fn encode(&self, salt: u32, segment: u64) -> [u8; RECORD_HEADER_BYTES] {
        let mut bytes = [0; RECORD_HEADER_BYTES];
        bytes[4..8].copy_from_slice(&self.payload_crc.to_le_bytes());
        bytes[8..16].copy_from_slice(&segment.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.first_seqno.to_le_bytes());
        bytes[24..28].copy_from_slice(&self.count.to_le_bytes());
        bytes[28..32].copy_from_slice(&self.payload_bytes.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.prev_seqno.to_le_bytes());
        bytes[40..48].copy_from_slice(&self.synced_seqno.to_le_bytes());
        let crc = crc(salt, &bytes[4..]);
        bytes[..4].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// Reads a header of `segment`; otherwise why these bytes are none.
    #[inline]
    pub(super) fn decode(
        bytes: &[u8; RECORD_HEADER_BYTES],
        salt: u32,
        segment: u64,
    ) -> std::result::Result<Self, &'static str> {
        if u64_at(bytes, 8) != segment {
            return Err("no record of this segment");
        }
        if crc(salt, &bytes[4..]) != u32_at(bytes, 0) {
            return Err("the checksum of the record header does not fit");
        }
        let header = RecordHeader {
            payload_crc: u32_at(bytes, 4),
            first_seqno: u64_at(bytes, 16),
            count: u32_at(bytes, 24),
            payload_bytes: u32_at(bytes, 28),
            prev_seqno: u64_at(bytes, 32),
            synced_seqno: u64_at(bytes, 40),
        };
        let last = header.first_seqno.checked_add(u64::from(header.count.saturating_sub(1)));
        let plausible = header.prev_seqno < header.first_seqno
            && header.synced_seqno <= header.prev_seqno
            && last.is_some_and(|last| last <= MAX_SEQNO);
        if plausible { Ok(header) } else { Err("the record's sequence numbers contradict each other") }
    }

    /// The record's last sequence number, that of the record before if it takes none. Decoded headers keep it in
    /// bounds.
    #[inline]
    pub(super) fn last_seqno(&self) -> SeqNo {
        if self.count == 0 { self.prev_seqno } else { self.first_seqno + u64::from(self.count) - 1 }
    }

    /// How many bytes the record takes, header and padding included.
    #[inline]
    pub(super) fn record_bytes(&self) -> u64 {
        record_bytes(self.payload_bytes as usize)
    }
}

/// The checksum of a payload.
#[inline]
pub(super) fn payload_crc(salt: u32, payload: &[u8]) -> u32 {
    crc(salt, payload)
}

#[cfg(test)]
mod tests {
    use super::*;

    const RECORD: RecordHeader = RecordHeader {
        payload_crc: 7,
        first_seqno: 30,
        count: 3,
        payload_bytes: 100,
        prev_seqno: 20,
        synced_seqno: 10,
    };

    #[test]
    fn record_headers_round_trip_and_no_flipped_bit_passes() {
        let salt = salt(5, 9);
        let bytes = RECORD.encode(salt, 9);
        assert_eq!(RecordHeader::decode(&bytes, salt, 9), Ok(RECORD));
        assert_eq!((RECORD.last_seqno(), RECORD.record_bytes(), record_bytes(8)), (32, 152, 56));
        assert!(RecordHeader::decode(&bytes, super::salt(6, 9), 9).is_err(), "another database");
        assert!(RecordHeader::decode(&bytes, super::salt(5, 10), 10).is_err(), "another segment");
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes;
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(RecordHeader::decode(&flipped, salt, 9).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn contradicting_sequence_numbers_are_refused() {
        let refused = |record: RecordHeader| RecordHeader::decode(&record.encode(1, 9), 1, 9).is_err();
        assert!(!refused(RECORD));
        let metadata = RecordHeader { count: 0, ..RECORD };
        assert!(!refused(metadata) && metadata.last_seqno() == RECORD.prev_seqno);
        assert!(refused(RecordHeader { prev_seqno: 30, ..RECORD }));
        assert!(refused(RecordHeader { synced_seqno: 21, ..RECORD }));
        assert!(refused(RecordHeader { first_seqno: MAX_SEQNO - 1, ..RECORD }));
        assert!(refused(RecordHeader { first_seqno: u64::MAX, ..RECORD }));
    }

    #[test]
    fn segment_headers_round_trip_and_no_flipped_bit_passes() {
        let file = Path::new("000009.wal");
        let header = SegmentHeader { segment: 9, database_id: 5, file_bytes: 4096, prev_seqno: 3, prev_end: 72 };
        let bytes = header.encode();
        assert_eq!(SegmentHeader::decode(&bytes, 9, 5, file).unwrap(), Ok(header));
        assert!(SegmentHeader::decode(&bytes, 8, 5, file).unwrap().is_err());
        assert!(matches!(SegmentHeader::decode(&bytes, 9, 6, file), Err(Error::Corruption { offset: 24, .. })));
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes;
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(SegmentHeader::decode(&flipped, 9, 5, file).unwrap().is_err(), "bit {bit}");
        }
        let mut newer = bytes;
        newer[12] = 2;
        let crc = crc32fast::hash(&newer[12..]);
        newer[8..12].copy_from_slice(&crc.to_le_bytes());
        assert!(matches!(
            SegmentHeader::decode(&newer, 9, 5, file),
            Err(Error::UnsupportedVersion { found: 2, supported: 1, .. })
        ));
    }

    #[test]
    fn names_have_one_spelling() {
        let name = |path: PathBuf| path.file_name().unwrap().to_str().unwrap().to_owned();
        for number in [0, 7, 999_999, 1_000_000, u64::MAX] {
            assert_eq!(segment_number(&name(segment_path(Path::new("d"), number))), Some(number));
            assert!(is_spare(&name(spare_path(Path::new("d"), number))));
        }
        for other in ["7.wal", "0000007.wal", "+00007.wal", ".wal", "000007.spare", "000007.table"] {
            assert_eq!(segment_number(other), None, "{other}");
        }
    }
}
