//! The reliability tests with fresh seeds, for as long as one likes:
//!
//! ```text
//! SILTSTONE_SOAK_SECONDS=3600 cargo test --release -p siltstone-tests --test soak -- --nocapture
//! ```
//!
//! Each seed is told before it is used; one round is run alone with `SILTSTONE_SOAK_KIND` and `SILTSTONE_SOAK_SEED`.
//! Without any of them there are a few kills, to keep this alive.

use std::env;
use std::time::Duration;

use siltstone_tests::kill;
use siltstone_tests::soak::{KIND, ROUNDS, SECONDS, SEED, run, run_one};

fn number(name: &str) -> Option<u64> {
    env::var(name).ok().map(|value| value.parse().unwrap_or_else(|_| panic!("{name}={value} is no number")))
}

#[test]
fn soak() {
    if let (Ok(kind), Some(seed)) = (env::var(KIND), number(SEED)) {
        return run_one(ROUNDS, &kind, seed);
    }
    let outcome = match number(SECONDS) {
        Some(seconds) => run(ROUNDS, Duration::from_secs(seconds)),
        None => run(&[("a few kills", |seed| kill::kills(seed, 4))], Duration::ZERO),
    };
    let done = outcome.unwrap_or_else(|failure| panic!("{failure:?}"));
    assert!(done.values().sum::<u64>() >= 2, "{done:?}");
}
