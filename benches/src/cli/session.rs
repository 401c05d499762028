//! The hidden commands: what the process of a session does.

use std::io::Write;
use std::path::PathBuf;

use clap::Args;

use crate::crash;
use crate::engines::{Engine, EngineKind, EngineTask};
use crate::error::{Error, Result};
use crate::session::{self, Line};
use crate::settings::Settings;
use crate::step::Step;

/// Runs the steps of a session.
pub(crate) const SESSION: &str = "session";
/// Fills a store and waits to be killed.
pub(crate) const FILL_LOG: &str = "fill-log";
/// Opens the store of a killed process.
pub(crate) const REOPEN: &str = "reopen";

#[derive(Debug, Args)]
pub(super) struct SessionArgs {
    #[arg(value_delimiter = ',', required = true)]
    steps: Vec<Step>,
    #[arg(long, value_enum)]
    engine: EngineKind,
    /// Settings as JSON
    #[arg(long)]
    settings: String,
    #[arg(long)]
    dir: PathBuf,
}

impl SessionArgs {
    pub(super) fn run(&self) -> Result<()> {
        self.perform(Part::Session)
    }

    pub(super) fn fill_log(&self) -> Result<()> {
        self.perform(Part::FillLog)
    }

    pub(super) fn reopen(&self) -> Result<()> {
        self.perform(Part::Reopen)
    }

    /// Does a part with the engine, and says on standard output if it fails.
    fn perform(&self, part: Part) -> Result<()> {
        let settings =
            serde_json::from_str(&self.settings).map_err(|error| Error::Settings(format!("settings: {error}")))?;
        let mut out = std::io::stdout().lock();
        let work = Work { part, args: self, settings, out: &mut out };
        let answer = self.engine.run(work).flatten();
        if let Err(error) = &answer {
            session::print(&mut out, &Line::Failed(error.to_string()))?;
        }
        answer
    }
}

#[derive(Clone, Copy)]
enum Part {
    Session,
    FillLog,
    Reopen,
}

/// A part to do with the engine.
struct Work<'a, W> {
    part: Part,
    args: &'a SessionArgs,
    settings: Settings,
    out: &'a mut W,
}

impl<W: Write> EngineTask for Work<'_, W> {
    type Output = Result<()>;

    fn run<E: Engine>(self) -> Result<()> {
        let (settings, dir) = (&self.settings, &self.args.dir);
        match self.part {
            Part::Session => session::run::<E>(settings, &self.args.steps, dir, self.out),
            Part::FillLog => crash::fill_log::<E>(settings, dir, self.out),
            Part::Reopen => crash::reopen::<E>(settings, dir, self.out),
        }
    }
}
