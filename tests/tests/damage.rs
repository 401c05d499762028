//! Files of every kind truncated, flipped, missing or of a newer format: the right answer or an error that names the
//! place; never a panic, never a wrong answer.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rand::RngExt;
use siltstone::fs::{Keep, SimFileSystem};
use siltstone::{Db, Error, Result};
use siltstone_tests::state::{State, difference, dump};
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

/// Opens, reads everything both ways, and verifies; whether the damage was found.
fn check(sim: &SimFileSystem, expected: &State, what: &str) -> bool {
    let mut found_any = false;
    for mmap in [true, false] {
        let sim = sim.crash_clone(Keep::All, 0);
        let db = match open(&sim, mmap) {
            Ok(db) => db,
            Err(error) => {
                assert!(is_about_damage(&error), "{what}: {error:?}");
                found_any = true;
                continue;
            }
        };
        // Before the reads, which let the background meet the damage too.
        let report = db.verify();
        assert!(report.errors.iter().all(is_about_damage), "{what}: {report}");
        match dump(&db, &keyspace_options()) {
            Ok(state) => {
                if let Some(difference) = difference(&state, expected) {
                    panic!("{what}: a wrong answer, {difference}; verify says {report}");
                }
            }
            Err(error) => {
                // A background compaction may have met the damage first; then the keyspaces can be opened all the same.
                assert!(is_about_damage(&error), "{what}: {error:?}");
                assert!(!report.is_ok(), "{what}: verify found nothing, reading did: {error}");
            }
        }
        found_any |= !report.is_ok();
    }
    found_any
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

#[test]
fn a_flipped_bit_is_found_or_harmless() {
    let (sim, state) = closed_database();
    for (n, file) in files(&sim).iter().enumerate() {
        let len = sim.read(file).unwrap().len();
        let (mut found, offsets) = (0, offsets(len, 40, n as u64));
        for &at in &offsets {
            let damaged = sim.crash_clone(Keep::All, 0);
            damaged.flip_bit(file, at as u64, at as u32).unwrap();
            found += usize::from(check(
                &damaged,
                &state,
                &format!("bit flipped at {at} of {}, {len} bytes", file.display()),
            ));
        }
        println!("{}: {found} of {} flips found, the others harmless", file.display(), offsets.len());
        let kind = file.extension().is_some_and(|kind| kind == "table");
        // Every byte of a table is covered, except the filter's padding, which has to be zero.
        assert!(!kind || found == offsets.len(), "{}: {found} of {}", file.display(), offsets.len());
    }
}

#[test]
fn a_truncated_or_missing_file_is_found() {
    let (sim, state) = closed_database();
    for (n, file) in files(&sim).iter().enumerate() {
        let bytes = sim.read(file).unwrap();
        let (mut found, offsets) = (0, offsets(bytes.len(), 20, n as u64));
        for &len in &offsets {
            let damaged = sim.crash_clone(Keep::All, 0);
            damaged.write(file, &bytes[..len]).unwrap();
            found +=
                usize::from(check(&damaged, &state, &format!("{} cut to {len} of {}", file.display(), bytes.len())));
        }
        println!("{}: {found} of {} truncations found, the others harmless", file.display(), offsets.len());
        assert!(found > 0 || file.extension().is_some_and(|kind| kind == "spare"));
        let damaged = sim.crash_clone(Keep::All, 0);
        siltstone::fs::FileSystem::remove_file(&damaged, file).unwrap();
        siltstone::fs::FileSystem::sync_dir(&damaged, Path::new(DIRECTORY)).unwrap();
        let noticed = check(&damaged, &state, &format!("{} missing", file.display()));
        assert!(noticed || file.extension().is_some_and(|kind| kind == "spare"), "{} missing", file.display());
    }
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

/// Sets the format version of a file of each kind to the next one, and its checksum where the version is covered by
/// one.
fn newer(file: &Path, bytes: &mut [u8]) -> bool {
    let name = file.file_name().unwrap().to_string_lossy().into_owned();
    let at = match &name {
        name if name == "CURRENT" || name.starts_with("MANIFEST-") => 8,
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
