//! Running a body under many schedules.

use std::sync::Arc;

use shuttle::scheduler::{PctScheduler, RandomScheduler, ReplayScheduler};
use shuttle::{Config, MaxSteps, Runner};

/// How many preemptions the second scheduler places.
const PREEMPTIONS: usize = 3;

/// A schedule that takes longer does not end. (Who polls or parks yields, which both schedulers heed.)
const MAX_STEPS: MaxSteps = MaxSteps::FailAfter(2_000_000);

fn variable(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().expect("a number"))
}

fn config() -> Config {
    let mut config = Config::new();
    config.max_steps = MAX_STEPS;
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
        Runner::new(scheduler, config()).run(move || body());
        return;
    }
    let schedules = schedules * variable("SILTSTONE_SCHEDULES", 1) as usize;
    let seed = variable("SILTSTONE_SEED", 1);
    println!("SILTSTONE_SEED={seed}, {schedules} schedules");
    let (first, second) = (body.clone(), body);
    let random = RandomScheduler::new_from_seed(seed, schedules / 2);
    let mut explored = Runner::new(random, config()).run(move || first());
    let pct = PctScheduler::new_from_seed(seed, PREEMPTIONS, schedules - schedules / 2);
    explored += Runner::new(pct, config()).run(move || second());
    super::record("schedules", explored as u64);
}
