//! One simulated file's contents and one directory's names: what they are now and what a power cut would leave.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

use super::{Coin, Keep};
use crate::sync::Mutex;

/// What a disk writes as a whole.
const SECTOR_BYTES: usize = 512;

/// A file's contents, shared by its name and its open handles.
pub(super) type Inode = Arc<Mutex<Contents>>;

/// What changed a file and is not durable yet.
#[derive(Clone, Debug)]
enum Pending {
    Write {
        offset: usize,
        bytes: Bytes,
    },
    /// Emptied.
    Clear,
}

/// The bytes of a file: what is durable, and what happened since. A disk may hold each sector as it was at any moment
/// in between: the system writes back when it likes, and again when more was written. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(super) struct Contents {
    /// What a reader sees.
    pub(super) live: Arc<Vec<u8>>,
    /// What is durable. Invariant: `pending`, applied to it in order, gives `live`, wherever both have bytes.
    synced: Arc<Vec<u8>>,
    pending: Vec<Pending>,
}

impl Contents {
    /// Contents that are durable from the start.
    pub(super) fn durable(bytes: Arc<Vec<u8>>) -> Self {
        Contents { live: bytes.clone(), synced: bytes, pending: Vec::new() }
    }

    /// Contents of `len` zeros that are not durable.
    pub(super) fn zeros(len: usize) -> Self {
        let mut contents = Contents::default();
        contents.write(0, &vec![0; len]);
        contents
    }

    /// Writes `bytes` at `offset`, which is at most the length.
    pub(super) fn write(&mut self, offset: usize, bytes: &[u8]) {
        overwrite(Arc::make_mut(&mut self.live), offset, bytes);
        self.pending.push(Pending::Write { offset, bytes: Bytes::copy_from_slice(bytes) });
    }

    /// Empties the file; not durable.
    pub(super) fn clear(&mut self) {
        self.live = Arc::default();
        self.pending.push(Pending::Clear);
    }

    /// Makes everything durable.
    pub(super) fn sync(&mut self) {
        self.synced = self.live.clone();
        self.pending.clear();
    }

    /// Makes the bytes of `range` durable, and as much of the length as they need: the least that a system promises.
    pub(super) fn sync_range(&mut self, range: Range<usize>) {
        if self.pending.iter().any(|pending| matches!(pending, Pending::Clear)) {
            // Nobody maps a file that was emptied and not synced since.
            return self.sync();
        }
        let end = range.end.min(self.live.len());
        let start = range.start.min(end);
        let synced = Arc::make_mut(&mut self.synced);
        if synced.len() < end {
            synced.resize(end, 0);
        }
        synced[start..end].copy_from_slice(&self.live[start..end]);
        let outside = |pending: &Pending| pending.outside(start, end);
        self.pending = self.pending.iter().flat_map(outside).collect();
    }

    /// Shortens the file, durably; what of the rest is durable stays as it is.
    pub(super) fn truncate(&mut self, len: usize) {
        Arc::make_mut(&mut self.live).truncate(len);
        Arc::make_mut(&mut self.synced).truncate(len);
        let below = |pending: &Pending| match pending {
            Pending::Clear => vec![Pending::Clear],
            write => write.outside(len, usize::MAX),
        };
        self.pending = self.pending.iter().flat_map(below).collect();
    }

    /// Inverts one bit, durably.
    pub(super) fn flip_bit(&mut self, offset: usize, bit: u32) {
        for bytes in [&mut self.live, &mut self.synced] {
            if let Some(byte) = Arc::make_mut(bytes).get_mut(offset) {
                *byte ^= 1 << (bit % 8);
            }
        }
    }

    /// What a power cut leaves.
    pub(super) fn after_power_cut(&self, keep: Keep, coin: &mut Coin) -> Contents {
        match keep {
            Keep::Nothing => Contents::durable(self.synced.clone()),
            Keep::All => Contents::durable(self.live.clone()),
            Keep::Some if self.pending.is_empty() => Contents::durable(self.synced.clone()),
            Keep::Some => Contents::durable(Arc::new(self.torn(coin))),
        }
    }

    /// Every sector as it was at a moment of its own, and the length of yet another moment.
    fn torn(&self, coin: &mut Coin) -> Vec<u8> {
        coin.take_bias();
        let newest = self.pending.len();
        let lengths = self.lengths();
        let longest = lengths.iter().copied().max().unwrap_or(0);
        let moments: Vec<usize> = (0..longest.div_ceil(SECTOR_BYTES)).map(|_| coin.moment(newest)).collect();
        let mut bytes = self.synced.to_vec();
        bytes.resize(longest, 0);
        for (at, pending) in self.pending.iter().enumerate() {
            for sector in pending.sectors(moments.len()).filter(|&sector| at < moments[sector]) {
                pending.apply_to(&mut bytes, sector);
            }
        }
        let moment = coin.moment(newest);
        let (before, after) = (lengths[moment.saturating_sub(1)], lengths[moment]);
        // A long append grows the file step by step.
        let within = (before / SECTOR_BYTES + 1) * SECTOR_BYTES;
        let grown_by_part = within < after && coin.next().is_multiple_of(4);
        bytes.truncate(if grown_by_part {
            within + (coin.next() as usize % (after - within)) / SECTOR_BYTES * SECTOR_BYTES
        } else {
            after
        });
        bytes
    }

    /// The length before each change that is pending, and after the last.
    fn lengths(&self) -> Vec<usize> {
        let mut len = self.synced.len();
        let mut lengths = vec![len];
        for pending in &self.pending {
            len = match pending {
                Pending::Write { offset, bytes } => len.max(offset + bytes.len()),
                Pending::Clear => 0,
            };
            lengths.push(len);
        }
        lengths
    }
}

/// Writes `bytes` at `offset` of `file`, which grows as needed.
fn overwrite(file: &mut Vec<u8>, offset: usize, bytes: &[u8]) {
    let end = offset + bytes.len();
    if file.len() < end {
        file.resize(end, 0);
    }
    file[offset..end].copy_from_slice(bytes);
}

impl Pending {
    /// What of a write lies before `start` or from `end` on.
    fn outside(&self, start: usize, end: usize) -> Vec<Pending> {
        let Pending::Write { offset, bytes } = self else { return Vec::new() };
        let before = ..start.saturating_sub(*offset).min(bytes.len());
        let after = end.saturating_sub(*offset).min(bytes.len()).max(before.end)..;
        let parts = [(*offset, bytes.slice(before)), (offset + after.start, bytes.slice(after))];
        let parts = parts.into_iter().filter(|(_, bytes)| !bytes.is_empty());
        parts.map(|(offset, bytes)| Pending::Write { offset, bytes }).collect()
    }

    /// The sectors that it touches, of `count`.
    fn sectors(&self, count: usize) -> Range<usize> {
        match self {
            Pending::Clear => 0..count,
            Pending::Write { offset, bytes } => {
                offset / SECTOR_BYTES..(offset + bytes.len()).div_ceil(SECTOR_BYTES).min(count)
            }
        }
    }

    /// Does to one sector of `file` what this does to all of them.
    fn apply_to(&self, file: &mut [u8], sector: usize) {
        let (start, end) = (sector * SECTOR_BYTES, ((sector + 1) * SECTOR_BYTES).min(file.len()));
        match self {
            Pending::Clear => file[start..end].fill(0),
            Pending::Write { offset, bytes } => {
                let (from, to) = (start.max(*offset), end.min(offset + bytes.len()));
                if from < to {
                    file[from..to].copy_from_slice(&bytes[from - offset..to - offset]);
                }
            }
        }
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

    /// The same names, now and as of the last sync, of other inodes: `copy` is asked for each.
    pub(super) fn copy(&self, mut copy: impl FnMut(&Inode) -> Inode) -> Directory {
        let mut names = |names: &BTreeMap<String, Inode>| {
            names.iter().map(|(name, inode)| (name.clone(), copy(inode))).collect::<BTreeMap<_, _>>()
        };
        let (live, synced) = (names(&self.live), names(&self.synced));
        let change = |change: &Change| match change {
            Change::Link(name, inode) => Change::Link(name.clone(), copy(inode)),
            Change::Unlink(name, inode) => Change::Unlink(name.clone(), copy(inode)),
            Change::Rename(from, to, inode) => Change::Rename(from.clone(), to.clone(), copy(inode)),
        };
        Directory { live, synced, pending: self.pending.iter().map(change).collect() }
    }

    /// The names a power cut leaves. Each change happens whole or not at all, as in a journal, but independently of the
    /// others.
    pub(super) fn after_power_cut(&self, keep: Keep, coin: &mut Coin) -> BTreeMap<String, Inode> {
        if keep == Keep::All {
            return self.live.clone();
        }
        coin.take_bias();
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
