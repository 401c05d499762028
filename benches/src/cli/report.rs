//! `report`: what results files come to.

use std::fs::OpenOptions;
use std::path::PathBuf;

use clap::Args;

use crate::error::{Error, Result};
use crate::report::Report;

#[derive(Debug, Args)]
pub(super) struct ReportArgs {
    /// Files that `run` and `peers` wrote with --json; what was measured alike is brought together
    #[arg(required = true)]
    results: Vec<PathBuf>,
    #[command(flatten)]
    out: OutArgs,
}

/// Where a report goes, beside the terminal.
#[derive(Debug, Args)]
pub(super) struct OutArgs {
    /// Write the report into this file, as Markdown
    #[arg(long)]
    markdown: Option<PathBuf>,
    /// Write the report into this file, as a page of HTML with plots
    #[arg(long)]
    html: Option<PathBuf>,
}

impl ReportArgs {
    pub(super) fn execute(self) -> Result<()> {
        self.out.give(&Report::read(&self.results)?)
    }
}

impl OutArgs {
    /// Checks that the files can be written, before hours of measuring.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub(super) fn check(&self) -> Result<()> {
        for path in self.markdown.iter().chain(&self.html) {
            OpenOptions::new().append(true).create(true).open(path).map_err(Error::io(path))?;
        }
        Ok(())
    }

    /// Prints the report, and writes it into the files.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub(super) fn give(&self, report: &Report) -> Result<()> {
        println!("{report}");
        report.write(self.markdown.as_deref(), self.html.as_deref())
    }
}
