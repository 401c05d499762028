//! Reading all of a database that may be damaged, every way there is: what is answered has to be right.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use siltstone::fs::SimFileSystem;
use siltstone::{ChangeBatch, Db, Error, Keyspace, Result};

use super::database::{Contents, DIRECTORY, Database, METADATA, keyspace_options, options};
use crate::log::oldest_changes;
use crate::state::{Entries, Map, State, difference};

/// The largest allocation so far, in bytes, where the test binary's allocator counts them.
pub static LARGEST_ALLOCATION_BYTES: AtomicUsize = AtomicUsize::new(0);

/// How a damaged database is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Read-only, through mappings.
    ReadOnly,
    /// For writing, with positioned reads.
    Write,
}

/// What came of the damage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Noticed {
    /// The open was refused, or `verify` reports it.
    Found,
    /// Every answer is right, and nothing was reported.
    Harmless,
    /// The end of the log that no sync covers is gone, and everything before it is there.
    Prefix,
}

/// The place an error has to name: any file of the database.
fn assert_names_a_place(error: &Error, what: &str) {
    let file = match error {
        Error::Corruption { file, reason, .. } if !reason.is_empty() => file,
        Error::UnsupportedVersion { file, .. } => file,
        other => panic!("{what}: not an error about damage: {other:?}"),
    };
    assert!(file.starts_with(DIRECTORY), "{what}: {error}");
}

/// Opens `sim` and reads it; panics on a wrong answer.
///
/// `lost_end`: whether the damage takes away the end of the newest segment, and with it everything that says how far that
/// was synced; what is left has to be a prefix all the same.
pub fn check(database: &Database, sim: &SimFileSystem, mode: Mode, lost_end: bool, what: &str) -> Noticed {
    let options = options(sim).mmap_reads(mode == Mode::ReadOnly).read_only(mode == Mode::ReadOnly);
    let opened = options.open(Path::new(DIRECTORY));
    check_allocations(database, what);
    let db = match opened {
        Ok(db) => db,
        Err(error) => {
            assert_names_a_place(&error, what);
            return Noticed::Found;
        }
    };
    let report = db.verify();
    report.errors.iter().for_each(|error| assert_names_a_place(error, what));
    let (contents, whole) = read(database, &db, what);
    check_allocations(database, what);
    if !whole {
        assert!(!report.is_ok(), "{what}: a read met damage that verify does not report");
        return Noticed::Found;
    }
    if lost_end && database.older.contains(&contents) {
        return Noticed::Prefix;
    }
    let Some(at) = database.prefixes.iter().position(|prefix| *prefix == contents) else {
        let differs = difference(&contents.state, &database.contents().state);
        panic!("{what}: a wrong answer: {differs:?}, metadata {:?}; verify says {report}", contents.metadata);
    };
    match (report.is_ok(), at) {
        (false, _) => Noticed::Found,
        (true, 0) => Noticed::Harmless,
        (true, _) => Noticed::Prefix,
    }
}

/// Nothing that was allocated so far is larger than what the files justify.
fn check_allocations(database: &Database, what: &str) {
    let largest_bytes = LARGEST_ALLOCATION_BYTES.load(Ordering::Relaxed);
    let limit_bytes = ALLOWANCE_BYTES.load(Ordering::Relaxed).saturating_add(database.file_bytes());
    assert!(largest_bytes <= limit_bytes, "{what}: an allocation of {largest_bytes} bytes, over {limit_bytes}");
}

/// What an open takes at once whatever is in the files, in bytes: buffers by the memory budget.
static ALLOWANCE_BYTES: AtomicUsize = AtomicUsize::new(usize::MAX);

/// Takes the largest allocation of opening and reading these databases, which are intact, for what is allowed beside the
/// length of all files. 64 KiB at least, which other tests of the process may use meanwhile.
pub fn measure(databases: &[Database]) {
    LARGEST_ALLOCATION_BYTES.store(0, Ordering::Relaxed);
    for database in databases {
        for mode in [Mode::ReadOnly, Mode::Write] {
            let noticed = check(database, &database.copy(), mode, false, database.name);
            assert_eq!(noticed, Noticed::Harmless, "{}: nothing is damaged", database.name);
        }
    }
    let largest_bytes = LARGEST_ALLOCATION_BYTES.load(Ordering::Relaxed);
    println!("largest allocation without damage: {largest_bytes} bytes");
    ALLOWANCE_BYTES.store(largest_bytes.max(64 << 10), Ordering::Relaxed);
}

/// Everything, and whether no read met damage. What is read before an error is right, and behind an error nothing comes.
pub fn read(database: &Database, db: &Db, what: &str) -> (Contents, bool) {
    let mut contents = Contents { last_seqno: db.last_seqno(), ..Contents::default() };
    let mut whole = true;
    for name in db.keyspaces() {
        let Ok(keyspace) = db.keyspace(&name, keyspace_options(&name)) else {
            // A repair gives default options where the right ones are lost.
            panic!("{what}: {name} cannot be opened");
        };
        whole &= read_keyspace(database, &keyspace, &mut contents.state, what);
    }
    for name in METADATA {
        if let Some(value) = db.metadata(name) {
            contents.metadata.insert(name.to_owned(), value.to_vec());
        }
    }
    (contents, whole)
}

fn read_keyspace(database: &Database, keyspace: &Keyspace, state: &mut State, what: &str) -> bool {
    let name = keyspace.name().to_string();
    let what = &format!("{what}: {name}");
    let (forward, forward_whole) = drain(keyspace.iter(), what);
    let (mut backward, backward_whole) = drain(keyspace.iter().rev(), what);
    backward.reverse();
    let whole = forward_whole && backward_whole;
    if whole {
        assert!(forward == backward, "{what}: both directions differ");
    }
    assert!(forward.is_sorted_by(|a, b| a.0 < b.0) && backward.is_sorted_by(|a, b| a.0 < b.0), "{what}: order");
    let map: Map = forward.into_iter().chain(backward).collect();
    let mut gets_whole = true;
    let known = database.history.keys().filter(|(keyspace, _)| *keyspace == name).map(|(_, key)| key.clone());
    let keys: Vec<Vec<u8>> = known.chain([Vec::new(), b"a key of".to_vec(), b"zz".to_vec()]).collect();
    for key in keys {
        match keyspace.get(&key) {
            Ok(value) => {
                let value = value.as_deref();
                let right = !whole || value == map.get(&key).map(|value| &value[..]);
                assert!(right, "{what}: get and iterator disagree on {}", key.escape_ascii());
                if !whole {
                    check_alone(database, &name, &key, value, what);
                }
            }
            Err(error) => {
                assert_names_a_place(&error, what);
                gets_whole = false;
            }
        }
    }
    if !whole {
        for (key, value) in &map {
            check_alone(database, &name, key, Some(value), what);
        }
    } else if !map.is_empty() {
        state.insert(name, map);
    }
    whole && gets_whole
}

/// One answer beside others that are errors: that of some prefix.
fn check_alone(database: &Database, name: &str, key: &[u8], value: Option<&[u8]>, what: &str) {
    let right =
        |contents: &Contents| contents.state.get(name).and_then(|map| map.get(key)).map(|value| &value[..]) == value;
    assert!(database.prefixes.iter().any(right), "{what}: a wrong answer for {}", key.escape_ascii());
}

fn drain(mut iter: impl Iterator<Item = Result<(siltstone::Slice, siltstone::Slice)>>, what: &str) -> (Entries, bool) {
    let mut entries = Entries::new();
    while let Some(entry) = iter.next() {
        match entry {
            Ok((key, value)) => entries.push((key.into(), value.into())),
            Err(error) => {
                assert_names_a_place(&error, what);
                assert!(iter.next().is_none(), "{what}: an iterator goes on after an error");
                return (entries, false);
            }
        }
    }
    (entries, true)
}

/// The change log as far as it is kept, or that it is damaged. Only of a database that is open for writing.
pub fn read_changes(db: &Db, what: &str) -> Option<Vec<ChangeBatch>> {
    let (_, changes) = oldest_changes(db);
    let batches: Result<Vec<_>> = changes.collect();
    batches.inspect_err(|error| assert_names_a_place(error, what)).ok()
}
