//! Writes the seeds: files of a small real database and of its shipped log, cut into the pieces that the targets take.
//! Offsets are those of `docs/format.md`. Run it after a change of a format: `fuzz/run seeds`; what it writes depends on
//! nothing but the formats.

use std::error::Error;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use siltstone::fs::SimFileSystem;
use siltstone::{Compression, Db, KeyspaceOptions, Options, WriteBatch};
use siltstone_changelog::{FileSink, FileSinkOptions, Sink};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

fn main() -> Result<()> {
    let directory = Path::new("seeds");
    if directory.exists() {
        fs::remove_dir_all(directory)?;
    }
    for (name, compression) in [("plain", Compression::None), ("lz4", Compression::Lz4)] {
        let files = Arc::new(SimFileSystem::new());
        let db = Options::new().memory_bytes(4 << 20).file_system(files.clone()).open("/db")?;
        fill(&db, compression)?;
        if compression == Compression::None {
            ship(&db)?;
        }
        db.close()?;
        for path in files.paths() {
            let file = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            let bytes = files.read(&path)?;
            match file.split(['.', '-']).collect::<Vec<_>>()[..] {
                [_, "table"] => table(name, &bytes)?,
                [_, "wal"] => {
                    let end = bytes.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1);
                    seed("wal", name, &[&[1], &bytes[..end]].concat())?;
                    seed("batch", name, bytes.get(64 + 48..end).unwrap_or_default())?;
                }
                ["MANIFEST", _] => seed("manifest", name, &[&[1], &bytes[..]].concat())?,
                _ => {}
            }
        }
    }
    patches()?;
    streams()
}

/// Versions that a snapshot keeps, tombstones, metadata, the empty key, a drop.
fn fill(db: &Db, compression: Compression) -> Result<()> {
    let layers = db.keyspace("layers", KeyspaceOptions::new().block_bytes(128).compression(compression))?;
    let mut batch = WriteBatch::new();
    for n in 0..40u8 {
        batch.put(&layers, format!("a common beginning {n:03}"), vec![b'v'; usize::from(n)]);
    }
    batch.delete(&layers, "a common beginning 007").metadata("position", Some("40"));
    db.write(batch)?;
    let _snapshot = db.snapshot();
    layers.put("", "the empty key")?;
    layers.put("a common beginning 008", "a second version")?;
    layers.delete("z")?;
    db.flush()?;
    db.keyspace("short", KeyspaceOptions::new())?.put("k", "v")?;
    db.drop_keyspace("short")?;
    Ok(())
}

/// A table whole, its first data block, and its filter.
fn table(name: &str, bytes: &[u8]) -> Result<()> {
    seed("table", name, &[&[1], bytes].concat())?;
    let footer = bytes.len() - 60;
    let (index, stored_bytes) = (number(bytes, footer + 20, 8), number(bytes, footer + 28, 4));
    // The index's values all have 12 bytes and lie at its end; its first four bytes say how many there are.
    let blocks = number(bytes, index, 4);
    let values = index + stored_bytes - 5 - 12 * blocks;
    for block in 0..blocks {
        let (offset, stored_bytes) = (number(bytes, values + 12 * block, 8), number(bytes, values + 12 * block + 8, 4));
        let (payload, trailer) = bytes[offset..offset + stored_bytes].split_at(stored_bytes - 5);
        match trailer[0] {
            0 if block == 0 => seed("block", name, payload)?,
            1 if block < 3 => seed("lz4", &format!("block{block}"), &[&[1], payload].concat())?,
            _ => {}
        }
    }
    seed("lz4", "text", &[&[0][..], &b"a stream lays down silt, a stream lays down silt, ".repeat(4)].concat())?;
    let (filter, properties) = (number(bytes, footer + 8, 8), number(bytes, footer + 32, 8));
    let lines = &bytes[filter.next_multiple_of(64)..index - 5];
    seed("filter", name, &[&bytes[properties + 48..properties + 49], lines].concat())
}

/// The log of `db` as a sink writes it: one segment, two segments, compacted ones, and the first batch alone.
fn ship(db: &Db) -> Result<()> {
    for (name, segment_bytes) in [("one", 1 << 20), ("two", 100), ("compacted", 100)] {
        let files = Arc::new(SimFileSystem::new());
        let options = FileSinkOptions::new().segment_bytes(segment_bytes).file_system(files.clone());
        let mut sink = FileSink::open_with("/log", options)?;
        for batch in db.changes(1)? {
            sink.append(&batch?)?;
        }
        sink.flush()?;
        if name == "compacted" {
            sink.cleaner().compact()?;
        }
        let paths = files.paths().into_iter().filter(|path| path.extension().is_some_and(|kind| kind == "log"));
        let mut segments = paths.map(|path| files.read(&path)).collect::<std::io::Result<Vec<_>>>()?;
        segments.iter_mut().for_each(|segment| forget(segment));
        let [first, rest @ ..] = &segments[..] else { return Err("no segment".into()) };
        let [low, high] = u16::try_from(first.len())?.to_le_bytes();
        let second = rest.first().map_or(&[][..], Vec::as_slice);
        let mode = if rest.is_empty() { 1 } else { 3 };
        seed("sink_segment", name, &[&[mode, low, high], &first[..], second].concat())?;
        let payload_bytes = number(first, 80 + 8, 4);
        seed("codec", name, &first[96..96 + payload_bytes])?;
    }
    Ok(())
}

/// Takes out of a segment of a log what differs each time: the log's own number, when the segment was begun and sealed, and
/// the checksums of that, which the target repairs.
fn forget(segment: &mut [u8]) {
    let (compacted, len) = (number(segment, 40, 8) > 0, segment.len());
    segment[12..16].fill(0);
    segment[16..24].fill(7);
    segment[48..56].fill(0);
    let mut at = 80;
    while at + 16 <= len {
        segment[at..at + 4].fill(0);
        if compacted && segment[at + 12] == 3 {
            // The end, with its own checksum.
            segment[at + 4..at + 8].fill(0);
            segment[len - 8..].fill(0);
        }
        at += 16 + number(segment, at + 8, 4);
    }
}

/// A byte or a few in each of the first eight files of the target's database, with and without repair.
fn patches() -> Result<()> {
    for file in 0..8u8 {
        let [low, high] = (40 + 30 * u16::from(file)).to_le_bytes();
        seed("database", &format!("byte{file}"), &[0, file, low, high, 1, 0xff])?;
        seed("database", &format!("word{file}"), &[1, file, low, high, 4, 0xff, 0xff, 0xff, 0x7f])?;
    }
    Ok(())
}

/// Bytes without a pattern (a linear congruential generator of Knuth's) for the targets that read a stream of choices.
fn streams() -> Result<()> {
    let mut state = 1u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    for n in 0..8 {
        seed("operations", &format!("stream{n}"), &(0..300).map(|_| next()).collect::<Vec<_>>())?;
        seed("restore", &format!("stream{n}"), &(0..300).map(|_| next()).collect::<Vec<_>>())?;
    }
    Ok(())
}

fn number(bytes: &[u8], at: usize, width: usize) -> usize {
    bytes[at..at + width].iter().rev().fold(0, |number, &byte| number << 8 | usize::from(byte))
}

fn seed(target: &str, name: &str, bytes: &[u8]) -> Result<()> {
    let directory = Path::new("seeds").join(target);
    fs::create_dir_all(&directory)?;
    Ok(fs::write(directory.join(name), bytes)?)
}
