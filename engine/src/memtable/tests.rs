use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::atomic::AtomicBool;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::*;
use crate::cursor::testing::{AIMS, aim_and_seek, aim_and_seek_before};
use crate::key::{MAX_SEQNO, ValueKind, hash_key, prefix_u64};

type Model = BTreeMap<(Vec<u8>, Reverse<Trailer>), Vec<u8>>;
type ModelEntry<'a> = (&'a (Vec<u8>, Reverse<Trailer>), &'a Vec<u8>);
type Found = Option<(Vec<u8>, Trailer, Vec<u8>)>;

const KINDS: [MemtableKind; 2] = [MemtableKind::BTree, MemtableKind::SkipList];

fn memtable(kind: MemtableKind, expected_bytes: usize) -> Arc<Memtable> {
    Arc::new(Memtable::new(kind, expected_bytes, &Arc::new(ArenaPool::new(0, 1 << 20))))
}

/// Keys that are empty, prefixes of each other, that tie in their first eight bytes, end in 0x00 or 0xff.
fn random_key(rng: &mut StdRng) -> Vec<u8> {
    let len = [0, 1, 2, 3, 7, 8, 9, 12, 16, 17, 40][rng.random_range(0..11)];
    (0..len).map(|i| if i < 7 { [b'a', 0xff][rng.random_range(0..2)] } else { [0, b'a', 0xff][i % 3] }).collect()
}

fn fill(kind: MemtableKind, seed: u64, count: u64) -> (Arc<Memtable>, Model) {
    let mut rng = StdRng::seed_from_u64(seed);
    let (memtable, mut model) = (memtable(kind, 1 << 20), Model::new());
    for seqno in 1..=count {
        let key = random_key(&mut rng);
        let kind = if rng.random_bool(0.2) { ValueKind::Delete } else { ValueKind::Put };
        let value = if kind == ValueKind::Put { vec![seqno as u8; rng.random_range(0..40)] } else { Vec::new() };
        memtable.insert(&key, Trailer::new(seqno, kind), &value);
        model.insert((key, Reverse(Trailer::new(seqno, kind))), value);
    }
    (memtable, model)
}

fn at(cursor: &impl Cursor) -> Found {
    cursor.valid().then(|| {
        assert_eq!(cursor.key_prefix(), prefix_u64(cursor.key()));
        assert!(cursor.value_owner().is_none());
        (cursor.key().to_vec(), cursor.trailer(), cursor.value().to_vec())
    })
}

fn entry<'a>(pair: Option<ModelEntry<'a>>) -> Found {
    pair.map(|((key, trailer), value)| (key.clone(), trailer.0, value.clone()))
}

/// The key itself and the keys right before and after it.
fn around(key: &[u8]) -> Vec<Vec<u8>> {
    let mut keys = vec![key.to_vec(), [key, &[0]].concat()];
    if let Some((last, rest)) = key.split_last() {
        keys.push(rest.to_vec());
        keys.extend(last.checked_sub(1).map(|less| [rest, &[less], &[0xff; 3]].concat()));
    }
    keys
}

#[test]
fn gets_and_seeks_agree_with_a_model() {
    KINDS.into_iter().for_each(check_gets_and_seeks_agree_with_a_model);
}

fn check_gets_and_seeks_agree_with_a_model(kind: MemtableKind) {
    println!("{kind:?}");
    for seed in 0..4 {
        println!("seed {seed}");
        let (memtable, model) = fill(kind, seed, 1500);
        let mut cursor = MemtableCursor::new(Arc::clone(&memtable));
        let keys: Vec<_> =
            model.keys().flat_map(|(key, trailer)| around(key).into_iter().map(|k| (k, *trailer))).collect();
        for (key, Reverse(trailer)) in keys {
            for seqno in [0, trailer.seqno() - 1, trailer.seqno(), trailer.seqno() + 1, MAX_SEQNO] {
                let from = (key.clone(), Reverse(Trailer::seek(seqno)));
                let expected = entry(model.range(&from..).next());
                for aims in AIMS {
                    aim_and_seek(&mut cursor, aims, &key, seqno);
                    assert_eq!(at(&cursor), expected, "seek {key:?} {seqno} after {aims:?}");
                }
                let got = memtable
                    .get(&Lookup::new(&key, seqno))
                    .map(|(trailer, value)| (key.clone(), trailer, value.to_vec()));
                assert_eq!(got, expected.filter(|(found, ..)| *found == key), "get {key:?} {seqno}");
            }
            for aims in AIMS {
                aim_and_seek_before(&mut cursor, aims, &key);
                assert_eq!(at(&cursor), entry(model.range(..(key.clone(), Reverse(Trailer(u64::MAX)))).next_back()));
            }
        }
    }
}

#[test]
fn what_is_inserted_between_aiming_and_seeking_leads_nowhere_else() {
    KINDS.into_iter().for_each(check_what_is_inserted_between_aiming_and_seeking_leads_nowhere_else);
}

fn check_what_is_inserted_between_aiming_and_seeking_leads_nowhere_else(kind: MemtableKind) {
    let memtable = memtable(kind, 1 << 20);
    let (key, mut cursor) = (|i: u64| (i * 7919 % 10_007).to_be_bytes(), MemtableCursor::new(Arc::clone(&memtable)));
    let mut insert = {
        let mut seqno = 0;
        let memtable = Arc::clone(&memtable);
        move |count: u64| {
            (0..count).for_each(|_| {
                seqno += 1;
                memtable.insert(&key(seqno), Trailer::new(seqno, ValueKind::Put), &[]);
            });
            seqno
        }
    };
    // Up to as many as split the leaf that was aimed at.
    for round in 0..300 {
        let last = insert(1);
        let sought = key(1 + round % last);
        for backward in [false, true] {
            let mut held = last;
            for at in [Aim::Index, Aim::Block] {
                cursor.aim(at, &sought, MAX_SEQNO, backward).unwrap();
                held = insert(round % 20);
            }
            let below = (1..=held).map(key).filter(|other| *other < sought).max();
            if backward { cursor.seek_before(&sought) } else { cursor.seek(&sought, MAX_SEQNO) }.unwrap();
            let found = cursor.valid().then(|| cursor.key().to_vec());
            if !backward {
                assert_eq!(found.as_deref(), Some(&sought[..]), "round {round}");
            } else if round % 20 == 0 {
                assert_eq!(found.as_deref(), below.as_ref().map(|key| &key[..]), "round {round}");
            } else {
                // What came after the aim may be met or not; nothing that was there before may be left out.
                let sure = (1..=last).map(key).filter(|other| *other < sought).max();
                let found = found.as_deref();
                assert!(found < Some(&sought[..]) && found >= sure.as_ref().map(|key| &key[..]), "round {round}");
            }
        }
    }
}

#[test]
fn cursors_walk_both_ways_and_turn_anywhere() {
    KINDS.into_iter().for_each(check_cursors_walk_both_ways_and_turn_anywhere);
}

fn check_cursors_walk_both_ways_and_turn_anywhere(kind: MemtableKind) {
    println!("{kind:?}");
    for seed in 10..14 {
        println!("seed {seed}");
        let (memtable, model) = fill(kind, seed, 700);
        let expected: Vec<Found> = model.iter().map(|pair| entry(Some(pair))).collect();
        let mut cursor = MemtableCursor::new(memtable);
        assert!(!cursor.valid());
        cursor.seek_to_first().unwrap();
        for found in &expected {
            assert_eq!(at(&cursor), *found);
            cursor.next().unwrap();
        }
        assert!(!cursor.valid());
        cursor.seek_to_last().unwrap();
        for found in expected.iter().rev() {
            assert_eq!(at(&cursor), *found);
            cursor.prev().unwrap();
        }
        assert!(!cursor.valid());

        let mut rng = StdRng::seed_from_u64(seed);
        let mut place = expected.len() / 2;
        let (key, trailer, _) = expected[place].clone().unwrap();
        cursor.seek(&key, trailer.seqno()).unwrap();
        while place < expected.len() {
            assert_eq!(at(&cursor), expected[place]);
            if rng.random_bool(0.45) && place > 0 {
                place -= 1;
                cursor.prev().unwrap();
            } else {
                place += 1;
                cursor.next().unwrap();
            }
        }
        assert!(!cursor.valid());
    }
}

/// What a cursor says after a look beside its entry is right; the tree's says it where prefixes tell.
#[test]
fn looks_beside_an_entry_tell_keys_apart_by_their_prefixes() {
    KINDS.into_iter().for_each(check_looks);
}

fn check_looks(kind: MemtableKind) {
    println!("{kind:?}");
    let (memtable, model) = fill(kind, 20, 700);
    let prefixes: Vec<u64> = model.keys().map(|(key, _)| prefix_u64(key)).collect();
    let expected: Vec<Found> = model.iter().map(|pair| entry(Some(pair))).collect();
    let mut cursor = MemtableCursor::new(memtable);
    for (i, (key, Reverse(trailer))) in model.keys().enumerate() {
        cursor.seek(key, trailer.seqno()).unwrap();
        let is_newest = i > 0 && prefixes[i - 1] < prefixes[i];
        assert!(cursor.is_newest() == is_newest || (kind == MemtableKind::SkipList && !cursor.is_newest()));
        let there = prefixes.get(i + 1).copied().filter(|there| *there > prefixes[i]);
        let moved = cursor.next_key();
        assert!(moved == there || (kind == MemtableKind::SkipList && moved.is_none()));
        assert_eq!(at(&cursor), expected[i + usize::from(moved.is_some())]);
    }
}

/// All orders of inserting five entries: every link in both directions is right after each insertion.
#[test]
fn every_insertion_order_links_both_ways() {
    KINDS.into_iter().for_each(check_every_insertion_order_links_both_ways);
}

fn check_every_insertion_order_links_both_ways(kind: MemtableKind) {
    println!("{kind:?}");
    let entries: [(&[u8], u64); 5] = [(b"", 1), (b"a", 4), (b"a", 2), (b"a\0", 3), (b"\xff", 5)];
    for order in 0..5usize.pow(5) {
        let order: Vec<usize> = (0..5).map(|i| order / 5usize.pow(i) % 5).collect();
        let memtable = memtable(kind, 0);
        let mut model = Model::new();
        for &i in &order {
            let (key, seqno) = entries[i];
            let trailer = Trailer::new(seqno, ValueKind::Put);
            // The same entry again changes nothing.
            memtable.insert(key, trailer, &[seqno as u8; 3]);
            model.insert((key.to_vec(), Reverse(trailer)), vec![seqno as u8; 3]);
            let mut cursor = MemtableCursor::new(Arc::clone(&memtable));
            let (mut forward, mut backward) = (Vec::new(), Vec::new());
            cursor.seek_to_first().unwrap();
            while let Some(found) = at(&cursor) {
                forward.push(found);
                cursor.next().unwrap();
            }
            cursor.seek_to_last().unwrap();
            while let Some(found) = at(&cursor) {
                backward.push(found);
                cursor.prev().unwrap();
            }
            let expected: Vec<_> = model.iter().filter_map(|pair| entry(Some(pair))).collect();
            assert_eq!(forward, expected, "{order:?}");
            backward.reverse();
            assert_eq!(backward, expected, "{order:?}");
        }
    }
}

/// Each reader checks that everything at or below a published number is there, in both directions, while the writer
/// goes on.
#[test]
fn readers_see_a_prefix_of_the_insertions() {
    KINDS.into_iter().for_each(check_readers_see_a_prefix_of_the_insertions);
}

fn check_readers_see_a_prefix_of_the_insertions(kind: MemtableKind) {
    println!("{kind:?}");
    const COUNT: u64 = 20_000;
    let key = |seqno: u64| (seqno.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20).to_be_bytes();
    let memtable = memtable(kind, 100 * COUNT as usize);
    let published = AtomicU64::new(0);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for reader in 0..3 {
            let (memtable, published, done) = (&memtable, &published, &done);
            scope.spawn(move || {
                let mut rng = StdRng::seed_from_u64(reader);
                let mut cursor = MemtableCursor::new(Arc::clone(memtable));
                while !done.load(Ordering::Acquire) {
                    let visible = published.load(Ordering::Acquire);
                    for _ in 0..50.min(visible) {
                        let seqno = rng.random_range(1..=visible);
                        let (found, value) = memtable.get(&Lookup::new(&key(seqno), visible)).expect("published");
                        assert_eq!((found.seqno(), value), (seqno, &seqno.to_le_bytes()[..]));
                    }
                    let mut seen = 0;
                    let mut last = None;
                    let (backward, looks) = (reader == 0, reader == 1);
                    if backward { cursor.seek_to_last() } else { cursor.seek_to_first() }.unwrap();
                    while cursor.valid() {
                        let key = cursor.key().to_vec();
                        assert!(last.is_none_or(|last| if backward { key < last } else { key > last }));
                        seen += u64::from(cursor.trailer().seqno() <= visible);
                        if backward {
                            cursor.prev().unwrap();
                        } else if !looks || cursor.next_key().is_none() {
                            cursor.next().unwrap();
                        }
                        last = Some(key);
                    }
                    assert_eq!(seen, visible);
                }
            });
        }
        for seqno in 1..=COUNT {
            memtable.insert(&key(seqno), Trailer::new(seqno, ValueKind::Put), &seqno.to_le_bytes());
            published.store(seqno, Ordering::Release);
        }
        done.store(true, Ordering::Release);
    });
    assert_eq!(memtable.entries(), COUNT);
}

/// Whatever the index has room for: gets at every number agree with what was written, before and after it is built.
#[test]
fn the_index_answers_as_the_entries_do() {
    KINDS.into_iter().for_each(check_the_index_answers_as_the_entries_do);
}

fn check_the_index_answers_as_the_entries_do(kind: MemtableKind) {
    /// Of each key.
    const VERSIONS: u64 = 3;
    // Sealed at: so much that no bucket is full, and so little that most are.
    for (expected_bytes, keys) in [(4 << 20, 3000), (64 << 10, 5000)] {
        println!("{kind:?}, {expected_bytes} bytes, {keys} keys");
        let memtable = memtable(kind, expected_bytes);
        let key = |n: u64| (n << 8).to_be_bytes();
        let get =
            |n, seqno| memtable.get(&Lookup::new(&key(n), seqno)).map(|(trailer, value)| (trailer, value.to_vec()));
        for version in 0..VERSIONS {
            // Replay brings newer versions before older ones: the last of each pair of rounds is swapped.
            let number = |n| 1 + n + keys * if n % 2 == 0 { version } else { VERSIONS - 1 - version };
            for n in 0..keys {
                let seqno = number(n);
                let value = if seqno % 5 == 0 { ValueKind::Delete } else { ValueKind::Put };
                memtable.insert(&key(n), Trailer::new(seqno, value), &seqno.to_le_bytes());
                memtable.prefetch(hash_key(&key(n)));
                assert_eq!(get(n, seqno).map(|found| found.1), Some(seqno.to_le_bytes().to_vec()));
            }
        }
        for n in 0..keys {
            for version in 0..VERSIONS {
                let seqno = 1 + n + keys * version;
                for later in [0, keys - 1] {
                    let (trailer, value) = get(n, seqno + later).unwrap();
                    assert_eq!((trailer.seqno(), &value[..]), (seqno, &seqno.to_le_bytes()[..]), "{n}, {version}");
                    assert_eq!(trailer.is_delete(), seqno % 5 == 0);
                }
            }
            assert_eq!(get(n, n), None, "before the first version");
            assert_eq!(get(n + keys, MAX_SEQNO), None, "never written");
        }
    }
}

#[test]
fn counters_tell_what_was_added() {
    KINDS.into_iter().for_each(check_counters_tell_what_was_added);
}

fn check_counters_tell_what_was_added(kind: MemtableKind) {
    println!("{kind:?}");
    let memtable = memtable(kind, 1 << 20);
    assert!(memtable.is_empty() && memtable.bytes() < 4096);
    assert_eq!((memtable.first_seqno(), memtable.last_seqno()), (None, None));
    memtable.insert(b"key", Trailer::new(7, ValueKind::Put), b"value");
    memtable.insert(b"key", Trailer::new(8, ValueKind::Delete), b"");
    assert_eq!((memtable.entries(), memtable.tombstones()), (2, 1));
    assert_eq!((memtable.first_seqno(), memtable.last_seqno()), (Some(7), Some(8)));
    assert!((4096..10_000).contains(&memtable.bytes()), "{memtable:?}");
    memtable.insert(b"large", Trailer::new(9, ValueKind::Put), &vec![1; 1 << 20]);
    assert!(memtable.bytes() > 1 << 20);
}

#[test]
fn cursors_keep_their_memtable_and_move_between_threads() {
    KINDS.into_iter().for_each(check_cursors_keep_their_memtable_and_move_between_threads);
}

fn check_cursors_keep_their_memtable_and_move_between_threads(kind: MemtableKind) {
    println!("{kind:?}");
    let (memtable, model) = fill(kind, 99, 300);
    let mut cursor = MemtableCursor::new(Arc::clone(&memtable));
    cursor.seek_to_first().unwrap();
    let weak = Arc::downgrade(&memtable);
    drop(memtable);
    let walked = std::thread::spawn(move || {
        let mut walked = 0;
        while cursor.valid() {
            walked += 1;
            cursor.next().unwrap();
        }
        walked
    });
    assert_eq!(walked.join().unwrap(), model.len());
    assert!(weak.upgrade().is_none(), "the cursor was the last owner");
}

#[test]
fn the_longest_key_is_kept() {
    KINDS.into_iter().for_each(check_the_longest_key_is_kept);
}

fn check_the_longest_key_is_kept(kind: MemtableKind) {
    println!("{kind:?}");
    let memtable = memtable(kind, 0);
    let key = vec![0xff; crate::MAX_KEY_BYTES];
    memtable.insert(&key, Trailer::new(MAX_SEQNO, ValueKind::Put), b"v");
    assert_eq!(memtable.get(&Lookup::new(&key, MAX_SEQNO)), Some((Trailer::new(MAX_SEQNO, ValueKind::Put), &b"v"[..])));
    assert_eq!(memtable.get(&Lookup::new(&key[1..], MAX_SEQNO)), None);
}

/// Many entries in each order that makes nodes fill and split in its own way, under keys that share long beginnings.
#[test]
fn large_memtables_hold_their_entries_in_order_whatever_the_order_they_came_in() {
    KINDS.into_iter().for_each(check_large_memtables);
}

fn check_large_memtables(kind: MemtableKind) {
    const COUNT: u64 = 20_000;
    let keys: [fn(u64) -> Vec<u8>; 3] = [
        |n| format!("{n:016}").into_bytes(),
        |n| [&b"a long beginning that every key shares/"[..], &n.to_be_bytes()].concat(),
        |n| n.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes().to_vec(),
    ];
    let orders: [fn(u64) -> u64; 4] =
        [|n| n, |n| COUNT - 1 - n, |n| n * 7919 % COUNT, |n| if n % 2 == 0 { n / 2 } else { COUNT - 1 - n / 2 }];
    for (k, key) in keys.iter().enumerate() {
        for (o, order) in orders.iter().enumerate() {
            println!("{kind:?}, keys {k}, order {o}");
            let memtable = memtable(kind, 1 << 20);
            let mut expected = Vec::new();
            for n in 0..COUNT {
                let trailer = Trailer::new(n + 1, ValueKind::Put);
                memtable.insert(&key(order(n)), trailer, &n.to_le_bytes());
                expected.push((key(order(n)), trailer, n.to_le_bytes().to_vec()));
            }
            for (key, trailer, value) in expected.iter().step_by(17) {
                let found = memtable.get(&Lookup::new(key, MAX_SEQNO)).map(|(t, v)| (t, v.to_vec()));
                assert_eq!(found.as_ref(), Some(&(*trailer, value.clone())));
                assert_eq!(memtable.get(&Lookup::new(key, trailer.seqno() - 1)), None);
            }
            expected.sort();
            let mut cursor = MemtableCursor::new(Arc::clone(&memtable));
            cursor.seek_to_first().unwrap();
            for entry in &expected {
                assert_eq!((cursor.key(), cursor.trailer(), cursor.value()), (&entry.0[..], entry.1, &entry.2[..]));
                cursor.next().unwrap();
            }
            assert!(!cursor.valid());
            cursor.seek_to_last().unwrap();
            for entry in expected.iter().rev() {
                assert_eq!((cursor.key(), cursor.trailer()), (&entry.0[..], entry.1));
                cursor.prev().unwrap();
            }
            assert!(!cursor.valid());
        }
    }
}
