//! Every engine of this build answers like a map.

use std::collections::BTreeMap;

use super::*;
use crate::settings::{Compression, Durability};

type Entry = (Vec<u8>, Vec<u8>);

/// All entries, in key order.
fn contents<E: Engine>(engine: &E) -> Vec<Entry> {
    collect(engine, None, Direction::Forward, usize::MAX)
}

fn collect<E: Engine>(engine: &E, from: Option<&[u8]>, direction: Direction, limit: usize) -> Vec<Entry> {
    let mut entries = Vec::new();
    let visit = |key: &[u8], value: &[u8]| {
        entries.push((key.to_vec(), value.to_vec()));
        Ok(())
    };
    assert_eq!(engine.scan(from, direction, limit, visit).unwrap(), entries.len() as u64, "{}", E::NAME);
    entries
}

/// Puts, deletes, batches and updates, on the engine and on a map.
fn change<E: Engine>(engine: &E, model: &mut BTreeMap<Vec<u8>, Vec<u8>>) {
    for i in 0..1000u32 {
        let (key, value) = ((i * 7 % 501).to_be_bytes(), i.to_le_bytes().to_vec());
        match i % 5 {
            0 => {
                engine.delete(&key).unwrap();
                model.remove(&key[..]);
            }
            1 => {
                // The last one of a key counts.
                let batch: Vec<Entry> = vec![
                    (key.to_vec(), b"hidden".to_vec()),
                    ((i + 1000).to_be_bytes().to_vec(), Vec::new()),
                    (key.to_vec(), value),
                ];
                engine.put_batch(&batch).unwrap();
                model.extend(batch);
            }
            2 => {
                let append = |old: Option<&[u8]>, new: &mut Vec<u8>| {
                    assert!(new.is_empty());
                    new.extend_from_slice(old.unwrap_or(b"new"));
                    new.push(b'+');
                };
                engine.update(&key, append).unwrap();
                let mut new = Vec::new();
                append(model.get(&key[..]).map(Vec::as_slice), &mut new);
                model.insert(key.to_vec(), new);
            }
            _ => {
                engine.put(&key, &value).unwrap();
                model.insert(key.to_vec(), value);
            }
        }
    }
    engine.put_batch(&[]).unwrap();
}

fn agrees<E: Engine>(engine: &E, model: &BTreeMap<Vec<u8>, Vec<u8>>) {
    let name = E::NAME;
    for i in 0..2010u32 {
        let key = i.to_be_bytes();
        let value = engine.get(&key, <[u8]>::to_vec).unwrap();
        assert_eq!(value.as_deref(), model.get(&key[..]).map(Vec::as_slice), "{name}: {i}");
    }
    let owned = |(key, value): (&Vec<u8>, &Vec<u8>)| (key.clone(), value.clone());
    let (low, middle, absent) = (&[0, 0, 0, 0][..], &250u32.to_be_bytes()[..], &[0, 0, 0, 250, 0][..]);
    assert_eq!(contents(engine), model.iter().map(owned).collect::<Vec<_>>(), "{name}");
    let forward = |from: &[u8], limit| {
        let expected: Vec<_> = model.range(from.to_vec()..).take(limit).map(owned).collect();
        assert_eq!(collect(engine, Some(from), Direction::Forward, limit), expected, "{name}: from {from:?}");
    };
    let reverse = |from: &[u8], limit| {
        let expected: Vec<_> = model.range(..=from.to_vec()).rev().take(limit).map(owned).collect();
        assert_eq!(collect(engine, Some(from), Direction::Reverse, limit), expected, "{name}: back from {from:?}");
    };
    for from in [low, middle, absent, &[255; 4], b""] {
        forward(from, 9);
        reverse(from, 9);
        forward(from, 0);
        reverse(from, 0);
    }
    assert_eq!(
        collect(engine, None, Direction::Reverse, 7),
        model.iter().rev().take(7).map(owned).collect::<Vec<_>>(),
        "{name}"
    );
    let stopped = engine.scan(None, Direction::Forward, 9, |_, _| Err(crate::Error::WrongAnswer(String::new())));
    assert!(matches!(stopped, Err(crate::Error::WrongAnswer(_))), "{name}: the visitor's error ends the scan");
}

fn answers_like_a_map<E: Engine>(settings: &Settings) {
    let dir = tempfile::tempdir().unwrap();
    let engine = E::open(dir.path(), settings).unwrap();
    let mut model = BTreeMap::new();
    change(&engine, &mut model);
    agrees(&engine, &model);
    engine.settle().unwrap();
    agrees(&engine, &model);
    accounts_are_plausible(&engine);
    engine.close().unwrap();
    // The floor has nowhere to keep them then.
    if E::NAME == Floor::NAME && settings.durability == Durability::NoLog {
        return;
    }
    let engine = E::reopen(dir.path(), settings).unwrap();
    agrees(&engine, &model);
    change(&engine, &mut model);
    agrees(&engine, &model);
    engine.close().unwrap();
}

fn accounts_are_plausible<E: Engine>(engine: &E) {
    let accounts = engine.accounts();
    let of_levels: u64 = accounts.levels.iter().map(|level| level.bytes).sum();
    assert!(accounts.levels.is_empty() || accounts.table_bytes == Some(of_levels), "{}: {accounts:?}", E::NAME);
    assert!(accounts.levels.windows(2).all(|pair| pair[0].level < pair[1].level), "{}: {accounts:?}", E::NAME);
}

fn loads_in_bulk<E: Engine>() {
    let entry = |i: u32| (i.to_be_bytes(), (0..i % 50).map(|byte| (byte ^ i) as u8).collect::<Vec<_>>());
    let expected: Vec<_> = (0..20_000).map(|i| (entry(i).0.to_vec(), entry(i).1)).collect();
    let dir = tempfile::tempdir().unwrap();
    let engine = E::open(dir.path(), &Settings::default()).unwrap();
    assert_eq!(engine.bulk_load((0..20_000).map(entry)).unwrap(), 20_000, "{}", E::NAME);
    assert_eq!(contents(&engine), expected, "{}", E::NAME);
    engine.put(&entry(7).0, b"later").unwrap();
    engine.settle().unwrap();
    assert_eq!(engine.get(&entry(7).0, <[u8]>::to_vec).unwrap().as_deref(), Some(&b"later"[..]), "{}", E::NAME);
    engine.close().unwrap();
    let engine = E::reopen(dir.path(), &Settings::default()).unwrap();
    assert_eq!(contents(&engine).len(), 20_000, "{}", E::NAME);
    assert_eq!(engine.get(&entry(9).0, <[u8]>::to_vec).unwrap(), Some(entry(9).1), "{}", E::NAME);
    engine.close().unwrap();
    let empty = tempfile::tempdir().unwrap();
    let engine = E::open(empty.path(), &Settings::default()).unwrap();
    assert_eq!(engine.bulk_load(std::iter::empty::<(&[u8], &[u8])>()).unwrap(), 0, "{}", E::NAME);
    assert_eq!(contents(&engine), []);
    engine.close().unwrap();
}

/// Two writers of keys of their own, and two readers of what is there from the beginning.
fn takes_writers_and_readers_at_the_same_time<E: Engine>() {
    let dir = tempfile::tempdir().unwrap();
    let engine = E::open(dir.path(), &Settings { threads: 4, ..Settings::default() }).unwrap();
    let key = |writer: u32, i: u32| [writer.to_be_bytes(), i.to_be_bytes()].concat();
    (0..500).for_each(|i| engine.put(&key(0, i), b"first").unwrap());
    let (engine, key) = (&engine, &key);
    std::thread::scope(|scope| {
        for writer in [1, 2] {
            scope.spawn(move || {
                for i in 0..500 {
                    engine.put(&key(writer, i), &i.to_le_bytes()).unwrap();
                    engine.put(b"shared", &writer.to_le_bytes()).unwrap();
                }
            });
            scope.spawn(move || {
                for i in 0..500 {
                    assert_eq!(engine.get(&key(0, i), <[u8]>::to_vec).unwrap().as_deref(), Some(&b"first"[..]));
                    if i % 50 == 0 {
                        assert!(contents(engine).len() >= 500);
                    }
                }
            });
        }
    });
    assert_eq!(contents(engine).len(), 1501, "{}", E::NAME);
}

/// The tests of one engine, in a module of its name.
macro_rules! tests_of {
    ($($name:ident: $engine:ty,)*) => {$(
        mod $name {
            use super::*;

            #[test]
            fn answers_like_a_map() {
                for durability in [Durability::Buffered, Durability::Synced, Durability::NoLog] {
                    super::answers_like_a_map::<$engine>(&Settings { durability, ..Settings::default() });
                }
            }

            #[test]
            fn answers_like_a_map_when_it_compresses() {
                for compression in [Compression::Lz4Bottom, Compression::Lz4] {
                    super::answers_like_a_map::<$engine>(&Settings { compression, ..Settings::default() });
                }
            }

            #[test]
            fn loads_in_bulk() {
                super::loads_in_bulk::<$engine>();
            }

            #[test]
            fn takes_writers_and_readers_at_the_same_time() {
                super::takes_writers_and_readers_at_the_same_time::<$engine>();
            }
        }
    )*};
}

tests_of! {
    siltstone: Siltstone,
    floor: Floor,
}

#[cfg(feature = "peers")]
mod peers {
    use super::*;
    use crate::engines::peers::*;

    tests_of! {
        rocksdb: RocksDb,
        fjall: Fjall,
        redb: Redb,
        lmdb: Lmdb,
        surrealkv: SurrealKv,
    }
}
