//! The core workloads of YCSB (Cooper et al., SoCC 2010; `workloads/workloada` to `workloadf` of its source): the same
//! shares of operations and the same distributions. A record is one key with one value: reads read all of it, writes
//! replace all of it.

use rand::RngExt;
use rand::rngs::SmallRng;

use super::{Phase, Worker};
use crate::data::{Latest, Scrambled};
use crate::engines::{Direction, Engine};
use crate::error::Result;

/// The longest scan, `maxscanlength`; lengths are uniform from 1 on.
const MAX_SCAN_ENTRIES: usize = 100;

/// The operations of a workload.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mix {
    /// The share of `writes`; the rest are `reads`.
    write_proportion: f64,
    writes: Writes,
    reads: Reads,
}

#[derive(Clone, Copy, Debug)]
enum Writes {
    /// Of a popular record.
    Put,
    /// Of a record that was not there.
    Insert,
    /// Of a popular record.
    ReadModifyWrite,
}

#[derive(Clone, Copy, Debug)]
enum Reads {
    /// Of a popular record.
    Get,
    /// Of one of the newest.
    GetLatest,
    /// From a popular record on.
    Scan,
}

/// Update heavy.
pub(super) const A: Mix = Mix { write_proportion: 0.5, writes: Writes::Put, reads: Reads::Get };
/// Read mostly.
pub(super) const B: Mix = Mix { write_proportion: 0.05, ..A };
/// Read only.
pub(super) const C: Mix = Mix { write_proportion: 0.0, ..A };
/// Read latest.
pub(super) const D: Mix = Mix { write_proportion: 0.05, writes: Writes::Insert, reads: Reads::GetLatest };
/// Short ranges.
pub(super) const E: Mix = Mix { reads: Reads::Scan, ..D };
/// Read-modify-write.
pub(super) const F: Mix = Mix { writes: Writes::ReadModifyWrite, ..A };

/// The records of a phase.
struct Records {
    popular: Scrambled,
    latest: Latest,
}

impl Records {
    fn new(phase: &Phase<'_>) -> Result<Self> {
        let popular = Scrambled::new(phase.records, phase.settings.seed)?;
        Ok(Records { popular, latest: Latest::new(phase.records)? })
    }
}

/// Does the operations of `mix`.
pub(super) fn work<En: Engine>(worker: &mut Worker<'_, En>, mix: Mix) -> Result<()> {
    let phase = worker.phase;
    let records = Records::new(phase)?;
    while let Some(steps) = phase.claims.claim() {
        for step in steps {
            let mut random = phase.data.random(phase.number, step);
            if random.random_bool(mix.write_proportion) {
                write(worker, mix.writes, &records, &mut random)?;
            } else {
                read(worker, mix.reads, &records, &mut random)?;
            }
        }
    }
    Ok(())
}

#[inline]
fn write<En: Engine>(
    worker: &mut Worker<'_, En>,
    writes: Writes,
    records: &Records,
    random: &mut SmallRng,
) -> Result<()> {
    let ledger = worker.phase.ledger;
    match writes {
        Writes::Put => worker.put(ledger.id_of(records.popular.draw(random))),
        Writes::Insert => worker.insert(),
        Writes::ReadModifyWrite => worker.update(ledger.id_of(records.popular.draw(random))),
    }
}

#[inline]
fn read<En: Engine>(worker: &mut Worker<'_, En>, reads: Reads, records: &Records, random: &mut SmallRng) -> Result<()> {
    let ledger = worker.phase.ledger;
    match reads {
        Reads::Get => worker.get(ledger.id_of(records.popular.draw(random))),
        Reads::GetLatest => worker.get(ledger.id_of(records.latest.draw(ledger.records(), random))),
        Reads::Scan => {
            let id = ledger.id_of(records.popular.draw(random));
            worker.seek(id, Direction::Forward, random.random_range(1..=MAX_SCAN_ENTRIES))
        }
    }
}
