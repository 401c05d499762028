//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::compaction;
use crate::engines::{EngineKind, Floor, Siltstone};
use crate::error::{Error, Result};
use crate::run::{self, Plan};
use crate::session::{self, Line};
use crate::settings::Settings;
use crate::workloads::Workload;

/// Benchmarks of siltstone.
#[derive(Debug, Parser)]
#[command(version, about)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs workloads on all engines, in turn, and prints how they compare
    Run(RunArgs),
    /// Runs compaction strategies under workloads, and prints what each level cost, beside the formula
    Compaction(compaction::command::MeasureArgs),
    /// Simulates the same with the engine's own picker, at sizes up to many terabytes
    Simulate(compaction::command::SimulateArgs),
    /// One engine's part of a run; prints lines of JSON
    #[command(hide = true)]
    Session(SessionArgs),
    /// One run of `compaction`; prints a line of JSON
    #[command(hide = true)]
    CompactionSession(compaction::command::SessionArgs),
}

#[derive(Debug, Args)]
struct RunArgs {
    /// Which workloads, in order, separated by commas
    #[arg(value_enum, value_delimiter = ',', required = true)]
    workloads: Vec<Workload>,
    /// Which engines, in order, separated by commas
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [EngineKind::Siltstone, EngineKind::Floor])]
    engines: Vec<EngineKind>,
    #[command(flatten)]
    settings: Settings,
    /// How often to run everything; the report has medians
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    repeat: u32,
    /// Where to make the stores' directories, which are removed again [default: the system's temporary directory]
    #[arg(long)]
    dir: Option<PathBuf>,
    /// Append each measurement to this file, as a line of JSON
    #[arg(long)]
    json: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct SessionArgs {
    #[arg(value_enum, value_delimiter = ',', required = true)]
    workloads: Vec<Workload>,
    #[arg(long, value_enum)]
    engine: EngineKind,
    /// Settings as JSON
    #[arg(long)]
    settings: String,
    #[arg(long)]
    dir: PathBuf,
}

/// Does what the command line asks.
///
/// # Errors
/// [`Error::Sessions`] if an engine failed or answered wrongly, after the report was printed; otherwise what kept the
/// benchmark from running.
pub fn execute(cli: Cli) -> Result<()> {
    match cli.command {
        Command::Run(args) => execute_run(args),
        Command::Compaction(args) => compaction::run::compaction(&args),
        Command::Simulate(args) => compaction::run::simulation(&args),
        Command::Session(args) => execute_session(args),
        Command::CompactionSession(args) => compaction::run::session(&args),
    }
}

fn execute_run(args: RunArgs) -> Result<()> {
    let plan = Plan {
        workloads: args.workloads,
        engines: args.engines,
        settings: args.settings,
        repeat: args.repeat,
        dir: args.dir.unwrap_or_else(std::env::temp_dir),
        json: args.json,
    };
    let report = run::run(&plan)?;
    println!("{report}");
    if report.failures.is_empty() { Ok(()) } else { Err(Error::Sessions(report.failures)) }
}

fn execute_session(args: SessionArgs) -> Result<()> {
    let settings: Settings =
        serde_json::from_str(&args.settings).map_err(|error| Error::Settings(format!("settings: {error}")))?;
    let mut out = std::io::stdout().lock();
    let run = match args.engine {
        EngineKind::Siltstone => session::run::<Siltstone>,
        EngineKind::Floor => session::run::<Floor>,
    };
    let answer = run(&settings, &args.workloads, &args.dir, &mut out);
    if let Err(error) = &answer {
        session::print(&mut out, &Line::Failed(error.to_string()))?;
    }
    answer
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn lists_are_separated_by_commas_and_unknown_names_list_what_there_is() {
        let cli = Cli::try_parse_from(["x", "run", "fillrandom,scan", "--engines", "floor", "--keys", "10"]).unwrap();
        let Command::Run(args) = cli.command else { panic!("not a run") };
        assert_eq!(args.workloads, [Workload::FillRandom, Workload::Scan]);
        assert_eq!((args.engines, args.settings.keys), (vec![EngineKind::Floor], 10));
        let error = Cli::try_parse_from(["x", "run", "fillrandm"]).unwrap_err().to_string();
        assert!(error.contains("fillrandom") && error.contains("scanreverse"), "{error}");
        let error = Cli::try_parse_from(["x", "run", "scan", "--engines", "leveldb"]).unwrap_err().to_string();
        assert!(error.contains("siltstone, floor"), "{error}");
        assert!(Cli::try_parse_from(["x", "run"]).is_err());
        assert!(Cli::try_parse_from(["x", "run", "scan", "--threads", "0"]).is_err());
    }
}
