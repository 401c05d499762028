//! A database comes back from a snapshot in an object store.
//!
//! ```sh
//! cargo run --release -p siltstone-changelog --features snapshot --example snapshot_restore
//! # in a bucket instead of a directory, with the feature snapshot-s3:
//! cargo run .. --example snapshot_restore -- s3://bucket/prefix aws_region=eu-central-1
//! ```
//!
//! A snapshot is made, the database grows, and a second one is made: only what is new goes up. Then both are restored.

use std::time::Instant;

use siltstone::{Db, Keyspace};
use siltstone_changelog::{Result, SnapshotOptions, SnapshotStore};

fn fill(ks: &Keyspace, numbers: std::ops::Range<u32>) -> Result<()> {
    for number in numbers {
        ks.put(number.to_be_bytes(), [number as u8; 100])?;
    }
    Ok(ks.flush()?)
}

fn main() -> Result<()> {
    let scratch = std::env::temp_dir().join(format!("siltstone-snapshots-{}", std::process::id()));
    let mut arguments = std::env::args().skip(1);
    let store = match arguments.next() {
        None => SnapshotStore::in_directory(scratch.join("store"))?,
        Some(url) => {
            let setting = |text: String| text.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned()));
            SnapshotStore::at(&url, arguments.filter_map(setting), SnapshotOptions::new())?
        }
    };
    let db = Db::open(scratch.join("db"))?;
    let ks = db.keyspace("numbers", Default::default())?;
    for numbers in [0..500_000, 500_000..600_000] {
        fill(&ks, numbers)?;
        let begun = Instant::now();
        let made = store.upload(&db, scratch.join("checkpoint"))?;
        println!(
            "{}: {} files with {} bytes uploaded in {:?}",
            made.snapshot.id,
            made.files,
            made.bytes,
            begun.elapsed()
        );
    }
    for (number, snapshot) in store.list()?.into_iter().enumerate() {
        let (directory, begun) = (scratch.join(format!("restored-{number}")), Instant::now());
        store.restore(&snapshot.id, &directory)?;
        let again = Db::open(&directory)?;
        let entries = again.keyspace("numbers", Default::default())?.iter().count();
        println!("{}: {entries} entries restored in {:?}", snapshot.id, begun.elapsed());
    }
    drop((ks, db));
    let _ = std::fs::remove_dir_all(scratch);
    Ok(())
}
