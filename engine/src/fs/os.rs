//! The operating system's files.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;

#[cfg(target_os = "linux")]
use super::cgroup::memory_limit;
use super::mapping::{MappingWriter, map_read_only, write_zeros};
use super::writeback;
use super::{DirEntry, FileLock, FileSystem, LockKind, MappedFile, ReadableFile, WritableFile};

/// How many zeros are written at once where space cannot be reserved otherwise.
const ZEROS_BYTES: usize = 256 << 10;

/// The operating system's files: what a database uses unless told otherwise.
///
/// ```
/// use siltstone::fs::{FileSystem, OsFileSystem};
/// # let dir = tempfile::tempdir()?;
/// let mut file = OsFileSystem.create(&dir.path().join("layers"))?;
/// file.append(b"silt")?;
/// file.sync()?;
/// OsFileSystem.sync_dir(dir.path())?;
/// assert_eq!(OsFileSystem.read_dir(dir.path())?[0].len, 4);
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct OsFileSystem;

impl FileSystem for OsFileSystem {
    fn create(&self, path: &Path) -> io::Result<Box<dyn WritableFile>> {
        let file = OpenOptions::new().write(true).create(true).truncate(true).open(path)?;
        Ok(Box::new(OsWritableFile { file, len: 0 }))
    }

    fn open_append(&self, path: &Path) -> io::Result<Box<dyn WritableFile>> {
        let file = OpenOptions::new().append(true).open(path)?;
        let len = file.metadata()?.len();
        Ok(Box::new(OsWritableFile { file, len }))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn ReadableFile>> {
        Ok(Arc::new(OsReadableFile(File::open(path)?)))
    }

    fn create_mapped(&self, path: &Path, len: u64) -> io::Result<Box<dyn MappedFile>> {
        // A new inode, never a truncated one: whoever still maps the old file keeps it.
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(path)?;
        let mapped = reserve(&file, len).and_then(|()| MappingWriter::new(file, len));
        match mapped {
            Ok(writer) => Ok(Box::new(writer)),
            Err(error) => {
                // The first error is the one to report; a leftover file is removed by the next recovery.
                let _ = fs::remove_file(path);
                Err(error)
            }
        }
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn hard_link(&self, from: &Path, to: &Path) -> io::Result<()> {
        match fs::hard_link(from, to) {
            Err(error) if matches!(error.kind(), io::ErrorKind::CrossesDevices | io::ErrorKind::Unsupported) => {
                super::copy(self, &*self.open(from)?, to)
            }
            linked => linked,
        }
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn truncate(&self, path: &Path, len: u64) -> io::Result<()> {
        let file = OpenOptions::new().write(true).open(path)?;
        if len > file.metadata()?.len() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "truncate never lengthens a file"));
        }
        file.set_len(len)?;
        file.sync_all()
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        if path.as_os_str().is_empty() || path.is_dir() {
            return Ok(());
        }
        let parent = path.parent().unwrap_or(Path::new(""));
        self.create_dir_all(parent)?;
        match fs::create_dir(path) {
            // Somebody else may have created it meanwhile; its name is made durable all the same.
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists || !path.is_dir() => Err(error),
            _ => self.sync_dir(parent),
        }
    }

    fn read_dir(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        let mut entries = Vec::new();
        for entry in fs::read_dir(here(path))? {
            let entry = entry?;
            let metadata = match entry.metadata() {
                Ok(metadata) => metadata,
                // Removed since the directory was listed.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            let len = if metadata.is_dir() { 0 } else { metadata.len() };
            entries.push(DirEntry { name: entry.file_name().to_string_lossy().into_owned(), len });
        }
        entries.sort();
        Ok(entries)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        File::open(here(path))?.sync_all()
    }

    fn lock(&self, path: &Path, kind: LockKind) -> io::Result<Box<dyn FileLock>> {
        let (file, taken) = match kind {
            LockKind::Exclusive => {
                let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
                let taken = file.try_lock();
                (file, taken)
            }
            LockKind::Shared => {
                let file = File::open(path)?;
                let taken = file.try_lock_shared();
                (file, taken)
            }
        };
        match taken {
            Ok(()) => Ok(Box::new(OsLock(file))),
            Err(TryLockError::WouldBlock) => Err(io::ErrorKind::WouldBlock.into()),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    #[cfg(target_os = "linux")]
    fn memory_bytes(&self) -> Option<u64> {
        let info = rustix::system::sysinfo();
        #[allow(clippy::unnecessary_cast, reason = "the field's width differs between targets")]
        let total = info.totalram as u64;
        let machine = total.saturating_mul(u64::from(info.mem_unit.max(1)));
        Some(memory_limit().unwrap_or(u64::MAX).min(machine))
    }

    #[cfg(not(target_os = "linux"))]
    fn memory_bytes(&self) -> Option<u64> {
        None
    }
}

/// The directory `path` stands for: the parent of a bare file name is the empty path, which means the current
/// directory.
fn here(path: &Path) -> &Path {
    if path.as_os_str().is_empty() { Path::new(".") } else { path }
}

/// Gives `file` a length of `len` zero bytes whose space is its own.
fn reserve(file: &File, len: u64) -> io::Result<()> {
    #[cfg(target_os = "linux")]
    if len > 0 {
        use rustix::{fs::FallocateFlags, io::Errno};
        match rustix::fs::fallocate(file, FallocateFlags::empty(), 0, len) {
            Ok(()) => return Ok(()),
            // Not every filesystem can; written zeros reserve as well.
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => {}
            Err(error) => return Err(error.into()),
        }
    }
    write_zeros(file, len, ZEROS_BYTES)
}

#[derive(Debug)]
struct OsWritableFile {
    file: File,
    len: u64,
}

impl WritableFile for OsWritableFile {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes)?;
        self.len += bytes.len() as u64;
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        self.file.sync_all()
    }

    fn start_writeback(&mut self, range: Range<u64>) -> io::Result<()> {
        writeback::start(&self.file, range)
    }

    fn len(&self) -> u64 {
        self.len
    }
}

#[derive(Debug)]
struct OsReadableFile(File);

impl ReadableFile for OsReadableFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.0.read_exact_at(buffer, offset)
    }

    fn map(&self) -> io::Result<Bytes> {
        map_read_only(&self.0)
    }
}

/// Lets go of the lock itself. Closing the descriptor is not enough: a child process that another thread is just
/// starting has a copy of it until it runs its own program.
#[derive(Debug)]
struct OsLock(File);

impl FileLock for OsLock {}

impl Drop for OsLock {
    fn drop(&mut self) {
        // Should it fail, closing the file does the same a moment later.
        let _ = self.0.unlock();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn appended_files_read_back_and_continue() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        let mut file = OsFileSystem.create(&path).unwrap();
        file.append(b"lower").unwrap();
        file.start_writeback(0..5).unwrap();
        file.sync().unwrap();
        drop(file);
        let mut file = OsFileSystem.open_append(&path).unwrap();
        assert_eq!(file.len(), 5);
        file.append(b" upper").unwrap();
        assert_eq!(file.len(), 11);
        let reader = OsFileSystem.open(&path).unwrap();
        let mut buffer = [0; 5];
        reader.read_exact_at(&mut buffer, 6).unwrap();
        assert_eq!(&buffer, b"upper");
        assert_eq!(reader.read_exact_at(&mut buffer, 7).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        let mapped = reader.map().unwrap();
        OsFileSystem.remove_file(&path).unwrap();
        assert_eq!(&mapped[..], b"lower upper");
        assert!(OsFileSystem.create(&path).unwrap().is_empty());
        assert_eq!(OsFileSystem.open(&path).unwrap().map().unwrap().len(), 0);
    }

    #[test]
    fn mapped_writes_show_in_reads_and_stay_inside() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("m");
        let len = ZEROS_BYTES as u64 + 10;
        let mut file = OsFileSystem.create_mapped(&path, len).unwrap();
        assert_eq!((file.len(), file.is_filled()), (len, false));
        file.fill().unwrap();
        assert_eq!((std::fs::metadata(&path).unwrap().len(), file.is_filled()), (len, true));
        file.write_at(len - 4, b"silt").unwrap();
        for (offset, bytes) in [(len - 3, &b"silt"[..]), (len + 1, b""), (u64::MAX, b"x")] {
            assert_eq!(file.write_at(offset, bytes).unwrap_err().kind(), io::ErrorKind::InvalidInput);
        }
        let syncer = file.syncer();
        syncer.sync(5000..len).unwrap();
        syncer.sync(len..len + 5).unwrap();
        let reader = OsFileSystem.open(&path).unwrap();
        let mut buffer = [0; 8];
        reader.read_exact_at(&mut buffer, len - 8).unwrap();
        assert_eq!(&buffer, b"\0\0\0\0silt");
        // What was synced is written again and read back, in one place as in all others.
        file.write_at(len - 8, b"more").unwrap();
        reader.read_exact_at(&mut buffer, len - 8).unwrap();
        assert_eq!(&buffer, b"moresilt");
        // Replacing makes a new file; the old mapping and reader keep the old one.
        let replaced = OsFileSystem.create_mapped(&path, 100).unwrap();
        assert_eq!((replaced.len(), reader.len().unwrap()), (100, len));
        file.write_at(0, b"old").unwrap();
        assert_eq!(&OsFileSystem.open(&path).unwrap().map().unwrap()[..3], b"\0\0\0");
        drop(file);
        syncer.sync(0..len).unwrap();
    }

    #[test]
    fn truncation_directories_and_names() {
        let dir = tempfile::tempdir().unwrap();
        let deep = dir.path().join("x/y");
        OsFileSystem.create_dir_all(&deep).unwrap();
        OsFileSystem.create_dir_all(&deep).unwrap();
        OsFileSystem.create(&deep.join("b")).unwrap().append(b"0123456789").unwrap();
        OsFileSystem.truncate(&deep.join("b"), 4).unwrap();
        assert!(OsFileSystem.truncate(&deep.join("b"), 5).is_err());
        OsFileSystem.create(&deep.join("c")).unwrap();
        OsFileSystem.rename(&deep.join("b"), &deep.join("a")).unwrap();
        OsFileSystem.sync_dir(&deep).unwrap();
        let entry = |name: &str, len| DirEntry { name: name.into(), len };
        assert_eq!(OsFileSystem.read_dir(&deep).unwrap(), [entry("a", 4), entry("c", 0)]);
        assert_eq!(OsFileSystem.read_dir(dir.path()).unwrap(), [entry("x", 0)]);
        assert_eq!(OsFileSystem.open(&deep.join("b")).unwrap_err().kind(), io::ErrorKind::NotFound);
        assert!(OsFileSystem.memory_bytes().is_none_or(|bytes| bytes > 1 << 20));
    }

    /// Starting a process copies every descriptor for a moment: a lock that was let go meanwhile seemed held.
    #[test]
    fn a_lock_is_free_although_a_copy_of_its_descriptor_is_left() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("LOCK");
        let file = File::create(&path).unwrap();
        file.try_lock().unwrap();
        let copy = file.try_clone().unwrap();
        drop(OsLock(file));
        assert!(OsFileSystem.lock(&path, LockKind::Exclusive).is_ok());
        drop(copy);
    }

    #[test]
    fn locks_conflict_inside_one_process() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("LOCK");
        let kind = |lock: io::Result<Box<dyn FileLock>>| lock.map(drop).map_err(|error| error.kind());
        assert_eq!(kind(OsFileSystem.lock(&path, LockKind::Shared)), Err(io::ErrorKind::NotFound));
        let held = OsFileSystem.lock(&path, LockKind::Exclusive).unwrap();
        assert_eq!(kind(OsFileSystem.lock(&path, LockKind::Exclusive)), Err(io::ErrorKind::WouldBlock));
        assert_eq!(kind(OsFileSystem.lock(&path, LockKind::Shared)), Err(io::ErrorKind::WouldBlock));
        drop(held);
        let shared = OsFileSystem.lock(&path, LockKind::Shared).unwrap();
        assert_eq!(kind(OsFileSystem.lock(&path, LockKind::Shared)), Ok(()));
        assert_eq!(kind(OsFileSystem.lock(&path, LockKind::Exclusive)), Err(io::ErrorKind::WouldBlock));
        drop(shared);
        assert_eq!(kind(OsFileSystem.lock(&path, LockKind::Exclusive)), Ok(()));
    }
}
