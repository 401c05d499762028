//! A workload of everything that changes a database: for power cuts, which stop it at every call.

use std::ops::{Bound, Range};
use std::path::Path;
use std::sync::Arc;

use parking_lot::Mutex;
use rand::RngExt;
use rand::rngs::StdRng;
use siltstone::fs::SimFileSystem;
use siltstone::{
    Change, ChangeBatch, Db, Durability, Error, Keyspace, KeyspaceName, Options, Result, SeqNo, Snapshot, WriteBatch,
};

use super::{DIRECTORY, keyspace_options, options};
use crate::history::{Event, History};
use crate::options::KEYSPACES;
use crate::runner::name;
use crate::state::{METADATA, State, Write, apply, difference, dump_keyspaces, read_both_ways};
use crate::steps::{batch, key, rng, sorted_entries, value};

/// How many keyspaces are written without the log.
const UNLOGGED: usize = 2;

/// The entries of metadata that batches set and remove.
const ENTRIES: [&str; 3] = ["position", "epoch", "owner"];

/// Entries of metadata that make a manifest long, and the length of their values in bytes: the largest allowed.
const BULK_ENTRIES: usize = 60;
const BULK_VALUE_BYTES: usize = 4096;

fn bulk_entry(number: usize) -> String {
    format!("bulk {number}")
}

/// The consumers whose change cursors come, move and go.
const CURSORS: [&str; 2] = ["mailer", "index"];

/// The history as the workload goes on. It is locked while a call is noted in it, never during a call.
pub type Shared = Arc<Mutex<History>>;

/// The name of the `number`-th keyspace that is written without the log.
fn unlogged_name(number: usize) -> String {
    format!("unlogged {number}")
}

/// The key under which a [`State`] holds a change cursor beside the metadata.
fn cursor_key(cursor: &str) -> Vec<u8> {
    format!("cursor {cursor}").into_bytes()
}

/// What a database holds of the metadata and cursors that this workload sets, to be added to a [`State`].
pub fn dump_metadata(db: &Db, state: &mut State) {
    let names = ENTRIES.iter().map(ToString::to_string).chain((0..BULK_ENTRIES).map(bulk_entry));
    let entries = names.filter_map(|name| Some((name.clone().into_bytes(), db.metadata(&name)?.to_vec())));
    let cursors = cursors(db).into_iter().map(|(cursor, next)| (cursor_key(cursor), next.to_be_bytes().to_vec()));
    for (key, value) in entries.chain(cursors) {
        apply(state, &(METADATA.to_owned(), key, Some(value)));
    }
}

/// The change cursors that a database has.
pub fn cursors(db: &Db) -> Vec<(&'static str, SeqNo)> {
    CURSORS.iter().filter_map(|cursor| Some((*cursor, db.change_cursor(cursor)?))).collect()
}

/// A workload of everything that changes a database: batches over keyspaces of every durability (without the log into
/// keyspaces of their own), metadata, change cursors, batches of another log, ingests, flushes, compactions, keyspaces
/// that are dropped and made anew, snapshots held meanwhile, closing and opening.
#[derive(Clone, Debug)]
pub enum Everything {
    /// Operations drawn from a seed.
    Steps {
        /// Decides everything else.
        seed: u64,
        /// How many operations.
        steps: usize,
        /// Whether to wait after each operation until the background is idle: then the calls come in nearly the same
        /// order each time.
        lockstep: bool,
    },
    /// As above, in lockstep, among so much metadata, written down so often, that the manifest is rolled.
    ManifestRolls {
        /// Decides everything else.
        seed: u64,
    },
}

impl Everything {
    /// Runs on a database in [`DIRECTORY`] opened with `options`. `history` is always up to date: what may have an
    /// effect on storage is in it before, what was acknowledged right after.
    ///
    /// # Errors
    /// The first error of the database.
    ///
    /// # Panics
    /// If a snapshot or a reopened database holds something else than it should.
    pub fn run(&self, options: Options, history: &Shared) -> Result<()> {
        let mut running = Running::open(options, history.clone())?;
        match *self {
            Everything::Steps { seed, steps, lockstep } => running.steps(seed, 0..steps as u64, lockstep),
            Everything::ManifestRolls { seed } => running.roll_manifest(seed),
        }
    }

    /// The options to run with, on `file_system(..)`. Every other seed has memtables so large that the log is rolled
    /// many times between two flushes: a flush makes durable what a roll may have forgotten to.
    pub fn options(&self) -> Options {
        if self.seed().is_multiple_of(2) { options().memtable_bytes(1 << 20).max_wal_bytes(1 << 20) } else { options() }
    }

    /// What decides everything.
    pub fn seed(&self) -> u64 {
        match self {
            Everything::Steps { seed, .. } | Everything::ManifestRolls { seed } => *seed,
        }
    }

    /// Checks that a whole run did on `sim` what it is for.
    ///
    /// # Panics
    /// If it did not.
    pub fn check_end(&self, sim: &SimFileSystem) {
        if let Everything::ManifestRolls { .. } = self {
            let first = Path::new(DIRECTORY).join("MANIFEST-000001");
            assert!(!sim.paths().contains(&first), "the manifest was not rolled");
        }
    }
}

struct Running {
    options: Options,
    history: Shared,
    /// `None` only between a close and the open after it.
    db: Option<Db>,
    /// Those with the log, then those without.
    keyspaces: Vec<Keyspace>,
    /// All that was acknowledged.
    memory: State,
    snapshots: Vec<(Snapshot, Vec<Keyspace>, State)>,
}

fn open(options: &Options) -> Result<Db> {
    options.clone().open(Path::new(DIRECTORY))
}

impl Running {
    fn open(options: Options, history: Shared) -> Result<Self> {
        let db = Some(open(&options)?);
        let (keyspaces, memory, snapshots) = (Vec::new(), State::new(), Vec::new());
        let mut running = Running { options, history, db, keyspaces, memory, snapshots };
        running.open_keyspaces()?;
        Ok(running)
    }

    fn db(&self) -> &Db {
        self.db.as_ref().expect("open")
    }

    fn open_keyspaces(&mut self) -> Result<()> {
        let names = (0..KEYSPACES).map(name).chain((0..UNLOGGED).map(unlogged_name));
        self.keyspaces = names.map(|name| self.create(&name)).collect::<Result<_>>()?;
        Ok(())
    }

    fn create(&self, name: &str) -> Result<Keyspace> {
        self.history.lock().intend_keyspace(name);
        let keyspace = self.db().keyspace(name, keyspace_options())?;
        self.history.lock().acknowledge_keyspace(name);
        Ok(keyspace)
    }

    fn steps(&mut self, seed: u64, steps: Range<u64>, lockstep: bool) -> Result<()> {
        for step in steps {
            self.step(&mut rng(seed << 20 | step))?;
            if lockstep {
                self.db().wait_for_compaction()?;
            }
        }
        Ok(())
    }

    /// Every closing writes down all metadata, so a few of them make a manifest that is due to be rolled.
    fn roll_manifest(&mut self, seed: u64) -> Result<()> {
        let value = vec![b'm'; BULK_VALUE_BYTES];
        for round in 0..6 {
            let entries = (0..BULK_ENTRIES).map(bulk_entry).map(|entry| {
                // Gone at the end, so that the new manifest is much shorter.
                (METADATA.to_owned(), entry.into_bytes(), (round < 5).then(|| value.clone()))
            });
            let writes: Vec<Write> = entries.collect();
            let batch = self.batch_of(&writes);
            let event = Event::Batch(writes);
            self.history.lock().intend(event.clone());
            self.db().write(batch)?;
            self.acknowledge(&event, false);
            self.steps(seed, round * 4..round * 4 + 4, true)?;
            self.reopen(round % 2 == 0)?;
        }
        Ok(())
    }

    fn step(&mut self, rng: &mut StdRng) -> Result<()> {
        let at = rng.random_range(0..KEYSPACES + UNLOGGED);
        match rng.random_range(0..100) {
            0..48 => self.write(rng)?,
            48..52 => self.ingest(rng)?,
            52..60 => self.write_unlogged(rng)?,
            60..64 => self.move_cursor(rng)?,
            64..68 => self.apply(rng)?,
            68..72 => {
                self.db().sync()?;
                self.history.lock().sync();
            }
            72..79 => {
                self.keyspaces[at].flush()?;
                self.history.lock().flush(self.keyspaces[at].name());
            }
            79..82 => {
                self.db().flush()?;
                let mut history = self.history.lock();
                self.keyspaces.iter().for_each(|keyspace| history.flush(keyspace.name()));
            }
            82..85 => self.keyspaces[at].compact()?,
            85..87 => self.db().wait_for_compaction()?,
            87..90 => self.drop_keyspace(at, rng)?,
            90..93 => self.snapshots.push((self.db().snapshot(), self.keyspaces.clone(), self.memory.clone())),
            93..96 if !self.snapshots.is_empty() => {
                let which = rng.random_range(0..self.snapshots.len());
                let (snapshot, keyspaces, expected) = self.snapshots.swap_remove(which);
                check_snapshot(&snapshot, &keyspaces, &expected)?;
            }
            96..98 => self.reopen(true)?,
            98..100 => self.reopen(false)?,
            _ => {}
        }
        Ok(())
    }

    /// A logged event that was acknowledged.
    fn acknowledge(&mut self, event: &Event, synced: bool) {
        match event {
            Event::Batch(writes) | Event::Ingest(writes) => {
                writes.iter().for_each(|write| apply(&mut self.memory, write));
            }
            Event::DropKeyspace(name) => drop(self.memory.remove(name)),
        }
        self.history.lock().acknowledge(synced);
    }

    fn batch_of(&self, writes: &[Write]) -> WriteBatch {
        let mut batch = WriteBatch::new();
        for (name, key, value) in writes {
            if name == METADATA {
                batch.metadata(std::str::from_utf8(key).expect("an entry's name"), value.as_deref());
                continue;
            }
            let keyspace = self.keyspaces.iter().find(|keyspace| keyspace.name() == name).expect("one of these");
            match value {
                Some(value) => batch.put(keyspace, key, value),
                None => batch.delete(keyspace, key),
            };
        }
        batch
    }

    /// A logged batch, with metadata or without, or of nothing but metadata.
    fn write(&mut self, rng: &mut StdRng) -> Result<()> {
        let mut writes = if rng.random_bool(0.2) { Vec::new() } else { logged_writes(rng) };
        if rng.random_bool(0.4) {
            writes.extend(metadata(rng));
        }
        let durability = if rng.random_bool(0.25) { Durability::Synced } else { Durability::Buffered };
        let batch = self.batch_of(&writes);
        let event = Event::Batch(writes);
        self.history.lock().intend(event.clone());
        let (is_empty, numbered) = (batch.is_empty(), batch.len() as SeqNo);
        let before = self.db().last_seqno();
        assert_eq!(self.db().write_with(batch, durability)?, before + numbered);
        // An empty batch syncs nothing.
        self.acknowledge(&event, durability == Durability::Synced && !is_empty);
        Ok(())
    }

    /// Ingests into a keyspace that is written with the log. No cursor follows that: they go before.
    fn ingest(&mut self, rng: &mut StdRng) -> Result<()> {
        for (cursor, _) in cursors(self.db()) {
            let event = Event::Batch(vec![(METADATA.to_owned(), cursor_key(cursor), None)]);
            self.history.lock().intend(event.clone());
            self.db().remove_change_cursor(cursor)?;
            self.acknowledge(&event, false);
        }
        let keyspace = self.keyspaces[rng.random_range(0..KEYSPACES)].clone();
        let mut entries = sorted_entries(rng);
        entries.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        entries.dedup_by(|a, b| a.0 == b.0);
        if entries.is_empty() {
            return Ok(());
        }
        let write = |(key, value): &(Vec<u8>, Vec<u8>)| (keyspace.name().to_string(), key.clone(), Some(value.clone()));
        let event = Event::Ingest(entries.iter().map(write).collect());
        self.history.lock().intend(event.clone());
        let before = self.db().last_seqno();
        assert_eq!(keyspace.ingest(entries.iter().map(|(key, value)| (key, value)))?, before + entries.len() as SeqNo);
        self.acknowledge(&event, true);
        Ok(())
    }

    fn write_unlogged(&mut self, rng: &mut StdRng) -> Result<()> {
        let only = rng.random_range(0..UNLOGGED);
        let both = rng.random::<bool>();
        let mut writes: Vec<Write> = Vec::new();
        for _ in 0..rng.random_range(1..6) {
            let number = if both { rng.random_range(0..UNLOGGED) } else { only };
            writes.push((unlogged_name(number), key(rng), rng.random_bool(0.7).then(|| value(rng))));
        }
        let batch = self.batch_of(&writes);
        self.history.lock().intend_unlogged(&writes);
        self.db().write_with(batch, Durability::NoLog)?;
        writes.iter().for_each(|write| apply(&mut self.memory, write));
        Ok(())
    }

    /// Sets a change cursor to a number that the log still holds, or removes it.
    fn move_cursor(&mut self, rng: &mut StdRng) -> Result<()> {
        let cursor = CURSORS[rng.random_range(0..CURSORS.len())];
        let oldest = match self.db().changes(1) {
            Err(Error::NotRetained { oldest, .. }) => oldest,
            changes => changes.map(|_| 1)?,
        };
        let next = rng.random_bool(0.8).then(|| rng.random_range(oldest..=self.db().last_seqno() + 1));
        let value = next.map(|next| next.to_be_bytes().to_vec());
        let event = Event::Batch(vec![(METADATA.to_owned(), cursor_key(cursor), value)]);
        self.history.lock().intend(event.clone());
        let moved = match next {
            Some(next) => self.db().set_change_cursor(cursor, next),
            None => self.db().remove_change_cursor(cursor),
        };
        match moved {
            // The background let go of it meanwhile; nothing was written.
            Err(Error::NotRetained { .. }) => self.history.lock().withdraw(),
            moved => {
                moved?;
                self.acknowledge(&event, false);
            }
        }
        Ok(())
    }

    /// Applies a batch of another log, which may pass over numbers.
    fn apply(&mut self, rng: &mut StdRng) -> Result<()> {
        let first_seqno = self.db().last_seqno() + 1 + rng.random_range(0..3);
        let mut writes = logged_writes(rng);
        if writes.is_empty() {
            return Ok(());
        }
        let change = |(name, key, value): &Write| {
            let keyspace = KeyspaceName::from(name.as_str());
            let key = key.as_slice().into();
            match value {
                Some(value) => Change::Put { keyspace, key, value: value.as_slice().into() },
                None => Change::Delete { keyspace, key },
            }
        };
        let changes = ChangeBatch::new(first_seqno, writes.iter().map(change).collect())?;
        let position = first_seqno.to_string();
        writes.push((METADATA.to_owned(), ENTRIES[0].into(), Some(position.clone().into_bytes())));
        let event = Event::Batch(writes);
        self.history.lock().intend_at(event.clone(), first_seqno);
        assert_eq!(self.db().apply(&changes, &[(ENTRIES[0], &position)])?, changes.last_seqno());
        self.acknowledge(&event, false);
        Ok(())
    }

    /// Drops a keyspace, here or as another log says it, and makes it anew.
    fn drop_keyspace(&mut self, at: usize, rng: &mut StdRng) -> Result<()> {
        let name = self.keyspaces[at].name().to_string();
        let event = Event::DropKeyspace(name.clone());
        if rng.random() {
            self.history.lock().intend(event.clone());
            assert!(self.db().drop_keyspace(&name)?);
        } else {
            let first_seqno = self.db().last_seqno() + 1 + rng.random_range(0..3);
            let changes = vec![Change::DropKeyspace { keyspace: name.as_str().into() }];
            let changes = ChangeBatch::new(first_seqno, changes)?;
            self.history.lock().intend_at(event.clone(), first_seqno);
            self.db().apply::<&str>(&changes, &[])?;
        }
        self.acknowledge(&event, true);
        self.keyspaces[at] = self.create(&name)?;
        Ok(())
    }

    /// Closes, by name or by dropping every handle, and opens again.
    fn reopen(&mut self, by_name: bool) -> Result<()> {
        for (snapshot, keyspaces, expected) in self.snapshots.drain(..) {
            check_snapshot(&snapshot, &keyspaces, &expected)?;
        }
        self.keyspaces.clear();
        // Closing again is fine, and what the last handle's going does too.
        if by_name {
            self.db().close()?;
        }
        // The last handle goes before the directory is opened again.
        self.db = None;
        self.history.lock().close();
        self.db = Some(open(&self.options)?);
        self.open_keyspaces()?;
        let mut found = dump_keyspaces(&self.keyspaces)?;
        dump_metadata(self.db(), &mut found);
        assert_eq!(difference(&found, &self.memory), None, "closed and opened");
        Ok(())
    }
}

fn check_snapshot(snapshot: &Snapshot, keyspaces: &[Keyspace], expected: &State) -> Result<()> {
    let all = || (Bound::Unbounded::<Vec<u8>>, Bound::Unbounded::<Vec<u8>>);
    let mut found = State::new();
    for keyspace in keyspaces {
        let (forward, backward) = (snapshot.range(keyspace, all()), snapshot.range(keyspace, all()));
        let map = read_both_ways(keyspace.name(), forward, backward)?;
        if !map.is_empty() {
            found.insert(keyspace.name().to_string(), map);
        }
    }
    let mut expected = expected.clone();
    expected.remove(METADATA);
    assert_eq!(difference(&found, &expected), None, "a snapshot at {}", snapshot.seqno());
    Ok(())
}

fn logged_writes(rng: &mut StdRng) -> Vec<Write> {
    batch(rng).into_iter().map(|(keyspace, key, value)| (name(keyspace), key, value)).collect()
}

fn metadata(rng: &mut StdRng) -> Vec<Write> {
    let mut entry = || {
        let entry = ENTRIES[rng.random_range(0..ENTRIES.len())];
        let len = rng.random_range(0..60);
        let value = rng.random_bool(0.8).then(|| (0..len).map(|_| rng.random()).collect());
        (METADATA.to_owned(), entry.as_bytes().to_vec(), value)
    };
    (0..2).map(|_| entry()).collect()
}
