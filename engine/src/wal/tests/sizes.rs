//! What the log says of its sizes, what it makes ready ahead of time, and what it does not do twice.

use super::*;
use crate::wal::format::{record_bytes, segment_path, spare_path};

/// The bytes of a segment with three records of 1,000 bytes, which is what fits 4 KiB.
fn three_records() -> u64 {
    HEADER_BYTES + 3 * record_bytes(1000)
}

fn names(fs: &SimFileSystem) -> Vec<String> {
    fs.paths().iter().map(|path| path.file_name().unwrap().to_str().unwrap().to_owned()).collect()
}

#[test]
fn segments_are_whole_pages() {
    for (asked_bytes, segment_bytes) in [(0, 4096), (1, 4096), (4096, 4096), (8191, 4096), (13_000, 12_288)] {
        let fs = sim();
        let (wal, mut writer) = new_log(&fs, asked_bytes);
        append(&mut writer, &wal, [1000; 30]);
        for path in segment_files(&fs) {
            assert_eq!(fs.read(&path).unwrap().len() as u64, segment_bytes, "{asked_bytes}");
        }
        wal.sync_through(30).unwrap();
        let floor = floor_segment(&wal, 30).unwrap();
        wal.release_below(floor);
        assert_eq!(wal.file_bytes(), 2 * segment_bytes, "full-grown, so one is kept for the next segment");
    }
}

#[test]
fn bytes_are_counted_by_who_needs_them() {
    let fs = sim();
    let (wal, mut writer) = new_log(&fs, 4096);
    append(&mut writer, &wal, [1000; 10]);
    let active = HEADER_BYTES + record_bytes(1000);
    assert_eq!((wal.total_bytes(), wal.file_bytes()), (3 * three_records() + active, 4 * 4096));
    assert_eq!((wal.needed_bytes(), wal.retained_bytes()), (wal.total_bytes(), 0));
    wal.sync_all().unwrap();
    let pin = wal.pin(1).unwrap();
    assert_eq!(plan(&wal, 5), None);
    assert_eq!((wal.needed_bytes(), wal.retained_bytes()), (2 * three_records() + active, 4096));
    assert_eq!(plan(&wal, 6), None, "6 is the last of its segment");
    assert_eq!((wal.needed_bytes(), wal.retained_bytes()), (three_records() + active, 2 * 4096));
    drop(pin);
    assert_eq!(plan(&wal, 6), Some(retention::Floor { segment: 3, prev_seqno: 6 }));
    wal.release_below(3);
    assert_eq!((wal.total_bytes(), wal.retained_bytes()), (three_records() + active, 0));
    assert_eq!(wal.file_bytes(), 3 * 4096, "one of them spare");
}

#[test]
fn verify_counts_the_records_that_are_retained_and_finds_damage() {
    let fs = sim();
    let (wal, mut writer) = new_log(&fs, 4096);
    assert_eq!(wal.verify().unwrap(), 0);
    append(&mut writer, &wal, [1000; 10]);
    assert_eq!(wal.verify().unwrap(), 10);
    wal.sync_all().unwrap();
    let floor = floor_segment(&wal, 5).unwrap();
    wal.release_below(floor);
    assert_eq!(wal.verify().unwrap(), 7);
    fs.flip_bit(&segment_path(dir(), 3), HEADER_BYTES + 60, 0).unwrap();
    assert!(matches!(wal.verify(), Err(Error::Corruption { offset: HEADER_BYTES, .. })));
}

#[test]
fn metadata_alone_is_synced_when_everything_is() {
    let fs = sim();
    let (wal, mut writer) = new_log(&fs, 4096);
    append(&mut writer, &wal, [10]);
    wal.sync_through(1).unwrap();
    writer.append(2, 0, b"metadata").unwrap();
    wal.sync_through(1).unwrap();
    assert_eq!(read(&fs.crash_clone(Keep::Nothing, 0)).len(), 1, "it has no number to be synced through");
    wal.sync_all().unwrap();
    assert_eq!(read(&fs.crash_clone(Keep::Nothing, 0)).len(), 2);
}

#[test]
fn what_is_on_storage_is_not_written_again() {
    let sim = sim();
    let fs = FaultFileSystem::new(Arc::new(sim.clone()));
    let (wal, mut writer) = create(Arc::new(fs.clone()), dir(), DATABASE, 1, 0, options(4096)).unwrap();
    append(&mut writer, &wal, [100]);
    wal.sync_all().unwrap();
    fs.only(Op::MappedSync);
    fs.fail_from(1, Fault::Io);
    wal.sync_all().unwrap();
    wal.sync_through(u64::MAX).unwrap();
    fs.clear();
    drop((wal, writer));
    // Recovered segments that the manifest knows to be synced, likewise.
    let (records, replayed) = read_with(&sim, input(1), false).unwrap();
    assert_eq!((records.len(), replayed.synced_seqno), (1, 1));
    let (wal, mut writer) =
        open_after_replay(Arc::new(fs.clone()), dir(), DATABASE, replayed, 1, options(4096)).unwrap();
    fs.only(Op::OpenAppend);
    fs.fail_from(1, Fault::Io);
    append(&mut writer, &wal, [100]);
    wal.sync_all().unwrap();
}

#[test]
fn a_log_that_ends_with_its_file_is_not_cut() {
    let sim = sim();
    let (wal, mut writer) = new_log(&sim, 4096);
    let expected = append(&mut writer, &wal, [96, 0]);
    read_with(&sim, input(0), false).unwrap();
    assert_eq!(sim.read(&segment_path(dir(), 1)).unwrap().len() as u64, HEADER_BYTES + record_bytes(96) + 48);
    let fs = FaultFileSystem::new(Arc::new(sim.clone()));
    fs.only(Op::Truncate);
    fs.fail_from(1, Fault::Io);
    let mut records = Records::new();
    let mut each = |first: SeqNo, count: u32, payload: &[u8], _: &Path, _: u64| {
        records.push((first, count, payload.to_vec()));
        Ok(())
    };
    let replayed = replay(&fs, dir(), &input(0), false, &mut each).unwrap();
    assert_eq!((records, replayed.dropped_bytes), (expected, 0));
}

#[test]
fn a_failed_sync_keeps_its_kind() {
    let fs = FaultFileSystem::new(Arc::new(sim()));
    let (wal, mut writer) = create(Arc::new(fs.clone()), dir(), DATABASE, 1, 0, options(4096)).unwrap();
    append(&mut writer, &wal, [100]);
    fs.only(Op::MappedSync);
    fs.fail_at(1, Fault::NoSpace);
    for _ in 0..2 {
        let error = wal.sync_all().unwrap_err();
        assert!(matches!(&error, Error::Io { source, .. } if source.kind() == io::ErrorKind::StorageFull), "{error}");
    }
}

#[test]
fn files_that_are_not_the_logs_are_left_alone() {
    let fs = sim();
    let (wal, mut writer) = new_log(&fs, 4096);
    append(&mut writer, &wal, [1000; 4]);
    let others = ["000001.table", "1.spare", "1.wal", "CURRENT", "wal"];
    for name in others.into_iter().chain(["000007.spare"]) {
        fs.write(&dir().join(name), b"").unwrap();
    }
    let before = names(&fs);
    read_with(&fs, input(0), true).unwrap();
    assert_eq!(names(&fs), before);
    read_with(&fs, input(0), false).unwrap();
    let logs = ["000001.wal", "000002.wal"];
    let mut expected: Vec<_> = others.into_iter().chain(logs).map(str::to_owned).collect();
    expected.sort();
    assert_eq!(names(&fs), expected, "but for the spare file");
}

#[test]
fn what_holds_back_too_much_is_measured_segment_by_segment() {
    let fs = sim();
    let limits = WalOptions { segment_bytes: 4096, max_retained_bytes: 2 * 4096 };
    let (wal, mut writer) = create(Arc::new(fs.clone()), dir(), DATABASE, 1, 0, limits).unwrap();
    append(&mut writer, &wal, [3000, 50_000, 3000, 3000]);
    wal.sync_all().unwrap();
    assert_eq!(wal.active_segment(), 4);
    let (large, after) = (wal.pin(2).unwrap(), wal.pin(3).unwrap());
    assert_eq!(floor_segment(&wal, 4), Some(3));
    assert!(matches!(large.advance(4), Err(Error::NotRetained { requested: 2, oldest: 3 })));
    after.advance(3).unwrap();
}

#[test]
fn a_prepared_file_that_is_too_small_is_kept_for_a_later_segment() {
    let fs = sim();
    let (wal, mut writer) = new_log(&fs, 4096);
    wal.prepare_spare().unwrap();
    let prepared = fs.call_count();
    wal.prepare_spare().unwrap();
    assert_eq!(fs.call_count(), prepared, "one is enough");
    let mut expected = append(&mut writer, &wal, [10_000]);
    assert_eq!(names(&fs), ["000001.wal", "000002.spare", "000002.wal"]);
    assert_eq!(fs.read(&segment_path(dir(), 2)).unwrap().len() as u64, HEADER_BYTES + record_bytes(10_000));
    expected.extend(append(&mut writer, &wal, [3000]));
    assert_eq!(names(&fs), ["000001.wal", "000002.wal", "000003.wal"], "the spare file is used");
    assert_eq!(wal.file_bytes(), 4096 + HEADER_BYTES + record_bytes(10_000) + 4096);
    assert_eq!(read(&fs), expected);
}

#[test]
fn at_most_one_file_of_full_size_waits_for_its_use() {
    let fs = sim();
    let (wal, mut writer) = new_log(&fs, 4096);
    append(&mut writer, &wal, [1000; 13]);
    wal.sync_all().unwrap();
    wal.prepare_spare().unwrap();
    let floor = floor_segment(&wal, 13).unwrap();
    wal.release_below(floor);
    assert_eq!(names(&fs), ["000001.spare", "000005.wal", "000006.wal", "000007.wal", "000008.wal"]);
    // An oversize record takes the first prepared file's place; there is no room for that among the spare ones, and none
    // may be left behind it.
    append(&mut writer, &wal, [10_000]);
    assert_eq!(names(&fs), ["000001.spare", "000005.wal", "000006.wal"]);
    assert!(fs.read(&segment_path(dir(), 6)).unwrap().len() > 10_000);
    assert!(!fs.paths().contains(&spare_path(dir(), 6)));
}

#[test]
fn the_next_segment_is_asked_for_at_half_of_a_small_one_and_at_once_in_a_large_one() {
    let fs = sim();
    let (wal, mut writer) = new_log(&fs, 1 << 20);
    let half = (FIRST_SEGMENT_BYTES / 2) as usize;
    append(&mut writer, &wal, [half - 200]);
    assert!(!wal.needs_spare());
    append(&mut writer, &wal, [200]);
    assert!(wal.needs_spare());
    wal.prepare_spare().unwrap();
    append(&mut writer, &wal, [200]);
    assert!(!wal.needs_spare(), "asked for once a segment");
    append(&mut writer, &wal, [half]);
    assert_eq!(wal.active_segment(), 2);
    append(&mut writer, &wal, [0]);
    assert!(wal.needs_spare());
}

#[test]
fn what_is_kept_for_the_next_segments_is_given_back_and_asked_for_again() {
    let fs = sim();
    let (wal, mut writer) = new_log(&fs, 4096);
    let mut expected = append(&mut writer, &wal, [1000; 10]);
    wal.sync_all().unwrap();
    wal.release_below(floor_segment(&wal, 9).unwrap());
    wal.prepare_spare().unwrap();
    let kept = names(&fs);
    assert!(kept.len() > 2 && wal.file_bytes() == kept.len() as u64 * 4096, "{kept:?}");
    writer.give_back_spares().unwrap();
    assert_eq!(names(&fs), ["000004.wal"]);
    assert_eq!(wal.file_bytes(), 4096);
    assert!(!wal.needs_spare(), "not before something is written");
    assert!(wal.begin_spare(0, 0).is_none(), "who was asked before makes no more");
    let last = segment_files(&fs.crash_clone(Keep::Nothing, 0)).pop();
    assert_eq!(last, Some(segment_path(dir(), 4)), "those with a segment's name durably");
    expected.extend(append(&mut writer, &wal, [1000]));
    assert!(wal.needs_spare());
    wal.prepare_spare().unwrap();
    assert_eq!(names(&fs)[..3], ["000004.wal", "000005.wal", "000006.wal"]);
    expected.extend(append(&mut writer, &wal, [1000; 10]));
    let (from, input) = (expected.len() - 12, ReplayInput { floor_segment: 4, prev_seqno_floor: 9, ..input(9) });
    assert_eq!(read_with(&fs, input, true).unwrap().0, expected[from..]);
}

/// The file that could not be made ready, or not be removed, stayed behind the gap that those before it left: the log was
/// taken for damaged.
#[test]
fn a_file_that_is_not_ready_is_not_left_behind_a_gap() {
    let sim = sim();
    let fs = FaultFileSystem::new(Arc::new(sim.clone()));
    let (wal, mut writer) = create(Arc::new(fs.clone()), dir(), DATABASE, 1, 0, options(4096)).unwrap();
    let expected = append(&mut writer, &wal, [1000; 10]);
    fs.only(Op::MappedWrite);
    fs.fail_from(2, Fault::Io);
    wal.prepare_spare().unwrap_err();
    fs.clear();
    assert_eq!(segment_files(&sim).last(), Some(&segment_path(dir(), 6)), "5 is ready, 6 is not");
    fs.only(Op::Remove);
    fs.fail_from(1, Fault::Io);
    writer.give_back_spares().unwrap_err();
    fs.clear();
    assert_eq!(segment_files(&sim).last(), Some(&segment_path(dir(), 6)), "6 cannot be removed, so 5 stays");
    writer.give_back_spares().unwrap();
    assert_eq!(segment_files(&sim).last(), Some(&segment_path(dir(), 4)));
    assert_eq!(read(&sim), expected);
}

#[test]
fn a_roll_makes_its_file_where_none_was_made_since_they_were_given_back() {
    let fs = sim();
    let (wal, mut writer) = new_log(&fs, 4096);
    let mut expected = append(&mut writer, &wal, [1000; 2]);
    wal.prepare_spare().unwrap();
    writer.give_back_spares().unwrap();
    expected.extend(append(&mut writer, &wal, [1000; 10]));
    assert_eq!(read(&fs), expected);
}

#[test]
fn a_record_that_fits_to_the_byte_does_not_roll() {
    let fs = sim();
    let (wal, mut writer) = new_log(&fs, 4096);
    let room = 4096 - HEADER_BYTES as usize - 48;
    append(&mut writer, &wal, [room]);
    assert_eq!(wal.active_segment(), 1);
    append(&mut writer, &wal, [room + 1]);
    assert_eq!(wal.active_segment(), 2);
    assert_eq!(fs.read(&segment_path(dir(), 2)).unwrap().len() as u64, HEADER_BYTES + record_bytes(room + 1));
    append(&mut writer, &wal, [0]);
    assert_eq!((wal.active_segment(), read(&fs).len()), (3, 3));
}

#[test]
fn the_largest_number_can_be_written_and_none_after_it() {
    let fs = sim();
    let (_wal, mut writer) = new_log(&fs, 4096);
    let last = crate::key::MAX_SEQNO;
    assert!(matches!(writer.append(last, 2, b""), Err(Error::InvalidArgument(_))));
    writer.append(last - 1, 2, b"two").unwrap();
    for count in [0, 1] {
        assert!(matches!(writer.append(last, count, b""), Err(Error::InvalidArgument(_))));
    }
    assert_eq!(read(&fs), [(last - 1, 2, b"two".to_vec())]);
}

#[test]
fn what_is_dropped_is_counted_without_the_hole_that_ends_the_log() {
    let fs = sim();
    let (wal, mut writer) = new_log(&fs, 4096);
    let expected = append(&mut writer, &wal, [1000; 4]);
    let second = HEADER_BYTES + record_bytes(1000);
    fs.flip_bit(&segment_path(dir(), 1), second + 20, 0).unwrap();
    let (records, replayed) = read_with(&fs, input(0), true).unwrap();
    assert_eq!(records, expected[..1]);
    // In the first segment up to the end of its last record, in the second all.
    assert_eq!(replayed.dropped_bytes, 3 * record_bytes(1000));
}

#[test]
fn a_roll_into_a_prepared_segment_touches_no_name() {
    let sim = sim();
    let fs = FaultFileSystem::new(Arc::new(sim.clone()));
    let (wal, mut writer) = create(Arc::new(fs.clone()), dir(), DATABASE, 1, 0, options(4096)).unwrap();
    append(&mut writer, &wal, [3000]);
    for op in [Op::Rename, Op::SyncDir, Op::CreateMapped] {
        wal.prepare_spare().unwrap();
        let before = wal.active_segment();
        fs.only(op);
        fs.fail_from(1, Fault::Io);
        append(&mut writer, &wal, [3000]);
        fs.clear();
        assert_eq!(wal.active_segment(), before + 1, "{op:?}");
    }
}

/// A segment is read 256 KiB at a time; the last header of a piece belongs to a payload that is not in it.
#[test]
fn records_are_whole_wherever_a_piece_that_is_read_ends() {
    let fs = sim();
    let (wal, mut writer) = new_log(&fs, 1 << 20);
    let piece_bytes = 256 << 10;
    let full = piece_bytes - HEADER_BYTES as usize - 48;
    let mut expected = append(&mut writer, &wal, [full]);
    expected.extend(append(&mut writer, &wal, vec![0; full / 48]));
    assert_eq!((wal.active_segment(), full % 48), (2, 0));
    expected.extend(append(&mut writer, &wal, [1, 100]));
    assert!(read(&fs) == expected);
}

/// The number of the file to prepare came from the list of segments, in which a roll enters its own only after it took
/// the file: the prepared one replaced that, and what was logged in it was gone after a restart.
#[test]
fn a_file_that_a_roll_took_is_not_prepared_again() {
    let fs = sim();
    let (wal, writer) = new_log(&fs, 4096);
    let mut taken = wal.take_segment_file(2, 0).unwrap();
    wal.prepare_spare().unwrap();
    taken.write_at(0, b"the roll's").unwrap();
    assert!(fs.read(&dir().join("000002.wal")).unwrap().starts_with(b"the roll's"), "its file was replaced");
    let prepared: Vec<_> = (1..=5).map(|number| segment_path(dir(), number)).collect();
    assert_eq!(segment_files(&fs), prepared, "the files prepared are those of the next segments");
    drop(writer);
}

#[test]
fn three_full_grown_files_are_ready_and_one_small_one() {
    let fs = sim();
    let (wal, mut writer) = new_log(&fs, 1 << 20);
    let prepared = || {
        wal.prepare_spare().unwrap();
        segment_files(&fs).len() as u64 - wal.active_segment()
    };
    assert_eq!((prepared(), prepared()), (1, 1));
    append(&mut writer, &wal, [200_000; 2]);
    assert_eq!((wal.active_segment(), prepared(), prepared()), (2, 3, 3));
    append(&mut writer, &wal, [500_000; 2]);
    assert_eq!((wal.active_segment(), prepared()), (3, 3));
    let calls = fs.call_count();
    append(&mut writer, &wal, [500_000; 4]);
    assert_eq!(wal.active_segment(), 5);
    assert_eq!(fs.call_count() - calls, 4 + 4 + 2, "writes of header and payload, and of segment headers: no new file");
}

/// Of a filled file each sync writes two megabytes, also of one that is used again.
#[test]
fn files_are_filled_where_the_log_is_not_synced_often() {
    let dir = tempfile::tempdir().unwrap();
    let fs = Arc::new(crate::fs::OsFileSystem);
    let (wal, mut writer) = create(fs, dir.path(), 7, 1, 0, options(64 << 10)).unwrap();
    append(&mut writer, &wal, [40_000; 3]);
    wal.prepare_spare().unwrap();
    assert_eq!(wal.filled(), [true; 3]);
    append(&mut writer, &wal, [40_000; 4]);
    wal.sync_all().unwrap();
    wal.release_below(floor_segment(&wal, wal.last_logged_seqno()).unwrap());
    for _ in 0..20 {
        append(&mut writer, &wal, [10]);
        wal.sync_all().unwrap();
    }
    wal.prepare_spare().unwrap();
    assert_eq!(wal.filled(), [false; 3]);
}

/// Space that is only reserved costs each sync a commit of the filesystem's journal; writing it before costs a write of
/// the whole file. So a file is written ahead if the log is synced often, and only then, and only if it is new.
#[test]
fn new_files_are_written_ahead_where_syncs_pay_for_it() {
    let fs = Arc::new(FaultFileSystem::new(Arc::new(sim())));
    fs.only(Op::MappedSync);
    let (wal, mut writer) = create(fs.clone(), dir(), DATABASE, 1, 0, options(1 << 20)).unwrap();
    let syncs_of_preparation = || {
        let before = fs.calls();
        wal.prepare_spare().unwrap();
        fs.calls() - before
    };
    append(&mut writer, &wal, [1000]);
    wal.sync_all().unwrap();
    assert_eq!(syncs_of_preparation(), 0, "one sync in 512 KiB");
    append(&mut writer, &wal, [400_000; 2]);
    for _ in 0..8 {
        append(&mut writer, &wal, [1000]);
        wal.sync_all().unwrap();
    }
    assert_eq!(syncs_of_preparation(), 3, "eight syncs since then, in 1 MiB: each of the files that are made now");
    append(&mut writer, &wal, [900_000; 2]);
    assert_eq!(syncs_of_preparation(), 0, "none since then");
    append(&mut writer, &wal, [900_000; 2]);
    for _ in 0..8 {
        append(&mut writer, &wal, [1000]);
        wal.sync_all().unwrap();
    }
    let floor = floor_segment(&wal, wal.last_logged_seqno()).unwrap();
    wal.release_below(floor);
    assert_eq!(syncs_of_preparation(), 1, "of two files one is recycled, and was written before");
}
