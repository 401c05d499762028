//! Runs [`Step`]s on a database; what they answer compares with the answers of other databases and of the model.

use std::array;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use siltstone::fs::{FileSystem, SimFileSystem};
use siltstone::{
    Change, ChangeBatch, Changes, Db, Durability, Iter, Keyspace, KeyspaceOptions, Options, Result, SeqNo, Snapshot,
    WriteBatch,
};
use tempfile::TempDir;

use crate::answer::{Answer, Blob, Failure, LoggedBatch, call, calls};
use crate::model::{Place, chosen, push_bounded, remove_chosen};
use crate::options::{Config, KEYSPACES};
use crate::probes::{self, Reopened};
use crate::steps::{ENTRIES, Ends, NumberedEntry, NumberedWrite, Step, Subject};

/// A database and everything that is open on it. Its methods panic where calls that have to agree with each other do
/// not.
pub struct Runner {
    config: Config,
    file_system: Arc<dyn FileSystem>,
    path: PathBuf,
    /// None only while the database is reopened.
    db: Option<Db>,
    /// None for a keyspace that did not exist when the database was opened and was not opened since.
    handles: [Option<Keyspace>; KEYSPACES],
    /// None for what a reopening dropped; the same for iterators and followers.
    snapshots: Vec<Option<Taken>>,
    iters: Vec<Option<Iter>>,
    followers: Vec<Option<Changes>>,
    foreign: Option<(Db, Keyspace)>,
    /// Removed last.
    _directory: TempDir,
}

/// A snapshot with the handles of its moment.
struct Taken {
    /// Whether its database was closed since.
    lost: bool,
    snapshot: Snapshot,
    handles: [Option<Keyspace>; KEYSPACES],
}

/// The name of keyspace `number`.
pub fn name(number: usize) -> String {
    format!("keyspace {number}")
}

/// The name of metadata entry `number`.
pub fn entry_name(number: usize) -> String {
    format!("entry {number}")
}

/// The name of change cursor `number`.
pub fn cursor_name(number: usize) -> String {
    format!("cursor {number}")
}

/// The log that `changes` still has to give, and what `wait` says of it.
fn follow(changes: &mut Changes) -> Result<Vec<LoggedBatch>> {
    let announced = changes.wait(Duration::ZERO);
    let batches: Vec<LoggedBatch> =
        changes.by_ref().map(|batch| batch.map(|batch| LoggedBatch::from(&batch))).collect::<Result<_>>()?;
    assert_eq!(announced, !batches.is_empty(), "whether there is more: {} batches", batches.len());
    assert!(!changes.wait(Duration::ZERO), "caught up, and yet there is more");
    Ok(batches)
}

fn change((keyspace, key, value): &NumberedWrite) -> Change {
    let (keyspace, key) = (name(*keyspace).into(), key.clone().into());
    match value {
        Some(value) => Change::Put { keyspace, key, value: value.clone().into() },
        None => Change::Delete { keyspace, key },
    }
}

fn dropped(keyspace: usize) -> Answer {
    Answer::Failed(Failure::KeyspaceDropped(name(keyspace)))
}

fn read(mut iter: Iter, ends: Ends) -> Answer {
    calls(ends, None, |back| call(&mut iter, back))
}

impl Runner {
    /// Opens a new database with all keyspaces.
    pub fn new(config: Config) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut runner = Runner {
            file_system: config.file_system(),
            path: directory.path().join("db"),
            db: None,
            handles: array::from_fn(|_| None),
            snapshots: Vec::new(),
            iters: Vec::new(),
            followers: Vec::new(),
            foreign: None,
            _directory: directory,
            config,
        };
        runner.open([true; KEYSPACES]);
        runner
    }

    /// The open database.
    pub fn db(&self) -> &Db {
        self.db.as_ref().unwrap()
    }

    /// Today's handle of a keyspace, if there is one.
    pub fn handle(&self, keyspace: usize) -> Option<&Keyspace> {
        self.handles[keyspace].as_ref()
    }

    fn options(&self) -> Options {
        self.config.options.clone().file_system(self.file_system.clone())
    }

    fn open(&mut self, wanted: [bool; KEYSPACES]) {
        let db = self.options().open(&self.path).unwrap();
        let open = |n: usize| db.keyspace(name(n), self.config.keyspaces[n].clone()).unwrap();
        self.handles = array::from_fn(|n| wanted[n].then(|| open(n)));
        self.db = Some(db);
    }

    /// Does what `step` says, at `place`.
    pub fn step(&mut self, step: &Step, place: &Place) -> Answer {
        match step {
            Step::Put { .. } | Step::Delete { .. } | Step::PutAll { .. } | Step::DeleteAll { .. } => self.write(step),
            Step::Ingest { keyspace, entries, unfollowed } => self.ingest(*keyspace, entries, *unfollowed),
            Step::Write { batch, metadata, durability } => self.write_batch(batch, metadata, *durability, place),
            Step::Apply { at, writes, metadata } => {
                self.apply(place.seqno(*at), writes.iter().map(change).collect(), metadata)
            }
            Step::ApplyDrop { at, keyspace, writes, metadata } => {
                let drop = Change::DropKeyspace { keyspace: name(*keyspace).into() };
                let changes = writes.iter().map(change).chain([drop]).collect();
                self.apply(place.seqno(*at), changes, metadata)
            }
            Step::CloseAndOpen | Step::DropAndOpen | Step::OpenReadOnly => self.reopen(step, place),
            _ => match step.subject() {
                Subject::Keyspace => self.read(step),
                Subject::Snapshot => self.snapshot(step),
                Subject::Iter => self.iter(step),
                Subject::Log => self.follow(step, place),
                Subject::Database => self.upkeep(step, place),
            },
        }
    }

    // ---- writes ----

    fn write(&self, step: &Step) -> Answer {
        let (Step::Put { keyspace, .. }
        | Step::Delete { keyspace, .. }
        | Step::PutAll { keyspace, .. }
        | Step::DeleteAll { keyspace, .. }) = step
        else {
            unreachable!("{step:?} is no single write")
        };
        let Some(handle) = self.handle(*keyspace) else {
            // There is no handle that could refuse; an empty batch is fine with any.
            return match step {
                Step::PutAll { entries, .. } if entries.is_empty() => Answer::Seqno(self.db().last_seqno()),
                Step::DeleteAll { keys, .. } if keys.is_empty() => Answer::Seqno(self.db().last_seqno()),
                _ => dropped(*keyspace),
            };
        };
        let answer = match step {
            Step::Put { key, value, .. } => handle.put(key, value),
            Step::Delete { key, .. } => handle.delete(key),
            Step::PutAll { entries, .. } => handle.put_all(entries.iter().map(|(key, value)| (key, value))),
            Step::DeleteAll { keys, .. } => handle.delete_all(keys),
            other => unreachable!("{other:?} is no single write"),
        };
        Answer::of(answer, Answer::Seqno)
    }

    fn ingest(&self, keyspace: usize, entries: &[(Vec<u8>, Vec<u8>)], unfollowed: bool) -> Answer {
        if unfollowed {
            (0..ENTRIES).for_each(|n| self.db().remove_change_cursor(&cursor_name(n)).unwrap());
        }
        let Some(handle) = self.handle(keyspace) else { return dropped(keyspace) };
        Answer::of(handle.ingest(entries.iter().map(|(key, value)| (key, value))), Answer::Seqno)
    }

    fn write_batch(
        &self,
        writes: &[NumberedWrite],
        metadata: &[NumberedEntry],
        durability: Option<Durability>,
        place: &Place,
    ) -> Answer {
        // A missing handle cannot refuse the batch; a handle of a dropped keyspace before it does.
        let refusing = writes.iter().map(|(keyspace, _, _)| *keyspace).find(|&keyspace| !place.live[keyspace]);
        if let Some(keyspace) = refusing.filter(|&keyspace| self.handles[keyspace].is_none()) {
            return dropped(keyspace);
        }
        let mut batch = WriteBatch::default();
        let mut added = 0;
        for (keyspace, key, value) in writes {
            let Some(handle) = self.handle(*keyspace) else { continue };
            match value {
                Some(value) => batch.put(handle, key, value),
                None => batch.delete(handle, key),
            };
            added += 1;
        }
        for (name, value) in metadata {
            batch.metadata(&entry_name(*name), value.as_ref());
        }
        let empty = added == 0 && metadata.is_empty();
        assert_eq!((batch.len(), batch.is_empty(), batch.encoded_bytes() == 0), (added, empty, empty));
        let written = match durability {
            Some(durability) => self.db().write_with(batch.clone(), durability),
            None => self.db().write(batch.clone()),
        };
        batch.clear();
        assert_eq!((batch.len(), batch.is_empty(), batch.encoded_bytes()), (0, true, 0));
        Answer::of(written, Answer::Seqno)
    }

    fn apply(&self, first_seqno: SeqNo, changes: Vec<Change>, metadata: &[(usize, Vec<u8>)]) -> Answer {
        let names: Vec<String> = metadata.iter().map(|(name, _)| entry_name(*name)).collect();
        let entries: Vec<(&str, &Vec<u8>)> =
            names.iter().zip(metadata).map(|(name, (_, value))| (name.as_str(), value)).collect();
        let applied = ChangeBatch::new(first_seqno, changes).and_then(|batch| self.db().apply(&batch, &entries));
        // What a batch that is in already answers is the last number there is, whatever its own.
        Answer::of(applied, Answer::Seqno)
    }

    // ---- reads ----

    fn read(&self, step: &Step) -> Answer {
        let (Step::Get { keyspace, .. }
        | Step::GetMany { keyspace, .. }
        | Step::Range { keyspace, .. }
        | Step::Prefix { keyspace, .. }
        | Step::Iterate { keyspace, .. }
        | Step::ApproximateLen { keyspace }) = step
        else {
            unreachable!("{step:?} is no read")
        };
        let Some(handle) = self.handle(*keyspace) else {
            return match step {
                Step::Get { .. } | Step::GetMany { .. } => dropped(*keyspace),
                Step::ApproximateLen { .. } => Answer::Done,
                Step::Range { ends, .. } | Step::Prefix { ends, .. } | Step::Iterate { ends, .. } => {
                    let mut failure = Some(Err(Failure::KeyspaceDropped(name(*keyspace))));
                    calls(*ends, None, |_| failure.take())
                }
                other => unreachable!("{other:?} is no read"),
            };
        };
        match step {
            Step::Get { key, .. } => {
                let answer = Answer::of(handle.get(key), |value| Answer::Values(vec![value.map(Blob::from)]));
                let with = handle.get_with(key, |value| Blob(value.to_vec()));
                assert_eq!(Answer::of(with, |value| Answer::Values(vec![value])), answer, "get_with and get");
                let there = matches!(&answer, Answer::Values(values) if values[0].is_some());
                assert_eq!(handle.contains_key(key).unwrap_or(false), there, "contains_key and get");
                answer
            }
            Step::GetMany { keys, .. } => Answer::values(handle.get_many(keys)),
            Step::Range { bounds, ends, .. } => read(handle.range(bounds.clone()), *ends),
            Step::Prefix { prefix, ends, .. } => read(handle.prefix(prefix), *ends),
            Step::Iterate { ends, .. } => read(handle.iter(), *ends),
            _ => Answer::Done,
        }
    }

    fn snapshot(&mut self, step: &Step) -> Answer {
        let (which, keyspace, then) = match step {
            Step::TakeSnapshot => {
                let (snapshot, handles) = (self.db().snapshot(), self.handles.clone());
                let seqno = snapshot.seqno();
                push_bounded(&mut self.snapshots, Some(Taken { lost: false, snapshot, handles }));
                return Answer::Seqno(seqno);
            }
            Step::DropSnapshot { which } => return remove_chosen(&mut self.snapshots, *which),
            Step::ReadSnapshot { which, keyspace, then, .. }
            | Step::ReadSnapshotPrefix { which, keyspace, then, .. }
            | Step::GetSnapshot { which, keyspace, then, .. } => (*which, *keyspace, *then),
            other => unreachable!("{other:?} is not about snapshots"),
        };
        let today = self.handles[keyspace].clone();
        let Some(taken) = chosen(&mut self.snapshots, which) else { return Answer::Nothing };
        let Some(taken) = taken else { return Answer::Lost };
        let handle = if then { taken.handles[keyspace].clone() } else { today };
        if taken.lost && handle.is_none() {
            return Answer::Lost;
        }
        let snapshot = taken.snapshot.clone();
        let answer = match (step, handle) {
            (Step::ReadSnapshot { ends, .. } | Step::ReadSnapshotPrefix { ends, .. }, None) => {
                let mut failure = Some(Err(Failure::KeyspaceDropped(name(keyspace))));
                calls(*ends, None, |_| failure.take())
            }
            (_, None) => dropped(keyspace),
            (Step::ReadSnapshot { bounds, ends, .. }, Some(handle)) => {
                read(snapshot.range(&handle, bounds.clone()), *ends)
            }
            (Step::ReadSnapshotPrefix { prefix, ends, .. }, Some(handle)) => {
                read(snapshot.prefix(&handle, prefix), *ends)
            }
            (Step::GetSnapshot { keys, .. }, Some(handle)) => get_in_snapshot(&snapshot, &handle, keys),
            (other, Some(_)) => unreachable!("{other:?} reads no snapshot"),
        };
        if taken.lost { probes::lost(answer) } else { answer }
    }

    fn iter(&mut self, step: &Step) -> Answer {
        match step {
            Step::OpenIter { keyspace, bounds } => {
                let iter = self.handle(*keyspace).map(|handle| handle.range(bounds.clone()));
                if let Some(iter) = iter {
                    push_bounded(&mut self.iters, Some(iter));
                    return Answer::Done;
                }
                // Any handle of a dropped keyspace gives such an iterator; there is just none left of this one.
                let gone = self.gone_keyspace(*keyspace);
                push_bounded(&mut self.iters, Some(gone.range(bounds.clone())));
                Answer::Done
            }
            Step::OpenSnapshotIter { which, keyspace, then } => {
                let (iter, answer) = self.snapshot_iter(*which, *keyspace, *then);
                push_bounded(&mut self.iters, iter);
                answer
            }
            Step::AdvanceIter { which, count, ends } => match chosen(&mut self.iters, *which) {
                Some(Some(iter)) => calls(*ends, Some(*count), |back| call(iter, back)),
                Some(None) => Answer::Lost,
                None => Answer::Nothing,
            },
            Step::DropIter { which } => remove_chosen(&mut self.iters, *which),
            other => unreachable!("{other:?} is not about iterators"),
        }
    }

    fn snapshot_iter(&mut self, which: usize, keyspace: usize, then: bool) -> (Option<Iter>, Answer) {
        let today = self.handles[keyspace].clone();
        let Some(taken) = chosen(&mut self.snapshots, which) else { return (None, Answer::Nothing) };
        let Some(taken) = taken.as_ref().filter(|taken| !taken.lost) else { return (None, Answer::Lost) };
        let snapshot = taken.snapshot.clone();
        let handle = if then { taken.handles[keyspace].clone() } else { today };
        let iter = handle.map_or_else(|| self.gone_keyspace(keyspace).iter(), |handle| snapshot.iter(&handle));
        (Some(iter), Answer::Done)
    }

    /// A handle of a keyspace of that name which is gone: of another database, where that takes no number.
    fn gone_keyspace(&self, keyspace: usize) -> Keyspace {
        let db = Options::new().file_system(Arc::new(SimFileSystem::new())).open("/gone").unwrap();
        let gone = db.keyspace(name(keyspace), KeyspaceOptions::default()).unwrap();
        db.drop_keyspace(name(keyspace)).unwrap();
        gone
    }

    // ---- the log ----

    fn follow(&mut self, step: &Step, place: &Place) -> Answer {
        match step {
            Step::Changes { at } => self.changes(place.seqno(*at), place),
            Step::OpenChanges { at } => {
                let changes = self.db().changes(place.promised_seqno((*at).min(0)));
                Answer::of(changes, |changes| {
                    push_bounded(&mut self.followers, Some(changes));
                    Answer::Done
                })
            }
            Step::FollowChanges { which } => match chosen(&mut self.followers, *which) {
                Some(Some(changes)) => Answer::of(follow(changes), Answer::Changes),
                Some(None) => Answer::Lost,
                None => Answer::Nothing,
            },
            Step::DropChanges { which } => remove_chosen(&mut self.followers, *which),
            Step::SetCursor { name, at, metadata } => {
                let (name, next) = (cursor_name(*name), place.promised_seqno(*at));
                if metadata.is_empty() {
                    return Answer::done(self.db().set_change_cursor(&name, next));
                }
                let names: Vec<String> = metadata.iter().map(|(name, _)| entry_name(*name)).collect();
                let entries: Vec<(&str, &[u8])> =
                    names.iter().zip(metadata).map(|(name, (_, value))| (name.as_str(), value.as_slice())).collect();
                Answer::done(self.db().set_change_cursor_with(&name, next, &entries))
            }
            Step::Cursor { name } => Answer::Number(self.db().change_cursor(&cursor_name(*name))),
            Step::RemoveCursor { name } => Answer::done(self.db().remove_change_cursor(&cursor_name(*name))),
            Step::Metadata { name } => Answer::Values(vec![self.db().metadata(&entry_name(*name)).map(Blob::from)]),
            other => unreachable!("{other:?} is not about the log"),
        }
    }

    fn changes(&self, from: SeqNo, place: &Place) -> Answer {
        use siltstone::Error::NotRetained;
        match self.db().changes(from) {
            Ok(mut changes) => Answer::of(follow(&mut changes), Answer::Changes),
            Err(NotRetained { requested, oldest }) => {
                assert_eq!(requested, from.max(1));
                assert!(oldest > requested && oldest <= place.promised, "{oldest} for {requested} at {place:?}");
                // The background may let go of more between the two calls.
                let again = self.db().changes(oldest);
                assert!(matches!(&again, Ok(_) | Err(NotRetained { .. })), "{again:?}");
                Answer::Failed(Failure::NotRetained)
            }
            Err(error) => Answer::Failed(error.into()),
        }
    }

    // ---- upkeep ----

    fn upkeep(&mut self, step: &Step, place: &Place) -> Answer {
        let db = self.db().clone();
        match step {
            Step::Sync => Answer::done(db.sync()),
            Step::Flush { keyspace } => self.handle(*keyspace).map_or(dropped(*keyspace), |h| Answer::done(h.flush())),
            Step::FlushAll => Answer::done(db.flush()),
            Step::Compact { keyspace } => {
                self.handle(*keyspace).map_or(dropped(*keyspace), |handle| Answer::done(handle.compact()))
            }
            Step::WaitForCompaction => Answer::done(db.wait_for_compaction()),
            // The bounds are checked after the step.
            Step::Metrics | Step::Replicate => Answer::Done,
            Step::Verify => {
                let report = db.verify();
                assert!(report.is_ok(), "{report}");
                Answer::Done
            }
            Step::ListKeyspaces => Answer::Names(db.keyspaces()),
            Step::OpenKeyspace { keyspace, default_options } => {
                Answer::done(self.open_keyspace(*keyspace, *default_options))
            }
            Step::DropKeyspace { keyspace, recreate } => {
                let answer = Answer::of(db.drop_keyspace(name(*keyspace)), Answer::Flag);
                let created = if *recreate { self.open_keyspace(*keyspace, false) } else { Ok(()) };
                created.map_or_else(|error| Answer::Failed(error.into()), |()| answer)
            }
            Step::OpenTwice => {
                let read_only = self.options().read_only(true).open(&self.path);
                assert!(matches!(read_only, Err(siltstone::Error::Locked { .. })), "{read_only:?}");
                Answer::of(self.options().open(&self.path), |_| Answer::Done)
            }
            Step::BadArguments { keyspace } | Step::ForeignHandles { keyspace } if !place.live[*keyspace] => {
                Answer::Nothing
            }
            Step::BadArguments { keyspace } => {
                let handle = self.handles[*keyspace].clone().unwrap();
                Answer::Deviations(probes::bad_arguments(&db, &handle, self.options(), &self.path))
            }
            Step::ForeignHandles { keyspace } => {
                let handle = self.handles[*keyspace].clone().unwrap();
                Answer::Deviations(probes::foreign_handles(&db, &handle, self.foreign()))
            }
            other => unreachable!("{other:?} is no upkeep"),
        }
    }

    fn open_keyspace(&mut self, keyspace: usize, default_options: bool) -> Result<()> {
        let options =
            if default_options { KeyspaceOptions::default() } else { self.config.keyspaces[keyspace].clone() };
        self.handles[keyspace] = Some(self.db().keyspace(name(keyspace), options)?);
        assert_eq!(*self.handles[keyspace].as_ref().unwrap().name(), name(keyspace));
        Ok(())
    }

    /// A keyspace of another database.
    fn foreign(&mut self) -> &Keyspace {
        let (_, keyspace) = self.foreign.get_or_insert_with(|| {
            let db = Options::new().file_system(Arc::new(SimFileSystem::new())).open("/foreign").unwrap();
            let keyspace = db.keyspace(name(0), KeyspaceOptions::default()).unwrap();
            (db, keyspace)
        });
        keyspace
    }

    fn reopen(&mut self, step: &Step, place: &Place) -> Answer {
        let deviations = match step {
            Step::DropAndOpen => {
                self.handles = array::from_fn(|_| None);
                self.snapshots.iter_mut().for_each(|taken| *taken = None);
                self.iters.iter_mut().for_each(|iter| *iter = None);
                self.db = None;
                Vec::new()
            }
            Step::CloseAndOpen => self.close(),
            _ => {
                let before = Reopened::of(self.db());
                let mut deviations = self.close();
                let options = self.options();
                deviations.extend(probes::read_only(&before, &options, &self.path, &self.file_system));
                deviations
            }
        };
        self.followers.iter_mut().for_each(|changes| *changes = None);
        self.open(place.live);
        Answer::Deviations(deviations)
    }

    /// Closes; what the handles that are left answer in a wrong way.
    fn close(&mut self) -> Vec<String> {
        let db = self.db.take().unwrap();
        let mut deviations = probes::closed_by(&db);
        for taken in self.snapshots.iter_mut().flatten() {
            taken.lost = true;
        }
        self.handles.iter().flatten().for_each(|handle| deviations.extend(probes::closed_keyspace(&db, handle)));
        self.followers.iter_mut().flatten().for_each(|changes| deviations.extend(probes::closed_changes(changes)));
        deviations
    }
}

/// The values of `keys` in a snapshot, by each call that gets one.
fn get_in_snapshot(snapshot: &Snapshot, handle: &Keyspace, keys: &[Vec<u8>]) -> Answer {
    let answer = Answer::values(snapshot.get_many(handle, keys));
    if let Answer::Values(values) = &answer {
        for (key, value) in keys.iter().zip(values) {
            let found = snapshot.get(handle, key).unwrap();
            assert_eq!(found.map(Blob::from), *value, "get and get_many");
            assert_eq!(snapshot.contains_key(handle, key).unwrap(), value.is_some(), "contains_key and get_many");
        }
    }
    answer
}
