//! Compaction that a caller asked for: a key range is driven down to the bottom level.

use bytes::Bytes;

use crate::key::SeqNo;
use crate::version::LAST_LEVEL;

use super::level0;
use super::plan::{Plan, PlanKind};
use super::score::{LeveledOptions, Scores};
use super::shape::{Shape, TableShape};

/// What a caller wants compacted. Made once, when the call begins, and kept until [`ManualStep::Done`].
#[derive(Clone, Debug)]
pub(crate) struct ManualRequest {
    /// The first key, or `None` for no bound.
    pub(crate) smallest: Option<Bytes>,
    /// The last key, or `None` for no bound.
    pub(crate) largest: Option<Bytes>,
    /// The last sequence number when the call began: what was written later may stay where it is, so that the call ends
    /// under load.
    pub(crate) through_seqno: SeqNo,
    /// The next file number when the call began: tables from it on have been rewritten since, and are not again.
    pub(crate) below_number: u64,
    /// Rewrite all tables of the bottom level, not only those that may hold something to drop.
    pub(crate) rewrite_all: bool,
}

/// What to do next for a [`ManualRequest`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ManualStep {
    /// Carry this out, then ask again.
    Run(Plan),
    /// Wait until a running compaction is done, then ask again.
    Blocked,
    /// The range is compacted.
    Done,
}

impl ManualRequest {
    fn covers(&self, table: &TableShape) -> bool {
        let meta = &table.meta;
        self.smallest.as_ref().is_none_or(|smallest| meta.largest >= smallest)
            && self.largest.as_ref().is_none_or(|largest| meta.smallest <= largest)
    }

    fn sinks(&self, table: &TableShape) -> bool {
        self.covers(table) && table.meta.min_seqno <= self.through_seqno
    }

    fn rewrites(&self, table: &TableShape) -> bool {
        // What was merged at the bottom has number 0. A table that was moved there as it is, or merged while a snapshot
        // lived, may hold versions that no snapshot needs any more.
        let due = self.rewrite_all || table.meta.tombstones > 0 || table.meta.max_seqno > 0;
        due && self.covers(table) && table.meta.number < self.below_number
    }
}

/// The next step. Each one moves tables down or rewrites one for the last time, so the steps come to an end.
pub(crate) fn pick_range(shape: &Shape, options: &LeveledOptions, request: &ManualRequest) -> ManualStep {
    let scores = Scores::new(shape, options);
    let deepest = shape.deepest_populated().unwrap_or(0);
    let bottom = if options.dynamic_levels { LAST_LEVEL } else { deepest.max(scores.level0_output) };
    for level in 0..bottom {
        if shape.tables(level).iter().any(|table| request.sinks(table)) {
            let plan = match level {
                0 => sink_level0(shape, options, request, scores.level0_output),
                level => sink(shape, options, request, level),
            };
            return plan.map_or(ManualStep::Blocked, ManualStep::Run);
        }
    }
    rewrite(shape, options, request, bottom)
}

fn sink_level0(shape: &Shape, options: &LeveledOptions, request: &ManualRequest, output: usize) -> Option<Plan> {
    level0::groups(shape)
        .iter()
        .filter(|group| group.iter().any(|table| request.sinks(table)))
        .find_map(|group| Plan::down(shape, options, PlanKind::Manual, 0, group, output))
}

fn sink(shape: &Shape, options: &LeveledOptions, request: &ManualRequest, level: usize) -> Option<Plan> {
    batches(shape, level, options, |table| request.sinks(table)).find_map(|batch| {
        let whole = Plan::down(shape, options, PlanKind::Manual, level, batch, level + 1);
        whole.or_else(|| Plan::down(shape, options, PlanKind::Manual, level, &batch[..1], level + 1))
    })
}

fn rewrite(shape: &Shape, options: &LeveledOptions, request: &ManualRequest, level: usize) -> ManualStep {
    let mut step = ManualStep::Done;
    for batch in batches(shape, level, options, |table| request.rewrites(table)) {
        let in_place = |tables| Plan::in_place(shape, options, PlanKind::Manual, level, tables);
        match in_place(batch).or_else(|| in_place(&batch[..1])) {
            Some(plan) => return ManualStep::Run(plan),
            None => step = ManualStep::Blocked,
        }
    }
    step
}

/// Runs of neighbours that are all `wanted` and equally busy, each as large as a job may be.
fn batches<'s>(
    shape: &'s Shape,
    level: usize,
    options: &LeveledOptions,
    wanted: impl Fn(&TableShape) -> bool,
) -> impl Iterator<Item = &'s [TableShape]> {
    let tables = shape.tables(level);
    let max_bytes = options.max_job_bytes();
    let mut begin = 0;
    std::iter::from_fn(move || {
        begin += tables[begin..].iter().take_while(|table| !wanted(table)).count();
        let first = tables.get(begin)?;
        let mut bytes = 0;
        let fits = |table: &&TableShape| {
            bytes += table.meta.file_bytes;
            wanted(table) && shape.is_busy(table) == shape.is_busy(first) && bytes <= max_bytes
        };
        let len = tables[begin..].iter().take_while(fits).count().max(1);
        let batch = &tables[begin..begin + len];
        begin += len;
        Some(batch)
    })
}
