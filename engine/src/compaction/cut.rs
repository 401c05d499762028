//! [`Cutter`]: where one output table ends and the next begins.

use super::plan::{Grandparent, Plan};
use super::score::LeveledOptions;

/// Ends output tables at good places. A pure function of what passes through it.
#[derive(Clone, Debug)]
pub(crate) struct Cutter<'p> {
    target_bytes: u64,
    /// How many bytes of the level below the output one table may overlap: what a later compaction of it has to
    /// rewrite.
    max_overlap_bytes: u64,
    /// The tables of the level below the output, ascending: where cutting keeps later compactions small.
    grandparents: &'p [Grandparent],
    next_grandparent: usize,
    /// Bytes of the level below that the open table overlaps.
    overlap_bytes: u64,
}

impl<'p> Cutter<'p> {
    /// Cuts tables of about `target_bytes` where `grandparents` end.
    pub(crate) fn new(target_bytes: u64, max_overlap_bytes: u64, grandparents: &'p [Grandparent]) -> Self {
        Cutter { target_bytes, max_overlap_bytes, grandparents, next_grandparent: 0, overlap_bytes: 0 }
    }

    /// What cuts the outputs of `plan`. Inside level 0 they must stay one run, tables of one age, and so one table.
    pub(crate) fn of(plan: &'p Plan, options: &LeveledOptions) -> Self {
        match plan.output_level {
            0 => Cutter::new(u64::MAX, 0, &[]),
            _ => Cutter::new(options.target_table_bytes, options.max_grandparent_bytes(), &plan.grandparents),
        }
    }

    /// Whether the open table, of `open_bytes`, ends before `key`, which is after all keys it was asked for so far.
    /// Without an open table nothing ends; the next one begins at `key`.
    ///
    /// A table is cut where a table of the level below ends, from half the target on, so that a later compaction of it
    /// reads few tables in part; earlier when it would overlap too much. Where no such place comes, half over the
    /// target; where none is left, at the target.
    pub(crate) fn cuts_before(&mut self, key: &[u8], open_bytes: Option<u64>) -> bool {
        let passed = self.pass_grandparents(key);
        let Some(bytes) = open_bytes else {
            // What was passed lies before the table that begins here.
            self.overlap_bytes = 0;
            return false;
        };
        let aligned = passed && (bytes >= self.target_bytes / 2 || self.overlap_bytes > self.max_overlap_bytes);
        let cuts = aligned || bytes >= self.limit_bytes();
        if cuts {
            self.overlap_bytes = 0;
        }
        cuts
    }

    /// The length at which the open table ends wherever it is.
    pub(crate) fn limit_bytes(&self) -> u64 {
        let more_to_come = self.next_grandparent < self.grandparents.len();
        if more_to_come { self.target_bytes.saturating_add(self.target_bytes / 2) } else { self.target_bytes }
    }

    /// The table of the level below that ends next.
    #[cfg_attr(not(feature = "internals"), allow(dead_code))]
    pub(crate) fn next_grandparent(&self) -> Option<&'p Grandparent> {
        self.grandparents.get(self.next_grandparent)
    }

    /// Passes the tables below that end before `key`; whether there were any.
    fn pass_grandparents(&mut self, key: &[u8]) -> bool {
        let before = self.next_grandparent;
        while let Some(table) = self.grandparents.get(self.next_grandparent).filter(|table| table.largest[..] < *key) {
            self.overlap_bytes = self.overlap_bytes.saturating_add(table.file_bytes);
            self.next_grandparent += 1;
        }
        self.next_grandparent > before
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    /// Tables of 100 bytes that end at `largest`.
    fn below(largest: &[u8]) -> Vec<Grandparent> {
        let key = |key: u8| Bytes::copy_from_slice(&[key]);
        largest.iter().map(|&at| Grandparent { smallest: key(at), largest: key(at), file_bytes: 100 }).collect()
    }

    /// The keys, of those from 0 on with entries of 10 bytes, before which a table ends.
    fn cuts(keys: std::ops::Range<u8>, cutter: &mut Cutter<'_>) -> Vec<u8> {
        let mut open_bytes = None;
        let mut cuts = Vec::new();
        for key in keys {
            if cutter.cuts_before(&[key], open_bytes) {
                cuts.push(key);
                open_bytes = None;
            }
            open_bytes = Some(open_bytes.unwrap_or(0) + 10);
        }
        cuts
    }

    #[test]
    fn tables_end_at_the_target_where_nothing_is_below() {
        assert_eq!(cuts(0..25, &mut Cutter::new(100, 1000, &[])), [10, 20]);
        assert_eq!(cuts(0..25, &mut Cutter::new(u64::MAX, 0, &[])), []);
    }

    #[test]
    fn tables_end_where_those_below_end() {
        let grandparents = below(&[2, 6, 9, 40]);
        // 2 comes too soon, 6 after more than half the target; 9 too soon again; then half over the target.
        assert_eq!(cuts(0..30, &mut Cutter::new(100, 1000, &grandparents)), [7, 22]);
    }

    #[test]
    fn much_overlap_ends_a_table_early() {
        let grandparents = below(&[0, 1, 2, 3, 4, 90]);
        assert_eq!(cuts(0..8, &mut Cutter::new(1000, 250, &grandparents)), [3]);
    }

    /// What lies before the first key of a part of a job does not count: its first table would end at once.
    #[test]
    fn a_run_may_begin_in_the_middle() {
        let grandparents = below(&[0, 1, 2, 3, 4, 13, 90]);
        assert_eq!(cuts(10..18, &mut Cutter::new(1000, 250, &grandparents)), []);
    }
}
