//! The bytes of a segment file. Numbers are little-endian.
//!
//! Header: `magic [8] | format version u32 | crc32 u32 of the rest | first position u64 | last sequence number before
//! it u64`. Record: `crc32 u32 of the next 12 bytes and of the record's position u64 | crc32 u32 of the payload |
//! payload length u32 | kind u8 | zero [3] | payload`. Since its position is part of the checksum, a record is valid at
//! its own place only: not where a value holds the copy of a log, nor where old bytes are left over.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use siltstone::SeqNo;
use siltstone::fs::FileSystem;

use crate::error::{Error, Result};

/// The newest format this release reads, and the one it writes.
const VERSION: u32 = 1;

const MAGIC: [u8; 8] = *b"siltlog\0";

/// The length of a segment's header, in bytes.
pub(super) const SEGMENT_HEADER_BYTES: u64 = 32;

/// The length of a record's header, in bytes.
pub(super) const RECORD_HEADER_BYTES: u64 = 16;

/// A batch, as [`codec`](crate::codec) encodes it.
pub(super) const KIND_BATCH: u8 = 1;

/// Everything before this record is on storage. It has no payload.
pub(super) const KIND_MARK: u8 = 2;

/// No segment begins beyond; so no place in a file, however long, has a position that overflows.
const MAX_SEGMENT_POSITION: u64 = 1 << 62;

/// The path of the segment that begins at `position`.
pub(super) fn segment_path(directory: &Path, position: u64) -> PathBuf {
    directory.join(format!("{position:020}.log"))
}

/// Where the segment file of that name begins, if it is one.
fn segment_position(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(".log")?;
    let plain = digits.len() == 20 && digits.bytes().all(|byte| byte.is_ascii_digit());
    digits.parse().ok().filter(|&position| plain && position <= MAX_SEGMENT_POSITION)
}

/// The first positions of all segments, in order; none if the directory is missing.
pub(super) fn list_segments(fs: &Arc<dyn FileSystem>, directory: &Path) -> Result<Vec<u64>> {
    let entries = match fs.read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(Error::io("listing the log", directory))?,
    };
    let mut positions: Vec<u64> = entries.iter().filter_map(|entry| segment_position(&entry.name)).collect();
    positions.sort_unstable();
    Ok(positions)
}

/// What a segment says about itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SegmentHeader {
    pub(super) first_position: u64,
    /// The last sequence number before the segment; 0 if there is none.
    pub(super) prev_seqno: SeqNo,
}

impl SegmentHeader {
    pub(super) fn encode(&self) -> [u8; SEGMENT_HEADER_BYTES as usize] {
        let mut bytes = [0; SEGMENT_HEADER_BYTES as usize];
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.first_position.to_le_bytes());
        bytes[24..].copy_from_slice(&self.prev_seqno.to_le_bytes());
        let checksum = header_checksum(&bytes);
        bytes[12..16].copy_from_slice(&checksum.to_le_bytes());
        bytes
    }

    /// # Errors
    /// `UnsupportedVersion`, `Corruption`.
    pub(super) fn decode(file: &Path, bytes: &[u8; SEGMENT_HEADER_BYTES as usize]) -> Result<Self> {
        if bytes[..8] != MAGIC {
            return Err(Error::corruption(file, 0, "not a segment of a log"));
        }
        let version = u32_at(bytes, 8);
        // The version first: a later format may put its checksum elsewhere.
        if version > VERSION {
            let reason = format!("format version {version}, this release reads up to {VERSION}");
            return Err(Error::UnsupportedVersion { file: file.to_owned(), reason });
        }
        if version == 0 || u32_at(bytes, 12) != header_checksum(bytes) {
            return Err(Error::corruption(file, 8, "the header's checksum does not fit"));
        }
        Ok(SegmentHeader { first_position: u64_at(bytes, 16), prev_seqno: u64_at(bytes, 24) })
    }
}

fn header_checksum(bytes: &[u8; SEGMENT_HEADER_BYTES as usize]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&bytes[..12]);
    hasher.update(&bytes[16..]);
    hasher.finalize()
}

/// The fixed part of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RecordHeader {
    pub(super) kind: u8,
    pub(super) payload_bytes: u32,
    payload_checksum: u32,
    /// Room for later releases; zero in this one.
    reserved: [u8; 3],
}

impl RecordHeader {
    pub(super) fn new(kind: u8, payload: &[u8]) -> Result<Self> {
        let payload_bytes = u32::try_from(payload.len())
            .map_err(|_| Error::InvalidArgument(format!("a batch of {} encoded bytes", payload.len())))?;
        Ok(RecordHeader { kind, payload_bytes, payload_checksum: crc32fast::hash(payload), reserved: [0; 3] })
    }

    pub(super) fn encode(&self, position: u64) -> [u8; RECORD_HEADER_BYTES as usize] {
        let mut bytes = [0; RECORD_HEADER_BYTES as usize];
        bytes[4..8].copy_from_slice(&self.payload_checksum.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.payload_bytes.to_le_bytes());
        bytes[12] = self.kind;
        bytes[13..].copy_from_slice(&self.reserved);
        let checksum = record_checksum(&bytes, position);
        bytes[..4].copy_from_slice(&checksum.to_le_bytes());
        bytes
    }

    /// The header of the record at `position`, if these are its bytes.
    pub(super) fn decode(bytes: &[u8; RECORD_HEADER_BYTES as usize], position: u64) -> Option<Self> {
        let reserved = [bytes[13], bytes[14], bytes[15]];
        let (payload_checksum, payload_bytes) = (u32_at(bytes, 4), u32_at(bytes, 8));
        let header = RecordHeader { kind: bytes[12], payload_bytes, payload_checksum, reserved };
        (u32_at(bytes, 0) == record_checksum(bytes, position)).then_some(header)
    }

    /// Whether a newer release wrote it.
    pub(super) fn is_newer(&self) -> bool {
        !matches!(self.kind, KIND_BATCH | KIND_MARK) || self.reserved != [0; 3]
    }

    /// The whole record's length, in bytes.
    pub(super) fn record_bytes(&self) -> u64 {
        RECORD_HEADER_BYTES + u64::from(self.payload_bytes)
    }

    pub(super) fn matches(&self, payload: &[u8]) -> bool {
        crc32fast::hash(payload) == self.payload_checksum
    }
}

fn record_checksum(bytes: &[u8; RECORD_HEADER_BYTES as usize], position: u64) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&bytes[4..]);
    hasher.update(&position.to_le_bytes());
    hasher.finalize()
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut number = [0; 4];
    number.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(number)
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut number = [0; 8];
    number.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_valid_at_its_own_place_only() {
        let header = RecordHeader::new(KIND_BATCH, b"payload").unwrap();
        let bytes = header.encode(77);
        assert_eq!(RecordHeader::decode(&bytes, 77), Some(header));
        assert_eq!(RecordHeader::decode(&bytes, 78), None);
        assert!(header.matches(b"payload") && !header.matches(b"payloae"));
    }

    #[test]
    fn every_flipped_bit_of_a_header_is_refused() {
        let file = Path::new("x.log");
        let header = SegmentHeader { first_position: 5, prev_seqno: 9 };
        assert_eq!(SegmentHeader::decode(file, &header.encode()).unwrap(), header);
        for bit in 0..SEGMENT_HEADER_BYTES as usize * 8 {
            let mut bytes = header.encode();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(SegmentHeader::decode(file, &bytes).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn only_segment_names_are_segments() {
        assert_eq!(segment_position("00000000000000000042.log"), Some(42));
        for other in [
            "42.log",
            "LOCK",
            "+0000000000000000042.log",
            "00000000000000000042.tmp",
            "99999999999999999999.log",
            "18446744073709551615.log",
            "04611686018427387905.log",
        ] {
            assert_eq!(segment_position(other), None, "{other}");
        }
    }
}
