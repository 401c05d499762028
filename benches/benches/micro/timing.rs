//! Measuring in whole passes.

use std::time::{Duration, Instant};

use criterion::Bencher;

/// Measures the time a step of `pass`, which does `steps` of them and can be repeated.
pub fn steps(b: &mut Bencher<'_>, steps: u64, mut pass: impl FnMut()) {
    b.iter_custom(|wanted| {
        let passes = wanted.div_ceil(steps);
        let elapsed = time(|| (0..passes).for_each(|_| pass()));
        share(elapsed, wanted, passes * steps)
    });
}

/// As [`steps`], of a pass that has to prepare something each time: it answers what the part that counts took, see
/// [`time`].
pub fn timed_steps(b: &mut Bencher<'_>, steps: u64, mut pass: impl FnMut() -> Duration) {
    b.iter_custom(|wanted| {
        let passes = wanted.div_ceil(steps);
        let elapsed = (0..passes).map(|_| pass()).sum();
        share(elapsed, wanted, passes * steps)
    });
}

/// How long `work` takes.
pub fn time(work: impl FnOnce()) -> Duration {
    let started = Instant::now();
    work();
    started.elapsed()
}

/// The part of `elapsed` that falls to `wanted` of the `done` steps.
fn share(elapsed: Duration, wanted: u64, done: u64) -> Duration {
    elapsed.mul_f64(wanted as f64 / done as f64)
}
