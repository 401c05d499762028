//! The production model; its distributions are in [`crate::data::mixgraph`].

use rand::RngExt;

use super::Worker;
use crate::data::mixgraph::{self, HotRanges};
use crate::engines::{Direction, Engine};
use crate::error::Result;

/// Gets, puts and seeks over hot ranges of the keys that fills write, at full rate. Puts have values of variable size;
/// a seek reads as many entries as the model says, at least the first.
pub(super) fn work<E: Engine>(worker: &mut Worker<'_, E>) -> Result<()> {
    let phase = worker.phase;
    let ranges = HotRanges::new(phase.data.keys(), phase.settings.seed);
    let [gets, puts] = mixgraph::MIX_RATIO;
    while let Some(steps) = phase.claims.claim() {
        for step in steps {
            let mut random = phase.data.random(phase.number, step);
            let id = phase.data.loaded(ranges.draw(&mut random));
            let kind: f64 = random.random();
            if kind < gets {
                worker.get(id)?;
            } else if kind < gets + puts {
                worker.put(id)?;
            } else {
                worker.seek(id, Direction::Forward, mixgraph::scan_len(&mut random).max(1))?;
            }
        }
    }
    Ok(())
}
