//! Building a block: entries are gathered as they come and laid out in columns when the block is complete.

use super::{
    BUCKET_COLLISION, BUCKET_EMPTY, FIXED_RESTS, FIXED_VALUES, HAS_KINDS, HAS_SHORTS, HEADER_BYTES,
    MAX_BUCKETED_ENTRIES, WIDE, bucket_of,
};
use crate::key::{Trailer, prefix_u64};

/// Buffers larger than this are given back after a block with a huge value.
const KEEP_BYTES: usize = 1 << 20;

/// Gathers the entries of one block; its buffers serve one block after the other.
#[derive(Debug, Default)]
pub(crate) struct BlockBuilder {
    keys: Vec<u8>,
    key_ends: Vec<u32>,
    trailers: Vec<Trailer>,
    values: Vec<u8>,
    value_ends: Vec<u32>,
    /// Entry and hash of the first entry of every key.
    firsts: Vec<(u32, u64)>,
}

/// What one pass over the gathered entries tells about the columns.
struct Shape {
    shared_bytes: usize,
    base_seqno: u64,
    seqno_width: u8,
    flags: u8,
    rests_total: usize,
    rest_bytes: usize,
    value_bytes: usize,
    buckets: usize,
}

impl BlockBuilder {
    /// Appends an entry, which is not before the last one in internal order. The caller keeps all keys, and all values,
    /// of a block below 4 GiB. `hash` is the key's hash if this is its first entry in the block; without any there are
    /// no buckets.
    #[inline]
    pub(crate) fn add(&mut self, key: &[u8], hash: Option<u64>, trailer: Trailer, value: &[u8]) {
        if let Some(hash) = hash {
            self.firsts.push((self.trailers.len() as u32, hash));
        }
        self.keys.extend_from_slice(key);
        self.key_ends.push(self.keys.len() as u32);
        self.trailers.push(trailer);
        self.values.extend_from_slice(value);
        self.value_ends.push(self.values.len() as u32);
    }

    /// How many entries were added.
    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.trailers.len()
    }

    /// Whether no entry was added.
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.trailers.is_empty()
    }

    /// About how many bytes the block will have; exact where keys have one length and share nothing.
    #[inline]
    pub(crate) fn estimated_bytes(&self) -> usize {
        HEADER_BYTES + self.keys.len() + self.values.len() + 5 * self.trailers.len()
    }

    /// The key added last; empty if there is none.
    #[inline]
    pub(crate) fn last_key(&self) -> &[u8] {
        self.len().checked_sub(1).map_or(&[], |last| self.key(last))
    }

    /// The trailer added last.
    #[inline]
    pub(crate) fn last_trailer(&self) -> Option<Trailer> {
        self.trailers.last().copied()
    }

    #[inline]
    fn key(&self, i: usize) -> &[u8] {
        let start = if i == 0 { 0 } else { self.key_ends[i - 1] as usize };
        &self.keys[start..self.key_ends[i] as usize]
    }

    /// Appends the finished block to `out` and starts a new one.
    pub(crate) fn finish(&mut self, out: &mut Vec<u8>) {
        let shape = self.shape();
        out.reserve(HEADER_BYTES + 16 * self.len() + self.keys.len() + self.values.len() + shape.buckets);
        self.write_header(&shape, out);
        self.write_columns(&shape, out);
        self.write_buckets(shape.buckets, out);
        if !self.is_empty() {
            out.extend_from_slice(&self.key(0)[..shape.shared_bytes]);
        }
        for i in 0..self.len() {
            out.extend_from_slice(self.key(i).get(shape.shared_bytes + 8..).unwrap_or_default());
        }
        out.extend_from_slice(&self.values);
        self.clear();
    }

    fn clear(&mut self) {
        self.keys.clear();
        self.key_ends.clear();
        self.trailers.clear();
        self.values.clear();
        self.value_ends.clear();
        self.firsts.clear();
        if self.values.capacity() > KEEP_BYTES {
            self.values = Vec::new();
        }
    }

    fn shape(&self) -> Shape {
        let n = self.len();
        let last_key = self.last_key();
        let first_key = if n == 0 { &[] } else { self.key(0) };
        let shared_bytes = std::iter::zip(first_key, last_key).take_while(|(a, b)| a == b).count();
        let (mut least, mut most, mut all_puts) = (u64::MAX, 0, true);
        for trailer in &self.trailers {
            (least, most) = (least.min(trailer.seqno()), most.max(trailer.seqno()));
            all_puts &= trailer.is_put();
        }
        let base_seqno = if n == 0 { 0 } else { least };
        let (mut rests_total, mut rests_alike, mut values_alike, mut any_short) = (0, true, true, false);
        let first_rest = first_key.len().saturating_sub(shared_bytes + 8);
        let first_value = self.value_ends.first().map_or(0, |&end| end as usize);
        let (mut key_start, mut value_start) = (0, 0);
        for (&key_end, &value_end) in std::iter::zip(&self.key_ends, &self.value_ends) {
            let suffix = (key_end - key_start) as usize - shared_bytes;
            let rest = suffix.saturating_sub(8);
            any_short |= suffix < 8;
            rests_alike &= rest == first_rest;
            values_alike &= (value_end - value_start) as usize == first_value;
            rests_total += rest;
            (key_start, value_start) = (key_end, value_end);
        }
        let wide = rests_total.max(self.values.len()) > usize::from(u16::MAX);
        let flag = |on: bool, flag: u8| if on { flag } else { 0 };
        Shape {
            shared_bytes,
            base_seqno,
            seqno_width: match most.saturating_sub(base_seqno) {
                0 => 0,
                1..0x100 => 1,
                0x100..0x1_0000 => 2,
                0x1_0000..0x1_0000_0000 => 4,
                _ => 8,
            },
            flags: flag(rests_alike, FIXED_RESTS)
                | flag(values_alike, FIXED_VALUES)
                | flag(!all_puts, HAS_KINDS)
                | flag(any_short, HAS_SHORTS)
                | flag(wide, WIDE),
            rests_total,
            rest_bytes: if rests_alike { first_rest } else { rests_total },
            value_bytes: if values_alike { first_value } else { self.values.len() },
            buckets: if n > MAX_BUCKETED_ENTRIES { 0 } else { self.firsts.len() + self.firsts.len() / 2 },
        }
    }

    fn write_header(&self, shape: &Shape, out: &mut Vec<u8>) {
        out.extend_from_slice(&(self.len() as u32).to_le_bytes());
        out.push(shape.flags);
        out.push(shape.seqno_width);
        out.extend_from_slice(&(shape.shared_bytes as u16).to_le_bytes());
        out.extend_from_slice(&shape.base_seqno.to_le_bytes());
        out.extend_from_slice(&(shape.rest_bytes as u32).to_le_bytes());
        out.extend_from_slice(&(shape.value_bytes as u32).to_le_bytes());
        out.extend_from_slice(&(shape.buckets as u16).to_le_bytes());
        debug_assert!(shape.rests_total < u32::MAX as usize && self.values.len() < u32::MAX as usize);
    }

    fn write_columns(&self, shape: &Shape, out: &mut Vec<u8>) {
        let n = self.len();
        for i in 0..n {
            out.extend_from_slice(&prefix_u64(&self.key(i)[shape.shared_bytes..]).to_le_bytes());
        }
        let width = usize::from(shape.seqno_width);
        if width > 0 {
            for trailer in &self.trailers {
                out.extend_from_slice(&(trailer.seqno() - shape.base_seqno).to_le_bytes()[..width]);
            }
        }
        if shape.flags & HAS_KINDS != 0 {
            out.extend(self.trailers.iter().map(|trailer| trailer.kind_u8()));
        }
        if shape.flags & HAS_SHORTS != 0 {
            out.extend((0..n).map(|i| (self.key(i).len() - shape.shared_bytes).min(8) as u8));
        }
        let wide = shape.flags & WIDE != 0;
        if shape.flags & FIXED_RESTS == 0 {
            let mut end = 0;
            for i in 0..n {
                end += self.key(i).len().saturating_sub(shape.shared_bytes + 8);
                push_end(end as u32, wide, out);
            }
        }
        if shape.flags & FIXED_VALUES == 0 {
            for &end in &self.value_ends {
                push_end(end, wide, out);
            }
        }
    }

    fn write_buckets(&self, buckets: usize, out: &mut Vec<u8>) {
        let start = out.len();
        out.resize(start + buckets, BUCKET_EMPTY);
        if buckets == 0 {
            return;
        }
        let table = &mut out[start..];
        for &(entry, hash) in &self.firsts {
            let bucket = &mut table[bucket_of(hash, buckets)];
            *bucket = if *bucket == BUCKET_EMPTY { entry as u8 } else { BUCKET_COLLISION };
        }
    }
}

#[inline]
fn push_end(end: u32, wide: bool, out: &mut Vec<u8>) {
    out.extend_from_slice(&end.to_le_bytes()[..if wide { 4 } else { 2 }]);
}
