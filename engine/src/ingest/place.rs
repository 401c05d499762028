//! Where ingested tables go.

use crate::compaction::shape::{Running, Shape};
use crate::table::TableMeta;
use crate::tree::Tree;
use crate::version::LEVELS;

/// Places for tables, kept free until this goes: in the eyes of the picker a compaction is about to put tables there.
pub(super) struct Places<'t> {
    tree: &'t Tree,
    levels: Vec<usize>,
    reserved: Vec<Running>,
}

impl<'t> Places<'t> {
    /// Chooses a level for each of `tables`, see [`levels`], and keeps it free.
    pub(super) fn reserve(tree: &'t Tree, tables: &[TableMeta]) -> Self {
        let mut shape = tree.shape.lock();
        let levels = levels(&shape, tables);
        let reserve = |(&level, table): (&usize, &TableMeta)| {
            let (smallest, largest) = (table.smallest.clone(), table.largest.clone());
            Running { inputs: vec![table.number], level, output_level: level, smallest, largest }
        };
        // In level 0 there is room for any number.
        let reserved: Vec<Running> = levels.iter().zip(tables).filter(|(level, _)| **level > 0).map(reserve).collect();
        reserved.iter().for_each(|place| shape.start(place.clone()));
        drop(shape);
        Places { tree, levels, reserved }
    }

    /// The level of each table.
    pub(super) fn levels(&self) -> &[usize] {
        &self.levels
    }
}

impl Drop for Places<'_> {
    fn drop(&mut self) {
        let mut shape = self.tree.shape.lock();
        self.reserved.iter().for_each(|place| shape.finish(place));
    }
}

/// The level of each of `tables`: the deepest one such that nothing which the table overlaps lies there or above, or
/// will once the running compactions are done. 0 if there is none: in level 0 what is newer is found first, and an
/// ingested table is newer than all there is.
///
/// What lies deeper is older, so it may be overlapped. A running compaction may put a table anywhere between the first
/// and the last key of its inputs. It also relies on nothing being put below its output that it did not know of when it
/// decided which tombstones may go: its output counts as lying there, so nothing is.
fn levels(shape: &Shape, tables: &[TableMeta]) -> Vec<usize> {
    let deepest_free = |table: &TableMeta| (0..LEVELS).take_while(|&level| is_free(shape, level, table)).last();
    tables.iter().map(|table| deepest_free(table).unwrap_or(0)).collect()
}

fn is_free(shape: &Shape, level: usize, table: &TableMeta) -> bool {
    let (smallest, largest) = (&table.smallest[..], &table.largest[..]);
    let is_met = match level {
        0 => shape.tables(0).iter().any(|other| other.meta.overlaps(smallest, largest)),
        level => !shape.run(level, smallest, largest).is_empty(),
    };
    !is_met && !shape.is_output_range(level, smallest, largest)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::compaction::order::PickOrder;
    use crate::version::LAST_LEVEL;
    use crate::version::version::Version;
    use crate::version::version::testing::table;

    /// The levels of ingested tables `k..=l` and `t..=u` in a tree that holds tables over `held`.
    fn levels_in(held: &[(usize, &str, &str)], running: &[Running]) -> [usize; 2] {
        let held = held.iter().zip(1u64..).map(|(&(level, smallest, largest), number)| {
            (level, Arc::new(table(number, smallest.as_bytes(), largest.as_bytes(), number, number)))
        });
        let version = Version::empty().apply(held.collect(), &[]);
        let mut shape = Shape::of(&version, PickOrder::default());
        running.iter().for_each(|job| shape.start(job.clone()));
        let tables = [table(100, b"k", b"l", 9, 9), table(101, b"t", b"u", 9, 9)];
        levels(&shape, &tables).try_into().unwrap()
    }

    fn running(output_level: usize, smallest: &'static str, largest: &'static str) -> Running {
        Running {
            inputs: vec![],
            level: output_level,
            output_level,
            smallest: smallest.into(),
            largest: largest.into(),
        }
    }

    #[test]
    fn a_table_goes_as_deep_as_nothing_it_overlaps() {
        assert_eq!(levels_in(&[], &[]), [LAST_LEVEL; 2]);
        assert_eq!(levels_in(&[(6, "a", "j"), (6, "m", "s"), (5, "v", "z")], &[]), [LAST_LEVEL; 2]);
        assert_eq!(levels_in(&[(6, "a", "k"), (3, "u", "u")], &[]), [5, 2]);
        assert_eq!(levels_in(&[(6, "a", "z"), (5, "l", "m")], &[]), [4, 5]);
        assert_eq!(levels_in(&[(1, "a", "z")], &[]), [0, 0]);
        assert_eq!(levels_in(&[(0, "a", "k"), (0, "v", "z")], &[]), [0, LAST_LEVEL]);
        // Nothing is put below what is newer in level 0, though the levels between are free.
        assert_eq!(levels_in(&[(0, "a", "z"), (6, "a", "z")], &[]), [0, 0]);
    }

    #[test]
    fn what_a_running_compaction_may_write_counts() {
        assert_eq!(levels_in(&[], &[running(6, "a", "k")]), [5, LAST_LEVEL]);
        assert_eq!(levels_in(&[(6, "a", "z")], &[running(3, "a", "z")]), [2, 2]);
        assert_eq!(levels_in(&[], &[running(0, "u", "z")]), [LAST_LEVEL, 0]);
        assert_eq!(levels_in(&[], &[running(6, "m", "s")]), [LAST_LEVEL; 2]);
    }
}
