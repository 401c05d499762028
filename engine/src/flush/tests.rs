use super::*;
use crate::batch::WriteBatch;
use crate::fs::{Fault, FaultFileSystem, Keep, Op, SimFileSystem};
use crate::options::Durability;
use crate::testing::{
    DIRECTORY, eventually, files, fill, keyspace, manifest_state, open, options, set_metadata, store, wal, writer,
};

/// Puts a key without the log; its number.
fn put_unlogged(db: &crate::Db, ks: &crate::Keyspace) -> SeqNo {
    let mut batch = WriteBatch::new();
    batch.put(ks, "unlogged", "v");
    db.write_with(batch, Durability::NoLog).unwrap()
}

#[test]
fn the_log_is_needed_from_the_first_write_that_no_table_holds() {
    let db = open(&SimFileSystem::new());
    let (a, b) = (keyspace(&db, "a"), keyspace(&db, "b"));
    for ks in [&a, &a, &a, &b, &a] {
        ks.put("k", "v").unwrap();
    }
    assert_eq!(flushed_through(store(&db), &[]), 0);
    a.flush().unwrap();
    assert_eq!(flushed_through(store(&db), &[]), 3);
    b.flush().unwrap();
    assert_eq!(flushed_through(store(&db), &[]), 5);
}

#[test]
fn a_flush_notes_what_its_table_holds_and_how_far_the_log_is_synced() {
    let fs = SimFileSystem::new();
    let db = open(&fs);
    let (a, b) = (keyspace(&db, "a"), keyspace(&db, "b"));
    a.put("k", "v").unwrap();
    b.put("k", "v").unwrap();
    a.flush().unwrap();
    let state = manifest_state(&fs);
    assert_eq!((state.log_synced_seqno, state.log_floor.segment), (2, 1), "no log went that would have noted it");
    assert_eq!((state.keyspaces[&1].flushed_seqno, state.keyspaces[&1].levels[0].len()), (1, 1));
    assert_eq!((state.keyspaces[&2].flushed_seqno, state.keyspaces[&2].levels[0].len()), (0, 0));
    assert!(a.tree().view().sealed.is_empty());
    assert_eq!(store(&db).memtable_bytes(), a.tree().view().active.bytes() + b.tree().view().active.bytes());
}

/// What a power cut after the flush leaves: of the log only what was synced.
fn keys_after_power_cut(fs: &SimFileSystem, name: &str) -> usize {
    let left = fs.crash_clone(Keep::Nothing, 0);
    keyspace(&open(&left), name).iter().collect::<Result<Vec<_>>>().unwrap().len()
}

#[test]
fn log_that_goes_with_the_flush_is_not_synced() {
    let fs = SimFileSystem::new();
    let db = open(&fs);
    let ks = keyspace(&db, "ks");
    fill(&ks, "", 900_000);
    // Where the next segment has no file, what the active one holds is synced, and no more.
    writer(&db).with_state(|state| state.give_back_spares(900));
    let (segments, syncs) = (wal(&db).active_segment(), wal(&db).sync_count());
    assert!(segments >= 3 && ks.tree().view().sealed.is_empty());
    ks.flush().unwrap();
    assert_eq!((manifest_state(&fs).log_floor.segment, wal(&db).sync_count()), (segments, syncs + 1));
    assert_eq!((wal(&db).synced_seqno(), keys_after_power_cut(&fs, "ks")), (900, 900));
}

/// Else up to a segment would be synced with every flush, and all that is written until it begins.
#[test]
fn what_is_logged_after_a_memtable_is_neither_kept_with_it_nor_synced_for_it() {
    let fs = SimFileSystem::new();
    let db = open(&fs);
    let ks = keyspace(&db, "ks");
    fill(&ks, "", 900_000);
    wal(&db).prepare_spare().unwrap();
    assert!(ks.tree().view().active.bytes() as u64 >= store(&db).limits.wal_segment_bytes);
    let active = wal(&db).active_segment();
    let only_flush = ks.tree().flushing.lock();
    writer(&db).with_state(|state| state.seal(ks.tree().id));
    ks.put("after", "v").unwrap();
    drop(only_flush);
    eventually("the flush", || ks.tree().view().sealed.is_empty() && wal(&db).oldest_segment() > active);
    let state = manifest_state(&fs);
    assert_eq!((state.log_floor.segment, state.log_floor.prev_seqno, state.last_seqno), (active + 1, 900, 900));
    assert_eq!((wal(&db).synced_seqno(), keys_after_power_cut(&fs, "ks")), (900, 900));
    assert_eq!(wal(&db).active_segment(), active + 1);
    // A memtable of less than a segment shares it with others.
    fill(&ks, "b", 1000);
    wal(&db).prepare_spare().unwrap();
    ks.flush().unwrap();
    assert_eq!(wal(&db).active_segment(), active + 1);
}

#[test]
fn log_that_another_keyspace_needs_is_synced_before_the_flush_shows() {
    let fs = SimFileSystem::new();
    let db = open(&fs);
    let (ks, other) = (keyspace(&db, "ks"), keyspace(&db, "other"));
    other.put("first", "v").unwrap();
    fill(&ks, "", 900_000);
    let (segments, syncs) = (wal(&db).active_segment(), wal(&db).sync_count());
    ks.flush().unwrap();
    assert_eq!((manifest_state(&fs).log_floor.segment, wal(&db).sync_count()), (1, syncs + segments));
    assert_eq!((keys_after_power_cut(&fs, "other"), keys_after_power_cut(&fs, "ks")), (1, 900));
}

#[test]
fn log_that_goes_leaves_behind_what_it_alone_knew() {
    let fs = SimFileSystem::new();
    let db = open(&fs);
    let (a, b) = (keyspace(&db, "a"), keyspace(&db, "b"));
    keyspace(&db, "early");
    assert!(db.drop_keyspace("early").unwrap());
    set_metadata(&db, "position", "7");
    fill(&a, "", 700_000);
    let pin = wal(&db).pin(1).unwrap();
    a.flush().unwrap();
    keyspace(&db, "late");
    assert!(db.drop_keyspace("late").unwrap());
    assert_eq!(manifest_state(&fs).log_floor.segment, 1, "the pin holds it");
    drop(pin);
    b.put("logged", "v").unwrap();
    let last = put_unlogged(&db, &b);
    assert!(wal(&db).synced_seqno() < last - 1);
    release_log(store(&db), wal(&db)).unwrap();
    let state = manifest_state(&fs);
    assert!(state.log_floor.segment > 1 && state.log_floor.prev_seqno > 100);
    assert_eq!((state.log_synced_seqno, state.last_seqno), (last - 1, last));
    assert_eq!(state.metadata.get("position").map(|value| &value[..]), Some(&b"7"[..]));
    assert_eq!(state.dropped.values().map(|dropped| &dropped.name[..]).collect::<Vec<_>>(), ["late"]);
    let names = [a.id(), b.id(), 3, 4].map(|id| store(&db).name_of(id).to_string());
    assert_eq!(names, ["a", "b", "#3", "late"]);
    let oldest = format!("{:06}.wal", state.log_floor.segment);
    assert_eq!(files(&fs, "wal")[0], oldest);
}

#[test]
fn a_floor_that_the_manifest_has_is_not_written_again() {
    let sim = SimFileSystem::new();
    let fs = FaultFileSystem::new(Arc::new(sim.clone()));
    let db = options(&sim).file_system(Arc::new(fs.clone())).open(DIRECTORY).unwrap();
    let ks = keyspace(&db, "ks");
    let pin = wal(&db).pin(1).unwrap();
    fill(&ks, "", 1_500_000);
    db.flush().unwrap();
    db.wait_for_compaction().unwrap();
    drop(pin);
    fs.only(Op::Remove);
    fs.fail_at(1, Fault::Io);
    // A file that cannot be removed is no failure.
    release_log(store(&db), wal(&db)).unwrap();
    let manifest = || sim.read("db/MANIFEST-000001".as_ref()).unwrap();
    let (before, floor) = (manifest(), manifest_state(&sim).log_floor.segment);
    assert!(floor > 1);
    release_log(store(&db), wal(&db)).unwrap();
    assert!(manifest() == before);
}

#[test]
fn a_tree_with_nothing_sealed_gets_no_table() {
    let fs = SimFileSystem::new();
    let db = open(&fs);
    let ks = keyspace(&db, "ks");
    ks.put("k", "v").unwrap();
    ks.flush().unwrap();
    let before = (fs.paths(), manifest_state(&fs));
    flush_tree(store(&db), ks.tree()).unwrap();
    assert!(before == (fs.paths(), manifest_state(&fs)));
    assert!(!flush_next(store(&db)).unwrap(), "no tree waits");
}

#[test]
fn a_dropped_tree_gets_no_table() {
    let fs = SimFileSystem::new();
    let db = open(&fs);
    let ks = keyspace(&db, "ks");
    ks.put("k", "v").unwrap();
    let flushing = ks.tree().flushing.lock();
    writer(&db).with_state(|state| state.seal(ks.id()));
    ks.tree().mark_dropped(2);
    drop(flushing);
    store(&db).wait_until(|| store(&db).flushes.is_idle()).unwrap();
    flush_tree(store(&db), ks.tree()).unwrap();
    assert!(files(&fs, "table").is_empty());
}

#[test]
fn a_table_of_a_keyspace_that_went_meanwhile_is_not_installed() {
    let db = open(&SimFileSystem::new());
    let ks = keyspace(&db, "ks");
    ks.put("k", "v").unwrap();
    let sealed = vec![ks.tree().view().active.clone()];
    let moment = store(&db).moment(wal(&db));
    let tables = write_table(store(&db), ks.tree(), &sealed, 1).unwrap();
    assert_eq!(tables.len(), 1);
    assert!(db.drop_keyspace("ks").unwrap());
    assert!(!install(store(&db), wal(&db), ks.tree(), &sealed, 1, tables, moment).unwrap());
    assert_eq!(ks.tree().view().version.tables().count(), 0);
}

#[test]
fn a_close_notes_how_far_everything_goes() {
    let fs = SimFileSystem::new();
    let db = open(&fs);
    let ks = keyspace(&db, "ks");
    ks.put("k", "v").unwrap();
    set_metadata(&db, "position", "7");
    wal(&db).sync_all().unwrap();
    let last = put_unlogged(&db, &ks);
    note_synced(store(&db), wal(&db)).unwrap();
    let state = manifest_state(&fs);
    assert_eq!((state.log_synced_seqno, state.last_seqno), (1, last));
    assert_eq!(state.metadata.get("position").map(|value| &value[..]), Some(&b"7"[..]));
    ks.put("k", "w").unwrap();
    db.close().unwrap();
    assert_eq!(manifest_state(&fs).log_synced_seqno, last + 1);
}

/// A keyspace that was dropped between two looks was taken for one that the log does not name: followers got its changes
/// under a number instead of its name.
#[test]
fn a_keyspace_dropped_or_created_meanwhile_keeps_its_name() {
    let db = open(&SimFileSystem::new());
    let a = keyspace(&db, "a").id();
    let known = known_keyspaces(store(&db));
    db.drop_keyspace("a").unwrap();
    let b = keyspace(&db, "b").id();
    forget_names(store(&db), &known);
    assert_eq!([a, b].map(|id| store(&db).name_of(id).to_string()), ["a", "b"]);
    forget_names(store(&db), &HashSet::new());
    assert_eq!([a, b].map(|id| store(&db).name_of(id).to_string()), [format!("#{a}"), "b".to_owned()]);
}

#[test]
fn a_handle_keeps_the_name_of_its_dropped_keyspace() {
    let db = open(&SimFileSystem::new());
    let held = keyspace(&db, "held");
    let id = held.id();
    db.drop_keyspace("held").unwrap();
    forget_names(store(&db), &HashSet::new());
    assert_eq!(*store(&db).name_of(id), *"held");
    drop(held);
    forget_names(store(&db), &HashSet::new());
    assert_eq!(store(&db).name_of(id).to_string(), format!("#{id}"));
}

#[test]
fn an_idle_log_keeps_no_files_for_what_comes_next() {
    let fs = SimFileSystem::new();
    let db = open(&fs);
    let ks = keyspace(&db, "ks");
    fill(&ks, "", 900_000);
    ks.flush().unwrap();
    crate::testing::eventually("a file is ready", || files(&fs, "wal").len() + files(&fs, "spare").len() > 1);
    db.wait_for_compaction().unwrap();
    let active = format!("{:06}.wal", wal(&db).active_segment());
    assert_eq!(files(&fs, "wal"), [active]);
    assert_eq!(files(&fs, "spare"), Vec::<String>::new());
    // What is written goes on in the same segment, and behind it.
    fill(&ks, "x", 900_000);
    let count = ks.iter().count();
    db.close().unwrap();
    assert_eq!(files(&fs, "spare"), Vec::<String>::new(), "nor a closed one");
    assert_eq!(keyspace(&open(&fs), "ks").iter().count(), count);
}
