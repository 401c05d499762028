//! `compact()` leaves nothing behind that no snapshot needs, also when a compaction that knew of a snapshot was under
//! way as it was called.

use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use siltstone::{Clock, Compression, KeyspaceOptions, Options};

/// Who sleeps by this clock waits while the gate is closed; that holds a rate-limited compaction in its middle.
#[derive(Debug, Default)]
struct GateClock {
    state: Mutex<Gate>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Gate {
    now: Duration,
    closed: bool,
    waiting: usize,
}

impl GateClock {
    fn close(&self) {
        self.state.lock().unwrap().closed = true;
    }

    fn open(&self) {
        self.state.lock().unwrap().closed = false;
        self.changed.notify_all();
    }

    fn wait_for_sleeper(&self) {
        let state = self.state.lock().unwrap();
        drop(self.changed.wait_while(state, |gate| gate.waiting == 0).unwrap());
    }
}

impl Clock for GateClock {
    fn now(&self) -> Duration {
        self.state.lock().unwrap().now
    }

    fn sleep(&self, duration: Duration) {
        let mut state = self.state.lock().unwrap();
        state.waiting += 1;
        self.changed.notify_all();
        state = self.changed.wait_while(state, |gate| gate.closed).unwrap();
        state.waiting -= 1;
        state.now += duration;
    }
}

#[test]
fn a_compaction_that_knew_a_snapshot_does_not_leave_its_versions() -> siltstone::Result<()> {
    const COUNT: u64 = 10_000;
    let dir = tempfile::tempdir().unwrap();
    let clock = Arc::new(GateClock::default());
    let options = Options::new().memory_bytes(32 << 20).clock(clock.clone()).compaction_bytes_per_second(64 << 10);
    let db = options.open(dir.path())?;
    let options = KeyspaceOptions::new().compression(Compression::None).level0_trigger(2).target_table_bytes(16 << 10);
    let ks = db.keyspace("a", options)?;
    let key = |n: u64| n.to_be_bytes();
    (0..COUNT).try_for_each(|n| ks.put(key(n), [1; 50]).map(drop))?;
    ks.flush()?;
    let snapshot = db.snapshot();
    clock.close();
    (0..COUNT).step_by(2).try_for_each(|n| ks.delete(key(n)).map(drop))?;
    ks.flush()?;
    clock.wait_for_sleeper();
    drop(snapshot);
    let compacting = std::thread::spawn({
        let ks = ks.clone();
        move || ks.compact()
    });
    // Long enough for the call to begin, usually; if not, the test passes without having tested.
    for _ in 0..100_000 {
        std::thread::yield_now();
    }
    clock.open();
    compacting.join().unwrap()?;
    let levels = ks.metrics().amplification.levels;
    let (entries, tombstones) = levels.iter().fold((0, 0), |sum, l| (sum.0 + l.entries, sum.1 + l.tombstones));
    assert_eq!((entries, tombstones), (COUNT / 2, 0));
    Ok(())
}
