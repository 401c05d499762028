//! [`Error`]: why a benchmark ended without a figure.

use std::path::{Path, PathBuf};

/// Answers of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// Why a benchmark ended without a figure.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An engine refused or failed an operation.
    #[error("{engine}: {message}")]
    Engine {
        /// Its name.
        engine: &'static str,
        /// What it said.
        message: String,
    },
    /// An engine answered something that was not written.
    #[error("wrong answer: {0}")]
    WrongAnswer(String),
    /// A workload's time was over in the middle of a scan; the visitor ends it by this.
    #[error("the time is over")]
    Ended,
    /// A file that the benchmark itself uses.
    #[error("{}: {source}", path.display())]
    Io {
        /// Which file or directory.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// The settings cannot be run.
    #[error("{0}")]
    Settings(String),
    /// The user ended the run; what was measured by then has been reported.
    #[error("interrupted: the report is incomplete")]
    Interrupted,
    /// Sessions that failed, one a line; what the others measured has been reported.
    #[error("{} of the sessions failed:\n{}", .0.len(), .0.join("\n"))]
    Sessions(Vec<String>),
}

impl Error {
    /// Wraps what an engine said.
    pub fn engine(engine: &'static str, error: impl std::fmt::Display) -> Self {
        Error::Engine { engine, message: error.to_string() }
    }

    /// Names the file of an input or output error; for `map_err`.
    pub fn io(path: impl AsRef<Path>) -> impl FnOnce(std::io::Error) -> Error {
        let path = path.as_ref().to_owned();
        move |source| Error::Io { path, source }
    }
}
