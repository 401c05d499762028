//! Sequence numbers, the internal key and its order.
//!
//! The engine never overwrites: every write is an entry of its own under (key, sequence number). The internal
//! order is user key ascending in unsigned byte order, then sequence number *descending*, so that a search for
//! (key, snapshot) lands on the newest version the snapshot may see.

/// Numbers every operation in a database, from 1 on, without gaps, never reused. At most [`MAX_SEQNO`].
pub type SeqNo = u64;

/// The largest sequence number: 2^56 - 1, because eight bits of a trailer hold the kind.
pub const MAX_SEQNO: SeqNo = (1 << 56) - 1;

/// The longest key, in bytes.
pub const MAX_KEY_BYTES: usize = 64 * 1024 - 1;

/// The longest value, in bytes.
pub const MAX_VALUE_BYTES: usize = 1 << 30;

/// What an entry does to its key. The numbers are on disk; 2 to 5 are reserved for merge operands, range
/// tombstones, blob references and expiring values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub(crate) enum ValueKind {
    /// A tombstone.
    Delete = 0,
    /// A value.
    Put = 1,
}

impl ValueKind {
    /// The kind with this number, if this release knows it.
    pub(crate) fn from_u8(n: u8) -> Option<Self> {
        match n {
            0 => Some(ValueKind::Delete),
            1 => Some(ValueKind::Put),
            _ => None,
        }
    }
}

/// Sequence number and kind in one word: `seqno << 8 | kind`. Larger means newer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Trailer(pub(crate) u64);

impl Trailer {
    pub(crate) fn new(seqno: SeqNo, kind: ValueKind) -> Self {
        debug_assert!(seqno <= MAX_SEQNO);
        Trailer(seqno << 8 | kind as u64)
    }

    /// The trailer that sorts before every entry a reader at `seqno` may see.
    pub(crate) fn seek(seqno: SeqNo) -> Self {
        Trailer(seqno << 8 | 0xff)
    }

    pub(crate) fn seqno(self) -> SeqNo {
        self.0 >> 8
    }

    /// The raw kind byte; readers of storage check it with [`ValueKind::from_u8`] before an entry is served.
    pub(crate) fn kind_u8(self) -> u8 {
        self.0 as u8
    }

    pub(crate) fn is_put(self) -> bool {
        self.kind_u8() == ValueKind::Put as u8
    }

    /// Whether it is that of a value, and a reader at `snapshot` sees it.
    #[inline]
    pub(crate) fn is_put_by(self, snapshot: SeqNo) -> bool {
        self.seqno() <= snapshot && self.is_put()
    }

    pub(crate) fn is_delete(self) -> bool {
        self.kind_u8() == ValueKind::Delete as u8
    }
}

/// The first eight bytes of `bytes` as a big-endian number, zero-padded. If `prefix(a) < prefix(b)` then `a < b`;
/// equal prefixes decide nothing.
#[inline]
pub(crate) fn prefix_u64(bytes: &[u8]) -> u64 {
    match bytes.first_chunk::<8>() {
        Some(chunk) => u64::from_be_bytes(*chunk),
        None => {
            let mut padded = [0; 8];
            padded[..bytes.len()].copy_from_slice(bytes);
            u64::from_be_bytes(padded)
        }
    }
}

/// Compares two user keys whose prefixes are at hand; touches the bytes only when the prefixes tie.
#[inline]
pub(crate) fn compare_keys(a_prefix: u64, a: &[u8], b_prefix: u64, b: &[u8]) -> std::cmp::Ordering {
    a_prefix.cmp(&b_prefix).then_with(|| a.cmp(b))
}

/// The hash of a user key that memtable and table filters and the block hash buckets share.
#[inline]
pub(crate) fn hash_key(key: &[u8]) -> u64 {
    xxhash_rust::xxh3::xxh3_64(key)
}

/// One key to look up at one sequence number, with everything that is computed once per get.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lookup<'a> {
    pub(crate) key: &'a [u8],
    pub(crate) seqno: SeqNo,
    pub(crate) hash: u64,
    pub(crate) prefix: u64,
}

impl<'a> Lookup<'a> {
    #[inline]
    pub(crate) fn new(key: &'a [u8], seqno: SeqNo) -> Self {
        Lookup { key, seqno, hash: hash_key(key), prefix: prefix_u64(key) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_order_like_their_keys_unless_they_tie() {
        let keys: &[&[u8]] = &[b"", b"\0", b"a", b"a\0", b"ab", b"abcdefgh", b"abcdefgh\0", b"abcdefgi", b"\xff"];
        for pair in keys.windows(2) {
            let (a, b) = (pair[0], pair[1]);
            assert!(prefix_u64(a) <= prefix_u64(b));
            assert!(compare_keys(prefix_u64(a), a, prefix_u64(b), b).is_lt(), "{a:?} {b:?}");
        }
    }

    #[test]
    fn trailers_keep_number_and_kind_and_order_by_age() {
        let t = Trailer::new(MAX_SEQNO, ValueKind::Put);
        assert_eq!((t.seqno(), t.is_put()), (MAX_SEQNO, true));
        assert!(Trailer::new(2, ValueKind::Delete) > Trailer::new(1, ValueKind::Put));
        assert!(Trailer::seek(2) >= Trailer::new(2, ValueKind::Put));
        assert!(Trailer::seek(2) < Trailer::new(3, ValueKind::Delete));
    }
}
