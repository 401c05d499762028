//! [`Settings`]: everything that has to be the same for all engines of a run.

use clap::{Args, ValueEnum};
use serde::{Deserialize, Serialize};

/// Threads that flush and compact, of each engine that lets one choose.
pub const BACKGROUND_THREADS: u32 = 2;

/// Bits of a Bloom filter for each key, of each engine that has filters.
pub const FILTER_BITS_PER_KEY: u32 = 10;

/// The least memory budget, in MiB.
const MIN_MEMORY_MIB: usize = 8;

/// What an acknowledged write survives; see [`siltstone::Durability`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Durability {
    /// Nothing is logged.
    NoLog,
    /// A killed process.
    #[default]
    Buffered,
    /// Power loss.
    Synced,
}

/// How tables are stored; see [`siltstone::Compression`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Compression {
    /// As they are.
    None,
    /// LZ4 on the bottom level.
    Lz4Bottom,
    /// LZ4 on every level.
    Lz4,
}

/// What all engines of a run are given alike.
///
/// ```
/// let settings = siltstone_benches::settings::Settings { keys: 1000, ..Default::default() };
/// assert_eq!((settings.key_bytes, settings.value_bytes), (16, 100));
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, Args)]
#[serde(default)]
pub struct Settings {
    /// How many keys
    #[arg(long, default_value_t = 2_000_000)]
    pub keys: u64,
    /// The length of a value, in bytes
    #[arg(long, default_value_t = 100)]
    pub value_bytes: usize,
    /// The length of a key, in bytes (8 or more)
    #[arg(long, default_value_t = 16)]
    pub key_bytes: usize,
    /// What keys, values and all orders follow from
    #[arg(long, default_value_t = 42)]
    pub seed: u64,
    /// How many threads work at the same time
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub threads: u32,
    /// The memory budget of an engine, in MiB: half of it for a block cache, half for four memtables
    #[arg(long, default_value_t = 512, value_parser = parse_memory_mib)]
    pub memory_mib: usize,
    /// The memory that a session may use with the system's cache of its files, in MiB [default: no limit]
    #[arg(long, value_parser = clap::value_parser!(u64).range(16..))]
    pub memory_limit_mib: Option<u64>,
    /// What an acknowledged write survives
    #[arg(long, value_enum, default_value_t = Durability::Buffered)]
    pub durability: Durability,
    /// How tables are stored
    #[arg(long, value_enum, default_value_t = Compression::None)]
    pub compression: Compression,
    /// The size of a table block, in bytes
    #[arg(long, default_value_t = 4096)]
    pub block_bytes: u32,
    /// How many random gets a read workload does [default: as many as there are keys]
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    pub reads: Option<u64>,
    /// How many seeks seekrandom does [default: a tenth of the keys]
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    pub seeks: Option<u64>,
    /// How many entries each seek reads
    #[arg(long, default_value_t = 10)]
    pub seek_entries: usize,
    /// How often the scan workloads go over everything
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..))]
    pub scan_passes: u64,
    /// How often overwrite puts every key
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..))]
    pub overwrite_passes: u64,
    /// How many puts fillsync does
    #[arg(long, default_value_t = 20_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub syncs: u64,
    /// How many operations a workload of YCSB, or mixgraph, does [default: as many as there are keys; ycsbe a tenth]
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    pub operations: Option<u64>,
    /// How long readwhilewriting lasts, in seconds
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..))]
    pub seconds: u64,
    /// End every workload after so many seconds; what was done by then is reported, and is what the next one finds
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    pub phase_seconds: Option<u64>,
    /// End a workload that reads, or mixes reads and writes, after so many seconds; what loads, overwrites or deletes
    /// goes on to its end, so that the next one finds the same store with every engine
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    #[serde(default)]
    pub steady_seconds: Option<u64>,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            keys: 2_000_000,
            value_bytes: 100,
            key_bytes: 16,
            seed: 42,
            threads: 1,
            memory_mib: 512,
            memory_limit_mib: None,
            durability: Durability::Buffered,
            compression: Compression::None,
            block_bytes: 4096,
            reads: None,
            seeks: None,
            seek_entries: 10,
            scan_passes: 5,
            overwrite_passes: 3,
            syncs: 20_000,
            operations: None,
            seconds: 10,
            phase_seconds: None,
            steady_seconds: None,
        }
    }
}

impl Settings {
    /// The whole memory budget, in bytes.
    pub fn memory_bytes(&self) -> usize {
        self.memory_mib.saturating_mul(1 << 20)
    }

    /// The block cache's part of it, in bytes.
    pub fn cache_bytes(&self) -> usize {
        self.memory_bytes() / 2
    }

    /// How many memtables there may be, the active one and those that are being flushed.
    pub fn memtables(&self) -> u32 {
        4
    }

    /// The size of one memtable, in bytes.
    pub fn memtable_bytes(&self) -> usize {
        self.memory_bytes() / 2 / self.memtables() as usize
    }
}

/// A memory budget within its bounds.
pub(crate) fn parse_memory_mib(text: &str) -> Result<usize, String> {
    let bounds = MIN_MEMORY_MIB..=usize::MAX >> 20;
    let refused = || format!("must be {MIN_MEMORY_MIB} or more MiB");
    text.parse().ok().filter(|mib| bounds.contains(mib)).ok_or_else(refused)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        settings: Settings,
    }

    #[test]
    fn the_command_line_and_the_default_agree() {
        assert_eq!(Command::parse_from(["run"]).settings, Settings::default());
    }

    #[test]
    fn the_default_budget_is_a_cache_of_256_mib_and_memtables_of_64_mib() {
        let settings = Settings::default();
        assert_eq!((settings.cache_bytes(), settings.memtable_bytes()), (256 << 20, 64 << 20));
        assert!(Command::try_parse_from(["run", "--memory-mib", "7"]).is_err());
        assert!(Command::try_parse_from(["run", "--memory-mib", "18446744073709551615"]).is_err());
        assert_eq!(Command::parse_from(["run", "--memory-mib", "8"]).settings.memtable_bytes(), 1 << 20);
    }

    #[test]
    fn settings_of_older_results_are_read_with_defaults() {
        assert_eq!(serde_json::from_str::<Settings>("{\"keys\":7}").unwrap().keys, 7);
    }

    #[test]
    fn settings_survive_the_way_to_another_process() {
        let settings = Settings { durability: Durability::NoLog, reads: Some(7), ..Settings::default() };
        let json = serde_json::to_string(&settings).unwrap();
        assert_eq!(serde_json::from_str::<Settings>(&json).unwrap(), settings);
    }
}
