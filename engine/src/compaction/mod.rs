//! Compaction: which tables to merge, decided by pure functions of level metadata and options, and the merging.
//!
//! [`shape`] is what they look at, [`score`] says how urgent each level is, [`leveled`] picks for the background (the
//! table of a level by its [`order`]) and [`manual`] for a caller; all answer with a [`plan`]. A [`job`] carries one out,
//! [`output`] writes its tables, which [`cut`] ends, and [`retention`] alone decides what is kept of a key.

pub(crate) mod cut;
pub(crate) mod job;
mod level0;
pub(crate) mod leveled;
pub(crate) mod manual;
pub(crate) mod order;
pub(crate) mod output;
pub(crate) mod plan;
pub(crate) mod rate;
pub(crate) mod retention;
pub(crate) mod score;
pub(crate) mod shape;

#[cfg(test)]
mod simulation;
