//! Power cuts.

use siltstone_tests::power_cut::{Effort, cut_everywhere};
use siltstone_tests::workload::Workload;

#[test]
fn in_lockstep_with_the_background() {
    cut_everywhere(&Workload { seed: 1, steps: 100, lockstep: true }, Effort::SAMPLE);
}

#[test]
fn with_the_background_at_work() {
    cut_everywhere(&Workload { seed: 2, steps: 100, lockstep: false }, Effort::SAMPLE);
}
