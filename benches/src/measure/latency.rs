//! [`Recorder`]: latencies of a sample of operations, so cheap that throughput can be measured in the same pass.

use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use crate::data::{mix, scale};

/// One operation in this many is timed, on average. Two readings of the clock cost some 50 ns: 3 ns an operation.
pub const SAMPLE_EVERY: u64 = 16;

/// The longest latency that is told from longer ones, in nanoseconds: ten minutes.
const MAX_LATENCY_NS: u64 = 600_000_000_000;

/// Times a random sample of the operations of one thread. The distances between samples are random (1 to 31), so that
/// no period of an engine hides from them.
#[derive(Debug)]
pub struct Recorder {
    histogram: Histogram<u64>,
    until_sample: u64,
    samples: u64,
    seed: u64,
    step_started: Option<Instant>,
}

/// Percentiles of sampled latencies, in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Latencies {
    /// Half of the operations took at most this.
    pub p50_us: f64,
    /// 99 in 100 did.
    pub p99_us: f64,
    /// 999 in 1,000 did.
    pub p999_us: f64,
    /// The longest of the sample; longer ones may have gone unsampled.
    pub max_us: f64,
    /// How many operations were timed.
    pub samples: u64,
}

impl Recorder {
    /// A recorder whose sample follows from `seed`.
    ///
    /// ```
    /// let mut recorder = siltstone_benches::measure::Recorder::new(42);
    /// for _ in 0..1000 {
    ///     assert_eq!(recorder.time(|| 1 + 1), 2);
    /// }
    /// assert!(recorder.latencies().samples > 30);
    /// ```
    pub fn new(seed: u64) -> Self {
        // Three significant digits.
        let histogram = Histogram::new_with_max(MAX_LATENCY_NS, 3).unwrap_or_else(|_| {
            unreachable!("the bounds are constants that the histogram allows: a maximum of 2 or more, 0 to 5 digits")
        });
        Recorder { histogram, until_sample: 0, samples: 0, seed, step_started: None }
    }

    /// Runs `operation`, timed if it is its turn.
    #[inline]
    pub fn time<R>(&mut self, operation: impl FnOnce() -> R) -> R {
        let started = self.due().then(Instant::now);
        let answer = operation();
        if let Some(started) = started {
            self.record(started.elapsed());
        }
        answer
    }

    /// Notes that a scan came to its next entry: the time from one entry to the next is recorded, if it is its turn.
    #[inline]
    pub fn step(&mut self) {
        if let Some(started) = self.step_started.take() {
            self.record(started.elapsed());
        }
        if self.due() {
            self.step_started = Some(Instant::now());
        }
    }

    #[inline]
    fn due(&mut self) -> bool {
        if self.until_sample > 0 {
            self.until_sample -= 1;
            return false;
        }
        self.samples += 1;
        self.until_sample = scale(mix(self.samples ^ self.seed), 2 * SAMPLE_EVERY - 1);
        true
    }

    /// Records one latency.
    #[cold]
    pub fn record(&mut self, latency: Duration) {
        self.histogram.saturating_record(u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX));
    }

    /// Adds what another thread's recorder saw.
    pub fn add(&mut self, other: &Recorder) {
        // Both have the same bounds, so nothing can be out of range.
        let added = self.histogram.add(&other.histogram);
        debug_assert!(added.is_ok());
    }

    /// The percentiles so far; zeros before the first sample.
    pub fn latencies(&self) -> Latencies {
        let at = |quantile| self.histogram.value_at_quantile(quantile) as f64 / 1e3;
        Latencies {
            p50_us: at(0.5),
            p99_us: at(0.99),
            p999_us: at(0.999),
            max_us: self.histogram.max() as f64 / 1e3,
            samples: self.histogram.len(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_those_of_what_was_recorded() {
        let (mut one, mut other) = (Recorder::new(1), Recorder::new(2));
        for us in 1..=1000 {
            let recorder = if us % 2 == 0 { &mut one } else { &mut other };
            recorder.record(Duration::from_micros(us));
        }
        one.add(&other);
        let latencies = one.latencies();
        let near = |value: f64, expected: f64| (value - expected).abs() <= expected / 500.0;
        assert!(near(latencies.p50_us, 500.0), "{latencies:?}");
        assert!(near(latencies.p99_us, 990.0), "{latencies:?}");
        assert!(near(latencies.p999_us, 999.0), "{latencies:?}");
        assert!(near(latencies.max_us, 1000.0), "{latencies:?}");
        assert_eq!(latencies.samples, 1000);
        assert_eq!(Recorder::new(1).latencies(), Latencies::default());
    }

    #[test]
    fn one_operation_in_sixteen_is_sampled_and_no_period_is_missed() {
        let mut recorder = Recorder::new(42);
        let mut by_phase = [0; 16];
        for at in 0..160_000 {
            by_phase[at % 16] += u64::from(recorder.due());
        }
        let total: u64 = by_phase.iter().sum();
        assert!((9_500..10_500).contains(&total), "{total}");
        assert!(by_phase.iter().all(|&count| (450..800).contains(&count)), "{by_phase:?}");
    }
}
