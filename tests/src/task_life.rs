//! A stream task that is killed with SIGKILL again and again, in the middle of restoring, committing, shipping and
//! compacting its log, now and then with the loss of its machine: no input counts twice, and none that was committed is
//! missing.
//!
//! The inputs are the numbers 1, 2, 3 and so on; what the state has to be after each of them follows from the number alone.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use siltstone_changelog::store::KeyValueStore;
use siltstone_changelog::{FileSink, FileSinkOptions, FileSource, Inputs, Restore, Task, TaskOptions};

/// What ends a driver.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;

/// The name of the input.
const INPUT: &str = "numbers";

/// The number of SIGKILL.
const SIGKILL: i32 = 9;

/// The state: keys and values of the store.
type State = BTreeMap<Vec<u8>, Vec<u8>>;

/// A write: a key, and its value or none for a delete.
type Write = (Vec<u8>, Option<Vec<u8>>);

/// What the input `number` changes; `get` tells what is there.
fn writes(number: u64, mut get: impl FnMut(&[u8]) -> Result<Option<Vec<u8>>, Failure>) -> Result<Vec<Write>, Failure> {
    let counted = |value: Option<Vec<u8>>| -> Result<u64, Failure> {
        Ok(value.map_or(Ok(0), |value| String::from_utf8_lossy(&value).parse())?)
    };
    let sum = counted(get(b"sum")?)? + number;
    let slot = format!("slot {:03}", number % 211).into_bytes();
    let count = counted(get(&slot)?)? + 1;
    let coming = format!("there {:02}", number % 37).into_bytes();
    Ok(vec![
        (b"sum".to_vec(), Some(sum.to_string().into_bytes())),
        (slot, Some(count.to_string().into_bytes())),
        (coming, (!number.is_multiple_of(3)).then(|| vec![number as u8; 50])),
    ])
}

/// What the state is once the first `number` inputs count.
fn expected(number: u64) -> Result<State, Failure> {
    let mut state = State::new();
    for input in 1..=number {
        let changes = writes(input, |key| Ok(state.get(key).cloned()))?;
        for (key, value) in changes {
            match value {
                Some(value) => drop(state.insert(key, value)),
                None => drop(state.remove(&key)),
            }
        }
    }
    Ok(state)
}

/// Where a life has its files.
#[derive(Clone, Debug)]
struct Layout(PathBuf);

impl Layout {
    fn local(&self) -> PathBuf {
        self.0.join("local")
    }

    fn log(&self) -> PathBuf {
        self.0.join("log")
    }

    /// The inputs whose commit was answered, a line each.
    fn committed(&self) -> PathBuf {
        self.0.join("committed")
    }

    fn source(&self) -> FileSource {
        FileSource::open(self.log())
    }
}

/// The log in small segments, which are compacted often.
fn sink_options() -> FileSinkOptions {
    FileSinkOptions::new().segment_bytes(16 << 10).min_dirty_bytes(64 << 10)
}

fn position(inputs: &Inputs) -> Result<u64, Failure> {
    Ok(inputs.get(INPUT).map_or(Ok(0), |number| String::from_utf8_lossy(number).parse())?)
}

/// The process that is killed: `DIRECTORY SEED`.
///
/// # Errors
/// Whatever fails.
pub fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [directory, seed] = &arguments[..] else { return Err("two arguments: DIRECTORY SEED".into()) };
    let (layout, mut random) = (Layout(directory.into()), StdRng::seed_from_u64(seed.parse()?));
    let options = siltstone::Options::new().memory_bytes(4 << 20);
    // Large parts of the log are sorted, small ones are not.
    let restore = Restore::new(layout.source()).into_with(layout.local(), options).reuse(true).chunk_bytes(32 << 10);
    let open_sink = || FileSink::open_with(layout.log(), sink_options());
    let mut task = Task::open(restore, open_sink, TaskOptions::new())?;
    let store = task.store("state", Default::default())?;
    let mut committed = OpenOptions::new().create(true).append(true).open(layout.committed())?;
    let mut number = position(task.inputs())?;
    loop {
        for _ in 0..random.random_range(1..20) {
            number += 1;
            for (key, value) in writes(number, |key| Ok(store.get(key)?.map(|value| value.to_vec())))? {
                match value {
                    Some(value) => store.put(&key, &value)?,
                    None => store.delete(&key)?,
                }
            }
        }
        task.commit(Inputs::from([(INPUT.to_owned(), number.to_string().as_str().into())]))?;
        committed.write_all(format!("{number}\n").as_bytes())?;
    }
}

/// Kills `driver` `rounds` times; how many inputs counted in the end.
///
/// # Panics
/// If anything is wrong with what a killed process leaves.
pub fn kills(driver: &Path, seed: u64, rounds: u64) -> u64 {
    let scratch = tempfile::tempdir().expect("a directory");
    let layout = Layout(scratch.path().to_owned());
    let mut random = StdRng::seed_from_u64(seed);
    let mut counted = 0;
    for round in 0..rounds {
        let what = format!("seed {seed}, round {round}");
        // The machine is lost.
        if random.random_bool(0.2) {
            let _ = fs::remove_dir_all(layout.local());
        }
        let delay = Duration::from_micros(random.random_range(500..60_000));
        kill_after(driver, &layout, seed + round, delay, &what);
        counted = check(&layout, counted, &what).unwrap_or_else(|error| panic!("{what}: {error}"));
    }
    counted
}

fn kill_after(driver: &Path, layout: &Layout, seed: u64, delay: Duration, what: &str) {
    let mut process = Command::new(driver)
        .arg(&layout.0)
        .arg(seed.to_string())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{}: {error}", driver.display()));
    thread::sleep(delay);
    let _ = process.kill();
    let ended = process.wait_with_output().expect("a process that ends");
    let said = String::from_utf8_lossy(&ended.stderr);
    assert_eq!(ended.status.signal(), Some(SIGKILL), "{what}: it ended by itself: {said}");
}

/// Restores the state from the log alone: it has to be that of the inputs that it says it counts, which are no fewer than
/// were acknowledged.
fn check(layout: &Layout, counted: u64, what: &str) -> Result<u64, Failure> {
    let acknowledged = fs::read_to_string(layout.committed()).unwrap_or_default();
    let acknowledged = acknowledged.lines().last().map_or(Ok(0), str::parse)?;
    let scratch = tempfile::tempdir()?;
    let (db, _) = Restore::new(layout.source()).into(scratch.path()).run()?;
    let entries = |name: &str| -> Result<State, Failure> {
        let entries = db.keyspace(name, Default::default())?.iter();
        Ok(entries.map(|entry| entry.map(|(key, value)| (key.to_vec(), value.to_vec()))).collect::<Result<_, _>>()?)
    };
    let inputs = entries(siltstone_changelog::INPUTS_KEYSPACE)?;
    let number = inputs.get(INPUT.as_bytes()).map_or(Ok(0), |number| String::from_utf8_lossy(number).parse())?;
    assert!(number >= acknowledged, "{what}: {number} inputs count, {acknowledged} were committed");
    assert!(number >= counted, "{what}: {number} inputs count, {counted} did before");
    assert_eq!(entries("state")?, expected(number)?, "{what}: the state of {number} inputs");
    Ok(number)
}
