//! One failing call at a time: a clear error, nothing acknowledged that is not there, read-only for good where the log
//! or the manifest is in doubt, reads served, and everything back after a reopen.
//!
//! Every call of one workload in lockstep and every call of an open fail in every way; of the other workloads a
//! sample does. `SILTSTONE_FAULTS=all` takes every call of all of them.

use std::io;
use std::path::Path;
use std::sync::Arc;

use siltstone::fs::{Fault, FaultFileSystem, Keep, Op, SimFileSystem};
use siltstone::{Db, Error};
use siltstone_tests::faults::{Tally, full_disk, opening, reading, running};
use siltstone_tests::workload::{DIRECTORY, Workload, keyspace_options, options};

fn all() -> bool {
    std::env::var("SILTSTONE_FAULTS").is_ok_and(|places| places == "all")
}

/// One of `n` calls, at another place for each kind of fault; all if asked for.
fn one_of(n: u64) -> impl Fn(usize, u64) -> bool {
    let n = if all() { 1 } else { n };
    move |kind, at| (at + 7 * kind as u64).is_multiple_of(n)
}

fn report(what: &str, tally: Tally) {
    println!("{what}: {tally:?}");
    assert!(tally.points > 0 && tally.felt > 0, "{what}: nothing was injected");
    tally.record();
}

#[test]
fn every_call_of_a_workload_in_lockstep() {
    let mut tally = Tally::default();
    running::enumerate(&Workload { seed: 1, steps: 60, lockstep: true }, |_, _| true, &mut tally);
    report("every call in lockstep", tally);
}

#[test]
fn calls_of_longer_workloads_in_lockstep() {
    let mut tally = Tally::default();
    for seed in [2, 3] {
        running::enumerate(&Workload { seed, steps: 150, lockstep: true }, one_of(20), &mut tally);
    }
    report("in lockstep", tally);
}

#[test]
fn calls_with_the_background_at_work() {
    let mut tally = Tally::default();
    for seed in [4, 5] {
        running::enumerate(&Workload { seed, steps: 150, lockstep: false }, one_of(20), &mut tally);
    }
    report("with the background at work", tally);
}

#[test]
fn every_call_of_an_open() {
    let mut tally = Tally::default();
    for seed in [6, 7] {
        let workload = Workload { seed, steps: 80, lockstep: true };
        opening::assert_reads_back(&workload);
        opening::enumerate(&workload, &mut tally);
    }
    report("every call of an open", tally);
}

#[test]
fn calls_of_reads() {
    let mut tally = Tally::default();
    for (seed, mapped) in [(8, false), (9, true)] {
        let step = if all() { 1 } else { 5 };
        reading::enumerate(&Workload { seed, steps: 80, lockstep: true }, mapped, step, &mut tally);
    }
    report("reads", tally);
}

#[test]
fn what_was_open_before_a_fault_goes_on() {
    let mut tally = Tally::default();
    running::keeps_views(&Workload { seed: 10, steps: 60, lockstep: true }, if all() { 40 } else { 6 }, &mut tally);
    report("views", tally);
}

#[test]
fn full_disks_refuse_and_lose_nothing() {
    let mut tally = Tally::default();
    let step = if all() { 8 << 10 } else { 100 << 10 };
    (4 << 10..1500 << 10).step_by(step).for_each(|capacity_bytes| full_disk::run(capacity_bytes, &mut tally));
    report("full disks", tally);
}

/// Nothing is acknowledged as durable once a sync failed, even if the next one would succeed: the system may have
/// dropped the pages.
#[test]
fn a_failed_sync_is_never_forgotten() {
    let sim = SimFileSystem::new();
    let fs = FaultFileSystem::new(Arc::new(sim.clone()));
    let open = |fs: &FaultFileSystem| -> Db {
        options().file_system(Arc::new(fs.clone())).open(Path::new(DIRECTORY)).unwrap()
    };
    let db = open(&fs);
    let keyspace = db.keyspace("a", keyspace_options()).unwrap();
    keyspace.put("before", "1").unwrap();
    db.sync().unwrap();
    keyspace.put("in doubt", "2").unwrap();
    fs.only(Op::MappedSync);
    fs.fail_at(1, Fault::DroppedPages);
    let failed = db.sync();
    assert!(matches!(&failed, Err(Error::Io { source, .. }) if source.raw_os_error() == Some(5)), "{failed:?}");
    for _ in 0..3 {
        assert!(matches!(db.sync(), Err(Error::ReadOnly { .. })));
        assert!(matches!(keyspace.put("after", "3"), Err(Error::ReadOnly { .. })));
    }
    assert_eq!(keyspace.get("in doubt").unwrap().unwrap(), "2", "reads go on");
    let reason = db.metrics().read_only_reason.unwrap();
    assert!(reason.contains(&io::Error::from_raw_os_error(5).to_string()), "{reason}");
    let left = sim.crash_clone(Keep::Nothing, 0);
    drop((keyspace, db));
    let db = open(&FaultFileSystem::new(Arc::new(left)));
    assert_eq!(db.keyspace("a", keyspace_options()).unwrap().get("before").unwrap().unwrap(), "1");
}
