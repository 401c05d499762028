//! What fuzz targets call: bytes go into the decoders, and whatever comes out has to keep the decoders' promises. Only
//! with `--cfg fuzzing`.
//!
//! No input may make a function here panic, and memory stays in proportion to the input (the fuzzer runs with a limit).
//! Checksums would keep a fuzzer out of everything behind them, so an input whose first byte is odd has them repaired
//! first, by the offsets of `docs/format.md`: written from the page and not with the engine's own encoders, so that
//! this is also a check of the page.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;

use crate::batch::{Op, Ops, encode_delete, encode_put};
use crate::cache::BlockCache;
use crate::cursor::Cursor;
use crate::error::Error;
use crate::fs::{FileSystem, SimFileSystem};
use crate::key::{Lookup, MAX_SEQNO, hash_key, prefix_u64};
use crate::table::block::{Block, BlockCursor};
use crate::table::filter::Filter;
use crate::table::iterator::TableCursor;
use crate::table::reader::{ReadMode, Table};
use crate::varint::{write_bytes, write_varint};
use crate::version::manifest::Manifest;
use crate::version::state::ManifestState;
use crate::wal::replay::{ReplayInput, replay};

/// The database that repaired log segments belong to.
const DATABASE_ID: u64 = 5;

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
    let fs = SimFileSystem::new();
    let path = Path::new("/db/000001.table");
    if fs.write(path, &bytes).is_err() {
        return;
    }
    let cache = Arc::new(BlockCache::new(1 << 20));
    for mode in [ReadMode::Map, ReadMode::Pread] {
        match Table::open(&fs, path, NUMBER, mode, &cache) {
            Ok(table) => read_table(Arc::new(table)),
            Err(error) => expected(&error),
        }
    }
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

// ---- repairing checksums, after docs/format.md ----

fn get(bytes: &[u8], at: usize, width: usize) -> Option<u64> {
    let field = bytes.get(at..at.checked_add(width)?)?;
    Some(field.iter().rev().fold(0, |number, &byte| number << 8 | u64::from(byte)))
}

fn put(bytes: &mut [u8], at: usize, field: &[u8]) {
    if let Some(place) = at.checked_add(field.len()).and_then(|end| bytes.get_mut(at..end)) {
        place.copy_from_slice(field);
    }
}

fn crc_from(seed: u32, parts: &[&[u8]]) -> [u8; 4] {
    let mut hasher = crc32fast::Hasher::new_with_initial(seed);
    parts.iter().for_each(|part| hasher.update(part));
    hasher.finalize().to_le_bytes()
}

fn repair_segment(bytes: &mut [u8], segment: u64) {
    put(bytes, 0, b"siltwal\n");
    put(bytes, 16, &segment.to_le_bytes());
    put(bytes, 24, &DATABASE_ID.to_le_bytes());
    let Some(header) = bytes.get(12..64) else { return };
    let crc = crc_from(0, &[header]);
    put(bytes, 8, &crc);
    let salt = u32::from_le_bytes(crc_from(0, &[&DATABASE_ID.to_le_bytes(), &segment.to_le_bytes()]));
    let mut at = 64;
    while let Some(payload_bytes) = get(bytes, at + 28, 4).filter(|_| at + 48 <= bytes.len()) {
        // A length that reaches past the end is cut down, or no record would ever be read.
        let payload_bytes = payload_bytes.min((bytes.len() - at - 48) as u64) as usize;
        put(bytes, at + 28, &(payload_bytes as u32).to_le_bytes());
        put(bytes, at + 8, &segment.to_le_bytes());
        let crc = crc_from(salt, &[&bytes[at + 48..at + 48 + payload_bytes]]);
        put(bytes, at + 4, &crc);
        let crc = crc_from(salt, &[&bytes[at + 4..at + 48]]);
        put(bytes, at, &crc);
        at += (48 + payload_bytes).next_multiple_of(8);
    }
}

fn repair_manifest(bytes: &mut [u8], number: u64) {
    put(bytes, 0, b"SILTMANI");
    put(bytes, 8, &1u32.to_le_bytes());
    put(bytes, 12, &number.to_le_bytes());
    let Some(header) = bytes.get(..20) else { return };
    let crc = crc_from(0, &[header]);
    put(bytes, 20, &crc);
    let mut at = 24;
    while let Some(length) = get(bytes, at + 4, 4) {
        let length = length.min((bytes.len() - at - 8) as u64) as usize;
        put(bytes, at + 4, &(length as u32).to_le_bytes());
        let place = [number.to_le_bytes(), (at as u64).to_le_bytes()].concat();
        let crc = crc_from(0, &[&place, &bytes[at + 4..at + 8 + length]]);
        put(bytes, at, &crc);
        at += 8 + length;
    }
}

/// A `CURRENT` that names a manifest and promises nothing of its length.
fn current(manifest: u64) -> Vec<u8> {
    let mut bytes = [&b"SILTCURR"[..], &1u32.to_le_bytes(), &0u32.to_le_bytes(), &manifest.to_le_bytes()].concat();
    bytes.extend_from_slice(&0u64.to_le_bytes());
    let crc = crc_from(0, &[&bytes]);
    bytes.extend_from_slice(&crc);
    bytes
}

fn repair_table(bytes: &mut [u8], number: u64) {
    let Some(footer) = bytes.len().checked_sub(60) else { return };
    put(bytes, footer, &number.to_le_bytes());
    put(bytes, footer + 48, &1u32.to_le_bytes());
    put(bytes, footer + 52, b"siltTABL");
    // The sections follow each other up to the footer: their lengths decide where they lie.
    let mut end = footer as u64;
    for field in [32, 20, 8] {
        let stored_bytes = get(bytes, footer + field + 8, 4).unwrap_or(0).min(end);
        end -= stored_bytes;
        put(bytes, footer + field, &end.to_le_bytes());
        put(bytes, footer + field + 8, &(stored_bytes as u32).to_le_bytes());
        repair_section(bytes, number, end, stored_bytes);
    }
    let crc = crc_from(0, &[&bytes[footer..footer + 44]]);
    put(bytes, footer + 44, &crc);
    repair_data_blocks(bytes, number, footer, end);
}

fn repair_section(bytes: &mut [u8], number: u64, offset: u64, stored_bytes: u64) {
    let (Ok(start), Ok(len)) = (usize::try_from(offset), usize::try_from(stored_bytes)) else { return };
    let Some(checked) = len.checked_sub(4).and_then(|len| bytes.get(start..start.checked_add(len)?)) else { return };
    let place = offset as u32 ^ ((offset >> 32) as u32).wrapping_mul(0x85eb_ca6b);
    let crc = crc_from(place ^ (number as u32).wrapping_mul(0x9e37_79b1), &[checked]);
    put(bytes, start + len - 4, &crc);
}

/// Data blocks lie where the index says, if it can be read.
fn repair_data_blocks(bytes: &mut [u8], number: u64, footer: usize, data_bytes: u64) {
    let place = get(bytes, footer + 20, 8).zip(get(bytes, footer + 28, 4));
    let Some(payload) = place.and_then(|(offset, stored)| {
        let end = (offset + stored).checked_sub(5)?;
        bytes.get(offset as usize..end as usize)
    }) else {
        return;
    };
    let Ok(index) = Block::parse(payload.to_vec()) else { return };
    for ordinal in 0..index.len().min(bytes.len()) {
        let handle = index.value(ordinal);
        let Some((offset, stored_bytes)) = get(handle, 0, 8).zip(get(handle, 8, 4)) else { return };
        if offset.checked_add(stored_bytes).is_some_and(|end| end <= data_bytes) {
            repair_section(bytes, number, offset, stored_bytes);
        }
    }
}
