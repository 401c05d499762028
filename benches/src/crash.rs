//! Open after kill -9: one process fills a log and is killed, another one opens what is there.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use crate::data::{Dataset, Permutation};
use crate::engines::{Direction, Engine};
use crate::error::{Error, Result};
use crate::measure::{Kind, ProcessUsage, Recorder, Timing, directory_bytes, thread_cpu_ns};
use crate::session::{KindMeasurement, Line, Measurement, print};
use crate::settings::{Durability, Settings};
use crate::workloads::Workload;

/// How many bytes of keys and values are put before the kill; less if the keys end.
pub const LOG_BYTES: u64 = 64 << 20;

/// How long a filled process waits to be killed.
const WAIT_FOR_KILL: Duration = Duration::from_secs(60);

/// Every put is version 1 of its key.
const VERSION: u64 = 1;

/// The first [`LOG_BYTES`] of the settings' keys, or all of them.
fn dataset(settings: &Settings) -> Result<Dataset> {
    let entry_bytes = (settings.key_bytes + settings.value_bytes).max(1) as u64;
    let keys = settings.keys.min(LOG_BYTES.div_ceil(entry_bytes));
    Dataset::new(keys, settings.key_bytes, settings.value_bytes, settings.seed)
}

/// In which order they are put: a random one.
fn order(data: &Dataset) -> Permutation {
    data.order(VERSION)
}

fn store(dir: &Path) -> PathBuf {
    dir.join("store")
}

/// Fills a fresh store under `dir`, in random order, says so with a [`Line::Filled`] on `out`, and waits to be killed.
///
/// # Errors
/// What the engine says, and [`Error::Settings`] if nobody kills it within a minute.
pub fn fill_log<E: Engine>(settings: &Settings, dir: &Path, out: &mut impl Write) -> Result<()> {
    let data = dataset(settings)?;
    let _engine = fill::<E>(settings, &data, dir)?;
    print(out, &Line::Filled)?;
    thread::sleep(WAIT_FOR_KILL);
    Err(Error::Settings("the process was to be killed, and was not".to_owned()))
}

fn fill<E: Engine>(settings: &Settings, data: &Dataset, dir: &Path) -> Result<E> {
    let store = store(dir);
    std::fs::create_dir(&store).map_err(Error::io(&store))?;
    let engine = E::open(&store, settings)?;
    let (order, mut key, mut value) = (order(data), Vec::new(), Vec::new());
    for step in 0..data.keys() {
        let id = data.loaded(order.at(step));
        data.key(id, &mut key);
        data.value(id, VERSION, &mut value);
        engine.put(&key, &value)?;
    }
    Ok(engine)
}

/// Opens the store that a killed process left under `dir`: the time until the first get is answered is what is
/// measured. Then checks that every acknowledged write is there, as the durability promises.
///
/// # Errors
/// What the engine says, or [`Error::WrongAnswer`].
pub fn reopen<E: Engine>(settings: &Settings, dir: &Path, out: &mut impl Write) -> Result<()> {
    let data = dataset(settings)?;
    let (engine, measurement) = measure::<E>(settings, &data, dir)?;
    verify(&engine, settings, &data)?;
    print(out, &Line::Measured(Box::new(measurement)))?;
    print(out, &Line::Details(engine.accounts().details))?;
    engine.close()
}

/// Opens the store and gets one key.
fn measure<E: Engine>(settings: &Settings, data: &Dataset, dir: &Path) -> Result<(E, Measurement)> {
    let store = store(dir);
    let disk_bytes = directory_bytes(&store)?;
    // The last one that was put.
    let id = data.loaded(order(data).at(data.keys() - 1));
    let mut key = Vec::new();
    data.key(id, &mut key);
    ProcessUsage::reset_peak();
    let (before, own_cpu_ns, started) = (ProcessUsage::now(), thread_cpu_ns(), Instant::now());
    let engine = E::reopen(&store, settings)?;
    let answer = engine.get(&key, |value| data.check(id, VERSION, value))?;
    let elapsed = started.elapsed();
    let (after, own_cpu_ns) = (ProcessUsage::now(), thread_cpu_ns().saturating_sub(own_cpu_ns));
    check(answer, id, settings)?;
    let mut recorder = Recorder::new(settings.seed, Timing::Every);
    recorder.record(elapsed);
    let latencies = recorder.latencies();
    let accounts = engine.accounts();
    let difference = |after: Option<u64>, before: Option<u64>| Some(after?.saturating_sub(before?));
    let measurement = Measurement {
        workload: Workload::OpenAfterKill,
        durability: settings.durability,
        ops: 1,
        kinds: vec![KindMeasurement { kind: Kind::Opens, ops: 1, latencies: latencies.clone() }],
        cut: false,
        seconds: elapsed.as_secs_f64(),
        idle_seconds: 0.0,
        settled: false,
        latencies,
        caller_cpu_ns: own_cpu_ns,
        cpu_ns: after.cpu_ns.saturating_sub(before.cpu_ns),
        user_bytes: 0,
        device_write_bytes: difference(after.device_write_bytes, before.device_write_bytes),
        engine_write_bytes: accounts.written_bytes,
        stall_ns: None,
        disk_bytes,
        peak_disk_bytes: disk_bytes,
        table_bytes: accounts.table_bytes,
        live_bytes: (0..data.keys()).map(|stratum| data.entry_bytes(data.loaded(stratum), VERSION)).sum(),
        peak_rss_bytes: after.peak_rss_bytes,
        anonymous_bytes: after.anonymous_bytes,
        harness_bytes: 0,
        levels: accounts.levels,
        series: Vec::new(),
    };
    Ok((engine, measurement))
}

/// Checks one get's answer.
fn check(answer: Option<Result<()>>, id: u64, settings: &Settings) -> Result<()> {
    match answer {
        Some(checked) => checked,
        // What is in no log may go with the process.
        None if settings.durability == Durability::NoLog => Ok(()),
        None => Err(Error::WrongAnswer(format!("key {id} was acknowledged before the kill and is missing"))),
    }
}

/// Checks every key by a get, and that a scan meets nothing else.
fn verify<E: Engine>(engine: &E, settings: &Settings, data: &Dataset) -> Result<()> {
    let (mut key, mut there) = (Vec::new(), 0);
    for id in (0..data.keys()).map(|stratum| data.loaded(stratum)) {
        data.key(id, &mut key);
        let answer = engine.get(&key, |value| data.check(id, VERSION, value))?;
        there += u64::from(answer.is_some());
        check(answer, id, settings)?;
    }
    let scanned = engine.scan(None, Direction::Forward, usize::MAX, |_, _| Ok(()))?;
    if scanned != there {
        return Err(Error::WrongAnswer(format!("a scan meets {scanned} entries, and gets find {there}")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engines::{Floor, Siltstone};

    fn settings(durability: Durability) -> Settings {
        Settings { keys: 3000, durability, ..Settings::default() }
    }

    /// Fills, leaves the store as a killed process does, and opens it.
    fn killed_and_reopened<E: Engine>(settings: &Settings) -> Result<Vec<Line>> {
        let dir = tempfile::tempdir().unwrap();
        let data = dataset(settings).unwrap();
        let engine = fill::<E>(settings, &data, dir.path())?;
        // Neither closed nor dropped.
        let copy = tempfile::tempdir().unwrap();
        copy_all(&store(dir.path()), &store(copy.path()));
        let mut out = Vec::new();
        let answer = reopen::<E>(settings, copy.path(), &mut out);
        drop(engine);
        answer?;
        Ok(String::from_utf8(out).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect())
    }

    fn copy_all(from: &Path, to: &Path) {
        std::fs::create_dir(to).unwrap();
        for entry in std::fs::read_dir(from).unwrap() {
            let path = entry.unwrap().path();
            let target = to.join(path.file_name().unwrap());
            if path.is_dir() { copy_all(&path, &target) } else { assert!(std::fs::copy(&path, target).is_ok()) }
        }
    }

    #[test]
    fn what_was_acknowledged_is_there_after_a_kill() {
        for durability in [Durability::Buffered, Durability::Synced, Durability::NoLog] {
            let lines = killed_and_reopened::<Siltstone>(&settings(durability)).unwrap();
            let Line::Measured(measured) = &lines[0] else { panic!("{lines:?}") };
            assert_eq!((measured.workload, measured.ops), (Workload::OpenAfterKill, 1));
            assert!(measured.seconds > 0.0 && measured.live_bytes == 3000 * 116 && measured.disk_bytes > 0);
        }
    }

    #[test]
    fn an_engine_that_loses_acknowledged_writes_is_found_out() {
        assert!(killed_and_reopened::<Floor>(&settings(Durability::Synced)).is_ok());
        let lost = killed_and_reopened::<Floor>(&settings(Durability::Buffered)).unwrap_err().to_string();
        assert!(lost.starts_with("wrong answer: key ") && lost.contains("missing"), "{lost}");
        assert!(killed_and_reopened::<Floor>(&settings(Durability::NoLog)).is_ok(), "it promises nothing");
    }

    #[test]
    fn no_more_is_put_than_the_log_is_to_hold() {
        let settings = Settings { keys: u64::MAX >> 20, value_bytes: 1008, ..Settings::default() };
        assert_eq!(dataset(&settings).unwrap().keys(), 65_536);
    }
}
