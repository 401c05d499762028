//! Seeks and scans.

use std::ops::Range;

use super::Worker;
use crate::data::{Dataset, Expected};
use crate::engines::{Direction, Engine};
use crate::error::{Error, Result};

/// Tells the draws of seeks from those of gets.
const SEEK_STREAM: u64 = 3;

/// The keys that a scan should meet, one after the other.
struct Route<'a> {
    data: &'a Dataset,
    expected: Expected,
    direction: Direction,
    /// The next key that may be met; none past the end.
    next: Option<u64>,
}

impl<'a> Route<'a> {
    fn new(data: &'a Dataset, expected: Expected, direction: Direction, from: u64) -> Self {
        Route { data, expected, direction, next: (from < data.keys()).then_some(from) }
    }

    /// The next live key.
    #[inline]
    fn advance(&mut self) -> Option<u64> {
        while let Some(id) = self.next {
            self.next = match self.direction {
                Direction::Forward => Some(id + 1).filter(|&next| next < self.data.keys()),
                Direction::Reverse => id.checked_sub(1),
            };
            if self.expected.is_live(self.data, id) {
                return Some(id);
            }
        }
        None
    }

    /// Checks that the entry met is the next one.
    #[inline]
    fn check(&mut self, key: &[u8], value: &[u8], scratch: &mut Vec<u8>) -> Result<()> {
        let Some(id) = self.advance() else {
            return Err(Error::WrongAnswer(format!("scan: {key:02x?} comes after the last key")));
        };
        self.data.check_key(id, key, scratch)?;
        self.data.check(id, self.expected.version, value)
    }

    /// Checks that nothing was left out after `count` of up to `limit` entries.
    fn check_end(&mut self, count: u64, limit: usize) -> Result<()> {
        match self.advance() {
            Some(id) if count < limit as u64 => {
                Err(Error::WrongAnswer(format!("scan: ended after {count} entries, before key {id}")))
            }
            _ => Ok(()),
        }
    }
}

/// Seeks to keys drawn at random, and reads and checks some entries from there on. A latency is that of all of it.
pub(super) fn seek_random<E: Engine>(worker: &mut Worker<'_, E>, expected: Expected, steps: Range<u64>) -> Result<u64> {
    let seeks = steps.end - steps.start;
    let limit = worker.settings.seek_entries;
    for step in steps {
        let id = worker.data.random(SEEK_STREAM, step);
        worker.data.key(id, &mut worker.key);
        let mut route = Route::new(worker.data, expected, Direction::Forward, id);
        let visit = |key: &[u8], value: &[u8]| route.check(key, value, &mut worker.value);
        let count = worker.recorder.time(|| worker.engine.scan(Some(&worker.key), Direction::Forward, limit, visit))?;
        route.check_end(count, limit)?;
        worker.advance(step);
    }
    Ok(seeks)
}

/// Reads and checks all entries, once a step. A latency is that of the step from an entry to the next.
pub(super) fn pass_over_all<E: Engine>(
    worker: &mut Worker<'_, E>,
    expected: Expected,
    steps: Range<u64>,
    direction: Direction,
) -> Result<u64> {
    let mut entries = 0;
    let from = match direction {
        Direction::Forward => 0,
        Direction::Reverse => worker.data.keys() - 1,
    };
    for _ in steps {
        let mut route = Route::new(worker.data, expected, direction, from);
        let visit = |key: &[u8], value: &[u8]| {
            worker.recorder.step();
            route.check(key, value, &mut worker.key)
        };
        let count = worker.engine.scan(None, direction, usize::MAX, visit)?;
        route.check_end(count, usize::MAX)?;
        worker.progress.inc(1);
        entries += count;
    }
    Ok(entries)
}
