//! How often a store is called, and how long that takes.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use siltstone::{Clock, Slice, SystemClock};

use super::{Entries, KeyValueStore, Operation, StoreBounds, StoreSnapshot, Write};
use crate::error::Result;

/// All operations, each at its number.
const OPERATIONS: [Operation; 6] =
    [Operation::Get, Operation::GetMany, Operation::Write, Operation::Range, Operation::Snapshot, Operation::Flush];

/// The figures of one kind of call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct OperationFigures {
    /// Calls, failed ones included.
    pub calls: u64,
    /// Calls that failed.
    pub failures: u64,
    /// Keys they were about; none of ranges, snapshots and flushes.
    pub keys: u64,
    /// Bytes of the values that were read, or of the keys and values that were written.
    pub bytes: u64,
    /// How long all of them took together.
    pub total: Duration,
    /// How long the slowest took.
    pub max: Duration,
}

/// The figures of a [`Metered`] store. They print as a table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoreMetrics {
    figures: [OperationFigures; OPERATIONS.len()],
}

impl StoreMetrics {
    /// Those of one kind of call.
    pub fn of(&self, operation: Operation) -> OperationFigures {
        self.figures[operation as usize]
    }
}

impl fmt::Display for StoreMetrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:10}{:>12}{:>10}{:>12}{:>14}{:>11}{:>11}",
            "", "calls", "failures", "keys", "bytes", "mean us", "max us"
        )?;
        for operation in OPERATIONS {
            let OperationFigures { calls, failures, keys, bytes, total, max } = self.of(operation);
            let (mean_us, max_us) = (micros(total) / calls.max(1) as f64, micros(max));
            let name = format!("{operation:?}");
            writeln!(f, "{name:10}{calls:>12}{failures:>10}{keys:>12}{bytes:>14}{mean_us:>11.2}{max_us:>11.1}")?;
        }
        Ok(())
    }
}

fn micros(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e6
}

/// Counters of one kind of call. All are figures, which nothing else depends on: relaxed.
#[derive(Debug, Default)]
struct Counters {
    calls: AtomicU64,
    failures: AtomicU64,
    keys: AtomicU64,
    bytes: AtomicU64,
    total_ns: AtomicU64,
    max_ns: AtomicU64,
}

impl Counters {
    fn figures(&self) -> OperationFigures {
        OperationFigures {
            calls: self.calls.load(Relaxed),
            failures: self.failures.load(Relaxed),
            keys: self.keys.load(Relaxed),
            bytes: self.bytes.load(Relaxed),
            total: Duration::from_nanos(self.total_ns.load(Relaxed)),
            max: Duration::from_nanos(self.max_ns.load(Relaxed)),
        }
    }
}

/// Counts and times the calls of a store.
///
/// ```
/// use siltstone_changelog::store::{KeyValueStore, MemoryStore, Metered, Operation};
/// let store = Metered::new(MemoryStore::new());
/// store.put(b"silt", b"1")?;
/// let writes = store.metrics().of(Operation::Write);
/// assert_eq!((writes.calls, writes.keys, writes.bytes), (1, 1, 5));
/// println!("{}", store.metrics());
/// # Ok::<(), siltstone_changelog::Error>(())
/// ```
#[derive(Debug)]
pub struct Metered<S> {
    inner: S,
    counters: [Counters; OPERATIONS.len()],
    clock: Arc<dyn Clock>,
}

impl<S> Metered<S> {
    /// Counts the calls of `inner`.
    pub fn new(inner: S) -> Self {
        Metered::with_clock(inner, Arc::new(SystemClock::default()))
    }

    /// As [`new`](Self::new), with a clock that is not the system's.
    pub fn with_clock(inner: S, clock: Arc<dyn Clock>) -> Self {
        Metered { inner, counters: Default::default(), clock }
    }

    /// The figures so far.
    pub fn metrics(&self) -> StoreMetrics {
        StoreMetrics { figures: std::array::from_fn(|index| self.counters[index].figures()) }
    }

    fn measured<R>(
        &self,
        operation: Operation,
        keys: usize,
        call: impl FnOnce(&S) -> Result<R>,
        bytes: impl FnOnce(&R) -> usize,
    ) -> Result<R> {
        let before = self.clock.now();
        let answer = call(&self.inner);
        let took_ns = self.clock.now().saturating_sub(before).as_nanos() as u64;
        let counters = &self.counters[operation as usize];
        counters.calls.fetch_add(1, Relaxed);
        counters.keys.fetch_add(keys as u64, Relaxed);
        counters.total_ns.fetch_add(took_ns, Relaxed);
        counters.max_ns.fetch_max(took_ns, Relaxed);
        match &answer {
            Ok(answer) => counters.bytes.fetch_add(bytes(answer) as u64, Relaxed),
            Err(_) => counters.failures.fetch_add(1, Relaxed),
        };
        answer
    }
}

fn value_bytes(value: &Option<Slice>) -> usize {
    value.as_ref().map_or(0, |value| value.len())
}

impl<S: KeyValueStore> KeyValueStore for Metered<S> {
    fn get(&self, key: &[u8]) -> Result<Option<Slice>> {
        self.measured(Operation::Get, 1, |inner| inner.get(key), value_bytes)
    }

    fn get_many(&self, keys: &[&[u8]]) -> Result<Vec<Option<Slice>>> {
        let bytes = |values: &Vec<_>| values.iter().map(value_bytes).sum();
        self.measured(Operation::GetMany, keys.len(), |inner| inner.get_many(keys), bytes)
    }

    fn write(&self, writes: &[Write]) -> Result<()> {
        let bytes = |_: &()| writes.iter().map(Write::message_bytes).sum();
        self.measured(Operation::Write, writes.len(), |inner| inner.write(writes), bytes)
    }

    fn accept(&self, write: &Write) -> Result<bool> {
        self.inner.accept(write)
    }

    fn range(&self, bounds: StoreBounds<'_>) -> Result<Entries> {
        self.measured(Operation::Range, 0, |inner| inner.range(bounds), |_| 0)
    }

    fn snapshot(&self) -> Result<Box<dyn StoreSnapshot>> {
        self.measured(Operation::Snapshot, 0, |inner| inner.snapshot(), |_| 0)
    }

    fn flush(&self) -> Result<()> {
        self.measured(Operation::Flush, 0, |inner| inner.flush(), |_| 0)
    }
}
