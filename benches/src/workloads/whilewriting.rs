//! db_bench's `readwhilewriting`: one writer beside the readers.

use rand::RngExt;

use super::{CHUNK, Worker};
use crate::engines::Engine;
use crate::error::Result;

/// The last thread puts, all others get.
pub(super) fn work<E: Engine>(worker: &mut Worker<'_, E>) -> Result<()> {
    let is_writer = worker.number == worker.phase.settings.threads;
    if is_writer { put_until_over(worker) } else { super::read::get_uniform(worker) }
}

/// Puts records drawn at random, as fast as the engine takes them.
fn put_until_over<E: Engine>(worker: &mut Worker<'_, E>) -> Result<()> {
    let phase = worker.phase;
    // The complement tells its draws from those of the readers.
    let stream = !phase.number;
    let mut step = 0;
    while !phase.claims.is_over() {
        for _ in 0..CHUNK {
            let record = phase.data.random(stream, step).random_range(0..phase.records);
            worker.put(phase.ledger.id_of(record))?;
            step += 1;
        }
    }
    Ok(())
}
