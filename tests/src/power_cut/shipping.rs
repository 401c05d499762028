//! Power cuts while the log is shipped to a file sink: what the sink holds is a first part of what the database holds,
//! with everything that was acknowledged as shipped; shipping goes on to the end, and what is restored from there
//! equals the database.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rand::RngExt;
use rand::rngs::StdRng;
use siltstone::fs::{FileSystem, Keep, SimFileSystem};
use siltstone::{ChangeBatch, Db, Durability, SeqNo, WriteBatch};
use siltstone_changelog::{
    FileSink, FileSinkOptions, FileSource, Position, Restore, ShipOptions, Shipper, Source, ship,
};

use super::points::{Known, Point, each_call};
use super::recovery::open;
use super::{Effort, restoring};
use crate::evidence::record;
use crate::history::{Event, History};
use crate::options::KEYSPACES;
use crate::runner::name;
use crate::state::{Write, difference, dump_keyspaces};
use crate::steps::{batch, rng};
use crate::workload::{DIRECTORY, keyspace_options, options};

/// Where the sink is.
pub const LOG: &str = "/log";

/// Which machine loses power.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loses {
    /// That of the database; the sink is on another one.
    Database,
    /// That of the sink; the database is on another one.
    Sink,
    /// The one that both are on.
    Both,
}

/// What is known of a workload that ships.
#[derive(Debug)]
struct Shipping {
    history: History,
    /// The last position that the shipper gave out, and the database's last number before it was asked.
    acknowledged: Option<(Position, SeqNo)>,
    /// The other machine, if there are two.
    other: SimFileSystem,
    notes: u64,
}

impl Clone for Shipping {
    /// With the other machine as it is now.
    fn clone(&self) -> Self {
        Shipping {
            history: self.history.clone(),
            acknowledged: self.acknowledged.clone(),
            other: self.other.fork(),
            notes: self.notes,
        }
    }
}

impl Known for Shipping {
    fn progress(&self) -> u64 {
        self.history.notes() + self.notes
    }
}

/// Small segments, so that some are finished.
fn sink(fs: Arc<dyn FileSystem>) -> siltstone_changelog::Result<FileSink> {
    FileSink::open_with(LOG, FileSinkOptions::new().segment_bytes(20 << 10).file_system(fs))
}

/// The source of what [`LOG`] holds.
pub fn source(fs: Arc<dyn FileSystem>) -> FileSource {
    FileSource::open_on(fs, LOG)
}

/// Everything a source holds, with the position after each batch.
///
/// # Errors
/// The source's.
pub fn read_all(source: &impl Source) -> siltstone_changelog::Result<Vec<(Position, ChangeBatch)>> {
    let (oldest, _) = source.bounds()?;
    source.read(&oldest)?.collect()
}

fn start(db: &Db, fs: Arc<dyn FileSystem>) -> siltstone_changelog::Result<Shipper> {
    ship(db, sink(fs)?, ShipOptions::new().flush_interval(Duration::ZERO))
}

/// Writes a batch, or does something else that the log or the sink has to follow.
fn step(db: &Db, known: &Mutex<Shipping>, rng: &mut StdRng) -> siltstone::Result<()> {
    let at = rng.random_range(0..KEYSPACES);
    match rng.random_range(0..20) {
        0 => {
            let keyspace = name(at);
            known.lock().history.intend(Event::DropKeyspace(keyspace.clone()));
            assert!(db.drop_keyspace(&keyspace)?);
            known.lock().history.acknowledge(true);
            db.keyspace(&keyspace, keyspace_options()).map(drop)
        }
        1 => db.keyspace(name(at), keyspace_options())?.flush(),
        2 => db.wait_for_compaction(),
        _ => {
            let writes: Vec<Write> = batch(rng).into_iter().map(|(at, key, value)| (name(at), key, value)).collect();
            let mut batch = WriteBatch::new();
            for (name, key, value) in &writes {
                let keyspace = db.keyspace(name, keyspace_options())?;
                match value {
                    Some(value) => batch.put(&keyspace, key, value),
                    None => batch.delete(&keyspace, key),
                };
            }
            let synced = rng.random_bool(0.1) && !writes.is_empty();
            let durability = if synced { Durability::Synced } else { Durability::Buffered };
            known.lock().history.intend(Event::Batch(writes));
            db.write_with(batch, durability)?;
            known.lock().history.acknowledge(synced);
            Ok(())
        }
    }
}

/// Writes and ships, stops the shipper or the database in the middle, and goes on.
fn work(
    local: Arc<dyn FileSystem>,
    remote: Arc<dyn FileSystem>,
    known: &Mutex<Shipping>,
    seed: u64,
) -> siltstone_changelog::Result<()> {
    let mut rng = rng(seed);
    for life in 0..3 {
        let db = open(local.clone())?;
        for number in 0..KEYSPACES {
            db.keyspace(name(number), keyspace_options())?;
        }
        let shipper = start(&db, remote.clone())?;
        for _ in 0..6 {
            for _ in 0..rng.random_range(1..4) {
                step(&db, known, &mut rng)?;
            }
            let last_seqno = db.last_seqno();
            let position = shipper.flush()?;
            let mut known = known.lock();
            known.acknowledged = Some((position, last_seqno));
            known.notes += 1;
        }
        if life == 0 {
            shipper.stop()?;
        }
        db.close()?;
        known.lock().history.close();
    }
    Ok(())
}

/// Cuts the power before every call of a workload that ships its log, and checks every state that leaves.
///
/// # Panics
/// With the seed, the call, and what was kept, where something that is promised does not hold.
pub fn cut_everywhere(seed: u64, loses: Loses, effort: Effort) {
    let (watched, other) = (SimFileSystem::new(), SimFileSystem::new());
    let known = Shipping { history: History::default(), acknowledged: None, other: other.clone(), notes: 0 };
    let known = Arc::new(Mutex::new(known));
    let run = |fs: Arc<dyn FileSystem>| {
        let other: Arc<dyn FileSystem> = Arc::new(other);
        let (local, remote) = match loses {
            Loses::Database => (fs, other),
            Loses::Sink => (other, fs),
            Loses::Both => (fs.clone(), fs),
        };
        work(local, remote, &known, seed).unwrap_or_else(|error| panic!("shipping, {seed}: {error}"));
    };
    let mut states = 0;
    let points = each_call(&watched, &known, run, |point| check_point(seed, loses, effort, &point, &mut states));
    println!("shipping, {seed}, {loses:?} loses power: {points} points, {states} states");
    record("crash_points", points);
    record("ship_crash_states", states);
    record("lost", 0);
    record("wrong", 0);
}

fn check_point(seed: u64, loses: Loses, effort: Effort, point: &Point<Shipping>, states: &mut u64) {
    for (keep, part) in effort.keeps(seed, point.calls) {
        let what = format!("shipping, {seed}, {loses:?} loses power at call {}, {keep:?} {part}", point.calls);
        let (left, other) = (point.sim.crash_clone(keep, part), point.known.other.crash_clone(Keep::All, 0));
        let (local, remote) = match loses {
            Loses::Database => (left, other),
            Loses::Sink => (other, left),
            Loses::Both => (left.clone(), left),
        };
        let survives = loses == Loses::Sink || keep == Keep::All;
        Left { local, remote, known: &point.known, survives, what }
            .check(seed ^ part, states.is_multiple_of(effort.ship_on_one_of));
        *states += 1;
    }
}

/// What is left of database and sink.
struct Left<'k> {
    local: SimFileSystem,
    remote: SimFileSystem,
    known: &'k Shipping,
    /// Whether the database lost nothing that was acknowledged.
    survives: bool,
    what: String,
}

impl Left<'_> {
    fn check(&self, seed: u64, go_on: bool) {
        let what = &self.what;
        self.checked(seed, go_on).unwrap_or_else(|error| panic!("{what}: {error}"));
    }

    fn checked(&self, seed: u64, go_on: bool) -> siltstone_changelog::Result<()> {
        let (what, history) = (&self.what, &self.known.history);
        let fs = |sim: &SimFileSystem| -> Arc<dyn FileSystem> { Arc::new(sim.clone()) };
        let db = open(fs(&self.local))?;
        let source = source(fs(&self.remote));
        let names = db.keyspaces();
        let keyspaces: Vec<_> =
            names.iter().map(|name| db.keyspace(name, keyspace_options())).collect::<siltstone::Result<_>>()?;
        let least = if self.survives { history.acknowledged() } else { history.synced() };
        let taken = history.check_prefix(&dump_keyspaces(&keyspaces)?, db.last_seqno(), least);
        let taken = taken.unwrap_or_else(|reason| panic!("{what}: {reason}"));
        let shipped: Vec<ChangeBatch> = read_all(&source)?.into_iter().map(|(_, batch)| batch).collect();
        history.check_shipped(taken, &shipped).unwrap_or_else(|reason| panic!("{what}: {reason}"));
        if let Some((position, last_seqno)) = &self.known.acknowledged {
            let held = shipped.last().map_or(0, ChangeBatch::last_seqno);
            assert!(held >= *last_seqno, "{what}: {last_seqno} was acknowledged as shipped, the sink ends at {held}");
            drop(source.read(position)?);
        }
        if go_on {
            self.go_on(&db, seed, taken)?;
        }
        db.close()?;
        Ok(())
    }

    /// Shipping goes on to the end, and from there everything is restored.
    fn go_on(&self, db: &Db, seed: u64, taken: usize) -> siltstone_changelog::Result<()> {
        let what = &self.what;
        let remote: Arc<dyn FileSystem> = Arc::new(self.remote.clone());
        let mut history = self.known.history.clone();
        history.truncate(taken);
        for number in 0..KEYSPACES {
            db.keyspace(name(number), keyspace_options())?;
        }
        let shipper = start(db, remote.clone())?;
        let known = Shipping { history, acknowledged: None, other: SimFileSystem::new(), notes: 0 };
        let known = Mutex::new(known);
        let mut rng = rng(seed);
        for _ in 0..3 {
            step(db, &known, &mut rng)?;
        }
        let end = shipper.stop()?;
        let history = known.into_inner().history;
        // What was acknowledged is durable: the sink's machine may lose power now.
        let durable = source(Arc::new(self.remote.crash_clone(Keep::Nothing, 0)));
        let shipped: Vec<ChangeBatch> = read_all(&durable)?.into_iter().map(|(_, batch)| batch).collect();
        let all = history.check_changes(history.len(), 1, &shipped);
        all.unwrap_or_else(|reason| panic!("{what}, after shipping on: {reason}"));
        let restore = Restore::new(source(remote.clone())).into_with("/again", options().file_system(remote.clone()));
        let (again, position) = restoring::with_keyspace_options(restore).file_system(remote).run()?;
        assert_eq!(position, end, "{what}: restored to another place");
        assert_eq!(again.last_seqno(), shipped.last().map_or(0, ChangeBatch::last_seqno), "{what}: restored");
        let open = |db: &Db| db.keyspaces().iter().map(|name| db.keyspace(name, keyspace_options())).collect();
        let (here, there): (siltstone::Result<Vec<_>>, siltstone::Result<Vec<_>>) = (open(db), open(&again));
        let difference = difference(&dump_keyspaces(&there?)?, &dump_keyspaces(&here?)?);
        assert_eq!(difference, None, "{what}: what was restored differs");
        again.close()?;
        Ok(())
    }
}

/// Writes and ships without a cut; the filesystem with the log, and what it holds.
///
/// # Panics
/// If anything fails.
pub fn shipped(seed: u64) -> (SimFileSystem, History) {
    let (local, remote) = (SimFileSystem::new(), SimFileSystem::new());
    let known = Shipping { history: History::default(), acknowledged: None, other: remote.clone(), notes: 0 };
    let known = Mutex::new(known);
    let done = work(Arc::new(local), Arc::new(remote.clone()), &known, seed);
    done.unwrap_or_else(|error| panic!("shipping, {seed}: {error}"));
    (remote, known.into_inner().history)
}

/// The path of the database that ships.
pub fn directory() -> &'static Path {
    Path::new(DIRECTORY)
}
