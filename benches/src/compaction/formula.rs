//! What theory says of leveled compaction, level by level; `WA = 3 + (f + 1)(L - 1)` as the engine's metrics have it.

use serde::{Deserialize, Serialize};
use siltstone::internals::compaction::{LEVELS, predicted_levels, predicted_write_amplification};

/// The formula's figures for one size of a database.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Prediction {
    /// Bytes written into each level / user bytes: 1 for the flush, 1 for the first level under level 0, and `f + 1` for
    /// each deeper one. Levels that the formula knows nothing of have 0.
    pub level_write_amplification: [f64; LEVELS],
    /// Their sum, and 1 for the log.
    pub write_amplification: f64,
    /// `1 + 1 / (T - 1)`.
    pub space_amplification: f64,
    /// Sorted runs that a get has to look at: level 0 half full on average, and one a level.
    pub runs: f64,
}

impl Prediction {
    /// For `live_bytes` of data in levels that grow by `level_ratio`, under memtables of `memtable_bytes`; the base
    /// level is the one that `bottom` and the number of levels make it.
    pub fn new(live_bytes: u64, memtable_bytes: u64, level_ratio: u64, level0_trigger: u64, bottom: usize) -> Self {
        let levels = predicted_levels(live_bytes, memtable_bytes, level_ratio) as usize;
        let write_amplification = predicted_write_amplification(live_bytes, memtable_bytes, level_ratio);
        let deeper = if levels > 1 { (write_amplification - 3.0) / (levels - 1) as f64 } else { 0.0 };
        let base = (bottom + 1).saturating_sub(levels).max(1);
        let level_write_amplification = std::array::from_fn(|level| match level {
            0 => 1.0,
            level if level == base => 1.0,
            level if level > base && level <= bottom => deeper,
            _ => 0.0,
        });
        Prediction {
            level_write_amplification,
            write_amplification,
            space_amplification: 1.0 + 1.0 / (level_ratio.max(2) - 1) as f64,
            runs: level0_trigger as f64 / 2.0 + levels as f64,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_add_up_to_the_whole() {
        for live in [1 << 20, 1 << 30, 10 << 40] {
            for ratio in [4, 10, 16] {
                let formula = Prediction::new(live, 1 << 20, ratio, 4, LEVELS - 1);
                let levels: f64 = formula.level_write_amplification.iter().sum();
                if predicted_levels(live, 1 << 20, ratio) < LEVELS as u64 {
                    assert!((levels + 1.0 - formula.write_amplification).abs() < 1e-9, "{live}, {ratio}: {formula:?}");
                }
            }
        }
        let formula = Prediction::new(1 << 30, 1 << 20, 10, 4, 6);
        assert_eq!(formula.level_write_amplification, [1.0, 0.0, 0.0, 0.0, 1.0, 7.0, 7.0]);
        let formula = Prediction::new(1 << 30, 1 << 20, 10, 4, 3);
        assert_eq!(formula.level_write_amplification, [1.0, 1.0, 7.0, 7.0, 0.0, 0.0, 0.0]);
    }
}
