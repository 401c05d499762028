//! What fuzz targets call: bytes go into the log's decoders, and whatever comes out has to keep their promises. Only
//! with `--cfg fuzzing`; see the engine's module of that name, whose ways these are.

use std::path::Path;
use std::sync::Arc;

use siltstone::fs::{Keep, SimFileSystem};
use siltstone::{Change, ChangeBatch};

use crate::codec;
use crate::error::{Error, Result};
use crate::file::{FileSink, FileSinkOptions, FileSource};
use crate::position::Position;
use crate::sink::{Sink, Source};

const DIRECTORY: &str = "/log";

/// Decodes a batch; what decodes must come out the same after encoding and decoding again.
pub fn codec(data: &[u8]) {
    let Ok(batch) = codec::decode(data) else { return };
    assert!(!batch.changes().is_empty() && batch.first_seqno() <= batch.last_seqno());
    let mut encoded = Vec::new();
    codec::encode(&batch, &mut encoded).expect("a batch that was decoded can be encoded");
    assert!(encoded.len() <= data.len(), "numbers in their shortest form, and no name that nothing uses");
    assert_eq!(codec::decode(&encoded).as_ref(), Ok(&batch));
}

/// Reads bytes as the segments of a log: `mode u8 | length of the first segment u16 | segments`. Bit 0 of the mode
/// repairs checksums and the magic, bit 1 asks for a second segment. They are named by what they say about themselves.
///
/// A source and a sink must agree on what is there; what the sink leaves must hold the same and go on from there.
pub fn segment(data: &[u8]) {
    let Some((&[mode, low, high], rest)) = data.split_first_chunk() else { return };
    let split = usize::from(u16::from_le_bytes([low, high])).min(rest.len());
    let (first, second) = if mode & 2 == 2 { rest.split_at(split) } else { (rest, &[][..]) };
    let fs = SimFileSystem::new();
    write_segment(&fs, first, mode & 1 == 1);
    if mode & 2 == 2 {
        write_segment(&fs, second, mode & 1 == 1);
    }
    let before = read(&fs);
    // A sink cuts off what is torn; reading never does.
    let left = fs.crash_clone(Keep::All, 0);
    let last = match reopen(&left) {
        Ok(last) => last,
        Err(error) => return expected(&error),
    };
    let after = read(&left);
    match (&before, &after) {
        (Ok(before), Ok(after)) => assert_eq!(before, after, "recovery keeps what can be read, and nothing else"),
        (before, after) => assert_eq!(before.is_ok(), after.is_ok(), "{before:?}, but {after:?}"),
    }
    append(&left, last, after.ok());
}

/// Every batch that a source gives, from the oldest position on, and also from each position in between.
fn read(fs: &SimFileSystem) -> Result<Vec<(Position, ChangeBatch)>> {
    let source = FileSource::open_on(Arc::new(fs.clone()), DIRECTORY);
    let read = || {
        let (oldest, newest) = source.bounds()?;
        let batches: Vec<_> = source.read(&oldest)?.collect::<Result<_>>()?;
        // Marks may lie between the last batch and the end.
        assert!(source.read(&newest)?.next().is_none(), "nothing behind the end that `bounds` states");
        Ok(batches)
    };
    let batches: Vec<(Position, ChangeBatch)> = read().inspect_err(expected)?;
    assert!(batches.windows(2).all(|pair| pair[0].1.last_seqno() < pair[1].1.first_seqno()), "numbers only grow");
    for (at, (position, _)) in batches.iter().enumerate().take(20) {
        let rest: Vec<_> = source.read(position)?.collect::<Result<_>>()?;
        assert_eq!(rest, batches[at + 1..], "from {position} on");
    }
    Ok(batches)
}

/// Opens a sink, which recovers the log; the last number that it holds.
fn reopen(fs: &SimFileSystem) -> Result<u64> {
    Ok(sink(fs)?.last_seqno()?.unwrap_or(0))
}

fn sink(fs: &SimFileSystem) -> Result<FileSink> {
    FileSink::open_with(DIRECTORY, FileSinkOptions::new().segment_bytes(100).file_system(Arc::new(fs.clone())))
}

/// Appends batches, enough to begin a segment; they and all before them must be there.
fn append(fs: &SimFileSystem, last_seqno: u64, before: Option<Vec<(Position, ChangeBatch)>>) {
    let batch = |seqno| {
        let put = Change::Put { keyspace: "appended".into(), key: "key".into(), value: vec![b'v'; 60].into() };
        ChangeBatch::new(seqno, vec![put])
    };
    let append = || -> Result<Vec<ChangeBatch>> {
        let mut sink = sink(fs)?;
        let new: Vec<_> = (1..=3).filter_map(|n| batch(last_seqno.saturating_add(n)).ok()).collect();
        new.iter().try_for_each(|batch| sink.append(batch))?;
        sink.flush()?;
        Ok(new)
    };
    let new = match append() {
        Ok(new) => new,
        // There is an end to numbers.
        Err(error) => return assert!(matches!(error, Error::InvalidArgument(_)), "{error:?}"),
    };
    let Some(before) = before else { return };
    let after = read(fs).expect("a log that was read before");
    assert_eq!(after.iter().take(before.len()).collect::<Vec<_>>(), before.iter().collect::<Vec<_>>());
    assert!(after[before.len()..].iter().map(|(_, batch)| batch).eq(&new));
}

/// Damage and refusals are what bad bytes should lead to; anything else is not.
fn expected(error: &Error) {
    assert!(matches!(error, Error::Corruption { .. } | Error::UnsupportedVersion { .. }), "{error:?}");
}

// ---- repairing checksums, by the offsets of docs/format.md and not with this crate's own encoders ----

/// Writes a segment under the name that its header, and if compaction made it its end, say.
fn write_segment(fs: &SimFileSystem, bytes: &[u8], repaired: bool) {
    let mut bytes = bytes.to_vec();
    if repaired {
        repair(&mut bytes);
    }
    let field = |at| number(&bytes, at, 8).unwrap_or(0);
    let (prev, epoch, generation) = (field(24), field(32), field(40));
    let end = bytes.len().saturating_sub(32);
    let name = match generation {
        0 => format!("{prev:020}-{epoch:010}.log"),
        _ => format!("{prev:020}-{:020}-{:010}-{generation:010}.log", field(end + 8), field(end + 16)),
    };
    fs.write(&Path::new(DIRECTORY).join(name), &bytes).expect("a file in memory");
}

fn number(bytes: &[u8], at: usize, width: usize) -> Option<u64> {
    let field = bytes.get(at..at.checked_add(width)?)?;
    Some(field.iter().rev().fold(0, |number, &byte| number << 8 | u64::from(byte)))
}

fn put(bytes: &mut [u8], at: usize, field: &[u8]) {
    if let Some(place) = bytes.get_mut(at..at + field.len()) {
        place.copy_from_slice(field);
    }
}

fn crc(parts: &[&[u8]]) -> [u8; 4] {
    let mut hasher = crc32fast::Hasher::new();
    parts.iter().for_each(|part| hasher.update(part));
    hasher.finalize().to_le_bytes()
}

fn repair(bytes: &mut [u8]) {
    if bytes.len() < 80 {
        return;
    }
    put(bytes, 0, b"siltlog\0");
    put(bytes, 8, &2u32.to_le_bytes());
    let header = crc(&[&bytes[..12], &bytes[16..80]]);
    put(bytes, 12, &header);
    let mut place = [0; 32];
    place[..16].copy_from_slice(&bytes[16..32]);
    place[16..24].copy_from_slice(&bytes[40..48]);
    let mut at = 80;
    while let Some(payload_bytes) = number(bytes, at + 8, 4).filter(|_| at + 16 <= bytes.len()) {
        // A length that reaches past the end is cut down, or no record would ever be read.
        let payload_bytes = payload_bytes.min((bytes.len() - at - 16) as u64) as usize;
        put(bytes, at + 8, &(payload_bytes as u32).to_le_bytes());
        let payload = crc(&[&bytes[at + 16..at + 16 + payload_bytes]]);
        put(bytes, at + 4, &payload);
        place[24..].copy_from_slice(&(at as u64).to_le_bytes());
        let header = crc(&[&bytes[at + 4..at + 16], &place]);
        put(bytes, at, &header);
        at += 16 + payload_bytes;
    }
}
