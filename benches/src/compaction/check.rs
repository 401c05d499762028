//! A measured run beside its simulation.

use std::fmt;

use siltstone::internals::compaction::LEVELS;

use super::outcome::Outcome;
use super::workload::Workload;

/// What may lie between a simulation and the run that it simulates.
///
/// The model is of expectations: of draws (a table of n keys has n give or take the root of n), and of entries of one
/// size (a file also has a footer and an index). Both are parts of a percent. What weighs more is that picking is a
/// choice among near equals: a table that is a little shorter goes down sooner, and from there on the two trees compact
/// other tables, alike only on average. One compaction into the deepest level more or less is a share of `1 / number of
/// compactions` of what was written into it; small runs have a few dozen of them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Tolerance {
    /// Of a level's write amplification and bytes, as a share of the larger.
    pub relative: f64,
    /// And besides, of write amplification, of all that was written: what the smallest levels differ by.
    pub write_amplification: f64,
    /// And besides, of a level's bytes, as a share of all levels': a table or two that one of the trees has yet to move.
    pub bytes: f64,
}

impl Tolerance {
    /// For runs of `workload`.
    ///
    /// Where half of the writes are deletes, about half of the tables pass the picker's limit for being dense in
    /// tombstones, which is half of their entries: chance decides which go down at once, and a level above the bottom is
    /// now fuller, now emptier, by a few of its tables.
    pub fn of(workload: Workload) -> Tolerance {
        match workload {
            Workload::DeleteHeavy => Tolerance { relative: 0.25, write_amplification: 0.2, bytes: 0.06 },
            _ => Tolerance { relative: 0.15, write_amplification: 0.1, bytes: 0.03 },
        }
    }
}

/// The two beside each other; `Display` prints them.
#[derive(Clone, Debug)]
pub struct Comparison {
    /// What the engine did.
    pub measured: Outcome,
    /// What the simulator says that it would do.
    pub simulated: Outcome,
}

impl Comparison {
    /// Where the two are farther from each other than `tolerance`; empty if nowhere.
    pub fn differences(&self, tolerance: Tolerance) -> Vec<String> {
        let mut differences = Vec::new();
        let mut compare = |what: String, measured: f64, simulated: f64, besides: f64| {
            let allowed = tolerance.relative * measured.max(simulated) + besides;
            if (measured - simulated).abs() > allowed {
                differences.push(format!("{what}: {measured:.3} measured, {simulated:.3} simulated"));
            }
        };
        let all_bytes: u64 = self.measured.levels.iter().map(|level| level.file_bytes).sum();
        for level in 0..LEVELS {
            let wa = |outcome: &Outcome| outcome.level_write_amplification(level);
            let bytes = |outcome: &Outcome| outcome.levels[level].file_bytes as f64 / all_bytes.max(1) as f64;
            let (measured, simulated) = (&self.measured, &self.simulated);
            compare(format!("WA of level {level}"), wa(measured), wa(simulated), tolerance.write_amplification);
            compare(format!("share of level {level}"), bytes(measured), bytes(simulated), tolerance.bytes);
        }
        let (measured, simulated) = (self.measured.write_amplification(), self.simulated.write_amplification());
        compare("WA".to_owned(), measured, simulated, tolerance.write_amplification);
        differences
    }
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Comparison { measured, simulated } = self;
        writeln!(f, "{} x {}: measured | simulated", measured.workload.name(), measured.strategy)?;
        writeln!(
            f,
            "{:<6}{:>8} |{:>8}{:>11} |{:>11}{:>9} |{:>9}{:>11} |{:>11}{:>16} |{:>16}",
            "level", "WA", "WA", "MiB", "MiB", "tables", "tables", "moved MiB", "moved MiB", "tombs. age", "tombs. age"
        )?;
        let used = |level: &usize| {
            [measured, simulated].iter().any(|outcome| {
                let level = &outcome.levels[*level];
                level.tables > 0 || level.written_bytes > 0 || level.moved_bytes > 0
            })
        };
        let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        for level in (0..LEVELS).filter(used) {
            let (ours, theirs) = (&measured.levels[level], &simulated.levels[level]);
            writeln!(
                f,
                "{level:<6}{:>8.3} |{:>8.3}{:>11.2} |{:>11.2}{:>9} |{:>9}{:>11.2} |{:>11.2}{:>16.0} |{:>16.0}",
                measured.level_write_amplification(level),
                simulated.level_write_amplification(level),
                mib(ours.file_bytes),
                mib(theirs.file_bytes),
                ours.tables,
                theirs.tables,
                mib(ours.moved_bytes),
                mib(theirs.moved_bytes),
                ours.tombstone_age_mean,
                theirs.tombstone_age_mean,
            )?;
        }
        writeln!(
            f,
            "WA {:.3} | {:.3}; SA {:.3} | {:.3}; live MiB {:.2} | {:.2}; RA {:.2} | {:.2} tables",
            measured.write_amplification(),
            simulated.write_amplification(),
            measured.space_amplification(),
            simulated.space_amplification(),
            mib(measured.end().live_bytes),
            mib(simulated.end().live_bytes),
            measured.touched().0.tables,
            simulated.touched().0.tables,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::super::outcome::tests::outcome;
    use super::*;

    #[test]
    fn what_is_farther_than_the_tolerance_is_named() {
        let same = Comparison { measured: outcome(), simulated: outcome() };
        assert_eq!(same.differences(Tolerance::of(Workload::Uniform)), Vec::<String>::new());
        let mut other = outcome();
        other.levels[6].written_bytes = 1900;
        let differences =
            Comparison { measured: outcome(), simulated: other.clone() }.differences(Tolerance::of(Workload::Uniform));
        assert_eq!(differences.len(), 2, "{differences:?}");
        assert!(differences[0].starts_with("WA of level 6: 2.900 measured, 1.900 simulated"), "{differences:?}");
        other = outcome();
        other.levels[6].file_bytes = 300;
        let differences =
            Comparison { measured: outcome(), simulated: other }.differences(Tolerance::of(Workload::Uniform));
        assert_eq!(differences.len(), 1, "{differences:?}");
        assert!(same.to_string().contains("WA 5.200 | 5.200"));
    }
}
