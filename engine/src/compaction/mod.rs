//! Which tables to merge, decided by pure functions of level metadata and options.
//!
//! [`shape`] is what they look at, [`score`] says how urgent each level is, [`leveled`] picks for the background and [`manual`] for a caller;
//! all answer with a [`plan`].

mod level0;
pub(crate) mod leveled;
pub(crate) mod manual;
pub(crate) mod plan;
pub(crate) mod score;
pub(crate) mod shape;

#[cfg(test)]
mod simulation;
