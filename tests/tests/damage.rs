//! Every byte of small databases flipped and every file cut at every length, one at a time; files missing, longer,
//! exchanged or of a newer format: the right answer or an error that names the place; never a panic, never a wrong
//! answer, never an allocation by a damaged length.
//!
//! `SILTSTONE_DAMAGE=all` flips all eight bits of each byte, and leaves out nothing in any mode.

use std::alloc::{GlobalAlloc, Layout, System};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use rand::RngExt;
use siltstone::fs::{Keep, SimFileSystem};
use siltstone::{Db, Error, Result};
use siltstone_tests::damage::check::{LARGEST_ALLOCATION_BYTES, Mode};
use siltstone_tests::damage::database::{self, Database};
use siltstone_tests::damage::{Counts, block_flips, compact_over, cut_all, flip_all, flip_under, is, run, whole_files};
use siltstone_tests::evidence;
use siltstone_tests::state::{State, dump};
use siltstone_tests::steps::rng;
use siltstone_tests::workload::{DIRECTORY, Workload, keyspace_options, options};

fn open(sim: &SimFileSystem, mmap: bool) -> Result<Db> {
    options().mmap_reads(mmap).file_system(Arc::new(sim.clone())).open(Path::new(DIRECTORY))
}

/// A database with several tables, a manifest that was appended to, and log; closed, with what it holds.
fn closed_database() -> (SimFileSystem, State) {
    let sim = SimFileSystem::new();
    let outcome = Workload { seed: 9, steps: 150, lockstep: true }.run(options().file_system(Arc::new(sim.clone())));
    assert!(outcome.error.is_none());
    drop(outcome.db);
    let left = sim.crash_clone(Keep::All, 0);
    let db = open(&left.crash_clone(Keep::All, 0), true).unwrap();
    let state = dump(&db, &keyspace_options()).unwrap();
    assert!(db.verify().tables > 3);
    (left, state)
}

/// Files of each kind; the lock has no contents.
fn files(sim: &SimFileSystem) -> Vec<PathBuf> {
    let files: Vec<PathBuf> = sim.paths().into_iter().filter(|path| !sim.read(path).unwrap().is_empty()).collect();
    for kind in ["CURRENT", "MANIFEST-", ".wal", ".table"] {
        assert!(files.iter().any(|path| path.to_string_lossy().contains(kind)), "no {kind} among {files:?}");
    }
    files
}

/// The error has to be one about the file's contents.
fn is_about_damage(error: &Error) -> bool {
    matches!(error, Error::Corruption { .. } | Error::UnsupportedVersion { .. })
}

/// Counts what is allocated at once, for everything that this test opens.
struct Counting;

#[allow(unsafe_code, reason = "an allocator cannot be written without; this one only looks at sizes")]
// SAFETY: every call goes to the system's allocator with the arguments it came with; looking allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        LARGEST_ALLOCATION_BYTES.fetch_max(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's contract is the system allocator's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        LARGEST_ALLOCATION_BYTES.fetch_max(layout.size(), Ordering::Relaxed);
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, new_bytes: usize) -> *mut u8 {
        LARGEST_ALLOCATION_BYTES.fetch_max(new_bytes, Ordering::Relaxed);
        // SAFETY: as above.
        unsafe { System.realloc(pointer, layout, new_bytes) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// How many bits of each byte are flipped, and every how many-th byte or length the expensive cases take.
fn effort(stride: usize) -> (u32, usize) {
    match std::env::var("SILTSTONE_DAMAGE") {
        Ok(effort) if effort == "all" => (8, 1),
        _ => (1, stride),
    }
}

/// Counts what was done; a wrong answer has panicked before.
fn record(figure: &str, counts: &[Counts]) {
    evidence::record(figure, counts.iter().map(|counts| counts.cases).sum());
    evidence::record("damage_found_by_verify", counts.iter().map(|counts| counts.found).sum());
    evidence::record("wrong", 0);
    evidence::record("lost", 0);
}

/// Every byte of every file, read-only; a part of them, another one for each file, also open for writing.
fn flip_every_byte(database: &Database) {
    let (bits, stride) = effort(1);
    let mut all = Vec::new();
    for (n, file) in database.files().iter().enumerate() {
        let reading = flip_all(database, file, bits, (1, 0), Mode::ReadOnly);
        let stride = if is(file, "table") { stride } else { 1 };
        let writing = flip_all(database, file, bits, (stride, n), Mode::Write);
        println!("{}: {reading:?} {writing:?}", file.display());
        all.extend([reading, writing]);
    }
    record("flipped_bytes", &all);
}

#[test]
fn every_flipped_byte_of_a_closed_database_is_found() {
    let [closed, _] = database::both();
    flip_every_byte(closed);
}

#[test]
fn every_flipped_byte_of_a_crashed_database_is_found_or_leaves_a_prefix() {
    let [_, crashed] = database::both();
    flip_every_byte(crashed);
}

#[test]
fn every_truncation_is_found_or_harmless() {
    let (_, stride) = effort(2);
    for database in database::both() {
        let mut all = Vec::new();
        for file in database.files() {
            let reading = cut_all(database, &file, 1, Mode::ReadOnly);
            let writing = cut_all(database, &file, stride, Mode::Write);
            println!("{}: {reading:?} {writing:?}", file.display());
            all.extend([reading, writing]);
        }
        record("truncations", &all);
    }
}

#[test]
fn missing_longer_and_exchanged_files_are_found_or_harmless() {
    for database in database::both() {
        let mut counts = Counts::default();
        for case in whole_files(database) {
            run(database, &case, Mode::ReadOnly, &mut counts);
            run(database, &case, Mode::Write, &mut counts);
        }
        evidence::record("damage_found_by_verify", counts.found);
    }
}

#[test]
fn what_is_damaged_under_an_open_database_is_found_by_verify() {
    for database in database::both() {
        let found = flip_under(database, effort(3).1);
        evidence::record("damage_found_by_verify", found);
        evidence::record("flipped_bytes", found);
    }
}

#[test]
fn compaction_makes_no_valid_table_of_a_damaged_block() {
    let [database, _] = database::both();
    let cases = block_flips(database);
    assert!(cases.len() > 20, "{} blocks", cases.len());
    cases.iter().for_each(|case| compact_over(database, case));
}

/// Offsets near both ends of a file and `sampled` more.
fn offsets(len: usize, sampled: usize, seed: u64) -> Vec<usize> {
    let rng = &mut rng(seed);
    let edges = (0..70).chain(len.saturating_sub(70)..len).filter(|&at| at < len);
    let mut offsets: Vec<usize> = edges.chain((0..sampled).map(|_| rng.random_range(0..len))).collect();
    offsets.sort_unstable();
    offsets.dedup();
    offsets
}

/// What a killed process left: a flip behind what was synced may end the log there, and nothing else.
#[test]
fn a_flip_in_an_unsynced_log_leaves_a_first_part() {
    let sim = SimFileSystem::new();
    let outcome = Workload { seed: 11, steps: 80, lockstep: true }.run(options().file_system(Arc::new(sim.clone())));
    let left = sim.crash_clone(Keep::All, 0);
    let history = outcome.history.clone();
    drop(outcome);
    for (n, file) in
        files(&left).iter().enumerate().filter(|(_, file)| file.extension().is_some_and(|kind| kind == "wal"))
    {
        let len = left.read(file).unwrap().len();
        for at in offsets(len, 200, 100 + n as u64) {
            let damaged = left.crash_clone(Keep::All, 0);
            damaged.flip_bit(file, at as u64, at as u32).unwrap();
            let what = format!("bit flipped at {at} of {}", file.display());
            match open(&damaged, true) {
                Ok(db) => {
                    let found = dump(&db, &keyspace_options()).unwrap();
                    let taken = history.check_prefix(&found, db.last_seqno(), history.synced());
                    taken.unwrap_or_else(|reason| panic!("{what}: {reason}"));
                }
                Err(error) => assert!(is_about_damage(&error), "{what}: {error:?}"),
            }
        }
    }
}

/// Whether a segment's header states the number in its name.
fn begins(file: &Path, bytes: &[u8]) -> bool {
    let number = u64::from_le_bytes(bytes[16..24].try_into().unwrap());
    file.ends_with(format!("{number:06}.wal"))
}

/// Sets the format version of a file of each kind to the next one, and its checksum where the version is covered by
/// one.
fn newer(file: &Path, bytes: &mut [u8]) -> bool {
    let name = file.file_name().unwrap().to_string_lossy().into_owned();
    let at = match &name {
        name if name == "CURRENT" || name.starts_with("MANIFEST-") => 8,
        // One that is made ready and not begun yet has no header, or that of the segment its file was before.
        name if name.ends_with(".wal") && !begins(file, bytes) => return false,
        name if name.ends_with(".wal") => 12,
        name if name.ends_with(".table") => bytes.len() - 12,
        _ => return false,
    };
    let version = u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
    bytes[at..at + 4].copy_from_slice(&(version + 1).to_le_bytes());
    if name.ends_with(".wal") {
        let crc = crc32(&bytes[12..64]);
        bytes[8..12].copy_from_slice(&crc.to_le_bytes());
    }
    true
}

/// CRC-32 (IEEE 802.3), bit by bit.
fn crc32(bytes: &[u8]) -> u32 {
    let step = |crc: u32, _| if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 };
    !bytes.iter().fold(u32::MAX, |crc, &byte| (0..8).fold(crc ^ u32::from(byte), step))
}

#[test]
fn a_newer_format_is_refused_by_name() {
    let (sim, _) = closed_database();
    let mut kinds = 0;
    for file in files(&sim) {
        let mut bytes = sim.read(&file).unwrap();
        if !newer(&file, &mut bytes) {
            continue;
        }
        kinds += 1;
        let newer = sim.crash_clone(Keep::All, 0);
        newer.write(&file, &bytes).unwrap();
        let error = match open(&newer, true) {
            Err(error) => error,
            Ok(db) => db.verify().errors.pop().unwrap_or_else(|| panic!("{} was read", file.display())),
        };
        match &error {
            Error::UnsupportedVersion { file: named, found: 2, supported: 1 } => assert_eq!(*named, file),
            error => panic!("{}: {error:?}", file.display()),
        }
    }
    assert!(kinds >= 4);
}
