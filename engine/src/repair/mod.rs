//! Making a usable database of a damaged one: what checks out is kept, everything else is reported.
//!
//! The work is in two halves. The first only reads: [`survey`] finds out which tables are whole and what the others
//! still hold, the manifests are salvaged by [`crate::version::salvage`] and the log by [`log`]. The second writes, in an
//! order in which it may stop anywhere and be run again: copies of what is damaged go to `lost/`, what was salvaged goes
//! to new tables, a new manifest names what belongs to the database, and `CURRENT` is switched to it. Until then the old
//! database is as it was; from then on the new one is whole, and what is left of the old one are leftovers like those of
//! any crash.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::fs::FileSystem;
use crate::open;
use crate::options::Options;
use crate::table::handle::table_number;
use crate::version::manifest::Manifest;
use crate::version::salvage::{self, Salvaged};
use crate::version::state::ManifestState;

use keep::Lost;
pub(crate) use keep::remove_unfinished;
use plan::Plan;
pub use report::{Fate, RepairReport, RepairedFile};
use survey::Survey;
use write::Tables;

mod keep;
mod log;
mod plan;
mod report;
mod survey;
mod write;

/// Repairs the database in directory `path` with default options; see [`Options::repair`].
///
/// # Errors
/// See [`Options::repair`].
///
/// ```
/// # let dir = tempfile::tempdir().unwrap();
/// # let db = siltstone::Db::open(dir.path())?;
/// # let ks = db.keyspace("words", Default::default())?;
/// # ks.put("silt", "1")?;
/// # ks.flush()?;
/// # db.close()?;
/// std::fs::remove_file(dir.path().join("CURRENT")).unwrap();
/// assert!(siltstone::Db::open(dir.path()).is_err());
/// let report = siltstone::repair(dir.path())?;
/// assert!(report.changed);
/// let db = siltstone::Db::open(dir.path())?;
/// assert_eq!(db.keyspace("words", Default::default())?.get("silt")?.unwrap(), "1");
/// # Ok::<(), siltstone::Error>(())
/// ```
pub fn repair(path: impl AsRef<Path>) -> Result<RepairReport> {
    Options::new().repair(path)
}

impl Options {
    /// Repairs the database in `directory`, which nobody has open: keeps every data block, log record and fact of the
    /// manifest that checks out, and reports everything else by file and offset. Nothing is made up, and of two versions
    /// of a key the one with the higher sequence number wins. Where the newest version of a key is lost, an older one
    /// that is still there shows; where a delete is lost, what it deleted may.
    ///
    /// Damaged files are copied to the subfolder `lost/` before they are replaced. A database with no damage is not
    /// touched. It may be stopped at any point and run again. It needs space for what it rewrites: the damaged tables,
    /// or all of a keyspace's if the manifest no longer says how they lie.
    ///
    /// # Errors
    /// `InvalidArgument` for options out of bounds or read-only ones; `Locked`; `UnsupportedVersion` if a newer release
    /// wrote any of it; `Io`, also if there is no database.
    pub fn repair(self, directory: impl AsRef<Path>) -> Result<RepairReport> {
        self.check()?;
        if self.read_only {
            return Err(Error::InvalidArgument("a repair writes, and the options say read-only".to_owned()));
        }
        let options = self.create_if_missing(false);
        let directory = directory.as_ref();
        let fs = options.file_system.clone();
        let names = names(&*fs, directory)?;
        if !names.iter().any(|name| is_part(name)) {
            let source = std::io::Error::new(std::io::ErrorKind::NotFound, "there is no database");
            return Err(Error::Io { action: "repairing", path: directory.to_owned(), source });
        }
        let _lock = open::lock(&options, directory)?;
        Repair { options: &options, fs, dir: directory }.run()
    }
}

fn names(fs: &dyn FileSystem, dir: &Path) -> Result<Vec<String>> {
    let entries = fs.read_dir(dir).map_err(Error::io("listing the directory", dir))?;
    Ok(entries.into_iter().map(|entry| entry.name).collect())
}

/// Whether a file name is one of a database's.
fn is_part(name: &str) -> bool {
    name == "CURRENT" || name.starts_with("MANIFEST-") || name.ends_with(".wal") || name.ends_with(".table")
}

struct Repair<'a> {
    options: &'a Options,
    fs: Arc<dyn FileSystem>,
    dir: &'a Path,
}

impl Repair<'_> {
    fn run(&self) -> Result<RepairReport> {
        let names = names(&*self.fs, self.dir)?;
        let numbers: Vec<u64> = names.iter().filter_map(|name| table_number(name)).collect();
        let mut report = RepairReport::default();
        let manifest = salvage::salvage(&*self.fs, self.dir, &numbers)?;
        report_manifest(&manifest, &mut report);
        let survey = Survey::read(&self.fs, self.dir, &numbers, &manifest)?;
        let database_id = log::database_id(&*self.fs, self.dir, &manifest)?;
        let log_is_whole = match &manifest.whole {
            Some(state) => log::is_whole(&*self.fs, self.dir, state, &mut report)?,
            None => false,
        };
        if log_is_whole && !report.is_damaged() && survey.is_whole() {
            survey.report(self.dir, &mut report);
            return Ok(report);
        }
        remove_unfinished(&*self.fs, self.dir, names.iter().map(String::as_str))?;
        let next_table = numbers.iter().max().map_or(1, |most| most.saturating_add(1));
        let tables = Tables::new(self.options, self.fs.clone(), self.dir, next_table);
        let mut plan = Plan::new(&manifest, survey, database_id, tables);
        plan.salvage_tables(self.dir, &mut report)?;
        if !log_is_whole {
            plan.salvage_log(&*self.fs, self.dir, self.options.limits(), &mut report)?;
        }
        let (state, tables) = plan.finish(&mut report)?;
        self.switch(&manifest, state, tables, &mut report)?;
        Ok(report)
    }

    /// Writes down what was found out; see the module for the order.
    fn switch(
        &self,
        manifest: &Salvaged,
        state: ManifestState,
        tables: Tables<'_>,
        report: &mut RepairReport,
    ) -> Result<()> {
        check(&state).map_err(|reason| Error::corruption(self.dir, 0, reason))?;
        let damaged: BTreeSet<&PathBuf> =
            report.files.iter().filter(|file| !file.damage.is_empty()).map(|file| &file.file).collect();
        let mut lost = Lost::new(&*self.fs, self.dir);
        for file in damaged {
            lost.keep(file)?;
        }
        lost.finish()?;
        tables.publish()?;
        Manifest::replace(&*self.fs, self.dir, manifest.next_manifest, &state)?;
        report.changed = true;
        keep::remove_leftovers(&*self.fs, self.dir, manifest.next_manifest, &state)
    }
}

/// The state must be one that a manifest can say.
fn check(state: &ManifestState) -> Result<(), String> {
    let mut again = ManifestState::default();
    state.to_edits().iter().try_for_each(|edit| again.apply(edit))
}

fn report_manifest(manifest: &Salvaged, report: &mut RepairReport) {
    for (file, bytes, edits) in &manifest.kept {
        report.files.push(RepairedFile {
            file: file.clone(),
            fate: Fate::Kept,
            kept_entries: *edits,
            dropped_entries: Some(0),
            kept_bytes: *bytes,
            damage: Vec::new(),
        });
    }
    for (file, damage) in &manifest.damage {
        let fate = if damage.reason == "missing" { Fate::Missing } else { Fate::Rewritten };
        report.files.push(RepairedFile {
            file: file.clone(),
            fate,
            kept_entries: 0,
            dropped_entries: None,
            kept_bytes: 0,
            damage: vec![damage.clone()],
        });
    }
    if manifest.whole.is_none() {
        let note = "the manifest is not whole: what its readable edits and the tables themselves say was put together, and \
                    every keyspace was merged anew";
        report.notes.push(note.to_owned());
    }
}
