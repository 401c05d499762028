//! Gets.

use rand::RngExt;

use super::Worker;
use crate::data::Scrambled;
use crate::engines::Engine;
use crate::error::Result;

/// Gets records drawn at random.
pub(super) fn get_uniform<E: Engine>(worker: &mut Worker<'_, E>) -> Result<()> {
    let phase = worker.phase;
    while let Some(steps) = phase.claims.claim() {
        for step in steps {
            let record = phase.data.random(phase.number, step).random_range(0..phase.records);
            worker.get(phase.ledger.id_of(record))?;
        }
    }
    Ok(())
}

/// Gets records of which few are popular, anywhere among the keys.
pub(super) fn get_zipf<E: Engine>(worker: &mut Worker<'_, E>) -> Result<()> {
    let phase = worker.phase;
    let records = Scrambled::new(phase.records, phase.settings.seed)?;
    while let Some(steps) = phase.claims.claim() {
        for step in steps {
            let record = records.draw(&mut phase.data.random(phase.number, step));
            worker.get(phase.ledger.id_of(record))?;
        }
    }
    Ok(())
}

/// Gets keys that were never written.
pub(super) fn get_missing<E: Engine>(worker: &mut Worker<'_, E>) -> Result<()> {
    let phase = worker.phase;
    while let Some(steps) = phase.claims.claim() {
        for step in steps {
            worker.get_missing(phase.data.random(phase.number, step).random_range(0..phase.data.keys()))?;
        }
    }
    Ok(())
}
