//! A log in a directory of segment files: the embedded default.
//!
//! A segment holds the batches of a range of sequence numbers, and is named by it; the name says too which owner wrote
//! it, and, of one that compaction made, how often that was done. [`chain`] tells which of the files are the log: a
//! rewritten segment stands for all that lie within its range, and a later owner's first segment ends what earlier owners
//! wrote. So each change of the log is one rename. Only the last segment is written; the others are sealed: whole, and on
//! storage.
//!
//! After each sync the sink writes a *mark* behind what was synced. At the end of the last segment an unreadable record
//! with no mark behind it was torn by a crash and is not part of the log; with a mark behind it, it had been on storage
//! and is damaged. So a killed process leaves every acknowledged record under a mark; a power cut may take the very
//! last mark with it, but not what it spoke of. While an owner is alive, readers end at the last mark: what lies behind it
//! another owner might take over without.
//!
//! A sink puts the last segment that it finds into a new file before it goes on: after a failed sync what can be read
//! there may not be on storage, and no later sync of that file need change that.

mod chain;
mod cleaner;
mod compact;
mod format;
mod latest;
mod options;
mod owner;
mod plan;
mod reader;
mod recover;
mod segment;
mod sink;
mod source;

pub use cleaner::{CleanerStatus, Compacted, LogCleaner};
pub use options::FileSinkOptions;
pub use sink::FileSink;
pub use source::FileSource;
