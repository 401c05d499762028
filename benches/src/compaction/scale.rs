//! [`Scale`]: how much is written, and into what.

use clap::Args;
use serde::{Deserialize, Serialize};
use siltstone::internals::strategy::Strategy;
use siltstone::{Compression, KeyspaceOptions};

use crate::data::Dataset;
use crate::error::Result;

/// What all runs of a comparison are given alike.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, Args)]
pub struct Scale {
    /// How many keys
    #[arg(long, default_value_t = 1_000_000)]
    pub keys: u64,
    /// How many writes, as a multiple of the keys; the first fill the database
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=1000))]
    pub passes: u64,
    /// The length of a value, in bytes
    #[arg(long, default_value_t = 100)]
    pub value_bytes: usize,
    /// The length of a key, in bytes (8 or more)
    #[arg(long, default_value_t = 16)]
    pub key_bytes: usize,
    /// The size at which a memtable is sealed, in KiB
    #[arg(long, default_value_t = 1024, value_parser = clap::value_parser!(u64).range(4..=1 << 30))]
    pub memtable_kib: u64,
    /// How many threads flush and compact
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=64))]
    pub background_threads: u64,
    /// What keys, values and all draws follow from
    #[arg(long, default_value_t = 42)]
    pub seed: u64,
    /// How many gets of present keys, and of absent ones, tell the read amplification
    #[arg(long, default_value_t = 100_000)]
    pub gets: u64,
    /// Write a memtable, wait until nothing is left to compact, and so on: no stalls, and every run alike
    #[arg(long)]
    pub paced: bool,
}

impl Default for Scale {
    fn default() -> Self {
        Scale {
            keys: 1_000_000,
            passes: 3,
            value_bytes: 100,
            key_bytes: 16,
            memtable_kib: 1024,
            background_threads: 2,
            seed: 42,
            gets: 100_000,
            paced: false,
        }
    }
}

impl Scale {
    /// Tables and writes enough to see every part at work, in seconds.
    pub fn quick(self) -> Scale {
        Scale { keys: 50_000, memtable_kib: 128, gets: 10_000, ..self }
    }

    /// The size at which a memtable is sealed, in bytes.
    pub fn memtable_bytes(&self) -> u64 {
        self.memtable_kib << 10
    }

    /// How full a memtable is when it is flushed, in bytes: when it is sealed, or by a paced run, a little before.
    pub fn fill_bytes(&self) -> u64 {
        if self.paced { self.memtable_bytes() / 10 * 9 } else { self.memtable_bytes() }
    }

    /// The memory budget of an engine that runs this, in bytes: room for two memtables that wait beside the one that
    /// fills.
    pub fn memory_bytes(&self) -> usize {
        usize::try_from(self.memtable_bytes().saturating_mul(4)).unwrap_or(usize::MAX).max(64 << 20)
    }

    /// The keyspace's options. Uncompressed: what is compared is what compaction writes, not what it saves.
    pub fn keyspace_options(&self, strategy: &Strategy) -> KeyspaceOptions {
        strategy.options().compression(Compression::None)
    }

    /// # Errors
    /// [`Error::Settings`](crate::error::Error::Settings) for a size that no run can have.
    pub fn check(&self) -> Result<()> {
        Dataset::new(self.keys, self.key_bytes, self.value_bytes, self.seed).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        scale: Scale,
    }

    #[test]
    fn the_command_line_and_the_default_agree() {
        assert_eq!(Command::parse_from(["run"]).scale, Scale::default());
        assert!(Scale::default().check().is_ok());
        assert!(Scale { keys: 0, ..Scale::default() }.check().is_err());
        assert!(Scale { key_bytes: 7, ..Scale::default() }.check().is_err());
    }
}
