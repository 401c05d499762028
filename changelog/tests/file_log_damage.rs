//! The file log against torn tails, flipped bits and missing files.

mod common;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use common::{file_sink, file_source, log_path, put, read_all};
use siltstone::ChangeBatch;
use siltstone::fs::{Fault, FaultFileSystem, Op, SimFileSystem};
use siltstone_changelog::{Error, FileSink, FileSinkOptions, Position, Sink, Source};
use siltstone_tests::evidence::record;

/// How long a mark is.
const MARK_BYTES: usize = 24;

fn segments(fs: &SimFileSystem) -> Vec<PathBuf> {
    let is_segment = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "log");
    fs.paths().into_iter().filter(|path| path.starts_with(log_path()) && is_segment(path)).collect()
}

fn batches(count: u64) -> Vec<ChangeBatch> {
    (1..=count).map(|seqno| put(seqno, "value")).collect()
}

/// A closed log of `count` batches, flushed one by one.
fn written(count: u64, segment_bytes: u64) -> SimFileSystem {
    let fs = SimFileSystem::new();
    let mut sink = file_sink(&fs, segment_bytes).unwrap();
    for batch in batches(count) {
        sink.append(&batch).unwrap();
        sink.flush().unwrap();
    }
    fs
}

#[test]
fn a_tail_torn_at_any_byte_is_the_end_and_is_repaired() {
    let fs = SimFileSystem::new();
    let mut sink = file_sink(&fs, 1 << 20).unwrap();
    let path = &segments(&fs)[0];
    for batch in batches(3) {
        sink.append(&batch).unwrap();
    }
    sink.flush().unwrap();
    let whole = fs.read(path).unwrap();
    sink.append(&put(4, "torn")).unwrap();
    sink.flush().unwrap();
    drop(sink);
    let longer = fs.read(path).unwrap();
    // The last mark is not part of the last record.
    let record_end = longer.len() - MARK_BYTES;
    for len in whole.len()..record_end {
        let torn = SimFileSystem::new();
        torn.write(path, &longer[..len]).unwrap();
        assert_eq!(read_all(&file_source(&torn)).unwrap(), batches(3), "{len} bytes: read");
        let mut sink = file_sink(&torn, 1 << 20).unwrap();
        assert_eq!(sink.last_seqno().unwrap(), Some(3), "{len} bytes");
        sink.append(&put(3, "a duplicate")).unwrap();
        sink.append(&put(4, "again")).unwrap();
        sink.flush().unwrap();
        let mut expected = batches(3);
        expected.push(put(4, "again"));
        assert_eq!(read_all(&file_source(&torn)).unwrap(), expected, "{len} bytes: written on");
    }
}

#[test]
fn every_flipped_bit_is_an_error_or_changes_nothing() {
    let fs = written(5, 150);
    let files = segments(&fs);
    assert!(files.len() >= 2, "sealed segments and a last one");
    let mut errors = 0;
    for path in &files {
        let bytes = fs.read(path).unwrap();
        record("flipped_bytes", bytes.len() as u64);
        // The last mark is behind everything that it could prove: it cannot be told from one that was being written.
        let free_from = if path == files.last().unwrap() { bytes.len() - MARK_BYTES } else { bytes.len() };
        for bit in 0..bytes.len() * 8 {
            let damaged = fs.crash_clone(siltstone::fs::Keep::All, 0);
            damaged.flip_bit(path, (bit / 8) as u64, (bit % 8) as u32).unwrap();
            match read_all(&file_source(&damaged)) {
                Ok(read) => {
                    assert_eq!(read, batches(5), "{} bit {bit}", path.display());
                    assert!(bit / 8 >= free_from, "{} bit {bit}: nobody noticed", path.display());
                }
                Err(Error::Corruption { file, .. } | Error::UnsupportedVersion { file, .. }) => {
                    assert_eq!(&file, path);
                    errors += 1;
                }
                Err(other) => panic!("{} bit {bit}: {other}", path.display()),
            }
            // The sink reads the last segment only; it may refuse, but never writes on after damage to data.
            if let Ok(mut sink) = file_sink(&damaged, 150)
                && path == files.last().unwrap()
            {
                assert_eq!(sink.last_seqno().unwrap(), Some(5), "{} bit {bit}", path.display());
            }
        }
    }
    assert!(errors > 1000, "{errors} flips were noticed");
}

/// Reads and writes on after `damage`; what is read must be a first part of `all`, or an error that names a file.
fn check_damaged(damaged: &SimFileSystem, all: &[ChangeBatch], least: usize, what: &str) {
    let named = |error: &Error| match error {
        Error::Corruption { file, .. } | Error::UnsupportedVersion { file, .. } => file.starts_with(log_path()),
        Error::PositionOutOfRange { .. } => true,
        _ => false,
    };
    match read_all(&file_source(damaged)) {
        Ok(read) => {
            assert!(read.len() >= least && all.starts_with(&read), "{what}: {} of {} read", read.len(), all.len());
            // The sink goes on behind the same batches, or refuses.
            match file_sink(damaged, 150) {
                Ok(mut sink) => {
                    let last = sink.last_seqno().unwrap();
                    assert_eq!(last.unwrap_or(0), read.len() as u64, "{what}: the sink goes on elsewhere");
                }
                Err(error) => assert!(named(&error), "{what}: {error:?}"),
            }
        }
        Err(error) => assert!(named(&error), "{what}: {error:?}"),
    }
}

#[test]
fn every_truncation_leaves_a_first_part_or_is_an_error() {
    let fs = written(8, 150);
    let files = segments(&fs);
    assert!(files.len() >= 3);
    let all = batches(8);
    for (n, path) in files.iter().enumerate() {
        let bytes = fs.read(path).unwrap();
        record("truncations", bytes.len() as u64);
        for len in 0..bytes.len() {
            let damaged = fs.crash_clone(siltstone::fs::Keep::All, 0);
            damaged.write(path, &bytes[..len]).unwrap();
            let what = format!("{} cut to {len} of {}", path.display(), bytes.len());
            // Without its last mark a sealed segment still holds all that the next one says it has to.
            if n + 1 < files.len() {
                match read_all(&file_source(&damaged)) {
                    Ok(read) => assert!(read == all && len + MARK_BYTES >= bytes.len(), "{what}: nobody noticed"),
                    Err(error) => assert!(matches!(error, Error::Corruption { .. }), "{what}: {error}"),
                }
            }
            check_damaged(&damaged, &all, 0, &what);
        }
    }
}

#[test]
fn longer_and_exchanged_segments_are_errors_or_change_nothing() {
    let fs = written(8, 150);
    let files = segments(&fs);
    let all = batches(8);
    for path in &files {
        let bytes = fs.read(path).unwrap();
        for (by, filler) in [(1, 0), (100, 0), (1, 0xa5), (100, 0xa5)] {
            let damaged = fs.crash_clone(siltstone::fs::Keep::All, 0);
            damaged.write(path, &[bytes.clone(), vec![filler; by]].concat()).unwrap();
            check_damaged(&damaged, &all, all.len(), &format!("{}: {by} times {filler} behind it", path.display()));
        }
        for other in files.iter().filter(|other| *other != path) {
            let swapped = fs.crash_clone(siltstone::fs::Keep::All, 0);
            swapped.write(path, &fs.read(other).unwrap()).unwrap();
            let what = format!("{} replaced by {}", path.display(), other.display());
            assert!(read_all(&file_source(&swapped)).is_err(), "{what}: nobody noticed");
            swapped.write(other, &bytes).unwrap();
            assert!(read_all(&file_source(&swapped)).is_err(), "{what} and back: nobody noticed");
        }
    }
}

#[test]
fn a_missing_segment_is_damage_and_a_missing_beginning_moves_the_bounds() {
    let fs = written(12, 150);
    let files = segments(&fs);
    assert!(files.len() >= 4);
    let without = |path: &Path| {
        let fs = fs.crash_clone(siltstone::fs::Keep::All, 0);
        siltstone::fs::FileSystem::remove_file(&fs, path).unwrap();
        fs
    };
    assert!(matches!(read_all(&file_source(&without(&files[1]))), Err(Error::Corruption { .. })));
    let source = file_source(&without(&files[0]));
    let zero = Position::from_bytes("0").unwrap();
    assert!(matches!(source.read(&zero), Err(Error::PositionOutOfRange { .. })));
    let rest = read_all(&source).unwrap();
    assert_eq!(rest, batches(12)[12 - rest.len()..]);
}

#[test]
fn reading_goes_on_from_every_position_and_from_no_other_place() {
    let fs = written(6, 150);
    let source = file_source(&fs);
    let (oldest, newest) = source.bounds().unwrap();
    let all: Vec<_> = source.read(&oldest).unwrap().collect::<Result<_, _>>().unwrap();
    assert_eq!(all.last().unwrap().0, newest);
    for (at, (position, _)) in all.iter().enumerate() {
        let rest: Vec<_> = source.read(position).unwrap().collect::<Result<_, _>>().unwrap();
        assert_eq!(rest, all[at + 1..], "from {position}");
    }
    for bad in ["1", "x", "99999", "0123456789abcdef:1"] {
        assert!(source.read(&Position::from_bytes(bad).unwrap()).is_err(), "{bad}");
    }
}

#[test]
fn a_reader_follows_a_writer_over_segments() {
    let fs = SimFileSystem::new();
    let mut sink = file_sink(&fs, 150).unwrap();
    let source = file_source(&fs);
    let (oldest, _) = source.bounds().unwrap();
    let mut following = source.read(&oldest).unwrap();
    for batch in batches(20) {
        assert!(following.next().is_none(), "caught up");
        sink.append(&batch).unwrap();
        let position = sink.flush().unwrap();
        assert_eq!(following.next().unwrap().unwrap(), (position, batch));
    }
    assert!(segments(&fs).len() > 5);
}

#[test]
fn a_newer_format_says_so_and_those_before_the_first_release_do() {
    let fs = written(1, 1 << 20);
    let path = &segments(&fs)[0];
    let mut bytes = fs.read(path).unwrap();
    for version in [1, 2, 4] {
        bytes[8] = version;
        fs.write(path, &bytes).unwrap();
        assert!(matches!(read_all(&file_source(&fs)), Err(Error::UnsupportedVersion { .. })), "{version}");
        assert!(matches!(file_sink(&fs, 1 << 20), Err(Error::UnsupportedVersion { .. })), "{version}");
    }
}

/// Found by fuzzing: a whole log could not be read from its beginning.
#[test]
fn a_shipped_segment_that_says_what_only_compaction_does_is_damage() {
    for (at, value) in [(56, 5), (64, 5), (72, 1), (72, 2)] {
        let fs = written(3, 1 << 20);
        let path = &segments(&fs)[0];
        let mut bytes = fs.read(path).unwrap();
        bytes[at] = value;
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(&bytes[..12]);
        hasher.update(&bytes[16..80]);
        bytes[12..16].copy_from_slice(&hasher.finalize().to_le_bytes());
        fs.write(path, &bytes).unwrap();
        assert!(matches!(read_all(&file_source(&fs)), Err(Error::Corruption { .. })), "byte {at}");
        assert!(matches!(file_sink(&fs, 1 << 20), Err(Error::Corruption { .. })), "byte {at}");
    }
}

#[test]
fn another_kind_of_log_is_not_taken_for_an_empty_one() {
    let fs = SimFileSystem::new();
    siltstone::fs::FileSystem::create_dir_all(&fs, log_path()).unwrap();
    fs.write(&log_path().join("00000000000000000000.log"), b"siltlog\0 of an earlier release").unwrap();
    assert!(matches!(file_sink(&fs, 1 << 20), Err(Error::UnsupportedVersion { .. })));
    assert!(matches!(read_all(&file_source(&fs)), Err(Error::UnsupportedVersion { .. })));
}

#[test]
fn a_full_disk_can_be_tried_again_and_a_failed_sync_cannot() {
    let sim = SimFileSystem::new();
    let fs = FaultFileSystem::new(Arc::new(sim.clone()));
    let options = FileSinkOptions::new().file_system(Arc::new(fs.clone()));
    let mut sink = FileSink::open_with(log_path(), options).unwrap();
    sink.append(&put(1, "value")).unwrap();
    fs.only(Op::Append);
    for fault in [Fault::NoSpace, Fault::ShortWrite] {
        fs.fail_at(1, fault);
        let error = sink.flush().unwrap_err();
        assert_eq!(error.is_retryable(), fault == Fault::NoSpace, "{error}");
    }
    sink.flush().unwrap();
    assert_eq!(read_all(&file_source(&sim)).unwrap(), batches(1));
    sink.append(&put(2, "value")).unwrap();
    fs.only(Op::Sync);
    fs.fail_at(1, Fault::NoSpace);
    assert!(!sink.flush().unwrap_err().is_retryable());
    assert!(!sink.flush().unwrap_err().is_retryable(), "it stays so: what is on storage is unknown");
    assert!(sink.append(&put(3, "value")).is_err());
}
