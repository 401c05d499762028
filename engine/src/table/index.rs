//! The index: which data block may hold a key.
//!
//! One entry a data block, in the block format. The key is a separator: at or after the block's last key, before the
//! next block's first. Its trailer is sequence number 0, which sorts after every version of the separator. Only where
//! versions of one key go on in the next block, key and trailer are those of the block's last entry. So the first index
//! entry at or after (key, seqno) is always the one block to look in. The value is the block's [`Handle`]. Data blocks
//! lie one after the other from offset 0.

use std::ops::Range;

use bytes::Bytes;

use super::block::{Block, BlockBuilder, Reason, Sample};
use super::format::Handle;
use crate::key::{SeqNo, Trailer, ValueKind};

/// Index keys and handles together stay below this, so that the block's offsets fit.
const MAX_INDEX_BYTES: usize = 2 << 30;

/// A table's index, held in memory or read in place.
#[derive(Debug)]
pub(crate) struct Index {
    block: Block<Bytes>,
    sample: Sample,
}

impl Index {
    /// Parses the index of a table whose data blocks end at `data_bytes`, and checks that they follow each other
    /// without gaps.
    ///
    /// # Errors
    /// What does not fit.
    pub(crate) fn new(payload: Bytes, data_bytes: u64) -> Result<Self, Reason> {
        let block = Block::parse(payload)?;
        block.check_entries()?;
        let index = Index { sample: block.sample(), block };
        let mut end = 0;
        for ordinal in 0..index.len() {
            let handle = index.handle(ordinal)?;
            if handle.offset != end {
                return Err("data blocks with gaps");
            }
            end = handle.end().ok_or("a data block beyond the end of everything")?;
        }
        if end != data_bytes {
            return Err("data blocks that do not fill their part of the file");
        }
        Ok(index)
    }

    /// How many data blocks there are.
    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.block.len()
    }

    /// The block that holds the first entry at or after (`key`, `seqno`), or else whose successor begins with it;
    /// `len()` if all entries are before. `prefix` is `prefix_u64(key)`.
    #[inline]
    pub(crate) fn lower_bound(&self, key: &[u8], prefix: u64, seqno: SeqNo) -> usize {
        self.block.lower_bound_sampled(key, prefix, seqno, &self.sample)
    }

    /// Starts loading what [`lower_bound`](Index::lower_bound) of `key` and the [`handle`](Index::handle) of what it
    /// finds lie in; answers with the part of the index that is.
    #[inline]
    pub(crate) fn prefetch(&self, key: &[u8], prefix: u64) -> Range<usize> {
        self.block.prefetch_sampled(key, prefix, &self.sample)
    }

    /// [`lower_bound`](Index::lower_bound) in the part that [`prefetch`](Index::prefetch) found for the same key.
    #[inline]
    pub(crate) fn lower_bound_in(&self, key: &[u8], prefix: u64, seqno: SeqNo, part: &Range<usize>) -> usize {
        self.block.lower_bound_in_part(key, prefix, seqno, part)
    }

    /// Whether the first entry of data block `ordinal` has another key than the last one before it in the table.
    #[inline]
    pub(crate) fn begins_key(&self, ordinal: usize) -> bool {
        // A separator has sequence number 0 unless versions of one key go on behind it. (An entry with that number has
        // no older version behind it.)
        ordinal.checked_sub(1).is_none_or(|before| self.block.trailer(before).seqno() == 0)
    }

    /// Where data block `ordinal` lies.
    ///
    /// # Errors
    /// There is no such block.
    #[inline]
    pub(crate) fn handle(&self, ordinal: usize) -> Result<Handle, Reason> {
        if ordinal >= self.len() {
            return Err("no such data block");
        }
        self.block.value(ordinal).first_chunk().map(Handle::decode).ok_or("an index entry without a handle")
    }

    /// Puts data block `ordinal`'s separator into `key`; answers with its trailer.
    pub(crate) fn separator(&self, ordinal: usize, key: &mut Vec<u8>) -> Trailer {
        self.block.key_into(ordinal, key);
        self.block.trailer(ordinal)
    }

    /// Bytes of the index as it is stored.
    pub(crate) fn bytes(&self) -> usize {
        self.block.bytes().len()
    }

    /// Bytes of the heap that the index takes beside [`bytes`](Index::bytes).
    pub(crate) fn extra_bytes(&self) -> usize {
        self.sample.bytes()
    }

    /// Checks the order of the separators.
    ///
    /// # Errors
    /// What does not fit.
    pub(crate) fn check_order(&self) -> Result<(), Reason> {
        self.block.check_order()
    }
}

/// Builds an index.
#[derive(Debug, Default)]
pub(crate) struct IndexBuilder {
    block: BlockBuilder,
}

impl IndexBuilder {
    /// Adds the data block at `handle` that ends with `last`; `next` is the next block's first key, `None` for the last
    /// block.
    pub(crate) fn add(&mut self, last: (&[u8], Trailer), next: Option<&[u8]>, handle: Handle) {
        let (last_key, last_trailer) = last;
        let (key, trailer) = match next {
            Some(next) if next == last_key => (last_key, last_trailer),
            Some(next) => (separator(last_key, next), Trailer::new(0, ValueKind::Put)),
            None => (last_key, Trailer::new(0, ValueKind::Put)),
        };
        self.block.add(key, None, trailer, &handle.encode());
    }

    /// How many data blocks were added.
    pub(crate) fn len(&self) -> usize {
        self.block.len()
    }

    /// About how many bytes the index will have.
    pub(crate) fn estimated_bytes(&self) -> usize {
        self.block.estimated_bytes()
    }

    /// Whether another separator may not fit.
    pub(crate) fn is_full(&self) -> bool {
        self.estimated_bytes() > MAX_INDEX_BYTES
    }

    /// Appends the payload to `out`.
    pub(crate) fn finish(&mut self, out: &mut Vec<u8>) {
        self.block.finish(out);
    }
}

/// A short key at or after `last` and before `next`; `last` is before `next`.
fn separator<'k>(last: &'k [u8], next: &'k [u8]) -> &'k [u8] {
    let shared = std::iter::zip(last, next).take_while(|(a, b)| a == b).count();
    // One byte more than is shared makes it larger than `last`; shorter than `next` makes it smaller than that.
    if shared < last.len() && shared + 1 < next.len() { &next[..shared + 1] } else { last }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::{MAX_SEQNO, prefix_u64};

    #[test]
    fn separators_separate() {
        let cases: &[(&[u8], &[u8], &[u8])] = &[
            (b"", b"a", b""),
            (b"a", b"ab", b"a"),
            (b"abc", b"abd", b"abc"),
            (b"abcxyz", b"abdaaa", b"abd"),
            (b"abc", b"b", b"abc"),
            (b"a\xff\xff", b"b\0", b"b"),
        ];
        for &(last, next, expected) in cases {
            let found = separator(last, next);
            assert!(last <= found && found < next, "{last:?} {next:?} {found:?}");
            assert_eq!(found, expected);
        }
    }

    fn handle(offset: u64) -> Handle {
        Handle { offset, stored_bytes: 10 }
    }

    #[test]
    fn a_key_whose_versions_go_on_is_found_in_the_block_of_its_version() {
        let put = |seqno| Trailer::new(seqno, ValueKind::Put);
        let mut builder = IndexBuilder::default();
        builder.add((b"k", put(90)), Some(b"k"), handle(0));
        builder.add((b"k", put(80)), Some(b"k"), handle(10));
        builder.add((b"k", put(70)), Some(b"m"), handle(20));
        builder.add((b"z", put(1)), None, handle(30));
        let mut out = Vec::new();
        builder.finish(&mut out);
        let index = Index::new(out.clone().into(), 40).unwrap();
        let find = |key: &[u8], seqno| index.lower_bound(key, prefix_u64(key), seqno);
        assert_eq!(
            [find(b"k", MAX_SEQNO), find(b"k", 90), find(b"k", 89), find(b"k", 80), find(b"k", 79)],
            [0, 0, 1, 1, 2]
        );
        assert_eq!([find(b"k", 0), find(b"l", 5), find(b"z", 0), find(b"zz", 5)], [2, 3, 3, 4]);
        assert_eq!([0, 1, 2, 3].map(|ordinal| index.begins_key(ordinal)), [true, false, false, true]);
        assert_eq!(index.handle(2), Ok(handle(20)));
        assert!(index.handle(4).is_err());
        assert!(Index::new(out.into(), 41).is_err(), "a tail that no block covers");
    }
}
