//! What must be true of a database whose process was killed.

use std::collections::BTreeMap;
use std::fs;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::Path;

use siltstone::{Db, Keyspace, Options};
use siltstone_changelog::{FileSink, FileSource, Restore, ShipOptions, Source, ship};

use super::follow::Follower;
use super::oracle::Progress;
use super::plan::{
    CHURNED, CHURNER, CYCLE, Event, Layout, Plan, SHARED, THREADS, ThreadState, UNLOGGED, counter_entry,
    is_churned_there, owner,
};
use crate::log::oldest_changes;
use crate::state::{State, difference, dump_keyspaces};

/// What a database was found to hold.
struct Found {
    /// Of each thread: what is logged, and what is not.
    threads: [(State, State); THREADS],
    names: Vec<String>,
    /// The numbers that the metadata has for the threads.
    counters: [u64; THREADS],
}

impl Found {
    fn read(db: &Db, keyspaces: &[Keyspace]) -> Result<Self, String> {
        let state = dump_keyspaces(keyspaces).map_err(|error| error.to_string())?;
        let mut threads: [(State, State); THREADS] = Default::default();
        for (name, map) in state {
            for (key, value) in map {
                let (thread, unlogged) =
                    owner(&key).ok_or_else(|| format!("nobody writes {name}/{}", key.escape_ascii()))?;
                let part = if unlogged { &mut threads[thread].1 } else { &mut threads[thread].0 };
                part.entry(name.clone()).or_default().insert(key, value);
            }
        }
        let number = |bytes: &[u8]| bytes.try_into().map_or(u64::MAX, u64::from_be_bytes);
        let counters =
            std::array::from_fn(|thread| db.metadata(&counter_entry(thread)).map_or(0, |entry| number(&entry)));
        Ok(Found { threads, names: db.keyspaces(), counters })
    }

    /// Whether the logged part, the keyspace of the churner, and the metadata are as after event `expected.number`.
    fn check_logged(&self, seed: u64, thread: usize, expected: &ThreadState) -> Result<(), String> {
        if let Some(difference) = difference(&self.threads[thread].0, &expected.logged) {
            return Err(difference);
        }
        let churned = self.names.iter().any(|name| name == CHURNED);
        if thread == CHURNER && churned != is_churned_there(expected.number) {
            return Err(format!("keyspace {CHURNED:?} is there: {churned}"));
        }
        let batch =
            |number: &u64| matches!(Event::of(seed, thread, *number), event @ Event::Write { .. } if event.is_logged());
        let counter = (1..=expected.number).rev().find(batch).unwrap_or(0);
        if self.counters[thread] != counter {
            return Err(format!("the metadata says {}, the data {counter}", self.counters[thread]));
        }
        Ok(())
    }
}

/// How a thread's state follows from what was found.
///
/// # Errors
/// What does not fit: something acknowledged is missing, something is torn, or was never written.
fn settle(
    seed: u64,
    thread: usize,
    found: &Found,
    before: &ThreadState,
    progress: Progress,
) -> Result<ThreadState, String> {
    let mut settled = before.clone();
    settled.advance_logged(seed, thread, progress.acknowledged);
    settled.number = progress.acknowledged;
    if let Err(without) = found.check_logged(seed, thread, &settled) {
        settled.advance_logged(seed, thread, progress.intended);
        settled.number = progress.intended;
        found.check_logged(seed, thread, &settled).map_err(|with| format!("{without}; or else {with}"))?;
    }
    if thread == UNLOGGED {
        settle_unlogged(seed, found, before.number, progress, &mut settled)?;
    }
    Ok(settled)
}

/// Writes without the log are there up to some event, at least up to the last flush.
fn settle_unlogged(
    seed: u64,
    found: &Found,
    before: u64,
    progress: Progress,
    settled: &mut ThreadState,
) -> Result<(), String> {
    let flushed = progress.acknowledged / CYCLE * CYCLE;
    let mut nearest = String::new();
    for number in before..=progress.intended {
        if number > before {
            settled.apply_unlogged(seed, UNLOGGED, number);
        }
        if number < flushed {
            continue;
        }
        match difference(&found.threads[UNLOGGED].1, &settled.unlogged) {
            None => {
                // What was lost is not tried again; only a logged batch is.
                if !Event::of(seed, UNLOGGED, progress.intended.max(1)).is_logged() {
                    settled.number = progress.intended;
                }
                return Ok(());
            }
            Some(difference) => nearest = difference,
        }
    }
    Err(format!("no state between events {flushed} and {} without the log: {nearest}", progress.intended))
}

/// A database opened after a kill.
struct Opened {
    db: Db,
    keyspaces: Vec<Keyspace>,
}

impl Opened {
    fn new(layout: &Layout, plan: Plan, options: Options) -> Result<Self, String> {
        let db = options.open(layout.database()).map_err(|error| error.to_string())?;
        let open = |name: &String| db.keyspace(name, plan.keyspace_options(name)).map_err(|error| error.to_string());
        let keyspaces = db.keyspaces().iter().map(open).collect::<Result<_, _>>()?;
        Ok(Opened { db, keyspaces })
    }

    fn settle(
        &self,
        seed: u64,
        before: &[ThreadState; THREADS],
        progress: [Progress; THREADS],
    ) -> Result<[ThreadState; THREADS], String> {
        let found = Found::read(&self.db, &self.keyspaces)?;
        let mut settled = before.clone();
        for thread in 0..THREADS {
            settled[thread] = settle(seed, thread, &found, &before[thread], progress[thread])
                .map_err(|reason| format!("thread {thread}, {:?}: {reason}", progress[thread]))?;
        }
        let report = self.db.verify();
        if report.is_ok() { Ok(settled) } else { Err(report.to_string()) }
    }
}

/// Opens what a killed process left read-only, which changes no byte, and finds each thread's state.
///
/// # Errors
/// What does not fit.
pub(super) fn check_read_only(
    layout: &Layout,
    plan: Plan,
    before: &[ThreadState; THREADS],
    progress: [Progress; THREADS],
) -> Result<[ThreadState; THREADS], String> {
    let files = fingerprint(&layout.database())?;
    if !files.contains_key("CURRENT") || !files.contains_key("LOCK") {
        // Killed while the database was created: there is none yet, and nothing can have been written.
        let untouched = progress.iter().all(|progress| progress.intended == 0);
        return if untouched { Ok(before.clone()) } else { Err("the database is gone".to_owned()) };
    }
    let opened = Opened::new(layout, plan, plan.options().read_only(true))?;
    let settled = opened.settle(plan.seed, before, progress)?;
    opened.db.close().map_err(|error| error.to_string())?;
    let after = fingerprint(&layout.database())?;
    let changed = files.keys().chain(after.keys()).find(|name| files.get(*name) != after.get(*name));
    changed.map_or(Ok(settled), |name| Err(format!("a read-only open changed {name}")))
}

/// Opens what a killed process left, which must hold exactly `expected`; checks the log against it, that no file is
/// left over, and that the log that was shipped is a first part of it, to which the rest is then shipped.
///
/// # Errors
/// What does not fit.
pub(super) fn check_recovered(layout: &Layout, plan: Plan, expected: &[ThreadState; THREADS]) -> Result<(), String> {
    let text = |error: siltstone::Error| error.to_string();
    let opened = Opened::new(layout, plan, plan.options())?;
    let progress = std::array::from_fn(|n| Progress { intended: expected[n].number, acknowledged: expected[n].number });
    opened.settle(plan.seed, expected, progress)?;
    let numbers = expected.each_ref().map(|thread| thread.number);
    if plan.is_shipped() && layout.sink().exists() {
        check_shipped(layout, plan, &opened.db, numbers)?;
    }
    check_log(plan.seed, &opened.db, numbers)?;
    opened.db.close().map_err(text)?;
    let closed = Opened::new(layout, plan, plan.options().read_only(true))?;
    closed.settle(plan.seed, expected, progress).map_err(|reason| format!("after a close: {reason}"))?;
    check_files(layout, closed.db.verify().tables)
}

/// The log that is retained: each thread's logged events, up to the last.
fn check_log(seed: u64, db: &Db, numbers: [u64; THREADS]) -> Result<(), String> {
    let (oldest, changes) = oldest_changes(db);
    let mut follower = if oldest == 1 { Follower::from_start(seed) } else { Follower::from_middle(seed) };
    for batch in changes {
        follower.feed(&batch.map_err(|error| error.to_string())?)?;
    }
    follower.check_end(numbers)
}

/// What was shipped and the log after it are together all that was written; shipping resumes.
fn check_shipped(layout: &Layout, plan: Plan, db: &Db, numbers: [u64; THREADS]) -> Result<(), String> {
    let text = |error: siltstone_changelog::Error| format!("shipping: {error}");
    let mut shipped = read_sink(layout, plan.seed)?;
    let last = shipped.last_seqno();
    if last > db.last_seqno() {
        return Err(format!("{last} was shipped, but the database ends at {}", db.last_seqno()));
    }
    for batch in db.changes(last + 1).map_err(|error| format!("what follows the shipped log: {error}"))? {
        shipped.feed(&batch.map_err(|error| error.to_string())?)?;
    }
    shipped.check_end(numbers).map_err(|reason| format!("behind the shipped log: {reason}"))?;
    let sink = FileSink::open_with(layout.sink(), plan.sink_options()).map_err(text)?;
    let shipper = ship(db, sink, ShipOptions::new()).map_err(text)?;
    shipper.stop().map_err(text)?;
    read_sink(layout, plan.seed)?.check_end(numbers).map_err(|reason| format!("after resuming: {reason}"))
}

/// The log that was shipped, from its first change on.
fn read_sink(layout: &Layout, seed: u64) -> Result<Follower, String> {
    let text = |error: siltstone_changelog::Error| format!("the shipped log: {error}");
    let source = FileSource::open(layout.sink());
    let (oldest, _) = source.bounds().map_err(text)?;
    let mut follower = Follower::from_start(seed);
    for batch in source.read(&oldest).map_err(text)? {
        follower.feed(&batch.map_err(text)?.1)?;
    }
    Ok(follower)
}

/// A database restored from the log that was shipped holds everything that is logged.
///
/// # Errors
/// What does not fit.
pub(super) fn check_restore(layout: &Layout, plan: Plan, expected: &[ThreadState; THREADS]) -> Result<(), String> {
    let text = |error: siltstone_changelog::Error| format!("restoring: {error}");
    let scratch = tempfile::tempdir().map_err(|error| error.to_string())?;
    // The first numbers may be those of writes without the log. Whether anything is missing, the comparison says.
    let source = FileSource::open(layout.sink());
    let mut restore = Restore::new(source).into_with(scratch.path(), plan.options()).allow_partial(true);
    for name in SHARED {
        restore = restore.keyspace_options(name, plan.keyspace_options(name));
    }
    let (db, _) = restore.run().map_err(text)?;
    let open = |name: &String| db.keyspace(name, plan.keyspace_options(name));
    let keyspaces: Vec<Keyspace> =
        db.keyspaces().iter().map(open).collect::<Result<_, _>>().map_err(|e| e.to_string())?;
    let mut all = State::new();
    for (name, map) in expected.iter().flat_map(|thread| &thread.logged) {
        all.entry(name.clone()).or_default().append(&mut map.clone());
    }
    let found = dump_keyspaces(&keyspaces).map_err(|error| error.to_string())?;
    difference(&found, &all).map_or(Ok(()), |difference| Err(format!("restored: {difference}")))
}

/// Name, length and contents of every file.
fn fingerprint(directory: &Path) -> Result<BTreeMap<String, (usize, u64)>, String> {
    let text = |error: std::io::Error| format!("{}: {error}", directory.display());
    let mut files = BTreeMap::new();
    let listed = match fs::read_dir(directory) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(files),
        listed => listed.map_err(text)?,
    };
    for entry in listed {
        let entry = entry.map_err(text)?;
        let bytes = fs::read(entry.path()).map_err(text)?;
        let mut hasher = DefaultHasher::new();
        bytes.hash(&mut hasher);
        files.insert(entry.file_name().to_string_lossy().into_owned(), (bytes.len(), hasher.finish()));
    }
    Ok(files)
}

/// A database that was recovered and closed has one manifest, its live tables, a log without holes, and nothing else.
fn check_files(layout: &Layout, tables: u64) -> Result<(), String> {
    let files = fingerprint(&layout.database())?;
    let with = |suffix: &str| files.keys().filter(|name| name.ends_with(suffix)).cloned().collect::<Vec<_>>();
    let manifests = files.keys().filter(|name| name.starts_with("MANIFEST-")).count();
    let segments: Vec<u64> = with(".wal").iter().filter_map(|name| name.strip_suffix(".wal")?.parse().ok()).collect();
    let (found, spares) = (with(".table").len(), with(".spare").len());
    let known = manifests + segments.len() + found + spares + 2;
    let whole = segments.is_sorted_by(|a, b| a + 1 == *b);
    // Recycled files are no leftovers: the log keeps two at most.
    if manifests != 1 || found as u64 != tables || !whole || known != files.len() || spares > 2 {
        return Err(format!("{tables} tables are live, but the files are {:?}", files.keys()));
    }
    Ok(())
}
