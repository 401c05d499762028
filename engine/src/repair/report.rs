//! [`RepairReport`]: what a repair kept and what it could not.

use std::fmt;
use std::ops::RangeInclusive;
use std::path::PathBuf;

use crate::damage::Damage;
use crate::key::SeqNo;

/// What [`repair`](crate::repair) found and did. Prints as a table.
///
/// ```
/// # let dir = tempfile::tempdir().unwrap();
/// # drop(siltstone::Db::open(dir.path())?);
/// let report = siltstone::repair(dir.path())?;
/// assert!(!report.changed, "{report}");
/// # Ok::<(), siltstone::Error>(())
/// ```
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct RepairReport {
    /// Whether anything was wrong and the database was written anew where it was. If not, no byte has changed.
    pub changed: bool,
    /// Every file that was read as a part of the database.
    pub files: Vec<RepairedFile>,
    /// Sequence numbers of logged writes that are in no record any more. If there are any, the database is no prefix of
    /// what was written: it holds writes from before the hole and from behind it.
    pub holes: Vec<RangeInclusive<SeqNo>>,
    /// Keyspaces whose name is lost and which have one that was made up.
    pub renamed: Vec<String>,
    /// What else there is to say.
    pub notes: Vec<String>,
}

/// One file, before the repair.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct RepairedFile {
    /// Its path.
    pub file: PathBuf,
    /// What became of it.
    pub fate: Fate,
    /// Entries of a table, records of a log segment or edits of a manifest that check out.
    pub kept_entries: u64,
    /// Those that do not, if the file still says how many it had.
    pub dropped_entries: Option<u64>,
    /// Bytes that check out.
    pub kept_bytes: u64,
    /// Bytes that do not, and where.
    pub damage: Vec<Damage>,
}

/// What became of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fate {
    /// It stays as it is.
    Kept,
    /// What checks out is in new files. The original is in `lost/` if it was damaged.
    Rewritten,
    /// It was not there.
    Missing,
}

impl RepairedFile {
    pub(super) fn missing(file: PathBuf, reason: &str) -> Self {
        RepairedFile {
            file,
            fate: Fate::Missing,
            kept_entries: 0,
            dropped_entries: None,
            kept_bytes: 0,
            damage: vec![Damage::new(0, 0, reason)],
        }
    }

    /// How many bytes did not check out.
    pub fn dropped_bytes(&self) -> u64 {
        self.damage.iter().map(|damage| damage.bytes).sum()
    }
}

impl RepairReport {
    /// How many bytes did not check out, over all files.
    pub fn dropped_bytes(&self) -> u64 {
        self.files.iter().map(RepairedFile::dropped_bytes).sum()
    }

    pub(super) fn is_damaged(&self) -> bool {
        self.files.iter().any(|file| !file.damage.is_empty())
    }
}

impl fmt::Display for RepairReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = if self.changed { "repaired" } else { "nothing to repair" };
        writeln!(f, "{what}: {} files, {} bytes dropped", self.files.len(), self.dropped_bytes())?;
        let head = ["file", "fate", "kept", "kept bytes", "dropped", "dropped bytes"];
        let [file, fate, kept, kept_bytes, dropped, dropped_bytes] = head;
        writeln!(f, "{file:<20} {fate:<10} {kept:>10} {kept_bytes:>12} {dropped:>10} {dropped_bytes:>14}")?;
        for file in &self.files {
            let name = file.file.file_name().unwrap_or(file.file.as_os_str()).to_string_lossy();
            let fate = match file.fate {
                Fate::Kept => "kept",
                Fate::Rewritten => "rewritten",
                Fate::Missing => "missing",
            };
            let dropped = file.dropped_entries.map_or("?".to_owned(), |dropped| dropped.to_string());
            let (kept, kept_bytes, bytes) = (file.kept_entries, file.kept_bytes, file.dropped_bytes());
            writeln!(f, "{name:<20} {fate:<10} {kept:>10} {kept_bytes:>12} {dropped:>10} {bytes:>14}")?;
            for Damage { offset, bytes, reason } in &file.damage {
                writeln!(f, "    at {offset}, {bytes} bytes: {reason}")?;
            }
        }
        for hole in &self.holes {
            writeln!(f, "writes {} to {} are lost: what follows them is no prefix", hole.start(), hole.end())?;
        }
        for name in &self.renamed {
            writeln!(f, "keyspace {name:?} had another name, which is lost")?;
        }
        self.notes.iter().try_for_each(|note| writeln!(f, "{note}"))
    }
}
