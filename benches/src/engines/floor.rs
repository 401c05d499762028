//! The floor: what is left of an embedded engine when it keeps everything in memory.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, BufWriter, ErrorKind, Read, Seek, SeekFrom, Write};
use std::ops::Bound;
use std::path::Path;
use std::sync::{PoisonError, RwLock};

use super::{Accounts, Direction, Engine};
use crate::error::{Error, Result};
use crate::settings::{Durability, Settings};

/// How much of the log is gathered before it is handed to the operating system, in bytes.
const LOG_BUFFER_BYTES: usize = 64 << 10;

const LOG_NAME: &str = "log";

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

/// In place of a value's length: the record is a delete.
const DELETED: u32 = u32::MAX;

/// Appends one record: lengths, key, value.
fn append(log: &mut impl Write, key: &[u8], value: Option<&[u8]>) -> std::io::Result<()> {
    let mut lengths = [0; 8];
    lengths[..4].copy_from_slice(&(key.len() as u32).to_le_bytes());
    lengths[4..].copy_from_slice(&value.map_or(DELETED, |value| value.len() as u32).to_le_bytes());
    log.write_all(&lengths)?;
    log.write_all(key)?;
    log.write_all(value.unwrap_or_default())
}

/// A key, and its value unless it was deleted.
type LogRecord = (Vec<u8>, Option<Vec<u8>>);

/// Reads one record; `None` at the end, and where a killed process left half of one.
fn read_record(log: &mut impl Read) -> std::io::Result<Option<LogRecord>> {
    let Some(lengths) = read_exactly(log, 8)? else { return Ok(None) };
    let length_at = |at: usize| u32::from_le_bytes([lengths[at], lengths[at + 1], lengths[at + 2], lengths[at + 3]]);
    let Some(key) = read_exactly(log, length_at(0))? else { return Ok(None) };
    if length_at(4) == DELETED {
        return Ok(Some((key, None)));
    }
    Ok(read_exactly(log, length_at(4))?.map(|value| (key, Some(value))))
}

/// The next `length` bytes; `None` if there are fewer.
fn read_exactly(log: &mut impl Read, length: u32) -> std::io::Result<Option<Vec<u8>>> {
    let mut bytes = Vec::new();
    log.take(length.into()).read_to_end(&mut bytes)?;
    Ok((bytes.len() == length as usize).then_some(bytes))
}

impl State {
    fn write(&mut self, key: &[u8], value: Option<&[u8]>) -> std::io::Result<()> {
        if let Some(log) = &mut self.log {
            append(log, key, value)?;
        }
        match value {
            Some(value) => self.map.insert(key.to_vec(), value.to_vec()),
            None => self.map.remove(key),
        };
        Ok(())
    }

    fn sync(&mut self) -> std::io::Result<()> {
        self.log.as_mut().map_or(Ok(()), |log| log.flush().and_then(|()| log.get_ref().sync_data()))
    }

    /// Writes what the log holds into the map, and lets the next records follow the last whole one.
    fn replay(&mut self, mut log: File) -> std::io::Result<()> {
        let mut reader = BufReader::with_capacity(LOG_BUFFER_BYTES, &log);
        let mut end = 0;
        while let Some((key, value)) = read_record(&mut reader)? {
            end += 8 + (key.len() + value.as_ref().map_or(0, Vec::len)) as u64;
            self.write(&key, value.as_deref())?;
        }
        log.set_len(end)?;
        log.seek(SeekFrom::Start(end))?;
        self.log = Some(BufWriter::with_capacity(LOG_BUFFER_BYTES, log));
        Ok(())
    }
}

impl Floor {
    fn with_state(&self, synced: bool, write: impl FnOnce(&mut State) -> std::io::Result<()>) -> Result<()> {
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        write(&mut state).map_err(fault)?;
        if synced { state.sync().map_err(fault) } else { Ok(()) }
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

    const NOTES: &'static str = "A map in memory behind an uncontended read-write lock, each write also appended to a log \
        through a buffer of 64 KiB: its `buffered` may lose that buffer with the process, it checks no bytes when it \
        opens, a killed process may leave half of a batch, and memory holds all data.";

    fn open(dir: &Path, settings: &Settings) -> Result<Self> {
        let log = match settings.durability {
            Durability::NoLog => None,
            _ => {
                let file = File::create_new(dir.join(LOG_NAME)).map_err(fault)?;
                Some(BufWriter::with_capacity(LOG_BUFFER_BYTES, file))
            }
        };
        let synced = settings.durability == Durability::Synced;
        Ok(Floor { state: RwLock::new(State { map: BTreeMap::new(), log }), synced })
    }

    fn reopen(dir: &Path, settings: &Settings) -> Result<Self> {
        let mut state = State { map: BTreeMap::new(), log: None };
        match File::options().read(true).write(true).open(dir.join(LOG_NAME)) {
            Ok(log) => state.replay(log).map_err(fault)?,
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(fault(error)),
        }
        Ok(Floor { state: RwLock::new(state), synced: settings.durability == Durability::Synced })
    }

    #[inline]
    fn put(&self, key: &[u8], value: &[u8]) -> Result<()> {
        self.with_state(self.synced, |state| state.write(key, Some(value)))
    }

    fn put_batch(&self, puts: &[(Vec<u8>, Vec<u8>)]) -> Result<()> {
        self.with_state(self.synced, |state| puts.iter().try_for_each(|(key, value)| state.write(key, Some(value))))
    }

    fn bulk_load<K: AsRef<[u8]>, V: AsRef<[u8]>>(&self, entries: impl Iterator<Item = (K, V)>) -> Result<u64> {
        let mut count = 0;
        self.with_state(true, |state| {
            for (key, value) in entries {
                state.write(key.as_ref(), Some(value.as_ref()))?;
                count += 1;
            }
            Ok(())
        })?;
        Ok(count)
    }

    #[inline]
    fn delete(&self, key: &[u8]) -> Result<()> {
        self.with_state(self.synced, |state| state.write(key, None))
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
