//! `docs/format.md`, checked against the bytes of a real database. Offsets and formulas are those of the page; nothing
//! of the engine's own decoding is used.

use std::fs;
use std::path::Path;

use siltstone::{Compression, Db, KeyspaceOptions, WriteBatch};

fn number(bytes: &[u8], at: usize, width: usize) -> u64 {
    bytes[at..at + width].iter().rev().fold(0, |number, &byte| number << 8 | u64::from(byte))
}

fn crc(seed: u32, parts: &[&[u8]]) -> u64 {
    let mut hasher = crc32fast::Hasher::new_with_initial(seed);
    parts.iter().for_each(|part| hasher.update(part));
    hasher.finalize().into()
}

fn varint(input: &mut &[u8]) -> u64 {
    let (mut value, mut shift) = (0, 0);
    loop {
        let byte = input[0];
        *input = &input[1..];
        value |= u64::from(byte & 0x7f) << shift;
        shift += 7;
        if byte < 0x80 {
            return value;
        }
    }
}

fn bytes<'a>(input: &mut &'a [u8]) -> &'a [u8] {
    let length = varint(input) as usize;
    let (content, rest) = input.split_at(length);
    *input = rest;
    content
}

fn fields(mut input: &[u8]) -> Vec<(u64, &[u8])> {
    let mut fields = Vec::new();
    while !input.is_empty() {
        let tag = varint(&mut input);
        fields.push((tag, bytes(&mut input)));
    }
    fields
}

/// A database whose table has a version that a snapshot keeps, a tombstone, the empty key and values of several
/// lengths.
fn make(directory: &Path) {
    let db = Db::open(directory).unwrap();
    let options = KeyspaceOptions::new().block_bytes(256).compression(Compression::None);
    let layers = db.keyspace("layers", options).unwrap();
    let mut batch = WriteBatch::new();
    for n in 0..50u8 {
        batch.put(&layers, format!("a common beginning {n:03}"), vec![n; n.into()]);
    }
    batch.delete(&layers, "gone").metadata("position", Some("50"));
    db.write(batch).unwrap();
    let snapshot = db.snapshot();
    layers.put("", "the empty key").unwrap();
    layers.put("a common beginning 007", "newer").unwrap();
    layers.flush().unwrap();
    drop(snapshot);
    db.close().unwrap();
}

fn read(directory: &Path, name: &str) -> Vec<u8> {
    fs::read(directory.join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

#[test]
fn current_and_manifest_are_as_documented() {
    let directory = tempfile::tempdir().unwrap();
    make(directory.path());
    assert_eq!(read(directory.path(), "LOCK"), b"");
    let current = read(directory.path(), "CURRENT");
    assert_eq!(
        (current.len(), &current[..8], number(&current, 8, 4), number(&current, 12, 4)),
        (36, &b"SILTCURR"[..], 1, 0)
    );
    assert_eq!(number(&current, 32, 4), crc(0, &[&current[..32]]));
    let live = number(&current, 16, 8);
    let manifest = read(directory.path(), &format!("MANIFEST-{live:06}"));
    assert_eq!(number(&current, 24, 8), manifest.len() as u64, "a clean close states the length");
    assert_eq!((&manifest[..8], number(&manifest, 8, 4), number(&manifest, 12, 8)), (&b"SILTMANI"[..], 1, live));
    assert_eq!(number(&manifest, 20, 4), crc(0, &[&manifest[..20]]));

    let mut at = 24;
    let mut edits = Vec::new();
    while at < manifest.len() {
        let end = at + 8 + number(&manifest, at + 4, 4) as usize;
        let place = [live.to_le_bytes(), (at as u64).to_le_bytes()].concat();
        assert_eq!(number(&manifest, at, 4), crc(0, &[&place, &manifest[at + 4..end]]), "record at {at}");
        edits.extend(fields(&manifest[at + 8..end]));
        at = end;
    }
    let all = |tag: u64| edits.iter().filter(move |edit| edit.0 == tag).map(|edit| edit.1);
    let created: Vec<_> = all(14).map(fields).collect();
    assert_eq!(created.len(), 1);
    assert!(created[0].contains(&(4, b"layers")) && created[0].contains(&(2, &[1])));
    let options = fields(created[0].iter().find(|field| field.0 == 6).unwrap().1);
    assert!(options.contains(&(2, &[0x80, 2])) && options.contains(&(6, &[0])), "256 bytes a block, no compression");
    let trees: Vec<_> = all(22).map(fields).collect();
    let mut table = trees.iter().flatten().filter(|field| field.0 == 12).map(|field| fields(field.1));
    let table = table.next().expect("the flushed table");
    assert!(table.contains(&(4, b"")) && table.contains(&(6, b"gone")) && table.contains(&(8, &[0])));
    let mut counts = table.iter().find(|field| field.0 == 2).unwrap().1;
    let counts: Vec<u64> = (0..6).map(|_| varint(&mut counts)).collect();
    assert_eq!((counts[2], counts[3], counts[4], counts[4] + counts[5]), (53, 1, 1, 53));
    let mut metadata = all(24).next_back().unwrap();
    assert_eq!((bytes(&mut metadata), bytes(&mut metadata)), (&b"position"[..], &b"50"[..]));
}

#[test]
fn the_log_is_as_documented() {
    let directory = tempfile::tempdir().unwrap();
    make(directory.path());
    let wal = read(directory.path(), "000001.wal");
    assert_eq!((&wal[..8], number(&wal, 12, 4), number(&wal, 16, 8)), (&b"siltwal\n"[..], 1, 1));
    assert_eq!((number(&wal, 8, 4), number(&wal, 32, 8)), (crc(0, &[&wal[12..64]]), wal.len() as u64));
    assert_eq!((number(&wal, 40, 8), &wal[48..64]), (0, &[0; 16][..]));
    let salt = crc(0, &[&wal[24..32], &wal[16..24]]) as u32;

    let (mut at, mut previous, mut records) = (64, 0, Vec::new());
    while number(&wal, at + 8, 8) == 1 {
        let payload = &wal[at + 48..at + 48 + number(&wal, at + 28, 4) as usize];
        assert_eq!(number(&wal, at, 4), crc(salt, &[&wal[at + 4..at + 48]]), "header at {at}");
        assert_eq!(number(&wal, at + 4, 4), crc(salt, &[payload]), "payload at {at}");
        assert_eq!((number(&wal, at + 32, 8), number(&wal, at + 16, 8)), (previous, previous + 1));
        assert!(number(&wal, at + 40, 8) <= previous);
        previous += number(&wal, at + 24, 4);
        records.push(payload);
        at = (at + 48 + payload.len()).next_multiple_of(8);
    }
    assert_eq!((previous, records.len()), (53, 3));
    let mut batch = records[0];
    for n in 0..50u8 {
        assert_eq!((varint(&mut batch), varint(&mut batch)), (1, 1), "a put into keyspace 1");
        assert_eq!(bytes(&mut batch), format!("a common beginning {n:03}").as_bytes());
        assert_eq!(bytes(&mut batch), vec![n; n.into()]);
    }
    assert_eq!((varint(&mut batch), varint(&mut batch), bytes(&mut batch)), (0, 1, &b"gone"[..]));
    assert_eq!((varint(&mut batch), bytes(&mut batch), varint(&mut batch)), (17, &b"position"[..], 1));
    assert_eq!((bytes(&mut batch), batch), (&b"50"[..], &b""[..]));
}

fn section(table: &[u8], offset: u64, stored_bytes: u64) -> &[u8] {
    let (start, end) = (offset as usize, (offset + stored_bytes) as usize);
    let table_number = number(table, table.len() - 60, 8) as u32;
    let seed =
        offset as u32 ^ ((offset >> 32) as u32).wrapping_mul(0x85eb_ca6b) ^ table_number.wrapping_mul(0x9e37_79b1);
    assert_eq!(number(table, end - 4, 4), crc(seed, &[&table[start..end - 4]]), "section at {offset}");
    assert_eq!(table[end - 5], 0, "not compressed");
    &table[start..end - 5]
}

/// Key, sequence number, kind and value.
type Entry<'a> = (Vec<u8>, u64, u8, &'a [u8]);

/// Every entry, and the buckets.
fn block(block: &[u8]) -> (Vec<Entry<'_>>, &[u8]) {
    let (n, flags, width) = (number(block, 0, 4) as usize, block[4], usize::from(block[5]));
    let (shared_bytes, base) = (number(block, 6, 2) as usize, number(block, 8, 8));
    let (rest_bytes, value_bytes) = (number(block, 16, 4) as usize, number(block, 20, 4) as usize);
    let mut at = 26;
    let mut column = |each: usize, present: bool| {
        let start = at;
        at += if present { each * n } else { 0 };
        start
    };
    let wide = if flags & 16 != 0 { 4 } else { 2 };
    let (prefixes, seqnos) = (column(8, true), column(width, true));
    let (kinds, shorts) = (column(1, flags & 4 != 0), column(1, flags & 8 != 0));
    let (rest_ends, value_ends) = (column(wide, flags & 1 == 0), column(wide, flags & 2 == 0));
    let buckets = &block[at..at + number(block, 24, 2) as usize];
    let shared = &block[at + buckets.len()..at + buckets.len() + shared_bytes];
    let rests = at + buckets.len() + shared_bytes;
    let values = rests + rest_bytes * if flags & 1 != 0 { n } else { 1 };
    let part = |i: usize, fixed: bool, each: usize, ends: usize, from: usize| {
        let end = |i: usize| number(block, ends + wide * i, wide) as usize;
        let start = |i: usize| if i == 0 { 0 } else { end(i - 1) };
        let range = if fixed { each * i..each * (i + 1) } else { start(i)..end(i) };
        &block[from + range.start..from + range.end]
    };
    let entries = (0..n).map(|i| {
        let short = if flags & 8 != 0 { usize::from(block[shorts + i]) } else { 8 };
        let prefix = number(block, prefixes + 8 * i, 8).to_be_bytes();
        let rest = part(i, flags & 1 != 0, rest_bytes, rest_ends, rests);
        let kind = if flags & 4 != 0 { block[kinds + i] } else { 1 };
        let value = part(i, flags & 2 != 0, value_bytes, value_ends, values);
        ([shared, &prefix[..short], rest].concat(), base + number(block, seqnos + width * i, width), kind, value)
    });
    (entries.collect(), buckets)
}

#[test]
fn tables_are_as_documented() {
    let directory = tempfile::tempdir().unwrap();
    make(directory.path());
    let table = read(directory.path(), "000001.table");
    let footer = &table[table.len() - 60..];
    assert_eq!((&footer[52..], number(footer, 48, 4), number(footer, 0, 8)), (&b"siltTABL"[..], 1, 1));
    assert_eq!(number(footer, 44, 4), crc(0, &[&footer[..44]]));
    let place = |at: usize| (number(footer, at, 8), number(footer, at + 8, 4));
    let (filter, index, properties) = (place(8), place(20), place(32));
    assert_eq!((filter.0 + filter.1, index.0 + index.1), (index.0, properties.0));
    assert_eq!(properties.0 + properties.1, table.len() as u64 - 60);

    let (index, no_buckets) = block(section(&table, index.0, index.1));
    assert!(index.len() > 3 && no_buckets.is_empty());
    let filter_payload = section(&table, filter.0, filter.1);
    let lines = &filter_payload[(filter.0.next_multiple_of(64) - filter.0) as usize..];
    let properties = section(&table, properties.0, properties.1);
    let (mut end, mut found) = (0, Vec::new());
    for (separator, seqno, _, handle) in &index {
        let (offset, stored_bytes) = (number(handle, 0, 8), number(handle, 8, 4));
        assert_eq!(offset, end, "no gaps");
        end = offset + stored_bytes;
        let (entries, buckets) = block(section(&table, offset, stored_bytes));
        assert!(entries.last().unwrap().0 <= *separator && *seqno == 0);
        check_buckets(&entries, buckets);
        found.extend(entries);
    }
    assert_eq!(end, filter.0);
    for (key, ..) in &found {
        assert!(may_contain(lines, number(properties, 48, 4), xxhash_rust::xxh3::xxh3_64(key)), "{key:?}");
    }
    assert!(!(0..20u8).all(|n| may_contain(lines, number(properties, 48, 4), xxhash_rust::xxh3::xxh3_64(&[n]))));

    let mut expected: Vec<(Vec<u8>, u64, u8, Vec<u8>)> = (0..50u8)
        .map(|n| (format!("a common beginning {n:03}").into(), u64::from(n) + 1, 1, vec![n; n.into()]))
        .collect();
    expected.insert(7, (b"a common beginning 007".to_vec(), 53, 1, b"newer".to_vec()));
    expected.insert(0, (Vec::new(), 52, 1, b"the empty key".to_vec()));
    expected.push((b"gone".to_vec(), 51, 0, Vec::new()));
    let found: Vec<_> = found.into_iter().map(|(key, seqno, kind, value)| (key, seqno, kind, value.to_vec())).collect();
    assert_eq!(found, expected);
    let user_bytes: usize = expected.iter().map(|(key, .., value)| key.len() + value.len()).sum();
    let numbers: Vec<u64> = (0..6).map(|i| number(properties, 8 * i, 8)).collect();
    assert_eq!(numbers, [53, 1, user_bytes as u64, 1, 53, index.len() as u64]);
    assert_eq!((number(properties, 52, 2), number(properties, 54, 2), &properties[56..60]), (0, 4, &b"gone"[..]));
    // Keyspace, and the last write before the flush: 51 and two.
    assert_eq!((number(properties, 60, 4), number(properties, 64, 8), &properties[72..]), (1, 53, &b"layers"[..]));
}

fn check_buckets(entries: &[(Vec<u8>, u64, u8, &[u8])], buckets: &[u8]) {
    let mut expected = vec![255; buckets.len()];
    for (i, (key, ..)) in entries.iter().enumerate() {
        if i > 0 && entries[i - 1].0 == *key {
            continue;
        }
        let hash = xxhash_rust::xxh3::xxh3_64(key) & 0xffff_ffff;
        let bucket = &mut expected[((hash * buckets.len() as u64) >> 32) as usize];
        *bucket = if *bucket == 255 { i as u8 } else { 254 };
    }
    assert_eq!(buckets, expected);
}

fn may_contain(lines: &[u8], pieces: u64, hash: u64) -> bool {
    let line = (((hash >> 32) * (lines.len() as u64 / 64)) >> 32) as usize;
    let mut mixed = hash.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (0..pieces).all(|piece| {
        if piece > 0 && piece % 7 == 0 {
            mixed = (mixed ^ mixed >> 29).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        }
        let position = (mixed << (9 * (piece % 7)) >> 55) as usize;
        lines[64 * line + position / 8] >> (position % 8) & 1 == 1
    })
}
