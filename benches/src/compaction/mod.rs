//! The compaction suite: what each strategy costs under each workload, measured on the engine ([`measure`]) or simulated
//! at sizes that no machine here could hold ([`simulate`]), beside what the formula says ([`formula`]).
//!
//! Both write the same [`workload`]s and give the same [`outcome`]. Strategies are the engine's: see
//! [`siltstone::internals::strategy`]. [`check`] puts a run beside its simulation.

pub mod check;
pub mod command;
pub mod costs;
pub mod formula;
pub mod measure;
pub mod outcome;
pub mod report;
pub mod run;
pub mod scale;
pub mod schedule;
pub mod simulate;
pub mod workload;
