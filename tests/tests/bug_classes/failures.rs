//! Failures and misuse: syncs, damage under iterators, closing, dropping, panics, lengths, read-only.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use siltstone::fs::{Fault, FaultFileSystem, Keep, Op, SimFileSystem};
use siltstone::{Compression, Db, Durability, Error, Keyspace, MAX_KEY_BYTES, Result, Snapshot, WriteBatch};
use siltstone_tests::evidence;
use siltstone_tests::hook::{HookFileSystem, Moment, Side};
use siltstone_tests::options::tiny_keyspace;

use super::{Done, contents, on, open};

fn a(db: &Db) -> Keyspace {
    db.keyspace("a", tiny_keyspace()).unwrap()
}

/// One sync fails, of each kind, under each call that waits for it; all later ones would succeed. The call fails, nothing
/// is acknowledged after it, and a power cut leaves what was acknowledged before.
#[test]
fn fsync_error_ignored_or_retried() -> Done {
    type Call = fn(&Db, &Keyspace) -> Result<()>;
    let calls: [(Call, Op); 7] = [
        (|db, _| db.sync(), Op::MappedSync),
        (|db, a| db.write_with(one(a), Durability::Synced).map(drop), Op::MappedSync),
        (|_, a| a.flush(), Op::MappedSync),
        (|_, a| a.flush(), Op::Sync),
        (|_, a| a.flush(), Op::SyncDir),
        (|db, _| db.keyspace("new", tiny_keyspace()).map(drop), Op::Sync),
        (|db, _| db.drop_keyspace("b").map(drop), Op::MappedSync),
    ];
    for (which, (call, op)) in calls.into_iter().enumerate() {
        let sim = SimFileSystem::new();
        let fs = FaultFileSystem::new(Arc::new(sim.clone()));
        let db = on(fs.clone()).open("/db")?;
        let keyspace = a(&db);
        db.keyspace("b", tiny_keyspace())?.put("k", "v")?;
        keyspace.put("before", "1")?;
        db.sync()?;
        keyspace.put("in doubt", "2")?;
        fs.only(op);
        fs.fail_at(1, Fault::Io);
        let failed = call(&db, &keyspace);
        assert!(matches!(failed, Err(Error::Io { .. } | Error::ReadOnly { .. })), "call {which}: {failed:?}");
        let read_only = |answer: Result<()>| matches!(answer, Err(Error::ReadOnly { .. }));
        for _ in 0..2 {
            assert!(read_only(db.sync()) && read_only(keyspace.flush()), "call {which}");
            assert!(read_only(db.write_with(one(&keyspace), Durability::Synced).map(drop)), "call {which}");
            assert!(read_only(keyspace.put("after", "3").map(drop)), "call {which}");
        }
        assert_eq!(keyspace.get("in doubt")?.unwrap(), "2", "call {which}: reads go on");
        let left = sim.crash_clone(Keep::Nothing, 0);
        drop((keyspace, db));
        let found = contents(&a(&open(&left)?));
        assert_eq!(found.get(&b"before"[..]).unwrap(), b"1", "call {which}");
        assert!(!found.contains_key(&b"after"[..]), "call {which}");
    }
    Ok(())
}

fn one(keyspace: &Keyspace) -> WriteBatch {
    let mut batch = WriteBatch::new();
    batch.put(keyspace, "one", "more");
    batch
}

/// A block in the middle is damaged: an iterator gives what lies before it, then the error, then nothing, from both
/// ends, whether tables are mapped or not; it never just ends.
#[test]
fn iterator_error_looks_like_the_end() -> Done {
    const KEYS: u32 = 400;
    let sim = SimFileSystem::new();
    let db = open(&sim)?;
    a(&db).put_all((0..KEYS).map(|n| (n.to_be_bytes(), [n as u8; 50])))?;
    // In level 0 a single table, at the bottom several.
    for compacted in [false, true] {
        if compacted {
            a(&db).compact()?
        } else {
            db.flush()?
        }
        // Opened once, so that tables which were replaced but not yet removed are gone.
        let sound = sim.crash_clone(Keep::All, 0);
        open(&sound)?.close()?;
        let mut tables = sound.paths();
        tables.retain(|path| path.extension().is_some_and(|kind| kind == "table"));
        for table in &tables {
            for mmap in [true, false] {
                let damaged = sound.crash_clone(Keep::All, 0);
                let middle = damaged.read(table)?.len() as u64 * 2 / 5;
                damaged.flip_bit(table, middle, 3)?;
                let damaged = on(damaged).mmap_reads(mmap).read_only(true).open("/db")?;
                let what = format!("{}, mapped {mmap}", table.display());
                for back in [false, true] {
                    let mut iter = a(&damaged).iter();
                    let mut next = || if back { iter.next_back() } else { iter.next() };
                    let mut before = 0;
                    let error = loop {
                        match next() {
                            Some(Ok((key, _))) => {
                                let n = if back { KEYS - 1 - before } else { before };
                                assert_eq!(key[..], n.to_be_bytes(), "{what}");
                                before += 1;
                            }
                            Some(Err(error)) => break error,
                            None => panic!("{what}: {before} of {KEYS} entries, then a silent end"),
                        }
                    };
                    assert!(matches!(&error, Error::Corruption { file, .. } if file == table), "{what}: {error:?}");
                    assert!(before > 0 || tables.len() > 1, "{what}");
                    assert!(next().is_none() && next().is_none(), "{what}: it goes on after the error");
                    assert!(iter.next().is_none() && iter.next_back().is_none(), "{what}: at the other end");
                }
                let gets = (0..KEYS).filter(|n| a(&damaged).get(n.to_be_bytes()).is_err()).count();
                assert!(gets > 0 && gets < 200, "{what}: {gets} gets fail");
            }
        }
    }
    Ok(())
}

/// A table whose checksums fit and whose entries are not sorted: a compaction that merged on would put newer versions
/// behind older ones, in a sound file.
#[test]
fn entries_out_of_order_stop_a_compaction() -> Done {
    let sim = SimFileSystem::new();
    let options = || tiny_keyspace().level0_trigger(64).compression(Compression::None);
    let db = open(&sim)?;
    let keyspace = db.keyspace("a", options())?;
    keyspace.put_all([("k", "1"), ("l", "2")])?;
    keyspace.flush()?;
    let table = sim.paths().into_iter().find(|path| path.extension().is_some_and(|kind| kind == "table")).unwrap();
    keyspace.put_all([("k", "3"), ("l", "4")])?;
    keyspace.flush()?;
    db.close()?;
    let mut bytes = sim.read(&table)?;
    swap_first_keys(&mut bytes, &table);
    sim.write(&table, &bytes)?;
    let db = open(&sim)?;
    let compacted = db.keyspace("a", options())?.compact();
    assert!(matches!(compacted, Err(Error::Corruption { .. })), "{compacted:?}");
    let errors = db.verify().errors;
    assert!(matches!(&errors[..], [Error::Corruption { file, .. }] if *file == table), "{errors:?}");
    assert_eq!(sim.read(&table)?, bytes, "the inputs stay");
    Ok(())
}

/// Swaps the prefix column's first two entries in data block 0 and repairs its checksum, by docs/format.md.
fn swap_first_keys(table: &mut [u8], path: &Path) {
    let number = |at: usize, width: usize| table[at..at + width].iter().rev().fold(0, |n, &b| n << 8 | usize::from(b));
    let footer = table.len() - 60;
    let (index, index_bytes) = (number(footer + 20, 8), number(footer + 28, 4));
    let stored_bytes = number(index + index_bytes - 5 - 4, 4);
    assert_eq!((number(0, 4), number(index, 4)), (2, 1), "two entries in one block");
    let (one, two) = table[26..42].split_at_mut(8);
    one.swap_with_slice(two);
    let table_number: u32 = path.file_stem().unwrap().to_str().unwrap().parse().unwrap();
    let crc = crc32(table_number.wrapping_mul(0x9e37_79b1), &table[..stored_bytes - 4]);
    table[stored_bytes - 4..stored_bytes].copy_from_slice(&crc.to_le_bytes());
}

/// CRC-32 (IEEE 802.3), bit by bit, from the checksum `seed` on.
fn crc32(seed: u32, bytes: &[u8]) -> u32 {
    let step = |crc: u32, _| if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 };
    !bytes.iter().fold(!seed, |crc, &byte| (0..8).fold(crc ^ u32::from(byte), step))
}

/// Handles, snapshots and new iterators say `Closed`, the ones under way finish, and nothing of it touches the database
/// that was opened again in the same place.
#[test]
fn use_after_close() -> Done {
    let sim = SimFileSystem::new();
    let db = open(&sim)?;
    let keyspace = a(&db);
    keyspace.put_all((0..500u32).map(|n| (n.to_be_bytes(), [1; 100])))?;
    keyspace.flush()?;
    keyspace.put("in memory", "too")?;
    let (mut iter, snapshot, pinned) = (keyspace.iter(), db.snapshot(), keyspace.get(3u32.to_be_bytes())?.unwrap());
    let first = iter.next().unwrap()?;
    std::thread::scope(|scope| {
        // Closing in the middle of other calls, each of which is done or says so.
        for _ in 0..3 {
            scope.spawn(|| {
                for n in 0..u32::MAX {
                    let answers =
                        [keyspace.put(n.to_be_bytes(), "x").map(drop), keyspace.get("k").map(drop), keyspace.flush()];
                    if answers.iter().any(|answer| matches!(answer, Err(Error::Closed))) {
                        break;
                    }
                    answers.into_iter().for_each(|answer| answer.unwrap());
                }
            });
        }
        scope.spawn(|| db.close().unwrap());
    });
    let again = open(&sim)?;
    a(&again).put_all((0..500u32).map(|n| (n.to_be_bytes(), [2; 100])))?;
    a(&again).compact()?;
    let closed = |answer: Result<()>| matches!(answer, Err(Error::Closed));
    assert!(
        closed(keyspace.get("k").map(drop)) && closed(keyspace.put("k", "v").map(drop)) && closed(keyspace.compact())
    );
    assert!(closed(keyspace.iter().next().unwrap().map(drop)) && closed(snapshot.get(&keyspace, "k").map(drop)));
    assert!(closed(db.sync()) && closed(db.write(one(&keyspace)).map(drop)) && closed(db.changes(1).map(drop)));
    assert!(iter.all(|entry| entry.is_ok()), "an iterator under way");
    assert_eq!((pinned.len(), first.1.len()), (100, 100));
    drop((keyspace, snapshot, iter, db));
    let found = contents(&a(&again));
    assert!(found.len() >= 501 && found.values().filter(|value| value.len() == 100).all(|value| value[0] == 2));
    Ok(())
}

/// A keyspace is dropped and made again while the background flushes and compacts it, others read it, and writers run
/// into the drop: nothing of the old one shows in the new one, and files do not pile up.
#[test]
fn drop_races_compaction() -> Done {
    let sim = SimFileSystem::new();
    let db = on(sim.clone()).background_threads(3).open("/db")?;
    for round in 0..12u8 {
        let keyspace = a(&db);
        assert_eq!(keyspace.iter().count(), 0, "round {round}: something is left of the one before");
        let snapshot: Option<Snapshot> = round.is_multiple_of(3).then(|| db.snapshot());
        let written = AtomicU32::new(0);
        std::thread::scope(|scope| {
            let (keyspace, written) = (&keyspace, &written);
            for writer in 0..2u32 {
                scope.spawn(move || {
                    for n in (writer..).step_by(2) {
                        match keyspace.put((n % 500).to_be_bytes(), [round; 300]) {
                            Ok(_) => drop(written.fetch_add(1, Ordering::SeqCst)),
                            Err(Error::KeyspaceDropped { .. }) => return,
                            Err(error) => panic!("round {round}: {error:?}"),
                        }
                    }
                });
            }
            scope.spawn(move || {
                while keyspace.compact().is_ok() && keyspace.get("k").is_ok() {}
                for entry in keyspace.iter().take(10) {
                    assert!(matches!(entry, Ok(_) | Err(Error::KeyspaceDropped { .. })));
                }
            });
            while written.load(Ordering::SeqCst) < 600 {
                std::thread::yield_now();
            }
            assert!(db.drop_keyspace("a").unwrap());
        });
        drop((snapshot, keyspace));
    }
    assert!(db.metrics().read_only_reason.is_none(), "{:?}", db.metrics().read_only_reason);
    a(&db).put("k", "v")?;
    db.close()?;
    let db = open(&sim)?;
    assert_eq!(contents(&a(&db)), BTreeMap::from([(b"k".to_vec(), b"v".to_vec())]));
    db.flush()?;
    // What was replaced is removed by the background, or by the next open.
    db.close()?;
    let tables = sim.paths().iter().filter(|path| path.extension().is_some_and(|kind| kind == "table")).count();
    assert_eq!(tables, 1, "tables of dropped keyspaces");
    Ok(())
}

/// A caller's function panics inside a read: everything goes on.
#[test]
fn poisoned_locks_by_a_caller() -> Done {
    let sim = SimFileSystem::new();
    let db = open(&sim)?;
    let keyspace = a(&db);
    keyspace.put("in memory", "1")?;
    keyspace.put("in a table", "2")?;
    keyspace.flush()?;
    keyspace.put("in memory", "3")?;
    for key in ["in memory", "in a table"] {
        let panicked = catch_unwind(AssertUnwindSafe(|| keyspace.get_with(key, |_| panic!("a caller's"))));
        assert!(panicked.is_err());
        assert!(keyspace.get(key)?.is_some());
    }
    keyspace.put("after", "4")?;
    keyspace.compact()?;
    assert_eq!(contents(&keyspace).len(), 3);
    Ok(db.close()?)
}

/// A hook that panics at each call of a kind, on threads of the background or on callers', while it is armed.
struct Bomb {
    side: Side,
    op: Op,
    background: bool,
    armed: AtomicBool,
    went_off: AtomicU64,
}

impl Bomb {
    fn new(side: Side, op: Op, background: bool) -> Arc<Self> {
        Arc::new(Bomb { side, op, background, armed: AtomicBool::new(false), went_off: AtomicU64::new(0) })
    }

    fn hook(self: &Arc<Self>) -> impl Fn(&Moment<'_>) + Send + Sync + 'static {
        let bomb = self.clone();
        move |moment: &Moment<'_>| {
            let background = std::thread::current().name().is_some_and(|name| name.starts_with("siltstone-"));
            if (moment.side, moment.op) == (bomb.side, bomb.op)
                && background == bomb.background
                && bomb.armed.load(Ordering::SeqCst)
            {
                bomb.went_off.fetch_add(1, Ordering::SeqCst);
                panic!("a bomb in the filesystem: {:?} of {}", moment.op, moment.path.display());
            }
        }
    }
}

const BOMBED: [Op; 8] =
    [Op::Create, Op::CreateMapped, Op::Append, Op::Sync, Op::SyncDir, Op::MappedWrite, Op::MappedSync, Op::Read];

/// The filesystem panics under a thread of the background: it takes no more writes, answers reads, does not hang, and
/// closes.
#[test]
fn poisoned_locks_in_the_background() -> Done {
    for op in BOMBED {
        let sim = SimFileSystem::new();
        let bomb = Bomb::new(Side::Before, op, true);
        let fs = HookFileSystem::new(Arc::new(sim.clone()), bomb.hook());
        let db = on(fs).background_threads(3).mmap_reads(false).block_cache_bytes(0).open("/db")?;
        let keyspace = a(&db);
        for n in 0..600u32 {
            keyspace.put(n.to_be_bytes(), [1; 200])?;
        }
        db.wait_for_compaction()?;
        bomb.armed.store(true, Ordering::SeqCst);
        // Until it is noticed, or for long enough to meet every kind of call.
        let mut last = 0u32;
        while last < 3000 && keyspace.put((last % 600).to_be_bytes(), [2; 200]).is_ok() {
            last += 1;
        }
        let _whatever = keyspace.compact();
        let _whatever = keyspace.flush();
        let _whatever = db.wait_for_compaction();
        let went_off = bomb.went_off.load(Ordering::SeqCst);
        assert_eq!(
            went_off > 0,
            db.metrics().read_only_reason.is_some() || op == Op::CreateMapped && went_off > 0,
            "{op:?}"
        );
        assert_eq!(keyspace.iter().count(), 600, "{op:?}: reads survive");
        assert!((0..600u32).all(|n| keyspace.get(n.to_be_bytes()).unwrap().is_some()), "{op:?}");
        bomb.armed.store(false, Ordering::SeqCst);
        drop((keyspace, db));
        check_survivor(&sim, last, op);
    }
    Ok(())
}

/// Everything acknowledged is there, whatever thread panicked.
fn check_survivor(sim: &SimFileSystem, last: u32, op: Op) {
    let db = open(sim).unwrap_or_else(|error| panic!("{op:?}: {error}"));
    let found = contents(&a(&db));
    assert_eq!(found.len(), 600, "{op:?}");
    let new = found.values().filter(|value| value[0] == 2).count();
    assert!(new >= last.min(600) as usize, "{op:?}: {new} of {last}");
    assert!(db.verify().is_ok(), "{op:?}: {}", db.verify());
    evidence::record("lost", 0);
}

/// The filesystem panics under callers: the panic is theirs, other callers that wait in the same commit group get an
/// answer, reads survive, nothing is acknowledged by halves, and closing does not abort.
#[test]
fn poisoned_locks_under_callers() -> Done {
    for op in BOMBED {
        let sim = SimFileSystem::new();
        let bomb = Bomb::new(Side::Before, op, false);
        let fs = HookFileSystem::new(Arc::new(sim.clone()), bomb.hook());
        let db = on(fs).mmap_reads(false).block_cache_bytes(0).open("/db")?;
        let keyspace = a(&db);
        keyspace.put_all((0..600u32).map(|n| (n.to_be_bytes(), [1; 200])))?;
        keyspace.flush()?;
        let acknowledged = AtomicU32::new(0);
        std::thread::scope(|scope| {
            for writer in 0..3u32 {
                let (db, keyspace, bomb, acknowledged) = (&db, &keyspace, &bomb, &acknowledged);
                scope.spawn(move || {
                    for n in (writer..600).step_by(3) {
                        bomb.armed.fetch_or(n == 300, Ordering::SeqCst);
                        let durability = if n % 50 < 3 { Durability::Synced } else { Durability::Buffered };
                        let mut batch = WriteBatch::new();
                        // Some are larger than a segment: the caller makes one for each.
                        let value_bytes = if n % 50 == 10 { 100 << 10 } else { 200 };
                        batch.put(keyspace, n.to_be_bytes(), vec![2; value_bytes]);
                        let answer = catch_unwind(AssertUnwindSafe(|| db.write_with(batch, durability)));
                        match answer {
                            Ok(Ok(_)) => drop(acknowledged.fetch_add(1, Ordering::SeqCst)),
                            Ok(Err(Error::ReadOnly { .. })) | Err(_) => {}
                            Ok(Err(error)) => panic!("{op:?}: {error:?}"),
                        }
                    }
                    let calls: [&dyn Fn() -> Result<()>; 4] =
                        [&|| keyspace.compact(), &|| keyspace.flush(), &|| db.sync(), &|| {
                            db.drop_keyspace("b").map(drop)
                        }];
                    for call in calls {
                        let _whatever = catch_unwind(AssertUnwindSafe(call));
                    }
                });
            }
        });
        let _new = catch_unwind(AssertUnwindSafe(|| db.keyspace("new", tiny_keyspace()).map(drop)));
        let last = acknowledged.load(Ordering::SeqCst);
        if op == Op::Read {
            let read = catch_unwind(AssertUnwindSafe(|| keyspace.iter().count()));
            assert!(read.is_err(), "there is nothing in the cache");
        } else {
            assert_eq!(keyspace.iter().count(), 600, "{op:?}: reads survive");
        }
        if matches!(op, Op::MappedWrite | Op::CreateMapped) {
            assert!(db.metrics().read_only_reason.is_some(), "{op:?}: a commit was cut short");
        }
        // Dropping the last handle meets the bomb once more, here while another panic unwinds: there is something to
        // sync.
        let _unsynced = catch_unwind(AssertUnwindSafe(|| keyspace.put(0u32.to_be_bytes(), [2; 200]).is_ok()));
        let unwound = catch_unwind(AssertUnwindSafe(move || {
            let _dropped_by_the_panic = (keyspace, db);
            panic!("of the caller");
        }));
        assert!(unwound.is_err());
        assert!(bomb.went_off.load(Ordering::SeqCst) > 0, "{op:?} never came");
        check_survivor(&sim, last, op);
    }
    Ok(())
}

/// The filesystem panics while a caller changes the manifest, before and after the call has done its work: nothing is
/// appended behind an edit that may be there by halves.
#[test]
fn poisoned_locks_of_the_manifest() -> Done {
    for (side, op) in [Side::Before, Side::After].into_iter().flat_map(|side| [(side, Op::Append), (side, Op::Sync)]) {
        let sim = SimFileSystem::new();
        let bomb = Bomb::new(side, op, false);
        let db = on(HookFileSystem::new(Arc::new(sim.clone()), bomb.hook())).open("/db")?;
        a(&db).put("k", "v")?;
        bomb.armed.store(true, Ordering::SeqCst);
        let panicked = catch_unwind(AssertUnwindSafe(|| db.keyspace("new", tiny_keyspace()).map(drop)));
        assert!(panicked.is_err(), "{side:?} {op:?}");
        bomb.armed.store(false, Ordering::SeqCst);
        let other = db.keyspace("other", tiny_keyspace());
        assert!(matches!(other, Err(Error::ReadOnly { .. })), "{side:?} {op:?}: {other:?}");
        assert_eq!(a(&db).get("k")?.unwrap(), "v", "reads survive");
        drop(db);
        let db = open(&sim)?;
        let names = db.keyspaces();
        assert!(names == ["a"] || names == ["a", "new"], "{side:?} {op:?}: {names:?}");
        assert_eq!(contents(&a(&db)).len(), 1);
        db.keyspace("new", tiny_keyspace())?.put("k", "v")?;
    }
    Ok(())
}

/// Keys and values at and around the limits of 16 bits, and large ones, in memory, recovered from the log, from level 0
/// and from the bottom; what is longer is refused and leaves nothing.
#[test]
fn length_overflow() -> Done {
    const KIB_64: usize = 64 << 10;
    let sim = SimFileSystem::new();
    let options = || siltstone::Options::new().memory_bytes(32 << 20).file_system(Arc::new(sim.clone()));
    let key = |len: usize| vec![b'k'; len];
    let value = |len: usize| vec![len as u8 | 1; len];
    let lengths: Vec<(usize, usize)> = [0, 1, 255, 256, KIB_64 - 2, MAX_KEY_BYTES]
        .into_iter()
        .flat_map(|key| [0, 1, 255, 256, KIB_64 - 1, KIB_64, KIB_64 + 1].map(|value| (key, value)))
        .chain([(9, 5 << 20), (10, (1 << 24) - 1), (11, 1 << 24)])
        .collect();
    let db = options().open("/db")?;
    let keyspace = db.keyspace("a", Default::default())?;
    let mut expected = BTreeMap::new();
    for (number, &(key_bytes, value_bytes)) in lengths.iter().enumerate() {
        // One key for each value: the last byte tells them apart where there is one.
        let mut key = key(key_bytes);
        if let Some(last) = key.last_mut() {
            *last = number as u8;
        }
        keyspace.put(&key, value(value_bytes))?;
        expected.insert(key, value(value_bytes));
    }
    let last = db.last_seqno();
    for len in [KIB_64, KIB_64 + 1, 2 * KIB_64, 2 * KIB_64 + 1] {
        assert!(matches!(keyspace.put(key(len), "v"), Err(Error::InvalidArgument(_))), "{len}");
        assert_eq!(keyspace.get(key(len))?, None, "{len}");
    }
    assert_eq!(db.last_seqno(), last);
    assert!(contents(&keyspace) == expected, "in memory");
    drop((keyspace, db));
    let db = options().open("/db")?;
    let keyspace = db.keyspace("a", Default::default())?;
    assert!(contents(&keyspace) == expected, "from the log");
    keyspace.flush()?;
    assert!(contents(&keyspace) == expected, "from level 0");
    keyspace.compact()?;
    drop((keyspace, db));
    let db = options().open("/db")?;
    assert!(contents(&db.keyspace("a", Default::default())?) == expected, "from the bottom");
    assert!(db.verify().is_ok(), "{}", db.verify());
    Ok(())
}

/// Opened read-only beside everything that a writer would clean up (a torn log, an orphaned table, log that was let go
/// of, a spare segment, half a `CURRENT`): the right answers, not one changing call, not a byte differs.
#[test]
fn read_only_opener_deletes_files() -> Done {
    let sim = SimFileSystem::new();
    let db = open(&sim)?;
    let keyspace = a(&db);
    for n in 0..400u32 {
        keyspace.put(n.to_be_bytes(), [3; 400])?;
    }
    keyspace.flush()?;
    db.wait_for_compaction()?;
    keyspace.put("in the log", "only")?;
    let expected = contents(&keyspace);
    let left = sim.crash_clone(Keep::All, 0);
    let paths = left.paths();
    let of_kind = |kind: &str| paths.iter().filter(|path| path.extension().is_some_and(|k| k == kind)).max().unwrap();
    for (from, to) in [(of_kind("table"), "999999.table"), (of_kind("wal"), "000000.wal"), (of_kind("wal"), "x.spare")]
    {
        left.write(&Path::new("/db").join(to), &left.read(from)?)?;
    }
    left.write(Path::new("/db/CURRENT.tmp"), b"SILT")?;
    // The last one that is in use: others may be ready behind it.
    let logs = paths.iter().filter(|path| path.extension().is_some_and(|k| k == "wal"));
    let is_used = |path: &&PathBuf| left.read(path).is_ok_and(|bytes| bytes.iter().any(|&byte| byte != 0));
    let log = logs.filter(is_used).max().unwrap();
    let mut torn = left.read(log)?;
    let end = torn.iter().rposition(|&byte| byte != 0).unwrap() + 1;
    torn[end + 8..end + 40].fill(0xab);
    left.write(log, &torn)?;
    let files =
        |sim: &SimFileSystem| sim.paths().into_iter().map(|p| (p.clone(), sim.read(&p).unwrap())).collect::<Vec<_>>();
    let (before, calls) = (files(&left), left.call_count());
    for _ in 0..2 {
        let readers = [on(left.clone()).read_only(true).open("/db")?, on(left.clone()).read_only(true).open("/db")?];
        for db in &readers {
            assert!(contents(&a(db)) == expected);
            assert!(matches!(a(db).put("k", "v"), Err(Error::ReadOnly { .. })));
            assert!(matches!(db.drop_keyspace("a"), Err(Error::ReadOnly { .. })));
            assert!(db.verify().is_ok(), "{}", db.verify());
        }
        assert!(matches!(open(&left), Err(Error::Locked { .. })), "a writer beside readers");
        readers[0].close()?;
    }
    assert_eq!(left.call_count(), calls, "a call that changes something");
    assert!(files(&left) == before, "a byte differs");
    assert!(contents(&a(&open(&left)?)) == expected, "and a writer still finds it");
    evidence::record("read_only_opens", 4);
    Ok(())
}
