//! What a repair has to bring back: everything but what lay in the damaged block or record.

use std::collections::BTreeSet;
use std::path::Path;

use siltstone::fs::{FileSystem as _, Keep, SimFileSystem};
use siltstone::{RepairReport, SeqNo};

use super::check::read;
use super::database::{Contents, DIRECTORY, Database, options};
use super::{Case, is, layout};
use crate::state::{Map, difference, short};

/// What may be missing after a repair, or be older than it was.
#[derive(Debug, Default)]
struct Loss {
    /// Keyspace, first and last key.
    ranges: Vec<(String, Vec<u8>, Vec<u8>)>,
    /// Keyspace and key.
    keys: BTreeSet<(String, Vec<u8>)>,
    /// Metadata.
    metadata: bool,
    /// Names of keyspaces that no table has.
    names: bool,
    /// Sequence numbers at the end.
    numbers: bool,
}

impl Loss {
    fn covers(&self, keyspace: &str, key: &[u8]) -> bool {
        self.keys.contains(&(keyspace.to_owned(), key.to_owned()))
            || self.ranges.iter().any(|(name, from, to)| name == keyspace && (&from[..]..=&to[..]).contains(&key))
    }

    /// What lies in bytes of a table or segment that `is_hit` says are damaged.
    fn in_file(&mut self, database: &Database, file: &Path, is_hit: impl Fn(std::ops::Range<usize>) -> bool) {
        let bytes = database.sim.read(file).unwrap();
        if is(file, "table") {
            let table = layout::table(&bytes);
            for block in table.blocks.into_iter().filter(|block| is_hit(block.bytes.clone())) {
                self.ranges.push((table.keyspace.clone(), block.from, block.to));
            }
        } else if is(file, "wal") {
            for record in layout::records(&bytes).into_iter().filter(|record| is_hit(record.bytes.clone())) {
                let written = |seqno: SeqNo| database.writes.get(&seqno).cloned();
                self.keys.extend(record.seqnos.filter_map(written));
                (self.metadata, self.numbers) = (true, true);
            }
        } else {
            (self.metadata, self.names) = (true, true);
        }
    }

    fn of(database: &Database, case: &Case) -> Loss {
        let mut loss = Loss::default();
        match case {
            Case::Flip { file, at, .. } => loss.in_file(database, file, |bytes| bytes.contains(at)),
            Case::Cut { file, len } => loss.in_file(database, file, |bytes| bytes.end > *len),
            Case::Remove { file } | Case::Replace { file, .. } => loss.in_file(database, file, |_| true),
            Case::Swap { .. } | Case::Grow { .. } => {
                loss.metadata = is(case.file(), "MANIFEST");
                loss.names = loss.metadata;
            }
        }
        loss
    }
}

/// Damages the database, repairs it, and compares it with what was intact.
pub fn run(database: &Database, case: &Case) {
    let sim = database.copy();
    case.apply(&sim);
    let what = format!("{} database, repaired, {case}", database.name);
    let damaged = sim.read(case.file()).ok();
    let report = repair(&sim, &what);
    let found = open_and_read(database, &sim, &what, &report);
    // What no sync covers may end where it is damaged, as after any crash; that is nothing to repair.
    let is_prefix = !report.changed && database.prefixes.contains(&found);
    if !is_prefix {
        compare(database, &found, &Loss::of(database, case), &what, &report);
    }
    let again = repair(&sim, &what);
    assert!(!again.changed, "{what}: repaired again, {again}");
    if let Some(damaged) = damaged.filter(|_| is_reported(&report, case.file())) {
        let lost = Path::new(DIRECTORY).join("lost").join(case.file().file_name().unwrap());
        assert_eq!(sim.read(&lost).ok(), Some(damaged), "{what}: the damaged file is not in lost/");
    }
}

fn is_reported(report: &RepairReport, file: &Path) -> bool {
    report.changed && report.files.iter().any(|found| found.file == file && !found.damage.is_empty())
}

/// Damages the database in several places: a repair gives a database that opens, is whole, and holds nothing that was
/// never written.
pub fn run_twice_damaged(database: &Database, cases: &[Case]) {
    let sim = database.copy();
    cases.iter().for_each(|case| case.apply(&sim));
    let what = format!("{} database, repaired, {cases:?}", database.name);
    let report = match options(&sim).repair(DIRECTORY) {
        // Where the version and something else of a file do not fit, nobody can tell a newer release's file.
        Err(siltstone::Error::UnsupportedVersion { .. }) => return,
        report => report.unwrap_or_else(|error| panic!("{what}: {error}")),
    };
    let found = open_and_read(database, &sim, &what, &report);
    let nothing_made_up =
        |name: &str, map: &Map| map.iter().all(|(key, value)| was_written(database, name, key, value));
    for (name, map) in &found.state {
        let known = name.starts_with("lost-");
        assert!(known || nothing_made_up(name, map), "{what}: {name} holds what was never written\n{report}");
    }
}

fn was_written(database: &Database, name: &str, key: &[u8], value: &[u8]) -> bool {
    let values = database.history.get(&(name.to_owned(), key.to_owned()));
    values.is_some_and(|values| values.contains(value))
}

fn repair(sim: &SimFileSystem, what: &str) -> RepairReport {
    options(sim).repair(DIRECTORY).unwrap_or_else(|error| panic!("{what}: {error}"))
}

/// The repaired database: it opens, and everything in it checks out.
fn open_and_read(database: &Database, sim: &SimFileSystem, what: &str, report: &RepairReport) -> Contents {
    // A copy, so that what the open writes does not hide what the repair left.
    let sim = sim.crash_clone(Keep::All, 0);
    let db = options(&sim).open(Path::new(DIRECTORY)).unwrap_or_else(|error| panic!("{what}: {error}\n{report}"));
    let verified = db.verify();
    assert!(verified.is_ok(), "{what}: {verified}\n{report}");
    let (contents, whole) = read(database, &db, what);
    assert!(whole, "{what}: a read fails\n{report}");
    // It takes writes, and gives them new numbers.
    let keyspace = db.keyspace("new", Default::default()).unwrap();
    assert!(keyspace.put("k", "v").unwrap() > contents.last_seqno, "{what}");
    contents
}

fn compare(database: &Database, found: &Contents, loss: &Loss, what: &str, report: &RepairReport) {
    let expected = database.contents();
    let empty = Map::new();
    // A keyspace whose name is lost is found by what is in it.
    let named = |name: &String| {
        let lost = found
            .state
            .iter()
            .find(|(other, map)| other.starts_with("lost-") && Some(*map) == expected.state.get(name));
        found.state.get(name).or(lost.filter(|_| loss.names).map(|(_, map)| map)).unwrap_or(&empty)
    };
    for (name, map) in &expected.state {
        let found = named(name);
        for key in map.keys().chain(found.keys()) {
            let value = found.get(key);
            let right = value == map.get(key);
            let excused = loss.covers(name, key) && value.is_none_or(|value| was_written(database, name, key, value));
            let show = |value: Option<&Vec<u8>>| value.map_or("nothing".to_owned(), |value| short(value));
            let (value, before) = (show(value), show(map.get(key)));
            assert!(right || excused, "{what}: {name}/{}: {value} instead of {before}\n{report}", key.escape_ascii());
        }
    }
    for name in found.state.keys() {
        let known = expected.state.contains_key(name) || (loss.names && name.starts_with("lost-"));
        let excused = loss.keys.iter().any(|(keyspace, _)| keyspace == name);
        assert!(known || excused, "{what}: keyspace {name} came back\n{report}");
    }
    assert!(loss.metadata || found.metadata == expected.metadata, "{what}: metadata {:?}\n{report}", found.metadata);
    let last = (found.last_seqno, expected.last_seqno);
    assert!(loss.numbers || last.0 >= last.1, "{what}: numbers go back, {last:?}\n{report}");
}

/// Stops a repair at each of its calls and runs it again after a power cut: the database comes out the same. Answers how
/// many stops there were.
pub fn run_stopped(database: &Database, case: &Case) -> u64 {
    let damaged = database.copy();
    case.apply(&damaged);
    let what = format!("{} database, {case}", database.name);
    let whole = damaged.crash_clone(Keep::All, 0);
    let report = repair(&whole, &what);
    let expected = open_and_read(database, &whole, &what, &report);
    for stop in 0.. {
        let sim = damaged.crash_clone(Keep::All, 0);
        sim.stop_after(stop);
        let finished = options(&sim).repair(DIRECTORY).is_ok();
        for (seed, keep) in [Keep::Nothing, Keep::Some, Keep::All].into_iter().enumerate() {
            let what = format!("{what}, repair stopped after {stop} calls, {keep:?}");
            let left = sim.crash_clone(keep, stop + seed as u64);
            let report = repair(&left, &what);
            let found = open_and_read(database, &left, &what, &report);
            assert!(
                found == expected,
                "{what}: another result, {:?}\n{report}",
                difference(&found.state, &expected.state)
            );
            let lost = Path::new(DIRECTORY).join("lost");
            for name in lost_files(&whole) {
                let path = lost.join(&name);
                assert_eq!(left.read(&path).ok(), whole.read(&path).ok(), "{what}: lost/{name}");
            }
        }
        if finished {
            return stop;
        }
    }
    unreachable!("a repair ends")
}

fn lost_files(sim: &SimFileSystem) -> Vec<String> {
    let listed = sim.read_dir(&Path::new(DIRECTORY).join("lost")).unwrap_or_default();
    listed.into_iter().map(|entry| entry.name).collect()
}
