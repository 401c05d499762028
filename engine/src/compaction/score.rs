//! How large each level should be, how urgent its compaction is, and how much work is owed.

use crate::options::{Compression, KeyspaceOptions};
use crate::version::{LAST_LEVEL, LEVELS};

use super::order::PickOrder;
use super::shape::Shape;

/// What leveled compaction needs to know of a keyspace's options, with defaults filled in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LeveledOptions {
    /// How many level-0 tables start a compaction; at least 1.
    pub(crate) level0_trigger: usize,
    /// The most bytes that level 0 should hold, however few tables that are: a flush that was waited for writes several
    /// memtables into one.
    pub(crate) level0_bytes: u64,
    /// How many times larger each level is than the one above; at least 2.
    pub(crate) level_ratio: u64,
    /// Whether targets follow the size of the bottom level, upwards, instead of `base_bytes`, downwards.
    pub(crate) dynamic_levels: bool,
    /// The most that the first level under level 0 should hold; at least 1.
    pub(crate) base_bytes: u64,
    /// The size at which an output table is ended; at least 1.
    pub(crate) target_table_bytes: u64,
    /// Whether only the bottom level is compressed, so that a flushed table must not get there by changing its level.
    pub(crate) compress_bottom: bool,
    /// Which table of a level goes down first.
    pub(crate) pick_order: PickOrder,
}

impl LeveledOptions {
    /// The options of a keyspace whose memtables are sealed at `memtable_bytes`.
    pub(crate) fn new(options: &KeyspaceOptions, memtable_bytes: u64) -> Self {
        let target_table_bytes = (memtable_bytes / 2).clamp(64 << 10, 64 << 20);
        let level0_trigger = options.level0_trigger.max(1);
        let base_bytes = options.base_level_bytes.unwrap_or(memtable_bytes.saturating_mul(4)).max(1);
        // More than three memtables hold, and no more than four of large entries do, of which a table takes nineteen
        // twentieths.
        let flushed_bytes = (memtable_bytes / 8).saturating_mul(7);
        LeveledOptions {
            level0_trigger: level0_trigger as usize,
            level0_bytes: flushed_bytes.saturating_mul(level0_trigger.into()).clamp(1, base_bytes),
            level_ratio: u64::from(options.level_ratio.max(2)),
            dynamic_levels: options.dynamic_levels,
            base_bytes,
            target_table_bytes: options.target_table_bytes.unwrap_or(target_table_bytes).max(1),
            compress_bottom: options.compression == Compression::Lz4Bottom,
            pick_order: options.pick_order,
        }
    }

    /// A job may take this many bytes where it has the choice. The factor is RocksDB's `max_compaction_bytes`.
    pub(crate) fn max_job_bytes(&self) -> u64 {
        self.target_table_bytes.saturating_mul(25)
    }

    /// An output table may overlap this many bytes of the level below its own. The factor is LevelDB's.
    pub(crate) fn max_grandparent_bytes(&self) -> u64 {
        self.target_table_bytes.saturating_mul(10)
    }
}

/// What each level should hold, and how far it is from that.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Scores {
    /// The level whose target is the smallest that is not zero. With dynamic levels, those between level 0 and it
    /// should be empty.
    pub(crate) base_level: usize,
    /// Where level-0 tables go: the base level, or one above it that still holds tables, since newer entries must stay
    /// above older ones.
    pub(crate) level0_output: usize,
    /// The most bytes each level should hold; 0 for those that should be empty and for level 0, `u64::MAX` for the
    /// bottom.
    pub(crate) targets: [u64; LEVELS],
    /// 1 and more asks for a compaction, the highest first. Tables that are being compacted do not count.
    pub(crate) scores: [f64; LEVELS],
    /// An estimate of the bytes that compactions have to write until no level is over its target.
    pub(crate) debt_bytes: u64,
}

impl Scores {
    /// The scores of `shape`.
    pub(crate) fn new(shape: &Shape, options: &LeveledOptions) -> Self {
        let (base_level, targets) = targets(&shape.level_bytes(), options);
        let level0_output = shape.first_populated().map_or(base_level, |first| first.min(base_level));
        let scores = std::array::from_fn(|level| match (level, shape.idle_bytes(level), targets[level]) {
            (0, ..) => level0_score(shape, options),
            (LAST_LEVEL, ..) | (_, 0, _) => 0.0,
            // Nothing is too large here, the level is only in the way: after what is far over its target, before what
            // is just over it.
            (_, idle, 0) => 1.0 + ratio(idle, options.base_bytes),
            (_, idle, target) => ratio(idle, target),
        });
        let debt_bytes = debt(shape, options, &targets, level0_output, scores[0] >= 1.0);
        Scores { base_level, level0_output, targets, scores, debt_bytes }
    }

    /// The levels that ask for a compaction, the most urgent first.
    pub(crate) fn urgent(&self) -> impl Iterator<Item = usize> {
        let mut levels: Vec<usize> = (0..LAST_LEVEL).filter(|&level| self.scores[level] >= 1.0).collect();
        levels.sort_by(|&a, &b| self.scores[b].total_cmp(&self.scores[a]));
        levels.into_iter()
    }
}

fn ratio(a: u64, b: u64) -> f64 {
    a as f64 / b.max(1) as f64
}

fn level0_score(shape: &Shape, options: &LeveledOptions) -> f64 {
    // Of the tables of one ingest a reader meets one, as of a level: they count together.
    let runs = shape.tables(0).chunk_by(|a, b| a.meta.max_seqno == b.meta.max_seqno);
    let idle = runs.filter(|run| run.iter().any(|table| !shape.is_busy(table))).count();
    ratio(idle as u64, options.level0_trigger as u64).max(ratio(shape.idle_bytes(0), options.level0_bytes))
}

/// The base level and the targets. With dynamic levels (RocksDB's `level_compaction_dynamic_level_bytes`) the bottom
/// level's size is divided by the ratio level after level upwards, until what a level should hold is at most
/// `base_bytes`; so upper levels never hold more than a fixed share of the bottom, and space amplification stays near
/// `1 + 1 / (ratio - 1)`.
fn targets(level_bytes: &[u64; LEVELS], options: &LeveledOptions) -> (usize, [u64; LEVELS]) {
    let mut targets = [0; LEVELS];
    targets[LAST_LEVEL] = u64::MAX;
    if !options.dynamic_levels {
        let mut target = options.base_bytes;
        for slot in &mut targets[1..LAST_LEVEL] {
            *slot = target;
            target = target.saturating_mul(options.level_ratio);
        }
        return (1, targets);
    }
    let mut base_level = LAST_LEVEL;
    let mut target = level_bytes[1..].iter().copied().max().unwrap_or(0);
    while base_level > 1 && target > options.base_bytes {
        base_level -= 1;
        target /= options.level_ratio;
        targets[base_level] = target.max(1);
    }
    (base_level, targets)
}

/// Level 0 is rewritten with all of the level it goes to; of each deeper level what is over its target is, with its
/// share of the next one.
fn debt(
    shape: &Shape,
    options: &LeveledOptions,
    targets: &[u64; LEVELS],
    level0_output: usize,
    level0_is_due: bool,
) -> u64 {
    let level_bytes = shape.level_bytes();
    let mut debt = 0.0;
    let mut incoming = 0.0;
    if level0_is_due {
        incoming = level_bytes[0] as f64;
        let overlapped = level_bytes[level0_output] as f64;
        debt += incoming + overlapped.min(incoming * options.level_ratio as f64);
    }
    for (pair, &target) in level_bytes.windows(2).zip(targets).skip(level0_output) {
        let bytes = pair[0] as f64 + incoming;
        let excess = (bytes - target as f64).max(0.0);
        if excess > 0.0 {
            debt += excess * (1.0 + pair[1] as f64 / bytes);
        }
        incoming = excess;
    }
    debt as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::version::version::Version;
    use crate::version::version::testing::table;
    use std::sync::Arc;

    fn options() -> LeveledOptions {
        LeveledOptions {
            level0_trigger: 4,
            level0_bytes: 1000,
            level_ratio: 10,
            dynamic_levels: true,
            base_bytes: 1000,
            target_table_bytes: 250,
            compress_bottom: false,
            pick_order: PickOrder::MinOverlap,
        }
    }

    fn scores(bytes: &[(usize, u64)], options: &LeveledOptions) -> Scores {
        let tables = bytes.iter().zip(1u64..).map(|(&(level, file_bytes), n)| {
            let key = n.to_be_bytes();
            (level, Arc::new(crate::table::TableMeta { file_bytes, ..table(n, &key, &key, n, n) }))
        });
        let version = Version::empty().apply(tables.collect(), &[]);
        Scores::new(&Shape::new(&version, &[]), options)
    }

    #[test]
    fn dynamic_targets_follow_the_bottom_level() {
        for (bottom, base, target) in
            [(0, 6, u64::MAX), (1000, 6, u64::MAX), (1001, 5, 100), (10_000, 5, 1000), (10_010, 4, 100)]
        {
            let scores = scores(&[(6, bottom)], &options());
            assert_eq!((scores.base_level, scores.targets[base]), (base, target), "bottom {bottom}");
            assert_eq!(scores.level0_output, base);
        }
        let deep = scores(&[(6, 123_456_789)], &options());
        assert_eq!(
            deep.targets,
            [0, 123_456_789 / 100_000, 12_345, 123_456, 1_234_567, 12_345_678, u64::MAX].map(|t| t)
        );
        assert_eq!(deep.debt_bytes, 0);
    }

    #[test]
    fn fixed_targets_grow_from_the_base() {
        let fixed = LeveledOptions { dynamic_levels: false, ..options() };
        let scores = scores(&[(1, 500), (2, 20_000)], &fixed);
        assert_eq!(scores.targets[..4], [0, 1000, 10_000, 100_000]);
        assert_eq!((scores.scores[1], scores.scores[2], scores.level0_output), (0.5, 2.0, 1));
        assert_eq!(scores.urgent().collect::<Vec<_>>(), [2]);
    }

    #[test]
    fn a_level_in_the_way_is_emptied_and_takes_what_leaves_level_0() {
        let scores = scores(&[(3, 10), (6, 500)], &options());
        assert_eq!((scores.base_level, scores.level0_output), (6, 3));
        assert!(scores.scores[3] > 1.0);
    }

    #[test]
    fn level_0_counts_tables_and_bytes() {
        assert_eq!(scores(&[(0, 1), (0, 1), (0, 1)], &options()).scores[0], 0.75);
        assert_eq!(scores(&[(0, 3000)], &options()).scores[0], 3.0);
    }

    #[test]
    fn the_tables_of_one_ingest_count_as_one_in_level_0() {
        let of_ingest = [b"a", b"b", b"c"].into_iter().zip(1u64..).map(|(key, n)| table(n, key, key, 9, 9));
        let flushed = table(4, b"a", b"z", 3, 8);
        let tables = of_ingest.chain([flushed]).map(|table| (0, Arc::new(table)));
        let version = Version::empty().apply(tables.collect(), &[]);
        let runs: Vec<usize> = version.level0_runs().map(<[_]>::len).collect();
        assert_eq!(runs, [3, 1]);
        let large_base = LeveledOptions { level0_bytes: 1 << 30, ..options() };
        assert_eq!(Scores::new(&Shape::new(&version, &[]), &large_base).scores[0], 0.5);
    }

    #[test]
    fn debt_is_what_has_to_be_rewritten() {
        assert_eq!(scores(&[(0, 100), (5, 1000), (6, 10_000)], &options()).debt_bytes, 0);
        let over = scores(&[(5, 2000), (6, 10_000)], &options());
        assert_eq!(over.debt_bytes, 1000 * (1 + 5));
        let level0 = scores(&[(0, 2000), (5, 500), (6, 10_000)], &options());
        assert_eq!(level0.debt_bytes, 2500 + 1500 * (1 + 4));
    }

    #[test]
    fn defaults_come_from_the_memtable() {
        let options = LeveledOptions::new(&KeyspaceOptions::new(), 64 << 20);
        assert_eq!((options.base_bytes, options.target_table_bytes), (256 << 20, 32 << 20));
        assert_eq!(options.level0_bytes, 224 << 20);
        assert_eq!(LeveledOptions::new(&KeyspaceOptions::new(), 1).target_table_bytes, 64 << 10);
        let small_base = KeyspaceOptions::new().base_level_bytes(1 << 20);
        assert_eq!(LeveledOptions::new(&small_base, 64 << 20).level0_bytes, 1 << 20);
    }
}
