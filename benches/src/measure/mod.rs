//! Measuring: latencies of operations, what the operating system accounts to the process, and both over time.

mod latency;
mod process;
mod sampler;
mod tally;

pub use latency::{Latencies, Recorder, SAMPLE_EVERY, Timing};
pub use process::{ProcessUsage, directory_bytes, thread_cpu_ns};
pub use sampler::{Sampler, Samples, Second};
pub use tally::{Counters, Kind, Tally};
