use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::time::Duration;

use super::*;
use crate::db::Db;
use crate::fs::{Fault, FaultFileSystem, Keep, SimFileSystem};
use crate::keyspace::Keyspace;
use crate::options::{Compression, KeyspaceOptions};
use crate::testing::{DIRECTORY, files, keyspace, manifest_state, open, options, set_metadata, store, wal};

fn key(n: usize) -> String {
    format!("{n:06}")
}

/// Entries of these keys, all with the same value.
fn entries<'v>(keys: impl IntoIterator<Item = usize> + 'v, value: &'v str) -> impl Iterator<Item = (String, &'v str)> {
    keys.into_iter().map(move |n| (key(n), value))
}

/// A keyspace with small tables, in which the background finds nothing to compact: dynamic levels would send all that
/// lies above the bottom down.
fn small_tables(db: &Db) -> Keyspace {
    let options = KeyspaceOptions::new().level0_trigger(64).target_table_bytes(4096).dynamic_levels(false);
    db.keyspace("ks", options).unwrap()
}

/// How many tables each level has.
fn shape(ks: &Keyspace) -> [usize; LEVELS] {
    std::array::from_fn(|level| ks.tree().view().version.levels()[level].tables().len())
}

fn dump(ks: &Keyspace) -> Vec<(String, String)> {
    let text = |slice: crate::Slice| String::from_utf8(slice.to_vec()).unwrap();
    ks.iter().map(|entry| entry.map(|(key, value)| (text(key), text(value))).unwrap()).collect()
}

fn value_of(ks: &Keyspace, n: usize) -> Option<String> {
    ks.get(key(n)).unwrap().map(|value| String::from_utf8(value.to_vec()).unwrap())
}

fn assert_whole(db: &Db) {
    let report = db.verify();
    assert!(report.is_ok(), "{report}");
}

#[test]
fn entries_go_to_the_bottom_past_log_and_memtable() {
    let fs = SimFileSystem::new();
    let db = open(&fs);
    let ks = small_tables(&db);
    let logged = wal(&db).total_bytes();
    let value = "v".repeat(100);
    assert_eq!(ks.ingest(entries(0..2000, &value)).unwrap(), 2000);
    assert_eq!(db.last_seqno(), 2000);
    assert_eq!((wal(&db).total_bytes(), ks.metrics().memtable_entries), (logged, 0));
    let tables = shape(&ks);
    assert!(tables[..6] == [0; 6] && tables[6] > 2, "{tables:?}");
    let version = ks.tree().view().version.clone();
    for meta in version.tables().map(|handle| &handle.meta) {
        assert_eq!((meta.min_seqno, meta.max_seqno), (2000, 2000));
        assert!(meta.file_bytes < 8192 && meta.file_bytes < meta.user_bytes / 2, "cut and compressed: {meta:?}");
    }
    let amplification = ks.metrics().amplification;
    assert_eq!((amplification.user_bytes, amplification.wal_bytes), (2000 * 106, 0));
    assert_eq!(amplification.levels[6].written_bytes, amplification.levels[6].file_bytes);
    assert_eq!(ks.approximate_len(), 2000);
    let expected: Vec<_> = entries(0..2000, &value).map(|(key, value)| (key, value.to_owned())).collect();
    assert!(dump(&ks) == expected && ks.iter().rev().count() == 2000);
    assert_whole(&db);
    ks.put("more", "1").unwrap();
    db.close().unwrap();
    let db = open(&fs);
    let ks = small_tables(&db);
    assert_eq!((db.last_seqno(), dump(&ks).len()), (2001, 2001));
    assert_whole(&db);
}

#[test]
fn nothing_is_compressed_where_something_lies_below() {
    let fs = SimFileSystem::new();
    let db = open(&fs);
    let ks = small_tables(&db);
    let value = "v".repeat(100);
    ks.ingest(entries(0..1000, &value)).unwrap();
    ks.ingest(entries(200..300, &value)).unwrap();
    let sizes = |ks: &Keyspace, level: usize| *ks.tree().view().version.levels()[level].totals();
    assert!(sizes(&ks, 5).file_bytes > sizes(&ks, 5).user_bytes && sizes(&ks, 6).file_bytes < sizes(&ks, 6).user_bytes);
    let always = db.keyspace("always", KeyspaceOptions::new().compression(Compression::Lz4)).unwrap();
    let never = db.keyspace("never", KeyspaceOptions::new().compression(Compression::None)).unwrap();
    always.put(key(5), "memtable").unwrap();
    for ks in [&always, &never] {
        ks.ingest(entries(0..1000, &value)).unwrap();
        ks.ingest(entries(200..300, &value)).unwrap();
    }
    let total = |ks: &Keyspace| {
        let version = ks.tree().view().version.clone();
        version
            .levels()
            .iter()
            .fold((0, 0), |sum, level| (sum.0 + level.totals().file_bytes, sum.1 + level.totals().user_bytes))
    };
    assert!(total(&always).0 < total(&always).1 / 2 && total(&never).0 > total(&never).1);
}

#[test]
fn an_ingest_is_newer_than_everything_before_it_and_older_than_everything_after() {
    let fs = SimFileSystem::new();
    let db = open(&fs);
    let ks = small_tables(&db);
    for n in 0..500 {
        ks.put(key(n), "bottom").unwrap();
    }
    ks.compact().unwrap();
    for n in 100..300 {
        ks.put(key(n), "level 0").unwrap();
    }
    ks.flush().unwrap();
    for n in 200..400 {
        ks.put(key(n), "memtable").unwrap();
    }
    ks.delete(key(150)).unwrap();
    let last = db.last_seqno();
    assert_eq!(ks.ingest(entries((50..450).step_by(2), "ingested")).unwrap(), last + 200);
    let expected = |n: usize| match n {
        50..450 if n.is_multiple_of(2) => "ingested",
        200..400 => "memtable",
        100..200 => "level 0",
        _ => "bottom",
    };
    for _ in 0..2 {
        for n in 0..500 {
            assert_eq!(value_of(&ks, n).as_deref(), Some(expected(n)), "{n}");
        }
        assert_whole(&db);
        ks.compact().unwrap();
    }
    ks.put(key(60), "later").unwrap();
    ks.delete(key(62)).unwrap();
    assert_eq!((value_of(&ks, 60).as_deref(), value_of(&ks, 62)), (Some("later"), None));
    ks.flush().unwrap();
    assert_eq!((value_of(&ks, 60).as_deref(), value_of(&ks, 62)), (Some("later"), None));
    ks.ingest(entries([60, 62], "again")).unwrap();
    assert_eq!((value_of(&ks, 60).as_deref(), value_of(&ks, 62).as_deref()), (Some("again"), Some("again")));
}

/// What is written and what is looked at while the tables are written.
#[test]
fn what_comes_while_the_tables_are_written_is_older() {
    let fs = SimFileSystem::new();
    let db = open(&fs);
    let ks = small_tables(&db);
    ks.put(key(10), "before").unwrap();
    let before = db.snapshot();
    let (mut during, mut iter) = (None, None);
    let from_here = |(key, value): (String, &'static str)| {
        if key == "000500" {
            ks.put("000010", "meanwhile").unwrap();
            ks.put("000500", "meanwhile").unwrap();
            ks.flush().unwrap();
            ks.put("000020", "meanwhile").unwrap();
            during = Some(db.snapshot());
            iter = Some(ks.iter());
        }
        (key, value)
    };
    let last = ks.ingest(entries(0..1000, "ingested").map(from_here)).unwrap();
    assert_eq!((last, db.last_seqno()), (1004, 1004));
    ks.put(key(30), "after").unwrap();
    assert_eq!(dump(&ks).iter().filter(|(_, value)| value == "ingested").count(), 999);
    let (during, seen) = (during.unwrap(), iter.unwrap().count());
    let check = |when: &str| {
        let value = |snapshot: &crate::Snapshot, n: usize| snapshot.get(&ks, key(n)).unwrap().map(|v| v.to_vec());
        assert_eq!(value(&before, 10).as_deref(), Some(&b"before"[..]), "{when}");
        assert_eq!((before.iter(&ks).count(), during.iter(&ks).count()), (1, 3), "{when}");
        for n in [10, 20, 500] {
            assert_eq!(value(&during, n).as_deref(), Some(&b"meanwhile"[..]), "{when}: {n}");
        }
        assert_eq!((value(&during, 11), value(&before, 500)), (None, None), "{when}");
        assert_whole(&db);
    };
    assert_eq!(seen, 3);
    check("at once");
    ks.flush().unwrap();
    check("flushed");
    ks.compact().unwrap();
    check("compacted");
    drop((before, during));
    ks.compact().unwrap();
    assert_eq!((dump(&ks).len(), value_of(&ks, 30).as_deref()), (1000, Some("after")));
    let totals = ks.metrics().amplification.levels.iter().map(|level| level.entries).sum::<u64>();
    assert_eq!(totals, 1000, "what no snapshot needs is gone");
    assert_whole(&db);
}

#[test]
fn memtables_that_do_not_meet_it_stay() {
    let fs = SimFileSystem::new();
    let db = open(&fs);
    let ks = small_tables(&db);
    ks.put("a", "1").unwrap();
    ks.put("z", "1").unwrap();
    ks.ingest([("m", "1"), ("n", "1")]).unwrap();
    assert_eq!((ks.metrics().memtable_entries, shape(&ks)), (2, [0, 0, 0, 0, 0, 0, 1]));
    ks.put("m", "2").unwrap();
    ks.flush().unwrap();
    assert_eq!(shape(&ks), [1, 0, 0, 0, 0, 0, 1], "numbers before and after the ingest in one table");
    assert_whole(&db);
    // In level 0 ages must be apart: what is in memory is flushed, though no key meets.
    ks.put("b", "3").unwrap();
    ks.ingest([("n", "3"), ("o", "3")]).unwrap();
    assert_eq!((ks.metrics().memtable_entries, shape(&ks)), (0, [3, 0, 0, 0, 0, 0, 1]));
    assert_whole(&db);
    let expected = [("a", "1"), ("b", "3"), ("m", "2"), ("n", "3"), ("o", "3"), ("z", "1")];
    assert_eq!(dump(&ks), expected.map(|(key, value)| (key.to_owned(), value.to_owned())));
    db.close().unwrap();
    let db = open(&fs);
    let ks = small_tables(&db);
    assert_eq!(dump(&ks), expected.map(|(key, value)| (key.to_owned(), value.to_owned())));
}

#[test]
fn an_empty_ingest_takes_no_number() {
    let db = open(&SimFileSystem::new());
    let ks = keyspace(&db, "ks");
    ks.put("k", "v").unwrap();
    assert_eq!(ks.ingest(Vec::<(&str, &str)>::new()).unwrap(), 1);
    assert_eq!((db.last_seqno(), shape(&ks)), (1, [0; LEVELS]));
    assert!(db.changes(1).is_ok(), "nothing is missing in the log");
}

#[test]
fn what_is_refused_is_named_and_leaves_nothing() {
    let fs = SimFileSystem::new();
    let db = open(&fs);
    let ks = small_tables(&db);
    let refused = |answer: Result<SeqNo>, words: &[&str]| {
        let Err(Error::InvalidArgument(reason)) = answer else { panic!("{answer:?}") };
        assert!(words.iter().all(|word| reason.contains(word)), "{reason}");
        assert_eq!((db.last_seqno(), shape(&ks), files(&fs, "table")), (0, [0; LEVELS], vec![]), "{reason}");
    };
    refused(ks.ingest([("b", ""), ("a", "")]), &["position 1", "\"a\"", "\"b\"", "ascending"]);
    refused(ks.ingest([("a", ""), ("a", "")]), &["position 1"]);
    refused(ks.ingest([("", ""), ("", "")]), &["position 1"]);
    let late = entries(0..3000, "v").chain([("000000\u{1}".to_owned(), "v")]);
    refused(ks.ingest(late), &["position 3000", "000000\\x01", "002999"]);
    refused(ks.ingest([(vec![0; 65_536], "")]), &["position 0", "65535"]);
    let long = || vec![0; crate::MAX_VALUE_BYTES + 1];
    refused(ks.ingest([("a", vec![]), ("b", long())]), &["position 1", "value"]);
    assert_eq!(ks.ingest([("", "empty"), ("\0", "zero")]).unwrap(), 2);
    assert_eq!(ks.get("").unwrap().unwrap(), "empty");
    assert!(db.metrics().read_only_reason.is_none());
}

#[test]
fn a_panic_of_the_callers_iterator_leaves_nothing() {
    let fs = SimFileSystem::new();
    let db = open(&fs);
    let ks = small_tables(&db);
    let panics = entries(0..3000, "v").inspect(|(key, _)| assert!(key != "002000", "as asked for"));
    assert!(catch_unwind(AssertUnwindSafe(|| ks.ingest(panics))).is_err());
    assert_eq!((db.last_seqno(), files(&fs, "table")), (0, vec![]));
    assert_eq!(ks.ingest(entries(0..10, "v")).unwrap(), 10, "and nothing is in doubt");
}

#[test]
fn followers_are_told_and_durable_ones_are_not_left_behind() {
    let fs = SimFileSystem::new();
    let db = open(&fs);
    let ks = keyspace(&db, "ks");
    ks.put("k", "v").unwrap();
    db.set_change_cursor("mailer", 1).unwrap();
    for at_the_end in [false, true] {
        db.remove_change_cursor("mailer").unwrap();
        let set = || db.set_change_cursor("mailer", 1).unwrap();
        if !at_the_end {
            set();
        }
        let begun = std::cell::Cell::new(false);
        let late = entries(0..10, "v").inspect(|_| {
            if !begun.replace(true) {
                set();
            }
        });
        let Err(Error::InvalidArgument(reason)) = ks.ingest(late) else { panic!("a cursor would miss it") };
        assert!(reason.contains("mailer") && reason.contains("put_all"), "{reason}");
        assert_eq!((begun.get(), files(&fs, "table")), (at_the_end, vec![]), "as early as it can be known");
    }
    let mut behind = db.changes(1).unwrap();
    let mut caught_up = db.changes(2).unwrap();
    assert!(caught_up.next().is_none() && !caught_up.wait(Duration::ZERO));
    db.remove_change_cursor("mailer").unwrap();
    ks.put("l", "v").unwrap();
    let last = ks.ingest(entries(0..10, "v")).unwrap();
    assert_eq!(last, 12);
    let told = |answer: Option<Result<crate::ChangeBatch>>, from: SeqNo| match answer {
        Some(Err(Error::NotRetained { requested, oldest })) => assert_eq!((requested, oldest), (from, 13)),
        other => panic!("{other:?}"),
    };
    for _ in 0..2 {
        assert!(behind.wait(Duration::ZERO), "there is an error to get");
        told(behind.next(), 1);
        told(caught_up.next(), 2);
    }
    let asked = |db: &Db| {
        for from in [0, 1, 2, 3, 12] {
            let answer = db.changes(from);
            assert!(matches!(answer, Err(Error::NotRetained { oldest: 13, .. })), "{from}: {answer:?}");
        }
        assert!(matches!(db.set_change_cursor("mailer", 12), Err(Error::NotRetained { .. })));
    };
    asked(&db);
    let mut next = db.changes(13).unwrap();
    ks.put("m", "v").unwrap();
    assert_eq!(next.next().unwrap().unwrap().first_seqno(), 13);
    assert_whole(&db);
    db.set_change_cursor("mailer", 13).unwrap();
    drop((behind, caught_up, next));
    db.close().unwrap();
    let db = open(&fs);
    asked(&db);
    assert_eq!(db.changes(13).unwrap().count(), 1);
    assert_eq!(db.change_cursor("mailer"), Some(13));
    assert_whole(&db);
}

/// A waiting follower learns of an ingest, which wakes it.
#[test]
fn a_follower_that_waits_is_woken() {
    let db = open(&SimFileSystem::new());
    let ks = keyspace(&db, "ks");
    let mut changes = db.changes(1).unwrap();
    std::thread::scope(|scope| {
        let follower = scope.spawn(move || {
            while changes.next().is_none() {
                assert!(changes.wait(Duration::from_secs(20)), "nobody woke it");
            }
        });
        ks.ingest(entries(0..10, "v")).unwrap();
        follower.join().unwrap();
    });
}

/// Every call of the filesystem fails once, and the power goes.
#[test]
fn all_or_nothing_whatever_fails_and_when_the_power_goes() {
    for fault in [Fault::Io, Fault::NoSpace, Fault::Late, Fault::ShortWrite] {
        for at in 1.. {
            if !fail_at(fault, at) {
                assert!(at > 10, "nothing was injected");
                break;
            }
        }
    }
}

/// Whether there was such a call.
fn fail_at(fault: Fault, at: u64) -> bool {
    let sim = SimFileSystem::new();
    let fs = FaultFileSystem::new(Arc::new(sim.clone()));
    let db = options(&sim).file_system(Arc::new(fs.clone())).open(DIRECTORY).unwrap();
    let (ks, other) = (small_tables(&db), keyspace(&db, "other"));
    ks.put(key(7), "flushed").unwrap();
    ks.flush().unwrap();
    ks.put(key(8), "memtable").unwrap();
    other.put("before", "the ingest").unwrap();
    let last = db.last_seqno();
    fs.fail_at(at, fault);
    let answer = ks.ingest(entries(0..300, "ingested"));
    let injected = fs.injected();
    fs.clear();
    let what = format!("{fault:?} at call {at}, {injected:?}: {answer:?}");
    let count = |ks: &Keyspace| dump(ks).iter().filter(|(_, value)| value == "ingested").count();
    match &answer {
        Ok(seqno) => assert_eq!((*seqno, db.last_seqno(), count(&ks)), (last + 300, last + 300, 300), "{what}"),
        Err(_) => assert_eq!((db.last_seqno(), count(&ks)), (last, 0), "{what}"),
    }
    if db.metrics().read_only_reason.is_none() {
        // Nothing is in doubt: nothing was left, and it can be tried again.
        let live = ks.tree().view().version.tables().count();
        assert!(answer.is_ok() || files(&sim, "table").len() == live, "{what}");
        assert_whole(&db);
    }
    let left = [sim.crash_clone(Keep::Nothing, 0), sim.crash_clone(Keep::Some, at), sim.crash_clone(Keep::All, 0)];
    drop((ks, other, db));
    for (sim, all_is_kept) in left.iter().zip([false, false, true]).chain([(&sim, true)]) {
        let db = open(sim);
        let (ks, other) = (small_tables(&db), keyspace(&db, "other"));
        let found = count(&ks);
        assert!(found == 300 || (found == 0 && answer.is_err()), "{what}: {found}");
        if found == 300 || all_is_kept {
            assert_eq!(other.get("before").unwrap().unwrap(), "the ingest", "{what}: a prefix");
        }
        assert_eq!(value_of(&ks, 7).as_deref(), Some(if found == 0 { "flushed" } else { "ingested" }), "{what}");
        let expected = if found == 300 { last + 300 } else { db.last_seqno() };
        assert_eq!(db.last_seqno(), expected, "{what}");
        assert_eq!(db.changes(1).is_err(), found == 300, "{what}: followers");
        assert_eq!(files(sim, "table").len(), ks.tree().view().version.tables().count(), "{what}");
        assert_whole(&db);
    }
    injected.is_some()
}

#[test]
fn what_was_logged_before_survives_with_it() {
    let fs = SimFileSystem::new();
    let db = open(&fs);
    let (ks, other) = (small_tables(&db), keyspace(&db, "other"));
    other.put("k", "buffered").unwrap();
    set_metadata(&db, "position", "7");
    ks.ingest(entries(0..10, "v")).unwrap();
    let left = fs.crash_clone(Keep::Nothing, 0);
    drop((ks, other, db));
    let db = open(&left);
    assert_eq!(dump(&small_tables(&db)).len(), 10);
    assert_eq!(keyspace(&db, "other").get("k").unwrap().unwrap(), "buffered");
    assert_eq!(db.metadata("position").unwrap(), "7");
}

#[test]
fn a_close_or_a_drop_meanwhile_ends_it() {
    let fs = SimFileSystem::new();
    let db = open(&fs);
    let ks = small_tables(&db);
    let dropping = entries(0..20_000, "a value of some length").inspect(|(key, _)| {
        if key == "000100" {
            db.drop_keyspace("ks").unwrap();
        }
    });
    let answer = ks.ingest(dropping);
    assert!(matches!(answer, Err(Error::KeyspaceDropped { .. })), "{answer:?}");
    assert_eq!((files(&fs, "table"), db.last_seqno()), (vec![], 1));
    assert!(matches!(ks.ingest([("k", "v")]), Err(Error::KeyspaceDropped { .. })));

    let ks = small_tables(&db);
    let mut next_owner = None;
    let closing = entries(0..20_000, "a value of some length").inspect(|(key, _)| {
        if key == "005000" {
            assert!(!files(&fs, "table").is_empty(), "some are written");
            db.close().unwrap();
            // Its files get the numbers that the ingest would have used next.
            let owner = open(&fs);
            let ks = small_tables(&owner);
            ks.ingest(entries(0..2000, "of the next owner")).unwrap();
            next_owner = Some((owner, ks));
        }
    });
    let answer = ks.ingest(closing);
    assert!(matches!(answer, Err(Error::Closed)), "{answer:?}");
    let (owner, ks) = next_owner.unwrap();
    assert_eq!(dump(&ks).len(), 2000);
    assert_whole(&owner);
    assert_eq!(files(&fs, "table").len(), shape(&ks).iter().sum::<usize>(), "nothing was created or removed");
    drop((ks, owner, db));
    let read_only = options(&fs).read_only(true).open(DIRECTORY).unwrap();
    let ks = read_only.keyspace("ks", KeyspaceOptions::new()).unwrap();
    assert!(matches!(ks.ingest([("k", "v")]), Err(Error::ReadOnly { .. })));
}

/// Ingests, puts in between their keys, snapshots and compactions by several threads at once.
#[test]
fn every_reader_sees_all_of_an_ingest_or_nothing() {
    const ROUNDS: usize = 40;
    let db = open(&SimFileSystem::new());
    let options = KeyspaceOptions::new().level0_trigger(2).target_table_bytes(4096).base_level_bytes(64 << 10);
    let ks = db.keyspace("ks", options).unwrap();
    let keys = || (0..60).map(|n| key(10 * n));
    let versions = |values: Vec<Option<crate::Slice>>| {
        let first = values[0].clone();
        assert!(values.iter().all(|value| *value == first), "{values:?}");
        first.map_or(0, |value| String::from_utf8(value[..10].to_vec()).unwrap().trim().parse::<usize>().unwrap())
    };
    let done = std::sync::atomic::AtomicBool::new(false);
    let is_done = || done.load(std::sync::atomic::Ordering::SeqCst);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for round in 0.. {
                if is_done() {
                    break;
                }
                ks.put(key(10 * (round % 60) + 5), "between").unwrap();
            }
        });
        scope.spawn(|| {
            let mut last = 0;
            while !is_done() {
                let seen = versions(ks.get_many(keys()).unwrap());
                assert!(seen >= last, "back from {last} to {seen}");
                last = seen;
                let snapshot = db.snapshot();
                let (first, second) = (snapshot.get_many(&ks, keys()), snapshot.get_many(&ks, keys()));
                assert_eq!(versions(first.unwrap()), versions(second.unwrap()), "a snapshot changes");
            }
        });
        for round in 1..=ROUNDS {
            let value = format!("{round:<10}{}", "x".repeat(100));
            let before = db.last_seqno();
            let last = ks.ingest(keys().map(|key| (key, &value))).unwrap();
            assert!(last >= before + 60);
            assert_eq!(versions(ks.get_many(keys()).unwrap()), round);
            if round.is_multiple_of(16) {
                ks.compact().unwrap();
            }
        }
        done.store(true, std::sync::atomic::Ordering::SeqCst);
    });
    assert_whole(&db);
    db.wait_for_compaction().unwrap();
    assert_whole(&db);
}

/// Level 0 may hold many tables of one ingest: for who reads them they are one run.
#[test]
fn tables_in_level_0_are_read_as_one_run() {
    let db = open(&SimFileSystem::new());
    let ks = small_tables(&db);
    for n in (0..600).step_by(100) {
        ks.put(key(n), "x".repeat(3000)).unwrap();
    }
    ks.flush().unwrap();
    let value = "y".repeat(100);
    ks.ingest(entries(0..600, &value)).unwrap();
    ks.put(key(7), "later").unwrap();
    let version = ks.tree().view().version.clone();
    let runs: Vec<usize> = version.level0_runs().map(<[_]>::len).collect();
    assert!(runs.len() == 2 && runs[0] > 5 && runs[1] == 1, "{runs:?}");
    let expected: Vec<_> =
        entries(0..600, &value).map(|(k, v)| (k.clone(), if k == key(7) { "later" } else { v }.to_owned())).collect();
    for _ in 0..2 {
        assert!(dump(&ks) == expected);
        let mut backward: Vec<_> = ks.iter().rev().map(|entry| entry.unwrap().0.to_vec()).collect();
        backward.reverse();
        assert!(backward == expected.iter().map(|(key, _)| key.clone().into_bytes()).collect::<Vec<_>>());
        let middle = ks.range(key(250)..key(350)).map(|entry| entry.unwrap().0.to_vec()).collect::<Vec<_>>();
        assert!(middle == expected[250..350].iter().map(|(key, _)| key.clone().into_bytes()).collect::<Vec<_>>());
        assert_whole(&db);
        ks.compact().unwrap();
    }
}

/// The file of an ingested table does not know the number that the manifest gives it.
#[test]
fn a_repair_gives_entries_the_number_of_the_manifest_or_the_least_it_can_be() {
    for is_manifest_lost in [false, true] {
        let fs = SimFileSystem::new();
        let db = open(&fs);
        let ks = small_tables(&db);
        ks.put(key(1), "before").unwrap();
        let meanwhile = entries(0..100, "ingested").inspect(|(key, _)| {
            if key == "000050" {
                ks.put("meanwhile", "").unwrap();
                ks.put("000002", "meanwhile").unwrap();
                ks.flush().unwrap();
            }
        });
        assert_eq!(ks.ingest(meanwhile).unwrap(), 103);
        assert_eq!(shape(&ks)[0], 2);
        ks.put(key(3), "after").unwrap();
        let table = ks.tree().view().version.levels()[0].tables()[0].meta.number;
        db.close().unwrap();
        drop((ks, db));
        if is_manifest_lost {
            fs.write(&Path::new(DIRECTORY).join("MANIFEST-000001"), b"").unwrap();
        } else {
            let path = crate::table::handle::table_path(Path::new(DIRECTORY), table);
            let bytes = fs.read(&path).unwrap();
            // In the properties, which are last but for the footer.
            fs.flip_bit(&path, bytes.len() as u64 - 70, 3).unwrap();
            assert!(!open(&fs).verify().is_ok());
        }
        let report = options(&fs).repair(DIRECTORY).unwrap();
        assert!(report.changed);
        let db = open(&fs);
        let ks = small_tables(&db);
        assert_whole(&db);
        let found = [1, 2, 3, 99].map(|n| value_of(&ks, n).unwrap());
        // Without the manifest it counts as done when it began.
        let second = if is_manifest_lost { "meanwhile" } else { "ingested" };
        assert_eq!(found, ["ingested", second, "after", "ingested"]);
        assert_eq!((dump(&ks).len(), db.changes(1).is_err()), (101, true), "followers start from a snapshot");
        assert_eq!(db.last_seqno(), 104);
        if !is_manifest_lost {
            assert_eq!(manifest_state(&fs).ingested_seqno, 103);
            let meta = ks.tree().view().version.levels()[0].tables()[0].meta.clone();
            assert_eq!((meta.min_seqno, meta.max_seqno, meta.entries), (103, 103, 100));
        }
    }
}

#[test]
fn numbers_end_somewhere() {
    let db = open(&SimFileSystem::new());
    let ks = keyspace(&db, "ks");
    let change = crate::Change::Put { keyspace: "ks".into(), key: "k".into(), value: "v".into() };
    let batch = crate::ChangeBatch::new(MAX_SEQNO - 5, vec![change]).unwrap();
    db.apply::<&str>(&batch, &[]).unwrap();
    let answer = ks.ingest(entries(0..5, "v"));
    assert!(matches!(&answer, Err(Error::InvalidArgument(reason)) if reason.contains("end at")), "{answer:?}");
    assert_eq!((ks.ingest(entries(0..4, "v")).unwrap(), dump(&ks).len()), (MAX_SEQNO - 1, 5));
    assert!(store(&db).health.check_write().is_ok());
}
