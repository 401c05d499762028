//! How a log is shipped.

use std::sync::Arc;
use std::time::Duration;

use siltstone::{Clock, SystemClock};

use crate::retry::RetryPolicy;

/// How a log is shipped; see [`ship`](crate::ship).
///
/// ```
/// use std::time::Duration;
/// use siltstone_changelog::ShipOptions;
/// let options = ShipOptions::new().cursor("standby").flush_bytes(1 << 20).flush_interval(Duration::from_millis(100));
/// # let _ = options;
/// ```
#[derive(Clone, Debug)]
pub struct ShipOptions {
    pub(super) cursor: String,
    pub(super) flush_bytes: u64,
    pub(super) flush_interval: Duration,
    pub(super) retry: RetryPolicy,
    pub(super) allow_partial: bool,
    pub(super) clock: Arc<dyn Clock>,
}

impl Default for ShipOptions {
    fn default() -> Self {
        ShipOptions {
            cursor: "changelog".to_owned(),
            flush_bytes: 8 << 20,
            flush_interval: Duration::from_millis(10),
            retry: RetryPolicy::default(),
            allow_partial: false,
            clock: Arc::new(SystemClock::default()),
        }
    }
}

impl ShipOptions {
    /// The defaults.
    pub fn new() -> Self {
        ShipOptions::default()
    }

    /// The name under which the database notes what this sink has acknowledged; each sink needs its own. 1 to 200
    /// bytes. Default `changelog`.
    pub fn cursor(mut self, name: impl Into<String>) -> Self {
        self.cursor = name.into();
        self
    }

    /// How much is sent between two flushes of the sink at most (and one batch more), in bytes of memory: keys, values
    /// and 128 a change. This bounds the shipper's memory too. Default 8 MiB.
    pub fn flush_bytes(mut self, bytes: u64) -> Self {
        self.flush_bytes = bytes;
        self
    }

    /// How long a write may wait for others to be flushed together with it. Default 10 ms.
    pub fn flush_interval(mut self, interval: Duration) -> Self {
        self.flush_interval = interval;
        self
    }

    /// How failed calls of the sink are tried again.
    pub fn retry(mut self, policy: RetryPolicy) -> Self {
        self.retry = policy;
        self
    }

    /// Whether a log that begins in the middle is accepted (default: no): shipping into an empty sink when the database
    /// no longer has its first changes. Such a log cannot restore the database by itself.
    pub fn allow_partial(mut self, allow: bool) -> Self {
        self.allow_partial = allow;
        self
    }

    /// What tells the time; default the system's monotonic clock.
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }
}
