//! Parts of the engine that this repository's own benchmarks look into. **Unstable**: anything here may change or go in
//! any release; nothing else should use the feature `internals`.

pub mod compaction;
pub mod reads;
pub mod strategy;
