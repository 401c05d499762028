//! A stream task is killed with SIGKILL, again and again, while it restores, commits and compacts its log, and loses its
//! machine now and then: each input counts once.
//!
//! `SILTSTONE_TASK_KILLS` (default 60) sets how often, `SILTSTONE_SEED` (default 1) the seed.

use std::env;
use std::path::Path;

use siltstone_tests::evidence::record;
use siltstone_tests::task_life::kills;

fn variable(name: &str, default: u64) -> u64 {
    env::var(name).ok().and_then(|value| value.parse().ok()).unwrap_or(default)
}

#[test]
fn each_input_counts_once_whenever_the_task_is_killed() {
    let (rounds, seed) = (variable("SILTSTONE_TASK_KILLS", 60), variable("SILTSTONE_SEED", 1));
    println!("SILTSTONE_TASK_KILLS={rounds} SILTSTONE_SEED={seed}");
    let counted = kills(Path::new(env!("CARGO_BIN_EXE_task_driver")), seed, rounds);
    println!("{counted} inputs counted");
    assert!(counted > 0, "it never got to a commit");
    record("kills_at_random", rounds);
    record("lost", 0);
    record("wrong", 0);
}
