//! loom's threads, with a `park` of their own.
//!
//! loom 0.7 keeps the wake-up of a thread that is not parked yet in the thread's state, and every release of a mutex that
//! the thread is about to try sets that state anew: the wake-up is gone, and a thread that then parks sleeps for good. A
//! system's threads keep it, and so do these.

use std::sync::Arc;

pub(crate) use loom::thread::{Builder, JoinHandle, spawn, yield_now};

use super::{Condvar, Mutex};

#[derive(Debug, Default)]
struct Parker {
    woken: Mutex<bool>,
    wakeup: Condvar,
}

loom::thread_local! {
    static PARKER: Arc<Parker> = Arc::default();
}

/// A handle of a thread, to wake it.
#[derive(Clone, Debug)]
pub(crate) struct Thread(Arc<Parker>);

impl Thread {
    /// Ends the thread's `park`, the next one if it is in none.
    pub(crate) fn unpark(&self) {
        *self.0.woken.lock() = true;
        self.0.wakeup.notify_all();
    }
}

/// The calling thread.
pub(crate) fn current() -> Thread {
    Thread(PARKER.with(Arc::clone))
}

/// Waits for an `unpark`, also an earlier one.
pub(crate) fn park() {
    let parker = current().0;
    let mut woken = parker.woken.lock();
    while !*woken {
        parker.wakeup.wait(&mut woken);
    }
    *woken = false;
}
