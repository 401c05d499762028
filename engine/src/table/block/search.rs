//! Searching a block.

use std::cmp::Ordering;
use std::ops::{Deref, Range};

use super::{BUCKET_COLLISION, BUCKET_EMPTY, Block, HEADER_BYTES, bucket_of};
use crate::key::{Lookup, SeqNo, Trailer, prefix_u64};
use crate::prefetch::{LINE_BYTES, prefetch_at};

/// How many numbers of an ascending column are less than `target`. The loop's length depends on the column's length
/// only and its one choice compiles to a conditional move, so nothing is mispredicted.
#[inline]
fn count_less(column: &[[u8; 8]], target: u64) -> usize {
    let mut rest = column;
    let mut base = 0;
    while rest.len() > 1 {
        let half = rest.len() / 2;
        let skip = if u64::from_le_bytes(rest[half - 1]) < target { half } else { 0 };
        base += skip;
        rest = &rest[skip..skip + rest.len() - half];
    }
    base + usize::from(rest.first().is_some_and(|&last| u64::from_le_bytes(last) < target))
}

/// Every how many entries a [`Sample`] takes one: as many as two cache lines of the column hold.
const SAMPLE_STEP: usize = 16;

/// A sixteenth of a large block's prefix column. It stays in the processor's nearest cache where the column does not,
/// so that a search misses the cache once instead of at each of its last steps.
#[derive(Debug, Default)]
pub(crate) struct Sample(Box<[[u8; 8]]>);

impl Sample {
    /// The heap the sample holds, in bytes.
    pub(crate) fn bytes(&self) -> usize {
        8 * self.0.len()
    }
}

/// Where a key stands relative to a block's shared prefix.
enum Target<'k> {
    /// Before every entry.
    Before,
    /// After every entry.
    After,
    /// It has the shared prefix; this is what follows, and its prefix.
    Suffix(&'k [u8], u64),
}

impl<B: Deref<Target = [u8]>> Block<B> {
    #[inline]
    fn target<'k>(&self, key: &'k [u8], prefix: u64) -> Target<'k> {
        let shared = self.shared();
        if shared.is_empty() {
            return Target::Suffix(key, prefix);
        }
        match key.get(..shared.len()) {
            Some(head) => match head.cmp(shared) {
                Ordering::Less => Target::Before,
                Ordering::Greater => Target::After,
                Ordering::Equal => {
                    let suffix = &key[shared.len()..];
                    Target::Suffix(suffix, prefix_u64(suffix))
                }
            },
            // Shorter than the shared prefix: equal as far as it goes means before.
            None if key > shared => Target::After,
            None => Target::Before,
        }
    }

    /// Compares entry `i`'s key with a key of the same prefix column number.
    #[inline]
    fn compare_tied(&self, i: usize, suffix: &[u8]) -> Ordering {
        // Equal zero-padded prefixes: where one suffix is shorter than eight bytes, it is a prefix of the other.
        self.short(i).cmp(&suffix.len().min(8)).then_with(|| self.rest(i).cmp(suffix.get(8..).unwrap_or_default()))
    }

    /// The first entry at or after (`key`, `seqno`) in internal order; `len()` if there is none. `prefix` is
    /// `prefix_u64(key)`.
    #[inline]
    pub(crate) fn lower_bound(&self, key: &[u8], prefix: u64, seqno: SeqNo) -> usize {
        self.lower_bound_in(key, prefix, seqno, |prefix| count_less(self.prefixes(), prefix))
    }

    /// [`lower_bound`](Block::lower_bound) with the help of this block's [`Sample`].
    #[inline]
    pub(crate) fn lower_bound_sampled(&self, key: &[u8], prefix: u64, seqno: SeqNo, sample: &Sample) -> usize {
        let part = self.prefetch_sampled(key, prefix, sample);
        self.lower_bound_in_part(key, prefix, seqno, &part)
    }

    /// [`lower_bound`](Block::lower_bound) in the part that [`prefetch_sampled`](Block::prefetch_sampled) found for the
    /// same key.
    #[inline]
    pub(crate) fn lower_bound_in_part(&self, key: &[u8], prefix: u64, seqno: SeqNo, part: &Range<usize>) -> usize {
        self.lower_bound_in(key, prefix, seqno, |prefix| {
            part.start + count_less(self.prefixes().get(part.clone()).unwrap_or_default(), prefix)
        })
    }

    /// Finds the part of the block in which `key` belongs, and starts loading its keys and values.
    #[inline]
    pub(crate) fn prefetch_sampled(&self, key: &[u8], prefix: u64, sample: &Sample) -> Range<usize> {
        // Without the shared prefix the answer is an end of the block, and no part is looked at.
        let Target::Suffix(_, prefix) = self.target(key, prefix) else { return 0..0 };
        let part = self.sampled(prefix, sample);
        self.prefetch(&part);
        part
    }

    /// Which entries are left to be searched for `prefix`: every one before a sampled one that is less is less, and none
    /// from the next sampled one on.
    #[inline]
    fn sampled(&self, prefix: u64, sample: &Sample) -> Range<usize> {
        let end = SAMPLE_STEP * count_less(&sample.0, prefix);
        end.saturating_sub(SAMPLE_STEP)..end.min(self.len())
    }

    /// Starts loading the prefixes and the values of `entries`, and of the one after them.
    #[inline]
    fn prefetch(&self, entries: &Range<usize>) {
        let last = entries.end.min(self.len().saturating_sub(1));
        let prefixes = HEADER_BYTES + 8 * entries.start..HEADER_BYTES + 8 * last;
        let values = self.value_range(entries.start).start..self.value_range(last).end;
        for range in [prefixes, values] {
            range.step_by(LINE_BYTES).for_each(|at| prefetch_at(&self.bytes, at));
        }
    }

    /// Takes a sample of the prefix column.
    pub(crate) fn sample(&self) -> Sample {
        Sample(self.prefixes().iter().copied().step_by(SAMPLE_STEP).collect())
    }

    #[inline]
    fn lower_bound_in(&self, key: &[u8], prefix: u64, seqno: SeqNo, count: impl FnOnce(u64) -> usize) -> usize {
        let (suffix, prefix) = match self.target(key, prefix) {
            Target::Before => return 0,
            Target::After => return self.len(),
            Target::Suffix(suffix, prefix) => (suffix, prefix),
        };
        let column = self.prefixes();
        let low = count(prefix);
        match column.get(low) {
            Some(&tied) if u64::from_le_bytes(tied) == prefix => self.lower_bound_tied(low, suffix, prefix, seqno),
            _ => low,
        }
    }

    /// [`lower_bound`](Block::lower_bound) among the entries from `low` on whose prefix is `prefix`.
    fn lower_bound_tied(&self, low: usize, suffix: &[u8], prefix: u64, seqno: SeqNo) -> usize {
        let newest = Trailer::seek(seqno);
        let is_before = |i: usize| match self.compare_tied(i, suffix) {
            Ordering::Less => true,
            Ordering::Equal => self.trailer(i) > newest,
            Ordering::Greater => false,
        };
        // Mostly one entry ties, and it is the one.
        if !is_before(low) {
            return low;
        }
        let column = self.prefixes();
        let mut low = low + 1;
        let mut high = match prefix.checked_add(1) {
            Some(next) => low + count_less(column.get(low..).unwrap_or_default(), next),
            None => self.len(),
        };
        while low < high {
            let middle = low + (high - low) / 2;
            if is_before(middle) {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        low
    }

    /// The newest entry of the key that the lookup may see, if the block has one.
    #[inline]
    pub(crate) fn find(&self, lookup: &Lookup<'_>) -> Option<usize> {
        let (suffix, prefix) = match self.target(lookup.key, lookup.prefix) {
            Target::Suffix(suffix, prefix) => (suffix, prefix),
            Target::Before | Target::After => return None,
        };
        let buckets = self.section(self.buckets_at, self.buckets as usize);
        if let Some(&bucket) = buckets.get(bucket_of(lookup.hash, buckets.len())) {
            if bucket == BUCKET_EMPTY {
                return None;
            }
            if bucket != BUCKET_COLLISION {
                let i = usize::from(bucket);
                if !self.has_key(i, suffix, prefix) {
                    return None;
                }
                if self.trailer(i).seqno() <= lookup.seqno {
                    return Some(i);
                }
            }
        }
        let i = self.lower_bound(lookup.key, lookup.prefix, lookup.seqno);
        self.has_key(i, suffix, prefix).then_some(i)
    }

    /// Whether entry `i` exists and its key is the shared prefix and `suffix`.
    #[inline]
    fn has_key(&self, i: usize, suffix: &[u8], prefix: u64) -> bool {
        self.prefixes().get(i).is_some_and(|&p| u64::from_le_bytes(p) == prefix) && self.compare_tied(i, suffix).is_eq()
    }

    /// Checks what only a full pass shows: internal order, and that the buckets lead to every key.
    ///
    /// # Errors
    /// What does not fit.
    pub(crate) fn check_order(&self) -> Result<(), super::Reason> {
        let (mut key, mut last_key) = (Vec::new(), Vec::new());
        let mut last_trailer = None;
        for i in 0..self.len() {
            self.key_into(i, &mut key);
            let trailer = self.trailer(i);
            let is_new = last_trailer.is_none() || key != last_key;
            if last_trailer.is_some_and(|last| key < last_key || (!is_new && trailer >= last)) {
                return Err("entries out of order");
            }
            if is_new && self.find(&Lookup::new(&key, trailer.seqno())) != Some(i) {
                return Err("a key that its block's search does not find");
            }
            last_trailer = Some(trailer);
            std::mem::swap(&mut key, &mut last_key);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counting_agrees_with_partition_point_at_every_length() {
        for n in 0..70u64 {
            let column: Vec<[u8; 8]> = (0..n).map(|i| (i / 3 * 2).to_le_bytes()).collect();
            for target in 0..n + 2 {
                let expected = (0..n).filter(|i| i / 3 * 2 < target).count();
                assert_eq!(count_less(&column, target), expected, "n {n} target {target}");
            }
        }
    }
}
