//! What the driver and the test that kills it agree on: where the files are, the options of each round, and what each
//! thread does, event by event.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rand::RngExt;
use rand::rngs::StdRng;
use siltstone::{Compression, Durability, KeyspaceOptions, MemtableKind, Options};
use siltstone_changelog::{FileSinkOptions, ShipOptions};

use crate::options::{tiny, tiny_keyspace};
use crate::state::{State, Write, apply};
use crate::steps::rng;

/// Threads that write logged batches over all shared keyspaces.
pub const WRITERS: usize = 3;

/// The thread that creates a keyspace, writes to it and drops it.
pub const CHURNER: usize = WRITERS;

/// The thread whose writes are mostly not logged.
pub const UNLOGGED: usize = WRITERS + 1;

/// All of them.
pub const THREADS: usize = WRITERS + 2;

/// The keyspaces that the writers' batches are spread over.
pub const SHARED: [&str; 3] = ["left", "right", "rare"];

/// The keyspace of the [`UNLOGGED`] thread.
pub const UNLOGGED_KEYSPACE: &str = "unlogged";

/// The keyspace that the [`CHURNER`] creates and drops.
pub const CHURNED: &str = "churned";

/// Every so many events the churner drops its keyspace, and the unlogged thread flushes its own.
pub const CYCLE: u64 = 8;

/// How many keys each thread writes over and over.
const KEYS: u32 = 120;

/// Where a life of databases that get killed has its files.
#[derive(Clone, Debug)]
pub struct Layout(PathBuf);

impl Layout {
    /// In directory `root`.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Layout(root.into())
    }

    /// The directory of it all.
    pub fn root(&self) -> &Path {
        &self.0
    }

    /// The database.
    pub fn database(&self) -> PathBuf {
        self.0.join("db")
    }

    /// The log that it is shipped to.
    pub fn sink(&self) -> PathBuf {
        self.0.join("sink")
    }

    /// What the driver was about to do, and did.
    pub fn oracle(&self) -> PathBuf {
        self.0.join("oracle")
    }

    /// What the driver saw that must not be.
    pub fn violation(&self) -> PathBuf {
        self.0.join("violation")
    }

    /// The calls that a driver met which came to its end.
    pub fn calls(&self) -> PathBuf {
        self.0.join("calls")
    }
}

/// What one thread does next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A batch.
    Write {
        /// In the batch's order.
        writes: Vec<Write>,
        /// As asked for.
        durability: Durability,
    },
    /// Creates [`CHURNED`].
    Create,
    /// Drops it.
    Drop,
    /// Flushes [`UNLOGGED_KEYSPACE`].
    Flush,
}

impl Event {
    /// Event `number` (from 1 on) of `thread` in the life of `seed`. No two threads write the same key.
    pub fn of(seed: u64, thread: usize, number: u64) -> Event {
        let rng = &mut rng(seed.rotate_left(32) ^ (thread as u64) << 48 ^ number);
        match (thread, number % CYCLE) {
            (CHURNER, 1) => Event::Create,
            (CHURNER, 0) => Event::Drop,
            (UNLOGGED, 0) => Event::Flush,
            (UNLOGGED, 4) => Event::logged(rng, thread, number, &[UNLOGGED_KEYSPACE], "L"),
            (UNLOGGED, _) => {
                let writes = writes(rng, thread, number, &[UNLOGGED_KEYSPACE], "N");
                Event::Write { writes, durability: Durability::NoLog }
            }
            (CHURNER, _) => Event::logged(rng, thread, number, &[CHURNED, "left"], ""),
            _ => Event::logged(rng, thread, number, &SHARED, ""),
        }
    }

    /// A logged batch: the thread's counter, in `left` and for writers also in `right`, so that a batch that is not
    /// whole shows, and more.
    fn logged(rng: &mut StdRng, thread: usize, number: u64, keyspaces: &[&str], prefix: &str) -> Event {
        let counters = if thread < WRITERS { &SHARED[..2] } else { &SHARED[..1] };
        let counter = |name: &&str| (name.to_string(), counter_key(thread), Some(number.to_be_bytes().to_vec()));
        let mut all: Vec<Write> = counters.iter().map(counter).collect();
        all.append(&mut writes(rng, thread, number, keyspaces, prefix));
        let durability = if number.is_multiple_of(16) { Durability::Synced } else { Durability::Buffered };
        Event::Write { writes: all, durability }
    }

    /// Whether the mutation log holds the event.
    pub fn is_logged(&self) -> bool {
        match self {
            Event::Write { durability, .. } => *durability != Durability::NoLog,
            Event::Drop => true,
            Event::Create | Event::Flush => false,
        }
    }

    /// Whether it is a batch that only a flush makes durable.
    pub fn is_unlogged_write(&self) -> bool {
        matches!(self, Event::Write { durability: Durability::NoLog, .. })
    }
}

/// One to five writes, of which the first 8 bytes of each value are the event's number.
fn writes(rng: &mut StdRng, thread: usize, number: u64, keyspaces: &[&str], prefix: &str) -> Vec<Write> {
    let mut write = || {
        // The last keyspace is rarely written: it holds the log back.
        let last = keyspaces.len() - 1;
        let at = if last > 0 && !rng.random_bool(0.05) { rng.random_range(0..last) } else { last };
        let key = format!("{thread} {prefix}{:08}", rng.random_range(0..KEYS)).into_bytes();
        let len = if rng.random_bool(0.03) { rng.random_range(0..9000) } else { rng.random_range(0..150) };
        let value = rng.random_bool(0.8).then(|| {
            let mut value = number.to_be_bytes().to_vec();
            value.resize(8 + len, number as u8);
            value
        });
        (keyspaces[at].to_owned(), key, value)
    };
    let first = write();
    let mut all = vec![first];
    (0..number % 5).for_each(|_| all.push(write()));
    all
}

/// The key under which a thread keeps the number of its last logged batch.
pub fn counter_key(thread: usize) -> Vec<u8> {
    format!("{thread} counter").into_bytes()
}

/// The metadata entry that says the same.
pub fn counter_entry(thread: usize) -> String {
    format!("thread {thread}")
}

/// The thread whose key it is, and whether it was written without the log.
pub fn owner(key: &[u8]) -> Option<(usize, bool)> {
    let digit = *key.first()?;
    let thread = usize::from(digit.checked_sub(b'0')?);
    (thread < THREADS && key.get(1) == Some(&b' ')).then(|| (thread, key.get(2) == Some(&b'N')))
}

/// Whether [`CHURNED`] is there after event `number` of the churner.
pub fn is_churned_there(number: u64) -> bool {
    !number.is_multiple_of(CYCLE)
}

/// What the events of one thread, up to a number, leave in the database.
#[derive(Clone, Debug, Default)]
pub struct ThreadState {
    /// The last event that counts; the thread goes on with the next one.
    pub number: u64,
    /// What is logged.
    pub logged: State,
    /// What is not.
    pub unlogged: State,
}

impl ThreadState {
    /// Applies the logged events behind `number`, up to and including `to`.
    pub fn advance_logged(&mut self, seed: u64, thread: usize, to: u64) {
        for number in self.number + 1..=to {
            match Event::of(seed, thread, number) {
                Event::Write { writes, durability } if durability != Durability::NoLog => {
                    writes.iter().for_each(|write| apply(&mut self.logged, write));
                }
                Event::Drop => drop(self.logged.remove(CHURNED)),
                _ => {}
            }
        }
    }

    /// Applies event `number` if it is a write without the log.
    pub fn apply_unlogged(&mut self, seed: u64, thread: usize, number: u64) {
        if let Event::Write { writes, durability: Durability::NoLog } = Event::of(seed, thread, number) {
            writes.iter().for_each(|write| apply(&mut self.unlogged, write));
        }
    }
}

/// The options of one run of the driver: every run has others.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// The life.
    pub seed: u64,
    /// The run in it.
    pub run: u64,
}

impl Plan {
    /// The generator for one purpose.
    pub fn rng(&self, purpose: u64) -> StdRng {
        rng(self.seed.rotate_left(17) ^ self.run << 8 ^ purpose)
    }

    /// Whether databases of this life are shipped, from the first run on.
    pub fn is_shipped(&self) -> bool {
        self.seed % 2 == 1
    }

    /// Whether this life keeps so much metadata that the manifest, which repeats it, is soon rolled.
    pub fn has_much_metadata(&self) -> bool {
        self.seed / 2 % 2 == 1
    }

    /// Of the database.
    pub fn options(&self) -> Options {
        let rng = &mut self.rng(1);
        tiny()
            .memtable_bytes(one_of(rng, &[64 << 10, 64 << 10, 128 << 10]))
            .wal_segment_bytes(one_of(rng, &[64 << 10, 96 << 10, 128 << 10]))
            .max_wal_bytes(one_of(rng, &[128 << 10, 256 << 10]))
            .background_threads(one_of(rng, &[1, 2, 4]))
            .mmap_reads(rng.random())
            .mmap_limit_bytes(one_of(rng, &[20 << 10, 1 << 30]))
            .block_cache_bytes(one_of(rng, &[0, 1 << 20]))
            .max_open_tables(one_of(rng, &[16, 1000]))
    }

    /// Of the keyspace `name`.
    pub fn keyspace_options(&self, name: &str) -> KeyspaceOptions {
        let rng = &mut self.rng(name.bytes().fold(2, |sum, byte| sum * 31 + u64::from(byte)));
        tiny_keyspace()
            .block_bytes(one_of(rng, &[256, 1024, 4096]))
            .level0_trigger(one_of(rng, &[1, 2, 4]))
            .target_table_bytes(one_of(rng, &[4 << 10, 16 << 10]))
            .compression(one_of(rng, &[Compression::None, Compression::Lz4Bottom, Compression::Lz4]))
            .dynamic_levels(rng.random())
            .memtable(one_of(rng, &[MemtableKind::BTree, MemtableKind::SkipList]))
    }

    /// Of the log that is shipped to.
    pub fn sink_options(&self) -> FileSinkOptions {
        FileSinkOptions::new().segment_bytes(one_of(&mut self.rng(3), &[32 << 10, 128 << 10]))
    }

    /// Of the shipper.
    pub fn ship_options(&self) -> ShipOptions {
        let rng = &mut self.rng(4);
        ShipOptions::new().flush_bytes(one_of(rng, &[4 << 10, 64 << 10])).flush_interval(Duration::from_millis(1))
    }
}

/// One of several values.
pub fn one_of<T: Copy>(rng: &mut StdRng, all: &[T]) -> T {
    all[rng.random_range(0..all.len())]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_write_keys_of_their_own() {
        for (thread, number) in (0..THREADS).flat_map(|thread| (1..200).map(move |number| (thread, number))) {
            let event = Event::of(7, thread, number);
            assert_eq!(event, Event::of(7, thread, number));
            let Event::Write { writes, durability } = event else { continue };
            let unlogged = durability == Durability::NoLog;
            assert!(writes.iter().all(|(_, key, _)| owner(key) == Some((thread, unlogged))), "{writes:?}");
        }
        assert_eq!((owner(b"9 x"), owner(b"1"), owner(b"")), (None, None, None));
    }
}
