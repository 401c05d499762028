//! Tables: what each level cost beside the formula, one line a run, and a run beside its simulation.

use std::fmt;

use siltstone::internals::compaction::LEVELS;

use super::outcome::{Origin, Outcome};

/// One outcome, level by level; `Display` prints it.
pub struct Levels<'o>(pub &'o Outcome);

/// One line an outcome; `Display` prints it.
pub struct Summary<'o>(pub &'o [Outcome]);

/// What is meant by the columns.
pub const LEGEND: &str = "\
WA: bytes written / user bytes, of the log and each level (flushes write into level 0); form.: 3 + (f + 1)(L - 1) with f = 0.6 T, level by level: 1 for the log, the flush and the first merge, f + 1 for each deeper level.
SA: bytes of tables / live user bytes at rest; peak: all files, logs and the outputs of running jobs included, at the worst moment after half of the live data was there; form.: 1 + 1 / (T - 1).
RA: tables whose filter is asked and blocks searched, a get of a present key and of an absent one, memtables left out; form.: sorted runs.
tombstones: how many compactions removed, and how many writes after their own (mean, oldest); left: how many there are still.
stall: how long writers were held back. Of a simulation kops/s and s are the simulator's own; it knows no stalls.";

fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

/// A count in at most six characters.
fn short(count: u64) -> String {
    let units = [(1_000_000_000_000, "T"), (1_000_000_000, "G"), (1_000_000, "M"), (10_000, "k")];
    match units.iter().find(|(unit, _)| count >= *unit) {
        Some((10_000, name)) => format!("{:.0}{name}", count as f64 / 1e3),
        Some((unit, name)) => format!("{:.1}{name}", count as f64 / *unit as f64),
        None => count.to_string(),
    }
}

fn title(outcome: &Outcome) -> String {
    let Outcome { workload, strategy, scale, .. } = outcome;
    let origin = match outcome.origin {
        Origin::Measured => "measured",
        Origin::Simulated => "simulated",
    };
    format!(
        "{} x {strategy}, {origin}: {} keys of {} B, values of {} B, {} passes, memtables of {} KiB, {} threads, seed {}{}",
        workload.name(),
        scale.keys,
        scale.key_bytes,
        scale.value_bytes,
        scale.passes,
        scale.memtable_kib,
        scale.background_threads,
        scale.seed,
        if scale.paced { ", paced" } else { "" }
    )
}

impl fmt::Display for Levels<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let outcome = self.0;
        writeln!(f, "{}", title(outcome))?;
        writeln!(
            f,
            "{:<6}{:>8}{:>11}{:>8}{:>8}{:>11}{:>11}{:>11}{:>9}{:>9}{:>18}{:>8}{:>15}{:>15}",
            "level",
            "tables",
            "MiB",
            "WA",
            "form.",
            "write MiB",
            "read MiB",
            "moved MiB",
            "dropped",
            "tombs.",
            "age mean/max",
            "left",
            "RA present",
            "RA absent"
        )?;
        let used = |level: &usize| {
            let figures = &outcome.levels[*level];
            figures.tables > 0 || figures.written_bytes > 0 || figures.moved_bytes > 0
        };
        for number in (0..LEVELS).filter(used) {
            self.line(f, number)?;
        }
        let end = outcome.end();
        let (present, absent) = outcome.touched();
        writeln!(
            f,
            "WA {:.2} with the log (formula {:.2}); SA {:.2}, peak {:.2} (formula {:.2}); RA {:.2} tables and {:.2} blocks, absent {:.2} and {:.3} (formula {:.1} runs)",
            outcome.write_amplification(),
            outcome.predicted.write_amplification,
            outcome.space_amplification(),
            outcome.peak_space_amplification,
            outcome.predicted.space_amplification,
            present.tables,
            present.blocks,
            absent.tables,
            absent.blocks,
            outcome.predicted.runs
        )?;
        write!(
            f,
            "{} writes of {:.1} MiB in {:.1} s and {:.1} s to idle, stalled {:.2} s; {:.1} MiB live",
            end.ops,
            mib(end.user_bytes),
            outcome.seconds,
            outcome.idle_seconds,
            end.stall_seconds,
            mib(end.live_bytes)
        )?;
        match outcome.picker_steps {
            Some(steps) => writeln!(f, "; the picker looked at {steps} tables"),
            None => writeln!(f),
        }?;
        self.growth(f)
    }
}

impl Levels<'_> {
    fn line(&self, f: &mut fmt::Formatter<'_>, number: usize) -> fmt::Result {
        let (outcome, level) = (self.0, &self.0.levels[number]);
        writeln!(
            f,
            "{number:<6}{:>8}{:>11.1}{:>8.2}{:>8.2}{:>11.1}{:>11.1}{:>11.1}{:>9}{:>9}{:>18}{:>8}{:>15}{:>15}",
            level.tables,
            mib(level.file_bytes),
            outcome.level_write_amplification(number),
            outcome.predicted.level_write_amplification[number],
            mib(level.written_bytes),
            mib(level.read_bytes),
            mib(level.moved_bytes),
            short(level.dropped_shadowed),
            short(level.tombstones_gone),
            format!("{}/{}", short(level.tombstone_age_mean as u64), short(level.tombstone_age_max)),
            short(level.tombstones),
            format!("{:.2}/{:.2}", level.present.tables, level.present.blocks),
            format!("{:.2}/{:.3}", level.absent.tables, level.absent.blocks),
        )
    }

    /// A handful of moments, the last one among them.
    fn growth(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const LINES: usize = 10;
        let series = &self.0.series;
        if series.len() < 2 {
            return Ok(());
        }
        writeln!(
            f,
            "{:>10}{:>10}{:>12}{:>12}{:>8}{:>8}  level MiB",
            "s", "writes", "user MiB", "live MiB", "WA", "SA"
        )?;
        let step = series.len().div_ceil(LINES);
        for at in (series.len() - 1) % step..series.len() {
            if at % step != (series.len() - 1) % step {
                continue;
            }
            let moment = &series[at];
            let written: u64 = moment.written_bytes.iter().sum::<u64>() + moment.log_bytes;
            let held: u64 = moment.level_bytes.iter().sum();
            let levels: Vec<_> = moment.level_bytes.iter().map(|bytes| format!("{:.0}", mib(*bytes))).collect();
            writeln!(
                f,
                "{:>10}{:>10}{:>12.1}{:>12.1}{:>8.2}{:>8.2}  {}",
                moment.seconds.map_or("-".to_owned(), |seconds| format!("{seconds:.1}")),
                short(moment.ops),
                mib(moment.user_bytes),
                mib(moment.live_bytes),
                super::outcome::ratio(written, moment.user_bytes),
                super::outcome::ratio(held, moment.live_bytes),
                levels.join(" ")
            )?;
        }
        Ok(())
    }
}

impl fmt::Display for Summary<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self.0.iter().map(|outcome| outcome.strategy.len()).max().unwrap_or(0).max("strategy".len());
        writeln!(
            f,
            "{:<16}{:<width$}{:>11}{:>8}{:>8}{:>8}{:>8}{:>8}{:>13}{:>13}{:>18}{:>9}{:>9}{:>9}",
            "workload",
            "strategy",
            "",
            "WA",
            "form.",
            "SA",
            "peak",
            "form.",
            "RA present",
            "RA absent",
            "tombstone age",
            "kops/s",
            "idle s",
            "stall s"
        )?;
        for outcome in self.0 {
            let (present, absent) = outcome.touched();
            let (gone, mean, max) = outcome.tombstone_ages();
            let end = outcome.end();
            writeln!(
                f,
                "{:<16}{:<width$}{:>11}{:>8.2}{:>8.2}{:>8.2}{:>8.2}{:>8.2}{:>13}{:>13}{:>18}{:>9.1}{:>9.2}{:>9.2}",
                outcome.workload.name(),
                outcome.strategy,
                match outcome.origin {
                    Origin::Measured => "measured",
                    Origin::Simulated => "simulated",
                },
                outcome.write_amplification(),
                outcome.predicted.write_amplification,
                outcome.space_amplification(),
                outcome.peak_space_amplification,
                outcome.predicted.space_amplification,
                format!("{:.2}/{:.2}", present.tables, present.blocks),
                format!("{:.2}/{:.3}", absent.tables, absent.blocks),
                if gone > 0 { format!("{}/{}", short(mean as u64), short(max)) } else { "-".to_owned() },
                end.ops as f64 / 1e3 / outcome.seconds.max(1e-9),
                outcome.idle_seconds,
                end.stall_seconds,
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::outcome::tests::outcome;
    use super::*;

    #[test]
    fn every_level_stands_beside_the_formula() {
        let text = Levels(&outcome()).to_string();
        let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
        let of =
            |level: &str| lines.iter().find(|line| line.first() == Some(&level)).unwrap_or_else(|| panic!("{text}"));
        assert_eq!(of("0")[3..5], ["1.10", "1.00"]);
        assert_eq!((of("6")[3], of("6")[10]), ("2.90", "10/25"));
        assert!(!lines.iter().any(|line| line.first() == Some(&"3")), "levels that were never used: {text}");
        assert!(text.contains("WA 5.20 with the log") && text.contains("peak 3.00"), "{text}");
    }

    #[test]
    fn measured_and_simulated_stand_side_by_side() {
        let simulated = Outcome { origin: Origin::Simulated, ..outcome() };
        let text = Summary(&[outcome(), simulated]).to_string();
        let lines: Vec<_> = text.lines().collect();
        assert!(lines.iter().all(|line| line.len() == lines[0].len()), "{text}");
        assert!(
            lines[1].contains(" measured") && lines[2].contains("simulated") && lines[1].contains("9/25"),
            "{text}"
        );
        assert!(Summary(&[]).to_string().starts_with("workload"));
    }

    #[test]
    fn counts_are_short() {
        let counts = [0, 9_999, 10_000, 999_999, 1_000_000, 94_700_000_000, 1_200_000_000_000];
        assert_eq!(counts.map(short), ["0", "9999", "10k", "1000k", "1.0M", "94.7G", "1.2T"]);
    }
}
