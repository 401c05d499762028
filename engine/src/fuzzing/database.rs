//! A whole database, closed, with some of its bytes overwritten: opened, read, written to, closed and opened again.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use super::repair::{repair_current, repair_manifest, repair_segment, repair_table};
use crate::db::Db;
use crate::error::{Error, Result};
use crate::fs::{Keep, SimFileSystem};
use crate::options::{Compression, KeyspaceOptions, MIN_MEMORY_BYTES, Options};
use crate::slice::Slice;

const DIRECTORY: &str = "/db";

/// The files, sorted by name, and what each keyspace holds.
struct Base {
    fs: SimFileSystem,
    files: Vec<PathBuf>,
    contents: Contents,
}

type Contents = Vec<(String, Vec<(Slice, Slice)>)>;

/// Takes `mode`, then patches: `file u8 | offset u16 | length u8 | bytes`. An odd mode repairs the checksums of what
/// was patched: then anything may be read, but nothing may panic, and what the engine itself writes on such a base and
/// closes opens again. Otherwise a single byte that differs has to be found, or to make no difference.
pub fn database(data: &[u8]) {
    let Some((repaired, patches)) = super::mode(data) else { return };
    let base = base();
    let fs = base.fs.crash_clone(Keep::All, 0);
    let changed = patch(&fs, &base.files, patches, repaired);
    let read = open(&fs, true).and_then(|db| contents(&db)).inspect_err(super::expected);
    if let (Ok(read), false, 0..=1) = (&read, repaired, changed) {
        assert!(*read == base.contents, "a wrong answer");
    }
    let written = write(&fs);
    if let Err(error) = &written {
        expected_of_writing(error);
        return;
    }
    let again = open(&fs, false).unwrap_or_else(|error| panic!("what was closed does not open: {error}"));
    let keyspace = again.keyspace("new", KeyspaceOptions::new()).expect("a keyspace that is there");
    assert_eq!(keyspace.get("key").expect("get").as_deref(), Some(&b"value"[..]));
}

/// Opens for writing, verifies, writes, and closes.
fn write(fs: &SimFileSystem) -> Result<()> {
    let db = open(fs, false)?;
    for error in db.verify().errors {
        super::expected(&error);
    }
    db.keyspace("new", KeyspaceOptions::new())?.put("key", "value")?;
    db.flush()?;
    db.close()
}

/// Numbers at their limits leave no room for more, and damage that the background met makes the database read-only.
fn expected_of_writing(error: &Error) {
    assert!(
        matches!(
            error,
            Error::Corruption { .. }
                | Error::UnsupportedVersion { .. }
                | Error::InvalidArgument(_)
                | Error::ReadOnly { .. }
        ),
        "{error:?}"
    );
}

fn open(fs: &SimFileSystem, read_only: bool) -> Result<Db> {
    let options = Options::new().memory_bytes(MIN_MEMORY_BYTES).memtable_bytes(64 << 10).wal_segment_bytes(64 << 10);
    options.background_threads(1).read_only(read_only).file_system(Arc::new(fs.clone())).open(DIRECTORY)
}

/// Everything there is, by gets as well.
fn contents(db: &Db) -> Result<Contents> {
    let mut all = Contents::new();
    for name in db.keyspaces() {
        let keyspace = db.keyspace(&name, KeyspaceOptions::new())?;
        let entries: Vec<(Slice, Slice)> = keyspace.iter().collect::<Result<_>>()?;
        let backward: Vec<(Slice, Slice)> = keyspace.iter().rev().collect::<Result<_>>()?;
        // Tables are taken at their word on their order until `verify` asks; only then are the ends sure to agree.
        if db.verify().is_ok() {
            assert!(backward.iter().rev().eq(&entries));
            for (key, value) in &entries {
                assert_eq!(keyspace.get(key)?.as_ref(), Some(value));
            }
        }
        all.push((name, entries));
    }
    Ok(all)
}

/// Applies the patches; how many bytes differ.
fn patch(fs: &SimFileSystem, files: &[PathBuf], mut patches: &[u8], repaired: bool) -> usize {
    let mut changed = 0;
    while let Some((&[file, low, high, len], rest)) = patches.split_first_chunk() {
        let (bytes, rest) = rest.split_at(rest.len().min(len.into()));
        patches = rest;
        let path = &files[usize::from(file) % files.len()];
        let Ok(mut contents) = fs.read(path) else { return changed };
        let offset = usize::from(u16::from_le_bytes([low, high])) % contents.len();
        for (place, &byte) in contents[offset..].iter_mut().zip(bytes) {
            changed += usize::from(*place != byte);
            *place = byte;
        }
        if repaired {
            repair(path, &mut contents);
        }
        if fs.write(path, &contents).is_err() {
            return changed;
        }
    }
    changed
}

fn repair(path: &Path, contents: &mut [u8]) {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let number = name.trim_matches(|letter: char| !letter.is_ascii_digit()).parse().unwrap_or(0);
    match name {
        "CURRENT" => repair_current(contents),
        name if name.starts_with("MANIFEST-") => repair_manifest(contents, number),
        name if name.ends_with(".wal") => repair_segment(contents, number),
        name if name.ends_with(".table") => repair_table(contents, number),
        _ => {}
    }
}

/// Two keyspaces with tables in two levels, a dropped one, metadata, and operations of every kind in the log alone.
fn base() -> &'static Base {
    static BASE: OnceLock<Base> = OnceLock::new();
    BASE.get_or_init(|| make_base().expect("a database in memory"))
}

fn make_base() -> Result<Base> {
    let fs = SimFileSystem::new();
    let db = open(&fs, false)?;
    let options = |compression| KeyspaceOptions::new().block_bytes(128).compression(compression).level0_trigger(64);
    let plain = db.keyspace("plain", options(Compression::None))?;
    let packed = db.keyspace("packed", options(Compression::Lz4))?;
    for keyspace in [&plain, &packed] {
        keyspace.put_all((0..30u8).map(|n| (format!("a common beginning {n:03}"), vec![b'v'; n.into()])))?;
        keyspace.compact()?;
        keyspace.put("a common beginning 007", "a second version")?;
        keyspace.delete("a common beginning 008")?;
        keyspace.flush()?;
    }
    db.keyspace("gone", KeyspaceOptions::new())?.put("k", "v")?;
    db.drop_keyspace("gone")?;
    let mut batch = crate::batch::WriteBatch::new();
    batch.put(&plain, "in the log", "only").delete(&packed, "a common beginning 009").metadata("position", Some("9"));
    db.write(batch)?;
    db.wait_for_compaction()?;
    db.close()?;
    drop((plain, packed, db));
    let fs = fs.crash_clone(Keep::All, 0);
    let files = fs.paths().into_iter().filter(|path| fs.read(path).is_ok_and(|bytes| !bytes.is_empty()));
    let files: Vec<PathBuf> = files.collect();
    let contents = contents(&open(&fs, true)?)?;
    Ok(Base { files, contents, fs })
}
