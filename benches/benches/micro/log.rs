//! Appending records of one put (16 B key, 100 B value) to the log.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::time::Duration;

use criterion::{Criterion, Throughput};
use siltstone::internals::parts::Log;
use tempfile::TempDir;

use crate::fixture::directory;
use crate::timing::{self, time};

/// An encoded batch with one put: its key, its value, and four bytes.
const PAYLOAD: [u8; 120] = [0x5a; 120];

/// What its record takes, header and padding included.
const RECORD_BYTES: u64 = 168;

const SEGMENT_BYTES: u64 = 4 << 20;

/// Records that fit into what is left of the active segment and the prepared one after it, wherever the first ends.
const RECORDS: u64 = SEGMENT_BYTES / RECORD_BYTES - 1;

/// Records of a log that is never recycled.
const NEW_RECORDS: u64 = 200_000;

/// Records between two looks at the clock, where each is synced.
const SYNCED_RECORDS: u64 = 100;

fn new_log(segment_bytes: u64) -> (TempDir, Log) {
    let dir = directory();
    let log = Log::create(dir.path(), segment_bytes).expect("a log can be created");
    (dir, log)
}

fn append(log: &mut Log, records: u64) {
    for _ in 0..records {
        log.append(&PAYLOAD).expect("there is space");
    }
}

/// Appends to the rest of the active segment and to the prepared one; before, all others are recycled.
fn append_recycled(log: &mut Log) -> Duration {
    log.recycle().expect("segments can be recycled");
    time(|| append(log, RECORDS))
}

/// A log whose segments are full-grown, and only ever recycled from here on.
fn warm_log() -> (TempDir, Log) {
    let (dir, mut log) = new_log(SEGMENT_BYTES);
    for _ in 0..8 {
        append_recycled(&mut log);
    }
    let inodes = || -> BTreeSet<u64> {
        let files = dir.path().read_dir().expect("the directory is there");
        files.map(|file| file.and_then(|file| file.metadata()).expect("the file is there").ino()).collect()
    };
    let before = inodes();
    for _ in 0..4 {
        append_recycled(&mut log);
    }
    assert_eq!(inodes(), before, "the files are used again");
    (dir, log)
}

pub fn bench(c: &mut Criterion) {
    let (_dir, mut log) = new_log(SEGMENT_BYTES);
    append(&mut log, RECORDS);
    assert_eq!(log.verify().expect("the log is intact"), RECORDS);

    let mut warm = None;
    let mut group = c.benchmark_group("log append");
    group.throughput(Throughput::Elements(1));
    group.bench_function("mapped, new segments", |b| {
        timing::timed_steps(b, NEW_RECORDS, || {
            let (_dir, mut log) = new_log(64 << 20);
            time(|| append(&mut log, NEW_RECORDS))
        });
    });
    group.bench_function("mapped, recycled and warm", |b| {
        let (_, log) = warm.get_or_insert_with(warm_log);
        timing::timed_steps(b, RECORDS, || append_recycled(log));
    });
    group.bench_function("mapped, recycled and warm, each synced", |b| {
        let (_, log) = warm.get_or_insert_with(warm_log);
        timing::timed_steps(b, SYNCED_RECORDS, || {
            log.recycle().expect("segments can be recycled");
            time(|| {
                for _ in 0..SYNCED_RECORDS {
                    log.append(&PAYLOAD).and_then(|()| log.sync()).expect("there is space");
                }
            })
        });
    });
    // What an engine pays that appends by a system call, for comparison.
    group.bench_function("write(2) a record", |b| {
        let dir = directory();
        timing::timed_steps(b, NEW_RECORDS, || {
            let mut file = File::create(dir.path().join("log")).expect("a file can be created");
            time(|| {
                (0..NEW_RECORDS).for_each(|_| file.write_all(&[0x5a; RECORD_BYTES as usize]).expect("there is space"))
            })
        });
    });
}
