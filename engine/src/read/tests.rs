//! Merging, visibility and ranges over runs in memory, against a sorted map.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::ops::{Bound, ControlFlow};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::merge::MergeCursor;
use super::range::{Bounds, OpenCursor, RangeIter, bounds_of, prefix_bounds};
use super::visible::VisibleCursor;
use crate::cursor::{Cursor, Stretch};
use crate::error::{Error, Result};
use crate::key::{MAX_SEQNO, SeqNo, Trailer, ValueKind, prefix_u64};
use crate::memtable::{ArenaPool, Memtable, MemtableCursor};
use crate::options::MemtableKind;
use crate::slice::Slice;

type Entry = (Vec<u8>, Reverse<Trailer>, Bytes);

/// A sorted run in memory, some of whose entries cannot be read.
#[derive(Clone, Default)]
struct RunCursor {
    entries: Arc<Vec<Entry>>,
    at: Option<usize>,
    damaged: Option<usize>,
    pinned: bool,
    /// Whether it answers what needs no more than a look, as blocks do.
    looks: bool,
    /// How often it or a clone of it was moved.
    moves: Arc<AtomicUsize>,
}

impl RunCursor {
    fn new(mut entries: Vec<Entry>, pinned: bool) -> Self {
        entries.sort();
        RunCursor { entries: Arc::new(entries), pinned, ..RunCursor::default() }
    }

    fn stand(&mut self, at: Option<usize>) -> Result<()> {
        self.moves.fetch_add(1, Ordering::Relaxed);
        self.at = at.filter(|&at| at < self.entries.len());
        if self.at.is_some() && self.at == self.damaged {
            self.at = None;
            return Err(Error::corruption(Path::new("run"), 0, "damaged"));
        }
        Ok(())
    }

    fn entry(&self) -> &Entry {
        &self.entries[self.at.expect("valid")]
    }
}

impl Cursor for RunCursor {
    fn valid(&self) -> bool {
        self.at.is_some()
    }
    fn key(&self) -> &[u8] {
        &self.entry().0
    }
    fn key_prefix(&self) -> u64 {
        prefix_u64(self.key())
    }
    fn trailer(&self) -> Trailer {
        self.entry().1.0
    }
    fn value(&self) -> &[u8] {
        &self.entry().2
    }
    fn value_owner(&self) -> Option<&Bytes> {
        self.pinned.then_some(&self.entry().2)
    }
    fn seek_to_first(&mut self) -> Result<()> {
        self.stand(Some(0))
    }
    fn seek_to_last(&mut self) -> Result<()> {
        self.stand(self.entries.len().checked_sub(1))
    }
    fn seek(&mut self, key: &[u8], seqno: SeqNo) -> Result<()> {
        let from = (key, Reverse(Trailer::seek(seqno)));
        self.stand(Some(self.entries.partition_point(|(key, trailer, _)| (&key[..], *trailer) < from)))
    }
    fn seek_before(&mut self, key: &[u8]) -> Result<()> {
        self.stand(self.entries.partition_point(|entry| &entry.0[..] < key).checked_sub(1))
    }
    fn next(&mut self) -> Result<()> {
        self.stand(self.at.map(|at| at + 1))
    }
    fn next_key(&mut self) -> Option<u64> {
        let (here, next) = (self.at, self.at.expect("valid") + 1);
        let there = prefix_u64(&self.entries.get(next).filter(|_| self.looks)?.0);
        if there == self.key_prefix() {
            return None;
        }
        let moved = self.stand(Some(next)).is_ok();
        self.at = if moved { self.at } else { here };
        moved.then_some(there)
    }
    fn is_newest(&self) -> bool {
        let before = self.at.expect("valid").checked_sub(1);
        self.looks && before.is_some_and(|before| prefix_u64(&self.entries[before].0) < self.key_prefix())
    }
    fn prev(&mut self) -> Result<()> {
        self.stand(self.at.and_then(|at| at.checked_sub(1)))
    }
    fn visit<B>(&mut self, stretch: Stretch, with: &mut impl FnMut(&[u8], &[u8]) -> ControlFlow<B>) -> ControlFlow<B> {
        let entries = self.entries.clone();
        let prefix = |at: usize| prefix_u64(&entries[at].0);
        while let Some(at) = self.at.filter(|_| self.looks) {
            let next = if stretch.backward { at.wrapping_sub(1) } else { at + 1 };
            let is_damaged = self.damaged == Some(next);
            let Some((key, trailer, value)) = entries.get(next).filter(|_| !is_damaged) else { break };
            let is_told_apart =
                prefix(next) != prefix(at) && !(stretch.backward && (next == 0 || prefix(next - 1) == prefix(next)));
            let is_inside =
                if stretch.backward { prefix(next) >= stretch.limit } else { prefix(next) <= stretch.limit };
            if !is_told_apart || !is_inside || !trailer.0.is_put_by(stretch.snapshot) {
                break;
            }
            self.at = Some(next);
            self.moves.fetch_add(1, Ordering::Relaxed);
            with(key, value)?;
        }
        ControlFlow::Continue(())
    }
}

/// One write: the run it lies in, its key, whether it is a value, and the value's length.
type Write = (usize, Vec<u8>, bool, usize);

fn writes() -> impl Strategy<Value = Vec<Write>> {
    let key = prop_oneof![
        4 => prop::collection::vec(prop::sample::select(vec![0, b'a', b'b', 0xff]), 0..3),
        1 => prop::collection::vec(prop::sample::select(vec![0u8, 0xff]), 7..10),
        1 => (14usize..19, 0u8..3).prop_map(|(len, last)| [vec![b'a'; len], vec![last]].concat()),
    ];
    let len = prop_oneof![4 => 0usize..20, 1 => 250usize..400];
    prop::collection::vec((0usize..4, key, prop::bool::weighted(0.8), len), 0..120)
}

fn runs_of(writes: &[Write], runs: usize) -> Vec<RunCursor> {
    let mut entries = vec![Vec::new(); runs];
    for (i, (run, key, put, len)) in writes.iter().enumerate() {
        let seqno = i as SeqNo + 1;
        let kind = if *put { ValueKind::Put } else { ValueKind::Delete };
        let value = if *put { Bytes::from(vec![seqno as u8; *len]) } else { Bytes::new() };
        entries[run % runs].push((key.clone(), Reverse(Trailer::new(seqno, kind)), value));
    }
    let run = |(i, entries)| RunCursor {
        looks: i % 3 > 0 || writes.len().is_multiple_of(2),
        ..RunCursor::new(entries, i % 2 == 0)
    };
    entries.into_iter().enumerate().map(run).collect()
}

fn visible_at(writes: &[Write], snapshot: SeqNo) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut model = BTreeMap::new();
    for (i, (_, key, put, len)) in writes.iter().enumerate().take(snapshot.min(1 << 20) as usize) {
        if *put {
            model.insert(key.clone(), vec![(i + 1) as u8; *len]);
        } else {
            model.remove(key);
        }
    }
    model
}

struct Runs {
    runs: Vec<RunCursor>,
    snapshot: SeqNo,
    opened: usize,
}

impl OpenCursor for Runs {
    type Cursor = MergeCursor<RunCursor>;
    fn open(&mut self) -> Result<VisibleCursor<Self::Cursor>> {
        self.opened += 1;
        assert!(self.opened <= 2);
        Ok(VisibleCursor::new(MergeCursor::new(self.runs.clone()), self.snapshot))
    }
}

fn range(runs: Vec<RunCursor>, snapshot: SeqNo, bounds: Bounds) -> RangeIter<Runs> {
    RangeIter::new(Runs { runs, snapshot, opened: 0 }, bounds)
}

fn bound() -> impl Strategy<Value = Bound<Vec<u8>>> {
    let key = || prop::collection::vec(prop::sample::select(vec![0, b'a', b'b', 0xff]), 0..3);
    prop_oneof![Just(Bound::Unbounded), key().prop_map(Bound::Included), key().prop_map(Bound::Excluded)]
}

fn is_inside(key: &[u8], (lower, upper): &(Bound<Vec<u8>>, Bound<Vec<u8>>)) -> bool {
    let above = match lower {
        Bound::Included(lower) => key >= &lower[..],
        Bound::Excluded(lower) => key > &lower[..],
        Bound::Unbounded => true,
    };
    above
        && match upper {
            Bound::Included(upper) => key <= &upper[..],
            Bound::Excluded(upper) => key < &upper[..],
            Bound::Unbounded => true,
        }
}

fn shown<C: Cursor>(cursor: &VisibleCursor<C>) -> Option<(Vec<u8>, Vec<u8>)> {
    cursor.valid().then(|| {
        assert_eq!(cursor.key_prefix(), prefix_u64(cursor.key()));
        assert_eq!(cursor.value_slice(), *cursor.value());
        (cursor.key().to_vec(), cursor.value().to_vec())
    })
}

fn pair((key, value): (&Vec<u8>, &Vec<u8>)) -> (Vec<u8>, Vec<u8>) {
    (key.clone(), value.clone())
}

/// Up to `most` entries, read in one go from one end, and the error that ended it.
fn visit(iter: &mut RangeIter<Runs>, backward: bool, most: usize) -> Vec<Result<(Vec<u8>, Vec<u8>)>> {
    let mut got = Vec::new();
    let with = |key: &[u8], value: &[u8]| {
        got.push(Ok((key.to_vec(), value.to_vec())));
        if got.len() < most { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    };
    let ended = if backward { iter.visit_back(with) } else { iter.visit(with) };
    match ended {
        Ok(flow) => assert_eq!(flow.is_break(), got.len() == most),
        Err(error) => got.push(Err(error)),
    }
    got
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, rng_seed: RngSeed::Fixed(0x517), ..ProptestConfig::with_cases(512) })]

    #[test]
    fn a_merge_walks_like_the_sorted_entries(
        writes in writes(), runs in 1usize..6, steps in prop::collection::vec((0u8..8, any::<prop::sample::Index>()), 1..120),
    ) {
        let mut runs = runs_of(&writes, runs);
        // The same entries twice: ties have an order too.
        runs.push(runs[0].clone());
        let mut all: Vec<Entry> = runs.iter().flat_map(|run| run.entries.iter().cloned()).collect();
        all.sort();
        let mut merge = MergeCursor::new(runs);
        let mut at = None;
        for (step, index) in steps {
            let key = if all.is_empty() { Vec::new() } else { index.get(&all).0.clone() };
            match step {
                0 => {
                    merge.seek(&key, 50).unwrap();
                    at = Some(all.partition_point(|(k, t, _)| (k, *t) < (&key, Reverse(Trailer::seek(50)))));
                }
                1 => {
                    merge.seek_before(&key).unwrap();
                    at = all.partition_point(|entry| entry.0 < key).checked_sub(1);
                }
                2 if at.is_none() => {
                    merge.seek_to_first().unwrap();
                    at = Some(0);
                }
                3 if at.is_none() => {
                    merge.seek_to_last().unwrap();
                    at = all.len().checked_sub(1);
                }
                4 | 5 if at.is_some() => {
                    merge.next().unwrap();
                    at = at.map(|at| at + 1);
                }
                _ if at.is_some() => {
                    merge.prev().unwrap();
                    at = at.and_then(|at| at.checked_sub(1));
                }
                _ => {}
            }
            at = at.filter(|&at| at < all.len());
            prop_assert_eq!(merge.valid(), at.is_some());
            if let Some(at) = at {
                prop_assert_eq!((merge.key(), merge.trailer(), merge.value()), (&all[at].0[..], all[at].1.0, &all[at].2[..]));
                prop_assert_eq!(merge.key_prefix(), prefix_u64(merge.key()));
            }
        }
    }

    #[test]
    fn a_visible_cursor_shows_what_a_map_holds(
        writes in writes(), runs in 1usize..5, snapshot in 0u64..130,
        steps in prop::collection::vec((0u8..10, prop::collection::vec(prop::sample::select(vec![0, b'a', b'b', 0xff]), 0..3)), 1..80),
    ) {
        let model = visible_at(&writes, snapshot);
        let mut cursor = VisibleCursor::new(MergeCursor::new(runs_of(&writes, runs)), snapshot);
        let mut at: Option<Vec<u8>> = None;
        for (step, key) in steps {
            let expected = match (step, &at) {
                (0, _) => {
                    cursor.seek_to_first().unwrap();
                    model.iter().next()
                }
                (1, _) => {
                    cursor.seek_to_last().unwrap();
                    model.iter().next_back()
                }
                (2, _) | (3..6, None) => {
                    cursor.seek(&key).unwrap();
                    model.range(key..).next()
                }
                (3, _) | (6.., None) => {
                    cursor.seek_before(&key).unwrap();
                    model.range(..key).next_back()
                }
                (4..7, Some(at)) => {
                    cursor.next().unwrap();
                    model.range((Bound::Excluded(at.clone()), Bound::Unbounded)).next()
                }
                (_, Some(at)) => {
                    cursor.prev().unwrap();
                    model.range(..at.clone()).next_back()
                }
            };
            at = expected.map(|(key, _)| key.clone());
            prop_assert_eq!(shown(&cursor), expected.map(pair));
        }
    }

    #[test]
    fn both_ends_of_a_range_meet(
        writes in writes(), runs in 1usize..5, snapshot in 0u64..130, lower in bound(), upper in bound(),
        ends in prop::collection::vec((any::<bool>(), 0usize..6), 0..60),
    ) {
        let bounds = (lower, upper);
        let mut model: Vec<_> =
            visible_at(&writes, snapshot).into_iter().filter(|(key, _)| is_inside(key, &bounds)).collect();
        model.reverse();
        let mut expected = std::collections::VecDeque::from(model);
        let mut iter = range(runs_of(&writes, runs), snapshot, bounds_of::<Vec<u8>>(&bounds));
        for (front, visits) in ends.into_iter().chain(vec![(true, 0); expected.len()]) {
            // Lent or owned, in turn; or several in one go.
            let read = |entry: &VisibleCursor<_>| (entry.key().to_vec(), entry.value().to_vec());
            let own = |entry: Result<(Slice, Slice)>| entry.map(|(key, value)| (key.to_vec(), value.to_vec()));
            let got = match (front, visits, expected.len() % 2) {
                (true, 0, 0) => Vec::from_iter(iter.next_with(read)),
                (true, 0, _) => Vec::from_iter(iter.next().map(own)),
                (false, 0, 0) => Vec::from_iter(iter.next_back_with(read)),
                (false, 0, _) => Vec::from_iter(iter.next_back().map(own)),
                (_, most, _) => visit(&mut iter, !front, most),
            };
            let expected: Vec<_> = (0..visits.max(1))
                .map_while(|_| if front { expected.pop_back() } else { expected.pop_front() })
                .collect();
            prop_assert_eq!(got.into_iter().map(Result::unwrap).collect::<Vec<_>>(), expected);
        }
        prop_assert!(iter.next().is_none() && iter.next_back().is_none() && iter.next().is_none());
    }

    #[test]
    fn a_prefix_holds_the_keys_that_start_with_it(
        writes in writes(), prefix in prop::collection::vec(prop::sample::select(vec![0, b'a', 0xff]), 0..3), backward: bool,
    ) {
        let model = visible_at(&writes, MAX_SEQNO);
        let expected: Vec<_> = model.keys().filter(|key| key.starts_with(&prefix)).cloned().collect();
        let iter = range(runs_of(&writes, 3), MAX_SEQNO, prefix_bounds(&prefix));
        let key = |entry: Result<(Slice, Slice)>| Vec::from(entry.unwrap().0);
        let mut got: Vec<_> = if backward { iter.rev().map(key).collect() } else { iter.map(key).collect() };
        if backward {
            got.reverse();
        }
        prop_assert_eq!(got, expected);
    }

    #[test]
    fn damage_is_reported_once_and_never_looks_like_the_end(
        writes in writes(), runs in 1usize..4, damaged: prop::sample::Index, ends in prop::collection::vec((any::<bool>(), 0usize..4), 200..201),
    ) {
        let mut runs = runs_of(&writes, runs);
        prop_assume!(!runs[0].entries.is_empty());
        runs[0].damaged = Some(damaged.index(runs[0].entries.len()));
        let mut model: std::collections::VecDeque<_> = visible_at(&writes, MAX_SEQNO).into_iter().collect();
        let mut iter = range(runs, MAX_SEQNO, prefix_bounds(&[]));
        for (front, visits) in ends {
            let own = |entry: Result<(Slice, Slice)>| entry.map(|(key, value)| (key.to_vec(), value.to_vec()));
            let got = match (front, visits) {
                (true, 0) => Vec::from_iter(iter.next().map(own)),
                (false, 0) => Vec::from_iter(iter.next_back().map(own)),
                (_, most) => visit(&mut iter, !front, most),
            };
            for got in got {
                match got {
                    Ok(got) => {
                        let expected = if front { model.pop_front() } else { model.pop_back() };
                        prop_assert_eq!(Some(got), expected);
                    }
                    Err(Error::Corruption { .. }) => {
                        prop_assert!(iter.next().is_none() && iter.next_back().is_none());
                        prop_assert!(visit(&mut iter, front, 1).is_empty());
                        return Ok(());
                    }
                    Err(other) => panic!("{other}"),
                }
            }
        }
        // Nobody met the damage: a seek went over it. Then nothing may be missing.
        prop_assert!(model.is_empty());
    }
}

/// A thousand versions of each of three keys, deletes among them, and snapshots between them.
#[test]
fn many_versions_cost_few_steps_and_show_one() {
    let writes: Vec<Write> = (0..3000).map(|i| (i / 700, vec![b'a' + (i % 3) as u8; 9], i % 7 != 0, i % 5)).collect();
    let runs = runs_of(&writes, 5);
    for snapshot in (0..3005).step_by(13).chain(0..40) {
        let model: Vec<_> = visible_at(&writes, snapshot).into_iter().collect();
        for backward in [false, true] {
            let before: usize = runs.iter().map(|run| run.moves.load(Ordering::Relaxed)).sum();
            let iter = range(runs.clone(), snapshot, prefix_bounds(&[]));
            let read =
                |entry: Result<(Slice, Slice)>| entry.map(|(key, value)| (key.to_vec(), value.to_vec())).unwrap();
            let mut got: Vec<_> = if backward { iter.rev().map(read).collect() } else { iter.map(read).collect() };
            if backward {
                got.reverse();
            }
            assert_eq!(got, model, "at {snapshot}");
            // A key costs at most three seeks of five runs and, around them, the steps that lead to a seek.
            let moves = runs.iter().map(|run| run.moves.load(Ordering::Relaxed)).sum::<usize>() - before;
            assert!(moves <= 5 + 3 * (3 * 5 + 20), "{moves} moves, at {snapshot}");
        }
    }
}

#[test]
fn a_merge_is_not_valid_after_an_error() {
    let entry = |key: &[u8], seqno| (key.to_vec(), Reverse(Trailer::new(seqno, ValueKind::Put)), Bytes::new());
    let mut damaged = RunCursor::new(vec![entry(b"a", 1), entry(b"c", 2), entry(b"e", 5)], false);
    damaged.damaged = Some(1);
    let sound = RunCursor::new(vec![entry(b"b", 3), entry(b"d", 4)], false);
    let mut merge = MergeCursor::new(vec![sound, damaged]);
    // A step forward, a step backward, a turn (from "d" the other run stands on "e"), and all kinds of seeks.
    merge.seek_to_first().unwrap();
    assert!(merge.next().is_err() && !merge.valid());
    merge.seek_to_last().unwrap();
    assert!(merge.prev().is_err() && !merge.valid());
    merge.seek(b"d", MAX_SEQNO).unwrap();
    assert!(merge.prev().is_err() && !merge.valid());
    assert!(merge.seek(b"b", MAX_SEQNO).is_err() && !merge.valid());
    merge.seek(b"d", MAX_SEQNO).unwrap();
    assert!(merge.seek_before(b"d").is_err() && !merge.valid());
}

#[test]
fn empty_and_reversed_ranges_open_nothing() {
    let keys = |lower: Bound<&'static str>, upper: Bound<&'static str>| {
        let mut iter = range(Vec::new(), 1, bounds_of::<&str>(&(lower, upper)));
        assert!(iter.next().is_none() && iter.next_back().is_none());
    };
    use Bound::{Excluded, Included, Unbounded};
    for (lower, upper) in [
        (Included("b"), Included("a")),
        (Included("b"), Excluded("a")),
        (Excluded("a"), Excluded("a")),
        (Included("a"), Excluded("a")),
        (Excluded("a"), Included("a")),
        (Unbounded, Excluded("")),
        (Unbounded, Unbounded),
    ] {
        keys(lower, upper);
    }
}

#[test]
fn large_values_are_pinned_in_both_directions() {
    let value = Bytes::from(vec![7; 1000]);
    let run = RunCursor::new(vec![(b"k".to_vec(), Reverse(Trailer::new(1, ValueKind::Put)), value.clone())], true);
    for backward in [false, true] {
        let mut iter = range(vec![run.clone()], 1, prefix_bounds(&[]));
        let (_, got) = if backward { iter.next_back() } else { iter.next() }.unwrap().unwrap();
        assert_eq!(got.as_ptr(), value.as_ptr());
    }
}

/// A reader at one sequence number turns back and forth over two memtables while newer entries, of its keys and between
/// them, come in.
#[test]
fn what_is_written_meanwhile_is_not_seen() {
    for seed in 0..20 {
        println!("seed {seed}");
        let mut rng = StdRng::seed_from_u64(seed);
        let pool = Arc::new(ArenaPool::new(0, 1 << 20));
        let memtables: [_; 2] = std::array::from_fn(|_| Arc::new(Memtable::new(MemtableKind::SkipList, 0, &pool)));
        let mut model = BTreeMap::new();
        let write = |rng: &mut StdRng, seqno, model: Option<&mut BTreeMap<Vec<u8>, Vec<u8>>>| {
            let key = vec![rng.random_range(0..60u8)];
            let put = rng.random_bool(0.7);
            let kind = if put { ValueKind::Put } else { ValueKind::Delete };
            memtables[seqno as usize % 2].insert(&key, Trailer::new(seqno, kind), &key);
            if let Some(model) = model {
                if put {
                    model.insert(key.clone(), key)
                } else {
                    model.remove(&key)
                };
            }
        };
        (1..=60).for_each(|seqno| write(&mut rng, seqno, Some(&mut model)));
        let children = memtables.iter().map(|memtable| MemtableCursor::new(Arc::clone(memtable))).collect();
        let mut cursor = VisibleCursor::new(MergeCursor::new(children), 60);
        let mut at = None;
        for seqno in 61..600 {
            let expected = match &at {
                None => {
                    cursor.seek(&[30]).unwrap();
                    model.range(vec![30]..).next()
                }
                Some(at) if rng.random() => {
                    cursor.next().unwrap();
                    model.range::<Vec<u8>, _>((Bound::Excluded(at), Bound::Unbounded)).next()
                }
                Some(at) => {
                    cursor.prev().unwrap();
                    model.range::<Vec<u8>, _>(..at).next_back()
                }
            };
            assert_eq!(shown(&cursor), expected.map(pair));
            at = expected.map(|(key, _)| key.clone());
            write(&mut rng, seqno, None);
        }
    }
}

/// The order of a merge holds even where a turn meets entries that a memtable has just got.
#[test]
fn a_turn_steps_over_what_was_written_meanwhile() {
    let pool = Arc::new(ArenaPool::new(0, 1 << 20));
    let [one, other] = std::array::from_fn(|_| Arc::new(Memtable::new(MemtableKind::SkipList, 0, &pool)));
    let put = |memtable: &Memtable, keys: &[u8]| {
        keys.iter().for_each(|&key| memtable.insert(&[key], Trailer::new(key.into(), ValueKind::Put), b""))
    };
    put(&one, &[10]);
    put(&other, &[5, 20]);
    let mut merge = MergeCursor::new(vec![MemtableCursor::new(one), MemtableCursor::new(Arc::clone(&other))]);
    merge.seek(&[10], MAX_SEQNO).unwrap();
    put(&other, &[12, 14, 16]);
    merge.prev().unwrap();
    assert_eq!(merge.key(), [5]);
    merge.seek_before(&[11]).unwrap();
    put(&other, &[6, 7, 8]);
    merge.next().unwrap();
    assert_eq!(merge.key(), [12]);
}
