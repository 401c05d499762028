//! One simulated file's contents and one directory's names: what they are now and what a power cut would leave.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use crate::sync::Mutex;

use super::{Coin, Keep};

/// What a disk writes as a whole.
const SECTOR_BYTES: usize = 512;

/// A file's contents, shared by its name and its open handles.
pub(super) type Inode = Arc<Mutex<Contents>>;

/// The bytes of a file, twice.
#[derive(Clone, Debug, Default)]
pub(super) struct Contents {
    /// What a reader sees.
    pub(super) live: Vec<u8>,
    /// What is durable. Invariant: outside `dirty` the two agree wherever both have bytes.
    synced: Vec<u8>,
    dirty: Range<usize>,
}

impl Contents {
    /// Contents that are durable from the start.
    pub(super) fn durable(bytes: Vec<u8>) -> Self {
        Contents { live: bytes.clone(), synced: bytes, dirty: 0..0 }
    }

    /// Contents of `len` zeros that are not durable.
    pub(super) fn zeros(len: usize) -> Self {
        Contents { live: vec![0; len], synced: Vec::new(), dirty: 0..len }
    }

    /// Writes `bytes` at `offset`, which is at most the length.
    pub(super) fn write(&mut self, offset: usize, bytes: &[u8]) {
        let end = offset + bytes.len();
        if self.live.len() < end {
            self.live.resize(end, 0);
        }
        self.live[offset..end].copy_from_slice(bytes);
        self.dirty =
            if self.dirty.is_empty() { offset..end } else { self.dirty.start.min(offset)..self.dirty.end.max(end) };
    }

    /// Empties the file; not durable.
    pub(super) fn clear(&mut self) {
        self.live.clear();
        self.dirty = 0..self.synced.len();
    }

    /// Makes everything durable.
    pub(super) fn sync(&mut self) {
        self.synced.resize(self.live.len(), 0);
        let dirty = self.dirty.start.min(self.live.len())..self.dirty.end.min(self.live.len());
        self.synced[dirty.clone()].copy_from_slice(&self.live[dirty]);
        self.dirty = 0..0;
    }

    /// Makes the bytes of `range` durable, and as much of the length as they need: the least that a system promises.
    pub(super) fn sync_range(&mut self, range: Range<usize>) {
        let end = range.end.min(self.live.len());
        let start = range.start.min(end);
        if self.synced.len() < end {
            self.synced.resize(end, 0);
        }
        self.synced[start..end].copy_from_slice(&self.live[start..end]);
    }

    /// Shortens the file, durably; what of the rest is durable stays as it is.
    pub(super) fn truncate(&mut self, len: usize) {
        self.live.truncate(len);
        self.synced.truncate(len);
    }

    /// Inverts one bit, durably.
    pub(super) fn flip_bit(&mut self, offset: usize, bit: u32) {
        for bytes in [&mut self.live, &mut self.synced] {
            if let Some(byte) = bytes.get_mut(offset) {
                *byte ^= 1 << (bit % 8);
            }
        }
    }

    /// What a power cut leaves.
    pub(super) fn after_power_cut(&self, keep: Keep, coin: &mut Coin) -> Contents {
        match keep {
            Keep::Nothing => Contents::durable(self.synced.clone()),
            Keep::All => Contents::durable(self.live.clone()),
            Keep::Some => Contents::durable(self.torn(coin)),
        }
    }

    fn torn(&self, coin: &mut Coin) -> Vec<u8> {
        let keeps_len = self.live.len() == self.synced.len() || !coin.toss();
        let mut bytes = self.synced.clone();
        if !keeps_len {
            bytes.resize(self.live.len(), 0);
        }
        let shared = bytes.len().min(self.live.len());
        for (old, new) in bytes[..shared].chunks_mut(SECTOR_BYTES).zip(self.live[..shared].chunks(SECTOR_BYTES)) {
            if old != new && coin.toss() {
                old.copy_from_slice(new);
            }
        }
        bytes
    }
}

/// A change of names that is not durable yet.
#[derive(Clone, Debug)]
enum Change {
    Link(String, Inode),
    Unlink(String, Inode),
    Rename(String, String, Inode),
}

/// The names of a directory, now and as of the last sync.
#[derive(Clone, Debug, Default)]
pub(super) struct Directory {
    pub(super) live: BTreeMap<String, Inode>,
    synced: BTreeMap<String, Inode>,
    /// What leads from `synced` to `live`, in order.
    pending: Vec<Change>,
}

impl Directory {
    pub(super) fn link(&mut self, name: &str, inode: Inode) {
        self.live.insert(name.to_owned(), inode.clone());
        self.pending.push(Change::Link(name.to_owned(), inode));
    }

    /// Removes a name; `None` if it is not there.
    pub(super) fn unlink(&mut self, name: &str) -> Option<()> {
        let inode = self.live.remove(name)?;
        self.pending.push(Change::Unlink(name.to_owned(), inode));
        Some(())
    }

    /// Renames a file over whatever has the new name; `None` if the old one is not there.
    pub(super) fn rename(&mut self, from: &str, to: &str) -> Option<()> {
        let inode = self.live.remove(from)?;
        self.live.insert(to.to_owned(), inode.clone());
        self.pending.push(Change::Rename(from.to_owned(), to.to_owned(), inode));
        Some(())
    }

    /// Makes all names durable.
    pub(super) fn sync(&mut self) {
        self.synced = self.live.clone();
        self.pending.clear();
    }

    /// Makes one name durable.
    pub(super) fn link_durably(&mut self, name: &str, inode: Inode) {
        self.live.insert(name.to_owned(), inode.clone());
        self.synced.insert(name.to_owned(), inode);
    }

    /// The names a power cut leaves. Each change happens whole or not at all, as in a journal, but independently of the
    /// others.
    pub(super) fn after_power_cut(&self, keep: Keep, coin: &mut Coin) -> BTreeMap<String, Inode> {
        if keep == Keep::All {
            return self.live.clone();
        }
        let mut names = self.synced.clone();
        for change in &self.pending {
            if keep == Keep::Nothing || !coin.toss() {
                continue;
            }
            let points_to = |names: &BTreeMap<String, Inode>, name: &str, inode: &Inode| {
                names.get(name).is_some_and(|found| Arc::ptr_eq(found, inode))
            };
            match change {
                Change::Link(name, inode) => {
                    names.insert(name.clone(), inode.clone());
                }
                Change::Unlink(name, inode) => {
                    if points_to(&names, name, inode) {
                        names.remove(name);
                    }
                }
                Change::Rename(from, to, inode) => {
                    if points_to(&names, from, inode) {
                        names.remove(from);
                    }
                    names.insert(to.clone(), inode.clone());
                }
            }
        }
        names
    }
}
