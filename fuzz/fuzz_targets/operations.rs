//! A stream of operations on a database, against a `BTreeMap`: reads, both directions of iteration, snapshots, flushes,
//! compactions, reopening, killed processes and power cuts.
#![no_main]

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use arbitrary::{Result, Unstructured};
use siltstone::fs::{Keep, SimFileSystem};
use siltstone::{Compression, Db, Durability, Keyspace, KeyspaceOptions, Options, Snapshot, WriteBatch};

/// Keyspaces; a model has one map for each.
const NAMES: [&str; 2] = ["left", "right"];

/// More make a run long without making it different.
const MAX_STEPS: usize = 200;

type Model = [BTreeMap<Vec<u8>, Vec<u8>>; NAMES.len()];

/// One operation of a batch: keyspace, key, and the value unless it is a delete.
type Write = (usize, Vec<u8>, Option<Vec<u8>>);

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let mut input = Unstructured::new(data);
    let Ok(mut run) = Run::new(&mut input) else { return };
    for _ in 0..MAX_STEPS {
        if input.is_empty() || run.step(&mut input).is_err() {
            break;
        }
    }
    run.check();
    assert!(run.db.verify().is_ok(), "{}", run.db.verify());
});

/// A database with what it should hold.
struct Run {
    fs: Arc<SimFileSystem>,
    options: KeyspaceOptions,
    db: Db,
    keyspaces: Vec<Keyspace>,
    model: Model,
    snapshots: Vec<(Snapshot, Model)>,
    /// The state that is sure to survive a power cut, and the batches since: any prefix of them may survive.
    synced: Model,
    since: Vec<Vec<Write>>,
}

impl Run {
    fn new(input: &mut Unstructured<'_>) -> Result<Self> {
        let compression = *input.choose(&[Compression::None, Compression::Lz4Bottom, Compression::Lz4])?;
        let options = KeyspaceOptions::new()
            .compression(compression)
            .block_bytes(*input.choose(&[64, 256, 4096])?)
            .filter_bits_per_key(input.int_in_range(0..=12)?)
            .level0_trigger(input.int_in_range(1..=4)?)
            .level_ratio(input.int_in_range(2..=4)?)
            .dynamic_levels(input.arbitrary()?)
            .base_level_bytes(64 << 10)
            .target_table_bytes(4 << 10);
        let fs = Arc::new(SimFileSystem::new());
        let (db, keyspaces) = open(&fs, &options);
        let (model, synced) = (Model::default(), Model::default());
        Ok(Run { fs, options, db, keyspaces, model, snapshots: Vec::new(), synced, since: Vec::new() })
    }

    fn step(&mut self, input: &mut Unstructured<'_>) -> Result<()> {
        match input.int_in_range(0..=15u8)? {
            0..=6 => self.write(input)?,
            7 => self.get(input)?,
            8 => self.range(input)?,
            9 => self.snapshot(),
            10 => {
                self.db.flush().expect("flush");
                self.all_synced();
            }
            11 => {
                let which = input.int_in_range(0..=NAMES.len() - 1)?;
                self.keyspaces[which].compact().expect("compact");
            }
            12 => {
                self.db.sync().expect("sync");
                self.all_synced();
            }
            13 => self.reopen(),
            14 => self.kill(),
            _ => self.power_cut(input.arbitrary()?),
        }
        Ok(())
    }

    fn write(&mut self, input: &mut Unstructured<'_>) -> Result<()> {
        let durability = if input.ratio(1, 8)? { Durability::Synced } else { Durability::Buffered };
        let mut writes: Vec<Write> = Vec::new();
        for _ in 0..input.int_in_range(1..=6)? {
            let keyspace = input.int_in_range(0..=NAMES.len() - 1)?;
            let (key, value) = (key(input)?, if input.ratio(3, 4)? { Some(value(input)?) } else { None });
            writes.push((keyspace, key, value));
        }
        let mut batch = WriteBatch::new();
        for (keyspace, key, value) in &writes {
            match value {
                Some(value) => batch.put(&self.keyspaces[*keyspace], key, value),
                None => batch.delete(&self.keyspaces[*keyspace], key),
            };
        }
        let before = self.db.last_seqno();
        let answer = self.db.write_with(batch, durability).expect("write");
        assert_eq!(answer, before + writes.len() as u64);
        apply(&mut self.model, &writes);
        self.since.push(writes);
        if durability == Durability::Synced {
            self.all_synced();
        }
        Ok(())
    }

    fn get(&self, input: &mut Unstructured<'_>) -> Result<()> {
        let (which, key) = (input.int_in_range(0..=NAMES.len() - 1)?, key(input)?);
        let found = self.keyspaces[which].get(&key).expect("get");
        assert_eq!(found.as_deref(), self.model[which].get(&key).map(Vec::as_slice));
        Ok(())
    }

    /// Takes entries from both ends of a range in turns, as the input says.
    fn range(&self, input: &mut Unstructured<'_>) -> Result<()> {
        let which = input.int_in_range(0..=NAMES.len() - 1)?;
        let bounds = (bound(input)?, bound(input)?);
        let mut entries = self.keyspaces[which].range::<Vec<u8>>(bounds.clone());
        let inside = |key: &Vec<u8>| std::ops::RangeBounds::contains(&bounds, key);
        let mut expected = self.model[which].iter().filter(|(key, _)| inside(key));
        loop {
            let back = input.arbitrary().unwrap_or(false);
            let (found, wanted) =
                if back { (entries.next_back(), expected.next_back()) } else { (entries.next(), expected.next()) };
            let found = found.map(|entry| entry.expect("entry"));
            assert_eq!(found.as_ref().map(|(k, v)| (&k[..], &v[..])), wanted.map(|(k, v)| (&k[..], &v[..])));
            if wanted.is_none() {
                assert!(entries.next().is_none() && entries.next_back().is_none());
                return Ok(());
            }
        }
    }

    /// Takes a snapshot, or checks and ends the oldest when there are several.
    fn snapshot(&mut self) {
        if self.snapshots.len() < 3 {
            self.snapshots.push((self.db.snapshot(), self.model.clone()));
            return;
        }
        let (snapshot, model) = self.snapshots.remove(0);
        for (keyspace, expected) in self.keyspaces.iter().zip(&model) {
            same(snapshot.iter(keyspace), expected);
            for (key, value) in expected {
                assert_eq!(snapshot.get(keyspace, key).expect("get").as_deref(), Some(&value[..]));
            }
        }
    }

    fn reopen(&mut self) {
        self.snapshots.clear();
        self.keyspaces.clear();
        self.db.close().expect("close");
        self.all_synced();
        (self.db, self.keyspaces) = open(&self.fs, &self.options);
        self.check();
    }

    /// A killed process loses nothing that was written.
    fn kill(&mut self) {
        self.restart(Keep::All, 0);
        self.check();
    }

    /// A power cut leaves a prefix of the batches that holds all synced ones.
    fn power_cut(&mut self, seed: u64) {
        let keep = if seed.is_multiple_of(3) { Keep::Nothing } else { Keep::Some };
        self.restart(keep, seed);
        let survived: Model = std::array::from_fn(|which| {
            let entries = self.keyspaces[which].iter().map(|entry| entry.expect("entry"));
            entries.map(|(key, value)| (key.into(), value.into())).collect()
        });
        let mut prefix = self.synced.clone();
        let mut batches = self.since.iter();
        while prefix != survived {
            let batch = batches.next().expect("after a power cut the store is a prefix of the batches");
            apply(&mut prefix, batch);
        }
        self.model = survived;
        // What survived is on storage, or is as soon as the log is synced again.
        self.db.sync().expect("sync");
        self.all_synced();
        self.check();
    }

    fn restart(&mut self, keep: Keep, seed: u64) {
        let fs = Arc::new(self.fs.crash_clone(keep, seed));
        self.snapshots.clear();
        self.fs = fs;
        (self.db, self.keyspaces) = open(&self.fs, &self.options);
    }

    fn all_synced(&mut self) {
        self.synced = self.model.clone();
        self.since.clear();
    }

    fn check(&self) {
        for (keyspace, expected) in self.keyspaces.iter().zip(&self.model) {
            same(keyspace.iter(), expected);
            let backward: Vec<_> = keyspace.iter().rev().map(|entry| entry.expect("entry")).collect();
            assert!(
                backward.iter().map(|(k, v)| (&k[..], &v[..])).eq(expected.iter().rev().map(|(k, v)| (&k[..], &v[..])))
            );
        }
    }
}

fn open(fs: &Arc<SimFileSystem>, options: &KeyspaceOptions) -> (Db, Vec<Keyspace>) {
    let db = Options::new()
        .memory_bytes(siltstone::MIN_MEMORY_BYTES)
        .memtable_bytes(64 << 10)
        .wal_segment_bytes(64 << 10)
        .max_open_tables(16)
        .background_threads(1)
        .file_system(fs.clone())
        .open("/db")
        .expect("open");
    let keyspaces = NAMES.iter().map(|name| db.keyspace(name, options.clone()).expect("keyspace")).collect();
    (db, keyspaces)
}

fn apply(model: &mut Model, writes: &[Write]) {
    for (keyspace, key, value) in writes {
        match value {
            Some(value) => model[*keyspace].insert(key.clone(), value.clone()),
            None => model[*keyspace].remove(key),
        };
    }
}

fn same(entries: siltstone::Iter, expected: &BTreeMap<Vec<u8>, Vec<u8>>) {
    let found: Vec<_> = entries.map(|entry| entry.expect("entry")).collect();
    assert!(found.iter().map(|(k, v)| (&k[..], &v[..])).eq(expected.iter().map(|(k, v)| (&k[..], &v[..]))));
}

/// Few keys, so that they are overwritten; some share long beginnings.
fn key(input: &mut Unstructured<'_>) -> Result<Vec<u8>> {
    let n: u8 = input.arbitrary()?;
    Ok(match n % 4 {
        0 => vec![n; usize::from(n % 5)],
        1 => format!("a long and common beginning {n}").into_bytes(),
        2 => [&[0; 8][..], &[n / 16]].concat(),
        _ => vec![n / 4],
    })
}

/// Values of a few bytes, and now and then enough to fill a memtable.
fn value(input: &mut Unstructured<'_>) -> Result<Vec<u8>> {
    let (byte, size): (u8, u8) = (input.arbitrary()?, input.arbitrary()?);
    let len = match size {
        0..=200 => usize::from(size % 40),
        201..=250 => 1000 * usize::from(size - 200),
        _ => 70_000,
    };
    Ok(vec![byte; len])
}

fn bound(input: &mut Unstructured<'_>) -> Result<Bound<Vec<u8>>> {
    Ok(match input.int_in_range(0..=2u8)? {
        0 => Bound::Unbounded,
        1 => Bound::Included(key(input)?),
        _ => Bound::Excluded(key(input)?),
    })
}
