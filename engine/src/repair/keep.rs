//! What becomes of files that are not part of the database any more.

use std::io;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::fs::{FileSystem, ReadableFile, copy};
use crate::table::handle::table_number;
use crate::version::manifest::Manifest;
use crate::version::state::ManifestState;
use crate::wal;

/// The subfolder for damaged originals.
const LOST: &str = "lost";

/// What a copy in the making ends with.
const UNFINISHED: &str = ".copying";

/// How much is copied at once, in bytes.
const COPY_BYTES: u64 = 1 << 20;

/// The end of the name of a table that a repair is still writing.
pub(crate) const REPAIR_SUFFIX: &str = ".table.repair";

/// The subfolder with copies of damaged files.
pub(super) struct Lost<'a> {
    fs: &'a dyn FileSystem,
    dir: PathBuf,
    copied: bool,
}

impl<'a> Lost<'a> {
    pub(super) fn new(fs: &'a dyn FileSystem, dir: &Path) -> Self {
        Lost { fs, dir: dir.join(LOST), copied: false }
    }

    /// Copies a file, if it is there, under its name or, where another file has that from an earlier repair, its name
    /// and a number. A copy that a stopped repair made already is enough.
    pub(super) fn keep(&mut self, file: &Path) -> Result<()> {
        let source = match self.fs.open(file) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            opened => opened.map_err(Error::io("opening", file))?,
        };
        self.fs.create_dir_all(&self.dir).map_err(Error::io("creating the directory", &self.dir))?;
        let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let mut target = self.dir.join(&name);
        for copy in 1u32.. {
            match self.fs.open(&target) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => break,
                Err(error) => return Err(Error::io("opening", &target)(error)),
                Ok(other) if same(&*source, &*other).map_err(Error::io("reading", &target))? => return Ok(()),
                Ok(_) => target = self.dir.join(format!("{name}.{copy}")),
            }
        }
        self.copied = true;
        let unfinished = self.dir.join(format!("{name}{UNFINISHED}"));
        copy(self.fs, &*source, &unfinished).map_err(Error::io("copying to", &unfinished))?;
        self.fs.rename(&unfinished, &target).map_err(Error::io("renaming to", &target))
    }

    /// Makes the copies' names durable.
    pub(super) fn finish(self) -> Result<()> {
        if !self.copied {
            return Ok(());
        }
        self.fs.sync_dir(&self.dir).map_err(Error::io("syncing the directory", &self.dir))
    }
}

/// Calls `each` with every piece of a file.
fn pieces(file: &dyn ReadableFile, each: &mut dyn FnMut(u64, &[u8]) -> io::Result<()>) -> io::Result<()> {
    let (len, mut offset) = (file.len()?, 0);
    while offset < len {
        let mut piece = vec![0; COPY_BYTES.min(len - offset) as usize];
        file.read_exact_at(&mut piece, offset)?;
        each(offset, &piece)?;
        offset += piece.len() as u64;
    }
    Ok(())
}

fn same(a: &dyn ReadableFile, b: &dyn ReadableFile) -> io::Result<bool> {
    let mut same = a.len()? == b.len()?;
    if same {
        pieces(a, &mut |offset, piece| {
            let mut other = vec![0; piece.len()];
            b.read_exact_at(&mut other, offset)?;
            same &= piece == other;
            Ok(())
        })?;
    }
    Ok(same)
}

/// Removes the tables that a stopped repair was writing.
pub(crate) fn remove_unfinished<'n>(
    fs: &dyn FileSystem,
    dir: &Path,
    names: impl Iterator<Item = &'n str>,
) -> Result<()> {
    for path in names.filter(|name| name.ends_with(REPAIR_SUFFIX)).map(|name| dir.join(name)) {
        fs.remove_file(&path).map_err(Error::io("removing", &path))?;
    }
    Ok(())
}

/// Removes what the new manifest, number `manifest`, does not name: tables, other manifests, log before its floor. What
/// a crash leaves of them the next open removes.
pub(super) fn remove_leftovers(fs: &dyn FileSystem, dir: &Path, manifest: u64, state: &ManifestState) -> Result<()> {
    let live =
        |number: u64| state.keyspaces.values().flat_map(|k| k.levels.iter().flatten()).any(|m| m.number == number);
    let mut leftovers = Manifest::orphans(fs, dir, Some(manifest))?;
    for name in super::names(fs, dir)? {
        let unnamed = table_number(&name).is_some_and(|number| !live(number));
        let released = wal::is_before(&name, state.log_floor.segment);
        if unnamed || released || name.ends_with(REPAIR_SUFFIX) {
            leftovers.push(dir.join(name));
        }
    }
    for path in leftovers {
        fs.remove_file(&path).map_err(Error::io("removing", &path))?;
    }
    fs.sync_dir(dir).map_err(Error::io("syncing the directory", dir))
}
