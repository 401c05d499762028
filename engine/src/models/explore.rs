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

fn seed() -> u64 {
    variable("SILTSTONE_SEED", 1)
}

fn multiple() -> usize {
    variable("SILTSTONE_SCHEDULES", 1) as usize
}

/// Runs `body` under `schedules` schedules (times `SILTSTONE_SCHEDULES`) that switch at random: for what parks, since
/// shuttle lets parked threads go on without a reason, and by priorities two of them could take turns for ever.
pub(super) fn explore_at_random(schedules: usize, body: impl Fn() + Send + Sync + 'static) {
    if let Some(explored) = explore_randomly(schedules * multiple(), Arc::new(body)) {
        super::record("schedules", explored as u64);
    }
}

/// How many random schedules of `body` were run; `None` if one was replayed.
fn explore_randomly<F: Fn() + Send + Sync + 'static>(schedules: usize, body: Arc<F>) -> Option<usize> {
    if let Ok(text) = std::env::var("SILTSTONE_REPLAY") {
        let text = text.strip_prefix('@').map_or(text.clone(), |path| std::fs::read_to_string(path).unwrap());
        let mut scheduler = ReplayScheduler::new_from_encoded(text.trim());
        scheduler.set_allow_incomplete();
        Runner::new(scheduler, config()).run(move || body());
        return None;
    }
    let random = RandomScheduler::new_from_seed(seed(), schedules);
    println!("SILTSTONE_SEED={}, {schedules} random schedules", seed());
    Some(Runner::new(random, config()).run(move || body()))
}

/// Runs `body` under `schedules` schedules (times `SILTSTONE_SCHEDULES`): half of them switch at random, half run
/// threads by random priorities that change [`PREEMPTIONS`] times (PCT: Burckhardt et al., ASPLOS 2010).
pub(super) fn explore(schedules: usize, body: impl Fn() + Send + Sync + 'static) {
    let (schedules, body) = (schedules * multiple(), Arc::new(body));
    let Some(explored) = explore_randomly(schedules / 2, body.clone()) else { return };
    let pct = PctScheduler::new_from_seed(seed(), PREEMPTIONS, schedules - schedules / 2);
    let explored = explored + Runner::new(pct, config()).run(move || body());
    super::record("schedules", explored as u64);
}
