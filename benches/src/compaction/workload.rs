//! [`Workload`]: what is written, defined once for the engine that writes it and for the model that predicts it.

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// A stream of writes.
///
/// Those that draw keys at random first write every key once, in random order, so that the size of the database does
/// not depend on how often a key is drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Workload {
    /// Every key once in random order, then overwrites of keys drawn uniformly
    Uniform,
    /// The same, drawn by a Zipf distribution with exponent 0.99, popular keys scattered
    Zipf,
    /// The keys in ascending order, again and again
    Sequential,
    /// Ascending keys; from a number on, each put is followed by the delete of the oldest
    TimeOrdered,
    /// Every key once, then puts and deletes of uniform keys, half and half
    DeleteHeavy,
    /// Every key once, then 90 % of the overwrites on 1 % of the keys, scattered
    OverwriteHeavy,
    /// As uniform, with values that grow from a quarter to four times their length
    GrowingValues,
}

/// How keys are drawn. Numbers of keys are scrambled by the caller: the first is the most popular.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Popularity {
    /// All alike.
    Uniform,
    /// The `r`-th key in proportion to `1 / r^exponent`.
    Zipf {
        /// At least 0.
        exponent: f64,
    },
    /// A share of the keys gets a share of the writes; within each part all are alike.
    HotSet {
        /// Of the keys, above 0 and below 1.
        keys: f64,
        /// Of the writes, 0 to 1.
        writes: f64,
    },
}

/// What a part of a workload writes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Pattern {
    /// Every key once, in random order.
    Load,
    /// Keys drawn with replacement.
    Draws {
        /// How.
        popularity: Popularity,
        /// The share of the writes that are deletes, 0 to 1.
        deletes: f64,
    },
    /// Write `n` of the workload goes to key `n` modulo the number of keys.
    Ascending,
    /// Write `n` puts key `n` while that is below `live`; from then on puts and deletes alternate, so that `live` keys
    /// stay.
    Window {
        /// How many.
        live: u64,
    },
}

/// Consecutive writes of one pattern.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Phase {
    /// What is written.
    pub pattern: Pattern,
    /// How many writes.
    pub ops: u64,
}

/// How the lengths of values change over a workload.
const GROWTH: (f64, f64) = (0.25, 4.0);

/// Values grow in this many steps.
const GROWTH_STEPS: u64 = 64;

impl Workload {
    /// Its name on the command line and in reports.
    pub fn name(self) -> String {
        self.to_possible_value().map_or(String::new(), |value| value.get_name().to_owned())
    }

    /// What it writes: `keys` times `passes` writes, in which `keys` (at least 1) keys are live at most.
    pub fn phases(self, keys: u64, passes: u64) -> Vec<Phase> {
        let ops = keys.saturating_mul(passes.max(1));
        let draws = |popularity, deletes| {
            let load = Phase { pattern: Pattern::Load, ops: keys };
            let draws = Phase { pattern: Pattern::Draws { popularity, deletes }, ops: ops - keys };
            if draws.ops > 0 { vec![load, draws] } else { vec![load] }
        };
        match self {
            Workload::Uniform | Workload::GrowingValues => draws(Popularity::Uniform, 0.0),
            Workload::Zipf => draws(Popularity::Zipf { exponent: 0.99 }, 0.0),
            Workload::DeleteHeavy => draws(Popularity::Uniform, 0.5),
            Workload::OverwriteHeavy => draws(Popularity::HotSet { keys: 0.01, writes: 0.9 }, 0.0),
            Workload::Sequential => vec![Phase { pattern: Pattern::Ascending, ops }],
            Workload::TimeOrdered => vec![Phase { pattern: Pattern::Window { live: keys }, ops }],
        }
    }

    /// How many different keys it writes.
    pub fn key_space(self, keys: u64, passes: u64) -> u64 {
        match self {
            Workload::TimeOrdered => window_puts(keys.saturating_mul(passes.max(1)), keys),
            _ => keys,
        }
    }

    /// The length of the value that write `op` of `ops` puts, in bytes, if the usual is `value_bytes`.
    pub fn value_bytes(self, value_bytes: usize, op: u64, ops: u64) -> usize {
        if self != Workload::GrowingValues {
            return value_bytes;
        }
        let step = (u128::from(op) * u128::from(GROWTH_STEPS) / u128::from(ops.max(1))) as f64;
        let share = step / (GROWTH_STEPS - 1) as f64;
        (value_bytes as f64 * (GROWTH.0 + (GROWTH.1 - GROWTH.0) * share.min(1.0))) as usize
    }

    /// The lengths between which [`value_bytes`](Self::value_bytes) stays.
    pub fn value_bounds(self, value_bytes: usize) -> (usize, usize) {
        (self.value_bytes(value_bytes, 0, GROWTH_STEPS), self.value_bytes(value_bytes, GROWTH_STEPS - 1, GROWTH_STEPS))
    }
}

/// How many of the first `ops` writes of a [`Pattern::Window`] are puts; the others delete the oldest keys, in order.
pub fn window_puts(ops: u64, live: u64) -> u64 {
    if ops <= live { ops } else { live + (ops - live).div_ceil(2) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_workload_writes_what_was_asked_for() {
        for &workload in Workload::value_variants() {
            for passes in [1, 2, 5] {
                let phases = workload.phases(1000, passes);
                assert_eq!(phases.iter().map(|phase| phase.ops).sum::<u64>(), 1000 * passes, "{workload:?}");
                assert!(phases.iter().all(|phase| phase.ops > 0));
                assert!(workload.key_space(1000, passes) >= 1000);
            }
        }
    }

    #[test]
    fn a_window_puts_first_and_then_alternates() {
        assert_eq!([0, 5, 10, 11, 12, 13].map(|ops| window_puts(ops, 10)), [0, 5, 10, 11, 11, 12]);
        assert_eq!(Workload::TimeOrdered.key_space(10, 3), 20);
    }

    #[test]
    fn values_grow_within_their_bounds() {
        let grown = |op| Workload::GrowingValues.value_bytes(100, op, 1000);
        assert_eq!((grown(0), grown(999), Workload::GrowingValues.value_bounds(100)), (25, 400, (25, 400)));
        assert!((1..1000).all(|op| grown(op - 1) <= grown(op)));
        assert_eq!(Workload::Uniform.value_bounds(100), (100, 100));
        assert_eq!(Workload::GrowingValues.value_bytes(100, 0, 0), 25);
    }
}
