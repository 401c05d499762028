//! [`Indexed`]: where the newest record of each key of a memtable lies, by the key's hash.
//!
//! A get finds what was written a while ago in two steps to memory that no cache may hold, the hash's bucket and the
//! record, where a search of the representation takes one for every level; and one step tells that a key is not there.
//! The index never grows, and a key that finds its bucket full is not in it: then the representation is searched.

#![allow(unsafe_code)]

use std::ptr::null_mut;
use std::sync::{Arc, OnceLock};

use super::Representation;
use super::arena::{ArenaPool, Slab};
use super::record::Record;
use crate::key::{Lookup, Trailer, hash_key};
use crate::prefetch::{LINE_BYTES, prefetch};
use crate::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use crate::sync::atomic::{AtomicPtr, fence};

/// The slots of a bucket, which is a cache line.
const SLOTS: usize = LINE_BYTES / size_of::<usize>();

/// How many keys of a bucket are expected at most: of those that find it full there are few then (with 4 of 8, one
/// bucket in 50; keys fall into buckets as in Poisson's distribution).
const KEYS_PER_BUCKET: usize = SLOTS / 2;

/// What an entry takes beside its record, in bytes: its share of nodes that are two thirds full.
const NODE_BYTES_PER_ENTRY: usize = 40;

/// The index takes at most this part of its memtable.
const LARGEST_SHARE: usize = 8;

/// The index is built when the memtable has taken a 256th of what it is sealed at, but within these bounds, in bytes: a
/// smaller one is searched as fast, and the one write that builds the index must not take long.
const THRESHOLD_BYTES: (usize, usize) = (64 << 10, 1 << 20);

/// How far up in an address the tag is: what lies above is unused, or else the record cannot be in the index.
const TAG_SHIFT: u32 = usize::BITS - 16;

/// Where a record lies, and above [`TAG_SHIFT`] a piece of its key's hash. Null while it is free.
type Slot = AtomicPtr<Record>;

#[repr(C, align(64))]
struct Bucket([Slot; SLOTS]);

/// What a slot's record must have in common with a key, most other keys' have not; odd, so that no free slot has it.
#[inline]
fn tag_of(hash: u64) -> usize {
    (hash as usize & 0xffff) | 1
}

/// What the index knows of a key.
enum Answer<'a> {
    /// This is what the reader sees of it.
    Is(&'a Record),
    /// It is not in the memtable.
    Absent,
    /// The representation has to be asked: the bucket was full, or the newest record is too new for the reader.
    Unknown,
}

/// See the module. One thread at a time inserts, any number finds.
///
/// Slots of a bucket are taken in order, and never become free. A record is in its slot before it is published, so whoever
/// has learned of a sequence number finds the slots of all records up to it, or a full bucket, or what is newer.
struct Index {
    buckets: Slab<Bucket>,
}

impl Index {
    /// An empty one of about `bytes` bytes, and at most `most_bytes` (but one bucket).
    fn new(pool: &Arc<ArenaPool>, bytes: usize, most_bytes: usize) -> Self {
        let free = || Bucket(std::array::from_fn(|_| AtomicPtr::new(null_mut())));
        Index { buckets: Slab::new(pool, bytes, most_bytes, free) }
    }

    #[inline]
    fn bucket(&self, hash: u64) -> &[Slot; SLOTS] {
        // The high half of the hash, scaled: there are fewer than 2^32 buckets.
        let bucket = ((hash >> 32) * self.buckets.len() as u64) >> 32;
        &self.buckets.at(bucket as usize).0
    }

    #[inline]
    fn prefetch(&self, hash: u64) {
        prefetch(self.bucket(hash));
    }

    /// Adds a record by its key's hash, unless a newer one of the key is there.
    ///
    /// # Safety
    /// All records that are added live as long as the index.
    unsafe fn insert(&self, hash: u64, record: &Record) {
        let (bucket, tag, address) = (self.bucket(hash), tag_of(hash), std::ptr::from_ref(record).cast_mut());
        if address.addr() >> TAG_SHIFT != 0 {
            return close(bucket);
        }
        let tagged = address.map_addr(|address| address | tag << TAG_SHIFT);
        for slot in bucket {
            // Relaxed: only this thread changes slots.
            let there = slot.load(Relaxed);
            if there.is_null() {
                return slot.store(tagged, Release);
            }
            if there.addr() >> TAG_SHIFT == tag {
                // SAFETY: the caller's contract.
                let old = unsafe { untagged(there) };
                if old.key() == record.key() {
                    if old.trailer < record.trailer {
                        slot.store(tagged, Release);
                    }
                    return;
                }
            }
        }
    }

    #[inline]
    fn find(&self, lookup: &Lookup) -> Answer<'_> {
        let tag = tag_of(lookup.hash);
        let bucket = self.bucket(lookup.hash).each_ref().map(|slot| slot.load(Relaxed));
        // Pairs with the stores in `insert`: the records that were loaded are complete.
        fence(Acquire);
        for tagged in bucket.into_iter().filter(|slot| slot.addr() >> TAG_SHIFT == tag) {
            // SAFETY: it was put there by `insert`, whose contract has it live as long as the index; the tag is odd, so
            // the slot is neither free nor closed.
            let record = unsafe { untagged(tagged) };
            if record.key() == lookup.key {
                let is_visible = record.trailer <= Trailer::seek(lookup.seqno);
                return if is_visible { Answer::Is(record) } else { Answer::Unknown };
            }
        }
        if bucket[SLOTS - 1].is_null() { Answer::Absent } else { Answer::Unknown }
    }
}

/// Has a bucket say that there may be more keys.
#[cold]
fn close(bucket: &[Slot; SLOTS]) {
    for slot in bucket.iter().filter(|slot| slot.load(Relaxed).is_null()) {
        slot.store(std::ptr::dangling_mut(), Release);
    }
}

/// # Safety
/// `tagged` is what [`Index::insert`] put into a slot, and the record lives.
#[inline]
unsafe fn untagged<'a>(tagged: *mut Record) -> &'a Record {
    // SAFETY: without the tag it is the address of the record.
    unsafe { &*tagged.map_addr(|address| address & ((1 << TAG_SHIFT) - 1)) }
}

/// A representation, and the index to its records once there are more than a few.
pub(super) struct Indexed<R> {
    /// Published when it holds all keys that were there, and from then on gets each record before it is visible.
    index: OnceLock<Index>,
    /// The size at which the memtable will be sealed.
    expected_bytes: usize,
    pool: Arc<ArenaPool>,
    records: R,
}

impl<R: Representation> Indexed<R> {
    pub(super) fn new(expected_bytes: usize, pool: &Arc<ArenaPool>) -> Self {
        Indexed { index: OnceLock::new(), expected_bytes, pool: Arc::clone(pool), records: R::new(pool) }
    }

    pub(super) fn records(&self) -> &R {
        &self.records
    }

    /// Adds an entry; see [`Representation::insert`].
    #[inline]
    pub(super) fn insert(&self, key: &[u8], trailer: Trailer, value: &[u8], before_visible: impl FnOnce()) {
        let hash = hash_key(key);
        // It comes while the entry's place is searched.
        self.prefetch(hash);
        self.records.insert(key, trailer, value, |records, record| {
            before_visible();
            let index = self.index.get().or_else(|| self.is_due(records).then(|| self.build(records)));
            if let Some(index) = index {
                // SAFETY: the record is one of `self.records`, which lives as long as the index beside it.
                unsafe { index.insert(hash, record) };
            }
        });
    }

    fn is_due(&self, records: &R) -> bool {
        records.bytes() >= (self.expected_bytes / 256).clamp(THRESHOLD_BYTES.0, THRESHOLD_BYTES.1)
    }

    /// Makes the index, with room for as many entries like those that are there as the memtable will take.
    #[cold]
    fn build(&self, records: &R) -> &Index {
        let (mut count, mut bytes) = (0, 0);
        records.for_each(|record| {
            count += 1;
            bytes += record.bytes();
        });
        let entry_bytes = bytes / count.max(1) + NODE_BYTES_PER_ENTRY;
        let wanted_bytes = self.expected_bytes / entry_bytes / KEYS_PER_BUCKET * size_of::<Bucket>();
        let index = Index::new(&self.pool, wanted_bytes, self.expected_bytes / LARGEST_SHARE);
        // SAFETY: as in `insert`.
        records.for_each(|record| unsafe { index.insert(hash_key(record.key()), record) });
        // Nobody else can set it: insertions come one at a time.
        self.index.get_or_init(|| index)
    }

    /// The newest entry of `lookup.key` with a sequence number of at most `lookup.seqno`.
    #[inline]
    pub(super) fn get(&self, lookup: &Lookup) -> Option<&Record> {
        match self.index.get().map_or(Answer::Unknown, |index| index.find(lookup)) {
            Answer::Is(record) => Some(record),
            Answer::Absent => None,
            Answer::Unknown => self.records.get(lookup),
        }
    }

    /// Asks the processor to fetch what [`get`](Self::get) reads first.
    #[inline]
    pub(super) fn prefetch(&self, hash: u64) {
        if let Some(index) = self.index.get() {
            index.prefetch(hash);
        }
    }

    /// Memory held, in bytes.
    pub(super) fn bytes(&self) -> usize {
        self.records.bytes() + self.index.get().map_or(0, |index| index.buckets.bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::super::arena::Arena;
    use super::super::btree::BTree;
    use super::*;
    use crate::key::{MAX_SEQNO, ValueKind};

    fn key(n: u64) -> [u8; 8] {
        n.to_be_bytes()
    }

    fn put(seqno: u64) -> Trailer {
        Trailer::new(seqno, ValueKind::Put)
    }

    #[test]
    fn keys_with_one_hash_are_told_apart() {
        const HASH: u64 = 0x1234_5678_9abc_def0;
        let pool = Arc::new(ArenaPool::new(0, 1 << 20));
        let (mut arena, index) = (Arena::new(&pool), Index::new(&pool, 1 << 10, usize::MAX));
        let find = |index: &Index, n, seqno| match index.find(&Lookup { hash: HASH, ..Lookup::new(&key(n), seqno) }) {
            Answer::Is(record) => Some(record.trailer.seqno()),
            Answer::Absent | Answer::Unknown => None,
        };
        for seqno in 1..=2 * SLOTS as u64 {
            let record = Record::allocate(&mut arena, &key(seqno % SLOTS as u64), put(seqno), b"");
            // SAFETY: the arena is dropped after the index.
            unsafe { index.insert(HASH, record.as_ref()) };
            assert!((1..=seqno).all(|n| find(&index, n % SLOTS as u64, seqno) >= Some(n)), "{seqno}");
        }
        assert_eq!(find(&index, SLOTS as u64, MAX_SEQNO), None);
    }

    /// The index answers most questions itself: that gets are right is no evidence that it is asked.
    #[test]
    fn what_it_holds_it_finds_and_what_it_does_not_hold_is_absent() {
        const KEYS: u64 = 8192;
        let pool = Arc::new(ArenaPool::new(0, 1 << 20));
        let (mut arena, index) =
            (Arena::new(&pool), Index::new(&pool, KEYS as usize / KEYS_PER_BUCKET * LINE_BYTES, usize::MAX));
        let mut full = 0;
        for n in 0..KEYS {
            let record = Record::allocate(&mut arena, &key(n), put(n + 1), b"value");
            // SAFETY: the arena is dropped after the index.
            unsafe { index.insert(hash_key(&key(n)), record.as_ref()) };
        }
        for n in 0..KEYS {
            match index.find(&Lookup::new(&key(n), n + 1)) {
                Answer::Is(record) => assert_eq!((record.key(), record.trailer), (&key(n)[..], put(n + 1))),
                Answer::Absent => panic!("{n} is there"),
                Answer::Unknown => full += 1,
            }
            assert!(!matches!(index.find(&Lookup::new(&key(n), n)), Answer::Is(_)), "{n} is too new for this reader");
        }
        assert!(full < KEYS / 50, "{full} of {KEYS} found no room");
        let absent =
            (KEYS..2 * KEYS).filter(|n| matches!(index.find(&Lookup::new(&key(*n), MAX_SEQNO)), Answer::Absent));
        assert!(absent.count() as u64 > KEYS * 9 / 10);
    }

    #[test]
    fn a_closed_bucket_answers_nothing_more_than_it_did() {
        let pool = Arc::new(ArenaPool::new(0, 1 << 20));
        let (mut arena, index) = (Arena::new(&pool), Index::new(&pool, LINE_BYTES, LINE_BYTES));
        let record = Record::allocate(&mut arena, &key(1), put(1), b"");
        // SAFETY: the arena is dropped after the index.
        unsafe { index.insert(hash_key(&key(1)), record.as_ref()) };
        assert!(matches!(index.find(&Lookup::new(&key(2), 9)), Answer::Absent));
        close(index.bucket(0));
        assert!(matches!(index.find(&Lookup::new(&key(1), 9)), Answer::Is(_)));
        assert!((2..1000).all(|n| matches!(index.find(&Lookup::new(&key(n), 9)), Answer::Unknown)));
    }

    #[test]
    fn it_is_built_when_it_pays_and_sized_by_the_entries_that_are_there() {
        for (value_bytes, expected) in [(1000, 1 << 20), (100, 3 << 20), (1, 8 << 20)] {
            let pool = Arc::new(ArenaPool::new(0, 1 << 20));
            let indexed = Indexed::<BTree>::new(64 << 20, &pool);
            let mut n = 0;
            while indexed.index.get().is_none() {
                n += 1;
                indexed.insert(&key(n), put(n), &vec![0; value_bytes], || ());
            }
            assert!((128 << 10..1 << 20).contains(&indexed.records.bytes()), "{}", indexed.records.bytes());
            let index_bytes = indexed.bytes() - indexed.records.bytes();
            assert!((expected / 2..=expected * 2).contains(&index_bytes), "{value_bytes}: {index_bytes}");
            assert!(index_bytes <= (64 << 20) / LARGEST_SHARE);
        }
    }
}
