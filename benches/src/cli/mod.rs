//! The command line.

mod peers;
mod report;
mod run;
mod session;

use clap::{Parser, Subcommand};

use crate::error::{Error, Result};
use crate::report::Report;
use crate::run::Results;
use crate::{changelog, compaction};

pub(crate) use session::{FILL_LOG, REOPEN, SESSION};

/// Benchmarks of siltstone.
#[derive(Debug, Parser)]
#[command(version, about)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs workloads on engines, in turn, and prints how they compare
    Run(run::RunArgs),
    /// Runs whole suites of workloads on siltstone and its peers, and prints how they compare
    Peers(peers::PeersArgs),
    /// Runs compaction strategies under workloads, and prints what each level cost, beside the formula
    Compaction(compaction::command::MeasureArgs),
    /// Simulates the same with the engine's own picker, at sizes up to many terabytes
    Simulate(compaction::command::SimulateArgs),
    /// Measures shipping, restoring and following a log
    Changelog(changelog::ChangelogArgs),
    /// Makes a report of results files, those of several runs together
    Report(report::ReportArgs),
    /// One engine's part of a run; prints lines of JSON
    #[command(hide = true, name = SESSION)]
    Session(session::SessionArgs),
    /// The part of a crash that is killed
    #[command(hide = true, name = FILL_LOG)]
    FillLog(session::SessionArgs),
    /// The part of a crash that opens what is there
    #[command(hide = true, name = REOPEN)]
    Reopen(session::SessionArgs),
    /// One run of `compaction`; prints a line of JSON
    #[command(hide = true)]
    CompactionSession(compaction::command::SessionArgs),
}

/// Does what the command line asks.
///
/// # Errors
/// [`Error::Sessions`] if an engine failed or answered wrongly, after the report was printed; otherwise what kept the
/// benchmark from running.
pub fn execute(cli: Cli) -> Result<()> {
    match cli.command {
        Command::Run(args) => args.execute(),
        Command::Peers(args) => args.execute(),
        Command::Compaction(args) => compaction::run::compaction(&args),
        Command::Simulate(args) => compaction::run::simulation(&args),
        Command::Changelog(args) => changelog::execute(&args),
        Command::Report(args) => args.execute(),
        Command::Session(args) => args.run(),
        Command::FillLog(args) => args.fill_log(),
        Command::Reopen(args) => args.reopen(),
        Command::CompactionSession(args) => compaction::run::session(&args),
    }
}

/// Reports what came of a run.
///
/// # Errors
/// [`Error::Sessions`] and those that keep results from being complete.
fn conclude(results: Results, out: &report::OutArgs) -> Result<()> {
    let report = Report::new(&results.records);
    out.give(&report)?;
    results.written?;
    if results.interrupted {
        return Err(Error::Interrupted);
    }
    let failures = report.failures();
    if failures.is_empty() { Ok(()) } else { Err(Error::Sessions(failures)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engines::EngineKind;
    use crate::workloads::Workload;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn lists_are_separated_by_commas_and_unknown_names_list_what_there_is() {
        let list = "fillrandom,scan,readrandom:threads=2";
        let cli = Cli::try_parse_from(["x", "run", list, "--engines", "floor", "--keys", "10"]).unwrap();
        let Command::Run(args) = cli.command else { panic!("not a run") };
        let session = args.session();
        assert_eq!(session.steps[..2], [Workload::FillRandom.into(), Workload::Scan.into()]);
        assert_eq!(session.steps[2].threads, Some(2));
        assert_eq!((session.engines, session.settings.keys), (vec![EngineKind::Floor], 10));
        let error = Cli::try_parse_from(["x", "run", "fillrandm"]).unwrap_err().to_string();
        assert!(error.contains("fillrandom") && error.contains("scanreverse"), "{error}");
        let error = Cli::try_parse_from(["x", "run", "scan", "--engines", "leveldb"]).unwrap_err().to_string();
        assert!(error.contains("siltstone, rocksdb"), "{error}");
        assert!(Cli::try_parse_from(["x", "run"]).is_err());
        assert!(Cli::try_parse_from(["x", "run", "scan", "--threads", "0"]).is_err());
        assert!(Cli::try_parse_from(["x", "run", "scan", "--session-limit", "0"]).is_err());
    }

    #[test]
    fn a_report_needs_results() {
        assert!(Cli::try_parse_from(["x", "report"]).is_err());
        let cli = Cli::try_parse_from(["x", "report", "a.jsonl", "b.jsonl", "--html", "c.html"]).unwrap();
        assert!(matches!(cli.command, Command::Report(_)));
        let Err(error) = execute(cli) else { panic!("there are no such files") };
        assert!(error.to_string().contains("a.jsonl"), "{error}");
    }

    #[test]
    fn unknown_suites_list_what_there_is() {
        let error = Cli::try_parse_from(["x", "peers", "--suite", "fil"]).unwrap_err().to_string();
        assert!(error.contains("update") && error.contains("crash"), "{error}");
    }
}
