//! Repairing checksums, so that a fuzzer gets past them: by the offsets of `docs/format.md`, written from the page and not
//! with the engine's own encoders, so that this is also a check of the page.

use super::DATABASE_ID;
use crate::table::block::Block;

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

/// A log segment of [`DATABASE_ID`].
pub(super) fn repair_segment(bytes: &mut [u8], segment: u64) {
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

/// A manifest; lengths that reach past the end are cut down.
pub(super) fn repair_manifest(bytes: &mut [u8], number: u64) {
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

/// A `CURRENT` of the right length, whatever it names.
pub(super) fn repair_current(bytes: &mut [u8]) {
    put(bytes, 0, b"SILTCURR");
    put(bytes, 8, &1u32.to_le_bytes());
    let Some(fields) = bytes.get(..32) else { return };
    let crc = crc_from(0, &[fields]);
    put(bytes, 32, &crc);
}

/// A `CURRENT` that names a manifest and promises nothing of its length.
pub(super) fn current(manifest: u64) -> Vec<u8> {
    let mut bytes = [&b"SILTCURR"[..], &1u32.to_le_bytes(), &0u32.to_le_bytes(), &manifest.to_le_bytes()].concat();
    bytes.extend_from_slice(&0u64.to_le_bytes());
    let crc = crc_from(0, &[&bytes]);
    bytes.extend_from_slice(&crc);
    bytes
}

/// A table, from its footer forward to its data blocks.
pub(super) fn repair_table(bytes: &mut [u8], number: u64) {
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
