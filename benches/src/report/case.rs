//! [`Profile`], [`Case`] and [`Series`]: measurements, by what can be compared.

use std::collections::{BTreeMap, BTreeSet};

use super::figure::Figure;
use super::summary::Summary;
use crate::engines::EngineKind;
use crate::session::Measurement;
use crate::settings::{Durability, Settings};
use crate::step::Step;
use crate::workloads::Workload;

/// What holds for measurements that stand in one table: the machine, the data, the memory.
#[derive(Clone, Debug)]
pub struct Profile {
    /// What it was measured on.
    pub machine: String,
    /// Those of its first case; others differ in threads, durability and lengths of workloads only.
    pub settings: Settings,
    /// In the order they first came.
    pub cases: Vec<Case>,
}

/// One step of a session: what all engines did alike.
#[derive(Clone, Debug)]
pub struct Case {
    /// Its name, unique in its profile.
    pub name: String,
    /// What was done.
    pub step: Step,
    /// Threads included.
    pub settings: Settings,
    /// What each engine measured that tried.
    pub series: BTreeMap<EngineKind, Series>,
    pub(super) place: Place,
    /// The session it was first met in.
    pub(super) session: String,
}

/// What came before a step on the same store, and the step. Sessions that begin alike measure the same there, whatever
/// follows.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Place {
    /// The last one is that of the case.
    pub(super) steps: Vec<Step>,
    /// Whether the background came to rest after it: not if a step follows that is to begin before.
    pub(super) settles: bool,
    /// Those of the session, without what some of its steps override: a record does not tell the session's value then.
    pub(super) settings: Settings,
}

/// What one engine measured of one case.
#[derive(Clone, Debug, Default)]
pub struct Series {
    /// One a repetition that came so far, in the order they came.
    pub measurements: Vec<Measurement>,
    /// How many there should be: of each session as many as the engine with the most has tried.
    pub expected: usize,
}

impl Series {
    /// The median of a figure; `None` if no measurement has it.
    pub fn summary(&self, figure: Figure) -> Option<Summary> {
        Summary::of(self.measurements.iter().filter_map(|measurement| figure.of(measurement)))
    }

    /// Whether repetitions are missing.
    pub fn is_incomplete(&self) -> bool {
        self.measurements.len() < self.expected
    }

    /// The measurement whose rate is the median, or next above it: the one whose course over time is shown.
    pub fn typical(&self) -> Option<&Measurement> {
        let mut sorted: Vec<&Measurement> = self.measurements.iter().collect();
        sorted.sort_by(|a, b| Figure::Rate.of(a).unwrap_or(0.0).total_cmp(&Figure::Rate.of(b).unwrap_or(0.0)));
        sorted.get(sorted.len() / 2).copied()
    }
}

/// Whether an engine is compared with ours; the floor, a map in memory, is not.
pub fn is_peer(engine: EngineKind) -> bool {
    !matches!(engine, EngineKind::Siltstone | EngineKind::Floor)
}

/// Whether an engine is an LSM tree.
pub fn is_lsm(engine: EngineKind) -> bool {
    use EngineKind::*;
    match engine {
        Siltstone | RocksDb | Fjall | SurrealKv => true,
        Redb | Lmdb | Floor => false,
    }
}

impl Case {
    /// The median of an engine's figure.
    pub fn summary(&self, engine: EngineKind, figure: Figure) -> Option<Summary> {
        self.series.get(&engine)?.summary(figure)
    }

    /// The peer with the best median, of those that `is_asked` for.
    pub fn best(&self, figure: Figure, is_asked: impl Fn(EngineKind) -> bool) -> Option<(EngineKind, Summary)> {
        let peers = self.series.keys().copied().filter(|&engine| is_peer(engine) && is_asked(engine));
        let summaries = peers.filter_map(|engine| Some((engine, self.summary(engine, figure)?)));
        let sign = if figure.is_more_better() { 1.0 } else { -1.0 };
        summaries.max_by(|a, b| (sign * a.1.median).total_cmp(&(sign * b.1.median)))
    }

    /// What its speed is read from: the rate, that of each kind of operation where several run beside each other, or the
    /// time where there is but one operation.
    pub fn speeds(&self) -> Vec<Figure> {
        match self.step.workload {
            Workload::Flush | Workload::OpenAfterKill => vec![Figure::Seconds],
            Workload::ReadWhileWriting => self.step.workload.kinds().iter().map(|&kind| Figure::RateOf(kind)).collect(),
            _ => vec![Figure::Rate],
        }
    }

    /// The steps before it on the same store.
    fn steps_before(&self) -> &[Step] {
        self.place.steps.split_last().map_or(&[], |(_, before)| before)
    }

    /// What wrote last before it.
    pub(super) fn writer_before(&self) -> Option<Workload> {
        self.steps_before().iter().map(|step| step.workload).rev().find(|workload| workload.writes())
    }

    fn label(&self) -> String {
        let mut label = self.step.workload.name().to_owned();
        if matches!(self.step.workload, Workload::SeekRandom | Workload::SeekReverse) {
            label += &format!(" + {}", self.settings.seek_entries);
        }
        if self.settings.threads > 1 {
            label += &format!(", {} threads", self.settings.threads);
        }
        match self.step.workload.settings(&self.settings).durability {
            Durability::Buffered => {}
            Durability::NoLog => label += ", no log",
            Durability::Synced => label += ", synced",
        }
        label
    }
}

impl Profile {
    /// The engines that tried something, in the order of their kinds: ours first, the floor last.
    pub fn engines(&self) -> Vec<EngineKind> {
        let all: BTreeSet<EngineKind> = self.cases.iter().flat_map(|case| case.series.keys().copied()).collect();
        all.into_iter().collect()
    }

    pub(super) fn holds(&self, machine: &str, settings: &Settings) -> bool {
        self.machine == machine && shared(&self.settings) == shared(settings)
    }

    /// The case at `place` with these settings; a new one is named after `session` too, if need be.
    pub(super) fn case(&mut self, place: &Place, settings: &Settings, session: &str) -> Option<&mut Case> {
        let found = self.cases.iter().position(|case| case.place == *place && case.settings == *settings);
        let at = match found {
            Some(at) => at,
            None => {
                let (name, series, session) = (String::new(), BTreeMap::new(), session.to_owned());
                let (step, settings) = (*place.steps.last()?, settings.clone());
                self.cases.push(Case { name, step, settings, series, place: place.clone(), session });
                self.cases.len() - 1
            }
        };
        self.cases.get_mut(at)
    }

    /// Names the cases after what was done; where that is not unique, also after what wrote last before, after their
    /// session, or with a number.
    pub(super) fn name_cases(&mut self) {
        self.cases.iter_mut().for_each(|case| case.name = case.label());
        self.rename_doubled(|case, _| match case.steps_before().iter().rev().find(|step| step.workload.writes()) {
            Some(writer) if !case.step.workload.fills() => format!("{} after {writer}", case.name),
            _ => case.name.clone(),
        });
        self.rename_doubled(|case, _| match case.session.split(", ").next() {
            None | Some("") => case.name.clone(),
            Some(session) => format!("{} ({session})", case.name),
        });
        self.rename_doubled(|case, number| format!("{}, #{number}", case.name));
    }

    /// `rename` gets a case whose name others have too, and its number among them, from 1.
    fn rename_doubled(&mut self, rename: impl Fn(&Case, usize) -> String) {
        let names: Vec<String> = self.cases.iter().map(|case| case.name.clone()).collect();
        for (at, case) in self.cases.iter_mut().enumerate() {
            if names.iter().filter(|&name| *name == names[at]).count() > 1 {
                let number = names[..=at].iter().filter(|&name| *name == names[at]).count();
                case.name = rename(case, number);
            }
        }
    }
}

/// The settings of which others make another profile.
fn shared(settings: &Settings) -> Settings {
    Settings {
        keys: settings.keys,
        key_bytes: settings.key_bytes,
        value_bytes: settings.value_bytes,
        seed: settings.seed,
        memory_mib: settings.memory_mib,
        memory_limit_mib: settings.memory_limit_mib,
        compression: settings.compression,
        block_bytes: settings.block_bytes,
        ..Settings::default()
    }
}
