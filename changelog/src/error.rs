//! The one error type of the changelog.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use siltstone::SeqNo;

use crate::position::Position;

/// What every fallible call of the changelog answers with.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a call failed. Whoever writes a sink or a source of their own wraps its errors in [`Error::Foreign`].
///
/// ```
/// use siltstone_changelog::Error;
/// let timeout = std::io::Error::from(std::io::ErrorKind::TimedOut);
/// let error = Error::Foreign { source: Box::new(timeout), retryable: true };
/// assert!(error.is_retryable());
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The database failed.
    #[error(transparent)]
    Engine(#[from] siltstone::Error),
    /// The operating system refused.
    #[error("{}: {action}: {source}", path.display())]
    Io {
        /// What was being done.
        action: &'static str,
        /// On which file or directory.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// A file holds something that was never written there. Nothing that was read from that place has been served.
    #[error("{}: damaged at offset {offset}: {reason}", file.display())]
    Corruption {
        /// The damaged file.
        file: PathBuf,
        /// Where in the file, in bytes from its start.
        offset: u64,
        /// What does not fit.
        reason: String,
    },
    /// A file was written by a newer release than this one.
    #[error("{}: written by a newer release: {reason}", file.display())]
    UnsupportedVersion {
        /// The file.
        file: PathBuf,
        /// What this release does not know.
        reason: String,
    },
    /// Another sink, here or in another process, holds the directory.
    #[error("{}: locked by another sink", directory.display())]
    Locked {
        /// The sink's directory.
        directory: PathBuf,
    },
    /// Another writer has taken over the log: what was not acknowledged by then is not part of it, and this one can write
    /// no more.
    #[error("{log}: another writer has taken over the log")]
    Fenced {
        /// The log: a directory, or what the names of its topics begin with.
        log: String,
    },
    /// An argument is outside what is allowed; nothing was done.
    #[error("invalid argument: {0}")]
    InvalidArgument(String),
    /// A write is larger than a message of the log may be; nothing was written.
    #[error(
        "a write of {message_bytes} bytes, key and value together, where the log takes at most {max_message_bytes}"
    )]
    TooLarge {
        /// Key and value together, in bytes.
        message_bytes: usize,
        /// What is allowed.
        max_message_bytes: usize,
    },
    /// A restore was told to end; another run goes on from there.
    #[error("interrupted at position {position}")]
    Interrupted {
        /// How far it got.
        position: Position,
    },
    /// The source does not hold the position asked for.
    #[error("position {position} is outside the log, which goes from {oldest} to {newest}")]
    PositionOutOfRange {
        /// The position asked for.
        position: Position,
        /// The oldest position that can be read from.
        oldest: Position,
        /// The end of the log.
        newest: Position,
    },
    /// The database's log no longer holds what was not shipped yet: the sink was behind for too long.
    #[error(
        "sequence number {requested} was not shipped and is no longer in the database's log, whose oldest is {oldest}: \
         shipping can only start anew, from a snapshot of the database"
    )]
    NotRetained {
        /// The first sequence number that is missing in the sink.
        requested: SeqNo,
        /// The oldest sequence number that could still be shipped.
        oldest: SeqNo,
    },
    /// The log would not hold, or does not hold, the whole state of a database.
    #[error("the log begins at sequence number {first}, not at 1: it cannot restore the whole state ({hint})")]
    Partial {
        /// The first sequence number there is.
        first: SeqNo,
        /// What can be done about it.
        hint: &'static str,
    },
    /// The sink and the database do not belong together.
    #[error("the sink and the database do not belong together: {0}")]
    Mismatch(String),
    /// What is here cannot be brought up to date from the log: only a whole restore, into an empty directory, helps.
    #[error("{}: the state here is stale: {reason}", directory.display())]
    Stale {
        /// The directory.
        directory: PathBuf,
        /// Why it is of no use.
        reason: String,
    },
    /// A restore goes into an empty or missing directory only.
    #[error("{}: a restore needs an empty directory: {reason}", directory.display())]
    NotEmpty {
        /// The directory.
        directory: PathBuf,
        /// What was found there.
        reason: String,
    },
    /// Shipping ended with an error, which every later call reports.
    #[error("shipping has stopped: {0}")]
    Stopped(#[source] Arc<Error>),
    /// An error of a sink or source that is not part of this crate.
    #[error("{source}")]
    Foreign {
        /// What it said.
        source: Box<dyn std::error::Error + Send + Sync>,
        /// Whether the same call may succeed later.
        retryable: bool,
    },
}

impl Error {
    /// Whether the same call may succeed later without anybody repairing anything first: a foreign error that says so,
    /// and system calls that were interrupted, timed out or found the disk full.
    ///
    /// ```
    /// use siltstone_changelog::Error;
    /// assert!(!Error::InvalidArgument("no name".to_owned()).is_retryable());
    /// ```
    pub fn is_retryable(&self) -> bool {
        use io::ErrorKind::{Interrupted, QuotaExceeded, StorageFull, TimedOut, WouldBlock};
        match self {
            Error::Foreign { retryable, .. } => *retryable,
            Error::Io { source, .. } => {
                matches!(source.kind(), Interrupted | QuotaExceeded | StorageFull | TimedOut | WouldBlock)
            }
            _ => false,
        }
    }

    /// Wraps an I/O error with what was being done, for `map_err`.
    pub(crate) fn io<'a>(action: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> Self + 'a {
        move |source| Error::Io { action, path: path.to_owned(), source }
    }

    /// Damage at `offset` of `file`.
    pub(crate) fn corruption(file: &Path, offset: u64, reason: impl Into<String>) -> Self {
        Error::Corruption { file: file.to_owned(), offset, reason: reason.into() }
    }
}
