//! What the tests across crates share: seeded operations, the model they are checked against, and what a crash may
//! leave of them.
//!
//! A test makes [`steps`] from a seed and runs them in [`metamorphic`] runs, where a [`runner`] has to answer what a
//! [`model`] answers under every one of many [`configurations`], or as a [`workload`] on a filesystem that fails, whose
//! [`history`] then says which states are allowed.
//! Everything here panics with the seed's description when the engine is wrong: these are assertions.

pub mod answer;
pub mod bounds;
pub mod configurations;
pub mod damage;
pub mod evidence;
pub mod faults;
pub mod history;
pub mod hook;
pub mod kill;
pub mod linearizability;
pub mod log;
pub mod metamorphic;
pub mod model;
pub mod options;
pub mod power_cut;
pub mod probes;
pub mod reduce;
pub mod runner;
pub mod soak;
pub mod source;
pub mod state;
pub mod steps;
pub mod task_life;
pub mod workload;
