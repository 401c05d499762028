//! Random operations under random configurations against the model: what no named configuration puts together.
//!
//! The cases are those of the seeds from `SILTSTONE_SEED` (default 2) on, `SILTSTONE_MODEL_CASES` of them (default
//! 160). A failing case is reduced to few operations and printed as a test; see `metamorphic.rs`.

use siltstone_tests::metamorphic::run_all;
use siltstone_tests::options::Config;

const CASES: u64 = 160;
const SEED: u64 = 2;

fn variable(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|value| value.parse().ok()).unwrap_or(default)
}

#[test]
fn every_answer_is_the_models() {
    let seed = variable("SILTSTONE_SEED", SEED);
    println!("SILTSTONE_SEED={seed}");
    for case in seed..seed + variable("SILTSTONE_MODEL_CASES", CASES) / 8 {
        let configs: Vec<Config> = (0..8).map(|n| Config::seeded(case * 8 + n)).collect();
        run_all(&configs, case, 100);
    }
}
