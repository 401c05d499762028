//! What fuzz targets call: bytes go into the decoders, and whatever comes out has to keep the decoders' promises. Only
//! with `--cfg fuzzing`.
//!
//! No input may make a function here panic, and memory stays in proportion to the input (the fuzzer runs with a limit).
//! Checksums would keep a fuzzer out of everything behind them, so an input whose first byte is odd has them repaired
//! first (`repair`); an even one is taken as it is.

mod database;
mod repair;

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;

use crate::batch::{Op, Ops, encode_delete, encode_put};
use crate::cache::BlockCache;
use crate::cursor::Cursor;
use crate::error::Error;
use crate::fs::{FileSystem, SimFileSystem};
use crate::key::{Lookup, MAX_SEQNO, Trailer, ValueKind, hash_key, prefix_u64};
use crate::table::block::{Block, BlockCursor};
use crate::table::filter::Filter;
use crate::table::format::{Footer, Handle, TAG_LZ4, TAG_RAW, compress, decompress, seal};
use crate::table::index::IndexBuilder;
use crate::table::iterator::TableCursor;
use crate::table::properties::Properties;
use crate::table::reader::{ReadMode, Table};
use crate::varint::{write_bytes, write_varint};
use crate::version::manifest::Manifest;
use crate::version::state::ManifestState;
use crate::wal::replay::{ReplayInput, replay};

pub use database::database;
use repair::{current, repair_manifest, repair_segment, repair_table};

/// The id of every database that is made under `--cfg fuzzing`, so that seeds come out the same each time, and the one
/// that repaired log segments belong to.
pub(crate) const DATABASE_ID: u64 = 5;

/// Splits off the byte that says whether checksums are to be repaired.
fn mode(data: &[u8]) -> Option<(bool, &[u8])> {
    data.split_first().map(|(mode, rest)| (mode & 1 == 1, rest))
}

/// Damage and refusals are what bad bytes should lead to; anything else is not.
fn expected(error: &Error) {
    assert!(matches!(error, Error::Corruption { .. } | Error::UnsupportedVersion { .. }), "{error:?}");
}

/// Decodes a batch; what decodes must come out the same after encoding and decoding again.
pub fn batch(data: &[u8]) {
    let ops: Vec<Op<'_>> = Ops::new(data).map_while(Result::ok).collect();
    let mut encoded = Vec::new();
    for op in &ops {
        match *op {
            Op::Put { keyspace, key, value } => encode_put(&mut encoded, keyspace, key, value),
            Op::Delete { keyspace, key } => encode_delete(&mut encoded, keyspace, key),
            Op::DropKeyspace { keyspace } => {
                encoded.push(16);
                write_varint(&mut encoded, keyspace.into());
            }
            Op::Metadata { name, value } => {
                encoded.push(17);
                write_bytes(&mut encoded, name.as_bytes());
                encoded.push(u8::from(value.is_some()));
                if let Some(value) = value {
                    write_bytes(&mut encoded, value);
                }
            }
        }
    }
    assert!(encoded.len() <= data.len(), "lengths are written in their shortest form");
    let again: Vec<Op<'_>> = Ops::new(&encoded).map_while(Result::ok).collect();
    assert_eq!(ops, again);
}

/// Parses, checks and searches a block. An entry that is found must have the key that was looked for.
pub fn block(data: &[u8]) {
    let Ok(block) = Block::parse(Bytes::copy_from_slice(data)) else { return };
    let checked = block.check_entries().is_ok();
    let ordered = checked && block.check_order().is_ok();
    let mut cursor = BlockCursor::default();
    cursor.set_block(block.clone());
    let mut key = Vec::new();
    for i in 0..block.len().min(1000) {
        block.key_into(i, &mut key);
        let (trailer, value) = (block.trailer(i), block.value(i));
        let moved = cursor.move_to(i);
        if checked {
            assert!(moved.is_ok() && cursor.key() == key && cursor.value() == value && cursor.trailer() == trailer);
            assert!(trailer.seqno() <= MAX_SEQNO && (trailer.is_put() || trailer.is_delete()));
            assert_eq!(cursor.key_prefix(), prefix_u64(&key));
        }
        for seqno in [0, trailer.seqno().min(MAX_SEQNO), MAX_SEQNO] {
            let lookup = Lookup::new(&key, seqno);
            let found = block.find(&lookup);
            let bound = block.lower_bound(&key, lookup.prefix, seqno);
            assert!(bound <= block.len());
            if let (true, Some(found)) = (ordered, found) {
                let mut other = Vec::new();
                block.key_into(found, &mut other);
                assert!(other == key && block.trailer(found).seqno() <= seqno && found == bound);
            }
        }
    }
}

/// Reads a filter of any bytes: `probes: u8 | lines`.
pub fn filter(data: &[u8]) {
    let Some((&probes, lines)) = data.split_first() else { return };
    let Some(filter) = Filter::new(Bytes::copy_from_slice(lines), probes.into()) else { return };
    for hash in [0, u64::MAX].into_iter().chain((0..64).map(|bit| hash_key(&[bit]))) {
        filter.prefetch(hash);
        let all_ones = lines.iter().all(|&byte| byte == 0xff);
        assert!(filter.may_contain(hash) || !all_ones);
    }
}

/// Opens the bytes as a table, mapped and by positioned reads, and reads it in both directions. A table that verifies
/// must serve every one of its keys.
pub fn table(data: &[u8]) {
    const NUMBER: u64 = 1;
    let Some((repaired, rest)) = mode(data) else { return };
    let mut bytes = rest.to_vec();
    if repaired {
        repair_table(&mut bytes, NUMBER);
    }
    open_table(&bytes, NUMBER);
}

/// Opens the bytes as table `number`, mapped and by positioned reads, and reads it.
fn open_table(bytes: &[u8], number: u64) {
    let fs = SimFileSystem::new();
    let path = Path::new("/db/000001.table");
    if fs.write(path, bytes).is_err() {
        return;
    }
    let cache = Arc::new(BlockCache::new(1 << 20));
    for mode in [ReadMode::Map, ReadMode::Pread] {
        match Table::open(&fs, path, number, mode, &cache) {
            Ok(table) => read_table(Arc::new(table)),
            Err(error) => expected(&error),
        }
    }
}

/// LZ4 as stored. After an odd byte: the payload of a compressed block, which is decoded on its own and read as the
/// only data block of an otherwise sound table. After an even one: bytes that must come back from being compressed.
pub fn lz4(data: &[u8]) {
    let Some((stored, payload)) = mode(data) else { return };
    if !stored {
        let mut packed = Vec::new();
        if compress(payload, &mut packed, &mut lz4_flex::block::CompressTable::default()) {
            assert_eq!(decompress(&packed).as_deref(), Ok(payload));
        }
        return;
    }
    let decoded = decompress(payload).unwrap_or_default();
    // The least that LZ4 can take for so much; a length that is only declared gets no memory.
    assert!(decoded.len() <= 255 * payload.len() + 64);
    let entries = Block::parse(&decoded[..]).map_or(1, |block| block.len().max(1));
    open_table(&table_of_block(payload, entries as u64), 1);
}

/// Table 1 with one data block, whose payload is compressed already.
fn table_of_block(payload: &[u8], entries: u64) -> Vec<u8> {
    const NUMBER: u64 = 1;
    let last_key = [0xff; 20];
    let mut out = Vec::new();
    let section = |out: &mut Vec<u8>, payload: &[u8], tag: u8| {
        let offset = out.len();
        out.extend_from_slice(payload);
        seal(out, offset, tag, NUMBER, offset as u64);
        Handle { offset: offset as u64, stored_bytes: (out.len() - offset) as u32 }
    };
    let block = section(&mut out, payload, TAG_LZ4);
    let (mut index, mut properties) = (IndexBuilder::default(), Vec::new());
    let mut index_payload = Vec::new();
    index.add((&last_key, Trailer::new(0, ValueKind::Put)), None, block);
    index.finish(&mut index_payload);
    let largest = Bytes::copy_from_slice(&last_key);
    Properties { entries, data_blocks: 1, largest, max_seqno: MAX_SEQNO, ..Properties::default() }
        .encode(&mut properties);
    let filter = Handle { offset: out.len() as u64, stored_bytes: 0 };
    let index = section(&mut out, &index_payload, TAG_RAW);
    let properties = section(&mut out, &properties, TAG_RAW);
    Footer { number: NUMBER, filter, index, properties }.encode(&mut out);
    out
}

fn read_table(table: Arc<Table>) {
    let intact = table.verify().inspect_err(expected).is_ok();
    let mut cursor = TableCursor::new(table.clone());
    let mut entries = 0u64;
    let mut moved = cursor.seek_to_first();
    while moved.is_ok() && cursor.valid() {
        let lookup = Lookup::new(cursor.key(), cursor.trailer().seqno().min(MAX_SEQNO));
        let hit = table.get(&lookup).inspect_err(expected);
        if intact {
            let hit = hit.ok().flatten();
            assert!(hit.is_some_and(|hit| hit.value() == cursor.value() && hit.trailer == cursor.trailer()));
            assert!(table.may_contain(lookup.hash));
        }
        entries += 1;
        moved = cursor.next();
    }
    let _ = moved.inspect_err(expected);
    let mut backward = 0u64;
    let mut moved = cursor.seek_to_last();
    while moved.is_ok() && cursor.valid() {
        backward += 1;
        moved = cursor.prev();
    }
    let _ = moved.inspect_err(expected);
    assert!(!intact || (entries == table.properties().entries && backward == entries));
}

/// Replays the bytes as the only segment of a log. What a replay leaves must replay to the same.
pub fn wal(data: &[u8]) {
    let Some((repaired, rest)) = mode(data) else { return };
    let mut bytes = rest.to_vec();
    if repaired {
        repair_segment(&mut bytes, 1);
    }
    let fs = SimFileSystem::new();
    if fs.write(Path::new("/db/000001.wal"), &bytes).is_err() {
        return;
    }
    let input =
        ReplayInput { database_id: DATABASE_ID, floor_segment: 1, synced_seqno: 0, prev_seqno_floor: MAX_SEQNO };
    let run = |read_only| {
        let mut records = Vec::new();
        let replayed = replay(&fs, Path::new("/db"), &input, read_only, &mut |first, count, payload, _, offset| {
            batch(payload);
            records.push((first, count, payload.len(), offset));
            Ok(())
        });
        replayed.map(|replayed| (replayed.last_logged_seqno, records)).inspect_err(expected).ok()
    };
    let before = run(true);
    assert_eq!(before, run(false), "reading changes nothing, and recovery finds the same");
    assert_eq!(before, run(true), "recovery keeps what it found");
}

/// Reads the bytes as the live manifest. Its state, written as a snapshot and read again, must be the same.
pub fn manifest(data: &[u8]) {
    let Some((repaired, rest)) = mode(data) else { return };
    let mut bytes = rest.to_vec();
    if repaired {
        repair_manifest(&mut bytes, 1);
    }
    let fs = SimFileSystem::new();
    let written =
        fs.write(Path::new("/db/MANIFEST-000001"), &bytes).and(fs.write(Path::new("/db/CURRENT"), &current(1)));
    if written.is_err() {
        return;
    }
    let fs: Arc<dyn FileSystem> = Arc::new(fs);
    let open = |read_only| {
        let opened = Manifest::open(fs.clone(), Path::new("/db"), read_only).inspect_err(expected).ok();
        opened.flatten().map(|(_, state)| state)
    };
    let before = open(true);
    assert_eq!(before, open(false), "reading changes nothing, and recovery finds the same");
    let Some(state) = before else { return };
    let mut again = ManifestState::default();
    for edit in state.to_edits() {
        let edit = crate::version::edit::Edit::decode(&edit.encode());
        assert_eq!(edit.and_then(|edit| again.apply(&edit)), Ok(()), "a snapshot applies");
    }
    assert_eq!(state, again);
}
