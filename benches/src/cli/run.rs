//! `run`: workloads that are named by hand.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use crate::engines::EngineKind;
use crate::error::Result;
use crate::run::{self, Interrupt, Plan, Session};
use crate::settings::Settings;
use crate::step::Step;

use super::conclude;
use super::report::OutArgs;

#[derive(Debug, Args)]
pub(super) struct RunArgs {
    /// Which workloads, in order, separated by commas; readrandom:threads=2 and seekrandom:entries=100 differ from the
    /// settings below
    #[arg(value_delimiter = ',', required = true)]
    workloads: Vec<Step>,
    /// Which engines, in order, separated by commas
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [EngineKind::Siltstone, EngineKind::Floor])]
    engines: Vec<EngineKind>,
    #[command(flatten)]
    settings: Settings,
    #[command(flatten)]
    how: HowArgs,
}

/// What `run` and `peers` have in common.
#[derive(Debug, Args)]
pub(super) struct HowArgs {
    /// How often to run everything; the report has medians
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    repeat: u32,
    /// Where to make the stores' directories, which are removed again [default: the system's temporary directory]
    #[arg(long)]
    dir: Option<PathBuf>,
    /// Append what comes of each step to this file, as a line of JSON
    #[arg(long)]
    json: Option<PathBuf>,
    /// End a session that takes longer, in seconds
    #[arg(long, default_value_t = 7200, value_parser = clap::value_parser!(u64).range(1..))]
    session_limit: u64,
    #[command(flatten)]
    out: OutArgs,
}

impl HowArgs {
    /// Runs `sessions`, until they are done or the user wants to end, and prints how the engines compare.
    pub(super) fn execute(self, sessions: Vec<Session>) -> Result<()> {
        self.out.check()?;
        let plan = Plan {
            sessions,
            repeat: self.repeat,
            dir: self.dir.unwrap_or_else(std::env::temp_dir),
            json: self.json,
            session_limit: Duration::from_secs(self.session_limit),
        };
        conclude(run::run(&plan, &Interrupt::on_signals()?)?, &self.out)
    }
}

impl RunArgs {
    pub(super) fn execute(self) -> Result<()> {
        let sessions = vec![self.session()];
        self.how.execute(sessions)
    }

    pub(super) fn session(&self) -> Session {
        Session {
            suite: String::new(),
            name: String::new(),
            steps: self.workloads.clone(),
            settings: self.settings.clone(),
            engines: self.engines.clone(),
        }
    }
}
