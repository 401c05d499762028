use std::sync::Arc;

use super::super::manual::{ManualRequest, ManualStep, pick_range};
use super::super::order::PickOrder;
use super::super::shape::Running;
use super::*;
use crate::table::TableMeta;
use crate::version::version::Version;
use crate::version::version::testing::table;

/// Tables of 1,000 bytes; a base level of at most 4,000.
fn options() -> LeveledOptions {
    LeveledOptions {
        level0_trigger: 4,
        level0_bytes: 4000,
        level_ratio: 10,
        dynamic_levels: true,
        base_bytes: 4000,
        target_table_bytes: 1000,
        compress_bottom: false,
        pick_order: PickOrder::MinOverlap,
    }
}

/// `(level, number, range)`; the age is the number.
fn version(tables: &[(usize, u64, &str)]) -> Version<TableMeta> {
    let tables = tables.iter().map(|&(level, number, range)| {
        let (smallest, largest) = range.split_once('-').unwrap();
        (level, Arc::new(table(number, smallest.as_bytes(), largest.as_bytes(), number, number)))
    });
    let version = Version::empty().apply(tables.collect(), &[]);
    version.check().unwrap();
    version
}

fn pick_with(version: &Version<TableMeta>, running: &[Running]) -> Option<Plan> {
    pick(&Shape::new(version, running), &options(), SeqNo::MAX)
}

fn running(inputs: &[u64], output_level: usize, smallest: &'static str, largest: &'static str) -> Running {
    Running { inputs: inputs.to_vec(), level: 0, output_level, smallest: smallest.into(), largest: largest.into() }
}

#[test]
fn nothing_to_do() {
    assert_eq!(pick_with(&version(&[]), &[]), None);
    assert_eq!(pick_with(&version(&[(0, 1, "a-z"), (0, 2, "a-z"), (0, 3, "a-z"), (6, 4, "a-c")]), &[]), None);
}

#[test]
fn level_0_goes_to_the_base_level_with_what_it_overlaps() {
    let v = version(&[
        (0, 11, "c-f"),
        (0, 12, "e-h"),
        (0, 13, "g-k"),
        (0, 14, "x-z"),
        (6, 1, "a-d"),
        (6, 2, "i-o"),
        (6, 3, "p-q"),
    ]);
    let plan = pick_with(&v, &[]).unwrap();
    assert_eq!((plan.kind, plan.level, plan.output_level), (PlanKind::Leveled, 0, 6));
    assert_eq!(plan.inputs, [14], "a table that overlaps nothing only moves, and that costs nothing");
    assert!(plan.trivial_move && !plan.bottom);

    let v = v.apply(vec![(0, Arc::new(table(15, b"y", b"z", 15, 15)))], &[]);
    let plan = pick_with(&v, &[]).unwrap();
    assert_eq!((plan.inputs, plan.output_inputs), (vec![13, 12, 11], vec![1, 2]), "the group with the most tables");
    assert_eq!((&plan.smallest[..], &plan.largest[..]), (&b"a"[..], &b"o"[..]));
    assert!(plan.bottom && !plan.trivial_move);
    assert_eq!((plan.input_bytes, plan.output_input_bytes), (3000, 2000));
}

#[test]
fn an_older_overlapping_table_never_stays_behind() {
    let v = version(&[(0, 1, "a-c"), (0, 2, "b-k"), (0, 3, "j-m"), (0, 4, "l-p"), (0, 5, "x-y"), (0, 6, "x-z")]);
    let busy_oldest = [running(&[1], 6, "a", "c")];
    let plan = pick_with(&v, &busy_oldest).unwrap();
    assert_eq!(plan.inputs, [6, 5], "2, 3 and 4 hang on 1");
    assert_eq!(pick_with(&v.apply(vec![], &[6, 5]), &busy_oldest), None);

    // A busy newer table holds nothing up.
    let v = version(&[(0, 1, "a-c"), (0, 2, "a-c"), (0, 3, "a-c"), (0, 4, "a-c"), (0, 5, "b-d")]);
    let plan = pick_with(&v, &[running(&[5], 0, "b", "d")]).unwrap();
    assert_eq!(plan.inputs, [4, 3, 2, 1]);
}

#[test]
fn busy_outputs_lead_to_a_merge_inside_level_0() {
    let mut tables: Vec<(usize, u64, &str)> = vec![(6, 1, "a-z")];
    tables.extend((11..16).map(|n| (0, n, "a-z")));
    let busy = [running(&[1], 6, "a", "z")];
    assert_eq!(pick_with(&version(&tables), &busy), None, "five tables are not enough");
    tables.push((0, 16, "a-z"));
    let plan = pick_with(&version(&tables), &busy).unwrap();
    assert_eq!((plan.kind, plan.level, plan.output_level), (PlanKind::IntraLevel0, 0, 0));
    assert_eq!(plan.inputs, [16, 15, 14, 13, 12, 11]);
    assert!(!plan.bottom && !plan.trivial_move);
    assert!(pick_with(&version(&tables), &[running(&[1, 14], 6, "a", "z")]).is_none(), "14 parts the idle ones");

    // A large older table, the output of an earlier merge, is left alone.
    let large = TableMeta { file_bytes: 50_000, ..table(10, b"a", b"z", 10, 10) };
    let plan = pick_with(&version(&tables).apply(vec![(0, Arc::new(large))], &[]), &busy).unwrap();
    assert_eq!(plan.inputs, [16, 15, 14, 13, 12, 11]);

    // Outputs of one merge share their ages: they are taken together or not at all.
    let halves = [table(9, b"a", b"f", 5, 7), table(10, b"g", b"z", 6, 8)].map(|half| (0, Arc::new(half)));
    let kept = [16, 15, 14, 13, 12].map(|n| (0, n, "a-z"));
    let v = version(&[&kept[..], &[(6, 1, "a-z")]].concat()).apply(halves.to_vec(), &[]);
    let plan = pick_with(&v, &busy).unwrap();
    assert_eq!(plan.inputs, [16, 15, 14, 13, 12, 10, 9]);
    let mut large = (*halves[0].1).clone();
    large.file_bytes = 50_000;
    let v = v.apply(vec![(0, Arc::new(large))], &[9]);
    assert_eq!(pick_with(&v, &busy).unwrap().inputs, [16, 15, 14, 13, 12]);
}

/// Level 5 is over its target of 1,000 bytes, which the 10,000 bytes of level 6 set.
fn two_levels(upper: &[(usize, u64, &'static str)]) -> Version<TableMeta> {
    let bottom = ["a-b", "c-d", "e-f", "g-h", "i-j", "k-l", "m-n", "o-p", "q-r", "s-t"];
    let bottom = bottom.iter().zip(1..).map(|(range, number)| (6, number, *range));
    version(&upper.iter().copied().chain(bottom).collect::<Vec<_>>())
}

#[test]
fn the_cheapest_table_goes_down_and_takes_neighbours_that_cost_nothing() {
    let v = two_levels(&[(5, 21, "a-c"), (5, 22, "d-h"), (5, 23, "ka-kc"), (5, 24, "kd-ke"), (5, 25, "ua-ub")]);
    let plan = pick_with(&v, &[]).unwrap();
    assert_eq!((plan.inputs, plan.trivial_move), (vec![25], true), "nothing below");

    let v = v.apply(vec![], &[25]);
    let plan = pick_with(&v, &[]).unwrap();
    assert_eq!((plan.inputs, plan.output_inputs), (vec![23, 24], vec![6]));
    assert_eq!((plan.level, plan.output_level, plan.bottom), (5, 6, true));

    let plan = pick_with(&v, &[running(&[24], 6, "kd", "ke")]).unwrap();
    assert_eq!((plan.inputs, plan.output_inputs), (vec![21], vec![1, 2]), "not into the output of a running one");
    let plan = pick_with(&v, &[running(&[6], 6, "k", "l"), running(&[1], 6, "a", "b")]).unwrap();
    assert_eq!((plan.inputs, plan.output_inputs), (vec![22], vec![2, 3, 4]), "not with busy tables");
}

#[test]
fn much_overlap_two_levels_down_forbids_a_move() {
    let grandparents: Vec<_> = (0..11u8).map(|n| (6, u64::from(n) + 1, [n])).collect();
    let mut tables: Vec<_> =
        grandparents.iter().map(|(level, number, key)| (*level, Arc::new(table(*number, key, key, 1, 1)))).collect();
    tables.push((4, Arc::new(table(50, &[0], &[20], 50, 50))));
    let v = Version::empty().apply(tables, &[]);
    let plan = pick_with(&v, &[]).unwrap();
    assert_eq!((plan.level, plan.output_level, plan.grandparents.len()), (4, 5, 11));
    assert!(!plan.trivial_move && !plan.bottom);
    let fewer = v.apply(vec![], &[1]);
    assert!(pick_with(&fewer, &[]).unwrap().trivial_move);
}

#[test]
fn a_flushed_table_is_compressed_on_its_way_to_the_bottom() {
    let v = version(&[(0, 1, "a-b"), (0, 2, "c-d"), (0, 3, "e-f"), (0, 4, "g-h")]);
    let moved = pick_with(&v, &[]).unwrap();
    assert_eq!((moved.inputs, moved.trivial_move, moved.output_level), (vec![4, 3, 2, 1], true, 6));
    let compressed = LeveledOptions { compress_bottom: true, ..options() };
    let plan = pick(&Shape::new(&v, &[]), &compressed, SeqNo::MAX).unwrap();
    assert_eq!((plan.inputs, plan.trivial_move, plan.bottom), (vec![1], false, true));
}

fn with_tombstones(level: usize, number: u64, range: (&[u8], &[u8]), tombstones: u64) -> (usize, Arc<TableMeta>) {
    (level, Arc::new(TableMeta { tombstones, file_bytes: 900, ..table(number, range.0, range.1, number, number) }))
}

#[test]
fn tables_dense_in_tombstones_go_without_need() {
    let base = two_levels(&[]);
    let above = |tombstones| base.apply(vec![with_tombstones(5, 30, (b"c", b"d"), tombstones)], &[]);
    assert_eq!(pick_with(&above(49), &[]), None);
    let plan = pick_with(&above(50), &[]).unwrap();
    assert_eq!((plan.kind, plan.inputs, plan.output_inputs), (PlanKind::TombstoneDense, vec![30], vec![2]));

    let level0 = base.apply(vec![with_tombstones(0, 30, (b"c", b"d"), 90)], &[]);
    let plan = pick_with(&level0, &[]).unwrap();
    assert_eq!((plan.kind, plan.level, plan.output_level), (PlanKind::TombstoneDense, 0, 5));

    let bottom = |tombstones| base.apply(vec![with_tombstones(6, 30, (b"y", b"z"), tombstones)], &[]);
    assert_eq!(pick_with(&bottom(24), &[]), None);
    let plan = pick_with(&bottom(25), &[]).unwrap();
    assert_eq!((plan.level, plan.output_level, plan.bottom, plan.trivial_move), (6, 6, true, false));
    let snapshot = |seqno| pick(&Shape::new(&bottom(25), &[]), &options(), seqno).is_some();
    assert!(!snapshot(30) && snapshot(31), "only if all tombstones are sure to go");
}

#[test]
fn a_manual_range_leaves_the_rest_alone_and_waits_for_what_runs() {
    let v = two_levels(&[(5, 21, "a-c"), (5, 22, "k-m")]);
    let request = ManualRequest {
        smallest: Some("k".into()),
        largest: Some("l".into()),
        through_seqno: 100,
        below_number: 100,
        rewrite_all: false,
    };
    let step = |v: &Version<TableMeta>, running: &[Running], request: &ManualRequest| {
        pick_range(&Shape::new(v, running), &options(), request)
    };
    let ManualStep::Run(plan) = step(&v, &[], &request) else { panic!("nothing to do?") };
    assert_eq!((plan.kind, plan.inputs, plan.output_inputs), (PlanKind::Manual, vec![22], vec![6, 7]));
    assert_eq!(step(&v, &[running(&[7], 6, "m", "n")], &request), ManualStep::Blocked);
    let later = ManualRequest { through_seqno: 21, below_number: 0, ..request.clone() };
    assert_eq!(step(&v, &[], &later), ManualStep::Done, "written after the call began");

    let v = v.apply(vec![], &[22]);
    let ManualStep::Run(plan) = step(&v, &[], &request) else { panic!("it may hold versions that a snapshot needed") };
    assert_eq!((plan.level, plan.output_level, plan.inputs), (6, 6, vec![6]));
    let merged = v.apply(vec![(6, Arc::new(table(50, b"k", b"l", 0, 0)))], &[6]);
    assert_eq!(step(&merged, &[], &request), ManualStep::Done);
    let all = ManualRequest { rewrite_all: true, ..request.clone() };
    let ManualStep::Run(plan) = step(&v, &[], &all) else { panic!("nothing to do?") };
    assert_eq!((plan.level, plan.output_level, plan.inputs), (6, 6, vec![6]));
    assert_eq!(step(&v, &[running(&[6], 6, "k", "l")], &all), ManualStep::Blocked);
    assert_eq!(step(&v, &[], &ManualRequest { below_number: 6, ..all }), ManualStep::Done, "rewritten already");

    let v = v.apply(vec![with_tombstones(6, 40, (b"ka", b"kb"), 1)], &[6]);
    let ManualStep::Run(plan) = step(&v, &[], &request) else { panic!("tombstones are to go") };
    assert_eq!(plan.inputs, [40]);
}

#[test]
fn tables_are_not_joined_over_a_gap_that_is_being_filled() {
    let v = version(&[(5, 30, "e-f"), (6, 1, "a-b"), (6, 2, "k-l")]);
    let request =
        ManualRequest { smallest: None, largest: None, through_seqno: 10, below_number: 100, rewrite_all: true };
    let inputs = |running: &[Running]| match pick_range(&Shape::new(&v, running), &options(), &request) {
        ManualStep::Run(plan) => plan.inputs,
        step => panic!("{step:?}"),
    };
    assert_eq!(inputs(&[]), [1, 2]);
    assert_eq!(inputs(&[running(&[30], 6, "e", "f")]), [1]);
}
