//! Which bytes of a file are what, by `docs/format.md`: nothing of the engine's own decoding is used.

use std::ops::Range;

/// Numbers are little-endian.
fn number(bytes: &[u8], at: usize, width: usize) -> usize {
    bytes[at..at + width].iter().rev().fold(0, |number, &byte| number << 8 | usize::from(byte))
}

/// A data block of a table.
#[derive(Debug)]
pub struct Block {
    /// Its bytes in the file, trailer included.
    pub bytes: Range<usize>,
    /// Its keys are at or behind this one, the separator of the block before.
    pub from: Vec<u8>,
    /// Its keys are at or before this one.
    pub to: Vec<u8>,
}

/// An intact table.
#[derive(Debug)]
pub struct Table {
    /// The keyspace's name.
    pub keyspace: String,
    /// The data blocks, in order; they fill the file from its beginning.
    pub blocks: Vec<Block>,
}

/// Decodes an intact table.
pub fn table(bytes: &[u8]) -> Table {
    let footer = bytes.len() - 60;
    let place = |at: usize| number(bytes, footer + at, 8);
    let (index, properties) = (place(20), place(32));
    let keys = properties + 56 + number(bytes, properties + 52, 2) + number(bytes, properties + 54, 2);
    let name = &bytes[keys + 12..footer - 5];
    Table { keyspace: String::from_utf8(name.to_vec()).unwrap(), blocks: blocks(&bytes[index..properties - 5]) }
}

/// The entries of an index.
fn blocks(index: &[u8]) -> Vec<Block> {
    let (count, flags, width, shared) = (number(index, 0, 4), index[4], usize::from(index[5]), number(index, 6, 2));
    assert!(flags & 2 != 0 && number(index, 20, 4) == 12, "handles have one length");
    let ends_width = if flags & 16 != 0 { 4 } else { 2 };
    let kinds_at = 26 + (8 + width) * count;
    let shorts_at = kinds_at + if flags & 4 != 0 { count } else { 0 };
    let ends_at = shorts_at + if flags & 8 != 0 { count } else { 0 };
    let shared_at = ends_at + if flags & 1 != 0 { 0 } else { ends_width * count } + number(index, 24, 2);
    let rests_at = shared_at + shared;
    let values_at = index.len() - 12 * count;
    let end_of = |i: usize| {
        if flags & 1 != 0 {
            (i + 1) * number(index, 16, 4)
        } else {
            number(index, ends_at + ends_width * i, ends_width)
        }
    };
    let mut from = Vec::new();
    (0..count)
        .map(|i| {
            let prefix = (number(index, 26 + 8 * i, 8) as u64).to_be_bytes();
            let short = if flags & 8 != 0 { usize::from(index[shorts_at + i]) } else { 8 };
            let rest = if i == 0 { 0 } else { end_of(i - 1) }..end_of(i);
            let rest = &index[rests_at + rest.start..rests_at + rest.end];
            let to = [&index[shared_at..shared_at + shared], &prefix[..short], rest].concat();
            let offset = number(index, values_at + 12 * i, 8);
            let bytes = offset..offset + number(index, values_at + 12 * i + 8, 4);
            Block { bytes, from: std::mem::replace(&mut from, to.clone()), to }
        })
        .collect()
}

/// A record of a log segment.
#[derive(Clone, Debug)]
pub struct Record {
    /// Header and payload in the file.
    pub bytes: Range<usize>,
    /// The numbers it takes; none for one of metadata alone.
    pub seqnos: Range<u64>,
}

impl Record {
    /// Where the next record may begin.
    pub fn padded_end(&self) -> usize {
        self.bytes.end.next_multiple_of(8)
    }
}

/// The records of an intact segment.
pub fn records(segment: &[u8]) -> Vec<Record> {
    let (mut at, mut records) = (64, Vec::new());
    while segment.len() >= at + 48 && segment[at + 8..at + 16] == segment[16..24] {
        let first = number(segment, at + 16, 8) as u64;
        let end = at + 48 + number(segment, at + 28, 4);
        records.push(Record { bytes: at..end, seqnos: first..first + number(segment, at + 24, 4) as u64 });
        at = end.next_multiple_of(8);
    }
    records
}

/// Where the records of an intact manifest begin.
pub fn edits(manifest: &[u8]) -> Vec<usize> {
    let (mut at, mut edits) = (24, Vec::new());
    while at < manifest.len() {
        edits.push(at);
        at += 8 + number(manifest, at + 4, 4);
    }
    edits
}
