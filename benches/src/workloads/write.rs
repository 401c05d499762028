//! Puts and deletes of what is there.

use super::Worker;
use crate::engines::Engine;
use crate::error::Result;

/// Tells the orders of the passes apart.
const PASS_SHIFT: u32 = 32;

/// Puts every record that was written, in another random order in each pass.
pub(super) fn overwrite<E: Engine>(worker: &mut Worker<'_, E>) -> Result<()> {
    let phase = worker.phase;
    let records = phase.records;
    let order_of = |pass: u64| phase.data.order_of(records, phase.number | (pass + 1) << PASS_SHIFT);
    let (mut pass, mut order) = (0, order_of(0));
    while let Some(steps) = phase.claims.claim() {
        for step in steps {
            if step / records != pass {
                pass = step / records;
                order = order_of(pass);
            }
            worker.put(phase.ledger.id_of(order.at(step % records)))?;
        }
    }
    Ok(())
}

/// Writes into tables what is in memory.
pub(super) fn flush<E: Engine>(worker: &mut Worker<'_, E>) -> Result<()> {
    while let Some(steps) = worker.phase.claims.claim() {
        for _ in steps {
            worker.flush()?;
        }
    }
    Ok(())
}

/// Deletes the doomed ones among the records that have a value.
pub(super) fn delete_doomed<E: Engine>(worker: &mut Worker<'_, E>) -> Result<()> {
    let phase = worker.phase;
    let order = phase.data.order_of(phase.records, phase.number);
    while let Some(steps) = phase.claims.claim() {
        for step in steps {
            let id = phase.ledger.id_of(order.at(step));
            if phase.data.is_doomed(id) && phase.ledger.know(id).is_live() {
                worker.delete(id)?;
            }
        }
    }
    Ok(())
}
