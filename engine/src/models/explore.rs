//! Running a body under many schedules.

use std::sync::Arc;

use shuttle::scheduler::{PctScheduler, RandomScheduler, ReplayScheduler};
use shuttle::{Config, MaxSteps, Runner};

/// How many preemptions the second scheduler places.
const PREEMPTIONS: usize = 3;

/// A random schedule is fair: one that takes longer does not end.
const MAX_STEPS: MaxSteps = MaxSteps::FailAfter(2_000_000);

fn variable(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().expect("a number"))
}

fn config(max_steps: MaxSteps) -> Config {
    let mut config = Config::new();
    config.max_steps = max_steps;
    config.stack_size = 1 << 20;
    config.silence_warnings = true;
    config
}

/// Runs `body` under `schedules` schedules (times `SILTSTONE_SCHEDULES`): half of them switch at random, half run
/// threads by random priorities that change [`PREEMPTIONS`] times (PCT: Burckhardt et al., ASPLOS 2010).
pub(super) fn explore(schedules: usize, body: impl Fn() + Send + Sync + 'static) {
    let body = Arc::new(body);
    if let Ok(text) = std::env::var("SILTSTONE_REPLAY") {
        let text = text.strip_prefix('@').map_or(text.clone(), |path| std::fs::read_to_string(path).unwrap());
        let mut scheduler = ReplayScheduler::new_from_encoded(text.trim());
        scheduler.set_allow_incomplete();
        Runner::new(scheduler, config(MAX_STEPS)).run(move || body());
        return;
    }
    let schedules = schedules * variable("SILTSTONE_SCHEDULES", 1) as usize;
    let seed = variable("SILTSTONE_SEED", 1);
    println!("SILTSTONE_SEED={seed}, {schedules} schedules");
    let (first, second) = (body.clone(), body);
    let random = RandomScheduler::new_from_seed(seed, schedules / 2);
    let mut explored = Runner::new(random, config(MAX_STEPS)).run(move || first());
    let pct = PctScheduler::new_from_seed(seed, PREEMPTIONS, schedules - schedules / 2);
    // Not fair: who spins or polls may have the highest priority for ever. Such a schedule is broken off.
    let config = config(MaxSteps::ContinueAfter(200_000));
    explored += Runner::new(pct, config).run(move || second());
    super::record("schedules", explored as u64);
}
