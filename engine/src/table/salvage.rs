//! What a damaged table still holds: the entries of every data block that checks out.
//!
//! Where the index is intact it says where the blocks are. Where it is not they are found by their checksums: sections
//! lie one after the other, each ends where the checksum of what came since its start follows, and the seed of that
//! checksum is the section's own place, so that a value which holds a copy of a block does not pass for one.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;

use super::block::{Block, Reason};
use super::format::{FOOTER_BYTES, FORMAT_VERSION, Footer, Handle, MAGIC, TAG_LZ4, decompress, section_end, unseal};
use super::index::Index;
use super::properties::{Origin, Properties};
use crate::damage::Damage;
use crate::error::{Error, Result};
use crate::fs::{FileSystem, ReadableFile};
use crate::key::Trailer;

/// How far the end of a section is looked for when even its beginning is a guess, in bytes.
const SEARCH_BYTES: usize = 256 << 10;

/// Is called with an entry's key, trailer and value.
pub(crate) type EachEntry<'a> = dyn FnMut(&[u8], Trailer, &[u8]) -> Result<()> + 'a;

/// A table whose blocks are known as far as they can be.
#[derive(Debug)]
pub(crate) struct SalvagedTable {
    file: Arc<dyn ReadableFile>,
    path: PathBuf,
    /// Which table it is: as its footer says, if that is intact, else as its file is named.
    pub(crate) number: u64,
    /// Whose it is, if its properties are intact.
    pub(crate) origin: Option<Origin>,
    /// How many entries it had, likewise.
    pub(crate) entries: Option<u64>,
    /// What does not check out, data blocks that were not read yet excepted.
    pub(crate) damage: Vec<Damage>,
    /// The version that the footer states, if it is none that this release knows.
    newer: Option<u32>,
    blocks: Vec<Handle>,
}

impl SalvagedTable {
    /// Looks for the blocks of the table in the file of table `named`. Takes as much memory as the index, or where that
    /// is damaged as the file.
    ///
    /// # Errors
    /// `Io`.
    pub(crate) fn open(fs: &dyn FileSystem, path: &Path, named: u64) -> Result<Self> {
        let file = fs.open(path).map_err(Error::io("open", path))?;
        let file_bytes = file.len().map_err(Error::io("read the length of", path))?;
        let mut table = SalvagedTable {
            file,
            path: path.to_owned(),
            number: named,
            origin: None,
            entries: None,
            damage: Vec::new(),
            newer: None,
            blocks: Vec::new(),
        };
        let footer = table.read_footer(file_bytes)?;
        let data_bytes = match footer {
            Some(footer) => {
                let properties = table.section(footer.properties)?.and_then(|payload| Properties::decode(&payload));
                table.keep_properties(footer.properties, properties);
                let index = table.section(footer.index)?.and_then(|payload| Index::new(payload, footer.filter.offset));
                match index.and_then(|index| (0..index.len()).map(|ordinal| index.handle(ordinal)).collect()) {
                    Ok(blocks) => {
                        table.blocks = blocks;
                        table.check_filter(footer.filter)?;
                        return Ok(table);
                    }
                    Err(reason) => table.note(footer.index, reason),
                }
                footer.filter.offset
            }
            None => file_bytes,
        };
        table.scan(data_bytes)?;
        Ok(table)
    }

    /// The footer, if its checksum fits: version and magic, which that does not cover, are noted where they are wrong.
    fn read_footer(&mut self, file_bytes: u64) -> Result<Option<Footer>> {
        let Some(at) = file_bytes.checked_sub(FOOTER_BYTES as u64) else {
            self.damage.push(Damage::new(0, file_bytes, "a file shorter than a table's footer"));
            return Ok(None);
        };
        let mut bytes = [0; FOOTER_BYTES];
        self.file.read_exact_at(&mut bytes, at).map_err(Error::io("read", &self.path))?;
        let (_, tail) = bytes.split_at_mut(FOOTER_BYTES - 12);
        let (version, magic) = tail.split_at_mut(4);
        let stated = version.first_chunk().map_or(0, |version| u32::from_le_bytes(*version));
        let (right_version, right_magic) = (stated == FORMAT_VERSION, magic == MAGIC);
        version.copy_from_slice(&FORMAT_VERSION.to_le_bytes());
        magic.copy_from_slice(&MAGIC);
        let number = bytes.first_chunk().map_or(0, |number| u64::from_le_bytes(*number));
        let footer = match Footer::decode(&bytes, file_bytes, number, &self.path) {
            Ok(footer) => footer,
            Err(error) => {
                self.damage.push(Damage::of(error, FOOTER_BYTES as u64)?);
                return Ok(None);
            }
        };
        if !right_version || !right_magic {
            self.damage.push(Damage::new(at + 48, 12, format!("version {stated} or magic are wrong, the rest fits")));
            self.newer = Some(stated).filter(|_| right_magic && stated > FORMAT_VERSION);
        }
        if number != self.number {
            self.damage.push(Damage::new(at, 0, format!("it is table {number} under another name")));
            self.number = number;
        }
        Ok(Some(footer))
    }

    fn note(&mut self, handle: Handle, reason: Reason) {
        self.damage.push(Damage::new(handle.offset, handle.stored_bytes.into(), reason));
    }

    fn keep_properties(&mut self, handle: Handle, properties: std::result::Result<Properties, Reason>) {
        match properties {
            Ok(properties) => {
                self.origin = Some(properties.origin);
                self.entries = Some(properties.entries);
            }
            Err(reason) => self.note(handle, reason),
        }
    }

    /// The filter is made anew, so nothing is lost with it.
    fn check_filter(&mut self, handle: Handle) -> Result<()> {
        if handle.stored_bytes > 0
            && let Err(reason) = self.section(handle)?
        {
            self.note(handle, reason);
        }
        Ok(())
    }

    /// The payload of a section that lies inside the file, decoded.
    fn section(&self, handle: Handle) -> Result<std::result::Result<Bytes, Reason>> {
        let file_bytes = self.file.len().map_err(Error::io("read the length of", &self.path))?;
        if handle.end().is_none_or(|end| end > file_bytes) {
            return Ok(Err("a section beyond the end of the file"));
        }
        let mut stored = vec![0; handle.stored_bytes as usize];
        self.file.read_exact_at(&mut stored, handle.offset).map_err(Error::io("read", &self.path))?;
        Ok(open_section(&stored.into(), self.number, handle.offset))
    }

    /// Finds sections by their checksums, from the beginning up to `data_bytes`: data blocks, and behind them what tells
    /// whose they are.
    fn scan(&mut self, data_bytes: u64) -> Result<()> {
        let mut bytes = vec![0; data_bytes as usize];
        self.file.read_exact_at(&mut bytes, 0).map_err(Error::io("read", &self.path))?;
        let (bytes, mut at, mut behind_index) = (Bytes::from(bytes), 0, false);
        while at < bytes.len() {
            let found = section_end(&bytes, self.number, at, bytes.len()).map(|end| (at, end));
            let Some((start, end)) = found.or_else(|| self.next_section(&bytes, at + 1)) else { break };
            if start > at {
                self.damage.push(Damage::new(at as u64, (start - at) as u64, "no section that checks out"));
            }
            let handle = Handle { offset: start as u64, stored_bytes: (end - start) as u32 };
            at = end;
            let Ok(payload) = open_section(&bytes.slice(start..end), self.number, handle.offset) else { continue };
            if behind_index {
                if let Ok(properties) = Properties::decode(&payload) {
                    self.keep_properties(handle, Ok(properties));
                }
                break;
            }
            if self.is_index(&payload, handle.offset) {
                behind_index = true;
            } else if Block::parse(payload).is_ok_and(|block| block.check_entries().is_ok()) {
                self.blocks.push(handle);
            }
        }
        if at < bytes.len() && !behind_index {
            self.damage.push(Damage::new(at as u64, (bytes.len() - at) as u64, "no section that checks out"));
        }
        Ok(())
    }

    /// The next place where a section seems to begin and does end.
    fn next_section(&self, bytes: &[u8], from: usize) -> Option<(usize, usize)> {
        let longest = self.blocks.iter().map(|handle| handle.stored_bytes as usize).max().unwrap_or(0);
        let search_bytes = SEARCH_BYTES.max(4 * longest);
        let candidates = (from..bytes.len()).filter(|&start| may_begin_block(&bytes[start..]));
        candidates
            .filter_map(|start| {
                let limit = bytes.len().min(start + search_bytes);
                section_end(bytes, self.number, start, limit).map(|end| (start, end))
            })
            .find(|&(start, end)| {
                let payload = open_section(&Bytes::copy_from_slice(&bytes[start..end]), self.number, start as u64);
                payload.is_ok_and(|payload| Block::parse(payload).is_ok_and(|block| block.check_entries().is_ok()))
            })
    }

    /// Whether a section at `at` is the table's index: then its entries name one block after the other from the beginning
    /// of the file on, before the index, and every block that was found.
    fn is_index(&self, payload: &Bytes, at: u64) -> bool {
        let Ok(block) = Block::parse(payload.clone()) else { return false };
        if block.check_entries().is_err() || block.len() < self.blocks.len().max(1) {
            return false;
        }
        let handle = |i: usize| block.value(i).first_chunk().map(Handle::decode);
        let mut end = 0;
        let tiles = (0..block.len()).all(|i| {
            let found = handle(i).filter(|handle| handle.offset == end);
            end = found.and_then(Handle::end).unwrap_or(0);
            found.is_some() && block.trailer(i).is_put()
        });
        tiles && end <= at && self.blocks.iter().all(|known| (0..block.len()).any(|i| handle(i) == Some(*known)))
    }

    /// Calls `each` for every entry of every data block that checks out, in order; how many there were. Notes the blocks
    /// that do not.
    ///
    /// # Errors
    /// `UnsupportedVersion` if the table says that a newer release wrote it and not all of it reads as one of this
    /// release; `Io`; the first error of `each`.
    pub(crate) fn for_each(&mut self, each: &mut EachEntry<'_>) -> Result<u64> {
        let (mut key, mut last_key, mut last) = (Vec::new(), Vec::new(), None::<Trailer>);
        let mut entries = 0;
        for handle in std::mem::take(&mut self.blocks) {
            let block = self.section(handle)?.and_then(|payload| {
                let block = Block::parse(payload)?;
                block.check_entries().and_then(|()| block.check_order())?;
                if block.len() == 0 { Err("a data block without entries") } else { Ok(block) }
            });
            let block = block.and_then(|block| {
                block.key_into(0, &mut key);
                let follows = last.is_none_or(|last| (&last_key, block.trailer(0).seqno()) < (&key, last.seqno()));
                if follows { Ok(block) } else { Err("a block that begins before the one before it ends") }
            });
            let block = match block {
                Ok(block) => block,
                Err(reason) => {
                    self.note(handle, reason);
                    continue;
                }
            };
            for i in 0..block.len() {
                block.key_into(i, &mut key);
                each(&key, block.trailer(i), block.value(i))?;
            }
            entries += block.len() as u64;
            last = Some(block.trailer(block.len() - 1));
            std::mem::swap(&mut key, &mut last_key);
        }
        match self.newer {
            Some(found) if self.damage.len() > 1 => {
                Err(Error::UnsupportedVersion { file: self.path.clone(), found, supported: FORMAT_VERSION })
            }
            _ => Ok(entries),
        }
    }
}

/// A section's payload, decoded.
fn open_section(stored: &Bytes, number: u64, offset: u64) -> std::result::Result<Bytes, Reason> {
    match unseal(stored, number, offset)? {
        (TAG_LZ4, payload) => decompress(payload).map(Bytes::from),
        (_, payload) => Ok(stored.slice_ref(payload)),
    }
}

/// Whether a data block may begin here, as it is or compressed: a quick look that spares most places the search for
/// where a section that begins there would end.
fn may_begin_block(bytes: &[u8]) -> bool {
    let Some(head) = bytes.first_chunk::<26>() else { return false };
    let count = u32::from_le_bytes([head[0], head[1], head[2], head[3]]);
    let (flags, width, base_top) = (head[4], head[5], head[15]);
    // Sequence numbers leave the top byte of the smallest one free.
    let plain = count > 0 && flags < 32 && matches!(width, 0 | 1 | 2 | 4 | 8) && base_top == 0;
    // The decoded length, then LZ4: a block has at least its fixed part.
    let compressed = (26..4 * SEARCH_BYTES as u32).contains(&count);
    plain || compressed
}

#[cfg(test)]
mod tests {
    use super::super::builder::TableWriteOptions;
    use super::super::handle::table_path;
    use super::super::testing::{Entry, MemFs, dir, write_table};
    use super::*;
    use crate::key::ValueKind;

    /// Entries of which several fit a block, some with a whole other table for a value.
    fn entries(count: u32, noise: &[u8]) -> Vec<Entry> {
        let value = |n: u32| if n % 5 == 3 { noise.to_vec() } else { format!("{n} silt silt silt").into_bytes() };
        let entry =
            |n: u32| (format!("key {n:04}").into_bytes(), Trailer::new(u64::from(n) + 1, ValueKind::Put), value(n));
        (0..count).map(entry).collect()
    }

    fn made(fs: &MemFs, number: u64, compress: bool, entries: &[Entry]) -> Vec<u8> {
        let options = TableWriteOptions { block_bytes: 200, filter_bits_per_key: 10, compress, append_bytes: 1 << 20 };
        write_table(fs, number, options, entries).unwrap();
        fs.bytes(&table_path(&dir(), number))
    }

    fn salvaged(fs: &MemFs, bytes: Vec<u8>) -> (Vec<Entry>, SalvagedTable) {
        let path = table_path(&dir(), 7);
        fs.put(&path, bytes);
        let mut table = SalvagedTable::open(fs, &path, 7).unwrap();
        let mut found = Vec::new();
        let each = &mut |key: &[u8], trailer: Trailer, value: &[u8]| {
            found.push((key.to_vec(), trailer, value.to_vec()));
            Ok(())
        };
        assert_eq!(table.for_each(each).unwrap(), found.len() as u64);
        (found, table)
    }

    fn blocks(fs: &MemFs) -> Vec<Handle> {
        SalvagedTable::open(fs, &table_path(&dir(), 7), 7).unwrap().blocks
    }

    #[test]
    fn blocks_are_found_without_an_index_and_behind_damage() {
        for compress in [false, true] {
            let fs = MemFs::default();
            let noise = made(&fs, 8, compress, &entries(20, b"noise"));
            let all = entries(60, &noise[..300]);
            let intact = made(&fs, 7, compress, &all);
            let places = blocks(&fs);
            assert!(places.len() > 8, "{} blocks", places.len());
            let (found, table) = salvaged(&fs, intact.clone());
            assert!(found == all && table.damage.is_empty());

            // The footer, and with it the way to the index.
            let mut damaged = intact.clone();
            let footer = damaged.len() - 40;
            damaged[footer] ^= 1;
            let (found, table) = salvaged(&fs, damaged.clone());
            assert!(found == all, "{compress}: {} of {}", found.len(), all.len());
            assert!(table.origin.is_some() && table.entries == Some(60), "the properties lie behind the index");

            // And a block: those before and behind it are there.
            for lost in &places {
                let mut damaged = damaged.clone();
                damaged[lost.offset as usize + 9] ^= 4;
                let (found, table) = salvaged(&fs, damaged);
                let without = places.iter().filter(|place| *place != lost).count();
                assert!(found.iter().all(|entry| all.contains(entry)), "{compress}: made up");
                assert!(found.len() < all.len() && found.len() * (without + 1) >= all.len(), "{compress} {lost:?}");
                assert!(table.damage.iter().any(|damage| damage.offset == lost.offset), "{:?}", table.damage);
                let (first, last) = (&all[0], &all[all.len() - 1]);
                assert!(*lost == places[0] || found.contains(first));
                assert!(*lost == places[places.len() - 1] || found.contains(last), "{compress} {lost:?}");
            }
        }
    }

    #[test]
    fn a_block_that_a_value_holds_a_copy_of_is_not_found() {
        let fs = MemFs::default();
        let inner = made(&fs, 7, false, &entries(3, b"from another time"));
        let entries = [(b"k".to_vec(), Trailer::new(9, ValueKind::Put), inner)];
        let mut outer = made(&fs, 7, false, &entries);
        let footer = outer.len() - 40;
        outer[footer] ^= 1;
        outer[0] ^= 1;
        assert_eq!(salvaged(&fs, outer).0, []);
    }
}
