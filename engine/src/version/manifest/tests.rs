use super::*;
use crate::fs::{Fault, FaultFileSystem, Keep, SimFileSystem};
use crate::options::KeyspaceOptions;
use crate::version::edit::{KeyspaceCreated, KeyspaceEdit};
use crate::version::version::testing::table;

const DIR: &str = "/db";

fn dir() -> &'static Path {
    Path::new(DIR)
}

fn new_fs() -> SimFileSystem {
    let fs = SimFileSystem::new();
    fs.create_dir_all(dir()).unwrap();
    fs
}

fn initial() -> ManifestState {
    let mut state = ManifestState::default();
    let created = vec![KeyspaceCreated { id: 0, name: "default".into(), options: KeyspaceOptions::new() }];
    state.apply(&Edit { database_id: Some(5), created, ..Edit::default() }).unwrap();
    state
}

/// The `n`-th edit of a history: adds one table and takes away the one before the last.
fn edit(n: u64) -> Edit {
    let removed = if n > 2 { vec![(0, n - 2)] } else { vec![] };
    let added = vec![(0, table(n, b"a", b"z", n * 10, n * 10 + 9))];
    let keyspaces = vec![KeyspaceEdit { id: 0, flushed_seqno: Some(n * 10 + 9), removed, added }];
    Edit { keyspaces, last_seqno: Some(n * 10 + 9), ..Edit::default() }
}

fn state_after(edits: u64) -> ManifestState {
    let mut state = initial();
    (1..=edits).for_each(|n| state.apply(&edit(n)).unwrap());
    state
}

fn open(fs: &SimFileSystem) -> Result<Option<(Manifest, ManifestState)>> {
    Manifest::open(Arc::new(fs.clone()), dir(), false)
}

fn read_only(fs: &SimFileSystem) -> Result<Option<(Manifest, ManifestState)>> {
    Manifest::open(Arc::new(fs.clone()), dir(), true)
}

/// A manifest with `edits` edits behind its snapshot.
fn written(edits: u64) -> (SimFileSystem, Manifest) {
    let fs = new_fs();
    let mut manifest = Manifest::create(Arc::new(fs.clone()), dir(), &initial()).unwrap();
    (1..=edits).for_each(|n| manifest.append(&edit(n)).unwrap());
    (fs, manifest)
}

fn corrupt(result: Result<Option<(Manifest, ManifestState)>>) -> bool {
    matches!(result, Err(Error::Corruption { .. }))
}

#[test]
fn edits_survive_reopening() {
    assert!(open(&new_fs()).unwrap().is_none());
    assert!(open(&SimFileSystem::new()).unwrap().is_none(), "no directory");
    let (fs, manifest) = written(3);
    drop(manifest);
    let (mut manifest, state) = open(&fs).unwrap().unwrap();
    assert_eq!(state, state_after(3));
    manifest.append(&Edit::default()).unwrap();
    manifest.append(&edit(4)).unwrap();
    manifest.seal().unwrap();
    manifest.append(&edit(5)).unwrap();
    assert_eq!(open(&fs).unwrap().unwrap().1, state_after(5));
}

#[test]
fn read_only_changes_nothing() {
    let (fs, _manifest) = written(3);
    fs.write(&dir().join("CURRENT.tmp"), b"left over").unwrap();
    fs.write(&dir().join("MANIFEST-000009"), b"left over").unwrap();
    let path = manifest_path(dir(), 1);
    let mut torn = fs.read(&path).unwrap();
    torn.truncate(torn.len() - 1);
    fs.write(&path, &torn).unwrap();
    let calls = fs.call_count();
    let (mut manifest, state) = read_only(&fs).unwrap().unwrap();
    assert_eq!(state, state_after(2));
    for refused in [manifest.append(&edit(3)), manifest.append(&Edit::default()), manifest.seal()] {
        assert!(matches!(refused, Err(Error::ReadOnly { .. })));
    }
    assert_eq!(fs.call_count(), calls);
    assert_eq!(fs.read(&path).unwrap(), torn);

    open(&fs).unwrap().unwrap();
    let expected = [dir().join("CURRENT"), manifest_path(dir(), 2)];
    let left: Vec<_> = fs.paths().into_iter().filter(|path| path.parent() == Some(dir())).collect();
    assert_eq!(left, expected, "an ordinary open clears up");
}

/// What is cut off behind the snapshot is a torn record, and what is cut off after a seal or inside the snapshot is
/// damage.
#[test]
fn truncation_at_every_offset() {
    let (fs, mut manifest) = written(0);
    let mut ends = vec![manifest.file_bytes()];
    for n in 1..=3 {
        manifest.append(&edit(n)).unwrap();
        ends.push(manifest.file_bytes());
    }
    let path = manifest_path(dir(), 1);
    let bytes = fs.read(&path).unwrap();
    for len in 0..bytes.len() {
        let fs = fs.crash_clone(Keep::All, 0);
        fs.write(&path, &bytes[..len]).unwrap();
        let whole = ends.iter().filter(|end| **end <= len as u64).count() as u64;
        if whole == 0 {
            assert!(corrupt(open(&fs)), "cut at {len}");
            continue;
        }
        let (mut manifest, state) = open(&fs).unwrap().unwrap();
        assert_eq!(state, state_after(whole - 1), "cut at {len}");
        let torn = len as u64 > ends[whole as usize - 1];
        assert!(!torn || fs.read(&path).is_err(), "the torn record is gone with its file");
        manifest.append(&edit(whole)).unwrap();
        assert_eq!(open(&fs).unwrap().unwrap().1, state_after(whole), "appended after a cut at {len}");
    }
    manifest.seal().unwrap();
    for len in 0..bytes.len() {
        let fs = fs.crash_clone(Keep::All, 0);
        fs.write(&path, &bytes[..len]).unwrap();
        assert!(corrupt(open(&fs)), "sealed, then cut at {len}");
    }
}

/// A damaged byte is an error, except in the last unsealed record, which then reads as torn.
#[test]
fn every_flipped_bit() {
    for sealed in [false, true] {
        let (fs, mut manifest) = written(2);
        let last_begins = manifest.file_bytes();
        manifest.append(&edit(3)).unwrap();
        if sealed {
            manifest.seal().unwrap();
        }
        let path = manifest_path(dir(), 1);
        for offset in 0..manifest.file_bytes() {
            for bit in 0..8 {
                let fs = fs.crash_clone(Keep::All, 0);
                fs.flip_bit(&path, offset, bit).unwrap();
                match read_only(&fs) {
                    Err(Error::Corruption { file, .. } | Error::UnsupportedVersion { file, .. }) => {
                        assert_eq!(file, path)
                    }
                    Err(error) => panic!("byte {offset}, bit {bit}: {error}"),
                    Ok(opened) => {
                        assert!(!sealed && offset >= last_begins, "byte {offset}, bit {bit} passed, sealed: {sealed}");
                        assert_eq!(opened.unwrap().1, state_after(2));
                    }
                }
            }
        }
        for offset in 0..fs.read(&current::path(dir())).unwrap().len() as u64 {
            let fs = fs.crash_clone(Keep::All, 0);
            fs.flip_bit(&current::path(dir()), offset, 3).unwrap();
            assert!(matches!(read_only(&fs), Err(Error::Corruption { .. } | Error::UnsupportedVersion { .. })));
        }
    }
}

#[test]
fn lost_files_are_damage_and_newer_formats_are_refused() {
    let (fs, _manifest) = written(1);
    let without = |name: &str| {
        let fs = fs.crash_clone(Keep::All, 0);
        fs.remove_file(&dir().join(name)).unwrap();
        fs
    };
    assert!(corrupt(open(&without("CURRENT"))));
    assert!(corrupt(read_only(&without("CURRENT"))));
    assert!(corrupt(open(&without("MANIFEST-000001"))));

    let newer = fs.crash_clone(Keep::All, 0);
    let path = manifest_path(dir(), 1);
    let mut bytes = newer.read(&path).unwrap();
    bytes[8] = 2;
    newer.write(&path, &bytes).unwrap();
    assert!(matches!(open(&newer), Err(Error::UnsupportedVersion { found: 2, supported: 1, .. })));

    let swapped = fs.crash_clone(Keep::All, 0);
    let mut other = snapshot(2, &initial()).unwrap();
    other.resize(fs.read(&path).unwrap().len(), 0);
    swapped.write(&path, &other).unwrap();
    assert!(corrupt(open(&swapped)), "a manifest under another one's name");
}

#[test]
fn a_readable_record_that_does_not_fit_is_damage_even_at_the_end() {
    let (fs, mut manifest) = written(1);
    manifest.append(&edit(1)).unwrap();
    assert!(corrupt(open(&fs)));
}

#[test]
fn a_record_is_valid_at_its_own_place_only() {
    let (fs, mut manifest) = written(0);
    let begin = manifest.file_bytes() as usize;
    manifest.append(&edit(1)).unwrap();
    let path = manifest_path(dir(), 1);
    let mut bytes = fs.read(&path).unwrap();
    bytes.extend_from_within(begin..);
    fs.write(&path, &bytes).unwrap();
    assert_eq!(open(&fs).unwrap().unwrap().1, state_after(1), "a copy of the record is a torn tail");
}

/// A process dies between two calls; the next one sees what was written, and a power cut must not take it back from
/// that one.
#[test]
fn what_an_open_has_seen_is_on_storage() {
    for (step, stop) in ["append", "seal", "roll"].into_iter().flat_map(|step| (1..=9).map(move |stop| (step, stop))) {
        let sim = new_fs();
        let fs = FaultFileSystem::new(Arc::new(sim.clone()));
        let mut manifest = Manifest::create(Arc::new(fs.clone()), dir(), &initial()).unwrap();
        manifest.append(&edit(1)).unwrap();
        fs.fail_from(stop, Fault::Io);
        let _ = match step {
            "append" => manifest.append(&edit(2)),
            "seal" => manifest.seal(),
            _ => manifest.roll(2, &snapshot(2, &state_after(1)).unwrap()),
        };
        drop(manifest);
        let (mut manifest, mut state) = open(&sim).unwrap().unwrap();
        let after_power_cut = || open(&sim.crash_clone(Keep::Nothing, 0)).unwrap().unwrap().1;
        assert_eq!(after_power_cut(), state, "{step} stopped at call {stop}");
        let next = if state == state_after(2) { edit(3) } else { edit(2) };
        manifest.append(&next).unwrap();
        state.apply(&next).unwrap();
        assert_eq!(after_power_cut(), state, "{step} stopped at call {stop}, then appended");
    }
}

/// A sync fails and the system drops the pages, which it then counts as clean. The process is started again: what it
/// builds on must be on storage all the same.
#[test]
fn what_a_failed_sync_left_unwritten_is_written_by_the_next_open() {
    let sim = new_fs();
    let fs = FaultFileSystem::new(Arc::new(sim.clone()));
    let mut manifest = Manifest::create(Arc::new(fs.clone()), dir(), &initial()).unwrap();
    manifest.append(&edit(1)).unwrap();
    fs.fail_at(2, Fault::DroppedPages);
    assert!(manifest.append(&edit(2)).is_err());
    drop(manifest);
    let (mut manifest, state) = Manifest::open(Arc::new(fs.clone()), dir(), false).unwrap().unwrap();
    assert_eq!(state, state_after(2));
    let after_power_cut = || open(&sim.crash_clone(Keep::Nothing, 0)).unwrap().unwrap().1;
    assert_eq!(after_power_cut(), state_after(2));
    manifest.append(&edit(3)).unwrap();
    assert_eq!(after_power_cut(), state_after(3));
}

/// A process dies while it switches manifests, the next one dies while it opens, and then the power goes: one of the
/// two manifests is whole.
#[test]
fn a_power_cut_while_opening_after_a_killed_roll() {
    for (stop, open_stop) in (1..=9).flat_map(|stop| (1..=14).map(move |open_stop| (stop, open_stop))) {
        let sim = new_fs();
        let fs = FaultFileSystem::new(Arc::new(sim.clone()));
        let mut manifest = Manifest::create(Arc::new(fs.clone()), dir(), &initial()).unwrap();
        manifest.append(&edit(1)).unwrap();
        fs.fail_from(stop, Fault::Io);
        let _ = manifest.roll(2, &snapshot(2, &state_after(1)).unwrap());
        fs.clear();
        fs.fail_from(open_stop, Fault::Io);
        let _ = Manifest::open(Arc::new(fs.clone()), dir(), false);
        for seed in 0..8 {
            let opened = open(&sim.crash_clone(Keep::Some, seed));
            let context = format!("stopped at {stop}, open at {open_stop}, seed {seed}");
            assert_eq!(
                opened.unwrap_or_else(|error| panic!("{context}: {error}")).unwrap().1,
                state_after(1),
                "{context}"
            );
        }
    }
}

#[test]
fn a_large_manifest_is_rolled_and_the_old_one_goes() {
    let (fs, mut manifest) = written(0);
    let mut state = initial();
    let mut rolls = 0;
    for n in 1..=20_000 {
        manifest.append(&edit(n)).unwrap();
        state.apply(&edit(n)).unwrap();
        let before = manifest.file_bytes();
        manifest.roll_if_large(&state).unwrap();
        assert!(before <= MIN_ROLL_BYTES + 500, "{before} bytes");
        let rolled = manifest.file_bytes() < before;
        assert!(!rolled || before > 1 << 20, "rolled at {before} bytes");
        rolls += usize::from(rolled);
    }
    assert!(rolls >= 1);
    let manifests = fs.paths().iter().filter(|path| path.to_string_lossy().contains("MANIFEST")).count();
    assert_eq!(manifests, 1);
    assert_eq!(open(&fs).unwrap().unwrap().1, state);
}

#[test]
fn after_a_failure_nothing_is_appended() {
    for fault in [Fault::Io, Fault::NoSpace, Fault::ShortWrite] {
        for call in 1..=2 {
            let sim = new_fs();
            let fs = FaultFileSystem::new(Arc::new(sim.clone()));
            let mut manifest = Manifest::create(Arc::new(fs.clone()), dir(), &initial()).unwrap();
            manifest.append(&edit(1)).unwrap();
            fs.fail_at(call, fault);
            assert!(matches!(manifest.append(&edit(2)), Err(Error::Io { .. })), "{fault:?} at {call}");
            let len = sim.read(&manifest_path(dir(), 1)).unwrap().len();
            for refused in [manifest.append(&edit(2)), manifest.seal()] {
                assert!(matches!(refused, Err(Error::ReadOnly { .. })));
            }
            assert_eq!(sim.read(&manifest_path(dir(), 1)).unwrap().len(), len);
            let state = open(&sim).unwrap().unwrap().1;
            assert!(state == state_after(1) || state == state_after(2));
        }
    }
}

/// Creates, appends, rolls, seals and appends again until the filesystem stops; answers how many edits were
/// acknowledged, `None` if creation was not.
fn life(fs: &SimFileSystem) -> Option<u64> {
    let mut manifest = Manifest::create(Arc::new(fs.clone()), dir(), &initial()).ok()?;
    for n in 1..=6 {
        if manifest.append(&edit(n)).is_err() {
            return Some(n - 1);
        }
        if n == 3 && manifest.seal().is_err() {
            return Some(n);
        }
        if n == 2 || n == 4 {
            let number = manifest.number + 1;
            if manifest.roll(number, &snapshot(number, &state_after(n)).unwrap()).is_err() {
                return Some(n);
            }
        }
    }
    Some(6)
}

/// Opens what a crash left; crashes again at every call of that; the acknowledged edits, and at most one more, are
/// there each time.
fn recovers(crashed: &SimFileSystem, acknowledged: Option<u64>, context: &str) {
    let check = |opened: Option<(Manifest, ManifestState)>| match (opened, acknowledged) {
        (None, None) => {}
        (Some((_, state)), acknowledged) => {
            let least = acknowledged.unwrap_or(0);
            let fits = (least..=least + 1).any(|n| state == state_after(n));
            assert!(fits, "{context}: acknowledged {acknowledged:?}, found {:?}", state.keyspaces);
        }
        (None, Some(_)) => panic!("{context}: the database is gone"),
    };
    for stop in 0.. {
        let fs = crashed.crash_clone(Keep::All, 0);
        fs.stop_after(stop);
        let done = open(&fs).is_ok();
        for (keep, seed) in [(Keep::Nothing, 0), (Keep::All, 0), (Keep::Some, stop)] {
            let again = fs.crash_clone(keep, seed);
            check(read_only(&again).unwrap_or_else(|error| panic!("{context}, second crash at {stop}: {error}")));
            check(open(&again).unwrap_or_else(|error| panic!("{context}, second crash at {stop}: {error}")));
            check(open(&again).unwrap_or_else(|error| panic!("{context}, opened twice: {error}")));
        }
        if done {
            break;
        }
    }
}

#[test]
fn a_crash_at_any_call_keeps_what_was_acknowledged() {
    let whole = new_fs();
    let before = whole.call_count();
    assert_eq!(life(&whole), Some(6));
    let calls = whole.call_count() - before;
    assert!(calls > 30, "{calls} calls");
    for stop in 0..=calls {
        let fs = new_fs();
        fs.stop_after(before + stop);
        let acknowledged = life(&fs);
        let seeds = (0..12).map(|seed| (Keep::Some, seed));
        for (keep, seed) in [(Keep::Nothing, 0), (Keep::All, 0)].into_iter().chain(seeds) {
            let crashed = fs.crash_clone(keep, seed);
            recovers(&crashed, acknowledged, &format!("crash after {stop} calls, {keep:?}, seed {seed}"));
        }
    }
}

/// Rolling costs what a snapshot takes, so a manifest that hardly is anything else is left as it is.
#[test]
fn a_manifest_that_is_mostly_its_snapshot_is_not_rolled() {
    let (fs, mut manifest) = written(0);
    let mut state = initial();
    // About 2 KiB a table.
    let key = |n: u64| [&n.to_be_bytes()[..], &[7; 1000]].concat();
    for part in 0..10 {
        let numbers = 1 + part * 80..1 + (part + 1) * 80;
        let added = numbers.map(|n| (1, table(n, &key(n), &key(n), n, n))).collect();
        let keyspaces = vec![KeyspaceEdit { added, ..KeyspaceEdit::default() }];
        let edit = Edit { keyspaces, ..Edit::default() };
        manifest.append(&edit).unwrap();
        state.apply(&edit).unwrap();
    }
    assert!(manifest.file_bytes() > MIN_ROLL_BYTES);
    manifest.roll_if_large(&state).unwrap();
    assert_eq!(manifest.number, 1);
    for (removed, number) in [(1..=400, 1), (401..=780, 2)] {
        let removed = removed.map(|n| (1, n)).collect();
        let edit = Edit { keyspaces: vec![KeyspaceEdit { removed, ..KeyspaceEdit::default() }], ..Edit::default() };
        manifest.append(&edit).unwrap();
        state.apply(&edit).unwrap();
        manifest.roll_if_large(&state).unwrap();
        assert_eq!(manifest.number, number);
    }
    assert_eq!((manifest.number, manifest.path()), (2, &*manifest_path(dir(), 2)));
    assert_eq!(manifest.file_bytes(), fs.read(manifest.path()).unwrap().len() as u64);
    assert_eq!(open(&fs).unwrap().unwrap().1, state);
}

#[test]
fn a_whole_manifest_is_opened_without_a_cut() {
    let (sim, manifest) = written(2);
    drop(manifest);
    let fs = FaultFileSystem::new(Arc::new(sim));
    fs.only(crate::fs::Op::Truncate);
    fs.fail_from(1, Fault::Io);
    assert_eq!(Manifest::open(Arc::new(fs), dir(), false).unwrap().unwrap().1, state_after(2));
}

#[test]
fn a_directory_that_cannot_be_listed_is_an_error() {
    let fs = FaultFileSystem::new(Arc::new(new_fs()));
    fs.only(crate::fs::Op::ReadDir);
    fs.fail_from(1, Fault::Io);
    assert!(matches!(Manifest::open(Arc::new(fs), dir(), false), Err(Error::Io { .. })));
}

/// What a creation left behind is cleared away, and nothing else is taken for that.
#[test]
fn only_a_creation_that_says_so_was_cut_short() {
    let begun = |initial: bool, manifests: &[u64]| {
        let fs = new_fs();
        Current { manifest: 1, min_bytes: 0, initial }.write_temporary(&fs, dir()).unwrap();
        manifests.iter().for_each(|number| fs.write(&manifest_path(dir(), *number), b"part").unwrap());
        fs
    };
    for (initial, manifests, creation) in [
        (true, &[][..], true),
        (true, &[1], true),
        (false, &[], true),
        (false, &[1], false),
        (true, &[2], false),
        (true, &[1, 2], false),
    ] {
        let fs = begun(initial, manifests);
        let before = fs.paths();
        for read_only in [true, false] {
            let opened = Manifest::open(Arc::new(fs.clone()), dir(), read_only);
            assert_eq!(matches!(opened, Ok(None)), creation, "{initial} {manifests:?}");
            assert!(creation || corrupt(opened));
            assert_eq!(fs.paths() == before, read_only || !creation, "{initial} {manifests:?}");
        }
    }
}

/// Where verification finds damage.
fn found(manifest: &Manifest, state: &ManifestState) -> (PathBuf, u64) {
    match manifest.verify(state) {
        Err(Error::Corruption { file, offset, .. }) => (file, offset),
        other => panic!("{other:?}"),
    }
}

#[test]
fn verification_compares_current_and_manifest_with_what_was_read() {
    let (fs, mut manifest) = written(3);
    let (state, current) = (state_after(3), current::path(dir()));
    manifest.verify(&state).unwrap();
    manifest.seal().unwrap();
    manifest.verify(&state).unwrap();
    assert_eq!(found(&manifest, &state_after(2)), (manifest.path().to_owned(), 0), "it says something else");
    let file_bytes = manifest.file_bytes();
    for (number, min_bytes) in [(2, 0), (0, file_bytes), (1, file_bytes + 1), (2, file_bytes + 1)] {
        Current { manifest: number, min_bytes, initial: false }.switch(&fs, dir()).unwrap();
        assert_eq!(found(&manifest, &state), (current.clone(), 16), "{number}, {min_bytes}");
    }
    fs.remove_file(&current).unwrap();
    assert_eq!(found(&manifest, &state), (current.clone(), 0));
    Current { manifest: 1, min_bytes: file_bytes, initial: false }.switch(&fs, dir()).unwrap();
    manifest.verify(&state).unwrap();
    fs.remove_file(manifest.path()).unwrap();
    assert_eq!(found(&manifest, &state), (manifest.path().to_owned(), 0));
}

#[test]
fn what_failed_takes_no_edit_and_is_not_verified() {
    let (fs, mut manifest) = written(1);
    manifest.fail("the first reason");
    manifest.fail("a later one");
    let refused = manifest.append(&edit(2)).unwrap_err();
    assert!(matches!(&refused, Error::ReadOnly { reason } if reason.contains("the first reason")), "{refused}");
    fs.remove_file(manifest.path()).unwrap();
    manifest.verify(&state_after(1)).unwrap();
}

#[test]
fn a_manifest_is_replaced_by_one_of_another_state() {
    let (fs, manifest) = written(3);
    drop(manifest);
    Manifest::replace(&fs, dir(), 9, &state_after(2)).unwrap();
    let (manifest, state) = open(&fs.crash_clone(Keep::Nothing, 0)).unwrap().unwrap();
    assert_eq!((manifest.path(), state), (&*manifest_path(dir(), 9), state_after(2)));
}
