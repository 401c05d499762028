//! Power cuts on the simulated filesystem: whatever was not synced is kept or lost, in any combination, and the
//! database is a first part of the batches that holds every synced one.
//!
//! `SILTSTONE_CUTS` sets how many cuts per workload (default: a sample; issue-sized runs take them all).

use std::path::Path;
use std::sync::Arc;

use siltstone::Db;
use siltstone::fs::{Keep, SimFileSystem};
use siltstone_tests::history::History;
use siltstone_tests::log::check_log;
use siltstone_tests::state::dump;
use siltstone_tests::workload::{DIRECTORY, Outcome, Workload, keyspace_options, options};

const SURVIVALS: [(Keep, u64); 5] =
    [(Keep::Nothing, 0), (Keep::All, 0), (Keep::Some, 1), (Keep::Some, 2), (Keep::Some, 3)];

fn open(sim: &SimFileSystem) -> siltstone::Result<Db> {
    options().file_system(Arc::new(sim.clone())).open(Path::new(DIRECTORY))
}

fn run(workload: &Workload, sim: &SimFileSystem) -> Outcome {
    workload.run(options().file_system(Arc::new(sim.clone())))
}

/// Opens what a power cut left and checks it; answers how many events it holds.
fn check(sim: &SimFileSystem, history: &History, what: &str) -> usize {
    let db = open(sim).unwrap_or_else(|error| panic!("{what}: {error}"));
    let names = db.keyspaces();
    history.check_keyspaces(&names).unwrap_or_else(|reason| panic!("{what}: {reason}"));
    let found = dump(&db, &keyspace_options()).unwrap_or_else(|error| panic!("{what}: {error}"));
    let taken = history.check_prefix(&found, db.last_seqno(), history.synced());
    let taken = taken.unwrap_or_else(|reason| panic!("{what}: {reason}"));
    let report = db.verify();
    assert!(report.is_ok(), "{what}: {report}");
    let keyspaces: Vec<_> = names.iter().map(|name| db.keyspace(name, keyspace_options()).unwrap()).collect();
    check_log(&db, &keyspaces);
    // It goes on from there.
    let keyspace = db.keyspace("keyspace 0", keyspace_options()).unwrap();
    keyspace.put("after", "the cut").unwrap();
    db.sync().unwrap();
    db.close().unwrap();
    let again = open(sim).unwrap_or_else(|error| panic!("{what}, closed and opened: {error}"));
    let keyspace = again.keyspace("keyspace 0", keyspace_options()).unwrap();
    assert_eq!(keyspace.get("after").unwrap().unwrap(), "the cut", "{what}");
    taken
}

/// Cuts the power again while the database is being recovered, and checks what that leaves.
fn cut_recovery(sim: &SimFileSystem, history: &History, seed: u64, what: &str) -> usize {
    let calls = {
        let dry = sim.crash_clone(Keep::All, 0);
        open(&dry).unwrap_or_else(|error| panic!("{what}: {error}")).close().unwrap();
        dry.call_count()
    };
    let at = seed % calls.max(1);
    let again = sim.crash_clone(Keep::All, 0);
    again.stop_after(at);
    drop(open(&again));
    let (keep, keep_seed) = SURVIVALS[seed as usize % SURVIVALS.len()];
    let what = format!("{what}, then at call {at} of the recovery, {keep:?}");
    check(&again.crash_clone(keep, keep_seed), history, &what)
}

/// Cuts `cuts` runs of `workload`, spread evenly over its calls.
fn enumerate(workload: &Workload, cuts: u64) {
    let whole = SimFileSystem::new();
    let outcome = run(workload, &whole);
    assert!(outcome.error.is_none(), "{workload:?}: {:?}", outcome.error);
    let total = whole.call_count();
    drop(outcome);
    let (mut checked, mut lost) = (0, 0);
    for cut in 0..cuts {
        let at = total * cut / cuts + cut % 3;
        let sim = SimFileSystem::new();
        sim.stop_after(at);
        let outcome = run(workload, &sim);
        for (keep, seed) in SURVIVALS {
            let what = format!("{workload:?}, power cut at call {at} of {total}, {keep:?} {seed}");
            let left = sim.crash_clone(keep, seed);
            let taken = check(&left.crash_clone(Keep::All, 0), &outcome.history, &what);
            lost += outcome.history.acknowledged().saturating_sub(taken);
            checked += 1;
            if (cut + seed) % 3 == 0 {
                cut_recovery(&left, &outcome.history, cut * 31 + seed, &what);
                checked += 1;
            }
        }
    }
    println!("{workload:?}: {total} calls, {checked} states checked, {lost} unsynced events lost");
    assert!(lost > 0, "no cut took anything back: the cuts are not where the writes are");
}

fn cuts() -> u64 {
    std::env::var("SILTSTONE_CUTS").ok().and_then(|cuts| cuts.parse().ok()).unwrap_or(60)
}

#[test]
fn in_lockstep_with_the_background() {
    for seed in [1, 2, 3] {
        enumerate(&Workload { seed, steps: 120, lockstep: true }, cuts());
    }
}

#[test]
fn with_the_background_at_work() {
    for seed in [4, 5, 6] {
        enumerate(&Workload { seed, steps: 120, lockstep: false }, cuts());
    }
}
