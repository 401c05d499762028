//! Power cuts on the simulated filesystem: before every call of a seeded workload the power goes, keeps any part of
//! what was not synced, and what is left is recovered and checked, with cuts inside the recoveries too.
//!
//! A workload runs once: before each of its calls the filesystem is forked ([`points`]), each fork is cut in several
//! ways, and each of these states goes through [`recovery`].

use std::sync::Arc;

use parking_lot::Mutex;
use siltstone::fs::{Keep, SimFileSystem};

use crate::evidence::record;
use crate::history::History;
use crate::workload::Everything;
use points::{Point, each_call};
use recovery::{Counts, Left};
use shipping::Loses;

pub mod points;
pub mod recovery;
pub mod restoring;
pub mod shipping;

/// How much of what is possible is done.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    /// How many random parts of the unsynced data are kept at each stop, beside nothing and everything.
    pub parts: u64,
    /// One of how many states is cut again at every call of its recovery; 1: all of them.
    pub twice_one_of: u64,
    /// One of how many states of a shipped log is shipped on and restored: this waits for the shipper's thread.
    pub ship_on_one_of: u64,
}

impl Effort {
    /// What CI does.
    pub const SAMPLE: Effort = Effort { parts: 3, twice_one_of: 40, ship_on_one_of: 4 };

    /// Everything.
    pub const ALL: Effort = Effort { parts: 8, twice_one_of: 1, ship_on_one_of: 1 };

    /// [`ALL`](Effort::ALL) if `SILTSTONE_CUTS` is `all`, else [`SAMPLE`](Effort::SAMPLE).
    pub fn from_env() -> Effort {
        let all = std::env::var("SILTSTONE_CUTS").is_ok_and(|cuts| cuts == "all");
        if all { Effort::ALL } else { Effort::SAMPLE }
    }

    /// What is kept at a stop, and the seed of the choice: nothing, everything, several random parts.
    pub(crate) fn keeps(self, seed: u64, calls: u64) -> impl Iterator<Item = (Keep, u64)> {
        let some = (0..self.parts).map(move |part| (Keep::Some, seed << 40 | calls << 8 | part));
        [(Keep::Nothing, 0), (Keep::All, 0)].into_iter().chain(some)
    }
}

/// One bounded piece of work for a seed: some seconds of one of the kinds of enumeration.
///
/// # Panics
/// With everything needed to run it again, on the first violation.
pub fn round(seed: u64) {
    match seed % 12 {
        8 => shipping::cut_everywhere(seed, Loses::Both, Effort::SAMPLE),
        9 => shipping::cut_everywhere(seed, Loses::Database, Effort::SAMPLE),
        10 => shipping::cut_everywhere(seed, Loses::Sink, Effort::SAMPLE),
        11 => restoring::cut_everywhere(seed, Effort::SAMPLE),
        0 => cut_everywhere(&Everything::ManifestRolls { seed }, Effort::SAMPLE),
        1..=4 => cut_everywhere(&Everything::Steps { seed, steps: 100, lockstep: true }, Effort::SAMPLE),
        _ => cut_everywhere(&Everything::Steps { seed, steps: 100, lockstep: false }, Effort::SAMPLE),
    }
}

/// Cuts the power before every call of `workload` and checks every state that leaves.
///
/// # Panics
/// With the workload, the call, and what was kept, where something that is promised does not hold.
pub fn cut_everywhere(workload: &Everything, effort: Effort) {
    let sim = SimFileSystem::new();
    let history = Arc::new(Mutex::new(History::default()));
    let mut counts = Counts::default();
    let run = |fs| {
        let done = workload.run(workload.options().file_system(fs), &history);
        done.unwrap_or_else(|error| panic!("{workload:?}: {error}"));
    };
    let points = each_call(&sim, &history, run, |point| check_point(workload, effort, &point, &mut counts));
    println!("{workload:?}: {points} points, {counts:?}");
    assert!(counts.taken_back > 0, "no cut took anything back: the cuts are not where the writes are");
    workload.check_end(&sim);
    record("crash_points", points);
    counts.record();
}

/// All that a cut at one moment may leave.
fn check_point(workload: &Everything, effort: Effort, point: &Point<History>, counts: &mut Counts) {
    for (keep, seed) in effort.keeps(workload.seed(), point.calls) {
        let history = &point.known;
        // A killed process loses nothing that was acknowledged.
        let least = if keep == Keep::All { history.acknowledged() } else { history.synced() };
        let what = format!("{workload:?}, power cut at call {}, {keep:?} {seed}", point.calls);
        let left = Left { sim: point.sim.crash_clone(keep, seed), history, least, seed: counts.states, what };
        left.check(counts.states.is_multiple_of(effort.twice_one_of), counts);
    }
}
