//! A session: workloads, one after the other, on one engine, in this process.

use std::io::Write;
use std::ops::Range;
use std::path::Path;
use std::sync::Barrier;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use serde::{Deserialize, Serialize};
use tempfile::TempDir;

use crate::data::{Dataset, Expected};
use crate::engines::Engine;
use crate::error::{Error, Result};
use crate::measure::{Latencies, ProcessUsage, Recorder, directory_bytes, thread_cpu_ns};
use crate::settings::Settings;
use crate::step::Step;
use crate::workloads::{Worker, Workload};

/// What one workload measured on one engine.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Measurement {
    /// Which workload.
    pub workload: Workload,
    /// Operations done; see [`Workload::unit`].
    pub ops: u64,
    /// From the first operation to the end of the last, in seconds.
    pub seconds: f64,
    /// From there until nothing worked in the background, in seconds.
    pub idle_seconds: f64,
    /// Of a sample of the operations.
    pub latencies: Latencies,
    /// CPU time of the threads that called the engine, in nanoseconds: what an operation costs its caller, whatever
    /// else the machine does.
    pub caller_cpu_ns: u64,
    /// CPU time of all threads of the process until idle, in nanoseconds.
    pub cpu_ns: u64,
    /// Bytes of keys and values that were put (of deletes, the keys).
    pub user_bytes: u64,
    /// Bytes that the process caused to be sent to storage until idle.
    pub device_write_bytes: Option<u64>,
    /// The same as the engine itself counts it.
    pub engine_write_bytes: Option<u64>,
    /// What the store's files take on storage once idle, logs included, in bytes.
    pub disk_bytes: u64,
    /// What its tables alone take, in bytes.
    pub table_bytes: Option<u64>,
    /// Bytes of the keys and values that the store should hold.
    pub live_bytes: u64,
    /// The largest resident set during the workload, in bytes; pages of mapped files count.
    pub peak_rss_bytes: Option<u64>,
    /// What of it, at the end, belongs to no file.
    pub anonymous_bytes: Option<u64>,
}

/// A line that a session's process prints for the one that started it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Line {
    /// A workload ended.
    Measured(Box<Measurement>),
    /// The store is filled, and the process waits to be killed; see [`crate::crash`].
    Filled,
    /// What the engine says of itself after the last one.
    Details(String),
    /// Why the session ended before.
    Failed(String),
}

/// Runs `steps` on a fresh store in a fresh directory under `dir`, and writes a [`Line`] of JSON to `out` after
/// each.
///
/// # Errors
/// What the engine says, or [`Error::WrongAnswer`], with the workload's name; [`Error::Io`].
pub fn run<E: Engine>(settings: &Settings, steps: &[Step], dir: &Path, out: &mut impl Write) -> Result<()> {
    let data = Dataset::new(settings.keys, settings.key_bytes, settings.value_bytes, settings.seed)?;
    let mut open: Option<Store<E>> = None;
    for step in steps {
        let (workload, settings) = (step.workload, &step.settings(settings));
        let expected = workload.after(open.as_ref().map(|store| store.expected))?;
        if workload.fills() {
            open.take().map_or(Ok(()), Store::close)?;
        }
        let mut store = match open.take() {
            Some(store) => store,
            None => Store::open(dir, settings)?,
        };
        store.expected = expected;
        let measurement = store.measure(&data, settings, workload).map_err(|error| in_workload(workload, error))?;
        print(out, &Line::Measured(Box::new(measurement)))?;
        open = Some(store);
    }
    let Some(store) = open else { return Ok(()) };
    print(out, &Line::Details(store.engine.accounts().details))?;
    store.close()
}

/// Writes one line of JSON.
///
/// # Errors
/// [`Error::Io`].
pub fn print(out: &mut impl Write, line: &Line) -> Result<()> {
    serde_json::to_writer(&mut *out, line).map_err(std::io::Error::from).map_err(Error::io("standard output"))?;
    out.write_all(b"\n").and_then(|()| out.flush()).map_err(Error::io("standard output"))
}

fn in_workload(workload: Workload, error: Error) -> Error {
    match error {
        Error::WrongAnswer(what) => Error::WrongAnswer(format!("{}: {what}", workload.name())),
        Error::Engine { engine, message } => {
            Error::Engine { engine, message: format!("{}: {message}", workload.name()) }
        }
        other => other,
    }
}

/// An engine that is open in a directory of its own, which goes when it is dropped.
struct Store<E> {
    engine: E,
    expected: Expected,
    dir: TempDir,
}

impl<E: Engine> Store<E> {
    fn open(parent: &Path, settings: &Settings) -> Result<Self> {
        let dir = tempfile::Builder::new().prefix(E::NAME).tempdir_in(parent).map_err(Error::io(parent))?;
        let engine = E::open(dir.path(), settings)?;
        Ok(Store { engine, expected: Expected::FILLED, dir })
    }

    fn close(self) -> Result<()> {
        self.engine.close()
    }

    fn measure(&self, data: &Dataset, settings: &Settings, workload: Workload) -> Result<Measurement> {
        ProcessUsage::reset_peak();
        let written_before = self.engine.accounts().written_bytes;
        let before = ProcessUsage::now();
        let Done { ops, elapsed, caller_cpu_ns, recorder } = self.work(data, settings, workload)?;
        let idle_started = Instant::now();
        self.engine.settle()?;
        let idle = idle_started.elapsed();
        let after = ProcessUsage::now();
        let accounts = self.engine.accounts();
        let live_keys = self.expected.live_keys(data);
        let op_bytes = match workload {
            Workload::DeleteRandom => settings.key_bytes as u64,
            workload if workload.writes() => data.entry_bytes(),
            _ => 0,
        };
        Ok(Measurement {
            workload,
            ops,
            seconds: elapsed.as_secs_f64(),
            idle_seconds: idle.as_secs_f64(),
            latencies: recorder.latencies(),
            caller_cpu_ns,
            cpu_ns: after.cpu_ns.saturating_sub(before.cpu_ns),
            user_bytes: ops * op_bytes,
            device_write_bytes: difference(after.device_write_bytes, before.device_write_bytes),
            engine_write_bytes: difference(accounts.written_bytes, written_before),
            disk_bytes: directory_bytes(self.dir.path())?,
            table_bytes: accounts.table_bytes,
            live_bytes: live_keys * data.entry_bytes(),
            peak_rss_bytes: after.peak_rss_bytes,
            anonymous_bytes: after.anonymous_bytes,
        })
    }

    /// Runs the workload on all threads, begun together.
    fn work(&self, data: &Dataset, settings: &Settings, workload: Workload) -> Result<Done> {
        let threads = u64::from(settings.threads);
        let steps = workload.steps(settings);
        let progress = progress_bar(E::NAME, workload, steps);
        let barrier = Barrier::new(settings.threads as usize + 1);
        let task = |number: u64| {
            let mut worker = Worker::new(&self.engine, data, settings, &progress, number);
            barrier.wait();
            let started_ns = thread_cpu_ns();
            let ops = workload.work(&mut worker, self.expected, share(steps, number, threads));
            (ops, thread_cpu_ns().saturating_sub(started_ns), worker.recorder)
        };
        let (elapsed, answers) = std::thread::scope(|scope| {
            let task = &task;
            let handles: Vec<_> = (0..threads).map(|number| scope.spawn(move || task(number))).collect();
            barrier.wait();
            let started = Instant::now();
            let answers: Vec<_> = handles.into_iter().map(|handle| handle.join()).collect();
            (started.elapsed(), answers)
        });
        progress.finish_and_clear();
        let mut done = Done { ops: 0, elapsed, caller_cpu_ns: 0, recorder: Recorder::new(0) };
        for answer in answers {
            let (ops, cpu_ns, recorder) = answer.map_err(|_| Error::engine(E::NAME, "panicked"))?;
            done.ops += ops?;
            done.caller_cpu_ns += cpu_ns;
            done.recorder.add(&recorder);
        }
        Ok(done)
    }
}

/// What all threads did.
struct Done {
    ops: u64,
    elapsed: Duration,
    caller_cpu_ns: u64,
    recorder: Recorder,
}

fn difference(after: Option<u64>, before: Option<u64>) -> Option<u64> {
    Some(after?.saturating_sub(before?))
}

/// The part of `[0, steps)` that falls to thread `number` of `threads`.
fn share(steps: u64, number: u64, threads: u64) -> Range<u64> {
    let at = |number| (u128::from(steps) * u128::from(number) / u128::from(threads)) as u64;
    at(number)..at(number + 1)
}

/// A bar on standard error; none unless that is a terminal.
fn progress_bar(engine: &str, workload: Workload, steps: u64) -> ProgressBar {
    let bar = ProgressBar::new(steps).with_message(format!("{engine} {}", workload.name()));
    match ProgressStyle::with_template("{msg:24} {wide_bar} {human_pos}/{human_len} {eta} left") {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

#[cfg(test)]
mod tests;
