//! What was written since the last commit, over what was committed.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::ops::Bound;

use imbl::OrdMap;
use siltstone::{Change, KeyspaceName, Slice};

use crate::error::Result;
use crate::store::{Entries, StoreBounds, Write};

/// The writes to one keyspace, each key's newest; a delete is `None`. Copies share what they have in common.
pub(super) type Writes = OrdMap<Slice, Option<Slice>>;

/// What a write takes beside its key and value, in bytes.
const WRITE_BYTES: usize = 128;

/// The writes of all keyspaces.
#[derive(Debug, Default)]
pub(super) struct Overlay {
    keyspaces: BTreeMap<KeyspaceName, Writes>,
    bytes: usize,
}

fn bytes(key: &Slice, value: Option<&Slice>) -> usize {
    WRITE_BYTES + key.len() + value.map_or(0, |value| value.len())
}

impl Overlay {
    pub(super) fn write(&mut self, keyspace: &KeyspaceName, writes: &[Write]) {
        let map = match self.keyspaces.get_mut(keyspace) {
            Some(map) => map,
            None => self.keyspaces.entry(keyspace.clone()).or_default(),
        };
        for write in writes {
            let (key, value) = (write.key().clone(), write.value().cloned());
            self.bytes += bytes(&key, value.as_ref());
            if let Some(old) = map.insert(key.clone(), value) {
                self.bytes -= bytes(&key, old.as_ref());
            }
        }
    }

    /// The writes to a keyspace, as they are now.
    pub(super) fn writes(&self, keyspace: &KeyspaceName) -> Writes {
        self.keyspaces.get(keyspace).cloned().unwrap_or_default()
    }

    /// What was written to a key, if anything was.
    pub(super) fn get(&self, keyspace: &KeyspaceName, key: &[u8]) -> Option<&Option<Slice>> {
        self.keyspaces.get(keyspace)?.get(key)
    }

    /// How much it holds, in bytes.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// All of it as changes, by keyspace and key.
    pub(super) fn changes(&self) -> Vec<Change> {
        let change = |(keyspace, (key, value)): (&KeyspaceName, (&Slice, &Option<Slice>))| {
            let (keyspace, key) = (keyspace.clone(), key.clone());
            match value {
                Some(value) => Change::Put { keyspace, key, value: value.clone() },
                None => Change::Delete { keyspace, key },
            }
        };
        let all = self.keyspaces.iter().flat_map(|(keyspace, map)| map.iter().map(move |write| (keyspace, write)));
        all.map(change).collect()
    }

    pub(super) fn clear(&mut self) {
        *self = Overlay::default();
    }
}

/// The entries of a range: what was written over what was committed.
pub(super) fn merged(writes: &Writes, bounds: StoreBounds<'_>, committed: Entries) -> Entries {
    let owned = |bound: Bound<&[u8]>| bound.map(Slice::from);
    let written: Vec<(Slice, Option<Slice>)> =
        writes.range((owned(bounds.0), owned(bounds.1))).map(|(key, value)| (key.clone(), value.clone())).collect();
    Box::new(Merged { front: None, back: None, written: written.into_iter(), committed })
}

/// See [`merged`]. Each end holds the committed entry that it has read and not given yet.
struct Merged {
    front: Option<(Slice, Slice)>,
    back: Option<(Slice, Slice)>,
    written: std::vec::IntoIter<(Slice, Option<Slice>)>,
    committed: Entries,
}

impl Merged {
    /// The committed entry at the front: one that was read there, else the next, else the last one, which the back has
    /// read.
    fn take_front(&mut self) -> Result<Option<(Slice, Slice)>> {
        match self.front.take() {
            Some(entry) => Ok(Some(entry)),
            None => Ok(self.committed.next().transpose()?.or_else(|| self.back.take())),
        }
    }

    fn take_back(&mut self) -> Result<Option<(Slice, Slice)>> {
        match self.back.take() {
            Some(entry) => Ok(Some(entry)),
            None => Ok(self.committed.next_back().transpose()?.or_else(|| self.front.take())),
        }
    }

    fn step(&mut self, backward: bool) -> Result<Option<(Slice, Slice)>> {
        loop {
            let committed = if backward { self.take_back() } else { self.take_front() }?;
            let written = if backward { self.written.as_slice().last() } else { self.written.as_slice().first() };
            let order = match (&committed, written) {
                (None, None) => return Ok(None),
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some((key, _)), Some((written, _))) if backward => written.cmp(key),
                (Some((key, _)), Some((written, _))) => key.cmp(written),
            };
            if order == Ordering::Less {
                return Ok(committed);
            }
            // Of the same key what was written is newer.
            if order == Ordering::Greater {
                if backward { self.back = committed } else { self.front = committed }
            }
            let written = if backward { self.written.next_back() } else { self.written.next() };
            if let Some((key, Some(value))) = written {
                return Ok(Some((key, value)));
            }
        }
    }
}

impl Iterator for Merged {
    type Item = Result<(Slice, Slice)>;

    fn next(&mut self) -> Option<Self::Item> {
        self.step(false).transpose()
    }
}

impl DoubleEndedIterator for Merged {
    fn next_back(&mut self) -> Option<Self::Item> {
        self.step(true).transpose()
    }
}
