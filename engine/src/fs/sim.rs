//! A filesystem in memory that models what a power cut keeps.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;

use crate::sync::Mutex;

use super::{DirEntry, FileLock, FileSystem, LockKind, MappedFile, MappedSync, ReadableFile, WritableFile};
use inode::{Contents, Directory, Inode};

mod inode;
#[cfg(test)]
mod tests;

/// What a simulated power cut keeps of what was not synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// Nothing: files and names as of their last sync.
    Nothing,
    /// A seeded choice: of every changed 512-byte sector the old or the new contents or those of any write between, of
    /// every changed length likewise, of every changed name the old or the new one; all independently.
    Some,
    /// Everything: a killed process rather than a power cut.
    All,
}

/// A filesystem in memory, deterministic, that knows what is durable: file contents as of the last sync, names as of
/// the last [`sync_dir`](FileSystem::sync_dir). Clones share one state; [`crash_clone`](SimFileSystem::crash_clone)
/// makes an independent one.
///
/// ```
/// use siltstone::fs::{FileSystem, Keep, SimFileSystem};
/// let fs = SimFileSystem::default();
/// let mut file = fs.create("a".as_ref())?;
/// file.append(b"synced")?;
/// file.sync()?;
/// fs.sync_dir("".as_ref())?;
/// file.append(b", lost")?;
/// assert_eq!(fs.crash_clone(Keep::Nothing, 0).read("a".as_ref())?, b"synced");
/// assert_eq!(fs.crash_clone(Keep::All, 0).read("a".as_ref())?, b"synced, lost");
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct SimFileSystem {
    state: Arc<Mutex<State>>,
}

/// Lock order: the state, then an inode's contents.
#[derive(Debug, Default)]
struct State {
    directories: BTreeMap<PathBuf, Directory>,
    locks: HashMap<PathBuf, Holders>,
    calls: u64,
    stop_after: Option<u64>,
    stopped: bool,
    capacity_bytes: Option<u64>,
}

/// Who holds a lock; an entry exists only while somebody does.
#[derive(Debug)]
enum Holders {
    Exclusive,
    Shared(usize),
}

/// Seeded coin tosses (SplitMix64, Steele et al. 2014), with a bias that each file and directory takes anew, so that a
/// few seeds cover files that were kept beside others that were lost, and all between.
#[derive(Debug)]
struct Coin {
    state: u64,
    heads_of_8: u64,
}

impl Coin {
    fn new(seed: u64) -> Self {
        Coin { state: seed, heads_of_8: 4 }
    }

    fn take_bias(&mut self) {
        self.heads_of_8 = [0, 1, 4, 4, 7, 8][self.next() as usize % 6];
    }

    /// A moment from 0 to `newest`: one of these two mostly.
    fn moment(&mut self, newest: usize) -> usize {
        if self.toss() {
            newest
        } else if self.heads_of_8 > 0 && self.next().is_multiple_of(4) {
            self.next() as usize % (newest + 1)
        } else {
            0
        }
    }

    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn toss(&mut self) -> bool {
        self.next() % 8 < self.heads_of_8
    }
}

impl Default for SimFileSystem {
    fn default() -> Self {
        SimFileSystem::new()
    }
}

impl SimFileSystem {
    /// An empty filesystem with the directories `/` and the current one (the empty path).
    pub fn new() -> Self {
        let mut state = State::default();
        state.directories.insert(PathBuf::new(), Directory::default());
        state.directories.insert(PathBuf::from("/"), Directory::default());
        SimFileSystem { state: Arc::new(Mutex::new(state)) }
    }

    /// An independent filesystem as a power cut now would leave it: no open handles, no locks, nothing to stop it.
    /// `seed` decides the choices of [`Keep::Some`]; the same seed on the same history gives the same answer.
    pub fn crash_clone(&self, keep: Keep, seed: u64) -> SimFileSystem {
        let state = self.state.lock();
        let mut coin = Coin::new(seed);
        let mut survivors: HashMap<*const Mutex<Contents>, Inode> = HashMap::new();
        let mut after = State { capacity_bytes: state.capacity_bytes, ..State::default() };
        for (path, directory) in &state.directories {
            let mut durable = Directory::default();
            for (name, inode) in directory.after_power_cut(keep, &mut coin) {
                let survivor = survivors
                    .entry(Arc::as_ptr(&inode))
                    .or_insert_with(|| Arc::new(Mutex::new(inode.lock().after_power_cut(keep, &mut coin))));
                durable.link_durably(&name, survivor.clone());
            }
            after.directories.insert(path.clone(), durable);
        }
        SimFileSystem { state: Arc::new(Mutex::new(after)) }
    }

    /// An independent filesystem in the same state, with what is not durable apart from what is: to try several power
    /// cuts of one moment while this one goes on. Like [`crash_clone`](Self::crash_clone) it has no open handles, no
    /// locks, nothing to stop it, and counts its calls from 0.
    pub fn fork(&self) -> SimFileSystem {
        let state = self.state.lock();
        let mut copies: HashMap<*const Mutex<Contents>, Inode> = HashMap::new();
        let mut copy = |inode: &Inode| {
            copies.entry(Arc::as_ptr(inode)).or_insert_with(|| Arc::new(Mutex::new(inode.lock().clone()))).clone()
        };
        let directories = state.directories.iter().map(|(path, names)| (path.clone(), names.copy(&mut copy))).collect();
        let forked = State { directories, capacity_bytes: state.capacity_bytes, ..State::default() };
        SimFileSystem { state: Arc::new(Mutex::new(forked)) }
    }

    /// How many calls have changed the simulated storage so far: `create`, `open_append`, `create_mapped`, `rename`,
    /// `remove_file`, `truncate`, `create_dir_all` of a missing directory, `sync_dir`; an append, sync or writeback
    /// hint of a file; a write through a mapping or its sync. Failed ones count too.
    pub fn call_count(&self) -> u64 {
        self.state.lock().calls
    }

    /// Cuts the power after `n` counted calls in total ([`call_count`](Self::call_count)): the next counted one and
    /// every call of any kind after it fail with "power cut" and change nothing.
    pub fn stop_after(&self, n: u64) {
        self.state.lock().stop_after = Some(n);
    }

    /// Inverts bit `bit % 8` of the byte at `offset`, durably: damage on storage. Past the end of the file nothing
    /// happens.
    ///
    /// # Errors
    /// `NotFound` if there is no such file.
    pub fn flip_bit(&self, path: &Path, offset: u64, bit: u32) -> io::Result<()> {
        let inode = self.state.lock().inode(path)?;
        inode.lock().flip_bit(usize::try_from(offset).unwrap_or(usize::MAX), bit);
        Ok(())
    }

    /// The contents of a file; works after the power cut too.
    ///
    /// # Errors
    /// `NotFound` if there is no such file.
    pub fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        let inode = self.state.lock().inode(path)?;
        Ok(inode.lock().live.to_vec())
    }

    /// Replaces a file by one with these contents, or creates it and its directories; everything about it is durable at
    /// once.
    ///
    /// # Errors
    /// `InvalidInput` if the path names no file.
    pub fn write(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let mut state = self.state.lock();
        let (directory, name) = split(path)?;
        state.add_directories(directory);
        let inode = Arc::new(Mutex::new(Contents::durable(Arc::new(bytes.to_vec()))));
        state.directory(directory)?.link_durably(name, inode);
        Ok(())
    }

    /// The paths of all files, sorted.
    pub fn paths(&self) -> Vec<PathBuf> {
        let state = self.state.lock();
        let join = |(path, directory): (&PathBuf, &Directory)| {
            directory.live.keys().map(|name| path.join(name)).collect::<Vec<_>>()
        };
        let mut paths: Vec<PathBuf> = state.directories.iter().flat_map(join).collect();
        paths.sort();
        paths
    }

    /// Bounds the bytes of all named files together; appends and new mapped files that would exceed it fail with
    /// [`io::ErrorKind::StorageFull`].
    pub fn set_capacity_bytes(&self, capacity_bytes: Option<u64>) {
        self.state.lock().capacity_bytes = capacity_bytes;
    }
}

fn power_cut() -> io::Error {
    io::Error::other("power cut")
}

/// A path's directory and file name.
fn split(path: &Path) -> io::Result<(&Path, &str)> {
    let name = path.file_name().and_then(|name| name.to_str());
    match (path.parent(), name) {
        (Some(directory), Some(name)) => Ok((directory, name)),
        _ => Err(io::Error::new(io::ErrorKind::InvalidInput, "not the path of a file")),
    }
}

impl State {
    /// Starts a call that changes nothing.
    fn look(&self) -> io::Result<()> {
        if self.stopped { Err(power_cut()) } else { Ok(()) }
    }

    /// Starts a call that counts.
    fn change(&mut self) -> io::Result<()> {
        self.look()?;
        if self.stop_after.is_some_and(|n| self.calls >= n) {
            self.stopped = true;
            return Err(power_cut());
        }
        self.calls += 1;
        Ok(())
    }

    fn directory(&mut self, path: &Path) -> io::Result<&mut Directory> {
        self.directories.get_mut(path).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn inode(&self, path: &Path) -> io::Result<Inode> {
        let (directory, name) = split(path)?;
        let found = self.directories.get(directory).and_then(|directory| directory.live.get(name));
        found.cloned().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn add_directories(&mut self, path: &Path) {
        for path in path.ancestors() {
            self.directories.entry(path.to_owned()).or_default();
        }
    }

    /// Refuses `more` bytes that would exceed the capacity, of which `replaced` come back.
    fn reserve(&self, more: u64, replaced: u64) -> io::Result<()> {
        let Some(capacity_bytes) = self.capacity_bytes else { return Ok(()) };
        let files = self.directories.values().flat_map(|directory| directory.live.values());
        let used: u64 = files.map(|inode| inode.lock().live.len() as u64).sum();
        if used.saturating_sub(replaced).saturating_add(more) > capacity_bytes {
            return Err(io::ErrorKind::StorageFull.into());
        }
        Ok(())
    }
}

impl FileSystem for SimFileSystem {
    fn create(&self, path: &Path) -> io::Result<Box<dyn WritableFile>> {
        let mut state = self.state.lock();
        state.change()?;
        let inode = match state.inode(path) {
            Ok(inode) => {
                inode.lock().clear();
                inode
            }
            Err(_) => {
                let (directory, name) = split(path)?;
                let inode = Inode::default();
                state.directory(directory)?.link(name, inode.clone());
                inode
            }
        };
        Ok(Box::new(SimFile { state: self.state.clone(), inode }))
    }

    fn open_append(&self, path: &Path) -> io::Result<Box<dyn WritableFile>> {
        let mut state = self.state.lock();
        state.change()?;
        Ok(Box::new(SimFile { state: self.state.clone(), inode: state.inode(path)? }))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn ReadableFile>> {
        let state = self.state.lock();
        state.look()?;
        Ok(Arc::new(SimFile { state: self.state.clone(), inode: state.inode(path)? }))
    }

    fn create_mapped(&self, path: &Path, len: u64) -> io::Result<Box<dyn MappedFile>> {
        let mut state = self.state.lock();
        state.change()?;
        let (directory, name) = split(path)?;
        let replaced = state.inode(path).map_or(0, |inode| inode.lock().live.len() as u64);
        state.reserve(len, replaced)?;
        let bytes = usize::try_from(len).map_err(|_| io::Error::from(io::ErrorKind::StorageFull))?;
        let directory = state.directory(directory)?;
        let inode = Arc::new(Mutex::new(Contents::zeros(bytes)));
        // As on a real system: the old file is removed and a new one made, and a power cut may come between.
        let _was_there = directory.unlink(name);
        directory.link(name, inode.clone());
        Ok(Box::new(SimFile { state: self.state.clone(), inode }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.state.lock();
        state.change()?;
        let ((directory, from), (to_directory, to)) = (split(from)?, split(to)?);
        if directory != to_directory {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "renames stay in one directory"));
        }
        state.directory(directory)?.rename(from, to).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn hard_link(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.state.lock();
        state.change()?;
        let inode = state.inode(from)?;
        if state.inode(to).is_ok() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let (directory, name) = split(to)?;
        state.directory(directory)?.link(name, inode);
        Ok(())
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state.lock();
        state.change()?;
        let (directory, name) = split(path)?;
        state.directory(directory)?.unlink(name).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn truncate(&self, path: &Path, len: u64) -> io::Result<()> {
        let mut state = self.state.lock();
        state.change()?;
        let inode = state.inode(path)?;
        let mut contents = inode.lock();
        match usize::try_from(len) {
            Ok(len) if len <= contents.live.len() => contents.truncate(len),
            _ => return Err(io::Error::new(io::ErrorKind::InvalidInput, "truncate never lengthens a file")),
        }
        Ok(())
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state.lock();
        state.look()?;
        if !state.directories.contains_key(path) {
            state.change()?;
            state.add_directories(path);
        }
        Ok(())
    }

    fn read_dir(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        let mut state = self.state.lock();
        state.look()?;
        let directory = state.directory(path)?;
        let entry =
            |(name, inode): (&String, &Inode)| DirEntry { name: name.clone(), len: inode.lock().live.len() as u64 };
        let mut entries: Vec<DirEntry> = directory.live.iter().map(entry).collect();
        let below = state.directories.keys().filter(|other| other.parent() == Some(path));
        let names = below.filter_map(|other| Some(other.file_name()?.to_str()?.to_owned()));
        entries.extend(names.map(|name| DirEntry { name, len: 0 }));
        entries.sort();
        Ok(entries)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state.lock();
        state.change()?;
        state.directory(path)?.sync();
        Ok(())
    }

    fn lock(&self, path: &Path, kind: LockKind) -> io::Result<Box<dyn FileLock>> {
        let mut state = self.state.lock();
        state.look()?;
        if state.inode(path).is_err() {
            if kind == LockKind::Shared {
                return Err(io::ErrorKind::NotFound.into());
            }
            let (directory, name) = split(path)?;
            state.directory(directory)?.link(name, Inode::default());
        }
        let holders = match (state.locks.get(path), kind) {
            (None, LockKind::Exclusive) => Holders::Exclusive,
            (None, LockKind::Shared) => Holders::Shared(1),
            (Some(Holders::Shared(n)), LockKind::Shared) => Holders::Shared(n + 1),
            _ => return Err(io::ErrorKind::WouldBlock.into()),
        };
        state.locks.insert(path.to_owned(), holders);
        Ok(Box::new(SimLock { state: self.state.clone(), path: path.to_owned() }))
    }

    fn memory_bytes(&self) -> Option<u64> {
        None
    }
}

#[derive(Debug)]
struct SimLock {
    state: Arc<Mutex<State>>,
    path: PathBuf,
}

impl FileLock for SimLock {}

impl Drop for SimLock {
    fn drop(&mut self) {
        let mut state = self.state.lock();
        match state.locks.get_mut(&self.path) {
            Some(Holders::Shared(n)) if *n > 1 => *n -= 1,
            _ => drop(state.locks.remove(&self.path)),
        }
    }
}

/// An open file, for any use: the simulation has one kind.
#[derive(Clone, Debug)]
struct SimFile {
    state: Arc<Mutex<State>>,
    inode: Inode,
}

impl WritableFile for SimFile {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut state = self.state.lock();
        state.change()?;
        state.reserve(bytes.len() as u64, 0)?;
        let mut contents = self.inode.lock();
        let end = contents.live.len();
        contents.write(end, bytes);
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        self.state.lock().change()?;
        self.inode.lock().sync();
        Ok(())
    }

    fn start_writeback(&mut self, _range: Range<u64>) -> io::Result<()> {
        self.state.lock().change()
    }

    fn len(&self) -> u64 {
        self.inode.lock().live.len() as u64
    }
}

impl ReadableFile for SimFile {
    fn len(&self) -> io::Result<u64> {
        self.state.lock().look()?;
        Ok(self.inode.lock().live.len() as u64)
    }

    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.state.lock().look()?;
        let contents = self.inode.lock();
        let start = usize::try_from(offset).ok();
        let source = start.and_then(|start| contents.live.get(start..start.checked_add(buffer.len())?));
        buffer.copy_from_slice(source.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn map(&self) -> io::Result<Bytes> {
        self.state.lock().look()?;
        Ok(Bytes::copy_from_slice(&self.inode.lock().live))
    }
}

impl MappedFile for SimFile {
    fn len(&self) -> u64 {
        self.inode.lock().live.len() as u64
    }

    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.state.lock().change()?;
        let mut contents = self.inode.lock();
        let fits = offset.checked_add(bytes.len() as u64).is_some_and(|end| end <= contents.live.len() as u64);
        if !fits {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "write past the end of a mapped file"));
        }
        contents.write(offset as usize, bytes);
        Ok(())
    }

    fn syncer(&self) -> Arc<dyn MappedSync> {
        Arc::new(self.clone())
    }
}

impl MappedSync for SimFile {
    fn sync(&self, range: Range<u64>) -> io::Result<()> {
        self.state.lock().change()?;
        let bound = |n: u64| usize::try_from(n).unwrap_or(usize::MAX);
        self.inode.lock().sync_range(bound(range.start)..bound(range.end));
        Ok(())
    }
}
