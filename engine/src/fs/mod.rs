//! The filesystem, as a trait: everything in the engine that touches storage goes through it.
//!
//! Three implementations: [`OsFileSystem`], the real one; [`SimFileSystem`], in memory, which models what a power cut
//! keeps; and [`FaultFileSystem`], which wraps either and makes chosen calls fail.

use std::fmt::Debug;
use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;

#[cfg(target_os = "linux")]
mod cgroup;
mod fault;
mod mapping;
mod os;
mod sim;
mod writeback;

pub use fault::{Fault, FaultFileSystem, Injected, Op};
pub use os::OsFileSystem;
pub use sim::{Keep, SimFileSystem};

/// One entry of a directory.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct DirEntry {
    /// The file's name, without its directory.
    pub name: String,
    /// Its length in bytes (0 for a directory).
    pub len: u64,
}

/// Where a database lives.
///
/// Contract of every implementation: a file's *contents* are durable once its `sync` returned; its *name* (creation,
/// rename, removal) is durable once [`sync_dir`](FileSystem::sync_dir) of its directory returned; nothing else is.
pub trait FileSystem: Debug + Send + Sync + 'static {
    /// Creates a file, or empties an existing one, for appending.
    fn create(&self, path: &Path) -> io::Result<Box<dyn WritableFile>>;

    /// Opens an existing file for appending at its end.
    fn open_append(&self, path: &Path) -> io::Result<Box<dyn WritableFile>>;

    /// Opens an existing file for reading.
    fn open(&self, path: &Path) -> io::Result<Arc<dyn ReadableFile>>;

    /// Creates a file of `len` zero bytes, or replaces an existing one, with its space reserved on storage, so that
    /// later writes through the mapping do not fail for lack of it; mapped for writing.
    fn create_mapped(&self, path: &Path, len: u64) -> io::Result<Box<dyn MappedFile>>;

    /// Renames a file within one directory, replacing the target if it exists. Open handles follow the file.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Gives a file that never changes again a second name, in any directory. Where that cannot be, as on another device, or
    /// where nothing else is said here, the new name is that of a copy, whose contents are durable.
    fn hard_link(&self, from: &Path, to: &Path) -> io::Result<()> {
        copy(self, &*self.open(from)?, to)
    }

    /// Removes a file. Open handles and mappings keep its contents readable.
    fn remove_file(&self, path: &Path) -> io::Result<()>;

    /// Shortens a file to `len` bytes and makes that durable. Not for files that are mapped.
    fn truncate(&self, path: &Path, len: u64) -> io::Result<()>;

    /// Creates a directory and its missing parents; existing ones are fine. Each directory it creates is made durable
    /// in its parent.
    fn create_dir_all(&self, path: &Path) -> io::Result<()>;

    /// The files of a directory, sorted by name.
    fn read_dir(&self, path: &Path) -> io::Result<Vec<DirEntry>>;

    /// Makes creations, renames and removals in a directory durable.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;

    /// Takes the lock that `path` stands for until the answer is dropped. `Exclusive` creates the file if it is
    /// missing; `Shared` never creates it. A lock held elsewhere (in this process too) is
    /// [`io::ErrorKind::WouldBlock`].
    fn lock(&self, path: &Path, kind: LockKind) -> io::Result<Box<dyn FileLock>>;

    /// The memory that the process may use, the system's cache of its files included, in bytes, as far as it can be told:
    /// decides how tables are read.
    fn memory_bytes(&self) -> Option<u64>;
}

/// How much of a file is copied at once, in bytes.
const COPY_BYTES: u64 = 1 << 20;

/// Copies a file, durably but for its name.
pub(crate) fn copy<F: FileSystem + ?Sized>(fs: &F, file: &dyn ReadableFile, to: &Path) -> io::Result<()> {
    let (mut copy, len) = (fs.create(to)?, file.len()?);
    let mut chunk = vec![0; COPY_BYTES.min(len) as usize];
    while copy.len() < len {
        chunk.truncate((len - copy.len()).min(COPY_BYTES) as usize);
        file.read_exact_at(&mut chunk, copy.len())?;
        copy.append(&chunk)?;
    }
    copy.sync()
}

/// How a lock file is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LockKind {
    /// One writer, nobody else.
    Exclusive,
    /// Any number of readers, no writer.
    Shared,
}

/// A held lock; dropping it releases it.
pub trait FileLock: Debug + Send + Sync {}

/// A file that is being appended to. Appends are not buffered here: callers pass large pieces.
pub trait WritableFile: Debug + Send {
    /// Appends all of `bytes`. After an error an unknown part of them may be in the file.
    fn append(&mut self, bytes: &[u8]) -> io::Result<()>;

    /// Makes the contents and the length durable.
    fn sync(&mut self) -> io::Result<()>;

    /// Asks the system to start writing back `range` without waiting: a hint, so that a later
    /// [`sync`](WritableFile::sync) is short.
    fn start_writeback(&mut self, range: Range<u64>) -> io::Result<()>;

    /// The file's length in bytes.
    fn len(&self) -> u64;

    /// Whether the file is empty.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A file that is being read, at any offset, by any number of threads.
#[allow(clippy::len_without_is_empty, reason = "asking for the length may fail")]
pub trait ReadableFile: Debug + Send + Sync {
    /// The file's length in bytes now.
    fn len(&self) -> io::Result<u64>;

    /// Fills `buffer` from `offset` on; [`io::ErrorKind::UnexpectedEof`] if the file ends before. Sees what a
    /// [`MappedFile`] of the same file has written so far.
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()>;

    /// The whole file as bytes that stay valid (and unchanged, since the engine maps only files it never writes again)
    /// as long as they are held.
    fn map(&self) -> io::Result<Bytes>;
}

/// A file of fixed length, written through memory: a write costs no system call and survives the death of the process.
pub trait MappedFile: Debug + Send {
    /// The file's length in bytes.
    fn len(&self) -> u64;

    /// Whether the file has no bytes.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Copies `bytes` to `offset`. [`io::ErrorKind::InvalidInput`] if they do not fit in the file.
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()>;

    /// Has the whole file, which holds nothing but zeros yet, in memory, in pieces as large as the system can keep: then
    /// writing to all of it for the first time is cheap, and a sync of a little of it writes a whole piece. Does nothing
    /// where there is no such difference.
    fn fill(&mut self) -> io::Result<()> {
        Ok(())
    }

    /// Whether a sync of a little of the file writes a whole piece, because it was [filled](MappedFile::fill).
    fn is_filled(&self) -> bool {
        false
    }

    /// A handle that makes written ranges durable, usable from other threads while writing goes on.
    fn syncer(&self) -> Arc<dyn MappedSync>;
}

/// Makes what was written through a [`MappedFile`] durable.
pub trait MappedSync: Debug + Send + Sync {
    /// Makes all bytes of `range` that were written before the call durable.
    fn sync(&self, range: Range<u64>) -> io::Result<()>;
}
