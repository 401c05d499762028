//! Faults while a workload runs, its creation of the database included.

use std::sync::Arc;

use rand::RngExt;
use siltstone::fs::{Fault, FaultFileSystem, Injected, Keep, Op};
use siltstone::{Db, Durability, Error, Iter, Keyspace, Result, WriteBatch};

use super::checks::{assert_clear, assert_recovers, assert_refuses, assert_serves, file_systems, on};
use super::{Injection, KINDS, Tally, Watch};
use crate::history::{Event, History};
use crate::log::check_log;
use crate::runner::name;
use crate::state::{Entries, collect};
use crate::steps::{self, rng};
use crate::workload::{Outcome, Workload};

/// Runs `workload` with one injection, and checks what it leads to; whether the injected call was made at all.
pub fn run(workload: &Workload, injection: Injection, tally: &mut Tally) -> bool {
    let what = format!("{workload:?}, {injection:?}");
    let (sim, fs) = file_systems();
    injection.plan(&fs);
    let mut outcome = workload.run(on(&fs));
    let Some((injected, what)) = tally.injected(&fs, &what) else { return false };
    let after_cut = sim.crash_clone(Keep::Nothing, 0);
    if let Some(error) = &outcome.error {
        assert_clear(error, injection.fault, &what);
    }
    if let Some((db, keyspaces)) = outcome.db.take() {
        tally.felt += u64::from(check_running(&outcome, &db, &keyspaces, injection, &injected, &what));
        // Closing a failed database frees the directory all the same.
        drop(keyspaces);
        let _in_doubt = db.close();
    } else {
        assert!(outcome.error.is_some(), "{what}: no database and no error");
        tally.felt += 1;
    }
    let history = &outcome.history;
    tally.reopens += assert_recovers(&sim, &fs, history, history.acknowledged(), &format!("{what}, reopened"));
    let fs = FaultFileSystem::new(Arc::new(after_cut.clone()));
    tally.reopens += assert_recovers(&after_cut, &fs, history, history.synced(), &format!("{what}, after a power cut"));
    true
}

/// The open database is read-only exactly if the workload was told of an error, and serves reads; whether it was told.
fn check_running(
    outcome: &Outcome,
    db: &Db,
    keyspaces: &[Keyspace],
    injection: Injection,
    injected: &Injected,
    what: &str,
) -> bool {
    assert_serves(&outcome.history, db, keyspaces, what);
    let reason = db.metrics().read_only_reason;
    if !injection.for_good && is_unneeded(injected) {
        assert!(outcome.error.is_none() && reason.is_none(), "{what}: nothing is in doubt: {reason:?}");
    }
    match (&outcome.error, reason) {
        (Some(_), _) => assert_refuses(db, keyspaces, what),
        // The background met it after the last step.
        (None, Some(reason)) => {
            assert_refuses(db, keyspaces, what);
            assert_clear(&Error::ReadOnly { reason }, injection.fault, what);
        }
        (None, None) => return false,
    }
    true
}

/// Whether nothing depends on the call: it is about a file that nothing needs.
fn is_unneeded(injected: &Injected) -> bool {
    let to_spare = injected.op == Op::Rename && injected.path.extension().is_some_and(|kind| kind == "spare");
    injected.op == Op::Remove || to_spare
}

/// Every call of `workload` once with each of [`KINDS`] that `chosen` admits by its number and the call's.
///
/// # Panics
/// At the first thing that is not as promised.
pub fn enumerate(workload: &Workload, chosen: impl Fn(usize, u64) -> bool, tally: &mut Tally) {
    let watch = Watch::new();
    for (kind, (only, fault, for_good)) in KINDS.into_iter().enumerate() {
        let mut run_at = |at: u64| {
            watch.begin(&format!("{workload:?}, {fault:?} at {at} of {only:?}"));
            run(workload, Injection { only, at, fault, for_good }, tally)
        };
        let total = calls(workload, only);
        for at in (1..=total).filter(|&at| chosen(kind, at)) {
            run_at(at);
        }
        // The background makes a few calls more or less each time.
        (total + 1..).take_while(|&at| run_at(at)).for_each(drop);
    }
}

/// `points` of the calls of `workload`, drawn by its seed.
///
/// # Panics
/// At the first thing that is not as promised.
pub fn sample(workload: &Workload, points: u64, tally: &mut Tally) {
    let (watch, rng) = (Watch::new(), &mut rng(workload.seed));
    let totals: Vec<u64> = KINDS.iter().map(|(only, ..)| calls(workload, *only)).collect();
    for _ in 0..points {
        let kind = rng.random_range(0..KINDS.len());
        let (only, fault, for_good) = KINDS[kind];
        let injection = Injection { only, at: rng.random_range(1..=totals[kind].max(1)), fault, for_good };
        watch.begin(&format!("{workload:?}, {injection:?}"));
        run(workload, injection, tally);
    }
}

/// How many calls (of one kind) `workload` makes when nothing fails.
pub fn calls(workload: &Workload, only: Option<Op>) -> u64 {
    let (_, fs) = file_systems();
    if let Some(op) = only {
        fs.only(op);
    }
    let outcome = workload.run(on(&fs));
    assert!(outcome.error.is_none(), "{workload:?}: {:?}", outcome.error);
    fs.calls()
}

/// Calls that no read makes.
const WRITING: [Op; 8] =
    [Op::Append, Op::Sync, Op::SyncDir, Op::Create, Op::CreateMapped, Op::Rename, Op::MappedWrite, Op::MappedSync];

/// Snapshots, iterators and followers from before a fault go on after it, while what failed still fails: for every kind
/// of call that no read makes, from its first, second, ... on, `most` at most.
///
/// # Panics
/// At the first thing that is not as promised.
pub fn keeps_views(workload: &Workload, most: u64, tally: &mut Tally) {
    let watch = Watch::new();
    for (op, at) in WRITING.into_iter().flat_map(|op| (1..=most).map(move |at| (op, at))) {
        let injection = Injection { only: Some(op), at, fault: Fault::Io, for_good: true };
        let what = format!("views over {workload:?}, {injection:?}");
        watch.begin(&what);
        let (_, fs) = file_systems();
        let Outcome { mut history, error, db } = workload.run(on(&fs));
        assert!(error.is_none(), "{what}: {error:?}");
        let (db, keyspaces) = db.expect("it was opened");
        let expected: Vec<Entries> = keyspaces.iter().map(|keyspace| collect(keyspace.iter()).unwrap()).collect();
        let snapshot = db.snapshot();
        let mut begun: Vec<Iter> = keyspaces.iter().map(Keyspace::iter).collect();
        let first: Vec<_> = begun.iter_mut().map(|iter| collect(iter.take(1)).unwrap()).collect();
        injection.plan(&fs);
        let error = write_until_error(&db, &keyspaces, &mut history, workload.seed).err();
        tally.points += u64::from(fs.injected().is_some());
        if let Some(error) = &error {
            assert_clear(error, injection.fault, &what);
            assert_refuses(&db, &keyspaces, &what);
            tally.felt += 1;
        }
        assert_serves(&history, &db, &keyspaces, &what);
        check_log(&db, &keyspaces);
        for ((keyspace, expected), (begun, first)) in keyspaces.iter().zip(&expected).zip(begun.into_iter().zip(first))
        {
            let seen = collect(snapshot.iter(keyspace)).unwrap_or_else(|error| panic!("{what}: snapshot: {error}"));
            assert!(seen == *expected, "{what}: the snapshot of {} changed", keyspace.name());
            let rest = collect(begun).unwrap_or_else(|error| panic!("{what}: iterator: {error}"));
            assert!([first, rest].concat() == *expected, "{what}: an iterator of {} changed", keyspace.name());
        }
    }
}

/// Writes, flushes and compacts a while, or until something fails.
fn write_until_error(db: &Db, keyspaces: &[Keyspace], history: &mut History, seed: u64) -> Result<()> {
    let rng = &mut rng(seed);
    for round in 0..20 {
        let mut batch = WriteBatch::new();
        let writes = steps::batch(rng);
        for (keyspace, key, value) in &writes {
            let keyspace = &keyspaces[*keyspace];
            match value {
                Some(value) => batch.put(keyspace, key, value),
                None => batch.delete(keyspace, key),
            };
        }
        let named = writes.into_iter().map(|(keyspace, key, value)| (name(keyspace), key, value));
        history.intend(Event::Batch(named.collect()));
        db.write_with(batch, if round % 4 == 3 { Durability::Synced } else { Durability::Buffered })?;
        history.acknowledge(false);
        match round % 5 {
            2 => db.flush()?,
            4 => keyspaces[round % keyspaces.len()].compact()?,
            _ => {}
        }
    }
    Ok(())
}
