//! Reading: what a reader at one sequence number sees of memtables and tables together.

pub(crate) mod merge;
pub(crate) mod range;
pub(crate) mod snapshots;
pub(crate) mod view;
pub(crate) mod visible;

#[cfg(test)]
mod tests;
