//! The bytes of a segment file. Numbers are little-endian; offsets and meaning: `docs/format.md`.
//!
//! A record's place (its log, its segment's range, its offset) is part of its checksum: it is valid there only, and not
//! where a value holds the copy of a log.

use std::path::Path;

use siltstone::SeqNo;

use crate::error::{Error, Result};

/// The newest format this release reads, and the one it writes.
const VERSION: u32 = 3;

const MAGIC: [u8; 8] = *b"siltlog\0";

/// The length of a segment's header, in bytes.
pub(super) const SEGMENT_HEADER_BYTES: u64 = 80;

/// The length of a record's header, in bytes.
pub(super) const RECORD_HEADER_BYTES: u64 = 16;

/// A batch, as [`codec`](crate::codec) encodes it.
pub(super) const KIND_BATCH: u8 = 1;

/// Everything before this record is on storage. The payload is the last number before it, `u64`.
pub(super) const KIND_MARK: u8 = 2;

/// The length of a mark, header and payload, in bytes.
pub(super) const MARK_RECORD_BYTES: u64 = RECORD_HEADER_BYTES + 8;

/// Here ends what compaction made: a [`SegmentEnd`].
pub(super) const KIND_END: u8 = 3;

/// The length of an end's payload, in bytes.
pub(super) const END_BYTES: u64 = 32;

/// A flag: nothing came before the segment, so that from here on the log is the whole state.
const FLAG_WHOLE: u64 = 1;

/// A flag: compaction saw all keys of the segment.
const FLAG_CLEAN: u64 = 2;

/// What a segment says about itself at its beginning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SegmentHeader {
    /// Tells this log from all others.
    pub(super) log_id: u64,
    /// The last number before it.
    pub(super) prev_seqno: SeqNo,
    /// Whose it is, if batches are shipped to it; else 0.
    pub(super) epoch: u64,
    /// Of one that compaction made, the number of that compaction; else 0.
    pub(super) generation: u64,
    /// When it was begun, since 1970, in milliseconds.
    pub(super) begun_ms: u64,
    /// Changes of this segment may be gone because of later ones, up to this number; 0: none is.
    pub(super) clean_seqno: SeqNo,
    /// Deletes of this segment up to this number may be gone; 0: none is.
    pub(super) deletes_seqno: SeqNo,
    /// Compaction saw all of its keys, so that none is in here or before twice.
    pub(super) is_clean: bool,
    /// Nothing came before it.
    pub(super) is_whole: bool,
}

impl SegmentHeader {
    pub(super) fn encode(&self) -> [u8; SEGMENT_HEADER_BYTES as usize] {
        let flags = FLAG_WHOLE * u64::from(self.is_whole) + FLAG_CLEAN * u64::from(self.is_clean);
        let fields = [
            self.log_id,
            self.prev_seqno,
            self.epoch,
            self.generation,
            self.begun_ms,
            self.clean_seqno,
            self.deletes_seqno,
            flags,
        ];
        let mut bytes = [0; SEGMENT_HEADER_BYTES as usize];
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
        for (place, field) in bytes[16..].chunks_exact_mut(8).zip(fields) {
            place.copy_from_slice(&field.to_le_bytes());
        }
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
        // The version first: another format may put its checksum elsewhere.
        if version > VERSION || (1..VERSION).contains(&version) {
            let reason = format!("format version {version}, where this release reads version {VERSION}");
            return Err(Error::UnsupportedVersion { file: file.to_owned(), reason });
        }
        if version == 0 || u32_at(bytes, 12) != header_checksum(bytes) {
            return Err(Error::corruption(file, 8, "the header's checksum does not fit"));
        }
        let [log_id, prev_seqno, epoch, generation, begun_ms, clean_seqno, deletes_seqno, flags] =
            std::array::from_fn(|field| u64_at(bytes, 16 + 8 * field));
        if flags > (FLAG_WHOLE | FLAG_CLEAN) {
            return Err(Error::UnsupportedVersion { file: file.to_owned(), reason: format!("flags {flags:#x}") });
        }
        let (is_whole, is_clean) = (flags & FLAG_WHOLE > 0, flags & FLAG_CLEAN > 0);
        Ok(SegmentHeader {
            log_id,
            prev_seqno,
            epoch,
            generation,
            begun_ms,
            clean_seqno,
            deletes_seqno,
            is_clean,
            is_whole,
        })
    }

    /// Where its records belong.
    pub(super) fn place(&self) -> Place {
        let mut hasher = crc32fast::Hasher::new();
        for number in [self.log_id, self.prev_seqno, self.generation] {
            hasher.update(&number.to_le_bytes());
        }
        Place { checksum: hasher.finalize() }
    }
}

fn header_checksum(bytes: &[u8; SEGMENT_HEADER_BYTES as usize]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&bytes[..12]);
    hasher.update(&bytes[16..]);
    hasher.finalize()
}

/// Where records belong: the same for a shipped segment whichever owner writes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// Of the log's number, of where the segment begins and of its generation: what records' own go on from.
    checksum: u32,
}

/// What a segment that compaction made says about itself at its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SegmentEnd {
    /// How many batches there are.
    pub(super) batches: u64,
    /// Where its range ends.
    pub(super) last_seqno: SeqNo,
    /// The latest owner whose batches it holds.
    pub(super) epoch: u64,
    /// When the newest of what it was made of was sealed, since 1970, in milliseconds.
    pub(super) sealed_ms: u64,
}

impl SegmentEnd {
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        [self.batches, self.last_seqno, self.epoch, self.sealed_ms]
            .iter()
            .for_each(|field| out.extend_from_slice(&field.to_le_bytes()));
    }

    pub(super) fn decode(payload: &[u8; END_BYTES as usize]) -> Self {
        let [batches, last_seqno, epoch, sealed_ms] = std::array::from_fn(|field| u64_at(payload, 8 * field));
        SegmentEnd { batches, last_seqno, epoch, sealed_ms }
    }
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

    /// The header of a record that begins at `offset` of its file.
    pub(super) fn encode(&self, place: Place, offset: u64) -> [u8; RECORD_HEADER_BYTES as usize] {
        let mut bytes = [0; RECORD_HEADER_BYTES as usize];
        bytes[4..8].copy_from_slice(&self.payload_checksum.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.payload_bytes.to_le_bytes());
        bytes[12] = self.kind;
        bytes[13..].copy_from_slice(&self.reserved);
        let checksum = record_checksum(&bytes, place, offset);
        bytes[..4].copy_from_slice(&checksum.to_le_bytes());
        bytes
    }

    /// The header of the record that begins at `offset`, if these are its bytes.
    pub(super) fn decode(bytes: &[u8; RECORD_HEADER_BYTES as usize], place: Place, offset: u64) -> Option<Self> {
        let reserved = [bytes[13], bytes[14], bytes[15]];
        let (payload_checksum, payload_bytes) = (u32_at(bytes, 4), u32_at(bytes, 8));
        let header = RecordHeader { kind: bytes[12], payload_bytes, payload_checksum, reserved };
        (u32_at(bytes, 0) == record_checksum(bytes, place, offset)).then_some(header)
    }

    /// Whether a newer release wrote it.
    pub(super) fn is_newer(&self) -> bool {
        !matches!(self.kind, KIND_BATCH | KIND_MARK | KIND_END) || self.reserved != [0; 3]
    }

    /// The whole record's length, in bytes.
    pub(super) fn record_bytes(&self) -> u64 {
        RECORD_HEADER_BYTES + u64::from(self.payload_bytes)
    }

    pub(super) fn matches(&self, payload: &[u8]) -> bool {
        crc32fast::hash(payload) == self.payload_checksum
    }
}

/// Appends a record to `out`, which will begin at `offset` of its file; `encode` appends the payload.
///
/// # Errors
/// What `encode` says, `InvalidArgument` for more than 4 GiB; `out` is left as it was.
pub(super) fn append_record(
    out: &mut Vec<u8>,
    kind: u8,
    place: Place,
    offset: u64,
    encode: impl FnOnce(&mut Vec<u8>) -> Result<()>,
) -> Result<()> {
    let start = out.len();
    let payload_start = start + RECORD_HEADER_BYTES as usize;
    out.resize(payload_start, 0);
    let header = encode(out)
        .and_then(|()| RecordHeader::new(kind, &out[payload_start..]))
        .inspect_err(|_| out.truncate(start))?;
    out[start..payload_start].copy_from_slice(&header.encode(place, offset));
    Ok(())
}

fn record_checksum(bytes: &[u8; RECORD_HEADER_BYTES as usize], place: Place, offset: u64) -> u32 {
    // In one piece: each call has a price of its own.
    let mut placed = [0; RECORD_HEADER_BYTES as usize - 4 + 8];
    placed[..12].copy_from_slice(&bytes[4..]);
    placed[12..].copy_from_slice(&offset.to_le_bytes());
    let mut hasher = crc32fast::Hasher::new_with_initial(place.checksum);
    hasher.update(&placed);
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

    fn header() -> SegmentHeader {
        SegmentHeader {
            log_id: 77,
            prev_seqno: 5,
            epoch: 0,
            generation: 3,
            begun_ms: 1_700_000_000_000,
            clean_seqno: 12,
            deletes_seqno: 4,
            is_clean: true,
            is_whole: false,
        }
    }

    #[test]
    fn a_record_is_valid_at_its_own_place_only() {
        let (place, payload) = (header().place(), b"payload");
        let record = RecordHeader::new(KIND_BATCH, payload).unwrap();
        let bytes = record.encode(place, 80);
        assert_eq!(RecordHeader::decode(&bytes, place, 80), Some(record));
        assert_eq!(RecordHeader::decode(&bytes, place, 81), None);
        let elsewhere = [
            SegmentHeader { log_id: 78, ..header() },
            SegmentHeader { prev_seqno: 6, ..header() },
            SegmentHeader { generation: 4, ..header() },
        ];
        for elsewhere in elsewhere {
            assert_eq!(RecordHeader::decode(&bytes, elsewhere.place(), 80), None);
        }
        assert!(record.matches(payload) && !record.matches(b"payloae"));
    }

    #[test]
    fn every_flipped_bit_of_a_header_is_refused() {
        let (file, header) = (Path::new("x.log"), header());
        assert_eq!(SegmentHeader::decode(file, &header.encode()).unwrap(), header);
        for bit in 0..SEGMENT_HEADER_BYTES as usize * 8 {
            let mut bytes = header.encode();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(SegmentHeader::decode(file, &bytes).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn a_record_that_cannot_be_encoded_leaves_nothing() {
        let mut out = vec![1, 2, 3];
        let refused = |_: &mut Vec<u8>| Err(Error::InvalidArgument("no".to_owned()));
        assert!(append_record(&mut out, KIND_BATCH, header().place(), 3, refused).is_err());
        assert_eq!(out, [1, 2, 3]);
    }
}
