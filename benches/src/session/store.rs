//! [`Store`]: an open engine, what it should hold, and the measuring of workloads on it.

use std::path::Path;
use std::sync::Barrier;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::{KindMeasurement, Measurement};
use crate::data::{Dataset, Ledger};
use crate::engines::Engine;
use crate::error::{Error, Result};
use crate::measure::{Kind, ProcessUsage, Sampler, Tally, Timing, directory_bytes, thread_cpu_ns};
use crate::settings::Settings;
use crate::workloads::{Claims, Phase, Worker, Workload};

/// An engine that is open in a directory of its own, which goes when it is dropped.
pub(super) struct Store<E> {
    engine: E,
    settings: Settings,
    ledger: Ledger,
    dir: TempDir,
}

impl<E: Engine> Store<E> {
    /// Opens an empty one in a directory under `parent`.
    pub(super) fn open(parent: &Path, settings: Settings, data: &Dataset) -> Result<Self> {
        let dir = tempfile::Builder::new().prefix(E::NAME).tempdir_in(parent).map_err(Error::io(parent))?;
        let engine = E::open(dir.path(), &settings)?;
        Ok(Store { engine, settings, ledger: Ledger::new(data), dir })
    }

    /// Takes what holds for the next workload, other than what the store was opened with.
    pub(super) fn adopt(&mut self, settings: Settings) {
        self.settings = Settings { durability: self.settings.durability, ..settings };
    }

    pub(super) fn details(&self) -> String {
        self.engine.accounts().details
    }

    pub(super) fn close(self) -> Result<()> {
        self.engine.close()
    }

    /// Runs and measures a workload, the `number`-th of the session; if `settle`, until nothing works in the background.
    pub(super) fn measure(&mut self, workload: Workload, number: u64, settle: bool) -> Result<Measurement> {
        self.prepare(workload)?;
        ProcessUsage::reset_peak();
        let accounts_before = self.engine.accounts();
        let before = ProcessUsage::now();
        let phase = Phase::new(workload, number, &self.ledger, &self.settings, E::NAME);
        let counters = phase.counters.clone();
        let sampler = Sampler::start(self.dir.path(), move || {
            let of_kind = |&kind: &Kind| counters.iter().map(|thread| thread.get(kind)).sum();
            workload.kinds().iter().map(of_kind).collect()
        });
        let done = self.work(&phase);
        phase.claims.finish();
        let done = done?;
        let idle_started = Instant::now();
        if settle {
            self.engine.settle()?;
        }
        let idle = if settle { idle_started.elapsed() } else { Duration::ZERO };
        let samples = sampler.finish();
        let after = ProcessUsage::now();
        let accounts = self.engine.accounts();
        let (filled, cut) = (workload.fills().then(|| phase.fill_order()), phase.claims.is_cut());
        let claimed = phase.claims.claimed();
        if let Some(order) = filled {
            self.ledger.fill(order, claimed);
        }
        let kinds = done.kinds(workload);
        let disk_bytes = directory_bytes(self.dir.path())?;
        Ok(Measurement {
            workload,
            durability: self.settings.durability,
            ops: kinds.iter().map(|kind| kind.ops).sum(),
            latencies: kinds.first().map_or(Default::default(), |kind| kind.latencies.clone()),
            kinds,
            cut,
            seconds: done.elapsed.as_secs_f64(),
            idle_seconds: idle.as_secs_f64(),
            settled: settle,
            caller_cpu_ns: done.caller_cpu_ns,
            cpu_ns: after.cpu_ns.saturating_sub(before.cpu_ns).saturating_sub(samples.cpu_ns),
            user_bytes: done.user_bytes,
            device_write_bytes: difference(after.device_write_bytes, before.device_write_bytes),
            engine_write_bytes: difference(accounts.written_bytes, accounts_before.written_bytes),
            stall_ns: difference(accounts.stall_ns, accounts_before.stall_ns),
            disk_bytes,
            peak_disk_bytes: samples.peak_disk_bytes.max(disk_bytes),
            table_bytes: accounts.table_bytes,
            live_bytes: self.ledger.live().1,
            peak_rss_bytes: after.peak_rss_bytes,
            anonymous_bytes: after.anonymous_bytes,
            harness_bytes: self.ledger.memory_bytes(),
            levels: accounts.levels,
            series: samples.rows,
        })
    }

    /// Makes the ledger ready for what the workload writes.
    fn prepare(&mut self, workload: Workload) -> Result<()> {
        if !workload.fills() && self.ledger.records() == 0 {
            return Err(Error::Settings("the fill before was ended before it wrote anything".to_owned()));
        }
        if workload.inserts() {
            self.ledger.make_room();
        }
        self.ledger.set_variable(workload == Workload::MixGraph);
        Ok(())
    }

    /// Runs the workload on all its threads, begun together.
    fn work(&self, phase: &Phase<'_>) -> Result<Done> {
        let workers = phase.counters.len();
        let barrier = Barrier::new(workers + 1);
        let task = |number: u32| {
            let _stop = StopOnFailure(&phase.claims);
            let mut worker = Worker::new(&self.engine, phase, number);
            // Twice: the clock starts in between, when all threads are there.
            barrier.wait();
            barrier.wait();
            let started_ns = thread_cpu_ns();
            let answer = phase.workload.work(&mut worker);
            if answer.is_err() {
                phase.claims.stop();
            }
            let cpu_ns = thread_cpu_ns().saturating_sub(started_ns);
            answer.map(|()| (cpu_ns, worker.user_bytes, worker.into_tallies()))
        };
        let (elapsed, answers) = std::thread::scope(|scope| {
            let task = &task;
            let handles: Vec<_> = (0..workers as u32).map(|number| scope.spawn(move || task(number))).collect();
            barrier.wait();
            phase.claims.begin();
            let started = Instant::now();
            barrier.wait();
            let answers: Vec<_> = handles.into_iter().map(|handle| handle.join()).collect();
            (started.elapsed(), answers)
        });
        let mut done = Done::new(elapsed);
        for answer in answers {
            let (cpu_ns, user_bytes, tallies) = answer.map_err(|_| Error::engine(E::NAME, "panicked"))??;
            done.caller_cpu_ns += cpu_ns;
            done.user_bytes += user_bytes;
            done.tallies.iter_mut().zip(&tallies).for_each(|(sum, tally)| sum.add(tally));
        }
        Ok(done)
    }
}

/// Lets the other threads of a workload end when one panics.
struct StopOnFailure<'a>(&'a Claims);

impl Drop for StopOnFailure<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.stop();
        }
    }
}

/// What all threads did.
struct Done {
    elapsed: Duration,
    caller_cpu_ns: u64,
    user_bytes: u64,
    /// In the order of [`Kind::ALL`].
    tallies: [Tally; Kind::ALL.len()],
}

impl Done {
    fn new(elapsed: Duration) -> Self {
        let tallies = Kind::ALL.map(|_| Tally::new(0, Timing::Every));
        Done { elapsed, caller_cpu_ns: 0, user_bytes: 0, tallies }
    }

    fn kinds(&self, workload: Workload) -> Vec<KindMeasurement> {
        let of_kind = |&kind: &Kind| {
            let tally = &self.tallies[kind as usize];
            KindMeasurement { kind, ops: tally.ops, latencies: tally.recorder.latencies() }
        };
        workload.kinds().iter().map(of_kind).collect()
    }
}

fn difference(after: Option<u64>, before: Option<u64>) -> Option<u64> {
    Some(after?.saturating_sub(before?))
}
