//! The `changelog` suite: what shipping costs the writer, how fast a log is restored, how far a standby is behind, what
//! a snapshot of an unchanged database moves.
//!
//! Rates that are compared are measured in turn, in one run; the medians of all repetitions are reported, with their
//! spread.

mod command;
#[cfg(feature = "kafka")]
mod kafka;
mod report;
mod restore;
mod shipping;
#[cfg(feature = "snapshot")]
mod snapshot;
mod standby;

pub use command::{ChangelogArgs, execute};

use std::path::PathBuf;
use std::time::Instant;

use siltstone::{Db, Keyspace, Options};

use crate::data::{Permutation, mix};
use crate::error::{Error, Result};

/// The name of this suite's engine in errors.
const ENGINE: &str = "changelog";

/// What the parts have in common.
#[derive(Clone, Debug)]
struct Bench {
    directory: PathBuf,
    keys: u64,
    value_bytes: usize,
    memory_bytes: usize,
}

/// A figure of one repetition: a rate, or whatever its name says.
type Figures = Vec<(&'static str, f64)>;

fn failed(error: impl std::fmt::Display) -> Error {
    Error::engine(ENGINE, error)
}

impl Bench {
    /// A directory that is not there yet.
    fn fresh(&self, name: &str) -> Result<PathBuf> {
        let path = self.directory.join(name);
        match std::fs::remove_dir_all(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Error::io(&path)(error)),
            _ => Ok(path),
        }
    }

    fn options(&self) -> Options {
        Options::new().memory_bytes(self.memory_bytes)
    }

    fn open(&self, name: &str) -> Result<Db> {
        self.options().open(self.fresh(name)?).map_err(failed)
    }

    /// The same keys and values each time.
    fn entries(&self) -> Entries {
        let pool = (0..POOL_BYTES as u64 / 8).flat_map(|n| mix(n + 1).to_le_bytes()).collect();
        Entries { order: Permutation::new(self.keys, SEED), pool, value_bytes: self.value_bytes }
    }

    /// Puts all entries; the seconds that took.
    fn fill(&self, keyspace: &Keyspace, entries: &Entries) -> Result<f64> {
        let began = Instant::now();
        for n in 0..self.keys {
            keyspace.put(entries.key(n), entries.value(n)).map_err(failed)?;
        }
        Ok(began.elapsed().as_secs_f64())
    }
}

/// What values are cut out of, in bytes.
const POOL_BYTES: usize = 4 << 20;

const SEED: u64 = 42;

/// Keys of 16 bytes in random order, and values that no compressor shortens.
struct Entries {
    order: Permutation,
    pool: Vec<u8>,
    value_bytes: usize,
}

impl Entries {
    fn key(&self, n: u64) -> [u8; 16] {
        let mut key = [0; 16];
        key[8..].copy_from_slice(&self.order.at(n).to_be_bytes());
        key
    }

    fn value(&self, n: u64) -> &[u8] {
        let start = mix(n) as usize % (POOL_BYTES - self.value_bytes);
        &self.pool[start..start + self.value_bytes]
    }
}
