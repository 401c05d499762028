//! Tables as a whole: written, opened in every mode, read, damaged.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use proptest::prelude::*;
use proptest::test_runner::RngSeed;

use super::builder::{TableBuilder, TableWriteOptions};
use super::format::{self, FOOTER_BYTES};
use super::handle::{Purger, TableCache, TableCacheLimits, TableHandle, table_path};
use super::iterator::TableCursor;
use super::level_iterator::LevelCursor;
use super::properties::Origin;
use super::reader::{ReadMode, Table};
use super::testing::*;
use crate::cache::BlockCache;
use crate::cursor::Cursor;
use crate::cursor::testing::{AIMS, aim_and_seek, aim_and_seek_before};
use crate::error::{Error, Result};
use crate::fs::FileSystem;
use crate::key::{Lookup, MAX_SEQNO, Trailer, ValueKind, hash_key, prefix_u64};
use crate::version::version::Level;

const MODES: [ReadMode; 2] = [ReadMode::Map, ReadMode::Pread];

fn options(block_bytes: usize, filter_bits_per_key: u32, compress: bool) -> TableWriteOptions {
    TableWriteOptions { block_bytes, filter_bits_per_key, compress, append_bytes: 1 << 20 }
}

fn at_cursor(cursor: &dyn Cursor) -> Option<Entry> {
    let entry = cursor.valid().then(|| (cursor.key().to_vec(), cursor.trailer(), cursor.value().to_vec()))?;
    assert_eq!(cursor.key_prefix(), prefix_u64(&entry.0));
    assert_eq!(cursor.value_owner().map(|owner| owner.slice_ref(cursor.value()).to_vec()), Some(entry.2.clone()));
    Some(entry)
}

fn scan(cursor: &mut dyn Cursor) -> Result<Vec<Entry>> {
    let mut found = Vec::new();
    cursor.seek_to_first()?;
    while let Some(entry) = at_cursor(cursor) {
        found.push(entry);
        cursor.next()?;
    }
    Ok(found)
}

fn scan_back(cursor: &mut dyn Cursor) -> Result<Vec<Entry>> {
    let (mut found, mut newest) = (Vec::new(), Vec::new());
    cursor.seek_to_last()?;
    while let Some(entry) = at_cursor(cursor) {
        found.push(entry);
        newest.push(cursor.is_newest());
        cursor.prev()?;
    }
    found.reverse();
    newest.reverse();
    assert_ne!(newest.first(), Some(&false), "nothing comes before the first entry");
    for (pair, newest) in found.windows(2).zip(newest.iter().skip(1)) {
        let [before, here] = [&pair[0].0, &pair[1].0];
        let told_apart = prefix_u64(before) != prefix_u64(here);
        assert!(if *newest { before != here } else { !told_apart }, "{here:?}");
    }
    Ok(found)
}

fn get(table: &Table, key: &[u8], seqno: u64) -> Result<Option<Entry>> {
    let lookup = Lookup::new(key, seqno);
    table.prefetch_filter(lookup.hash);
    let hit = table.get(&lookup)?;
    assert!(hit.is_none() || table.may_contain(lookup.hash), "the filter denies {key:?}");
    Ok(hit.map(|hit| {
        let (trailer, value) = (hit.trailer, hit.value().to_vec());
        assert_eq!(hit.into_slice(), value);
        (key.to_vec(), trailer, value)
    }))
}

/// Seeks of both kinds from (`key`, `seqno`), and a step either way from there.
fn check_seeks(cursor: &mut dyn Cursor, entries: &[Entry], key: &[u8], seqno: u64) {
    let at = model_seek(entries, key, seqno);
    let before = entries.partition_point(|entry| &entry.0[..] < key).checked_sub(1);
    for aims in AIMS {
        aim_and_seek(cursor, aims, key, seqno);
        assert_eq!(at_cursor(cursor).as_ref(), entries.get(at), "seek {key:?} at {seqno} after {aims:?}");
        if cursor.valid() {
            cursor.prev().unwrap();
            assert_eq!(at_cursor(cursor).as_ref(), at.checked_sub(1).map(|i| &entries[i]));
        }
        aim_and_seek_before(cursor, aims, key);
        assert_eq!(at_cursor(cursor).as_ref(), before.map(|i| &entries[i]), "seek before {key:?} after {aims:?}");
        if cursor.valid() {
            cursor.next().unwrap();
            assert_eq!(at_cursor(cursor).as_ref(), before.and_then(|i| entries.get(i + 1)));
        }
    }
}

fn check_table(table: &Arc<Table>, entries: &[Entry], probes: &[Vec<u8>]) {
    let mut cursor = TableCursor::new(Arc::clone(table));
    assert_eq!(scan(&mut cursor).unwrap(), entries);
    assert_eq!(scan_back(&mut cursor).unwrap(), entries);
    for key in probes.iter().chain(entries.iter().map(|entry| &entry.0)) {
        let seqnos = entries.iter().filter(|entry| entry.0 == *key).map(|entry| entry.1.seqno());
        for seqno in seqnos.flat_map(|s| [s.saturating_sub(1), s]).chain([0, MAX_SEQNO]) {
            assert_eq!(get(table, key, seqno).unwrap().as_ref(), model_get(entries, key, seqno), "{key:?} at {seqno}");
            check_seeks(&mut cursor, entries, key, seqno);
        }
    }
    table.verify().unwrap();
}

fn numbered(range: Range<u64>) -> Vec<Entry> {
    range
        .map(|i| put(format!("key{i:06}"), i % 100 + 1, format!("value {i} {}", "abcd".repeat(i as usize % 9))))
        .collect()
}

fn entries() -> impl Strategy<Value = Vec<Entry>> {
    let byte = prop_oneof![Just(0u8), Just(b'a'), Just(0xff), any::<u8>()];
    let key = prop_oneof![prop::collection::vec(byte, 0..14), Just(b"often".to_vec())];
    let value = prop::collection::vec(prop_oneof![Just(7u8), any::<u8>()], 0..80);
    let entry = (key, 0..400u64, value, 0..4u8);
    let entry =
        entry.prop_map(|(key, seqno, value, kind)| if kind == 0 { delete(key, seqno) } else { put(key, seqno, value) });
    prop::collection::vec(entry, 0..120).prop_map(in_order)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, rng_seed: RngSeed::Fixed(0x7ab1e), ..ProptestConfig::default() })]

    #[test]
    fn every_mode_and_option_reads_what_was_written(
        entries in entries(),
        probes in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..5), 0..10),
        block_bytes in prop_oneof![Just(64usize), Just(300), Just(4096)],
        bits in prop_oneof![Just(0u32), Just(1), Just(10)],
        compress in any::<bool>(),
    ) {
        let fs = MemFs::default();
        let meta = write_table(&fs, 5, options(block_bytes, bits, compress), &entries).unwrap();
        prop_assert_eq!(meta.entries, entries.len() as u64);
        prop_assert_eq!(&meta.smallest[..], entries.first().map_or(&[][..], |e| &e.0));
        prop_assert_eq!(&meta.largest[..], entries.last().map_or(&[][..], |e| &e.0));
        prop_assert_eq!(meta.file_bytes, fs.bytes(&table_path(&dir(), 5)).len() as u64);
        for mode in MODES {
            check_table(&open_table(&fs, 5, mode).unwrap(), &entries, &probes);
        }
    }
}

#[test]
fn versions_of_one_key_over_many_blocks_are_all_found() {
    let mut entries: Vec<Entry> = (0..500).map(|i| put("k", 10_000 - i, format!("{i:050}"))).collect();
    entries.extend([put("j", 3, "before"), put("k\0", 2, "after"), put("l", 1, "last")]);
    let entries = in_order(entries);
    let fs = MemFs::default();
    write_table(&fs, 1, options(256, 10, false), &entries).unwrap();
    for mode in MODES {
        let table = open_table(&fs, 1, mode).unwrap();
        assert!(table.properties().data_blocks > 100);
        check_table(&table, &entries, &[b"k\0\0".to_vec(), b"jz".to_vec()]);
    }
}

#[test]
fn large_values_and_keys_pass_and_larger_ones_are_refused() {
    let fs = MemFs::default();
    let noise: Vec<u8> = (0..3_000_000u64).map(|i| hash_key(&i.to_le_bytes()) as u8).collect();
    let entries =
        [put("a", 1, "small"), put("b", 1, noise), put(vec![b'c'; 65_535], 1, vec![1; 70_000]), put("d", 1, "small")];
    for compress in [false, true] {
        write_table(&fs, 1, options(4096, 10, compress), &entries).unwrap();
        for mode in MODES {
            check_table(&open_table(&fs, 1, mode).unwrap(), &entries, &[b"cc".to_vec()]);
        }
    }
    let path = table_path(&dir(), 2);
    let mut builder =
        TableBuilder::new(fs.create(&path).unwrap(), path, 2, options(4096, 10, false), Origin::default());
    let refused = builder.add(&[0; 65_536], put("", 1, "").1, b"");
    assert!(matches!(refused, Err(Error::InvalidArgument(_))));
}

#[test]
fn the_size_estimate_is_near_the_file() {
    let fs = MemFs::default();
    let path = table_path(&dir(), 1);
    let mut builder =
        TableBuilder::new(fs.create(&path).unwrap(), path, 1, options(4096, 10, false), Origin::default());
    assert!(builder.is_empty());
    for (key, trailer, value) in numbered(0..20_000) {
        builder.add(&key, trailer, &value).unwrap();
    }
    let (estimate, entries) = (builder.file_bytes(), builder.entries());
    let meta = builder.finish().unwrap();
    assert_eq!((entries, meta.entries), (20_000, 20_000));
    assert!(estimate.abs_diff(meta.file_bytes) < meta.file_bytes / 50, "{estimate} {}", meta.file_bytes);
}

#[test]
fn compression_shrinks_and_every_mode_agrees() {
    let entries = numbered(0..3000);
    let fs = MemFs::default();
    let plain = write_table(&fs, 1, options(4096, 10, false), &entries).unwrap();
    let packed = write_table(&fs, 2, options(4096, 10, true), &entries).unwrap();
    assert!(packed.file_bytes < plain.file_bytes * 7 / 8);
    for (number, mode) in [(1, ReadMode::Map), (1, ReadMode::Pread), (2, ReadMode::Map), (2, ReadMode::Pread)] {
        let table = open_table(&fs, number, mode).unwrap();
        assert_eq!(scan(&mut TableCursor::new(Arc::clone(&table))).unwrap(), entries);
        for entry in entries.iter().step_by(7) {
            assert_eq!(get(&table, &entry.0, MAX_SEQNO).unwrap().as_ref(), Some(entry));
        }
        assert_eq!(get(&table, b"key000001x", MAX_SEQNO).unwrap(), None);
    }
}

/// Opens and reads damaged bytes by every way; any answer must be right, any error of the kinds that name damage.
fn read_damaged(bytes: &[u8], entries: &[Entry], what: &dyn Fn() -> String) -> bool {
    let fs = MemFs::default();
    fs.put(&table_path(&dir(), 1), bytes.to_vec());
    let mut noticed = false;
    let mut judge = |error: Error| match error {
        Error::Corruption { offset, .. } => {
            assert!(offset <= bytes.len() as u64, "{}: {error:?}", what());
            noticed = true;
        }
        Error::UnsupportedVersion { .. } => noticed = true,
        other => panic!("{}: {other:?}", what()),
    };
    for mode in MODES {
        let table = match open_table(&fs, 1, mode) {
            Ok(table) => table,
            Err(error) => {
                judge(error);
                continue;
            }
        };
        for entry in entries {
            match get(&table, &entry.0, entry.1.seqno()) {
                Ok(found) => assert_eq!(found.as_ref(), Some(entry), "{}", what()),
                Err(error) => judge(error),
            }
        }
        for found in
            [scan(&mut TableCursor::new(Arc::clone(&table))), scan_back(&mut TableCursor::new(Arc::clone(&table)))]
        {
            match found {
                Ok(found) => assert_eq!(found, entries, "{}", what()),
                Err(error) => judge(error),
            }
        }
        match table.verify() {
            Ok(_) => {}
            Err(error) => judge(error),
        }
    }
    noticed
}

#[test]
fn every_truncation_and_every_flipped_byte_is_noticed() {
    let entries = in_order(
        (0..24).map(|i| put(format!("k{}", i / 2), i, "v".repeat(i as usize))).chain([delete("k3", 50)]).collect(),
    );
    for compress in [false, true] {
        let fs = MemFs::default();
        write_table(&fs, 1, options(200, 10, compress), &entries).unwrap();
        let bytes = fs.bytes(&table_path(&dir(), 1));
        assert!(!read_damaged(&bytes, &entries, &|| "intact".to_owned()));
        for cut in 0..bytes.len() {
            assert!(read_damaged(&bytes[..cut], &entries, &|| format!("cut at {cut}")), "cut at {cut}");
        }
        for i in 0..bytes.len() {
            for change in [1, 0x80, 0xff] {
                let mut flipped = bytes.clone();
                flipped[i] ^= change;
                let what = || format!("byte {i} ^ {change}, compress {compress}");
                assert!(read_damaged(&flipped, &entries, &what), "not noticed: {}", what());
            }
        }
        let longer = [&bytes[..], &[0]].concat();
        assert!(read_damaged(&longer, &entries, &|| "a byte more".to_owned()));
    }
}

#[test]
fn swapped_blocks_and_foreign_tables_are_noticed() {
    let entries: Vec<Entry> = (0..8).map(|i| put(format!("{i}"), 1, vec![b'x'; 100])).collect();
    let fs = MemFs::default();
    write_table(&fs, 1, options(64, 10, false), &entries).unwrap();
    let path = table_path(&dir(), 1);
    let bytes = fs.bytes(&path);
    let block_bytes = open_table(&fs, 1, ReadMode::Map).unwrap().index().handle(0).unwrap().stored_bytes as usize;
    let mut swapped = bytes.clone();
    swapped[..block_bytes].copy_from_slice(&bytes[block_bytes..2 * block_bytes]);
    swapped[block_bytes..2 * block_bytes].copy_from_slice(&bytes[..block_bytes]);
    assert!(read_damaged(&swapped, &entries, &|| "swapped".to_owned()));
    fs.put(&table_path(&dir(), 2), bytes.clone());
    assert!(matches!(open_table(&fs, 2, ReadMode::Map), Err(Error::Corruption { .. })), "table 1 under table 2's name");
    let mut newer = bytes;
    let version_at = newer.len() - 12;
    newer[version_at] = format::FORMAT_VERSION as u8 + 1;
    fs.put(&path, newer);
    let refused = open_table(&fs, 1, ReadMode::Map);
    assert!(matches!(refused, Err(Error::UnsupportedVersion { found, .. }) if found == format::FORMAT_VERSION + 1));
    fs.put(&path, vec![0; FOOTER_BYTES]);
    assert!(matches!(open_table(&fs, 1, ReadMode::Pread), Err(Error::Corruption { .. })));
}

#[test]
fn a_block_is_verified_once_when_mapped_and_damage_names_its_place() {
    let entries = numbered(0..500);
    let fs = MemFs::default();
    write_table(&fs, 1, options(1024, 10, false), &entries).unwrap();
    let path = table_path(&dir(), 1);
    let mut bytes = fs.bytes(&path);
    let handle = open_table(&fs, 1, ReadMode::Map).unwrap().index().handle(3).unwrap();
    bytes[handle.offset as usize + 40] ^= 1;
    fs.put(&path, bytes);
    for mode in MODES {
        let table = open_table(&fs, 1, mode).unwrap();
        let mut cursor = TableCursor::new(Arc::clone(&table));
        match scan(&mut cursor) {
            Err(Error::Corruption { file, offset, .. }) => assert_eq!((file, offset), (path.clone(), handle.offset)),
            other => panic!("{other:?}"),
        }
        assert!(!cursor.valid(), "damage does not look like an entry");
        assert!(matches!(table.verify(), Err(Error::Corruption { offset, .. }) if offset == handle.offset));
        assert_eq!(
            get(&table, &entries[0].0, MAX_SEQNO).unwrap().as_ref(),
            Some(&entries[0]),
            "other blocks still serve"
        );
    }
}

fn cache(fs: &MemFs, max_open: usize, mmap_limit: u64) -> (Arc<TableCache>, Arc<Purger>) {
    let purger = Arc::new(Purger::default());
    let blocks = Arc::new(BlockCache::new(1 << 20));
    let limits = TableCacheLimits {
        max_open_tables: max_open,
        max_memory_bytes: 1 << 20,
        mmap_reads: true,
        mmap_limit_bytes: mmap_limit,
        cache_bytes: u64::MAX,
    };
    let cache = TableCache::new(Arc::new(fs.clone()), dir(), blocks, limits, Arc::clone(&purger));
    (Arc::new(cache), purger)
}

fn level(fs: &MemFs, cache: &Arc<TableCache>, tables: u64, each: u64) -> Arc<[Arc<TableHandle>]> {
    (0..tables)
        .map(|t| {
            let meta =
                write_table(fs, t + 1, options(512, 10, t % 2 == 1), &numbered(t * each..(t + 1) * each)).unwrap();
            TableHandle::new(meta, Arc::clone(cache))
        })
        .collect()
}

/// A compressed block is looked at in the file once: after that the cache has it, and the system need not be asked.
#[test]
fn a_compressed_block_is_known_as_one() {
    let fs = MemFs::default();
    let entries = numbered(0..1000);
    for compressed in [false, true] {
        write_table(&fs, 1, options(512, 10, compressed), &entries).unwrap();
        let table = open_table(&fs, 1, ReadMode::Map).unwrap();
        assert_eq!(table.is_known(0), (false, false));
        for _ in 0..2 {
            assert_eq!(get(&table, &entries[0].0, MAX_SEQNO).unwrap().as_ref(), Some(&entries[0]));
            assert_eq!(table.is_known(0), (!compressed, compressed));
        }
    }
}

/// With more mapped than memory holds, blocks that were read before are asked for again.
#[test]
fn tables_know_when_more_is_mapped_than_memory_holds() {
    let fs = MemFs::default();
    let purger = Arc::new(Purger::default());
    let metas: Vec<_> =
        (0..2).map(|t| write_table(&fs, t + 1, options(512, 10, false), &numbered(0..1000)).unwrap()).collect();
    let limits = TableCacheLimits {
        max_open_tables: 10,
        max_memory_bytes: 1 << 20,
        mmap_reads: true,
        mmap_limit_bytes: u64::MAX,
        cache_bytes: metas[0].file_bytes + metas[1].file_bytes / 2,
    };
    let blocks = Arc::new(BlockCache::new(1 << 20));
    let cache = Arc::new(TableCache::new(Arc::new(fs), dir(), blocks, limits, purger));
    let open = |at: usize| TableHandle::new(metas[at].clone(), Arc::clone(&cache)).table_arc().unwrap();
    let first = open(0);
    assert!(!first.may_be_cold_again());
    let second = open(1);
    assert!(first.may_be_cold_again() && second.may_be_cold_again());
    drop(second);
    assert!(!first.may_be_cold_again());
}

#[test]
fn a_level_reads_as_one_table_also_when_few_tables_may_be_open() {
    let fs = MemFs::default();
    for max_open in [1, 3, 100] {
        let (cache, _) = cache(&fs, max_open, 20_000);
        let handles = level(&fs, &cache, 8, 60);
        assert_eq!(cache.open_tables(), 0, "nothing is opened before it is read");
        let entries = numbered(0..480);
        let mut cursor = LevelCursor::of_own(Level::disjoint(handles.to_vec()));
        assert_eq!(scan(&mut cursor).unwrap(), entries);
        assert_eq!(scan_back(&mut cursor).unwrap(), entries);
        for i in (0..480).step_by(13) {
            for key in [format!("key{i:06}"), format!("key{i:06}x"), format!("key{i:05}")] {
                check_seeks(&mut cursor, &entries, key.as_bytes(), MAX_SEQNO);
            }
        }
        check_seeks(&mut cursor, &entries, b"", MAX_SEQNO);
        check_seeks(&mut cursor, &entries, b"z", MAX_SEQNO);
        drop(cursor);
        for round in 0..3 {
            for (i, entry) in entries.iter().enumerate().step_by(7 + round) {
                let table = handles[i / 60].table().unwrap();
                assert_eq!(get(&table, &entry.0, MAX_SEQNO).unwrap().as_ref(), Some(entry));
                assert!(cache.open_tables() <= max_open as u64 + 1);
            }
        }
        assert!(cache.open_tables() <= max_open as u64);
        assert!(cache.mapped_bytes() <= 20_000);
        assert!(cache.open_memory_bytes() > 0);
        assert_eq!(cache.pinned_tables(), 0);
        drop(handles);
        assert_eq!((cache.open_tables(), cache.mapped_bytes(), cache.open_memory_bytes()), (0, 0, 0));
    }
    let mut none = LevelCursor::of_own(Level::disjoint(Vec::new()));
    assert_eq!(scan(&mut none).unwrap(), []);
    assert_eq!(scan_back(&mut none).unwrap(), []);
    check_seeks(&mut none, &[], b"a", 1);
}

/// Keeps the length of each append.
#[derive(Debug)]
struct Steps(Arc<std::sync::Mutex<Vec<u64>>>);

impl crate::fs::WritableFile for Steps {
    fn append(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.0.lock().unwrap().push(bytes.len() as u64);
        Ok(())
    }

    fn sync(&mut self) -> std::io::Result<()> {
        Ok(())
    }

    fn start_writeback(&mut self, _range: std::ops::Range<u64>) -> std::io::Result<()> {
        Ok(())
    }

    fn len(&self) -> u64 {
        self.0.lock().unwrap().iter().sum()
    }
}

#[test]
fn a_table_is_appended_in_whole_steps() {
    let appends = Arc::new(std::sync::Mutex::new(Vec::new()));
    let options = TableWriteOptions { append_bytes: 8192, ..options(500, 10, false) };
    let path = table_path(&dir(), 1);
    let mut builder = TableBuilder::new(Box::new(Steps(appends.clone())), path, 1, options, Origin::default());
    for i in 0..900 {
        let value = vec![7; if i == 500 { 50_000 } else { 100 }];
        builder.add(format!("key{i:06}").as_bytes(), Trailer::new(1 + i, ValueKind::Put), &value).unwrap();
    }
    let meta = builder.finish().unwrap();
    let appends = appends.lock().unwrap();
    let (last, steps) = appends.split_last().unwrap();
    assert!(steps.len() > 10 && steps.iter().all(|bytes| bytes % 8192 == 0), "{appends:?}");
    assert!(steps.iter().any(|&bytes| bytes > 40_000), "a large value goes at once");
    assert_eq!(steps.iter().sum::<u64>() + last, meta.file_bytes);
}

#[test]
fn a_pass_for_compaction_leaves_the_block_cache_alone() {
    let fs = MemFs::default();
    let (cache, _) = cache(&fs, 100, 0);
    let handles = level(&fs, &cache, 3, 60);
    let mut pass = LevelCursor::for_compaction(Level::disjoint(handles.to_vec()));
    assert_eq!(scan(&mut pass).unwrap(), numbered(0..180));
    assert_eq!(cache.block_cache().blocks(), 0);
    assert_eq!(scan(&mut LevelCursor::of_own(Level::disjoint(handles.to_vec()))).unwrap(), numbered(0..180));
    assert!(cache.block_cache().blocks() > 0);
}

#[test]
fn open_tables_stay_within_their_memory() {
    let fs = MemFs::default();
    let (one, _) = cache(&fs, 100, 0);
    let handles = level(&fs, &one, 1, 500);
    let _open = handles[0].table_arc().unwrap();
    let table_bytes = one.open_memory_bytes();
    assert!(table_bytes > 0, "nothing is mapped, so index and filter are on the heap");
    let limits = TableCacheLimits {
        max_open_tables: 100,
        max_memory_bytes: 3 * table_bytes,
        mmap_reads: false,
        mmap_limit_bytes: 0,
        cache_bytes: u64::MAX,
    };
    let few = TableCache::new(Arc::new(fs.clone()), dir(), Arc::new(BlockCache::new(0)), limits, Arc::default());
    let few = Arc::new(few);
    let handles = level(&fs, &few, 12, 500);
    for round in 0..3 {
        for handle in handles.iter() {
            handle.table().unwrap();
            assert!(few.open_memory_bytes() <= 4 * table_bytes, "round {round}");
        }
    }
    assert!(few.open_tables() >= 2, "and the room there is gets used");
}

#[test]
fn a_cursor_outlives_the_eviction_of_its_table() {
    let fs = MemFs::default();
    let (cache, _) = cache(&fs, 1, u64::MAX);
    let handles = level(&fs, &cache, 2, 60);
    let mut cursor = TableCursor::new(handles[0].table_arc().unwrap());
    cursor.seek_to_first().unwrap();
    handles[1].table().unwrap();
    assert_eq!((cache.open_tables(), cache.pinned_tables()), (2, 1));
    assert_eq!(scan(&mut cursor).unwrap(), numbered(0..60));
    drop(cursor);
    assert_eq!((cache.open_tables(), cache.pinned_tables()), (1, 0));
}

#[test]
fn an_obsolete_file_is_purged_when_its_last_holder_goes() {
    let fs = MemFs::default();
    let (cache, purger) = cache(&fs, 10, 0);
    let handles = level(&fs, &cache, 3, 60);
    for handle in handles.iter() {
        scan(&mut TableCursor::new(handle.table_arc().unwrap())).unwrap();
    }
    let cached_blocks = cache.block_cache().blocks();
    let version = Arc::clone(&handles[1]);
    handles[1].mark_obsolete();
    drop(handles);
    assert!(purger.take().is_empty(), "an older version still holds the table; the others were not obsolete");
    let entry = &numbered(60..61)[0];
    assert_eq!(get(&version.table().unwrap(), &entry.0, MAX_SEQNO).unwrap().as_ref(), Some(entry));
    drop(version);
    assert_eq!(purger.take(), [table_path(&dir(), 2)]);
    assert!(purger.take().is_empty());
    assert!(cache.block_cache().blocks() < cached_blocks, "its blocks left the cache");
}

#[test]
fn a_table_that_cannot_be_opened_is_an_error_each_time_and_works_once_it_can() {
    let fs = MemFs::default();
    let (cache, _) = cache(&fs, 2, u64::MAX);
    let handles = level(&fs, &cache, 1, 60);
    let path = table_path(&dir(), 1);
    let bytes = fs.bytes(&path);
    fs.remove_file(&path).unwrap();
    let mut cursor = LevelCursor::of_own(Level::disjoint(handles.to_vec()));
    for _ in 0..2 {
        assert!(matches!(handles[0].table(), Err(Error::Io { .. })));
        assert!(cursor.seek_to_first().is_err());
        assert!(!cursor.valid());
    }
    fs.put(&path, bytes);
    assert_eq!(scan(&mut cursor).unwrap(), numbered(0..60));
}

#[test]
fn many_threads_open_read_and_evict_at_once() {
    let fs = MemFs::default();
    let (cache, _) = cache(&fs, 2, 10_000);
    let handles = level(&fs, &cache, 6, 60);
    let entries = numbered(0..360);
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let (handles, entries) = (&handles, &entries);
            scope.spawn(move || {
                for i in 0..2000 {
                    let i = (i * (7 + 4 * thread)) % entries.len();
                    let table = handles[i / 60].table().unwrap();
                    assert_eq!(get(&table, &entries[i].0, MAX_SEQNO).unwrap().as_ref(), Some(&entries[i]));
                }
            });
        }
    });
    assert!(cache.open_tables() <= 2);
    drop(handles);
    assert_eq!((cache.open_tables(), cache.mapped_bytes()), (0, 0));
}

#[test]
fn handles_are_small_and_cursors_can_be_sent() {
    fn sendable<T: Send + 'static>() {}
    sendable::<TableCursor>();
    sendable::<LevelCursor>();
    assert!(size_of::<TableHandle>() <= 320);
    assert_eq!(size_of::<Bytes>(), 32);
}
