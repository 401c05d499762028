//! What a database should hold, and pieces of input turned into arguments.

use std::collections::{BTreeMap, VecDeque};
use std::ops::{Bound, RangeBounds};

use arbitrary::{Result, Unstructured};
use siltstone::{Iter, Keyspace, Slice};

/// Keyspaces; a model has one map for each.
pub const NAMES: [&str; 2] = ["left", "right"];

/// The contents of one keyspace.
pub type Map = BTreeMap<Vec<u8>, Vec<u8>>;

/// Everything that a database holds, and how many batches have been written to it: its metadata entry says the same.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Model {
    pub maps: [Map; NAMES.len()],
    pub batches: u64,
}

/// One operation of a batch: keyspace, key, and the value unless it is a delete.
pub type Write = (usize, Vec<u8>, Option<Vec<u8>>);

/// Bounds of a range.
pub type Bounds = (Bound<Vec<u8>>, Bound<Vec<u8>>);

/// What an iterator still has to give.
pub type Expected = VecDeque<(Vec<u8>, Vec<u8>)>;

impl Model {
    /// Applies a batch.
    pub fn apply(&mut self, writes: &[Write]) {
        self.batches += 1;
        for (keyspace, key, value) in writes {
            match value {
                Some(value) => self.maps[*keyspace].insert(key.clone(), value.clone()),
                None => self.maps[*keyspace].remove(key),
            };
        }
    }

    /// The entries of a keyspace in `bounds`, reversed ones included.
    pub fn inside(&self, keyspace: usize, bounds: &Bounds) -> Expected {
        let entries = self.maps[keyspace].iter().filter(|(key, _)| RangeBounds::contains(bounds, *key));
        entries.map(|(key, value)| (key.clone(), value.clone())).collect()
    }
}

/// Asks an iterator once, at an end that the input chooses; whether there was anything.
pub fn advance(entries: &mut Iter, expected: &mut Expected, back: bool) -> bool {
    let (found, wanted) =
        if back { (entries.next_back(), expected.pop_back()) } else { (entries.next(), expected.pop_front()) };
    let found = found.map(|entry| entry.expect("entry")).map(|(key, value)| (Vec::from(key), Vec::from(value)));
    assert!(found == wanted, "an entry of an iterator, from the back: {back}");
    wanted.is_some()
}

/// Compares a keyspace, or what a snapshot sees of it, with a map: in both directions.
pub fn same(forward: Iter, backward: Iter, expected: &Map) {
    let forward: Vec<_> = forward.map(|entry| entry.expect("entry")).collect();
    assert!(forward.iter().map(|(k, v)| (&k[..], &v[..])).eq(expected.iter().map(|(k, v)| (&k[..], &v[..]))));
    let backward: Vec<_> = backward.rev().map(|entry| entry.expect("entry")).collect();
    assert!(backward.iter().rev().eq(&forward));
}

/// Everything in a keyspace.
pub fn contents(keyspace: &Keyspace) -> Map {
    keyspace.iter().map(|entry| entry.expect("entry")).map(|(key, value)| (key.into(), value.into())).collect()
}

/// Compares one answer.
pub fn same_value(found: Option<Slice>, expected: Option<&Vec<u8>>) {
    assert!(found.as_deref() == expected.map(Vec::as_slice));
}

/// One of the keyspaces.
pub fn which(input: &mut Unstructured<'_>) -> Result<usize> {
    input.int_in_range(0..=NAMES.len() - 1)
}

/// Few keys, so that they are overwritten; some share long beginnings.
pub fn key(input: &mut Unstructured<'_>) -> Result<Vec<u8>> {
    let n: u8 = input.arbitrary()?;
    Ok(match n % 4 {
        0 => vec![n; usize::from(n % 5)],
        1 => format!("a long and common beginning {n}").into_bytes(),
        2 => [&[0; 8][..], &[n / 16]].concat(),
        _ => vec![n / 4],
    })
}

/// Values of a few bytes, and now and then enough to fill a memtable.
pub fn value(input: &mut Unstructured<'_>) -> Result<Vec<u8>> {
    let (byte, size): (u8, u8) = (input.arbitrary()?, input.arbitrary()?);
    let len = match size {
        0..=200 => usize::from(size % 40),
        201..=250 => 1000 * usize::from(size - 200),
        _ => 70_000,
    };
    Ok(vec![byte; len])
}

/// Up to six operations.
pub fn writes(input: &mut Unstructured<'_>) -> Result<Vec<Write>> {
    let count = input.int_in_range(1..=6)?;
    (0..count)
        .map(|_| Ok((which(input)?, key(input)?, if input.ratio(3, 4)? { Some(value(input)?) } else { None })))
        .collect()
}

/// Bounds of every kind.
pub fn bounds(input: &mut Unstructured<'_>) -> Result<Bounds> {
    let mut bound = || {
        Ok(match input.int_in_range(0..=2u8)? {
            0 => Bound::Unbounded,
            1 => Bound::Included(key(input)?),
            _ => Bound::Excluded(key(input)?),
        })
    };
    Ok((bound()?, bound()?))
}
