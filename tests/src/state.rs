//! The contents of a database as plain maps: what models hold and dumps answer.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use siltstone::{Db, Iter, Keyspace, KeyspaceOptions, Result};

/// The entries of one keyspace.
pub type Map = BTreeMap<Vec<u8>, Vec<u8>>;

/// The keyspaces of a database by name; empty ones are left out, so that states compare by what can be read.
pub type State = BTreeMap<String, Map>;

/// Entries as they come out of an iterator.
pub type Entries = Vec<(Vec<u8>, Vec<u8>)>;

/// One write: keyspace, key, and the value or `None` for a delete.
pub type Write = (String, Vec<u8>, Option<Vec<u8>>);

/// Stands in a [`State`] for the database's metadata: no keyspace can have this name.
pub const METADATA: &str = "\u{1}metadata";

/// Applies one write to `state`.
pub fn apply(state: &mut State, (keyspace, key, value): &Write) {
    let map = state.entry(keyspace.clone()).or_default();
    match value {
        Some(value) => drop(map.insert(key.clone(), value.clone())),
        None => drop(map.remove(key)),
    }
    if map.is_empty() {
        state.remove(keyspace);
    }
}

/// All entries that an iterator still has, in its own order.
///
/// # Errors
/// The iterator's.
pub fn collect(iter: impl Iterator<Item = Result<(siltstone::Slice, siltstone::Slice)>>) -> Result<Entries> {
    iter.map(|entry| entry.map(|(key, value)| (key.into(), value.into()))).collect()
}

/// Everything a database holds. `options` are those the keyspaces have, since opening one with others changes them.
///
/// # Errors
/// Any read's.
pub fn dump(db: &Db, options: &KeyspaceOptions) -> Result<State> {
    let open = |name: &String| db.keyspace(name, options.clone());
    dump_keyspaces(&db.keyspaces().iter().map(open).collect::<Result<Vec<_>>>()?)
}

/// Everything that some keyspaces hold, read in both directions, which have to agree.
///
/// # Errors
/// Any read's.
pub fn dump_keyspaces(keyspaces: &[Keyspace]) -> Result<State> {
    let mut state = State::new();
    for keyspace in keyspaces {
        let map = read_both_ways(keyspace.name(), keyspace.iter(), keyspace.iter())?;
        if !map.is_empty() {
            state.insert(keyspace.name().to_string(), map);
        }
    }
    Ok(state)
}

fn push(entries: &mut Entries, key: &[u8], value: &[u8]) -> ControlFlow<()> {
    entries.push((key.to_vec(), value.to_vec()));
    ControlFlow::Continue(())
}

/// Reads two iterators over the same entries, one forward and one in reverse: the first entries one by one, the rest in
/// one go.
///
/// # Errors
/// The iterators'.
pub fn read_both_ways(what: &str, mut ascending: Iter, mut descending: Iter) -> Result<Map> {
    const ONE_BY_ONE: usize = 3;
    let mut forward = collect(ascending.by_ref().take(ONE_BY_ONE))?;
    assert!(ascending.visit(|key, value| push(&mut forward, key, value))?.is_continue());
    let mut backward = collect(descending.by_ref().rev().take(ONE_BY_ONE))?;
    assert!(descending.visit_back(|key, value| push(&mut backward, key, value))?.is_continue());
    backward.reverse();
    assert!(forward == backward, "{what}: {} entries forward, {} in reverse", forward.len(), backward.len());
    assert!(forward.is_sorted_by(|a, b| a.0 < b.0), "{what}: not in ascending order");
    Ok(forward.into_iter().collect())
}

/// Where two states differ first, for messages; `None` if they are equal.
pub fn difference(found: &State, expected: &State) -> Option<String> {
    let names = found.keys().chain(expected.keys());
    let empty = Map::new();
    for name in names {
        let (found, expected) = (found.get(name).unwrap_or(&empty), expected.get(name).unwrap_or(&empty));
        for key in found.keys().chain(expected.keys()) {
            if found.get(key) != expected.get(key) {
                let show = |value: Option<&Vec<u8>>| value.map_or("nothing".to_owned(), |value| short(value));
                let (found, expected) = (show(found.get(key)), show(expected.get(key)));
                return Some(format!("{name}/{}: found {found}, expected {expected}", short(key)));
            }
        }
    }
    None
}

/// Bytes for messages: the first 40, and the length.
pub fn short(bytes: &[u8]) -> String {
    format!("\"{}\" ({} bytes)", bytes[..bytes.len().min(40)].escape_ascii(), bytes.len())
}
