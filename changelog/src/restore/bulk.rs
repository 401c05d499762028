//! Many batches at once, sorted straight into tables.

use std::cmp::Ordering;
use std::hint::black_box;

use siltstone::{Db, KeyspaceName};

use super::chunk::{Chunk, Entry};
use super::note_position;
use crate::applier::Applier;
use crate::error::Result;

/// So many changes of one keyspace are worth being sorted and written by several threads: each makes tables of its own.
const SPLIT_CHANGES: usize = 1 << 16;

/// How many keys are drawn to tell where to cut a keyspace in parts of about the same size.
const SAMPLES: usize = 1024;

/// How many changes are touched ahead of their turn.
const AHEAD: usize = 32;

/// What memory is fetched in, in bytes, on the machines we know.
const LINE_BYTES: usize = 64;

/// Applies a chunk, of which all of the changes are puts and deletes.
///
/// # Errors
/// What the database says; nothing is applied then, unless it is the position behind the chunk that could not be noted.
pub(super) fn apply(applier: &mut Applier, db: &Db, chunk: &Chunk) -> Result<()> {
    applier.check_whole(db, chunk.first_seqno())?;
    chunk.keyspaces().iter().try_for_each(|name| applier.open_keyspace(db, name))?;
    // While one waits for storage at the end of a range, others go on.
    let ways = std::thread::available_parallelism().map_or(1, |processors| 2 * processors.get());
    db.apply_sorted(sort(chunk, SPLIT_CHANGES, ways), chunk.last_seqno())?;
    // Behind the data: what is applied again after a crash in between is in already, by its numbers.
    chunk.end.as_ref().map_or(Ok(()), |position| note_position(db, position))
}

/// The changes of each keyspace; of one that has more than `split_changes` in `ways` ranges of keys.
fn sort(chunk: &Chunk, split_changes: usize, ways: usize) -> Vec<(KeyspaceName, Sorted<'_>)> {
    let mut sorted = Vec::new();
    for (name, unsorted) in chunk.keyspaces().iter().zip(gather(chunk)) {
        let (skipped, places) = unsorted.into_places(chunk);
        let parts = if places.len() > split_changes { split(places, ways) } else { vec![places] };
        sorted.extend(parts.into_iter().map(|places| (name.clone(), Sorted::new(chunk, skipped, places))));
    }
    sorted
}

/// Where a change is.
#[derive(Clone, Copy, Debug)]
struct Place {
    /// How its key goes on behind what all have in common: most comparisons touch nothing else.
    prefix: u64,
    /// Among the changes of the chunk.
    entry: u32,
}

impl Place {
    fn of(self, chunk: &Chunk) -> &Entry {
        &chunk.entries()[self.entry as usize]
    }
}

/// The changes of one keyspace, as they come.
#[derive(Default)]
struct Unsorted<'c> {
    /// The first key up to where others differ from it.
    common: Option<&'c [u8]>,
    places: Vec<Place>,
}

impl<'c> Unsorted<'c> {
    fn push(&mut self, key: &'c [u8], entry: u32) {
        let common = self.common.get_or_insert(key);
        if !key.starts_with(common) {
            let same = common.iter().zip(key).take_while(|(a, b)| a == b).count();
            *common = &common[..same];
        }
        self.places.push(Place { prefix: 0, entry });
    }

    /// How long a beginning all keys share, in bytes, and the places with what follows it.
    fn into_places(mut self, chunk: &Chunk) -> (usize, Vec<Place>) {
        let skipped = self.common.map_or(0, <[u8]>::len);
        for place in &mut self.places {
            place.prefix = prefix(&chunk.key(place.of(chunk))[skipped..]);
        }
        (skipped, self.places)
    }
}

/// Those of each keyspace of the chunk.
fn gather(chunk: &Chunk) -> Vec<Unsorted<'_>> {
    let mut keyspaces: Vec<Unsorted<'_>> = chunk.keyspaces().iter().map(|_| Unsorted::default()).collect();
    for (at, entry) in (0u32..).zip(chunk.entries()) {
        keyspaces[entry.keyspace as usize].push(chunk.key(entry), at);
    }
    keyspaces
}

/// Cuts places in up to `ways` ranges of keys, in order, of about the same size.
fn split(places: Vec<Place>, ways: usize) -> Vec<Vec<Place>> {
    let step = places.len().div_ceil(SAMPLES).max(1);
    let mut samples: Vec<u64> = places.iter().step_by(step).map(|place| place.prefix).collect();
    samples.sort_unstable();
    let mut cuts: Vec<u64> = (1..ways).map(|way| samples[way * samples.len() / ways]).collect();
    cuts.dedup();
    let mut parts: Vec<Vec<Place>> = (0..=cuts.len()).map(|_| Vec::with_capacity(places.len() / ways)).collect();
    for place in places {
        // Keys that are alike so far stay together.
        parts[cuts.partition_point(|&cut| cut <= place.prefix)].push(place);
    }
    parts.retain(|part| !part.is_empty());
    parts
}

/// The latest change of each key, in order. The sorting is done when the first one is asked for, so that parts are sorted
/// side by side.
struct Sorted<'c> {
    chunk: &'c Chunk,
    /// How long a beginning all keys share, in bytes.
    skipped: usize,
    places: Vec<Place>,
    at: usize,
    touched: usize,
    is_sorted: bool,
    last: Option<Place>,
}

impl<'c> Sorted<'c> {
    fn new(chunk: &'c Chunk, skipped: usize, places: Vec<Place>) -> Self {
        Sorted { chunk, skipped, places, at: 0, touched: 0, is_sorted: false, last: None }
    }

    fn compare_keys(&self, a: Place, b: Place) -> Ordering {
        let rest = |place: Place| &self.chunk.key(place.of(self.chunk))[self.skipped..];
        a.prefix.cmp(&b.prefix).then_with(|| rest(a).cmp(rest(b)))
    }

    fn sort(&mut self) {
        let mut places = std::mem::take(&mut self.places);
        // Of one key the latest first.
        places.sort_unstable_by(|&a, &b| self.compare_keys(a, b).then_with(|| b.entry.cmp(&a.entry)));
        self.places = places;
        self.is_sorted = true;
    }

    /// Touches the next changes, which lie anywhere in memory, one right after the other: so the processor waits for all
    /// of them at once, and not for each when it is its turn.
    fn touch_ahead(&mut self) {
        let end = (self.at + AHEAD).min(self.places.len());
        let entries = self.places[self.at..end].iter().map(|place| place.of(self.chunk));
        // First all the entries, which say where keys and values are.
        let keys: usize = entries.clone().map(|entry| self.chunk.key(entry).len()).sum();
        let lines =
            |bytes: &[u8]| bytes.iter().step_by(LINE_BYTES).take(4).map(|&byte| usize::from(byte)).sum::<usize>();
        let values: usize =
            entries.map(|entry| lines(self.chunk.key(entry)) + self.chunk.value(entry).map_or(0, lines)).sum();
        black_box(keys + values);
        self.touched = end;
    }
}

impl<'c> Iterator for Sorted<'c> {
    type Item = (&'c [u8], Option<&'c [u8]>);

    fn next(&mut self) -> Option<Self::Item> {
        if !self.is_sorted {
            self.sort();
        }
        loop {
            if self.at == self.touched {
                self.touch_ahead();
            }
            let place = *self.places.get(self.at)?;
            self.at += 1;
            if self.last.is_some_and(|last| self.compare_keys(last, place).is_eq()) {
                continue;
            }
            self.last = Some(place);
            let entry = place.of(self.chunk);
            return Some((self.chunk.key(entry), self.chunk.value(entry)));
        }
    }
}

/// The first eight bytes of a key, in its order; of two keys with the same ones the rest decides, and the length.
fn prefix(key: &[u8]) -> u64 {
    let mut bytes = [0; 8];
    let len = key.len().min(8);
    bytes[..len].copy_from_slice(&key[..len]);
    u64::from_be_bytes(bytes)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use siltstone::{Change, ChangeBatch};

    use super::*;
    use crate::scan::lend_all;

    fn put(keyspace: &str, key: &str, value: &str) -> Change {
        Change::Put { keyspace: keyspace.into(), key: key.into(), value: value.into() }
    }

    /// What comes of batches, keyspace after keyspace, with ranges of the same one joined; how many ranges there were.
    fn sorted(batches: &[Vec<Change>], split_changes: usize, ways: usize) -> (Vec<String>, usize) {
        let mut chunk = Chunk::default();
        for (n, changes) in (1..).zip(batches) {
            let batch = ChangeBatch::new(100 * n, changes.clone()).unwrap();
            let numbers = lend_all(&batch, &mut |change| chunk.push(change));
            chunk.end_batch(numbers, None);
        }
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let mut parts = sort(&chunk, split_changes, ways);
        let count = parts.len();
        // Stable: the ranges of one keyspace stay in their order.
        parts.sort_by(|(a, _), (b, _)| a.cmp(b));
        let line = |name: &KeyspaceName, (key, value): (&[u8], Option<&[u8]>)| {
            format!("{name} {:?} {:?}", text(key), value.map(text))
        };
        (parts.into_iter().flat_map(|(name, part)| part.map(move |entry| line(&name, entry))).collect(), count)
    }

    #[test]
    fn each_keyspace_comes_in_order_with_the_latest_change_of_each_key() {
        let delete = |key: &str| Change::Delete { keyspace: "a".into(), key: key.into() };
        let long = "a key that is longer than its prefix";
        let first =
            vec![put("a", "k", "1"), put("b", "k", "2"), put("a", long, "3"), put("a", "", "4"), put("a", "k", "5")];
        let second = vec![delete("j"), put("a", &long[..35], "6"), put("a", "k\0", "7"), delete("k")];
        let expected = [
            ("a", "", Some("4")),
            ("a", &long[..35], Some("6")),
            ("a", long, Some("3")),
            ("a", "j", None),
            ("a", "k", None),
            ("a", "k\0", Some("7")),
            ("b", "k", Some("2")),
        ];
        let expected = expected.map(|(name, key, value)| format!("{name} {key:?} {value:?}"));
        assert_eq!(sorted(&[first, second], usize::MAX, 2), (expected.to_vec(), 2));
    }

    #[test]
    fn many_changes_of_a_keyspace_come_in_ranges_that_follow_one_another() {
        // Keys with much in common, and some that are all of that.
        let key = |n: usize| format!("{}{}", "common to all ", &format!("{:04}", n * 7919 % 5000)[..n % 5]);
        let batches: Vec<Vec<Change>> = (0..2000)
            .map(|n| match n % 10 {
                0 => vec![put("a", &key(n), "x"), put("b", "k", &n.to_string()), put("a", &key(n), &n.to_string())],
                _ => vec![put("a", &key(n), &n.to_string())],
            })
            .collect();
        let mut expected = BTreeMap::new();
        for change in batches.iter().flatten() {
            let Change::Put { keyspace, key, value } = change else { unreachable!("there are only puts") };
            expected.insert((keyspace.clone(), key.to_vec()), format!("{:?}", Some(String::from_utf8_lossy(value))));
        }
        let expected: Vec<String> = expected
            .into_iter()
            .map(|((name, key), value)| format!("{name} {:?} {value}", String::from_utf8_lossy(&key)))
            .collect();
        // A fifth of the keys has nothing beyond what is common: one range of five less.
        for (ways, parts) in [(1, 2), (2, 3), (5, 5)] {
            let (found, count) = sorted(&batches, 1000, ways);
            assert_eq!(count, parts, "{ways} ways");
            assert_eq!(found, expected, "{ways} ways");
        }
        let same = vec![vec![put("a", "the only key", "v")]; 100];
        assert_eq!(sorted(&same, 10, 4).0.len(), 1);
    }
}
