//! A driver process is killed with SIGKILL at random moments, again and again on one directory: every acknowledged
//! write is there, every batch whole, nothing that was never intended, each thread's batches a first part of what it
//! wrote, and log and store agree.
//!
//! `SILTSTONE_KILL_ROUNDS` (default 100) and `SILTSTONE_SEED` change how often and when.

use std::env;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rand::RngExt;
use siltstone::{Db, Keyspace};
use siltstone_tests::kill::{KEYSPACES, Oracle, THREADS, ThreadState, keyspace_options, options, progress};
use siltstone_tests::log::check_log;
use siltstone_tests::state::{Map, State, difference, dump_keyspaces};
use siltstone_tests::steps::rng;

fn variable(name: &str, default: u64) -> u64 {
    env::var(name).ok().and_then(|value| value.parse().ok()).unwrap_or(default)
}

fn start(directory: &Path, oracle: &Path, next: [u64; THREADS]) -> Child {
    Command::new(env!("CARGO_BIN_EXE_kill_driver"))
        .arg(directory)
        .arg(oracle)
        .args(next.map(|number| number.to_string()))
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Kills the driver `delay` after it was started; on an odd `round` after it first wrote something, so that both the
/// recovery and the writing are met.
fn kill(mut driver: Child, oracle: &Path, delay: Duration, wait_for_writes: bool) {
    let started = Instant::now();
    let has_written = || oracle.metadata().is_ok_and(|metadata| metadata.len() > 0);
    while wait_for_writes && !has_written() && started.elapsed() < Duration::from_secs(60) {
        thread::sleep(Duration::from_millis(1));
    }
    thread::sleep(delay);
    let ended = driver.try_wait().unwrap();
    driver.kill().unwrap();
    let output = driver.wait_with_output().unwrap();
    assert!(ended.is_none(), "the driver ended by itself: {}", String::from_utf8_lossy(&output.stderr));
}

/// The part of `state` that `thread` wrote.
fn of_thread(state: &State, thread: usize) -> State {
    let prefix = format!("{thread} ").into_bytes();
    let mine = |map: &Map| -> Map {
        let mine = map.iter().filter(|(key, _)| key.starts_with(&prefix));
        mine.map(|(key, value)| (key.clone(), value.clone())).collect()
    };
    state.iter().map(|(name, map)| (name.clone(), mine(map))).filter(|(_, map)| !map.is_empty()).collect()
}

fn open(directory: &Path, read_only: bool) -> (Db, Vec<Keyspace>) {
    let db = options().read_only(read_only).open(directory).unwrap();
    let keyspaces = db.keyspaces().iter().map(|name| db.keyspace(name, keyspace_options()).unwrap()).collect();
    (db, keyspaces)
}

/// Finds each thread's state in the database and moves `threads` there.
fn check(db: &Db, keyspaces: &[Keyspace], oracle: &Path, threads: &mut [ThreadState; THREADS], what: &str) {
    let before = std::array::from_fn(|n| threads[n].number);
    let notes = Oracle::read(oracle).unwrap();
    let progress = progress(&notes, before).unwrap_or_else(|reason| panic!("{what}: {reason}"));
    let state = dump_keyspaces(keyspaces).unwrap();
    let mut entries = 0;
    for (thread, (intended, acknowledged)) in progress {
        let found = of_thread(&state, thread);
        entries += found.values().map(Map::len).sum::<usize>();
        let expected = &mut threads[thread];
        expected.advance(thread, acknowledged);
        if intended > acknowledged && difference(&found, &expected.state).is_some() {
            expected.advance(thread, intended);
        }
        if let Some(difference) = difference(&found, &expected.state) {
            panic!("{what}: thread {thread}, {acknowledged} acknowledged, {intended} intended: {difference}");
        }
    }
    assert_eq!(entries, state.values().map(Map::len).sum::<usize>(), "{what}: keys that nobody wrote");
    let report = db.verify();
    assert!(report.is_ok(), "{what}: {report}");
}

#[test]
fn nothing_acknowledged_is_lost() {
    let (rounds, seed) = (variable("SILTSTONE_KILL_ROUNDS", 100), variable("SILTSTONE_SEED", 1));
    println!("SILTSTONE_KILL_ROUNDS={rounds} SILTSTONE_SEED={seed}");
    let scratch = tempfile::tempdir().unwrap();
    let (directory, oracle) = (scratch.path().join("db"), scratch.path().join("oracle"));
    assert!(KEYSPACES.len() > 1);
    let mut threads: [ThreadState; THREADS] = Default::default();
    let (mut logged, started) = (0, Instant::now());
    for round in 0..rounds {
        let rng = &mut rng(seed << 32 | round);
        let _fresh = std::fs::remove_file(&oracle);
        let delay = Duration::from_micros(rng.random_range(0..250_000));
        let what = format!("SILTSTONE_SEED={seed}, round {round}, killed after {delay:?}");
        let driver = start(&directory, &oracle, std::array::from_fn(|n| threads[n].number + 1));
        kill(driver, &oracle, delay, round % 4 != 0);
        if round % 2 == 1 {
            // What a killed process left is read without a change, and the next driver has to recover from it.
            let (db, keyspaces) = open(&directory, true);
            check(&db, &keyspaces, &oracle, &mut threads, &what);
        } else {
            let (db, keyspaces) = open(&directory, false);
            check(&db, &keyspaces, &oracle, &mut threads, &what);
            logged += check_log(&db, &keyspaces);
        }
    }
    let batches: u64 = threads.iter().map(|thread| thread.number).sum();
    println!("{rounds} kills, {batches} batches, {logged} log entries checked in {:?}", started.elapsed());
    assert!(threads.iter().all(|thread| thread.number > rounds), "too few writes between kills");
}
