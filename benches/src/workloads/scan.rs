//! Seeks and scans.

use rand::RngExt;

use super::Worker;
use crate::engines::{Direction, Engine};
use crate::error::Result;

/// Seeks to records drawn at random, and reads some entries from there on.
pub(super) fn seek_uniform<E: Engine>(worker: &mut Worker<'_, E>, direction: Direction) -> Result<()> {
    let phase = worker.phase;
    let limit = phase.settings.seek_entries;
    while let Some(steps) = phase.claims.claim() {
        for step in steps {
            let record = phase.data.random(phase.number, step).random_range(0..phase.records);
            worker.seek(phase.ledger.id_of(record), direction, limit)?;
        }
    }
    Ok(())
}

/// Reads all entries, once a step.
pub(super) fn pass_over_all<E: Engine>(worker: &mut Worker<'_, E>, direction: Direction) -> Result<()> {
    let phase = worker.phase;
    while let Some(passes) = phase.claims.claim() {
        for _ in passes {
            worker.scan(direction)?;
        }
    }
    Ok(())
}
