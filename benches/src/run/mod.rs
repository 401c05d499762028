//! A run: sessions of all engines, in turn, each in a process of its own.

mod child;
mod interrupt;
mod memory_limit;
mod record;
mod schedule;

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::cli;
use crate::data::Dataset;
use crate::engines::EngineKind;
use crate::error::{Error, Result};
use crate::machine;
use crate::session::Line;
use crate::settings::Settings;
use crate::step::Step;
use crate::workloads::{Workload, check_order};

use child::{Deadline, Ending, Said, SessionProcess};
use memory_limit::MemoryLimit;
use schedule::Schedule;

pub use interrupt::Interrupt;
pub use record::{Outcome, Record, Records};

/// Steps that are done one after the other, on each of some engines.
#[derive(Clone, Debug, PartialEq)]
pub struct Session {
    /// The suite that it belongs to; empty for one named by hand.
    pub suite: String,
    /// Its name within the suite.
    pub name: String,
    /// What is done, in order.
    pub steps: Vec<Step>,
    /// Given to all engines alike.
    pub settings: Settings,
    /// In this order, in the first repetition.
    pub engines: Vec<EngineKind>,
}

/// What to run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// In this order, in each repetition.
    pub sessions: Vec<Session>,
    /// How often everything is done.
    pub repeat: u32,
    /// Where the stores' directories are made, and removed again.
    pub dir: PathBuf,
    /// A file that each record is appended to as a line of JSON as soon as it is there.
    pub json: Option<PathBuf>,
    /// A session that takes longer is ended, and that is its result.
    pub session_limit: Duration,
}

/// What came of a run.
#[derive(Debug)]
pub struct Results {
    /// In the order they came.
    pub records: Vec<Record>,
    /// Whether it was interrupted before all sessions were done.
    pub interrupted: bool,
    /// Whether every record is in the file.
    pub written: Result<()>,
}

impl Session {
    /// Checks that it can run in this build.
    ///
    /// # Errors
    /// [`Error::Settings`] for an order of steps that cannot run, an engine that this build does not have, and sizes
    /// out of bounds.
    pub fn check(&self) -> Result<()> {
        check_order(&self.steps, &self.settings)?;
        self.engines.iter().try_for_each(|engine| engine.check())?;
        let settings = &self.settings;
        Dataset::new(settings.keys, settings.key_bytes, settings.value_bytes, settings.seed).map(drop)
    }

    /// Whether it is a crash and an opening, which take two processes.
    fn is_crash(&self) -> bool {
        self.steps.iter().any(|step| step.workload == Workload::OpenAfterKill)
    }

    fn record(&self, engine: EngineKind, repetition: u32, machine: &str, at: usize, outcome: Outcome) -> Record {
        let settings = match &outcome {
            Outcome::Measurement(_) => self.steps.get(at).map(|step| step.settings(&self.settings)),
            _ => None,
        };
        let notes = match &outcome {
            Outcome::Details(_) => engine.notes().unwrap_or_default().to_owned(),
            _ => String::new(),
        };
        Record {
            suite: self.suite.clone(),
            session: self.name.clone(),
            engine,
            engine_version: engine.version(),
            repetition,
            steps: self.steps.clone(),
            at,
            machine: machine.to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            rustc: machine::rustc().to_owned(),
            notes,
            settings: settings.unwrap_or_else(|| self.settings.clone()),
            outcome,
        }
    }
}

/// Runs the plan: the engines take turns session by session, and each repetition begins with another one, so that what
/// changes on the machine meanwhile falls on all alike.
///
/// # Errors
/// [`Error::Settings`] for a session that cannot run, and [`Error::Io`] for a results file that cannot be opened, before
/// any session does. What fails later is a record.
pub fn run(plan: &Plan, interrupt: &Interrupt) -> Result<Results> {
    if plan.sessions.is_empty() {
        return Err(Error::Settings("no session is named".to_owned()));
    }
    plan.sessions.iter().try_for_each(Session::check)?;
    let machine = machine::describe_with(&plan.dir);
    let mut records = Records::new(plan.json.as_deref())?;
    let mut schedule = Schedule::new(&plan.sessions, plan.repeat);
    while let Some(turn) = schedule.next() {
        if interrupt.is_set() {
            break;
        }
        let session = &plan.sessions[turn.session];
        eprintln!("{}", schedule.announcement(&turn, session));
        // What the session before left to be written is not this one's.
        rustix::fs::sync();
        let mut at = 0;
        let mut on_outcome = |outcome: Outcome| {
            let measured = matches!(outcome, Outcome::Measurement(_));
            records.push(session.record(turn.engine, turn.repetition, &machine, at, outcome));
            at += usize::from(measured);
        };
        run_session(plan, session, turn.engine, interrupt, &mut on_outcome);
        schedule.done(&turn);
    }
    let interrupted = interrupt.is_set();
    let (records, written) = records.finish();
    Ok(Results { records, interrupted, written })
}

/// Runs one session, and hands on what comes of it.
fn run_session(
    plan: &Plan,
    session: &Session,
    engine: EngineKind,
    interrupt: &Interrupt,
    on_outcome: &mut impl FnMut(Outcome),
) {
    let limit = match session.settings.memory_limit_mib.map(MemoryLimit::new).transpose() {
        Ok(limit) => limit,
        Err(why) => return on_outcome(Outcome::Unavailable(why)),
    };
    let deadline = Deadline::new(plan.session_limit, interrupt);
    match try_session(&plan.dir, session, engine, limit.as_ref(), &deadline, on_outcome) {
        Ok(Ending::Completed | Ending::Interrupted) => {}
        Ok(Ending::Failed(_)) if limit.as_ref().is_some_and(MemoryLimit::was_exceeded) => {
            on_outcome(Outcome::Failure("needed more memory than the limit".to_owned()));
        }
        Ok(Ending::Failed(why)) => on_outcome(Outcome::Failure(why)),
        // A full disk, most likely: the next session may find room.
        Err(error) => on_outcome(Outcome::Failure(error.to_string())),
    }
}

/// Runs the processes of a session in a directory of its own under `parent`, which is removed.
fn try_session(
    parent: &Path,
    session: &Session,
    engine: EngineKind,
    limit: Option<&MemoryLimit>,
    deadline: &Deadline<'_>,
    on_outcome: &mut impl FnMut(Outcome),
) -> Result<Ending> {
    let dir = tempfile::Builder::new().prefix("siltstone-bench").tempdir_in(parent).map_err(Error::io(parent))?;
    let start = |command| SessionProcess::start(command, session, engine, dir.path(), limit);
    if session.is_crash() {
        crash(start, deadline, on_outcome)
    } else {
        Ok(listen(&mut start(cli::SESSION)?, deadline, on_outcome))
    }
}

/// Hands on all that a process says.
fn listen(process: &mut SessionProcess, deadline: &Deadline<'_>, on_outcome: &mut impl FnMut(Outcome)) -> Ending {
    let mut failure = None;
    loop {
        match process.next(deadline) {
            Said::Line(Line::Measured(measurement)) => on_outcome(Outcome::Measurement(measurement)),
            Said::Line(Line::Details(details)) => on_outcome(Outcome::Details(details)),
            Said::Line(Line::Failed(why)) => failure = Some(why),
            Said::Line(Line::Filled) => failure = Some("it said that it was filled, and nobody asked".to_owned()),
            Said::Ended(Ending::Interrupted) => return Ending::Interrupted,
            // What the session said of it is more than how its process ended.
            Said::Ended(ending) => return failure.map_or(ending, Ending::Failed),
        }
    }
}

/// Lets a process fill a store, kills it when it has, and lets another one open what is there.
fn crash(
    start: impl Fn(&'static str) -> Result<SessionProcess>,
    deadline: &Deadline<'_>,
    on_outcome: &mut impl FnMut(Outcome),
) -> Result<Ending> {
    let mut filling = start(cli::FILL_LOG)?;
    match filling.next(deadline) {
        Said::Line(Line::Filled) => filling.kill().map_err(Error::io("the session's process"))?,
        Said::Line(Line::Failed(why)) => return Ok(Ending::Failed(why)),
        Said::Line(line) => return Ok(Ending::Failed(format!("it was to say that it is filled, and said {line:?}"))),
        Said::Ended(Ending::Completed) => return Ok(Ending::Failed("it ended before it was filled".to_owned())),
        Said::Ended(ending) => return Ok(ending),
    }
    Ok(listen(&mut start(cli::REOPEN)?, deadline, on_outcome))
}
