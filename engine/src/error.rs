//! The one error type of the engine.

use std::io;
use std::path::{Path, PathBuf};

use crate::key::SeqNo;

/// What every fallible call of the engine answers with.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a call failed.
///
/// Errors are values: no public function panics on any argument or on-disk content.
///
/// ```
/// # let dir = tempfile::tempdir().unwrap();
/// let first = siltstone::Db::open(dir.path())?;
/// match siltstone::Db::open(dir.path()) {
///     Err(siltstone::Error::Locked { .. }) => {} // one owner at a time
///     other => panic!("{other:?}"),
/// }
/// # Ok::<(), siltstone::Error>(())
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file holds something that was never written there: a checksum, a length or a reference does
    /// not fit. Nothing that was read from that place has been served.
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
    #[error("{}: format version {found}, this release reads up to {supported}", file.display())]
    UnsupportedVersion {
        /// The file.
        file: PathBuf,
        /// The version it says it has.
        found: u32,
        /// The newest version this release reads.
        supported: u32,
    },
    /// Another handle, here or in another process, holds the directory.
    #[error("{}: locked by another owner", directory.display())]
    Locked {
        /// The database directory.
        directory: PathBuf,
    },
    /// The database takes no writes: it was opened read-only, or an earlier failure made it so.
    #[error("the database is read-only: {reason}")]
    ReadOnly {
        /// Why: `opened read-only`, or the failure that stopped writing.
        reason: String,
    },
    /// The database was closed.
    #[error("the database is closed")]
    Closed,
    /// A transaction met a write that came after it began.
    #[error("the transaction conflicts with a later write")]
    Conflict,
    /// The keyspace behind this handle was dropped.
    #[error("keyspace {name:?} was dropped")]
    KeyspaceDropped {
        /// Its name.
        name: String,
    },
    /// An argument is outside what is allowed; nothing was written.
    #[error("invalid argument: {0}")]
    InvalidArgument(String),
    /// The mutation log no longer holds the sequence number asked for: start from a snapshot.
    #[error("sequence number {requested} is no longer in the log; the oldest retained is {oldest}")]
    NotRetained {
        /// The sequence number asked for.
        requested: SeqNo,
        /// The oldest sequence number that can still be read.
        oldest: SeqNo,
    },
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
}

impl Error {
    /// Wraps an I/O error with what was being done, for `map_err`.
    pub(crate) fn io<'a>(action: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> Self + 'a {
        move |source| Error::Io { action, path: path.to_owned(), source }
    }

    /// Damage at `offset` of `file`.
    pub(crate) fn corruption(file: &Path, offset: u64, reason: impl Into<String>) -> Self {
        Error::Corruption { file: file.to_owned(), offset, reason: reason.into() }
    }
}
