use super::*;
use crate::batch::{WriteBatch, encode_put};
use crate::fs::{
    DirEntry, Fault, FaultFileSystem, FileSystem, Keep, MappedFile, Op as Call, ReadableFile, SimFileSystem,
    WritableFile,
};
use crate::key::MAX_SEQNO;
use crate::options::KeyspaceOptions;
use crate::testing::{DIRECTORY, eventually, files, fill, keyspace, manifest_state, open, options, store, wal};
use crate::version::edit::{KeyspaceCreated, KeyspaceEdit};

fn is_not_found(result: Result<Db>) -> bool {
    matches!(result, Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound)
}

fn table_counts(db: &Db) -> Vec<usize> {
    store(db).live_trees().iter().map(|tree| tree.view().version.tables().count()).collect()
}

#[test]
fn nothing_is_created_read_only_or_against_the_callers_will() {
    let fs = SimFileSystem::new();
    let unwilling = || [options(&fs).read_only(true), options(&fs).create_if_missing(false)];
    for options in unwilling() {
        assert!(is_not_found(options.open(DIRECTORY)));
        assert!(fs.read_dir(DIRECTORY.as_ref()).is_err(), "no directory");
    }
    fs.write(&Path::new(DIRECTORY).join(LOCK), b"").unwrap();
    for options in unwilling() {
        assert!(is_not_found(options.open(DIRECTORY)));
        assert_eq!(fs.paths(), [Path::new(DIRECTORY).join(LOCK)]);
    }
    open(&fs).close().unwrap();
    for options in unwilling() {
        options.open(DIRECTORY).unwrap().close().unwrap();
    }
}

#[test]
fn a_directory_has_one_writer_or_any_number_of_readers() {
    let fs = SimFileSystem::new();
    let writer = open(&fs);
    let is_locked = |options: Options| matches!(options.open(DIRECTORY), Err(Error::Locked { .. }));
    assert!(is_locked(options(&fs)) && is_locked(options(&fs).read_only(true)));
    writer.close().unwrap();
    let readers = [(); 2].map(|()| options(&fs).read_only(true).open(DIRECTORY).unwrap());
    assert!(is_locked(options(&fs)));
    readers.iter().for_each(|reader| reader.close().unwrap());
    open(&fs);
}

#[test]
fn a_new_database_has_an_id_of_its_own_and_counts_from_one() {
    let mut ids = HashSet::new();
    for _ in 0..16 {
        let fs = SimFileSystem::new();
        let db = open(&fs);
        let state = manifest_state(&fs);
        assert!(state.database_id % 2 == 1, "never 0: {}", state.database_id);
        assert!(ids.insert(state.database_id), "unique");
        assert_eq!((state.log_floor, state.last_seqno), (LogFloor { segment: 1, prev_seqno: 0 }, 0));
        let ks = keyspace(&db, "ks");
        ks.put("k", "v").unwrap();
        ks.flush().unwrap();
        assert_eq!((ks.id(), files(&fs, "table")), (1, vec!["000001.table".to_owned()]));
    }
}

#[test]
fn a_table_that_is_missing_or_of_another_length_is_named_at_open() {
    let fs = SimFileSystem::new();
    let db = open(&fs);
    let ks = keyspace(&db, "ks");
    ks.put("k", "v").unwrap();
    ks.flush().unwrap();
    let path = table_path(DIRECTORY.as_ref(), 1);
    let bytes = fs.read(&path).unwrap();
    let longer = [&bytes[..], &[0]].concat();
    for (damage, contents) in
        [("none", Some(&bytes[..])), ("missing", None), ("short", Some(&bytes[1..])), ("long", Some(&longer))]
    {
        let killed = fs.crash_clone(Keep::All, 0);
        match contents {
            Some(contents) => killed.write(&path, contents).unwrap(),
            None => killed.remove_file(&path).unwrap(),
        }
        for read_only in [true, false] {
            match options(&killed).read_only(read_only).open(DIRECTORY) {
                Ok(_) => assert_eq!(damage, "none"),
                Err(Error::Corruption { file, .. }) => assert!(damage != "none" && file == path, "{damage}"),
                Err(other) => panic!("{damage}: {other}"),
            }
        }
    }
}

#[test]
fn tables_that_no_edit_names_are_removed_by_the_next_writer() {
    let fs = SimFileSystem::new();
    let db = open(&fs);
    let ks = keyspace(&db, "ks");
    ks.put("k", "v").unwrap();
    ks.flush().unwrap();
    db.close().unwrap();
    fs.write(&table_path(DIRECTORY.as_ref(), 99), b"begun, and cut short").unwrap();
    options(&fs).read_only(true).open(DIRECTORY).unwrap().close().unwrap();
    assert_eq!(files(&fs, "table"), ["000001.table", "000099.table"]);
    let db = open(&fs);
    assert_eq!(files(&fs, "table"), ["000001.table"]);
    assert_eq!(keyspace(&db, "ks").get("k").unwrap().unwrap(), "v");
}

#[test]
fn a_drop_that_only_the_log_knows_is_finished_by_the_next_open() {
    let sim = SimFileSystem::new();
    let fs = FaultFileSystem::new(Arc::new(sim.clone()));
    let db = options(&sim).file_system(Arc::new(fs.clone())).open(DIRECTORY).unwrap();
    let ks = keyspace(&db, "ks");
    ks.put("k", "v").unwrap();
    ks.flush().unwrap();
    fs.only(Call::Append);
    fs.fail_at(1, Fault::Io);
    assert!(db.drop_keyspace("ks").is_err(), "the manifest cannot be written");
    let killed = sim.crash_clone(Keep::All, 0);
    assert_eq!(manifest_state(&killed).keyspaces.len(), 1);
    let reader = options(&killed).read_only(true).open(DIRECTORY).unwrap();
    assert!(reader.keyspaces().is_empty());
    assert_eq!(manifest_state(&killed).keyspaces.len(), 1, "a reader changes nothing");
    reader.close().unwrap();
    let db = open(&killed);
    assert!(db.keyspaces().is_empty() && files(&killed, "table").is_empty());
    let state = manifest_state(&killed);
    assert_eq!((state.keyspaces.len(), state.dropped.len()), (0, 1));
    assert!(keyspace(&db, "ks").get("k").unwrap().is_none(), "a new one");
}

#[test]
fn an_open_takes_up_the_compaction_that_was_due() {
    let fs = SimFileSystem::new();
    let db = open(&fs);
    let ks = keyspace(&db, "ks");
    for value in ["1", "2", "3", "4", "5"] {
        ks.put("k", value).unwrap();
        ks.flush().unwrap();
    }
    db.keyspace("ks", KeyspaceOptions::new().level0_trigger(4)).unwrap();
    let db = open(&fs.crash_clone(Keep::All, 0));
    eventually("the tables are merged", || table_counts(&db) == [1]);
}

#[test]
fn an_open_flushes_nothing_that_fits_the_write_buffers() {
    let fs = SimFileSystem::new();
    let db = options(&fs).memory_bytes(8 << 20).open(DIRECTORY).unwrap();
    fill(&keyspace(&db, "a"), "", 400_000);
    let small = fs.crash_clone(Keep::All, 0);
    fill(&keyspace(&db, "b"), "", 900_000);
    let large = fs.crash_clone(Keep::All, 0);
    let db = options(&small).memtable_bytes(64 << 10).open(DIRECTORY).unwrap();
    assert!(store(&db).live_trees()[0].view().sealed.is_empty());
    db.wait_for_compaction().unwrap();
    assert_eq!(table_counts(&db), [0]);
    let db = open(&large);
    eventually("the largest is flushed", || table_counts(&db) == [0, 1]);
}

#[test]
fn tables_are_mapped_where_the_machines_memory_is_not_known() {
    let fs = SimFileSystem::new();
    let db = open(&fs);
    let ks = keyspace(&db, "ks");
    fill(&ks, "", 200_000);
    ks.flush().unwrap();
    assert!(ks.get("000100").unwrap().is_some());
    assert!(db.metrics().mapped_bytes > 200_000);
}

/// The simulated filesystem on a machine with 1 MiB of memory.
#[derive(Debug)]
struct SmallMachine(SimFileSystem);

impl FileSystem for SmallMachine {
    fn create(&self, path: &Path) -> io::Result<Box<dyn WritableFile>> {
        self.0.create(path)
    }
    fn open_append(&self, path: &Path) -> io::Result<Box<dyn WritableFile>> {
        self.0.open_append(path)
    }
    fn open(&self, path: &Path) -> io::Result<Arc<dyn ReadableFile>> {
        self.0.open(path)
    }
    fn create_mapped(&self, path: &Path, len: u64) -> io::Result<Box<dyn MappedFile>> {
        self.0.create_mapped(path, len)
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.0.rename(from, to)
    }
    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.0.remove_file(path)
    }
    fn truncate(&self, path: &Path, len: u64) -> io::Result<()> {
        self.0.truncate(path, len)
    }
    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        self.0.create_dir_all(path)
    }
    fn read_dir(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        self.0.read_dir(path)
    }
    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.0.sync_dir(path)
    }
    fn lock(&self, path: &Path, kind: LockKind) -> io::Result<Box<dyn FileLock>> {
        self.0.lock(path, kind)
    }
    fn memory_bytes(&self) -> Option<u64> {
        Some(64 << 10)
    }
}

#[test]
fn tables_are_mapped_up_to_eight_times_the_memory_there_is() {
    let fs = SimFileSystem::new();
    let db = options(&fs).file_system(Arc::new(SmallMachine(fs.clone()))).open(DIRECTORY).unwrap();
    for name in ["a", "b"] {
        let ks = keyspace(&db, name);
        fill(&ks, "", 300_000);
        ks.flush().unwrap();
        assert!(ks.get("000100").unwrap().is_some());
        assert!((300_000..512 << 10).contains(&db.metrics().mapped_bytes), "{name}: {}", db.metrics().mapped_bytes);
    }
}

#[test]
fn a_reopened_log_keeps_to_its_options() {
    let fs = SimFileSystem::new();
    let db = options(&fs).wal_segment_bytes(64 << 10).max_retained_wal_bytes(1).open(DIRECTORY).unwrap();
    let ks = keyspace(&db, "ks");
    let pin = wal(&db).pin(1).unwrap();
    fill(&ks, "", 300_000);
    assert!(files(&fs, "wal").len() > 4, "small segments");
    ks.flush().unwrap();
    assert!(matches!(pin.advance(2), Err(Error::NotRetained { .. })));
}

/// A state with one keyspace, flushed up to `flushed_seqno`.
fn state(flushed_seqno: SeqNo) -> ManifestState {
    let created = KeyspaceCreated { id: 1, name: "ks".into(), options: KeyspaceOptions::new() };
    let flushed = KeyspaceEdit { id: 1, flushed_seqno: Some(flushed_seqno), ..KeyspaceEdit::default() };
    let mut state = ManifestState::default();
    state.apply(&Edit { created: vec![created], keyspaces: vec![flushed], ..Edit::default() }).unwrap();
    state
}

fn replay_into<'s>(options: &'s Options, state: &'s ManifestState) -> Replay<'s> {
    Replay::new(options, state, Arc::new(ArenaPool::new(0, 1 << 20)))
}

fn put(key: &str) -> Vec<u8> {
    let mut payload = Vec::new();
    encode_put(&mut payload, 1, key.as_bytes(), b"value");
    payload
}

#[test]
fn a_record_with_other_operations_than_it_states_is_refused_before_they_are_inserted() {
    let (options, state) = (Options::new(), state(0));
    let payload = [put("a"), put("b")].concat();
    for (first, count, fits) in [(1, 2, true), (1, 1, false), (1, 3, false), (1, 0, false), (MAX_SEQNO, 1, false)] {
        let mut replay = replay_into(&options, &state);
        assert_eq!(replay.record(first, count, &payload).is_ok(), fits, "{count} from {first} on");
        let inserted = replay.inserter.finish().get(&1).map_or(0, |memtable| memtable.entries());
        assert!(inserted <= count.into(), "{count} from {first} on");
    }
}

#[test]
fn replayed_operations_have_the_numbers_that_they_were_written_with() {
    let (options, state) = (Options::new(), state(0));
    let mut replay = replay_into(&options, &state);
    let mut batch = WriteBatch::new();
    batch.put_in(7, 1, b"a", b"1");
    batch.metadata("position", Some("x"));
    batch.delete_in(7, 1, b"b");
    batch.put_in(7, 1, b"c", b"2");
    batch.metadata("last", Some("y"));
    replay.record(10, 3, &batch.encoded).unwrap();
    let memtable = &replay.inserter.finish()[&1];
    assert_eq!((memtable.first_seqno(), memtable.last_seqno()), (Some(10), Some(12)));
    assert_eq!((memtable.entries(), memtable.tombstones()), (3, 1));
    let at = |key: &str| memtable.get(&crate::key::Lookup::new(key.as_bytes(), MAX_SEQNO)).map(|(t, _)| t.seqno());
    assert_eq!((at("a"), at("b"), at("c")), (Some(10), Some(11), Some(12)));
    assert_eq!(replay.metadata.get("position").unwrap(), "x");
    assert_eq!(replay.metadata.get("last").unwrap(), "y");
}

#[test]
fn operations_that_tables_hold_or_a_drop_took_are_passed_over() {
    let (options, state) = (Options::new(), state(20));
    let flushed = |replay: &mut Replay<'_>| replay.record(19, 2, &[put("a"), put("b")].concat()).unwrap();
    let mut replay = replay_into(&options, &state);
    flushed(&mut replay);
    assert!(replay.inserter.finish().is_empty());
    let mut replay = replay_into(&options, &state);
    flushed(&mut replay);
    replay.record(21, 1, &put("c")).unwrap();
    assert_eq!(replay.inserter.finish()[&1].first_seqno(), Some(21));
    let mut replay = replay_into(&options, &state);
    replay.record(21, 1, &put("c")).unwrap();
    let mut drop = WriteBatch::new();
    drop.drop_keyspace(1);
    replay.record(22, 1, &drop.encoded).unwrap();
    replay.record(23, 1, &put("d")).unwrap();
    assert!(replay.inserter.finish().is_empty(), "what was gathered before the drop is passed over too");
    assert_eq!(replay.dropped, [(1, 22)]);
}

#[test]
fn a_record_may_name_a_dropped_keyspace_but_none_that_never_was() {
    let options = Options::new();
    let mut state = state(0);
    state.apply(&Edit { dropped: vec![(1, 5)], ..Edit::default() }).unwrap();
    for (id, known) in [(0, false), (1, true), (2, false)] {
        let mut operations = [(); 3].map(|()| WriteBatch::new());
        operations[0].put_in(7, id, b"k", b"v");
        operations[1].delete_in(7, id, b"k");
        operations[2].drop_keyspace(id);
        for batch in operations {
            let mut replay = replay_into(&options, &state);
            assert_eq!(replay.record(1, 1, &batch.encoded).is_ok(), known, "keyspace {id}");
            assert!(replay.dropped.is_empty() && replay.inserter.finish().is_empty());
        }
    }
}

#[test]
fn no_two_databases_have_the_same_id_and_none_has_0() {
    let ids = [(); 100].map(|()| new_database_id(DIRECTORY.as_ref()));
    assert!(ids.iter().all(|id| id % 2 == 1));
    assert_eq!(ids.iter().collect::<HashSet<_>>().len(), ids.len());
}
