//! `peers`: suites of workloads on siltstone and its peers.

use clap::{Args, ValueEnum};

use crate::engines::EngineKind;
use crate::error::{Error, Result};
use crate::run::Session;
use crate::settings::{Compression, Settings};
use crate::suites::{self, SUITES, Selection, Suite};

use super::run::HowArgs;

#[derive(Debug, Args)]
#[command(after_help = suites_help())]
pub(super) struct PeersArgs {
    /// Which suites, in order, separated by commas [default: all]
    #[arg(long, value_delimiter = ',', value_parser = suites::find)]
    suite: Vec<&'static Suite>,
    /// Which engines, in order, separated by commas; all but siltstone and floor need a build with --features peers
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = EngineKind::COMPARED)]
    engines: Vec<EngineKind>,
    /// How many keys of 100 B values; of longer ones as many as give the same number of bytes
    #[arg(long, default_value_t = 2_000_000, value_parser = clap::value_parser!(u64).range(1..))]
    keys: u64,
    /// Only these lengths of values, in bytes
    #[arg(long, value_delimiter = ',')]
    value_bytes: Vec<usize>,
    /// Only these compressions
    #[arg(long, value_enum, value_delimiter = ',')]
    compression: Vec<Compression>,
    /// What keys, values and all orders follow from
    #[arg(long, default_value_t = 42)]
    seed: u64,
    /// The memory budget of an engine, in MiB: half of it for a block cache, half for four memtables
    #[arg(long, default_value_t = 512, value_parser = crate::settings::parse_memory_mib)]
    memory_mib: usize,
    /// End every workload after so many seconds; what was done by then is reported
    #[arg(long, default_value_t = 600, value_parser = clap::value_parser!(u64).range(1..))]
    phase_seconds: u64,
    /// End a workload that reads, or mixes reads and writes, after so many seconds; what loads, overwrites or deletes
    /// goes on to its end
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    steady_seconds: Option<u64>,
    /// Few keys, little memory, short phases: to see that all works, not to compare
    #[arg(long, conflicts_with_all = ["keys", "memory_mib"])]
    quick: bool,
    #[command(flatten)]
    how: HowArgs,
}

fn suites_help() -> String {
    SUITES.iter().fold("Suites:\n".to_owned(), |help, suite| help + &format!("  {:<8}{}\n", suite.name, suite.about))
}

impl PeersArgs {
    pub(super) fn execute(self) -> Result<()> {
        let sessions = self.sessions()?;
        self.how.execute(sessions)
    }

    fn sessions(&self) -> Result<Vec<Session>> {
        let settings = self.settings();
        let selection = Selection {
            engines: &self.engines,
            settings: &settings,
            value_bytes: &self.value_bytes,
            compressions: &self.compression,
        };
        let suites: Vec<&Suite> = if self.suite.is_empty() { SUITES.iter().collect() } else { self.suite.clone() };
        let mut sessions = Vec::new();
        for suite in suites {
            sessions.extend(suite.sessions(&selection)?);
        }
        if sessions.is_empty() {
            let compressions: Vec<_> =
                Compression::value_variants().iter().filter_map(|c| c.to_possible_value()).collect();
            let names: Vec<_> = compressions.iter().map(|value| value.get_name()).collect();
            return Err(Error::Settings(format!(
                "no session is left: the suites have values of 100 and 1024 bytes, compressions none and lz4-bottom (of {})",
                names.join(", ")
            )));
        }
        Ok(sessions)
    }

    fn settings(&self) -> Settings {
        let full = Settings {
            keys: self.keys,
            seed: self.seed,
            memory_mib: self.memory_mib,
            phase_seconds: Some(self.phase_seconds),
            steady_seconds: self.steady_seconds,
            ..Settings::default()
        };
        if !self.quick {
            return full;
        }
        let phase_seconds = Some(self.phase_seconds.min(30));
        Settings { keys: 50_000, memory_mib: 16, scan_passes: 1, syncs: 500, seconds: 1, phase_seconds, ..full }
    }
}
