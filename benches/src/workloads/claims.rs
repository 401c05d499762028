//! [`Claims`]: the steps of a workload, handed out to its threads until none is left or the time is up.

use std::ops::Range;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

/// How many steps pass between two movements of the progress bar.
const PROGRESS_STEPS: u64 = 4096;

/// The steps of a workload. What is claimed is done, so a workload that ends before its last step has done exactly the
/// first [`claimed`](Self::claimed) ones.
#[derive(Debug)]
pub struct Claims {
    next: AtomicU64,
    end: u64,
    chunk: u64,
    limit: Option<Duration>,
    started: OnceLock<Instant>,
    stopped: AtomicBool,
    bar: ProgressBar,
}

impl Claims {
    /// Steps `[0, end)`, `chunk` (at least 1) at a time, until `seconds` from its [beginning](Self::begin); a bar on
    /// standard error shows `name`, if that is a terminal. Without an end, the bar shows the seconds.
    pub fn new(name: String, end: u64, chunk: u64, seconds: Option<u64>) -> Self {
        let length = if end == u64::MAX { seconds.unwrap_or(0) } else { end };
        let bar = ProgressBar::new(length).with_message(name);
        let bar = match ProgressStyle::with_template("{msg:27} {wide_bar} {human_pos}/{human_len} {eta} left") {
            Ok(style) => bar.with_style(style),
            Err(_) => bar,
        };
        let limit = seconds.map(Duration::from_secs);
        let (next, started, stopped) = (AtomicU64::new(0), OnceLock::new(), AtomicBool::new(false));
        Claims { next, end, chunk, limit, started, stopped, bar }
    }

    /// Begins to count the time; once.
    pub fn begin(&self) {
        self.started.get_or_init(Instant::now);
    }

    fn elapsed(&self) -> Duration {
        self.started.get().map_or(Duration::ZERO, Instant::elapsed)
    }

    /// The next steps for the calling thread; `None` if there are no more, or the time is up.
    pub fn claim(&self) -> Option<Range<u64>> {
        if self.is_over() {
            return None;
        }
        // Numbers only: nothing else is read or written by their order.
        let start = self.next.fetch_add(self.chunk, Ordering::Relaxed);
        if start >= self.end {
            return None;
        }
        let end = start.saturating_add(self.chunk).min(self.end);
        if start / PROGRESS_STEPS != end / PROGRESS_STEPS || self.chunk == 1 {
            let position = if self.end == u64::MAX { self.elapsed().as_secs() } else { end };
            self.bar.set_position(position);
        }
        Some(start..end)
    }

    /// Whether the time is up, or a thread has failed.
    pub fn is_over(&self) -> bool {
        self.stopped.load(Ordering::Relaxed) || self.limit.is_some_and(|limit| self.elapsed() >= limit)
    }

    /// Lets all threads end after what they have claimed.
    pub fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
    }

    /// How many steps have been handed out: those before it.
    pub fn claimed(&self) -> u64 {
        self.next.load(Ordering::Relaxed).min(self.end)
    }

    /// Whether steps are left.
    pub fn is_cut(&self) -> bool {
        self.end != u64::MAX && self.claimed() < self.end
    }

    /// Removes the bar.
    pub fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_get_every_step_once() {
        for (end, chunk) in [(0, 3), (1, 3), (1000, 1), (1001, 64)] {
            let claims = Claims::new(String::new(), end, chunk, None);
            let mut seen: Vec<u64> = std::thread::scope(|scope| {
                let work = || std::iter::from_fn(|| claims.claim()).flatten().collect::<Vec<_>>();
                let threads: Vec<_> = (0..3).map(|_| scope.spawn(work)).collect();
                threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
            });
            seen.sort();
            assert_eq!(seen, (0..end).collect::<Vec<_>>());
            assert_eq!((claims.claimed(), claims.is_cut()), (end, false));
        }
    }

    #[test]
    fn nothing_is_handed_out_after_the_end() {
        let over = Claims::new(String::new(), 100, 10, Some(0));
        over.begin();
        assert_eq!((over.claim(), over.claimed(), over.is_cut()), (None, 0, true));
        let stopped = Claims::new(String::new(), 100, 10, Some(u64::MAX));
        assert_eq!(stopped.claim(), Some(0..10));
        stopped.stop();
        assert_eq!((stopped.claim(), stopped.claimed(), stopped.is_cut()), (None, 10, true));
        let endless = Claims::new(String::new(), u64::MAX, 10, Some(0));
        assert!(!endless.is_cut(), "it ends by the clock");
    }
}
