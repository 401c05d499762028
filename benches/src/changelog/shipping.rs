//! What shipping to files costs the writer.

use std::time::Instant;

use siltstone_changelog::{FileSink, ShipOptions, ship};

use super::{Bench, Entries, Figures, failed};
use crate::error::Result;

/// Puts all entries without a shipper and with one; thousand puts a second, and how long the shipper took to get to the
/// end after the last put.
pub(super) fn measure(bench: &Bench, entries: &Entries) -> Result<Figures> {
    let puts = |seconds: f64| bench.keys as f64 / seconds / 1e3;
    let alone = {
        let db = bench.open("alone")?;
        puts(bench.fill(&db.keyspace("ks", Default::default()).map_err(failed)?, entries)?)
    };
    let log = bench.fresh("log")?;
    let db = bench.open("shipped")?;
    let shipper = ship(&db, FileSink::open(log).map_err(failed)?, ShipOptions::new()).map_err(failed)?;
    let shipped = puts(bench.fill(&db.keyspace("ks", Default::default()).map_err(failed)?, entries)?);
    let (lag, began) = (shipper.lag(), Instant::now());
    shipper.stop().map_err(failed)?;
    let rest = began.elapsed().as_secs_f64();
    Ok(vec![
        ("puts without shipping, thousand/s", alone),
        ("puts with shipping, thousand/s", shipped),
        ("with / without", shipped / alone),
        ("records behind after the last put, thousand", lag as f64 / 1e3),
        ("seconds until all was acknowledged", rest),
    ])
}
