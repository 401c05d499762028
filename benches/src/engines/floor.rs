//! The floor: what is left of an embedded engine when it keeps everything in memory.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::ops::Bound;
use std::path::Path;
use std::sync::{PoisonError, RwLock};

use super::{Accounts, Direction, Engine};
use crate::error::{Error, Result};
use crate::settings::{Durability, Settings};

/// How much of the log is gathered before it is handed to the operating system, in bytes.
const LOG_BUFFER_BYTES: usize = 64 << 10;

/// A `BTreeMap` of owned keys and values behind a read-write lock, and a log file that each write is appended to
/// through a buffer.
///
/// It promises less than an engine does: `buffered` writes may lose the buffer with the process, the log has no
/// checksums and grows without bound, and memory holds all data.
#[derive(Debug)]
pub struct Floor {
    state: RwLock<State>,
    synced: bool,
}

#[derive(Debug)]
struct State {
    map: BTreeMap<Vec<u8>, Vec<u8>>,
    /// None without durability.
    log: Option<BufWriter<File>>,
}

fn fault(error: std::io::Error) -> Error {
    Error::engine(Floor::NAME, error)
}

/// Appends one record: lengths, key, value. A delete has the length `u32::MAX`.
fn append(log: &mut impl Write, key: &[u8], value: Option<&[u8]>) -> std::io::Result<()> {
    let mut lengths = [0; 8];
    lengths[..4].copy_from_slice(&(key.len() as u32).to_le_bytes());
    lengths[4..].copy_from_slice(&value.map_or(u32::MAX, |value| value.len() as u32).to_le_bytes());
    log.write_all(&lengths)?;
    log.write_all(key)?;
    log.write_all(value.unwrap_or_default())
}

impl Floor {
    fn write(&self, key: &[u8], value: Option<&[u8]>) -> Result<()> {
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(log) = &mut state.log {
            append(log, key, value).map_err(fault)?;
            if self.synced {
                log.flush().and_then(|()| log.get_ref().sync_data()).map_err(fault)?;
            }
        }
        match value {
            Some(value) => state.map.insert(key.to_vec(), value.to_vec()),
            None => state.map.remove(key),
        };
        Ok(())
    }
}

/// Visits up to `limit` entries; how many there were.
fn visit_all<'a>(
    entries: impl Iterator<Item = (&'a Vec<u8>, &'a Vec<u8>)>,
    limit: usize,
    mut visit: impl FnMut(&[u8], &[u8]) -> Result<()>,
) -> Result<u64> {
    let mut count = 0;
    for (key, value) in entries.take(limit) {
        visit(key, value)?;
        count += 1;
    }
    Ok(count)
}

impl Engine for Floor {
    const NAME: &'static str = "floor";

    fn open(dir: &Path, settings: &Settings) -> Result<Self> {
        let log = match settings.durability {
            Durability::NoLog => None,
            _ => {
                let file = File::create_new(dir.join("log")).map_err(fault)?;
                Some(BufWriter::with_capacity(LOG_BUFFER_BYTES, file))
            }
        };
        let synced = settings.durability == Durability::Synced;
        Ok(Floor { state: RwLock::new(State { map: BTreeMap::new(), log }), synced })
    }

    #[inline]
    fn put(&self, key: &[u8], value: &[u8]) -> Result<()> {
        self.write(key, Some(value))
    }

    #[inline]
    fn delete(&self, key: &[u8]) -> Result<()> {
        self.write(key, None)
    }

    #[inline]
    fn get<R>(&self, key: &[u8], visit: impl FnOnce(&[u8]) -> R) -> Result<Option<R>> {
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        Ok(state.map.get(key).map(|value| visit(value)))
    }

    fn scan(
        &self,
        from: Option<&[u8]>,
        direction: Direction,
        limit: usize,
        visit: impl FnMut(&[u8], &[u8]) -> Result<()>,
    ) -> Result<u64> {
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        let from = from.map_or(Bound::Unbounded, Bound::Included);
        match direction {
            Direction::Forward => visit_all(state.map.range::<[u8], _>((from, Bound::Unbounded)), limit, visit),
            Direction::Reverse => visit_all(state.map.range::<[u8], _>((Bound::Unbounded, from)).rev(), limit, visit),
        }
    }

    fn settle(&self) -> Result<()> {
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        state.log.as_mut().map_or(Ok(()), Write::flush).map_err(fault)
    }

    fn accounts(&self) -> Accounts {
        Accounts::default()
    }

    fn close(self) -> Result<()> {
        self.settle()
    }
}
