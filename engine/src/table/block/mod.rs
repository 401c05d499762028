//! Blocks: the sorted runs of entries that tables are made of. Data and index blocks share this one format.
//!
//! All numbers are little-endian; `n` is the entry count, `s` the shared prefix length. A key's *suffix* is what
//! follows the first `s` bytes; its first eight bytes (zero-padded) are in the prefix column, what is left of it is the
//! key's *rest*.
//!
//! ```text
//! offset  bytes            field
//! 0       4                n, entries
//! 4       1                flags: 1 rests have one length, 2 values have one length, 4 kind column present,
//!                          8 short column present, 16 offsets are u32 (else u16)
//! 5       1                w, bytes of a sequence number delta: 0, 1, 2, 4 or 8
//! 6       2                s, bytes of the shared prefix
//! 8       8                base, the smallest sequence number
//! 16      4                flag 1 ? bytes of each rest : bytes of all rests
//! 20      4                flag 2 ? bytes of each value : bytes of all values
//! 24      2                b, hash buckets (0: none)
//! 26      8 n              prefix column: the suffix's first eight bytes as a big-endian number, stored as u64
//!         w n              sequence number column: number - base
//!         n, flag 4        kind column (absent: all are puts)
//!         n, flag 8        short column: min(bytes of the suffix, 8) (absent: all are 8)
//!         2|4 n, not 1     where each rest ends, from the start of the rests
//!         2|4 n, not 2     where each value ends, from the start of the values
//!         b                buckets: the first entry of the one key that hashes here; 255 none, 254 several keys
//!         s                shared prefix
//!         ...              rests
//!         ...              values, up to the end of the block
//! ```
//!
//! Entries are in internal order: key ascending, trailer descending. A bucket's number is `(hash mod 2^32) * b / 2^32`.
//!
//! The columns follow the block layout of Pebble (`sstable/colblk`), the buckets RocksDB's data block hash index.

mod build;
mod iterate;
mod search;
#[cfg(test)]
mod tests;

use std::ops::{Deref, Range};

pub(crate) use build::BlockBuilder;
pub(crate) use iterate::BlockCursor;
pub(crate) use search::Sample;

use crate::key::{MAX_SEQNO, SeqNo, Trailer, ValueKind};

/// Why something read from storage cannot be what was written there; its place is added where it is known.
pub(crate) type Reason = &'static str;

const HEADER_BYTES: usize = 26;
const FIXED_RESTS: u8 = 1;
const FIXED_VALUES: u8 = 2;
const HAS_KINDS: u8 = 4;
const HAS_SHORTS: u8 = 8;
const WIDE: u8 = 16;
const ALL_FLAGS: u8 = 31;

const BUCKET_EMPTY: u8 = 255;
const BUCKET_COLLISION: u8 = 254;
/// Blocks with more entries than a bucket can name have no buckets.
const MAX_BUCKETED_ENTRIES: usize = 250;

/// The bucket of a key hash among `buckets`.
#[inline]
fn bucket_of(hash: u64, buckets: usize) -> usize {
    ((u64::from(hash as u32) * buckets as u64) >> 32) as usize
}

/// A block in memory: `B` is `&[u8]` when it is read in place, `Bytes` when it is held.
///
/// Invariant from [`parse`](Block::parse): every section lies inside `bytes`. Invariant from
/// [`check_entries`](Block::check_entries), run once before a block is first served: every entry lies inside its
/// section and has a known kind. Accessors still reach entries by `get`, so that a block that was never checked gives
/// wrong bytes at worst, not a panic.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Block<B> {
    bytes: B,
    entries: u32,
    flags: u8,
    seqno_width: u8,
    shared_bytes: u16,
    base_seqno: u64,
    /// Of each rest or of all, as in the header.
    rest_bytes: u32,
    value_bytes: u32,
    buckets: u32,
    seqnos_at: u32,
    kinds_at: u32,
    shorts_at: u32,
    rest_ends_at: u32,
    value_ends_at: u32,
    buckets_at: u32,
    shared_at: u32,
    rests_at: u32,
    values_at: u32,
}

impl<B: Deref<Target = [u8]>> Block<B> {
    /// Reads the header and checks that the sections fill `bytes` exactly. Costs no more than the header's cache line.
    ///
    /// # Errors
    /// What does not fit.
    #[inline]
    pub(crate) fn parse(bytes: B) -> Result<Self, Reason> {
        let total_bytes = u32::try_from(bytes.len()).map_err(|_| "a block over 4 GiB")?;
        let header = bytes.first_chunk::<HEADER_BYTES>().ok_or("a block shorter than its header")?;
        let u16_at = |at: usize| u16::from_le_bytes([header[at], header[at + 1]]);
        let u32_at = |at: usize| u32::from(u16_at(at)) | u32::from(u16_at(at + 2)) << 16;
        let (entries, flags, seqno_width, shared_bytes) = (u32_at(0), header[4], header[5], u16_at(6));
        let base_seqno = u64::from(u32_at(8)) | u64::from(u32_at(12)) << 32;
        let (rest_bytes, value_bytes, buckets) = (u32_at(16), u32_at(20), u16_at(24));
        if flags & !ALL_FLAGS != 0 || !matches!(seqno_width, 0 | 1 | 2 | 4 | 8) {
            return Err("unknown block flags or widths");
        }
        // n is below 2^32 and every column takes at most eight bytes an entry: no sum overflows.
        let n = u64::from(entries);
        let if_flag = |flag: u8, bytes: u64| if flags & flag != 0 { bytes } else { 0 };
        let offset_bytes = n * if flags & WIDE != 0 { 4 } else { 2 };
        let seqnos_at = HEADER_BYTES as u64 + 8 * n;
        let kinds_at = seqnos_at + u64::from(seqno_width) * n;
        let shorts_at = kinds_at + if_flag(HAS_KINDS, n);
        let rest_ends_at = shorts_at + if_flag(HAS_SHORTS, n);
        let value_ends_at = rest_ends_at + offset_bytes - if_flag(FIXED_RESTS, offset_bytes);
        let buckets_at = value_ends_at + offset_bytes - if_flag(FIXED_VALUES, offset_bytes);
        let shared_at = buckets_at + u64::from(buckets);
        let rests_at = shared_at + u64::from(shared_bytes);
        if rests_at > u64::from(total_bytes) {
            return Err("block columns beyond the block's end");
        }
        // entries < 2^32 / 8 from here on, so that the products stay below 2^61.
        let all = |bytes: u32, fixed: u8| u64::from(bytes) * if flags & fixed != 0 { n } else { 1 };
        let values_at = rests_at + all(rest_bytes, FIXED_RESTS);
        if values_at + all(value_bytes, FIXED_VALUES) != u64::from(total_bytes) {
            return Err("block sections do not add up to the block's length");
        }
        Ok(Block {
            bytes,
            entries,
            flags,
            seqno_width,
            shared_bytes,
            base_seqno,
            rest_bytes,
            value_bytes,
            buckets: buckets.into(),
            seqnos_at: seqnos_at as u32,
            kinds_at: kinds_at as u32,
            shorts_at: shorts_at as u32,
            rest_ends_at: rest_ends_at as u32,
            value_ends_at: value_ends_at as u32,
            buckets_at: buckets_at as u32,
            shared_at: shared_at as u32,
            rests_at: rests_at as u32,
            values_at: values_at as u32,
        })
    }

    /// The block with `seqno`, if there is one, as the number of all its entries, which all state the same: that of an
    /// ingested table, which was written before its number was known.
    #[inline]
    pub(crate) fn numbered(mut self, seqno: Option<SeqNo>) -> Self {
        if let Some(seqno) = seqno {
            self.base_seqno = seqno;
        }
        self
    }

    /// Checks what [`parse`](Block::parse) leaves: each entry's place, kind and sequence number, each bucket. One pass
    /// over the columns.
    ///
    /// # Errors
    /// What does not fit.
    pub(crate) fn check_entries(&self) -> Result<(), Reason> {
        let n = self.len();
        if self.flags & FIXED_RESTS == 0 {
            self.check_ends(self.rest_ends_at, self.rest_bytes)?;
        }
        if self.flags & FIXED_VALUES == 0 {
            self.check_ends(self.value_ends_at, self.value_bytes)?;
        }
        if self.flags & HAS_SHORTS != 0 {
            let shorts = self.section(self.shorts_at, n);
            let prefixes = self.prefixes();
            let padded = |i: usize| u64::from_le_bytes(prefixes[i]) & u64::MAX >> (8 * shorts[i]) == 0;
            if (0..n).any(|i| shorts[i] > 8 || (shorts[i] < 8 && !(self.rest_range(i).is_empty() && padded(i)))) {
                return Err("a short key with a rest");
            }
        }
        if self.flags & HAS_KINDS != 0
            && self.section(self.kinds_at, n).iter().any(|&kind| ValueKind::from_u8(kind).is_none())
        {
            return Err("an entry of unknown kind");
        }
        if self.base_seqno > MAX_SEQNO
            || (self.largest_delta() > MAX_SEQNO - self.base_seqno
                && (0..n).any(|i| self.delta(i) > MAX_SEQNO - self.base_seqno))
        {
            return Err("a sequence number over the largest");
        }
        let buckets = self.section(self.buckets_at, self.buckets as usize);
        if buckets.iter().any(|&b| b != BUCKET_EMPTY && b != BUCKET_COLLISION && usize::from(b) >= n) {
            return Err("a bucket names no entry");
        }
        Ok(())
    }

    fn check_ends(&self, at: u32, section_bytes: u32) -> Result<(), Reason> {
        let mut last = 0;
        for i in 0..self.len() {
            let end = self.end(at, i);
            if end < last {
                return Err("block offsets run backward");
            }
            last = end;
        }
        if last != section_bytes as usize {
            return Err("block offsets do not fill their section");
        }
        Ok(())
    }

    /// How many entries the block has.
    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.entries as usize
    }

    /// The bytes the block was parsed from.
    #[inline]
    pub(crate) fn bytes(&self) -> &B {
        &self.bytes
    }

    #[inline]
    fn section(&self, at: u32, bytes: usize) -> &[u8] {
        self.bytes.get(at as usize..at as usize + bytes).unwrap_or_default()
    }

    /// What all keys of the block begin with.
    #[inline]
    fn shared(&self) -> &[u8] {
        self.section(self.shared_at, self.shared_bytes.into())
    }

    /// The prefix column; `len()` long.
    #[inline]
    fn prefixes(&self) -> &[[u8; 8]] {
        self.section(HEADER_BYTES as u32, 8 * self.len()).as_chunks().0
    }

    #[inline]
    fn number<const N: usize>(&self, at: usize) -> u64 {
        let mut padded = [0; 8];
        if let Some(bytes) = self.bytes.get(at..at + N) {
            padded[..N].copy_from_slice(bytes);
        }
        u64::from_le_bytes(padded)
    }

    #[inline]
    fn end(&self, at: u32, i: usize) -> usize {
        if self.flags & WIDE == 0 {
            self.number::<2>(at as usize + 2 * i) as usize
        } else {
            self.number::<4>(at as usize + 4 * i) as usize
        }
    }

    /// Where entry `i`'s part of a section lies.
    #[inline]
    fn range(&self, i: usize, fixed: bool, each_bytes: u32, ends_at: u32, from: u32) -> Range<usize> {
        let from = from as usize;
        if fixed {
            let start = from + i * each_bytes as usize;
            return start..start + each_bytes as usize;
        }
        let start = if i == 0 { 0 } else { self.end(ends_at, i - 1) };
        from + start..from + self.end(ends_at, i)
    }

    #[inline]
    fn rest_range(&self, i: usize) -> Range<usize> {
        self.range(i, self.flags & FIXED_RESTS != 0, self.rest_bytes, self.rest_ends_at, self.rests_at)
    }

    /// What follows the first eight bytes of entry `i`'s suffix.
    #[inline]
    fn rest(&self, i: usize) -> &[u8] {
        self.bytes.get(self.rest_range(i)).unwrap_or_default()
    }

    /// min(length of entry `i`'s suffix, 8).
    #[inline]
    fn short(&self, i: usize) -> usize {
        if self.flags & HAS_SHORTS == 0 {
            return 8;
        }
        self.bytes.get(self.shorts_at as usize + i).map_or(8, |&short| usize::from(short.min(8)))
    }

    /// Where entry `i`'s value lies in [`bytes`](Block::bytes).
    #[inline]
    pub(crate) fn value_range(&self, i: usize) -> Range<usize> {
        self.range(i, self.flags & FIXED_VALUES != 0, self.value_bytes, self.value_ends_at, self.values_at)
    }

    /// Entry `i`'s value.
    #[inline]
    pub(crate) fn value(&self, i: usize) -> &[u8] {
        self.bytes.get(self.value_range(i)).unwrap_or_default()
    }

    #[inline]
    fn delta(&self, i: usize) -> u64 {
        let at = self.seqnos_at as usize;
        match self.seqno_width {
            0 => 0,
            1 => self.number::<1>(at + i),
            2 => self.number::<2>(at + 2 * i),
            4 => self.number::<4>(at + 4 * i),
            _ => self.number::<8>(at + 8 * i),
        }
    }

    /// The largest sequence number delta that fits the column's width.
    fn largest_delta(&self) -> u64 {
        u64::MAX.checked_shr(64 - 8 * u32::from(self.seqno_width)).unwrap_or(0)
    }

    /// Whether the header shows that all entries are values with numbers of at most `seqno`.
    #[inline]
    fn is_all_put_by(&self, seqno: SeqNo) -> bool {
        self.flags & HAS_KINDS == 0 && self.base_seqno.saturating_add(self.largest_delta()) <= seqno
    }

    /// Entry `i`'s sequence number and kind.
    #[inline]
    pub(crate) fn trailer(&self, i: usize) -> Trailer {
        let kind = if self.flags & HAS_KINDS == 0 {
            ValueKind::Put as u8
        } else {
            self.bytes.get(self.kinds_at as usize + i).copied().unwrap_or_default()
        };
        Trailer(self.base_seqno.wrapping_add(self.delta(i)) << 8 | u64::from(kind))
    }

    /// Replaces `out` with entry `i`'s key.
    pub(crate) fn key_into(&self, i: usize, out: &mut Vec<u8>) {
        out.clear();
        out.extend_from_slice(self.shared());
        self.push_suffix(i, out);
    }

    #[inline]
    fn push_suffix(&self, i: usize, out: &mut Vec<u8>) {
        let prefix = self.prefixes().get(i).copied().unwrap_or_default();
        out.extend_from_slice(&u64::from_le_bytes(prefix).to_be_bytes()[..self.short(i)]);
        out.extend_from_slice(self.rest(i));
    }
}
