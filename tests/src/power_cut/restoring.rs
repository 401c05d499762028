//! Power cuts while a database is restored from a log: its data and the position it stands for agree, and another run
//! goes on from there to the same end.

use std::sync::Arc;

use parking_lot::Mutex;
use siltstone::fs::{FileSystem, Keep, SimFileSystem};
use siltstone::{Change, ChangeBatch, Db};
use siltstone_changelog::{Error, FileSource, Position, Restore, SOURCE_POSITION};

use super::Effort;
use super::points::each_call;
use super::recovery::open;
use super::shipping::{directory, read_all, shipped, source};
use crate::evidence::record;
use crate::history::History;
use crate::options::KEYSPACES;
use crate::runner::name;
use crate::state::dump;
use crate::workload::{keyspace_options, options};

/// A restore that creates the workloads' keyspaces with their options.
pub fn with_keyspace_options(restore: Restore<FileSource>) -> Restore<FileSource> {
    (0..KEYSPACES).fold(restore, |restore, number| restore.keyspace_options(name(number), keyspace_options()))
}

/// What there is to restore.
struct Log {
    fs: Arc<dyn FileSystem>,
    history: History,
    /// Every batch, and the position after it.
    batches: Vec<(Position, ChangeBatch)>,
}

impl Log {
    fn restore(&self, fs: Arc<dyn FileSystem>) -> siltstone_changelog::Result<Db> {
        let restore = Restore::new(source(self.fs.clone())).into_with(directory(), options().file_system(fs.clone()));
        with_keyspace_options(restore).file_system(fs).run().map(|(db, _)| db)
    }

    /// The stored position is the one after the last batch that is in; answers how many batches are.
    fn check_position(&self, db: &Db, what: &str) -> usize {
        let last_seqno = db.last_seqno();
        let applied = self.batches.iter().take_while(|(_, batch)| batch.last_seqno() <= last_seqno).count();
        let expected = |applied: usize| match applied {
            0 => None,
            applied => Some(self.batches[applied - 1].0.as_bytes().to_vec()),
        };
        let found = db.metadata(SOURCE_POSITION).map(|bytes| bytes.to_vec());
        // A keyspace drop is synced by itself, and its position follows it: it may be applied again.
        let behind_drop = applied > 0 && matches!(self.batches[applied - 1].1.changes(), [Change::DropKeyspace { .. }]);
        assert!(
            found == expected(applied) || behind_drop && found == expected(applied - 1),
            "{what}: {applied} batches are in, but the position is {found:?}"
        );
        applied
    }

    /// What is there is the state after as many batches as the last number says; with `whole`, all of them.
    fn check_contents(&self, db: &Db, whole: bool, what: &str) {
        let found = dump(db, &keyspace_options()).unwrap_or_else(|error| panic!("{what}: {error}"));
        let least = if whole { self.history.len() } else { 0 };
        let taken = self.history.check_prefix(&found, db.last_seqno(), least);
        let taken = taken.unwrap_or_else(|reason| panic!("{what}: {reason}"));
        self.history.check_last_seqno(taken, db.last_seqno()).unwrap_or_else(|reason| panic!("{what}: {reason}"));
        let report = db.verify();
        assert!(report.is_ok(), "{what}: {report}");
    }

    /// Goes on with what a cut left, and checks the end; with `twice`, cuts that at every call too. Answers how many
    /// states were checked.
    fn check(&self, left: &SimFileSystem, twice: bool, effort: Effort, seed: u64, what: &str) -> u64 {
        let mut states = 1;
        // Looked at in a copy, so that nothing is changed.
        let looked_at = open(Arc::new(left.fork())).unwrap_or_else(|error| panic!("{what}: {error}"));
        self.check_position(&looked_at, what);
        self.check_contents(&looked_at, false, what);
        drop(looked_at);
        if twice {
            let run = |fs| drop(self.restore(fs));
            each_call(&left.fork(), &Arc::new(Mutex::new(())), run, |point| {
                let (keep, part) =
                    effort.keeps(seed, point.calls).nth(point.calls as usize % 3).unwrap_or((Keep::All, 0));
                let what = format!("{what}, and again at call {}, {keep:?} {part}", point.calls);
                states += self.check(&point.sim.crash_clone(keep, part), false, effort, seed, &what);
            });
        }
        let db = match self.restore(Arc::new(left.clone())) {
            // It was finished: a database like any other.
            Err(Error::NotEmpty { .. }) => {
                open(Arc::new(left.clone())).unwrap_or_else(|error| panic!("{what}: {error}"))
            }
            db => db.unwrap_or_else(|error| panic!("{what}: {error}")),
        };
        self.check_position(&db, &format!("{what}, restored"));
        self.check_contents(&db, true, &format!("{what}, restored"));
        states
    }
}

/// Cuts the power before every call of a restore, and checks every state that leaves, one of `effort.twice_one_of`
/// again at every call of the restore that goes on from it.
///
/// # Panics
/// With the seed, the call, and what was kept, where something that is promised does not hold.
pub fn cut_everywhere(seed: u64, effort: Effort) {
    let (remote, history) = shipped(seed);
    let fs: Arc<dyn FileSystem> = Arc::new(remote);
    let batches = read_all(&source(fs.clone())).unwrap_or_else(|error| panic!("restoring, {seed}: {error}"));
    let log = Log { fs, history, batches };
    let sim = SimFileSystem::new();
    let mut states = 0;
    let run = |fs| drop(log.restore(fs).unwrap_or_else(|error| panic!("restoring, {seed}: {error}")));
    let points = each_call(&sim, &Arc::new(Mutex::new(())), run, |point| {
        for (keep, part) in effort.keeps(seed, point.calls) {
            let what = format!("restoring, {seed}, power cut at call {}, {keep:?} {part}", point.calls);
            let twice = states % (8 * effort.twice_one_of) == effort.twice_one_of / 2;
            states += log.check(&point.sim.crash_clone(keep, part), twice, effort, seed, &what);
        }
    });
    println!("restoring, {seed}: {points} points, {states} states");
    record("crash_points", points);
    record("ship_crash_states", states);
    record("lost", 0);
    record("wrong", 0);
}
