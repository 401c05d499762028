//! A standby takes over when the owner is lost, and the owner's late writes do not count.
//!
//! ```sh
//! cargo run --release -p siltstone-changelog --example standby_failover
//! ```
//!
//! The owner counts in a database and ships each change to a log on disk. A standby follows that log into a database of
//! its own, and can be read meanwhile. Then the owner is gone in the middle of its work; the standby is promoted and goes
//! on counting where the log ends.

use std::path::Path;
use std::time::Duration;

use siltstone::{Db, Keyspace};
use siltstone_changelog::{FileSink, FileSource, Result, ShipOptions, Standby, ship};

const KEY: &str = "count";

fn count(counts: &Keyspace) -> Result<u64> {
    let value = counts.get(KEY)?;
    Ok(value.and_then(|value| value.first_chunk().map(|bytes| u64::from_le_bytes(*bytes))).unwrap_or(0))
}

/// Counts `times` further, and ships that to the log in `log`.
fn work(db: &Db, log: &Path, times: u64) -> Result<()> {
    let shipper = ship(db, FileSink::open(log)?, ShipOptions::new())?;
    let counts = db.keyspace("counts", Default::default())?;
    for _ in 0..times {
        counts.put(KEY, (count(&counts)? + 1).to_le_bytes())?;
    }
    shipper.stop()?;
    Ok(())
}

fn main() -> Result<()> {
    let scratch = std::env::temp_dir().join(format!("siltstone-failover-{}", std::process::id()));
    let (owner, standby, log) = (scratch.join("owner"), scratch.join("standby"), scratch.join("log"));
    let db = Db::open(&owner)?;
    let following = Standby::follow(FileSource::open(&log), &standby)?;

    work(&db, &log, 100_000)?;
    println!("the owner counted to {}", count(&db.keyspace("counts", Default::default())?)?);
    following.wait_until_caught_up(Duration::from_secs(60));
    let (_, position) = following.snapshot();
    println!("the standby has everything up to position {position}");

    // The owner's machine is lost, with everything on it.
    drop(db);
    let (promoted, sink) = following.promote_with(|| FileSink::open(&log))?;
    drop(sink);
    work(&promoted, &log, 23)?;
    let counted = count(&promoted.keyspace("counts", Default::default())?)?;
    println!("the standby took over and counted to {counted}");
    assert_eq!(counted, 100_023);
    drop(promoted);
    let _ = std::fs::remove_dir_all(scratch);
    Ok(())
}
