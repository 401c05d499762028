//! A filesystem that makes chosen calls of another one fail.

use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use rustix::io::Errno;

use super::{DirEntry, FileLock, FileSystem, LockKind, MappedFile, MappedSync, ReadableFile, WritableFile};

/// How a chosen call fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The device fails (`EIO`); nothing is done.
    Io,
    /// The disk is full (`ENOSPC`); nothing is done.
    NoSpace,
    /// An append or a mapped write puts the first half of its bytes, then the device fails (`EIO`). Other calls fail
    /// like [`Fault::Io`].
    ShortWrite,
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
    /// [`ReadableFile::len`], [`ReadableFile::read_exact_at`] and [`ReadableFile::map`].
    Read,
    /// [`MappedFile::write_at`].
    MappedWrite,
    /// [`MappedSync::sync`].
    MappedSync,
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

    /// Lets every call through again, and counts all of them.
    pub fn clear(&self) {
        let mut plan = self.plan.lock();
        plan.fault = None;
        plan.only = None;
    }

    /// How many calls were counted so far, failed ones included.
    pub fn calls(&self) -> u64 {
        self.plan.lock().calls
    }

    fn plan(&self, n: u64, and_later: bool, fault: Fault) {
        let mut plan = self.plan.lock();
        plan.fault = Some(Planned { at: plan.calls.saturating_add(n.max(1)), and_later, fault });
    }

    fn check(&self, op: Op) -> io::Result<()> {
        self.plan.lock().check(op)
    }

    fn wrap<T>(&self, inner: T) -> Faulty<T> {
        Faulty { inner, plan: self.plan.clone() }
    }
}

impl Plan {
    fn next(&mut self, op: Op) -> Option<Fault> {
        if self.only.is_some_and(|only| only != op) {
            return None;
        }
        self.calls += 1;
        let planned = self.fault.as_ref()?;
        let hit = self.calls == planned.at || (planned.and_later && self.calls > planned.at);
        hit.then_some(planned.fault)
    }

    fn check(&mut self, op: Op) -> io::Result<()> {
        self.next(op).map_or(Ok(()), |fault| Err(error(fault)))
    }
}

fn error(fault: Fault) -> io::Error {
    match fault {
        Fault::Io | Fault::ShortWrite => Errno::IO.into(),
        Fault::NoSpace => Errno::NOSPC.into(),
    }
}

impl FileSystem for FaultFileSystem {
    fn create(&self, path: &Path) -> io::Result<Box<dyn WritableFile>> {
        self.check(Op::Create)?;
        Ok(Box::new(self.wrap(self.inner.create(path)?)))
    }

    fn open_append(&self, path: &Path) -> io::Result<Box<dyn WritableFile>> {
        self.check(Op::OpenAppend)?;
        Ok(Box::new(self.wrap(self.inner.open_append(path)?)))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn ReadableFile>> {
        self.check(Op::Open)?;
        Ok(Arc::new(self.wrap(self.inner.open(path)?)))
    }

    fn create_mapped(&self, path: &Path, len: u64) -> io::Result<Box<dyn MappedFile>> {
        self.check(Op::CreateMapped)?;
        Ok(Box::new(self.wrap(self.inner.create_mapped(path, len)?)))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.check(Op::Rename)?;
        self.inner.rename(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.check(Op::Remove)?;
        self.inner.remove_file(path)
    }

    fn truncate(&self, path: &Path, len: u64) -> io::Result<()> {
        self.check(Op::Truncate)?;
        self.inner.truncate(path, len)
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        self.check(Op::CreateDir)?;
        self.inner.create_dir_all(path)
    }

    fn read_dir(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        self.check(Op::ReadDir)?;
        self.inner.read_dir(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.check(Op::SyncDir)?;
        self.inner.sync_dir(path)
    }

    fn lock(&self, path: &Path, kind: LockKind) -> io::Result<Box<dyn FileLock>> {
        self.check(Op::Lock)?;
        self.inner.lock(path, kind)
    }

    fn memory_bytes(&self) -> Option<u64> {
        self.inner.memory_bytes()
    }
}

/// A file, mapping or syncer whose calls may fail.
#[derive(Debug)]
struct Faulty<T> {
    inner: T,
    plan: Arc<Mutex<Plan>>,
}

impl<T> Faulty<T> {
    fn check(&self, op: Op) -> io::Result<()> {
        self.plan.lock().check(op)
    }

    /// A write of `bytes` by `put`, whole, half or not at all.
    fn put(&mut self, op: Op, bytes: &[u8], put: impl FnOnce(&mut T, &[u8]) -> io::Result<()>) -> io::Result<()> {
        let fault = self.plan.lock().next(op);
        match fault {
            None => put(&mut self.inner, bytes),
            Some(fault) => {
                if fault == Fault::ShortWrite {
                    put(&mut self.inner, &bytes[..bytes.len() / 2])?;
                }
                Err(error(fault))
            }
        }
    }
}

impl WritableFile for Faulty<Box<dyn WritableFile>> {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.put(Op::Append, bytes, |file, bytes| file.append(bytes))
    }

    fn sync(&mut self) -> io::Result<()> {
        self.check(Op::Sync)?;
        self.inner.sync()
    }

    fn start_writeback(&mut self, range: Range<u64>) -> io::Result<()> {
        self.check(Op::StartWriteback)?;
        self.inner.start_writeback(range)
    }

    fn len(&self) -> u64 {
        self.inner.len()
    }
}

impl ReadableFile for Faulty<Arc<dyn ReadableFile>> {
    fn len(&self) -> io::Result<u64> {
        self.check(Op::Read)?;
        self.inner.len()
    }

    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.check(Op::Read)?;
        self.inner.read_exact_at(buffer, offset)
    }

    fn map(&self) -> io::Result<Bytes> {
        self.check(Op::Read)?;
        self.inner.map()
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
        Arc::new(Faulty { inner: self.inner.syncer(), plan: self.plan.clone() })
    }
}

impl MappedSync for Faulty<Arc<dyn MappedSync>> {
    fn sync(&self, range: Range<u64>) -> io::Result<()> {
        self.check(Op::MappedSync)?;
        self.inner.sync(range)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fs::SimFileSystem;

    /// One call of every kind, in a fixed order; answers with the numbers (from 1) of those that failed.
    fn every_call(fs: &FaultFileSystem) -> Vec<usize> {
        let sim = SimFileSystem::new();
        sim.write("t".as_ref(), b"0123").unwrap();
        let fs = FaultFileSystem { inner: Arc::new(sim), plan: fs.plan.clone() };
        let unwrapped = FaultFileSystem::new(fs.inner.clone());
        let mut file = fs.wrap(unwrapped.create("f".as_ref()).unwrap());
        let mut mapped = fs.wrap(unwrapped.create_mapped("g".as_ref(), 8).unwrap());
        let reader = fs.wrap(unwrapped.open("t".as_ref()).unwrap());
        let answers = [
            fs.create("a".as_ref()).err(),
            fs.open_append("t".as_ref()).err(),
            fs.open("t".as_ref()).err(),
            fs.create_mapped("m".as_ref(), 8).err(),
            fs.create_dir_all("d".as_ref()).err(),
            fs.read_dir("".as_ref()).err(),
            fs.sync_dir("".as_ref()).err(),
            fs.lock("l".as_ref(), LockKind::Exclusive).err(),
            fs.truncate("t".as_ref(), 3).err(),
            file.append(b"silt").err(),
            file.sync().err(),
            file.start_writeback(0..1).err(),
            reader.len().err(),
            reader.read_exact_at(&mut [0], 0).err(),
            reader.map().err(),
            mapped.write_at(0, b"silt").err(),
            mapped.syncer().sync(0..4).err(),
            fs.rename("t".as_ref(), "u".as_ref()).err(),
            fs.remove_file("f".as_ref()).err(),
        ];
        (1..).zip(&answers).filter(|(_, answer)| answer.is_some()).map(|(n, _)| n).collect()
    }

    #[test]
    fn exactly_the_chosen_calls_fail() {
        let fs = FaultFileSystem::new(Arc::new(SimFileSystem::new()));
        assert!(every_call(&fs).is_empty());
        assert_eq!(fs.calls(), 19);
        for n in 1..=19 {
            fs.fail_at(n as u64, Fault::Io);
            assert_eq!(every_call(&fs), [n]);
            fs.fail_from(n as u64, Fault::NoSpace);
            assert_eq!(every_call(&fs), (n..=19).collect::<Vec<_>>());
            fs.clear();
        }
        fs.only(Op::Read);
        fs.fail_at(2, Fault::Io);
        assert_eq!(every_call(&fs), [14]);
    }

    #[test]
    fn faults_look_like_the_systems_own() {
        let fs = FaultFileSystem::new(Arc::new(SimFileSystem::new()));
        fs.fail_from(1, Fault::NoSpace);
        assert_eq!(fs.sync_dir("".as_ref()).unwrap_err().kind(), io::ErrorKind::StorageFull);
        fs.fail_at(1, Fault::Io);
        assert_eq!(fs.clone().sync_dir("".as_ref()).unwrap_err().raw_os_error(), Some(5));
    }

    #[test]
    fn a_short_write_puts_half() {
        let sim = SimFileSystem::new();
        let fs = FaultFileSystem::new(Arc::new(sim.clone()));
        let mut file = fs.create("a".as_ref()).unwrap();
        let mut mapped = fs.create_mapped("m".as_ref(), 4).unwrap();
        fs.fail_from(1, Fault::ShortWrite);
        assert!(file.append(b"silt").is_err());
        assert!(mapped.write_at(0, b"silt").is_err());
        assert_eq!(
            (sim.read("a".as_ref()).unwrap(), sim.read("m".as_ref()).unwrap()),
            (b"si".to_vec(), b"si\0\0".to_vec())
        );
    }
}
