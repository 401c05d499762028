//! The command line of `changelog`.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::PathBuf;

use clap::{Args, ValueEnum};

#[cfg(feature = "kafka")]
use super::kafka;
use super::report::Report;
#[cfg(feature = "snapshot")]
use super::snapshot;
use super::{Bench, restore, shipping, standby};
use crate::error::{Error, Result};
use crate::machine;

/// A part of the suite.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Part {
    /// What shipping costs the writer
    Shipping,
    /// How fast a log is restored
    Restore,
    /// How far a standby is behind
    Standby,
    /// What a snapshot in an object store moves
    #[cfg(feature = "snapshot")]
    Snapshot,
    /// How fast a log in Kafka is restored; with `--kafka` only
    #[cfg(feature = "kafka")]
    Kafka,
}

/// `changelog`: shipping, restoring, following.
#[derive(Debug, Args)]
pub struct ChangelogArgs {
    /// Which parts, separated by commas [default: all]
    #[arg(long, value_enum, value_delimiter = ',')]
    parts: Vec<Part>,
    /// How many records
    #[arg(long, default_value_t = 5_000_000, value_parser = clap::value_parser!(u64).range(1..))]
    keys: u64,
    /// How long their values are, in bytes; keys have 16
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(0..=1 << 20))]
    value_bytes: u32,
    /// How much memory each database may use, in MiB
    #[arg(long, default_value_t = 512, value_parser = clap::value_parser!(u32).range(4..))]
    memory_mib: u32,
    /// How often
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    repeat: u32,
    /// Where a Kafka broker is, for example localhost:9092
    #[cfg(feature = "kafka")]
    #[arg(long)]
    kafka: Option<String>,
    /// Where to make directories, which are removed again [default: the system's temporary directory]
    #[arg(long)]
    dir: Option<PathBuf>,
    /// Append each figure to this file, as a line of JSON
    #[arg(long)]
    json: Option<PathBuf>,
}

/// Measures, and prints a table.
///
/// # Errors
/// Whatever keeps a part from being measured; what was measured by then is printed.
pub fn execute(args: &ChangelogArgs) -> Result<()> {
    let root = args.dir.clone().unwrap_or_else(std::env::temp_dir);
    std::fs::create_dir_all(&root).map_err(Error::io(&root))?;
    let scratch =
        tempfile::Builder::new().prefix("siltstone-changelog-").tempdir_in(&root).map_err(Error::io(&root))?;
    let bench = Bench {
        directory: scratch.path().to_owned(),
        keys: args.keys,
        value_bytes: args.value_bytes as usize,
        memory_bytes: (args.memory_mib as usize) << 20,
    };
    println!("{}", machine::describe_with(&root));
    println!(
        "{} records, keys of 16 B, values of {} B, {} MiB of memory\n",
        args.keys, args.value_bytes, args.memory_mib
    );
    let mut report = Report::default();
    let measured = measure(args, &bench, &mut report);
    println!("{}", report.table());
    if let Some(path) = &args.json {
        let mut file = OpenOptions::new().create(true).append(true).open(path).map_err(Error::io(path))?;
        for figure in report.figures() {
            let line = serde_json::to_string(figure).map_err(|error| Error::Settings(error.to_string()))?;
            writeln!(file, "{line}").map_err(Error::io(path))?;
        }
    }
    measured
}

fn measure(args: &ChangelogArgs, bench: &Bench, report: &mut Report) -> Result<()> {
    let parts = if args.parts.is_empty() { Part::value_variants() } else { &args.parts };
    let entries = bench.entries();
    if parts.contains(&Part::Restore) {
        eprintln!("making the log that is restored");
        restore::prepare(bench, &entries)?;
    }
    #[cfg(feature = "kafka")]
    let kafka = match &args.kafka {
        Some(address) if parts.contains(&Part::Kafka) => Some(kafka::Log::prepare(bench, &entries, address)?),
        _ => None,
    };
    for repetition in 1..=args.repeat {
        for part in parts {
            eprintln!("repetition {repetition} of {}: {part:?}", args.repeat);
            match part {
                Part::Shipping => report.add("shipping", shipping::measure(bench, &entries)?),
                Part::Restore => report.add("restore", restore::measure(bench, &entries)?),
                Part::Standby => report.add("standby", standby::measure(bench, &entries)?),
                #[cfg(feature = "snapshot")]
                Part::Snapshot => report.add("snapshot", snapshot::measure(bench, &entries)?),
                #[cfg(feature = "kafka")]
                Part::Kafka => {
                    if let Some(log) = &kafka {
                        report.add("kafka", log.measure(bench)?);
                    }
                }
            }
        }
    }
    Ok(())
}
