//! The goals of the performance area, as data, and how measurements stand to them.

use super::case::{Case, Profile, is_lsm, is_peer};
use super::figure::{Figure, Quantile};
use super::formula::{Formula, Operand, Value, Verdict};
use super::summary::Summary;
use crate::engines::EngineKind;
use crate::measure::Kind;
use crate::settings::Compression;
use crate::workloads::Workload;

/// One goal: which figure of which workload has to stand how to those of others.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Goal {
    /// The workload that is measured.
    pub workload: Workload,
    /// With how many threads.
    pub threads: u32,
    /// Of workloads that seek, how many entries each seek reads.
    pub entries: Option<usize>,
    /// What wrote last before it, if that matters.
    pub after: Option<Workload>,
    /// What is compared.
    pub figure: Figure,
    /// A [`Formula`].
    pub formula: &'static str,
}

/// How one case stands to one goal.
#[derive(Clone, Debug)]
pub struct Outcome<'p> {
    /// What was to be reached.
    pub goal: &'static Goal,
    /// Where it was measured.
    pub case: &'p Case,
    /// Whether it is reached, going by the engines that were measured.
    pub verdict: Verdict,
    /// Engines that count among the best where the formula asks for those, and were not measured.
    pub absent: Vec<EngineKind>,
}

const fn goal(workload: Workload, figure: Figure, formula: &'static str) -> Goal {
    Goal { workload, threads: 1, entries: None, after: None, figure, formula }
}

const fn threads(threads: u32, goal: Goal) -> Goal {
    Goal { threads, ..goal }
}

const fn entries(entries: usize, goal: Goal) -> Goal {
    Goal { entries: Some(entries), ..goal }
}

const fn after(workload: Workload, goal: Goal) -> Goal {
    Goal { after: Some(workload), ..goal }
}

use Figure::{Cpu, DeviceWriteAmplification, Latency, Rate, RateOf, RateToIdle, Seconds, SpaceAmplification};
use Workload::*;

/// All of them.
pub const GOALS: &[Goal] = &[
    goal(FillRandom, Rate, ">= 3x rocksdb and >= 1.7x best"),
    threads(2, goal(FillRandom, Rate, ">= 2x best")),
    goal(FillSeq, Rate, ">= 1.5x best"),
    goal(FillBatch, Rate, ">= 2x best"),
    goal(Overwrite, RateToIdle, ">= 1.4x best"),
    goal(DeleteRandom, Rate, ">= 2x best"),
    goal(ReadRandom, Rate, ">= 1.3x lmdb and >= 3x lsms"),
    threads(2, goal(ReadRandom, Rate, ">= 1.3x lmdb and >= 3x lsms")),
    goal(ReadUncompacted, Rate, ">= 0.9x lmdb and >= 3x lsms"),
    goal(ReadZipf, Rate, ">= 1.3x lmdb"),
    goal(ReadMissing, Rate, ">= 1.3x fjall"),
    entries(10, goal(SeekRandom, Rate, ">= 1.2x lmdb and >= 4x lsms")),
    entries(10, goal(SeekReverse, Rate, ">= 1.2x lmdb and >= 4x lsms")),
    entries(100, goal(SeekRandom, Rate, ">= 1.3x lmdb")),
    goal(Scan, Rate, ">= 1.3x lmdb"),
    goal(ScanReverse, Rate, ">= 1.3x lmdb"),
    goal(ReadWhileWriting, RateOf(Kind::Gets), ">= 1x lmdb"),
    goal(ReadWhileWriting, RateOf(Kind::Puts), ">= 2x best"),
    goal(YcsbA, Rate, ">= 2x best"),
    goal(YcsbB, Rate, ">= 1.3x best"),
    goal(YcsbC, Rate, ">= 1.2x best"),
    goal(YcsbD, Rate, ">= 1.3x best"),
    goal(YcsbE, Rate, ">= 1.2x best"),
    goal(YcsbF, Rate, ">= 2x best"),
    goal(FillSync, Rate, ">= 1.2x best"),
    threads(8, goal(FillSync, Rate, ">= 1.2x best")),
    threads(16, goal(FillSync, Rate, ">= 1.2x best")),
    goal(BulkLoad, Rate, ">= 1.2x best"),
    goal(OpenAfterKill, Seconds, "<= 0.2x rocksdb"),
    goal(FillRandom, Cpu, "<= lmdb"),
    goal(ReadRandom, Cpu, "<= lmdb"),
    goal(FillRandom, DeviceWriteAmplification, "<= rocksdb"),
    goal(Overwrite, DeviceWriteAmplification, "<= rocksdb"),
    after(Overwrite, goal(Flush, SpaceAmplification, "<= 1.1")),
    after(DeleteRandom, goal(Flush, SpaceAmplification, "<= 1.3")),
    goal(Overwrite, Latency(Quantile::P999), "<= 10"),
    goal(Overwrite, Latency(Quantile::Max), "<= 5000"),
];

/// How the cases of a profile stand to the goals; a goal without a case is left out. Those against engines without
/// compression hold where nothing is compressed.
pub fn judge(profile: &Profile) -> Vec<Outcome<'_>> {
    let is_compressed = profile.settings.compression != Compression::None;
    let outcomes = GOALS.iter().flat_map(|goal| {
        let cases = profile.cases.iter().filter(|case| goal.is_about(case));
        cases.map(|case| outcome(goal, case, is_compressed))
    });
    outcomes.filter(|outcome| outcome.verdict != Verdict::NotMeant).collect()
}

impl Goal {
    fn is_about(&self, case: &Case) -> bool {
        case.step.workload == self.workload
            && case.settings.threads == self.threads
            && self.entries.is_none_or(|entries| case.settings.seek_entries == entries)
            && self.after.is_none_or(|workload| case.writer_before() == Some(workload))
            // Where nobody waited for the background, there is no figure once idle.
            && (case.place.settles || !self.figure.is_once_idle())
    }

    /// Its formula, parsed.
    pub fn formula(&self) -> Formula {
        self.formula.parse().unwrap_or_else(|error| unreachable!("a test parses all of them: {error}"))
    }
}

fn outcome<'p>(goal: &'static Goal, case: &'p Case, is_compressed: bool) -> Outcome<'p> {
    let ours = case.summary(EngineKind::Siltstone, goal.figure);
    let value = |operand| value(operand, goal.figure, case, is_compressed);
    let formula = goal.formula();
    let verdict = match ours {
        Some(ours) => formula.judge(ours.median, value),
        None if formula.operands().all(|operand| value(operand) == Value::NotMeant) => Verdict::NotMeant,
        None => Verdict::Unknown(vec![EngineKind::Siltstone.name().to_owned()]),
    };
    let asked = EngineKind::COMPARED.into_iter().filter(|&engine| {
        let is_asked = formula.operands().any(|operand| is_among(engine, operand));
        is_asked && (engine.compresses() || !is_compressed)
    });
    let absent = asked.filter(|&engine| case.summary(engine, goal.figure).is_none()).collect();
    Outcome { goal, case, verdict, absent }
}

/// Whether an operand takes the best of several engines, and this is one of them.
fn is_among(engine: EngineKind, operand: Operand) -> bool {
    match operand {
        Operand::Best => is_peer(engine),
        Operand::Lsms => is_peer(engine) && is_lsm(engine),
        Operand::Number | Operand::Engine(_) => false,
    }
}

/// What an operand stands for.
fn value(operand: Operand, figure: Figure, case: &Case, is_compressed: bool) -> Value {
    let known = |summary: Option<Summary>| summary.map_or(Value::Missing, |summary| Value::Known(summary.median));
    match operand {
        Operand::Number => Value::Known(1.0),
        Operand::Engine(engine) if is_compressed && !engine.compresses() => Value::NotMeant,
        Operand::Engine(engine) => known(case.summary(engine, figure)),
        Operand::Best | Operand::Lsms => {
            known(case.best(figure, |engine| is_among(engine, operand)).map(|(_, summary)| summary))
        }
    }
}
