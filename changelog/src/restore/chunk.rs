//! A stretch of a log: its changes one behind the other in memory, where they can be sorted and made batches of again.

use std::collections::HashMap;

use siltstone::bytes::Bytes;
use siltstone::{Change, ChangeBatch, KeyspaceName, SeqNo, Slice};

use crate::error::Result;
use crate::position::Position;
use crate::scan::{LentChange, Numbers};

/// What a change takes in memory beside key and value, at most, in bytes: its entry, its place among those that are sorted,
/// and a batch of its own.
const CHANGE_BYTES: u64 = 64;

/// What kind of change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Put,
    Delete,
    DropKeyspace,
}

/// A change; its key lies at `at`, its value behind that.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    at: u64,
    value_bytes: u32,
    /// Among those of the chunk.
    pub(super) keyspace: u32,
    key_bytes: u32,
    kind: Kind,
}

/// Where a batch ends.
#[derive(Clone, Copy, Debug)]
struct BatchEnd {
    /// Among the changes.
    end: usize,
    last_seqno: SeqNo,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Chunk {
    keyspaces: Vec<KeyspaceName>,
    /// Where in there each is.
    ids: HashMap<KeyspaceName, u32>,
    memory: Vec<u8>,
    entries: Vec<Entry>,
    batches: Vec<BatchEnd>,
    /// The position after each batch, if they are to be applied one by one; else none, and they are to be sorted.
    positions: Vec<Position>,
    /// It drops a keyspace, and then it is a single batch.
    pub(super) is_drop: bool,
    /// The position after everything that was read, also of what was left out; none if it is in the middle of that.
    pub(super) end: Option<Position>,
    /// Where it was to end was met.
    pub(super) is_last: bool,
}

impl Chunk {
    /// Adds a change of the batch that is read.
    pub(super) fn push(&mut self, change: LentChange<'_>) {
        let (kind, keyspace, key, value): (_, _, &[u8], &[u8]) = match change {
            LentChange::Put { keyspace, key, value } => (Kind::Put, keyspace, key, value),
            LentChange::Delete { keyspace, key } => (Kind::Delete, keyspace, key, &[]),
            LentChange::DropKeyspace { keyspace } => (Kind::DropKeyspace, keyspace, &[], &[]),
        };
        let keyspace = self.id(keyspace);
        let at = self.memory.len() as u64;
        self.memory.extend_from_slice(key);
        self.memory.extend_from_slice(value);
        let (key_bytes, value_bytes) = (key.len() as u32, value.len() as u32);
        self.entries.push(Entry { at, value_bytes, keyspace, key_bytes, kind });
    }

    fn id(&mut self, name: &KeyspaceName) -> u32 {
        // They come in runs.
        if let Some(last) = self.entries.last()
            && self.keyspaces[last.keyspace as usize] == *name
        {
            return last.keyspace;
        }
        if let Some(&id) = self.ids.get(name) {
            return id;
        }
        let id = self.keyspaces.len() as u32;
        self.keyspaces.push(name.clone());
        self.ids.insert(name.clone(), id);
        id
    }

    /// What was added since the batch before is a batch. Without the position after it the chunk becomes one to be sorted.
    pub(super) fn end_batch(&mut self, numbers: Numbers, position: Option<Position>) {
        match position {
            Some(position) => self.positions.push(position),
            None => self.positions.clear(),
        }
        self.batches.push(BatchEnd { end: self.entries.len(), last_seqno: numbers.last });
    }

    /// Whether it is to be sorted, as there is much of it.
    pub(super) fn is_sorted(&self) -> bool {
        self.positions.is_empty() && !self.batches.is_empty()
    }

    /// Forgets what was added since the batch before.
    pub(super) fn forget_batch(&mut self) {
        let end = self.changes_of_whole_batches();
        if let Some(first) = self.entries.get(end) {
            self.memory.truncate(first.at as usize);
            self.entries.truncate(end);
        }
    }

    /// Whether what was added since the batch before drops a keyspace.
    pub(super) fn begins_drop(&self) -> bool {
        self.entries[self.changes_of_whole_batches()..].iter().any(|entry| entry.kind == Kind::DropKeyspace)
    }

    /// Takes out what was added since the batch before.
    pub(super) fn split_off(&mut self) -> Chunk {
        let mut split = Chunk::default();
        for entry in &self.entries[self.changes_of_whole_batches()..] {
            split.push(self.lent(entry));
        }
        self.forget_batch();
        split
    }

    fn changes_of_whole_batches(&self) -> usize {
        self.batches.last().map_or(0, |batch| batch.end)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.batches.is_empty()
    }

    /// How much memory it takes, about.
    pub(super) fn memory_bytes(&self) -> u64 {
        self.user_bytes() + CHANGE_BYTES * self.entries.len() as u64
    }

    /// Bytes of keys and values.
    pub(super) fn user_bytes(&self) -> u64 {
        self.memory.len() as u64
    }

    pub(super) fn batch_count(&self) -> usize {
        self.batches.len()
    }

    pub(super) fn first_seqno(&self) -> SeqNo {
        self.batches.first().map_or(0, |batch| batch.last_seqno + 1 - batch.end as u64)
    }

    pub(super) fn last_seqno(&self) -> SeqNo {
        self.batches.last().map_or(0, |batch| batch.last_seqno)
    }

    pub(super) fn keyspaces(&self) -> &[KeyspaceName] {
        &self.keyspaces
    }

    pub(super) fn entries(&self) -> &[Entry] {
        &self.entries
    }

    pub(super) fn key(&self, entry: &Entry) -> &[u8] {
        let at = entry.at as usize;
        &self.memory[at..at + entry.key_bytes as usize]
    }

    /// None for what is no put.
    pub(super) fn value(&self, entry: &Entry) -> Option<&[u8]> {
        let at = entry.at as usize + entry.key_bytes as usize;
        (entry.kind == Kind::Put).then(|| &self.memory[at..at + entry.value_bytes as usize])
    }

    fn lent(&self, entry: &Entry) -> LentChange<'_> {
        let (keyspace, key) = (&self.keyspaces[entry.keyspace as usize], self.key(entry));
        match (entry.kind, self.value(entry)) {
            (Kind::DropKeyspace, _) => LentChange::DropKeyspace { keyspace },
            (_, Some(value)) => LentChange::Put { keyspace, key, value },
            (_, None) => LentChange::Delete { keyspace, key },
        }
    }

    /// Calls `apply` with each batch and the position after it.
    pub(super) fn for_each_batch(mut self, mut apply: impl FnMut(&ChangeBatch, &Position) -> Result<()>) -> Result<()> {
        let memory = Bytes::from(std::mem::take(&mut self.memory));
        let mut begin = 0;
        for (&BatchEnd { end, last_seqno }, position) in self.batches.iter().zip(&self.positions) {
            let changes = self.entries[begin..end].iter().map(|entry| self.change(&memory, entry)).collect();
            let batch = ChangeBatch::new(last_seqno + 1 - (end - begin) as u64, changes)?;
            apply(&batch, position)?;
            begin = end;
        }
        Ok(())
    }

    fn change(&self, memory: &Bytes, entry: &Entry) -> Change {
        let keyspace = self.keyspaces[entry.keyspace as usize].clone();
        let (at, value_at) = (entry.at as usize, entry.at as usize + entry.key_bytes as usize);
        let key = || Slice::share(memory, &memory[at..value_at]);
        let value = || Slice::share(memory, &memory[value_at..value_at + entry.value_bytes as usize]);
        match entry.kind {
            Kind::Put => Change::Put { keyspace, key: key(), value: value() },
            Kind::Delete => Change::Delete { keyspace, key: key() },
            Kind::DropKeyspace => Change::DropKeyspace { keyspace },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scan::lend_all;

    fn change(keyspace: &str, key: &str, value: Option<&str>) -> Change {
        let (keyspace, key) = (keyspace.into(), key.into());
        match value {
            Some(value) => Change::Put { keyspace, key, value: value.into() },
            None => Change::Delete { keyspace, key },
        }
    }

    fn position(seqno: SeqNo) -> Position {
        Position::from_number(seqno)
    }

    /// Adds what a batch holds, and does not end it.
    fn add(chunk: &mut Chunk, batch: &ChangeBatch) -> Numbers {
        lend_all(batch, &mut |change| chunk.push(change))
    }

    fn batches(chunk: Chunk) -> Vec<(ChangeBatch, Position)> {
        let mut batches = Vec::new();
        chunk
            .for_each_batch(|batch, position| {
                batches.push((batch.clone(), position.clone()));
                Ok(())
            })
            .unwrap();
        batches
    }

    #[test]
    fn batches_come_out_as_they_went_in() {
        let first =
            ChangeBatch::new(5, vec![change("a", "k", Some("v")), change("b", "", None), change("a", "", Some(""))]);
        let second = ChangeBatch::single(9, change("b", "l", Some(&"long ".repeat(20))));
        let (first, second) = (first.unwrap(), second.unwrap());
        let mut chunk = Chunk::default();
        for batch in [&first, &second] {
            let numbers = add(&mut chunk, batch);
            chunk.end_batch(numbers, Some(position(numbers.last)));
        }
        assert_eq!((chunk.first_seqno(), chunk.last_seqno(), chunk.batch_count()), (5, 9, 2));
        assert_eq!(chunk.user_bytes(), first.user_bytes() + second.user_bytes());
        assert!(!chunk.is_sorted());
        assert_eq!(batches(chunk), [(first, position(7)), (second, position(9))]);
    }

    #[test]
    fn what_is_no_batch_yet_can_be_forgotten_and_split_off() {
        let first = ChangeBatch::single(1, change("a", "k", Some("v"))).unwrap();
        let drop = ChangeBatch::single(2, Change::DropKeyspace { keyspace: "a".into() }).unwrap();
        let mut chunk = Chunk::default();
        let numbers = add(&mut chunk, &first);
        assert!(!chunk.begins_drop() && chunk.is_empty());
        chunk.end_batch(numbers, Some(position(1)));
        add(&mut chunk, &drop);
        add(&mut chunk, &first);
        chunk.forget_batch();
        let numbers = add(&mut chunk, &drop);
        assert!(chunk.begins_drop());
        let mut split = chunk.split_off();
        split.end_batch(numbers, Some(position(2)));
        assert_eq!((batches(chunk), batches(split)), (vec![(first, position(1))], vec![(drop, position(2))]));
    }
}
