//! [`Sampler`]: a thread that looks at the process and its directory while others work.

use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::{ProcessUsage, directory_bytes, thread_cpu_ns};

/// How far apart the rows of a series are.
const ROW: Duration = Duration::from_secs(1);

/// How often the directory is looked at, at most.
const LOOK: Duration = Duration::from_millis(100);

/// Looking takes at most one part in as many of the time, however many files there are.
const LOOK_COST: u32 = 50;

/// What happened in one second of a workload, or in what was left of it in the last row.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Second {
    /// When it ended, in seconds since the workload began.
    pub seconds: f64,
    /// Operations of all kinds done in it.
    pub ops: u64,
    /// The same of each kind, in the order of the measurement's kinds; empty if there is but one.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ops_by_kind: Vec<u64>,
    /// Bytes sent to storage in it.
    pub device_bytes: Option<u64>,
    /// What the store's files took at its end, in bytes.
    pub disk_bytes: Option<u64>,
    /// The resident set at its end, in bytes.
    pub rss_bytes: Option<u64>,
}

/// What a sampler saw.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Samples {
    /// A row a second.
    pub rows: Vec<Second>,
    /// The most that the store's files took, in bytes; looked at ten times a second, less often with very many files.
    pub peak_disk_bytes: u64,
    /// CPU time that looking cost, in nanoseconds.
    pub cpu_ns: u64,
}

/// A thread that takes samples until it is told to finish.
#[derive(Debug)]
pub struct Sampler {
    stop: Sender<()>,
    thread: JoinHandle<Samples>,
}

impl Sampler {
    /// Looks at this process and at the files under `dir` from now on; `ops` tells how many operations of each kind
    /// have been done.
    pub fn start(dir: &Path, ops: impl Fn() -> Vec<u64> + Send + 'static) -> Self {
        let (stop, stopped) = channel();
        let mut series = Series::new(dir.to_owned(), ops);
        Sampler { stop, thread: std::thread::spawn(move || series.run(&stopped)) }
    }

    /// Takes the last sample and answers all. A sampler that panicked saw nothing.
    pub fn finish(self) -> Samples {
        drop(self.stop);
        self.thread.join().unwrap_or_default()
    }
}

struct Series<F> {
    dir: PathBuf,
    ops: F,
    started: Instant,
    last_ops: Vec<u64>,
    last_device_bytes: Option<u64>,
    disk_bytes: Option<u64>,
    samples: Samples,
}

impl<F: Fn() -> Vec<u64>> Series<F> {
    fn new(dir: PathBuf, ops: F) -> Self {
        let last_device_bytes = ProcessUsage::now().device_write_bytes;
        let last_ops = ops();
        let samples = Samples::default();
        Series { dir, ops, started: Instant::now(), last_ops, last_device_bytes, disk_bytes: None, samples }
    }

    fn run(&mut self, stopped: &Receiver<()>) -> Samples {
        let mut next_row = ROW;
        loop {
            let look = self.look();
            let now = self.started.elapsed();
            if now >= next_row {
                self.row(now);
                next_row = now + ROW - Duration::from_nanos((now.as_nanos() % ROW.as_nanos()) as u64);
            }
            let pause = (next_row - now).min(LOOK.max(look * LOOK_COST));
            if stopped.recv_timeout(pause) != Err(RecvTimeoutError::Timeout) {
                break;
            }
        }
        self.look();
        self.row(self.started.elapsed());
        self.samples.cpu_ns = thread_cpu_ns();
        std::mem::take(&mut self.samples)
    }

    /// Looks at the directory; how long it took.
    fn look(&mut self) -> Duration {
        let started = Instant::now();
        // A directory of an engine may vanish meanwhile: the next look sees what is left.
        self.disk_bytes = directory_bytes(&self.dir).ok().or(self.disk_bytes);
        self.samples.peak_disk_bytes = self.samples.peak_disk_bytes.max(self.disk_bytes.unwrap_or(0));
        started.elapsed()
    }

    fn row(&mut self, now: Duration) {
        let usage = ProcessUsage::now();
        let ops = (self.ops)();
        let by_kind: Vec<_> = ops.iter().zip(&self.last_ops).map(|(now, last)| now.saturating_sub(*last)).collect();
        let device_bytes = usage.device_write_bytes.zip(self.last_device_bytes);
        self.samples.rows.push(Second {
            seconds: now.as_secs_f64(),
            ops: by_kind.iter().sum(),
            ops_by_kind: if by_kind.len() > 1 { by_kind } else { Vec::new() },
            device_bytes: device_bytes.map(|(now, last)| now.saturating_sub(last)),
            disk_bytes: self.disk_bytes,
            rss_bytes: usage.rss_bytes,
        });
        self.last_ops = ops;
        self.last_device_bytes = usage.device_write_bytes;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    #[test]
    fn every_operation_is_in_one_row_and_the_peak_of_the_files_is_seen() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        let ops = Arc::new([AtomicU64::new(5), AtomicU64::new(7)]);
        let seen = ops.clone();
        let sampler = Sampler::start(dir.path(), move || seen.iter().map(|ops| ops.load(Ordering::Relaxed)).collect());
        for _ in 0..13 {
            std::thread::sleep(Duration::from_millis(100));
            ops[0].fetch_add(10, Ordering::Relaxed);
            ops[1].fetch_add(1, Ordering::Relaxed);
            std::fs::write(&file, vec![1; 1 << 20]).unwrap();
        }
        std::fs::remove_file(&file).unwrap();
        let samples = sampler.finish();
        let rows = &samples.rows;
        assert!(rows.len() >= 2 && rows.is_sorted_by(|a, b| a.seconds < b.seconds), "{rows:?}");
        assert!(rows[0].seconds >= 1.0, "{rows:?}");
        let sum = |of: &dyn Fn(&Second) -> u64| rows.iter().map(of).sum::<u64>();
        assert_eq!((sum(&|row| row.ops_by_kind[0]), sum(&|row| row.ops_by_kind[1])), (130, 13));
        assert_eq!(sum(&|row| row.ops), 143);
        assert!(samples.peak_disk_bytes >= 1 << 20, "{samples:?}");
        assert_eq!(rows.last().unwrap().disk_bytes, Some(0));
        assert!(samples.cpu_ns > 0 && rows.iter().all(|row| row.rss_bytes.is_some()));
    }
}
