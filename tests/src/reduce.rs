//! Makes a failing list of operations small: leaves out chunks, then single operations, then makes what is left simpler
//! (delta debugging, Zeller and Hildebrandt 2002), as long as it still fails.

use std::collections::BTreeSet;
use std::ops::Bound;

use crate::options::KEYSPACES;
use crate::steps::{NumberedWrite, Step};

/// The smallest list found for which `fails` holds, which it does for `steps`. `fails` also decides when to stop: a
/// list that it says no to is not gone on with.
pub fn reduce(steps: Vec<Step>, mut fails: impl FnMut(&[Step]) -> bool) -> Vec<Step> {
    let mut steps = leave_out(steps, &mut fails);
    loop {
        let before = steps.clone();
        steps = simplify(steps, &mut fails);
        steps = leave_out(steps, &mut fails);
        steps = unify(steps, &mut fails);
        if steps == before {
            return steps;
        }
    }
}

/// Leaves out chunks of half the list, then of a quarter, down to single operations, until none can go.
fn leave_out(mut steps: Vec<Step>, fails: &mut impl FnMut(&[Step]) -> bool) -> Vec<Step> {
    let mut chunk = steps.len().div_ceil(2).max(1);
    loop {
        let mut left_out = false;
        // From the end: what comes last depends on what comes first, not the other way round.
        let mut end = steps.len();
        while end > 0 {
            let start = end.saturating_sub(chunk);
            let candidate = [&steps[..start], &steps[end..]].concat();
            if fails(&candidate) {
                steps = candidate;
                left_out = true;
            }
            end = start;
        }
        if chunk == 1 && !left_out {
            return steps;
        }
        chunk = (chunk / 2).max(1);
    }
}

/// Makes each operation simpler as long as that is possible.
fn simplify(mut steps: Vec<Step>, fails: &mut impl FnMut(&[Step]) -> bool) -> Vec<Step> {
    for at in 0..steps.len() {
        while let Some(simpler) = simpler(&steps[at]).into_iter().find(|simpler| {
            let mut candidate = steps.clone();
            candidate[at] = simpler.clone();
            fails(&candidate)
        }) {
            steps[at] = simpler;
        }
    }
    steps
}

/// Renames keys to letters and keyspaces to smaller numbers, each everywhere at once.
fn unify(mut steps: Vec<Step>, fails: &mut impl FnMut(&[Step]) -> bool) -> Vec<Step> {
    for (number, key) in keys(&steps).into_iter().enumerate() {
        let letter = vec![b'a' + (number % 26) as u8];
        for shorter in [Vec::new(), letter, key[..key.len() / 2].to_vec()] {
            if shorter.len() < key.len() || shorter.len() == 1 && shorter < key {
                try_renaming(&mut steps, fails, |step| each_key(step, |other| replace(other, &key, &shorter)));
            }
        }
    }
    for from in 1..KEYSPACES {
        for to in 0..from {
            try_renaming(&mut steps, fails, |step| {
                each_keyspace(step, |keyspace| {
                    if *keyspace == from {
                        *keyspace = to;
                    }
                });
            });
        }
    }
    steps
}

fn replace(key: &mut Vec<u8>, from: &[u8], to: &[u8]) {
    if key == from {
        *key = to.to_vec();
    }
}

fn try_renaming(steps: &mut Vec<Step>, fails: &mut impl FnMut(&[Step]) -> bool, rename: impl Fn(&mut Step)) {
    let mut candidate = steps.clone();
    candidate.iter_mut().for_each(&rename);
    if candidate != *steps && fails(&candidate) {
        *steps = candidate;
    }
}

fn keys(steps: &[Step]) -> BTreeSet<Vec<u8>> {
    let mut keys = BTreeSet::new();
    for mut step in steps.iter().cloned() {
        each_key(&mut step, |key| {
            keys.insert(key.clone());
        });
    }
    keys
}

/// Visits every key of an operation.
fn each_key(step: &mut Step, mut visit: impl FnMut(&mut Vec<u8>)) {
    match step {
        Step::Put { key, .. }
        | Step::Delete { key, .. }
        | Step::Get { key, .. }
        | Step::Prefix { prefix: key, .. }
        | Step::ReadSnapshotPrefix { prefix: key, .. } => visit(key),
        Step::Write { batch: writes, .. } | Step::Apply { writes, .. } | Step::ApplyDrop { writes, .. } => {
            writes.iter_mut().for_each(|(_, key, _)| visit(key));
        }
        Step::PutAll { entries, .. } | Step::Ingest { entries, .. } => {
            entries.iter_mut().for_each(|(key, _)| visit(key));
        }
        Step::DeleteAll { keys, .. } | Step::GetMany { keys, .. } | Step::GetSnapshot { keys, .. } => {
            keys.iter_mut().for_each(visit);
        }
        Step::Range { bounds, .. } | Step::ReadSnapshot { bounds, .. } | Step::OpenIter { bounds, .. } => {
            for bound in [&mut bounds.0, &mut bounds.1] {
                if let Bound::Included(key) | Bound::Excluded(key) = bound {
                    visit(key);
                }
            }
        }
        _ => {}
    }
}

/// Visits the number of every keyspace of an operation.
fn each_keyspace(step: &mut Step, mut visit: impl FnMut(&mut usize)) {
    match step {
        Step::Put { keyspace, .. }
        | Step::Delete { keyspace, .. }
        | Step::PutAll { keyspace, .. }
        | Step::DeleteAll { keyspace, .. }
        | Step::Ingest { keyspace, .. }
        | Step::Get { keyspace, .. }
        | Step::GetMany { keyspace, .. }
        | Step::Range { keyspace, .. }
        | Step::Prefix { keyspace, .. }
        | Step::Iterate { keyspace, .. }
        | Step::ApproximateLen { keyspace }
        | Step::ReadSnapshot { keyspace, .. }
        | Step::ReadSnapshotPrefix { keyspace, .. }
        | Step::GetSnapshot { keyspace, .. }
        | Step::OpenIter { keyspace, .. }
        | Step::OpenSnapshotIter { keyspace, .. }
        | Step::Flush { keyspace }
        | Step::Compact { keyspace }
        | Step::OpenKeyspace { keyspace, .. }
        | Step::DropKeyspace { keyspace, .. }
        | Step::BadArguments { keyspace }
        | Step::ForeignHandles { keyspace } => visit(keyspace),
        Step::Write { batch: writes, .. } | Step::Apply { writes, .. } => {
            writes.iter_mut().for_each(|(keyspace, _, _)| visit(keyspace));
        }
        Step::ApplyDrop { keyspace, writes, .. } => {
            visit(keyspace);
            writes.iter_mut().for_each(|(keyspace, _, _)| visit(keyspace));
        }
        _ => {}
    }
}

/// Bytes that are simpler: fewer, or all the same.
fn simpler_bytes(bytes: &[u8]) -> Vec<Vec<u8>> {
    let plain = vec![b'v'; bytes.len()];
    let mut simpler = Vec::new();
    if !bytes.is_empty() {
        simpler.extend([
            Vec::new(),
            bytes[..bytes.len() / 2].to_vec(),
            bytes[..bytes.len() - bytes.len() / 8].to_vec(),
        ]);
        simpler.push(bytes[..bytes.len() - 1].to_vec());
    }
    simpler.push(plain);
    simpler.retain(|other| other != bytes);
    simpler
}

/// The list without each of its elements, and with each element made simpler.
fn simpler_list<T: Clone>(list: &[T], simpler: impl Fn(&T) -> Vec<T>) -> Vec<Vec<T>> {
    let mut lists = Vec::new();
    for at in 0..list.len() {
        lists.push([&list[..at], &list[at + 1..]].concat());
    }
    for (at, element) in list.iter().enumerate() {
        for other in simpler(element) {
            let mut list = list.to_vec();
            list[at] = other;
            lists.push(list);
        }
    }
    lists
}

fn simpler_writes(writes: &[NumberedWrite]) -> Vec<Vec<NumberedWrite>> {
    simpler_list(writes, |(keyspace, key, value)| {
        let values = value.as_deref().map(simpler_bytes).unwrap_or_default();
        values.into_iter().map(|value| (*keyspace, key.clone(), Some(value))).collect()
    })
}

fn simpler_entries(entries: &[(Vec<u8>, Vec<u8>)]) -> Vec<Vec<(Vec<u8>, Vec<u8>)>> {
    simpler_list(entries, |(key, value)| simpler_bytes(value).into_iter().map(|value| (key.clone(), value)).collect())
}

fn no_simpler<T>(_: &T) -> Vec<T> {
    Vec::new()
}

/// Operations that could stand for `step`, the simplest first.
fn simpler(step: &Step) -> Vec<Step> {
    let unbounded = (Bound::Unbounded, Bound::Unbounded);
    match step.clone() {
        Step::Put { keyspace, key, value } => {
            simpler_bytes(&value).into_iter().map(|value| Step::Put { keyspace, key: key.clone(), value }).collect()
        }
        Step::Write { batch, metadata, durability } => simpler_write(batch, metadata, durability),
        Step::PutAll { keyspace, entries } => {
            let mut steps = Vec::new();
            if let [(key, value)] = &entries[..] {
                steps.push(Step::Put { keyspace, key: key.clone(), value: value.clone() });
            }
            let lists = simpler_entries(&entries).into_iter();
            steps.extend(lists.map(|entries| Step::PutAll { keyspace, entries }));
            steps
        }
        Step::Ingest { keyspace, entries, unfollowed } => {
            let mut steps = vec![Step::PutAll { keyspace, entries: entries.clone() }];
            let lists = simpler_entries(&entries).into_iter();
            steps.extend(lists.map(|entries| Step::Ingest { keyspace, entries, unfollowed }));
            steps
        }
        Step::DeleteAll { keyspace, keys } => match &keys[..] {
            [key] => vec![Step::Delete { keyspace, key: key.clone() }],
            _ => simpler_list(&keys, no_simpler).into_iter().map(|keys| Step::DeleteAll { keyspace, keys }).collect(),
        },
        Step::GetMany { keyspace, keys } => {
            simpler_list(&keys, no_simpler).into_iter().map(|keys| Step::GetMany { keyspace, keys }).collect()
        }
        Step::GetSnapshot { which, keyspace, then, keys } => simpler_list(&keys, no_simpler)
            .into_iter()
            .map(|keys| Step::GetSnapshot { which, keyspace, then, keys })
            .collect(),
        Step::Apply { at, writes, metadata } => {
            let mut steps: Vec<Step> = Vec::new();
            if !metadata.is_empty() {
                steps.push(Step::Apply { at, writes: writes.clone(), metadata: Vec::new() });
            }
            let lists = simpler_writes(&writes).into_iter().filter(|writes| !writes.is_empty());
            steps.extend(lists.map(|writes| Step::Apply { at, writes, metadata: metadata.clone() }));
            steps
        }
        Step::ApplyDrop { at, keyspace, metadata, .. } if !metadata.is_empty() => {
            vec![Step::ApplyDrop { at, keyspace, writes: Vec::new(), metadata: Vec::new() }]
        }
        Step::SetCursor { name, at, metadata } if !metadata.is_empty() => {
            vec![Step::SetCursor { name, at, metadata: Vec::new() }]
        }
        Step::Range { keyspace, bounds, ends } if ends != 0 || bounds != unbounded => {
            vec![Step::Iterate { keyspace, ends: 0 }, Step::Range { keyspace, bounds, ends: 0 }]
                .into_iter()
                .filter(|simpler| simpler != step)
                .collect()
        }
        Step::Iterate { keyspace, ends } if ends != 0 => vec![Step::Iterate { keyspace, ends: 0 }],
        Step::OpenIter { keyspace, bounds } if bounds != unbounded => {
            vec![Step::OpenIter { keyspace, bounds: unbounded }]
        }
        Step::ReadSnapshot { which, keyspace, then, bounds, ends } if ends != 0 || bounds != unbounded => {
            vec![Step::ReadSnapshot { which, keyspace, then, bounds: unbounded, ends: 0 }]
        }
        Step::AdvanceIter { which, count, ends } if count > 1 || ends != 0 => {
            let simplest = Step::AdvanceIter { which, count, ends: 0 };
            let fewer = Step::AdvanceIter { which, count: count.div_ceil(2), ends };
            [simplest, fewer].into_iter().filter(|simpler| simpler != step).collect()
        }
        _ => Vec::new(),
    }
}

fn simpler_write(
    batch: Vec<NumberedWrite>,
    metadata: Vec<(usize, Option<Vec<u8>>)>,
    durability: Option<siltstone::Durability>,
) -> Vec<Step> {
    let mut steps = Vec::new();
    if let ([(keyspace, key, value)], true) = (&batch[..], metadata.is_empty() && durability.is_none()) {
        let (keyspace, key) = (*keyspace, key.clone());
        steps.push(match value {
            Some(value) => Step::Put { keyspace, key, value: value.clone() },
            None => Step::Delete { keyspace, key },
        });
    }
    if durability.is_some() {
        steps.push(Step::Write { batch: batch.clone(), metadata: metadata.clone(), durability: None });
    }
    let fewer = simpler_list(&metadata, no_simpler);
    steps.extend(fewer.into_iter().map(|metadata| Step::Write { batch: batch.clone(), metadata, durability }));
    let lists = simpler_writes(&batch);
    steps.extend(lists.into_iter().map(|batch| Step::Write { batch, metadata: metadata.clone(), durability }));
    steps
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::steps::list;

    #[test]
    fn what_two_operations_need_is_found_among_hundreds() {
        // Fails if a flush comes after a put of a value of at least ten bytes, into any keyspace.
        let mut asked = 0;
        let fails = |steps: &[Step]| {
            asked += 1;
            let put = steps.iter().position(|step| matches!(step, Step::Put { value, .. } if value.len() >= 10));
            put.is_some_and(|put| steps[put..].iter().any(|step| matches!(step, Step::Flush { .. })))
        };
        let reduced = reduce(list(7, 400), fails);
        assert_eq!(
            reduced,
            [Step::Put { keyspace: 0, key: vec![], value: vec![b'v'; 10] }, Step::Flush { keyspace: 0 }]
        );
        assert!(asked < 600, "{asked} attempts");
    }

    #[test]
    fn a_batch_shrinks_to_the_entries_that_matter() {
        let entries = |steps: &[Step]| -> Vec<Vec<u8>> {
            let Some(Step::PutAll { entries, .. }) = steps.first() else { return Vec::new() };
            entries.iter().map(|(key, _)| key.clone()).collect()
        };
        let all: Vec<_> = (b'a'..=b'z').map(|key| (vec![key; 3], vec![key; 50])).collect();
        let fails = |steps: &[Step]| {
            let keys = entries(steps);
            keys.len() > 1 && keys[0] < keys[1]
        };
        let reduced = reduce(vec![Step::PutAll { keyspace: 2, entries: all }], fails);
        let smallest = vec![(vec![], vec![]), (vec![b'b'], vec![])];
        assert_eq!(reduced, [Step::PutAll { keyspace: 0, entries: smallest }]);
    }
}
