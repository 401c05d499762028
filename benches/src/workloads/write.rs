//! Puts and deletes.

use std::ops::Range;

use super::Worker;
use crate::engines::Engine;
use crate::error::Result;

/// Puts version `version` of the key that `order` names, for each step.
pub(super) fn put_all<E: Engine>(
    worker: &mut Worker<'_, E>,
    version: u64,
    steps: Range<u64>,
    order: impl Fn(u64) -> u64,
) -> Result<u64> {
    let puts = steps.end - steps.start;
    for step in steps {
        let id = order(step);
        worker.data.key(id, &mut worker.key);
        worker.data.value(id, version, &mut worker.value);
        worker.recorder.time(|| worker.engine.put(&worker.key, &worker.value))?;
        worker.advance(step);
    }
    Ok(puts)
}

/// Deletes the doomed ones among the keys of `steps`.
pub(super) fn delete_doomed<E: Engine>(worker: &mut Worker<'_, E>, steps: Range<u64>) -> Result<u64> {
    let order = worker.data.order(0);
    let mut deletes = 0;
    for step in steps {
        let id = order.at(step);
        if worker.data.is_doomed(id) {
            worker.data.key(id, &mut worker.key);
            worker.recorder.time(|| worker.engine.delete(&worker.key))?;
            deletes += 1;
        }
        worker.advance(step);
    }
    Ok(deletes)
}
