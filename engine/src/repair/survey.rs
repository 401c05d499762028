//! Which tables are whole, and what the others are.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::cache::BlockCache;
use crate::damage::Damage;
use crate::error::{Error, Result};
use crate::fs::FileSystem;
use crate::table::TableMeta;
use crate::table::handle::table_path;
use crate::table::properties::Origin;
use crate::table::reader::{ReadMode, Table};
use crate::table::salvage::SalvagedTable;
use crate::version::salvage::Salvaged;

use super::report::{Fate, RepairReport, RepairedFile};

/// The tables that may be part of the database, by number.
pub(super) struct Survey {
    pub(super) tables: BTreeMap<u64, Found>,
    /// Files that hold a table which is there under its own name as well.
    copies: Vec<(PathBuf, Damage)>,
}

/// A table.
pub(super) enum Found {
    /// Every byte checks out.
    Whole { meta: TableMeta, origin: Origin },
    /// Something does not.
    Damaged { path: PathBuf, file_bytes: u64, table: Box<SalvagedTable> },
    /// The manifest names it, and no file holds it.
    Missing,
}

impl Survey {
    /// Reads all tables in `dir` that the manifest names, or, if that is not whole, that it does not say are gone.
    ///
    /// # Errors
    /// `Io`; damage is no error here.
    pub(super) fn read(fs: &Arc<dyn FileSystem>, dir: &Path, numbers: &[u64], manifest: &Salvaged) -> Result<Self> {
        let named: Option<BTreeMap<u64, &TableMeta>> = manifest.whole.as_ref().map(|state| {
            let metas = state.keyspaces.values().flat_map(|keyspace| keyspace.levels.iter().flatten());
            metas.map(|meta| (meta.number, meta)).collect()
        });
        let wanted = |number: &u64| match &named {
            Some(named) => named.contains_key(number),
            None => !manifest.facts.removed.contains(number),
        };
        let cache = Arc::new(BlockCache::new(0));
        let mut survey = Survey { tables: BTreeMap::new(), copies: Vec::new() };
        let mut damaged = Vec::new();
        for &number in numbers.iter().filter(|number| wanted(number)) {
            let expected = named.as_ref().and_then(|named| named.get(&number).copied());
            match check(&**fs, dir, number, expected, &cache)? {
                Some(whole) => drop(survey.tables.insert(number, whole)),
                None => damaged.push(number),
            }
        }
        survey.identify(&**fs, dir, damaged)?;
        for (number, _) in named.iter().flatten() {
            survey.tables.entry(*number).or_insert(Found::Missing);
        }
        let named: Option<BTreeSet<u64>> = named.map(|named| named.into_keys().collect());
        survey.tables.retain(|number, _| named.as_ref().is_none_or(|named| named.contains(number)));
        Ok(survey)
    }

    /// A damaged file may be another table under a wrong name: it is taken for that one if that one is not whole.
    fn identify(&mut self, fs: &dyn FileSystem, dir: &Path, numbers: Vec<u64>) -> Result<()> {
        for named in numbers {
            let path = table_path(dir, named);
            let table = SalvagedTable::open(fs, &path, named)?;
            let file = fs.open(&path).map_err(Error::io("open", &path))?;
            let file_bytes = file.len().map_err(Error::io("read the length of", &path))?;
            let number = table.number;
            match self.tables.get(&number) {
                // The own name counts more.
                Some(Found::Damaged { .. }) if named == number => {}
                None => {}
                Some(_) => {
                    let reason = format!("a copy of table {number}, which is there");
                    self.copies.push((path, Damage::new(0, file_bytes, reason)));
                    continue;
                }
            }
            self.tables.insert(number, Found::Damaged { path, file_bytes, table: Box::new(table) });
        }
        Ok(())
    }

    /// Whether there is nothing to repair.
    pub(super) fn is_whole(&self) -> bool {
        self.copies.is_empty() && self.tables.values().all(|found| matches!(found, Found::Whole { .. }))
    }

    /// Reports the tables that are whole, and the copies.
    pub(super) fn report(&self, dir: &Path, report: &mut RepairReport) {
        for (number, found) in &self.tables {
            if let Found::Whole { meta, .. } = found {
                report.files.push(RepairedFile {
                    file: table_path(dir, *number),
                    fate: Fate::Kept,
                    kept_entries: meta.entries,
                    dropped_entries: Some(0),
                    kept_bytes: meta.file_bytes,
                    damage: Vec::new(),
                });
            }
        }
        for (file, damage) in &self.copies {
            report.files.push(RepairedFile {
                file: file.clone(),
                fate: Fate::Rewritten,
                kept_entries: 0,
                dropped_entries: Some(0),
                kept_bytes: 0,
                damage: vec![damage.clone()],
            });
        }
    }
}

/// A table whose every byte checks out and that is what the manifest says, if that says anything.
fn check(
    fs: &dyn FileSystem,
    dir: &Path,
    number: u64,
    expected: Option<&TableMeta>,
    cache: &Arc<BlockCache>,
) -> Result<Option<Found>> {
    let path = table_path(dir, number);
    let verified = Table::open(fs, &path, number, ReadMode::Pread, cache).and_then(|mut table| {
        if let Some(expected) = expected {
            table.number_as(expected);
        }
        table.verify()?;
        Ok(table)
    });
    match verified {
        Ok(table) => {
            let (meta, origin) = (table.meta()?, table.properties().origin.clone());
            Ok(expected.is_none_or(|expected| *expected == meta).then_some(Found::Whole { meta, origin }))
        }
        // A version that is too new may be damage: the salvage decides, which has more to go by.
        Err(Error::Corruption { .. } | Error::UnsupportedVersion { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}
