//! The frame of a table file: how sections are stored and checked, and the footer.
//!
//! ```text
//! data block 0 | data block 1 | ... | filter | index | properties | footer
//! ```
//!
//! Every section but the footer is stored as `payload | tag: u8 | crc: u32`, without gaps. The checksum (CRC-32, IEEE)
//! covers payload and tag and is seeded with the section's place, so that a section that is read from, or was written
//! to, a wrong place never passes. Tag 0: the payload as it is. Tag 1: the payload is `length: u32 | LZ4 block` of that
//! decoded length. Only data blocks have tag 1.
//!
//! The filter (absent without one) is `p` zero bytes, then lines of 64 bytes; `p` (0 to 63) makes the first line begin
//! at a multiple of 64 in the file. The index is a block ([`super::block`]) with one entry a data block, see
//! [`super::index`].
//!
//! Footer, the last 60 bytes, little-endian:
//!
//! ```text
//! 0   8    table number
//! 8   12   filter:     offset u64, stored bytes u32 (trailer included; 0: no filter)
//! 20  12   index:      offset u64, stored bytes u32
//! 32  12   properties: offset u64, stored bytes u32
//! 44  4    CRC-32 of the 44 bytes before
//! 48  4    format version
//! 52  8    magic
//! ```
//!
//! The last twelve bytes keep their place and meaning in every version.

use std::path::Path;

use super::block::Reason;
use crate::error::{Error, Result};
use crate::key::MAX_VALUE_BYTES;

/// The format this release writes, and the newest it reads.
pub(crate) const FORMAT_VERSION: u32 = 1;

pub(super) const MAGIC: [u8; 8] = *b"siltTABL";

/// Bytes of the footer.
pub(crate) const FOOTER_BYTES: usize = 60;

/// Bytes that follow a section's payload.
pub(crate) const TRAILER_BYTES: usize = 5;

/// Tag of a payload stored as it is.
pub(crate) const TAG_RAW: u8 = 0;
/// Tag of an LZ4 payload.
pub(crate) const TAG_LZ4: u8 = 1;

/// The largest decoded block: one entry with the largest value, its key and its columns.
const MAX_DECODED_BYTES: usize = MAX_VALUE_BYTES + (1 << 20);

/// Where a section lies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Handle {
    /// From the start of the file.
    pub(crate) offset: u64,
    /// Trailer included.
    pub(crate) stored_bytes: u32,
}

impl Handle {
    /// Bytes of an encoded handle.
    pub(crate) const BYTES: usize = 12;

    /// The offset, then the length.
    #[inline]
    pub(crate) fn encode(self) -> [u8; Self::BYTES] {
        let mut out = [0; Self::BYTES];
        out[..8].copy_from_slice(&self.offset.to_le_bytes());
        out[8..].copy_from_slice(&self.stored_bytes.to_le_bytes());
        out
    }

    /// What [`encode`](Handle::encode) wrote.
    #[inline]
    pub(crate) fn decode(bytes: &[u8; Self::BYTES]) -> Self {
        let [o0, o1, o2, o3, o4, o5, o6, o7, s0, s1, s2, s3] = *bytes;
        Handle {
            offset: u64::from_le_bytes([o0, o1, o2, o3, o4, o5, o6, o7]),
            stored_bytes: u32::from_le_bytes([s0, s1, s2, s3]),
        }
    }

    /// The first byte after the section; `None` beyond 2^64.
    #[inline]
    pub(crate) fn end(self) -> Option<u64> {
        self.offset.checked_add(self.stored_bytes.into())
    }
}

/// The checksum of a section's payload and tag: its file offset and its table's number are the seed. Within 4 GiB of
/// one file no two places have one seed.
#[inline]
fn checksum(number: u64, offset: u64, payload_and_tag: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new_with_initial(seed(number, offset));
    hasher.update(payload_and_tag);
    hasher.finalize()
}

#[inline]
fn seed(number: u64, offset: u64) -> u32 {
    let place = offset as u32 ^ ((offset >> 32) as u32).wrapping_mul(0x85eb_ca6b);
    let table = (number as u32).wrapping_mul(0x9e37_79b1);
    place ^ table
}

/// Completes the section whose payload is `out[start..]` with its trailer; it will lie at `offset`.
pub(crate) fn seal(out: &mut Vec<u8>, start: usize, tag: u8, number: u64, offset: u64) {
    out.push(tag);
    let crc = checksum(number, offset, &out[start..]);
    out.extend_from_slice(&crc.to_le_bytes());
}

/// Checks a stored section against its checksum; answers with tag and payload.
///
/// # Errors
/// The checksum differs, or the tag is unknown.
pub(crate) fn unseal(stored: &[u8], number: u64, offset: u64) -> Result<(u8, &[u8]), Reason> {
    let (checked, crc) = stored.split_last_chunk::<4>().ok_or("a section shorter than its trailer")?;
    if checksum(number, offset, checked) != u32::from_le_bytes(*crc) {
        return Err("checksum mismatch");
    }
    match checked.split_last() {
        Some((&tag @ (TAG_RAW | TAG_LZ4), payload)) => Ok((tag, payload)),
        _ => Err("unknown compression tag"),
    }
}

/// Where a section of table `number` ends that begins at `start` of the file `bytes`, by its checksum: the first place
/// where it fits, below `limit`.
pub(super) fn section_end(bytes: &[u8], number: u64, start: usize, limit: usize) -> Option<usize> {
    let mut hasher = crc32fast::Hasher::new_with_initial(seed(number, start as u64));
    let last = limit.min(bytes.len()).checked_sub(4)?;
    for at in start..last {
        hasher.update(&bytes[at..=at]);
        // The last byte that the checksum covers is the tag.
        let ends = bytes[at] <= TAG_LZ4 && hasher.clone().finalize().to_le_bytes() == bytes[at + 1..at + 5];
        if ends {
            return Some(at + 5);
        }
    }
    None
}

/// Compresses `raw` to the end of `out` as a [`TAG_LZ4`] payload, unless that saves less than an eighth; then `out` is
/// as it was.
pub(crate) fn compress(raw: &[u8], out: &mut Vec<u8>, table: &mut lz4_flex::block::CompressTable) -> bool {
    let start = out.len();
    out.extend_from_slice(&(raw.len() as u32).to_le_bytes());
    let packed = start + 4;
    out.resize(packed + lz4_flex::block::get_maximum_output_size(raw.len()), 0);
    match lz4_flex::block::compress_into_with_table(raw, &mut out[packed..], table) {
        Ok(bytes) if bytes + 4 <= raw.len() - raw.len() / 8 => {
            out.truncate(packed + bytes);
            true
        }
        _ => {
            out.truncate(start);
            false
        }
    }
}

/// Decodes a [`TAG_LZ4`] payload.
///
/// # Errors
/// The declared length is beyond what a block or these bytes can hold (checked before memory is taken), or decoding
/// fails.
pub(crate) fn decompress(payload: &[u8]) -> Result<Vec<u8>, Reason> {
    let (length, packed) = payload.split_first_chunk::<4>().ok_or("a compressed block without a length")?;
    let length = u32::from_le_bytes(*length) as usize;
    if length > MAX_DECODED_BYTES || length > packed.len().saturating_mul(255).saturating_add(64) {
        return Err("an impossible decoded length");
    }
    let mut out = vec![0; length];
    match lz4_flex::block::decompress_into(packed, &mut out) {
        Ok(bytes) if bytes == length => Ok(out),
        _ => Err("a compressed block that does not decode"),
    }
}

/// Where the sections of a table are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Footer {
    /// The table's number, as in its name.
    pub(crate) number: u64,
    /// 0 bytes: no filter.
    pub(crate) filter: Handle,
    pub(crate) index: Handle,
    pub(crate) properties: Handle,
}

impl Footer {
    /// Appends the footer.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(&self.number.to_le_bytes());
        for handle in [self.filter, self.index, self.properties] {
            out.extend_from_slice(&handle.encode());
        }
        let crc = crc32fast::hash(&out[start..]);
        out.extend_from_slice(&crc.to_le_bytes());
        out.extend_from_slice(&FORMAT_VERSION.to_le_bytes());
        out.extend_from_slice(&MAGIC);
    }

    /// Reads the footer of table `number`, the last bytes of a file of `file_bytes`, and checks that the sections
    /// follow each other without gaps up to it.
    ///
    /// # Errors
    /// `UnsupportedVersion`, or `Corruption` of `path`.
    pub(crate) fn decode(bytes: &[u8; FOOTER_BYTES], file_bytes: u64, number: u64, path: &Path) -> Result<Footer> {
        let at = file_bytes.saturating_sub(FOOTER_BYTES as u64);
        let damaged = |reason: &str| Error::corruption(path, at, format!("table footer: {reason}"));
        let (head, tail) = bytes.split_at(48);
        let (version, magic) = tail.split_at(4);
        if magic != MAGIC {
            return Err(damaged("not a table (wrong magic)"));
        }
        let version = version.first_chunk().map_or(0, |v| u32::from_le_bytes(*v));
        if version > FORMAT_VERSION {
            return Err(Error::UnsupportedVersion { file: path.to_owned(), found: version, supported: FORMAT_VERSION });
        }
        let (fields, crc) = head.split_at(44);
        if version == 0 || crc32fast::hash(fields).to_le_bytes() != crc {
            return Err(damaged("checksum mismatch"));
        }
        let handle = |from: usize| fields[from..].first_chunk().map(Handle::decode).unwrap_or_default();
        let found = fields.first_chunk().map_or(0, |n| u64::from_le_bytes(*n));
        let footer = Footer { number: found, filter: handle(8), index: handle(20), properties: handle(32) };
        if found != number {
            return Err(damaged(&format!("it is table {found}, not {number}")));
        }
        let (filter, index, properties) = (footer.filter.end(), footer.index.end(), footer.properties.end());
        if filter != Some(footer.index.offset) || index != Some(footer.properties.offset) || properties != Some(at) {
            return Err(damaged("sections with gaps"));
        }
        Ok(footer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_section_passes_only_at_its_own_place_and_in_its_own_table() {
        let mut out = b"junk".to_vec();
        out.extend_from_slice(b"payload");
        seal(&mut out, 4, TAG_RAW, 7, 4096);
        let stored = &out[4..];
        assert_eq!(unseal(stored, 7, 4096), Ok((TAG_RAW, &b"payload"[..])));
        for (number, offset) in [(7, 0), (7, 4097), (7, 4096 << 32), (8, 4096)] {
            assert!(unseal(stored, number, offset).is_err(), "{number} {offset}");
        }
        for i in 0..stored.len() {
            assert!(unseal(&stored[..i], 7, 4096).is_err(), "cut at {i}");
            let mut flipped = stored.to_vec();
            flipped[i] ^= 0x10;
            assert!(unseal(&flipped, 7, 4096).is_err(), "flipped at {i}");
        }
        let mut unknown = b"payload".to_vec();
        seal(&mut unknown, 0, 2, 7, 0);
        assert_eq!(unseal(&unknown, 7, 0), Err("unknown compression tag"));
    }

    #[test]
    fn compression_round_trips_and_huge_declared_lengths_take_no_memory() {
        let mut table = lz4_flex::block::CompressTable::default();
        for length in [0, 1, 100, 4096, 100_000] {
            let raw: Vec<u8> = (0..length).map(|i| (i / 50) as u8).collect();
            let mut out = vec![1, 2, 3];
            if compress(&raw, &mut out, &mut table) {
                assert_eq!(decompress(&out[3..]), Ok(raw));
                for cut in 3..out.len() {
                    assert!(decompress(&out[3..cut]).is_err(), "{length} cut at {cut}");
                }
            } else {
                assert!(length <= 100, "{length} did not shrink");
                assert_eq!(out, [1, 2, 3]);
            }
        }
        let noise: Vec<u8> = (0..4096u64).map(|i| crate::key::hash_key(&i.to_le_bytes()) as u8).collect();
        assert!(!compress(&noise, &mut Vec::new(), &mut table));
        for length in [u32::MAX, MAX_DECODED_BYTES as u32 + 1, 4 * 255 + 65] {
            let mut payload = length.to_le_bytes().to_vec();
            payload.extend_from_slice(&[0; 4]);
            assert_eq!(decompress(&payload), Err("an impossible decoded length"));
        }
    }

    #[test]
    fn a_footer_round_trips_and_every_change_is_noticed() {
        let handle = |offset, stored_bytes| Handle { offset, stored_bytes };
        let footer = Footer { number: 9, filter: handle(100, 50), index: handle(150, 30), properties: handle(180, 20) };
        let mut out = Vec::new();
        footer.encode(&mut out);
        let bytes: [u8; FOOTER_BYTES] = out.try_into().unwrap();
        let path = Path::new("000009.table");
        let decode = |bytes: &[u8; FOOTER_BYTES], file_bytes, number| Footer::decode(bytes, file_bytes, number, path);
        assert_eq!(decode(&bytes, 260, 9).unwrap(), footer);
        assert!(decode(&bytes, 261, 9).is_err());
        assert!(decode(&bytes, 260, 8).is_err());
        for i in 0..FOOTER_BYTES {
            for bit in 0..8 {
                let mut flipped = bytes;
                flipped[i] ^= 1 << bit;
                match decode(&flipped, 260, 9) {
                    Err(Error::UnsupportedVersion { .. }) => assert!((48..52).contains(&i)),
                    Err(Error::Corruption { offset: 200, .. }) => {}
                    other => panic!("flipped bit {bit} of {i}: {other:?}"),
                }
            }
        }
    }
}
