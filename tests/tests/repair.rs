//! `repair`: whatever one place of a database is damaged, everything else comes back; stopped anywhere, it can be run
//! again.
//!
//! `SILTSTONE_DAMAGE=all` takes every byte and every length.

use std::path::Path;

use siltstone::Error;
use siltstone_tests::damage::database::{self, DIRECTORY, Database, options};
use siltstone_tests::damage::repair::{run, run_stopped};
use siltstone_tests::damage::{Case, block_flips, is, whole_files};
use siltstone_tests::evidence;

/// Every how many-th byte or length is damaged.
fn stride(ordinary: usize) -> usize {
    if std::env::var("SILTSTONE_DAMAGE").is_ok_and(|effort| effort == "all") { 1 } else { ordinary }
}

/// Where a file has contents: the zeros behind the last record of a log are left out.
fn written(database: &Database, file: &Path) -> usize {
    let bytes = database.sim.read(file).unwrap();
    let used = bytes.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1);
    if is(file, "wal") { (used + 8).min(bytes.len()) } else { bytes.len() }
}

#[test]
fn all_but_the_flipped_block_or_record_comes_back() {
    let mut repairs = 0;
    for (stride, database) in std::iter::zip([stride(5), stride(7)], database::both()) {
        for file in database.files() {
            for at in (0..written(database, &file)).step_by(stride) {
                run(database, &Case::Flip { file: file.clone(), at, bit: at as u32 % 8 });
                repairs += 1;
            }
        }
        for case in block_flips(database) {
            run(database, &case);
            repairs += 1;
        }
    }
    evidence::record("repairs", repairs);
    evidence::record("lost", 0);
    evidence::record("wrong", 0);
}

#[test]
fn all_but_what_was_cut_off_comes_back() {
    let mut repairs = 0;
    for (stride, database) in std::iter::zip([stride(11), stride(13)], database::both()) {
        for file in database.files() {
            for len in (0..written(database, &file)).step_by(stride) {
                run(database, &Case::Cut { file: file.clone(), len });
                repairs += 1;
            }
        }
    }
    evidence::record("repairs", repairs);
}

#[test]
fn all_but_what_was_lost_with_a_file_comes_back() {
    let mut repairs = 0;
    for database in database::both() {
        for case in whole_files(database) {
            run(database, &case);
            repairs += 1;
        }
    }
    evidence::record("repairs", repairs);
}

#[test]
fn a_repair_that_is_stopped_anywhere_can_be_run_again() {
    for database in database::both() {
        let mut stops = 0;
        for kind in ["wal", "table", "CURRENT", "MANIFEST"] {
            let file = database.files().into_iter().find(|file| is(file, kind)).unwrap();
            let at = written(database, &file) / 3;
            stops += run_stopped(database, &Case::Flip { file, at, bit: 3 });
        }
        println!("{}: stopped at {stops} calls", database.name);
        evidence::record("repairs", 3 * stops);
    }
}

#[test]
fn random_damage_in_two_places() {
    for seed in [1, 2] {
        println!("seed {seed}");
        siltstone_tests::damage::round(seed);
    }
}

#[test]
fn a_database_without_damage_is_not_touched() {
    for database in database::both() {
        let sim = database.copy();
        let report = options(&sim).repair(DIRECTORY).unwrap();
        assert!(!report.changed && report.dropped_bytes() == 0, "{report}");
        for file in database.files() {
            assert_eq!(sim.read(&file).unwrap(), database.sim.read(&file).unwrap(), "{}", file.display());
        }
        assert_eq!(sim.paths(), database.sim.paths());
    }
}

#[test]
fn what_is_no_database_or_is_in_use_is_refused() {
    let [database, _] = database::both();
    let sim = database.copy();
    let db = options(&sim).open(DIRECTORY).unwrap();
    assert!(matches!(options(&sim).repair(DIRECTORY), Err(Error::Locked { .. })));
    drop(db);
    assert!(matches!(options(&sim).read_only(true).repair(DIRECTORY), Err(Error::InvalidArgument(_))));
    assert!(matches!(options(&sim).repair("/nothing"), Err(Error::Io { .. })));
    let empty = tempfile::tempdir().unwrap();
    assert!(matches!(siltstone::repair(empty.path()), Err(Error::Io { .. })));
    assert_eq!(std::fs::read_dir(empty.path()).unwrap().count(), 0, "nothing is left behind");
}
