//! What the driver that gets killed and the test that kills it agree on: which batches each thread writes, and the
//! oracle file that says how far it got.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::path::Path;

use rand::RngExt;
use siltstone::{Durability, KeyspaceOptions, Options};

use crate::options::{tiny, tiny_keyspace};
use crate::state::{State, Write, apply};
use crate::steps::rng;

/// Writer threads.
pub const THREADS: usize = 4;

/// The keyspaces that every batch is spread over.
pub const KEYSPACES: [&str; 3] = ["left", "right", "rare"];

/// How many keys each thread writes over and over.
const KEYS: u32 = 300;

/// The options of the database.
pub fn options() -> Options {
    tiny().background_threads(2)
}

/// The options of its keyspaces.
pub fn keyspace_options() -> KeyspaceOptions {
    tiny_keyspace().target_table_bytes(16 << 10).level0_trigger(3)
}

/// The key under which a thread puts each batch's number into both `left` and `right`: a batch that is not whole shows.
pub fn counter_key(thread: usize) -> Vec<u8> {
    format!("{thread} counter").into_bytes()
}

/// The durability of batch `number` of a thread: one in 16 is synced, so that kills also meet syncs.
pub fn durability(number: u64) -> Durability {
    if number.is_multiple_of(16) { Durability::Synced } else { Durability::Buffered }
}

/// The writes of batch `number` (from 1 on) of `thread`, of which nobody else writes the keys.
pub fn batch(thread: usize, number: u64) -> Vec<Write> {
    let rng = &mut rng((thread as u64) << 48 | number);
    let counter = |keyspace: &str| (keyspace.to_owned(), counter_key(thread), Some(number.to_be_bytes().to_vec()));
    let mut writes = vec![counter("left"), counter("right")];
    for _ in 0..rng.random_range(1..6) {
        let keyspace = match rng.random_range(0..100) {
            0..49 => "left",
            49..98 => "right",
            _ => "rare",
        };
        let key = format!("{thread} {:08}", rng.random_range(0..KEYS)).into_bytes();
        let len = if rng.random_bool(0.02) { rng.random_range(0..9000) } else { rng.random_range(0..120) };
        let value = rng.random_bool(0.8).then(|| {
            let mut value = number.to_be_bytes().to_vec();
            value.resize(8 + len, number as u8);
            value
        });
        writes.push((keyspace.to_owned(), key, value));
    }
    writes
}

/// What one thread should have in the database: its batches up to a number.
#[derive(Clone, Debug, Default)]
pub struct ThreadState {
    /// The last batch that is in.
    pub number: u64,
    /// What they leave.
    pub state: State,
}

impl ThreadState {
    /// Adds the batches up to `number`.
    pub fn advance(&mut self, thread: usize, number: u64) {
        while self.number < number {
            self.number += 1;
            batch(thread, self.number).iter().for_each(|write| apply(&mut self.state, write));
        }
    }
}

/// A line of the oracle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Note {
    /// A thread is about to write a batch.
    Intent {
        /// Which thread.
        thread: usize,
        /// Which batch.
        number: u64,
    },
    /// The database acknowledged it.
    Acknowledged {
        /// Which thread.
        thread: usize,
        /// Which batch.
        number: u64,
    },
    /// A reader found half a batch, or an order that cannot be: the run has failed.
    Violation {
        /// The thread whose batch it was.
        thread: usize,
        /// The number found.
        number: u64,
    },
}

const NOTE_BYTES: usize = 16;

/// The file that survives the driver: each note is one `write` call, never synced, since a killed process takes nothing
/// back that the system has.
#[derive(Debug)]
pub struct Oracle(File);

impl Oracle {
    /// Opens for appending.
    ///
    /// # Errors
    /// The system's.
    pub fn append_to(path: &Path) -> io::Result<Self> {
        Ok(Oracle(OpenOptions::new().create(true).append(true).open(path)?))
    }

    /// Appends a note; many threads may at once, since appends of one call are whole.
    ///
    /// # Errors
    /// The system's.
    pub fn note(&self, note: Note) -> io::Result<()> {
        let (kind, thread, number) = match note {
            Note::Intent { thread, number } => (1, thread, number),
            Note::Acknowledged { thread, number } => (2, thread, number),
            Note::Violation { thread, number } => (3, thread, number),
        };
        let mut bytes = [0; NOTE_BYTES];
        bytes[0] = kind;
        bytes[1] = thread as u8;
        bytes[8..].copy_from_slice(&number.to_le_bytes());
        let written = (&self.0).write(&bytes)?;
        if written == NOTE_BYTES { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
    }

    /// Reads all notes.
    ///
    /// # Errors
    /// The system's; `InvalidData` for what no driver writes.
    pub fn read(path: &Path) -> io::Result<Vec<Note>> {
        let bytes = match std::fs::read(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            bytes => bytes?,
        };
        let (notes, rest) = bytes.as_chunks::<NOTE_BYTES>();
        if !rest.is_empty() {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "half a note"));
        }
        notes.iter().map(decode).collect()
    }
}

fn decode(bytes: &[u8; NOTE_BYTES]) -> io::Result<Note> {
    let [kind, thread, _, _, _, _, _, _, number @ ..] = *bytes;
    let (thread, number) = (usize::from(thread), u64::from_le_bytes(number));
    match kind {
        1 => Ok(Note::Intent { thread, number }),
        2 => Ok(Note::Acknowledged { thread, number }),
        3 => Ok(Note::Violation { thread, number }),
        kind => Err(io::Error::new(io::ErrorKind::InvalidData, format!("a note of kind {kind}"))),
    }
}

/// The last intended and the last acknowledged batch of each thread, given the last one before the notes.
///
/// # Errors
/// A violation, or notes that are out of order.
pub fn progress(notes: &[Note], before: [u64; THREADS]) -> Result<BTreeMap<usize, (u64, u64)>, String> {
    let mut progress: BTreeMap<usize, (u64, u64)> = (0..THREADS).map(|n| (n, (before[n], before[n]))).collect();
    for note in notes {
        let (&thread, next) = match note {
            Note::Intent { thread, number } => (thread, (*number, number - 1)),
            Note::Acknowledged { thread, number } => (thread, (*number, *number)),
            Note::Violation { .. } => return Err(format!("a reader saw {note:?}")),
        };
        let now = progress.get_mut(&thread).ok_or("no such thread")?;
        let follows = match note {
            Note::Intent { .. } => now.0 == now.1 && next.0 == now.0 + 1,
            _ => next.0 == now.0,
        };
        if !follows {
            return Err(format!("{note:?} after {now:?}"));
        }
        *now = next;
    }
    Ok(progress)
}
