//! A filesystem that makes chosen calls of another one fail.

use std::collections::HashMap;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;
use rustix::io::Errno;

use super::{DirEntry, FileLock, FileSystem, LockKind, MappedFile, MappedSync, ReadableFile, WritableFile};

/// How a chosen call fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// The device fails (`EIO`); nothing is done.
    Io,
    /// The disk is full (`ENOSPC`); nothing is done.
    NoSpace,
    /// An append or a mapped write puts the first half of its bytes, then the device fails (`EIO`). Other calls fail
    /// like [`Fault::Io`].
    ShortWrite,
    /// The device fails (`EIO`), but only after everything that was asked for is done.
    Late,
    /// The sync of a file or mapping fails (`EIO`), and the system drops the pages it was to write: they can still be
    /// read, but no later sync of that file, through whatever handle, makes anything of it durable, although it
    /// succeeds. A file that is created anew under its name begins afresh. Other calls fail like [`Fault::Io`].
    DroppedPages,
}

/// A kind of call, for [`FaultFileSystem::only`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Op {
    /// [`FileSystem::create`].
    Create,
    /// [`FileSystem::open_append`].
    OpenAppend,
    /// [`FileSystem::open`].
    Open,
    /// [`FileSystem::create_mapped`].
    CreateMapped,
    /// [`FileSystem::rename`].
    Rename,
    /// [`FileSystem::hard_link`].
    Link,
    /// [`FileSystem::remove_file`].
    Remove,
    /// [`FileSystem::truncate`].
    Truncate,
    /// [`FileSystem::create_dir_all`].
    CreateDir,
    /// [`FileSystem::read_dir`].
    ReadDir,
    /// [`FileSystem::sync_dir`].
    SyncDir,
    /// [`FileSystem::lock`].
    Lock,
    /// [`WritableFile::append`].
    Append,
    /// [`WritableFile::sync`].
    Sync,
    /// [`WritableFile::start_writeback`].
    StartWriteback,
    /// [`ReadableFile::len`].
    Len,
    /// [`ReadableFile::read_exact_at`].
    Read,
    /// [`ReadableFile::map`].
    Map,
    /// [`MappedFile::write_at`].
    MappedWrite,
    /// [`MappedSync::sync`].
    MappedSync,
}

/// A call that was made to fail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Injected {
    /// Its kind.
    pub op: Op,
    /// The file or directory it was about: of a rename or a link the new name, of an open file the name it was opened by.
    pub path: PathBuf,
}

/// Wraps a filesystem, counts the calls on it, its files and its mappings, and makes chosen ones fail. Clones share one
/// state.
///
/// ```
/// use std::sync::Arc;
/// use siltstone::fs::{Fault, FaultFileSystem, FileSystem, SimFileSystem};
/// let fs = FaultFileSystem::new(Arc::new(SimFileSystem::new()));
/// let mut file = fs.create("a".as_ref())?;
/// fs.fail_at(2, Fault::NoSpace);
/// assert!(file.append(b"fits").is_ok());
/// assert_eq!(file.append(b"does not").unwrap_err().kind(), std::io::ErrorKind::StorageFull);
/// assert!(file.sync().is_ok());
/// assert_eq!(fs.calls(), 4);
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct FaultFileSystem {
    inner: Arc<dyn FileSystem>,
    plan: Arc<Mutex<Plan>>,
}

#[derive(Debug, Default)]
struct Plan {
    calls: u64,
    only: Option<Op>,
    fault: Option<Planned>,
    injected: Option<Injected>,
    /// Whether the system dropped pages of a file, by its name now; shared by all its handles.
    dropped: HashMap<PathBuf, Arc<AtomicBool>>,
}

#[derive(Debug)]
struct Planned {
    /// The number of the first call that fails, in terms of [`Plan::calls`].
    at: u64,
    and_later: bool,
    fault: Fault,
}

impl FaultFileSystem {
    /// Wraps `inner`; nothing fails yet.
    pub fn new(inner: Arc<dyn FileSystem>) -> Self {
        FaultFileSystem { inner, plan: Arc::default() }
    }

    /// Makes exactly the `n`-th counted call from now fail (1: the next one). Replaces an earlier plan.
    pub fn fail_at(&self, n: u64, fault: Fault) {
        self.plan(n, false, fault);
    }

    /// Makes the `n`-th counted call from now and all later ones fail. Replaces an earlier plan.
    pub fn fail_from(&self, n: u64, fault: Fault) {
        self.plan(n, true, fault);
    }

    /// Counts, and fails, calls of one kind only.
    pub fn only(&self, op: Op) {
        self.plan.lock().only = Some(op);
    }

    /// Lets every call through again, and counts all of them. Pages that were dropped stay so.
    pub fn clear(&self) {
        let mut plan = self.plan.lock();
        plan.fault = None;
        plan.only = None;
    }

    /// How many calls were counted so far, failed ones included.
    pub fn calls(&self) -> u64 {
        self.plan.lock().calls
    }

    /// The first call that the last plan made fail, if it came to that.
    pub fn injected(&self) -> Option<Injected> {
        self.plan.lock().injected.clone()
    }

    fn plan(&self, n: u64, and_later: bool, fault: Fault) {
        let mut plan = self.plan.lock();
        plan.injected = None;
        plan.fault = Some(Planned { at: plan.calls.saturating_add(n.max(1)), and_later, fault });
    }

    fn call<R>(&self, op: Op, path: &Path, call: impl FnOnce() -> io::Result<R>) -> io::Result<R> {
        run(&self.plan, op, path, call)
    }

    /// `inner` as a file that may fail. `fresh`: it was created just now.
    fn wrap<T>(&self, path: &Path, fresh: bool, inner: T) -> Faulty<T> {
        let mut plan = self.plan.lock();
        if fresh {
            plan.dropped.remove(path);
        }
        let dropped = plan.dropped.entry(path.to_owned()).or_default().clone();
        Faulty { inner, path: path.to_owned(), dropped, plan: self.plan.clone() }
    }
}

impl Plan {
    fn next(&mut self, op: Op, path: &Path) -> Option<Fault> {
        if self.only.is_some_and(|only| only != op) {
            return None;
        }
        self.calls += 1;
        let planned = self.fault.as_ref()?;
        let hit = self.calls == planned.at || (planned.and_later && self.calls > planned.at);
        if hit && self.injected.is_none() {
            self.injected = Some(Injected { op, path: path.to_owned() });
        }
        hit.then_some(planned.fault)
    }
}

/// Makes one call, or makes it fail. Not under the lock: a call may take long, or come back here.
fn run<R>(plan: &Mutex<Plan>, op: Op, path: &Path, call: impl FnOnce() -> io::Result<R>) -> io::Result<R> {
    let fault = plan.lock().next(op, path);
    match fault {
        None => call(),
        Some(Fault::Late) => call().and(Err(error(Fault::Late))),
        Some(fault) => Err(error(fault)),
    }
}

fn error(fault: Fault) -> io::Error {
    match fault {
        Fault::Io | Fault::ShortWrite | Fault::Late | Fault::DroppedPages => Errno::IO.into(),
        Fault::NoSpace => Errno::NOSPC.into(),
    }
}

impl FileSystem for FaultFileSystem {
    fn create(&self, path: &Path) -> io::Result<Box<dyn WritableFile>> {
        let file = self.call(Op::Create, path, || self.inner.create(path))?;
        Ok(Box::new(self.wrap(path, true, file)))
    }

    fn open_append(&self, path: &Path) -> io::Result<Box<dyn WritableFile>> {
        let file = self.call(Op::OpenAppend, path, || self.inner.open_append(path))?;
        Ok(Box::new(self.wrap(path, false, file)))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn ReadableFile>> {
        let file = self.call(Op::Open, path, || self.inner.open(path))?;
        Ok(Arc::new(self.wrap(path, false, file)))
    }

    fn create_mapped(&self, path: &Path, len: u64) -> io::Result<Box<dyn MappedFile>> {
        let file = self.call(Op::CreateMapped, path, || self.inner.create_mapped(path, len))?;
        Ok(Box::new(self.wrap(path, true, file)))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.call(Op::Rename, to, || {
            self.inner.rename(from, to)?;
            let mut plan = self.plan.lock();
            let dropped = plan.dropped.remove(from).unwrap_or_default();
            plan.dropped.insert(to.to_owned(), dropped);
            Ok(())
        })
    }

    fn hard_link(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.call(Op::Link, to, || self.inner.hard_link(from, to))
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.call(Op::Remove, path, || {
            self.inner.remove_file(path)?;
            self.plan.lock().dropped.remove(path);
            Ok(())
        })
    }

    fn truncate(&self, path: &Path, len: u64) -> io::Result<()> {
        self.call(Op::Truncate, path, || self.inner.truncate(path, len))
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        self.call(Op::CreateDir, path, || self.inner.create_dir_all(path))
    }

    fn read_dir(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        self.call(Op::ReadDir, path, || self.inner.read_dir(path))
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.call(Op::SyncDir, path, || self.inner.sync_dir(path))
    }

    fn lock(&self, path: &Path, kind: LockKind) -> io::Result<Box<dyn FileLock>> {
        self.call(Op::Lock, path, || self.inner.lock(path, kind))
    }

    fn memory_bytes(&self) -> Option<u64> {
        self.inner.memory_bytes()
    }
}

/// A file, mapping or syncer whose calls may fail.
#[derive(Debug)]
struct Faulty<T> {
    inner: T,
    path: PathBuf,
    /// Syncs succeed and do nothing: see [`Fault::DroppedPages`].
    dropped: Arc<AtomicBool>,
    plan: Arc<Mutex<Plan>>,
}

impl<T> Faulty<T> {
    fn call<R>(&self, op: Op, call: impl FnOnce(&T) -> io::Result<R>) -> io::Result<R> {
        run(&self.plan, op, &self.path, || call(&self.inner))
    }

    /// A write of `bytes` by `put`, whole, half or not at all.
    fn put(&mut self, op: Op, bytes: &[u8], put: impl FnOnce(&mut T, &[u8]) -> io::Result<()>) -> io::Result<()> {
        let fault = self.plan.lock().next(op, &self.path);
        let count = match fault {
            None | Some(Fault::Late) => bytes.len(),
            Some(Fault::ShortWrite) => bytes.len() / 2,
            Some(fault) => return Err(error(fault)),
        };
        put(&mut self.inner, &bytes[..count])?;
        fault.map_or(Ok(()), |fault| Err(error(fault)))
    }

    /// A sync of the file by `sync`.
    fn make_durable(&mut self, op: Op, sync: impl FnOnce(&mut T) -> io::Result<()>) -> io::Result<()> {
        let fault = self.plan.lock().next(op, &self.path);
        durable(fault, &self.dropped, || sync(&mut self.inner))
    }
}

fn durable(fault: Option<Fault>, dropped: &AtomicBool, sync: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
    match fault {
        Some(Fault::DroppedPages) => dropped.store(true, Ordering::SeqCst),
        None | Some(Fault::Late) if !dropped.load(Ordering::SeqCst) => sync()?,
        _ => {}
    }
    fault.map_or(Ok(()), |fault| Err(error(fault)))
}

impl WritableFile for Faulty<Box<dyn WritableFile>> {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.put(Op::Append, bytes, |file, bytes| file.append(bytes))
    }

    fn sync(&mut self) -> io::Result<()> {
        self.make_durable(Op::Sync, |file| file.sync())
    }

    fn start_writeback(&mut self, range: Range<u64>) -> io::Result<()> {
        run(&self.plan, Op::StartWriteback, &self.path, || self.inner.start_writeback(range))
    }

    fn len(&self) -> u64 {
        self.inner.len()
    }
}

impl ReadableFile for Faulty<Arc<dyn ReadableFile>> {
    fn len(&self) -> io::Result<u64> {
        self.call(Op::Len, |file| file.len())
    }

    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.call(Op::Read, |file| file.read_exact_at(buffer, offset))
    }

    fn map(&self) -> io::Result<Bytes> {
        self.call(Op::Map, |file| file.map())
    }
}

impl MappedFile for Faulty<Box<dyn MappedFile>> {
    fn len(&self) -> u64 {
        self.inner.len()
    }

    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.put(Op::MappedWrite, bytes, |file, bytes| file.write_at(offset, bytes))
    }

    fn syncer(&self) -> Arc<dyn MappedSync> {
        Arc::new(Faulty {
            inner: self.inner.syncer(),
            path: self.path.clone(),
            dropped: self.dropped.clone(),
            plan: self.plan.clone(),
        })
    }
}

impl MappedSync for Faulty<Arc<dyn MappedSync>> {
    fn sync(&self, range: Range<u64>) -> io::Result<()> {
        let fault = self.plan.lock().next(Op::MappedSync, &self.path);
        durable(fault, &self.dropped, || self.inner.sync(range))
    }
}

#[cfg(test)]
mod tests;
