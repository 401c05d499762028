//! Parts of the engine that this repository's own benchmarks and simulations look into. Only with the feature
//! `internals`.
//!
//! **Unstable**: anything here may change or go in any release. What is here adds nothing to the engine and checks less
//! than its public face does.

pub mod compaction;
pub mod parts;
pub mod reads;
pub mod strategy;
