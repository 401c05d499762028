//! State that counts each input once.

mod common;

use std::collections::BTreeMap;
use std::ops::Bound;
use std::path::Path;

use common::{Random, read_all, scratch};
use siltstone::Slice;
use siltstone_changelog::store::{ALL_KEYS, KeyValueStore, Write};
use siltstone_changelog::{
    Error, FileSink, FileSource, Inputs, MemorySink, Restore, Result, RetryPolicy, Task, TaskOptions, TaskStore,
};

const SEED: u64 = 20_261_130;

fn open(local: &Path, log: &Path) -> Result<Task<FileSink>> {
    let restore = Restore::new(FileSource::open(log)).into(local).reuse(true);
    Task::open(restore, || FileSink::open(log), TaskOptions::new())
}

fn at(position: u64) -> Inputs {
    Inputs::from([("numbers".to_owned(), position.to_string().into())])
}

fn position(task: &Task<FileSink>) -> u64 {
    task.inputs().get("numbers").map_or(0, |at| std::str::from_utf8(at).unwrap().parse().unwrap())
}

/// Samza's case: a number is in the state once it was an input, and its negative takes it out.
fn process(store: &TaskStore, input: i64) {
    if input < 0 {
        store.delete((-input).to_string().as_bytes()).unwrap();
    } else {
        store.put(input.to_string().as_bytes(), b"there").unwrap();
    }
}

fn keys(store: &dyn KeyValueStore) -> Vec<String> {
    store.range(ALL_KEYS).unwrap().map(|entry| String::from_utf8(entry.unwrap().0.to_vec()).unwrap()).collect()
}

#[test]
fn what_was_not_committed_is_gone_and_what_was_is_there_once() {
    let (_dir, local, log) = scratch();
    let mut task = open(&local, &log).unwrap();
    let store = task.store("state", Default::default()).unwrap();
    let inputs = [1, 2, 3, 2, 97, -97, 98, 99];
    for (input, number) in inputs.into_iter().zip(1..) {
        process(&store, input);
        if number == 6 {
            task.commit(at(number)).unwrap();
        }
    }
    assert_eq!(keys(&store), ["1", "2", "3", "98", "99"]);
    drop((task, store));
    for lost in [false, true] {
        if lost {
            std::fs::remove_dir_all(&local).unwrap();
        }
        let task = open(&local, &log).unwrap();
        assert_eq!(position(&task), 6);
        assert_eq!(keys(&task.store("state", Default::default()).unwrap()), ["1", "2", "3"]);
    }
    let changes: usize = read_all(&FileSource::open(&log)).unwrap().iter().map(|batch| batch.changes().len()).sum();
    assert_eq!(changes, 5, "1, 2, 3, the delete of 97, and the position");
}

#[test]
fn a_log_that_is_ahead_is_caught_up_with() {
    let (dir, local, log) = scratch();
    let mut task = open(&local, &log).unwrap();
    let store = task.store("state", Default::default()).unwrap();
    store.put(b"a", b"1").unwrap();
    task.commit(at(1)).unwrap();
    drop((task, store));
    // Another machine goes on; then the first one comes back.
    let elsewhere = dir.path().join("elsewhere");
    let mut task = open(&elsewhere, &log).unwrap();
    let store = task.store("state", Default::default()).unwrap();
    store.put(b"b", b"2").unwrap();
    task.commit(at(2)).unwrap();
    drop((task, store));
    let task = open(&local, &log).unwrap();
    assert_eq!(
        (position(&task), keys(&task.store("state", Default::default()).unwrap())),
        (2, vec!["a".to_owned(), "b".to_owned()])
    );
}

#[test]
fn state_of_another_log_is_stale() {
    let (dir, local, log) = scratch();
    let mut task = open(&local, &log).unwrap();
    let store = task.store("state", Default::default()).unwrap();
    for number in 0..100 {
        store.put(b"a", &[number]).unwrap();
        task.commit(at(number.into())).unwrap();
    }
    drop((task, store));
    let other = dir.path().join("other");
    match open(&local, &other) {
        Err(Error::Stale { reason, .. }) => assert!(reason.contains("position"), "{reason}"),
        other => panic!("{:?}", other.map(drop)),
    }
}

#[test]
fn a_sink_that_fails_for_a_while_is_tried_again_and_one_that_fails_for_good_ends_the_task() {
    let (_dir, local, _) = scratch();
    let sink = MemorySink::new();
    let open = |sink: MemorySink, policy| {
        let restore = Restore::new(sink.source()).into(&local).reuse(true);
        Task::open(restore, || Ok(sink), TaskOptions::new().retry(policy)).unwrap()
    };
    let mut task = open(sink.clone(), RetryPolicy::default());
    let store = task.store("state", Default::default()).unwrap();
    sink.fail_appends(2, true);
    sink.fail_flushes(1, true);
    store.put(b"a", b"1").unwrap();
    task.commit(at(1)).unwrap();
    assert_eq!((sink.failures_left(), sink.batches().len()), (0, 1));
    sink.fail_flushes(1, false);
    store.put(b"b", b"1").unwrap();
    assert!(matches!(task.commit(at(2)), Err(Error::Stopped(_))));
    assert!(matches!(store.put(b"c", b"1"), Err(Error::Stopped(_))) && task.commit(at(3)).is_err());
    drop((task, store));
    // What the log took, and had not acknowledged, is not part of it here: it is read by whoever opens it.
    let task = open(sink.clone(), RetryPolicy::default());
    assert_eq!(task.db().last_seqno(), sink.batches().last().unwrap().last_seqno());
}

#[test]
fn rollback_and_limits() {
    let (_dir, local, log) = scratch();
    let restore = Restore::new(FileSource::open(&log)).into(&local);
    let options = TaskOptions::new().max_uncommitted_bytes(1000).max_message_bytes(500);
    let mut task = Task::open(restore, || FileSink::open(&log), options).unwrap();
    let store = task.store("state", Default::default()).unwrap();
    assert!(matches!(store.put(b"k", &[0; 500]), Err(Error::TooLarge { message_bytes: 501, max_message_bytes: 500 })));
    store.put(b"k", &[0; 400]).unwrap();
    assert!(!task.wants_commit());
    store.put(b"l", &[0; 400]).unwrap();
    assert!(task.wants_commit());
    task.rollback();
    assert!(!task.wants_commit() && keys(&store).is_empty());
    assert!(matches!(
        task.store(siltstone_changelog::INPUTS_KEYSPACE, Default::default()),
        Err(Error::InvalidArgument(_))
    ));
}

/// Random writes, reads from both ends and commits, beside a map.
#[test]
fn stores_show_what_was_written_over_what_was_committed() {
    println!("seed {SEED}");
    let (_dir, local, log) = scratch();
    let mut random = Random(SEED);
    let mut task = open(&local, &log).unwrap();
    let store = task.store("state", Default::default()).unwrap();
    let (mut expected, mut committed) = (BTreeMap::new(), BTreeMap::new());
    for round in 0..3000 {
        let key = format!("{:02}", random.below(40)).into_bytes();
        match random.below(10) {
            0..4 => {
                let value = vec![round as u8; random.below(50) as usize];
                store.write(&[Write::put(key.clone(), value.clone())]).unwrap();
                expected.insert(key, value);
            }
            4..6 => {
                store.write(&[Write::delete(key.clone())]).unwrap();
                expected.remove(&key);
            }
            6 => {
                let got = store.get_many(&[&key, b"nowhere"]).unwrap();
                assert_eq!(got, [expected.get(&key).map(|value| Slice::from(&value[..])), None]);
                assert_eq!(store.get(&key).unwrap(), got[0]);
            }
            7 => {
                let (from, to) = (Bound::Included(&key[..]), Bound::Excluded(&b"35"[..]));
                let mut entries = store.range((from, to)).unwrap();
                let (mut front, mut back) = (Vec::new(), Vec::new());
                loop {
                    let at_front = random.below(2) == 0;
                    let Some(entry) = (if at_front { entries.next() } else { entries.next_back() }) else { break };
                    let (key, value) = entry.map(|(key, value)| (key.to_vec(), value.to_vec())).unwrap();
                    if at_front { front.push((key, value)) } else { back.push((key, value)) }
                }
                front.extend(back.into_iter().rev());
                let inside = expected.iter().filter(|(other, _)| **other >= key && other[..] < b"35"[..]);
                assert_eq!(front, inside.map(|(key, value)| (key.clone(), value.clone())).collect::<Vec<_>>());
            }
            8 => {
                let snapshot = store.snapshot().unwrap();
                store.write(&[Write::put("00", "later")]).unwrap();
                let all: BTreeMap<_, _> = snapshot
                    .range(ALL_KEYS)
                    .unwrap()
                    .map(|entry| entry.map(|(key, value)| (key.to_vec(), value.to_vec())).unwrap())
                    .collect();
                assert_eq!(all, expected);
                expected.insert(b"00".to_vec(), b"later".to_vec());
            }
            _ if random.below(3) == 0 => {
                task.rollback();
                expected.clone_from(&committed);
            }
            _ => {
                task.commit(at(round)).unwrap();
                committed.clone_from(&expected);
            }
        }
    }
}
