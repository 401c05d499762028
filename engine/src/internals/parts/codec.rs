//! Checksum, key hash and compression, as the engine uses them.

use lz4_flex::block::CompressTable;

use super::damaged;
use crate::Result;
use crate::table::format;

/// The checksum (CRC-32, IEEE) of log records and table sections, without their seeds.
#[inline]
pub fn checksum(bytes: &[u8]) -> u32 {
    crc32fast::hash(bytes)
}

/// The hash that filters and block buckets know a key by.
#[inline]
pub fn hash_key(key: &[u8]) -> u64 {
    crate::key::hash_key(key)
}

/// LZ4 compression of blocks, with the memory that is used again for each.
#[derive(Default)]
pub struct Compressor(CompressTable);

impl Compressor {
    /// Appends `raw`, compressed as a table's block, to `out`; `false`, and `out` as it was, if that saves less than an
    /// eighth.
    #[inline]
    pub fn compress(&mut self, raw: &[u8], out: &mut Vec<u8>) -> bool {
        format::compress(raw, out, &mut self.0)
    }
}

impl std::fmt::Debug for Compressor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Compressor").finish_non_exhaustive()
    }
}

/// What [`Compressor::compress`] appended, decoded.
///
/// # Errors
/// `Corruption`.
#[inline]
pub fn decompress(payload: &[u8]) -> Result<Vec<u8>> {
    format::decompress(payload).map_err(damaged)
}
