//! The words of real text as local state that survives the loss of its machine.
//!
//! `cargo run --release --example word_state -- [FILES...]` streams every word through two keyspaces, a counter and an
//! inverted index, and ships the database's log into a directory of files. Then it deletes the database as if the
//! machine were lost, restores it from the log, and compares every key and value. A second run takes up where the first
//! one stopped.

mod compare;
mod input;
mod report;
mod words;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;
use siltstone::{Db, Options};
use siltstone_changelog::{FileSink, FileSource, Restore, ShipOptions, Source, ship};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// Counts and indexes the words of text files in a siltstone database, loses the database, and restores it from its
/// log.
#[derive(Parser)]
struct Arguments {
    /// Files and directories (walked for text and sources); `-` is standard input. Default: this repository's own text.
    files: Vec<PathBuf>,
    /// Where the state is kept between runs.
    #[arg(long)]
    dir: Option<PathBuf>,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<bool> {
    let dir = arguments.dir.clone().unwrap_or_else(|| std::env::temp_dir().join("siltstone-word-state"));
    let (database, log) = (dir.join("database"), dir.join("log"));
    println!("state in {}", dir.display());

    // Open what an earlier run left, or, if the machine was lost, what its log holds.
    let sink = FileSink::open(&log)?;
    let db = open(&database, &log)?;
    let shipper = ship(&db, sink, ShipOptions::new())?;

    let counted = words::count(&db, &input::find(&arguments.files)?)?;
    let lag = shipper.lag();
    let started = Instant::now();
    let position = shipper.flush()?;
    let flushed = started.elapsed();
    report::counted(&counted);
    report::gets(&words::read_back(&db)?);
    report::shipped(&shipper.status(), lag, flushed, &position);
    println!("\n{}", db.metrics());

    // A moment to compare with, then the machine is lost.
    let before = dir.join("before");
    remove(&before)?;
    shipper.stop()?;
    db.close()?;
    std::fs::rename(&database, &before)?;

    let (restored, position) = restore(&database, &log)?;
    let before_db = Options::new().read_only(true).open(&before)?;
    let difference = compare::first_difference(&before_db, &restored)?;
    before_db.close()?;
    remove(&before)?;
    println!("position {position}");
    match &difference {
        None => println!("identical: yes"),
        Some(difference) => println!("identical: no\nfirst difference: {difference}"),
    }
    Ok(difference.is_none())
}

/// The database of an earlier run; without one, or with a restore that was interrupted, the one that the log tells of.
fn open(database: &Path, log: &Path) -> Result<Db> {
    let (oldest, newest) = FileSource::open(log).bounds()?;
    let restoring = database.with_file_name("restoring").exists();
    if newest != oldest && (restoring || !database.exists()) {
        println!("the database is missing: restoring it");
        return Ok(restore(database, log)?.0);
    }
    Ok(Options::new().open(database)?)
}

/// Restores the database from the log. A note beside it says so while it lasts, so that the next run goes on with it.
fn restore(database: &Path, log: &Path) -> Result<(Db, String)> {
    let note = database.with_file_name("restoring");
    std::fs::write(&note, "")?;
    let (bar, progress) = report::restoring();
    let started = Instant::now();
    let source = FileSource::open(log);
    let (db, position) = match Restore::new(source).into(database).on_progress(progress).run() {
        // It was finished, and only the note is left.
        Err(siltstone_changelog::Error::NotEmpty { .. }) => return reopen(database, &note),
        restored => restored?,
    };
    report::restored(&bar, started.elapsed());
    std::fs::remove_file(&note)?;
    Ok((db, position.to_string()))
}

fn reopen(database: &Path, note: &Path) -> Result<(Db, String)> {
    let db = Options::new().open(database)?;
    std::fs::remove_file(note)?;
    Ok((db, String::new()))
}

fn remove(dir: &Path) -> Result<()> {
    match std::fs::remove_dir_all(dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
        _ => Ok(()),
    }
}
