use std::collections::BTreeSet;

use super::*;

fn path(name: &str) -> PathBuf {
    PathBuf::from("db").join(name)
}

fn sim() -> SimFileSystem {
    let fs = SimFileSystem::new();
    fs.create_dir_all("db".as_ref()).unwrap();
    fs
}

fn append_synced(fs: &SimFileSystem, name: &str, bytes: &[u8]) -> Box<dyn WritableFile> {
    let mut file = fs.create(&path(name)).unwrap();
    file.append(bytes).unwrap();
    file.sync().unwrap();
    file
}

#[test]
fn contents_need_a_sync_and_names_a_directory_sync() {
    let fs = sim();
    let mut file = append_synced(&fs, "a", b"one");
    assert!(fs.crash_clone(Keep::Nothing, 0).paths().is_empty(), "the name was not synced");
    fs.sync_dir("db".as_ref()).unwrap();
    file.append(b" two").unwrap();
    let after = fs.crash_clone(Keep::Nothing, 0);
    assert_eq!(after.read(&path("a")).unwrap(), b"one");
    assert_eq!(fs.crash_clone(Keep::All, 0).read(&path("a")).unwrap(), b"one two");
    after.write(&path("a"), b"independent").unwrap();
    assert_eq!(fs.read(&path("a")).unwrap(), b"one two");
    fs.create(&path("a")).unwrap();
    assert_eq!(fs.read(&path("a")).unwrap(), b"");
    assert_eq!(fs.crash_clone(Keep::Nothing, 0).read(&path("a")).unwrap(), b"one", "emptying is not durable by itself");
}

#[test]
fn torn_contents_mix_whole_sectors_only_and_reach_every_mix() {
    let fs = sim();
    fs.write(&path("a"), &[1; 1024]).unwrap();
    let mut file = fs.open_append(&path("a")).unwrap();
    file.append(&[2; 512]).unwrap();
    let mut mapped = fs.create_mapped(&path("m"), 1024).unwrap();
    mapped.syncer().sync(0..1024).unwrap();
    fs.sync_dir("db".as_ref()).unwrap();
    mapped.write_at(0, &[3; 1024]).unwrap();
    let (mut appended, mut written) = (BTreeSet::new(), BTreeSet::new());
    for seed in 0..64 {
        let after = fs.crash_clone(Keep::Some, seed);
        appended.insert(after.read(&path("a")).unwrap());
        written.insert(after.read(&path("m")).unwrap());
    }
    let mix = |sectors: &[u8]| sectors.iter().flat_map(|byte| [*byte; 512]).collect::<Vec<u8>>();
    assert_eq!(appended, BTreeSet::from([mix(&[1, 1]), mix(&[1, 1, 0]), mix(&[1, 1, 2])]));
    assert_eq!(written, BTreeSet::from([mix(&[0, 0]), mix(&[0, 3]), mix(&[3, 0]), mix(&[3, 3])]));
    assert_eq!(fs.crash_clone(Keep::Some, 7).paths(), fs.crash_clone(Keep::Some, 7).paths());
}

#[test]
fn mapped_writes_survive_the_process_and_only_synced_ranges_the_power_cut() {
    let fs = sim();
    let mut mapped = fs.create_mapped(&path("m"), 2000).unwrap();
    fs.sync_dir("db".as_ref()).unwrap();
    assert_eq!(fs.crash_clone(Keep::Nothing, 0).read(&path("m")).unwrap(), b"");
    mapped.write_at(0, b"head").unwrap();
    mapped.write_at(1500, b"tail").unwrap();
    mapped.syncer().sync(0..100).unwrap();
    let kept = fs.crash_clone(Keep::Nothing, 0).read(&path("m")).unwrap();
    assert_eq!((kept.len(), &kept[..4]), (100, &b"head"[..]));
    assert_eq!(&fs.crash_clone(Keep::All, 0).read(&path("m")).unwrap()[1500..1504], b"tail");
    assert_eq!(mapped.write_at(1998, b"xyz").unwrap_err().kind(), io::ErrorKind::InvalidInput);
    assert_eq!(mapped.write_at(u64::MAX, b"xyz").unwrap_err().kind(), io::ErrorKind::InvalidInput);
}

#[test]
fn a_rename_is_old_or_new_and_never_both_or_neither() {
    let fs = sim();
    append_synced(&fs, "old", b"x");
    fs.sync_dir("db".as_ref()).unwrap();
    fs.rename(&path("old"), &path("new")).unwrap();
    let outcomes: BTreeSet<_> = (0..32).map(|seed| fs.crash_clone(Keep::Some, seed).paths()).collect();
    assert_eq!(outcomes, BTreeSet::from([vec![path("old")], vec![path("new")]]));
    fs.sync_dir("db".as_ref()).unwrap();
    assert_eq!(fs.crash_clone(Keep::Nothing, 0).paths(), [path("new")]);
    fs.remove_file(&path("new")).unwrap();
    let outcomes: BTreeSet<_> = (0..32).map(|seed| fs.crash_clone(Keep::Some, seed).paths()).collect();
    assert_eq!(outcomes, BTreeSet::from([vec![path("new")], vec![]]));
}

#[test]
fn handles_survive_rename_removal_and_replacement() {
    let fs = sim();
    let mut file = append_synced(&fs, "a", b"one");
    let reader = fs.open(&path("a")).unwrap();
    let map = reader.map().unwrap();
    fs.rename(&path("a"), &path("b")).unwrap();
    file.append(b" two").unwrap();
    assert_eq!(fs.read(&path("b")).unwrap(), b"one two");
    fs.create_mapped(&path("b"), 3).unwrap();
    assert_eq!(fs.read(&path("b")).unwrap(), [0; 3]);
    fs.remove_file(&path("b")).unwrap();
    let mut buffer = [0; 3];
    reader.read_exact_at(&mut buffer, 4).unwrap();
    assert_eq!((&buffer, &map[..]), (b"two", &b"one"[..]));
    assert_eq!(reader.read_exact_at(&mut buffer, 5).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    assert_eq!(reader.read_exact_at(&mut buffer, u64::MAX).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
}

#[test]
fn the_power_cut_comes_at_the_chosen_call_and_stays() {
    let fs = sim();
    let start = fs.call_count();
    fs.stop_after(start + 2);
    let mut file = fs.create(&path("a")).unwrap();
    file.append(b"kept").unwrap();
    assert_eq!(fs.call_count(), start + 2);
    assert!(fs.open(&path("a")).is_ok(), "reads go on until the cut");
    assert_eq!(file.append(b"refused").unwrap_err().to_string(), "power cut");
    assert!(fs.open(&path("a")).is_err() && fs.read_dir("db".as_ref()).is_err() && file.sync().is_err());
    assert!(fs.lock(&path("LOCK"), LockKind::Exclusive).is_err() && fs.sync_dir("db".as_ref()).is_err());
    let after = fs.crash_clone(Keep::All, 0);
    assert_eq!(after.read(&path("a")).unwrap(), b"kept");
    assert!(after.open_append(&path("a")).unwrap().append(b", goes on").is_ok());
}

#[test]
fn a_full_disk_refuses_and_keeps_what_was_there() {
    let fs = sim();
    fs.set_capacity_bytes(Some(100));
    let mut file = append_synced(&fs, "a", &[1; 60]);
    assert_eq!(file.append(&[1; 41]).unwrap_err().kind(), io::ErrorKind::StorageFull);
    assert_eq!(fs.create_mapped(&path("m"), 41).unwrap_err().kind(), io::ErrorKind::StorageFull);
    assert_eq!(fs.paths(), [path("a")]);
    file.append(&[1; 40]).unwrap();
    fs.remove_file(&path("a")).unwrap();
    assert!(fs.create_mapped(&path("m"), 100).is_ok());
    assert!(fs.create_mapped(&path("m"), 100).is_ok(), "a replaced file gives its space back");
}

#[test]
fn locks_conflict_as_on_a_real_system() {
    let fs = sim();
    let kind = |lock: io::Result<Box<dyn FileLock>>| lock.map(drop).map_err(|error| error.kind());
    let lock = path("LOCK");
    assert_eq!(kind(fs.lock(&lock, LockKind::Shared)), Err(io::ErrorKind::NotFound));
    let held = fs.lock(&lock, LockKind::Exclusive).unwrap();
    assert_eq!(kind(fs.clone().lock(&lock, LockKind::Exclusive)), Err(io::ErrorKind::WouldBlock));
    assert_eq!(kind(fs.lock(&lock, LockKind::Shared)), Err(io::ErrorKind::WouldBlock));
    assert_eq!(kind(fs.crash_clone(Keep::All, 0).lock(&lock, LockKind::Exclusive)), Ok(()));
    drop(held);
    let (one, two) = (fs.lock(&lock, LockKind::Shared).unwrap(), fs.lock(&lock, LockKind::Shared).unwrap());
    drop(one);
    assert_eq!(kind(fs.lock(&lock, LockKind::Exclusive)), Err(io::ErrorKind::WouldBlock));
    drop(two);
    assert_eq!(kind(fs.lock(&lock, LockKind::Exclusive)), Ok(()));
}

#[test]
fn truncation_damage_and_listing() {
    let fs = sim();
    fs.write(&path("sub/deep"), b"abc").unwrap();
    fs.write(&path("a"), b"abc").unwrap();
    fs.flip_bit(&path("a"), 1, 0).unwrap();
    fs.flip_bit(&path("a"), 99, 0).unwrap();
    assert_eq!(fs.crash_clone(Keep::Nothing, 0).read(&path("a")).unwrap(), b"acc");
    fs.truncate(&path("a"), 1).unwrap();
    assert_eq!(fs.crash_clone(Keep::Nothing, 0).read(&path("a")).unwrap(), b"a");
    assert!(fs.truncate(&path("a"), 2).is_err());
    let entry = |name: &str, len| DirEntry { name: name.into(), len };
    assert_eq!(fs.read_dir("db".as_ref()).unwrap(), [entry("a", 1), entry("sub", 0)]);
    assert_eq!(fs.read_dir("none".as_ref()).unwrap_err().kind(), io::ErrorKind::NotFound);
    assert_eq!(fs.create("none/a".as_ref()).unwrap_err().kind(), io::ErrorKind::NotFound);
    assert!(fs.rename(&path("a"), "a".as_ref()).is_err());
}

#[test]
fn a_sector_may_be_as_it_was_between_two_writes() {
    let fs = sim();
    let mut mapped = fs.create_mapped(&path("m"), 1024).unwrap();
    mapped.syncer().sync(0..1024).unwrap();
    fs.sync_dir("db".as_ref()).unwrap();
    mapped.write_at(0, b"one").unwrap();
    mapped.write_at(3, b"two").unwrap();
    let starts = |fs: &SimFileSystem| -> BTreeSet<Vec<u8>> {
        (0..64).map(|seed| fs.crash_clone(Keep::Some, seed).read(&path("m")).unwrap()[..6].to_vec()).collect()
    };
    let all = [&b"\0\0\0\0\0\0"[..], b"one\0\0\0", b"onetwo"].map(<[u8]>::to_vec);
    assert_eq!(starts(&fs), BTreeSet::from(all));
    // A sync of a part leaves the rest in doubt.
    mapped.syncer().sync(0..3).unwrap();
    assert_eq!(starts(&fs), BTreeSet::from([b"one\0\0\0", b"onetwo"].map(|start| start.to_vec())));
    mapped.syncer().sync(3..6).unwrap();
    assert_eq!(starts(&fs), BTreeSet::from([b"onetwo".to_vec()]));
}

#[test]
fn a_long_append_may_be_kept_in_part_and_an_emptied_file_be_full_again() {
    let fs = sim();
    let mut file = append_synced(&fs, "a", &[1; 100]);
    fs.sync_dir("db".as_ref()).unwrap();
    file.append(&[2; 1400]).unwrap();
    let lengths = |fs: &SimFileSystem| -> BTreeSet<usize> {
        (0..256).map(|seed| fs.crash_clone(Keep::Some, seed).read(&path("a")).unwrap().len()).collect()
    };
    assert_eq!(lengths(&fs), BTreeSet::from([100, 512, 1024, 1500]));
    file.sync().unwrap();
    let mut again = fs.create(&path("a")).unwrap();
    again.append(&[3; 10]).unwrap();
    assert_eq!(lengths(&fs), BTreeSet::from([0, 10, 1500]));
    again.sync().unwrap();
    assert_eq!(lengths(&fs), BTreeSet::from([10]));
}

#[test]
fn replacing_a_mapped_file_may_leave_the_old_the_new_or_none() {
    let fs = sim();
    fs.write(&path("m"), b"old").unwrap();
    fs.create_mapped(&path("m"), 2).unwrap().syncer().sync(0..2).unwrap();
    let left = |seed| fs.crash_clone(Keep::Some, seed).read(&path("m")).ok();
    let outcomes: BTreeSet<_> = (0..64).map(left).collect();
    assert_eq!(outcomes, BTreeSet::from([None, Some(b"old".to_vec()), Some(vec![0, 0])]));
}

#[test]
fn a_fork_knows_what_is_not_durable_and_goes_its_own_way() {
    let fs = sim();
    let mut file = append_synced(&fs, "a", b"one");
    fs.sync_dir("db".as_ref()).unwrap();
    file.append(b" two").unwrap();
    fs.rename(&path("a"), &path("b")).unwrap();
    let fork = fs.fork();
    file.sync().unwrap();
    fs.sync_dir("db".as_ref()).unwrap();
    assert_eq!(fork.read(&path("b")).unwrap(), b"one two");
    assert_eq!(fork.crash_clone(Keep::Nothing, 0).paths(), [path("a")]);
    assert_eq!(fork.crash_clone(Keep::Nothing, 0).read(&path("a")).unwrap(), b"one");
    assert_eq!(fs.crash_clone(Keep::Nothing, 0).read(&path("b")).unwrap(), b"one two");
    assert_eq!(fork.call_count(), 0);
}
