//! Concurrent calls on a real database, recorded with their times: they could have happened one after the other, in an
//! order that sequence numbers tell, and no anomaly of isolation shows.
//!
//! `SILTSTONE_ROUNDS` (default 2) says how many rounds, each with another configuration; `SILTSTONE_SEED` (default 1)
//! which the first is. A failure names the function and seed that it comes from.

use siltstone_tests::linearizability::{isolation, round};

fn variable(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().expect("a number"))
}

#[test]
fn histories_are_linearizable() {
    let (rounds, seed) = (variable("SILTSTONE_ROUNDS", 2), variable("SILTSTONE_SEED", 1));
    println!("SILTSTONE_ROUNDS={rounds} SILTSTONE_SEED={seed}");
    (seed..seed + rounds).for_each(round);
}

#[test]
fn isolation_the_bank_keeps_its_total_in_every_snapshot() {
    (100..102).for_each(isolation::bank);
}

#[test]
fn isolation_no_update_is_lost() {
    (200..202).for_each(isolation::lost_update);
}

#[test]
fn isolation_no_phantom_and_no_read_that_changes() {
    (300..302).for_each(isolation::phantom);
}
