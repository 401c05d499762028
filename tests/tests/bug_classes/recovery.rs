//! What a crash, or damage, leaves: replay, syncs, manifests.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use siltstone::fs::{FileSystem, Keep, Op, SimFileSystem};
use siltstone::{Change, ChangeBatch, Db, Durability, Error, Keyspace, Options, Result, WriteBatch};
use siltstone_tests::evidence;
use siltstone_tests::hook::{HookFileSystem, Moment, Side};
use siltstone_tests::options::tiny_keyspace;

use super::{Done, contents, on, open};

const LOSSES: [(Keep, u64); 4] = [(Keep::All, 0), (Keep::Nothing, 0), (Keep::Some, 1), (Keep::Some, 2)];

fn a(db: &Db) -> Keyspace {
    db.keyspace("a", tiny_keyspace()).unwrap()
}

/// The calls that `run` makes on a filesystem, and what is left when the power goes at each of them.
fn every_cut(run: impl Fn(&SimFileSystem), mut check: impl FnMut(SimFileSystem, String)) {
    let whole = SimFileSystem::new();
    run(&whole);
    for at in 0..=whole.call_count() {
        let sim = SimFileSystem::new();
        sim.stop_after(at);
        run(&sim);
        for (keep, seed) in LOSSES {
            check(
                sim.crash_clone(keep, seed),
                format!("power cut at call {at} of {}, {keep:?} {seed}", whole.call_count()),
            );
        }
    }
}

/// What `before` holds is all dropped, by `drop_keyspace` and by applying a log that says so; from then on not one of
/// these keys comes back, whenever the power is cut, and the keyspace of that name that was made since keeps its own.
#[test]
fn drop_undone_by_replay() {
    for applied in [false, true] {
        let dropped = Mutex::new(false);
        let run = |sim: &SimFileSystem| drop(drop_and_recreate(sim, applied, &dropped));
        every_cut(
            |sim| {
                *dropped.lock().unwrap() = false;
                run(sim);
            },
            |left, what| {
                let db = open(&left).unwrap_or_else(|error| panic!("{what}: {error}"));
                let keys: Vec<_> = contents(&a(&db)).into_keys().collect();
                let old = keys.iter().filter(|key| key.starts_with(b"old")).count();
                let is_dropped = *dropped.lock().unwrap();
                assert!(old == 0 || !is_dropped && keys.len() == old, "{what}: {old} of {} keys are back", keys.len());
            },
        );
    }
    evidence::record("wrong", 0);
}

fn drop_and_recreate(sim: &SimFileSystem, applied: bool, dropped: &Mutex<bool>) -> Result<()> {
    let db = open(sim)?;
    let keyspace = db.keyspace("a", tiny_keyspace())?;
    keyspace.put_all([("old 1", "in a table"), ("old 2", "too")])?;
    keyspace.flush()?;
    keyspace.put("old 3", "in the log")?;
    if applied {
        let drop = Change::DropKeyspace { keyspace: "a".into() };
        db.apply::<&str>(&ChangeBatch::new(db.last_seqno() + 1, vec![drop])?, &[])?;
    } else {
        db.drop_keyspace("a")?;
    }
    *dropped.lock().unwrap() = true;
    let keyspace = db.keyspace("a", tiny_keyspace())?;
    keyspace.put("new 1", "in a table")?;
    keyspace.flush()?;
    keyspace.put("new 2", "in the log")?;
    db.sync()
}

/// Numbers go on where they were, whatever held the last ones: tables alone (unlogged and flushed), log that was let go
/// of, a drop. Otherwise what is written after a reopen would lie under what was written before.
#[test]
fn sequence_number_regresses() -> Done {
    for durability in [Durability::NoLog, Durability::Buffered, Durability::Synced] {
        for dropped in [false, true] {
            let sim = SimFileSystem::new();
            let options = || on(sim.clone()).durability(durability);
            for round in 0..5u8 {
                let db = options().open("/db")?;
                let keyspace = a(&db);
                let before = db.last_seqno();
                assert!(before >= u64::from(round) * 300, "{before} in round {round}");
                for n in 0..300u32 {
                    keyspace.put((n % 100).to_be_bytes(), [&[round][..], &[b'v'; 900]].concat())?;
                }
                assert!(
                    contents(&keyspace).values().all(|value| value.first().is_none_or(|&first| first == round)),
                    "{durability:?}, round {round}"
                );
                db.flush()?;
                if dropped {
                    db.keyspace("b", tiny_keyspace())?;
                    db.drop_keyspace("b")?;
                }
                let last = db.last_seqno();
                drop((keyspace, db));
                let db = options().open("/db")?;
                assert_eq!(db.last_seqno(), last, "{durability:?}, round {round}");
                let keyspace = a(&db);
                assert!(
                    contents(&keyspace).values().all(|value| value.first().is_none_or(|&first| first == round)),
                    "{durability:?}, round {round}, reopened"
                );
                assert_eq!(keyspace.put("next", "")?, last + 1);
            }
        }
    }
    Ok(())
}

/// A process is killed after every call that makes, switches, syncs or removes a file while the log rolls and memtables
/// are flushed. Records end exactly where their segment does, and in another run at every distance from it.
#[test]
fn replay_boundary_or_segment_missed() -> Done {
    // A record of 528 bytes: 124 of them fill a segment of 64 KiB behind its header of 64 bytes.
    for length in [|_| 471, |n: u32| n as usize * 7 % 531] {
        kill_while_the_log_rolls(length)?;
    }
    evidence::record("lost", 0);
    Ok(())
}

fn kill_while_the_log_rolls(length: fn(u32) -> usize) -> Done {
    let sim = SimFileSystem::new();
    let acknowledged = Arc::new(AtomicU32::new(0));
    let left = Arc::new(Mutex::new(Vec::new()));
    let hook = {
        let (sim, acknowledged, left) = (sim.clone(), acknowledged.clone(), left.clone());
        move |moment: &Moment<'_>| {
            if moment.side == Side::After && !matches!(moment.op, Op::MappedWrite | Op::Read | Op::StartWriteback) {
                // Before the copy: what is acknowledged meanwhile is in it or not.
                let least = acknowledged.load(Ordering::SeqCst);
                left.lock().unwrap().push((least, sim.crash_clone(Keep::All, 0)));
            }
        }
    };
    let db = on(HookFileSystem::new(Arc::new(sim.clone()), hook)).open("/db")?;
    let keyspace = a(&db);
    let mut most = 0;
    for n in 0..1000u32 {
        keyspace.put(n.to_be_bytes(), vec![n as u8; length(n)])?;
        acknowledged.store(n + 1, Ordering::SeqCst);
        if n % 400 == 399 {
            keyspace.flush()?;
        }
        for (least, left) in left.lock().unwrap().drain(..) {
            let found = contents(&a(&open(&left)?));
            assert!(found.len() >= least as usize, "{} of at least {least}", found.len());
            let mut keys = found.iter().zip(0u32..);
            assert!(keys.all(|((key, value), n)| key[..] == n.to_be_bytes() && value.len() == length(n)));
            most = most.max(found.len());
        }
    }
    assert!(most > 700, "{most} were there when a file changed for the last time");
    Ok(())
}

/// Each byte of a log is flipped in turn. What was synced is there, or the flip is `Corruption`; what was not is a first
/// part, never one with a hole.
#[test]
fn mid_log_damage_taken_as_the_tail() -> Done {
    const SYNCED: usize = 6;
    let sim = SimFileSystem::new();
    let db = open(&sim)?;
    let keyspace = a(&db);
    for n in 0..10u8 {
        keyspace.put([n], vec![n; 30])?;
        if usize::from(n) + 1 == SYNCED {
            db.sync()?;
        }
    }
    let killed = sim.crash_clone(Keep::All, 0);
    let log = killed.paths().into_iter().find(|path| path.extension().is_some_and(|kind| kind == "wal")).unwrap();
    let bytes = killed.read(&log)?;
    let end = bytes.iter().rposition(|&byte| byte != 0).unwrap() + 1;
    let (mut refused, mut cut) = (0, 0);
    for at in 0..end + 20 {
        let damaged = killed.crash_clone(Keep::All, 0);
        damaged.flip_bit(&log, at as u64, at as u32)?;
        match open(&damaged) {
            Ok(db) => {
                let found: Vec<Vec<u8>> = contents(&a(&db)).into_keys().collect();
                assert!(found.len() >= SYNCED, "byte {at}: {} left", found.len());
                assert!(found.iter().zip(0u8..).all(|(key, n)| *key == [n]), "byte {at}: a hole");
                cut += usize::from(found.len() < 10);
            }
            Err(Error::Corruption { file, .. }) => {
                assert_eq!(file, log, "byte {at}");
                refused += 1;
            }
            Err(Error::UnsupportedVersion { .. }) => {}
            Err(error) => panic!("byte {at}: {error:?}"),
        }
    }
    assert!(refused > SYNCED * 60 && cut > 60, "{refused} refused, {cut} cut the unsynced tail");
    evidence::record("flipped_bytes", end as u64 + 20);
    Ok(())
}

/// Runs `work` and, at each moment that `wanted` picks, cuts the power so that nothing unsynced stays; what is left must
/// open, verify, and hold at least the entries that were durable then. Answers how many moments there were.
fn cut_at(
    wanted: impl Fn(&Moment<'_>) -> bool + Send + Sync + 'static,
    work: impl Fn(&Db, &AtomicU32) -> Result<()>,
) -> Result<usize> {
    let sim = SimFileSystem::new();
    let durable = Arc::new(AtomicU32::new(0));
    let left = Arc::new(Mutex::new(Vec::new()));
    let hook = {
        let (sim, durable, left) = (sim.clone(), durable.clone(), left.clone());
        move |moment: &Moment<'_>| {
            if wanted(moment) {
                let least = durable.load(Ordering::SeqCst);
                let what = format!("{:?} {:?} {}", moment.side, moment.op, moment.path.display());
                left.lock().unwrap().push((least, what, sim.crash_clone(Keep::Nothing, 0)));
            }
        }
    };
    let db = on(HookFileSystem::new(Arc::new(sim.clone()), hook)).open("/db")?;
    work(&db, &durable)?;
    drop(db);
    let left = std::mem::take(&mut *left.lock().unwrap());
    for (least, what, left) in &left {
        let db = open(left).unwrap_or_else(|error| panic!("{what}: {error}"));
        let found = contents(&a(&db)).len();
        assert!(found >= *least as usize, "{what}: {found} of {least} entries");
        assert!(db.verify().is_ok(), "{what}: {}", db.verify());
    }
    Ok(left.len())
}

fn fill(db: &Db, durable: &AtomicU32, flushed: bool) -> Result<()> {
    let keyspace = a(db);
    for n in 0..900u32 {
        keyspace.put(n.to_be_bytes(), vec![n as u8; 250])?;
        if n % 90 == 89 {
            if flushed {
                keyspace.flush()?
            } else {
                db.sync()?
            }
            durable.store(n + 1, Ordering::SeqCst);
        }
    }
    keyspace.compact()
}

fn is_manifest(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("MANIFEST-"))
}

/// The power goes right after each sync of the manifest: whatever it names by then is on storage.
#[test]
fn table_not_synced_before_the_manifest_names_it() -> Done {
    let after_sync =
        |moment: &Moment<'_>| (moment.side, moment.op) == (Side::After, Op::Sync) && is_manifest(moment.path);
    let moments = cut_at(after_sync, |db, durable| fill(db, durable, true))?;
    assert!(moments > 10, "{moments} syncs of the manifest");
    Ok(())
}

/// The power goes at every write to the log and every sync, with nothing kept whose name was not synced: log segments,
/// the manifest, `CURRENT` and the directory itself.
#[test]
fn directory_fsync_missing() -> Done {
    let counter = AtomicU32::new(0);
    let moments = cut_at(
        move |moment| match moment.op {
            Op::MappedSync | Op::Sync | Op::SyncDir => moment.side == Side::After,
            // Every tenth will do.
            Op::MappedWrite => counter.fetch_add(1, Ordering::Relaxed).is_multiple_of(10),
            _ => false,
        },
        |db, durable| fill(db, durable, false),
    )?;
    assert!(moments > 200, "{moments} moments");
    // What is created is durable when the call returns, in a directory whose parents were missing as well.
    let sim = SimFileSystem::new();
    let db = on(sim.clone()).open("/new/in/new/db")?;
    a(&db).put("k", "v")?;
    db.sync()?;
    let left = sim.crash_clone(Keep::Nothing, 0);
    assert_eq!(a(&on(left).open("/new/in/new/db")?).get("k")?.unwrap(), "v");
    Ok(())
}

/// `CURRENT` and the manifest are cut at every offset: after a clean close that is always found. Torn by a power cut,
/// they are as before or as after the change.
#[test]
fn torn_manifest_or_current() -> Done {
    let sim = SimFileSystem::new();
    let db = open(&sim)?;
    let keyspace = a(&db);
    keyspace.put("k", "v")?;
    keyspace.flush()?;
    db.close()?;
    drop((keyspace, db));
    let files: Vec<PathBuf> =
        sim.paths().into_iter().filter(|path| is_manifest(path) || path.ends_with("CURRENT")).collect();
    assert_eq!(files.len(), 2);
    for file in &files {
        let bytes = sim.read(file)?;
        for len in 0..bytes.len() {
            let torn = sim.crash_clone(Keep::All, 0);
            torn.write(file, &bytes[..len])?;
            let answer = open(&torn);
            assert!(
                matches!(&answer, Err(Error::Corruption { file: named, .. }) if named == file),
                "{len}: {answer:?}"
            );
        }
        evidence::record("truncations", bytes.len() as u64);
    }
    let run =
        |sim: &SimFileSystem| drop(open(sim).and_then(|db| db.keyspace("b", tiny_keyspace()).map(|_| db.close())));
    every_cut(run, |left, what| {
        let db = open(&left).unwrap_or_else(|error| panic!("{what}: {error}"));
        assert!(db.keyspaces().is_empty() || db.keyspaces() == ["b"], "{what}");
    });
    Ok(())
}

/// A batch over three keyspaces, larger than a sector of storage: all of it or nothing at every cut, and still the same
/// answer when the recovery is cut at each of its own calls.
#[test]
fn batch_split_and_double_crash() {
    let written = Mutex::new(0u8);
    let run = |sim: &SimFileSystem| {
        *written.lock().unwrap() = 0;
        let _cut_short: Result<()> = write_batches(sim, &written);
    };
    let mut states = 0;
    every_cut(run, |left, what| {
        let durable = *written.lock().unwrap();
        let recovered = left.crash_clone(Keep::All, 0);
        check_whole(&recovered, durable, &what);
        for at in (0..recovered.call_count()).step_by(3) {
            let again = left.crash_clone(Keep::All, 0);
            again.stop_after(at);
            drop(open(&again));
            let (keep, seed) = LOSSES[at as usize % LOSSES.len()];
            check_whole(&again.crash_clone(keep, seed), durable, &format!("{what}, recovery cut at {at}, {keep:?}"));
            states += 1;
        }
    });
    evidence::record("double_crash_states", states);
    evidence::record("lost", 0);
}

fn names() -> [String; 3] {
    ["a", "b", "c"].map(str::to_owned)
}

fn write_batches(sim: &SimFileSystem, written: &Mutex<u8>) -> Result<()> {
    let db = open(sim)?;
    let keyspaces = names().map(|name| db.keyspace(name, tiny_keyspace()));
    for round in 1..=6u8 {
        let mut batch = WriteBatch::new();
        for keyspace in &keyspaces {
            if let Ok(keyspace) = keyspace {
                batch.put(keyspace, "round", [round]).put(keyspace, "padding", vec![round; 700]);
            }
        }
        let durability = if round % 3 == 0 { Durability::Synced } else { Durability::Buffered };
        db.write_with(batch, durability)?;
        if durability == Durability::Synced {
            *written.lock().unwrap() = round;
        }
        if round == 4 {
            db.flush()?;
            *written.lock().unwrap() = round;
        }
    }
    Ok(())
}

fn check_whole(left: &SimFileSystem, durable: u8, what: &str) {
    let db = open(left).unwrap_or_else(|error| panic!("{what}: {error}"));
    let states = names().map(|name| contents(&db.keyspace(name, tiny_keyspace()).unwrap()));
    let round = states[0].get(&b"round"[..]).map_or(0, |round| round[0]);
    let mut expected = BTreeMap::new();
    if round > 0 {
        expected.insert(b"round".to_vec(), vec![round]);
        expected.insert(b"padding".to_vec(), vec![round; 700]);
    }
    assert!(states.iter().all(|state| *state == expected), "{what}: a part of a batch");
    assert!(round >= durable, "{what}: batch {round} is the last, {durable} was durable");
}

/// Files go when nothing needs them: the power is cut before each removal and rename, also while an iterator and a
/// snapshot read from tables that are long replaced.
#[test]
fn garbage_collection_deletes_live_data() -> Done {
    let before_removal = |moment: &Moment<'_>| {
        moment.side == Side::Before && matches!(moment.op, Op::Remove | Op::Rename | Op::Truncate)
    };
    let moments = cut_at(before_removal, |db, durable| {
        let keyspace = a(db);
        keyspace.put_all((0..600u32).map(|n| (n.to_be_bytes(), [0; 200])))?;
        keyspace.flush()?;
        let (snapshot, mut iter) = (db.snapshot(), keyspace.iter());
        iter.next().unwrap()?;
        for round in 1..6u8 {
            keyspace.put_all((0..600u32).map(|n| (n.to_be_bytes(), [round; 200])))?;
            keyspace.compact()?;
            durable.store(600, Ordering::SeqCst);
        }
        db.wait_for_compaction()?;
        assert!(snapshot.iter(&keyspace).all(|entry| entry.unwrap().1 == [0; 200][..]));
        assert_eq!(iter.map(|entry| usize::from(entry.unwrap().1 == [0; 200][..])).sum::<usize>(), 599);
        Ok(())
    })?;
    assert!(moments > 10, "{moments} removals");
    Ok(())
}

/// A directory that lost its name is a fresh one; what `Options` find in it is not mixed with what was there.
#[test]
fn leftovers_of_a_creation_are_no_database() -> Done {
    let run = |sim: &SimFileSystem| drop(open(sim));
    every_cut(run, |left, what| {
        let missing = Options::new().create_if_missing(false).file_system(Arc::new(left.clone())).open("/db");
        assert!(matches!(&missing, Ok(_) | Err(Error::Io { .. })), "{what}: {missing:?}");
        drop(missing);
        let db = open(&left).unwrap_or_else(|error| panic!("{what}: {error}"));
        assert_eq!((db.last_seqno(), db.keyspaces().len()), (0, 0), "{what}");
        assert!(left.read_dir(Path::new("/db")).is_ok());
    });
    Ok(())
}
