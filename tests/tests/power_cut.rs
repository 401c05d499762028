//! Power cuts on the simulated filesystem: before every call of a workload, with any part of what was not synced kept
//! or lost, and again before every call of recoveries; the database is a first part of the batches that holds every
//! synced one. See `siltstone_tests::power_cut`.
//!
//! By default a sample that still stops at every call of each workload, with several random parts kept at each stop
//! and one recovery in 40 cut again. `SILTSTONE_CUTS=all` keeps more parts and cuts every recovery.
//! `SILTSTONE_CUT_SEEDS=100..200` runs these rounds instead.

use siltstone_tests::power_cut::shipping::Loses;
use siltstone_tests::power_cut::{Effort, cut_everywhere, restoring, round, shipping};
use siltstone_tests::workload::Everything;

#[test]
fn in_lockstep_with_the_background() {
    for seed in [1, 2] {
        cut_everywhere(&Everything::Steps { seed, steps: 100, lockstep: true }, Effort::from_env());
    }
}

#[test]
fn with_the_background_at_work() {
    for seed in [3, 4] {
        cut_everywhere(&Everything::Steps { seed, steps: 100, lockstep: false }, Effort::from_env());
    }
}

#[test]
fn while_the_manifest_is_rolled() {
    cut_everywhere(&Everything::ManifestRolls { seed: 5 }, Effort::from_env());
}

#[test]
fn while_shipping() {
    for (seed, loses) in [(6, Loses::Both), (7, Loses::Database), (8, Loses::Sink)] {
        shipping::cut_everywhere(seed, loses, Effort::from_env());
    }
}

#[test]
fn while_restoring() {
    restoring::cut_everywhere(9, Effort::from_env());
}

#[test]
fn rounds_that_were_asked_for() {
    let Ok(seeds) = std::env::var("SILTSTONE_CUT_SEEDS") else { return };
    let (from, to) = seeds.split_once("..").expect("SILTSTONE_CUT_SEEDS is FROM..TO");
    for seed in from.parse().expect("a number")..to.parse().expect("a number") {
        println!("SILTSTONE_CUT_SEEDS={seed}..{}", seed + 1);
        round(seed);
    }
}
