//! Many batches at once, sorted straight into tables.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use siltstone::{Change, ChangeBatch, Db, KeyspaceName};

use super::chunk::Chunk;
use super::note_position;
use crate::applier::Applier;
use crate::error::Result;

/// Applies a chunk, of which all of the changes are puts and deletes.
///
/// # Errors
/// What the database says; nothing is applied then, unless it is the position behind the chunk that could not be noted.
pub(super) fn apply(applier: &mut Applier, db: &Db, chunk: &Chunk) -> Result<()> {
    let (Some((_, first)), Some((position, last))) = (chunk.batches.first(), chunk.batches.last()) else {
        return Ok(());
    };
    applier.check_whole(db, first)?;
    for (_, batch) in &chunk.batches {
        applier.open_keyspaces(db, batch)?;
    }
    let parts = sort(&chunk.batches);
    db.apply_sorted(parts, last.last_seqno())?;
    // Behind the data: what is applied again after a crash in between is in already, by its numbers.
    note_position(db, position)
}

/// The changes of each keyspace.
fn sort<P: Sync>(batches: &[(P, ChangeBatch)]) -> Vec<(KeyspaceName, Sorted<'_, P>)> {
    let mut parts: BTreeMap<&KeyspaceName, Vec<Place>> = BTreeMap::new();
    for (batch, (_, changes)) in (0u32..).zip(batches) {
        for (change, it) in (0u32..).zip(changes.changes()) {
            parts.entry(it.keyspace()).or_default().push(Place { prefix: prefix(key_of(it)), batch, change });
        }
    }
    let sorted = |(name, places): (&KeyspaceName, Vec<Place>)| {
        let sorted = Sorted { batches, places: places.into_iter(), is_sorted: false, last: None };
        (name.clone(), sorted)
    };
    parts.into_iter().map(sorted).collect()
}

/// Where a change is, and how its key begins: most comparisons touch nothing else.
#[derive(Clone, Copy, Debug)]
struct Place {
    prefix: u128,
    batch: u32,
    change: u32,
}

/// The latest change of each key, in order. The sorting is done when the first one is asked for, so that keyspaces are
/// sorted side by side.
struct Sorted<'b, P> {
    batches: &'b [(P, ChangeBatch)],
    places: std::vec::IntoIter<Place>,
    is_sorted: bool,
    last: Option<Place>,
}

impl<'b, P> Sorted<'b, P> {
    fn change(&self, place: Place) -> &'b Change {
        &self.batches[place.batch as usize].1.changes()[place.change as usize]
    }

    fn compare_keys(&self, a: Place, b: Place) -> Ordering {
        a.prefix.cmp(&b.prefix).then_with(|| key_of(self.change(a)).cmp(key_of(self.change(b))))
    }

    fn sort(&mut self) {
        let mut places: Vec<Place> = std::mem::take(&mut self.places).collect();
        // Of one key the latest first.
        places.sort_unstable_by(|&a, &b| {
            self.compare_keys(a, b).then_with(|| (b.batch, b.change).cmp(&(a.batch, a.change)))
        });
        self.places = places.into_iter();
        self.is_sorted = true;
    }
}

impl<'b, P> Iterator for Sorted<'b, P> {
    type Item = (&'b [u8], Option<&'b [u8]>);

    fn next(&mut self) -> Option<Self::Item> {
        if !self.is_sorted {
            self.sort();
        }
        loop {
            let place = self.places.next()?;
            if self.last.is_some_and(|last| self.compare_keys(last, place).is_eq()) {
                continue;
            }
            self.last = Some(place);
            let change = self.change(place);
            let value = match change {
                Change::Put { value, .. } => Some(&**value),
                _ => None,
            };
            return Some((key_of(change), value));
        }
    }
}

fn key_of(change: &Change) -> &[u8] {
    match change {
        Change::Put { key, .. } | Change::Delete { key, .. } => key,
        _ => &[],
    }
}

/// The first sixteen bytes of a key, in its order; of two keys with the same ones the rest decides, and the length.
fn prefix(key: &[u8]) -> u128 {
    let mut bytes = [0; 16];
    let len = key.len().min(16);
    bytes[..len].copy_from_slice(&key[..len]);
    u128::from_be_bytes(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(keyspace: &str, key: &str, value: &str) -> Change {
        Change::Put { keyspace: keyspace.into(), key: key.into(), value: value.into() }
    }

    #[test]
    fn each_keyspace_comes_in_order_with_the_latest_change_of_each_key() {
        let delete = |key: &str| Change::Delete { keyspace: "a".into(), key: key.into() };
        let long = "a key that is longer than its prefix";
        let first =
            vec![put("a", "k", "1"), put("b", "k", "2"), put("a", long, "3"), put("a", "", "4"), put("a", "k", "5")];
        let second = vec![delete("j"), put("a", &long[..35], "6"), put("a", "k\0", "7"), delete("k")];
        let batches = [((), ChangeBatch::new(1, first).unwrap()), ((), ChangeBatch::new(9, second).unwrap())];
        let text = |name: &KeyspaceName, (key, value): (&[u8], Option<&[u8]>)| {
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            format!("{name} {:?} {:?}", text(key), value.map(text))
        };
        let sorted: Vec<String> =
            sort(&batches).into_iter().flat_map(|(name, part)| part.map(move |entry| text(&name, entry))).collect();
        let expected = [
            ("a", "", Some("4")),
            ("a", &long[..35], Some("6")),
            ("a", long, Some("3")),
            ("a", "j", None),
            ("a", "k", None),
            ("a", "k\0", Some("7")),
            ("b", "k", Some("2")),
        ];
        assert_eq!(sorted, expected.map(|(name, key, value)| format!("{name} {key:?} {value:?}")));
    }
}
