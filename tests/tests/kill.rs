//! A process is killed with SIGKILL, at random moments and at every named point, again and again: every acknowledged
//! write is there, every batch whole, nothing that was never intended, and log, store and shipped log agree.
//!
//! `SILTSTONE_KILL_ROUNDS` (default 100) sets how many kills come at random, `SILTSTONE_SEED` their seed. One failing
//! kill is repeated by what its message says; `SILTSTONE_KILL_AT="running before sync table 3"` is how a driver is told
//! where to die.

use std::env;

use siltstone_tests::evidence::record;
use siltstone_tests::kill::{every_point_of_creation, every_point_of_recovery, every_point_of_running, kills};

fn variable(name: &str, default: u64) -> u64 {
    env::var(name).ok().and_then(|value| value.parse().ok()).unwrap_or(default)
}

#[test]
fn nothing_acknowledged_is_lost() {
    let (rounds, seed) = (variable("SILTSTONE_KILL_ROUNDS", 100), variable("SILTSTONE_SEED", 1));
    println!("SILTSTONE_KILL_ROUNDS={rounds} SILTSTONE_SEED={seed}");
    kills(seed, rounds);
    record("lost", 0);
    record("wrong", 0);
}

#[test]
fn at_every_point_of_a_creation() {
    assert!(every_point_of_creation(3) > 20);
}

#[test]
fn at_every_point_of_a_run() {
    assert!(every_point_of_running(3) > 20);
}

#[test]
fn at_every_point_of_a_recovery() {
    for (seed, point) in [(3, "running before append manifest 6"), (2, "running middle mapped-write wal 100")] {
        assert!(every_point_of_recovery(seed, point) > 20);
    }
}
