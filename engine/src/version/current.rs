//! `CURRENT`: which manifest is the live one, switched atomically.
//!
//! 36 bytes, little-endian: `magic [8] | format version u32 | flags u32 | manifest number u64 | min_bytes u64 | crc32
//! of all before u32`.

use std::io;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::fs::FileSystem;

const MAGIC: [u8; 8] = *b"SILTCURR";
const VERSION: u32 = 1;
pub(super) const LEN: usize = 36;

/// Set while a database is being created; see [`Current::initial`].
const FLAG_INITIAL: u32 = 1;

/// What the file says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Current {
    /// The live manifest's number.
    pub(super) manifest: u64,
    /// The manifest had at least this many bytes on storage when the file was written.
    pub(super) min_bytes: u64,
    /// Written by the creation of the database. A `CURRENT.tmp` that says so and a missing `CURRENT` together mean that
    /// creation was cut short, and not that `CURRENT` was lost.
    pub(super) initial: bool,
}

/// The file's path.
pub(super) fn path(dir: &Path) -> PathBuf {
    dir.join("CURRENT")
}

/// The path under which a new `CURRENT` is written before it takes the old one's place.
pub(super) fn temporary_path(dir: &Path) -> PathBuf {
    dir.join("CURRENT.tmp")
}

impl Current {
    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(LEN);
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&VERSION.to_le_bytes());
        out.extend_from_slice(&(if self.initial { FLAG_INITIAL } else { 0 }).to_le_bytes());
        out.extend_from_slice(&self.manifest.to_le_bytes());
        out.extend_from_slice(&self.min_bytes.to_le_bytes());
        out.extend_from_slice(&crc32fast::hash(&out).to_le_bytes());
        out
    }

    pub(super) fn decode(file: &Path, bytes: &[u8]) -> Result<Current> {
        let corrupt = |offset, reason: &str| Error::corruption(file, offset, reason);
        check_start(file, bytes, &MAGIC, VERSION)?;
        let bytes: &[u8; LEN] =
            bytes.try_into().map_err(|_| corrupt(0, &format!("{} bytes instead of {LEN}", bytes.len())))?;
        if crc32fast::hash(&bytes[..LEN - 4]) != u32_at(bytes, LEN - 4) {
            return Err(corrupt(0, "the checksum does not fit"));
        }
        let flags = u32_at(bytes, 12);
        if flags & !FLAG_INITIAL != 0 {
            return Err(corrupt(12, "unknown flags: written by a newer release?"));
        }
        let (manifest, min_bytes) = (u64_at(bytes, 16), u64_at(bytes, 24));
        Ok(Current { manifest, min_bytes, initial: flags & FLAG_INITIAL != 0 })
    }

    /// Reads the file at `path`; `None` if there is none.
    pub(super) fn read(fs: &dyn FileSystem, path: &Path) -> Result<Option<Current>> {
        match read_file(fs, path)? {
            Some(bytes) => Current::decode(path, &bytes).map(Some),
            None => Ok(None),
        }
    }

    /// Writes and syncs `CURRENT.tmp`.
    pub(super) fn write_temporary(&self, fs: &dyn FileSystem, dir: &Path) -> Result<()> {
        let path = temporary_path(dir);
        let mut file = fs.create(&path).map_err(Error::io("creating", &path))?;
        file.append(&self.encode()).map_err(Error::io("writing", &path))?;
        file.sync().map_err(Error::io("syncing", &path))
    }

    /// Makes `CURRENT.tmp` the `CURRENT`, durably.
    pub(super) fn publish(fs: &dyn FileSystem, dir: &Path) -> Result<()> {
        let path = path(dir);
        fs.rename(&temporary_path(dir), &path).map_err(Error::io("renaming to", &path))?;
        fs.sync_dir(dir).map_err(Error::io("syncing", dir))
    }

    /// Makes this the `CURRENT`, atomically and durably.
    pub(super) fn switch(&self, fs: &dyn FileSystem, dir: &Path) -> Result<()> {
        self.write_temporary(fs, dir)?;
        Current::publish(fs, dir)
    }
}

/// Checks magic and format version, 1 to `supported`, at the start of a file.
///
/// # Errors
/// `UnsupportedVersion` for a newer one, before anything else is looked at: a newer format may differ in all the rest.
pub(super) fn check_start(file: &Path, bytes: &[u8], magic: &[u8; 8], supported: u32) -> Result<()> {
    if bytes.len() < 12 {
        return Err(Error::corruption(file, bytes.len() as u64, "the header is cut off"));
    }
    if &bytes[..8] != magic {
        return Err(Error::corruption(file, 0, "not a file of this kind"));
    }
    match u32_at(bytes, 8) {
        0 => Err(Error::corruption(file, 8, "format version 0")),
        found if found > supported => Err(Error::UnsupportedVersion { file: file.to_owned(), found, supported }),
        _ => Ok(()),
    }
}

/// Whether a `CURRENT` or the header of a manifest, whose checksum lies at `crc_at`, was written by this release's format
/// and has only its version damaged: with the right version the checksum fits.
pub(super) fn only_version_is_damaged(bytes: &[u8], crc_at: usize) -> bool {
    let Some(fields) = bytes.get(..crc_at).filter(|_| bytes.len() >= crc_at + 4) else { return false };
    let mut fields = fields.to_vec();
    fields[8..12].copy_from_slice(&VERSION.to_le_bytes());
    crc32fast::hash(&fields) == u32_at(bytes, crc_at)
}

/// The whole file, or `None` if it does not exist.
pub(super) fn read_file(fs: &dyn FileSystem, path: &Path) -> Result<Option<Vec<u8>>> {
    let file = match fs.open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened.map_err(Error::io("opening", path))?,
    };
    let len = file.len().map_err(Error::io("measuring", path))?;
    let len = usize::try_from(len).map_err(|_| Error::corruption(path, 0, "larger than memory can be"))?;
    let mut bytes = vec![0; len];
    file.read_exact_at(&mut bytes, 0).map_err(Error::io("reading", path))?;
    Ok(Some(bytes))
}

/// The little-endian number at `at`, which is at most `bytes.len() - 4`.
pub(super) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes[at..].first_chunk().map_or(0, |chunk| u32::from_le_bytes(*chunk))
}

/// The little-endian number at `at`, which is at most `bytes.len() - 8`.
pub(super) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    bytes[at..].first_chunk().map_or(0, |chunk| u64::from_le_bytes(*chunk))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fs::{Fault, FaultFileSystem, SimFileSystem};

    #[test]
    fn only_the_exact_bytes_are_read() {
        let file = Path::new("CURRENT");
        for current in [
            Current { manifest: 1, min_bytes: 0, initial: true },
            Current { manifest: u64::MAX, min_bytes: u64::MAX, initial: false },
        ] {
            let bytes = current.encode();
            assert_eq!(Current::decode(file, &bytes).unwrap(), current);
            for len in 0..bytes.len() {
                assert!(matches!(Current::decode(file, &bytes[..len]), Err(Error::Corruption { .. })), "{len}");
            }
            for bit in 0..bytes.len() * 8 {
                let mut damaged = bytes.clone();
                damaged[bit / 8] ^= 1 << (bit % 8);
                let error = Current::decode(file, &damaged).unwrap_err();
                let newer = matches!(error, Error::UnsupportedVersion { .. });
                assert_eq!(newer, (64..96).contains(&bit) && bit != 64, "bit {bit}: {error}");
            }
            let mut longer = bytes.clone();
            longer.push(0);
            assert!(Current::decode(file, &longer).is_err());
        }
    }

    #[test]
    fn flags_and_versions_that_cannot_be_are_refused() {
        let file = Path::new("CURRENT");
        let changed = |at: usize, value: u8| {
            let mut bytes = Current { manifest: 1, min_bytes: 0, initial: true }.encode();
            bytes[at] = value;
            let crc = crc32fast::hash(&bytes[..LEN - 4]);
            bytes[LEN - 4..].copy_from_slice(&crc.to_le_bytes());
            Current::decode(file, &bytes)
        };
        assert!(changed(12, 1).unwrap().initial && !changed(12, 0).unwrap().initial);
        for flags in [2, 3, 128] {
            assert!(matches!(changed(12, flags), Err(Error::Corruption { offset: 12, .. })), "flags {flags}");
        }
        assert!(matches!(changed(8, 0), Err(Error::Corruption { offset: 8, .. })), "version 0");
        assert!(matches!(changed(8, 2), Err(Error::UnsupportedVersion { found: 2, supported: 1, .. })));
        let start = [&MAGIC[..], &1u32.to_le_bytes()].concat();
        assert!(check_start(file, &start, &MAGIC, 1).is_ok());
        assert!(check_start(file, &start[..11], &MAGIC, 1).is_err());
    }

    #[test]
    fn a_damaged_version_is_told_from_a_newer_one() {
        let whole = Current { manifest: 7, min_bytes: 99, initial: false }.encode();
        let with = |at: usize| {
            let mut bytes = whole.to_vec();
            bytes[at] ^= 0x40;
            only_version_is_damaged(&bytes, LEN - 4)
        };
        assert!((8..12).all(with), "everything else fits");
        assert!(!(0..8).chain(12..LEN).any(with), "something else is damaged as well");
        assert!(!only_version_is_damaged(&whole[..LEN - 1], LEN - 4), "a checksum that is cut off");
        let mut longer = whole.to_vec();
        longer.extend([1; 100]);
        assert!(only_version_is_damaged(&longer, LEN - 4), "as in a manifest, whose header it is");
    }

    #[test]
    fn only_a_missing_file_reads_as_none() {
        let sim = SimFileSystem::new();
        let path = Path::new("file");
        assert!(read_file(&sim, path).unwrap().is_none());
        sim.write(path, b"contents").unwrap();
        assert_eq!(read_file(&sim, path).unwrap().unwrap(), b"contents");
        let fs = FaultFileSystem::new(std::sync::Arc::new(sim));
        for call in 1..=3 {
            fs.fail_at(call, Fault::Io);
            assert!(matches!(read_file(&fs, path), Err(Error::Io { .. })), "call {call}");
        }
    }
}
