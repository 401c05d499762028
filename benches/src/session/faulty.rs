//! [`Faulty`]: an engine that goes wrong, for the tests of those who should notice.

use std::collections::HashMap;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::engines::{Accounts, Direction, Engine, Floor};
use crate::error::{Error, Result};
use crate::settings::Settings;

/// A get answers a value with a wrong bit.
pub(super) const FLIPS_A_BIT: u8 = 0;
/// Gets find nothing.
pub(super) const MISSES_KEYS: u8 = 1;
/// Gets answer the value before the last put.
pub(super) const ANSWERS_OLD_VALUES: u8 = 2;
/// A get of a missing key finds something.
pub(super) const MAKES_UP_A_KEY: u8 = 3;
/// A scan leaves out an entry, and counts it.
pub(super) const SKIPS_IN_A_SCAN: u8 = 4;
/// A scan leaves out an entry, and does not count it.
pub(super) const LEAVES_OUT_IN_A_SCAN: u8 = 5;
/// Scans over everything end before the last entry.
pub(super) const ENDS_SCANS_EARLY: u8 = 6;
/// A scan answers a value with a wrong bit.
pub(super) const FLIPS_A_BIT_IN_A_SCAN: u8 = 7;
/// Puts do nothing.
pub(super) const FORGETS_PUTS: u8 = 8;
/// Puts of what is there do nothing.
pub(super) const KEEPS_THE_OLD: u8 = 9;
/// Deletes do nothing.
pub(super) const IGNORES_DELETES: u8 = 10;
/// A batch lacks its last put.
pub(super) const TEARS_A_BATCH: u8 = 11;
/// A bulk load lacks an entry, and counts it.
pub(super) const LOSES_IN_A_LOAD: u8 = 12;
/// A bulk load counts an entry too many.
pub(super) const MISCOUNTS_A_LOAD: u8 = 13;
/// An update reads, and does not write.
pub(super) const FORGETS_UPDATES: u8 = 14;
/// An update says that there is no value.
pub(super) const UPDATES_BLINDLY: u8 = 15;
/// A put fails.
pub(super) const FAILS: u8 = 16;
/// A put panics.
pub(super) const PANICS: u8 = 17;
/// All puts take a millisecond.
pub(super) const SLOW: u8 = 18;

/// A floor that goes wrong in one way, from the `AFTER`-th operation on that could; where one wrong answer is enough,
/// once.
pub(super) struct Faulty<const FAULT: u8, const AFTER: u64> {
    inner: Floor,
    chances: AtomicU64,
    /// What a put replaced, if old values matter.
    replaced: Mutex<HashMap<Vec<u8>, Vec<u8>>>,
}

impl<const FAULT: u8, const AFTER: u64> Faulty<FAULT, AFTER> {
    fn new(inner: Floor) -> Self {
        Faulty { inner, chances: AtomicU64::new(0), replaced: Mutex::new(HashMap::new()) }
    }

    fn once(&self, fault: u8) -> bool {
        fault == FAULT && self.chances.fetch_add(1, Ordering::Relaxed) == AFTER
    }

    fn lasting(&self, fault: u8) -> bool {
        fault == FAULT && self.chances.fetch_add(1, Ordering::Relaxed) >= AFTER
    }

    fn replaced(&self) -> std::sync::MutexGuard<'_, HashMap<Vec<u8>, Vec<u8>>> {
        self.replaced.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn flipped(value: &[u8]) -> Vec<u8> {
    let mut value = value.to_vec();
    value[5] ^= 1;
    value
}

impl<const FAULT: u8, const AFTER: u64> Engine for Faulty<FAULT, AFTER> {
    const NAME: &'static str = "faulty";
    const NOTES: &'static str = "";

    fn open(dir: &Path, settings: &Settings) -> Result<Self> {
        Ok(Faulty::new(Floor::open(dir, settings)?))
    }

    fn reopen(dir: &Path, settings: &Settings) -> Result<Self> {
        Ok(Faulty::new(Floor::reopen(dir, settings)?))
    }

    fn put(&self, key: &[u8], value: &[u8]) -> Result<()> {
        if self.lasting(FORGETS_PUTS) {
            return Ok(());
        }
        if self.once(FAILS) {
            return Err(Error::engine(Self::NAME, "no space left"));
        }
        assert!(!self.once(PANICS), "as it should");
        if self.lasting(SLOW) {
            std::thread::sleep(Duration::from_millis(1));
        }
        if FAULT == ANSWERS_OLD_VALUES
            && let Some(old) = self.inner.get(key, <[u8]>::to_vec)?
        {
            self.replaced().insert(key.to_vec(), old);
        }
        let is_old = FAULT == KEEPS_THE_OLD && self.inner.get(key, |_| ())?.is_some();
        if is_old && self.once(KEEPS_THE_OLD) { Ok(()) } else { self.inner.put(key, value) }
    }

    fn put_batch(&self, puts: &[(Vec<u8>, Vec<u8>)]) -> Result<()> {
        let len = if self.once(TEARS_A_BATCH) { puts.len() - 1 } else { puts.len() };
        self.inner.put_batch(&puts[..len])
    }

    fn bulk_load<K: AsRef<[u8]>, V: AsRef<[u8]>>(&self, entries: impl Iterator<Item = (K, V)>) -> Result<u64> {
        let mut count = u64::from(FAULT == MISCOUNTS_A_LOAD);
        for (key, value) in entries {
            if !self.once(LOSES_IN_A_LOAD) {
                self.put(key.as_ref(), value.as_ref())?;
            }
            count += 1;
        }
        Ok(count)
    }

    fn delete(&self, key: &[u8]) -> Result<()> {
        if self.lasting(IGNORES_DELETES) { Ok(()) } else { self.inner.delete(key) }
    }

    fn get<R>(&self, key: &[u8], visit: impl FnOnce(&[u8]) -> R) -> Result<Option<R>> {
        if self.lasting(MISSES_KEYS) {
            return Ok(None);
        }
        if self.once(MAKES_UP_A_KEY) {
            return Ok(Some(visit(b"")));
        }
        if FAULT == FLIPS_A_BIT {
            let flip = |value: &[u8]| if self.once(FLIPS_A_BIT) { visit(&flipped(value)) } else { visit(value) };
            return self.inner.get(key, flip);
        }
        if self.lasting(ANSWERS_OLD_VALUES)
            && let Some(old) = self.replaced().get(key)
        {
            return Ok(Some(visit(old)));
        }
        self.inner.get(key, visit)
    }

    fn update(&self, key: &[u8], change: impl FnOnce(Option<&[u8]>, &mut Vec<u8>)) -> Result<()> {
        let old = self.inner.get(key, <[u8]>::to_vec)?.filter(|_| !self.once(UPDATES_BLINDLY));
        let mut new = Vec::new();
        change(old.as_deref(), &mut new);
        if self.lasting(FORGETS_UPDATES) { Ok(()) } else { self.inner.put(key, &new) }
    }

    fn scan(
        &self,
        from: Option<&[u8]>,
        direction: Direction,
        limit: usize,
        mut visit: impl FnMut(&[u8], &[u8]) -> Result<()>,
    ) -> Result<u64> {
        let limit = if FAULT == ENDS_SCANS_EARLY && from.is_none() { 150 } else { limit };
        let mut left_out = 0;
        let count = self.inner.scan(from, direction, limit, |key: &[u8], value: &[u8]| {
            if self.once(SKIPS_IN_A_SCAN) {
                return Ok(());
            }
            if self.once(LEAVES_OUT_IN_A_SCAN) {
                left_out += 1;
                return Ok(());
            }
            if self.once(FLIPS_A_BIT_IN_A_SCAN) { visit(key, &flipped(value)) } else { visit(key, value) }
        })?;
        Ok(count - left_out)
    }

    fn flush(&self) -> Result<()> {
        self.inner.flush()
    }

    fn settle(&self) -> Result<()> {
        self.inner.settle()
    }

    fn accounts(&self) -> Accounts {
        self.inner.accounts()
    }

    fn close(self) -> Result<()> {
        self.inner.close()
    }
}
