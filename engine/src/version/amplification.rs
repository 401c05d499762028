//! What each level of a keyspace cost: write, space and read amplification, beside what theory predicts.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use super::version::Version;
use super::{LAST_LEVEL, LEVELS};
use crate::table::HasMeta;

/// A sum that only grows, or nearly.
///
/// Relaxed everywhere: each counter stands for itself, no other memory is read on the strength of its value, and a
/// report that misses an addition which happens at the same time is as good as one taken a moment earlier.
#[derive(Debug, Default)]
struct Counter(AtomicU64);

impl Counter {
    #[inline]
    fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    /// As `add`, for a counter that nobody else adds to at the same time.
    #[inline]
    fn add_alone(&self, n: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(n), Ordering::Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// What one finished compaction did; trivial moves are counted with [`Amplification::record_move`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct CompactionWork {
    /// File bytes of the inputs in the upper level.
    pub(crate) read_bytes: u64,
    /// File bytes of the inputs in the output level; 0 if tables were rewritten in place.
    pub(crate) read_output_level_bytes: u64,
    /// File bytes of the outputs.
    pub(crate) written_bytes: u64,
    /// Entries of the inputs in the upper level.
    pub(crate) upper_entries: u64,
    /// Entries of all inputs.
    pub(crate) merged_entries: u64,
    /// Entries dropped because a newer one of the same key made them useless.
    pub(crate) dropped_shadowed: u64,
    /// Tombstones dropped because nothing they could hide is left.
    pub(crate) dropped_tombstones: u64,
    /// Of all tombstones that are gone, whether dropped or overwritten.
    pub(crate) tombstone_ages: TombstoneAges,
}

/// How old tombstones were when a compaction removed them, in operations on the database since they were written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct TombstoneAges {
    pub(crate) count: u64,
    pub(crate) sum: u64,
    pub(crate) max: u64,
}

impl TombstoneAges {
    /// Counts one more.
    pub(crate) fn add(&mut self, age: u64) {
        *self = *self + TombstoneAges { count: 1, sum: age, max: age };
    }
}

impl std::ops::Add for TombstoneAges {
    type Output = TombstoneAges;
    fn add(self, other: TombstoneAges) -> TombstoneAges {
        TombstoneAges {
            count: self.count + other.count,
            sum: self.sum.saturating_add(other.sum),
            max: self.max.max(other.max),
        }
    }
}

#[derive(Debug, Default)]
struct LevelCounters {
    read_bytes: Counter,
    read_output_level_bytes: Counter,
    written_bytes: Counter,
    moved_bytes: Counter,
    merged_entries: Counter,
    dropped_shadowed: Counter,
    dropped_tombstones: Counter,
    tombstone_ages: Mutex<TombstoneAges>,
}

/// How many of the entries that compactions moved down met an older entry of their key; each compaction counts half as
/// much as the next, so that the share follows the workload.
#[derive(Debug, Default)]
struct Shadowing {
    upper_entries: f64,
    shadowed: f64,
}

impl Shadowing {
    fn add(&mut self, upper_entries: u64, shadowed: u64) {
        self.upper_entries = self.upper_entries / 2.0 + upper_entries as f64;
        self.shadowed = self.shadowed / 2.0 + shadowed as f64;
    }

    fn share(&self) -> f64 {
        if self.upper_entries == 0.0 { 0.0 } else { (self.shadowed / self.upper_entries).min(1.0) }
    }
}

/// A keyspace's counters since it was opened. Shared by all threads.
#[derive(Debug, Default)]
pub(crate) struct Amplification {
    /// By output level; flushes write into level 0.
    levels: [LevelCounters; LEVELS],
    shadowing: Mutex<Shadowing>,
    user_bytes: Counter,
    wal_bytes: Counter,
    sampled_gets: Counter,
    sampled_tables: Counter,
    sampled_blocks: Counter,
}

impl Amplification {
    /// Counts one write: its key and value, and what it took in the log (0 if it was not logged). Only the thread that
    /// holds the commit lock calls this, so that adding needs no atomic read-modify-write.
    #[inline]
    pub(crate) fn record_write(&self, user_bytes: u64, wal_bytes: u64) {
        self.user_bytes.add_alone(user_bytes);
        self.wal_bytes.add_alone(wal_bytes);
    }

    /// Counts the file bytes of a flushed or ingested table of `level` (0 for a flush).
    pub(crate) fn record_flush(&self, level: usize, file_bytes: u64) {
        self.level(level).written_bytes.add(file_bytes);
    }

    /// Counts tables that changed their level as they were, into `output_level`.
    pub(crate) fn record_move(&self, output_level: usize, file_bytes: u64) {
        self.level(output_level).moved_bytes.add(file_bytes);
    }

    /// Counts a finished compaction into `output_level`.
    pub(crate) fn record_compaction(&self, output_level: usize, work: &CompactionWork) {
        let level = self.level(output_level);
        level.read_bytes.add(work.read_bytes);
        level.read_output_level_bytes.add(work.read_output_level_bytes);
        level.written_bytes.add(work.written_bytes);
        level.merged_entries.add(work.merged_entries);
        level.dropped_shadowed.add(work.dropped_shadowed);
        level.dropped_tombstones.add(work.dropped_tombstones);
        let mut ages = level.tombstone_ages.lock();
        *ages = *ages + work.tombstone_ages;
        drop(ages);
        self.shadowing.lock().add(work.upper_entries, work.dropped_shadowed);
    }

    /// Counts one sampled get: tables whose filter or blocks were looked at, and blocks that were searched. The caller
    /// decides which gets are sampled, so that most of them pay nothing.
    #[inline]
    pub(crate) fn record_get(&self, tables: u64, blocks: u64) {
        self.sampled_gets.add(1);
        self.sampled_tables.add(tables);
        self.sampled_blocks.add(blocks);
    }

    fn level(&self, level: usize) -> &LevelCounters {
        &self.levels[level.min(LAST_LEVEL)]
    }

    /// The counters, beside the sizes in `version`, the `scores` of its levels, and what the formula says for a
    /// keyspace whose memtables are sealed at `memtable_bytes` and whose levels grow by `level_ratio`.
    pub(crate) fn snapshot<T: HasMeta>(
        &self,
        version: &Version<T>,
        scores: &[f64; LEVELS],
        memtable_bytes: u64,
        level_ratio: u64,
    ) -> AmplificationSnapshot {
        let user_bytes = self.user_bytes.get();
        let levels: [LevelSnapshot; LEVELS] = std::array::from_fn(|level| {
            let (counters, totals) = (&self.levels[level], version.levels()[level].totals());
            let ages = *counters.tombstone_ages.lock();
            LevelSnapshot {
                tables: version.levels()[level].tables().len() as u64,
                file_bytes: totals.file_bytes,
                entries: totals.entries,
                tombstones: totals.tombstones,
                score: scores[level],
                read_bytes: counters.read_bytes.get(),
                read_output_level_bytes: counters.read_output_level_bytes.get(),
                written_bytes: counters.written_bytes.get(),
                moved_bytes: counters.moved_bytes.get(),
                merged_entries: counters.merged_entries.get(),
                dropped_shadowed: counters.dropped_shadowed.get(),
                dropped_tombstones: counters.dropped_tombstones.get(),
                tombstones_gone: ages.count,
                tombstone_age_mean: ratio(ages.sum, ages.count),
                tombstone_age_max: ages.max,
                write_amplification: ratio(counters.written_bytes.get(), user_bytes),
            }
        });
        let written_bytes: u64 = levels.iter().map(|level| level.written_bytes).sum();
        let live_user_bytes = live_user_bytes(version, self.shadowing.lock().share());
        let gets = self.sampled_gets.get();
        AmplificationSnapshot {
            levels,
            user_bytes,
            wal_bytes: self.wal_bytes.get(),
            write_amplification: ratio(written_bytes, user_bytes),
            write_amplification_with_wal: ratio(written_bytes + self.wal_bytes.get(), user_bytes),
            predicted_write_amplification: predicted_write_amplification(live_user_bytes, memtable_bytes, level_ratio),
            live_user_bytes,
            space_amplification: ratio(version.file_bytes(), live_user_bytes),
            predicted_space_amplification: 1.0 + 1.0 / (level_ratio.max(2) - 1) as f64,
            sampled_gets: gets,
            tables_per_get: ratio(self.sampled_tables.get(), gets),
            blocks_per_get: ratio(self.sampled_blocks.get(), gets),
        }
    }
}

fn ratio(a: u64, b: u64) -> f64 {
    if b == 0 { 0.0 } else { a as f64 / b as f64 }
}

/// An estimate of the keys and values that a full scan would return.
///
/// The deepest populated level holds each of its keys once. Of the values above it, `shadow_share` replace one that is
/// counted already, as those did that have been merged lately; the rest are new. Each tombstone above it takes one
/// entry away. Keys of tombstones are small and count as nothing.
fn live_user_bytes<T: HasMeta>(version: &Version<T>, shadow_share: f64) -> u64 {
    let Some(deepest) = version.levels().iter().rposition(|level| !level.is_empty()) else {
        return 0;
    };
    let (mut puts, mut put_bytes, mut live, mut upper_tombstones) = (0.0, 0.0, 0.0, 0.0);
    for (at, level) in version.levels().iter().enumerate() {
        let totals = level.totals();
        let level_puts = totals.entries.saturating_sub(totals.tombstones) as f64;
        puts += level_puts;
        put_bytes += totals.user_bytes as f64;
        if at == deepest {
            live += level_puts;
        } else {
            live += level_puts * (1.0 - shadow_share);
            upper_tombstones += totals.tombstones as f64;
        }
    }
    if puts == 0.0 { 0 } else { ((live - upper_tombstones).max(0.0) * put_bytes / puts) as u64 }
}

/// Write amplification of leveled compaction, log included: `3 + (f + 1)(L - 1)` for `L = ceil(log_T(D / M * (T - 1) /
/// T))` levels, at least one, where `D` is the live data, `M` the memtable and `T` the level ratio. Each push into a
/// level rewrites about `f = 0.6 T` times what is pushed with min-overlap picking (6 at T = 10). After the cost model
/// of Dayan, Athanassoulis, Idreos, "Monkey" (SIGMOD 2017), with the constants of `3` for log, flush and the first
/// merge, and of `f` as measured in practice.
pub(crate) fn predicted_write_amplification(live_user_bytes: u64, memtable_bytes: u64, level_ratio: u64) -> f64 {
    let levels = predicted_levels(live_user_bytes, memtable_bytes, level_ratio);
    3.0 + (0.6 * level_ratio.max(2) as f64 + 1.0) * (levels - 1.0)
}

/// The `L` of [`predicted_write_amplification`].
pub(crate) fn predicted_levels(live_user_bytes: u64, memtable_bytes: u64, level_ratio: u64) -> f64 {
    let ratio_f = level_ratio.max(2) as f64;
    let memtables = live_user_bytes as f64 / memtable_bytes.max(1) as f64;
    (memtables * (ratio_f - 1.0) / ratio_f).max(1.0).log(ratio_f).ceil().max(1.0)
}

/// What one level holds and has cost since the keyspace was opened. Reads, writes, moves and drops are counted at the
/// level they went into.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct LevelSnapshot {
    /// Table files.
    pub tables: u64,
    /// The length of the files, in bytes.
    pub file_bytes: u64,
    /// Entries, tombstones included.
    pub entries: u64,
    /// Recorded deletes.
    pub tombstones: u64,
    /// How urgent a compaction out of this level is; 1 and more starts one.
    pub score: f64,
    /// Bytes that compactions read from the levels above, to write into this one (from this one, if tables were
    /// rewritten in place).
    pub read_bytes: u64,
    /// Bytes that compactions read from this level, to merge them with what came from above.
    pub read_output_level_bytes: u64,
    /// Bytes that flushes (level 0) and compactions wrote into this level.
    pub written_bytes: u64,
    /// Bytes of tables that came into this level without being rewritten.
    pub moved_bytes: u64,
    /// Entries that compactions into this level read.
    pub merged_entries: u64,
    /// Entries that they dropped because a newer entry of the key made them useless.
    pub dropped_shadowed: u64,
    /// Tombstones that they dropped because nothing was left to hide.
    pub dropped_tombstones: u64,
    /// Tombstones that they removed, for that or because a newer entry of the key made them useless.
    pub tombstones_gone: u64,
    /// How old those were on average, in operations on the database since they were written.
    pub tombstone_age_mean: f64,
    /// How old the oldest of them was.
    pub tombstone_age_max: u64,
    /// `written_bytes` / user bytes.
    pub write_amplification: f64,
}

/// What a keyspace's tree costs, measured since it was opened. `Display` prints it as a table.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AmplificationSnapshot {
    /// Level 0 first.
    pub levels: [LevelSnapshot; 7],
    /// Keys and values written by the user, in bytes.
    pub user_bytes: u64,
    /// The keyspace's share of the log, in bytes.
    pub wal_bytes: u64,
    /// Bytes written into tables / user bytes.
    pub write_amplification: f64,
    /// Bytes written into tables and the log / user bytes.
    pub write_amplification_with_wal: f64,
    /// What the formula for leveled compaction says of `write_amplification_with_wal` at this size of data and
    /// memtable, under random overwrites.
    pub predicted_write_amplification: f64,
    /// An estimate of the live keys and values, in bytes: the bottom level's values, and those above it that have
    /// turned out to be new at the rate seen in compactions, less one for each tombstone above.
    pub live_user_bytes: u64,
    /// File bytes / `live_user_bytes`. Below 1 if tables are compressed.
    pub space_amplification: f64,
    /// What the formula says of space amplification: `1 + 1 / (ratio - 1)`.
    pub predicted_space_amplification: f64,
    /// How many gets were sampled.
    pub sampled_gets: u64,
    /// Tables that a sampled get looked at, on average.
    pub tables_per_get: f64,
    /// Blocks that a sampled get searched, on average.
    pub blocks_per_get: f64,
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / (1 << 20) as f64
}

impl fmt::Display for AmplificationSnapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:<5} {:>7} {:>10} {:>6} {:>10} {:>10} {:>10} {:>10} {:>12} {:>6}",
            "level", "tables", "MiB", "score", "in MiB", "read MiB", "write MiB", "moved MiB", "dropped", "WA"
        )?;
        for (number, level) in self.levels.iter().enumerate() {
            let into = if number == 0 { level.written_bytes } else { level.read_bytes + level.moved_bytes };
            writeln!(
                f,
                "{:<5} {:>7} {:>10.1} {:>6.2} {:>10.1} {:>10.1} {:>10.1} {:>10.1} {:>12} {:>6.2}",
                number,
                level.tables,
                mib(level.file_bytes),
                level.score,
                mib(into),
                mib(level.read_bytes + level.read_output_level_bytes),
                mib(level.written_bytes),
                mib(level.moved_bytes),
                level.dropped_shadowed + level.dropped_tombstones,
                level.write_amplification
            )?;
        }
        writeln!(
            f,
            "WA {:.2}, with the log {:.2} (formula {:.2})",
            self.write_amplification, self.write_amplification_with_wal, self.predicted_write_amplification
        )?;
        writeln!(f, "SA {:.2} (formula {:.2})", self.space_amplification, self.predicted_space_amplification)?;
        write!(
            f,
            "RA {:.2} tables, {:.2} blocks a get ({} sampled)",
            self.tables_per_get, self.blocks_per_get, self.sampled_gets
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::TableMeta;
    use crate::version::version::testing::table;
    use std::sync::Arc;

    fn sized(number: u64, entries: u64, tombstones: u64) -> Arc<TableMeta> {
        let key = number.to_be_bytes();
        let user_bytes = (entries - tombstones) * 100;
        Arc::new(TableMeta {
            entries,
            tombstones,
            user_bytes,
            file_bytes: user_bytes,
            ..table(number, &key, &key, number, number)
        })
    }

    #[test]
    fn formulas_give_the_known_values() {
        for (memtables, expected) in [(0, 3.0), (1, 3.0), (11, 3.0), (12, 10.0), (111, 10.0), (112, 17.0)] {
            assert_eq!(predicted_write_amplification(memtables * 1000, 1000, 10), expected, "{memtables} memtables");
        }
        let none = predicted_write_amplification(u64::MAX, 0, 0);
        assert!(none.is_finite());
    }

    #[test]
    fn live_data_is_estimated_from_what_compactions_saw() {
        let version = Version::empty().apply(vec![(6, sized(1, 1000, 0)), (0, sized(2, 150, 50))], &[]);
        assert_eq!(live_user_bytes(&version, 0.0), (1000 + 100 - 50) * 100);
        assert_eq!(live_user_bytes(&version, 1.0), (1000 - 50) * 100);
        assert_eq!(live_user_bytes(&Version::<TableMeta>::empty(), 0.0), 0);
        let only_tombstones = Version::empty().apply(vec![(0, sized(1, 10, 10))], &[]);
        assert_eq!(live_user_bytes(&only_tombstones, 0.0), 0);
    }

    #[test]
    fn counters_become_ratios() {
        let counters = Amplification::default();
        counters.record_write(1000, 1200);
        counters.record_flush(0, 1100);
        counters.record_move(6, 50);
        let work = CompactionWork {
            read_bytes: 1100,
            read_output_level_bytes: 2000,
            written_bytes: 2900,
            upper_entries: 10,
            merged_entries: 30,
            dropped_shadowed: 5,
            dropped_tombstones: 1,
            tombstone_ages: TombstoneAges { count: 2, sum: 30, max: 20 },
        };
        counters.record_compaction(6, &work);
        counters.record_get(3, 2);
        counters.record_get(1, 0);
        assert_eq!(counters.shadowing.lock().share(), 0.5);
        let version = Version::empty().apply(vec![(6, sized(1, 100, 0)), (0, sized(2, 10, 0))], &[]);
        let snapshot = counters.snapshot(&version, &[0.25, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0], 1000, 10);
        assert_eq!(snapshot.write_amplification, 4.0);
        assert_eq!(snapshot.write_amplification_with_wal, 5.2);
        assert_eq!((snapshot.levels[0].write_amplification, snapshot.levels[6].write_amplification), (1.1, 2.9));
        assert_eq!((snapshot.tables_per_get, snapshot.blocks_per_get), (2.0, 1.0));
        assert_eq!(snapshot.live_user_bytes, 10_500);
        assert_eq!(snapshot.space_amplification, 11_000.0 / 10_500.0);
        assert_eq!((snapshot.levels[6].tombstone_age_mean, snapshot.levels[6].tombstone_age_max), (15.0, 20));
        assert_eq!((snapshot.levels[6].moved_bytes, snapshot.levels[6].dropped_shadowed), (50, 5));
    }

    #[test]
    fn the_table_is_aligned() {
        let version = Version::empty().apply(vec![(6, sized(1, 100_000, 0)), (0, sized(2, 10, 0))], &[]);
        let counters = Amplification::default();
        counters.record_flush(0, 123 << 30);
        let text = counters.snapshot(&version, &[0.0; LEVELS], 1 << 20, 10).to_string();
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines.len(), 1 + LEVELS + 3);
        assert!(lines[..=LEVELS].iter().all(|line| line.len() == lines[0].len()), "{text}");
        assert!(lines[1].contains("125952.0"), "{text}");
        assert!(lines[LEVELS + 1].starts_with("WA 0.00"), "no division by zero: {text}");
    }
}
