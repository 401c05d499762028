//! [`Outcome`]: what one workload did to one strategy; the same for the engine and for the simulator.

use serde::{Deserialize, Serialize};
use siltstone::internals::compaction::LEVELS;

use super::formula::Prediction;
use super::scale::Scale;
use super::workload::Workload;

/// Where figures come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Origin {
    /// The engine did it.
    Measured,
    /// The model of it.
    Simulated,
}

/// What one level holds in the end, and cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LevelOutcome {
    /// Table files.
    pub tables: u64,
    /// The length of the files, in bytes.
    pub file_bytes: u64,
    /// Entries, tombstones included.
    pub entries: u64,
    /// Recorded deletes.
    pub tombstones: u64,
    /// Bytes written into this level, by flushes (level 0) and compactions.
    pub written_bytes: u64,
    /// Bytes that compactions into this level read.
    pub read_bytes: u64,
    /// Bytes of tables that came into this level as they were.
    pub moved_bytes: u64,
    /// Entries dropped on the way into this level because a newer one hid them.
    pub dropped_shadowed: u64,
    /// Tombstones that went on the way into this level, hidden or without use.
    pub tombstones_gone: u64,
    /// How old they were on average, in writes since theirs.
    pub tombstone_age_mean: f64,
    /// How old the oldest of them was.
    pub tombstone_age_max: u64,
    /// What a get of a present key touches in this level, on average.
    pub present: Touched,
    /// What a get of an absent key touches.
    pub absent: Touched,
}

/// What gets touch, on average.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Touched {
    /// Tables whose filter is asked.
    pub tables: f64,
    /// Blocks that are searched.
    pub blocks: f64,
}

/// The tree at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Moment {
    /// Since the start, in seconds; of a simulation there is none.
    pub seconds: Option<f64>,
    /// Writes so far.
    pub ops: u64,
    /// Bytes of keys and values that were put (of deletes, the keys).
    pub user_bytes: u64,
    /// Bytes of the keys and values that are there.
    pub live_bytes: u64,
    /// File bytes of each level.
    pub level_bytes: [u64; LEVELS],
    /// Bytes written into each level so far.
    pub written_bytes: [u64; LEVELS],
    /// Bytes written into the log so far.
    pub log_bytes: u64,
    /// All files on storage: logs and what is being written or about to be removed included.
    pub disk_bytes: u64,
    /// How long writers were held back so far, in seconds.
    pub stall_seconds: f64,
}

/// What one workload did to one strategy.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// Measured or simulated.
    pub origin: Origin,
    /// What was written.
    pub workload: Workload,
    /// How it was compacted; see [`siltstone::internals::strategy::Strategy`].
    pub strategy: String,
    /// How much of it, and the rest of the settings.
    pub scale: Scale,
    /// The machine and the file system, if they matter.
    pub machine: String,
    /// The engine's version.
    pub version: String,
    /// Level 0 first.
    pub levels: [LevelOutcome; LEVELS],
    /// The tree over time: of the engine each second, of a simulation whenever the data has doubled; the last at rest.
    pub series: Vec<Moment>,
    /// Bytes on storage / live user bytes, at the worst moment after half of the live data was there.
    pub peak_space_amplification: f64,
    /// What the formula says of a database of this size.
    pub predicted: Prediction,
    /// From the first write to the last, in seconds; of a simulation, what that took.
    pub seconds: f64,
    /// From there until nothing worked in the background.
    pub idle_seconds: f64,
    /// Tables that the picker looked at, of a simulation.
    pub picker_steps: Option<u64>,
}

impl Outcome {
    /// The tree at rest, after the last write.
    pub fn end(&self) -> Moment {
        self.series.last().copied().unwrap_or_default()
    }

    /// Bytes written into `level` / user bytes.
    pub fn level_write_amplification(&self, level: usize) -> f64 {
        ratio(self.levels[level].written_bytes, self.end().user_bytes)
    }

    /// Bytes written into tables and the log / user bytes.
    pub fn write_amplification(&self) -> f64 {
        let tables: u64 = self.levels.iter().map(|level| level.written_bytes).sum();
        ratio(tables + self.end().log_bytes, self.end().user_bytes)
    }

    /// Bytes of tables / live user bytes, in the end.
    pub fn space_amplification(&self) -> f64 {
        ratio(self.levels.iter().map(|level| level.file_bytes).sum(), self.end().live_bytes)
    }

    /// What gets touch in all levels together: of present keys, and of absent ones.
    pub fn touched(&self) -> (Touched, Touched) {
        let sum = |of: fn(&LevelOutcome) -> Touched| {
            self.levels.iter().map(of).fold(Touched::default(), |sum, touched| Touched {
                tables: sum.tables + touched.tables,
                blocks: sum.blocks + touched.blocks,
            })
        };
        (sum(|level| level.present), sum(|level| level.absent))
    }

    /// Of all levels together: how many tombstones are gone, their mean age and the highest, in writes.
    pub fn tombstone_ages(&self) -> (u64, f64, u64) {
        let gone: u64 = self.levels.iter().map(|level| level.tombstones_gone).sum();
        let ages: f64 = self.levels.iter().map(|level| level.tombstones_gone as f64 * level.tombstone_age_mean).sum();
        let max = self.levels.iter().map(|level| level.tombstone_age_max).max().unwrap_or(0);
        (gone, if gone > 0 { ages / gone as f64 } else { 0.0 }, max)
    }

    /// The deepest level that holds tables.
    pub fn deepest(&self) -> usize {
        (0..LEVELS).rev().find(|&level| self.levels[level].tables > 0).unwrap_or(0)
    }
}

/// The worst space amplification of `series` after half of the live data of its end was there.
pub fn peak_space_amplification(series: &[Moment]) -> f64 {
    let live = series.last().map_or(0, |end| end.live_bytes);
    let late = series.iter().filter(|moment| moment.live_bytes > 0 && moment.live_bytes >= live / 2);
    late.map(|moment| ratio(moment.disk_bytes, moment.live_bytes)).fold(0.0, f64::max)
}

pub(super) fn ratio(bytes: u64, of_bytes: u64) -> f64 {
    if of_bytes == 0 { 0.0 } else { bytes as f64 / of_bytes as f64 }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// An outcome with few figures.
    pub(crate) fn outcome() -> Outcome {
        let mut levels = [LevelOutcome::default(); LEVELS];
        levels[0] = LevelOutcome { tables: 1, file_bytes: 100, written_bytes: 1100, ..Default::default() };
        levels[6] = LevelOutcome {
            tables: 4,
            file_bytes: 500,
            entries: 40,
            written_bytes: 2900,
            tombstones_gone: 4,
            tombstone_age_mean: 10.0,
            tombstone_age_max: 25,
            present: Touched { tables: 1.0, blocks: 0.75 },
            absent: Touched { tables: 1.0, blocks: 0.01 },
            ..Default::default()
        };
        levels[5] = LevelOutcome {
            tombstones_gone: 1,
            tombstone_age_mean: 5.0,
            tombstone_age_max: 5,
            present: Touched { tables: 0.5, blocks: 0.25 },
            ..Default::default()
        };
        let moment = |live_bytes, disk_bytes| Moment {
            user_bytes: 1000,
            log_bytes: 1200,
            live_bytes,
            disk_bytes,
            ..Moment::default()
        };
        let series = vec![moment(10, 10_000), moment(300, 900), moment(400, 1000), moment(500, 600)];
        Outcome {
            origin: Origin::Measured,
            workload: Workload::Uniform,
            strategy: "leveled".to_owned(),
            scale: Scale::default(),
            machine: String::new(),
            version: String::new(),
            levels,
            peak_space_amplification: peak_space_amplification(&series),
            series,
            predicted: Prediction::new(500, 100, 10, 4, 6),
            seconds: 2.0,
            idle_seconds: 0.5,
            picker_steps: None,
        }
    }

    #[test]
    fn figures_are_sums_and_ratios() {
        let outcome = outcome();
        assert_eq!((outcome.write_amplification(), outcome.space_amplification()), (5.2, 1.2));
        assert_eq!((outcome.level_write_amplification(6), outcome.deepest()), (2.9, 6));
        assert_eq!(outcome.tombstone_ages(), (5, 9.0, 25));
        let (present, absent) = outcome.touched();
        assert_eq!((present.tables, present.blocks, absent.tables), (1.5, 1.0, 1.0));
        assert_eq!(outcome.peak_space_amplification, 3.0, "a database that has hardly begun does not count");
        assert_eq!(peak_space_amplification(&[]), 0.0);
    }

    #[test]
    fn an_outcome_survives_the_way_through_a_line_of_json() {
        let json = serde_json::to_string(&outcome()).unwrap();
        assert!(!json.contains('\n'));
        assert_eq!(serde_json::from_str::<Outcome>(&json).unwrap(), outcome());
    }
}
