//! [`Watch`]: the tree each second, while it is written to.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use siltstone::{Db, Keyspace};

use super::super::outcome::Moment;
use crate::error::Result;
use crate::measure::directory_bytes;

/// How far the writer is, for who watches it.
#[derive(Debug, Default)]
pub(super) struct Progress {
    ops: AtomicU64,
    user_bytes: AtomicU64,
    live_bytes: AtomicU64,
    stopped: Mutex<bool>,
    stop: Condvar,
}

impl Progress {
    // Relaxed: three figures, each of which may be a moment older than the others.
    pub(super) fn note(&self, ops: u64, user_bytes: u64, live_bytes: u64) {
        self.ops.store(ops, Ordering::Relaxed);
        self.user_bytes.store(user_bytes, Ordering::Relaxed);
        self.live_bytes.store(live_bytes, Ordering::Relaxed);
    }

    pub(super) fn stop(&self) {
        *self.stopped.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.stop.notify_all();
    }

    /// Waits until `moment`; whether the writer has stopped.
    fn wait_until(&self, moment: Instant) -> bool {
        let stopped = self.stopped.lock().unwrap_or_else(PoisonError::into_inner);
        let left = moment.saturating_duration_since(Instant::now());
        let waited = self.stop.wait_timeout_while(stopped, left, |stopped| !*stopped);
        *waited.unwrap_or_else(PoisonError::into_inner).0
    }
}

/// Reads the engine's figures.
pub(super) struct Watch {
    db: Db,
    keyspace: Keyspace,
    directory: PathBuf,
    began: Instant,
    /// What was seen.
    pub(super) series: Vec<Moment>,
}

impl Watch {
    pub(super) fn new(db: &Db, keyspace: &Keyspace, directory: &Path) -> Watch {
        let directory = directory.to_owned();
        Watch { db: db.clone(), keyspace: keyspace.clone(), directory, began: Instant::now(), series: Vec::new() }
    }

    /// The tree now.
    pub(super) fn moment(&self, progress: &Progress) -> Result<Moment> {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let amplification = self.keyspace.metrics().amplification;
        Ok(Moment {
            seconds: Some(self.began.elapsed().as_secs_f64()),
            ops: read(&progress.ops),
            user_bytes: read(&progress.user_bytes),
            live_bytes: read(&progress.live_bytes),
            level_bytes: amplification.levels.map(|level| level.file_bytes),
            written_bytes: amplification.levels.map(|level| level.written_bytes),
            log_bytes: amplification.wal_bytes,
            disk_bytes: directory_bytes(&self.directory)?,
            stall_seconds: self.db.metrics().write_delay.as_secs_f64(),
        })
    }

    /// The tree at the end of each second, until the writer stops.
    pub(super) fn each_second(&self, progress: &Progress) -> Result<Vec<Moment>> {
        let mut series = Vec::new();
        let mut next = self.began + Duration::from_secs(1);
        while !progress.wait_until(next) {
            series.push(self.moment(progress)?);
            next += Duration::from_secs(1);
        }
        Ok(series)
    }
}
