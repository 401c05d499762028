//! The set of live tables, and its durable log.
//!
//! [`version`] is what reads and compactions look at: immutable levels. [`edit`] is one atomic change of them,
//! [`state`] the sum of such changes, [`manifest`] the file that keeps them. [`amplification`] counts what each level
//! cost.

pub(crate) mod amplification;
mod current;
pub(crate) mod edit;
mod fields;
mod keyspace_options;
pub(crate) mod manifest;
pub(crate) mod salvage;
pub(crate) mod set;
pub(crate) mod state;
#[expect(clippy::module_inception, reason = "a version is the concept, and the folder holds what belongs to it")]
pub(crate) mod version;

/// How many levels a tree has: 0 to 6, as in LevelDB.
pub(crate) const LEVELS: usize = 7;

/// The deepest level.
pub(crate) const LAST_LEVEL: usize = LEVELS - 1;
