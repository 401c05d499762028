//! Runs [`Step`]s on a database and on maps, and compares what both answer.

use std::collections::VecDeque;
use std::fmt::Debug;
use std::ops::{Bound, RangeBounds};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use siltstone::fs::SimFileSystem;
use siltstone::{Db, Durability, Error, Iter, Keyspace, Options, SeqNo, Slice, Snapshot, WriteBatch};

use crate::log::check_log;
use crate::options::{Config, KEYSPACES};
use crate::state::{Map, read_both_ways};
use crate::steps::{Bounds, Ends, NumberedWrite, Step};

/// What an iterator still has to give.
type Expected = VecDeque<(Vec<u8>, Vec<u8>)>;

/// A database beside its model. Every method panics where they differ.
pub struct Runner {
    path: PathBuf,
    config: Config,
    db: Db,
    keyspaces: Vec<Keyspace>,
    model: Vec<Map>,
    last_seqno: SeqNo,
    snapshots: Vec<Taken>,
    iters: Vec<(Iter, Expected)>,
}

/// A snapshot with the handles and contents of its moment.
struct Taken {
    snapshot: Snapshot,
    keyspaces: Vec<Keyspace>,
    model: Vec<Map>,
}

/// The name of keyspace `number`.
pub fn name(number: usize) -> String {
    format!("keyspace {number}")
}

fn open(config: &Config, path: &Path) -> (Db, Vec<Keyspace>) {
    let db = config.options.clone().open(path).unwrap();
    let keyspaces = (0..KEYSPACES).map(|n| db.keyspace(name(n), config.keyspaces[n].clone()).unwrap()).collect();
    (db, keyspaces)
}

/// Whether both bounds together can hold a key; `BTreeMap::range` panics where the engine answers with nothing.
fn is_empty(bounds: &Bounds) -> bool {
    match bounds {
        (Bound::Included(from), Bound::Included(to)) => from > to,
        (Bound::Included(from) | Bound::Excluded(from), Bound::Included(to) | Bound::Excluded(to)) => from >= to,
        _ => false,
    }
}

fn in_bounds(map: &Map, bounds: &Bounds) -> Expected {
    if is_empty(bounds) {
        return VecDeque::new();
    }
    map.range(bounds.clone()).map(|(key, value)| (key.clone(), value.clone())).collect()
}

/// Asks `iter` `count` times, at the ends that the bits of `ends` say.
fn advance(iter: &mut Iter, expected: &mut Expected, count: usize, ends: Ends) {
    for at in 0..count {
        let back = ends >> (at % 64) & 1 == 1;
        let found = if back { iter.next_back() } else { iter.next() };
        let found = found.map(|entry| entry.unwrap()).map(|(key, value)| (Vec::from(key), Vec::from(value)));
        let wanted = if back { expected.pop_back() } else { expected.pop_front() };
        assert_eq!(found, wanted, "call {at} of {count}, from the back: {back}");
    }
}

/// Reads `iter` until both ends meet, and once more at each end.
fn check_iter(mut iter: Iter, mut expected: Expected, ends: Ends) {
    let count = expected.len() + 2;
    advance(&mut iter, &mut expected, count, ends);
    assert!(iter.next().is_none() && iter.next_back().is_none(), "an iterator that ended goes on");
}

fn same(found: Option<Slice>, expected: Option<&Vec<u8>>) {
    assert_eq!(found.as_deref(), expected.map(Vec::as_slice));
}

fn assert_closed<T: Debug>(answer: Result<T, Error>) {
    assert!(matches!(answer, Err(Error::Closed)), "{answer:?} instead of Closed");
}

impl Runner {
    /// Opens a new database in the empty directory `path`.
    pub fn new(path: &Path, config: Config) -> Self {
        let (db, keyspaces) = open(&config, path);
        Runner {
            path: path.to_owned(),
            db,
            keyspaces,
            model: vec![Map::new(); KEYSPACES],
            last_seqno: 0,
            snapshots: Vec::new(),
            iters: Vec::new(),
            config,
        }
    }

    /// Runs one step, and then compares a part of the database with the model.
    pub fn step(&mut self, step: &Step) {
        match step {
            Step::Put { .. } | Step::Delete { .. } | Step::PutAll { .. } | Step::DeleteAll { .. } => {
                self.write_one(step);
            }
            Step::Write { batch, durability } => self.write(batch, *durability),
            Step::Get { keyspace, key } => self.get(*keyspace, key),
            Step::GetMany { keyspace, keys } => {
                let expected: Vec<_> = keys.iter().map(|key| self.model[*keyspace].get(key)).collect();
                let found = self.keyspaces[*keyspace].get_many(keys).unwrap();
                assert_eq!(found.len(), expected.len());
                found.into_iter().zip(expected).for_each(|(found, expected)| same(found, expected));
            }
            Step::Range { keyspace, bounds, ends } => {
                let iter = self.keyspaces[*keyspace].range(bounds.clone());
                check_iter(iter, in_bounds(&self.model[*keyspace], bounds), *ends);
            }
            Step::Prefix { keyspace, prefix, ends } => {
                let all = self.model[*keyspace].iter().filter(|(key, _)| key.starts_with(prefix));
                let expected = all.map(|(key, value)| (key.clone(), value.clone())).collect();
                check_iter(self.keyspaces[*keyspace].prefix(prefix), expected, *ends);
            }
            Step::TakeSnapshot
            | Step::ReadSnapshot { .. }
            | Step::DropSnapshot { .. }
            | Step::OpenIter { .. }
            | Step::AdvanceIter { .. } => self.view(step),
            _ => self.upkeep(step),
        }
        assert_eq!(self.db.last_seqno(), self.last_seqno, "the last sequence number");
    }

    fn write_one(&mut self, step: &Step) {
        let numbered = |keyspace: &usize, count: usize| (*keyspace, count as SeqNo);
        let (answer, (keyspace, count)) = match step {
            Step::Put { keyspace, key, value } => {
                self.model[*keyspace].insert(key.clone(), value.clone());
                (self.keyspaces[*keyspace].put(key, value), numbered(keyspace, 1))
            }
            Step::Delete { keyspace, key } => {
                self.model[*keyspace].remove(key);
                (self.keyspaces[*keyspace].delete(key), numbered(keyspace, 1))
            }
            Step::PutAll { keyspace, entries } => {
                self.model[*keyspace].extend(entries.iter().cloned());
                let pairs = entries.iter().map(|(key, value)| (key, value));
                (self.keyspaces[*keyspace].put_all(pairs), numbered(keyspace, entries.len()))
            }
            Step::DeleteAll { keyspace, keys } => {
                keys.iter().for_each(|key| drop(self.model[*keyspace].remove(key)));
                (self.keyspaces[*keyspace].delete_all(keys), numbered(keyspace, keys.len()))
            }
            other => unreachable!("{other:?} is no single write"),
        };
        self.last_seqno += count;
        assert_eq!(answer.unwrap(), self.last_seqno);
        if let Step::Put { key, .. } | Step::Delete { key, .. } = step {
            self.get(keyspace, key);
        }
    }

    fn write(&mut self, writes: &[NumberedWrite], durability: Durability) {
        let mut batch = WriteBatch::new();
        for (keyspace, key, value) in writes {
            match value {
                Some(value) => {
                    batch.put(&self.keyspaces[*keyspace], key, value);
                    self.model[*keyspace].insert(key.clone(), value.clone());
                }
                None => {
                    batch.delete(&self.keyspaces[*keyspace], key);
                    self.model[*keyspace].remove(key);
                }
            }
        }
        self.last_seqno += writes.len() as SeqNo;
        // A log without the unlogged writes before it is what a crash would replay: not part of this model.
        let unlogged = self.config.durability == Durability::NoLog;
        let durability = if unlogged { Durability::NoLog } else { durability };
        assert_eq!(self.db.write_with(batch, durability).unwrap(), self.last_seqno);
        writes.iter().for_each(|(keyspace, key, _)| self.get(*keyspace, key));
    }

    fn get(&self, keyspace: usize, key: &[u8]) {
        let expected = self.model[keyspace].get(key);
        let handle = &self.keyspaces[keyspace];
        same(handle.get(key).unwrap(), expected);
        assert_eq!(handle.contains_key(key).unwrap(), expected.is_some());
        assert_eq!(handle.get_with(key, <[u8]>::to_vec).unwrap().as_ref(), expected);
    }

    fn view(&mut self, step: &Step) {
        match step {
            Step::TakeSnapshot if self.snapshots.len() < 8 => {
                let (keyspaces, model) = (self.keyspaces.clone(), self.model.clone());
                self.snapshots.push(Taken { snapshot: self.db.snapshot(), keyspaces, model });
            }
            Step::ReadSnapshot { which, keyspace, bounds, ends } if !self.snapshots.is_empty() => {
                let taken = &self.snapshots[which % self.snapshots.len()];
                taken.check(*keyspace, bounds, *ends);
                if taken.keyspaces[*keyspace].metrics() != self.keyspaces[*keyspace].metrics() {
                    // Perhaps the keyspace was dropped and made anew: the new one is empty in the older snapshot, or
                    // the same.
                    let found = taken.snapshot.iter(&self.keyspaces[*keyspace]).count();
                    assert!(found == 0 || found == taken.model[*keyspace].len());
                }
            }
            Step::DropSnapshot { which } if !self.snapshots.is_empty() => {
                self.snapshots.swap_remove(which % self.snapshots.len());
            }
            Step::OpenIter { keyspace, bounds } if self.iters.len() < 8 => {
                let expected = in_bounds(&self.model[*keyspace], bounds);
                self.iters.push((self.keyspaces[*keyspace].range(bounds.clone()), expected));
            }
            Step::AdvanceIter { which, count, ends } if !self.iters.is_empty() => {
                let at = which % self.iters.len();
                let (iter, expected) = &mut self.iters[at];
                advance(iter, expected, *count, *ends);
                if expected.is_empty() {
                    self.iters.swap_remove(at);
                }
            }
            _ => {}
        }
    }

    fn upkeep(&mut self, step: &Step) {
        match step {
            Step::Sync => self.db.sync().unwrap(),
            Step::Flush { keyspace } => self.keyspaces[*keyspace].flush().unwrap(),
            Step::FlushAll => self.db.flush().unwrap(),
            Step::Compact { keyspace } => self.compact(*keyspace),
            Step::WaitForCompaction => self.db.wait_for_compaction().unwrap(),
            Step::CloseAndOpen => self.close_and_open(),
            Step::DropAndOpen => self.drop_and_open(),
            Step::DropKeyspace { keyspace } => self.drop_keyspace(*keyspace),
            other => unreachable!("{other:?} is no upkeep"),
        }
    }

    fn compact(&mut self, keyspace: usize) {
        let handle = &self.keyspaces[keyspace];
        handle.compact().unwrap();
        if self.snapshots.is_empty() {
            let expected = self.model[keyspace].len() as u64;
            assert_eq!(handle.approximate_len(), expected, "exact once compacted without snapshots");
        }
    }

    /// Unlogged writes live only as long as the process unless they are flushed.
    fn keep_unlogged(&self) {
        if self.config.durability == Durability::NoLog {
            self.db.flush().unwrap();
        }
    }

    fn reopen(&mut self) {
        let (db, keyspaces) = open(&self.config, &self.path);
        (self.db, self.keyspaces) = (db, keyspaces);
        self.check();
    }

    fn close_and_open(&mut self) {
        self.keep_unlogged();
        self.db.close().unwrap();
        assert_closed(self.db.write(WriteBatch::new()));
        assert_closed(self.keyspaces[0].get("k"));
        assert_closed(self.keyspaces[0].put("k", "v"));
        assert_closed(self.keyspaces[0].iter().next().unwrap());
        for taken in self.snapshots.drain(..) {
            assert_closed(taken.snapshot.get(&taken.keyspaces[0], "k"));
        }
        // Iterators that were under way go on, beside the reopened database.
        self.reopen();
    }

    fn drop_and_open(&mut self) {
        self.keep_unlogged();
        self.snapshots.clear();
        self.iters.clear();
        self.keyspaces.clear();
        // The field needs a database while the real one goes; nothing is ever written to this one.
        let placeholder = Options::new().file_system(Arc::new(SimFileSystem::new())).open("/placeholder").unwrap();
        drop(std::mem::replace(&mut self.db, placeholder));
        self.reopen();
    }

    fn drop_keyspace(&mut self, keyspace: usize) {
        self.keep_unlogged();
        assert!(self.db.drop_keyspace(name(keyspace)).unwrap());
        self.last_seqno += 1;
        let old = self.keyspaces[keyspace].clone();
        let answer = old.get("k");
        assert!(matches!(answer, Err(Error::KeyspaceDropped { .. })), "{answer:?}");
        assert!(matches!(old.put("k", "v"), Err(Error::KeyspaceDropped { .. })));
        self.keyspaces[keyspace] = self.db.keyspace(name(keyspace), self.config.keyspaces[keyspace].clone()).unwrap();
        self.model[keyspace].clear();
        assert!(self.keyspaces[keyspace].iter().next().is_none(), "a new keyspace of an old name is empty");
    }

    /// Compares everything that the database and its snapshots hold, and the log.
    pub fn check(&self) {
        for (n, keyspace) in self.keyspaces.iter().enumerate() {
            let found = read_both_ways(keyspace.name(), keyspace.iter(), keyspace.iter()).unwrap();
            assert!(found == self.model[n], "{} differs from the model", keyspace.name());
            let many = keyspace.get_many(self.model[n].keys()).unwrap();
            assert!(many.iter().zip(self.model[n].values()).all(|(found, value)| found.as_deref() == Some(value)));
        }
        for taken in &self.snapshots {
            (0..KEYSPACES).for_each(|n| taken.check(n, &(Bound::Unbounded, Bound::Unbounded), 0x5555_5555_5555_5555));
        }
        if self.config.durability != Durability::NoLog {
            check_log(&self.db, &self.keyspaces);
        }
    }

    /// The last comparison: everything, what iterators still have, and every byte on storage.
    pub fn finish(mut self) {
        self.check();
        for (mut iter, mut expected) in self.iters.drain(..) {
            let count = expected.len() + 1;
            advance(&mut iter, &mut expected, count, 0);
        }
        let report = self.db.verify();
        assert!(report.is_ok(), "{report}");
        self.keep_unlogged();
        self.db.close().unwrap();
        self.snapshots.clear();
        self.reopen();
        let report = self.db.verify();
        assert!(report.is_ok(), "reopened: {report}");
    }
}

impl Taken {
    fn check(&self, n: usize, bounds: &Bounds, ends: Ends) {
        let (keyspace, model) = (&self.keyspaces[n], &self.model[n]);
        check_iter(self.snapshot.range(keyspace, bounds.clone()), in_bounds(model, bounds), ends);
        let keys: Vec<&Vec<u8>> = model.keys().filter(|key| bounds.contains(*key)).take(10).collect();
        let many = self.snapshot.get_many(keyspace, &keys).unwrap();
        for (key, found) in keys.into_iter().zip(many) {
            same(self.snapshot.get(keyspace, key).unwrap(), model.get(key));
            same(found, model.get(key));
        }
    }
}
