//! Power cuts on the simulated filesystem: before every call of a seeded workload the power goes, keeps any part of
//! what was not synced, and what is left is recovered and checked, with cuts inside the recoveries too.

use std::sync::Arc;

use parking_lot::Mutex;
use siltstone::fs::{Keep, SimFileSystem};

use crate::evidence::record;
use crate::history::History;
use crate::workload::{Workload, options};
use points::{Point, each_call};
use recovery::{Counts, Left};

pub mod points;
pub mod recovery;

/// How much of what is possible is done.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    /// How many random parts of the unsynced data are kept at each stop, beside nothing and everything.
    pub parts: u64,
    /// One of how many states is cut again at every call of its recovery; 1: all of them.
    pub twice_one_of: u64,
}

impl Effort {
    /// What CI does.
    pub const SAMPLE: Effort = Effort { parts: 2, twice_one_of: 40 };

    /// Everything.
    pub const ALL: Effort = Effort { parts: 6, twice_one_of: 1 };
}

/// Cuts the power before every call of `workload` and checks every state that leaves.
///
/// # Panics
/// With the workload, the call, and what was kept, where something that is promised does not hold.
pub fn cut_everywhere(workload: &Workload, effort: Effort) {
    let sim = SimFileSystem::new();
    let history = Arc::new(Mutex::new(History::default()));
    let mut counts = Counts::default();
    let run = |fs| {
        let done = workload.run_everything(options().file_system(fs), &history);
        done.unwrap_or_else(|error| panic!("{workload:?}: {error}"));
    };
    let points = each_call(&sim, &history, run, |point| check_point(workload, effort, &point, &mut counts));
    println!("{workload:?}: {points} points, {counts:?}");
    assert!(counts.taken_back > 0, "no cut took anything back: the cuts are not where the writes are");
    record("crash_points", points);
    record("crash_states", counts.states);
    record("double_crash_states", counts.double_states);
    record("read_only_opens", counts.read_only_opens);
    record("lost", 0);
    record("wrong", 0);
}

/// All that a cut at one moment may leave.
fn check_point(workload: &Workload, effort: Effort, point: &Point<History>, counts: &mut Counts) {
    let some = (0..effort.parts).map(|part| (Keep::Some, part));
    for (keep, part) in [(Keep::Nothing, 0), (Keep::All, 0)].into_iter().chain(some) {
        let seed = workload.seed << 40 | point.calls << 8 | part;
        let history = &point.known;
        // A killed process loses nothing that was acknowledged.
        let least = if keep == Keep::All { history.acknowledged() } else { history.synced() };
        let what = format!("{workload:?}, power cut at call {}, {keep:?} {seed}", point.calls);
        let left = Left { sim: point.sim.crash_clone(keep, seed), history, least, seed: counts.states, what };
        left.check(counts.states.is_multiple_of(effort.twice_one_of), counts);
    }
}
