//! The pool of background threads: it knows how to wait for work and how to stop, not what the work is.

use std::sync::Arc;
use std::time::Duration;

use crate::sync::atomic::{AtomicBool, Ordering};
use crate::sync::thread::{self, JoinHandle};
use crate::sync::{Condvar, Mutex};

/// What the threads of a pool run.
pub(crate) trait Work: Send + Sync + 'static {
    /// Does the most urgent piece of work; `false` if there was none.
    fn run_one(&self) -> bool;
}

/// A job that several threads can work on.
pub(crate) trait Part: Send + Sync + std::fmt::Debug {
    /// Does one part of it; `false` if none is left to begin.
    fn run_part(&self) -> bool;
}

/// Tells idle threads that there may be work, and waiting callers that some was done.
#[derive(Debug, Default)]
pub(crate) struct Signal {
    /// Counts wake-ups, so that one that comes between looking for work and going to sleep is not lost.
    generation: Mutex<u64>,
    changed: Condvar,
    stopping: AtomicBool,
}

/// A worker wakes at least this often, so that work which becomes due without an event (a cursor that went away) is
/// found.
const IDLE_WAIT: Duration = Duration::from_millis(500);

impl Signal {
    /// Something changed: work came, or some was finished.
    pub(crate) fn notify(&self) {
        *self.generation.lock() += 1;
        self.changed.notify_all();
    }

    /// The current generation, to be taken before looking whether to wait.
    pub(crate) fn generation(&self) -> u64 {
        *self.generation.lock()
    }

    /// Waits until the generation differs from `seen`, at most `IDLE_WAIT`.
    pub(crate) fn wait(&self, seen: u64) {
        let mut generation = self.generation.lock();
        if *generation == seen && !self.is_stopping() {
            self.changed.wait_for(&mut generation, IDLE_WAIT);
        }
    }

    /// Whether the pool is being stopped: long jobs look at this and give up.
    #[inline]
    pub(crate) fn is_stopping(&self) -> bool {
        // Relaxed: a hint to stop early; the join that follows synchronizes.
        self.stopping.load(Ordering::Relaxed)
    }

    fn stop(&self) {
        self.stopping.store(true, Ordering::Relaxed);
        self.notify();
    }
}

/// Running threads; [`Pool::stop`] ends and joins them.
#[derive(Debug)]
pub(crate) struct Pool {
    signal: Arc<Signal>,
    threads: Vec<JoinHandle<()>>,
}

impl Pool {
    /// Starts a thread for each of `names` on `work`; callers' threads go before them by `niceness`, as `nice` counts it.
    ///
    /// # Errors
    /// What the system says when it has no more threads.
    pub(crate) fn start(
        names: impl IntoIterator<Item = String>,
        niceness: i32,
        signal: Arc<Signal>,
        work: Arc<dyn Work>,
    ) -> std::io::Result<Self> {
        let mut pool = Pool { signal, threads: Vec::new() };
        for name in names {
            let (signal, work) = (pool.signal.clone(), work.clone());
            match thread::Builder::new().name(name).spawn(move || run(niceness, &signal, &*work)) {
                Ok(thread) => pool.threads.push(thread),
                Err(error) => {
                    pool.stop();
                    return Err(error);
                }
            }
        }
        Ok(pool)
    }

    /// Asks all threads to finish what they can leave, and waits for them.
    pub(crate) fn stop(&mut self) {
        self.signal.stop();
        for thread in self.threads.drain(..) {
            // A worker catches its own panics into the sticky error; one that still escapes must not abort a Drop.
            let _panicked = thread.join();
        }
    }
}

/// Lets callers' threads go before this one. A hint: it may be refused. (Only Linux counts it by threads.)
fn give_way(niceness: i32) {
    #[cfg(target_os = "linux")]
    let _refused = rustix::process::nice(niceness);
    #[cfg(not(target_os = "linux"))]
    let _ = niceness;
}

fn run(niceness: i32, signal: &Signal, work: &dyn Work) {
    give_way(niceness);
    while !signal.is_stopping() {
        let seen = signal.generation();
        if work.run_one() {
            signal.notify();
        } else {
            signal.wait(seen);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicUsize;

    struct Countdown(AtomicUsize);
    impl Work for Countdown {
        fn run_one(&self) -> bool {
            self.0.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1)).is_ok()
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn background_threads_give_way_and_callers_do_not() {
        #[derive(Default)]
        struct Priority(std::sync::Mutex<Option<i32>>);
        impl Work for Priority {
            fn run_one(&self) -> bool {
                *self.0.lock().unwrap() = rustix::process::getpriority_process(None).ok();
                false
            }
        }
        let own = rustix::process::getpriority_process(None).unwrap();
        let (signal, work) = (Arc::new(Signal::default()), Arc::new(Priority::default()));
        let mut pool = Pool::start([String::new()], 5, signal, work.clone()).unwrap();
        while work.0.lock().unwrap().is_none() {
            thread::yield_now();
        }
        pool.stop();
        assert_eq!(*work.0.lock().unwrap(), Some((own + 5).min(19)));
        assert_eq!(rustix::process::getpriority_process(None).unwrap(), own);
    }

    #[test]
    fn work_is_done_without_a_lost_wake_up_and_stop_joins() {
        let signal = Arc::new(Signal::default());
        let work = Arc::new(Countdown(AtomicUsize::new(0)));
        let mut pool = Pool::start([String::new(), String::new()], 0, signal.clone(), work.clone()).unwrap();
        for _ in 0..200 {
            work.0.fetch_add(1, Ordering::SeqCst);
            signal.notify();
            while work.0.load(Ordering::SeqCst) > 0 {
                let seen = signal.generation();
                if work.0.load(Ordering::SeqCst) > 0 {
                    signal.wait(seen);
                }
            }
        }
        pool.stop();
        assert!(signal.is_stopping());
    }
}
