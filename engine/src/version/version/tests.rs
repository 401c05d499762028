use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::testing::table;
use super::*;

fn version(tables: Vec<(usize, TableMeta)>) -> Version<TableMeta> {
    Version::empty().apply(tables.into_iter().map(|(level, meta)| (level, Arc::new(meta))).collect(), &[])
}

fn numbers<'a>(tables: impl Iterator<Item = &'a Arc<TableMeta>>) -> Vec<u64> {
    tables.map(|table| table.number).collect()
}

#[test]
fn levels_are_ordered_and_summed() {
    let v = version(vec![
        (0, table(1, b"a", b"z", 1, 10)),
        (0, table(2, b"a", b"z", 11, 20)),
        (1, table(4, b"m", b"p", 1, 1)),
        (1, table(3, b"a", b"c", 5, 5)),
    ]);
    assert_eq!(numbers(v.tables()), [2, 1, 3, 4]);
    assert_eq!(v.levels()[1].totals().file_bytes, 2000);
    assert_eq!(v.levels()[0].totals().entries, 200);
    assert_eq!(v.file_bytes(), 4000);
    assert_eq!(v.check(), Ok(()));
    assert_eq!(format!("{v:?}"), "[[2, 1], [3, 4], [], [], [], [], []]");
}

#[test]
fn apply_moves_tables_and_shares_untouched_levels() {
    let v = version(vec![
        (1, table(1, b"a", b"c", 1, 1)),
        (2, table(2, b"a", b"z", 0, 0)),
        (3, table(3, b"a", b"b", 0, 0)),
    ]);
    let moved = v.levels()[3].tables()[0].clone();
    let w = v.apply(vec![(4, moved)], &[3, 1]);
    assert_eq!(format!("{w:?}"), "[[], [], [2], [], [3], [], []]");
    assert!(Arc::ptr_eq(v.levels()[2].tables(), w.levels()[2].tables()));
    assert_eq!(w.levels()[1].totals(), &LevelTotals::default());
    assert_eq!(w.check(), Ok(()));
}

#[test]
fn bounds_before_a_key_are_counted_as_the_keys_compare() {
    let levels: [&[(&[u8], &[u8])]; 4] = [
        &[],
        &[(b"b", b"d"), (b"f", b"f"), (b"f\0", b"x")],
        &[
            (b"long-common-1", b"long-common-1"),
            (b"long-common-10", b"long-common-2"),
            (b"long-common-3", b"long-common-3"),
        ],
        &[(b"12345678", b"12345678\0"), (b"123456789", b"12345678a"), (b"12345678b", b"2")],
    ];
    for bounds in levels {
        let metas = (1..).zip(bounds).map(|(number, (smallest, largest))| table(number, smallest, largest, 1, 1));
        let level = Level::disjoint(metas.map(Arc::new).collect());
        let keys = levels.iter().copied().flatten().flat_map(|(smallest, largest)| [*smallest, *largest]);
        for key in keys.chain([&b""[..], b"a", b"e", b"f\0\0", b"long", b"long-common-11", b"m", b"z"]) {
            assert_eq!(
                level.count_beginning_before(key),
                bounds.iter().filter(|(smallest, _)| *smallest < key).count()
            );
            assert_eq!(level.count_ending_before(key), bounds.iter().filter(|(_, largest)| *largest < key).count());
        }
    }
}

#[test]
fn a_key_is_found_in_the_only_table_that_can_hold_it() {
    let v = version(vec![
        (2, table(1, b"key", b"key", 1, 1)),
        (2, table(2, b"key\0", b"key12345", 1, 1)),
        (2, table(3, b"key123456", b"key123456", 1, 1)),
        (2, table(4, b"key1234567", b"key2", 1, 1)),
        (2, table(5, b"kez", b"kez\xff\xff\xff\xff\xff\xff\xff\xff\xff", 1, 1)),
    ]);
    let find = |key: &[u8]| v.find(2, key).map(|table| table.number);
    let cases: [(&[u8], _); 13] = [
        (b"", None),
        (b"ke", None),
        (b"key", Some(1)),
        (b"key\0", Some(2)),
        (b"key12345", Some(2)),
        (b"key12345\0", None),
        (b"key123456", Some(3)),
        (b"key123456\0", None),
        (b"key1234567", Some(4)),
        (b"key3", None),
        (b"kez\xff", Some(5)),
        (b"kez\xff\xff\xff\xff\xff\xff\xff\xff\xff\0", None),
        (b"l", None),
    ];
    for (key, expected) in cases {
        assert_eq!(find(key), expected, "{:?}", key.escape_ascii().to_string());
    }
    assert_eq!(v.find(1, b"key"), None);
}

/// Random short keys over few letters, so that prefixes tie, against a scan of the tables.
#[test]
fn searches_agree_with_a_scan() {
    for seed in 0..300 {
        let mut rng = StdRng::seed_from_u64(seed);
        let stem: &[u8] = if seed % 2 == 0 { b"" } else { b"a-long-common-start/" };
        let key = |rng: &mut StdRng| {
            let mut key = stem.to_vec();
            if rng.random_ratio(1, 8) {
                key.truncate(rng.random_range(0..=stem.len()));
            }
            key.extend((0..rng.random_range(0..12)).map(|_| b"\0ab\xff"[rng.random_range(0..4)]));
            key
        };
        let mut keys: Vec<_> = (0..40).map(|_| key(&mut rng)).collect();
        keys.sort();
        keys.dedup();
        let mut tables: Vec<_> =
            keys.chunks_exact(2).zip(1..).map(|(k, n)| (3, table(n, &k[0], &k[1], n, n))).collect();
        let loose = tables.split_off(tables.len() / 2);
        tables.extend(loose.into_iter().map(|(_, meta)| (0, meta)));
        let v = version(tables);
        assert_eq!(v.check(), Ok(()), "seed {seed}");
        for _ in 0..200 {
            let a = key(&mut rng);
            let scan = |level: usize, a: &[u8], b: &[u8]| {
                numbers(v.levels()[level].tables().iter().filter(|table| table.overlaps(a, b)))
            };
            assert_eq!(v.find(3, &a).map(|table| table.number), scan(3, &a, &a).first().copied(), "seed {seed} {a:?}");
            assert_eq!(numbers(v.find_in_level0(&a)), scan(0, &a, &a), "seed {seed} {a:?}");
        }
    }
}

#[test]
fn what_lies_below_is_known() {
    let v = version(vec![
        (0, table(1, b"a", b"f", 5, 9)),
        (0, table(2, b"d", b"z", 10, 19)),
        (2, table(3, b"a", b"c", 1, 4)),
        (6, table(4, b"m", b"p", 1, 4)),
    ]);
    assert!(v.key_range_may_exist_below(0, b"b"));
    assert!(v.key_range_may_exist_below(1, b"b"));
    assert!(!v.key_range_may_exist_below(2, b"b"));
    assert!(v.key_range_may_exist_below(2, b"n"));
    assert!(!v.key_range_may_exist_below(6, b"n"));
    assert!(!v.key_range_may_exist_below(0, b"z"), "level 0 is not below itself");
}

#[test]
fn the_checker_finds_each_kind_of_damage() {
    let damaged: [(&str, Vec<(usize, TableMeta)>); 6] = [
        ("overlap", vec![(1, table(1, b"a", b"c", 1, 1)), (1, table(2, b"c", b"d", 2, 2))]),
        ("ages overlap", vec![(0, table(1, b"a", b"c", 1, 5)), (0, table(2, b"b", b"d", 5, 9))]),
        ("same age", vec![(0, table(1, b"a", b"c", 1, 9)), (0, table(2, b"b", b"d", 1, 9))]),
        ("twice", vec![(1, table(1, b"a", b"c", 1, 1)), (3, table(1, b"a", b"c", 1, 1))]),
        ("range", vec![(2, table(1, b"c", b"a", 1, 1))]),
        ("age", vec![(2, table(1, b"a", b"c", 2, 1))]),
    ];
    for (what, tables) in damaged {
        assert!(version(tables).check().is_err(), "{what}");
    }
    let disjoint = vec![(0, table(1, b"a", b"c", 1, 9)), (0, table(2, b"x", b"z", 1, 9))];
    assert_eq!(version(disjoint).check(), Ok(()), "outputs of one compaction share their ages but no key");

    let mut broken = version(vec![(1, table(1, b"a", b"c", 1, 1))]);
    broken.levels[1].totals.entries += 1;
    assert!(broken.check().is_err());
}

#[test]
fn the_checker_compares_all_of_level_0_and_every_sum_and_column() {
    let reason = |v: &Version<TableMeta>| v.check().unwrap_err();
    // The first and the last overlap in keys and in age, the one between them does with neither.
    let apart =
        vec![(0, table(1, b"a", b"c", 1, 5)), (0, table(2, b"x", b"z", 6, 10)), (0, table(3, b"b", b"d", 4, 20))];
    assert!(reason(&version(apart)).contains("overlap in keys and in age"));
    let same_keys = || version(vec![(0, table(1, b"a", b"c", 1, 5)), (0, table(2, b"a", b"c", 6, 9))]);
    assert_eq!(same_keys().check(), Ok(()));
    let mut turned = same_keys();
    turned.levels[0].tables = turned.levels[0].tables.iter().rev().cloned().collect();
    assert!(reason(&turned).contains("newest first"));

    let good = || version(vec![(1, table(1, b"ab", b"ac", 1, 1)), (1, table(2, b"ad", b"ae", 1, 1))]);
    assert_eq!((good().check(), &good().levels[1].shared[..]), (Ok(()), &b"a"[..]));
    let breakages: [fn(&mut Level<TableMeta>); 3] = [
        |level| level.totals.tombstones += 1,
        |level| level.columns = level.columns.iter().map(|column| column ^ 1).collect(),
        |level| level.shared = Bytes::from_static(b"b"),
    ];
    for breakage in breakages {
        let mut broken = good();
        breakage(&mut broken.levels[1]);
        assert!(reason(&broken).contains("sums or columns"));
    }
    let mut turned = good();
    turned.levels[1].tables = turned.levels[1].tables.iter().rev().cloned().collect();
    assert!(reason(&turned).contains("not in order"));
}

#[test]
fn a_level_knows_whether_it_is_empty() {
    let v = version(vec![(1, table(1, b"a", b"c", 1, 1))]);
    assert_eq!((v.levels()[0].is_empty(), v.levels()[1].is_empty()), (true, false));
    assert_eq!(v.levels()[1].totals().user_bytes, 900);
}
