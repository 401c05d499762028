//! [`Costs`]: what an entry takes in memory, in the log and in tables, measured on the engine itself.

use std::path::Path;

use serde::{Deserialize, Serialize};
use siltstone::{Keyspace, KeyspaceOptions, Options};

use super::workload::Workload;
use crate::data::Dataset;
use crate::error::{Error, Result};

/// Bytes that an entry takes, by the length of its value: `base + slope * value_bytes`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct EntryBytes {
    /// Without a value.
    pub base: f64,
    /// For each byte of it.
    pub slope: f64,
}

/// What entries of one shape take where, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Costs {
    /// Of the keys.
    pub key_bytes: f64,
    /// A put in a memtable.
    pub put_memory: EntryBytes,
    /// A put in a table above the bottom.
    pub put_upper: EntryBytes,
    /// A put in a table of the bottom level, where sequence numbers take no room.
    pub put_bottom: EntryBytes,
    /// A put in the log.
    pub put_log: EntryBytes,
    /// A delete in a memtable.
    pub delete_memory: f64,
    /// A tombstone in a table.
    pub tombstone: f64,
    /// A delete in the log.
    pub delete_log: f64,
}

/// Bytes of keys and values that are written to measure.
const SAMPLE_BYTES: usize = 4 << 20;

impl EntryBytes {
    /// Of an entry whose value has `value_bytes`.
    pub fn of(&self, value_bytes: f64) -> f64 {
        self.base + self.slope * value_bytes
    }

    /// The line through two measurements of (value bytes, entry bytes).
    fn through((short, at_short): (f64, f64), (long, at_long): (f64, f64)) -> EntryBytes {
        let slope = if long > short { (at_long - at_short) / (long - short) } else { 1.0 };
        EntryBytes { base: at_short - slope * short, slope }
    }
}

/// Entry sizes of one length of values.
#[derive(Clone, Copy)]
struct Measured {
    value_bytes: f64,
    put_memory: f64,
    put_upper: f64,
    put_bottom: f64,
    put_log: f64,
    delete_memory: f64,
    tombstone: f64,
    delete_log: f64,
}

impl Costs {
    /// Writes a few MiB into a keyspace with `options` in a directory of its own under `dir`, in the order of
    /// `workload`, and looks at what became of them.
    ///
    /// # Errors
    /// What the engine says; [`Error::Io`].
    pub fn measure(
        workload: Workload,
        options: &KeyspaceOptions,
        key_bytes: usize,
        value_bytes: usize,
        dir: &Path,
    ) -> Result<Costs> {
        let (short, long) = workload.value_bounds(value_bytes);
        let measure = |value_bytes| measure(workload, options, key_bytes, value_bytes, dir);
        let short = measure(short)?;
        let long = if long as f64 > short.value_bytes { measure(long)? } else { short };
        let line = |of: fn(&Measured) -> f64| {
            EntryBytes::through((short.value_bytes, of(&short)), (long.value_bytes, of(&long)))
        };
        Ok(Costs {
            key_bytes: key_bytes as f64,
            put_memory: line(|measured| measured.put_memory),
            put_upper: line(|measured| measured.put_upper),
            put_bottom: line(|measured| measured.put_bottom),
            put_log: line(|measured| measured.put_log),
            delete_memory: short.delete_memory,
            tombstone: short.tombstone,
            delete_log: short.delete_log,
        })
    }

    /// Of entries that are only what they hold: for tests of what is made of costs.
    pub fn plain(key_bytes: usize) -> Costs {
        let key_bytes = key_bytes as f64;
        let put = EntryBytes { base: key_bytes, slope: 1.0 };
        Costs {
            key_bytes,
            put_memory: put,
            put_upper: put,
            put_bottom: put,
            put_log: put,
            delete_memory: key_bytes,
            tombstone: key_bytes,
            delete_log: key_bytes,
        }
    }
}

fn measure(
    workload: Workload,
    options: &KeyspaceOptions,
    key_bytes: usize,
    value_bytes: usize,
    dir: &Path,
) -> Result<Measured> {
    let fault = |error: siltstone::Error| Error::engine("siltstone", error);
    let dir = tempfile::Builder::new().prefix("siltstone-costs").tempdir_in(dir).map_err(Error::io(dir))?;
    let entries = (SAMPLE_BYTES / (key_bytes + value_bytes).max(1)).clamp(1000, 50_000) as u64;
    let data = Dataset::new(entries, key_bytes, value_bytes, 1)?;
    let db = Options::new().open(dir.path()).map_err(fault)?;
    let keyspace = db.keyspace("costs", options.clone().level0_trigger(64)).map_err(fault)?;
    let order = data.order(0);
    let id = |at| if matches!(workload, Workload::Sequential | Workload::TimeOrdered) { at } else { order.at(at) };
    let (mut key, mut value) = (Vec::new(), Vec::new());

    let mut put_memory = MemoryOfEntries::default();
    for at in 0..entries {
        data.key(id(at), &mut key);
        data.value(id(at), 1, &mut value);
        keyspace.put(&key, &value).map_err(fault)?;
        put_memory.note(at + 1, &keyspace);
    }
    let filled = Reading::of(&keyspace);
    keyspace.flush().map_err(fault)?;
    let flushed = Reading::of(&keyspace);
    keyspace.compact().map_err(fault)?;
    let compacted = Reading::of(&keyspace);
    let mut delete_memory = MemoryOfEntries::default();
    for at in 0..entries {
        data.key(id(at), &mut key);
        keyspace.delete(&key).map_err(fault)?;
        delete_memory.note(at + 1, &keyspace);
    }
    let deleted = Reading::of(&keyspace);
    keyspace.flush().map_err(fault)?;
    let flushed_deletes = Reading::of(&keyspace);
    db.close().map_err(fault)?;

    let each = |after: u64, before: u64| after.saturating_sub(before) as f64 / entries as f64;
    Ok(Measured {
        value_bytes: value_bytes as f64,
        put_memory: with_index(put_memory.each()),
        put_upper: each(flushed.flushed_bytes, 0),
        put_bottom: each(compacted.table_bytes, 0),
        put_log: each(filled.log_bytes, 0),
        delete_memory: with_index(delete_memory.each()),
        tombstone: each(flushed_deletes.flushed_bytes, flushed.flushed_bytes),
        delete_log: each(deleted.log_bytes, filled.log_bytes),
    })
}

/// What an entry of `bytes` takes of a memtable that is full: its index, which is made as large as it will have to be, has
/// two slots of eight bytes for each key, and at most an eighth of the memtable.
fn with_index(bytes: f64) -> f64 {
    bytes / (1.0 - (16.0 / bytes).min(0.125))
}

/// What entries take in a memtable, which grows in chunks: what it held when it last needed another one was full.
#[derive(Default)]
struct MemoryOfEntries {
    /// Entries and memory.
    full: (u64, u64),
    latest: (u64, u64),
}

/// Up to here a memtable of the size that is written to has no index.
const WITHOUT_INDEX_BYTES: u64 = 256 << 10;

impl MemoryOfEntries {
    fn note(&mut self, entries: u64, keyspace: &Keyspace) {
        const NOTED_EACH: u64 = 32;
        if !entries.is_multiple_of(NOTED_EACH) || self.latest.1 > WITHOUT_INDEX_BYTES {
            return;
        }
        let bytes = keyspace.metrics().memtable_bytes;
        if bytes > self.latest.1 {
            self.full = (entries, self.latest.1);
        }
        self.latest = (entries, bytes);
    }

    fn each(&self) -> f64 {
        let (entries, bytes) = if self.full.1 > 0 { self.full } else { self.latest };
        bytes as f64 / entries.max(1) as f64
    }
}

/// What the engine says of itself at one moment.
struct Reading {
    flushed_bytes: u64,
    table_bytes: u64,
    log_bytes: u64,
}

impl Reading {
    fn of(keyspace: &Keyspace) -> Reading {
        let metrics = keyspace.metrics();
        let levels = &metrics.amplification.levels;
        Reading {
            flushed_bytes: levels[0].written_bytes,
            table_bytes: levels.iter().map(|level| level.file_bytes).sum(),
            log_bytes: metrics.amplification.wal_bytes,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn measured_costs_are_those_of_the_formats() {
        let dir = tempfile::tempdir().unwrap();
        let options = KeyspaceOptions::new().compression(siltstone::Compression::None);
        let costs = Costs::measure(Workload::GrowingValues, &options, 16, 100, dir.path()).unwrap();
        for (value_bytes, entry) in [(25.0, 41.0), (100.0, 116.0), (400.0, 416.0)] {
            for (what, bytes) in [
                ("memory", costs.put_memory.of(value_bytes)),
                ("table", costs.put_upper.of(value_bytes)),
                ("bottom", costs.put_bottom.of(value_bytes)),
                ("log", costs.put_log.of(value_bytes)),
            ] {
                assert!((entry - 8.0..entry * 2.5 + 16.0).contains(&bytes), "{what}: {bytes} for {entry}");
            }
            assert!(costs.put_bottom.of(value_bytes) < costs.put_upper.of(value_bytes));
        }
        assert!((8.0..64.0).contains(&costs.tombstone), "{costs:?}");
        assert!(costs.delete_memory < costs.put_memory.of(25.0) && costs.delete_log < costs.put_log.of(25.0));
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "nothing is left behind");
    }
}
