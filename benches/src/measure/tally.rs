//! [`Tally`]: what one thread counts of one kind of operation; [`Counters`]: what others may see of it meanwhile.

use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Serialize};

use super::{Recorder, Timing};

/// A kind of operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Reads of one key.
    Gets,
    /// Writes of one key, alone or in a batch.
    Puts,
    /// Deletes of one key.
    Deletes,
    /// Reads of one key with a write of it that follows.
    Updates,
    /// Searches for a key, with the entries read from there on.
    Seeks,
    /// Entries of a scan over everything or of a bulk load.
    Entries,
    /// Openings of a store.
    Opens,
    /// Times that everything in memory was written into tables.
    Flushes,
}

impl Kind {
    /// All of them.
    pub const ALL: [Kind; 8] =
        [Kind::Gets, Kind::Puts, Kind::Deletes, Kind::Updates, Kind::Seeks, Kind::Entries, Kind::Opens, Kind::Flushes];

    /// Whether an operation of it changes the store.
    pub fn writes(self) -> bool {
        matches!(self, Kind::Puts | Kind::Deletes | Kind::Updates)
    }

    /// Its name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Gets => "gets",
            Kind::Puts => "puts",
            Kind::Deletes => "deletes",
            Kind::Updates => "updates",
            Kind::Seeks => "seeks",
            Kind::Entries => "entries",
            Kind::Opens => "opens",
            Kind::Flushes => "flushes",
        }
    }
}

/// How many operations of each kind one thread has done so far. Threads do not share cache lines: 128 bytes, since
/// lines are fetched in pairs.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct Counters([AtomicU64; Kind::ALL.len()]);

impl Counters {
    /// Operations of `kind` so far.
    pub fn get(&self, kind: Kind) -> u64 {
        self.0[kind as usize].load(Ordering::Relaxed)
    }

    /// Says how many operations of `kind` there were.
    #[inline]
    pub fn set(&self, kind: Kind, ops: u64) {
        // A figure for a progress display and a plot: nothing follows from its order.
        self.0[kind as usize].store(ops, Ordering::Relaxed);
    }
}

/// What one thread counts of one kind of operation.
#[derive(Debug)]
pub struct Tally {
    /// How many were done.
    pub ops: u64,
    /// How long they took.
    pub recorder: Recorder,
}

impl Tally {
    /// Nothing so far; see [`Recorder::new`].
    pub fn new(seed: u64, timing: Timing) -> Self {
        Tally { ops: 0, recorder: Recorder::new(seed, timing) }
    }

    /// Adds another thread's.
    pub fn add(&mut self, other: &Tally) {
        self.ops += other.ops;
        self.recorder.add(&other.recorder);
    }
}
