//! The two protocols that are made of memory orders, with loom: each load may answer with every value that its order
//! allows, not only with the newest.

use std::sync::Arc;

use loom::model::Builder;

use super::{Journal, request};
use crate::cursor::{Aim, Cursor};
use crate::key::{Lookup, MAX_SEQNO, SeqNo, Trailer, ValueKind};
use crate::memtable::{ArenaPool, Memtable, MemtableCursor};
use crate::options::MemtableKind;
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::sync::thread;
use crate::write::queue::CommitQueue;

/// Runs `body` through every schedule of at most `preemptions` preemptions.
fn check(preemptions: usize, body: impl Fn() + Send + Sync + 'static) {
    let runs = Arc::new(std::sync::atomic::AtomicU64::new(0));
    let counted = runs.clone();
    let mut builder = Builder::new();
    builder.preemption_bound.get_or_insert(preemptions);
    builder.max_branches = 100_000;
    builder.check(move || {
        counted.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        body();
    });
    super::record("schedules", runs.load(std::sync::atomic::Ordering::Relaxed));
}

/// Two callers meet at the lock: either the holder sees the ticket of the one that came late, or that one finds the
/// lock free. A wake-up lost between would be a deadlock.
#[test]
fn a_caller_that_comes_as_the_lock_is_let_go_is_not_forgotten() {
    check(3, || {
        let queue = Arc::new(CommitQueue::new(Journal::default()));
        let other = {
            let queue = queue.clone();
            thread::spawn(move || queue.commit(request(2)).1.unwrap())
        };
        let mine = queue.commit(request(1)).1.unwrap();
        let theirs = other.join().unwrap();
        assert_eq!(mine + theirs, 3);
        queue.with_state(|journal| assert_eq!(journal.committed.len(), 2));
    });
}

/// The same beside a third thread that takes the lock for something else.
#[test]
fn a_caller_is_not_forgotten_by_one_that_only_takes_the_lock() {
    check(3, || {
        let queue = Arc::new(CommitQueue::new(Journal::default()));
        let threads = [
            thread::spawn({
                let queue = queue.clone();
                move || assert!(queue.commit(request(2)).1.is_ok())
            }),
            thread::spawn({
                let queue = queue.clone();
                move || queue.with_state(|journal| assert!(journal.committed.len() < 3))
            }),
        ];
        queue.commit(request(1)).1.unwrap();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        queue.with_state(|journal| assert_eq!(journal.committed.len(), 2));
    });
}

fn insert(memtable: &Memtable, key: u64, seqno: SeqNo) {
    memtable.insert(&key.to_be_bytes(), Trailer::new(seqno, ValueKind::Put), &key.to_le_bytes());
}

fn memtable(keys: impl IntoIterator<Item = u64>) -> Arc<Memtable> {
    let memtable = Memtable::new(MemtableKind::BTree, 1 << 20, &Arc::new(ArenaPool::new(0, 1 << 20)));
    keys.into_iter().for_each(|key| insert(&memtable, key, key + 1));
    Arc::new(memtable)
}

fn get(memtable: &Memtable, key: u64) -> Option<Vec<u8>> {
    memtable.get(&Lookup::new(&key.to_be_bytes(), 1000)).map(|(_, value)| value.to_vec())
}

/// Inserts `new` beside `read`, and publishes its number as the commit does.
fn beside(keys: &'static [u64], new: u64, read: impl Fn(&Arc<Memtable>, &AtomicU64) + Send + Sync + 'static) {
    check(2, move || {
        let memtable = memtable(keys.iter().copied());
        let visible = Arc::new(AtomicU64::new(0));
        let writer = {
            let (memtable, visible) = (memtable.clone(), visible.clone());
            thread::spawn(move || {
                insert(&memtable, new, 900);
                visible.store(900, Ordering::Release);
            })
        };
        read(&memtable, &visible);
        writer.join().unwrap();
        assert_eq!(get(&memtable, new).as_deref(), Some(&new.to_le_bytes()[..]));
    });
}

/// A key that was there is found whatever a split does meanwhile. (A node of a model splits at its fifth entry. The new
/// one takes the slot of key 30, whose prefix a reader may still compare with: only the fences tell it.)
#[test]
fn a_get_beside_a_split_finds_what_was_there() {
    for key in [10, 30, 40] {
        beside(&[10, 20, 30, 40], 25, move |memtable, _| {
            assert_eq!(get(memtable, key).as_deref(), Some(&key.to_le_bytes()[..]));
        });
    }
}

/// Who learned a number finds the entry that it admits, in a leaf with room and in one that is split.
#[test]
fn a_get_finds_what_was_published() {
    fn published(memtable: &Arc<Memtable>, visible: &AtomicU64) {
        let seqno = visible.load(Ordering::Acquire);
        let found = get(memtable, 25);
        assert!(seqno < 900 || found.is_some(), "published and not found");
        assert!(found.is_none_or(|value| value == 25u64.to_le_bytes()), "half an entry");
    }
    beside(&[10, 30], 25, published);
    beside(&[10, 20, 30, 40], 25, published);
}

/// A memtable that has an index, and in it each of `keys` at its number and one.
fn indexed(keys: &[u64]) -> Arc<Memtable> {
    let memtable = memtable([]);
    memtable.insert(b"large", Trailer::new(1, ValueKind::Put), &vec![0; 100 << 10]);
    keys.iter().for_each(|key| insert(&memtable, *key, key + 1));
    memtable
}

/// The same by the index: who learned a number finds the entry that it admits, and a snapshot from before it what it saw
/// then.
#[test]
fn a_get_by_the_index_finds_what_was_published() {
    for keys in [&[10][..], &[10, 25]] {
        check(2, move || {
            let memtable = indexed(keys);
            let visible = Arc::new(AtomicU64::new(0));
            let writer = {
                let (memtable, visible) = (memtable.clone(), visible.clone());
                thread::spawn(move || {
                    for seqno in [900, 901] {
                        insert(&memtable, 25, seqno);
                        visible.store(seqno, Ordering::Release);
                    }
                })
            };
            let seqno_at =
                |at| memtable.get(&Lookup::new(&25u64.to_be_bytes(), at)).map(|(trailer, _)| trailer.seqno());
            let seqno = visible.load(Ordering::Acquire);
            let before = keys.contains(&25).then_some(26);
            assert_eq!(seqno_at(seqno.max(26)), if seqno > 0 { Some(seqno) } else { before });
            assert_eq!(seqno_at(26), before, "a snapshot's answer changed");
            writer.join().unwrap();
        });
    }
}

/// A cursor steps over every key that was there, once and in order, in both directions.
#[test]
fn a_cursor_beside_a_split_steps_on_every_key() {
    fn collect(memtable: &Arc<Memtable>, backward: bool) -> Vec<u64> {
        let mut cursor = MemtableCursor::new(memtable.clone());
        if backward { cursor.seek_to_last() } else { cursor.seek_to_first() }.unwrap();
        let mut keys = Vec::new();
        while cursor.valid() {
            keys.push(u64::from_be_bytes(cursor.key().try_into().unwrap()));
            if backward { cursor.prev() } else { cursor.next() }.unwrap();
        }
        keys
    }
    for backward in [false, true] {
        beside(&[10, 20, 30, 40], 25, move |memtable, _| {
            let mut keys = collect(memtable, backward);
            if backward {
                keys.reverse();
            }
            assert!(keys == [10, 20, 30, 40] || keys == [10, 20, 25, 30, 40], "{keys:?}");
        });
    }
}

/// A cursor that found its way step by step stands where one that sought at once would, whatever a split does between
/// the steps: the entry that was there, or the new one where it is nearer.
#[test]
fn an_aimed_seek_beside_a_split_finds_what_was_there() {
    for (key, backward, old) in [(30, false, 30), (22, false, 30), (40, true, 30), (28, true, 20)] {
        beside(&[10, 20, 30, 40], 25, move |memtable, _| {
            let sought = u64::to_be_bytes(key);
            let mut cursor = MemtableCursor::new(memtable.clone());
            for at in [Aim::Index, Aim::Block] {
                cursor.aim(at, &sought, MAX_SEQNO, backward).unwrap();
            }
            if backward { cursor.seek_before(&sought) } else { cursor.seek(&sought, MAX_SEQNO) }.unwrap();
            let found = u64::from_be_bytes(cursor.key().try_into().unwrap());
            let new_is_nearer = if backward { 25 < key && old < 25 } else { key <= 25 && 25 < old };
            assert!(found == old || (found == 25 && new_is_nearer), "{found} for {key}");
        });
    }
}

/// The first entry of a memtable comes with its leaf: a cursor that meets an empty leaf would stand on nothing.
#[test]
fn a_cursor_beside_the_first_insertion_finds_an_entry_or_none() {
    beside(&[], 25, |memtable, _| {
        let mut cursor = MemtableCursor::new(memtable.clone());
        cursor.seek_to_first().unwrap();
        assert!(!cursor.valid() || cursor.key() == 25u64.to_be_bytes());
    });
}
