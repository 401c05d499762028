//! A filesystem that tells of every call on it, before, in the middle and after: to act in the middle of an engine's
//! operation (write, kill, panic), where no timing could aim.

use std::fmt;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use siltstone::fs::{DirEntry, FileLock, FileSystem, LockKind, MappedFile, MappedSync, Op, ReadableFile, WritableFile};

/// On which side of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Side {
    /// Nothing was done yet.
    Before,
    /// Half of it was done, for calls that a process can die in the middle of: an append or a mapped write has put the
    /// first half of its bytes, a mapped file is there with half of its length.
    Middle,
    /// It was done, whatever came of it.
    After,
}

/// A moment in the life of a filesystem.
#[derive(Clone, Copy, Debug)]
pub struct Moment<'m> {
    /// Before, in the middle of or after the call.
    pub side: Side,
    /// Which call.
    pub op: Op,
    /// On which file or directory; a rename is known by its target.
    pub path: &'m Path,
}

/// What is told. It may come on any thread, also while the engine holds locks: a write to the same database is fine
/// from moments of syncing and flushing, not from those of a commit, nor while a file is made ready for the log, which a
/// commit may be waiting for.
pub type Hook = Arc<dyn Fn(&Moment<'_>) + Send + Sync>;

/// Wraps a filesystem; see the module. Clones share the hook.
#[derive(Clone)]
pub struct HookFileSystem {
    inner: Arc<dyn FileSystem>,
    hook: Hook,
}

impl fmt::Debug for HookFileSystem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HookFileSystem").field("inner", &self.inner).finish_non_exhaustive()
    }
}

impl HookFileSystem {
    /// Wraps `inner` and tells `hook`.
    pub fn new(inner: Arc<dyn FileSystem>, hook: impl Fn(&Moment<'_>) + Send + Sync + 'static) -> Self {
        HookFileSystem { inner, hook: Arc::new(hook) }
    }

    fn wrap<T>(&self, path: &Path, inner: T) -> Hooked<T> {
        Hooked { inner, path: path.to_owned(), hook: self.hook.clone() }
    }
}

fn around<R>(hook: &Hook, op: Op, path: &Path, call: impl FnOnce() -> R) -> R {
    hook(&Moment { side: Side::Before, op, path });
    let answer = call();
    hook(&Moment { side: Side::After, op, path });
    answer
}

impl FileSystem for HookFileSystem {
    fn create(&self, path: &Path) -> io::Result<Box<dyn WritableFile>> {
        let file = around(&self.hook, Op::Create, path, || self.inner.create(path))?;
        Ok(Box::new(self.wrap(path, file)))
    }

    fn open_append(&self, path: &Path) -> io::Result<Box<dyn WritableFile>> {
        let file = around(&self.hook, Op::OpenAppend, path, || self.inner.open_append(path))?;
        Ok(Box::new(self.wrap(path, file)))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn ReadableFile>> {
        let file = around(&self.hook, Op::Open, path, || self.inner.open(path))?;
        Ok(Arc::new(self.wrap(path, file)))
    }

    fn create_mapped(&self, path: &Path, len: u64) -> io::Result<Box<dyn MappedFile>> {
        let file = around(&self.hook, Op::CreateMapped, path, || {
            drop(self.inner.create_mapped(path, len / 2)?);
            (self.hook)(&Moment { side: Side::Middle, op: Op::CreateMapped, path });
            self.inner.create_mapped(path, len)
        })?;
        Ok(Box::new(self.wrap(path, file)))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        around(&self.hook, Op::Rename, to, || self.inner.rename(from, to))
    }

    fn hard_link(&self, from: &Path, to: &Path) -> io::Result<()> {
        around(&self.hook, Op::Link, to, || self.inner.hard_link(from, to))
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        around(&self.hook, Op::Remove, path, || self.inner.remove_file(path))
    }

    fn truncate(&self, path: &Path, len: u64) -> io::Result<()> {
        around(&self.hook, Op::Truncate, path, || self.inner.truncate(path, len))
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        around(&self.hook, Op::CreateDir, path, || self.inner.create_dir_all(path))
    }

    fn read_dir(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        around(&self.hook, Op::ReadDir, path, || self.inner.read_dir(path))
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        around(&self.hook, Op::SyncDir, path, || self.inner.sync_dir(path))
    }

    fn lock(&self, path: &Path, kind: LockKind) -> io::Result<Box<dyn FileLock>> {
        around(&self.hook, Op::Lock, path, || self.inner.lock(path, kind))
    }

    fn memory_bytes(&self) -> Option<u64> {
        self.inner.memory_bytes()
    }
}

/// A file, mapping or syncer that tells of its calls.
struct Hooked<T> {
    inner: T,
    path: PathBuf,
    hook: Hook,
}

impl<T: fmt::Debug> fmt::Debug for Hooked<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hooked").field("inner", &self.inner).field("path", &self.path).finish_non_exhaustive()
    }
}

impl WritableFile for Hooked<Box<dyn WritableFile>> {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let (first, second) = bytes.split_at(bytes.len() / 2);
        around(&self.hook, Op::Append, &self.path, || {
            self.inner.append(first)?;
            (self.hook)(&Moment { side: Side::Middle, op: Op::Append, path: &self.path });
            self.inner.append(second)
        })
    }

    fn sync(&mut self) -> io::Result<()> {
        around(&self.hook, Op::Sync, &self.path, || self.inner.sync())
    }

    fn start_writeback(&mut self, range: Range<u64>) -> io::Result<()> {
        around(&self.hook, Op::StartWriteback, &self.path, || self.inner.start_writeback(range))
    }

    fn len(&self) -> u64 {
        self.inner.len()
    }
}

impl ReadableFile for Hooked<Arc<dyn ReadableFile>> {
    fn len(&self) -> io::Result<u64> {
        around(&self.hook, Op::Len, &self.path, || self.inner.len())
    }

    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        around(&self.hook, Op::Read, &self.path, || self.inner.read_exact_at(buffer, offset))
    }

    fn map(&self) -> io::Result<bytes::Bytes> {
        around(&self.hook, Op::Map, &self.path, || self.inner.map())
    }
}

impl MappedFile for Hooked<Box<dyn MappedFile>> {
    fn len(&self) -> u64 {
        self.inner.len()
    }

    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let (first, second) = bytes.split_at(bytes.len() / 2);
        around(&self.hook, Op::MappedWrite, &self.path, || {
            self.inner.write_at(offset, first)?;
            (self.hook)(&Moment { side: Side::Middle, op: Op::MappedWrite, path: &self.path });
            self.inner.write_at(offset.saturating_add(first.len() as u64), second)
        })
    }

    fn syncer(&self) -> Arc<dyn MappedSync> {
        Arc::new(Hooked { inner: self.inner.syncer(), path: self.path.clone(), hook: self.hook.clone() })
    }
}

impl MappedSync for Hooked<Arc<dyn MappedSync>> {
    fn sync(&self, range: Range<u64>) -> io::Result<()> {
        around(&self.hook, Op::MappedSync, &self.path, || self.inner.sync(range))
    }
}
