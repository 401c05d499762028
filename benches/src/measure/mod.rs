//! Measuring: latencies of sampled operations, and what the operating system accounts to the process.

mod latency;
mod process;

pub use latency::{Latencies, Recorder};
pub use process::{ProcessUsage, directory_bytes, thread_cpu_ns};
