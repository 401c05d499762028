//! Rounds of every kind with fresh seeds, for as long as one likes.
//!
//! A round is one bounded piece of a reliability test, made from a seed; it panics with what is needed to run it again.
//! Kinds take turns on two threads. Each seed is told before it is used, so that even a round that hangs, or takes the
//! whole process with it, can be run again alone.

use std::any::Any;
use std::collections::BTreeMap;
use std::panic::catch_unwind;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use crate::evidence::totals;
use crate::{faults, kill, metamorphic, power_cut};

/// The environment variable that says how long, in seconds.
pub const SECONDS: &str = "SILTSTONE_SOAK_SECONDS";

/// The one that names a kind of [`ROUNDS`], to run one round alone.
pub const KIND: &str = "SILTSTONE_SOAK_KIND";

/// The one that has the seed of that round.
pub const SEED: &str = "SILTSTONE_SOAK_SEED";

/// A kind: its name, and one round for a seed.
pub type Kind = (&'static str, fn(u64));

/// Every kind there is.
pub const ROUNDS: &[Kind] = &[
    ("power_cut", power_cut::round),
    ("faults", fault_round),
    ("metamorphic", metamorphic::round),
    ("kill", kill::round),
];

fn fault_round(seed: u64) {
    faults::round(seed);
}

/// How many rounds run at the same time.
const THREADS: usize = 2;

/// How often progress is told.
const PROGRESS: Duration = Duration::from_secs(10);

/// A round that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Its kind.
    pub kind: &'static str,
    /// Its seed.
    pub seed: u64,
    /// What it said.
    pub reason: String,
}

/// How many rounds of each kind were done.
pub type Done = BTreeMap<&'static str, u64>;

/// Runs rounds of all `kinds` in turn until `time` has passed, at least one on each thread; a round that has begun is
/// finished. Progress goes to standard error.
///
/// # Errors
/// The first round that failed; the others come to their end.
pub fn run(kinds: &[Kind], time: Duration) -> Result<Done, Failure> {
    let started = Instant::now();
    let (turn, stop) = (AtomicUsize::new(0), AtomicBool::new(false));
    let (sender, outcomes) = channel();
    thread::scope(|scope| {
        for _ in 0..THREADS {
            let (sender, turn, stop) = (sender.clone(), &turn, &stop);
            scope.spawn(move || {
                while work(kinds, turn, &sender) && started.elapsed() < time && !stop.load(Ordering::SeqCst) {}
            });
        }
        drop(sender);
        let (mut done, mut failed) = (Done::new(), None);
        let mut told = Instant::now();
        loop {
            match outcomes.recv_timeout(PROGRESS.saturating_sub(told.elapsed())) {
                Ok(Ok(kind)) => *done.entry(kind).or_default() += 1,
                Ok(Err(failure)) => {
                    stop.store(true, Ordering::SeqCst);
                    tell(&failure);
                    failed.get_or_insert(failure);
                }
                Err(RecvTimeoutError::Timeout) => {
                    progress(started.elapsed(), time, &done);
                    told = Instant::now();
                }
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        progress(started.elapsed(), time, &done);
        failed.map_or(Ok(done), Err)
    })
}

/// Runs one round; whether it went well.
fn work(kinds: &[Kind], turn: &AtomicUsize, outcomes: &Sender<Result<&'static str, Failure>>) -> bool {
    let (kind, round) = kinds[turn.fetch_add(1, Ordering::SeqCst) % kinds.len()];
    let seed = u64::from(rand::random::<u32>());
    eprintln!("soak: {KIND}={kind} {SEED}={seed}");
    let outcome = catch_unwind(move || round(seed));
    let failed = outcome.is_err();
    let outcome = outcome.map(|()| kind).map_err(|panic| Failure { kind, seed, reason: message(&*panic) });
    // The receiver waits for all threads.
    outcomes.send(outcome).is_ok() && !failed
}

/// Runs one round of the kind of that name, alone.
///
/// # Panics
/// As the round does; if there is no such kind.
pub fn run_one(kinds: &[Kind], kind: &str, seed: u64) {
    let names: Vec<_> = kinds.iter().map(|(name, _)| *name).collect();
    let found = kinds.iter().find(|(name, _)| *name == kind);
    let (_, round) = found.unwrap_or_else(|| panic!("{KIND} is one of {names:?}, not {kind:?}"));
    round(seed);
}

fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
    text.unwrap_or("a panic without a message").to_owned()
}

fn tell(failure: &Failure) {
    let Failure { kind, seed, reason } = failure;
    eprintln!("soak: FAILED: {reason}");
    eprintln!("soak: again: {KIND}={kind} {SEED}={seed} cargo test -p siltstone-tests --test soak -- --nocapture");
}

fn progress(elapsed: Duration, time: Duration, done: &Done) {
    let left = time.saturating_sub(elapsed).as_secs();
    let rounds: Vec<String> = done.iter().map(|(kind, count)| format!("{count} {kind}")).collect();
    let counts: Vec<String> = totals().iter().map(|(figure, count)| format!("{figure} {count}")).collect();
    eprintln!(
        "soak: {} s, {left} s left; rounds: {}; {}",
        elapsed.as_secs(),
        if rounds.is_empty() { "none yet".to_owned() } else { rounds.join(", ") },
        counts.join(", ")
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_take_turns() {
        let done = run(&[("one", |_| ()), ("two", |_| ())], Duration::ZERO).unwrap();
        assert_eq!(done, Done::from([("one", 1), ("two", 1)]));
    }

    #[test]
    fn a_round_that_fails_ends_it_and_is_named() {
        let fails: Kind = ("fails", |seed| panic!("with {seed}"));
        let failure = run(&[fails, ("goes well", |_| ())], Duration::from_secs(60)).unwrap_err();
        assert_eq!(failure.kind, "fails");
        assert_eq!(failure.reason, format!("with {}", failure.seed));
        let again = catch_unwind(|| run_one(&[fails], "fails", 7));
        assert_eq!(message(&*again.unwrap_err()), "with 7");
        assert!(catch_unwind(|| run_one(&[fails], "other", 7)).is_err());
    }
}
