//! How a [`FileSink`](super::FileSink) is opened.

use std::sync::Arc;
use std::time::Duration;

use siltstone::fs::{FileSystem, OsFileSystem};
use siltstone::{Clock, SystemClock};

use crate::error::{Error, Result};

/// How a [`FileSink`](crate::FileSink) is opened, and what becomes of what it wrote.
///
/// ```
/// # let dir = tempfile::tempdir().unwrap();
/// use std::time::Duration;
/// use siltstone_changelog::{FileSink, FileSinkOptions};
/// let options = FileSinkOptions::new().segment_bytes(16 << 20).min_compaction_lag(Duration::from_secs(4 * 3600));
/// let sink = FileSink::open_with(dir.path(), options)?;
/// # Ok::<(), siltstone_changelog::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct FileSinkOptions {
    pub(super) segment_bytes: u64,
    pub(super) compaction: bool,
    pub(super) min_dirty_bytes: u64,
    pub(super) min_dirty_ratio: f64,
    pub(super) min_compaction_lag: Duration,
    pub(super) delete_retention: Duration,
    pub(super) compaction_memory_bytes: u64,
    pub(super) retain_bytes: Option<u64>,
    pub(super) retain_for: Option<Duration>,
    pub(super) take_over: bool,
    pub(super) file_system: Arc<dyn FileSystem>,
    pub(super) clock: Arc<dyn Clock>,
}

impl Default for FileSinkOptions {
    fn default() -> Self {
        FileSinkOptions {
            segment_bytes: 64 << 20,
            compaction: true,
            min_dirty_bytes: 256 << 20,
            min_dirty_ratio: 0.5,
            min_compaction_lag: Duration::ZERO,
            delete_retention: Duration::from_secs(24 * 3600),
            compaction_memory_bytes: 64 << 20,
            retain_bytes: None,
            retain_for: None,
            take_over: false,
            file_system: Arc::new(OsFileSystem),
            clock: Arc::new(SystemClock::default()),
        }
    }
}

impl FileSinkOptions {
    /// The defaults.
    pub fn new() -> Self {
        FileSinkOptions::default()
    }

    /// The size at which a segment is sealed and the next one begun, in bytes; a single batch may make it larger.
    /// Default 64 MiB.
    pub fn segment_bytes(mut self, bytes: u64) -> Self {
        self.segment_bytes = bytes;
        self
    }

    /// Whether sealed segments are compacted by key in the background (default: yes): of each key the latest change is
    /// kept, so that the log stays about as large as the state, and still restores all of it.
    pub fn compaction(mut self, compact: bool) -> Self {
        self.compaction = compact;
        self
    }

    /// How much has to be sealed and not compacted yet before it is, in bytes: so much more than the state a restore may have
    /// to read, and so much less often everything is read and written. Default 256 MiB.
    pub fn min_dirty_bytes(mut self, bytes: u64) -> Self {
        self.min_dirty_bytes = bytes;
        self
    }

    /// Which part of all that is sealed that has to be, 0 to 1: each compaction reads and writes all of it. Default 0.5
    /// (Kafka's `min.cleanable.dirty.ratio`).
    pub fn min_dirty_ratio(mut self, ratio: f64) -> Self {
        self.min_dirty_ratio = ratio;
        self
    }

    /// How long sealed segments are left alone (Kafka's `min.compaction.lag.ms`): so far back a database can be restored to
    /// any moment, and not only to the newest. Default zero.
    pub fn min_compaction_lag(mut self, lag: Duration) -> Self {
        self.min_compaction_lag = lag;
        self
    }

    /// How long compaction keeps a delete after its segment was sealed (Kafka's `delete.retention.ms`). State that is
    /// older cannot be brought up to date from the log, since it would keep what was deleted meanwhile: it is
    /// [stale](crate::Error::Stale). Default one day.
    pub fn delete_retention(mut self, retention: Duration) -> Self {
        self.delete_retention = retention;
        self
    }

    /// How much memory a compaction takes at most, in bytes: about 56 for each key that was written since the last one.
    /// With less than that it takes several passes. At least 64 KiB. Default 64 MiB.
    pub fn compaction_memory_bytes(mut self, bytes: u64) -> Self {
        self.compaction_memory_bytes = bytes;
        self
    }

    /// Lets go of the oldest segments while all sealed ones take more than `bytes`. What is left restores the whole state
    /// only together with a snapshot that is not older. Default: never.
    pub fn retain_bytes(mut self, bytes: u64) -> Self {
        self.retain_bytes = Some(bytes);
        self
    }

    /// Lets go of segments that were sealed longer ago than this, by the system's date. As
    /// [`retain_bytes`](Self::retain_bytes) else.
    pub fn retain_for(mut self, age: Duration) -> Self {
        self.retain_for = Some(age);
        self
    }

    /// Whether the log is taken from an owner that still holds it (default: no, that is [`Locked`](crate::Error::Locked)).
    /// Everything that one acknowledged is kept; from then on it is [`Fenced`](crate::Error::Fenced), and nothing it still
    /// writes is part of the log.
    pub fn take_over(mut self, take_over: bool) -> Self {
        self.take_over = take_over;
        self
    }

    /// Where the log lives; default the operating system's files.
    pub fn file_system(mut self, file_system: Arc<dyn FileSystem>) -> Self {
        self.file_system = file_system;
        self
    }

    /// What tells the time and the date; default the system's.
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// # Errors
    /// `InvalidArgument`.
    pub(super) fn check(&self) -> Result<()> {
        if !(0.0..=1.0).contains(&self.min_dirty_ratio) {
            let reason = format!("min_dirty_ratio is {}, it must be 0 to 1", self.min_dirty_ratio);
            return Err(Error::InvalidArgument(reason));
        }
        if self.compaction_memory_bytes < 64 << 10 {
            let bytes = self.compaction_memory_bytes;
            return Err(Error::InvalidArgument(format!(
                "compaction_memory_bytes is {bytes}, it must be at least 65536"
            )));
        }
        Ok(())
    }

    /// Milliseconds since 1970.
    pub(super) fn now_ms(&self) -> u64 {
        u64::try_from(self.clock.since_epoch().as_millis()).unwrap_or(u64::MAX)
    }
}
