//! What the tests across crates share: seeded operations, the model they are checked against, and what a crash may
//! leave of them.
//!
//! A test makes [`steps`] from a seed and runs them twice: through a [`runner`] that compares the engine with a model
//! after each, or as a [`workload`] on a filesystem that fails, whose [`history`] then says which states are allowed.
//! Everything here panics with the seed's description when the engine is wrong: these are assertions.

pub mod evidence;
pub mod faults;
pub mod history;
pub mod hook;
pub mod kill;
pub mod linearizability;
pub mod log;
pub mod options;
pub mod power_cut;
pub mod runner;
pub mod state;
pub mod steps;
pub mod workload;
