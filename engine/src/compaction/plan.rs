//! What a compaction is to do.

use bytes::Bytes;

use super::score::LeveledOptions;
use super::shape::{Running, Shape, TableShape};
use crate::table::TableMeta;
use crate::version::LEVELS;

/// Why a compaction is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PlanKind {
    /// A level is over its target.
    Leveled,
    /// Level 0 has many tables and its way down is blocked: they are merged among themselves.
    IntraLevel0,
    /// A table consists of tombstones to a large part.
    TombstoneDense,
    /// A caller asked for it.
    Manual,
}

/// A table of the level below the output level.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Grandparent {
    /// Its first key.
    pub(crate) smallest: Bytes,
    /// Its last key.
    pub(crate) largest: Bytes,
    /// The length of its file.
    pub(crate) file_bytes: u64,
}

/// One compaction. Its inputs were idle and its output range free when it was picked; that holds until another plan is
/// started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    /// Why it is done.
    pub(crate) kind: PlanKind,
    /// The level that is compacted.
    pub(crate) level: usize,
    /// The numbers of the input tables in `level`, in that level's order.
    pub(crate) inputs: Vec<u64>,
    /// At least `level`; equal to it when tables are rewritten in place.
    pub(crate) output_level: usize,
    /// The numbers of the input tables in `output_level`, by key. Empty when tables are rewritten in place.
    pub(crate) output_inputs: Vec<u64>,
    /// The first key of all inputs.
    pub(crate) smallest: Bytes,
    /// The last key of all inputs.
    pub(crate) largest: Bytes,
    /// File bytes of `inputs`.
    pub(crate) input_bytes: u64,
    /// File bytes of `output_inputs`.
    pub(crate) output_input_bytes: u64,
    /// The tables below the output level that meet the range, by key: outputs end at their bounds.
    pub(crate) grandparents: Vec<Grandparent>,
    /// Whether the inputs can change their level as they are.
    pub(crate) trivial_move: bool,
    /// Whether no older entry of any key in the range exists outside the inputs: tombstones that no snapshot needs can
    /// go. Never set for a merge inside level 0.
    pub(crate) bottom: bool,
}

/// Smallest and largest key of some tables; `None` without tables.
pub(super) fn bounds(tables: &[TableShape]) -> Option<(&Bytes, &Bytes)> {
    let smallest = tables.iter().map(|table| &table.meta.smallest).min()?;
    let largest = tables.iter().map(|table| &table.meta.largest).max()?;
    Some((smallest, largest))
}

/// The length of the tables' files together.
pub(super) fn file_bytes(tables: &[TableShape]) -> u64 {
    tables.iter().map(|table| table.meta.file_bytes).sum()
}

fn numbers(tables: &[TableShape]) -> Vec<u64> {
    tables.iter().map(|table| table.meta.number).collect()
}

impl Plan {
    /// Merges `inputs` of `level` with what they overlap in `output_level`, a deeper one. For level 0, `inputs` are
    /// connected by overlap, so that their bounds hold nothing foreign; for the others they are neighbours.
    ///
    /// `None` if that is blocked by a running compaction.
    pub(super) fn down(
        shape: &Shape,
        options: &LeveledOptions,
        kind: PlanKind,
        level: usize,
        inputs: &[TableShape],
        output_level: usize,
    ) -> Option<Plan> {
        let (smallest, largest) = bounds(inputs)?;
        let overlapped = &shape.tables(output_level)[shape.run(output_level, smallest, largest)];
        if inputs.iter().chain(overlapped).any(|table| shape.is_busy(table)) {
            return None;
        }
        let inputs =
            if level == 0 { inputs } else { expanded(shape, options, level, inputs, output_level, overlapped) };
        let plan = Plan::of(shape, options, kind, (level, inputs), (output_level, overlapped))?;
        let free = !shape.is_output_range(output_level, &plan.smallest, &plan.largest);
        free.then_some(plan)
    }

    /// Rewrites `inputs`, neighbours in `level`, without merging them with another level. `None` if one is busy, or if
    /// a running compaction may put a table between them, which an output could then overlap.
    pub(super) fn in_place(
        shape: &Shape,
        options: &LeveledOptions,
        kind: PlanKind,
        level: usize,
        inputs: &[TableShape],
    ) -> Option<Plan> {
        if inputs.iter().any(|table| shape.is_busy(table)) {
            return None;
        }
        let mut plan = Plan::of(shape, options, kind, (level, inputs), (level, &[]))?;
        plan.trivial_move = false;
        plan.bottom &= level > 0;
        let free = level == 0 || !shape.is_output_range(level, &plan.smallest, &plan.largest);
        free.then_some(plan)
    }

    fn of(
        shape: &Shape,
        options: &LeveledOptions,
        kind: PlanKind,
        (level, inputs): (usize, &[TableShape]),
        (output_level, overlapped): (usize, &[TableShape]),
    ) -> Option<Plan> {
        let (mut smallest, mut largest) = bounds(inputs)?;
        if let Some((first, last)) = bounds(overlapped) {
            (smallest, largest) = (smallest.min(first), largest.max(last));
        }
        let grandparents: Vec<Grandparent> = match output_level + 1 {
            LEVELS => Vec::new(),
            below => {
                let run = shape.run(below, smallest, largest);
                shape.tables(below)[run].iter().map(|table| Grandparent::of(&table.meta)).collect()
            }
        };
        let bottom = shape.nothing_below(output_level, smallest, largest);
        let grandparent_bytes: u64 = grandparents.iter().map(|table| table.file_bytes).sum();
        let trivial_move = overlapped.is_empty()
            && (level > 0 || inputs.len() == 1)
            && grandparent_bytes <= options.max_grandparent_bytes()
            && may_move(options, kind, level, bottom);
        Some(Plan {
            kind,
            level,
            inputs: numbers(inputs),
            output_level,
            output_inputs: numbers(overlapped),
            smallest: smallest.clone(),
            largest: largest.clone(),
            input_bytes: file_bytes(inputs),
            output_input_bytes: file_bytes(overlapped),
            grandparents,
            trivial_move,
            bottom,
        })
    }

    /// What the picker has to know of this plan while it is carried out.
    pub(crate) fn running(&self) -> Running {
        let inputs = self.inputs.iter().chain(&self.output_inputs).copied().collect();
        let (smallest, largest) = (self.smallest.clone(), self.largest.clone());
        Running { inputs, level: self.level, output_level: self.output_level, smallest, largest }
    }
}

impl Grandparent {
    /// What is to be known of a table.
    pub(crate) fn of(meta: &TableMeta) -> Self {
        Grandparent { smallest: meta.smallest.clone(), largest: meta.largest.clone(), file_bytes: meta.file_bytes }
    }
}

/// Whether anything but the tables' keys speaks against changing their level as they are: tombstones that could go
/// here, or the compression that a flushed table lacks. (A table of a deeper level got the bottom's compression when it
/// was written, if nothing was below it then.)
fn may_move(options: &LeveledOptions, kind: PlanKind, level: usize, bottom: bool) -> bool {
    !(bottom && (kind == PlanKind::TombstoneDense || (level == 0 && options.compress_bottom)))
}

/// `inputs`, grown to all neighbours that come for free: those that overlap nothing in the output level but what is
/// merged anyway.
fn expanded<'s>(
    shape: &'s Shape,
    options: &LeveledOptions,
    level: usize,
    inputs: &'s [TableShape],
    output_level: usize,
    overlapped: &[TableShape],
) -> &'s [TableShape] {
    let Some((smallest, largest)) = bounds(overlapped) else {
        return inputs;
    };
    let grown = &shape.tables(level)[shape.run(level, smallest, largest)];
    let fits = |grown: &[TableShape]| {
        bounds(grown).is_some_and(|(first, last)| {
            shape.run(output_level, first, last).len() == overlapped.len()
                && !grown.iter().any(|table| shape.is_busy(table))
                && file_bytes(grown) + file_bytes(overlapped) <= options.max_job_bytes()
        })
    };
    if grown.len() > inputs.len() && fits(grown) { grown } else { inputs }
}
