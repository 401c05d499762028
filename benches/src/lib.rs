//! Benchmarks of siltstone.
//!
//! A *session* runs a list of steps, in order, on one engine, in a process and a directory of its own, and checks every
//! answer it gets. A *run* repeats the sessions of all engines in turn and reports medians; a *suite* is a named list of
//! sessions. An engine is added under [`engines`], a workload under [`workloads`]; neither knows the other. The engines
//! of others need the feature `peers`.
//!
//! The [`compaction`] suite runs or simulates compaction strategies under workloads of its own:
//!
//! ```sh
//! cargo run --release -p siltstone-benches -- compaction --quick
//! cargo run --release -p siltstone-benches -- compaction --check --keys 300000 --strategies leveled
//! cargo run --release -p siltstone-benches -- simulate --data-gib 10240 --passes 1 --workloads uniform --strategies leveled
//! ```
//!
//! The [`changelog`] suite measures shipping, restoring and following a log:
//!
//! ```sh
//! cargo run --release -p siltstone-benches -- changelog --keys 5000000 --repeat 3
//! ```

pub mod changelog;
pub mod cli;
pub mod compaction;
pub mod crash;
pub mod data;
pub mod engines;
pub mod error;
pub mod machine;
pub mod measure;
pub mod report;
pub mod run;
pub mod session;
pub mod settings;
pub mod step;
pub mod suites;
pub mod workloads;

pub use error::{Error, Result};
