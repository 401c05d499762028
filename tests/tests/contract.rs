//! The public contract as other crates rely on it: names, types and bounds as they are written in the design, and what
//! each call promises.

use std::collections::hash_map::DefaultHasher;
use std::fmt::{Debug, Display};
use std::hash::{Hash, Hasher};
use std::iter::FusedIterator;
use std::ops::Deref;
use std::time::Duration;

use siltstone::{
    Change, ChangeBatch, Changes, Compression, Db, Durability, Error, Iter, Keyspace, KeyspaceMetrics, KeyspaceName,
    KeyspaceOptions, MAX_KEY_BYTES, MAX_VALUE_BYTES, MIN_MEMORY_BYTES, MemtableKind, Metrics, Options, Report, Result,
    SeqNo, Slice, Snapshot, WriteBatch,
};
use tempfile::TempDir;

fn database() -> (TempDir, Db) {
    let dir = tempfile::tempdir().unwrap();
    let db = Db::open(dir.path()).unwrap();
    (dir, db)
}

fn keyspace(db: &Db, name: &str) -> Keyspace {
    db.keyspace(name, KeyspaceOptions::default()).unwrap()
}

#[test]
fn types_have_the_bounds_that_callers_need() {
    fn handle<T: Clone + Debug + Send + Sync + 'static>() {}
    fn owned<T: Send + 'static>() {}
    fn ends<T: DoubleEndedIterator<Item = Result<(Slice, Slice)>> + FusedIterator>() {}
    handle::<Db>();
    handle::<Keyspace>();
    handle::<Snapshot>();
    handle::<Slice>();
    handle::<WriteBatch>();
    handle::<ChangeBatch>();
    handle::<Change>();
    handle::<KeyspaceName>();
    handle::<Options>();
    handle::<KeyspaceOptions>();
    handle::<Metrics>();
    handle::<KeyspaceMetrics>();
    owned::<Iter>();
    owned::<Changes>();
    owned::<Report>();
    ends::<Iter>();
    fn error<T: std::error::Error + Send + Sync + 'static>() {}
    error::<Error>();
    fn changes<T: Iterator<Item = Result<ChangeBatch>>>() {}
    changes::<Changes>();
    fn slice<T: Deref<Target = [u8]> + AsRef<[u8]> + Eq + Ord + Hash + Into<Vec<u8>> + Default>() {}
    slice::<Slice>();
    fn prints<T: Display>() {}
    prints::<Metrics>();
    prints::<KeyspaceMetrics>();
    prints::<Report>();
    assert_eq!((MAX_KEY_BYTES, MAX_VALUE_BYTES, MIN_MEMORY_BYTES), ((64 << 10) - 1, 1 << 30, 4 << 20));
    let _: SeqNo = 1u64;
    assert_eq!(Durability::default(), Durability::Buffered);
    assert_eq!((Compression::default(), MemtableKind::default()), (Compression::Lz4Bottom, MemtableKind::BTree));
}

#[test]
fn slices_are_bytes() {
    let (short, long) = (Slice::from("silt"), Slice::from(vec![7; 1000]));
    assert_eq!(&short[..], b"silt");
    assert_eq!(Vec::from(short.clone()), b"silt");
    assert_eq!(Vec::from(long.clone()), vec![7; 1000]);
    let mut sorted = [Slice::from("silty"), short.clone(), Slice::from("sand")];
    sorted.sort();
    assert_eq!(sorted, ["sand", "silt", "silty"]);
    let hash = |slice: &[u8], of: &dyn Fn(&mut DefaultHasher)| {
        let mut hasher = DefaultHasher::new();
        slice.hash(&mut hasher);
        let mut other = DefaultHasher::new();
        of(&mut other);
        hasher.finish() == other.finish()
    };
    assert!(hash(b"silt", &|hasher| short.hash(hasher)), "it is looked up as the bytes it is");
    assert_eq!(format!("{short:?}"), "b\"silt\"");
}

#[test]
fn open_is_like_a_file() -> Result<()> {
    let dir = tempfile::tempdir().unwrap();
    let db =
        Options::new().memory_bytes(8 << 20).durability(Durability::Buffered).open(dir.path().join("not/there/yet"))?;
    assert!(matches!(Db::open(dir.path().join("not/there/yet")), Err(Error::Locked { .. })));
    db.close()?;
    let missing = Options::new().create_if_missing(false).open(dir.path().join("missing"));
    assert!(matches!(missing, Err(Error::Io { .. })), "{missing:?}");
    assert!(!dir.path().join("missing").exists());
    Ok(())
}

#[test]
fn every_operation_has_a_number() -> Result<()> {
    let (dir, db) = database();
    assert_eq!(db.last_seqno(), 0);
    let (a, b) = (keyspace(&db, "a"), keyspace(&db, "b"));
    assert_eq!(db.last_seqno(), 0, "creating a keyspace takes none");
    assert_eq!(a.put("k", "v")?, 1);
    assert_eq!(a.delete("absent")?, 2);
    let mut batch = WriteBatch::new();
    batch.put(&a, "k", "1").put(&b, "k", "2").delete(&a, "l").put(&a, "k", "3");
    assert_eq!((batch.len(), batch.is_empty()), (4, false));
    assert_eq!(db.write(batch.clone())?, 6);
    assert_eq!(a.get("k")?.unwrap(), "3", "the last operation on a key wins");
    assert_eq!(db.write_with(batch.clone(), Durability::Synced)?, 10);
    assert!(db.metrics().synced_seqno >= 10);
    batch.clear();
    assert_eq!((batch.len(), batch.is_empty()), (0, true));
    assert_eq!(db.write(batch)?, 10, "an empty batch takes no number");
    assert_eq!(db.write_with(WriteBatch::new(), Durability::Synced)?, 10);
    assert_eq!(a.put_all([("x", "1"), ("y", "2")])?, 12);
    assert_eq!(a.delete_all(["x", "y", "z"])?, 15);
    assert_eq!(a.put_all::<&str, &str>([])?, 15);
    assert!(db.drop_keyspace("b")?);
    assert_eq!(db.last_seqno(), 16, "a drop is an operation");
    assert!(!db.drop_keyspace("b")?);
    assert_eq!(db.last_seqno(), 16);
    drop((a, b, db));
    let db = Db::open(dir.path())?;
    assert_eq!(db.last_seqno(), 16, "also after a reopen");
    assert_eq!(keyspace(&db, "a").put("k", "v")?, 17);
    Ok(())
}

#[test]
fn reads_come_in_every_form() -> Result<()> {
    let (_dir, db) = database();
    let ks = keyspace(&db, "a");
    ks.put_all([("a", "1"), ("ab", "2"), ("b", "3"), ("\u{ff}", "4")])?;
    assert_eq!(ks.get(b"a")?.as_deref(), Some(&b"1"[..]));
    assert_eq!(ks.get(String::from("ab"))?, Some(Slice::from("2")));
    assert_eq!(ks.get(vec![b'z'])?, None);
    assert_eq!(ks.get_with("b", |value: &[u8]| value.len())?, Some(1));
    assert!(ks.contains_key("a")? && !ks.contains_key("")?);
    let many: Vec<Option<Slice>> = ks.get_many(["b", "z", "a", "b"])?;
    assert_eq!(many, [Some("3".into()), None, Some("1".into()), Some("3".into())]);
    let keys = |iter: Iter| iter.map(|entry| Vec::from(entry.unwrap().0)).collect::<Vec<_>>();
    assert_eq!(keys(ks.iter()).len(), 4);
    assert_eq!(keys(ks.range("a"..="b")), [&b"a"[..], b"ab", b"b"]);
    assert_eq!(keys(ks.range::<Vec<u8>>(..)).len(), 4, "one named generic");
    assert_eq!(keys(ks.range(vec![b'b']..)).len(), 2);
    assert_eq!(keys(ks.range(.."ab")), [b"a"]);
    assert_eq!(keys(ks.prefix("a")), [&b"a"[..], b"ab"]);
    assert_eq!(keys(ks.prefix("")).len(), 4);
    let mut both = ks.iter();
    assert_eq!(both.next().unwrap()?.0, "a");
    assert_eq!(both.next_back().unwrap()?.0, "\u{ff}");
    assert_eq!(both.next_back().unwrap()?.0, "b");
    assert_eq!(both.next().unwrap()?.0, "ab");
    assert!(both.next().is_none() && both.next_back().is_none() && both.next().is_none());
    let sent = ks.iter();
    ks.delete("a")?;
    assert_eq!(std::thread::spawn(move || sent.count()).join().unwrap(), 4, "owned, sent, and a point in time");
    Ok(())
}

#[test]
fn a_snapshot_reads_one_sequence_number() -> Result<()> {
    let (_dir, db) = database();
    let old = keyspace(&db, "old");
    old.put_all([("a", "1"), ("b", "2")])?;
    let snapshot = db.snapshot();
    assert_eq!(snapshot.seqno(), 2);
    old.put("a", "changed")?;
    old.delete("b")?;
    let young = keyspace(&db, "young");
    young.put("k", "v")?;
    db.flush()?;
    old.compact()?;
    assert_eq!(snapshot.get(&old, "a")?.unwrap(), "1");
    assert_eq!(snapshot.get_many(&old, ["b", "a"])?, [Some("2".into()), Some("1".into())]);
    assert!(snapshot.contains_key(&old, "b")?);
    assert_eq!(snapshot.clone().iter(&old).count(), 2);
    assert_eq!(snapshot.range(&old, "a".."b").count(), 1);
    assert_eq!(snapshot.prefix(&old, "b").count(), 1);
    assert_eq!(snapshot.get(&young, "k")?, None, "a younger keyspace is empty");
    assert_eq!(snapshot.iter(&young).count(), 0);
    assert_eq!(db.metrics().snapshots, 1);
    let (_other_dir, other) = database();
    let foreign = snapshot.get(&keyspace(&other, "old"), "a");
    assert!(matches!(foreign, Err(Error::InvalidArgument(_))), "{foreign:?}");
    drop(snapshot);
    assert_eq!(db.metrics().snapshots, 0);
    Ok(())
}

#[test]
fn keyspaces_come_and_go() -> Result<()> {
    let (dir, db) = database();
    let (b, a) = (keyspace(&db, "b"), keyspace(&db, "a"));
    assert_eq!(db.keyspaces(), ["a", "b"]);
    assert_eq!((a.name().as_str(), a.name().to_string()), ("a", "a".to_owned()));
    a.put("k", "v")?;
    keyspace(&db, "a").put("l", "w")?;
    assert_eq!(a.get("l")?.unwrap(), "w", "two handles, one keyspace");
    let (iter, snapshot) = (a.iter(), db.snapshot());
    let mut mixed = WriteBatch::new();
    mixed.put(&b, "k", "v").put(&a, "k", "v");
    assert!(db.drop_keyspace("a")?);
    let dropped = |answer: Result<()>| matches!(answer, Err(Error::KeyspaceDropped { name }) if name == "a");
    assert!(dropped(a.get("k").map(drop)) && dropped(a.put("k", "v").map(drop)) && dropped(a.delete("k").map(drop)));
    assert!(dropped(a.get_many(["k"]).map(drop)) && dropped(a.iter().next().unwrap().map(drop)));
    assert!(dropped(db.write(mixed).map(drop)));
    assert_eq!(b.get("k")?, None, "nothing of that batch was written");
    assert_eq!(iter.count(), 2, "opened before");
    assert_eq!(snapshot.get(&a, "k")?.unwrap(), "v", "taken before");
    assert_eq!(db.keyspaces(), ["b"]);
    let new = keyspace(&db, "a");
    assert_eq!((new.iter().count(), new.approximate_len()), (0, 0));
    assert_eq!(snapshot.get(&new, "k")?, None, "another keyspace than the snapshot's");
    assert!(dropped(a.get("k").map(drop)), "the old handle stays dropped");
    drop((snapshot, a, b, new, db));
    let db = Db::open(dir.path())?;
    assert_eq!((db.keyspaces(), keyspace(&db, "a").iter().count()), (vec!["a".to_owned(), "b".to_owned()], 0));
    Ok(())
}

#[test]
fn the_log_can_be_followed() -> Result<()> {
    let (_dir, db) = database();
    let (a, b) = (keyspace(&db, "a"), keyspace(&db, "b"));
    a.put_all([("k", "1"), ("l", "2")])?;
    let mut batch = WriteBatch::new();
    batch.put(&b, "m", "3").delete(&a, "k").put(&a, "n", "4");
    db.write(batch)?;
    db.drop_keyspace("b")?;
    let all: Vec<ChangeBatch> = db.changes(1)?.collect::<Result<_>>()?;
    assert_eq!(
        all.iter().map(|batch| (batch.first_seqno(), batch.last_seqno())).collect::<Vec<_>>(),
        [(1, 2), (3, 5), (6, 6)]
    );
    let (name_a, name_b) = (KeyspaceName::from("a"), KeyspaceName::from("b"));
    let expected = [
        Change::Put { keyspace: name_b.clone(), key: "m".into(), value: "3".into() },
        Change::Delete { keyspace: name_a.clone(), key: "k".into() },
        Change::Put { keyspace: name_a, key: "n".into(), value: "4".into() },
    ];
    assert_eq!(all[1].changes(), expected);
    assert_eq!(all[2].changes(), [Change::DropKeyspace { keyspace: name_b }]);
    assert_eq!(db.changes(4)?.next().unwrap()?.first_seqno(), 3, "the batch that holds it, whole");
    assert_eq!(db.changes(6)?.count(), 1);
    let mut live = db.changes(7)?;
    assert!(live.next().is_none() && !live.wait(Duration::ZERO), "caught up");
    a.put("k", "5")?;
    assert!(live.wait(Duration::from_secs(60)));
    assert_eq!(live.next().unwrap()?.last_seqno(), 7);
    assert!(live.next().is_none());
    let beyond = db.changes(9);
    assert!(matches!(beyond, Err(Error::InvalidArgument(_))), "{beyond:?}");
    assert!(db.changes(8).is_ok());
    Ok(())
}

#[test]
fn log_that_is_gone_is_an_error_that_says_so() -> Result<()> {
    let dir = tempfile::tempdir().unwrap();
    let options = siltstone_tests::options::tiny();
    let db = options.open(dir.path())?;
    let a = keyspace(&db, "a");
    for n in 0..600u32 {
        a.put(n.to_be_bytes(), vec![0; 2000])?;
    }
    db.flush()?;
    db.wait_for_compaction()?;
    let Err(Error::NotRetained { requested: 1, oldest }) = db.changes(1) else { panic!("{:?}", db.changes(1)) };
    assert!(oldest > 1 && oldest <= db.last_seqno() + 1);
    let mut next = oldest;
    for batch in db.changes(oldest)? {
        let batch = batch?;
        assert_eq!(batch.first_seqno(), next);
        next = batch.last_seqno() + 1;
    }
    assert_eq!(next, db.last_seqno() + 1);
    assert!(matches!(db.changes(oldest - 1), Err(Error::NotRetained { .. })));
    Ok(())
}

#[test]
fn a_live_cursor_holds_the_log_back() -> Result<()> {
    let dir = tempfile::tempdir().unwrap();
    let db = siltstone_tests::options::tiny().open(dir.path())?;
    let a = keyspace(&db, "a");
    let changes = db.changes(1)?;
    db.set_change_cursor("shipper", 1)?;
    assert_eq!(db.change_cursor("shipper"), Some(1));
    for n in 0..400u32 {
        a.put(n.to_be_bytes(), vec![0; 2000])?;
    }
    db.flush()?;
    db.wait_for_compaction()?;
    assert_eq!(changes.map(|batch| batch.map(|batch| batch.changes().len())).sum::<Result<usize>>()?, 400);
    assert!(db.metrics().wal_retained_bytes > 0);
    drop((a, db));
    let db = siltstone_tests::options::tiny().open(dir.path())?;
    assert_eq!(db.changes(1)?.count(), 400, "a durable cursor holds it across a reopen");
    db.remove_change_cursor("shipper")?;
    assert_eq!(db.change_cursor("shipper"), None);
    Ok(())
}

#[test]
fn a_log_can_be_applied_elsewhere_more_than_once() -> Result<()> {
    let ((_dir, db), (_replica_dir, replica)) = (database(), database());
    let (a, b) = (keyspace(&db, "a"), keyspace(&db, "b"));
    a.put_all([("k", "1"), ("l", "2")])?;
    b.put("m", "3")?;
    db.drop_keyspace("b")?;
    a.delete("k")?;
    for _ in 0..2 {
        for batch in db.changes(1)? {
            let batch = batch?;
            let position = batch.last_seqno().to_string();
            replica.apply(&batch, &[("position", position)])?;
        }
    }
    assert_eq!(replica.last_seqno(), db.last_seqno());
    assert_eq!(replica.metadata("position").unwrap(), "5");
    assert_eq!(replica.keyspaces(), ["a"]);
    let copy = keyspace(&replica, "a");
    assert_eq!((copy.get("k")?, copy.get("l")?), (None, Some("2".into())));
    Ok(())
}

#[test]
fn closing_ends_everything_but_what_is_under_way() -> Result<()> {
    let (dir, db) = database();
    let a = keyspace(&db, "a");
    a.put_all((0..1000u32).map(|n| (n.to_be_bytes(), vec![1; 300])))?;
    a.flush()?;
    a.put("in memory", "too")?;
    let (mut iter, snapshot, mut changes, twin) = (a.iter(), db.snapshot(), db.changes(1)?, db.clone());
    assert!(iter.next().is_some());
    let value = a.get(1u32.to_be_bytes())?.unwrap();
    db.close()?;
    db.close()?;
    twin.close()?;
    let again = Db::open(dir.path())?;
    let closed = |answer: Result<()>| matches!(answer, Err(Error::Closed));
    assert!(closed(a.get("k").map(drop)) && closed(a.put("k", "v").map(drop)) && closed(a.delete("k").map(drop)));
    assert!(closed(a.get_with("k", |_| ()).map(drop)) && closed(a.contains_key("k").map(drop)));
    assert!(closed(a.get_many(["k"]).map(drop)) && closed(a.put_all([("k", "v")]).map(drop)));
    assert!(closed(a.delete_all(["k"]).map(drop)) && closed(a.flush()) && closed(a.compact()));
    assert!(closed(a.iter().next().unwrap().map(drop)) && closed(a.range("a"..).next_back().unwrap().map(drop)));
    assert!(closed(a.prefix("a").next().unwrap().map(drop)));
    assert_eq!(a.approximate_len(), 0);
    assert!(closed(db.write(WriteBatch::new()).map(drop)) && closed(db.sync()) && closed(db.flush()));
    assert!(closed(db.write_with(WriteBatch::new(), Durability::Synced).map(drop)));
    assert!(closed(db.wait_for_compaction()) && closed(db.changes(1).map(drop)));
    assert!(closed(db.keyspace("a", KeyspaceOptions::default()).map(drop)));
    assert!(closed(db.drop_keyspace("a").map(drop)) && db.keyspaces().is_empty());
    assert!(closed(db.set_change_cursor("c", 1)) && closed(db.remove_change_cursor("c")));
    assert!(closed(snapshot.get(&a, "k").map(drop)) && closed(snapshot.iter(&a).next().unwrap().map(drop)));
    assert!(closed(snapshot.get_many(&a, ["k"]).map(drop)));
    assert!(closed(changes.next().unwrap().map(drop)) && changes.wait(Duration::from_secs(60)));
    assert!(!db.verify().is_ok() && closed(Err(db.verify().errors.remove(0))));
    let _printed = (db.metrics().to_string(), a.metrics().to_string(), db.snapshot().seqno(), db.last_seqno());
    assert_eq!(iter.map(|entry| entry.map(|_| 1)).sum::<Result<usize>>()?, 1000, "an iterator that was under way");
    assert_eq!(value.len(), 300);
    assert_eq!(keyspace(&again, "a").iter().count(), 1001);
    Ok(())
}

#[test]
fn the_last_handle_of_any_kind_closes() -> Result<()> {
    let (dir, db) = database();
    let a = keyspace(&db, "a");
    a.put("k", "v")?;
    let (snapshot, iter) = (db.snapshot(), a.iter());
    drop(db);
    assert!(matches!(Db::open(dir.path()), Err(Error::Locked { .. })));
    assert_eq!(a.get("k")?.unwrap(), "v");
    drop(a);
    assert!(matches!(Db::open(dir.path()), Err(Error::Locked { .. })));
    drop(snapshot);
    assert!(matches!(Db::open(dir.path()), Err(Error::Locked { .. })));
    assert_eq!(iter.count(), 1);
    assert!(Db::open(dir.path()).is_ok());
    Ok(())
}

#[test]
fn figures_and_reports_print() -> Result<()> {
    let (_dir, db) = database();
    let a = keyspace(&db, "words");
    assert_eq!(a.approximate_len(), 0);
    a.put_all((0..100u32).map(|n| (n.to_be_bytes(), "v")))?;
    assert_eq!(a.approximate_len(), 100, "exact while nothing was overwritten");
    a.flush()?;
    assert_eq!(a.approximate_len(), 100);
    a.delete(0u32.to_be_bytes())?;
    assert_eq!(a.approximate_len(), 99);
    db.sync()?;
    db.wait_for_compaction()?;
    let metrics: Metrics = db.metrics();
    assert_eq!((metrics.last_seqno, metrics.synced_seqno, metrics.keyspaces.len()), (101, 101, 1));
    assert_eq!(a.metrics(), metrics.keyspaces[0]);
    assert!(metrics.to_string().contains("words"));
    let report: Report = db.verify();
    assert!(report.is_ok() && report.tables == 1 && report.blocks >= 1 && report.table_bytes > 0, "{report}");
    assert!(report.to_string().contains("1 tables"));
    Ok(())
}

#[test]
fn metadata_is_part_of_a_batch() -> Result<()> {
    let (dir, db) = database();
    let a = keyspace(&db, "a");
    let mut batch = WriteBatch::new();
    batch.put(&a, "k", "v").metadata("position", Some("17"));
    assert_eq!((batch.len(), db.write(batch)?), (1, 1), "metadata takes no number");
    drop((a, db));
    let db = Db::open(dir.path())?;
    assert_eq!(db.metadata("position").unwrap(), "17");
    let mut batch = WriteBatch::new();
    batch.metadata("position", None::<&str>);
    assert_eq!(db.write(batch)?, 1);
    assert_eq!(db.metadata("position"), None);
    Ok(())
}
