//! Writing a table: entries in internal order go in, a synced file comes out.

use std::path::{Path, PathBuf};

use bytes::Bytes;

use super::TableMeta;
use super::block::BlockBuilder;
use super::filter::{FilterBuilder, LINE_BYTES};
use super::format::{Footer, Handle, TAG_LZ4, TAG_RAW, compress, seal};
use super::index::IndexBuilder;
use super::properties::{Origin, Properties};
use crate::batch::check_lengths;
use crate::error::{Error, Result};
use crate::fs::WritableFile;
use crate::key::{Trailer, hash_key};

/// How a table is written.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TableWriteOptions {
    /// The size of a data block before compression.
    pub(crate) block_bytes: usize,
    /// 0 (no filter) to 32.
    pub(crate) filter_bits_per_key: u32,
    /// Whether data blocks are compressed, where that saves an eighth.
    pub(crate) compress: bool,
    /// How much is gathered before it is appended to the file; write-back is started in the same steps.
    pub(crate) append_bytes: usize,
}

/// Writes one table.
#[derive(Debug)]
pub(crate) struct TableBuilder {
    out: Output,
    options: TableWriteOptions,
    block: BlockBuilder,
    index: IndexBuilder,
    filter: FilterBuilder,
    properties: Properties,
    /// The last block, which gets its index entry when the next key is known: where it lies and how it ends.
    cut: Option<(Handle, Trailer)>,
    cut_key: Vec<u8>,
    compressor: Compressor,
}

/// Memory for compressing block after block.
#[derive(Default)]
struct Compressor {
    raw: Vec<u8>,
    table: lz4_flex::block::CompressTable,
}

impl std::fmt::Debug for Compressor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Compressor").finish_non_exhaustive()
    }
}

impl TableBuilder {
    /// A builder that writes to `file`, which is empty; `path` is its name in errors and `number` the table's.
    pub(crate) fn new(
        file: Box<dyn WritableFile>,
        path: PathBuf,
        number: u64,
        options: TableWriteOptions,
        origin: Origin,
    ) -> Self {
        TableBuilder {
            out: Output {
                file,
                path,
                number,
                append_bytes: options.append_bytes,
                buffer: Vec::with_capacity(options.append_bytes + options.append_bytes / 8),
                flushed_bytes: 0,
            },
            options,
            block: BlockBuilder::default(),
            index: IndexBuilder::default(),
            filter: FilterBuilder::new(options.filter_bits_per_key),
            properties: Properties { min_seqno: u64::MAX, origin, ..Properties::default() },
            cut: None,
            cut_key: Vec::new(),
            compressor: Compressor::default(),
        }
    }

    /// Appends an entry, which comes after the last one in internal order.
    ///
    /// # Errors
    /// `Io`; the table is then of no use. `InvalidArgument` for a key or value over its limit, or when the index would
    /// not fit 2 GiB.
    pub(crate) fn add(&mut self, key: &[u8], trailer: Trailer, value: &[u8]) -> Result<()> {
        check_lengths(key.len(), value.len())?;
        // Only the last key of the last block and that of this one can be the same key.
        let is_first = self.properties.entries == 0;
        let in_block = !self.block.is_empty();
        let is_new_key = is_first || key != if in_block { self.block.last_key() } else { &self.cut_key };
        debug_assert!(
            is_first || if is_new_key { key > self.last_key() } else { Some(trailer) < self.last_trailer() },
            "entries out of order"
        );
        if in_block && self.block.estimated_bytes() + key.len() + value.len() > self.options.block_bytes {
            self.cut_block()?;
        }
        if self.cut.is_some() {
            self.add_index_entry(Some(key))?;
        }
        // A key's first entry in a block is found by hash, also when the key began in the block before.
        let hash = if is_new_key || self.block.is_empty() { Some(hash_key(key)) } else { None };
        if let (true, Some(hash)) = (is_new_key, hash) {
            self.filter.add(hash);
        }
        self.block.add(key, hash, trailer, value);
        self.count(key, trailer, value, is_first);
        Ok(())
    }

    #[inline]
    fn count(&mut self, key: &[u8], trailer: Trailer, value: &[u8], is_first: bool) {
        let properties = &mut self.properties;
        if is_first {
            properties.smallest = Bytes::copy_from_slice(key);
        }
        properties.entries += 1;
        properties.tombstones += u64::from(trailer.is_delete());
        properties.user_bytes += (key.len() + value.len()) as u64;
        properties.min_seqno = properties.min_seqno.min(trailer.seqno());
        properties.max_seqno = properties.max_seqno.max(trailer.seqno());
    }

    fn last_key(&self) -> &[u8] {
        if self.block.is_empty() { &self.cut_key } else { self.block.last_key() }
    }

    fn last_trailer(&self) -> Option<Trailer> {
        self.block.last_trailer().or(self.cut.map(|(_, trailer)| trailer))
    }

    /// About how long the file would be if it were finished now, filter and index included.
    pub(crate) fn file_bytes(&self) -> u64 {
        let pending = self.block.estimated_bytes() + self.filter.estimated_bytes() + self.index.estimated_bytes();
        self.out.offset() + pending as u64
    }

    /// How many entries were added.
    pub(crate) fn entries(&self) -> u64 {
        self.properties.entries
    }

    /// Whether no entry was added.
    pub(crate) fn is_empty(&self) -> bool {
        self.entries() == 0
    }

    fn cut_block(&mut self) -> Result<()> {
        let Some(last_trailer) = self.block.last_trailer() else { return Ok(()) };
        self.cut_key.clear();
        self.cut_key.extend_from_slice(self.block.last_key());
        let TableBuilder { out, block, compressor, .. } = self;
        let handle = if self.options.compress {
            compressor.raw.clear();
            block.finish(&mut compressor.raw);
            out.section(|buffer| {
                if compress(&compressor.raw, buffer, &mut compressor.table) {
                    return TAG_LZ4;
                }
                buffer.extend_from_slice(&compressor.raw);
                TAG_RAW
            })?
        } else {
            out.section(|buffer| {
                block.finish(buffer);
                TAG_RAW
            })?
        };
        self.cut = Some((handle, last_trailer));
        self.properties.data_blocks += 1;
        Ok(())
    }

    fn add_index_entry(&mut self, next: Option<&[u8]>) -> Result<()> {
        let Some((handle, trailer)) = self.cut.take() else { return Ok(()) };
        if self.index.is_full() {
            return Err(Error::InvalidArgument("the table's index would not fit 2 GiB".to_owned()));
        }
        self.index.add((&self.cut_key, trailer), next, handle);
        Ok(())
    }

    /// Writes what is left and syncs the file; its directory is the caller's to sync.
    ///
    /// # Errors
    /// `Io`; the table is then of no use. `InvalidArgument` if filter or index do not fit 4 GiB.
    pub(crate) fn finish(mut self) -> Result<TableMeta> {
        self.cut_block()?;
        self.add_index_entry(None)?;
        if self.is_empty() {
            self.properties.min_seqno = 0;
        }
        self.properties.largest = Bytes::copy_from_slice(&self.cut_key);
        let TableBuilder { mut out, mut index, filter, mut properties, .. } = self;
        debug_assert_eq!(properties.data_blocks, index.len() as u64);

        let lines_from = out.offset();
        let mut filter_handle = Handle { offset: lines_from, stored_bytes: 0 };
        if filter.estimated_bytes() > 0 || (properties.entries > 0 && self.options.filter_bits_per_key > 0) {
            filter_handle = out.section(|buffer| {
                let padding = lines_from.next_multiple_of(LINE_BYTES as u64) - lines_from;
                buffer.resize(buffer.len() + padding as usize, 0);
                properties.filter_probes = filter.finish(buffer);
                TAG_RAW
            })?;
        }
        let index_handle = out.section(|buffer| {
            index.finish(buffer);
            TAG_RAW
        })?;
        let properties_handle = out.section(|buffer| {
            properties.encode(buffer);
            TAG_RAW
        })?;
        let footer =
            Footer { number: out.number, filter: filter_handle, index: index_handle, properties: properties_handle };
        footer.encode(&mut out.buffer);
        let file_bytes = out.finish()?;
        Ok(properties.meta(footer.number, file_bytes))
    }
}

/// The file, behind a buffer.
#[derive(Debug)]
struct Output {
    file: Box<dyn WritableFile>,
    path: PathBuf,
    number: u64,
    append_bytes: usize,
    buffer: Vec<u8>,
    /// How much of the file is appended; the buffer follows.
    flushed_bytes: u64,
}

impl Output {
    /// Where the next section will lie.
    fn offset(&self) -> u64 {
        self.flushed_bytes + self.buffer.len() as u64
    }

    /// Appends the section whose payload `write` appends to the buffer; `write` answers with its tag.
    fn section(&mut self, write: impl FnOnce(&mut Vec<u8>) -> u8) -> Result<Handle> {
        let (start, offset) = (self.buffer.len(), self.offset());
        let tag = write(&mut self.buffer);
        seal(&mut self.buffer, start, tag, self.number, offset);
        let stored_bytes = u32::try_from(self.buffer.len() - start)
            .map_err(|_| Error::InvalidArgument("a section of a table over 4 GiB".to_owned()))?;
        if self.buffer.len() >= self.append_bytes {
            self.flush()?;
        }
        Ok(Handle { offset, stored_bytes })
    }

    /// Appends what the buffer holds in whole steps, so that every step but the last begins at a multiple of its length:
    /// the system can then keep it on one large page of memory, which a reader of the mapped table finds with a fraction
    /// of the work. (Linux does so for steps of 2 MiB, on ext4 from version 6.16 on, on XFS for longer.)
    fn flush(&mut self) -> Result<()> {
        let Output { file, path, buffer, flushed_bytes, append_bytes, .. } = self;
        let whole_bytes = buffer.len() - buffer.len() % *append_bytes;
        file.append(&buffer[..whole_bytes]).map_err(Error::io("append", path))?;
        let start = *flushed_bytes;
        *flushed_bytes += whole_bytes as u64;
        // A failed write-back is reported once: swallowing it here could hide it from the sync.
        file.start_writeback(start..*flushed_bytes).map_err(Error::io("start write-back", path))?;
        buffer.drain(..whole_bytes);
        if buffer.capacity() > 4 * *append_bytes {
            buffer.shrink_to(*append_bytes + *append_bytes / 8);
        }
        Ok(())
    }

    fn finish(mut self) -> Result<u64> {
        if !self.buffer.is_empty() {
            self.file.append(&self.buffer).map_err(Error::io("append", &self.path))?;
            self.flushed_bytes += self.buffer.len() as u64;
        }
        self.file.sync().map_err(Error::io("sync", Path::new(&self.path)))?;
        Ok(self.flushed_bytes)
    }
}
