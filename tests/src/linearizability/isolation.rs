//! The anomalies that isolation rules out, by their names. (Write skew takes a transaction, which the engine does not
//! have yet.)

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use rand::RngExt;
use rand::rngs::StdRng;
use siltstone::{Db, Iter, Keyspace, Slice, WriteBatch};

use crate::options::{Config, KEYSPACES};
use crate::runner::name;
use crate::steps::rng;

/// Accounts over all keyspaces.
const ACCOUNTS: usize = 12;

/// What each account has at first.
const BALANCE: i64 = 1000;

/// How many transfers, increments or insertions each writer makes.
const WRITES: u64 = 400;

fn open(path: &Path, config: &Config) -> (Db, Vec<Keyspace>) {
    let db = config.options.clone().open(path).unwrap();
    let keyspaces = (0..KEYSPACES).map(|n| db.keyspace(name(n), config.keyspaces[n].clone()).unwrap()).collect();
    (db, keyspaces)
}

/// A number with enough behind it that a few hundred writes flush and compact.
fn encode(number: i64) -> Vec<u8> {
    let mut value = number.to_le_bytes().to_vec();
    value.resize(1500, number as u8);
    value
}

fn decode(value: &Slice) -> i64 {
    value.first_chunk().copied().map_or(0, i64::from_le_bytes)
}

/// Runs the writers and, until they are done, the reader.
fn beside(writers: &[&(dyn Fn() + Sync)], reader: impl Fn() + Sync) {
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let writers: Vec<_> = writers.iter().map(|writer| scope.spawn(writer)).collect();
        let reading = scope.spawn(|| {
            while !done.load(Ordering::Acquire) {
                reader();
            }
            reader();
        });
        let answers: Vec<_> = writers.into_iter().map(|writer| writer.join()).collect();
        done.store(true, Ordering::Release);
        reading.join().expect("the reader panicked");
        answers.into_iter().for_each(|answer| answer.expect("a writer panicked"));
    });
}

fn account(number: usize) -> String {
    format!("account {number:02}")
}

/// Moves money between accounts of any keyspaces, one batch a transfer; the accounts' own lock is the writers'.
fn transfer(db: &Db, keyspaces: &[Keyspace], balances: &Mutex<Vec<i64>>, rng: &mut StdRng) {
    let from = rng.random_range(0..ACCOUNTS);
    let to = (from + rng.random_range(1..ACCOUNTS)) % ACCOUNTS;
    let amount = rng.random_range(1..100);
    let mut balances = balances.lock().expect("no writer panicked");
    balances[from] -= amount;
    balances[to] += amount;
    let mut batch = WriteBatch::new();
    for at in [from, to] {
        batch.put(&keyspaces[at % KEYSPACES], account(at), encode(balances[at]));
    }
    db.write(batch).unwrap();
}

/// **Torn reads** (the bank): whatever is transferred, every snapshot has the same total.
pub fn bank(seed: u64) {
    let config = Config::random(&mut rng(seed));
    let directory = tempfile::tempdir().expect("a temporary directory");
    let (db, keyspaces) = open(directory.path(), &config);
    for at in 0..ACCOUNTS {
        keyspaces[at % KEYSPACES].put(account(at), encode(BALANCE)).unwrap();
    }
    let balances = Mutex::new(vec![BALANCE; ACCOUNTS]);
    let writer = |which: u64| {
        let rng = &mut rng(seed << 8 | which);
        (0..WRITES).for_each(|_| transfer(&db, &keyspaces, &balances, rng));
    };
    let reader = || {
        let snapshot = db.snapshot();
        let sum = |iter: Iter| iter.map(|entry| decode(&entry.unwrap().1)).sum::<i64>();
        let by_range: i64 = keyspaces.iter().map(|keyspace| sum(snapshot.iter(keyspace))).sum();
        let get = |at: usize| decode(&snapshot.get(&keyspaces[at % KEYSPACES], account(at)).unwrap().unwrap());
        let by_get: i64 = (0..ACCOUNTS).map(get).sum();
        let total = ACCOUNTS as i64 * BALANCE;
        assert_eq!((by_range, by_get), (total, total), "bank({seed}), {config:?}: money at {}", snapshot.seqno());
    };
    beside(&[&|| writer(1), &|| writer(2)], reader);
    let found: Vec<i64> =
        (0..ACCOUNTS).map(|at| decode(&keyspaces[at % KEYSPACES].get(account(at)).unwrap().unwrap())).collect();
    assert_eq!(found, *balances.lock().expect("no writer panicked"), "bank({seed}), {config:?}: the last balances");
}

/// **Lost update**: counters that each writer increments under a lock of its own making end at the number of
/// increments. (The engine has no read-modify-write yet: what it promises is that a get finds what a put before it
/// wrote, whichever threads they were on.)
pub fn lost_update(seed: u64) {
    let config = Config::random(&mut rng(seed));
    let directory = tempfile::tempdir().expect("a temporary directory");
    let (_db, keyspaces) = open(directory.path(), &config);
    let locks: Vec<Mutex<()>> = (0..4).map(|_| Mutex::new(())).collect();
    let increments: Mutex<BTreeMap<usize, i64>> = Mutex::default();
    let writer = |which: u64| {
        let rng = &mut rng(seed << 8 | which);
        for _ in 0..WRITES {
            let at = rng.random_range(0..locks.len());
            let _mine = locks[at].lock().expect("no writer panicked");
            let keyspace = &keyspaces[at % KEYSPACES];
            let before = keyspace.get(account(at)).unwrap().map_or(0, |value| decode(&value));
            keyspace.put(account(at), encode(before + 1)).unwrap();
            *increments.lock().expect("no writer panicked").entry(at).or_default() += 1;
        }
    };
    beside(&[&|| writer(1), &|| writer(2), &|| writer(3)], || {
        keyspaces[0].flush().unwrap();
        std::thread::yield_now();
    });
    for (at, count) in increments.into_inner().expect("no writer panicked") {
        let found = decode(&keyspaces[at % KEYSPACES].get(account(at)).unwrap().unwrap());
        assert_eq!(found, count, "lost_update({seed}), {config:?}: counter {at}");
    }
}

/// **Phantom** and **non-repeatable read**: a range asked twice of a snapshot, and an iterator opened before writers go
/// on, hold the same entries, whatever is inserted and deleted in it.
pub fn phantom(seed: u64) {
    let config = Config::random(&mut rng(seed));
    let directory = tempfile::tempdir().expect("a temporary directory");
    let (db, keyspaces) = open(directory.path(), &config);
    let keyspace = &keyspaces[0];
    let writer = |which: u64| {
        let rng = &mut rng(seed << 8 | which);
        for n in 0..WRITES {
            let key = account(rng.random_range(0..60));
            if rng.random() { keyspace.put(key, encode(n as i64)) } else { keyspace.delete(key) }.unwrap();
        }
    };
    let reader = || {
        let snapshot = db.snapshot();
        let bounds = || account(10)..account(50);
        let all = |iter: Iter| iter.map(|entry| entry.unwrap()).collect::<Vec<_>>();
        let (later, first) = (snapshot.range(keyspace, bounds()), all(snapshot.range(keyspace, bounds())));
        std::thread::yield_now();
        let second = all(snapshot.range(keyspace, bounds()));
        let what = format!("phantom({seed}), {config:?}: at {}", snapshot.seqno());
        assert!(first == second && first == all(later), "{what}: a range changed");
        let find = |(key, value): &(Slice, Slice)| snapshot.get(keyspace, key).unwrap().as_ref() == Some(value);
        assert!(first.iter().all(find), "{what}: a get differs from the range");
        drop(snapshot);
        keyspace.flush().unwrap();
    };
    beside(&[&|| writer(1), &|| writer(2)], reader);
}
