//! Whether a database can be used: open, closed, or turned read-only by a failure that sticks.

use std::sync::OnceLock;

use crate::error::{Error, Result};
use crate::sync::atomic::{AtomicBool, Ordering};

/// The state every operation asks first.
#[derive(Debug, Default)]
pub(crate) struct Health {
    closed: AtomicBool,
    /// Why writing stopped for good. Set once: the first failure is the one to report.
    failure: OnceLock<String>,
}

impl Health {
    /// A database that takes no writes from the start.
    pub(crate) fn read_only() -> Self {
        let health = Health::default();
        let _first = health.failure.set("it was opened read-only".to_owned());
        health
    }

    /// # Errors
    /// `Closed`.
    #[inline]
    pub(crate) fn check_read(&self) -> Result<()> {
        // Acquire pairs with the release in `close`: who sees the flag sees the closing's effects. A reader that misses
        // it overlaps with the close.
        if self.closed.load(Ordering::Acquire) { Err(Error::Closed) } else { Ok(()) }
    }

    /// # Errors
    /// `Closed`, or `ReadOnly` with the reason.
    #[inline]
    pub(crate) fn check_write(&self) -> Result<()> {
        self.check_read()?;
        match self.failure.get() {
            None => Ok(()),
            Some(reason) => Err(Error::ReadOnly { reason: reason.clone() }),
        }
    }

    /// Whether writing has stopped for good, by failure or by closing.
    pub(crate) fn is_stopped(&self) -> bool {
        self.check_write().is_err()
    }

    /// Whether a failure stopped writing.
    pub(crate) fn has_failed(&self) -> bool {
        self.failure.get().is_some()
    }

    /// Why writing stopped for good.
    pub(crate) fn failure(&self) -> Option<String> {
        self.failure.get().cloned()
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.check_read().is_err()
    }

    /// Turns the database read-only because of `error`; the first reason stays.
    pub(crate) fn fail(&self, doing: &str, error: &Error) {
        if matches!(error, Error::Closed) {
            return;
        }
        if self.failure.set(format!("{doing} failed: {error}")).is_ok() {
            tracing::error!(%error, doing, "the database turns read-only");
        }
    }

    /// Marks the database closed; whether this call was the first to do so.
    pub(crate) fn close(&self) -> bool {
        !self.closed.swap(true, Ordering::AcqRel)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_failure_sticks_and_reads_go_on() {
        let health = Health::default();
        assert!(health.check_write().is_ok());
        health.fail("the log", &Error::InvalidArgument("one".into()));
        health.fail("the log", &Error::InvalidArgument("two".into()));
        assert!(matches!(health.check_write(), Err(Error::ReadOnly { reason }) if reason.contains("one")));
        assert!(health.check_read().is_ok());
        assert!(health.close());
        assert!(!health.close());
        assert!(matches!(health.check_write(), Err(Error::Closed)));
    }
}
