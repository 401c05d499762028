//! What is read: order of tables, what compaction keeps, filters, isolation.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use rand::RngExt;
use rand::seq::SliceRandom;
use siltstone::fs::SimFileSystem;
use siltstone::{Compression, Db, Keyspace, KeyspaceOptions, Result, Slice, Snapshot, WriteBatch};
use siltstone_tests::evidence;
use siltstone_tests::options::tiny_keyspace;
use siltstone_tests::steps::rng;

use super::{Done, contents, on, open};

/// Level 0 holds overlapping tables of all ages: narrow ones, wide ones, in every order. Gets, iterators and a reopened
/// database see the newest of each key.
#[test]
fn older_table_read_first() -> Done {
    let spans = [('a', 'c'), ('a', 'z'), ('m', 'p')];
    for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
        let sim = SimFileSystem::new();
        let db = open(&sim)?;
        let keyspace = db.keyspace("a", tiny_keyspace().level0_trigger(64))?;
        let mut expected = BTreeMap::new();
        for which in order {
            let (first, last) = spans[which];
            let entries = (first..=last).map(|key| (key.to_string().into_bytes(), vec![b'0' + which as u8]));
            keyspace.put_all(entries.clone())?;
            expected.extend(entries);
            keyspace.flush()?;
        }
        assert_eq!(contents(&keyspace), expected, "{order:?}");
        drop((keyspace, db));
        let db = open(&sim)?;
        let keyspace = db.keyspace("a", tiny_keyspace().level0_trigger(64))?;
        assert_eq!(contents(&keyspace), expected, "{order:?}, reopened");
        // From here on the background merges some of them, inside level 0 as well.
        let keyspace = db.keyspace("a", tiny_keyspace().level0_trigger(1).base_level_bytes(64 << 10))?;
        for round in 0..6 {
            let (key, value) = (vec![b'a' + round], vec![b'A' + round]);
            keyspace.put(&key, &value)?;
            keyspace.flush()?;
            expected.insert(key, value);
            assert_eq!(contents(&keyspace), expected, "{order:?}, round {round}");
        }
        db.wait_for_compaction()?;
        assert_eq!(contents(&keyspace), expected, "{order:?}, compacted");
    }
    Ok(())
}

/// Four threads compact in key ranges, and callers compact as well: no key at an edge of a range is lost or doubled.
#[test]
fn lost_keys_under_parallel_compaction() -> Done {
    const KEYS: u32 = 12_000;
    let sim = SimFileSystem::new();
    let options = || on(sim.clone()).background_threads(4);
    let db = options().open("/db")?;
    let keyspace = db.keyspace("a", tiny_keyspace())?;
    let mut keys: Vec<u32> = (0..KEYS).collect();
    keys.shuffle(&mut rng(1));
    std::thread::scope(|scope| {
        for part in keys.chunks(KEYS as usize / 4) {
            let keyspace = keyspace.clone();
            scope.spawn(move || {
                for (at, key) in part.iter().enumerate() {
                    keyspace.put(key.to_be_bytes(), [7; 60]).unwrap();
                    if at % 1000 == 999 {
                        keyspace.compact().unwrap();
                    }
                }
            });
        }
    });
    let check = |keyspace: &Keyspace, when: &str| {
        let found: Vec<u32> =
            keyspace.iter().map(|e| u32::from_be_bytes(e.unwrap().0[..].try_into().unwrap())).collect();
        assert!(found.iter().copied().eq(0..KEYS), "{when}: {} of {KEYS} keys", found.len());
        let gets = (0..KEYS).filter(|key| keyspace.contains_key(key.to_be_bytes()).unwrap()).count();
        assert_eq!(gets, KEYS as usize, "{when}, by gets");
    };
    check(&keyspace, "under compaction");
    keyspace.compact()?;
    check(&keyspace, "compacted");
    assert_eq!(keyspace.approximate_len(), u64::from(KEYS));
    drop((keyspace, db));
    let db = options().open("/db")?;
    check(&db.keyspace("a", tiny_keyspace())?, "reopened");
    Ok(())
}

/// Every history of five puts and deletes, with a snapshot before, between and after them, of which every subset lives
/// on: all that live read what they read at their time, whatever was flushed and compacted to the bottom.
#[test]
fn version_needed_by_a_snapshot_dropped() -> Done {
    const ROUNDS: usize = 5;
    for kept in 0u32..1 << (ROUNDS + 1) {
        let db = open(&SimFileSystem::new())?;
        let keyspace = db.keyspace("a", tiny_keyspace())?;
        let is_put = |history: u8, round: usize| history >> round & 1 == 1;
        // Snapshot 0 is at sequence number 0, before everything.
        let mut snapshots: Vec<Option<Snapshot>> = vec![Some(db.snapshot())];
        for round in 0..ROUNDS {
            let mut batch = WriteBatch::new();
            for history in 0u8..1 << ROUNDS {
                match is_put(history, round) {
                    true => batch.put(&keyspace, [history], [round as u8]),
                    false => batch.delete(&keyspace, [history]),
                };
            }
            db.write(batch)?;
            snapshots.push(Some(db.snapshot()));
            if kept >> round & 1 == 0 {
                keyspace.flush()?;
            }
        }
        for (at, snapshot) in snapshots.iter_mut().enumerate() {
            snapshot.take_if(|_| kept >> at & 1 == 0);
        }
        assert_eq!(snapshots[0].as_ref().map_or(0, Snapshot::seqno), 0);
        for _ in 0..2 {
            keyspace.compact()?;
            for (at, snapshot) in snapshots.iter().enumerate().filter_map(|(at, s)| Some((at, s.as_ref()?))) {
                for history in 0u8..1 << ROUNDS {
                    let expected =
                        at.checked_sub(1).filter(|&round| is_put(history, round)).map(|round| vec![round as u8]);
                    let found = snapshot.get(&keyspace, [history])?.map(Vec::from);
                    assert_eq!(found, expected, "snapshot {at} of {kept:#b}, history {history:#b}");
                }
                let count = snapshot.iter(&keyspace).count();
                let expected = if at == 0 { 0 } else { 1 << (ROUNDS - 1) };
                assert_eq!((count, snapshot.iter(&keyspace).rev().count()), (expected, expected));
            }
        }
    }
    Ok(())
}

/// Deletes of keys whose puts lie in level 0, in the level below and at the bottom, in tables that take part in the
/// compaction and in ones that do not.
#[test]
fn tombstone_resurrection() -> Done {
    for seed in 0..4 {
        let sim = SimFileSystem::new();
        let db = open(&sim)?;
        let options = tiny_keyspace().level0_trigger(2).dynamic_levels(seed % 2 == 0).target_table_bytes(4 << 10);
        let keyspace = db.keyspace("a", options.clone())?;
        let rng = &mut rng(seed);
        let key = |n: u32| n.to_be_bytes().to_vec();
        let mut expected: BTreeMap<Vec<u8>, Vec<u8>> = (0..1500).map(|n| (key(n), vec![1; 100])).collect();
        keyspace.put_all(expected.clone())?;
        keyspace.compact()?;
        for round in 0..60u8 {
            for _ in 0..15 {
                let key = key(rng.random_range(0..1500));
                if rng.random_bool(0.6) {
                    keyspace.delete(&key)?;
                    expected.remove(&key);
                } else {
                    keyspace.put(&key, [round; 60])?;
                    expected.insert(key, vec![round; 60]);
                }
            }
            keyspace.flush()?;
            if round % 12 == 11 {
                db.wait_for_compaction()?;
                assert!(contents(&keyspace) == expected, "seed {seed}, round {round}");
                let gone = (0..1500).map(key).filter(|key| !expected.contains_key(key));
                gone.for_each(|key| assert_eq!(keyspace.get(&key).unwrap(), None, "{key:?} is back"));
            }
        }
        keyspace.compact()?;
        assert!(contents(&keyspace) == expected, "seed {seed}, compacted");
        assert_eq!(keyspace.metrics().amplification.levels.iter().map(|level| level.tombstones).sum::<u64>(), 0);
    }
    Ok(())
}

/// One key with more versions, all needed, than fit in a table of the target size, between keys with few: each snapshot
/// reads its own, whatever file it is in.
#[test]
fn versions_of_one_key_at_file_edges() -> Done {
    let sim = SimFileSystem::new();
    let db = open(&sim)?;
    let keyspace = db.keyspace("a", tiny_keyspace().block_bytes(64).target_table_bytes(4 << 10))?;
    let mut snapshots = Vec::new();
    for version in 0..120u8 {
        let mut batch = WriteBatch::new();
        for n in [version % 7, 7, 8 + version % 5] {
            batch.put(&keyspace, [n], vec![version; 150]);
        }
        db.write(batch)?;
        let expected = contents(&keyspace);
        snapshots.push((db.snapshot(), expected));
        if version % 17 == 16 {
            keyspace.flush()?;
        }
        if version % 40 == 39 {
            keyspace.compact()?;
        }
    }
    keyspace.compact()?;
    for (snapshot, expected) in &snapshots {
        let found = siltstone_tests::state::read_both_ways("a", snapshot.iter(&keyspace), snapshot.iter(&keyspace))?;
        assert!(found == *expected, "the snapshot at {}", snapshot.seqno());
        for (key, value) in expected {
            assert_eq!(snapshot.get(&keyspace, key)?.unwrap(), value[..], "at {}", snapshot.seqno());
        }
    }
    assert!(db.verify().is_ok(), "{}", db.verify());
    Ok(())
}

/// Every key is found by get, by `get_many` and by its prefixes with filters of every size, as without: in memtables,
/// in level 0 and at the bottom.
#[test]
fn filter_false_negative() -> Done {
    let mut keys: Vec<Vec<u8>> = (0..80).map(|len| vec![b'k'; len]).collect();
    keys.extend((0..=255u8).map(|byte| vec![byte]));
    keys.extend((0..400u32).map(|n| format!("{:05}", n * n * 31).into_bytes()));
    keys.push(vec![b'z'; siltstone::MAX_KEY_BYTES]);
    keys.sort_unstable();
    keys.dedup();
    for bits in [0, 1, 2, 5, 10, 32] {
        let db = open(&SimFileSystem::new())?;
        let keyspace =
            db.keyspace("a", tiny_keyspace().filter_bits_per_key(bits).compression(Compression::Lz4Bottom))?;
        let check = |place: &str| {
            for key in &keys {
                let what = || format!("{bits} bits, {place}: {}", siltstone_tests::state::short(key));
                assert!(keyspace.get(key).unwrap().is_some() && keyspace.contains_key(key).unwrap(), "{}", what());
                let prefix = &key[..key.len().min(3)];
                let expected = keys.iter().filter(|key| key.starts_with(prefix)).count();
                assert_eq!(keyspace.prefix(prefix).count(), expected, "{}", what());
                assert_eq!(keyspace.range::<&[u8]>(&key[..]..).next().unwrap().unwrap().0, key[..], "{}", what());
            }
            assert!(keyspace.get_many(&keys).unwrap().iter().all(Option::is_some), "{bits} bits, {place}");
        };
        keyspace.put_all(keys.iter().map(|key| (key, "v")))?;
        check("memtable");
        keyspace.flush()?;
        check("level 0");
        keyspace.compact()?;
        check("bottom");
        assert!(!keyspace.contains_key("absent")?);
    }
    Ok(())
}

/// What is promised without transactions: a get, an iterator, a `get_many` and a snapshot each see all of a batch or
/// nothing of it, at one number (bank: no sum ever changes; phantoms: a range read twice in a snapshot is the same), and
/// writers on keys of their own lose nothing to each other. Lost updates and write skew of read-modify-write by several
/// callers on the same keys can be excluded by transactions only, and are not promised.
#[test]
fn isolation() -> Done {
    let db = on(SimFileSystem::new()).background_threads(2).open("/db")?;
    // Batches move amounts between the first two, and inside the third.
    let banks = ["left", "right", "alone"].map(|name| db.keyspace(name, tiny_keyspace()).unwrap());
    for bank in &banks {
        bank.put_all((0..ACCOUNTS).map(|n| (n.to_be_bytes(), START.to_be_bytes())))?;
    }
    let (done, reads) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        let (db, banks, done, reads) = (&db, &banks, &done, &reads);
        for _ in 0..2 {
            scope.spawn(move || {
                while !done.load(Ordering::Relaxed) || reads.load(Ordering::Relaxed) < 10 {
                    read_banks(db, banks);
                    reads.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let writers: Vec<_> = (0..2u32).map(|writer| scope.spawn(move || transfer(db, banks, writer))).collect();
        let answers: Vec<_> = writers.into_iter().map(|writer| writer.join()).collect();
        // Before anything can fail, or the readers would go on for ever.
        done.store(true, Ordering::Relaxed);
        answers.into_iter().for_each(|answer| answer.unwrap());
    });
    read_banks(&db, &banks);
    evidence::record("wrong", 0);
    Ok(())
}

const ACCOUNTS: u32 = 40;
const START: u64 = 500;

fn amount(value: &[u8]) -> u64 {
    u64::from_be_bytes(value.try_into().unwrap())
}

fn sum(entries: impl Iterator<Item = Result<(Slice, Slice)>>) -> u64 {
    entries.map(|entry| amount(&entry.unwrap().1)).sum()
}

/// Moves amounts between the writer's own accounts: from the left to the right or back, and inside `alone`.
fn transfer(db: &Db, banks: &[Keyspace; 3], writer: u32) {
    let rng = &mut rng(writer.into());
    let mut own: BTreeMap<(usize, u32), u64> = BTreeMap::new();
    for round in 0..3000 {
        let (from, to) = match rng.random_range(0..3) {
            0 => (0, 1),
            1 => (1, 0),
            _ => (2, 2),
        };
        let mut account = |bank: usize| (bank, rng.random_range(0..ACCOUNTS / 2) * 2 + writer);
        let (from, to) = (account(from), account(to));
        if from == to {
            continue;
        }
        let moved = (*own.entry(from).or_insert(START)).min(7);
        *own.entry(from).or_insert(START) -= moved;
        *own.entry(to).or_insert(START) += moved;
        let mut batch = WriteBatch::new();
        for (bank, account) in [from, to] {
            batch.put(&banks[bank], account.to_be_bytes(), own[&(bank, account)].to_be_bytes());
        }
        db.write(batch).unwrap();
        if round % 300 == 299 {
            banks[round / 300 % 3].flush().unwrap();
        }
    }
    for ((bank, account), expected) in own {
        let found = banks[bank].get(account.to_be_bytes()).unwrap().unwrap();
        assert_eq!(amount(&found), expected, "a write of writer {writer} was lost");
    }
}

fn read_banks(db: &Db, banks: &[Keyspace; 3]) {
    let keys: Vec<[u8; 4]> = (0..ACCOUNTS).map(u32::to_be_bytes).collect();
    let many = |values: Vec<Option<Slice>>| values.iter().map(|value| amount(value.as_ref().unwrap())).sum::<u64>();
    let all = u64::from(ACCOUNTS) * START;
    let [left, right, alone] = banks;
    assert_eq!(sum(alone.iter()), all, "an iterator sees half a batch");
    assert_eq!(sum(alone.iter().rev()), all, "an iterator in reverse sees half a batch");
    assert_eq!(many(alone.get_many(&keys).unwrap()), all, "get_many sees half a batch");
    let snapshot = db.snapshot();
    let sums = [left, right].map(|bank| sum(snapshot.iter(bank)));
    assert_eq!(sums[0] + sums[1], 2 * all, "a snapshot sees half a batch");
    assert_eq!([left, right].map(|bank| sum(snapshot.iter(bank).rev())), sums, "a snapshot read twice");
    assert_eq!([left, right].map(|bank| many(snapshot.get_many(bank, &keys).unwrap())), sums, "and by keys");
}

/// Options are part of the class: filters of a keyspace that was opened with other ones still answer.
#[test]
fn filters_of_older_options_still_answer() -> Done {
    let db = open(&SimFileSystem::new())?;
    for (round, bits) in [(0u32, 0), (1, 10), (2, 3), (3, 32)] {
        let keyspace = db.keyspace("a", KeyspaceOptions::new().filter_bits_per_key(bits).level0_trigger(64))?;
        keyspace.put_all((0..200u32).map(|n| ((n * 4 + round).to_be_bytes(), "v")))?;
        keyspace.flush()?;
        let found = (0..200u32).flat_map(|n| (0..=round).map(move |round| (n * 4 + round).to_be_bytes()));
        found.for_each(|key| assert!(keyspace.contains_key(key).unwrap(), "{bits} bits: {key:?}"));
    }
    Ok(())
}
