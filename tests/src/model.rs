//! What a database answers, computed by plain maps: no tables, no log files, no threads, no configuration but whether
//! writes are logged by default.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::sync::Arc;

use siltstone::{Durability, SeqNo};

use crate::answer::{Answer, Blob, Call, Failure, LoggedBatch, LoggedChange, calls};
use crate::options::KEYSPACES;
use crate::runner::name;
use crate::state::Map;
use crate::steps::{Bounds, ENTRIES, Ends, NumberedWrite, Step, Subject};

/// How many snapshots, iterators and followers are open at most, of each; one more takes the place of the oldest.
pub const MAX_OPEN: usize = 8;

/// Entries that an iterator still has to give.
type Rest = VecDeque<(Vec<u8>, Vec<u8>)>;

/// One life of a keyspace, from its creation to its drop.
#[derive(Clone, Debug, Default)]
pub struct Life {
    /// Its entries.
    pub map: Arc<Map>,
    /// The number of its drop.
    pub dropped_at: Option<SeqNo>,
    /// How many puts it took.
    pub puts: u64,
    /// How many deletes it took.
    pub deletes: u64,
    /// Whether every put was of a new key and nothing was deleted.
    pub pristine: bool,
}

/// A snapshot: the lives and handles of its moment.
#[derive(Clone, Debug)]
struct Taken {
    lost: bool,
    lives: Vec<Life>,
    handles: [Option<usize>; KEYSPACES],
}

/// An iterator: what it still has to give, or the error that it has to give.
#[derive(Clone, Debug)]
struct Iterating {
    lost: bool,
    rest: Result<Rest, Option<Failure>>,
}

/// Where the log is asked from, and which handles are good: what a runner has to know of the model to do the same.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    /// The last sequence number.
    pub last_seqno: SeqNo,
    /// From here on the log has to be there: a cursor holds it. The next number if none does.
    pub promised: SeqNo,
    /// Whether the handle of each keyspace is that of a keyspace that lives.
    pub live: [bool; KEYSPACES],
}

impl Place {
    /// The number that lies `at` numbers after the next one, or 0.
    pub fn seqno(&self, at: i64) -> SeqNo {
        (self.last_seqno + 1).saturating_add_signed(at)
    }

    /// The same, but no number that the log may have let go of.
    pub fn promised_seqno(&self, at: i64) -> SeqNo {
        self.seqno(at).max(self.promised)
    }
}

/// A deliberate mistake of the model, to test that differences are found and reduced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mistake {
    /// `delete` (not a batch's) forgets to delete.
    KeepsDeleted,
    /// A snapshot takes the entries of keyspace 1 for empty if there are more than two.
    ForgetsInSnapshots,
    /// A batch of more than four operations drops its last one.
    CutsBatches,
}

/// See the module.
#[derive(Clone, Debug)]
pub struct Model {
    logged_by_default: bool,
    mistake: Option<Mistake>,
    last_seqno: SeqNo,
    lives: Vec<Life>,
    /// The life of each keyspace that exists.
    catalog: [Option<usize>; KEYSPACES],
    /// The life that each keyspace's handle is of.
    handles: [Option<usize>; KEYSPACES],
    metadata: BTreeMap<usize, Vec<u8>>,
    cursors: BTreeMap<usize, SeqNo>,
    /// What was logged: each batch, and whether it would be under every default.
    log: Vec<(LoggedBatch, bool)>,
    /// The last number of an ingest: up to here the log is of no use.
    ingested_seqno: SeqNo,
    snapshots: Vec<Taken>,
    iters: Vec<Iterating>,
    /// The next number of each follower, none once it is lost.
    followers: Vec<Option<SeqNo>>,
}

/// The element that `which` stands for.
pub fn chosen<T>(all: &mut [T], which: usize) -> Option<&mut T> {
    let len = all.len();
    if len == 0 { None } else { all.get_mut(which % len) }
}

/// Adds an element; beyond [`MAX_OPEN`] the first one goes.
pub fn push_bounded<T>(all: &mut Vec<T>, new: T) {
    if all.len() == MAX_OPEN {
        all.remove(0);
    }
    all.push(new);
}

/// Removes the element that `which` stands for; whether there was one.
pub fn remove_chosen<T>(all: &mut Vec<T>, which: usize) -> Answer {
    if all.is_empty() {
        return Answer::Nothing;
    }
    all.remove(which % all.len());
    Answer::Done
}

/// Whether both bounds together can hold no key; `BTreeMap::range` panics where the engine answers with nothing.
fn is_empty(bounds: &Bounds) -> bool {
    match bounds {
        (Bound::Included(from), Bound::Included(to)) => from > to,
        (Bound::Included(from) | Bound::Excluded(from), Bound::Included(to) | Bound::Excluded(to)) => from >= to,
        _ => false,
    }
}

fn in_bounds(map: &Map, bounds: &Bounds) -> Rest {
    if is_empty(bounds) {
        return VecDeque::new();
    }
    map.range(bounds.clone()).map(|(key, value)| (key.clone(), value.clone())).collect()
}

fn with_prefix(map: &Map, prefix: &[u8]) -> Rest {
    let all = map.iter().filter(|(key, _)| key.starts_with(prefix));
    all.map(|(key, value)| (key.clone(), value.clone())).collect()
}

fn all() -> Bounds {
    (Bound::Unbounded, Bound::Unbounded)
}

impl Iterating {
    fn of(rest: Result<Rest, Failure>) -> Self {
        Iterating { lost: false, rest: rest.map_err(Some) }
    }

    fn call(&mut self, back: bool) -> Call {
        match &mut self.rest {
            Ok(rest) => {
                let (key, value) = if back { rest.pop_back() } else { rest.pop_front() }?;
                Some(Ok((Blob(key), Blob(value))))
            }
            Err(failure) => failure.take().map(Err),
        }
    }

    fn calls(&mut self, ends: Ends, count: Option<usize>) -> Answer {
        calls(ends, count, |back| self.call(back))
    }
}

impl Model {
    /// A new database with all keyspaces.
    pub fn new(logged_by_default: bool, mistake: Option<Mistake>) -> Self {
        let numbered = std::array::from_fn(Some);
        Model {
            logged_by_default,
            mistake,
            last_seqno: 0,
            lives: vec![Life { pristine: true, ..Life::default() }; KEYSPACES],
            catalog: numbered,
            handles: numbered,
            metadata: BTreeMap::new(),
            cursors: BTreeMap::new(),
            log: Vec::new(),
            ingested_seqno: 0,
            snapshots: Vec::new(),
            iters: Vec::new(),
            followers: Vec::new(),
        }
    }

    /// See [`Place`].
    pub fn place(&self) -> Place {
        let next = self.last_seqno + 1;
        Place {
            last_seqno: self.last_seqno,
            promised: self.cursors.values().min().map_or(next, |&oldest| oldest.min(next)),
            live: std::array::from_fn(|n| self.handles[n].is_some() && self.handles[n] == self.catalog[n]),
        }
    }

    /// The life of an existing keyspace.
    pub fn life(&self, keyspace: usize) -> Option<&Life> {
        Some(&self.lives[self.catalog[keyspace]?])
    }

    /// How many snapshots are live.
    pub fn live_snapshots(&self) -> usize {
        self.snapshots.iter().filter(|taken| !taken.lost).count()
    }

    /// The part of the log that is there under this default durability: every batch with a number from `from` on.
    pub fn log(&self, from: SeqNo) -> Vec<LoggedBatch> {
        let logged = self.log.iter().filter(|(_, always)| *always || self.logged_by_default);
        logged.map(|(batch, _)| batch).filter(|batch| batch.last_seqno() >= from).cloned().collect()
    }

    /// What all databases answer, of what one answered: batches that other durabilities leave out of the log, and log
    /// that others may have let go of, are not part of it.
    pub fn portable(&self, expected: &Answer, found: Answer) -> Answer {
        match (expected, found) {
            (Answer::Retained(_), _) => Answer::Nothing,
            (_, Answer::Changes(mut batches)) => {
                let always = |first| self.log.iter().any(|(batch, always)| *always && batch.first_seqno == first);
                batches.retain(|batch| always(batch.first_seqno));
                Answer::Changes(batches)
            }
            (_, found) => found,
        }
    }

    /// Does what `step` says.
    pub fn step(&mut self, step: &Step) -> Answer {
        match step {
            Step::Put { .. } | Step::Delete { .. } | Step::PutAll { .. } | Step::DeleteAll { .. } => self.write(step),
            Step::Ingest { keyspace, entries, unfollowed } => {
                if *unfollowed {
                    self.cursors.clear();
                }
                self.ingest(*keyspace, entries).unwrap_or_else(Answer::Failed)
            }
            Step::Write { batch, metadata, durability } => {
                let answer = self.write_batch(batch, *durability);
                if let Answer::Seqno(_) = answer {
                    for (name, value) in metadata {
                        self.set_metadata(*name, value.clone());
                    }
                }
                answer
            }
            Step::Apply { at, writes, metadata } => self.apply(*at, writes, metadata),
            Step::ApplyDrop { at, keyspace, writes, metadata } => self.apply_drop(*at, *keyspace, writes, metadata),
            _ => match step.subject() {
                Subject::Keyspace => self.read(step),
                Subject::Snapshot => self.snapshot(step),
                Subject::Iter => self.iter(step),
                Subject::Log => self.follow(step),
                Subject::Database => self.upkeep(step),
            },
        }
    }

    // ---- writes ----

    fn dropped(keyspace: usize) -> Failure {
        Failure::KeyspaceDropped(name(keyspace))
    }

    /// The life behind today's handle of a keyspace, if it still lasts.
    fn through_handle(&self, keyspace: usize) -> Result<usize, Failure> {
        let life = self.handles[keyspace].filter(|&life| self.lives[life].dropped_at.is_none());
        life.ok_or_else(|| Model::dropped(keyspace))
    }

    fn write(&mut self, step: &Step) -> Answer {
        let batch: Vec<NumberedWrite> = match step {
            Step::Put { keyspace, key, value } => vec![(*keyspace, key.clone(), Some(value.clone()))],
            Step::Delete { keyspace, key } => vec![(*keyspace, key.clone(), None)],
            Step::PutAll { keyspace, entries } => {
                entries.iter().map(|(key, value)| (*keyspace, key.clone(), Some(value.clone()))).collect()
            }
            Step::DeleteAll { keyspace, keys } => keys.iter().map(|key| (*keyspace, key.clone(), None)).collect(),
            _ => Vec::new(),
        };
        match step {
            Step::Delete { keyspace, key } if self.mistake == Some(Mistake::KeepsDeleted) => {
                let kept = self.life(*keyspace).and_then(|life| life.map.get(key).cloned());
                self.write_batch(&[(*keyspace, key.clone(), kept)], None)
            }
            _ => self.write_batch(&batch, None),
        }
    }

    fn write_batch(&mut self, batch: &[NumberedWrite], durability: Option<Durability>) -> Answer {
        for (keyspace, _, _) in batch {
            if let Err(failure) = self.through_handle(*keyspace) {
                return Answer::Failed(failure);
            }
        }
        let cut = self.mistake == Some(Mistake::CutsBatches) && batch.len() > 4;
        for (keyspace, key, value) in &batch[..batch.len() - usize::from(cut)] {
            self.change(*keyspace, key, value.as_ref());
        }
        if durability != Some(Durability::NoLog) {
            self.log_writes(self.last_seqno + 1, batch, durability.is_some());
        }
        self.last_seqno += batch.len() as SeqNo;
        Answer::Seqno(self.last_seqno)
    }

    fn ingest(&mut self, keyspace: usize, entries: &[(Vec<u8>, Vec<u8>)]) -> Result<Answer, Failure> {
        self.through_handle(keyspace)?;
        if !self.cursors.is_empty() || !entries.is_sorted_by(|one, next| one.0 < next.0) {
            return Err(Failure::InvalidArgument);
        }
        for (key, value) in entries {
            self.change(keyspace, key, Some(value));
        }
        self.last_seqno += entries.len() as SeqNo;
        if !entries.is_empty() {
            self.ingested_seqno = self.last_seqno;
        }
        Ok(Answer::Seqno(self.last_seqno))
    }

    fn change(&mut self, keyspace: usize, key: &[u8], value: Option<&Vec<u8>>) {
        let Some(life) = self.catalog[keyspace] else { return };
        let life = &mut self.lives[life];
        let map = Arc::make_mut(&mut life.map);
        match value {
            Some(value) => {
                life.puts += 1;
                life.pristine &= map.insert(key.to_vec(), value.clone()).is_none();
            }
            None => {
                life.deletes += 1;
                life.pristine = false;
                map.remove(key);
            }
        }
    }

    fn log_writes(&mut self, first_seqno: SeqNo, writes: &[NumberedWrite], always: bool) {
        let change = |(keyspace, key, value): &NumberedWrite| -> LoggedChange {
            (name(*keyspace), Some(key.into()), value.as_ref().map(Blob::from))
        };
        if !writes.is_empty() {
            self.log.push((LoggedBatch { first_seqno, changes: writes.iter().map(change).collect() }, always));
        }
    }

    fn set_metadata(&mut self, name: usize, value: Option<Vec<u8>>) {
        match value {
            Some(value) => drop(self.metadata.insert(name, value)),
            None => drop(self.metadata.remove(&name)),
        }
    }

    fn apply(&mut self, at: i64, writes: &[NumberedWrite], metadata: &[(usize, Vec<u8>)]) -> Answer {
        let first = self.place().seqno(at);
        if writes.is_empty() || first == 0 {
            return Answer::Failed(Failure::InvalidArgument);
        }
        let last = first + writes.len() as SeqNo - 1;
        if last > self.last_seqno && first <= self.last_seqno {
            return Answer::Failed(Failure::InvalidArgument);
        }
        if last > self.last_seqno {
            for (keyspace, key, value) in writes {
                self.create_if_missing(*keyspace);
                self.change(*keyspace, key, value.as_ref());
            }
            self.log_writes(first, writes, true);
            self.last_seqno = last;
        }
        for (name, value) in metadata {
            self.set_metadata(*name, Some(value.clone()));
        }
        Answer::Seqno(self.last_seqno)
    }

    fn apply_drop(
        &mut self,
        at: i64,
        keyspace: usize,
        writes: &[NumberedWrite],
        metadata: &[(usize, Vec<u8>)],
    ) -> Answer {
        let first = self.place().seqno(at);
        let last = first + writes.len() as SeqNo;
        let (old, new) = (last <= self.last_seqno, first > self.last_seqno);
        if first == 0 || !old && (!new || !writes.is_empty()) {
            return Answer::Failed(Failure::InvalidArgument);
        }
        if new {
            self.create_if_missing(keyspace);
            self.drop_keyspace(keyspace, first);
        }
        for (name, value) in metadata {
            self.set_metadata(*name, Some(value.clone()));
        }
        Answer::Seqno(self.last_seqno)
    }

    fn create_if_missing(&mut self, keyspace: usize) -> usize {
        *self.catalog[keyspace].get_or_insert_with(|| {
            self.lives.push(Life { pristine: true, ..Life::default() });
            self.lives.len() - 1
        })
    }

    /// Whether there was one.
    fn drop_keyspace(&mut self, keyspace: usize, seqno: SeqNo) -> bool {
        let Some(life) = self.catalog[keyspace].take() else { return false };
        self.lives[life].dropped_at = Some(seqno);
        let changes = vec![(name(keyspace), None, None)];
        self.log.push((LoggedBatch { first_seqno: seqno, changes }, true));
        self.last_seqno = seqno;
        true
    }

    // ---- reads ----

    fn map(&self, keyspace: usize) -> Result<&Map, Failure> {
        Ok(&*self.lives[self.through_handle(keyspace)?].map)
    }

    fn read(&self, step: &Step) -> Answer {
        let values =
            |map: &Map, keys: &[Vec<u8>]| Answer::Values(keys.iter().map(|key| map.get(key).map(Blob::from)).collect());
        let read = |keyspace: usize, ends: Ends, of: &dyn Fn(&Map) -> Rest| {
            Iterating::of(self.map(keyspace).map(of)).calls(ends, None)
        };
        match step {
            Step::Get { keyspace, key } => match self.map(*keyspace) {
                Ok(map) => values(map, std::slice::from_ref(key)),
                Err(failure) => Answer::Failed(failure),
            },
            Step::GetMany { keyspace, keys } => match self.map(*keyspace) {
                Ok(map) => values(map, keys),
                Err(failure) => Answer::Failed(failure),
            },
            Step::Range { keyspace, bounds, ends } => read(*keyspace, *ends, &|map| in_bounds(map, bounds)),
            Step::Prefix { keyspace, prefix, ends } => read(*keyspace, *ends, &|map| with_prefix(map, prefix)),
            Step::Iterate { keyspace, ends } => read(*keyspace, *ends, &|map| in_bounds(map, &all())),
            // What it says depends on the configuration; the runner checks its bounds.
            _ => Answer::Done,
        }
    }

    fn snapshot(&mut self, step: &Step) -> Answer {
        let (which, keyspace, then) = match step {
            Step::TakeSnapshot => return self.take_snapshot(),
            Step::DropSnapshot { which } => return remove_chosen(&mut self.snapshots, *which),
            Step::ReadSnapshot { which, keyspace, then, .. }
            | Step::ReadSnapshotPrefix { which, keyspace, then, .. }
            | Step::GetSnapshot { which, keyspace, then, .. } => (*which, *keyspace, *then),
            other => unreachable!("{other:?} is not about snapshots"),
        };
        let map = match self.map_in_snapshot(which, keyspace, then) {
            Ok(map) => map,
            Err(answer) => return answer,
        };
        match (step, map) {
            (Step::ReadSnapshot { bounds, ends, .. }, map) => {
                Iterating::of(map.map(|map| in_bounds(&map, bounds))).calls(*ends, None)
            }
            (Step::ReadSnapshotPrefix { prefix, ends, .. }, map) => {
                Iterating::of(map.map(|map| with_prefix(&map, prefix))).calls(*ends, None)
            }
            (Step::GetSnapshot { keys, .. }, Ok(map)) => {
                Answer::Values(keys.iter().map(|key| map.get(key).map(Blob::from)).collect())
            }
            (_, Err(failure)) => Answer::Failed(failure),
            (_, Ok(_)) => Answer::Nothing,
        }
    }

    fn take_snapshot(&mut self) -> Answer {
        let mut lives = self.lives.clone();
        if self.mistake == Some(Mistake::ForgetsInSnapshots) {
            let life = self.catalog[1].filter(|&life| lives[life].map.len() > 2);
            life.into_iter().for_each(|life| lives[life].map = Arc::default());
        }
        let taken = Taken { lost: false, lives, handles: self.handles };
        push_bounded(&mut self.snapshots, taken);
        Answer::Seqno(self.last_seqno)
    }

    /// What a snapshot sees of a keyspace, through the handle of its own time (`then`) or today's: an answer if there is
    /// no such snapshot.
    fn map_in_snapshot(
        &mut self,
        which: usize,
        keyspace: usize,
        then: bool,
    ) -> Result<Result<Arc<Map>, Failure>, Answer> {
        let Some(taken) = chosen(&mut self.snapshots, which) else { return Err(Answer::Nothing) };
        if taken.lost {
            return Err(Answer::Lost);
        }
        let handle = if then { taken.handles[keyspace] } else { self.handles[keyspace] };
        Ok(match handle.map(|life| taken.lives.get(life)) {
            Some(Some(life)) if life.dropped_at.is_none() => Ok(life.map.clone()),
            // Younger than the snapshot.
            Some(None) => Ok(Arc::default()),
            _ => Err(Model::dropped(keyspace)),
        })
    }

    fn iter(&mut self, step: &Step) -> Answer {
        match step {
            Step::OpenIter { keyspace, bounds } => {
                let iter = Iterating::of(self.map(*keyspace).map(|map| in_bounds(map, bounds)));
                push_bounded(&mut self.iters, iter);
                Answer::Done
            }
            Step::OpenSnapshotIter { which, keyspace, then } => {
                let (iter, answer) = match self.map_in_snapshot(*which, *keyspace, *then) {
                    Ok(map) => (Iterating::of(map.map(|map| in_bounds(&map, &all()))), Answer::Done),
                    Err(answer) => (Iterating { lost: true, rest: Err(None) }, answer),
                };
                push_bounded(&mut self.iters, iter);
                answer
            }
            Step::AdvanceIter { which, count, ends } => match chosen(&mut self.iters, *which) {
                Some(iter) if iter.lost => Answer::Lost,
                Some(iter) => iter.calls(*ends, Some(*count)),
                None => Answer::Nothing,
            },
            Step::DropIter { which } => remove_chosen(&mut self.iters, *which),
            other => unreachable!("{other:?} is not about iterators"),
        }
    }

    // ---- the log ----

    fn follow(&mut self, step: &Step) -> Answer {
        let place = self.place();
        match step {
            Step::Changes { at } => {
                let from = place.seqno(*at);
                if from > self.last_seqno + 1 {
                    return Answer::Failed(Failure::InvalidArgument);
                }
                if from.max(1) <= self.ingested_seqno {
                    return Answer::Failed(Failure::NotRetained);
                }
                let batches = self.log(from);
                if from >= place.promised { Answer::Changes(batches) } else { Answer::Retained(batches) }
            }
            Step::OpenChanges { at } => {
                let from = place.promised_seqno((*at).min(0));
                push_bounded(&mut self.followers, Some(from));
                Answer::Done
            }
            Step::FollowChanges { which } => {
                let (next, ingested) = (self.last_seqno + 1, self.ingested_seqno);
                let Some(follower) = chosen(&mut self.followers, *which) else { return Answer::Nothing };
                let Some(from) = follower else { return Answer::Lost };
                if *from <= ingested {
                    return Answer::Failed(Failure::NotRetained);
                }
                let from = std::mem::replace(from, next);
                Answer::Changes(self.log(from))
            }
            Step::DropChanges { which } => remove_chosen(&mut self.followers, *which),
            Step::SetCursor { name, at, metadata } => {
                self.cursors.insert(*name, place.promised_seqno(*at));
                metadata.iter().for_each(|(name, value)| self.set_metadata(*name, Some(value.clone())));
                Answer::Done
            }
            Step::Cursor { name } => Answer::Number(self.cursors.get(name).copied()),
            Step::RemoveCursor { name } => {
                self.cursors.remove(name);
                Answer::Done
            }
            Step::Metadata { name } => Answer::Values(vec![self.metadata.get(name).map(Blob::from)]),
            other => unreachable!("{other:?} is not about the log"),
        }
    }

    // ---- the rest ----

    fn upkeep(&mut self, step: &Step) -> Answer {
        match step {
            Step::Flush { keyspace } | Step::Compact { keyspace } => match self.through_handle(*keyspace) {
                Ok(_) => Answer::Done,
                Err(failure) => Answer::Failed(failure),
            },
            Step::ListKeyspaces => {
                Answer::Names((0..KEYSPACES).filter(|&n| self.catalog[n].is_some()).map(name).collect())
            }
            Step::OpenKeyspace { keyspace, .. } => {
                self.handles[*keyspace] = Some(self.create_if_missing(*keyspace));
                Answer::Done
            }
            Step::DropKeyspace { keyspace, recreate } => {
                let dropped = self.drop_keyspace(*keyspace, self.last_seqno + 1);
                if *recreate {
                    self.handles[*keyspace] = Some(self.create_if_missing(*keyspace));
                }
                Answer::Flag(dropped)
            }
            Step::CloseAndOpen | Step::OpenReadOnly => self.reopen(false),
            Step::DropAndOpen => self.reopen(true),
            Step::OpenTwice => Answer::Failed(Failure::Locked),
            Step::BadArguments { keyspace } | Step::ForeignHandles { keyspace } => {
                if self.place().live[*keyspace] {
                    Answer::Deviations(Vec::new())
                } else {
                    Answer::Nothing
                }
            }
            _ => Answer::Done,
        }
    }

    /// Only iterators outlive a close, and nothing the drop of all handles.
    fn reopen(&mut self, iters_too: bool) -> Answer {
        let live = self.place().live;
        self.handles = std::array::from_fn(|n| self.handles[n].filter(|_| live[n]));
        self.snapshots.iter_mut().for_each(|taken| taken.lost = true);
        self.followers.fill(None);
        for iter in &mut self.iters {
            iter.lost |= iters_too;
        }
        Answer::Deviations(Vec::new())
    }

    /// The steps that ask for all that there is.
    pub fn everything(&self) -> Vec<Step> {
        let alternating = 0x5555_5555_5555_5555;
        let mut steps = Vec::new();
        for keyspace in 0..KEYSPACES {
            let keys = self.life(keyspace).map(|life| life.map.keys().cloned().collect()).unwrap_or_default();
            steps.push(Step::GetMany { keyspace, keys });
            steps.extend([0, u64::MAX, alternating].map(|ends| Step::Iterate { keyspace, ends }));
            for which in 0..self.snapshots.len() {
                let ends = alternating;
                steps.push(Step::ReadSnapshot { which, keyspace, then: true, bounds: all(), ends });
            }
        }
        for which in 0..self.iters.len() {
            let count = match &self.iters[which].rest {
                Ok(rest) => rest.len() + 1,
                Err(_) => 2,
            };
            steps.push(Step::AdvanceIter { which, count, ends: alternating });
        }
        let at = self.place().promised as i64 - self.last_seqno as i64 - 1;
        steps.extend([Step::Changes { at }, Step::Changes { at: i64::MIN }, Step::ListKeyspaces, Step::Replicate]);
        steps.extend((0..self.followers.len()).map(|which| Step::FollowChanges { which }));
        steps.extend((0..ENTRIES).flat_map(|name| [Step::Metadata { name }, Step::Cursor { name }]));
        steps.extend([Step::Metrics, Step::Verify]);
        steps
    }
}
