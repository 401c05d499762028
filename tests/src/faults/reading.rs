//! Faults while reading: the one read that meets them says so, and nothing else changes.

use std::path::Path;

use rand::RngExt;
use siltstone::fs::{Fault, FaultFileSystem, Op, SimFileSystem};
use siltstone::{Db, Error, Iter, Keyspace, Options, Result, Slice, Snapshot, WriteBatch};

use super::checks::{assert_clear, file_systems, on};
use super::{Injection, Tally, Watch};
use crate::state::{Entries, short};
use crate::steps::rng;
use crate::workload::{DIRECTORY, Workload, keyspace_options};

/// Which calls fail while reading: kind, and whether every later one fails too.
const KINDS: [(Option<Op>, bool); 5] =
    [(None, false), (None, true), (Some(Op::Read), false), (Some(Op::Open), false), (Some(Op::Map), true)];

/// What one read answers: entries, and how it ended.
#[derive(Debug)]
struct Answer {
    entries: Entries,
    error: Option<Error>,
}

impl Answer {
    fn of_get(key: &[u8], found: Result<Option<Slice>>) -> Answer {
        match found {
            Ok(found) => {
                Answer { entries: found.into_iter().map(|value| (key.to_vec(), value.into())).collect(), error: None }
            }
            Err(error) => Answer { entries: Vec::new(), error: Some(error) },
        }
    }

    /// Reads an iterator to its end, from the back where the bits of `ends` say so. After an error it has to have ended.
    fn of_iter(mut iter: Iter, ends: u64) -> Answer {
        let mut answer = Answer { entries: Vec::new(), error: None };
        for at in 0.. {
            let next = if ends >> (at % 64) & 1 == 1 { iter.next_back() } else { iter.next() };
            match next {
                Some(Ok((key, value))) => answer.entries.push((key.into(), value.into())),
                Some(Err(error)) => {
                    answer.error = Some(error);
                    break;
                }
                None => break,
            }
        }
        for _ in 0..2 {
            assert!(iter.next().is_none() && iter.next_back().is_none(), "an iterator goes on after {answer:?}");
        }
        answer
    }

    /// The log as it is followed; after an error it may go on where it was.
    fn of_changes(db: &Db) -> Answer {
        let mut answer = Answer { entries: Vec::new(), error: None };
        let from = match db.changes(1) {
            Err(Error::NotRetained { oldest, .. }) => oldest,
            _ => 1,
        };
        let read = db.changes(from).and_then(|changes| {
            for batch in changes {
                let batch = batch?;
                let numbers = batch.first_seqno().to_be_bytes().to_vec();
                answer.entries.push((numbers, format!("{:?}", batch.changes()).into_bytes()));
            }
            Ok(())
        });
        answer.error = read.err();
        answer
    }
}

/// A database with tables, a log and open views, before anything fails.
struct Reader {
    db: Db,
    keyspaces: Vec<Keyspace>,
    snapshot: Snapshot,
    /// Iterators that have given one entry already.
    begun: Vec<Iter>,
    seed: u64,
}

/// Tables that are read with system calls, through a cache that holds nothing; or mapped ones. Few stay open.
fn options(fs: &FaultFileSystem, mapped: bool) -> Options {
    on(fs).mmap_reads(mapped).block_cache_bytes(0).max_open_tables(16)
}

/// The directory that `workload` leaves when it is closed.
fn image(workload: &Workload) -> SimFileSystem {
    let (sim, fs) = file_systems();
    let outcome = workload.run(on(&fs));
    assert!(outcome.error.is_none(), "{workload:?}: {:?}", outcome.error);
    outcome.db.expect("it was opened").0.close().unwrap();
    sim
}

impl Reader {
    fn open(fs: &FaultFileSystem, mapped: bool, seed: u64) -> Reader {
        let db = options(fs, mapped).open(Path::new(DIRECTORY)).unwrap();
        let open = |name: &String| db.keyspace(name, keyspace_options()).unwrap();
        let keyspaces: Vec<Keyspace> = db.keyspaces().iter().map(open).collect();
        let mut begun: Vec<Iter> = keyspaces.iter().map(Keyspace::iter).collect();
        begun.iter_mut().for_each(|iter| drop(iter.next()));
        Reader { snapshot: db.snapshot(), db, keyspaces, begun, seed }
    }

    /// Every kind of read, in an order that the seed decides on.
    fn read_all(&mut self) -> Vec<(String, Answer)> {
        let rng = &mut rng(self.seed);
        let mut answers = Vec::new();
        for (at, iter) in self.begun.drain(..).enumerate() {
            answers.push((format!("iterator {at}, begun before"), Answer::of_iter(iter, rng.random())));
        }
        for keyspace in &self.keyspaces {
            let name = keyspace.name().to_string();
            let keys: Vec<Vec<u8>> = (0..6).map(|_| crate::steps::key(rng)).collect();
            for key in &keys {
                let what = format!("get of {name}/{}", short(key));
                answers.push((what.clone(), Answer::of_get(key, keyspace.get(key))));
                answers
                    .push((format!("{what} in the snapshot"), Answer::of_get(key, self.snapshot.get(keyspace, key))));
            }
            let many = keyspace.get_many(&keys).map(|found| found.into_iter().map(|f| f.map(Vec::from)));
            answers.push((format!("get_many in {name}"), Answer::of_many(&keys, many)));
            for ends in [0, u64::MAX, rng.random()] {
                answers.push((format!("{name}, ends {ends:x}"), Answer::of_iter(keyspace.iter(), ends)));
                let iter = self.snapshot.iter(keyspace);
                answers.push((format!("{name} in the snapshot, ends {ends:x}"), Answer::of_iter(iter, ends)));
            }
            let bounds = crate::steps::bounds(rng);
            answers.push((format!("{name}, {bounds:?}"), Answer::of_iter(keyspace.range(bounds), rng.random())));
            answers.push((format!("{name}, a prefix"), Answer::of_iter(keyspace.prefix("a comm"), 0)));
        }
        answers.push(("the log".to_owned(), Answer::of_changes(&self.db)));
        answers
    }

    /// `verify` tells of failing reads as such, and of nothing else.
    fn verify(&self, fault: Fault, what: &str) -> bool {
        let report = self.db.verify();
        report.errors.iter().for_each(|error| assert_clear(error, fault, &format!("{what}, verify")));
        report.is_ok()
    }
}

impl Answer {
    fn of_many(keys: &[Vec<u8>], found: Result<impl Iterator<Item = Option<Vec<u8>>>>) -> Answer {
        match found {
            Ok(found) => {
                let entries = keys.iter().zip(found).filter_map(|(key, value)| Some((key.clone(), value?))).collect();
                Answer { entries, error: None }
            }
            Err(error) => Answer { entries: Vec::new(), error: Some(error) },
        }
    }
}

/// Reads everything on what `workload` left with one injection; whether the injected call was made.
fn run(
    image: &SimFileSystem,
    expected: &[(String, Answer)],
    (workload, mapped): (&Workload, bool),
    injection: Injection,
    tally: &mut Tally,
) -> bool {
    let what = format!("reading {workload:?}, mapped: {mapped}, {injection:?}");
    let fs = FaultFileSystem::new(std::sync::Arc::new(image.crash_clone(siltstone::fs::Keep::All, 0)));
    let mut reader = Reader::open(&fs, mapped, workload.seed);
    injection.plan(&fs);
    let answers = reader.read_all();
    let intact = reader.verify(injection.fault, &what);
    let Some(injected) = fs.injected() else { return false };
    let what = format!("{what} ({:?} of {})", injected.op, injected.path.display());
    tally.points += 1;
    assert_eq!(answers.len(), expected.len(), "{what}");
    let mut failed = 0;
    for ((read, answer), (_, whole)) in answers.iter().zip(expected) {
        match &answer.error {
            None => assert!(answer.entries == whole.entries, "{what}: {read} ended early, or is wrong"),
            Some(error) => {
                failed += 1;
                assert_clear(error, injection.fault, &format!("{what}: {read}"));
                assert!(matches!(error, Error::Io { .. }), "{what}: {read}: {error:?}");
                assert!(whole.entries.starts_with(&answer.entries), "{what}: {read} was wrong before it failed");
            }
        }
    }
    assert!(failed + u64::from(!intact) > 0, "{what}: a failed call that nobody was told of");
    if !injection.for_good {
        assert!(failed + u64::from(!intact) == 1, "{what}: {failed} reads failed for one call");
    }
    tally.felt += 1;
    fs.clear();
    assert_unharmed(&mut reader, expected, &what);
    true
}

/// Once nothing fails any more, everything can be read, and written, on the same open database.
fn assert_unharmed(reader: &mut Reader, expected: &[(String, Answer)], what: &str) {
    assert_eq!(reader.db.metrics().read_only_reason, None, "{what}: a failed read puts nothing in doubt");
    let (keyspaces, begun) = (&reader.keyspaces, expected.len());
    let before: Vec<Iter> = keyspaces.iter().map(Keyspace::iter).collect();
    reader.begun = before;
    reader.begun.iter_mut().for_each(|iter| drop(iter.next()));
    let answers = reader.read_all();
    assert_eq!(answers.len(), begun, "{what}");
    for ((read, answer), (_, whole)) in answers.iter().zip(expected) {
        let right = answer.error.is_none() && answer.entries == whole.entries;
        assert!(right, "{what}: {read} afterwards: {:?}", answer.error);
    }
    assert!(reader.verify(Fault::Io, what), "{what}: verify afterwards");
    let mut batch = WriteBatch::new();
    batch.put(&reader.keyspaces[0], "after", "the fault");
    reader.db.write_with(batch, siltstone::Durability::Synced).unwrap_or_else(|error| panic!("{what}: {error}"));
}

/// The directory, and what every read of it answers.
fn base(workload: &Workload, mapped: bool) -> (SimFileSystem, Vec<(String, Answer)>, u64) {
    let image = image(workload);
    let fs = FaultFileSystem::new(std::sync::Arc::new(image.crash_clone(siltstone::fs::Keep::All, 0)));
    let mut reader = Reader::open(&fs, mapped, workload.seed);
    let before = fs.calls();
    let expected = reader.read_all();
    assert!(reader.verify(Fault::Io, "nothing fails"));
    expected.iter().for_each(|(read, answer)| assert!(answer.error.is_none(), "{read}: {:?}", answer.error));
    (image, expected, fs.calls() - before)
}

/// Every `step`-th call of every kind of read on what `workload` leaves, mapped or not.
///
/// # Panics
/// At the first thing that is not as promised.
pub fn enumerate(workload: &Workload, mapped: bool, step: usize, tally: &mut Tally) {
    let watch = Watch::new();
    let (image, expected, _) = base(workload, mapped);
    for (only, for_good) in KINDS {
        (1..)
            .step_by(step)
            .take_while(|&at| {
                let injection = Injection { only, at, fault: Fault::Io, for_good };
                watch.begin(&format!("reading {workload:?}, mapped: {mapped}, {injection:?}"));
                run(&image, &expected, (workload, mapped), injection, tally)
            })
            .for_each(drop);
    }
}

/// `points` calls of reads on what `workload` leaves, drawn by its seed.
///
/// # Panics
/// At the first thing that is not as promised.
pub fn sample(workload: &Workload, points: u64, tally: &mut Tally) {
    let (watch, rng) = (Watch::new(), &mut rng(workload.seed));
    let mapped = rng.random();
    let (image, expected, total) = base(workload, mapped);
    for _ in 0..points {
        let (only, for_good) = KINDS[rng.random_range(0..KINDS.len())];
        let injection = Injection { only, at: rng.random_range(1..=total), fault: Fault::Io, for_good };
        watch.begin(&format!("reading {workload:?}, mapped: {mapped}, {injection:?}"));
        run(&image, &expected, (workload, mapped), injection, tally);
    }
}
