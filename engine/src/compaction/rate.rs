//! An optional limit on how fast compactions write, so that they leave the disk to others.

use std::time::Duration;

use parking_lot::Mutex;

use crate::clock::Clock;

/// Unused allowance is kept for this long: a short burst after a pause is free.
const BURST: Duration = Duration::from_millis(100);

/// A wait is cut into naps of at most this, between which the caller looks whether to give up.
const MAX_NAP: Duration = Duration::from_millis(50);

/// Hands out bytes at a steady rate to all threads together.
#[derive(Debug)]
pub(crate) struct RateLimiter {
    bytes_per_second: u64,
    /// The moment at which everything handed out so far is paid for.
    paid_at: Mutex<Duration>,
}

impl RateLimiter {
    /// `bytes_per_second` is at least 1.
    pub(crate) fn new(bytes_per_second: u64) -> Self {
        RateLimiter { bytes_per_second: bytes_per_second.max(1), paid_at: Mutex::new(Duration::ZERO) }
    }

    /// Takes `bytes` and waits until they are paid for, or `give_up`.
    pub(crate) fn take(&self, bytes: u64, clock: &dyn Clock, give_up: impl Fn() -> bool) {
        let paid_at = {
            let mut paid_at = self.paid_at.lock();
            let from = (*paid_at).max(clock.now().saturating_sub(BURST));
            *paid_at = from
                + Duration::from_nanos((u128::from(bytes) * 1_000_000_000 / u128::from(self.bytes_per_second)) as u64);
            *paid_at
        };
        loop {
            let wait = paid_at.saturating_sub(clock.now());
            if wait.is_zero() || give_up() {
                return;
            }
            clock.sleep(wait.min(MAX_NAP));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::ManualClock;

    #[test]
    fn bytes_come_at_the_rate_and_a_pause_saves_no_more_than_a_burst() {
        let (limiter, clock) = (RateLimiter::new(1000), ManualClock::default());
        clock.sleep(Duration::from_secs(100));
        let begin = clock.now();
        for _ in 0..10 {
            limiter.take(100, &clock, || false);
        }
        assert_eq!(clock.now() - begin, Duration::from_secs(1) - BURST);
        clock.sleep(Duration::from_secs(50));
        let begin = clock.now();
        limiter.take(1000, &clock, || false);
        assert_eq!(clock.now() - begin, Duration::from_secs(1) - BURST);
        limiter.take(1_000_000, &clock, || true);
        assert_eq!(clock.now() - begin, Duration::from_secs(1) - BURST, "who gives up does not wait");
    }
}
