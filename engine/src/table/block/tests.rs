use std::ops::ControlFlow;

use proptest::prelude::*;
use proptest::test_runner::RngSeed;

use super::super::testing::{Entry, delete, in_order, model_get, model_seek, put};
use super::*;
use crate::cursor::Stretch;
use crate::key::{Lookup, hash_key, prefix_u64};
use bytes::Bytes;

fn build(entries: &[Entry], with_hashes: bool) -> Vec<u8> {
    let mut builder = BlockBuilder::default();
    for (i, (key, trailer, value)) in entries.iter().enumerate() {
        let is_first = i == 0 || entries[i - 1].0 != *key;
        builder.add(key, (with_hashes && is_first).then(|| hash_key(key)), *trailer, value);
    }
    let mut out = Vec::new();
    builder.finish(&mut out);
    assert!(builder.is_empty());
    out
}

fn parse(bytes: &[u8]) -> Result<Block<&[u8]>, Reason> {
    let block = Block::parse(bytes)?;
    block.check_entries()?;
    Ok(block)
}

/// What a cursor says after a look beside its entry is right, and it does say it where prefixes tell.
fn check_looks(cursor: &mut BlockCursor, entries: &[Entry]) {
    let prefix = |i: usize| prefix_u64(&entries[i].0);
    for i in 0..entries.len() {
        cursor.move_to(i).unwrap();
        let first_of_key = i > 0 && entries[i - 1].0 != entries[i].0;
        assert!(first_of_key || !cursor.is_newest());
        assert!(cursor.is_newest() || i == 0 || prefix(i - 1) == prefix(i));
        let moved = cursor.next_key().inspect(|there| assert_eq!(*there, prefix(i + 1))).is_some();
        assert_eq!(cursor.position(), i + usize::from(moved));
        assert_eq!(cursor.key(), &entries[i + usize::from(moved)].0[..]);
        assert!(!moved || entries[i].0 != entries[i + 1].0);
        assert!(moved || i + 1 == entries.len() || prefix(i) == prefix(i + 1));
    }
}

/// What a cursor visits from entry `start` on is what the stretch asks for, one entry after the other, with nothing in
/// between; and it ends where a look does not do.
fn check_visit(cursor: &mut BlockCursor, entries: &[Entry], start: usize, stretch: Stretch, most: usize) {
    let ahead = |i: usize, steps: usize| if stretch.backward { i.checked_sub(steps) } else { Some(i + steps) };
    let entry = |i: Option<usize>| i.and_then(|i| entries.get(i));
    let is_inside = |key: &[u8]| {
        let prefix = prefix_u64(key);
        if stretch.backward { prefix >= stretch.limit } else { prefix <= stretch.limit }
    };
    cursor.move_to(start).unwrap();
    let mut visited = 0;
    let flow = cursor.visit(stretch, &mut |key, value| {
        visited += 1;
        let expected = entry(ahead(start, visited)).unwrap();
        assert_eq!((key, value), (&expected.0[..], &expected.2[..]));
        assert!(is_inside(key) && expected.1.is_put_by(stretch.snapshot));
        assert!(ahead(start, visited + 1).is_some() || !stretch.backward, "the first may have a newer one before it");
        for beside in [ahead(start, visited - 1), ahead(start, visited + 1).filter(|_| stretch.backward)] {
            assert!(entry(beside).is_none_or(|beside| beside.0 != key));
        }
        if visited < most { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    });
    assert_eq!(flow.is_break(), visited == most);
    let at = ahead(start, visited).unwrap();
    assert_eq!(
        (cursor.position(), cursor.key(), cursor.key_prefix()),
        (at, &entries[at].0[..], prefix_u64(&entries[at].0))
    );
    if let (false, Some(next)) = (flow.is_break(), entry(ahead(at, 1))) {
        let ties =
            |beside: Option<usize>| entry(beside).is_some_and(|entry| prefix_u64(&entry.0) == prefix_u64(&next.0));
        let is_told_apart = !ties(Some(at)) && !(stretch.backward && (ahead(at, 2).is_none() || ties(ahead(at, 2))));
        assert!(!is_told_apart || !is_inside(&next.0) || !next.1.is_put_by(stretch.snapshot));
    }
}

fn check_visits(cursor: &mut BlockCursor, entries: &[Entry]) {
    let some = |count: usize| (0..entries.len()).step_by(entries.len().div_ceil(count).max(1));
    let near = |prefix: u64| [prefix, prefix.saturating_add(1), prefix.saturating_sub(1)];
    let limits = || some(4).flat_map(|at| near(prefix_u64(&entries[at].0))).chain([u64::MAX, 0]);
    for (start, backward) in some(60).flat_map(|start| [(start, false), (start, true)]) {
        for (limit, most) in limits().zip([usize::MAX, 3, 1].into_iter().cycle()) {
            for snapshot in [0, 100, entries[start].1.seqno(), MAX_SEQNO] {
                check_visit(cursor, entries, start, Stretch { limit, snapshot, backward }, most);
            }
        }
    }
}

/// Compares a block with the entries it was built from, by every way to read it.
fn check(entries: &[Entry], with_hashes: bool, probes: &[Vec<u8>]) {
    let bytes = build(entries, with_hashes);
    let block = parse(&bytes).unwrap();
    assert_eq!(block.len(), entries.len());
    if !entries.is_empty() {
        block.check_order().unwrap();
    }
    let mut cursor = BlockCursor::default();
    cursor.set_block(Block::parse(Bytes::from(bytes.clone())).unwrap());
    let mut key = Vec::new();
    for i in (0..entries.len()).chain((0..entries.len()).rev()) {
        let entry = &entries[i];
        block.key_into(i, &mut key);
        assert_eq!((&key, block.trailer(i), block.value(i)), (&entry.0, entry.1, &entry.2[..]));
        cursor.move_to(i).unwrap();
        assert_eq!((cursor.key(), cursor.trailer(), cursor.value()), (&entry.0[..], entry.1, &entry.2[..]));
        assert_eq!(cursor.key_prefix(), prefix_u64(&entry.0), "{:?}", entry.0);
    }
    assert!(cursor.move_to(entries.len()).is_err());
    check_looks(&mut cursor, entries);
    check_visits(&mut cursor, entries);
    for key in probes.iter().chain(entries.iter().map(|entry| &entry.0)) {
        let seqnos = entries.iter().filter(|entry| entry.0 == *key).flat_map(|entry| {
            let seqno = entry.1.seqno();
            [seqno.saturating_sub(1), seqno, (seqno + 1).min(MAX_SEQNO)]
        });
        for seqno in seqnos.chain([0, 100, MAX_SEQNO]) {
            let found = block.find(&Lookup::new(key, seqno)).map(|i| (block.trailer(i), block.value(i)));
            let expected = model_get(entries, key, seqno).map(|entry| (entry.1, &entry.2[..]));
            assert_eq!(found, expected, "{key:?} at {seqno}");
            let sampled = block.lower_bound_sampled(key, prefix_u64(key), seqno, &block.sample());
            assert_eq!(sampled, model_seek(entries, key, seqno), "{key:?} at {seqno}, sampled");
            assert_eq!(
                block.lower_bound(key, prefix_u64(key), seqno),
                model_seek(entries, key, seqno),
                "{key:?} at {seqno}"
            );
        }
    }
}

/// Keys that are prefixes of each other, end in zeros, share long heads, or are unlike.
fn key() -> impl Strategy<Value = Vec<u8>> {
    let few = prop::collection::vec(prop_oneof![Just(0u8), Just(1), Just(0xff)], 0..12);
    let head = (few.clone(), 0..20usize).prop_map(|(tail, zeros)| [vec![7; zeros], tail].concat());
    prop_oneof![few, head, prop::collection::vec(any::<u8>(), 0..24), prop::collection::vec(any::<u8>(), 16..=16)]
}

fn seqno() -> impl Strategy<Value = u64> {
    prop_oneof![0..4u64, 0..300u64, 0..70_000u64, Just(1 << 33), Just(MAX_SEQNO)]
}

fn entry() -> impl Strategy<Value = Entry> {
    let value = prop_oneof![Just(vec![9u8; 10]), prop::collection::vec(any::<u8>(), 0..30)];
    (key(), seqno(), value, 0..5u8).prop_map(
        |(key, seqno, value, kind)| {
            if kind == 0 { delete(key, seqno) } else { put(key, seqno, value) }
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, rng_seed: RngSeed::Fixed(0x51_17), ..ProptestConfig::default() })]

    #[test]
    fn blocks_hold_what_was_put_in(
        entries in prop::collection::vec(entry(), 0..60),
        probes in prop::collection::vec(key(), 0..20),
        with_hashes in any::<bool>(),
    ) {
        check(&in_order(entries), with_hashes, &probes);
    }
}

#[test]
fn every_width_round_trips() {
    let probes = [vec![], vec![0], vec![0xff; 30]];
    let numbered = |n: usize, value_bytes: usize, step: u64| -> Vec<Entry> {
        (0..n).map(|i| put(format!("key{i:08}"), i as u64 * step, vec![i as u8; value_bytes])).collect()
    };
    for step in [0, 1, 1 << 10, 1 << 20, 1 << 40] {
        check(&numbered(40, 100, step), true, &probes);
    }
    for n in [1, 2, 249, 250, 251, 300, 1000] {
        check(&numbered(n, 3, 1), true, &probes);
    }
    let mut uneven = numbered(30, 4000, 1);
    check(&uneven, true, &probes);
    uneven[7].2.pop();
    check(&uneven, true, &probes);
    uneven.push(put(vec![b'z'; 65_535], 3, "long key"));
    uneven.push(put([vec![b'z'; 65_534], vec![b'{']].concat(), 3, "another"));
    check(&uneven, true, &probes);
    check(&[put("", 1, "")], true, &probes);
    check(&[put("a", 2, "x"), delete("a", 1), put("a\0", 1, "y"), put("a\0\0\0\0\0\0\0\0", 1, "z")], true, &probes);
    let versions: Vec<Entry> = (0..200).map(|i| put("one key", 1000 - i, vec![i as u8])).collect();
    check(&versions, true, &probes);
}

#[test]
fn no_truncation_and_no_changed_byte_makes_a_block_panic() {
    let entries: Vec<Entry> = in_order(
        (0..20).map(|i| put(vec![b'k'; i % 5 * 3], i as u64 * 50, vec![1; i])).chain([delete("q", 7)]).collect(),
    );
    let bytes = build(&entries, true);
    let read_all = |bytes: &[u8]| {
        let Ok(block) = parse(bytes) else { return false };
        let mut key = Vec::new();
        let mut cursor = BlockCursor::default();
        cursor.set_block(Block::parse(Bytes::copy_from_slice(bytes)).unwrap());
        for i in 0..block.len() {
            block.key_into(i, &mut key);
            cursor.move_to(i).unwrap();
            assert!(ValueKind::from_u8(block.trailer(i).kind_u8()).is_some());
            assert!(block.trailer(i).seqno() <= MAX_SEQNO);
        }
        for entry in &entries {
            block.find(&Lookup::new(&entry.0, entry.1.seqno()));
        }
        let _ = block.check_order();
        true
    };
    assert!(read_all(&bytes));
    for cut in 0..bytes.len() {
        assert!(!read_all(&bytes[..cut]), "cut at {cut}");
    }
    for i in 0..bytes.len() {
        for change in [1, 2, 4, 8, 16, 32, 64, 128, 255] {
            let mut changed = bytes.clone();
            changed[i] ^= change;
            read_all(&changed);
        }
    }
    let mut unknown = build(&[delete("a", 1), put("b", 1, "")], false);
    let kinds_at = HEADER_BYTES + 16;
    assert_eq!(unknown[kinds_at..kinds_at + 2], [0, 1]);
    unknown[kinds_at] = 9;
    assert_eq!(parse(&unknown).err(), Some("an entry of unknown kind"));
}

#[test]
fn headers_that_declare_too_much_are_refused() {
    let bytes = build(&[put("abc", 1, "d"), put("abd", 1, "e")], true);
    for (at, size) in [(0, 4), (16, 4), (20, 4), (24, 2), (6, 2)] {
        for fill in [0x7f, 0xff] {
            let mut huge = bytes.clone();
            huge[at..at + size].fill(fill);
            assert!(Block::parse(&huge[..]).is_err(), "field at {at}");
        }
    }
    // Nothing of that length is there if there is no entry; a cursor overflowed.
    let mut empty = [0; HEADER_BYTES];
    empty[4] = FIXED_RESTS;
    empty[16..20].fill(0xff);
    let mut cursor = BlockCursor::default();
    cursor.set_block(Block::parse(Bytes::copy_from_slice(&empty)).unwrap());
    assert!(cursor.move_to(0).is_err());
    let mut late = bytes.clone();
    late[8..16].fill(0xff);
    assert!(parse(&late).is_err(), "a sequence number over the largest");
    let mut unpadded = build(&[put("a", 1, ""), put("b", 1, "")], true);
    assert!(parse(&unpadded).is_ok());
    unpadded[HEADER_BYTES] = 1;
    assert_eq!(parse(&unpadded).err(), Some("a short key with a rest"), "the prefix goes on behind the key");
    let mut sum = build(&[put("a", 2, ""), put("b", 1, "")], true);
    assert_eq!(sum[5], 1, "the deltas have one byte");
    sum[8..16].copy_from_slice(&(MAX_SEQNO - 1).to_le_bytes());
    assert!(parse(&sum).is_ok());
    sum[8..16].copy_from_slice(&MAX_SEQNO.to_le_bytes());
    assert!(parse(&sum).is_err(), "the largest and one more");
}
