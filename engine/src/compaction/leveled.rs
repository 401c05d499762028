//! Leveled compaction: what the background does next.

use crate::key::SeqNo;
use crate::version::{LAST_LEVEL, LEVELS};

use super::level0;
use super::plan::{Plan, PlanKind};
use super::score::{LeveledOptions, Scores};
use super::shape::{Shape, TableShape};

/// The most urgent compaction that nothing blocks; `None` if there is none.
///
/// First what is over its target, the highest score first. When no level is, tables dense in tombstones.
/// `oldest_snapshot_seqno` is the sequence number of the oldest live snapshot, `u64::MAX` if there is none: it says
/// which tombstones a compaction would be sure to drop.
pub(crate) fn pick(shape: &Shape, options: &LeveledOptions, oldest_snapshot_seqno: SeqNo) -> Option<Plan> {
    let scores = Scores::new(shape, options);
    let urgent = scores.urgent().find_map(|level| match level {
        0 => level0::pick(shape, options, scores.level0_output),
        level => first_in_order(shape, options, level),
    });
    urgent.or_else(|| tombstone_dense(shape, options, scores.level0_output, oldest_snapshot_seqno))
}

/// The table of `level` that comes first in the shape's order and is not blocked.
fn first_in_order(shape: &Shape, options: &LeveledOptions, level: usize) -> Option<Plan> {
    let tables = shape.tables(level);
    shape
        .candidates(level)
        .find_map(|at| Plan::down(shape, options, PlanKind::Leveled, level, &tables[at..=at], level + 1))
}

/// A compaction that gives space back although no level is over its target.
///
/// Every answer makes progress, so that this cannot go on forever: a table with something below it moves down, and one
/// with nothing below it is only rewritten if all of its tombstones are older than any snapshot, and so all of them go.
fn tombstone_dense(
    shape: &Shape,
    options: &LeveledOptions,
    level0_output: usize,
    oldest_snapshot_seqno: SeqNo,
) -> Option<Plan> {
    let kind = PlanKind::TombstoneDense;
    let wanted = |level: usize, table: &TableShape| dense(shape, level, table, oldest_snapshot_seqno);
    let level0 = level0::groups(shape)
        .into_iter()
        .filter(|group| group.iter().any(|table| wanted(0, table).is_some()))
        .find_map(|group| Plan::down(shape, options, kind, 0, &group, level0_output));
    let deeper = || {
        (1..LEVELS).find_map(|level| {
            let tables = shape.tables(level);
            shape.dense(level).find_map(|at| match wanted(level, &tables[at])? {
                Dense::Here => Plan::in_place(shape, options, kind, level, &tables[at..=at]),
                Dense::Below => Plan::down(shape, options, kind, level, &tables[at..=at], level + 1),
            })
        })
    };
    level0.or_else(deeper)
}

/// Where a table's tombstones can be put to use.
enum Dense {
    /// Nothing is below them: rewriting drops them.
    Here,
    /// What they hide is below.
    Below,
}

fn dense(shape: &Shape, level: usize, table: &TableShape, oldest_snapshot_seqno: SeqNo) -> Option<Dense> {
    let meta = &table.meta;
    if shape.is_busy(table) || meta.tombstones == 0 || meta.tombstones < meta.entries.div_ceil(4) {
        return None;
    }
    if level == LAST_LEVEL || shape.nothing_below(level, &meta.smallest, &meta.largest) {
        return (meta.max_seqno < oldest_snapshot_seqno).then_some(Dense::Here);
    }
    (meta.tombstones >= meta.entries.div_ceil(2)).then_some(Dense::Below)
}

#[cfg(test)]
mod tests;
