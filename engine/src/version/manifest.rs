//! The manifest: the durable log of [`Edit`]s.
//!
//! `MANIFEST-{number:06}`, little-endian: a header `magic [8] | format version u32 | manifest number u64 | crc32 of all
//! before u32`, then records `crc32 u32 | length u32 | payload`. A record's checksum covers the manifest's number, the
//! record's offset, the length and the payload, so that a record is valid at its own place only. The first records are
//! a snapshot of the state; `CURRENT` names the live manifest.
//!
//! Torn tail or damage? Every append is synced before anything depends on it, and after a failed one there is no other.
//! So at most the last record can be torn, and only past what `CURRENT` says was there: an unreadable record that has a
//! readable one behind it, or that begins below that length, is damage.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::fs::{FileSystem, WritableFile};

use super::current::{self, Current, check_start, read_file, u32_at, u64_at};
use super::edit::Edit;
use super::state::ManifestState;

const MAGIC: [u8; 8] = *b"SILTMANI";
const VERSION: u32 = 1;
const HEADER_BYTES: usize = 24;
const RECORD_HEADER_BYTES: usize = 8;

/// A manifest is not rolled while it is smaller than this.
const MIN_ROLL_BYTES: u64 = 1 << 20;

/// A manifest is rolled when it is this many times as large as a snapshot of the state: rolling then costs a quarter of
/// what appending did.
const ROLL_RATIO: u64 = 4;

/// The live manifest, open for appending unless it was opened read-only.
#[derive(Debug)]
pub(crate) struct Manifest {
    fs: Arc<dyn FileSystem>,
    dir: PathBuf,
    path: PathBuf,
    number: u64,
    /// The length of the file, every record whole and synced.
    file_bytes: u64,
    /// `None` when opened read-only.
    file: Option<Box<dyn WritableFile>>,
    /// Why nothing is appended any more.
    failure: Option<String>,
}

/// The path of manifest `number`.
fn manifest_path(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("MANIFEST-{number:06}"))
}

fn crc(number: u64, offset: u64, length_and_payload: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&number.to_le_bytes());
    hasher.update(&offset.to_le_bytes());
    hasher.update(length_and_payload);
    hasher.finalize()
}

/// Appends the record of `payload` to `out`, which begins at `base` in the file.
fn write_record(out: &mut Vec<u8>, number: u64, base: u64, payload: &[u8]) -> Result<()> {
    let length = u32::try_from(payload.len())
        .map_err(|_| Error::InvalidArgument(format!("a version edit of {} bytes", payload.len())))?;
    let begin = out.len();
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(payload);
    let crc = crc(number, base + begin as u64, &out[begin + 4..]);
    out[begin..begin + 4].copy_from_slice(&crc.to_le_bytes());
    Ok(())
}

/// The payload of the record at `at`, if one is there. Empty records are never written, so that zeros are none.
fn read_record(bytes: &[u8], number: u64, at: usize) -> Option<&[u8]> {
    let record = bytes.get(at..)?;
    let length = u32::from_le_bytes(*record.get(4..)?.first_chunk()?) as usize;
    let payload = record.get(RECORD_HEADER_BYTES..)?.get(..length).filter(|payload| !payload.is_empty())?;
    let covered = &record[4..RECORD_HEADER_BYTES + length];
    (crc(number, at as u64, covered) == u32_at(record, 0)).then_some(payload)
}

/// A whole manifest that holds nothing but `state`.
fn snapshot(number: u64, state: &ManifestState) -> Result<Vec<u8>> {
    let mut out = Vec::new();
    out.extend_from_slice(&MAGIC);
    out.extend_from_slice(&VERSION.to_le_bytes());
    out.extend_from_slice(&number.to_le_bytes());
    out.extend_from_slice(&crc32fast::hash(&out).to_le_bytes());
    debug_assert_eq!(out.len(), HEADER_BYTES);
    for edit in state.to_edits() {
        write_record(&mut out, number, 0, &edit.encode())?;
    }
    Ok(out)
}

/// Reads all records of a manifest; answers the state and the offset behind the last whole record.
fn replay(path: &Path, number: u64, min_bytes: u64, bytes: &[u8]) -> Result<(ManifestState, usize)> {
    let corrupt = |offset: usize, reason: &str| Err(Error::corruption(path, offset as u64, reason));
    check_start(path, bytes, &MAGIC, VERSION)?;
    if bytes.len() < HEADER_BYTES {
        return corrupt(bytes.len(), "the header is cut off");
    }
    if crc32fast::hash(&bytes[..HEADER_BYTES - 4]) != u32_at(bytes, HEADER_BYTES - 4) {
        return corrupt(0, "the header's checksum does not fit");
    }
    if u64_at(bytes, 12) != number {
        return corrupt(12, "the header has another manifest's number");
    }
    if (bytes.len() as u64) < min_bytes {
        return corrupt(bytes.len(), &format!("cut off: there were at least {min_bytes} bytes"));
    }
    let mut state = ManifestState::default();
    let mut at = HEADER_BYTES;
    while at < bytes.len() {
        let Some(payload) = read_record(bytes, number, at) else {
            if (at as u64) < min_bytes {
                return corrupt(at, "a record is unreadable that had been synced");
            }
            if let Some(later) = (at + 1..bytes.len()).find(|later| read_record(bytes, number, *later).is_some()) {
                return corrupt(at, &format!("a record is unreadable, but one behind it at {later} is not"));
            }
            break;
        };
        let damage = |reason: String| Error::corruption(path, at as u64, reason);
        let edit = Edit::decode(payload).map_err(damage)?;
        state.apply(&edit).map_err(damage)?;
        at += RECORD_HEADER_BYTES + payload.len();
    }
    Ok((state, at))
}

impl Manifest {
    /// Creates the manifest of a new database in `dir`, which exists and has none. When this returns it is durable.
    ///
    /// # Errors
    /// `Io`. What a failed creation leaves behind is no database, and the next [`open`](Manifest::open) clears it away.
    pub(crate) fn create(fs: Arc<dyn FileSystem>, dir: &Path, initial: &ManifestState) -> Result<Manifest> {
        let number = 1;
        let path = manifest_path(dir, number);
        let bytes = snapshot(number, initial)?;
        // The intent comes first: a manifest without CURRENT is a creation that was cut short only where this file says
        // so.
        let current = Current { manifest: number, min_bytes: bytes.len() as u64, initial: true };
        current.write_temporary(&*fs, dir)?;
        fs.sync_dir(dir).map_err(Error::io("syncing", dir))?;
        let file = write_manifest(&*fs, dir, &path, &bytes)?;
        Current::publish(&*fs, dir)?;
        let (dir, file_bytes) = (dir.to_owned(), bytes.len() as u64);
        Ok(Manifest { fs, dir, path, number, file_bytes, file: Some(file), failure: None })
    }

    /// Opens the manifest of the database in `dir` and reads its state; `None` if there is no database.
    ///
    /// Unless `read_only`, what is not known to be on storage is put there, in a new manifest, and files that a crash
    /// left over are removed.
    ///
    /// # Errors
    /// `Corruption` for anything that was never written, a manifest without `CURRENT` included; `UnsupportedVersion`;
    /// `Io`.
    pub(crate) fn open(
        fs: Arc<dyn FileSystem>,
        dir: &Path,
        read_only: bool,
    ) -> Result<Option<(Manifest, ManifestState)>> {
        let Some(current) = Current::read(&*fs, &current::path(dir))? else {
            return Manifest::without_current(&*fs, dir, read_only).map(|()| None);
        };
        let number = current.manifest;
        let path = manifest_path(dir, number);
        let bytes = read_file(&*fs, &path)?.ok_or_else(|| {
            Error::corruption(&current::path(dir), 16, format!("names manifest {number}, which is missing"))
        })?;
        let (state, end) = replay(&path, number, current.min_bytes, &bytes)?;
        let file_bytes = end as u64;
        let mut manifest = Manifest { fs, dir: dir.to_owned(), path, number, file_bytes, file: None, failure: None };
        if !read_only {
            // The length that CURRENT states had been synced when it was written.
            let proven = bytes.len() as u64 == current.min_bytes;
            manifest.continue_writing(&state, proven)?;
        }
        Ok(Some((manifest, state)))
    }

    /// Prepares an opened manifest, which holds `state`, for appending. `proven`: all of it is on storage for certain.
    ///
    /// Otherwise a killed process may have left a record that is visible but not on storage, and nothing may be built on
    /// that. Syncing the file would not do: if a sync of it failed in that process, the system may count pages as clean
    /// that never got to storage. So the state goes into a new file.
    fn continue_writing(&mut self, state: &ManifestState, proven: bool) -> Result<()> {
        if proven {
            let file = self.fs.open_append(&self.path).map_err(Error::io("opening", &self.path))?;
            self.file = Some(file);
            // Nor may the CURRENT be one that is only visible.
            self.fs.sync_dir(&self.dir).map_err(Error::io("syncing", &self.dir))?;
        } else {
            let number = self.next_number()?;
            self.roll(number, &snapshot(number, state)?)?;
        }
        remove_all(&*self.fs, Manifest::orphans(&*self.fs, &self.dir, Some(self.number))?)
    }

    fn next_number(&self) -> Result<u64> {
        self.number.checked_add(1).ok_or_else(|| Error::InvalidArgument("manifest numbers are used up".into()))
    }

    /// Tells a directory without a database, or with one whose creation was cut short, from one whose `CURRENT` is
    /// lost.
    fn without_current(fs: &dyn FileSystem, dir: &Path, read_only: bool) -> Result<()> {
        let orphans = Manifest::orphans(fs, dir, None)?;
        let temporary = current::temporary_path(dir);
        let first = manifest_path(dir, 1);
        if orphans.iter().any(|path| *path != temporary) {
            let intent = Current::read(fs, &temporary)?;
            let creating = intent.is_some_and(|current| current.initial);
            if !creating || orphans.iter().any(|path| *path != temporary && *path != first) {
                return Err(Error::corruption(&current::path(dir), 0, "missing, but there are manifests"));
            }
        }
        if read_only { Ok(()) } else { remove_all(fs, orphans) }
    }

    /// The manifests other than `live`, and a left-over `CURRENT.tmp`; in the order in which they have to be removed,
    /// which keeps an interrupted creation recognizable until its last file is gone.
    ///
    /// # Errors
    /// `Io`, if the directory cannot be read.
    pub(crate) fn orphans(fs: &dyn FileSystem, dir: &Path, live: Option<u64>) -> Result<Vec<PathBuf>> {
        let entries = match fs.read_dir(dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(Error::io("reading", dir))?,
        };
        let temporary = current::temporary_path(dir);
        let live = live.map(|number| manifest_path(dir, number));
        let mut orphans: Vec<_> = entries
            .iter()
            .filter(|entry| entry.name.starts_with("MANIFEST-"))
            .map(|entry| dir.join(&entry.name))
            .filter(|path| Some(path) != live.as_ref())
            .collect();
        if entries.iter().any(|entry| dir.join(&entry.name) == temporary) {
            orphans.push(temporary);
        }
        Ok(orphans)
    }

    /// Appends one edit and makes it durable. An empty edit writes nothing.
    ///
    /// # Errors
    /// `Io`: whether the edit is durable is then unknown, and every later call answers `ReadOnly`, as it does after
    /// opening read-only.
    pub(crate) fn append(&mut self, edit: &Edit) -> Result<()> {
        let payload = edit.encode();
        let mut record = Vec::with_capacity(RECORD_HEADER_BYTES + payload.len());
        write_record(&mut record, self.number, self.file_bytes, &payload)?;
        let file = writable(&self.failure, &mut self.file)?;
        if payload.is_empty() {
            return Ok(());
        }
        let appended = file
            .append(&record)
            .map_err(Error::io("appending to", &self.path))
            .and_then(|()| file.sync().map_err(Error::io("syncing", &self.path)));
        self.sticky(appended)?;
        self.file_bytes += record.len() as u64;
        Ok(())
    }

    /// Replaces the manifest by a new one that holds `state`, which is the sum of all appended edits, if it has grown
    /// beyond 1 MiB and four times what the new one takes.
    ///
    /// # Errors
    /// As for [`append`](Manifest::append).
    pub(crate) fn roll_if_large(&mut self, state: &ManifestState) -> Result<()> {
        if self.file_bytes <= MIN_ROLL_BYTES {
            return Ok(());
        }
        writable(&self.failure, &mut self.file)?;
        let number = self.next_number()?;
        let bytes = snapshot(number, state)?;
        if self.file_bytes <= ROLL_RATIO * bytes.len() as u64 {
            return Ok(());
        }
        let rolled = self.roll(number, &bytes);
        self.sticky(rolled)
    }

    fn roll(&mut self, number: u64, bytes: &[u8]) -> Result<()> {
        let path = manifest_path(&self.dir, number);
        let file = write_manifest(&*self.fs, &self.dir, &path, bytes)?;
        let file_bytes = bytes.len() as u64;
        Current { manifest: number, min_bytes: file_bytes, initial: false }.switch(&*self.fs, &self.dir)?;
        let old = std::mem::replace(&mut self.path, path);
        (self.number, self.file_bytes, self.file) = (number, file_bytes, Some(file));
        // Nothing depends on the old one being gone: if this fails, the next open removes it.
        let _ = self.fs.remove_file(&old);
        Ok(())
    }

    /// Writes down how long the manifest is, so that any later truncation is found. For a clean close; appending may go
    /// on afterwards.
    ///
    /// # Errors
    /// As for [`append`](Manifest::append).
    pub(crate) fn seal(&mut self) -> Result<()> {
        writable(&self.failure, &mut self.file)?;
        let current = Current { manifest: self.number, min_bytes: self.file_bytes, initial: false };
        let sealed = current.switch(&*self.fs, &self.dir);
        self.sticky(sealed)
    }

    /// The manifest's file.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The manifest's length in bytes.
    pub(crate) fn file_bytes(&self) -> u64 {
        self.file_bytes
    }

    /// Takes no more edits, because of `reason`.
    pub(crate) fn fail(&mut self, reason: &str) {
        self.failure.get_or_insert_with(|| reason.to_owned());
    }

    fn sticky(&mut self, result: Result<()>) -> Result<()> {
        if let Err(error) = &result {
            self.failure = Some(error.to_string());
        }
        result
    }
}

/// The file to append to, if there is one and nothing failed so far.
fn writable<'a>(
    failure: &Option<String>,
    file: &'a mut Option<Box<dyn WritableFile>>,
) -> Result<&'a mut Box<dyn WritableFile>> {
    if let Some(reason) = failure {
        return Err(Error::ReadOnly { reason: reason.clone() });
    }
    file.as_mut().ok_or_else(|| Error::ReadOnly { reason: "opened read-only".into() })
}

/// Writes a new manifest and makes it and its name durable.
fn write_manifest(fs: &dyn FileSystem, dir: &Path, path: &Path, bytes: &[u8]) -> Result<Box<dyn WritableFile>> {
    let mut file = fs.create(path).map_err(Error::io("creating", path))?;
    file.append(bytes).map_err(Error::io("writing", path))?;
    file.sync().map_err(Error::io("syncing", path))?;
    fs.sync_dir(dir).map_err(Error::io("syncing", dir))?;
    Ok(file)
}

/// Removes files one after the other, each durably before the next.
fn remove_all(fs: &dyn FileSystem, paths: Vec<PathBuf>) -> Result<()> {
    for path in paths {
        fs.remove_file(&path).map_err(Error::io("removing", &path))?;
        if let Some(dir) = path.parent() {
            fs.sync_dir(dir).map_err(Error::io("syncing", dir))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
