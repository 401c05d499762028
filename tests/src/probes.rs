//! Calls that have to fail, many at a time: each answers with those that did not fail as they should.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use siltstone::fs::FileSystem;
use siltstone::{
    Change, ChangeBatch, Changes, Db, Durability, Error, Keyspace, KeyspaceOptions, MAX_KEY_BYTES, Options, Result,
    SeqNo, Slice, WriteBatch,
};

use crate::answer::{Answer, Failure};
use crate::runner::{cursor_name, entry_name, name};
use crate::state::{State, dump_keyspaces};
use crate::steps::ENTRIES;

/// Collects calls that answer otherwise than with one kind of error.
struct Probes {
    expected: Failure,
    deviations: Vec<String>,
}

impl Probes {
    fn new(expected: Failure) -> Self {
        Probes { expected, deviations: Vec::new() }
    }

    fn check<T: Debug>(&mut self, what: &str, answer: Result<T>) {
        let expected = self.expected.clone();
        self.check_against(what, answer, expected);
    }

    fn check_against<T: Debug>(&mut self, what: &str, answer: Result<T>, expected: Failure) {
        let shown = format!("{what}: {answer:.200?} instead of {expected:?}");
        if answer.err().map(Failure::from) != Some(expected) {
            self.deviations.push(shown);
        }
    }

    fn holds(&mut self, what: &str, holds: bool) {
        if !holds {
            self.deviations.push(what.to_owned());
        }
    }
}

/// What a snapshot of a closed database answers: it is lost, if every answer is `Closed`.
pub fn lost(answer: Answer) -> Answer {
    match answer {
        Answer::Failed(Failure::Closed) => Answer::Lost,
        Answer::Calls(calls) if calls.first() == Some(&Some(Err(Failure::Closed))) => Answer::Lost,
        other => other,
    }
}

/// Closes `db`, twice, and asks it for everything.
pub fn closed_by(db: &Db) -> Vec<String> {
    let mut probes = Probes::new(Failure::Closed);
    let last = db.last_seqno();
    probes.holds("close", db.close().is_ok());
    probes.holds("close again", db.close().is_ok());
    let mut batch = WriteBatch::new();
    batch.metadata("m", Some("v"));
    probes.check("write", db.write(batch.clone()));
    probes.check("write with", db.write_with(batch, Durability::Synced));
    probes.check("write nothing", db.write(WriteBatch::new()));
    let change = Change::Put { keyspace: name(0).into(), key: "k".into(), value: "v".into() };
    for first in [1, last + 1] {
        let batch = ChangeBatch::new(first, vec![change.clone()]);
        probes.check("apply", batch.and_then(|batch| db.apply::<&str>(&batch, &[])));
    }
    probes.check("keyspace", db.keyspace(name(0), KeyspaceOptions::default()));
    probes.check("new keyspace", db.keyspace("new", KeyspaceOptions::default()));
    probes.check("drop keyspace", db.drop_keyspace(name(0)));
    probes.check("drop missing keyspace", db.drop_keyspace("new"));
    probes.check("sync", db.sync());
    probes.check("flush", db.flush());
    probes.check("wait for compaction", db.wait_for_compaction());
    probes.check("changes", db.changes(last + 1));
    probes.check("set cursor", db.set_change_cursor("new", last + 1));
    probes.check("set cursor with", db.set_change_cursor_with("new", last + 1, &[("m", b"v")]));
    probes.check("remove cursor", db.remove_change_cursor("new"));
    probes.holds("keyspaces", db.keyspaces().is_empty());
    probes.holds("verify", matches!(db.verify().errors[..], [Error::Closed]));
    let _prints = db.metrics().to_string();
    probes.deviations
}

/// Asks a keyspace of a closed database for everything.
pub fn closed_keyspace(db: &Db, handle: &Keyspace) -> Vec<String> {
    let mut probes = Probes::new(Failure::Closed);
    probes.check("get", handle.get("k"));
    probes.check("get with", handle.get_with("k", |_| ()));
    probes.check("get many", handle.get_many(["k"]));
    probes.check("contains key", handle.contains_key("k"));
    probes.check("put", handle.put("k", "v"));
    probes.check("delete", handle.delete("k"));
    probes.check("put all", handle.put_all([("k", "v")]));
    probes.check("delete all", handle.delete_all(["k"]));
    probes.check("ingest", handle.ingest([("k", "v")]));
    probes.check("flush", handle.flush());
    probes.check("compact", handle.compact());
    let iters = [handle.iter(), handle.range("a"..), handle.prefix("a"), db.snapshot().iter(handle)];
    for mut iter in iters {
        probes.check("next", iter.next_back().unwrap_or(Ok((Slice::default(), Slice::default()))));
        probes.holds("an iterator ends with its error", iter.next().is_none() && iter.next_back().is_none());
    }
    let snapshot = db.snapshot();
    probes.check("snapshot get", snapshot.get(handle, "k"));
    probes.check("snapshot get many", snapshot.get_many(handle, ["k"]));
    probes.check("snapshot contains", snapshot.contains_key(handle, "k"));
    probes.holds("approximate len", handle.approximate_len() == 0);
    let _prints = handle.metrics().to_string();
    probes.deviations
}

/// Asks a follower of a closed database.
pub fn closed_changes(changes: &mut Changes) -> Vec<String> {
    let mut probes = Probes::new(Failure::Closed);
    probes.holds("wait says that there is an error to get", changes.wait(Duration::ZERO));
    match changes.next() {
        Some(answer) => probes.check("next change", answer),
        None => probes.holds("next change: None instead of Closed", false),
    }
    probes.deviations
}

/// Gives arguments of every kind that are refused.
///
/// `options` are the database's, `path` its directory.
pub fn bad_arguments(db: &Db, handle: &Keyspace, options: Options, path: &Path) -> Vec<String> {
    let mut probes = Probes::new(Failure::InvalidArgument);
    let long = vec![b'k'; MAX_KEY_BYTES + 1];
    probes.check("put", handle.put(&long, "v"));
    probes.check("delete", handle.delete(&long));
    probes.check("put all", handle.put_all([(&b"fits"[..], "v"), (&long, "v")]));
    probes.check("delete all", handle.delete_all([&b"fits"[..], &long]));
    probes.check("ingest of a long key", handle.ingest([(&b"fits"[..], "v"), (&long, "v")]));
    probes.check("ingest out of order", handle.ingest([("b", "v"), ("a", "v")]));
    probes.check("ingest of a key twice", handle.ingest([("a", "v"), ("a", "v")]));
    let reading = (handle.get(&long).ok(), handle.range(long.as_slice()..).count(), handle.prefix(&long).rev().count());
    probes.holds("a key that is too long is just not there", matches!(reading, (Some(None), _, 0)));
    let mut batch = WriteBatch::new();
    for (name, value) in [("", vec![]), ("line\n", vec![]), (&"x".repeat(256), vec![]), ("m", vec![0; 4097])] {
        batch.put(handle, "fits", "v").metadata(name, Some(value));
        probes.check("metadata", db.write(batch.clone()));
        batch.clear();
    }
    for name in ["", "a/b", "a\\b", "line\n", &"x".repeat(256)] {
        probes.check("keyspace", db.keyspace(name, KeyspaceOptions::default()));
        probes.holds("a keyspace that cannot be", matches!(db.drop_keyspace(name), Ok(false)));
    }
    probes.check("level ratio", db.keyspace(handle.name(), KeyspaceOptions::new().level_ratio(1)));
    probes.check("filter bits", db.keyspace("new", KeyspaceOptions::new().filter_bits_per_key(33)));
    let next = db.last_seqno() + 1;
    probes.check("cursor", db.set_change_cursor("", next));
    probes.check("long cursor", db.set_change_cursor(&"x".repeat(201), next));
    probes.check("changes beyond", db.changes(next + 1));
    probes.check("changes far beyond", db.changes(SeqNo::MAX - 1));
    probes.check("no changes", ChangeBatch::new(next, Vec::new()));
    let put = |name: &str, key: &[u8]| Change::Put { keyspace: name.into(), key: key.into(), value: "v".into() };
    let drop = Change::DropKeyspace { keyspace: handle.name().clone() };
    for changes in [vec![put("new", b"k"), put("new", &long)], vec![put("new", b"k"), put("a/b", b"k")]] {
        let batch = ChangeBatch::new(next, changes);
        probes.check("apply", batch.and_then(|batch| db.apply(&batch, &[("new", "v")])));
    }
    let batch = ChangeBatch::new(next, vec![put("new", b"k"), drop]);
    probes.check("apply a drop among others", batch.and_then(|batch| db.apply(&batch, &[("new", "v")])));
    let batch = ChangeBatch::new(next, vec![put("new", b"k")]);
    probes.check("apply with metadata", batch.and_then(|batch| db.apply(&batch, &[("", "v")])));
    probes.holds("metadata of what was refused", db.metadata("new").is_none());
    probes.holds("a keyspace of what was refused", !db.keyspaces().contains(&"new".to_owned()));
    let other = path.with_file_name("other");
    probes.check("memory", options.clone().memory_bytes(0).open(&other));
    let missing = options.create_if_missing(false).open(&other);
    probes.check_against("a missing database", missing, Failure::Io);
    probes.deviations
}

/// Uses a keyspace of another database beside one of this.
pub fn foreign_handles(db: &Db, handle: &Keyspace, foreign: &Keyspace) -> Vec<String> {
    let mut probes = Probes::new(Failure::InvalidArgument);
    let mut batch = WriteBatch::new();
    batch.put(foreign, "k", "v");
    probes.check("a batch of another database", db.write(batch.clone()));
    batch.put(handle, "k", "v").delete(handle, "k");
    probes.check("a batch of two databases", db.write(batch.clone()));
    batch.clear();
    batch.delete(handle, "k").put(foreign, "k", "v").metadata("foreign", Some("v"));
    probes.check("a batch of two databases", db.write_with(batch, Durability::NoLog));
    let snapshot = db.snapshot();
    probes.check("a snapshot's get", snapshot.get(foreign, "k"));
    probes.check("a snapshot's get many", snapshot.get_many(foreign, ["k"]));
    probes.check("a snapshot's contains", snapshot.contains_key(foreign, "k"));
    for mut iter in [snapshot.iter(foreign), snapshot.range(foreign, "a"..), snapshot.prefix(foreign, "a")] {
        probes.check("a snapshot's iterator", iter.next().unwrap_or(Ok((Slice::default(), Slice::default()))));
        probes.holds("an iterator ends with its error", iter.next().is_none());
    }
    probes.holds("nothing was written", foreign.iter().next().is_none() && db.metadata("foreign").is_none());
    probes.deviations
}

/// What a database holds that does not depend on who opened it how.
#[derive(Debug, PartialEq)]
pub struct Reopened {
    names: Vec<String>,
    state: State,
    last_seqno: SeqNo,
    entries: Vec<(Option<Slice>, Option<SeqNo>)>,
}

impl Reopened {
    /// Reads it. All keyspaces get the default options, if the database can be written to.
    pub fn of(db: &Db) -> Self {
        let names = db.keyspaces();
        let open = |name: &String| db.keyspace(name, KeyspaceOptions::default()).unwrap();
        let handles: Vec<Keyspace> = names.iter().map(open).collect();
        let entry = |n| (db.metadata(&entry_name(n)), db.change_cursor(&cursor_name(n)));
        Reopened {
            state: dump_keyspaces(&handles).unwrap(),
            last_seqno: db.last_seqno(),
            entries: (0..ENTRIES).map(entry).collect(),
            names,
        }
    }
}

/// Every file of a directory with its contents.
fn contents(file_system: &Arc<dyn FileSystem>, directory: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let entries = file_system.read_dir(directory).unwrap();
    let read = |path: PathBuf| {
        let file = file_system.open(&path).unwrap();
        let mut bytes = vec![0; file.len().unwrap() as usize];
        file.read_exact_at(&mut bytes, 0).unwrap();
        (path, bytes)
    };
    entries.into_iter().map(|entry| read(directory.join(entry.name))).collect()
}

/// Opens a closed database read-only, compares, and tries to write.
pub fn read_only(before: &Reopened, options: &Options, path: &Path, file_system: &Arc<dyn FileSystem>) -> Vec<String> {
    let mut probes = Probes::new(Failure::ReadOnly);
    let files = contents(file_system, path);
    let db = options.clone().read_only(true).open(path).unwrap();
    let second = options.clone().read_only(true).open(path).unwrap();
    probes.check_against("a writer beside readers", options.clone().open(path), Failure::Locked);
    probes.holds("what is read", Reopened::of(&db) == *before && Reopened::of(&second) == *before);
    probes.holds("verify", db.verify().is_ok());
    probes.check("write", db.write(WriteBatch::new()));
    probes.check("write with", db.write_with(WriteBatch::new(), Durability::NoLog));
    probes.check("new keyspace", db.keyspace("new", KeyspaceOptions::default()));
    probes.check("drop keyspace", db.drop_keyspace(name(0)));
    probes.check("sync", db.sync());
    probes.check("flush", db.flush());
    probes.check("wait for compaction", db.wait_for_compaction());
    probes.check("changes", db.changes(1));
    probes.check("set cursor", db.set_change_cursor("new", 1));
    probes.check("remove cursor", db.remove_change_cursor("new"));
    let change = Change::DropKeyspace { keyspace: name(0).into() };
    let next = ChangeBatch::new(before.last_seqno + 1, vec![change]);
    probes.check("apply", next.and_then(|batch| db.apply::<&str>(&batch, &[])));
    for name in &before.names {
        let handle = db.keyspace(name, KeyspaceOptions::default()).unwrap();
        probes.check("put", handle.put("k", "v"));
        probes.check("delete", handle.delete("k"));
        probes.check("put all", handle.put_all([("k", "v")]));
        probes.check("delete all", handle.delete_all(["k"]));
        probes.check("ingest", handle.ingest([("k", "v")]));
        probes.check("flush keyspace", handle.flush());
        probes.check("compact", handle.compact());
    }
    drop(db);
    probes.holds("close", second.close().is_ok());
    probes.holds("no file changed", contents(file_system, path) == files);
    probes.deviations
}
