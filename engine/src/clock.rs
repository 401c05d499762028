//! Time, injectable: nothing in the engine asks the system for it anywhere else.

use std::fmt::Debug;
use std::time::{Duration, Instant, SystemTime};

/// A monotonic clock, and one that tells the date. Tests pass one that they move by hand.
pub trait Clock: Debug + Send + Sync + 'static {
    /// Time since some fixed moment; it never goes back.
    fn now(&self) -> Duration;

    /// Time since 1970, for what has to mean the same to another process. It may jump, either way. Default: the system's.
    fn since_epoch(&self) -> Duration {
        SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
    }

    /// Waits for `duration`.
    fn sleep(&self, duration: Duration);
}

/// A clock that only moves when somebody sleeps by it.
#[cfg(test)]
#[derive(Debug, Default)]
pub(crate) struct ManualClock(parking_lot::Mutex<Duration>);

#[cfg(test)]
impl Clock for ManualClock {
    fn now(&self) -> Duration {
        *self.0.lock()
    }

    fn sleep(&self, duration: Duration) {
        *self.0.lock() += duration;
    }
}

/// The system's monotonic clock.
#[derive(Debug)]
pub struct SystemClock {
    start: Instant,
}

impl Default for SystemClock {
    fn default() -> Self {
        SystemClock { start: Instant::now() }
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Duration {
        self.start.elapsed()
    }

    fn sleep(&self, duration: Duration) {
        std::thread::sleep(duration);
    }
}
