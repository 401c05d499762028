//! What the fault tests share beside `siltstone_tests::faults`.

use std::sync::Arc;

use siltstone::fs::{FaultFileSystem, SimFileSystem};
use siltstone_tests::faults::{Injection, KINDS, Tally};

pub fn faulty(sim: &SimFileSystem) -> FaultFileSystem {
    FaultFileSystem::new(Arc::new(sim.clone()))
}

/// Calls `case` for every call with each of [`KINDS`], until it says that the call was not made; how many were.
pub fn enumerate(mut case: impl FnMut(Injection) -> bool) -> u64 {
    let points = KINDS.into_iter().map(|(only, fault, for_good)| {
        (1..).take_while(|&at| case(Injection { only, at, fault, for_good })).count() as u64
    });
    points.sum()
}

/// Adds to the evidence of the reliability tests.
pub fn record(points: u64, reopens: u64) {
    Tally { points, reopens, felt: 0 }.record();
}
