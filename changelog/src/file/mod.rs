//! A log in a directory of segment files: the embedded default.
//!
//! `{position:020}.log`, named by the position of its first record. A position counts the bytes of records over all
//! segments, headers of segments left out, so that the end of one segment is the beginning of the next. Only the last
//! segment is written; the others are sealed: whole, and on storage.
//!
//! After each sync the sink writes a *mark* behind what was synced. At the end of the last segment an unreadable record
//! with no mark behind it was torn by a crash and is not part of the log; with a mark behind it, it had been on storage
//! and is damaged. So a killed process leaves every acknowledged record under a mark; a power cut may take the very
//! last mark with it, but not what it spoke of.
//!
//! A sink puts the last segment that it finds into a new file before it goes on: after a failed sync what can be read
//! there may not be on storage, and no later sync of that file need change that.

mod format;
mod reader;
mod sink;
mod source;

pub use sink::{FileSink, FileSinkOptions};
pub use source::FileSource;
