//! What verification finds in a log that is open.

use super::*;
use crate::wal::format::{HEADER_BYTES, SegmentHeader, record_bytes, segment_path};

/// Three segments of records that end with seven bytes of padding.
fn padded() -> (SimFileSystem, Arc<Wal>, WalWriter) {
    let fs = sim();
    let (wal, mut writer) = new_log(&fs, 4096);
    append(&mut writer, &wal, [1001; 7]);
    assert_eq!((segment_files(&fs).len(), wal.verify().unwrap()), (3, 7));
    (fs, wal, writer)
}

/// Where it finds damage.
fn found(wal: &Arc<Wal>) -> (PathBuf, u64) {
    match wal.verify() {
        Err(Error::Corruption { file, offset, .. }) => (file, offset),
        other => panic!("{other:?}"),
    }
}

#[test]
fn bytes_between_records() {
    let record = |number: u64| HEADER_BYTES + number * record_bytes(1001);
    for (segment, at) in [(1, 0), (1, 1), (2, 0), (3, 0)] {
        let padding_at = record(at) + 48 + 1001;
        for offset in [padding_at, padding_at + 6] {
            let (fs, wal, _writer) = padded();
            let path = segment_path(dir(), segment);
            fs.flip_bit(&path, offset, 0).unwrap();
            assert_eq!(found(&wal), (path, padding_at), "segment {segment}, record {at}");
        }
    }
}

#[test]
fn headers_of_segments() {
    let (fs, wal, _writer) = padded();
    let path = segment_path(dir(), 2);
    fs.flip_bit(&path, 8, 0).unwrap();
    assert_eq!(found(&wal), (path, 0));
    // One that is intact, but of another place in the log.
    let (fs, wal, _writer) = padded();
    let path = segment_path(dir(), 3);
    let header = SegmentHeader { segment: 3, database_id: DATABASE, file_bytes: 4096, prev_seqno: 5, prev_end: 0 };
    let mut bytes = fs.read(&path).unwrap();
    bytes[..HEADER_BYTES as usize].copy_from_slice(&header.encode());
    fs.write(&path, &bytes).unwrap();
    assert_eq!(found(&wal), (path, 40));
}

#[test]
fn a_file_that_is_gone() {
    let (fs, wal, _writer) = padded();
    fs.remove_file(&segment_path(dir(), 1)).unwrap();
    assert!(matches!(wal.verify(), Err(Error::Io { .. })));
}

#[test]
fn a_segment_that_was_let_go_of_is_not_missed() {
    let (_fs, wal, _writer) = padded();
    let listed = || wal.segments.lock().live[0].segment.clone();
    let oldest = listed();
    assert!(wal.open_listed(&oldest).unwrap().is_some());
    wal.sync_all().unwrap();
    wal.release_below(floor_segment(&wal, 7).unwrap());
    assert!(wal.open_listed(&oldest).unwrap().is_none());
    let newest = listed();
    let gone = Segment { path: dir().join("gone"), backing: Backing::Recovered, end: 0.into(), ..*newest };
    assert!(matches!(wal.open_listed(&gone), Err(Error::Io { .. })), "one that is listed is");
}
