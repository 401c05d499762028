//! What the fault tests share: every way in which calls of a filesystem fail, and the numbers done.
#![allow(dead_code, reason = "each scenario uses a part of it")]

use std::fs::OpenOptions;
use std::io::Write as _;
use std::sync::Arc;

use siltstone::fs::{Fault, FaultFileSystem, Op, SimFileSystem};

/// A call that fails: counting only calls of one kind, if any; how; and whether every later one fails too.
pub const KINDS: [(Option<Op>, Fault, bool); 8] = [
    (None, Fault::Io, false),
    (None, Fault::Io, true),
    (None, Fault::NoSpace, false),
    (None, Fault::NoSpace, true),
    (None, Fault::Late, false),
    (Some(Op::Append), Fault::ShortWrite, false),
    (Some(Op::Sync), Fault::DroppedPages, false),
    (Some(Op::MappedSync), Fault::DroppedPages, false),
];

pub fn faulty(sim: &SimFileSystem) -> FaultFileSystem {
    FaultFileSystem::new(Arc::new(sim.clone()))
}

/// Makes call `at` from now on fail.
pub fn plan(fs: &FaultFileSystem, (only, fault, for_good): (Option<Op>, Fault, bool), at: u64) {
    fs.clear();
    if let Some(op) = only {
        fs.only(op);
    }
    if for_good { fs.fail_from(at, fault) } else { fs.fail_at(at, fault) }
}

/// Calls `case` for every call with each of [`KINDS`], until it says that the call was not made; how many were.
pub fn enumerate(mut case: impl FnMut((Option<Op>, Fault, bool), u64) -> bool) -> u64 {
    KINDS.into_iter().map(|kind| (1..).take_while(|&at| case(kind, at)).count() as u64).sum()
}

/// Adds to the evidence of the reliability tests, as `siltstone_tests::evidence::record` does: that crate is built on
/// this one.
pub fn record(points: u64, reopens: u64) {
    for (figure, count) in [("fault_points", points), ("fault_reopens", reopens), ("lost", 0), ("wrong", 0)] {
        println!("evidence: {figure} {count}");
        let Some(path) = std::env::var_os("SILTSTONE_EVIDENCE") else { continue };
        let mut file = OpenOptions::new().create(true).append(true).open(path).unwrap();
        file.write_all(format!("{figure}\t{count}\n").as_bytes()).unwrap();
    }
}
