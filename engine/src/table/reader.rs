//! Reading a table.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;

use super::TableMeta;
use super::bits::Bits;
use super::block::{Block, Reason};
use super::filter::{Filter, LINE_BYTES};
use super::format::{FOOTER_BYTES, Footer, Handle, TAG_LZ4, TAG_RAW, TRAILER_BYTES, decompress, unseal};
use super::handle::OpenLease;
use super::index::Index;
use super::properties::Properties;
use super::readahead::ReadAhead;
use crate::cache::{BlockCache, BlockKey};
use crate::error::{Error, Result};
use crate::fs::{FileSystem, ReadableFile};
use crate::key::{Lookup, SeqNo, Trailer};
use crate::prefetch::{self, prefetch_at};
use crate::slice::Slice;

/// How many lines of a block a get asks for at once: those of the columns, buckets and rests of a block of 4 KiB with
/// values of about 100 bytes. Measured: 12 beat 8, 4 and none by 25, 60 and 140 of about 500 ns a get.
const PREFETCH_LINES: usize = 12;

/// How a table's file is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ReadMode {
    /// Through memory: uncompressed blocks in place.
    Map,
    /// By positioned reads: all blocks through the block cache.
    Pread,
}

/// Where the file's bytes come from.
#[derive(Debug)]
enum Source {
    Map(Bytes),
    File(Arc<dyn ReadableFile>),
}

/// An open table. Filter, index and properties were verified when it was opened; each data block is before it is first
/// used.
#[derive(Debug)]
pub(crate) struct Table {
    path: PathBuf,
    number: u64,
    source: Source,
    index: Index,
    filter: Option<Filter>,
    properties: Properties,
    /// The number of all entries where the file does not know it; see [`Origin`](super::properties::Origin).
    seqno: Option<SeqNo>,
    /// One bit a data block: it is uncompressed, mapped, and was found intact. All clear when not mapped.
    verified: Bits,
    /// Those found compressed, which are read through the cache. All clear when not mapped.
    compressed: Bits,
    cache: Arc<BlockCache>,
    /// Counts the table as open as long as it lives.
    lease: Option<OpenLease>,
}

/// An entry that was found in a table.
#[derive(Debug)]
pub(crate) struct TableHit<'t> {
    /// Its sequence number and kind; tombstones are hits.
    pub(crate) trailer: Trailer,
    value: HitValue<'t>,
}

#[derive(Debug)]
enum HitValue<'t> {
    Mapped { owner: &'t Bytes, value: &'t [u8] },
    Cached { owner: Bytes, range: Range<usize> },
}

impl TableHit<'_> {
    /// The value; empty for a tombstone.
    #[inline]
    pub(crate) fn value(&self) -> &[u8] {
        match &self.value {
            HitValue::Mapped { value, .. } => value,
            HitValue::Cached { owner, range } => owner.get(range.clone()).unwrap_or_default(),
        }
    }

    /// The value, independent of the table: small ones copied, larger ones pinning what they lie in.
    #[inline]
    pub(crate) fn into_slice(self) -> Slice {
        match &self.value {
            HitValue::Mapped { owner, value } => Slice::pin(owner, value),
            HitValue::Cached { owner, .. } => Slice::pin(owner, self.value()),
        }
    }
}

impl Table {
    /// Opens table `number` at `path` and verifies everything but its data blocks.
    ///
    /// # Errors
    /// `Io`, `Corruption`, `UnsupportedVersion`.
    pub(crate) fn open(
        fs: &dyn FileSystem,
        path: &Path,
        number: u64,
        mode: ReadMode,
        cache: &Arc<BlockCache>,
    ) -> Result<Table> {
        let file = fs.open(path).map_err(Error::io("open", path))?;
        let (source, file_bytes) = match mode {
            ReadMode::Map => {
                let map = file.map().map_err(Error::io("map", path))?;
                let file_bytes = map.len() as u64;
                (Source::Map(map), file_bytes)
            }
            ReadMode::Pread => {
                let file_bytes = file.len().map_err(Error::io("read the length of", path))?;
                (Source::File(file), file_bytes)
            }
        };
        let damaged = |offset: u64, reason: &str| Error::corruption(path, offset, reason);
        let Some(footer_at) = file_bytes.checked_sub(FOOTER_BYTES as u64) else {
            return Err(damaged(0, "a file shorter than a table's footer"));
        };
        let footer = source.read(path, footer_at, FOOTER_BYTES, 0)?;
        let footer = footer.first_chunk().ok_or_else(|| damaged(footer_at, "a footer cut short"))?;
        let footer = Footer::decode(footer, file_bytes, number, path)?;

        let properties = source.section(path, number, footer.properties, 0)?;
        let properties = Properties::decode(&properties).map_err(|reason| damaged(footer.properties.offset, reason))?;
        let index = source.section(path, number, footer.index, 0)?;
        let index = Index::new(index, footer.filter.offset).map_err(|reason| damaged(footer.index.offset, reason))?;
        if index.len() as u64 != properties.data_blocks {
            return Err(damaged(footer.index.offset, "index and properties disagree on the number of data blocks"));
        }
        let filter = open_filter(&source, path, number, footer.filter, properties.filter_probes)?;
        let mapped_blocks = if mode == ReadMode::Map { index.len() } else { 0 };
        Ok(Table {
            path: path.to_owned(),
            number,
            source,
            index,
            filter,
            properties,
            seqno: None,
            verified: Bits::new(mapped_blocks),
            compressed: Bits::new(mapped_blocks),
            cache: Arc::clone(cache),
            lease: None,
        })
    }

    /// Gives the entries of an ingested table the number that the manifest states. Only before the first read. Where
    /// the manifest cannot be right about the table, its own number stays, and shows as a difference between the two.
    pub(crate) fn number_as(&mut self, stated: &TableMeta) {
        let properties = &mut self.properties;
        let is_one = stated.min_seqno == stated.max_seqno && stated.max_seqno >= properties.max_seqno;
        if properties.origin.ingested && is_one {
            (properties.min_seqno, properties.max_seqno) = (stated.min_seqno, stated.max_seqno);
            self.seqno = Some(stated.max_seqno);
        }
    }

    /// Counts the table as open until it is dropped.
    pub(crate) fn set_lease(&mut self, lease: OpenLease) {
        self.lease = Some(lease);
    }

    /// Whether a key of this hash may be in the table; `false` is certain. `true` without a filter.
    #[inline]
    pub(crate) fn may_contain(&self, hash: u64) -> bool {
        self.filter.as_ref().is_none_or(|filter| filter.may_contain(hash))
    }

    /// Starts loading what [`may_contain`](Table::may_contain) will look at.
    #[inline]
    pub(crate) fn prefetch_filter(&self, hash: u64) {
        if let Some(filter) = &self.filter {
            filter.prefetch(hash);
        }
    }

    /// The heap the table holds, in bytes, without cached blocks.
    pub(crate) fn memory_bytes(&self) -> u64 {
        let held = match &self.source {
            Source::Map(_) => 0,
            Source::File(_) => self.index.bytes() + self.filter.as_ref().map_or(0, Filter::bytes),
        };
        let keys = self.properties.smallest.len() + self.properties.largest.len() + self.properties.origin.name.len();
        let bits = self.verified.bytes() + self.compressed.bytes();
        (size_of::<Table>() + held + keys + self.index.extra_bytes() + bits) as u64
    }

    /// Bytes of the file that are mapped; 0 in [`ReadMode::Pread`].
    pub(crate) fn mapped_bytes(&self) -> u64 {
        match &self.source {
            Source::Map(map) => map.len() as u64,
            Source::File(_) => 0,
        }
    }

    /// The table's counts and bounds.
    pub(crate) fn properties(&self) -> &Properties {
        &self.properties
    }

    /// What a manifest would say of the table.
    ///
    /// # Errors
    /// `Io`.
    pub(crate) fn meta(&self) -> Result<TableMeta> {
        let file_bytes = match &self.source {
            Source::Map(map) => map.len() as u64,
            Source::File(file) => file.len().map_err(Error::io("read the length of", &self.path))?,
        };
        Ok(self.properties.meta(self.number, file_bytes))
    }

    /// Every write to the table's keyspace up to this number was in tables when this one was written.
    pub(crate) fn flushed_seqno(&self) -> SeqNo {
        self.properties.origin.flushed_seqno
    }

    /// Up to `count` keys that cut the table's data into parts of about the same size.
    pub(crate) fn sample_keys(&self, count: usize) -> Vec<Bytes> {
        let blocks = self.index.len();
        let count = count.min(blocks);
        let key_at = |nth: usize| {
            let mut key = Vec::new();
            self.index.separator(nth * blocks / count, &mut key);
            Bytes::from(key)
        };
        (0..count).map(key_at).collect()
    }

    /// The index.
    #[inline]
    pub(super) fn index(&self) -> &Index {
        &self.index
    }

    /// The filter, if there is one.
    pub(super) fn filter(&self) -> Option<&Filter> {
        self.filter.as_ref()
    }

    /// The newest entry of the lookup's key at or below its sequence number, tombstones included. Does not consult the
    /// filter.
    ///
    /// # Errors
    /// `Io`, or `Corruption` of the block the key would be in.
    #[inline]
    pub(crate) fn get(&self, lookup: &Lookup<'_>) -> Result<Option<TableHit<'_>>> {
        let ordinal = self.index.lower_bound(lookup.key, lookup.prefix, lookup.seqno);
        if ordinal == self.index.len() {
            return Ok(None);
        }
        self.will_read_block(ordinal)?;
        if let Source::Map(map) = &self.source
            && self.is_in_place(map, ordinal)?
        {
            let (handle, payload) = self.mapped_payload(map, ordinal)?;
            let block = Block::parse(payload).map_err(|reason| self.damaged(handle, reason))?.numbered(self.seqno);
            return Ok(block.find(lookup).map(|i| {
                let value = payload.get(block.value_range(i)).unwrap_or_default();
                TableHit { trailer: block.trailer(i), value: HitValue::Mapped { owner: map, value } }
            }));
        }
        let block = self.cached_block(ordinal)?;
        Ok(block.find(lookup).map(|i| TableHit {
            trailer: block.trailer(i),
            value: HitValue::Cached { owner: block.bytes().clone(), range: block.value_range(i) },
        }))
    }

    /// Data block `ordinal`, verified, to be held.
    ///
    /// # Errors
    /// `Io`, or `Corruption` of the block.
    pub(crate) fn block(&self, ordinal: usize) -> Result<Block<Bytes>> {
        match self.mapped_block(ordinal)? {
            Some(block) => Ok(block),
            None => self.cached_block(ordinal),
        }
    }

    /// As [`block`](Table::block), without giving the block a place in the cache.
    ///
    /// # Errors
    /// `Io`, or `Corruption` of the block.
    pub(crate) fn block_uncached(&self, ordinal: usize) -> Result<Block<Bytes>> {
        match self.mapped_block(ordinal)? {
            Some(block) => Ok(block),
            None => self.read_block(ordinal),
        }
    }

    /// Data block `ordinal` where it is mapped; `None` if it is not, or compressed.
    fn mapped_block(&self, ordinal: usize) -> Result<Option<Block<Bytes>>> {
        if let Source::Map(map) = &self.source
            && self.is_in_place(map, ordinal)?
        {
            let (handle, payload) = self.mapped_payload(map, ordinal)?;
            let block = Block::parse(map.slice_ref(payload)).map_err(|reason| self.damaged(handle, reason))?;
            return Ok(Some(block.numbered(self.seqno)));
        }
        Ok(None)
    }

    /// Reads data block `ordinal` anew, past the cache and past what was verified before.
    ///
    /// # Errors
    /// `Io`, or `Corruption` of the block.
    pub(super) fn read_block(&self, ordinal: usize) -> Result<Block<Bytes>> {
        let handle = self.handle(ordinal)?;
        let stored = self.source.read(&self.path, handle.offset, handle.stored_bytes as usize, 0)?;
        let block = || {
            let (tag, payload) = unseal(&stored, self.number, handle.offset)?;
            let payload = if tag == TAG_LZ4 { decompress(payload)?.into() } else { stored.slice_ref(payload) };
            let block = Block::parse(payload)?.numbered(self.seqno);
            block.check_entries()?;
            if block.len() == 0 { Err("a data block without entries") } else { Ok(block) }
        };
        block().map_err(|reason| self.damaged(handle, reason))
    }

    #[cold]
    pub(super) fn damaged(&self, handle: Handle, reason: Reason) -> Error {
        Error::corruption(&self.path, handle.offset, reason)
    }

    /// Where data block `ordinal` lies.
    #[inline]
    pub(super) fn handle(&self, ordinal: usize) -> Result<Handle> {
        self.index.handle(ordinal).map_err(|reason| self.damaged(Handle::default(), reason))
    }

    /// Whether data block `ordinal` was found intact in its place, and whether it was found compressed.
    #[cfg(test)]
    pub(super) fn is_known(&self, ordinal: usize) -> (bool, bool) {
        (self.verified.get(ordinal), self.compressed.get(ordinal))
    }

    /// Whether mapped block `ordinal` is uncompressed, and so read where it lies; intact then.
    #[inline]
    fn is_in_place(&self, map: &Bytes, ordinal: usize) -> Result<bool> {
        Ok(self.verified.get(ordinal) || (!self.compressed.get(ordinal) && self.verify_mapped(map, ordinal)?))
    }

    #[inline]
    fn mapped_payload<'t>(&self, map: &'t Bytes, ordinal: usize) -> Result<(Handle, &'t [u8])> {
        let handle = self.handle(ordinal)?;
        let stored_bytes = handle.stored_bytes as usize;
        let payload = (handle.offset as usize).checked_add(stored_bytes.saturating_sub(TRAILER_BYTES));
        let payload = payload.and_then(|end| map.get(handle.offset as usize..end));
        let payload = payload.ok_or_else(|| self.damaged(handle, "a data block beyond the end of the file"))?;
        prefetch_columns(payload);
        Ok((handle, payload))
    }

    /// Starts loading what a search for `key` looks at first; answers with that part of the index.
    #[inline]
    pub(crate) fn prefetch_index(&self, key: &[u8], prefix: u64) -> Range<usize> {
        self.index.prefetch(key, prefix)
    }

    /// Starts loading what a search in data block `ordinal` looks at, if it is mapped.
    #[inline]
    pub(super) fn prefetch_block(&self, ordinal: usize) {
        if let (Source::Map(map), Ok(handle)) = (&self.source, self.index.handle(ordinal)) {
            prefetch_columns(
                usize::try_from(handle.offset).ok().and_then(|start| map.get(start..)).unwrap_or_default(),
            );
        }
    }

    /// Asks the system for a part of the file, if it is mapped; what lies beyond its end is left out.
    fn will_read(&self, part: Range<u64>) {
        if let Source::Map(map) = &self.source {
            let end = usize::try_from(part.end).unwrap_or(usize::MAX).min(map.len());
            let part = usize::try_from(part.start).ok().and_then(|start| map.get(start..end));
            prefetch::will_read(part.unwrap_or_default());
        }
    }

    /// Asks the system for data block `ordinal` as a whole if it was never read, or may be in memory no longer: its pages
    /// would come one by one, each when it is touched. Not for a compressed one, which may be in the cache.
    #[inline]
    pub(super) fn will_read_block(&self, ordinal: usize) -> Result<()> {
        let is_mapped = matches!(self.source, Source::Map(_));
        let may_be_cold = !self.verified.get(ordinal) || self.may_be_cold_again();
        if is_mapped && may_be_cold && !self.compressed.get(ordinal) {
            self.will_read(self.block_range(ordinal)?);
        }
        Ok(())
    }

    /// Whether what was read may be in memory no longer.
    #[inline]
    pub(super) fn may_be_cold_again(&self) -> bool {
        self.lease.as_ref().is_some_and(OpenLease::is_beyond_memory)
    }

    /// Asks the system for what a pass that comes to data block `ordinal` will read next.
    pub(super) fn read_ahead(&self, ahead: &mut ReadAhead, ordinal: usize, backward: bool) -> Result<()> {
        if let Some(piece) = ahead.enter(&self.block_range(ordinal)?, backward) {
            self.will_read(piece);
        }
        Ok(())
    }

    fn block_range(&self, ordinal: usize) -> Result<Range<u64>> {
        let handle = self.handle(ordinal)?;
        Ok(handle.offset..handle.offset.saturating_add(handle.stored_bytes.into()))
    }

    /// Checks mapped block `ordinal` and remembers that; `false` if it is compressed, and so to be read through the
    /// cache.
    #[cold]
    fn verify_mapped(&self, map: &Bytes, ordinal: usize) -> Result<bool> {
        let handle = self.handle(ordinal)?;
        let tag = handle.end().and_then(|end| map.get(usize::try_from(end).ok()?.checked_sub(TRAILER_BYTES)?));
        // A damaged tag leads to a checksum mismatch on either way.
        if tag != Some(&TAG_RAW) {
            self.compressed.set(ordinal);
            return Ok(false);
        }
        self.read_block(ordinal)?;
        self.verified.set(ordinal);
        Ok(true)
    }

    fn cached_block(&self, ordinal: usize) -> Result<Block<Bytes>> {
        let key = BlockKey { table: self.number, ordinal: ordinal as u32 };
        self.cache.get_or_load(key, || self.read_block(ordinal))
    }
}

/// What a search in a block looks at is needed one after the other, each telling where to look next: lets it come
/// together.
#[inline]
fn prefetch_columns(payload: &[u8]) {
    for line in 0..PREFETCH_LINES {
        prefetch_at(payload, prefetch::LINE_BYTES * line);
    }
}

impl Source {
    /// `bytes` bytes from `offset` on, which the caller knows to be inside the file. What is read into memory begins at
    /// a multiple of 64 plus `skew`.
    fn read(&self, path: &Path, offset: u64, bytes: usize, skew: usize) -> Result<Bytes> {
        match self {
            Source::Map(map) => {
                let start = offset as usize;
                let end = start.checked_add(bytes).filter(|&end| end <= map.len());
                let end = end.ok_or_else(|| Error::corruption(path, offset, "a section beyond the end of the file"))?;
                Ok(map.slice(start..end))
            }
            Source::File(file) => {
                let mut buffer = vec![0; bytes + 2 * LINE_BYTES];
                let start = buffer.as_ptr().align_offset(LINE_BYTES).min(LINE_BYTES) + skew % LINE_BYTES;
                file.read_exact_at(&mut buffer[start..start + bytes], offset).map_err(Error::io("read", path))?;
                Ok(Bytes::from(buffer).slice(start..start + bytes))
            }
        }
    }

    /// The payload of an uncompressed section, verified.
    fn section(&self, path: &Path, number: u64, handle: Handle, skew: usize) -> Result<Bytes> {
        let stored = self.read(path, handle.offset, handle.stored_bytes as usize, skew)?;
        if matches!(self, Source::Map(_)) {
            prefetch::will_read(&stored);
        }
        match unseal(&stored, number, handle.offset) {
            Ok((TAG_RAW, payload)) => Ok(stored.slice_ref(payload)),
            Ok(_) => Err(Error::corruption(path, handle.offset, "a compressed section that is no data block")),
            Err(reason) => Err(Error::corruption(path, handle.offset, reason)),
        }
    }
}

fn open_filter(source: &Source, path: &Path, number: u64, handle: Handle, probes: u32) -> Result<Option<Filter>> {
    if handle.stored_bytes == 0 && probes == 0 {
        return Ok(None);
    }
    // So that its lines are cache lines, in memory as in the mapping.
    let skew = (handle.offset % LINE_BYTES as u64) as usize;
    let payload = source.section(path, number, handle, skew)?;
    let padding = skew.next_multiple_of(LINE_BYTES) - skew;
    let lines = (padding <= payload.len()).then(|| payload.slice(padding..));
    match lines.and_then(|lines| Filter::new(lines, probes)) {
        Some(filter) => Ok(Some(filter)),
        None => Err(Error::corruption(path, handle.offset, "a filter of an impossible size")),
    }
}
