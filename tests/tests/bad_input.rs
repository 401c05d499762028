//! Bad input of every kind: a clear error of the right variant, nothing written, nothing lost.

use std::collections::BTreeMap;
use std::fs;
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use siltstone::fs::{Fault, FaultFileSystem, Op, OsFileSystem};
use siltstone::{
    Db, Durability, Error, Keyspace, KeyspaceOptions, MAX_KEY_BYTES, MAX_VALUE_BYTES, Options, Result, WriteBatch,
};
use siltstone_tests::kill;
use siltstone_tests::options::{tiny, tiny_keyspace};
use siltstone_tests::state::dump;
use tempfile::TempDir;

fn database() -> (TempDir, Db, Keyspace) {
    let dir = tempfile::tempdir().unwrap();
    let db = Db::open(dir.path()).unwrap();
    let keyspace = db.keyspace("a", KeyspaceOptions::default()).unwrap();
    (dir, db, keyspace)
}

fn refused<T>(answer: Result<T>) -> bool {
    matches!(answer, Err(Error::InvalidArgument(_)))
}

fn read_only<T>(answer: Result<T>) -> bool {
    matches!(answer, Err(Error::ReadOnly { .. }))
}

#[test]
fn keys_of_every_length() -> Result<()> {
    let (dir, db, ks) = database();
    for len in [0, 1, MAX_KEY_BYTES - 1, MAX_KEY_BYTES] {
        ks.put(vec![b'k'; len], len.to_string())?;
    }
    let before = db.last_seqno();
    for len in [MAX_KEY_BYTES + 1, MAX_KEY_BYTES + 2, 1 << 20] {
        let key = vec![b'k'; len];
        assert!(refused(ks.put(&key, "v")) && refused(ks.delete(&key)) && refused(ks.put_all([(&key, "v")])));
        assert!(refused(ks.delete_all([&key])));
        let mut batch = WriteBatch::new();
        batch.put(&ks, "fits", "v").put(&ks, &key, "v");
        assert!(refused(db.write(batch)), "{len}");
        assert_eq!(
            (ks.get(&key)?, ks.contains_key(&key)?, ks.prefix(&key).count()),
            (None, false, 0),
            "reading is fine"
        );
    }
    assert_eq!((db.last_seqno(), ks.get("fits")?), (before, None), "nothing was written");
    let check = |ks: &Keyspace| -> Result<()> {
        for len in [0, 1, MAX_KEY_BYTES - 1, MAX_KEY_BYTES] {
            assert_eq!(ks.get(vec![b'k'; len])?.unwrap(), len.to_string());
        }
        assert_eq!(
            (ks.iter().count(), ks.iter().rev().count(), ks.prefix("").count(), ks.prefix("k").count()),
            (4, 4, 4, 3)
        );
        Ok(())
    };
    check(&ks)?;
    ks.compact()?;
    check(&ks)?;
    drop((ks, db));
    let db = Db::open(dir.path())?;
    assert!(db.verify().is_ok());
    check(&db.keyspace("a", KeyspaceOptions::default())?)
}

#[test]
fn values_of_every_length() -> Result<()> {
    let (dir, db, ks) = database();
    let lengths = [0, 1, (64 << 10) - 1, 64 << 10, (64 << 10) + 1, 64 << 20];
    let value = |len: usize| vec![len as u8 | 1; len];
    for len in lengths {
        ks.put(len.to_string(), value(len))?;
    }
    let before = db.last_seqno();
    let huge = vec![0; MAX_VALUE_BYTES + 1];
    assert!(refused(ks.put("huge", &huge)), "1 GiB + 1");
    let mut batch = WriteBatch::new();
    batch.put(&ks, "fits", "v").put(&ks, "huge", &huge);
    assert!(batch.encoded_bytes() < 100, "what is not allowed is not even copied");
    assert!(refused(db.write(batch)));
    drop(huge);
    assert_eq!((db.last_seqno(), ks.get("fits")?), (before, None));
    let check = |ks: &Keyspace| -> Result<()> {
        for len in lengths {
            assert!(ks.get(len.to_string())?.unwrap() == value(len), "{len}");
        }
        assert_eq!(
            ks.iter().map(|entry| entry.map(|(_, value)| value.len())).sum::<Result<usize>>()?,
            lengths.iter().sum::<usize>()
        );
        Ok(())
    };
    check(&ks)?;
    drop((ks, db));
    let db = Db::open(dir.path())?;
    let ks = db.keyspace("a", KeyspaceOptions::default())?;
    check(&ks)?;
    ks.flush()?;
    check(&ks)?;
    ks.compact()?;
    check(&ks)
}

#[test]
fn ranges_of_every_kind() -> Result<()> {
    let (_dir, db, ks) = database();
    ks.put_all(["", "a", "b", "c", "\u{7f}"].map(|key| (key, key)))?;
    for flushed in [false, true] {
        if flushed {
            ks.flush()?;
        }
        let count = |from: Bound<&'static str>, to: Bound<&'static str>| {
            let forward = ks.range::<&str>((from, to)).count();
            assert_eq!(forward, ks.range::<&str>((from, to)).rev().count());
            assert_eq!(forward, db.snapshot().range::<&str>(&ks, (from, to)).count());
            forward
        };
        use Bound::{Excluded, Included, Unbounded};
        assert_eq!(count(Unbounded, Unbounded), 5);
        assert_eq!((count(Included("b"), Included("b")), count(Included("b"), Excluded("b"))), (1, 0));
        assert_eq!((count(Excluded("b"), Included("b")), count(Excluded("b"), Excluded("b"))), (0, 0));
        assert_eq!((count(Excluded("a"), Excluded("b")), count(Excluded("a"), Included("b"))), (0, 1));
        for (from, to) in [("c", "a"), ("b", ""), ("z", "b")] {
            assert_eq!((count(Included(from), Included(to)), count(Excluded(from), Excluded(to))), (0, 0), "reversed");
        }
        assert_eq!((count(Unbounded, Excluded("")), count(Unbounded, Included(""))), (0, 1));
        assert_eq!((count(Included(""), Unbounded), count(Excluded(""), Unbounded)), (5, 4));
        assert_eq!(ks.prefix([0xff; 3]).count(), 0);
        assert_eq!(ks.prefix([0xff; 3]).rev().count(), 0);
        let long = vec![b'b'; MAX_KEY_BYTES + 10];
        assert_eq!((ks.range::<&[u8]>(&long[..]..).count(), ks.range::<&[u8]>(..&long[..]).count()), (2, 3));
        assert_eq!(ks.get_many::<&str>([])?, []);
    }
    Ok(())
}

#[test]
fn names_that_cannot_be() -> Result<()> {
    let (dir, db, _ks) = database();
    let long = "x".repeat(256);
    let longer = "ö".repeat(150);
    for name in ["", "a/b", "a\\b", "/", "nul\0", "line\n", "\u{7f}", "\u{85}", &long, &longer] {
        assert!(refused(db.keyspace(name, KeyspaceOptions::default())), "{name:?}");
        assert!(!db.drop_keyspace(name)?, "{name:?}");
    }
    let good = ["x".repeat(255), "größe".to_owned(), " ".to_owned(), "..".to_owned(), "CURRENT".to_owned()];
    for name in &good {
        db.keyspace(name, KeyspaceOptions::default())?.put("k", name)?;
    }
    db.flush()?;
    drop((db, _ks));
    let db = Db::open(dir.path())?;
    for name in &good {
        assert_eq!(db.keyspace(name, KeyspaceOptions::default())?.get("k")?.unwrap(), *name);
    }
    Ok(())
}

#[test]
fn options_out_of_bounds() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    let tiny = || Options::new().memory_bytes(4 << 20);
    for options in [
        Options::new().memory_bytes(0),
        Options::new().memory_bytes((4 << 20) - 1),
        tiny().memtable_bytes((4 << 10) - 1),
        tiny().memtable_bytes((2 << 20) + 1),
        tiny().block_cache_bytes((2 << 20) + 1),
        tiny().max_open_tables(15),
        tiny().background_threads(0),
        tiny().background_threads(65),
        tiny().wal_segment_bytes((64 << 10) - 1),
        tiny().wal_segment_bytes((1 << 30) + 1),
        tiny().wal_segment_bytes(1 << 20).max_wal_bytes((1 << 20) - 1),
    ] {
        assert!(refused(options.clone().open(&path)), "{options:?}");
        assert!(!path.exists(), "refused before anything is created");
    }
    let db = tiny().open(&path).unwrap();
    let defaults = KeyspaceOptions::new;
    for options in [
        defaults().block_bytes(0),
        defaults().block_bytes((1 << 20) + 1),
        defaults().filter_bits_per_key(33),
        defaults().level0_trigger(0),
        defaults().level0_trigger(65),
        defaults().level_ratio(1),
        defaults().level_ratio(101),
        defaults().base_level_bytes((64 << 10) - 1),
        defaults().target_table_bytes((4 << 10) - 1),
        defaults().target_table_bytes((1 << 30) + 1),
    ] {
        assert!(refused(db.keyspace("a", options.clone())), "{options:?}");
    }
    assert!(db.keyspaces().is_empty());
}

#[test]
fn a_batch_belongs_to_one_database() -> Result<()> {
    let ((_a, db, ks), (_b, other, other_ks)) = (database(), database());
    let mut mixed = WriteBatch::new();
    mixed.put(&ks, "k", "v").put(&other_ks, "k", "v");
    assert!(refused(db.write(mixed.clone())) && refused(other.write(mixed)));
    let mut foreign = WriteBatch::new();
    foreign.put(&other_ks, "k", "v");
    assert!(refused(db.write(foreign)));
    assert_eq!((ks.iter().count(), other_ks.iter().count()), (0, 0));
    let mut unnamed = WriteBatch::new();
    unnamed.metadata("", Some("v"));
    assert!(refused(db.write(unnamed)));
    assert!(refused(db.set_change_cursor("", 1)) && refused(db.set_change_cursor(&"x".repeat(201), 1)));
    Ok(())
}

#[test]
fn directories_that_cannot_be_used() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, "not a directory").unwrap();
    for path in [file.as_path(), &file.join("below"), Path::new("/proc/self/siltstone")] {
        let answer = Db::open(path);
        assert!(matches!(answer, Err(Error::Io { .. })), "{path:?}: {answer:?}");
    }
    assert_eq!(fs::read(&file).unwrap(), b"not a directory");
    for op in [Op::CreateDir, Op::Lock, Op::Create, Op::CreateMapped, Op::SyncDir, Op::Rename, Op::Append] {
        let faults = FaultFileSystem::new(Arc::new(OsFileSystem));
        faults.only(op);
        faults.fail_from(1, Fault::Io);
        let path = dir.path().join(format!("{op:?}"));
        let open = || Options::new().file_system(Arc::new(faults.clone())).open(&path);
        let answer = open();
        assert!(matches!(answer, Err(Error::Io { .. })), "{op:?}: {answer:?}");
        faults.clear();
        open().unwrap_or_else(|error| panic!("not usable after {op:?} failed: {error}"));
    }
}

/// Every file below `dir` with its contents.
fn contents(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    entries.map(|path| (path.clone(), fs::read(path).unwrap())).collect()
}

fn check_read_only(dir: &Path, entries: usize, options: KeyspaceOptions) {
    let before = contents(dir);
    let db = tiny().read_only(true).open(dir).unwrap();
    let second = tiny().read_only(true).open(dir).unwrap();
    assert_eq!(dump(&db, &options).unwrap(), dump(&second, &options).unwrap());
    let found = dump(&db, &options).unwrap();
    assert_eq!(found.values().map(BTreeMap::len).sum::<usize>(), entries);
    let name = db.keyspaces()[0].clone();
    let ks = db.keyspace(&name, options).unwrap();
    assert!(read_only(ks.put("k", "v")) && read_only(ks.delete("k")) && read_only(ks.put_all([("k", "v")])));
    assert!(read_only(db.write(WriteBatch::new())) && read_only(db.write_with(WriteBatch::new(), Durability::NoLog)));
    assert!(read_only(db.keyspace("new", KeyspaceOptions::default())) && read_only(db.drop_keyspace(&name)));
    assert!(read_only(db.sync()) && read_only(db.flush()) && read_only(ks.flush()) && read_only(ks.compact()));
    assert!(read_only(db.changes(1)) && read_only(db.set_change_cursor("c", 1)));
    assert!(db.verify().is_ok(), "{}", db.verify());
    assert!(matches!(Db::open(dir), Err(Error::Locked { .. })), "a writer beside readers");
    db.close().unwrap();
    drop((ks, db, second));
    assert!(contents(dir) == before, "a read-only open changed a file");
}

#[test]
fn read_only_changes_no_byte() -> Result<()> {
    let dir = tempfile::tempdir().unwrap();
    let missing = Options::new().read_only(true).open(dir.path().join("missing"));
    assert!(matches!(missing, Err(Error::Io { .. })) && !dir.path().join("missing").exists());
    let db = tiny().open(dir.path())?;
    let ks = db.keyspace("a", tiny_keyspace())?;
    ks.put_all((0..500u32).map(|n| (n.to_be_bytes(), vec![1; 100])))?;
    db.flush()?;
    ks.put("in the log", "only")?;
    assert!(matches!(tiny().read_only(true).open(dir.path()), Err(Error::Locked { .. })), "beside a writer");
    drop((ks, db));
    check_read_only(dir.path(), 501, tiny_keyspace());
    Ok(())
}

#[test]
fn another_process_holds_the_directory_and_is_killed() {
    let dir = tempfile::tempdir().unwrap();
    let (path, oracle) = (dir.path().join("db"), dir.path().join("oracle"));
    let mut driver = Command::new(env!("CARGO_BIN_EXE_kill_driver"));
    // A life and a run, no limit, and no event of its threads before.
    let numbers = [0, 0, u64::MAX].into_iter().chain([0; kill::plan::THREADS]).map(|number| number.to_string());
    let mut driver = driver.arg(dir.path()).args(numbers).stderr(Stdio::null()).spawn().unwrap();
    let started = Instant::now();
    while !fs::metadata(&oracle).is_ok_and(|oracle| oracle.len() > 16_000) && started.elapsed().as_secs() < 60 {
        std::thread::sleep(Duration::from_millis(1));
    }
    let locked = |answer: Result<Db>| matches!(answer, Err(Error::Locked { directory }) if directory == path);
    let answers = (locked(Db::open(&path)), locked(Options::new().read_only(true).open(&path)));
    driver.kill().unwrap();
    driver.wait().unwrap();
    assert_eq!(answers, (true, true));
    let entries = {
        let db = tiny().read_only(true).open(&path).unwrap();
        dump(&db, &tiny_keyspace()).unwrap().values().map(BTreeMap::len).sum()
    };
    assert!(entries > 100);
    check_read_only(&path, entries, tiny_keyspace());
}
