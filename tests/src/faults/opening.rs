//! Faults while a database is opened that a killed process left: with a log, several tables, a drop in doubt, a
//! torn manifest and files that nothing names.

use std::path::Path;
use std::sync::Arc;

use rand::RngExt;
use siltstone::Error;
use siltstone::fs::{Fault, FaultFileSystem, FileSystem, Keep, Op, SimFileSystem};

use super::checks::{assert_clear, assert_recovers, assert_serves, file_systems, on, open};
use super::{Injection, KINDS, Tally, Watch};
use crate::history::{Event, History};
use crate::runner::name;
use crate::steps::rng;
use crate::workload::{DIRECTORY, Workload, keyspace_options};

/// What a killed process left.
struct Left {
    sim: SimFileSystem,
    fs: FaultFileSystem,
    history: History,
}

/// Runs `workload`, drops a keyspace such that the drop is in the log and torn in the manifest, and kills the process.
fn kill(workload: &Workload) -> Left {
    let (sim, fs) = file_systems();
    let mut outcome = workload.run(on(&fs));
    assert!(outcome.error.is_none(), "{workload:?}: {:?}", outcome.error);
    let (db, keyspaces) = outcome.db.take().expect("it was opened");
    let mut history = outcome.history;
    let dropped = name(workload.seed as usize % keyspaces.len());
    history.intend(Event::DropKeyspace(dropped.clone()));
    // Else the background may be the first to fail, and the drop never be logged.
    db.wait_for_compaction().unwrap_or_else(|error| panic!("{workload:?}: {error}"));
    fs.only(Op::Append);
    fs.fail_from(1, Fault::ShortWrite);
    let refused = db.drop_keyspace(&dropped);
    let in_manifest = |path: &Path| path.to_string_lossy().contains("MANIFEST");
    assert!(matches!(&refused, Err(Error::Io { path, .. }) if in_manifest(path)), "{workload:?}: {refused:?}");
    // It was not acknowledged, but its record in the log was synced before.
    history.acknowledge(true);
    // Nothing that closing would write gets through.
    fs.clear();
    fs.fail_from(1, Fault::Io);
    drop(keyspaces);
    assert!(db.close().is_ok(), "{workload:?}: a failed database has nothing to write when it closes");
    drop(db);
    fs.clear();
    for leftover in ["000000.wal", "000000.spare", "999999.table", "MANIFEST-999999", "CURRENT.tmp"] {
        sim.write(&Path::new(DIRECTORY).join(leftover), b"left over").unwrap();
    }
    Left { sim, fs, history }
}

/// Opens what `workload` left with one injection, and checks what it leads to; whether the injected call was made.
pub fn run(workload: &Workload, injection: Injection, tally: &mut Tally) -> bool {
    let what = format!("opening {workload:?}, {injection:?}");
    let Left { sim, fs, history } = kill(workload);
    injection.plan(&fs);
    let opened = open(&fs);
    let Some((_, what)) = tally.injected(&fs, &what) else { return false };
    let after_cut = sim.crash_clone(Keep::Nothing, 0);
    match opened {
        Err(error) => {
            assert_clear(&error, injection.fault, &what);
            tally.felt += 1;
        }
        // Nothing needed the call, or the background did.
        Ok(db) => {
            let open = |name: &String| db.keyspace(name, keyspace_options());
            let keyspaces: Result<Vec<_>, _> = db.keyspaces().iter().map(open).collect();
            let keyspaces = keyspaces.unwrap_or_else(|error| panic!("{what}: {error}"));
            assert_serves(&history, &db, &keyspaces, &what);
        }
    }
    let opened_again = format!("{what}, opened again");
    tally.reopens += assert_recovers(&sim, &fs, &history, history.acknowledged(), &opened_again);
    let fs = FaultFileSystem::new(Arc::new(after_cut.clone()));
    let cut = format!("{what}, after a power cut");
    tally.reopens += assert_recovers(&after_cut, &fs, &history, history.synced(), &cut);
    true
}

/// Opens what `workload` left read-only, with one injection: it works or says why not, and no byte changes. Whether the
/// injected call was made.
pub fn run_read_only(workload: &Workload, injection: Injection, tally: &mut Tally) -> bool {
    let what = format!("opening {workload:?} read-only, {injection:?}");
    let Left { sim, fs, .. } = kill(workload);
    let contents = |sim: &SimFileSystem| -> Vec<_> {
        sim.paths().into_iter().map(|path| (sim.read(&path).unwrap(), path)).collect()
    };
    let (before, calls) = (contents(&sim), sim.call_count());
    injection.plan(&fs);
    let opened = on(&fs).read_only(true).open(Path::new(DIRECTORY));
    if fs.injected().is_none() {
        return false;
    }
    tally.points += 1;
    match &opened {
        Err(error) => {
            assert_clear(error, injection.fault, &what);
            tally.felt += 1;
        }
        Ok(_) => panic!("{what}: opened, although every call of a read-only open matters"),
    }
    assert_eq!(sim.call_count(), calls, "{what}: it changed something");
    assert!(contents(&sim) == before, "{what}: bytes changed");
    fs.clear();
    let db = on(&fs).read_only(true).open(Path::new(DIRECTORY)).unwrap_or_else(|error| panic!("{what}: {error}"));
    assert!(db.verify().is_ok(), "{what}");
    tally.reopens += 1;
    true
}

/// Every call of an open of what `workload` left, and of a read-only one, with each of [`KINDS`].
///
/// # Panics
/// At the first thing that is not as promised.
pub fn enumerate(workload: &Workload, tally: &mut Tally) {
    let watch = Watch::new();
    for (only, fault, for_good) in KINDS {
        let injection = |at| Injection { only, at, fault, for_good };
        let begin = |at| watch.begin(&format!("opening {workload:?}, {:?}", injection(at)));
        (1..).inspect(|&at| begin(at)).take_while(|&at| run(workload, injection(at), tally)).for_each(drop);
        (1..).inspect(|&at| begin(at)).take_while(|&at| run_read_only(workload, injection(at), tally)).for_each(drop);
    }
}

/// `points` calls of opens of what `workload` left, drawn by its seed.
///
/// # Panics
/// At the first thing that is not as promised.
pub fn sample(workload: &Workload, points: u64, tally: &mut Tally) {
    let (watch, rng) = (Watch::new(), &mut rng(workload.seed));
    let total = {
        let Left { fs, .. } = kill(workload);
        let before = fs.calls();
        open(&fs).unwrap_or_else(|error| panic!("opening {workload:?}: {error}"));
        fs.calls() - before
    };
    for _ in 0..points {
        let (only, fault, for_good) = KINDS[rng.random_range(0..KINDS.len())];
        let at = rng.random_range(1..=if only.is_some() { total / 8 + 1 } else { total });
        let injection = Injection { only, at, fault, for_good };
        watch.begin(&format!("opening {workload:?}, {injection:?}"));
        run(workload, injection, tally);
    }
}

/// Where nothing fails, an open changes nothing for the worse either: the base of the cases above.
pub fn assert_reads_back(workload: &Workload) {
    let Left { sim, fs, history } = kill(workload);
    assert!(sim.read_dir(Path::new(DIRECTORY)).unwrap().iter().filter(|e| e.name.ends_with(".table")).count() > 3);
    assert_recovers(&sim, &fs, &history, history.acknowledged(), &format!("{workload:?}, nothing fails"));
}
