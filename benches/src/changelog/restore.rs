//! How fast a log in files becomes a database again.

use std::path::Path;
use std::time::Instant;

use siltstone::{Change, Db};
use siltstone_changelog::{FileSink, FileSource, Restore, ShipOptions, Source, ship};

use super::{Bench, Entries, Figures, failed};
use crate::error::{Error, Result};

/// Makes the log that is restored.
pub(super) fn prepare(bench: &Bench, entries: &Entries) -> Result<()> {
    let log = bench.fresh("restored-log")?;
    let db = bench.open("origin")?;
    let shipper = ship(&db, FileSink::open(log).map_err(failed)?, ShipOptions::new()).map_err(failed)?;
    bench.fill(&db.keyspace("ks", Default::default()).map_err(failed)?, entries)?;
    shipper.stop().map_err(failed)?;
    drop(db);
    bench.fresh("origin").map(drop)
}

/// Reads the log alone, restores it sorted and batch by batch, and replays it through `put`; thousand records a second.
pub(super) fn measure(bench: &Bench, entries: &Entries) -> Result<Figures> {
    let log = bench.directory.join("restored-log");
    let records = |seconds: f64| bench.keys as f64 / seconds / 1e3;
    let read = records(read(&log)?);

    let began = Instant::now();
    let restore = Restore::new(FileSource::open(&log)).into_with(bench.fresh("restored")?, bench.options());
    let (db, _) = restore.run().map_err(failed)?;
    let restored = records(began.elapsed().as_secs_f64());
    check(&db, bench, entries)?;
    db.wait_for_compaction().map_err(failed)?;
    let idle = records(began.elapsed().as_secs_f64());
    drop(db);

    let began = Instant::now();
    let restore = Restore::new(FileSource::open(&log)).into_with(bench.fresh("restored")?, bench.options());
    let (db, _) = restore.chunk_bytes(0).run().map_err(failed)?;
    let unsorted = records(began.elapsed().as_secs_f64());
    drop(db);

    let replayed = records(replay(&log, &bench.open("restored")?)?);
    Ok(vec![
        ("read only, thousand records/s", read),
        ("restored, thousand records/s", restored),
        ("restored, to idle, thousand records/s", idle),
        ("batch by batch, thousand records/s", unsorted),
        ("replayed through put, thousand records/s", replayed),
        ("restored / replayed", restored / replayed),
    ])
}

fn read(log: &Path) -> Result<f64> {
    let began = Instant::now();
    let source = FileSource::open(log);
    let (oldest, _) = source.bounds().map_err(failed)?;
    for batch in source.read(&oldest).map_err(failed)? {
        batch.map_err(failed)?;
    }
    Ok(began.elapsed().as_secs_f64())
}

/// What a program would do that has nothing but the log and a database: each record is put.
fn replay(log: &Path, db: &Db) -> Result<f64> {
    let began = Instant::now();
    let keyspace = db.keyspace("ks", Default::default()).map_err(failed)?;
    let source = FileSource::open(log);
    let (oldest, _) = source.bounds().map_err(failed)?;
    for batch in source.read(&oldest).map_err(failed)? {
        for change in batch.map_err(failed)?.1.changes() {
            match change {
                Change::Put { key, value, .. } => keyspace.put(key, value).map_err(failed)?,
                Change::Delete { key, .. } => keyspace.delete(key).map_err(failed)?,
                _ => continue,
            };
        }
    }
    db.sync().map_err(failed)?;
    Ok(began.elapsed().as_secs_f64())
}

/// A restore that is wrong is no figure.
fn check(db: &Db, bench: &Bench, entries: &Entries) -> Result<()> {
    let keyspace = db.keyspace("ks", Default::default()).map_err(failed)?;
    for n in (0..bench.keys).step_by(1009) {
        let value = keyspace.get(entries.key(n)).map_err(failed)?;
        if value.as_deref() != Some(entries.value(n)) {
            return Err(Error::WrongAnswer(format!("key {n} was restored as {value:?}")));
        }
    }
    Ok(())
}
