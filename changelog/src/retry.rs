//! Waiting between tries.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use siltstone::Clock;

/// How a failed call of a sink or source is tried again: after `initial_backoff`, then twice as long, and so on up to
/// `max_backoff`, each time shortened at random by up to a half so that many shippers do not come back together; until
/// `max_elapsed` has passed since the first failure in a row. The defaults (100 ms, 10 s, 15 min) bridge a broker's
/// restart.
///
/// ```
/// use std::time::Duration;
/// use siltstone_changelog::RetryPolicy;
/// let never = RetryPolicy { max_elapsed: Duration::ZERO, ..RetryPolicy::default() };
/// # let _ = never;
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryPolicy {
    /// The first wait.
    pub initial_backoff: Duration,
    /// The longest wait.
    pub max_backoff: Duration,
    /// How long a call is tried again in all; zero: never.
    pub max_elapsed: Duration,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        RetryPolicy {
            initial_backoff: Duration::from_millis(100),
            max_backoff: Duration::from_secs(10),
            max_elapsed: Duration::from_secs(15 * 60),
        }
    }
}

/// The longest that is slept without looking whether to stop.
const SLICE: Duration = Duration::from_millis(50);

/// Exponential back-off with equal jitter (M. Brooker, "Exponential Backoff and Jitter", 2015): half of each wait is
/// fixed, half is random.
#[derive(Debug)]
pub(crate) struct Backoff {
    policy: RetryPolicy,
    /// When the first failure in a row happened, and how many there were.
    failing: Option<(Duration, u32)>,
    random: RandomState,
}

impl Backoff {
    pub(crate) fn new(policy: RetryPolicy) -> Self {
        Backoff { policy, failing: None, random: RandomState::new() }
    }

    pub(crate) fn succeeded(&mut self) {
        self.failing = None;
    }

    /// How many tries have failed in a row.
    pub(crate) fn failures(&self) -> u32 {
        self.failing.map_or(0, |(_, failures)| failures)
    }

    /// A try failed `now`: how long to wait before the next one, or `None` to give up.
    pub(crate) fn failed(&mut self, now: Duration) -> Option<Duration> {
        let (since, failures) = self.failing.unwrap_or((now, 0));
        self.failing = Some((since, failures.saturating_add(1)));
        let left = self.policy.max_elapsed.checked_sub(now.saturating_sub(since)).filter(|left| !left.is_zero())?;
        let doubled = self.policy.initial_backoff.saturating_mul(1 << failures.min(20));
        let longest = doubled.min(self.policy.max_backoff);
        let random = (self.random.hash_one((since, failures)) >> 40) as f64 / (1u64 << 24) as f64;
        Some(longest.mul_f64(0.5 + 0.5 * random).min(left))
    }
}

/// Sleeps, unless `stopped` says to stop; whether it slept to the end.
pub(crate) fn sleep(clock: &dyn Clock, duration: Duration, stopped: impl Fn() -> bool) -> bool {
    let mut left = duration;
    while !left.is_zero() {
        if stopped() {
            return false;
        }
        let slice = left.min(SLICE);
        clock.sleep(slice);
        left -= slice;
    }
    !stopped()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_longest_and_end_in_time() {
        let millis = Duration::from_millis;
        let policy =
            RetryPolicy { initial_backoff: millis(100), max_backoff: millis(1000), max_elapsed: millis(10_000) };
        let mut backoff = Backoff::new(policy);
        let mut now = millis(5);
        let mut longest = [100, 200, 400, 800, 1000, 1000, 1000].into_iter();
        while let Some(wait) = backoff.failed(now) {
            let longest = millis(longest.next().unwrap_or(1000));
            let left = millis(10_005) - now;
            assert!(wait <= longest && (wait >= longest / 2 || wait == left), "{wait:?} of {longest:?}");
            now += wait;
        }
        assert_eq!(now, millis(10_005), "the last try is at the very end");
        backoff.succeeded();
        assert_eq!(backoff.failures(), 0);
        assert!(backoff.failed(now).is_some(), "another failure starts over");
    }

    #[test]
    fn no_time_means_no_second_try() {
        let policy = RetryPolicy { max_elapsed: Duration::ZERO, ..RetryPolicy::default() };
        assert_eq!(Backoff::new(policy).failed(Duration::ZERO), None);
    }
}
