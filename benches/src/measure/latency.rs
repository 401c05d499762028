//! [`Recorder`]: latencies of operations, so cheap that throughput can be measured in the same pass.

use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use crate::data::{mix, scale};

/// One operation in this many is timed, on average, where not all are. Two readings of the clock cost some 50 ns: 3 ns
/// an operation.
pub const SAMPLE_EVERY: u64 = 16;

/// The longest latency that is told from longer ones, in nanoseconds: ten minutes.
const MAX_LATENCY_NS: u64 = 600_000_000_000;

/// The quantiles of a latency curve.
const CURVE: [f64; 16] =
    [0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.98, 0.99, 0.995, 0.998, 0.999, 0.9995, 0.9999, 0.99999, 1.0];

/// Which operations a [`Recorder`] times.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Timing {
    /// All: where a stall must not be missed and other operations come in between, or where the clock costs nothing
    /// beside the operation.
    Every,
    /// A sample of 1 in 16.
    Sample,
    /// A sample of 1 in 16; what lies between two of the sample is timed as one span, so that the maximum misses
    /// nothing: an operation that stalls makes its span at least as long. For threads that do one kind of operation.
    SampleAndSpans,
}

/// Times operations of one thread. The distances between samples are random (1 to 31), so that no period of an engine
/// hides from them.
#[derive(Debug)]
pub struct Recorder {
    histogram: Histogram<u64>,
    timing: Timing,
    until_sample: u64,
    samples: u64,
    seed: u64,
    step_started: Option<Instant>,
    /// When the last timed operation ended.
    span_started: Option<Instant>,
    longest_span: Duration,
}

/// Percentiles of latencies, in microseconds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Latencies {
    /// Half of the operations took at most this.
    pub p50_us: f64,
    /// 99 in 100 did.
    pub p99_us: f64,
    /// 999 in 1,000 did.
    pub p999_us: f64,
    /// The longest one timed; of an operation in a span of several the time of the whole span, which is more than its
    /// own by that of the others. So no longer one was missed, except among reads of workloads that mix several kinds
    /// of operations: those have no spans.
    pub max_us: f64,
    /// How many operations were timed one by one.
    pub samples: u64,
    /// Points of the curve: quantile and latency. The last is the maximum of those timed one by one.
    #[serde(default)]
    pub curve_us: Vec<(f64, f64)>,
}

impl Recorder {
    /// A recorder whose sample follows from `seed`.
    ///
    /// ```
    /// use siltstone_benches::measure::{Recorder, Timing};
    /// let mut recorder = Recorder::new(42, Timing::Sample);
    /// for _ in 0..1000 {
    ///     assert_eq!(recorder.time(|| 1 + 1), 2);
    /// }
    /// assert!(recorder.latencies().samples > 30);
    /// ```
    pub fn new(seed: u64, timing: Timing) -> Self {
        // Three significant digits.
        let histogram = Histogram::new_with_max(MAX_LATENCY_NS, 3).unwrap_or_else(|_| {
            unreachable!("the bounds are constants that the histogram allows: a maximum of 2 or more, 0 to 5 digits")
        });
        Recorder {
            histogram,
            timing,
            until_sample: 0,
            samples: 0,
            seed,
            step_started: None,
            span_started: None,
            longest_span: Duration::ZERO,
        }
    }

    /// Runs `operation`, timed if it is its turn.
    #[inline]
    pub fn time<R>(&mut self, operation: impl FnOnce() -> R) -> R {
        if !self.due() {
            return operation();
        }
        let started = Instant::now();
        let answer = operation();
        self.timed(started, Instant::now());
        answer
    }

    /// Notes that a scan came to its next entry: the time from one entry to the next is recorded, if it is its turn.
    #[inline]
    pub fn step(&mut self) {
        if let Some(started) = self.step_started.take() {
            self.timed(started, Instant::now());
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
        if self.timing != Timing::Every {
            self.samples += 1;
            self.until_sample = scale(mix(self.samples ^ self.seed), 2 * SAMPLE_EVERY - 1);
        }
        true
    }

    #[cold]
    fn timed(&mut self, started: Instant, ended: Instant) {
        self.record(ended - started);
        if self.timing == Timing::SampleAndSpans {
            if let Some(span_started) = self.span_started {
                self.longest_span = self.longest_span.max(started - span_started);
            }
            self.span_started = Some(ended);
        }
    }

    /// Ends the span that is open, after the last operation.
    pub fn finish(&mut self) {
        if let Some(span_started) = self.span_started.take() {
            self.longest_span = self.longest_span.max(span_started.elapsed());
        }
    }

    /// Records one latency.
    pub fn record(&mut self, latency: Duration) {
        self.histogram.saturating_record(u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX));
    }

    /// Adds what another thread's recorder saw.
    pub fn add(&mut self, other: &Recorder) {
        // Both have the same bounds, so nothing can be out of range.
        let added = self.histogram.add(&other.histogram);
        debug_assert!(added.is_ok());
        self.longest_span = self.longest_span.max(other.longest_span);
    }

    /// The percentiles so far; zeros before the first sample.
    pub fn latencies(&self) -> Latencies {
        let at = |quantile| self.histogram.value_at_quantile(quantile) as f64 / 1e3;
        let curve = CURVE.iter().filter(|_| !self.histogram.is_empty());
        Latencies {
            p50_us: at(0.5),
            p99_us: at(0.99),
            p999_us: at(0.999),
            max_us: (self.histogram.max() as f64 / 1e3).max(self.longest_span.as_secs_f64() * 1e6),
            samples: self.histogram.len(),
            curve_us: curve.map(|&quantile| (quantile, at(quantile))).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_those_of_what_was_recorded() {
        let (mut one, mut other) = (Recorder::new(1, Timing::Sample), Recorder::new(2, Timing::Sample));
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
        assert_eq!(latencies.curve_us.len(), CURVE.len());
        assert!(latencies.curve_us.is_sorted_by(|a, b| a.0 < b.0 && a.1 <= b.1), "{latencies:?}");
        assert_eq!(Recorder::new(1, Timing::Every).latencies(), Latencies::default());
    }

    #[test]
    fn one_operation_in_sixteen_is_sampled_and_no_period_is_missed() {
        let mut recorder = Recorder::new(42, Timing::Sample);
        let mut by_phase = [0; 16];
        for at in 0..160_000 {
            by_phase[at % 16] += u64::from(recorder.due());
        }
        let total: u64 = by_phase.iter().sum();
        assert!((9_500..10_500).contains(&total), "{total}");
        assert!(by_phase.iter().all(|&count| (450..800).contains(&count)), "{by_phase:?}");
    }

    #[test]
    fn all_are_timed_where_all_should_be() {
        let mut recorder = Recorder::new(42, Timing::Every);
        (0..1000).for_each(|_| recorder.time(|| ()));
        assert_eq!(recorder.latencies().samples, 1000);
    }

    #[test]
    fn the_maximum_misses_no_stall() {
        let stall = Duration::from_millis(20);
        for at in 0..40 {
            let mut recorder = Recorder::new(42, Timing::SampleAndSpans);
            for operation in 0..40 {
                recorder.time(|| {
                    if operation == at {
                        std::thread::sleep(stall)
                    }
                });
            }
            recorder.finish();
            let mut sum = Recorder::new(0, Timing::SampleAndSpans);
            sum.add(&recorder);
            assert!(sum.latencies().max_us >= 20_000.0, "operation {at}");
            assert!(sum.latencies().samples < 20);
        }
    }
}
