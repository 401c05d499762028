//! A disk that is full at some byte, and later gets space.

use std::io;
use std::sync::Arc;

use siltstone::Error;
use siltstone::fs::{FaultFileSystem, Keep};

use super::checks::{assert_clear_words, assert_recovers, assert_refuses, assert_serves, file_systems, on, open};
use super::{Tally, Watch};
use crate::workload::Workload;

/// What the simulated disk says when it is full.
fn words() -> String {
    io::Error::from(io::ErrorKind::StorageFull).to_string()
}

/// Fills a disk of `capacity_bytes` and checks what that leads to: while it is full, and when there is space again.
///
/// # Panics
/// At the first thing that is not as promised.
pub fn run(capacity_bytes: u64, tally: &mut Tally) {
    let what = format!("a disk of {capacity_bytes} bytes");
    let watch = Watch::new();
    watch.begin(&what);
    let (sim, fs) = file_systems();
    sim.set_capacity_bytes(Some(capacity_bytes));
    let mut outcome = Workload { seed: capacity_bytes, steps: 4000, lockstep: false }.run(on(&fs));
    let error = outcome.error.as_ref().unwrap_or_else(|| panic!("{what}: never full"));
    assert_clear_words(error, &words(), &what);
    tally.points += 1;
    tally.felt += 1;
    if let Some((db, keyspaces)) = outcome.db.take() {
        assert_serves(&outcome.history, &db, &keyspaces, &what);
        assert_refuses(&db, &keyspaces, &what);
    }
    // Still full: an open says so or works, and loses nothing.
    match open(&fs) {
        Ok(db) => drop(db.close()),
        Err(error @ Error::Io { .. }) => assert_clear_words(&error, &words(), &format!("{what}, opened while full")),
        Err(error) => panic!("{what}, opened while full: {error}"),
    }
    let history = &outcome.history;
    let after_cut = sim.crash_clone(Keep::Nothing, 0);
    sim.set_capacity_bytes(None);
    after_cut.set_capacity_bytes(None);
    tally.reopens += assert_recovers(&sim, &fs, history, history.acknowledged(), &format!("{what}, with space again"));
    let fs = FaultFileSystem::new(Arc::new(after_cut.clone()));
    tally.reopens += assert_recovers(&after_cut, &fs, history, history.synced(), &format!("{what}, after a power cut"));
}
