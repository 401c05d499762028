//! Picking in level 0, where tables overlap and order is age.

use super::plan::{Plan, PlanKind, bounds, file_bytes};
use super::score::LeveledOptions;
use super::shape::{Shape, TableShape};

/// Intra-level-0 compaction starts at this many tables over the trigger.
const INTRA_LEVEL0_EXTRA: usize = 2;

/// The level-0 tables that may go down, in groups connected by overlap, each newest first.
///
/// What goes down must not leave an older entry of its keys behind in level 0, where it would be found first. So a
/// table may go only with every older table that it overlaps, and not at all if one of those is busy.
pub(super) fn groups(shape: &Shape) -> Vec<Vec<TableShape>> {
    let mut groups: Vec<Vec<TableShape>> = Vec::new();
    let mut blocked: Vec<&TableShape> = Vec::new();
    let meets = |a: &TableShape, b: &TableShape| a.meta.overlaps(&b.meta.smallest, &b.meta.largest);
    for table in shape.tables(0).iter().rev() {
        if shape.is_busy(table) || blocked.iter().any(|older| meets(older, table)) {
            blocked.push(table);
            continue;
        }
        let (met, rest): (Vec<_>, Vec<_>) =
            groups.into_iter().partition(|group| group.iter().any(|other| meets(other, table)));
        groups = rest;
        let mut group: Vec<_> = met.into_iter().flatten().chain([table.clone()]).collect();
        group.sort_by_key(|table| std::cmp::Reverse((table.meta.max_seqno, table.meta.number)));
        groups.push(group);
    }
    // Most tables first, since every read passes all of them; then the oldest.
    groups.sort_by_key(|group| (std::cmp::Reverse(group.len()), group.last().map(|oldest| oldest.meta.max_seqno)));
    groups
}

/// The most useful compaction of level 0 into `output_level`, or else inside level 0.
pub(super) fn pick(shape: &Shape, options: &LeveledOptions, output_level: usize) -> Option<Plan> {
    let groups = groups(shape);
    trivial_moves(shape, options, &groups, output_level)
        .or_else(|| {
            groups.iter().find_map(|group| Plan::down(shape, options, PlanKind::Leveled, 0, group, output_level))
        })
        .or_else(|| intra_level0(shape, options))
}

/// One plan for all tables that overlap neither another level-0 table nor anything in `output_level`: what a sorted
/// load leaves.
fn trivial_moves(
    shape: &Shape,
    options: &LeveledOptions,
    groups: &[Vec<TableShape>],
    output_level: usize,
) -> Option<Plan> {
    let movable = |group: &&Vec<TableShape>| group.len() == 1 && alone(shape, options, &group[0], output_level);
    let mut moved: Vec<_> = groups.iter().filter(movable).map(|group| group[0].clone()).collect();
    moved.sort_by_key(|table| std::cmp::Reverse((table.meta.max_seqno, table.meta.number)));
    let (smallest, largest) = bounds(&moved)?;
    Some(Plan {
        kind: PlanKind::Leveled,
        level: 0,
        inputs: moved.iter().map(|table| table.meta.number).collect(),
        output_level,
        output_inputs: Vec::new(),
        smallest: smallest.clone(),
        largest: largest.clone(),
        input_bytes: file_bytes(&moved),
        output_input_bytes: 0,
        grandparents: Vec::new(),
        trivial_move: true,
        bottom: false,
    })
}

fn alone(shape: &Shape, options: &LeveledOptions, table: &TableShape, output_level: usize) -> bool {
    Plan::down(shape, options, PlanKind::Leveled, 0, std::slice::from_ref(table), output_level)
        .is_some_and(|plan| plan.trivial_move)
}

/// Whether the first `count` tables are newer as a whole than those after them. Outputs of one earlier merge are not
/// among each other: their ages interleave, though their keys do not.
fn apart_in_age(tables: &[TableShape], count: usize) -> bool {
    let oldest_seqno = tables[..count].iter().map(|table| table.meta.min_seqno).min();
    tables.get(count).is_none_or(|older| oldest_seqno.is_none_or(|seqno| seqno > older.meta.max_seqno))
}

/// Merges the newest idle tables among themselves, so that reads pass fewer while the way down is blocked.
///
/// The tables are adjacent in age, so that the outputs, wherever they are split, stand where the inputs stood. As long
/// as one more table lowers the bytes to write per table saved, it is taken; so an earlier such output, large already,
/// is not written again and again.
fn intra_level0(shape: &Shape, options: &LeveledOptions) -> Option<Plan> {
    let idle = shape.tables(0).iter().take_while(|table| !shape.is_busy(table)).count();
    if idle < options.level0_trigger + INTRA_LEVEL0_EXTRA {
        return None;
    }
    let newest = &shape.tables(0)[..idle];
    let cost = |count: usize| file_bytes(&newest[..count]) as f64 / (count - 1) as f64;
    let mut count = 2;
    while count < idle && cost(count + 1) <= cost(count) {
        count += 1;
    }
    while count > 0 && !apart_in_age(shape.tables(0), count) {
        count -= 1;
    }
    if count < options.level0_trigger.max(2) {
        return None;
    }
    Plan::in_place(shape, options, PlanKind::IntraLevel0, 0, &newest[..count])
}
