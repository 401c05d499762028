//! Back-pressure: a delay that grows with the debt, in microseconds, so that writers slow down to what the background
//! can keep up with and never run into a wall.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::clock::Clock;

/// Delays are gathered until they are worth a system call.
const NAP_NS: u64 = 50_000;

/// A nap is never longer than this; the rest stays gathered, and is forgotten when the debt is paid meanwhile.
const MAX_NAP_NS: u64 = 1_000_000;

/// What a tree owes.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Debt {
    /// What every get may have to look through; see `Version::level0_runs`.
    pub(crate) level0_runs: usize,
    pub(crate) level0_trigger: usize,
    /// Bytes that compaction still has to rewrite to bring every level to its target.
    pub(crate) compaction_bytes: u64,
    /// The target of the base level: the scale that the debt is measured against.
    pub(crate) base_level_bytes: u64,
}

/// The delay for each KiB written, in nanoseconds. Nothing up to twice the level-0 trigger and four base levels of
/// debt; beyond, it grows with the square of the excess.
pub(crate) fn delay_ns_per_kib(debt: &Debt) -> u64 {
    let level0_slowdown = (2 * debt.level0_trigger).max(debt.level0_trigger + 4);
    let level0_excess = debt.level0_runs.saturating_sub(level0_slowdown) as u64;
    let scale = (4 * debt.base_level_bytes).max(1);
    let debt_quarters = (debt.compaction_bytes.saturating_sub(scale)).saturating_mul(4) / scale;
    let square = |n: u64| n.saturating_mul(n);
    square(level0_excess).saturating_mul(1000).saturating_add(square(debt_quarters).saturating_mul(500))
}

/// The delay when memtables fill faster than they are flushed: nothing up to three quarters of the write buffers, 16 us
/// a KiB when they are full (where writers wait for room).
pub(crate) fn memtable_delay_ns_per_kib(used_bytes: usize, limit_bytes: usize) -> u64 {
    let free_up_to = limit_bytes / 4 * 3;
    let sixteenths = used_bytes.saturating_sub(free_up_to) as u64 * 64 / limit_bytes.max(1) as u64;
    sixteenths * sixteenths * 62
}

/// The delay in force, and what has been gathered of it.
#[derive(Debug, Default)]
pub(crate) struct Pressure {
    delay_ns_per_kib: AtomicU64,
    gathered_ns: AtomicU64,
    /// Total time writers were held back.
    delayed_ns: AtomicU64,
}

// All orderings here are relaxed: the numbers are independent of each other and of any other memory; a delay that is
// seen late is a delay that comes late.
impl Pressure {
    /// Sets the delay by what the trees owe.
    pub(crate) fn set(&self, delay_ns_per_kib: u64) {
        self.delay_ns_per_kib.store(delay_ns_per_kib, Ordering::Relaxed);
    }

    /// The delay that the trees' debt asks for.
    #[inline]
    pub(crate) fn get(&self) -> u64 {
        self.delay_ns_per_kib.load(Ordering::Relaxed)
    }

    /// How long writers were held back since the database was opened.
    pub(crate) fn delayed(&self) -> Duration {
        Duration::from_nanos(self.delayed_ns.load(Ordering::Relaxed))
    }

    /// Adds time that writers waited for room.
    pub(crate) fn add_delayed(&self, waited: Duration) {
        self.delayed_ns.fetch_add(waited.as_nanos() as u64, Ordering::Relaxed);
    }

    /// Holds the caller back for `bytes` at `delay_ns_per_kib`.
    #[cold]
    pub(crate) fn delay(&self, bytes: usize, delay_ns_per_kib: u64, clock: &dyn Clock) {
        let delay_ns = (bytes as u64).saturating_mul(delay_ns_per_kib) / 1024;
        let gathered_ns = self.gathered_ns.fetch_add(delay_ns, Ordering::Relaxed).saturating_add(delay_ns);
        if gathered_ns < NAP_NS {
            return;
        }
        let nap_ns = gathered_ns.min(MAX_NAP_NS);
        self.gathered_ns.store(0, Ordering::Relaxed);
        let before = clock.now();
        clock.sleep(Duration::from_nanos(nap_ns));
        self.add_delayed(clock.now().saturating_sub(before));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::ManualClock;

    #[test]
    fn the_delay_is_nothing_without_debt_and_grows_with_it() {
        let debt = |level0_runs, compaction_bytes| {
            delay_ns_per_kib(&Debt { level0_runs, level0_trigger: 4, compaction_bytes, base_level_bytes: 100 })
        };
        assert_eq!(debt(8, 400), 0);
        assert!(debt(9, 0) > 0);
        assert!(debt(0, 600) > 0);
        for tables in 9..60 {
            assert!(debt(tables + 1, 0) > debt(tables, 0));
        }
        assert_eq!(memtable_delay_ns_per_kib(75, 100), 0);
        assert!(memtable_delay_ns_per_kib(100, 100) > memtable_delay_ns_per_kib(90, 100));
    }

    #[test]
    fn delays_are_gathered_into_naps() {
        let (pressure, clock) = (Pressure::default(), ManualClock::default());
        for _ in 0..49 {
            pressure.delay(1024, 1000, &clock);
        }
        assert_eq!(clock.now(), Duration::ZERO);
        pressure.delay(1024, 1000, &clock);
        assert_eq!(clock.now(), Duration::from_micros(50));
        pressure.delay(1 << 30, 1_000_000, &clock);
        assert_eq!(pressure.delayed(), Duration::from_micros(1050), "one nap is bounded");
    }
}
