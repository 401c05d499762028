//! Small databases with a bit of everything, made the same way each time, and what is in them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};

use siltstone::fs::{Keep, SimFileSystem};
use siltstone::{Compression, Db, Durability, Keyspace, KeyspaceOptions, Options, Result, SeqNo, WriteBatch};

use super::check::measure;
use crate::options::tiny;
use crate::state::{State, apply};

/// Where the databases are.
pub const DIRECTORY: &str = "/db";

/// The keyspaces: blocks as they are with a filter; compressed without one; what only the log has; nothing at all.
pub const KEYSPACES: [&str; 4] = ["plain", "packed", "logged", "empty"];

/// Names of metadata that is in use.
pub const METADATA: [&str; 2] = ["position", "owner"];

/// The options of every database here. One background thread, so that it does the same each time.
pub fn options(sim: &SimFileSystem) -> Options {
    tiny().background_threads(1).file_system(Arc::new(sim.clone()))
}

/// The options of a keyspace; those of `plain` for names that a repair made up.
pub fn keyspace_options(name: &str) -> KeyspaceOptions {
    let options = KeyspaceOptions::new().block_bytes(128).level0_trigger(60).dynamic_levels(false);
    match name {
        "packed" => options.block_bytes(256).compression(Compression::Lz4).filter_bits_per_key(0),
        "logged" | "empty" | "gone" => options.filter_bits_per_key(10),
        _ => options.compression(Compression::None).filter_bits_per_key(10),
    }
}

/// A database at rest and what it holds.
pub struct Database {
    /// What it is, for messages.
    pub name: &'static str,
    /// Its files.
    pub sim: SimFileSystem,
    /// What can be read after each batch that no sync covers, the last one first: all but the first need damage.
    pub prefixes: Vec<Contents>,
    /// What could be read before that, since the last clean close: syncs cover it, but nothing outside the newest segment
    /// says so. It may show where that segment's end is gone.
    pub older: Vec<Contents>,
    /// Every value that a key ever had, by keyspace.
    pub history: BTreeMap<(String, Vec<u8>), BTreeSet<Vec<u8>>>,
    /// The keys of every logged write, by sequence number.
    pub writes: BTreeMap<SeqNo, (String, Vec<u8>)>,
}

/// What can be read from a database.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Contents {
    /// The entries.
    pub state: State,
    /// The metadata.
    pub metadata: BTreeMap<String, Vec<u8>>,
    /// The last sequence number.
    pub last_seqno: SeqNo,
}

impl Database {
    /// What is in it.
    pub fn contents(&self) -> &Contents {
        &self.prefixes[0]
    }

    /// Its files, without the lock, which has no contents.
    pub fn files(&self) -> Vec<PathBuf> {
        self.sim.paths().into_iter().filter(|path| !self.sim.read(path).unwrap().is_empty()).collect()
    }

    /// A copy to damage.
    pub fn copy(&self) -> SimFileSystem {
        self.sim.crash_clone(Keep::All, 0)
    }

    /// The length of all files together, in bytes.
    pub fn file_bytes(&self) -> usize {
        self.files().iter().map(|file| self.sim.read(file).unwrap().len()).sum()
    }
}

/// Writes to a database and remembers what it wrote.
struct Script {
    sim: SimFileSystem,
    db: Db,
    now: Contents,
    prefixes: Vec<Contents>,
    older: Vec<Contents>,
    history: BTreeMap<(String, Vec<u8>), BTreeSet<Vec<u8>>>,
    writes: BTreeMap<SeqNo, (String, Vec<u8>)>,
}

fn open(sim: &SimFileSystem) -> Result<Db> {
    options(sim).open(Path::new(DIRECTORY))
}

impl Script {
    fn new() -> Result<Self> {
        let sim = SimFileSystem::new();
        let db = open(&sim)?;
        let (now, prefixes, older) = (Contents::default(), Vec::new(), Vec::new());
        Ok(Script { sim, db, now, prefixes, older, history: BTreeMap::new(), writes: BTreeMap::new() })
    }

    fn keyspace(&self, name: &str) -> Result<Keyspace> {
        self.db.keyspace(name, keyspace_options(name))
    }

    /// One batch: keyspace, key, value or delete; and metadata.
    fn write(
        &mut self,
        writes: &[(&str, String, Option<String>)],
        metadata: &[(&str, Option<&str>)],
        durability: Durability,
    ) -> Result<()> {
        let mut batch = WriteBatch::new();
        let before = self.db.last_seqno();
        for (name, key, value) in writes {
            let keyspace = self.keyspace(name)?;
            match value {
                Some(value) => batch.put(&keyspace, key, value),
                None => batch.delete(&keyspace, key),
            };
            let key = key.as_bytes().to_vec();
            let value = value.as_ref().map(|value| value.as_bytes().to_vec());
            self.history.entry((name.to_string(), key.clone())).or_default().extend(value.clone());
            self.writes.insert(before + batch.len() as u64, (name.to_string(), key.clone()));
            apply(&mut self.now.state, &(name.to_string(), key, value));
        }
        for (name, value) in metadata {
            batch.metadata(name, *value);
            match value {
                Some(value) => drop(self.now.metadata.insert(name.to_string(), value.as_bytes().to_vec())),
                None => drop(self.now.metadata.remove(*name)),
            }
        }
        self.db.write_with(batch, durability)?;
        self.now.last_seqno = self.db.last_seqno();
        self.prefixes.push(self.now.clone());
        Ok(())
    }

    fn put_many(&mut self, name: &str, keys: std::ops::Range<u32>, salt: u32) -> Result<()> {
        let key = |n: u32| format!("a key of {name} {n:03}");
        let value = |n: u32| format!("{salt} value {n} {}", "silt".repeat((n % 4) as usize));
        let writes: Vec<_> = keys.map(|n| (name, key(n), (n % 7 != salt % 7).then(|| value(n)))).collect();
        self.write(&writes, &[], Durability::Buffered)
    }

    /// All that was written so far is safe.
    fn synced(&mut self) {
        self.older.append(&mut self.prefixes);
        self.prefixes.push(self.now.clone());
    }

    fn reopen(&mut self) -> Result<()> {
        self.db.close()?;
        self.synced();
        self.older.clear();
        self.older.push(self.now.clone());
        self.db = open(&self.sim)?;
        Ok(())
    }

    fn finish(self, name: &'static str) -> Database {
        let Script { sim, db, mut prefixes, older, history, writes, .. } = self;
        let sim = sim.crash_clone(Keep::All, 0);
        drop(db);
        prefixes.reverse();
        Database { name, sim, prefixes, older, history, writes }
    }
}

/// Tables in levels 0, 1 and 6; log in several segments, part of it in tables; a keyspace that was dropped; metadata.
fn fill(script: &mut Script) -> Result<()> {
    for name in KEYSPACES {
        script.keyspace(name)?;
    }
    script.put_many("plain", 0..30, 1)?;
    script.put_many("packed", 0..40, 1)?;
    script.keyspace("gone")?;
    script.put_many("gone", 0..5, 1)?;
    script.db.flush()?;
    for name in ["plain", "packed"] {
        script.keyspace(name)?.compact()?;
    }
    script.put_many("plain", 10..20, 2)?;
    script.write(&[], &[("position", Some("1")), ("owner", Some("a stream"))], Durability::Buffered)?;
    script.keyspace("plain")?.flush()?;
    script.reopen()?;
    script.put_many("packed", 20..30, 3)?;
    script.put_many("plain", 15..35, 3)?;
    script.keyspace("packed")?.flush()?;
    script.keyspace("plain")?.flush()?;
    script.put_many("logged", 0..4, 4)?;
    script.db.drop_keyspace("gone")?;
    script.now.state.remove("gone");
    script.now.last_seqno = script.db.last_seqno();
    script.reopen()?;
    script.put_many("plain", 33..40, 5)?;
    script.write(
        &[("plain", "both".into(), Some("p".into())), ("packed", "both".into(), Some("q".into()))],
        &[("position", Some("2"))],
        Durability::Synced,
    )?;
    script.synced();
    Ok(())
}

/// Makes the manifest so large that it is rolled, and small again.
fn roll_manifest(script: &mut Script) -> Result<()> {
    let names: Vec<String> = (0..300).map(|n| format!("large {n}")).collect();
    let value = "x".repeat(4096);
    for name in &names {
        script.write(&[], &[(name, Some(&value))], Durability::Buffered)?;
    }
    script.reopen()?;
    for name in &names {
        script.write(&[], &[(name, None)], Durability::Buffered)?;
    }
    // Lets go of the log that still speaks of them.
    script.write(&[("plain", "first".into(), Some("1".into()))], &[], Durability::Buffered)?;
    script.keyspace("plain")?.flush()?;
    script.reopen()?;
    script.keyspace("plain")?.put("first", "1")?;
    script.now.last_seqno = script.db.last_seqno();
    script.keyspace("plain")?.flush()
}

/// [`closed`] and [`crashed`], made once a process, before anything is measured.
pub fn both() -> &'static [Database; 2] {
    static BOTH: LazyLock<[Database; 2]> = LazyLock::new(|| {
        let both = [closed(), crashed()];
        measure(&both);
        both
    });
    &BOTH
}

/// Cleanly closed, with a manifest that was rolled.
pub fn closed() -> Database {
    let make = || -> Result<Database> {
        let mut script = Script::new()?;
        script.keyspace("plain")?;
        roll_manifest(&mut script)?;
        fill(&mut script)?;
        script.reopen()?;
        script.db.close()?;
        Ok(script.finish("closed"))
    };
    make().expect("the script runs")
}

/// As a killed process leaves it: batches in the log that no sync covers, in two segments, a manifest of many edits.
pub fn crashed() -> Database {
    let make = || -> Result<Database> {
        let mut script = Script::new()?;
        fill(&mut script)?;
        for salt in 6..9 {
            script.put_many("plain", 3 * salt..3 * salt + 4, salt)?;
            script.write(
                &[("logged", format!("late {salt}"), Some("1".into())), ("packed", format!("late {salt}"), None)],
                &[("position", Some("3"))],
                Durability::Buffered,
            )?;
        }
        Ok(script.finish("crashed"))
    };
    make().expect("the script runs")
}
