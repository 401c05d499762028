//! Fault enumeration: one call of the filesystem fails, or one and every later one, and everything that is promised
//! for that is checked.
//!
//! [`running`] makes calls of a workload fail, [`opening`] those of an open, [`reading`] those of reads;
//! [`full_disk`] bounds the bytes. Whatever fails: the error names action, path and the system's words, or is
//! `ReadOnly` for that reason; reads are served and right; nothing is acknowledged any more where the log or the
//! manifest is in doubt; and a reopen has everything acknowledged, after a power cut everything synced.

use std::fmt;
use std::io::{self, Write as _};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

use rand::RngExt;
use siltstone::fs::{Fault, FaultFileSystem, Injected, Op};

use crate::evidence::record;
use crate::steps::rng;
use crate::workload::Workload;

mod checks;
pub mod full_disk;
pub mod opening;
pub mod reading;
pub mod running;

/// How a call is made to fail.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Injection {
    /// Counts only calls of this kind, if any.
    pub only: Option<Op>,
    /// Which of the counted calls fails, from 1.
    pub at: u64,
    /// How it fails.
    pub fault: Fault,
    /// Whether every later call fails too.
    pub for_good: bool,
}

impl fmt::Debug for Injection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Injection { only, at, fault, for_good } = self;
        write!(f, "{fault:?} at call {at}")?;
        only.iter().try_for_each(|op| write!(f, " of kind {op:?}"))?;
        f.write_str(if *for_good { " and at every later one" } else { "" })
    }
}

impl Injection {
    /// Makes the calls of `fs` from now on fail like this.
    pub fn plan(&self, fs: &FaultFileSystem) {
        fs.clear();
        if let Some(op) = self.only {
            fs.only(op);
        }
        if self.for_good { fs.fail_from(self.at, self.fault) } else { fs.fail_at(self.at, self.fault) }
    }
}

/// Every way in which calls fail. A short write differs from a device error only where something is written, dropped
/// pages only where a file is synced, so those come for these kinds alone.
pub const KINDS: [(Option<Op>, Fault, bool); 9] = [
    (None, Fault::Io, false),
    (None, Fault::Io, true),
    (None, Fault::NoSpace, false),
    (None, Fault::NoSpace, true),
    (None, Fault::Late, false),
    (Some(Op::Append), Fault::ShortWrite, false),
    (Some(Op::MappedWrite), Fault::ShortWrite, false),
    (Some(Op::Sync), Fault::DroppedPages, false),
    (Some(Op::MappedSync), Fault::DroppedPages, false),
];

/// What was done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Calls that were made to fail.
    pub points: u64,
    /// How many of those the caller was told of, by an error or by a database that turned read-only.
    pub felt: u64,
    /// Reopens that were checked.
    pub reopens: u64,
}

impl Tally {
    /// The call that was made to fail, and `what` with its name; counts it. From here on every call gets through.
    fn injected(&mut self, fs: &FaultFileSystem, what: &str) -> Option<(Injected, String)> {
        let injected = fs.injected();
        fs.clear();
        let injected = injected?;
        self.points += 1;
        let what = format!("{what} ({:?} of {})", injected.op, injected.path.display());
        Some((injected, what))
    }

    /// Adds the numbers to the evidence. Only for runs that found nothing lost and nothing wrong: those panic instead.
    pub fn record(&self) {
        record("fault_points", self.points);
        record("fault_reopens", self.reopens);
        record("lost", 0);
        record("wrong", 0);
    }
}

/// How long one case may take: far more than any does, so that only a hang does.
const HANG: Duration = Duration::from_secs(100);

/// Ends the process, with the name of the case, when one case hangs.
#[derive(Debug)]
pub struct Watch {
    cases: Sender<String>,
}

impl Default for Watch {
    fn default() -> Self {
        Watch::new()
    }
}

impl Watch {
    /// Watches from now on, until it is dropped.
    pub fn new() -> Self {
        let (cases, next) = channel();
        std::thread::spawn(move || Watch::run(&next));
        Watch { cases }
    }

    fn run(next: &Receiver<String>) {
        let mut case = String::new();
        loop {
            match next.recv_timeout(HANG) {
                Ok(next) => case = next,
                Err(RecvTimeoutError::Disconnected) => return,
                Err(RecvTimeoutError::Timeout) => {
                    // Not with a macro, whose output the test harness would keep, and lose with the process.
                    let _last_words = writeln!(io::stderr(), "hangs: {case}");
                    std::process::abort();
                }
            }
        }
    }

    /// The case that begins now.
    pub fn begin(&self, case: &str) {
        let _thread_ended = self.cases.send(case.to_owned());
    }
}

/// A sample of everything in this module, drawn by `seed`; about ten seconds.
///
/// # Panics
/// At the first thing that is not as promised, with the case that shows it.
pub fn round(seed: u64) -> Tally {
    let rng = &mut rng(seed);
    let mut tally = Tally::default();
    println!("faults: seed {seed}");
    for _ in 0..4 {
        let workload = Workload { seed: rng.random_range(0..1 << 30), steps: 100, lockstep: rng.random() };
        running::sample(&workload, 60, &mut tally);
        opening::sample(&workload, 60, &mut tally);
        reading::sample(&workload, 60, &mut tally);
        full_disk::run(rng.random_range(10 << 10..1500 << 10), &mut tally);
    }
    tally.record();
    tally
}
