//! Damage, one place at a time: which there is, what a database may answer then, and what a repair has to bring back.
//!
//! Every case is checked against what the intact database held: an answer is right, or an error that names the place;
//! `verify` or a refused open finds it, but for the bytes that are provably free; a repair keeps all but what lay in the
//! damaged block or record.

use std::fmt;
use std::path::{Path, PathBuf};

use rand::RngExt;
use siltstone::fs::{FileSystem as _, SimFileSystem};

use crate::evidence;
use crate::steps::rng;
use check::{Mode, Noticed, check, read_changes};
use database::{DIRECTORY, Database, options};

pub mod check;
pub mod database;
mod layout;
pub mod repair;

/// One thing that goes wrong with the files.
#[derive(Clone, Debug)]
#[allow(missing_docs, reason = "the fields are the file and the place that the variant names")]
pub enum Case {
    Flip {
        file: PathBuf,
        at: usize,
        bit: u32,
    },
    Cut {
        file: PathBuf,
        len: usize,
    },
    Remove {
        file: PathBuf,
    },
    /// Zeros or other bytes behind the end.
    Grow {
        file: PathBuf,
        by: usize,
        filler: u8,
    },
    /// Two files of a kind under each other's name.
    Swap {
        file: PathBuf,
        other: PathBuf,
    },
    /// A file of the same kind in the place of this one, which is lost.
    Replace {
        file: PathBuf,
        other: PathBuf,
    },
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.file().display();
        match self {
            Case::Flip { at, bit, .. } => write!(f, "{name}: bit {bit} of byte {at} flipped"),
            Case::Cut { len, .. } => write!(f, "{name}: cut to {len} bytes"),
            Case::Remove { .. } => write!(f, "{name}: removed"),
            Case::Grow { by, filler, .. } => write!(f, "{name}: {by} times {filler} behind it"),
            Case::Swap { other, .. } => write!(f, "{name}: swapped with {}", other.display()),
            Case::Replace { other, .. } => write!(f, "{name}: replaced by {}", other.display()),
        }
    }
}

impl Case {
    /// The file that is damaged.
    pub fn file(&self) -> &Path {
        match self {
            Case::Flip { file, .. }
            | Case::Cut { file, .. }
            | Case::Remove { file }
            | Case::Grow { file, .. }
            | Case::Swap { file, .. }
            | Case::Replace { file, .. } => file,
        }
    }

    /// Damages `sim`.
    pub fn apply(&self, sim: &SimFileSystem) {
        let bytes = |file: &PathBuf| sim.read(file).unwrap();
        let write = |file: &PathBuf, bytes: &[u8]| sim.write(file, bytes).unwrap();
        match self {
            Case::Flip { file, at, bit } => sim.flip_bit(file, *at as u64, *bit).unwrap(),
            Case::Cut { file, len } => write(file, &bytes(file)[..*len]),
            Case::Remove { file } => {
                sim.remove_file(file).unwrap();
                sim.sync_dir(Path::new(DIRECTORY)).unwrap();
            }
            Case::Grow { file, by, filler } => write(file, &[bytes(file), vec![*filler; *by]].concat()),
            Case::Swap { file, other } => {
                let (a, b) = (bytes(file), bytes(other));
                write(file, &b);
                write(other, &a);
            }
            Case::Replace { file, other } => write(file, &bytes(other)),
        }
    }
}

/// Whether a file is of a kind: "wal", "table", "CURRENT" or "MANIFEST".
pub fn is(file: &Path, kind: &str) -> bool {
    let name = file.file_name().unwrap().to_string_lossy();
    file.extension().is_some_and(|extension| extension == kind) || name.starts_with(kind)
}

/// Why a flip need not be noticed, if there is a reason.
fn free(database: &Database, file: &Path, at: usize) -> Option<&'static str> {
    if is(file, "spare") {
        return Some("a spare file is not part of the database");
    }
    let bytes = database.sim.read(file).unwrap();
    if is(file, "MANIFEST") && database.prefixes.len() > 1 && at >= *layout::edits(&bytes).last().unwrap() {
        return Some("the last edit since the last clean close cannot be told from one that was being written");
    }
    if !is(file, "wal") {
        return None;
    }
    let records = layout::records(&bytes);
    match records.last() {
        None => Some("a segment that holds nothing"),
        Some(last) if at >= last.padded_end() => Some("behind the last record: zeros, or what a recycled file held"),
        // The last record of all, where it was synced only with the close: nothing is behind it that says so.
        Some(_) => None,
    }
}

/// Whether a case takes away the end of the newest segment with records.
fn takes_the_end(database: &Database, case: &Case) -> bool {
    let segments = database.files().into_iter().filter(|file| is(file, "wal"));
    let used = segments.filter(|file| !layout::records(&database.sim.read(file).unwrap()).is_empty());
    let newest = used.max();
    let is_newest = |file: &Path| newest.as_deref() == Some(file);
    match case {
        Case::Flip { .. } | Case::Grow { .. } => false,
        Case::Swap { file, other } => is_newest(file) || is_newest(other),
        Case::Cut { file, .. } | Case::Remove { file } | Case::Replace { file, .. } => is_newest(file),
    }
}

/// What a run of cases did.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    /// Cases.
    pub cases: u64,
    /// Those that an open or `verify` noticed.
    pub found: u64,
}

/// Runs one case in one mode. Panics on a wrong answer, and on damage that is not noticed but should be.
pub fn run(database: &Database, case: &Case, mode: Mode, counts: &mut Counts) {
    let sim = database.copy();
    case.apply(&sim);
    let what = format!("{} database, {mode:?}, {case}", database.name);
    let noticed = check(database, &sim, mode, takes_the_end(database, case), &what);
    counts.cases += 1;
    counts.found += u64::from(noticed == Noticed::Found);
    // What verify does not read again on a read-only database are the bytes between log records.
    if let Case::Flip { file, at, .. } = case
        && mode == Mode::Write
    {
        let free = free(database, file, *at);
        let missed = noticed == Noticed::Harmless && free.is_none();
        assert!(!missed, "{what}: nobody noticed");
        let (Some(free), false) = (free, is(file, "MANIFEST")) else { return };
        assert!(noticed != Noticed::Found, "{what}: noticed, but {free}");
    }
}

/// Flips `bits` bits of every byte of `file` whose number modulo `stride` is `phase`; where nothing was ever written,
/// behind the records of a segment, of every 97th.
pub fn flip_all(database: &Database, file: &Path, bits: u32, (stride, phase): (usize, usize), mode: Mode) -> Counts {
    let bytes = database.sim.read(file).unwrap();
    let written = match is(file, "wal") {
        true => layout::records(&bytes).last().map_or(64, layout::Record::padded_end),
        false => bytes.len(),
    };
    let mut counts = Counts::default();
    // Behind `written` recovery looks for record headers only, at multiples of 8, and a flip makes none of zeros.
    let behind = (written..bytes.len()).filter(|at| at % 97 == 0);
    for at in (0..written.min(bytes.len())).filter(|at| at % stride == phase % stride).chain(behind) {
        for bit in 0..bits {
            let bit = if bits == 8 { bit } else { (at as u32).wrapping_mul(5) + 3 * bit };
            run(database, &Case::Flip { file: file.to_owned(), at, bit: bit % 8 }, mode, &mut counts);
        }
    }
    counts
}

/// Flips every `stride`-th byte under an open database and back; `verify` has to find each, though everything was read and
/// found intact when it was opened. How many there were.
pub fn flip_under(database: &Database, stride: usize) -> u64 {
    let sim = database.copy();
    let db = options(&sim).open(Path::new(DIRECTORY)).unwrap();
    assert!(db.verify().is_ok());
    let mut found = 0;
    for file in sim.paths().into_iter().filter(|file| !is(file, "LOCK")) {
        let bytes = sim.read(&file).unwrap();
        let covered = if is(&file, "wal") {
            layout::records(&bytes).last().map_or(64, |last| last.padded_end().min(bytes.len()))
        } else {
            bytes.len()
        };
        for at in (0..covered).step_by(stride) {
            let bit = at as u32 % 8;
            sim.flip_bit(&file, at as u64, bit).unwrap();
            let report = db.verify();
            assert!(
                !report.is_ok(),
                "{} database: bit {bit} of byte {at} of {}: unnoticed",
                database.name,
                file.display()
            );
            sim.flip_bit(&file, at as u64, bit).unwrap();
            found += 1;
        }
    }
    assert!(db.verify().is_ok());
    found
}

/// Cuts `file` to every length whose number modulo `stride` is 0; behind the records of a segment, to every 97th.
pub fn cut_all(database: &Database, file: &Path, stride: usize, mode: Mode) -> Counts {
    let bytes = database.sim.read(file).unwrap();
    let written = match is(file, "wal") {
        true => layout::records(&bytes).last().map_or(64, layout::Record::padded_end),
        false => bytes.len(),
    };
    let mut counts = Counts::default();
    for len in (0..bytes.len()).filter(|len| len % if *len < written { stride } else { 97 } == 0) {
        run(database, &Case::Cut { file: file.to_owned(), len }, mode, &mut counts);
    }
    counts
}

/// What else can happen to a file as a whole, for every file.
pub fn whole_files(database: &Database) -> Vec<Case> {
    let files = database.files();
    let mut cases = Vec::new();
    for file in &files {
        cases.push(Case::Remove { file: file.clone() });
        for (by, filler) in [(1, 0), (4096, 0), (1, 0xa5), (777, 0xa5)] {
            cases.push(Case::Grow { file: file.clone(), by, filler });
        }
        for kind in ["wal", "table", "MANIFEST"] {
            for other in files.iter().filter(|other| is(file, kind) && is(other, kind) && *other != file) {
                cases.push(Case::Replace { file: file.clone(), other: other.clone() });
                if file < other {
                    cases.push(Case::Swap { file: file.clone(), other: other.clone() });
                }
            }
        }
    }
    cases
}

/// Compacts every keyspace over a damaged data block: the damage must still be there, and be found.
pub fn compact_over(database: &Database, case: &Case) {
    let sim = database.copy();
    case.apply(&sim);
    let what = format!("{} database, compacted, {case}", database.name);
    let damaged = sim.read(case.file()).unwrap();
    let mut refused = false;
    {
        let db = options(&sim).open(Path::new(DIRECTORY)).unwrap_or_else(|error| panic!("{what}: {error}"));
        for name in db.keyspaces() {
            let keyspace = db.keyspace(&name, database::keyspace_options(&name)).unwrap();
            refused |= keyspace.compact().is_err();
        }
        read_changes(&db, &what);
    }
    assert_eq!(sim.read(case.file()).ok(), Some(damaged), "{what}: the damaged input is gone");
    let db = options(&sim).read_only(true).open(Path::new(DIRECTORY)).unwrap();
    let errors = db.verify().errors;
    assert!(!errors.is_empty(), "{what}: the damage was made a valid table (compaction refused: {refused})");
}

/// Cases in every data block of every table.
pub fn block_flips(database: &Database) -> Vec<Case> {
    let tables = database.files().into_iter().filter(|file| is(file, "table"));
    let cases = tables.flat_map(|file| {
        let blocks = layout::table(&database.sim.read(&file).unwrap()).blocks;
        blocks.into_iter().map(move |block| {
            let at = block.bytes.start + block.bytes.len() / 2;
            Case::Flip { file: file.clone(), at, bit: 3 }
        })
    });
    cases.collect()
}

/// A bounded piece of work for a soak (some seconds): random damage, in one or two places, read, and repaired. Panics with the case on
/// the first wrong answer.
pub fn round(seed: u64) {
    const CASES: usize = 1500;
    let rng = &mut rng(seed);
    let database = &database::both()[rng.random_range(0..2)];
    let files = database.files();
    let mut counts = Counts::default();
    for _ in 0..CASES {
        let file = files[rng.random_range(0..files.len())].clone();
        let len = database.sim.read(&file).unwrap().len();
        let case = if rng.random_bool(0.8) {
            Case::Flip { file, at: rng.random_range(0..len), bit: rng.random_range(0..8) }
        } else {
            Case::Cut { file, len: rng.random_range(0..len) }
        };
        let mode = if rng.random() { Mode::ReadOnly } else { Mode::Write };
        run(database, &case, mode, &mut counts);
        if rng.random_bool(0.3) {
            repair::run(database, &case);
        }
        let other = files[rng.random_range(0..files.len())].clone();
        let at = rng.random_range(0..database.sim.read(&other).unwrap().len());
        repair::run_twice_damaged(database, &[case, Case::Flip { file: other, at, bit: rng.random_range(0..8) }]);
    }
    evidence::record("damage_found_by_verify", counts.found);
    evidence::record("repairs", CASES as u64);
    evidence::record("lost", 0);
    evidence::record("wrong", 0);
}
