//! Random operations under random configurations against a model of plain maps, with reopens, snapshots and iterators
//! that outlive what they were made from.
//!
//! The seed is fixed; `SILTSTONE_MODEL_CASES` and `SILTSTONE_SEED` run more and other cases. A failing case is reduced
//! to few steps and printed.

use std::env;

use proptest::prelude::*;
use proptest::test_runner::{Config as ProptestConfig, RngAlgorithm, TestError, TestRng, TestRunner};
use siltstone_tests::options::Config;
use siltstone_tests::runner::Runner;
use siltstone_tests::steps::{Step, rng};

const CASES: u32 = 256;
const SEED: u64 = 2;

fn variable<T: std::str::FromStr>(name: &str, default: T) -> T {
    env::var(name).ok().and_then(|value| value.parse().ok()).unwrap_or(default)
}

/// Runs the steps of these seeds: what a failure prints is what this takes.
fn run(config_seed: u64, step_seeds: &[u64]) {
    let dir = tempfile::tempdir().unwrap();
    let mut runner = Runner::new(&dir.path().join("db"), Config::random(&mut rng(config_seed)));
    step_seeds.iter().for_each(|&seed| runner.step(&Step::random(seed)));
    runner.finish();
}

#[test]
fn every_answer_is_the_models() {
    let seed = variable("SILTSTONE_SEED", SEED);
    println!("SILTSTONE_SEED={seed}");
    let config = ProptestConfig {
        cases: variable("SILTSTONE_MODEL_CASES", CASES),
        failure_persistence: None,
        max_shrink_iters: 2000,
        ..ProptestConfig::default()
    };
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let mut runner = TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &bytes));
    // Steps shrink by being left out, never by changing: a step's seed says nothing about its size.
    let steps = prop::collection::vec(any::<u64>().no_shrink(), 1..150);
    let tested = runner.run(&(any::<u64>().no_shrink(), steps), |(config_seed, step_seeds)| {
        run(config_seed, &step_seeds);
        Ok(())
    });
    if let Err(TestError::Fail(reason, (config_seed, step_seeds))) = &tested {
        for &seed in step_seeds {
            println!("{:.200}", format!("{:?}", Step::random(seed)));
        }
        panic!("SILTSTONE_SEED={seed}: {reason}\nrun({config_seed}, &{step_seeds:?})");
    }
    tested.unwrap();
}
