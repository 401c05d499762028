use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::replay::{ReplayInput, Replayed, replay};
use super::*;
use crate::fs::{Fault, FaultFileSystem, Keep, Op, SimFileSystem};

mod crash;
mod damage;
mod follow;
mod proven;
mod salvage;
mod sizes;
mod verify;

const DATABASE: u64 = 0x5117;

fn plan(wal: &Wal, flushed_seqno: SeqNo) -> Option<Floor> {
    wal.plan_release(flushed_seqno, wal.mark())
}

/// The number of the segment that would be the oldest.
fn floor_segment(wal: &Wal, flushed_seqno: SeqNo) -> Option<u64> {
    plan(wal, flushed_seqno).map(|floor| floor.segment)
}

fn dir() -> &'static Path {
    Path::new("db")
}

fn sim() -> SimFileSystem {
    let fs = SimFileSystem::new();
    fs.create_dir_all(dir()).unwrap();
    fs
}

fn options(segment_bytes: u64) -> WalOptions {
    WalOptions { segment_bytes, max_retained_bytes: u64::MAX }
}

fn new_log(fs: &SimFileSystem, segment_bytes: u64) -> (Arc<Wal>, WalWriter) {
    create(Arc::new(fs.clone()), dir(), DATABASE, 1, 0, options(segment_bytes)).unwrap()
}

/// A payload that its number determines.
fn payload(seqno: SeqNo, bytes: usize) -> Vec<u8> {
    (0..bytes).map(|i| (seqno as usize * 31 + i * 7) as u8).collect()
}

type Records = Vec<(SeqNo, u32, Vec<u8>)>;

fn input(synced_seqno: SeqNo) -> ReplayInput {
    ReplayInput { database_id: DATABASE, floor_segment: 1, synced_seqno, prev_seqno_floor: 0 }
}

fn read_with(fs: &SimFileSystem, input: ReplayInput, read_only: bool) -> Result<(Records, Replayed)> {
    let mut records = Records::new();
    let replayed = replay(fs, dir(), &input, read_only, &mut |first, count, payload, _, _| {
        records.push((first, count, payload.to_vec()));
        Ok(())
    })?;
    Ok((records, replayed))
}

fn read(fs: &SimFileSystem) -> Records {
    read_with(fs, input(0), true).unwrap().0
}

/// Appends records of one write each, numbered on from the last, and answers with them.
fn append(writer: &mut WalWriter, wal: &Wal, lens: impl IntoIterator<Item = usize>) -> Records {
    let append_one = |bytes| {
        let seqno = wal.last_logged_seqno() + 1;
        writer.append(seqno, 1, &payload(seqno, bytes)).unwrap();
        writer.publish(seqno);
        (seqno, 1, payload(seqno, bytes))
    };
    lens.into_iter().map(append_one).collect()
}

fn segment_files(fs: &SimFileSystem) -> Vec<PathBuf> {
    fs.paths().into_iter().filter(|path| path.extension().is_some_and(|ext| ext == "wal")).collect()
}

#[test]
fn records_round_trip_over_rolls_and_oversize_ones() {
    let fs = sim();
    let (wal, mut writer) = new_log(&fs, 4096);
    let lens = (0..200).map(|i| [0, 1, 7, 8, 100, 1000, 3984, 3985, 20_000][i % 9]);
    let expected = append(&mut writer, &wal, lens);
    assert!(wal.active_segment() > 50);
    assert_eq!(read(&fs), expected);
    let (records, replayed) = read_with(&fs, input(0), false).unwrap();
    assert_eq!((records, replayed.last_logged_seqno, replayed.dropped_bytes), (expected.clone(), 200, 0));
    let (wal, mut writer) =
        open_after_replay(Arc::new(fs.clone()), dir(), DATABASE, replayed, 0, options(4096)).unwrap();
    assert_eq!((wal.last_logged_seqno(), wal.synced_seqno(), wal.oldest_segment()), (200, 0, 1));
    let more = append(&mut writer, &wal, [50; 100]);
    assert_eq!(read(&fs), [expected, more].concat());
    wal.sync_through(u64::MAX).unwrap();
    assert_eq!(wal.synced_seqno(), 300);
    assert_eq!(read(&fs.crash_clone(Keep::Nothing, 0)).len(), 300, "recovered segments are synced as well");
}

#[test]
fn batches_and_numbers_written_without_the_log_chain() {
    let fs = sim();
    let (wal, mut writer) = new_log(&fs, 4096);
    writer.append(1, 10, b"ten").unwrap();
    writer.append(50, 2, b"after a gap").unwrap();
    wal.sync_through(50).unwrap();
    assert_eq!(wal.synced_seqno(), 51, "whole records");
    wal.sync_through(60).unwrap();
    assert_eq!(read(&fs), [(1, 10, b"ten".to_vec()), (50, 2, b"after a gap".to_vec())]);
    for (first, count) in [(51, 1), (crate::key::MAX_SEQNO, 2), (u64::MAX, 1)] {
        assert!(matches!(writer.append(first, count, b""), Err(Error::InvalidArgument(_))), "{first} {count}");
    }
    writer.append(52, 0, b"metadata takes no number").unwrap();
    wal.sync_all().unwrap();
    writer.append(52, 1, b"so the next one is the same").unwrap();
    writer.append(crate::key::MAX_SEQNO, 1, b"last").unwrap();
    assert_eq!(read(&fs)[2..4].iter().map(|record| (record.0, record.1)).collect::<Vec<_>>(), [(52, 0), (52, 1)]);
    assert_eq!(read(&fs).len(), 5);
}

#[test]
fn segments_below_a_floor_are_known_by_their_names() {
    for (name, before) in [("000001.wal", true), ("000002.wal", true), ("000003.wal", false), ("000004.wal", false)] {
        assert_eq!(is_before(name, 3), before, "{name}");
    }
    assert!(!is_before("000001.table", 3) && !is_before("000001.spare", 3) && !is_before("1.wal", 3));
}

#[test]
fn segments_grow_from_small_and_report_their_sizes() {
    let fs = sim();
    let (wal, mut writer) = new_log(&fs, 1 << 20);
    assert_eq!((wal.total_bytes(), wal.file_bytes()), (64, 256 << 10));
    assert!(!wal.needs_spare());
    append(&mut writer, &wal, [100_000; 2]);
    assert!(wal.needs_spare(), "half of a small segment is used");
    wal.prepare_spare().unwrap();
    assert!(!wal.needs_spare());
    assert_eq!(wal.file_bytes(), (256 << 10) + (512 << 10));
    append(&mut writer, &wal, [100_000; 20]);
    assert_eq!((segment_files(&fs).len(), read(&fs).len()), (4, 22));
    assert_eq!(wal.file_bytes(), (256 << 10) + (512 << 10) + (2 << 20));
    assert!(wal.total_bytes() > 2_200_000);
}

#[test]
fn released_segments_are_recycled_and_old_bytes_never_come_back() {
    let fs = sim();
    let (wal, mut writer) = new_log(&fs, 4096);
    let mut expected = Records::new();
    let mut manifest = input(0);
    for round in 0..30 {
        expected.extend(append(&mut writer, &wal, [900; 5]));
        let creations = fs.paths().len();
        wal.sync_through(u64::MAX).unwrap();
        let flushed = wal.last_logged_seqno();
        if let Some(floor) = floor_segment(&wal, flushed) {
            manifest = ReplayInput { floor_segment: floor, prev_seqno_floor: flushed, ..manifest };
            wal.release_below(floor);
            assert_eq!(wal.oldest_segment(), floor);
        }
        assert!(creations <= 6, "round {round}: {creations} files");
        if round < 29 {
            wal.prepare_spare().unwrap();
        }
        let (records, replayed) = read_with(&fs, manifest, true).unwrap();
        assert!(expected.ends_with(&records), "round {round}");
        assert_eq!(replayed.last_logged_seqno, flushed, "round {round}");
    }
    assert!(fs.paths().iter().any(|path| path.extension().is_some_and(|ext| ext == "spare")));
    let (_, replayed) = read_with(&fs, manifest, false).unwrap();
    assert!(fs.paths().iter().all(|path| path.extension().is_some_and(|ext| ext == "wal")), "spares are removed");
    assert_eq!(segment_files(&fs).len(), replayed.segments.len());
}

#[test]
fn an_oversize_record_replaces_the_prepared_segment() {
    let fs = sim();
    let (wal, mut writer) = new_log(&fs, 4096);
    wal.prepare_spare().unwrap();
    let mut expected = append(&mut writer, &wal, [10, 50_000]);
    wal.prepare_spare().unwrap();
    expected.extend(append(&mut writer, &wal, [10, 3000, 3000]));
    assert_eq!(read(&fs), expected);
    assert_eq!(wal.active_segment(), 4);
}

#[test]
fn a_segment_is_ended_early_if_the_next_has_a_file() {
    let fs = sim();
    let (wal, mut writer) = new_log(&fs, 4096);
    wal.prepare_spare().unwrap();
    writer.end_segment();
    assert_eq!(wal.active_segment(), 1, "it was empty");
    let mut expected = append(&mut writer, &wal, [10]);
    writer.end_segment();
    assert_eq!((wal.active_segment(), wal.mark().segment()), (2, 2));
    expected.extend(append(&mut writer, &wal, [10]));
    writer.give_back_spares().unwrap();
    writer.end_segment();
    expected.extend(append(&mut writer, &wal, [10]));
    assert_eq!((wal.active_segment(), read(&fs)), (2, expected), "a writer would wait for a file");
}

#[test]
fn group_sync_serves_every_thread() {
    let fs = sim();
    let (wal, mut writer) = new_log(&fs, 4096);
    std::thread::scope(|scope| {
        let appended: Vec<_> = (0..4).map(|_| std::sync::mpsc::channel::<SeqNo>()).collect();
        let senders: Vec<_> = appended.iter().map(|(sender, _)| sender.clone()).collect();
        for (_, receiver) in appended {
            let (wal, fs) = (&wal, &fs);
            scope.spawn(move || {
                for seqno in receiver {
                    wal.sync_through(seqno).unwrap();
                    assert!(wal.synced_seqno() >= seqno);
                    if seqno % 50 == 0 {
                        let kept = read(&fs.crash_clone(Keep::Nothing, 0));
                        assert!(kept.len() as u64 >= seqno, "{seqno} was acknowledged, {} were kept", kept.len());
                    }
                }
            });
        }
        for seqno in 1..=1000u64 {
            writer.append(seqno, 1, &payload(seqno, 100)).unwrap();
            senders[seqno as usize % 4].send(seqno).unwrap();
        }
    });
    assert_eq!(wal.synced_seqno(), 1000);
}

#[test]
fn a_full_disk_is_an_error_and_the_log_takes_no_more() {
    let fs = sim();
    fs.set_capacity_bytes(Some(10_000));
    let (wal, mut writer) = new_log(&fs, 4096);
    let mut expected = append(&mut writer, &wal, [1000; 6]);
    expected.extend(append(&mut writer, &wal, [700; 1]));
    let error = writer.append(8, 1, &[0; 3000]).unwrap_err();
    assert!(matches!(&error, Error::Io { source, .. } if source.kind() == io::ErrorKind::StorageFull), "{error}");
    assert!(matches!(writer.append(8, 1, b"small"), Err(Error::ReadOnly { .. })));
    wal.sync_through(u64::MAX).unwrap();
    assert_eq!(read(&fs.crash_clone(Keep::Nothing, 0)), expected);
    fs.set_capacity_bytes(Some(100));
    assert!(create(Arc::new(fs.clone()), Path::new(""), DATABASE, 1, 0, options(4096)).is_err());
}

#[test]
fn a_torn_append_is_no_record() {
    for n in 1..=2 {
        let fs = sim();
        let faulty = FaultFileSystem::new(Arc::new(fs.clone()));
        let (wal, mut writer) = create(Arc::new(faulty.clone()), dir(), DATABASE, 1, 0, options(4096)).unwrap();
        let expected = append(&mut writer, &wal, [100]);
        faulty.only(Op::MappedWrite);
        faulty.fail_at(n, Fault::ShortWrite);
        assert!(matches!(writer.append(2, 1, &[9; 100]), Err(Error::Io { .. })));
        assert!(matches!(writer.append(2, 1, &[9; 100]), Err(Error::ReadOnly { .. })));
        assert_eq!((wal.last_logged_seqno(), read(&fs)), (1, expected), "write {n}");
    }
}

#[test]
fn a_failed_sync_proves_nothing_ever_after() {
    let fs = sim();
    let faulty = FaultFileSystem::new(Arc::new(fs));
    let (wal, mut writer) = create(Arc::new(faulty.clone()), dir(), DATABASE, 1, 0, options(4096)).unwrap();
    append(&mut writer, &wal, [100]);
    faulty.only(Op::MappedSync);
    faulty.fail_at(1, Fault::Io);
    assert!(matches!(wal.sync_through(1), Err(Error::Io { .. })));
    assert!(matches!(wal.sync_through(1), Err(Error::Io { .. })), "the fault is gone, the failure stays");
    assert_eq!(wal.synced_seqno(), 0);
}

#[test]
fn real_files_roll_recycle_and_replay() {
    let temporary = tempfile::tempdir().unwrap();
    let dir = temporary.path();
    let fs: Arc<dyn FileSystem> = Arc::new(crate::fs::OsFileSystem);
    let mut manifest = input(0);
    let (wal, mut writer) = create(fs.clone(), dir, DATABASE, 1, 0, options(8192)).unwrap();
    let mut tail = wal.tail(1).unwrap();
    for seqno in 1..=2000u64 {
        writer.append(seqno, 1, &payload(seqno, seqno as usize % 300)).unwrap();
        writer.publish(seqno);
        let record = tail.next().unwrap().unwrap();
        assert_eq!((record.first_seqno, &record.payload[..]), (seqno, &payload(seqno, seqno as usize % 300)[..]));
        if wal.needs_spare() {
            wal.prepare_spare().unwrap();
        }
        if seqno % 100 == 0 {
            wal.sync_through(seqno).unwrap();
            let floor = plan(&wal, seqno).unwrap();
            manifest =
                ReplayInput { floor_segment: floor.segment, prev_seqno_floor: seqno, synced_seqno: seqno, ..manifest };
            wal.release_below(floor.segment);
        }
    }
    writer.append(2001, 1, b"not synced").unwrap();
    drop((wal, writer, tail));
    for read_only in [true, false, false] {
        let mut last = Vec::new();
        let mut each = |_: SeqNo, _: u32, payload: &[u8], _: &Path, _: u64| {
            last = payload.to_vec();
            Ok(())
        };
        let replayed = replay(fs.as_ref(), dir, &manifest, read_only, &mut each).unwrap();
        assert_eq!((replayed.last_logged_seqno, &last[..]), (2001, &b"not synced"[..]));
    }
}
