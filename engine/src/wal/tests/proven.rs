//! From which segment on a recovered log is not known to be on storage.

use super::replay::check_padding;
use super::*;
use crate::wal::format::{HEADER_BYTES, record_bytes, segment_path};

const PAYLOAD_BYTES: usize = 1000;

/// A log whose segments hold records 1 to 3, 4 to 6, and so on.
fn written(records: usize) -> (SimFileSystem, Arc<Wal>, WalWriter) {
    let fs = sim();
    let (wal, mut writer) = new_log(&fs, 4096);
    append(&mut writer, &wal, vec![PAYLOAD_BYTES; records]);
    (fs, wal, writer)
}

fn first_unproven(fs: &SimFileSystem, synced_seqno: SeqNo) -> u64 {
    read_with(fs, input(synced_seqno), true).unwrap().1.first_unproven
}

#[test]
fn it_is_the_first_that_holds_anything_behind_what_was_synced() {
    let (fs, ..) = written(8);
    for (synced_seqno, expected) in [(0, 1), (1, 1), (2, 1), (3, 2), (4, 2), (5, 2), (6, 3), (7, 3), (8, 4)] {
        assert_eq!(first_unproven(&fs, synced_seqno), expected, "synced up to {synced_seqno}");
    }
    assert_eq!(first_unproven(&written(0).0, 0), 1, "a header alone");
    assert_eq!(read_with(&sim(), ReplayInput { floor_segment: 7, ..input(0) }, true).unwrap().1.first_unproven, 7);
}

#[test]
fn records_without_a_number_are_proven_only_by_what_follows_them() {
    // Behind the last record, and at the end of a segment that others follow.
    let (fs, _wal, mut writer) = written(2);
    assert_eq!(first_unproven(&fs, 2), 2);
    writer.append(3, 0, &payload(0, 500)).unwrap();
    assert_eq!(first_unproven(&fs, 2), 1);
    writer.append(3, 1, &payload(3, PAYLOAD_BYTES)).unwrap();
    writer.append(4, 1, &payload(4, PAYLOAD_BYTES)).unwrap();
    assert_eq!(first_unproven(&fs, 3), 2, "one with a number comes behind it in the same segment");
    writer.append(5, 0, &payload(0, 3000)).unwrap();
    writer.append(5, 1, &payload(5, PAYLOAD_BYTES)).unwrap();
    let segments = read_with(&fs, input(4), true).unwrap().1.segments;
    assert_eq!(segments.iter().map(|segment| segment.prev_seqno).collect::<Vec<_>>(), [0, 3, 4, 4]);
    for (synced_seqno, expected) in [(3, 2), (4, 3), (5, 5)] {
        assert_eq!(first_unproven(&fs, synced_seqno), expected, "synced up to {synced_seqno}");
    }
}

#[test]
fn bytes_between_recovered_records_are_checked_when_asked_for() {
    let fs = sim();
    let (wal, mut writer) = new_log(&fs, 4096);
    append(&mut writer, &wal, [1001; 5]);
    let check = || {
        let segments = read_with(&fs, input(0), true).unwrap().1.segments;
        check_padding(&fs, DATABASE, &segments)
    };
    check().unwrap();
    let padding_at = HEADER_BYTES + record_bytes(1001) + 48 + 1001;
    fs.flip_bit(&segment_path(dir(), 1), padding_at + 2, 5).unwrap();
    assert!(matches!(check(), Err(Error::Corruption { offset, .. }) if offset == padding_at));
}
