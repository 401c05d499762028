//! A seeded workload on a filesystem that may fail at any call, and the history of what it was told.

use std::path::Path;

use rand::RngExt;
use siltstone::{Db, Durability, Error, Keyspace, KeyspaceOptions, Options, Result, WriteBatch};

use crate::history::{Event, History};
use crate::options::{KEYSPACES, tiny, tiny_keyspace};
use crate::runner::name;
use crate::steps::{NumberedWrite, batch, rng};

mod everything;

pub use everything::{Everything, Shared, cursors, dump_metadata};

/// Where workloads put their database.
pub const DIRECTORY: &str = "/db";

/// What a workload does.
#[derive(Clone, Debug)]
pub struct Workload {
    /// Decides everything else.
    pub seed: u64,
    /// How many operations.
    pub steps: usize,
    /// Whether to wait after each operation until the background is idle: then the calls come in nearly the same order
    /// each time.
    pub lockstep: bool,
}

/// How a workload ended. `db` is still open, whatever happened.
#[derive(Debug)]
pub struct Outcome {
    /// What was tried and acknowledged.
    pub history: History,
    /// The first error, if any; nothing was tried after it.
    pub error: Option<Error>,
    /// The database, if it could be opened, and its keyspaces as far as they were created.
    pub db: Option<(Db, Vec<Keyspace>)>,
}

/// The options for a workload on `options.file_system(..)`.
pub fn options() -> Options {
    tiny().background_threads(1).durability(Durability::Buffered)
}

/// The options of every keyspace of a workload.
pub fn keyspace_options() -> KeyspaceOptions {
    tiny_keyspace()
}

impl Workload {
    /// Runs on a database in [`DIRECTORY`] opened with `options`, until the end or the first error.
    pub fn run(&self, options: Options) -> Outcome {
        let mut running = Running { workload: self, history: History::default(), db: None };
        let error = running.run(options).err();
        Outcome { history: running.history, error, db: running.db }
    }
}

struct Running<'w> {
    workload: &'w Workload,
    history: History,
    db: Option<(Db, Vec<Keyspace>)>,
}

impl Running<'_> {
    fn run(&mut self, options: Options) -> Result<()> {
        let db = options.open(Path::new(DIRECTORY))?;
        self.db = Some((db.clone(), Vec::new()));
        for number in 0..KEYSPACES {
            let keyspace = self.create(&db, number)?;
            self.handles().push(keyspace);
        }
        for step in 0..self.workload.steps {
            self.step(&db, step as u64)?;
            if self.workload.lockstep {
                db.wait_for_compaction()?;
            }
        }
        Ok(())
    }

    fn handles(&mut self) -> &mut Vec<Keyspace> {
        &mut self.db.as_mut().expect("open").1
    }

    fn create(&mut self, db: &Db, number: usize) -> Result<Keyspace> {
        let name = name(number);
        self.history.intend_keyspace(&name);
        let keyspace = db.keyspace(&name, keyspace_options())?;
        self.history.acknowledge_keyspace(&name);
        Ok(keyspace)
    }

    fn step(&mut self, db: &Db, step: u64) -> Result<()> {
        let rng = &mut rng(self.workload.seed << 20 | step);
        let keyspace = rng.random_range(0..KEYSPACES);
        match rng.random_range(0..100) {
            0..82 => {
                let durability = if rng.random_bool(0.2) { Durability::Synced } else { Durability::Buffered };
                let writes = batch(rng);
                self.write(db, &writes, durability)?;
            }
            82..86 => {
                db.sync()?;
                self.history.sync();
            }
            86..91 => self.handles()[keyspace].flush()?,
            91..93 => {
                db.flush()?;
                // Everything acknowledged is in tables now.
                self.history.sync();
            }
            93..96 => self.handles()[keyspace].compact()?,
            96..98 => db.wait_for_compaction()?,
            _ => {
                self.history.intend(Event::DropKeyspace(name(keyspace)));
                db.drop_keyspace(name(keyspace))?;
                self.history.acknowledge(true);
                let created = self.create(db, keyspace)?;
                self.handles()[keyspace] = created;
            }
        }
        Ok(())
    }

    fn write(&mut self, db: &Db, writes: &[NumberedWrite], durability: Durability) -> Result<()> {
        let mut batch = WriteBatch::new();
        for (keyspace, key, value) in writes {
            let keyspace = &self.handles()[*keyspace];
            match value {
                Some(value) => batch.put(keyspace, key, value),
                None => batch.delete(keyspace, key),
            };
        }
        let named = writes.iter().map(|(keyspace, key, value)| (name(*keyspace), key.clone(), value.clone()));
        self.history.intend(Event::Batch(named.collect()));
        db.write_with(batch, durability)?;
        // An empty batch takes no number and syncs nothing.
        self.history.acknowledge(durability == Durability::Synced && !writes.is_empty());
        Ok(())
    }
}
