use std::collections::BTreeMap;

use crate::db::Db;
use crate::error::Error;
use crate::fs::{Keep, SimFileSystem};
use crate::keyspace::Keyspace;
use crate::options::KeyspaceOptions;
use crate::testing::{DIRECTORY, files, open, options};

/// The latest changes of a part: a value, or none for a delete.
type Part = BTreeMap<String, Option<String>>;

fn apply(db: &Db, parts: &[(&str, &Part)], last: u64) -> crate::Result<()> {
    let parts = parts.iter().map(|&(name, part)| (name.into(), part.iter().map(|(key, value)| (key, value.as_ref()))));
    db.apply_sorted(parts.collect(), last)
}

fn part(entries: &[(&str, Option<&str>)]) -> Part {
    entries.iter().map(|(key, value)| ((*key).to_owned(), value.map(str::to_owned))).collect()
}

fn ks(db: &Db, name: &str) -> Keyspace {
    db.keyspace(name, KeyspaceOptions::default()).unwrap()
}

fn dump(ks: &Keyspace) -> BTreeMap<String, String> {
    let text = |slice: crate::Slice| String::from_utf8(slice.to_vec()).unwrap();
    ks.iter().map(|entry| entry.map(|(key, value)| (text(key), text(value))).unwrap()).collect()
}

#[test]
fn parts_lie_over_one_another_in_their_order_with_deletes() {
    let fs = SimFileSystem::new();
    let db = open(&fs);
    let (mut seed, mut last) = (7u64, 0);
    let mut next = |below: u64| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) % below
    };
    let mut expected: BTreeMap<&str, BTreeMap<String, String>> = BTreeMap::new();
    for round in 0..30 {
        let mut parts: BTreeMap<&str, Part> = BTreeMap::new();
        for _ in 0..1 + next(400) {
            let name = ["a", "b", "c"][next(3) as usize];
            let value = (next(3) > 0).then(|| format!("{round} {}", "v".repeat(next(60) as usize)));
            parts.entry(name).or_default().insert(format!("{:04}", next(600)), value);
        }
        last += 1 + next(1000);
        // Some in two parts.
        let halves: Vec<(&str, Part)> = parts
            .iter()
            .flat_map(|(&name, part)| {
                let mut low = part.clone();
                let high = low.split_off(&format!("{:04}", if round % 2 == 0 { 300 } else { 0 }));
                [(name, low), (name, high)]
            })
            .collect();
        let listed: Vec<_> = halves.iter().map(|(name, part)| (*name, part)).collect();
        apply(&db, &listed, last).unwrap();
        for (name, part) in parts {
            let state = expected.entry(name).or_default();
            for (key, value) in part {
                match value {
                    Some(value) => drop(state.insert(key, value)),
                    None => drop(state.remove(&key)),
                }
            }
        }
        // Ordinary writes in between.
        if round % 5 == 4 {
            ks(&db, "a").put("0100", "written").unwrap();
            expected.entry("a").or_default().insert("0100".to_owned(), "written".to_owned());
            last += 1;
        }
        assert_eq!(db.last_seqno(), last);
    }
    let check = |db: &Db, when: &str| {
        for (name, state) in &expected {
            assert_eq!(&dump(&ks(db, name)), state, "{name} {when}");
            let gets = (0..600).filter(|n| ks(db, name).get(format!("{n:04}")).unwrap().is_some()).count();
            assert_eq!(gets, state.len(), "{name} {when}");
        }
        assert!(db.verify().is_ok(), "{when}: {}", db.verify());
    };
    check(&db, "at the end");
    db.wait_for_compaction().unwrap();
    ks(&db, "a").compact().unwrap();
    check(&db, "compacted");
    db.close().unwrap();
    check(&open(&fs.crash_clone(Keep::Nothing, 0)), "after a power cut");
}

#[test]
fn deletes_of_nothing_are_not_kept_and_still_take_their_numbers() {
    let fs = SimFileSystem::new();
    let db = open(&fs);
    apply(&db, &[("a", &part(&[("k", None), ("l", None)]))], 9).unwrap();
    assert_eq!((db.last_seqno(), files(&fs, "table").len()), (9, 0));
    apply(&db, &[("a", &part(&[("k", None), ("l", Some("1"))]))], 12).unwrap();
    let version = ks(&db, "a").tree().view().version.clone();
    assert_eq!(version.tables().map(|handle| handle.meta.tombstones).sum::<u64>(), 0);
    apply(&db, &[("a", &part(&[("l", None)]))], 13).unwrap();
    assert_eq!(ks(&db, "a").get("l").unwrap(), None);
    db.close().unwrap();
    let db = open(&fs);
    assert_eq!((db.last_seqno(), ks(&db, "a").get("l").unwrap()), (13, None));
}

#[test]
fn what_is_refused_leaves_nothing() {
    let fs = SimFileSystem::new();
    let db = open(&fs);
    type Entries = std::vec::IntoIter<(&'static str, Option<&'static str>)>;
    let refused = |parts: Vec<(crate::KeyspaceName, Entries)>, last| {
        let error = db.apply_sorted(parts, last).unwrap_err();
        assert!(matches!(error, Error::InvalidArgument(_)), "{error:?}");
        error.to_string()
    };
    let good = || vec![("a", Some("1")), ("b", Some("2"))].into_iter();
    let bad = vec![("b", Some("1")), ("a", Some("2"))].into_iter();
    assert!(refused(vec![("x".into(), good()), ("y".into(), bad)], 5).contains("ascending"));
    assert!(
        refused(vec![("x".into(), good()), ("y".into(), good()), ("x".into(), good())], 5).contains("parts of one")
    );
    assert!(refused(vec![("x".into(), good())], 0).contains("next number"));
    assert!(refused(vec![("no/name".into(), good())], 5).contains("name"));
    assert_eq!((db.last_seqno(), files(&fs, "table").len()), (0, 0));
    ks(&db, "x").put("k", "v").unwrap();
    assert!(refused(vec![("x".into(), good())], 1).contains("next number"));
    apply(&db, &[("x", &part(&[("k", None)]))], 2).unwrap();
    assert!(dump(&ks(&db, "x")).is_empty());
}

#[test]
fn a_write_meanwhile_to_what_was_empty_is_not_overlooked() {
    let fs = SimFileSystem::new();
    let db = open(&fs);
    let target = ks(&db, "a");
    let deletes = ["k", "l"].into_iter().map(|key| {
        target.put("k", "written meanwhile").unwrap();
        (key, None::<&str>)
    });
    let refused = db.apply_sorted(vec![("a".into(), deletes)], 100);
    assert!(matches!(&refused, Err(Error::InvalidArgument(reason)) if reason.contains("meanwhile")), "{refused:?}");
    assert_eq!((db.last_seqno(), dump(&target).len()), (2, 1));
}

#[test]
fn it_is_there_in_all_keyspaces_or_in_none_whenever_the_power_goes() {
    let run = |fs: &SimFileSystem| -> crate::Result<()> {
        let db = options(fs).open(DIRECTORY)?;
        let (a, b) = (part(&[("k", Some("1")), ("l", Some("2"))]), part(&[("m", Some("3"))]));
        apply(&db, &[("a", &a), ("b", &b)], 10)?;
        apply(&db, &[("a", &part(&[("k", None)])), ("b", &part(&[("m", Some("4"))]))], 20)?;
        db.close()
    };
    let whole = SimFileSystem::new();
    run(&whole).unwrap();
    let mut seen = BTreeMap::new();
    for n in 0..=whole.call_count() {
        let fs = SimFileSystem::new();
        fs.stop_after(n);
        drop(run(&fs));
        for (keep, seed) in [(Keep::Nothing, 0), (Keep::Some, n), (Keep::All, 0)] {
            let db = open(&fs.crash_clone(keep, seed));
            let state = (dump(&ks(&db, "a")).into_iter().collect(), dump(&ks(&db, "b")).into_iter().collect());
            let of = |entries: &[(&str, &str)]| -> Vec<(String, String)> {
                entries.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
            };
            let expected = match db.last_seqno() {
                0 => (of(&[]), of(&[])),
                10 => (of(&[("k", "1"), ("l", "2")]), of(&[("m", "3")])),
                20 => (of(&[("l", "2")]), of(&[("m", "4")])),
                other => panic!("call {n}, {keep:?}: number {other}"),
            };
            assert_eq!(state, expected, "call {n}, {keep:?}");
            *seen.entry(db.last_seqno()).or_insert(0) += 1;
        }
    }
    assert_eq!(seen.len(), 3, "{seen:?}");
}

#[test]
fn compactions_wait_while_they_are_held_and_come_when_the_last_hold_ends() {
    let fs = SimFileSystem::new();
    let db = open(&fs);
    let runs = || ks(&db, "a").tree().view().version.level0_runs().count();
    let (first, second) = (db.hold_compactions(), db.hold_compactions());
    for n in 1..=12 {
        apply(&db, &[("a", &part(&[("a", Some("1")), ("z", Some("2"))]))], n).unwrap();
    }
    db.wait_for_compaction().unwrap();
    drop(first);
    db.wait_for_compaction().unwrap();
    assert_eq!(runs(), 6, "the first six lie in the levels below, each above the one before");
    drop(second);
    db.wait_for_compaction().unwrap();
    assert!(runs() < 4, "{}", runs());
    assert_eq!(dump(&ks(&db, "a")).len(), 2);
}
