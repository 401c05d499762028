//! A stream of operations on a database, against a `BTreeMap`: writes, reads, both directions of iteration, iterators
//! and snapshots that outlive what they read, the change log, dropped keyspaces, flushes, compactions, reopening, killed
//! processes, power cuts, and power cuts inside a recovery.
#![no_main]

use std::sync::Arc;

use arbitrary::{Result, Unstructured};
use model::{Expected, Model, NAMES, Write, advance, bounds, contents, key, same, same_value, which, writes};
use siltstone::fs::{Keep, SimFileSystem};
use siltstone::{
    Compression, Db, Durability, Error, Iter, Keyspace, KeyspaceOptions, MemtableKind, Options, Snapshot, WriteBatch,
};

#[path = "operations/model.rs"]
mod model;

/// More make a run long without making it different.
const MAX_STEPS: usize = 200;

/// The metadata entry that counts batches.
const BATCHES: &str = "batches";

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

/// How a database is opened.
struct Config {
    keyspaces: KeyspaceOptions,
    mmap_reads: bool,
    block_cache_bytes: usize,
}

/// A database with what it should hold.
struct Run {
    fs: Arc<SimFileSystem>,
    config: Config,
    db: Db,
    keyspaces: Vec<Keyspace>,
    model: Model,
    snapshots: Vec<(Snapshot, Vec<Keyspace>, Model)>,
    iters: Vec<(Iter, Expected)>,
    /// The state that is sure to survive a power cut, and the batches since: any prefix of them may survive.
    synced: Model,
    since: Vec<Vec<Write>>,
}

impl Config {
    fn new(input: &mut Unstructured<'_>) -> Result<Self> {
        let compression = *input.choose(&[Compression::None, Compression::Lz4Bottom, Compression::Lz4])?;
        let keyspaces = KeyspaceOptions::new()
            .compression(compression)
            .block_bytes(*input.choose(&[64, 256, 4096])?)
            .filter_bits_per_key(input.int_in_range(0..=12)?)
            .level0_trigger(input.int_in_range(1..=4)?)
            .level_ratio(input.int_in_range(2..=4)?)
            .dynamic_levels(input.arbitrary()?)
            .memtable(*input.choose(&[MemtableKind::BTree, MemtableKind::SkipList])?)
            .base_level_bytes(64 << 10)
            .target_table_bytes(4 << 10);
        let block_cache_bytes = *input.choose(&[0, 16 << 10, 1 << 20])?;
        Ok(Config { keyspaces, mmap_reads: input.arbitrary()?, block_cache_bytes })
    }

    fn open(&self, fs: &Arc<SimFileSystem>) -> siltstone::Result<(Db, Vec<Keyspace>)> {
        let db = Options::new()
            .memory_bytes(siltstone::MIN_MEMORY_BYTES)
            .memtable_bytes(64 << 10)
            .wal_segment_bytes(64 << 10)
            .max_wal_bytes(256 << 10)
            .max_open_tables(16)
            .mmap_reads(self.mmap_reads)
            .block_cache_bytes(self.block_cache_bytes)
            .background_threads(1)
            .file_system(fs.clone())
            .open("/db")?;
        let open = |name| db.keyspace(name, self.keyspaces.clone());
        let keyspaces = NAMES.into_iter().map(open).collect::<siltstone::Result<_>>()?;
        Ok((db, keyspaces))
    }
}

impl Run {
    fn new(input: &mut Unstructured<'_>) -> Result<Self> {
        let config = Config::new(input)?;
        let fs = Arc::new(SimFileSystem::new());
        let (db, keyspaces) = config.open(&fs).expect("a new database");
        let (model, synced) = (Model::default(), Model::default());
        let (snapshots, iters, since) = (Vec::new(), Vec::new(), Vec::new());
        Ok(Run { fs, config, db, keyspaces, model, snapshots, iters, synced, since })
    }

    fn step(&mut self, input: &mut Unstructured<'_>) -> Result<()> {
        match input.int_in_range(0..=23u8)? {
            0..=7 => self.write(input)?,
            8 => self.get(input)?,
            9 => self.range(input)?,
            10 => self.prefix(input)?,
            11 => self.snapshot(),
            12 => self.open_iter(input)?,
            13 => self.advance_iter(input)?,
            14 => self.follow(),
            15 => self.flush(),
            16 => self.keyspaces[which(input)?].compact().expect("compact"),
            17 => self.db.wait_for_compaction().expect("wait"),
            18 => {
                self.db.sync().expect("sync");
                self.all_synced();
            }
            19 => self.drop_keyspace(which(input)?),
            20 => self.reopen(),
            21 => self.kill(),
            22 => self.power_cut(input.arbitrary()?, None),
            _ => self.power_cut(input.arbitrary()?, Some(input.arbitrary()?)),
        }
        Ok(())
    }

    fn write(&mut self, input: &mut Unstructured<'_>) -> Result<()> {
        let durability = if input.ratio(1, 8)? { Durability::Synced } else { Durability::Buffered };
        let writes = writes(input)?;
        let mut batch = WriteBatch::new();
        for (keyspace, key, value) in &writes {
            match value {
                Some(value) => batch.put(&self.keyspaces[*keyspace], key, value),
                None => batch.delete(&self.keyspaces[*keyspace], key),
            };
        }
        self.model.apply(&writes);
        batch.metadata(BATCHES, Some(self.model.batches.to_string()));
        let before = self.db.last_seqno();
        let answer = self.db.write_with(batch, durability).expect("write");
        assert_eq!(answer, before + writes.len() as u64);
        self.since.push(writes);
        if durability == Durability::Synced {
            self.all_synced();
        }
        Ok(())
    }

    fn get(&self, input: &mut Unstructured<'_>) -> Result<()> {
        let (which, keys) = (which(input)?, [key(input)?, key(input)?]);
        let expected = keys.each_ref().map(|key| self.model.maps[which].get(key));
        let keyspace = &self.keyspaces[which];
        same_value(keyspace.get(&keys[0]).expect("get"), expected[0]);
        assert_eq!(keyspace.contains_key(&keys[0]).expect("contains"), expected[0].is_some());
        let many = keyspace.get_many(&keys).expect("get_many");
        many.into_iter().zip(expected).for_each(|(found, expected)| same_value(found, expected));
        Ok(())
    }

    /// Takes entries from both ends of a range in turns, as the input says.
    fn range(&self, input: &mut Unstructured<'_>) -> Result<()> {
        let (which, bounds) = (which(input)?, bounds(input)?);
        let mut expected = self.model.inside(which, &bounds);
        let mut entries = self.keyspaces[which].range::<Vec<u8>>(bounds);
        while advance(&mut entries, &mut expected, input.arbitrary().unwrap_or(false)) {}
        assert!(entries.next().is_none() && entries.next_back().is_none());
        Ok(())
    }

    fn prefix(&self, input: &mut Unstructured<'_>) -> Result<()> {
        let (which, mut prefix) = (which(input)?, key(input)?);
        prefix.truncate(input.int_in_range(0..=30)?);
        let found = self.keyspaces[which].prefix(&prefix).map(|entry| entry.expect("entry").0);
        let expected = self.model.maps[which].keys().filter(|key| key.starts_with(&prefix));
        assert!(found.eq(expected.map(Vec::as_slice)));
        Ok(())
    }

    /// Takes a snapshot, or checks and ends the oldest when there are several.
    fn snapshot(&mut self) {
        if self.snapshots.len() < 3 {
            self.snapshots.push((self.db.snapshot(), self.keyspaces.clone(), self.model.clone()));
            return;
        }
        let (snapshot, keyspaces, model) = self.snapshots.remove(0);
        for (keyspace, expected) in keyspaces.iter().zip(&model.maps) {
            same(snapshot.iter(keyspace), snapshot.iter(keyspace), expected);
            for (key, value) in expected {
                same_value(snapshot.get(keyspace, key).expect("get"), Some(value));
            }
        }
    }

    fn open_iter(&mut self, input: &mut Unstructured<'_>) -> Result<()> {
        let (which, bounds) = (which(input)?, bounds(input)?);
        let expected = self.model.inside(which, &bounds);
        self.iters.truncate(3);
        self.iters.push((self.keyspaces[which].range::<Vec<u8>>(bounds), expected));
        Ok(())
    }

    /// Whatever happened since it was opened, a close included.
    fn advance_iter(&mut self, input: &mut Unstructured<'_>) -> Result<()> {
        let at = input.int_in_range(0..=3usize)?;
        let Some((entries, expected)) = self.iters.get_mut(at) else { return Ok(()) };
        for _ in 0..input.int_in_range(1..=9u8)? {
            advance(entries, expected, input.arbitrary()?);
        }
        Ok(())
    }

    /// The retained log has no gap, and ends where the store does.
    fn follow(&self) {
        let changes = match self.db.changes(1) {
            Err(Error::NotRetained { oldest, .. }) => self.db.changes(oldest),
            changes => changes,
        };
        let changes = match changes {
            // The background may let go of more between the two calls.
            Err(Error::NotRetained { .. }) => return,
            changes => changes.expect("changes"),
        };
        let mut next = None;
        for batch in changes {
            let batch = batch.expect("a batch of the log");
            assert!(next.is_none_or(|next| next == batch.first_seqno()));
            next = Some(batch.last_seqno() + 1);
        }
        assert!(next.is_none_or(|next| next == self.db.last_seqno() + 1));
    }

    fn flush(&mut self) {
        self.db.flush().expect("flush");
        self.all_synced();
    }

    /// Everything before a drop is durable with it.
    fn drop_keyspace(&mut self, which: usize) {
        assert!(self.db.drop_keyspace(NAMES[which]).expect("drop"));
        let gone = self.keyspaces[which].get("");
        assert!(matches!(gone, Err(Error::KeyspaceDropped { .. })), "{gone:?}");
        self.keyspaces[which] = self.db.keyspace(NAMES[which], self.config.keyspaces.clone()).expect("keyspace");
        self.model.maps[which].clear();
        self.all_synced();
    }

    fn reopen(&mut self) {
        self.snapshots.clear();
        self.keyspaces.clear();
        self.db.close().expect("close");
        self.all_synced();
        (self.db, self.keyspaces) = self.config.open(&self.fs).expect("open");
        self.check();
    }

    /// A killed process loses nothing that was written.
    fn kill(&mut self) {
        self.restart(self.fs.crash_clone(Keep::All, 0));
        self.check();
    }

    /// A power cut leaves a prefix of the batches that holds all synced ones, metadata included; so does a second one in
    /// the middle of the recovery.
    fn power_cut(&mut self, seed: u64, again: Option<u8>) {
        let keep = if seed.is_multiple_of(3) { Keep::Nothing } else { Keep::Some };
        let mut left = self.fs.crash_clone(keep, seed);
        if let Some(calls) = again {
            left.stop_after(calls.into());
            let _cut_short = self.config.open(&Arc::new(left.clone()));
            left = left.crash_clone(keep, seed.rotate_left(17));
        }
        self.restart(left);
        let batches = self
            .db
            .metadata(BATCHES)
            .map_or(0, |count| std::str::from_utf8(&count).ok().and_then(|count| count.parse().ok()).expect("a count"));
        let survived = Model { maps: std::array::from_fn(|which| contents(&self.keyspaces[which])), batches };
        let mut prefix = self.synced.clone();
        let mut since = self.since.iter();
        while prefix != survived {
            prefix.apply(since.next().expect("after a power cut the store is a prefix of the batches"));
        }
        self.model = survived;
        // What survived is on storage, or is as soon as the log is synced again.
        self.db.sync().expect("sync");
        self.all_synced();
        self.check();
    }

    fn restart(&mut self, fs: SimFileSystem) {
        self.snapshots.clear();
        self.fs = Arc::new(fs);
        (self.db, self.keyspaces) = self.config.open(&self.fs).expect("open after a crash");
    }

    fn all_synced(&mut self) {
        self.synced = self.model.clone();
        self.since.clear();
    }

    fn check(&self) {
        for (keyspace, expected) in self.keyspaces.iter().zip(&self.model.maps) {
            same(keyspace.iter(), keyspace.iter(), expected);
        }
        let batches = self.db.metadata(BATCHES).map(|count| count.to_vec());
        assert_eq!(batches.unwrap_or(b"0".to_vec()), self.model.batches.to_string().into_bytes());
    }
}
