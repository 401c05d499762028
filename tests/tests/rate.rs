//! Compactions keep to the rate they are given, by the database's own clock: nobody sleeps here.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use siltstone::{Clock, Compression, KeyspaceOptions, Options};

const BYTES_PER_SECOND: u64 = 1 << 20;

/// Moves only when somebody sleeps by it.
#[derive(Debug, Default)]
struct ManualClock(Mutex<Duration>);

impl Clock for ManualClock {
    fn now(&self) -> Duration {
        *self.0.lock().unwrap()
    }

    fn sleep(&self, duration: Duration) {
        *self.0.lock().unwrap() += duration;
    }
}

/// How long, by the clock, a compaction of some megabytes takes, and how many bytes it wrote.
fn compaction(limit: Option<u64>) -> siltstone::Result<(Duration, u64)> {
    let dir = tempfile::tempdir().unwrap();
    let clock = Arc::new(ManualClock::default());
    let mut options = Options::new().memory_bytes(16 << 20).clock(clock.clone());
    if let Some(limit) = limit {
        options = options.compaction_bytes_per_second(limit);
    }
    let db = options.open(dir.path())?;
    let ks = db.keyspace("a", KeyspaceOptions::new().compression(Compression::None))?;
    for n in 0..30_000u64 {
        ks.put(n.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes(), [7; 100])?;
    }
    ks.flush()?;
    db.wait_for_compaction()?;
    let written = || ks.metrics().amplification.levels[1..].iter().map(|level| level.written_bytes).sum::<u64>();
    let (before, before_bytes) = (clock.now(), written());
    ks.compact()?;
    Ok((clock.now() - before, written() - before_bytes))
}

#[test]
fn compactions_keep_to_their_rate() -> siltstone::Result<()> {
    let (unlimited, bytes) = compaction(None)?;
    assert_eq!(unlimited, Duration::ZERO, "{bytes} bytes");
    let (limited, bytes) = compaction(Some(BYTES_PER_SECOND))?;
    assert!(bytes > 2 * BYTES_PER_SECOND, "{bytes} bytes are too few to tell");
    // What is written after the last look at the rate is not waited for: at most some thousand entries.
    let expected = Duration::from_secs_f64((bytes as f64 * 0.7) / BYTES_PER_SECOND as f64);
    assert!(limited >= expected, "{bytes} bytes in {limited:?}, expected {expected:?}");
    Ok(())
}
