use super::*;
use crate::wal::format::{HEADER_BYTES, record_bytes, segment_path};

/// Writes a file's bytes with one change and reads the log.
fn read_changed(
    fs: &SimFileSystem,
    path: &Path,
    input: ReplayInput,
    change: impl FnOnce(&mut Vec<u8>),
) -> Result<Records> {
    let changed = fs.crash_clone(Keep::All, 0);
    let mut bytes = changed.read(path).unwrap();
    change(&mut bytes);
    changed.write(path, &bytes).unwrap();
    Ok(read_with(&changed, input, true)?.0)
}

#[test]
fn the_last_record_torn_at_every_byte_is_the_end() {
    let fs = sim();
    let (wal, mut writer) = new_log(&fs, 4096);
    let expected = append(&mut writer, &wal, [10, 100, 77]);
    let path = segment_path(dir(), 1);
    let start = (HEADER_BYTES + record_bytes(10) + record_bytes(100)) as usize;
    let end = start + 48 + 77;
    for at in 0..end + 8 {
        let cut = read_changed(&fs, &path, input(0), |bytes| bytes.truncate(at)).unwrap();
        let zeroed = read_changed(&fs, &path, input(0), |bytes| bytes[at..].fill(0)).unwrap();
        let whole = if at >= end {
            3
        } else if at >= start {
            2
        } else {
            cut.len()
        };
        assert_eq!(cut, expected[..whole], "cut at {at}");
        assert_eq!(zeroed, expected[..whole], "zeros from {at}");
        assert!(at >= end || whole < 3);
        let proven = read_changed(&fs, &path, input(3), |bytes| bytes.truncate(at));
        assert_eq!(matches!(proven, Err(Error::Corruption { .. })), at < end, "cut at {at}");
    }
}

#[test]
fn every_flipped_bit_of_a_synced_log_is_damage_and_of_an_unsynced_one_a_prefix() {
    for synced in [false, true] {
        let fs = sim();
        let (wal, mut writer) = new_log(&fs, 4096);
        let mut expected = append(&mut writer, &wal, [9, 30]);
        if synced {
            wal.sync_through(2).unwrap();
        }
        expected.extend(append(&mut writer, &wal, [5]));
        let synced_end = HEADER_BYTES + record_bytes(9) + record_bytes(30);
        for at in 0..synced_end {
            for bit in 0..8 {
                let changed = fs.crash_clone(Keep::All, 0);
                changed.flip_bit(&segment_path(dir(), 1), at, bit).unwrap();
                let padding = (121..128).contains(&at) || (206..208).contains(&at);
                match read_with(&changed, input(0), true) {
                    Ok((records, _)) if padding => assert_eq!(records, expected),
                    Ok((records, _)) => {
                        assert!(!synced, "byte {at} bit {bit}");
                        assert!(
                            records.len() < expected.len() && expected.starts_with(&records),
                            "byte {at} bit {bit}"
                        );
                    }
                    Err(Error::Corruption { file, offset, .. }) => {
                        assert!(synced, "byte {at} bit {bit}");
                        assert_eq!(file, segment_path(dir(), 1));
                        assert!(offset <= at);
                    }
                    Err(other) => panic!("byte {at} bit {bit}: {other}"),
                }
            }
        }
    }
}

#[test]
fn a_hole_ends_an_unsynced_log_and_is_damage_in_a_synced_one() {
    for proof in ["none", "record", "later segment", "manifest"] {
        let fs = sim();
        let (wal, mut writer) = new_log(&fs, 4096);
        let expected = append(&mut writer, &wal, [500; 3]);
        if proof == "record" || proof == "later segment" {
            wal.sync_through(3).unwrap();
        }
        append(&mut writer, &wal, if proof == "record" { vec![500] } else { vec![3500, 3500] });
        let hole = (HEADER_BYTES + 2 * record_bytes(500)) as usize;
        let manifest = input(if proof == "manifest" { 3 } else { 0 });
        let read = read_changed(&fs, &segment_path(dir(), 1), manifest, |bytes| bytes[hole..hole + 512].fill(0));
        match read {
            Ok(records) => assert_eq!((proof, &records[..]), ("none", &expected[..2])),
            Err(Error::Corruption { file, offset, reason }) => {
                assert_ne!(proof, "none");
                assert_eq!((file, offset), (segment_path(dir(), 1), hole as u64));
                assert!(reason.contains("synced up to 3"), "{reason}");
            }
            Err(other) => panic!("{other}"),
        }
    }
}

/// Records of metadata alone take no numbers, so the numbers of the next segment go on as if nothing were missing.
#[test]
fn metadata_lost_at_the_end_of_a_segment_ends_the_log() {
    for proven in [false, true] {
        let fs = sim();
        let (wal, mut writer) = new_log(&fs, 4096);
        let expected = append(&mut writer, &wal, [500]);
        writer.append(2, 0, &payload(2, 500)).unwrap();
        append(&mut writer, &wal, [3500]);
        if proven {
            wal.sync_all().unwrap();
            append(&mut writer, &wal, [500]);
        }
        assert_eq!(read(&fs).len(), if proven { 4 } else { 3 });
        let hole = (HEADER_BYTES + record_bytes(500)) as usize;
        match read_changed(&fs, &segment_path(dir(), 1), input(0), |bytes| bytes[hole..hole + 512].fill(0)) {
            Ok(records) => assert_eq!((proven, records), (false, expected)),
            Err(Error::Corruption { file, offset, reason }) => {
                assert!(proven && reason.contains("synced up to 2"), "{reason}");
                assert_eq!((file, offset), (segment_path(dir(), 1), hole as u64));
            }
            Err(other) => panic!("{other}"),
        }
    }
}

#[test]
fn what_was_cut_off_never_comes_back() {
    let fs = sim();
    let (wal, mut writer) = new_log(&fs, 4096);
    let expected = append(&mut writer, &wal, [1000; 12]);
    let hole = (HEADER_BYTES + 2 * record_bytes(1000)) as usize;
    let mut bytes = fs.read(&segment_path(dir(), 1)).unwrap();
    bytes[hole..hole + 512].fill(0);
    fs.write(&segment_path(dir(), 1), &bytes).unwrap();
    let before = fs.paths().iter().map(|path| fs.read(path).unwrap()).collect::<Vec<_>>();
    let (records, _) = read_with(&fs, input(0), true).unwrap();
    assert_eq!(records, expected[..2]);
    assert_eq!(before, fs.paths().iter().map(|path| fs.read(path).unwrap()).collect::<Vec<_>>(), "read-only");
    let (records, replayed) = read_with(&fs, input(0), false).unwrap();
    assert_eq!((records, replayed.next_segment), (expected[..2].to_vec(), 2));
    assert!(replayed.dropped_bytes > 8000, "{}", replayed.dropped_bytes);
    assert_eq!(fs.paths(), [segment_path(dir(), 1)]);
    assert_eq!(fs.read(&segment_path(dir(), 1)).unwrap().len(), hole);
    // The same numbers are written again, with other contents.
    let (_, mut writer) = open_after_replay(Arc::new(fs.clone()), dir(), DATABASE, replayed, 0, options(4096)).unwrap();
    writer.append(3, 1, b"another third").unwrap();
    let kept = [&expected[..2], &[(3, 1, b"another third".to_vec())]].concat();
    assert_eq!(read(&fs), kept);
}

#[test]
fn a_value_that_holds_a_log_is_not_the_log() {
    let fs = sim();
    let (wal, mut writer) = new_log(&fs, 1 << 16);
    append(&mut writer, &wal, [100; 5]);
    wal.sync_through(5).unwrap();
    append(&mut writer, &wal, [100; 5]);
    let stolen = fs.read(&segment_path(dir(), 1)).unwrap()[HEADER_BYTES as usize..3000].to_vec();
    let other = sim();
    let (_, mut writer) = create(Arc::new(other.clone()), dir(), DATABASE + 1, 1, 0, options(1 << 16)).unwrap();
    writer.append(1, 1, &stolen).unwrap();
    let own = ReplayInput { database_id: DATABASE + 1, ..input(0) };
    // The only record is damaged: what its value holds must neither be replayed nor prove anything.
    let records =
        read_changed(&other, &segment_path(dir(), 1), own, |bytes| bytes[HEADER_BYTES as usize] ^= 1).unwrap();
    assert!(records.is_empty());
}

#[test]
fn missing_foreign_and_unreadable_segments() {
    let fs = sim();
    let (wal, mut writer) = new_log(&fs, 4096);
    let expected = append(&mut writer, &wal, [1000; 12]);
    let is_damage = |result: Result<(Records, Replayed)>, path: &Path| {
        assert!(matches!(result, Err(Error::Corruption { file, .. }) if file == path));
    };
    let without = |number| {
        let fs = fs.crash_clone(Keep::All, 0);
        fs.remove_file(&segment_path(dir(), number)).unwrap();
        fs
    };
    is_damage(read_with(&without(1), input(0), true), &segment_path(dir(), 1));
    is_damage(read_with(&without(2), input(0), true), &segment_path(dir(), 2));
    assert_eq!(read(&without(4)), expected[..9]);
    is_damage(read_with(&fs, ReplayInput { database_id: 1, ..input(0) }, true), &segment_path(dir(), 1));
    is_damage(read_with(&fs, ReplayInput { floor_segment: 2, ..input(0) }, true), &segment_path(dir(), 2));
    let (records, replayed) =
        read_with(&fs, ReplayInput { floor_segment: 2, prev_seqno_floor: 5, ..input(0) }, true).unwrap();
    assert_eq!((records, replayed.last_logged_seqno), (expected[3..].to_vec(), 12));
    // An empty or never begun segment is no damage, unless the manifest says that there was something.
    let empty = sim();
    empty.write(&segment_path(dir(), 4), &[0; 4096]).unwrap();
    let floor = ReplayInput { floor_segment: 4, prev_seqno_floor: 20, ..input(20) };
    let (records, replayed) = read_with(&empty, floor, false).unwrap();
    assert_eq!((records.len(), replayed.last_logged_seqno, replayed.next_segment), (0, 20, 4));
    assert!(empty.paths().is_empty());
    assert!(read_with(&empty, ReplayInput { synced_seqno: 21, ..floor }, true).is_err());
    assert_eq!(read_with(&empty, floor, true).unwrap().1.last_logged_seqno, 20);
}

#[test]
fn an_intact_record_that_does_not_follow_is_the_end() {
    let fs = sim();
    let (wal, mut writer) = new_log(&fs, 4096);
    let expected = append(&mut writer, &wal, [40, 40]);
    let other = sim();
    let (_, mut writer) = new_log(&other, 4096);
    writer.append(1, 3, &payload(1, 40)).unwrap();
    writer.append(4, 1, &payload(4, 40)).unwrap();
    let second = (HEADER_BYTES + record_bytes(40)) as usize;
    let grafted = other.read(&segment_path(dir(), 1)).unwrap();
    let records = read_changed(&fs, &segment_path(dir(), 1), input(0), |bytes| {
        bytes[second..].copy_from_slice(&grafted[second..]);
    });
    assert_eq!(records.unwrap(), expected[..1]);
}
