//! The command lines of `compaction` and `simulate`.

use std::path::PathBuf;

use clap::Args;
use siltstone::internals::strategy::Strategy;

use super::scale::Scale;
use super::workload::Workload;
use crate::error::{Error, Result};

/// What both commands are told.
#[derive(Debug, Args)]
pub struct Selection {
    /// Which workloads, separated by commas [default: all]
    #[arg(long, value_enum, value_delimiter = ',')]
    pub workloads: Vec<Workload>,
    /// Which strategies, separated by commas: `leveled`, `leveled+ratio=4+picker=round-robin` and so on [default: the
    /// defaults, and each setting that is worth a comparison]
    #[arg(long, value_delimiter = ',')]
    pub strategies: Vec<Strategy>,
    /// A small run of everything
    #[arg(long)]
    pub quick: bool,
    /// Where to make the stores' directories, which are removed again [default: the system's temporary directory]
    #[arg(long)]
    pub dir: Option<PathBuf>,
    /// Append each outcome to this file, as a line of JSON
    #[arg(long)]
    pub json: Option<PathBuf>,
}

/// `compaction`: runs of the engine.
#[derive(Debug, Args)]
pub struct MeasureArgs {
    /// Of what
    #[command(flatten)]
    pub selection: Selection,
    /// How much
    #[command(flatten)]
    pub scale: Scale,
    /// Run each paced and with one thread, simulate the same, and print both side by side; fails where they are farther
    /// apart than the simulator's tolerance
    #[arg(long)]
    pub check: bool,
}

/// `simulate`: the same without the engine, at any size.
#[derive(Debug, Args)]
pub struct SimulateArgs {
    /// Of what
    #[command(flatten)]
    pub selection: Selection,
    /// How much
    #[command(flatten)]
    pub scale: Scale,
    /// How much data, in GiB, instead of a number of keys; memtables are then of 128 MiB unless said otherwise
    #[arg(long, conflicts_with = "keys", value_parser = clap::value_parser!(u64).range(1..=1 << 30))]
    pub data_gib: Option<u64>,
}

/// One part of a comparison, in a process of its own.
#[derive(Debug, Args)]
pub struct SessionArgs {
    /// What to run, as JSON
    #[arg(long)]
    pub spec: String,
    /// Where to make the store's directory
    #[arg(long)]
    pub dir: PathBuf,
}

impl Selection {
    /// Every workload with every strategy, in order.
    pub fn pairs(&self) -> Vec<(Workload, Strategy)> {
        use clap::ValueEnum;
        let workloads = if self.workloads.is_empty() { Workload::value_variants() } else { &self.workloads };
        let strategies = if self.strategies.is_empty() { Strategy::all() } else { self.strategies.clone() };
        let with_all = |&workload| strategies.iter().map(move |strategy| (workload, strategy.clone()));
        workloads.iter().flat_map(with_all).collect()
    }

    /// Where directories are made.
    pub fn directory(&self) -> PathBuf {
        self.dir.clone().unwrap_or_else(std::env::temp_dir)
    }
}

impl MeasureArgs {
    /// The scale that these ask for.
    ///
    /// # Errors
    /// [`Error::Settings`] for one that no run can have.
    pub fn scale(&self) -> Result<Scale> {
        let scale = if self.selection.quick { self.scale.clone().quick() } else { self.scale.clone() };
        // One thread and a pause after each memtable: then the engine does what the simulator does.
        let scale = if self.check { Scale { paced: true, background_threads: 1, ..scale } } else { scale };
        scale.check()?;
        Ok(scale)
    }
}

impl SimulateArgs {
    /// The scale that these ask for.
    ///
    /// # Errors
    /// [`Error::Settings`] for one that no run can have.
    pub fn scale(&self) -> Result<Scale> {
        let mut scale = if self.selection.quick { self.scale.clone().quick() } else { self.scale.clone() };
        if let Some(gib) = self.data_gib {
            let entry = (scale.key_bytes + scale.value_bytes).max(1) as u64;
            scale.keys = (u128::from(gib) << 30).div_euclid(entry.into()).try_into().unwrap_or(u64::MAX);
            if scale.memtable_kib == Scale::default().memtable_kib {
                scale.memtable_kib = 128 << 10;
            }
        }
        scale.check()?;
        Ok(scale)
    }
}

/// Reads what a session is to run.
///
/// # Errors
/// [`Error::Settings`].
pub(super) fn from_json<T: serde::de::DeserializeOwned>(json: &str) -> Result<T> {
    serde_json::from_str(json).map_err(|error| Error::Settings(format!("the session's specification: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    enum Command {
        Compaction(MeasureArgs),
        Simulate(SimulateArgs),
    }

    fn measure(args: &[&str]) -> std::result::Result<MeasureArgs, clap::Error> {
        match Command::try_parse_from(["x", "compaction"].iter().chain(args))? {
            Command::Compaction(args) => Ok(args),
            Command::Simulate(_) => panic!("not what was asked for"),
        }
    }

    fn simulate(args: &[&str]) -> SimulateArgs {
        match Command::try_parse_from(["x", "simulate"].iter().chain(args)).unwrap() {
            Command::Simulate(args) => args,
            Command::Compaction(_) => panic!("not what was asked for"),
        }
    }

    #[test]
    fn everything_is_run_unless_told_otherwise() {
        assert_eq!(measure(&[]).unwrap().selection.pairs().len(), 7 * Strategy::all().len());
        let args = measure(&["--workloads", "zipf,uniform", "--strategies", "leveled,leveled+ratio=4"]).unwrap();
        let pairs = args.selection.pairs();
        assert_eq!(
            (pairs.len(), pairs[1].0, pairs[1].1.to_string()),
            (4, Workload::Zipf, "leveled+ratio=4".to_owned())
        );
    }

    #[test]
    fn unknown_names_list_what_there_is() {
        let error = measure(&["--workloads", "zip"]).unwrap_err().to_string();
        assert!(error.contains("overwrite-heavy") && error.contains("growing-values"), "{error}");
        let error = measure(&["--strategies", "tierd"]).unwrap_err().to_string();
        assert!(error.contains("leveled") && error.contains("round-robin"), "{error}");
        assert!(measure(&["--passes", "0"]).is_err());
    }

    #[test]
    fn a_check_is_paced_and_single_threaded() {
        let scale = measure(&["--check", "--quick"]).unwrap().scale().unwrap();
        assert!(scale.paced && scale.background_threads == 1 && scale.keys < Scale::default().keys);
        assert!(measure(&["--keys", "0"]).unwrap().scale().is_err());
    }

    #[test]
    fn data_can_be_given_in_gib() {
        let scale = simulate(&["--data-gib", "10240"]).scale().unwrap();
        assert_eq!((scale.keys, scale.memtable_kib), ((10 << 40) / 116, 128 << 10));
        let scale = simulate(&["--data-gib", "1", "--memtable-kib", "2048"]).scale().unwrap();
        assert_eq!((scale.keys, scale.memtable_kib), ((1 << 30) / 116, 2048));
        assert!(Command::try_parse_from(["x", "simulate", "--data-gib", "1", "--keys", "5"]).is_err());
    }
}
