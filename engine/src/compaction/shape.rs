//! What the compaction picker sees: the levels' tables, and which of them are being compacted.

use std::ops::Range;

use bytes::Bytes;

use crate::table::{HasMeta, TableMeta};
use crate::version::LEVELS;
use crate::version::version::Version;

/// A compaction that has been started and is not installed yet.
#[derive(Clone, Debug)]
pub(crate) struct Running {
    /// The numbers of its input tables, in whatever level.
    pub(crate) inputs: Vec<u64>,
    /// Where its outputs go.
    pub(crate) output_level: usize,
    /// The first key of its inputs, before which no output begins.
    pub(crate) smallest: Bytes,
    /// The last key of its inputs, after which no output ends.
    pub(crate) largest: Bytes,
}

/// One table.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TableShape<'a> {
    /// What the manifest knows of it.
    pub(crate) meta: &'a TableMeta,
    /// Whether it is an input of a running compaction.
    pub(crate) busy: bool,
}

/// A version as the picker sees it. Building one takes a few nanoseconds a table.
#[derive(Debug)]
pub(crate) struct Shape<'a> {
    /// Level 0 newest first, the others by key.
    pub(crate) levels: [Vec<TableShape<'a>>; LEVELS],
    /// The compactions that are not installed yet.
    pub(crate) running: &'a [Running],
    /// File bytes of each level, busy tables included.
    pub(crate) level_bytes: [u64; LEVELS],
    /// File bytes of each level that no running compaction takes.
    pub(crate) idle_bytes: [u64; LEVELS],
}

impl<'a> Shape<'a> {
    /// The shape of `version` while `running` goes on.
    pub(crate) fn new<T: HasMeta>(version: &'a Version<T>, running: &'a [Running]) -> Self {
        let mut busy: Vec<u64> = running.iter().flat_map(|job| &job.inputs).copied().collect();
        busy.sort_unstable();
        let mut idle_bytes = [0; LEVELS];
        let levels = std::array::from_fn(|level| {
            let tables = version.levels()[level].tables().iter().map(|table| {
                let meta = table.meta();
                let busy = !busy.is_empty() && busy.binary_search(&meta.number).is_ok();
                idle_bytes[level] += if busy { 0 } else { meta.file_bytes };
                TableShape { meta, busy }
            });
            tables.collect()
        });
        let level_bytes = std::array::from_fn(|level| version.levels()[level].totals().file_bytes);
        Shape { levels, running, level_bytes, idle_bytes }
    }

    /// Which tables of `level`, 1 or deeper, meet `smallest..=largest`.
    pub(crate) fn run(&self, level: usize, smallest: &[u8], largest: &[u8]) -> Range<usize> {
        let tables = &self.levels[level];
        let begin = tables.partition_point(|table| table.meta.largest < smallest);
        let len = tables[begin..].partition_point(|table| table.meta.smallest <= largest);
        begin..begin + len
    }

    /// Whether a running compaction will put tables into `level` that may meet `smallest..=largest`.
    pub(crate) fn is_output_range(&self, level: usize, smallest: &[u8], largest: &[u8]) -> bool {
        let meets = |job: &&Running| job.smallest <= largest && job.largest >= smallest;
        self.running.iter().filter(|job| job.output_level == level).any(|job| meets(&job))
    }

    /// Whether no table deeper than `level` meets `smallest..=largest`: what lies there is the oldest there is of these
    /// keys.
    pub(crate) fn nothing_below(&self, level: usize, smallest: &[u8], largest: &[u8]) -> bool {
        (level + 1..LEVELS).all(|below| self.run(below, smallest, largest).is_empty())
    }

    /// The first level from 1 on that holds tables or will when running compactions are done.
    pub(crate) fn first_populated(&self) -> Option<usize> {
        (1..LEVELS)
            .find(|&level| !self.levels[level].is_empty() || self.running.iter().any(|job| job.output_level == level))
    }

    /// The deepest level that holds tables, level 0 left out.
    pub(crate) fn deepest_populated(&self) -> Option<usize> {
        (1..LEVELS).rev().find(|&level| !self.levels[level].is_empty())
    }
}
