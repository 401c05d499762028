//! How far a standby is behind while the owner writes.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use siltstone::Keyspace;
use siltstone_changelog::{FileSink, FileSource, ShipOptions, Standby, ship};

use super::{Bench, Entries, Figures, failed};
use crate::error::Result;

/// Puts a second.
const RATE: u64 = 100_000;

/// How long that is kept up.
const SECONDS: u64 = 10;

/// How often is looked how far the standby is.
const LOOK: Duration = Duration::from_millis(1);

/// When which number was written: one entry each millisecond.
type Written = Mutex<Vec<(Instant, u64)>>;

/// Writes at a steady rate, and asks again and again how old the oldest write is that the standby does not have.
pub(super) fn measure(bench: &Bench, entries: &Entries) -> Result<Figures> {
    let log = bench.fresh("log")?;
    let db = bench.open("shipped")?;
    let shipper = ship(&db, FileSink::open(&log).map_err(failed)?, ShipOptions::new()).map_err(failed)?;
    let standby =
        Standby::follow_with(FileSource::open(&log), bench.fresh("standby")?, bench.options()).map_err(failed)?;
    let keyspace = db.keyspace("ks", Default::default()).map_err(failed)?;
    let (written, is_done) = (Written::default(), AtomicBool::new(false));
    let lags = std::thread::scope(|scope| {
        let watching = scope.spawn(|| watch(&standby, &written, &is_done));
        let wrote = write(bench, &keyspace, entries, &written);
        is_done.store(true, Ordering::Release);
        let lags = watching.join().unwrap_or_default();
        wrote.map(|()| lags)
    })?;
    shipper.stop().map_err(failed)?;
    standby.wait_until_caught_up(Duration::from_secs(60));
    let began = Instant::now();
    standby.promote().map_err(failed)?;
    let promoted = began.elapsed();
    let millis = |at: f64| lags[(at * (lags.len() - 1) as f64) as usize].as_secs_f64() * 1e3;
    Ok(vec![
        ("lag, median, ms", millis(0.5)),
        ("lag, 99 of 100, ms", millis(0.99)),
        ("lag, longest, ms", millis(1.0)),
        ("promotion when caught up, ms", promoted.as_secs_f64() * 1e3),
    ])
}

fn write(bench: &Bench, keyspace: &Keyspace, entries: &Entries, written: &Written) -> Result<()> {
    let began = Instant::now();
    for tick in 0..SECONDS * 1000 {
        for n in 0..RATE / 1000 {
            let n = (tick * RATE / 1000 + n) % bench.keys;
            keyspace.put(entries.key(n), entries.value(n)).map_err(failed)?;
        }
        let now = Instant::now();
        written.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).push((now, (tick + 1) * RATE / 1000));
        let due = began + Duration::from_millis(tick + 1);
        std::thread::sleep(due.saturating_duration_since(now));
    }
    Ok(())
}

/// The lags that were seen, the shortest first; at least one.
fn watch(standby: &Standby, written: &Written, is_done: &AtomicBool) -> Vec<Duration> {
    let (mut lags, mut passed) = (vec![Duration::ZERO], 0);
    while !is_done.load(Ordering::Acquire) {
        let seqno = standby.status().seqno;
        let written = written.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        while written.get(passed).is_some_and(|&(_, last)| last <= seqno) {
            passed += 1;
        }
        lags.push(written.get(passed).map_or(Duration::ZERO, |(at, _)| at.elapsed()));
        drop(written);
        std::thread::sleep(LOOK);
    }
    lags.sort_unstable();
    lags
}
