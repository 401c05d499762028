//! [`Findings`]: the records of one or several runs, brought together.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

use super::case::{Place, Profile};
use crate::engines::EngineKind;
use crate::error::{Error, Result};
use crate::run::{Outcome, Record};
use crate::settings::Settings;
use crate::step::Step;

/// Everything that was measured, by what can be compared.
#[derive(Clone, Debug, Default)]
pub struct Findings {
    /// In the order they first came.
    pub profiles: Vec<Profile>,
    /// Sessions that failed or could not run.
    pub failures: Vec<Failure>,
    /// What each engine said of itself after its last session that ended.
    pub details: BTreeMap<EngineKind, String>,
    /// What is not like for like about each engine, as Markdown.
    pub notes: BTreeMap<EngineKind, String>,
    /// The versions of each engine that were measured.
    pub engine_versions: BTreeMap<EngineKind, BTreeSet<String>>,
    /// The compilers that built the benchmarks.
    pub rustc: BTreeSet<String>,
}

/// A session without measurements, or without all of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Engine, session and repetition.
    pub session: String,
    /// What went wrong, or what is missing.
    pub reason: String,
    /// Whether it could not be tried on this machine.
    pub is_unavailable: bool,
}

/// Reads the records of a results file, and says which lines are none.
///
/// # Errors
/// [`Error::Io`] if it cannot be read; [`Error::Settings`] if no line is a record, with what is wrong with the first.
pub fn read(path: &Path) -> Result<(Vec<Record>, Vec<Failure>)> {
    let mut file = BufReader::new(File::open(path).map_err(Error::io(path))?);
    let (mut records, mut failures, mut line) = (Vec::new(), Vec::new(), Vec::new());
    for number in 1.. {
        line.clear();
        if file.read_until(b'\n', &mut line).map_err(Error::io(path))? == 0 {
            break;
        }
        match serde_json::from_slice(&line) {
            Ok(record) => records.push(record),
            Err(_) if line.trim_ascii().is_empty() => {}
            Err(error) => {
                let session = format!("{}, line {number}", path.display());
                // A run that was killed, or a disk that was full, leaves half a line.
                failures.push(Failure { session, reason: format!("no record: {error}"), is_unavailable: false });
            }
        }
    }
    match (records.is_empty(), failures.first()) {
        (true, Some(failure)) => Err(Error::Settings(failure.to_string())),
        (true, None) => Err(Error::Settings(format!("{} has no records", path.display()))),
        (false, _) => Ok((records, failures)),
    }
}

impl Findings {
    /// Brings the records of one or several runs together.
    pub fn new(records: &[Record]) -> Self {
        let mut findings = Findings::default();
        let mut attempts = Vec::new();
        for record in records {
            findings.engine_versions.entry(record.engine).or_default().insert(record.engine_version.clone());
            findings.rustc.insert(record.rustc.clone());
            if !record.notes.is_empty() {
                findings.notes.insert(record.engine, record.notes.clone());
            }
            let profile = findings.add(record);
            count_attempt(&mut attempts, profile, record);
        }
        for tried in &attempts {
            tried.plan(&mut findings.profiles[tried.profile]);
        }
        findings.profiles.iter_mut().for_each(Profile::name_cases);
        findings
    }

    /// Takes a record in; the number of its profile.
    fn add(&mut self, record: &Record) -> usize {
        let at = self.profile(record);
        match &record.outcome {
            Outcome::Measurement(measurement) => {
                let place = Session::of(record).place(record.at);
                if let Some(case) = self.profiles[at].case(&place, &record.settings, &record.session) {
                    case.series.entry(record.engine).or_default().measurements.push((**measurement).clone());
                }
            }
            Outcome::Details(details) => drop(self.details.insert(record.engine, details.clone())),
            Outcome::Failure(reason) => self.failures.push(Failure::new(record, reason, false)),
            Outcome::Unavailable(reason) => self.failures.push(Failure::new(record, reason, true)),
        }
        at
    }

    fn profile(&mut self, record: &Record) -> usize {
        let found = self.profiles.iter().position(|profile| profile.holds(&record.machine, &record.settings));
        found.unwrap_or_else(|| {
            let (machine, settings) = (record.machine.clone(), record.settings.clone());
            self.profiles.push(Profile { machine, settings, cases: Vec::new() });
            self.profiles.len() - 1
        })
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.session, self.reason)
    }
}

impl Failure {
    fn new(record: &Record, reason: &str, is_unavailable: bool) -> Self {
        let steps: Vec<String> = record.steps.iter().map(Step::to_string).collect();
        let names = [record.suite.as_str(), record.session.as_str()];
        let session = names.into_iter().filter(|name| !name.is_empty()).collect::<Vec<_>>().join("/");
        let session = if session.is_empty() { steps.join(",") } else { session };
        let session = format!("{}, {session}, repetition {}", record.engine.name(), record.repetition);
        Failure { session, reason: reason.to_owned(), is_unavailable }
    }
}

/// What all records of a session have alike.
#[derive(Clone, Debug, PartialEq)]
struct Session {
    suite: String,
    name: String,
    steps: Vec<Step>,
    settings: Settings,
}

impl Session {
    /// The session of a record. One that does not tell its steps has one: what was measured.
    fn of(record: &Record) -> Self {
        let steps = match &record.outcome {
            Outcome::Measurement(measurement) if record.at >= record.steps.len() => vec![measurement.workload.into()],
            _ => record.steps.clone(),
        };
        let mut settings = record.settings.clone();
        if steps.iter().any(|step| step.threads.is_some()) {
            settings.threads = Settings::default().threads;
        }
        if steps.iter().any(|step| step.entries.is_some()) {
            settings.seek_entries = Settings::default().seek_entries;
        }
        Session { suite: record.suite.clone(), name: record.session.clone(), steps, settings }
    }

    /// The place of step `at`; of the last one if there are fewer.
    fn place(&self, at: usize) -> Place {
        let next = (at + 1).min(self.steps.len());
        let settles = !self.steps.get(next).is_some_and(|step| step.workload.begins_unsettled());
        Place { steps: self.steps[..next].to_vec(), settles, settings: self.settings.clone() }
    }
}

/// How often each engine tried a session.
#[derive(Debug)]
struct Attempts {
    profile: usize,
    session: Session,
    by_engine: BTreeMap<EngineKind, usize>,
}

/// Counts the attempt that `record` begins, if it begins one: it measures the first step, or fails before.
fn count_attempt(attempts: &mut Vec<Attempts>, profile: usize, record: &Record) {
    let begins = match &record.outcome {
        Outcome::Measurement(_) => record.at == 0 || record.at >= record.steps.len(),
        Outcome::Failure(_) => record.at == 0,
        Outcome::Details(_) | Outcome::Unavailable(_) => false,
    };
    if !begins {
        return;
    }
    let session = Session::of(record);
    let found = attempts.iter().position(|tried| tried.profile == profile && tried.session == session);
    let at = found.unwrap_or_else(|| {
        attempts.push(Attempts { profile, session, by_engine: BTreeMap::new() });
        attempts.len() - 1
    });
    *attempts[at].by_engine.entry(record.engine).or_default() += 1;
}

impl Attempts {
    /// Gives the profile the cases that nobody came to, and tells each series how many measurements it should have;
    /// engines that tried and came to none get an empty one.
    fn plan(&self, profile: &mut Profile) {
        let most = self.by_engine.values().copied().max().unwrap_or(0);
        for (at, step) in self.session.steps.iter().enumerate() {
            let place = self.session.place(at);
            if !profile.cases.iter().any(|case| case.place == place) {
                profile.case(&place, &step.settings(&self.session.settings), &self.session.name);
            }
            for case in profile.cases.iter_mut().filter(|case| case.place == place) {
                for &engine in self.by_engine.keys() {
                    case.series.entry(engine).or_default().expected += most;
                }
            }
        }
    }
}
