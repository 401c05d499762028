//! A sample of what a program does with its store.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use siltstone::{Clock, Slice, SystemClock};

use super::{Entries, KeyValueStore, StoreBounds, StoreSnapshot, Write};
use crate::error::{Error, Result};

/// A call of a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Operation {
    /// [`KeyValueStore::get`].
    Get,
    /// [`KeyValueStore::get_many`].
    GetMany,
    /// [`KeyValueStore::write`], and so `put` and `delete`.
    Write,
    /// [`KeyValueStore::range`].
    Range,
    /// [`KeyValueStore::snapshot`].
    Snapshot,
    /// [`KeyValueStore::flush`].
    Flush,
}

/// What is logged of a call.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Access<'a> {
    /// Which call it was.
    pub operation: Operation,
    /// The keys it was about; of a range its bounds, as far as there are any.
    pub keys: &'a [&'a [u8]],
    /// When it began, by the log's clock.
    pub at: Duration,
    /// How long it took.
    pub took: Duration,
    /// Whether it succeeded.
    pub succeeded: bool,
}

/// Who is told.
type Report = Box<dyn Fn(&Access<'_>) + Send + Sync>;

/// Tells a function about a random sample of calls: each is chosen by itself with the same probability, so that no
/// rhythm of calls is seen more or less often than it happens.
///
/// ```
/// use siltstone_changelog::store::{AccessLog, KeyValueStore, MemoryStore};
/// let report = |access: &siltstone_changelog::store::Access| println!("{access:?}");
/// let store = AccessLog::new(MemoryStore::new(), 0.01, report)?;
/// store.put(b"silt", b"1")?;
/// # Ok::<(), siltstone_changelog::Error>(())
/// ```
pub struct AccessLog<S> {
    inner: S,
    /// A call is chosen if its random number is below.
    threshold: u64,
    calls: AtomicU64,
    clock: Arc<dyn Clock>,
    report: Report,
}

impl<S> AccessLog<S> {
    /// Tells `report` of a share of the calls, from 0 (none) to 1 (all).
    ///
    /// # Errors
    /// `InvalidArgument` for any other ratio.
    pub fn new(inner: S, ratio: f64, report: impl Fn(&Access<'_>) + Send + Sync + 'static) -> Result<Self> {
        AccessLog::with_clock(inner, ratio, report, Arc::new(SystemClock::default()))
    }

    /// As [`new`](Self::new), with a clock that is not the system's.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn with_clock(
        inner: S,
        ratio: f64,
        report: impl Fn(&Access<'_>) + Send + Sync + 'static,
        clock: Arc<dyn Clock>,
    ) -> Result<Self> {
        if !(0.0..=1.0).contains(&ratio) {
            return Err(Error::InvalidArgument(format!("a ratio is from 0 to 1, unlike {ratio}")));
        }
        // Saturates: a ratio of 1 chooses all but one call of 2^64.
        let threshold = (ratio * 2f64.powi(64)) as u64;
        Ok(AccessLog { inner, threshold, calls: AtomicU64::new(0), clock, report: Box::new(report) })
    }

    fn is_chosen(&self) -> bool {
        // Relaxed: numbers only have to differ.
        let call = self.calls.fetch_add(1, Ordering::Relaxed);
        random(call) < self.threshold
    }

    fn logged<'a, R>(
        &self,
        operation: Operation,
        keys: impl FnOnce() -> Vec<&'a [u8]>,
        call: impl FnOnce(&S) -> Result<R>,
    ) -> Result<R> {
        if !self.is_chosen() {
            return call(&self.inner);
        }
        let at = self.clock.now();
        let answer = call(&self.inner);
        let took = self.clock.now().saturating_sub(at);
        (self.report)(&Access { operation, keys: &keys(), at, took, succeeded: answer.is_ok() });
        answer
    }
}

/// The `call`-th number of a sequence that looks random: splitmix64 (Steele, Lea, Flood, "Fast Splittable Pseudorandom
/// Number Generators", OOPSLA 2014).
fn random(call: u64) -> u64 {
    let mut z = call.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ z >> 31
}

impl<S> std::fmt::Debug for AccessLog<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AccessLog").field("calls", &self.calls).finish_non_exhaustive()
    }
}

impl<S: KeyValueStore> KeyValueStore for AccessLog<S> {
    fn get(&self, key: &[u8]) -> Result<Option<Slice>> {
        self.logged(Operation::Get, || vec![key], |inner| inner.get(key))
    }

    fn get_many(&self, keys: &[&[u8]]) -> Result<Vec<Option<Slice>>> {
        self.logged(Operation::GetMany, || keys.to_vec(), |inner| inner.get_many(keys))
    }

    fn write(&self, writes: &[Write]) -> Result<()> {
        let keys = || writes.iter().map(|write| &**write.key()).collect();
        self.logged(Operation::Write, keys, |inner| inner.write(writes))
    }

    fn accept(&self, write: &Write) -> Result<bool> {
        self.inner.accept(write)
    }

    fn range(&self, bounds: StoreBounds<'_>) -> Result<Entries> {
        let keys = || [bounds.0, bounds.1].into_iter().filter_map(key_of).collect();
        self.logged(Operation::Range, keys, |inner| inner.range(bounds))
    }

    fn snapshot(&self) -> Result<Box<dyn StoreSnapshot>> {
        self.logged(Operation::Snapshot, Vec::new, |inner| inner.snapshot())
    }

    fn flush(&self) -> Result<()> {
        self.logged(Operation::Flush, Vec::new, |inner| inner.flush())
    }
}

fn key_of(bound: std::ops::Bound<&[u8]>) -> Option<&[u8]> {
    use std::ops::Bound::{Excluded, Included, Unbounded};
    match bound {
        Included(key) | Excluded(key) => Some(key),
        Unbounded => None,
    }
}
