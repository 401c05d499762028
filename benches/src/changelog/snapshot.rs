//! What a snapshot in an object store moves.

use std::time::Instant;

use siltstone_changelog::SnapshotStore;

use super::{Bench, Entries, Figures, failed};
use crate::error::Result;

/// Uploads a database, and again without a change, to a directory.
pub(super) fn measure(bench: &Bench, entries: &Entries) -> Result<Figures> {
    let db = bench.open("snapshotted")?;
    bench.fill(&db.keyspace("ks", Default::default()).map_err(failed)?, entries)?;
    db.wait_for_compaction().map_err(failed)?;
    let store = SnapshotStore::in_directory(bench.fresh("snapshots")?).map_err(failed)?;
    let upload = || {
        let (scratch, began) = (bench.fresh("snapshot-scratch")?, Instant::now());
        let uploaded = store.upload(&db, scratch).map_err(failed)?;
        Ok((uploaded, began.elapsed().as_secs_f64()))
    };
    let (first, first_seconds) = upload()?;
    let (again, again_seconds) = upload()?;
    Ok(vec![
        ("first upload, MB", first.bytes as f64 / 1e6),
        ("first upload, MB/s", first.bytes as f64 / 1e6 / first_seconds),
        ("unchanged: tables moved", again.tables as f64),
        ("unchanged: MB moved", again.bytes as f64 / 1e6),
        ("unchanged: seconds", again_seconds),
    ])
}
