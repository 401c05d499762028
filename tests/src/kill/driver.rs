//! The process that gets killed: several threads write, read, drop, flush and ship until it happens.
//!
//! Before each event and after its acknowledgement a note goes to the oracle file. The readers check meanwhile what can
//! be seen; what must not be ends the process with a message in the violation file.

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use std::{env, fs, thread};

use rand::RngExt;
use siltstone::fs::{FileSystem, OsFileSystem};
use siltstone::{Changes, Db, Keyspace, WriteBatch};
use siltstone_changelog::{FileSink, Shipper, ship};

use super::follow::Follower;
use super::oracle::{Note, Oracle};
use super::plan::{
    CHURNED, CHURNER, Event, Layout, Plan, SHARED, THREADS, UNLOGGED_KEYSPACE, WRITERS, counter_entry, counter_key,
    is_churned_there, owner,
};
use super::point::{KILL_AT, Phase, Points};
use crate::log::oldest_changes;
use crate::state::{Map, read_both_ways};

/// What ends a driver.
pub type Failure = Box<dyn Error + Send + Sync>;

/// So much metadata is kept in a life with much of it, in bytes: the manifest repeats it with each release of log.
const METADATA_BYTES: usize = 160_000;

/// One entry of it, in bytes.
const METADATA_ENTRY_BYTES: usize = 4000;

/// Events of a writer between two actions of the keeper that it asks for.
const EVENTS_A_TICK: u64 = 40;

/// How often a run that comes to its end waits until the database is at rest: only then is the log idle, and gives the
/// files back that it keeps for its next segments. The other runs close with data in memory.
const AT_REST: f64 = 0.75;

/// What the command line says: `DIRECTORY SEED RUN LIMIT LAST...`.
struct Arguments {
    layout: Layout,
    plan: Plan,
    /// How many events each thread does before the driver comes to its end; none: for ever.
    limit: Option<u64>,
    /// The last event of each thread before this run.
    last: [u64; THREADS],
}

impl Arguments {
    fn parse() -> Result<Self, Failure> {
        let arguments: Vec<String> = env::args().skip(1).collect();
        let [directory, numbers @ ..] = &arguments[..] else { return Err("no directory".into()) };
        let numbers: Vec<u64> = numbers.iter().map(|number| number.parse()).collect::<Result<_, _>>()?;
        let [seed, run, limit, last @ ..] = &numbers[..] else { return Err("too few numbers".into()) };
        let last = last.try_into().map_err(|_| format!("{} numbers for {THREADS} threads", last.len()))?;
        let limit = (*limit < u64::MAX).then_some(*limit);
        Ok(Arguments { layout: Layout::new(directory), plan: Plan { seed: *seed, run: *run }, limit, last })
    }
}

/// Runs the driver; it only returns if the command line sets a limit.
///
/// # Errors
/// Any of the database's, all of which are failures here.
pub fn main() -> Result<(), Failure> {
    let arguments = Arguments::parse()?;
    end_on_panic(arguments.layout.clone());
    let armed = env::var(KILL_AT).ok().map(|point| point.parse()).transpose()?;
    let points = Points::new(armed);
    // Counted only where somebody wants to know: at random moments the files are the system's own.
    let counted = armed.is_some() || arguments.limit.is_some();
    let file_system = if counted { points.file_system() } else { Arc::new(OsFileSystem) };
    let (driver, shipper) = Driver::open(&arguments, file_system)?;
    points.enter(Phase::Running);
    driver.run(arguments.limit, arguments.last);
    if let Some(shipper) = shipper {
        shipper.stop()?;
    }
    if arguments.plan.rng(9).random_bool(AT_REST) {
        driver.db.flush()?;
        driver.db.wait_for_compaction()?;
    }
    points.enter(Phase::Closing);
    driver.db.close()?;
    let mut calls = String::new();
    points.counts().iter().for_each(|point| writeln!(calls, "{point}").unwrap_or(()));
    Ok(fs::write(arguments.layout.calls(), calls)?)
}

/// A thread that fails an assertion ends the process, with a message for who started it.
fn end_on_panic(layout: Layout) {
    std::panic::set_hook(Box::new(move |panic| fail(&layout, &panic.to_string())));
}

/// Leaves a message and ends the process.
fn fail(layout: &Layout, message: &str) {
    // Nobody is left to tell if this fails as well; the exit code says enough.
    let _ = fs::write(layout.violation(), format!("{message}\n"));
    eprintln!("{message}");
    std::process::exit(1);
}

/// What the threads share.
struct Driver {
    layout: Layout,
    plan: Plan,
    db: Db,
    /// The shared ones, then the unlogged one.
    keyspaces: Vec<Keyspace>,
    churned: Mutex<Option<Keyspace>>,
    oracle: Oracle,
    /// As in the oracle, for the readers.
    intended: [AtomicU64; THREADS],
    acknowledged: [AtomicU64; THREADS],
    done: AtomicBool,
}

impl Driver {
    fn open(arguments: &Arguments, file_system: Arc<dyn FileSystem>) -> Result<(Self, Option<Shipper>), Failure> {
        let Arguments { layout, plan, last, .. } = arguments;
        let db = plan.options().file_system(file_system.clone()).open(layout.database())?;
        // Before there is anything to flush, so that the log that is shipped is whole.
        let shipper = start_shipper(layout, plan, &db, file_system)?;
        let names = SHARED.iter().chain([&UNLOGGED_KEYSPACE]);
        let keyspaces = names.map(|name| db.keyspace(name, plan.keyspace_options(name))).collect::<Result<_, _>>()?;
        let churned = is_churned_there(last[CHURNER]);
        let churned = churned.then(|| db.keyspace(CHURNED, plan.keyspace_options(CHURNED))).transpose()?;
        let driver = Driver {
            layout: layout.clone(),
            plan: *plan,
            db,
            keyspaces,
            churned: Mutex::new(churned),
            oracle: Oracle::append_to(&layout.oracle())?,
            intended: last.map(AtomicU64::new),
            acknowledged: last.map(AtomicU64::new),
            done: AtomicBool::new(false),
        };
        Ok((driver, shipper))
    }

    /// Starts all threads; returns when the writers are through.
    fn run(&self, limit: Option<u64>, last: [u64; THREADS]) {
        let (tick, ticks) = sync_channel(1);
        thread::scope(|scope| {
            let writers: Vec<_> = (0..THREADS)
                .map(|thread| {
                    let tick = tick.clone();
                    let to = limit.map_or(u64::MAX, |limit| last[thread] + limit);
                    scope.spawn(move || self.must(self.write(thread, last[thread] + 1, to, &tick)))
                })
                .collect();
            drop(tick);
            scope.spawn(|| self.must(self.read_snapshots()));
            scope.spawn(|| self.must(self.iterate()));
            scope.spawn(|| self.must(self.follow()));
            scope.spawn(move || self.must(self.keep(&ticks)));
            // A failure of theirs ends the process before this.
            writers.into_iter().for_each(|writer| drop(writer.join()));
            self.done.store(true, Ordering::SeqCst);
        });
    }

    /// Ends the process if a thread's work failed.
    fn must(&self, outcome: Result<(), Failure>) {
        if let Err(error) = outcome {
            fail(&self.layout, &error.to_string());
        }
    }

    fn is_done(&self) -> bool {
        self.done.load(Ordering::SeqCst)
    }
}

/// In a life that ships, always while the database does not know its sink, and in most runs after that.
fn start_shipper(
    layout: &Layout,
    plan: &Plan,
    db: &Db,
    file_system: Arc<dyn FileSystem>,
) -> Result<Option<Shipper>, Failure> {
    let known = db.change_cursor("changelog").is_some();
    if !plan.is_shipped() || known && plan.rng(5).random_bool(0.2) {
        return Ok(None);
    }
    let sink = FileSink::open_with(layout.sink(), plan.sink_options().file_system(file_system))?;
    Ok(Some(ship(db, sink, plan.ship_options())?))
}

/// The writers.
impl Driver {
    fn write(&self, thread: usize, from: u64, to: u64, tick: &SyncSender<()>) -> Result<(), Failure> {
        for number in from..=to {
            // First for the readers: what they see may be there from now on.
            self.intended[thread].store(number, Ordering::SeqCst);
            self.oracle.note(Note::Intent { thread, number })?;
            self.perform(thread, number)?;
            self.oracle.note(Note::Acknowledged { thread, number })?;
            self.acknowledged[thread].store(number, Ordering::SeqCst);
            if number.is_multiple_of(EVENTS_A_TICK) {
                // Full means that the keeper is busy.
                let _ = tick.try_send(());
            }
        }
        Ok(())
    }

    fn perform(&self, thread: usize, number: u64) -> Result<(), Failure> {
        let event = Event::of(self.plan.seed, thread, number);
        let logged = event.is_logged();
        match event {
            Event::Write { writes, durability } => {
                let churned = self.churned();
                let mut batch = WriteBatch::new();
                for (name, key, value) in writes {
                    let mut all = self.keyspaces.iter().chain(&churned);
                    let keyspace = all.find(|keyspace| *keyspace.name() == name).ok_or("no such keyspace")?;
                    match value {
                        Some(value) => batch.put(keyspace, key, value),
                        None => batch.delete(keyspace, key),
                    };
                }
                if logged {
                    batch.metadata(&counter_entry(thread), Some(number.to_be_bytes()));
                }
                self.db.write_with(batch, durability)?;
            }
            Event::Create => {
                let created = self.db.keyspace(CHURNED, self.plan.keyspace_options(CHURNED))?;
                *self.churned.lock().map_err(|_| "poisoned")? = Some(created);
            }
            Event::Drop => {
                if !self.db.drop_keyspace(CHURNED)? {
                    return Err("the keyspace to drop is not there".into());
                }
            }
            Event::Flush => self.keyspaces[SHARED.len()].flush()?,
        }
        Ok(())
    }

    fn churned(&self) -> Option<Keyspace> {
        self.churned.lock().map_or(None, |churned| churned.clone())
    }

    /// Flushes, compacts and syncs, in step with the writers.
    fn keep(&self, ticks: &Receiver<()>) -> Result<(), Failure> {
        let rng = &mut self.plan.rng(6);
        if self.plan.has_much_metadata() {
            let mut batch = WriteBatch::new();
            for entry in 0..METADATA_BYTES / METADATA_ENTRY_BYTES {
                batch.metadata(&format!("padding {entry}"), Some(vec![entry as u8; METADATA_ENTRY_BYTES]));
            }
            self.db.write(batch)?;
        }
        while ticks.recv().is_ok() {
            let keyspace = &self.keyspaces[rng.random_range(0..self.keyspaces.len())];
            match rng.random_range(0..8) {
                0..3 => keyspace.flush()?,
                3 => self.db.flush()?,
                4 => keyspace.compact()?,
                5 => self.db.sync()?,
                6 => self.db.wait_for_compaction()?,
                // It may be dropped meanwhile, and flushing it then is nothing.
                _ => match self.churned().map(|churned| churned.flush()) {
                    Some(Err(siltstone::Error::KeyspaceDropped { .. })) | None => {}
                    Some(flushed) => flushed?,
                },
            }
        }
        Ok(())
    }
}

/// The readers.
impl Driver {
    /// Compares keyspaces in one snapshot: each writer's last batch is there as a whole, none that was acknowledged
    /// before is missing, and nothing goes back.
    fn read_snapshots(&self) -> Result<(), Failure> {
        let mut seen = [0; WRITERS];
        while !self.is_done() {
            let acknowledged: Vec<u64> = self.acknowledged.iter().map(|n| n.load(Ordering::SeqCst)).collect();
            let snapshot = self.db.snapshot();
            for thread in 0..WRITERS {
                let key = counter_key(thread);
                let [left, right] = [0, 1].map(|at| snapshot.get(&self.keyspaces[at], &key));
                let (left, right) = (left?, right?);
                let number = left.as_deref().and_then(|value| value.try_into().ok()).map_or(0, u64::from_be_bytes);
                let intended = self.intended[thread].load(Ordering::SeqCst);
                let least = acknowledged[thread].max(seen[thread]);
                if left != right || number < least || number > intended {
                    return Err(format!(
                        "thread {thread}: left {left:?}, right {right:?}, at least {least}, at most {intended}"
                    )
                    .into());
                }
                seen[thread] = number;
                if number > 0 {
                    self.check_batch(&snapshot, thread, number)?;
                }
            }
        }
        Ok(())
    }

    fn check_batch(&self, snapshot: &siltstone::Snapshot, thread: usize, number: u64) -> Result<(), Failure> {
        let Event::Write { writes, .. } = Event::of(self.plan.seed, thread, number) else {
            return Err(format!("event {number} of thread {thread} is no batch").into());
        };
        // The last write on a key wins.
        let last: BTreeMap<_, _> = writes.into_iter().map(|(name, key, value)| ((name, key), value)).collect();
        for ((name, key), value) in last {
            let keyspace = self.keyspaces.iter().find(|keyspace| *keyspace.name() == name).ok_or("no such keyspace")?;
            if snapshot.get(keyspace, &key)?.as_deref() != value.as_deref() {
                return Err(format!("half of batch {number} of thread {thread}: {name}/{}", key.escape_ascii()).into());
            }
        }
        Ok(())
    }

    /// Iterates in both directions, in snapshots and without: in order, the same both ways, and nothing from the future.
    fn iterate(&self) -> Result<(), Failure> {
        let rng = &mut self.plan.rng(7);
        while !self.is_done() {
            let churned = self.churned();
            let count = self.keyspaces.len() + usize::from(churned.is_some());
            let keyspace = self.keyspaces.iter().chain(&churned).nth(rng.random_range(0..count)).ok_or("none")?;
            let snapshot = self.db.snapshot();
            let entries =
                read_both_ways(keyspace.name(), snapshot.iter(keyspace), snapshot.iter(keyspace)).and_then(|entries| {
                    // A second look at the same snapshot, after others wrote and merged.
                    let again = read_both_ways(keyspace.name(), snapshot.iter(keyspace), snapshot.iter(keyspace))?;
                    assert!(entries == again, "{}: a snapshot changed", keyspace.name());
                    keyspace.iter().try_for_each(|entry| entry.map(drop))?;
                    Ok(entries)
                });
            match entries {
                Err(siltstone::Error::KeyspaceDropped { .. }) if *keyspace.name() == CHURNED => {}
                entries => self.check_numbers(keyspace, &entries?)?,
            }
        }
        Ok(())
    }

    fn check_numbers(&self, keyspace: &Keyspace, entries: &Map) -> Result<(), Failure> {
        for (key, value) in entries {
            let wrong = || format!("{}/{}: {value:?}", keyspace.name(), key.escape_ascii());
            let (thread, _) = owner(key).ok_or_else(wrong)?;
            let number = value.first_chunk().map(|chunk| u64::from_be_bytes(*chunk)).ok_or_else(wrong)?;
            if number > self.intended[thread].load(Ordering::SeqCst) || number == 0 {
                return Err(wrong().into());
            }
        }
        Ok(())
    }

    /// Follows the log, from its beginning or from now on.
    fn follow(&self) -> Result<(), Failure> {
        let mut follower = Follower::from_middle(self.plan.seed);
        let mut changes = self.changes()?;
        while !self.is_done() {
            for batch in changes.by_ref() {
                follower.feed(&batch?)?;
            }
            changes.wait(Duration::from_millis(5));
        }
        for batch in changes {
            follower.feed(&batch?)?;
        }
        let written = self.acknowledged.each_ref().map(|number| number.load(Ordering::SeqCst));
        Ok(follower.check_end(written)?)
    }

    fn changes(&self) -> Result<Changes, Failure> {
        let last = self.db.last_seqno();
        Ok(if self.plan.rng(8).random() { oldest_changes(&self.db).1 } else { self.db.changes(last + 1)? })
    }
}
